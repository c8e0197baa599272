//! What events become: rows of their company, and dead letters of what cannot be one.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack};
use serde_json::{Value, json};

use crate::change::message;
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, OUTPUT, SHORT_LEASE, SOON, Server, World, eventually};

on_each_server!(every_kind_of_event_becomes_its_rows);

on_the_installed_server!(
    what_is_refused_is_a_letter_with_path_rule_and_every_byte,
    a_company_that_is_none_reaches_no_schema,
    companies_live_in_schemas_of_their_own,
    streams_that_exist_keep_what_the_operator_chose,
    both_stages_run_side_by_side,
    a_post_scan_that_is_due_is_done_and_months_ahead_are_made,
);

/// An event of each kind, in an order in which each finds what it needs.
const SAMPLES: [(&str, &str); 10] = [
    (
        "connection.update",
        r#"{"agent_id":"ag-1","company_id":"ACME","status":"connected","agent_name":"Front desk","host_name":"node-3","version":"2.4.0","phone_number":"6281900001"}"#,
    ),
    (
        "chats.upsert",
        r#"{"chat_id":"chat-17","jid":"6281100022@s.whatsapp.net","company_id":"ACME","agent_id":"ag-1","phone_number":"6281100022","push_name":"Sari","unread_count":2,"conversation_timestamp":1735700000,"last_message":{"text":"hi","n":9007199254740993}}"#,
    ),
    (
        "chats.update",
        r#"{"chat_id":"chat-17","company_id":"ACME","agent_id":"ag-1","unread_count":1,"conversation_timestamp":1735700050}"#,
    ),
    (
        "messages.upsert",
        r#"{"message_id":"m-9","chat_id":"chat-17","jid":"6281100022@s.whatsapp.net","flow":"IN","company_id":"ACME","agent_id":"ag-1","from_phone":"+62 811-00022","to_phone":"6281900001","key":{"id":"K9","fromMe":false},"message_type":"conversation","message_text":"hi","message_obj":{"conversation":"hi"},"status":"delivered","message_timestamp":1735700050,"campaign":{"is_campaign":true,"tags":"promo,jan","assigned_to":"u-4","origin":"Ads"}}"#,
    ),
    (
        "messages.update",
        r#"{"message_id":"m-9","company_id":"ACME","status":"read","edited_message_obj":{"conversation":"hello"}}"#,
    ),
    (
        "contacts.upsert",
        r#"{"phone_number":"62999","company_id":"ACME","agent_id":"ag-1","push_name":"Budi","chat_id":"chat-18"}"#,
    ),
    (
        "contacts.update",
        r#"{"phone_number":"62999","company_id":"ACME","agent_id":"ag-1","push_name":"Budi W."}"#,
    ),
    (
        "history.chats",
        r#"{"chats":[{"chat_id":"chat-20","jid":"j","company_id":"ACME","agent_id":"ag-1","phone_number":"6200","unread_count":0}]}"#,
    ),
    (
        "history.messages",
        r#"{"messages":[{"message_id":"h-1","chat_id":"chat-17","jid":"j","flow":"IN","company_id":"ACME","agent_id":"ag-1","status":"read","message_timestamp":1735000000}],"is_last_batch":true,"agent_id":"ag-1"}"#,
    ),
    (
        "history.contacts",
        r#"{"contacts":[{"chat_id":"chat-21","phone_number":"6277","company_id":"ACME","agent_id":"ag-1","push_name":"Tia"}]}"#,
    ),
];

