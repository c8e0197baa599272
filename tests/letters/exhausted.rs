//! Events that were given up, as rows of their companies: listed, shown, sent again, closed.

use serde_json::{Value, json};
use shards::edge::pg::exhausted::{Exhausted, insert};
use shards::edge::pg::migrate::{self, Options};
use shards::id::SchemaName;

use crate::world::{SOURCE, World, letter};

const ODD: &[u8] = b"{ \"n\" : 1.0e2,\n\t\"s\":\"\\ud800\" , \"n\":2}";
const SUBJECT: &str = "v1.chats.update.ACME";

/// Gives events of a company up, in order; the rows count from 1.
pub(crate) fn give_up(world: &World, company: &str, events: &[(&str, &[u8])]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let url = world.stack.postgres.url();
        let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        let (client, connection) = connected.expect("PostgreSQL answers");
        tokio::spawn(connection);
        migrate::open(&client, company, &Options::default()).await.expect("migrated");
        let schema = SchemaName::of(company).expect("a company");
        for (number, (subject, body)) in events.iter().enumerate() {
            let mut text = bytes::BytesMut::new();
            let letter = letter(subject, company, body);
            shards::domain::cdc::write_dlq_payload(&letter, usize::MAX, &mut text);
            let event = Exhausted {
                letter_id: &format!("dlq_stream:{number}:1"),
                company,
                source_subject: subject,
                last_error: "fatal: chat not found",
                retry_count: 5,
                event_timestamp: Some(letter.dead_lettered_at),
                letter: &text,
                original: Some(body),
            };
            assert!(insert(&client, &schema, &event).await.expect("inserted").is_some());
        }
    });
}

fn ids(rows: &[Value]) -> Vec<(&str, i64)> {
    rows.iter().map(|row| (row["company"].as_str().unwrap(), row["id"].as_i64().unwrap())).collect()
}

#[test]
fn rows_are_listed_and_shown_by_company_and_filter() {
    let world = World::with_postgres();
    give_up(&world, "ACME", &[(SUBJECT, ODD), ("v1.messages.upsert.ACME", b"\x1bno json")]);
    give_up(&world, "Beta", &[("v1.chats.update.Beta", b"{}")]);
    let list = |args: &[&str]| world.json(&[&["exhausted", "list", "--json"], args].concat());
    for (args, expected) in [
        (&["--company", "ACME"][..], &[("ACME", 2), ("ACME", 1)][..]),
        (&["--all"], &[("ACME", 2), ("ACME", 1), ("Beta", 1)]),
        (&["--all", "--limit", "2"], &[("ACME", 2), ("ACME", 1)]),
        (&["--all", "--subject", "v1.chats.*.*"], &[("ACME", 1), ("Beta", 1)]),
        (&["--all", "--class", "bad_json", "--subject", "v1.messages.>"], &[("ACME", 2)]),
        (&["--all", "--class", "retryable"], &[]),
        (&["--all", "--older", "1h", "--company", "Beta"], &[("Beta", 1)]),
        (&["--all", "--newer", "1h"], &[]),
    ] {
        assert_eq!(ids(&list(args)), expected, "{args:?}");
    }
    let mut row = list(&["--company", "Beta"]).remove(0);
    assert!(row["created_at"].take().is_string());
    assert_eq!(
        row,
        json!({
            "company": "Beta", "id": 1, "created_at": null, "source_subject": "v1.chats.update.Beta",
            "error_type": "fatal", "reason": "bad_json", "last_error": "fatal: chat not found",
            "retry_count": 5, "event_timestamp": "2026-01-02T03:04:05.678000Z", "resolved": false,
        })
    );
    let text = world.ok(&["exhausted", "list", "--all"]);
    assert!(
        text.lines().count() == 3 && text.contains("open") && !text.contains('\u{1b}'),
        "{text}"
    );
    let shown = world.ok(&["exhausted", "show", "--company", "ACME", "1", "2"]);
    assert!(shown.contains(std::str::from_utf8(ODD).unwrap()), "{shown}");
    assert!(shown.contains("\\u{1b}no json"), "{shown}");
    let rows = world.json(&["exhausted", "show", "--company", "ACME", "1", "--json"]);
    assert_eq!(rows[0]["original"].as_str().unwrap().as_bytes(), ODD);
    assert_eq!((&rows[0]["stream"], &rows[0]["stream_sequence"]), (&json!(SOURCE), &json!(41)));
    for (args, why) in [
        (&["exhausted", "show", "--company", "ACME", "9"][..], "no exhausted event 9"),
        (&["exhausted", "list", "--company", "Nobody"], "is it spelt right, and migrated?"),
    ] {
        let answer = world.run(args);
        assert!(answer.code == Some(1) && answer.err.contains(why), "{answer:?}");
    }
    for args in [&["exhausted", "list"][..], &["exhausted", "retry", "--all", "1"]] {
        assert_eq!(world.run(args).code, Some(2), "{args:?}");
    }
    assert_eq!(world.run(&["exhausted", "retry", "--company", "ACME"]).code, Some(2));
}

