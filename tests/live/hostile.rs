//! Input that is wrong, huge, deep or malicious: each in its counted outcome, kept in the dead-letter
//! stream with its reason, and no good event is delayed, moved to another tenant or lost by it
//! (contract cdc.md sections 3 and 5.2, weaknesses 6, 7 and 19).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::change::{Change, message};
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, OUTPUT, SOON, Server, World};

on_each_server!(
    bytes_that_are_no_change_are_dead_lettered_between_good_events,
    identifiers_that_would_break_a_subject_reach_none,
    an_event_that_outgrows_the_servers_limit_is_dead_lettered,
);

/// Sends each case between two good events; each must have its reason, the good ones must all arrive.
#[track_caller]
fn check(world: &World, daisi: &Daisi, cases: &[(String, Vec<u8>, &str)]) -> Vec<Value> {
    daisi.ready(READY_MAX);
    let good = |n: usize| message("Good", &format!("G{n}"), 1_000 + n as u64);
    for (n, (subject, body, _)) in cases.iter().enumerate() {
        world.put(&[good(n)]);
        world.put_bytes(subject, body);
    }
    world.put(&[good(cases.len())]);
    let metrics = daisi.settled(2 * cases.len() as u64 + 1, SOON);
    let out = world.read(OUTPUT);
    let ids = out.iter().map(|letter| letter.json()["message_id"].clone());
    assert!(ids.eq((0..=cases.len()).map(|n| json!(format!("G{n}")))), "good ones, in order");
    let letters = world.read(DEAD);
    let found: Vec<String> = letters.iter().filter_map(|l| l.header("Daisi-Reason")).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, _, reason)| *reason).collect();
    assert_eq!(found, expected);
    for reason in &expected {
        let count = expected.iter().filter(|other| *other == reason).count();
        assert_eq!(metrics.dead(reason), count as u64, "{reason}");
    }
    let subjects = letters.iter().map(|letter| letter.json()["source_subject"].clone());
    assert!(subjects.eq(cases.iter().map(|(subject, ..)| json!(subject))));
    letters.iter().map(|letter| letter.json()).collect()
}