fn every_kind_of_event_becomes_its_rows(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    for (base, body) in SAMPLES {
        world.put_bytes(&format!("v1.{base}.ACME"), body.as_bytes());
    }
    let metrics = daisi.ingested(10, SOON);
    assert_eq!(metrics.ingest("", "processed"), 10);
    for (base, _) in SAMPLES {
        assert_eq!(metrics.ingest(base, "processed"), 1, "{base}");
    }
    for (sql, rows) in [
        (
            "SELECT agent_id, status, agent_name, host_name, version, phone_number FROM daisi_acme.agents",
            "ag-1|connected|Front desk|node-3|2.4.0|6281900001",
        ),
        (
            "SELECT chat_id, unread_count, conversation_timestamp, last_message FROM daisi_acme.chats ORDER BY 1",
            "chat-17|3|1735700050|{\"n\": 9007199254740993, \"text\": \"hi\"}\nchat-20|0|0|",
        ),
        (
            "SELECT message_id, message_date, status, message_text, edited_message_obj, company_id \
             FROM daisi_acme.messages ORDER BY 1",
            "h-1|2024-12-24|read|||ACME\nm-9|2025-01-01|read|hi|{\"conversation\": \"hello\"}|ACME",
        ),
        (
            "SELECT phone_number, push_name, chat_id, origin, tags FROM daisi_acme.contacts ORDER BY phone_number COLLATE \"C\"",
            "6277|Tia|chat-21||\n62811-00022||chat-17|Ads|promo,jan\n62999|Budi W.|chat-18||",
        ),
        ("SELECT message_id, phone_number FROM daisi_acme.onboarding_log", "m-9|62811-00022"),
        (
            "SELECT last_metadata->>'stream', last_metadata->>'stream_sequence', \
             last_metadata->>'consumer', last_metadata->>'message_subject' FROM daisi_acme.agents",
            "wa_events_stream|1|daisi_ingest|v1.connection.update.ACME",
        ),
    ] {
        assert_eq!(world.sql(sql), rows, "{sql}");
    }
}

/// Every invalid example of the schemas, as subject and body.
fn refused() -> Vec<(String, Vec<u8>)> {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut all = Vec::new();
    for stream in ["wa_events_stream", "wa_history_events_stream"] {
        for kind in fs::read_dir(schemas.join(stream)).unwrap() {
            let folder = kind.unwrap().path().join("invalid");
            let Ok(examples) = fs::read_dir(&folder) else { continue };
            let kind = folder.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
            let subject = format!("v1.{}.ACME", kind.trim_end_matches(".v1"));
            let bodies = examples.map(|file| fs::read(file.unwrap().path()).unwrap());
            all.extend(bodies.map(|body| (subject.clone(), body)));
        }
    }
    all
}

fn what_is_refused_is_a_letter_with_path_rule_and_every_byte(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let refused = refused();
    assert!(refused.len() > 200, "{}", refused.len());
    let mut client = world.client();
    for (subject, body) in &refused {
        crate::world::put_one(&mut client, subject, body);
    }
    let count = refused.len() as u64;
    let metrics = daisi.ingested(count, SOON);
    assert_eq!(metrics.ingest("", "dead_lettered"), count);
    assert_eq!(metrics.sum("daisi_ingest_refusals_total", &[]), count);
    let letters = world.await_letters(DEAD, count);
    assert_eq!(letters.len(), refused.len(), "one letter each");
    for letter in &letters {
        assert_eq!(letter.subject, "v1.dlq.ACME");
        let fields = letter.json();
        let (stream, sequence) = (&fields["stream"], fields["stream_sequence"].as_u64().unwrap());
        let subject = fields["source_subject"].as_str().unwrap();
        // The letter's event, as the stream has it.
        let at = refused
            .iter()
            .filter(|(other, _)| subject.contains(".history.") == other.contains(".history."))
            .nth(usize::try_from(sequence).unwrap() - 1);
        let (expected, body) = at.unwrap();
        assert_eq!(subject, expected);
        let replayed = match fields["original_payload_base64"].as_str() {
            Some(text) => STANDARD.decode(text).unwrap(),
            None => {
                let text = std::str::from_utf8(body).unwrap().trim_ascii();
                assert!(letter.text().contains(text), "{}\n{text}", letter.text());
                body.clone()
            }
        };
        assert_eq!(&replayed, body);
        let error = fields["error"].as_str().unwrap();
        assert!(error.starts_with("fatal: validate: ") && error.contains("rule "), "{error}");
        assert_eq!((&fields["error_type"], &fields["company"]), (&json!("fatal"), &json!("ACME")));
        assert_eq!(fields["retry_count"], 1);
        let id = letter.header("Nats-Msg-Id").unwrap();
        let prefix = format!("dlq:{}:{sequence}:", stream.as_str().unwrap());
        assert!(id.starts_with(&prefix), "{id} {prefix}");
        assert_eq!(letter.header("Daisi-Stage").as_deref(), Some("ingest"));
        assert_eq!(letter.header("Daisi-Reason"), fields["reason"].as_str().map(str::to_owned));
    }
    let worded = |reason: &str, path: &str| {
        letters.iter().map(|letter| letter.json()).any(|letter| {
            letter["reason"] == reason && letter["error"].as_str().unwrap().contains(path)
        })
    };
    for (reason, path) in [
        ("missing", "/chat_id"),
        ("wrong_type", "/unread_count"),
        ("company_mismatch", "/company_id"),
        ("bad_json", "at offset"),
    ] {
        assert!(worded(reason, path), "{reason} {path}");
    }
    // Nothing of it got so far as to make a schema.
    assert_eq!(world.sql("SELECT to_regnamespace('daisi_acme') IS NULL"), "t");
}

