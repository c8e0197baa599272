//! Events that are given up: a row a letter, whatever the letter holds; found by filters, closed once.

use std::time::Duration;

use shards::edge::pg::exhausted::{Exhausted, Filter, PAGE_ROWS_MAX, insert, list, resolve, show};
use shards::edge::pg::migrate::{self, Options};
use shards::id::SchemaName;
use tokio_postgres::Client;

use crate::world::{ask, connect, run};

const LETTER: &str = r#"{"source_subject":"v1.chats.update.ACME","company":"ACME","original_payload":{ "b":1.0e1, "a":2 },"error":"fatal: chat not found","error_type":"fatal","reason":"not_found","retry_count":1,"max_retry":5,"ts":"2026-01-02T03:04:05.678Z"}"#;

async fn schema(client: &Client, company: &str) -> SchemaName {
    migrate::open(client, company, &Options::default()).await.expect("migrated");
    SchemaName::of(company).expect("a company")
}

fn event<'a>(id: &'a str, letter: &'a [u8]) -> Exhausted<'a> {
    Exhausted {
        letter_id: id,
        company: "ACME",
        source_subject: "v1.chats.update.ACME",
        last_error: "fatal: chat not found",
        retry_count: 5,
        event_timestamp: Some("2026-01-02T03:04:05.678Z"),
        letter,
        original: Some(br#"{ "b":1.0e1, "a":2 }"#),
    }
}

async fn ids(client: &Client, schema: &SchemaName, filter: &Filter) -> Vec<i64> {
    let rows = list(client, schema, filter, i64::MAX).await.expect("a list");
    rows.iter().map(|row| row.id).collect()
}

#[test]
fn a_letter_has_one_row_however_often_it_is_given_up() {
    run(async {
        let client = connect().await;
        let schema = schema(&client, "Once").await;
        let given = event("dlq_stream:7:9", LETTER.as_bytes());
        assert_eq!(insert(&client, &schema, &given).await.expect("inserted"), Some(1));
        assert_eq!(insert(&client, &schema, &given).await.expect("no error"), None);
        let opaque = Exhausted { letter: b"\xff", ..given };
        assert_eq!(insert(&client, &schema, &opaque).await.expect("no error"), None);
        let other = event("dlq_stream:8:9", LETTER.as_bytes());
        let second = insert(&client, &schema, &other).await.expect("inserted").expect("a row");
        assert_eq!(ids(&client, &schema, &Filter::default()).await, [second, 1]);
        let values = "SELECT company_id, source_subject, last_error, retry_count, \
            event_timestamp AT TIME ZONE 'UTC', original_payload, resolved, resolved_at, notes, \
            dlq_payload->>'error', dlq_payload->>'daisi_letter', \
            convert_from(decode(dlq_payload->>'original_payload_base64', 'base64'), 'UTF8'), \
            created_at > now() - interval '1 minute' FROM daisi_once.exhausted_events WHERE id = 1";
        assert_eq!(
            ask(&client, values).await,
            "ACME|v1.chats.update.ACME|fatal: chat not found|5|2026-01-02 03:04:05.678|\
             {\"a\": 2, \"b\": 10}|f|-|-|fatal: chat not found|dlq_stream:7:9|{ \"b\":1.0e1, \"a\":2 }|t"
        );
    });
}

#[test]
fn whatever_a_letter_holds_it_has_a_row_with_its_bytes() {
    run(async {
        let client = connect().await;
        let schema = schema(&client, "Whatever").await;
        let deep =
            format!("{{\"original_payload\":{}1{}}}", "[".repeat(60_000), "]".repeat(60_000));
        let letters: [&[u8]; 7] = [
            b"\xff\x00no letter",
            b"",
            b"[1,2]",
            br#"{"error":"a\u0000b"}"#,
            br#"{"error":"\ud800"}"#,
            br#"{"n":1e999999}"#,
            deep.as_bytes(),
        ];
        for (at, letter) in letters.iter().enumerate() {
            let id = format!("s:{at}:1");
            let given = Exhausted {
                original: None,
                event_timestamp: (at % 2 == 0).then_some("no time at all"),
                source_subject: "v1.dlq.\0",
                last_error: "NUL \0",
                ..event(&id, letter)
            };
            let row = insert(&client, &schema, &given).await.expect("inserted").expect("a row");
            let bytes = format!(
                "SELECT decode(dlq_payload->>'letter_base64', 'base64') = '\\x{}'::bytea, \
                 dlq_payload->>'daisi_letter' FROM daisi_whatever.exhausted_events WHERE id = {row}",
                letter.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            );
            assert_eq!(ask(&client, &bytes).await, format!("t|{id}"), "{at}");
            assert_eq!(insert(&client, &schema, &given).await.expect("no error"), None);
        }
    });
}

#[test]
fn an_event_that_jsonb_refuses_costs_the_letter_no_other_member() {
    run(async {
        let client = connect().await;
        let schema = schema(&client, "Refused").await;
        for (at, body) in
            [r#"{"a":"\u0000"}"#, r#"{"a":"\ud800"}"#, r#"[1e999999]"#].iter().enumerate()
        {
            let letter = LETTER.replace(r#"{ "b":1.0e1, "a":2 }"#, body);
            let id = format!("s:{at}:1");
            let given =
                Exhausted { original: Some(body.as_bytes()), ..event(&id, letter.as_bytes()) };
            let row = insert(&client, &schema, &given).await.expect("inserted").expect("a row");
            let values = format!(
                "SELECT dlq_payload->>'reason', original_payload, dlq_payload ? 'letter_base64', \
                 convert_from(decode(dlq_payload->>'original_payload_base64', 'base64'), 'UTF8'), \
                 event_timestamp IS NOT NULL FROM daisi_refused.exhausted_events WHERE id = {row}"
            );
            assert_eq!(ask(&client, &values).await, format!("not_found|-|f|{body}|t"));
        }
    });
}

#[test]
fn filters_find_rows_and_closing_them_keeps_what_was_noted() {
    run(async {
        let client = connect().await;
        let schema = schema(&client, "Filters").await;
        // Rows of the first service beside ours: no name, no error type, a note.
        let rows = "INSERT INTO daisi_filters.exhausted_events \
            (created_at, company_id, source_subject, event_timestamp, dlq_payload, resolved, notes) VALUES \
            (now(), 'Filters', 'v1.chats.upsert.Filters', now() - interval '3 days', '{\"error_type\":\"fatal\"}', false, 'seen'), \
            (now(), 'Filters', 'v1.messages.update.Filters', now() - interval '1 hour', '{\"error_type\":\"retryable\"}', NULL, NULL), \
            (now(), 'Filters', 'v1xchats.upsert.Filters', NULL, '{\"error_type\":\"fatal\",\"reason\":\"bad_json\"}', true, NULL)";
        client.batch_execute(rows).await.expect("rows");
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let filter = Filter::default;
        let subject = |text: &str| Filter { subject: Some(text.to_owned()), ..filter() };
        let class = |text: &str| Filter { classes: Some(vec![text.to_owned()]), ..filter() };
        for (filter, expected) in [
            (filter(), &[2, 1][..]),
            (Filter { resolved: true, ..filter() }, &[3, 2, 1]),
            (Filter { resolved: true, ..subject("v1.chats.>") }, &[1]),
            (subject("v1.*.*.Filters"), &[2, 1]),
            (subject("v1.chats"), &[]),
            (class("fatal"), &[1]),
            (Filter { resolved: true, ..class("bad_json") }, &[3]),
            (Filter { older: hours(24), ..filter() }, &[1]),
            (Filter { newer: hours(24), ..filter() }, &[2]),
            (Filter { newer: hours(24), older: hours(2), ..filter() }, &[]),
            (Filter { newer: hours(1), resolved: true, ..filter() }, &[3]),
        ] {
            assert_eq!(ids(&client, &schema, &filter).await, expected, "{filter:?}");
        }
        assert!(resolve(&client, &schema, 1, "done\0").await.expect("resolved"));
        assert!(!resolve(&client, &schema, 1, "again").await.expect("no error"));
        assert!(!resolve(&client, &schema, 99, "nobody").await.expect("no error"));
        let shown = show(&client, &schema, 1).await.expect("a row").expect("there");
        assert_eq!(shown.listed.notes.as_deref(), Some("seen\ndone\u{fffd}"));
        assert!(shown.listed.resolved && shown.listed.resolved_at.is_some());
        assert_eq!(show(&client, &schema, 99).await.expect("no error"), None);
        assert_eq!(ids(&client, &schema, &filter()).await, [2]);
    });
}

#[test]
fn a_list_comes_in_pages() {
    run(async {
        let client = connect().await;
        let schema = schema(&client, "Pages").await;
        let rows = format!(
            "INSERT INTO daisi_pages.exhausted_events (company_id, source_subject, dlq_payload) \
             SELECT 'Pages', 's', '{{}}' FROM generate_series(1, {})",
            PAGE_ROWS_MAX + 7
        );
        client.batch_execute(&rows).await.expect("rows");
        let first = list(&client, &schema, &Filter::default(), i64::MAX).await.expect("a page");
        assert_eq!(first.len(), PAGE_ROWS_MAX);
        let before = first.last().expect("a row").id;
        let second = list(&client, &schema, &Filter::default(), before).await.expect("a page");
        assert_eq!((second.len(), before), (7, 8));
    });
}
