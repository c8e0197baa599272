//! The acceptance list of contract cdc.md section 13 (items 1 to 9, 11 to 17, 19, 22, 23), from outside.
//! Item 10 is in `outage`, 20 in `defects`, 21 in `crash`.

use serde_json::{Value, json};

use crate::change::{Change, agent, chat, contact, message};
use crate::daisi::{Daisi, READY_MAX};
use crate::metrics::Metrics;
use crate::world::{DEAD, OUTPUT, SOON, SOURCE, Server, World};

on_each_server!(
    starting_creates_the_streams_under_the_configured_names,
    an_insert_comes_out_with_its_columns_and_moves_its_counters,
    an_event_that_comes_twice_goes_out_once,
    the_samples_of_the_contract_give_its_payloads,
    every_special_case_has_its_outcome,
    an_event_without_an_identifier_is_dead_lettered,
);

on_the_installed_server!(
    a_table_nobody_forwards_is_skipped_and_counted,
    metrics_are_prometheus_text_with_process_figures,
    unknown_columns_are_published,
    unknown_columns_are_counted_where_asked_for,
    a_debezium_change_comes_out_like_a_sequin_one,
    a_backfill_is_published_where_asked_for,
);

/// The subject that the integration tests of the old service use.
const LEGACY_SUBJECT: &str = "sequin.changes.message_service_db.public.messages.insert";

fn starting_creates_the_streams_under_the_configured_names(server: Server) {
    let world = World::new(server);
    let names = [("cdc.stream", "changes_in"), ("cdc.output_stream", "changes_out")];
    let daisi = Daisi::spawn(&world, &[names[0], names[1], ("cdc.output_max_age", "1h")]);
    daisi.ready(READY_MAX);
    let source = world.stream_config("changes_in");
    assert_eq!(source["subjects"], json!(["cdc.*.*"]));
    assert_eq!((&source["retention"], &source["storage"]), (&json!("limits"), &json!("file")));
    assert_eq!(source["max_age"], json!(7 * 24 * 3_600_000_000_000_u64));
    let output = world.stream_config("changes_out");
    assert_eq!(output["subjects"], json!(["wa.>"]));
    assert_eq!(output["max_age"], json!(3_600_000_000_000_u64));
    assert_eq!(output["duplicate_window"], json!(120_000_000_000_u64));
    assert_eq!(output["max_bytes"], json!(1_u64 << 30));
    assert_eq!(world.stream_config(DEAD)["subjects"], json!(["v1.dlq.>"]));
    let consumer = world.consumer_info("changes_in", "cdc_consumers");
    assert_eq!(consumer["config"]["ack_policy"], "all", "{consumer}");
    assert_eq!(consumer["config"]["max_deliver"], -1);
}

fn an_insert_comes_out_with_its_columns_and_moves_its_counters(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.subjects", "sequin-legacy")]);
    let before = daisi.ready(READY_MAX).metrics();
    let change = message("CompanyAAA01", "M1", 77).on(LEGACY_SUBJECT);
    let change = change.meta("table_schema", json!("public"));
    world.put(std::slice::from_ref(&change));
    let letters = world.await_letters(OUTPUT, 1);
    assert_eq!(letters[0].subject, "wa.CompanyAAA01.agent-7.messages.chat-1");
    let out = letters[0].json();
    let ids = ["company_id", "agent_id", "message_id", "chat_id"];
    assert_eq!(ids.map(|id| &out[id]), ["CompanyAAA01", "agent-7", "M1", "chat-1"]);
    assert_eq!(out["event_id"], "77:messages:M1");
    assert_eq!(out["row_data"], change.envelope["record"]);
    let time = out["event_time"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "whole seconds, UTC: {time}");
    let after = daisi.settled(1, SOON);
    let moved =
        |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let messages = ("table", "messages");
    assert_eq!(moved("cdc_consumer_events_total", &[messages, ("result", "processed")]), 1);
    assert_eq!(moved("cdc_consumer_events_published_total", &[messages, ("status", "success")]), 1);
    let checks = "daisi_cdc_consumer_deduplication_checks_total";
    assert_eq!(moved(checks, &[messages, ("result", "miss")]), 1);
    assert_eq!(moved(checks, &[messages, ("result", "hit")]), 0);
    assert_eq!(moved("cdc_consumer_redis_hit_total", &[("status", "miss")]), 1);
    assert_eq!(moved("cdc_consumer_publish_errors_total", &[]), 0);
    assert_eq!(moved("daisi_cdc_latency_seconds_count", &[]), 1);
}

