//! Dead letters in their stream: listed by every filter, shown whole, sent again byte for byte, dropped; and
//! what must not be sent stays.

use serde_json::{Value, json};
use shards::domain::cdc::{DeadLetter, ErrorType};

use crate::world::{DEAD, EMBEDDED_MAX, SOURCE, World, letter};

const ODD: &[u8] = b"{ \"n\" : 1.0e2,\n\t\"s\":\"\\ud800\" , \"n\":2}";

fn sequences(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["sequence"].as_u64().expect("a sequence")).collect()
}

#[test]
fn every_filter_finds_its_letters_and_a_list_disturbs_nothing() {
    let mut world = World::new();
    let first = letter("v1.chats.update.ACME", "ACME", b"{}");
    world.bury(&first);
    world.bury(&letter("v1.messages.upsert.ACME", "ACME", b"no json"));
    let retryable = ErrorType::Retryable;
    let other = letter("v1.chats.update.BETA", "BETA", b"{}");
    world.bury(&DeadLetter { error_type: retryable, reason: None, ..other });
    world.bury(&DeadLetter {
        company: None,
        reason: Some("bad_company"),
        ..letter("x.y", "", b"")
    });
    world.put("v1.dlq.ACME", b"\x1b[2J no letter");
    let list = |args: &[&str]| {
        let all = [&["dlq", "list", "--json"], args].concat();
        sequences(&world.json(&all))
    };
    for (args, expected) in [
        (&[][..], &[1, 2, 3, 4, 5][..]),
        (&["--company", "ACME"], &[1, 2, 5]),
        (&["--company", "_unknown"], &[4]),
        (&["--company", "acme"], &[]),
        (&["--subject", "v1.chats.>"], &[1, 3]),
        (&["--subject", "v1.*.*.ACME"], &[1, 2]),
        (&["--class", "retryable"], &[3]),
        (&["--class", "bad_company", "--class", "retryable"], &[3, 4]),
        (&["--class", "fatal", "--company", "ACME"], &[1, 2]),
        (&["--limit", "2"], &[1, 2]),
        (&["--limit", "1", "--subject", "v1.chats.update.BETA"], &[3]),
        (&["--newer", "1h"], &[1, 2, 3, 4, 5]),
        (&["--older", "1h"], &[]),
    ] {
        assert_eq!(list(args), expected, "{args:?}");
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(list(&["--older", "1s"]), [1, 2, 3, 4, 5]);
    assert!(list(&["--newer", "1s"]).is_empty());
    let rows = world.json(&["dlq", "list", "--json", "--limit", "1"]);
    let mut row = rows[0].clone();
    assert!(row["stored_at"].take().as_str().is_some_and(|at| at.ends_with('Z')));
    let expected = json!({
        "sequence": 1, "stored_at": null, "subject": "v1.dlq.ACME", "company": "ACME",
        "source_subject": "v1.chats.update.ACME", "error_type": "fatal", "reason": "bad_json",
        "error": "fatal: decode: it is wrong", "retry_count": 1, "ts": "2026-01-02T03:04:05.678000000Z",
        "stream": SOURCE, "stream_sequence": 41, "original_msg_id": "first-id",
        "published_at": "2026-01-02T03:04:05.000000001Z", "original_form": "json", "original_bytes": 2,
    });
    assert_eq!(row, expected);
    let text = world.ok(&["dlq", "list"]);
    assert_eq!(text.lines().count(), 5);
    assert!(text.contains("fatal bad_json") && text.contains("unreadable"), "{text}");
    let info = world.client.jetstream(&format!("STREAM.INFO.{DEAD}"), &Value::Null).unwrap();
    assert_eq!(
        (&info["state"]["consumer_count"], &info["state"]["messages"]),
        (&json!(0), &json!(5))
    );
}

#[test]
fn show_prints_the_whole_letter_and_nothing_a_terminal_would_obey() {
    let mut world = World::new();
    world.bury(&letter("v1.chats.update.ACME", "ACME", ODD));
    world.bury(&letter("v1.chats.update.ACME", "ACME", b"\x1b[2Jno json"));
    world.put("v1.dlq.ACME", b"\x1b[2J no letter");
    let text = world.ok(&["dlq", "show", "1", "2", "3"]);
    assert!(text.contains(std::str::from_utf8(ODD).unwrap()), "{text}");
    assert!(text.contains("stream_sequence    41") && text.contains("bad_json"), "{text}");
    assert!(text.contains("\\u{1b}[2Jno json") && text.contains("cannot be read"), "{text}");
    assert!(!text.contains('\u{1b}'));
    let rows = world.json(&["dlq", "show", "1", "2", "3", "--json"]);
    assert_eq!(rows[0]["original"].as_str().unwrap().as_bytes(), ODD);
    assert_eq!(rows[1]["original_base64"], "G1sySm5vIGpzb24=");
    assert!(rows[2]["unreadable"].is_string() && rows[2]["letter_base64"].is_string());
    let absent = world.run(&["dlq", "show", "9"]);
    assert_eq!(absent.code, Some(1));
    assert!(absent.err.contains("no dead letter 9"), "{absent:?}");
}

#[test]
fn a_retry_sends_the_event_byte_for_byte_with_its_first_place_and_deletes_the_letter() {
    let mut world = World::new();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(EMBEDDED_MAX));
    let bodies: [&[u8]; 5] = [ODD, b"\xff\x00 no json", b"null", b"", large.as_bytes()];
    let subject = "v1.chats.update.ACME";
    let first = world.put(subject, large.as_bytes());
    for body in bodies {
        world.bury(&DeadLetter { stream_sequence: Some(first), ..letter(subject, "ACME", body) });
    }
    let kept = world.bury(&letter(subject, "BETA", b"{}"));
    let done = world.json(&["dlq", "retry", "--all", "--company", "ACME", "--yes", "--json"]);
    assert_eq!(sequences(&done), [1, 2, 3, 4, 5]);
    assert_eq!(done[1]["message_id"], "replay:ACME:2:1");
    assert_eq!(world.letters(), [kept]);
    let sent = world.read(SOURCE);
    assert_eq!(sent.len(), 6);
    for (message, (body, number)) in sent[1..].iter().zip(bodies.iter().zip(1..)) {
        assert_eq!((message.subject.as_str(), message.body.as_slice()), (subject, *body));
        let expected = [
            ("Nats-Msg-Id", format!("replay:ACME:{number}:1")),
            ("Daisi-Original-Stream", SOURCE.to_owned()),
            ("Daisi-Original-Sequence", first.to_string()),
            ("Daisi-Original-Timestamp", "2026-01-02T03:04:05.000000001Z".to_owned()),
            ("Original-Nats-Msg-Id", "first-id".to_owned()),
        ];
        assert_eq!(message.headers, expected);
    }
}

