//! A source in several partitions: the server splits it by company, replicas share the parts evenly
//! (DESIGN.md section 3). Needs NATS 2.10; on an older server that is said.

use std::time::{Duration, Instant};

use loadtest::generate::Profile;

use crate::daisi::{Daisi, READY_MAX};
use crate::traffic::{Traffic, mixed};
use crate::world::{OUTPUT, SHORT_LEASE, SOON, SOURCE, Server, World, eventually, say};

on_the_newer_server!(
    two_partitions_in_one_process_lose_nothing_and_keep_order,
    two_replicas_share_two_partitions_and_one_takes_over_from_the_other,
    a_clean_stop_hands_its_partition_over_at_once,
);

on_the_installed_server!(an_older_server_is_told_apart);

const TWO: (&str, &str) = ("cdc.partitions", "2");
const LEASE: Duration = Duration::from_secs(3);
/// Beyond the lease: seeing that it is free, waiting for the one whose turn it is, a busy machine.
const SLACK: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_secs(60);

// Eight companies, of which each partition has some.
fn profile(seed: u64) -> Profile {
    mixed(seed)
}

#[track_caller]
fn balanced(daisi: &Daisi) {
    eventually("the books balance", SOON, || {
        let metrics = daisi.metrics();
        metrics.in_flight() == 0 && metrics.residual() == 0.0
    });
}

fn two_partitions_in_one_process_lose_nothing_and_keep_order(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[TWO, ("shards", "2")]);
    daisi.ready(READY_MAX);
    assert_eq!(daisi.partitions(), [0, 1]);
    Traffic::start(&world, profile(60), 20_000, 0.0, DRAIN).clean();
    let metrics = daisi.metrics();
    for shard in ["0", "1"] {
        let pulled = metrics.sum("daisi_cdc_events_pulled_total", &[("shard", shard)]);
        assert!(pulled > 1_000, "shard {shard} had {pulled} events");
    }
    balanced(&daisi);
    let split = format!("{SOURCE}_p2");
    for partition in [0, 1] {
        let name = format!("cdc_consumers_p{partition}");
        let consumer = world.consumer_info(&split, &name);
        assert_eq!(consumer["config"]["filter_subject"], format!("p.{partition}.>"));
        assert!(consumer["ack_floor"]["consumer_seq"].as_u64() > Some(1_000), "{consumer}");
        eventually("all is acknowledged", SOON, || {
            let consumer = world.consumer_info(&split, &name);
            consumer["num_pending"] == 0 && consumer["num_ack_pending"] == 0
        });
    }
}

/// Two replicas of two shards, each with one of the two partitions, and traffic through both.
fn pair(world: &World, seed: u64) -> ([Daisi; 2], Traffic) {
    let sets = [TWO, SHORT_LEASE, ("shards", "2")];
    let first = Daisi::spawn(world, &sets);
    first.ready(READY_MAX);
    eventually("the first reads all while it is alone", SOON, || first.partitions() == [0, 1]);
    let traffic = Traffic::start(world, profile(seed), 8_000, 600.0, DRAIN);
    eventually("traffic flows", SOON, || world.count(OUTPUT) > 300);
    let second = Daisi::spawn(world, &sets);
    second.ready(READY_MAX);
    let joined = Instant::now();
    eventually("each reads one", 3 * LEASE, || {
        [&first, &second].map(|daisi| daisi.partitions().len()) == [1, 1]
    });
    say(&format!(
        "two replicas share two partitions {:.2?} after the second is ready",
        joined.elapsed()
    ));
    assert_eq!((first.partitions(), second.partitions()), (vec![0], vec![1]), "the elder keeps 0");
    let before = world.count(OUTPUT);
    eventually("traffic goes on through both", SOON, || {
        world.count(OUTPUT) > before + 300 && second.metrics().result("processed") > 100
    });
    ([first, second], traffic)
}

fn two_replicas_share_two_partitions_and_one_takes_over_from_the_other(server: Server) {
    let world = World::new(server);
    let ([mut first, second], traffic) = pair(&world, 61);
    first.kill9();
    let killed = Instant::now();
    eventually("the second takes over", LEASE + SLACK, || second.partitions() == [0, 1]);
    say(&format!("its partition is read {:.2?} after the kill", killed.elapsed()));
    traffic.clean();
    balanced(&second);
}

fn a_clean_stop_hands_its_partition_over_at_once(server: Server) {
    let world = World::new(server);
    let ([mut first, second], traffic) = pair(&world, 62);
    let asked = Instant::now();
    let status = first.term(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", first.log());
    eventually("the second takes over", Duration::from_secs(2), || second.partitions() == [0, 1]);
    say(&format!("its partition is read {:.2?} after SIGTERM", asked.elapsed()));
    traffic.clean();
    balanced(&second);
}

fn an_older_server_is_told_apart(server: Server) {
    let world = World::new(server);
    let version = world.stack.nats.version().unwrap();
    if !version.starts_with("2.9.") {
        return say(&format!("skipped: the installed server is {version}, and can split a stream"));
    }
    let daisi = Daisi::spawn(&world, &[TWO]);
    let text = format!("cdc.partitions = 2 needs NATS 2.10 or newer, and this server is {version}");
    daisi.not_ready(&text, SOON);
    assert!(daisi.log().contains(&text), "{}", daisi.log());
    assert_eq!(daisi.get("/health").0, 200);
    assert!(world.stream_config(SOURCE).is_null(), "nothing is made for what cannot be");
}