fn an_event_that_comes_twice_goes_out_once(server: Server) {
    let world = World::new(server);
    // Without a memory of its own, so that it is Redis that remembers.
    let mut daisi = Daisi::spawn(&world, &[("cdc.dedup_lru", "0")]);
    daisi.ready(READY_MAX);
    let change = message("ACME", "M1", 77);
    world.put(std::slice::from_ref(&change));
    daisi.settled(1, SOON);
    world.put(&[change.clone(), change]);
    let metrics = daisi.settled(3, SOON);
    assert_eq!(world.count(OUTPUT), 1);
    assert_eq!(metrics.events("messages", "duplicate"), 2);
    assert_eq!(metrics.events("messages", "processed"), 1);
    let hits = [("table", "messages"), ("result", "hit")];
    assert_eq!(metrics.sum("daisi_cdc_consumer_deduplication_checks_total", &hits), 2);
    assert_eq!(metrics.sum("cdc_consumer_redis_hit_total", &[("status", "hit")]), 2);
    let published = [("table", "messages"), ("status", "success")];
    assert_eq!(metrics.sum("cdc_consumer_events_published_total", &published), 1);
    // An event of the same id in the next process is still known.
    daisi.term(SOON);
    let next = Daisi::spawn(&world, &[]);
    next.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 77)]);
    assert_eq!(next.settled(1, SOON).events("messages", "duplicate"), 1);
    assert_eq!(world.count(OUTPUT), 1);
}

fn the_samples_of_the_contract_give_its_payloads(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    for (table, text, ..) in SAMPLES {
        world.put_bytes(&format!("cdc.CompanyAAA01.{table}"), text.as_bytes());
    }
    let letters = world.await_letters(OUTPUT, SAMPLES.len() as u64);
    assert_eq!(letters.len(), SAMPLES.len());
    for (letter, (table, text, subject, head, tail)) in letters.iter().zip(SAMPLES) {
        assert_eq!(&letter.subject, subject);
        let record = &text[text.find("\"record\":").unwrap() + 9..];
        let record = &record[..record.rfind(",\"metadata\":").unwrap()];
        let (found_head, rest) = letter.text().split_once(",\"event_time\":\"").unwrap();
        let expected = format!("{head},\"row_data\":{record},{tail}}}");
        assert_eq!(format!("{found_head}{}", &rest[21..]), expected, "{table}");
        let lsn = letter.header("Daisi-Lsn").unwrap();
        assert!(found_head.contains(&format!("\"event_id\":\"{lsn}:{table}:")), "{found_head}");
        assert_eq!(letter.header("Daisi-Company").unwrap(), "CompanyAAA01");
        assert!(letter.header("Nats-Msg-Id").unwrap().starts_with("CompanyAAA01:"));
    }
    daisi.settled(SAMPLES.len() as u64, SOON);
}