#[test]
fn a_letter_of_the_old_service_is_sent_again_without_a_place_it_does_not_know() {
    let mut world = World::new();
    let letter = br#"{"source_subject":"v1.chats.update.ACME","company":"ACME","original_payload":{"chat_id":"chat-99"},"error":"fatal: chat not found","error_type":"fatal","retry_count":1,"max_retry":5,"ts":"2026-01-02T03:04:05.678Z"}"#;
    world.put("v1.dlq.ACME", letter);
    let text = world.ok(&["dlq", "retry", "1"]);
    assert_eq!(text, format!("retried 1: v1.chats.update.ACME -> {SOURCE} 1\n"));
    let sent = world.read(SOURCE);
    assert_eq!(sent[0].body, br#"{"chat_id":"chat-99"}"#);
    assert_eq!(sent[0].headers, [("Nats-Msg-Id", "replay:ACME:1:1".to_owned())]);
    assert!(world.letters().is_empty());
}

#[test]
fn a_dry_run_and_a_missing_yes_change_nothing() {
    let mut world = World::new();
    for _ in 0..3 {
        world.bury(&letter("v1.chats.update.ACME", "ACME", b"{}"));
    }
    for verb in ["retry", "drop"] {
        let told = world.ok(&["dlq", verb, "--all", "--dry-run"]);
        assert_eq!(told.lines().count(), 3, "{told}");
        assert!(told.starts_with(&format!("would {verb} 1: v1.chats.update.ACME")), "{told}");
        let rows = world.json(&["dlq", verb, "2", "--dry-run", "--json"]);
        assert_eq!((&rows[0]["sequence"], &rows[0]["would"]), (&json!(2), &json!(verb)));
        for args in [&["dlq", verb, "--all"][..], &["dlq", verb, "1", "2"]] {
            let refused = world.run(args);
            assert_eq!(refused.code, Some(2), "{refused:?}");
            assert!(refused.err.contains("say --yes"), "{refused:?}");
        }
        for args in [&["dlq", verb][..], &["dlq", verb, "1", "--company", "ACME"]] {
            assert_eq!(world.run(args).code, Some(2), "{args:?}");
        }
    }
    assert_eq!(world.letters(), [1, 2, 3]);
    assert!(world.read(SOURCE).is_empty());
}

#[test]
fn a_drop_takes_what_is_meant_and_leaves_the_rest() {
    let mut world = World::new();
    world.stream("other", &["elsewhere"]);
    for company in ["ACME", "BETA", "ACME", "BETA"] {
        world.bury(&letter("v1.chats.update.X", company, b"{}"));
    }
    assert_eq!(world.ok(&["dlq", "drop", "2"]), "dropped 2: v1.chats.update.X\n");
    let done = world.json(&["dlq", "drop", "--all", "--company", "ACME", "--yes", "--json"]);
    assert_eq!(
        done,
        [json!({"sequence": 1, "done": "dropped"}), json!({"sequence": 3, "done": "dropped"}),]
    );
    assert_eq!(world.letters(), [4]);
    let again = world.run(&["dlq", "drop", "3"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("dead letter 3: is not there"), "{again:?}");
    assert!(world.read(SOURCE).is_empty());
}

#[test]
fn what_must_not_be_sent_stays_and_the_rest_goes_on() {
    let mut world = World::new();
    world.bury(&letter("$JS.API.STREAM.DELETE.dlq_stream", "ACME", b""));
    world.bury(&letter("v1.dlq.ACME", "ACME", b"{}"));
    world.bury(&letter("v1.chats.update.BETA", "ACME", b"{}"));
    world.bury(&letter("nobody.listens.here", "ACME", b"{}"));
    world.bury(&letter("v1.chats..ACME", "ACME", b"{}"));
    world.put("v1.dlq.ACME", b"no letter");
    let large = vec![b' '; EMBEDDED_MAX + 1];
    world.bury(&letter("v1.chats.update.ACME", "ACME", &large));
    let foreign =
        br#"{"source_subject":"v1.chats.update.BETA","company":"BETA","original_payload":1}"#;
    world.put("v1.dlq.ACME", foreign);
    world.bury(&letter("v1.chats.update.ACME", "ACME", b"{}"));
    let mixed = world.run(&["dlq", "retry", "--all", "--yes"]);
    assert_eq!(mixed.code, Some(1), "{mixed:?}");
    assert_eq!(mixed.out, format!("retried 9: v1.chats.update.ACME -> {SOURCE} 1\n"));
    for why in [
        "dead letter 1: \"$JS.API.STREAM.DELETE.dlq_stream\" is a subject of the server's own",
        "dead letter 2: \"v1.dlq.ACME\" is a subject of dead letters",
        "dead letter 3: \"v1.chats.update.BETA\" is not a subject of company \"ACME\"",
        "dead letter 4: no stream takes nobody.listens.here",
        "dead letter 5: subject: empty token",
        "dead letter 6: no dead letter:",
        "dead letter 7: the event was too large for the letter, and stream",
        "dead letter 8: says that it is of company \"BETA\"",
        "retried 1 of 9 dead letters; 8 could not be and stay as they were",
    ] {
        assert!(mixed.err.contains(why), "{why}\n{}", mixed.err);
    }
    assert_eq!(world.letters(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn an_id_that_another_message_has_is_passed_over_and_our_own_is_not_sent_twice() {
    let mut world = World::new();
    let subject = "v1.chats.update.ACME";
    world.bury(&letter(subject, "ACME", b"{}"));
    world.bury(&letter(subject, "ACME", b"[]"));
    // Of a stream that was made anew since: the same sequence, another event.
    for (id, body) in [("replay:ACME:1:1", &b"other"[..]), ("replay:ACME:2:1", b"[]")] {
        let headers = [("Nats-Msg-Id", id)];
        world.client.publish_with(subject, None, &headers, body).expect("published");
    }
    world.client.barrier().expect("taken");
    let done = world.json(&["dlq", "retry", "1", "2", "--yes", "--json"]);
    assert_eq!(done[0]["message_id"], "replay:ACME:1:2");
    assert_eq!(done[1]["message_id"], "replay:ACME:2:1");
    let bodies: Vec<_> = world.sent(1).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [&b"other"[..], b"[]", b"{}"]);
    assert!(world.letters().is_empty());
}

#[test]
fn the_stream_that_captures_the_subject_is_found_and_no_other_message_of_it_touched() {
    let mut world = World::new();
    world.stream("graves", &["graves.>", "of.others"]);
    world.put("of.others", b"{}");
    let mut body = bytes::BytesMut::new();
    let letter = letter("v1.chats.update.ACME", "ACME", b"{}");
    shards::domain::cdc::write_dlq_payload(&letter, EMBEDDED_MAX, &mut body);
    world.put("graves.ACME", &body);
    let set = "--set=cdc.dlq_subject=graves";
    assert_eq!(sequences(&world.json(&["dlq", "list", "--json", set])), [2]);
    assert_eq!(world.run(&["dlq", "drop", "1", set]).code, Some(1));
    world.ok(&["dlq", "drop", "--all", set]);
    let info = world.client.jetstream("STREAM.INFO.graves", &Value::Null).unwrap();
    assert_eq!((&info["state"]["messages"], &info["state"]["first_seq"]), (&json!(1), &json!(1)));
    let none =
        world.run(&["dlq", "list", "--set=cdc.dlq_subject=nowhere", "--set=cdc.dlq_stream=none"]);
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("there is no stream \"none\""), "{none:?}");
}
