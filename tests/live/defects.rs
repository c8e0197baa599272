//! What was measured to go wrong in the old service stays away (contract cdc.md sections 5.4, 14 and item
//! 20). Lost publishes are in `outage`, bad identifiers in `hostile`, clean stops in `drain`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::change::{agent, contact, message};
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{OUTPUT, SOON, SOURCE, Server, World, eventually, put_one};

on_each_server!(
    the_updates_of_one_row_come_out_in_their_order,
    events_behind_a_refused_one_are_repeated_behind_it,
    a_late_copy_behind_newer_events_goes_out_no_second_time,
);

on_the_installed_server!(
    numbers_keys_and_spaces_of_a_row_are_unchanged,
    a_value_that_was_not_sent_is_left_out_and_named,
    a_column_of_an_unexpected_type_costs_no_event,
    neither_companies_nor_databases_nor_transactions_hide_each_others_events,
    servers_that_are_absent_at_the_start_are_waited_for,
    an_event_behind_redis_memory_is_dropped_by_the_stream,
    the_claim_of_a_dead_owner_stops_no_event,
);

fn the_updates_of_one_row_come_out_in_their_order(server: Server) {
    const UPDATES: u64 = 5_000;
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let mut client = world.client();
    for state in 0..UPDATES {
        let change = message("ACME", "M1", 1 + state / 3).with("action", json!("update"));
        let change = change.meta("commit_idx", json!(state % 3)).column("state", json!(state));
        let (subject, body) = change.sent();
        client.publish(&subject, None, &body).unwrap();
    }
    client.barrier().unwrap();
    daisi.settled(UPDATES, Duration::from_secs(40));
    let states = world.read(OUTPUT).into_iter().map(|l| l.json()["row_data"]["state"].as_u64());
    assert!(states.eq((0..UPDATES).map(Some)), "each once, in order");
}

fn numbers_keys_and_spaces_of_a_row_are_unchanged(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let record = concat!(
        r#"{"zeta":9007199254740993, "big":12345678901234567890,"pi":1.23456789012345678901,"e":1E+2,"#,
        r#""message_id":"M1","chat_id":"chat-1","agent_id":"agent-7","company_id":"ACME","#,
        r#""html":"<a href=\"x\">&</a>","esc":"\u00e9\/\n","alpha":null,"nested":{"b":[],"a":{}}}"#
    );
    let metadata = r#"{"table_name":"messages","commit_lsn":9}"#;
    let event = format!(r#"{{"record":{record},"action":"insert","metadata":{metadata}}}"#);
    world.put_bytes("cdc.ACME.messages", event.as_bytes());
    daisi.settled(1, SOON);
    let letters = world.read(OUTPUT);
    assert!(
        letters[0].text().contains(&format!("\"row_data\":{record},")),
        "{}",
        letters[0].text()
    );
}

fn a_value_that_was_not_sent_is_left_out_and_named(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let change = message("ACME", "M1", 1).with("action", json!("update"));
    let change = change.column("message_obj", json!("unchanged_toast"));
    let essential = message("ACME", "M2", 2).with("action", json!("update"));
    world.put(&[change, essential.column("chat_id", json!("unchanged_toast"))]);
    let metrics = daisi.settled(2, SOON);
    let out = world.read(OUTPUT)[0].json();
    assert!(out["row_data"].get("message_obj").is_none(), "{out}");
    assert_eq!(out["toast_columns"], json!(["message_obj"]));
    assert_eq!(out["row_data"]["message_text"], "hi");
    assert_eq!(metrics.dead("incomplete_row"), 1);
}

fn a_column_of_an_unexpected_type_costs_no_event(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let changes = [
        agent("ACME", "a1", 1).column("created_at", json!("2025-01-10T12:00:00")),
        agent("ACME", "a2", 2).column("created_at", json!(1_736_510_400)),
        contact("ACME", "k", 3).column("id", json!(4711)),
        message("ACME", "M1", 4).column("message_date", json!("2025-06-01T00:00:00Z")),
        message("ACME", "M2", 5).column("is_deleted", json!("no")).column("id", json!("x")),
        message("ACME", "M3", 6).meta("commit_lsn", json!("6")),
    ];
    world.put(&changes);
    daisi.settled(changes.len() as u64, SOON);
    let out: Vec<Value> = world.read(OUTPUT).iter().map(|l| l.json()["event_id"].clone()).collect();
    let expected = [
        "1:agents:a1",
        "2:agents:a2",
        "3:contacts:4711",
        "4:messages:M1",
        "5:messages:M2",
        "6:messages:M3",
    ];
    assert_eq!(out, expected);
}

fn neither_companies_nor_databases_nor_transactions_hide_each_others_events(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let same = |company: &str| message(company, "M1", 42);
    world.put(&[
        same("ACME"),
        same("Other"),
        same("ACME").meta("database_name", json!("second_db")),
        same("ACME").meta("commit_idx", json!(1)),
        same("ACME"),
    ]);
    let metrics = daisi.settled(5, SOON);
    assert_eq!(metrics.events("messages", "duplicate"), 1, "the last one only");
    let letters = world.read(OUTPUT);
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| letter.json()["event_id"] == "42:messages:M1"));
}