fn a_company_that_is_none_reaches_no_schema(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let long = "a".repeat(49);
    let names = [long.as_str(), "a'b", "a\"b", "é", "a%b"];
    for name in names {
        world.put_bytes(&format!("v1.chats.upsert.{name}"), br#"{"chat_id":"c"}"#);
    }
    world.put_bytes("v1.chats.upsert.ACME", SAMPLES[1].1.as_bytes());
    let metrics = daisi.ingested(6, SOON);
    assert_eq!(metrics.sum("daisi_ingest_refusals_total", &[("reason", "bad_company")]), 5);
    assert_eq!(metrics.ingest("chats.upsert", "processed"), 1);
    for letter in world.await_letters(DEAD, 5) {
        assert_eq!(letter.subject, "v1.dlq._unknown");
        assert_eq!(letter.json()["reason"], "bad_company");
    }
    assert_eq!(
        world.sql("SELECT string_agg(nspname, ' ') FROM pg_namespace WHERE nspname LIKE 'daisi%'"),
        "daisi_acme"
    );
}

fn companies_live_in_schemas_of_their_own(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[("companies", "One,Two")]);
    daisi.ready(READY_MAX);
    for company in ["One", "Two", "Three"] {
        let body = format!(
            r#"{{"chat_id":"c","jid":"j","company_id":"{company}","agent_id":"a","phone_number":"1","push_name":"{company}"}}"#
        );
        world.put_bytes(&format!("v1.chats.upsert.{company}"), body.as_bytes());
    }
    // The company of the payload is not that of the subject.
    let foreign = r#"{"chat_id":"c","company_id":"Two","agent_id":"a","unread_count":9}"#;
    world.put_bytes("v1.chats.update.One", foreign.as_bytes());
    let metrics = daisi.ingested(4, SOON);
    let results =
        ["processed", "skipped", "dead_lettered"].map(|result| metrics.ingest("", result));
    assert_eq!(results, [2, 1, 1]);
    for company in ["One", "Two"] {
        let schema = format!("daisi_{}", company.to_lowercase());
        let found =
            world.sql(&format!("SELECT push_name, company_id, unread_count FROM {schema}.chats"));
        assert_eq!(found, format!("{company}|{company}|0"));
    }
    assert_eq!(world.sql("SELECT to_regnamespace('daisi_three') IS NULL"), "t");
}