fn bytes_that_are_no_change_are_dead_lettered_between_good_events(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.subjects", "cdc.*.*,sequin")]);
    let on = |subject: &str, body: &[u8], reason| (subject.to_owned(), body.to_vec(), reason);
    let at = |body: &[u8], reason| on("cdc.ACME.messages", body, reason);
    let change = |change: Change, reason| {
        let (subject, body) = change.sent();
        (subject, body, reason)
    };
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let deep_row = [br#"{"action":"insert","record":{"x":"#, &deep[..], b"}}"].concat();
    let good = message("ACME", "M1", 1);
    let shape = |subject: &str| change(good.clone().on(subject), "unknown_subject");
    let cases = [
        at(b"", "bad_json"),
        at(b"{", "bad_json"),
        at(b"not json at all", "bad_json"),
        at(b"{\"action\":\"insert\",}", "bad_json"),
        at(b"\xff\xfe\x00", "bad_json"),
        at(b"{\"a\":\"\xff\"}", "bad_json"),
        at(b"{} trailing", "bad_json"),
        at(&deep, "bad_json"),
        at(&deep_row, "bad_json"),
        at(b"42", "unknown_envelope"),
        at(b"\"text\"", "unknown_envelope"),
        at(b"[1,2,3]", "unknown_envelope"),
        at(b"{}", "unknown_envelope"),
        change(good.clone().with("record", json!([1, 2])), "wrong_type"),
        change(good.clone().with("record", json!("row")), "wrong_type"),
        change(good.clone().with("metadata", json!(null)), "missing_table"),
        change(good.clone().with("metadata", json!("x")), "missing_table"),
        change(good.clone().meta("table_name", json!(7)), "missing_table"),
        change(good.clone().meta("commit_lsn", json!(-1)), "bad_lsn"),
        change(good.clone().meta("commit_lsn", json!({"x": 1})), "bad_lsn"),
        change(good.clone().with("action", json!(7)), "unknown_action"),
        change(good.clone().with("action", json!("INSERT")), "unknown_action"),
        change(good.clone().column("message_id", json!({"a": 1})), "wrong_type"),
        change(good.clone().column("company_id", json!(true)), "wrong_type"),
        shape("sequin.rows.db.daisi_ACME.messages"),
        shape("sequin.changes.db.daisi_ACME.messages"),
    ];
    let letters = check(&world, &daisi, &cases);
    for (letter, (_, body, _)) in letters.iter().zip(&cases) {
        match letter["original_payload_base64"].as_str() {
            Some(text) => assert_eq!(&STANDARD.decode(text).unwrap(), body),
            None => {
                let original: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(letter["original_payload"], original);
            }
        }
    }
}

fn identifiers_that_would_break_a_subject_reach_none(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.subjects", "cdc.*.*,sequin")]);
    let hostile = [
        "x.y",
        "*",
        ">",
        "a b",
        "a\"b",
        "a'b",
        "a\tb",
        "a\r\nPUB evil 2\r\nhi",
        "münchen",
        "会社",
        "a\u{0}b",
        "a/b",
        ".",
        "a\u{7f}",
        "a\u{2028}b",
    ];
    // The company of the row; behind a schema that names none, so that nothing else is wrong with it.
    let company = |value: &str| {
        let change = message("ACME", "M1", 1).on("sequin.db.public.messages.insert");
        change.meta("table_schema", json!("public")).column("company_id", json!(value))
    };
    let agent = |value: &str| message("ACME", "M1", 1).column("agent_id", json!(value));
    let chat = |value: &str| message("ACME", "M1", 1).column("chat_id", json!(value));
    let long = "c".repeat(49);
    let mut changes: Vec<Change> = hostile.iter().flat_map(|v| [company(v), agent(v)]).collect();
    changes.extend([company(&long), agent(&"a".repeat(129))]);
    changes.extend(hostile.iter().filter(|v| **v != "x.y").map(|v| chat(v)));
    changes.extend([".a", "a.", "a..b"].map(chat));
    let cases: Vec<_> = changes
        .iter()
        .map(|change| {
            let (subject, body) = change.sent();
            (subject, body, "bad_identifier")
        })
        .collect();
    check(&world, &daisi, &cases);
    assert_eq!(daisi.metrics().sum("daisi_shard_reconnects_total", &[]), 0, "no line was broken");
    let dead = world.read(DEAD);
    let owners = dead.iter().map(|letter| letter.subject.as_str());
    assert!(owners.into_iter().all(|owner| owner == "v1.dlq.ACME" || owner == "v1.dlq._unknown"));
    // What is unusual and harmless goes through, in the company's own subject.
    let jid = message("ACME", "M9", 9).column("chat_id", json!("62811@s.whatsapp.net"));
    world.put(&[jid.column("agent_id", json!("a_1@x:2+3=-"))]);
    let last = world.await_letters(OUTPUT, cases.len() as u64 + 2).pop().unwrap();
    assert_eq!(last.subject, "wa.ACME.a_1@x:2+3=-.messages.62811@s.whatsapp.net");
}

fn an_event_that_outgrows_the_servers_limit_is_dead_lettered(server: Server) {
    const LIMIT: usize = 1 << 20;
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    // The record alone comes near the limit; ids and headers lift what goes out above it.
    let sized = |id: &str, total: usize| {
        let mut change = message("ACME", id, 5);
        change.envelope["metadata"] = json!({"table_name": "messages", "commit_lsn": 5});
        change.envelope.as_object_mut().unwrap().shift_remove("changes");
        let (subject, body) = change.clone().column("message_text", json!("")).sent();
        let text = "x".repeat(total - body.len());
        assert_eq!(subject, "cdc.ACME.messages");
        change.column("message_text", json!(text)).sent()
    };
    let huge = sized("M1", LIMIT - 20);
    let cases = [(huge.0, huge.1, "publish_refused")];
    let letters = check(&world, &daisi, &cases);
    assert_eq!(letters[0]["original_payload_omitted_bytes"], LIMIT - 20);
    assert!(letters[0]["original_payload"].is_null());
    assert_eq!(letters[0]["stream_sequence"], 2, "it can be read there");
    assert!(letters[0]["error"].as_str().unwrap().contains("limit of 1048576"), "{}", letters[0]);
    // Just below the limit it goes out.
    let (subject, body) = sized("M2", LIMIT - 2_000);
    world.put_bytes(&subject, &body);
    let last = world.await_letters(OUTPUT, 3).pop().unwrap();
    assert_eq!(last.json()["message_id"], "M2");
}
