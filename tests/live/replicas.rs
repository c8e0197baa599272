//! A second replica beside the first: a hot standby that takes over a dead one's lease, gets it handed over
//! at once by a clean stop, and is not harmed by a first that wakes up late (DESIGN.md section 3).

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daisi::{Daisi, READY_MAX};
use crate::traffic::{Traffic, mixed};
use crate::world::{OUTPUT, SHORT_LEASE, SOON, Server, World, eventually, say};

on_each_server!(the_standby_takes_over_when_the_first_is_killed);

on_the_installed_server!(
    a_clean_stop_hands_over_at_once,
    a_first_that_slept_past_its_lease_does_no_harm,
);

const LEASE: Duration = Duration::from_secs(3);
/// Beyond the lease: the standby's asking, the consumer's re-creation, a busy machine.
const SLACK: Duration = Duration::from_secs(5);
const COUNT: u64 = 5_000;
const RATE: f64 = 600.0;
const DRAIN: Duration = Duration::from_secs(30);

/// First and standby, both ready, traffic flowing through the first.
fn pair(world: &World, seed: u64) -> (Daisi, Daisi, Traffic) {
    let first = Daisi::spawn(world, &[SHORT_LEASE]);
    first.ready(READY_MAX);
    eventually("the first reads", SOON, || first.is_reading());
    let second = Daisi::spawn(world, &[SHORT_LEASE]);
    second.ready(READY_MAX);
    let traffic = Traffic::start(world, mixed(seed), COUNT, RATE, DRAIN);
    eventually("traffic flows", SOON, || world.count(OUTPUT) > 300);
    assert!(first.is_reading() && !second.is_reading(), "one reader at a time");
    assert_eq!(second.metrics().pulled(), 0);
    (first, second, traffic)
}

fn the_standby_takes_over_when_the_first_is_killed(server: Server) {
    let world = World::new(server);
    let (mut first, second, traffic) = pair(&world, 40);
    first.kill9();
    let killed = Instant::now();
    eventually("the standby reads", LEASE + SLACK, || second.is_reading());
    say(&format!("take-over on {server:?}: {:.2?} after the kill", killed.elapsed()));
    traffic.clean();
    assert!(second.metrics().pulled() > 0);
}

fn a_clean_stop_hands_over_at_once(server: Server) {
    let world = World::new(server);
    let (mut first, second, traffic) = pair(&world, 41);
    let asked = Instant::now();
    // Its end is the kernel's affair, and on a busy machine takes longer than the hand-over does.
    first.signal(Signal::TERM);
    eventually("the standby reads", SOON, || second.is_reading());
    let took = asked.elapsed();
    let status = first.exit(SOON);
    say(&format!(
        "hand-over on {server:?}: {took:.2?} after SIGTERM, {:.2?} to its end",
        asked.elapsed()
    ));
    assert_eq!(status.code(), Some(0), "{}", first.log());
    assert!(took < Duration::from_secs(2), "{took:?}");
    traffic.clean();
}

fn a_first_that_slept_past_its_lease_does_no_harm(server: Server) {
    let world = World::new(server);
    let (first, second, traffic) = pair(&world, 42);
    first.pause();
    eventually("the standby reads", LEASE + SLACK, || second.is_reading());
    sleep(Duration::from_millis(700));
    first.resume();
    eventually("the first sees that its lease is gone", SOON, || !first.is_reading());
    traffic.clean();
    assert!(second.is_reading(), "the lease did not wander");
    first.ready(SOON);
    // And it is a standby as good as any.
    drop(second);
    eventually("the first reads again", LEASE + SLACK, || first.is_reading());
}