/// Table, event (contract section 2.3), subject, payload before `row_data` less its `event_time`, payload
/// behind it.
const SAMPLES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "messages",
        r#"{"action":"insert","changes":null,"record":{"id":88231,"message_id":"3EB0C1A9F2","chat_id":"chat-51","agent_id":"agent-7","company_id":"CompanyAAA01","from_phone":"628111","to_phone":"628222","jid":"628111@s.whatsapp.net","flow":"IN","message_text":"hi","message_url":null,"message_type":"text","message_obj":{"conversation":"hi"},"edited_message_obj":null,"key":{"id":"3EB0C1A9F2","fromMe":false,"remoteJid":"628111@s.whatsapp.net"},"status":"delivered","is_deleted":false,"message_timestamp":1748772000,"message_date":"2025-06-01","created_at":"2025-06-01T10:00:00.120000Z","updated_at":"2025-06-01T10:00:00.120000Z","last_metadata":{"stream_sequence":41}},"metadata":{"table_schema":"daisi_CompanyAAA01","table_name":"messages","commit_timestamp":"2025-06-01T10:00:00.123456Z","commit_lsn":5368722184,"commit_idx":0,"idempotency_key":"NTM2ODcyMjE4NDow","database_name":"message_service_db","record_pks":["88231","2025-06-01"],"transaction_annotations":null,"consumer":{"id":"0f6f8a1e-0000-4000-8000-000000000001","name":"aaa01_messages_sink","annotations":null}}}"#,
        "wa.CompanyAAA01.agent-7.messages.chat-51",
        r#"{"event_id":"5368722184:messages:3EB0C1A9F2","company_id":"CompanyAAA01","agent_id":"agent-7","message_id":"3EB0C1A9F2","chat_id":"chat-51""#,
        r#""action":"insert","commit_time":"2025-06-01T10:00:00.123456Z","commit_lsn":5368722184,"commit_idx":0"#,
    ),
    (
        "chats",
        r#"{"action":"update","changes":{"unread_count":3},"record":{"id":512,"chat_id":"chat-51","jid":"628111@s.whatsapp.net","push_name":"Rina","is_group":false,"group_name":null,"unread_count":4,"last_message":{"conversation":"hi"},"conversation_timestamp":1748772000,"not_spam":true,"agent_id":"agent-7","company_id":"CompanyAAA01","phone_number":"628111","last_metadata":null,"created_at":"2025-05-02T08:00:00.000000Z","updated_at":"2025-06-01T10:00:00.121000Z"},"metadata":{"table_schema":"daisi_CompanyAAA01","table_name":"chats","commit_timestamp":"2025-06-01T10:00:00.123456Z","commit_lsn":5368722184,"commit_idx":1,"idempotency_key":"NTM2ODcyMjE4NDox","transaction_annotations":null}}"#,
        "wa.CompanyAAA01.agent-7.chats",
        r#"{"event_id":"5368722184:chats:chat-51","company_id":"CompanyAAA01","agent_id":"agent-7","chat_id":"chat-51""#,
        r#""action":"update","commit_time":"2025-06-01T10:00:00.123456Z","commit_lsn":5368722184,"commit_idx":1"#,
    ),
    (
        "agents",
        r#"{"action":"update","changes":{"status":"connecting"},"record":{"id":7,"agent_id":"agent-7","qr_code":null,"status":"connected","agent_name":"Front desk","phone_number":"628222","host_name":"pc-3","version":"2.1.0","company_id":"CompanyAAA01","created_at":"2025-01-10T12:00:00.000000Z","updated_at":"2025-06-01T10:01:00.000000Z","last_metadata":null},"metadata":{"table_schema":"daisi_CompanyAAA01","table_name":"agents","commit_timestamp":"2025-06-01T10:01:00.000000Z","commit_lsn":5368730000,"commit_idx":0,"idempotency_key":"NTM2ODczMDAwMDow","transaction_annotations":null}}"#,
        "wa.CompanyAAA01.agent-7.agents",
        r#"{"event_id":"5368730000:agents:agent-7","company_id":"CompanyAAA01","agent_id":"agent-7""#,
        r#""action":"update","commit_time":"2025-06-01T10:01:00.000000Z","commit_lsn":5368730000,"commit_idx":0"#,
    ),
    (
        "contacts",
        r#"{"action":"delete","changes":null,"record":{"id":"9b2f6f5e-1c1f-4f6e-9a57-3d2f5f0a7c11","phone_number":"628111","agent_id":"agent-7","chat_id":"chat-51","custom_name":null,"push_name":"Rina","assigned_to":null,"company_id":"CompanyAAA01","status":"ACTIVE","created_at":"2025-05-02T08:00:00.000000Z","updated_at":"2025-05-02T08:00:00.000000Z"},"metadata":{"table_schema":"daisi_CompanyAAA01","table_name":"contacts","commit_timestamp":"2025-06-01T10:02:00.000000Z","commit_lsn":5368740000,"commit_idx":0,"idempotency_key":"NTM2ODc0MDAwMDow","transaction_annotations":null}}"#,
        "wa.CompanyAAA01.agent-7.contacts",
        r#"{"event_id":"5368740000:contacts:9b2f6f5e-1c1f-4f6e-9a57-3d2f5f0a7c11","company_id":"CompanyAAA01","agent_id":"agent-7""#,
        r#""action":"delete","commit_time":"2025-06-01T10:02:00.000000Z","commit_lsn":5368740000,"commit_idx":0"#,
    ),
];

