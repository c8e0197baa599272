//! Dead letters of a daisi that runs, through the operator's commands: what was mended goes out, what was not
//! comes back.

use std::process::Command;

use crate::change::message;
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, OUTPUT, SOON, SOURCE, Server, World};

on_each_server!(a_retried_event_goes_out_once_the_cause_is_mended_and_comes_back_if_it_is_not);

on_the_installed_server!(a_retried_event_keeps_its_place_among_the_writes_to_a_row,);

fn a_retried_event_goes_out_once_the_cause_is_mended_and_comes_back_if_it_is_not(server: Server) {
    let world = World::new(server);
    // An operator's mistake: Sequin's changes are refused as Debezium's.
    let mut mistaken = Daisi::spawn(&world, &[("cdc.envelope", "debezium")]);
    mistaken.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1)]);
    world.put_bytes("cdc.ACME.messages", b"{ no json");
    mistaken.settled(2, SOON);
    assert_eq!((world.count(DEAD), world.count(OUTPUT)), (2, 0));
    // Nothing is mended yet: two letters go, and two come.
    retry(&world, "retried 2 of 2 dead letters");
    mistaken.settled(4, SOON);
    assert_eq!((world.count(DEAD), world.count(OUTPUT)), (2, 0));
    assert!(mistaken.term(SOON).success());
    let mended = Daisi::spawn(&world, &[]);
    mended.ready(READY_MAX);
    retry(&world, "retried 2 of 2 dead letters");
    mended.settled(2, SOON);
    assert_eq!((world.count(DEAD), world.count(OUTPUT)), (1, 1));
    let sent = world.read(SOURCE);
    assert_eq!(sent.len(), 6);
    assert!(sent[2..].chunks(2).all(|pair| pair[0].body == sent[0].body));
    assert!(sent[2..].chunks(2).all(|pair| pair[1].body == b"{ no json"));
    // However often it was sent: its first place.
    let place = |at: usize| sent[at].header("Daisi-Original-Sequence");
    assert_eq!((place(2).as_deref(), place(4).as_deref()), (Some("1"), Some("1")));
    assert_eq!((place(3).as_deref(), place(5).as_deref()), (Some("2"), Some("2")));
    let time = |at: usize| sent[at].header("Daisi-Original-Timestamp");
    assert!(time(2).is_some() && time(2) == time(4));
}

// A chat update that came ahead of its chat is retried by hand; then one whose chat has moved on since.
fn a_retried_event_keeps_its_place_among_the_writes_to_a_row(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let update = |chat: &str| {
        let body = format!(r#"{{"chat_id":"{chat}","agent_id":"a","unread_count":7}}"#);
        world.put_bytes("v1.chats.update.ACME", body.as_bytes());
    };
    let chat = |chat: &str, count: u32| {
        format!(
            r#"{{"chat_id":"{chat}","jid":"j","company_id":"ACME","agent_id":"a","phone_number":"6","unread_count":{count}}}"#
        )
    };
    update("early");
    update("late");
    daisi.ingested(2, SOON);
    let history = format!(r#"{{"chats":[{}]}}"#, chat("early", 1));
    world.put_bytes("v1.history.chats.ACME", history.as_bytes());
    world.put_bytes("v1.chats.upsert.ACME", chat("late", 2).as_bytes());
    daisi.ingested(4, SOON);
    retry(&world, "retried 2 of 2 dead letters");
    let metrics = daisi.ingested(6, SOON);
    assert_eq!(metrics.sum("daisi_ingest_stale_events_total", &[]), 1);
    let rows = "SELECT chat_id, unread_count, last_metadata->>'stream_sequence' \
                FROM daisi_acme.chats ORDER BY 1";
    assert_eq!(world.sql(rows), "early|7|1\nlate|2|3");
}

#[track_caller]
fn retry(world: &World, told: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi"));
    command.args(["dlq", "retry", "--all", "--yes"]).env_clear();
    let output = command.env("NATS_URL", world.stack.nats.url()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(told), "{text}");
}