#[test]
fn a_retry_sends_the_bytes_and_closes_the_row_with_the_id_in_its_notes() {
    let world = World::with_postgres();
    give_up(&world, "ACME", &[(SUBJECT, ODD), (SUBJECT, b"\xff\x00 no json"), (SUBJECT, b"{}")]);
    let told = world.ok(&["exhausted", "retry", "--company", "ACME", "--all", "--dry-run"]);
    assert_eq!(told.lines().next(), Some("would retry ACME 1: v1.chats.update.ACME"));
    let refused = world.run(&["exhausted", "retry", "--company", "ACME", "1", "2"]);
    assert!(refused.code == Some(2) && refused.err.contains("say --yes"), "{refused:?}");
    assert!(world.read(SOURCE).is_empty());
    let retry = ["exhausted", "retry", "--company", "ACME", "1", "2", "--yes", "--json"];
    let done = world.json(&retry);
    assert_eq!(
        done[0],
        json!({
            "company": "ACME", "id": 1, "source_subject": SUBJECT, "done": "retried",
            "message_id": "replay:ACME:1:1", "stream": SOURCE, "stream_sequence": 1,
        })
    );
    let sent = world.read(SOURCE);
    assert_eq!(sent[0].body, ODD);
    assert_eq!(sent[1].body, b"\xff\x00 no json");
    assert_eq!(
        sent[0].headers[..3],
        [
            ("Nats-Msg-Id", "replay:ACME:1:1".to_owned()),
            ("Daisi-Original-Stream", SOURCE.to_owned()),
            ("Daisi-Original-Sequence", "41".to_owned()),
        ]
    );
    let rows = world.json(&["exhausted", "list", "--company", "ACME", "--resolved", "--json"]);
    assert_eq!(ids(&rows), [("ACME", 3), ("ACME", 2), ("ACME", 1)]);
    assert_eq!(rows[2]["notes"], format!("replayed as replay:ACME:1:1 to {SOURCE} 1"));
    assert!(rows[2]["resolved"] == true && rows[2]["resolved_at"].is_string());
    let again = world.run(&retry);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("exhausted event 1 of ACME: is resolved already"), "{again:?}");
    assert_eq!(world.read(SOURCE).len(), 2);
    // Opened again by hand, the event goes out under the next id.
    let open = "UPDATE daisi_acme.exhausted_events SET resolved = false WHERE id = 1";
    world.stack.postgres.psql(open).expect("opened");
    let done = world.json(&["exhausted", "retry", "--all", "--limit", "1", "--json"]);
    assert_eq!(done[0]["message_id"], "replay:ACME:1:2");
    assert_eq!(world.read(SOURCE).len(), 3);
}