/// Every row of contract section 5.7: what goes out with which action, what is filtered, what is buried.
fn every_special_case_has_its_outcome(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let full_delete = message("ACME", "M1", 10).with("action", json!("delete"));
    let keys_only = json!({"id": 88231, "message_id": null, "company_id": null, "agent_id": null});
    let key_is_enough = json!({"id": 7, "agent_id": "agent-7", "company_id": "ACME"});
    let debezium = json!({
        "before": null, "after": message("ACME", "M9", 0).envelope["record"], "op": "c",
        "source": {"name": "db", "schema": "daisi_ACME", "table": "messages", "lsn": 17},
    });
    let twice = |idx: u64, state: &str| {
        message("ACME", "M2", 16).column("status", json!(state)).meta("commit_idx", json!(idx))
    };
    let foreign = ["chats", "agents", "contacts"].map(|table| {
        let change = match table {
            "chats" => chat("ACME", "c", 19),
            "agents" => agent("ACME", "a", 19),
            _ => contact("ACME", "k", 19),
        };
        change.column("company_id", json!("Somebody"))
    });
    world.put(&[
        full_delete,
        Change::new("delete", "ACME", "messages", 11, keys_only),
        Change::new("delete", "ACME", "agents", 12, key_is_enough),
        message("ACME", "M3", 13).with("action", json!("read")),
        message("ACME", "M4", 14).with("action", json!("truncate")),
        twice(0, "sent"),
        twice(1, "delivered"),
        message("ACME", "M5", 18).column("company_id", json!("")),
        message("ACME", "M6", 18).column("agent_id", json!("")),
        Change { subject: "cdc.ACME.messages".into(), envelope: debezium },
    ]);
    world.put(&foreign);
    for body in [&b"{\"action\":\"insert\",\"rec"[..], b""] {
        world.put_bytes("cdc.ACME.messages", body);
    }
    let metrics = daisi.settled(15, SOON);
    let out: Vec<(String, Value)> = world
        .read(OUTPUT)
        .iter()
        .map(|letter| {
            let json = letter.json();
            let mark = format!("{} {}", json["event_id"].as_str().unwrap(), json["action"]);
            (mark, json["row_data"]["status"].clone())
        })
        .collect();
    let expected = [
        ("10:messages:M1 \"delete\"", json!("delivered")),
        ("12:agents:agent-7 \"delete\"", json!(null)),
        ("16:messages:M2 \"insert\"", json!("sent")),
        ("16:messages:M2 \"insert\"", json!("delivered")),
        ("17:messages:M9 \"insert\"", json!("delivered")),
    ];
    assert_eq!(out, expected.map(|(mark, status)| (mark.to_owned(), status)));
    assert_eq!(metrics.events("messages", "skipped"), 1, "the backfill");
    let dead = [
        ("incomplete_row", 1),
        ("unknown_action", 1),
        ("missing_company", 1),
        ("missing_agent", 1),
        ("company_mismatch", 3),
        ("bad_json", 2),
    ];
    for (reason, count) in dead {
        assert_eq!(metrics.dead(reason), count, "{reason}");
    }
    assert_eq!(world.count(DEAD), 9);
}

/// Items 11 to 13 and 17: acknowledged, not published; and, what the old service did not do, kept.
fn an_event_without_an_identifier_is_dead_lettered(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let cases = [
        (message("ACME", "M1", 1).without("message_id"), "missing_key"),
        (message("ACME", "M2", 2).with("record", json!(null)), "null_record"),
        (message("ACME", "M3", 3).without("agent_id"), "missing_agent"),
        (message("ACME", "M4", 4).without("company_id"), "missing_company"),
        (message("ACME", "M5", 5).without("chat_id"), "missing_chat"),
        (message("ACME", "M6", 6).meta("table_name", json!("")), "missing_table"),
        (message("ACME", "M7", 7).column("agent_id", json!(7)), "wrong_type"),
    ];
    world.put(&cases.clone().map(|(change, _)| change));
    let metrics = daisi.settled(cases.len() as u64, SOON);
    let letters = world.read(DEAD);
    assert_eq!(letters.len(), cases.len());
    for (place, (letter, (change, reason))) in letters.iter().zip(&cases).enumerate() {
        assert_eq!(metrics.dead(reason), 1, "{reason}");
        assert_eq!(letter.subject, "v1.dlq.ACME");
        assert_eq!(letter.header("Daisi-Reason").as_deref(), Some(*reason));
        let json = letter.json();
        assert_eq!(json["reason"], *reason);
        assert_eq!(json["original_payload"], change.envelope);
        assert_eq!(json["source_subject"], change.subject.as_str());
        assert_eq!(json["stream_sequence"], place as u64 + 1);
    }
    assert_eq!(world.count(OUTPUT), 0);
    let consumer = world.consumer_info(SOURCE, "cdc_consumers");
    assert_eq!(consumer["ack_floor"]["stream_seq"], cases.len() as u64, "all are acknowledged");
}

fn a_table_nobody_forwards_is_skipped_and_counted(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let row = || json!({"id": 1, "company_id": "ACME"});
    let tables = ["user_profiles", "onboarding_log", "exhausted_events"];
    world.put(&tables.map(|table| Change::new("insert", "ACME", table, 1, row())));
    // The body decides, not the subject; a partition is its table.
    let hidden = message("ACME", "M1", 2).on("cdc.ACME.user_profiles");
    let partition = message("ACME", "M2", 3).meta("table_name", json!("messages_y2025m06"));
    world.put(&[hidden, partition]);
    let metrics = daisi.settled(5, SOON);
    assert_eq!(metrics.events("user_profiles", "skipped"), 1);
    assert_eq!(metrics.result("skipped"), 3);
    assert_eq!(metrics.events("user_profiles", "processed"), 0);
    let name = "daisi_cdc_consumer_deduplication_checks_total";
    assert_eq!(metrics.sum(name, &[("table", "user_profiles")]), 0);
    assert_eq!(metrics.events("messages", "processed"), 2);
    assert_eq!(world.count(OUTPUT), 2);
}

