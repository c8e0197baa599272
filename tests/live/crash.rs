//! kill -9 of each process at random moments under load, and of daisi at the two worst ones: nothing is
//! lost, nothing goes out twice, order is kept, the books balance (contract cdc.md item 21; DESIGN.md
//! promises 1 to 4). The seed is printed; `DAISI_SEED` repeats a run's moments.

use std::thread::sleep;
use std::time::Duration;

use crate::daisi::{Daisi, READY_MAX};
use crate::traffic::{Traffic, mixed};
use crate::world::{SHORT_LEASE, SOON, Server, World, eventually, say};

on_the_installed_server!(
    daisi_killed_at_random_loses_and_doubles_nothing,
    nats_killed_at_random_loses_and_doubles_nothing,
    redis_killed_at_random_loses_and_doubles_nothing,
);

#[cfg(feature = "fault")]
on_each_server!(
    a_crash_between_claim_and_publish_loses_nothing,
    a_crash_between_publish_and_ack_doubles_nothing,
);

const ROUNDS: u32 = 7;
const COUNT: u64 = 12_000;
const RATE: f64 = 1_000.0;
const DRAIN: Duration = Duration::from_secs(40);

/// Chance of a seed that is printed.
pub fn dice(salt: u64) -> fastrand::Rng {
    let named = std::env::var("DAISI_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = named.unwrap_or_else(|| fastrand::u64(..1_000_000));
    say(&format!("DAISI_SEED={seed}"));
    fastrand::Rng::with_seed(seed ^ salt)
}

fn daisi_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let world = World::new(server);
    let mut rng = dice(1);
    let mut daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(30), COUNT, RATE, DRAIN);
    for _ in 0..ROUNDS {
        sleep(Duration::from_millis(rng.u64(200..1_200)));
        daisi.kill9();
        daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
        // Its predecessor's lease must run out first.
        eventually("it reads", READY_MAX, || daisi.is_reading());
    }
    traffic.clean();
    balanced(&daisi);
}

/// A round: a server dies, rests for a moment and comes back; daisi has the time to notice, or has not.
pub fn die_and_rise(
    world: &mut World,
    daisi: &Daisi,
    rng: &mut fastrand::Rng,
    [kill, start]: [fn(&mut World); 2],
) {
    sleep(Duration::from_millis(rng.u64(200..1_200)));
    kill(world);
    sleep(Duration::from_millis(rng.u64(0..300)));
    start(world);
    if rng.bool() {
        daisi.ready(READY_MAX);
    }
}

fn nats_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let mut world = World::new(server);
    let mut rng = dice(2);
    let daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(31), COUNT, RATE, DRAIN);
    for _ in 0..ROUNDS {
        let deed: [fn(&mut World); 2] =
            [|world| world.stack.nats.kill(), |world| world.stack.nats.start().unwrap()];
        die_and_rise(&mut world, &daisi, &mut rng, deed);
    }
    traffic.clean();
    balanced(&daisi);
}

fn redis_killed_at_random_loses_and_doubles_nothing(server: Server) {
    let mut world = World::new(server);
    let mut rng = dice(3);
    let daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    daisi.ready(READY_MAX);
    let traffic = Traffic::start(&world, mixed(32), COUNT, RATE, DRAIN);
    for _ in 0..ROUNDS {
        let deed: [fn(&mut World); 2] =
            [|world| world.stack.redis.kill(), |world| world.stack.redis.start().unwrap()];
        die_and_rise(&mut world, &daisi, &mut rng, deed);
    }
    traffic.clean();
    balanced(&daisi);
}

#[track_caller]
fn balanced(daisi: &Daisi) {
    eventually("the books balance", SOON, || {
        let metrics = daisi.metrics();
        metrics.in_flight() == 0 && metrics.residual() == 0.0
    });
    assert_eq!(daisi.get("/health").0, 200);
}

#[cfg(feature = "fault")]
fn a_crash_between_claim_and_publish_loses_nothing(server: Server) {
    crash_at(server, "after_claim");
}

#[cfg(feature = "fault")]
fn a_crash_between_publish_and_ack_doubles_nothing(server: Server) {
    crash_at(server, "before_ack");
}

/// Aborts at the n-th passage of `point`, several times over; claims and publishes of the dead lie about.
#[cfg(feature = "fault")]
fn crash_at(server: Server, point: &str) {
    let world = World::new(server);
    crate::traffic::create_source(&world);
    let traffic = Traffic::start(&world, mixed(33), 3_000, 0.0, DRAIN);
    for passages in [1, 77, 400] {
        let fault = format!("{point}:{passages}");
        let mut daisi = Daisi::spawn_with(&world, &[SHORT_LEASE], &[("DAISI_FAULT", &fault)]);
        let status = daisi.exit(READY_MAX);
        assert!(!status.success(), "{fault}: {status}");
    }
    let daisi = Daisi::spawn(&world, &[SHORT_LEASE]);
    traffic.clean();
    balanced(&daisi);
}
