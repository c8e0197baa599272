//! kill -9 of daisi, of PostgreSQL and of NATS at random moments under load, and stops: every event that NATS
//! acknowledged has its effect, once. The seed is printed; `DAISI_SEED` repeats a run's moments, `DAISI_ROUNDS` makes it longer.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::{Load, Sent, assert_as_undisturbed};
#[cfg(feature = "fault")]
use super::load::{assert_as_clean, write_clean};
use crate::crash::{dice, die_and_rise};
use crate::daisi::{Daisi, READY_MAX};
#[cfg(feature = "fault")]
use crate::world::put_one;
use crate::world::{DEAD, Letter, SHORT_LEASE, SOON, Server, World, chosen, eventually, say};

on_the_installed_server!(
    daisi_killed_at_random_loses_and_doubles_nothing,
    postgresql_killed_at_random_loses_and_doubles_nothing,
    nats_killed_at_random_loses_and_doubles_nothing,
    a_kill_loses_nothing_of_a_stream_that_keeps_by_interest,
    two_shards_and_two_replicas_write_what_one_would,
    a_drain_under_load_ends_well_and_leaves_the_rest_to_the_next,
    a_stop_without_postgresql_ends_by_its_deadline_and_loses_nothing,
);

#[cfg(feature = "fault")]
on_the_installed_server!(a_panic_while_a_lane_writes_costs_its_event_alone);

/// Kills of a run, unless `DAISI_ROUNDS` says otherwise.
const ROUNDS: u64 = 2;
/// What a round may take, its restart and the lease of the dead included; traffic lasts as long.
const ROUND_S: u64 = 4;
const RATE: u64 = 1_000;
const DRAIN: Duration = Duration::from_secs(60);
const STREAMS: [(&str, &str); 2] =
    [("wa_events_stream", "daisi_ingest"), ("wa_history_events_stream", "daisi_ingest_history")];

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
    let dead = sent.dead_lettered();
    eventually("the dead letters are there", SOON, || world.count(DEAD) + 40 >= dead);
    balanced(&daisi);
    assert_rows_and_letters(&world, &sent);
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

/// Holds rows and letters of a disturbed run, which is over, against those of an undisturbed one.
#[track_caller]
fn assert_rows_and_letters(world: &World, sent: &Sent) {
    let letters = letters_once(world);
    assert_as_undisturbed(world, sent);
    assert_same_letters(world, &letters, sent.dead_lettered());
}

fn postgresql_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let mut world = World::ingesting(server);
    let mut rng = dice(12);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let rounds = chosen("DAISI_ROUNDS", ROUNDS);
    let load = Load::start(&world, 52, (rounds + 1) * ROUND_S * RATE, RATE);
    for _ in 0..rounds {
        let deed: [fn(&mut World); 2] =
            [|world| world.stack.postgres.kill(), |world| world.stack.postgres.start().unwrap()];
        die_and_rise(&mut world, &daisi, &mut rng, deed);
    }
    let sent = load.sent();
    daisi.ready(READY_MAX).ingested(sent.events(), DRAIN);
    assert_rows_and_letters(&world, &sent);
}

// What the server promises: a message of a file stream is in the kernel's page cache before its PubAck, so the death of
// the process takes none of them (that of the machine may take those of the last two minutes), and the window of
// message ids is made anew from the stream. What it does not promise are the acks: their floors may fall back, so that
// events are delivered again.
fn nats_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let mut world = World::ingesting(server);
    let mut rng = dice(13);
    let daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX);
    let rounds = chosen("DAISI_ROUNDS", ROUNDS);
    let load = Load::start_resending(&world, 57, (rounds + 1) * ROUND_S * RATE, RATE);
    for _ in 0..rounds {
        let deed: [fn(&mut World); 2] =
            [|world| world.stack.nats.kill(), |world| world.stack.nats.start().unwrap()];
        die_and_rise(&mut world, &daisi, &mut rng, deed);
    }
    let sent = load.sent();
    let stored: u64 = STREAMS.iter().map(|(stream, _)| world.count(stream)).sum();
    assert_eq!(stored, sent.events(), "every PubAck is a message, and each is there once");
    daisi.ready(READY_MAX);
    all_acked(&world);
    balanced(&daisi);
    assert_rows_and_letters(&world, &sent);
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
    assert_as_undisturbed(&world, &sent);
}