fn metrics_are_prometheus_text_with_process_figures(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1)]);
    let metrics = daisi.settled(1, SOON);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "cdc_consumer_events_total",
        "cdc_consumer_publish_errors_total",
        "cdc_consumer_events_published_total",
        "cdc_consumer_processing_seconds_bucket",
        "cdc_consumer_redis_hit_total",
        "daisi_cdc_consumer_deduplication_checks_total",
        "cdc_consumer_lag_seconds",
        "daisi_cdc_residual_events",
    ] {
        assert!(metrics.has(name), "{name}");
    }
    assert_eq!(daisi.get("/health"), (200, r#"{"status":"ok","version":"0.1.0"}"#.to_owned()));
    assert_eq!(daisi.get("/nothing").0, 404);
}

fn unknown_columns_are_published(server: Server) {
    let world = World::new(server);
    publish_unknown_column(&world);
}

fn unknown_columns_are_counted_where_asked_for(server: Server) {
    let metrics = publish_unknown_column(&World::new(server));
    let labels = [("table", "messages"), ("field_name", "never_heard_of")];
    assert_eq!(metrics.sum("cdc_consumer_unhandled_fields_total", &labels), 1);
}

fn publish_unknown_column(world: &World) -> Metrics {
    let daisi = Daisi::spawn(world, &[("metrics.unhandled_fields", "true")]);
    daisi.ready(READY_MAX);
    let change = message("ACME", "M1", 1).column("never_heard_of", json!({"a": [1, 2.50]}));
    world.put(std::slice::from_ref(&change));
    let metrics = daisi.settled(1, SOON);
    assert_eq!(world.read(OUTPUT)[0].json()["row_data"], change.envelope["record"]);
    metrics
}

fn a_debezium_change_comes_out_like_a_sequin_one(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let row = message("ACME", "M1", 0).envelope["record"].clone();
    let event = |op: &str, lsn: u64, images: [Value; 2]| {
        let [before, after] = images;
        let source = json!({
            "name": "db", "schema": "daisi_ACME", "table": "messages", "lsn": lsn,
            "ts_ms": 1_748_772_000_123_u64,
        });
        let envelope = json!({"before": before, "after": after, "op": op, "source": source});
        Change { subject: "cdc.ACME.messages".into(), envelope }
    };
    world.put(&[
        event("c", 1, [json!(null), row.clone()]),
        event("u", 2, [row.clone(), row.clone()]),
        event("d", 3, [row.clone(), json!(null)]),
        event("r", 4, [json!(null), row.clone()]),
    ]);
    world.put_bytes("cdc.ACME.messages", b"null");
    let metrics = daisi.settled(5, SOON);
    let letters = world.read(OUTPUT);
    let actions: Vec<Value> =
        letters.iter().map(|letter| letter.json()["action"].clone()).collect();
    assert_eq!(actions, ["insert", "update", "delete"]);
    assert!(letters.iter().all(|letter| letter.json()["row_data"] == row));
    assert_eq!(letters[0].subject, "wa.ACME.agent-7.messages.chat-1");
    assert_eq!(letters[2].json()["event_id"], "3:messages:M1");
    assert_eq!(metrics.events("messages", "skipped"), 2, "a snapshot row and a tombstone");
}

fn a_backfill_is_published_where_asked_for(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.forward_backfill", "true")]);
    daisi.ready(READY_MAX);
    let backfill = |id: &str, key: &str| {
        let change = message("ACME", id, 0).with("action", json!("read"));
        let change = change.meta("commit_lsn", json!(null)).meta("commit_idx", json!(null));
        change.meta("idempotency_key", json!(key))
    };
    // Two runs of the same row: its position is 0 in both, its key is not.
    world.put(&[
        backfill("M1", "cnVuMTox"),
        backfill("M1", "cnVuMjox"),
        backfill("M1", "cnVuMTox"),
    ]);
    let metrics = daisi.settled(3, SOON);
    let letters = world.read(OUTPUT);
    assert_eq!((letters.len(), metrics.events("messages", "duplicate")), (2, 1));
    let out = letters[0].json();
    assert_eq!((&out["action"], &out["event_id"]), (&json!("read"), &json!("0:messages:M1")));
}
