//! Servers that go away and come back: no loss, no duplicate, and `/ready` says why (DESIGN.md promises 1,
//! 2, 5 and 7; contract cdc.md item 10 and weaknesses 1 to 4).

use std::thread::sleep;
use std::time::{Duration, Instant};

use loadtest::generate::Profile;
use serde_json::{Value, json};

use crate::daisi::{Daisi, READY_MAX};
use crate::traffic::{Traffic, mixed};
use crate::world::{OUTPUT, SOON, Server, World, eventually, say};

on_each_server!(
    nats_away_for_ten_seconds_costs_nothing,
    a_full_output_stream_holds_events_back_until_there_is_room,
);

on_the_installed_server!(
    redis_away_for_ten_seconds_costs_nothing,
    redis_that_answers_nobody_is_noticed_and_costs_nothing,
    without_required_dedup_traffic_goes_on_while_redis_is_away,
);

const AWAY: Duration = Duration::from_secs(10);
/// The aim is two seconds; a busy machine gets more.
const RESUME_MAX: Duration = Duration::from_secs(6);
const RATE: f64 = 400.0;
const COUNT: u64 = 6_000;
const DRAIN: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, Debug)]
enum Absent {
    Nats,
    Redis,
}

fn nats_away_for_ten_seconds_costs_nothing(server: Server) {
    outage(server, Absent::Nats);
}

fn redis_away_for_ten_seconds_costs_nothing(server: Server) {
    outage(server, Absent::Redis);
}

fn outage(server: Server, absent: Absent) {
    let mut world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(10), COUNT, RATE, DRAIN);
    sleep(Duration::from_secs(1));
    assert!(world.count(OUTPUT) > 0, "traffic flows before the outage");
    let name = match absent {
        Absent::Nats => {
            world.stack.nats.kill();
            "\"nats\""
        }
        Absent::Redis => {
            world.stack.redis.kill();
            "\"redis\""
        }
    };
    let gone = Instant::now();
    let body = daisi.not_ready(name, SOON);
    let noticed = gone.elapsed();
    let causes = ["refused", "closed", "reset"];
    assert!(causes.iter().any(|cause| body.contains(cause)), "with the cause: {body}");
    sleep(AWAY.saturating_sub(gone.elapsed()));
    assert_eq!(daisi.get("/ready").0, 503, "still not ready");
    assert_eq!(daisi.get("/health").0, 200, "and no reason to restart");
    let before = daisi.metrics().result("processed");
    match absent {
        Absent::Nats => world.stack.nats.start().unwrap(),
        Absent::Redis => world.stack.redis.start().unwrap(),
    }
    let back = Instant::now();
    eventually("traffic resumes", RESUME_MAX, || daisi.metrics().result("processed") > before);
    let resumed = back.elapsed();
    say(&format!(
        "{absent:?} away on {server:?}: noticed in {noticed:.2?}, resumed in {resumed:.2?}"
    ));
    traffic.clean();
    daisi.ready(SOON);
    balanced(&daisi);
}

// A lost connection gives events back to the stream, to be read again, so their number is not told here.
#[track_caller]
fn balanced(daisi: &Daisi) {
    eventually("the books balance", SOON, || {
        let metrics = daisi.metrics();
        metrics.in_flight() == 0 && metrics.residual() == 0.0
    });
}

fn redis_that_answers_nobody_is_noticed_and_costs_nothing(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("redis.command_timeout", "500ms")]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(11), 2_000, RATE, DRAIN);
    sleep(Duration::from_secs(1));
    world.stack.redis.pause();
    daisi.not_ready("\"redis\"", SOON);
    sleep(Duration::from_secs(2));
    world.stack.redis.resume();
    traffic.clean();
    daisi.ready(SOON);
}

fn without_required_dedup_traffic_goes_on_while_redis_is_away(server: Server) {
    let mut world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.dedup_required", "false")]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(12), 3_000, RATE, DRAIN);
    sleep(Duration::from_secs(2));
    world.stack.redis.kill();
    eventually("the loss is noticed", SOON, || {
        daisi.metrics().sum("daisi_shard_dependency_up", &[("dependency", "redis")]) == 0
    });
    let before = world.count(OUTPUT);
    eventually("events go on", RESUME_MAX, || world.count(OUTPUT) > before + 200);
    world.stack.redis.start().unwrap();
    // The stream's own window drops what Redis could not tell.
    traffic.clean();
    daisi.ready(SOON);
}

/// Item 10, disabled in the source because it never passed: refused events are retried, not lost.
fn a_full_output_stream_holds_events_back_until_there_is_room(server: Server) {
    let world = World::new(server);
    let stream = |max: i64| {
        json!({"name": OUTPUT, "subjects": ["wa.>"], "retention": "limits", "storage": "file",
            "discard": "new", "max_msgs": max, "num_replicas": 1,
            "duplicate_window": 120_000_000_000_u64})
    };
    let call = |call: &str, body: &Value| world.client().jetstream(call, body).unwrap();
    call(&format!("STREAM.CREATE.{OUTPUT}"), &stream(100));
    let attempts = [("cdc.retry_attempts", "100"), ("cdc.retry_delay_max", "500ms")];
    let daisi = Daisi::spawn(&world, &attempts);
    daisi.ready(READY_MAX);
    let profile = Profile { companies: 4, agents: 1, chats: 2, ..Profile::clean() };
    let traffic = Traffic::start(&world, profile, 1_000, 0.0, DRAIN);
    eventually("the stream is full", SOON, || world.count(OUTPUT) == 100);
    eventually("refusals are counted", SOON, || {
        let failed = [("table", "messages"), ("status", "failure")];
        let metrics = daisi.metrics();
        metrics.sum("cdc_consumer_events_published_total", &failed) > 0
            && metrics.sum("cdc_consumer_publish_errors_total", &[]) > 0
    });
    sleep(Duration::from_secs(1));
    assert_eq!(daisi.metrics().result("dead_lettered"), 0, "the stream's trouble, not the events'");
    call(&format!("STREAM.UPDATE.{OUTPUT}"), &stream(-1));
    let freed = Instant::now();
    eventually("all are in", RESUME_MAX, || world.count(OUTPUT) >= 1_000);
    say(&format!("full stream on {server:?}: all in {:.2?} after it was freed", freed.elapsed()));
    traffic.clean();
    balanced(&daisi);
}