fn streams_that_exist_keep_what_the_operator_chose(server: Server) {
    let world = World::ingesting(server);
    let create = |name: &str, subjects: Value, retention: &str| {
        let config = json!({
            "name": name, "subjects": subjects, "retention": retention, "storage": "file",
            "max_msgs": 12_345, "max_age": 3_600_000_000_000_u64, "num_replicas": 1, "discard": "old",
        });
        world.client().jetstream(&format!("STREAM.CREATE.{name}"), &config).unwrap();
    };
    create("wa_history_events_stream", json!(["v1.history.*.*"]), "interest");
    create("wa_events_stream", json!(["v1.chats.upsert.*", "v1.other.*"]), "limits");
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let found = world.stream_config("wa_events_stream");
    let subjects: Vec<&str> =
        found["subjects"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((found["max_msgs"].as_u64(), subjects.len()), (Some(12_345), 8), "{found}");
    assert!(subjects.contains(&"v1.other.*") && subjects.contains(&"v1.connection.update.*"));
    let history = world.stream_config("wa_history_events_stream");
    assert_eq!(
        (&history["retention"], &history["subjects"]),
        (&json!("interest"), &json!(["v1.history.*.*"]))
    );
    world.put_bytes("v1.history.chats.ACME", SAMPLES[7].1.as_bytes());
    assert_eq!(daisi.ingested(1, SOON).ingest("history.chats", "processed"), 1);
    let consumer = world.consumer_info("wa_events_stream", "daisi_ingest");
    assert_eq!(consumer["config"]["deliver_policy"], "all");
    assert_eq!(consumer["config"]["ack_policy"], "all");
}

fn both_stages_run_side_by_side(server: Server) {
    assert_eq!(server, Server::Installed);
    let stack = Stack::builder()
        .nats(NatsOptions::default())
        .redis(RedisOptions::default())
        .postgres(PostgresOptions::default())
        .start()
        .unwrap();
    let mut world = World::of(stack);
    let daisi = Daisi::spawn(&world, &[("stages", "ingest,cdc"), ("metrics.companies", "5")]);
    daisi.ready(READY_MAX);
    world.put_bytes("v1.connection.update.ACME", SAMPLES[0].1.as_bytes());
    world.put(&[message("ACME", "m-1", 1)]);
    daisi.ingested(1, SOON);
    daisi.settled(1, SOON);
    assert_eq!(world.count(OUTPUT), 1);
    // While one stage waits for its database, the other goes on.
    world.stack.postgres.stop();
    daisi.not_ready("postgres", SOON);
    world.put(&[message("ACME", "m-2", 2)]);
    daisi.settled(2, SOON);
}

fn a_post_scan_that_is_due_is_done_and_months_ahead_are_made(server: Server) {
    let world = World::ingesting(server);
    let mut daisi = Daisi::spawn(&world, &[("ingest.post_scan_delay", "1s")]);
    daisi.ready(READY_MAX);
    for (kind, body) in [
        (
            "contacts",
            r#"{"contacts":[{"chat_id":"c-1","phone_number":"6211","company_id":"ACME","agent_id":"a","push_name":"P"}]}"#,
        ),
        (
            "messages",
            r#"{"messages":[{"message_id":"h-1","chat_id":"c-1","jid":"j","flow":"IN","company_id":"ACME","agent_id":"a","from_phone":"+62 11","message_timestamp":1735000000}],"is_last_batch":true,"agent_id":"a"}"#,
        ),
    ] {
        world.put_bytes(&format!("v1.history.{kind}.ACME"), body.as_bytes());
    }
    daisi.ingested(2, SOON);
    assert_eq!(world.sql("SELECT origin, first_message_id FROM daisi_acme.contacts"), "|");
    // Due for nobody who is alive; and a month is missing, whether it was made by now or not.
    daisi.kill9();
    let next =
        "to_char(date_trunc('month', now()) + interval '1 month', '\"messages_y\"YYYY\"m\"MM')";
    let next = world.sql(&format!("SELECT {next}"));
    world.sql(&format!("DROP TABLE IF EXISTS daisi_acme.{next}"));
    let _daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    let origin = "SELECT origin, tags, first_message_id FROM daisi_acme.contacts";
    eventually("the scan is done", READY_MAX, || world.sql(origin) == "DirectChat|Onboarded|h-1");
    let month = format!("SELECT to_regclass('daisi_acme.{next}') IS NOT NULL");
    eventually("the month is there", SOON, || world.sql(&month) == "t");
    assert_eq!(
        world.sql("SELECT message_id, phone_number FROM daisi_acme.onboarding_log"),
        "h-1|6211"
    );
}