fn servers_that_are_absent_at_the_start_are_waited_for(server: Server) {
    let mut world = World::new(server);
    world.stack.nats.stop();
    world.stack.redis.stop();
    let daisi = Daisi::spawn(&world, &[]);
    daisi.not_ready("\"nats\"", SOON);
    daisi.not_ready("\"redis\"", SOON);
    assert_eq!(daisi.get("/health").0, 200, "a restart would not bring them back");
    world.stack.nats.start().unwrap();
    daisi.not_ready("\"redis\"", SOON);
    world.stack.redis.start().unwrap();
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1)]);
    daisi.settled(1, SOON);
    assert_eq!(world.count(OUTPUT), 1);
}

/// Redis has lost its memory; the message id on the output is the second line.
fn an_event_behind_redis_memory_is_dropped_by_the_stream(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.dedup_lru", "0")]);
    daisi.ready(READY_MAX);
    let (subject, body) = message("ACME", "M1", 1).sent();
    put_one(&mut world.client(), &subject, &body);
    daisi.settled(1, SOON);
    assert_eq!(crate::world::ask_redis(&world, "FLUSHALL"), "+OK");
    put_one(&mut world.client(), &subject, &body);
    let metrics = daisi.settled(2, SOON);
    assert_eq!((world.count(SOURCE), world.count(OUTPUT)), (2, 1));
    assert_eq!(metrics.events("messages", "duplicate"), 1);
}

/// The fence (DESIGN.md promise 3): the stream refuses an event and takes the one behind it. When the first
/// gets in, the second lies before it, so it is repeated: who reads on sees the newest state last.
fn events_behind_a_refused_one_are_repeated_behind_it(server: Server) {
    let world = World::new(server);
    let stream = |max: i64| {
        json!({"name": OUTPUT, "subjects": ["wa.>"], "retention": "limits", "storage": "file",
            "discard": "new", "discard_new_per_subject": max > 0, "max_msgs_per_subject": max,
            "num_replicas": 1, "duplicate_window": 120_000_000_000_u64})
    };
    world.client().jetstream(&format!("STREAM.CREATE.{OUTPUT}"), &stream(1)).unwrap();
    let daisi = Daisi::spawn(&world, &[("cdc.retry_attempts", "100")]);
    daisi.ready(READY_MAX);
    let on = |chat: &str, id: &str, lsn| message("ACME", id, lsn).column("chat_id", json!(chat));
    world.put(&[on("chat-1", "M1", 1)]);
    daisi.settled(1, SOON);
    // One write, so that the second is on its way before the first's refusal comes.
    let mut client = world.client();
    for change in [on("chat-1", "M2", 2), on("chat-2", "M3", 3)] {
        let (subject, body) = change.sent();
        client.publish(&subject, None, &body).unwrap();
    }
    client.barrier().unwrap();
    eventually("the second is in", SOON, || world.count(OUTPUT) == 2);
    assert_eq!(daisi.metrics().result("processed"), 1, "it does not count before the first");
    world.client().jetstream(&format!("STREAM.UPDATE.{OUTPUT}"), &stream(-1)).unwrap();
    daisi.settled(3, SOON);
    let letters = world.read(OUTPUT);
    let ids: Vec<Value> = letters.iter().map(|l| l.json()["message_id"].clone()).collect();
    assert_eq!(ids, ["M1", "M3", "M2", "M3"]);
    assert!(letters[3].header("Nats-Msg-Id").unwrap().ends_with(";r1"));
}

/// A source that sends an event again long after, when a crash has cost its mark in Redis: the stream knows
/// it, and its first copy lies where it belongs.
fn a_late_copy_behind_newer_events_goes_out_no_second_time(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.dedup_lru", "0")]);
    daisi.ready(READY_MAX);
    let old = [message("ACME", "M1", 1), message("ACME", "M2", 2)];
    world.put(&old);
    daisi.settled(2, SOON);
    assert_eq!(crate::world::ask_redis(&world, "FLUSHALL"), "+OK");
    let [first, second] = old;
    world.put(&[message("ACME", "M3", 3), first, second, message("ACME", "M4", 4)]);
    let metrics = daisi.settled(6, SOON);
    let ids: Vec<Value> =
        world.read(OUTPUT).iter().map(|l| l.json()["message_id"].clone()).collect();
    assert_eq!(ids, ["M1", "M2", "M3", "M4"]);
    assert_eq!(metrics.events("messages", "duplicate"), 2);
}

/// DESIGN.md promise 2: only *done* skips an event; whoever left a claim may have died before its publish.
fn the_claim_of_a_dead_owner_stops_no_event(server: Server) {
    let world = World::new(server);
    let key =
        |lsn: u64, id: &str| format!("dedup:{{ACME}}:message_service_db:{lsn}:0:messages:{id}");
    let redis = |command: String| crate::world::ask_redis(&world, &command);
    assert_eq!(redis(format!("SET {} somebody:00c0ffee EX 300", key(1, "M1"))), "+OK");
    assert_eq!(redis(format!("SET {} \"\" EX 300", key(2, "M2"))), "+OK");
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1), message("ACME", "M2", 2)]);
    let metrics = daisi.settled(2, SOON);
    let ids: Vec<Value> =
        world.read(OUTPUT).iter().map(|l| l.json()["message_id"].clone()).collect();
    assert_eq!(ids, ["M1"], "the claimed one goes out, the done one does not");
    assert_eq!(metrics.events("messages", "duplicate"), 1);
}
