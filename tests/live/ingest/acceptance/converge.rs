//! One stream of events, written twice: undisturbed, and with everything that may happen to it. All six tables of
//! every company come to the same, but for ids, times and places in the consumer.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::crash::dice;
use crate::daisi::{Daisi, READY_MAX};
use crate::ingest::crash::all_acked;
use crate::ingest::load::{Load, assert_as_clean, clean_settings, write_clean};
use crate::world::{DEAD, SHORT_LEASE, Server, World, eventually};

on_the_installed_server!(a_disturbed_stream_comes_to_the_rows_of_an_undisturbed_one);

const COUNT: u64 = 6_000;
const RATE: u64 = 600;
/// Short, so that what is held over a pause is delivered again.
const ACK_WAIT: (&str, &str) = ("ingest.ack_wait", "2s");
/// Letters stay: both worlds read the same stream of them.
const LETTERS: [(&str, &str); 5] = [
    ("stages", "ingest,dlq"),
    ("dlq.delete_settled", "false"),
    ("dlq.retry_delay_min", "1s"),
    ("dlq.retry_delay_max", "1s"),
    ("dlq.max_retries", "2"),
];

fn a_disturbed_stream_comes_to_the_rows_of_an_undisturbed_one(server: Server) {
    let world = World::ingesting(server);
    let mut rng = dice(21);
    let mut daisi = Daisi::spawn(&world, &[SHORT_LEASE, ACK_WAIT]);
    daisi.ready(READY_MAX);
    let load = Load::start_resending(&world, 61, COUNT, RATE);
    for _ in 0..2 {
        sleep(Duration::from_millis(rng.u64(200..1_200)));
        daisi.kill9();
        daisi = Daisi::spawn(&world, &[SHORT_LEASE, ACK_WAIT]);
        daisi.ready(READY_MAX);
    }
    daisi.pause();
    sleep(Duration::from_secs(3));
    daisi.resume();
    let sent = load.sent();
    let events = sent.events();
    all_acked(&world);
    // From the beginning again, by a daisi that knows of nothing.
    daisi.kill9();
    for call in [
        "CONSUMER.DELETE.wa_events_stream.daisi_ingest",
        "CONSUMER.DELETE.wa_history_events_stream.daisi_ingest_history",
        "STREAM.DELETE.KV_daisi_leases_positions",
        "STREAM.DELETE.KV_daisi_leases",
    ] {
        world.client().jetstream(call, &Value::Null).unwrap();
    }
    let again = Daisi::spawn(&world, &[]);
    let metrics = again.ready(READY_MAX).ingested(events, Duration::from_secs(60));
    // Only what history found made by realtime events would count once more, and here they are of other companies.
    assert_eq!(metrics.ingest("", "processed"), 0, "events that had their effect before");
    drop(again);
    // Retries of the dead letters, cut short once.
    for is_last in [false, true] {
        let mut retrying = Daisi::spawn(&world, &[&LETTERS[..], &[SHORT_LEASE]].concat());
        retrying.ready(READY_MAX);
        match is_last {
            true => await_settled(&world, "daisi_dlq"),
            false => sleep(Duration::from_millis(rng.u64(200..1_500))),
        }
        retrying.kill9();
    }
    write_clean(&world, events);
    let sets = clean_settings(&world);
    let sets = sets.iter().map(|(key, value)| (*key, value.as_str()));
    let sets: Vec<(&str, &str)> = sets.chain(LETTERS).collect();
    let clean = Daisi::spawn(&world, &sets);
    clean.ready(READY_MAX);
    await_settled(&world, "clean_dlq");
    sent.assert_tally(&world);
    let rows = assert_as_clean(&world);
    for table in ["agents", "chats", "contacts", "messages", "onboarding_log", "exhausted_events"] {
        assert!(rows.iter().any(|row| row.contains(&format!(".{table} "))), "{table} is empty");
    }
}

#[track_caller]
fn await_settled(world: &World, consumer: &str) {
    eventually(&format!("every letter of {consumer} is settled"), Duration::from_secs(40), || {
        let info = world.consumer_info(DEAD, consumer);
        info["num_pending"] == 0 && info["num_ack_pending"] == 0
    });
}