#[test]
fn rows_of_the_first_service_and_unreadable_ones_are_told_apart() {
    let world = World::with_postgres();
    give_up(&world, "ACME", &[]);
    let rows = "INSERT INTO daisi_acme.exhausted_events \
        (created_at, company_id, source_subject, dlq_payload, original_payload, resolved) VALUES \
        (now(), 'ACME', 'v1.chats.update.ACME', \
         '{\"source_subject\":\"v1.chats.update.ACME\",\"company\":\"ACME\",\"original_payload\":{\"chat_id\":\"c\"}}', \
         '{\"chat_id\":\"c\"}', false), \
        (now(), 'ACME', 'v1.dlq.ACME', '{\"letter_base64\":\"eA==\"}', NULL, false), \
        (now(), 'ACME', 'v1.chats.update.BETA', \
         '{\"source_subject\":\"v1.chats.update.BETA\",\"company\":\"BETA\",\"original_payload\":1}', '1', false)";
    world.stack.postgres.psql(rows).expect("rows");
    let mixed = world.run(&["exhausted", "retry", "--all", "--yes"]);
    assert_eq!(mixed.code, Some(1));
    assert_eq!(mixed.out, format!("retried ACME 1: {SUBJECT} -> {SOURCE} 1\n"));
    assert!(mixed.err.contains("exhausted event 2 of ACME: no dead letter:"), "{mixed:?}");
    assert_eq!(world.read(SOURCE)[0].body, b"{\"chat_id\": \"c\"}");
    let left = world.json(&["exhausted", "list", "--all", "--json"]);
    assert!(
        mixed.err.contains("of ACME: its letter says that it is of company \"BETA\""),
        "{mixed:?}"
    );
    assert_eq!(ids(&left), [("ACME", 3), ("ACME", 2)]);
}

#[test]
fn a_row_stays_open_while_its_event_has_no_puback() {
    let mut world = World::with_postgres();
    give_up(&world, "ACME", &[("nobody.listens", b"{}"), (SUBJECT, b"{}")]);
    let refused = world.run(&["exhausted", "retry", "--company", "ACME", "1"]);
    assert!(refused.code == Some(1) && refused.err.contains("no stream takes"), "{refused:?}");
    world.stack.nats.kill();
    let away = world.run(&["exhausted", "retry", "--company", "ACME", "2"]);
    assert!(away.code == Some(1) && away.err.contains("NATS"), "{away:?}");
    // What asks PostgreSQL alone goes on.
    let left = world.json(&["exhausted", "list", "--all", "--json"]);
    assert_eq!(ids(&left), [("ACME", 2), ("ACME", 1)]);
}

#[test]
fn closing_needs_a_note_and_keeps_to_what_is_meant() {
    let world = World::with_postgres();
    give_up(&world, "ACME", &[(SUBJECT, b"{}"), (SUBJECT, b"{}"), ("v1.messages.x.ACME", b"{}")]);
    let resolve = |args: &[&str]| world.run(&[&["exhausted", "resolve"], args].concat());
    let unexplained = resolve(&["--company", "ACME", "1"]);
    assert!(unexplained.code == Some(2) && unexplained.err.contains("--note"), "{unexplained:?}");
    let dry = resolve(&["--company", "ACME", "1", "--note", "n", "--dry-run"]);
    assert_eq!((dry.code, dry.out.as_str()), (Some(0), "would resolve ACME 1\n"));
    let one = resolve(&["--company", "ACME", "1", "--note", "a later one came"]);
    assert_eq!((one.code, one.out.as_str()), (Some(0), "resolved ACME 1\n"));
    let twice = resolve(&["--company", "ACME", "1", "--note", "again"]);
    assert!(twice.code == Some(1) && twice.err.contains("resolved already"), "{twice:?}");
    let rest = ["--all", "--subject", "v1.chats.>", "--note", "old", "--json"];
    let done = resolve(&rest);
    assert_eq!(done.out, "{\"company\":\"ACME\",\"id\":2,\"done\":\"resolved\"}\n");
    let rows = world.json(&["exhausted", "list", "--all", "--resolved", "--json"]);
    let notes: Vec<_> =
        rows.iter().map(|row| (row["id"].as_i64(), row["notes"].as_str())).collect();
    let expected = [(Some(3), None), (Some(2), Some("old")), (Some(1), Some("a later one came"))];
    assert_eq!(notes, expected);
    assert!(world.read(SOURCE).is_empty());
}
