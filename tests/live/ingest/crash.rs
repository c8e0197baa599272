//! kill -9 of daisi and of PostgreSQL at random moments under load: every event that NATS acknowledged has its
//! effect, once. The seed is printed; `DAISI_SEED` repeats a run's moments, `DAISI_ROUNDS` makes it longer.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use super::load::{Load, assert_as_undisturbed};
use crate::crash::dice;
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, Letter, SHORT_LEASE, SOON, Server, World, chosen, eventually};

on_the_installed_server!(
    daisi_killed_at_random_loses_and_doubles_nothing,
    postgresql_killed_at_random_loses_and_doubles_nothing,
    a_kill_loses_nothing_of_a_stream_that_keeps_by_interest,
    two_shards_and_two_replicas_write_what_one_would,
    a_drain_under_load_ends_well_and_leaves_the_rest_to_the_next,
);

/// Kills of a run, unless `DAISI_ROUNDS` says otherwise.
const ROUNDS: u64 = 2;
/// What a round may take, its restart and the lease of the dead included; traffic lasts as long.
const ROUND_S: u64 = 4;
const RATE: u64 = 1_000;
const DRAIN: Duration = Duration::from_secs(60);

fn daisi_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let world = World::ingesting(server);
    let mut rng = dice(11);
    let mut daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX);
    let rounds = chosen("DAISI_ROUNDS", ROUNDS);
    let load = Load::start(&world, 51, (rounds + 1) * ROUND_S * RATE, RATE);
    for _ in 0..rounds {
        sleep(Duration::from_millis(rng.u64(200..1_200)));
        daisi.kill9();
        daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
        eventually("it reads", READY_MAX, || daisi.partitions() == [0, 1]);
    }
    let sent = load.sent();
    all_acked(&world);
    let dead = sent.realtime.dead_lettered() + sent.history.dead_lettered();
    eventually("the dead letters are there", SOON, || world.count(DEAD) + 40 >= dead);
    let letters = letters_once(&world);
    balanced(&daisi);
    assert_as_undisturbed(&world, sent.events());
    assert_same_letters(&world, &letters, dead);
}

/// The reason of each dead letter, by its name. No kill doubles one.
#[track_caller]
fn letters_once(world: &World) -> BTreeMap<String, String> {
    let letters = world.read(DEAD);
    let named = reasons(&letters);
    assert_eq!(named.len(), letters.len(), "a letter of the same event is the same letter");
    named
}

fn reasons(letters: &[Letter]) -> BTreeMap<String, String> {
    let header = |letter: &Letter, name| letter.header(name).expect("every letter has it");
    letters.iter().map(|l| (header(l, "Nats-Msg-Id"), header(l, "Daisi-Reason"))).collect()
}

/// Holds the letters of a disturbed run against those that the undisturbed one has added by now. One may be
/// missing of an update ahead of its row: when a commit is not heard of, its batch is written again, and then
/// the update finds the row, newer than itself. Its letter would have come to the same.
#[track_caller]
fn assert_same_letters(world: &World, found: &BTreeMap<String, String>, dead: u64) {
    let all = reasons(&world.read(DEAD));
    assert_eq!(all.len() as u64, dead, "letters in all");
    for (name, reason) in all.iter().filter(|(name, _)| !found.contains_key(*name)) {
        assert_eq!(reason, "not_found", "{name} is missing");
    }
}

fn postgresql_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let mut world = World::ingesting(server);
    let mut rng = dice(12);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let rounds = chosen("DAISI_ROUNDS", ROUNDS);
    let load = Load::start(&world, 52, (rounds + 1) * ROUND_S * RATE, RATE);
    for _ in 0..rounds {
        sleep(Duration::from_millis(rng.u64(200..1_200)));
        world.stack.postgres.kill();
        sleep(Duration::from_millis(rng.u64(0..300)));
        world.stack.postgres.start().unwrap();
        if rng.bool() {
            daisi.ready(READY_MAX);
        }
    }
    let sent = load.sent();
    daisi.ready(READY_MAX).ingested(sent.events(), DRAIN);
    let dead = sent.realtime.dead_lettered() + sent.history.dead_lettered();
    let letters = letters_once(&world);
    assert_as_undisturbed(&world, sent.events());
    assert_same_letters(&world, &letters, dead);
}

fn a_drain_under_load_ends_well_and_leaves_the_rest_to_the_next(server: Server) {
    let world = World::ingesting(server);
    let mut daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let load = Load::start(&world, 53, 4_000, RATE);
    for _ in 0..3 {
        sleep(Duration::from_millis(800));
        let status = daisi.term(Duration::from_secs(20));
        assert!(status.success(), "{status}\n{}", daisi.log());
        daisi = Daisi::spawn(&world, &[]);
        daisi.ready(READY_MAX);
    }
    let sent = load.sent();
    all_acked(&world);
    balanced(&daisi);
    assert_as_undisturbed(&world, sent.events());
}

fn two_shards_and_two_replicas_write_what_one_would(server: Server) {
    let world = World::ingesting(server);
    let sets = [SHORT_LEASE, ("shards", "2"), ("ingest.connections", "3")];
    let mut first = Daisi::spawn(&world, &sets);
    first.ready(READY_MAX);
    let second = Daisi::spawn(&world, &sets);
    second.ready(READY_MAX);
    let load = Load::start(&world, 54, 5_000, RATE);
    sleep(Duration::from_secs(2));
    first.kill9();
    let sent = load.sent();
    all_acked(&world);
    balanced(&second);
    assert_as_undisturbed(&world, sent.events());
}

fn a_kill_loses_nothing_of_a_stream_that_keeps_by_interest(server: Server) {
    let mut world = World::ingesting(server);
    let config = json!({
        "name": "wa_history_events_stream", "subjects": ["v1.history.*.*"], "retention": "interest",
        "storage": "file", "num_replicas": 1,
    });
    world.client().jetstream("STREAM.CREATE.wa_history_events_stream", &config).unwrap();
    let mut daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX);
    // Delivered and not acknowledged when it dies, so that its durable is made anew afterwards.
    world.stack.postgres.stop();
    let chat = |id| {
        format!(
            r#"{{"chats":[{{"chat_id":"c-{id}","jid":"j","agent_id":"a","phone_number":"1"}}]}}"#
        )
    };
    for id in 0..30 {
        world.put_bytes("v1.history.chats.ACME", chat(id).as_bytes());
    }
    daisi.kill9();
    world.stack.postgres.start().unwrap();
    let daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX).ingested(30, SOON);
    assert_eq!(world.sql("SELECT count(*) FROM daisi_acme.chats"), "30");
    assert_eq!(world.stream_config("wa_history_events_stream")["retention"], "interest");
}

/// All that the streams hold is acknowledged.
#[track_caller]
pub fn all_acked(world: &World) {
    for (stream, consumer) in
        [("wa_events_stream", "daisi_ingest"), ("wa_history_events_stream", "daisi_ingest_history")]
    {
        eventually(&format!("{stream} is acknowledged"), DRAIN, || {
            let info = world.consumer_info(stream, consumer);
            info["num_pending"] == 0 && info["num_ack_pending"] == 0
        });
    }
}

#[track_caller]
fn balanced(daisi: &Daisi) {
    eventually("the books balance", SOON, || {
        let metrics = daisi.metrics();
        metrics.sum("daisi_ingest_in_flight_events", &[]) == 0
            && metrics.sum("daisi_ingest_residual_events", &[]) == 0
    });
}