fn a_stop_without_postgresql_ends_by_its_deadline_and_loses_nothing(server: Server) {
    let mut world = World::ingesting(server);
    let sets = [("control.drain_deadline", "2s"), SHORT_LEASE];
    let mut daisi = Daisi::spawn(&world, &sets);
    daisi.ready(READY_MAX);
    let load = Load::start(&world, 58, 8_000, RATE);
    // Gone, so that connections are refused; then mute, with writes under way that nobody answers.
    for is_mute in [false, true] {
        sleep(Duration::from_millis(800));
        match is_mute {
            true => world.stack.postgres.pause(),
            false => world.stack.postgres.stop(),
        }
        let held = || daisi.metrics().sum("daisi_ingest_in_flight_events", &[]);
        eventually("events are held", SOON, || held() > 100);
        let asked = Instant::now();
        let status = daisi.term(Duration::from_secs(6));
        let took = asked.elapsed();
        say(&format!("stop without PostgreSQL (mute: {is_mute}): {status} after {took:.2?}"));
        assert_eq!(status.code(), Some(1), "work is left behind, and the exit code says so");
        let log = daisi.log();
        assert!(log.contains("stopped with work left behind; it is delivered again"), "{log}");
        match is_mute {
            true => world.stack.postgres.resume(),
            false => world.stack.postgres.start().unwrap(),
        }
        daisi = Daisi::spawn(&world, &sets);
        daisi.ready(READY_MAX);
    }
    let sent = load.sent();
    all_acked(&world);
    balanced(&daisi);
    assert_rows_and_letters(&world, &sent);
}

// The panic comes between the statements of a transaction and its COMMIT.
#[cfg(feature = "fault")]
fn a_panic_while_a_lane_writes_costs_its_event_alone(server: Server) {
    let world = World::ingesting(server);
    let fault = [("DAISI_FAULT", "before_commit=poison")];
    // One lane, so that the innocent are in the poison's batch.
    let daisi = Daisi::spawn_with(&world, &[("ingest.connections", "1")], &fault);
    daisi.ready(READY_MAX);
    let load = Load::start(&world, 59, 4_000, RATE);
    sleep(Duration::from_secs(1));
    daisi.pause();
    let mut client = world.client();
    for (id, text) in [("m-1", "before"), ("m-2", "poison"), ("m-3", "behind")] {
        let body = json!({
            "message_id": id, "chat_id": "c", "jid": "j", "flow": "OUT", "company_id": "Harm",
            "agent_id": "a", "message_text": text, "message_timestamp": 1_735_700_050,
        });
        put_one(&mut client, "v1.messages.upsert.Harm", body.to_string().as_bytes());
    }
    daisi.resume();
    let sent = load.sent();
    all_acked(&world);
    balanced(&daisi);
    assert_eq!(daisi.metrics().sum("daisi_shard_panics_total", &[]), 2);
    assert_eq!(daisi.log().matches("a panic was contained").count(), 2);
    assert_eq!(daisi.get("/health").0, 200);
    daisi.ready(SOON);
    let letters = world.read(DEAD);
    let of_panic = |letter: &&Letter| letter.header("Daisi-Reason").as_deref() == Some("panic");
    let [letter] = letters.iter().filter(of_panic).collect::<Vec<_>>()[..] else {
        panic!("{:#?}", reasons(&letters));
    };
    let letter = letter.json();
    assert_eq!(letter["original_payload"]["message_id"], "m-2", "{letter}");
    assert!(letter["error"].as_str().unwrap().contains("panic twice"), "{letter}");
    let stored = "SELECT string_agg(message_id, ' ' ORDER BY message_id) FROM daisi_harm.messages";
    assert_eq!(world.sql(stored), "m-1 m-3");
    sent.assert_tally(&world);
    write_clean(&world, sent.events() + 3);
    assert_as_clean(&world);
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
    assert_as_undisturbed(&world, &sent);
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
    for (stream, consumer) in STREAMS {
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
