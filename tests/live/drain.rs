//! SIGTERM under load: what was begun is finished, nothing is lost, the lease is given back, and the exit
//! code says so (contract cdc.md section 8, shutdown; DESIGN.md promise 1).

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::daisi::{Daisi, READY_MAX};
use crate::traffic::{Traffic, mixed};
use crate::world::{Letter, OUTPUT, SHORT_LEASE, SOURCE, Server, World, eventually, say};

on_each_server!(a_clean_stop_under_load_leaves_nothing_behind);

on_the_installed_server!(a_stop_without_servers_ends_by_its_deadline,);

fn a_clean_stop_under_load_leaves_nothing_behind(server: Server) {
    let world = World::new(server);
    let mut daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(20), 6_000, 1_500.0, Duration::from_secs(30));
    let mut longest = Duration::ZERO;
    for round in 1..=4 {
        eventually("traffic flows", Duration::from_secs(10), || {
            world.count(OUTPUT) >= 200 * round && daisi.metrics().pulled() > 100
        });
        let asked = Instant::now();
        let status = daisi.term(Duration::from_secs(25));
        longest = longest.max(asked.elapsed());
        assert_eq!(status.code(), Some(0), "{}", daisi.log());
        assert!(daisi.log().contains("\"left\":0"), "{}", daisi.log());
        let key = lease_of(&world);
        assert_eq!(key.as_deref(), Some(""), "the lease is given back by a delete mark");
        let behind = effects_behind_the_floor(&world);
        assert!(behind.is_empty(), "published and not acknowledged: {behind:?}");
        daisi = Daisi::spawn(&world, &[]);
        daisi.ready(READY_MAX);
    }
    say(&format!("clean stop under load on {server:?}: at most {longest:.2?}"));
    traffic.clean();
}

// Events that came out and that the consumer's floor does not cover. `num_ack_pending` may be above 0 all
// the same: what the server had begun to deliver when our pull was withdrawn reaches nobody, and counts as
// delivered (nats-server 2.9.10, `didNotDeliver`). None of it has an effect, and the next reader gets it.
fn effects_behind_the_floor(world: &World) -> Vec<u64> {
    let floor = world.consumer_info(SOURCE, "cdc_consumers")["ack_floor"]["stream_seq"]
        .as_u64()
        .expect("a consumer has a floor");
    assert!(floor > 0, "something was acknowledged");
    let ordinals = |letters: &[Letter]| letters.iter().filter_map(ordinal).collect::<HashSet<_>>();
    let source = world.read(SOURCE);
    let (covered, behind) = source.split_at(usize::try_from(floor).expect("a small stream"));
    // A row change that was sent twice stands on both sides, and is one effect.
    let open = &ordinals(behind) - &ordinals(covered);
    let effects = ordinals(&world.read(OUTPUT));
    assert!(!effects.is_empty(), "outputs bear the generator's mark");
    let mut behind: Vec<u64> = open.intersection(&effects).copied().collect();
    behind.sort_unstable();
    behind
}

// The generator's number of an event, in its mark.
fn ordinal(letter: &Letter) -> Option<u64> {
    let digits = letter.body.windows(10).rposition(|text| text == b"\"ordinal\":")? + 10;
    let text = std::str::from_utf8(&letter.body[digits..]).ok()?;
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

// Body of the lease's key; empty for a delete mark, none if it never was.
fn lease_of(world: &World) -> Option<String> {
    let key = "$KV.daisi_leases.cdc_events_stream.cdc_consumers";
    let letters = world.read("KV_daisi_leases");
    letters
        .iter()
        .rfind(|l| l.subject == key)
        .map(|l| String::from_utf8_lossy(&l.body).into_owned())
}

fn a_stop_without_servers_ends_by_its_deadline(server: Server) {
    let mut world = World::new(server);
    let sets = [("control.drain_deadline", "2s"), SHORT_LEASE];
    let mut daisi = Daisi::spawn(&world, &sets);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(21), 1_000, 1_000.0, Duration::from_secs(30));
    sleep(Duration::from_millis(300));
    // With events held: Redis answers nobody.
    world.stack.redis.pause();
    eventually("events are held", Duration::from_secs(10), || daisi.metrics().in_flight() > 0);
    let asked = Instant::now();
    let status = daisi.term(Duration::from_secs(6));
    say(&format!("stop without Redis: {status} after {:.2?}", asked.elapsed()));
    assert_eq!(status.code(), Some(1), "work is left behind, and the exit code says so");
    world.stack.redis.kill();
    world.stack.redis.start().unwrap();
    let next = Daisi::spawn(&world, &[]);
    next.ready(READY_MAX);
    traffic.clean();
}
