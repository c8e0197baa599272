//! What goes wrong in a run, when, and for how long: drawn from the seed before the run begins. Invariant:
//! every fault ends; from `Act::Calm` on the weather is fair and everything must settle.

use fastrand::Rng;
use shards::clock::{MS, SEC};

use crate::peers::Chance;
use crate::peers::jetstream::faults::{CrashLoss, JetStreamFaults, Refusal};
use crate::peers::redis::{Persistence, RedisFaults};
use crate::plan::{Plan, one_of};

/// Something that happens to the world.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    NatsCrash {
        down: u64,
        loss: CrashLoss,
    },
    NatsRestart,
    NatsLeaves {
        down: u64,
    },
    NatsStepsDown {
        leaderless: u64,
    },
    NatsSquall {
        faults: Box<JetStreamFaults>,
        frame_cut: Chance,
        length: u64,
    },
    NatsClears,
    /// By an operator, and the server takes a while over it.
    ConsumersDeleted,
    RedisCrash {
        down: u64,
        kept: Persistence,
        loading: u64,
    },
    RedisRestart {
        loading: u64,
    },
    RedisSquall {
        faults: RedisFaults,
        length: u64,
    },
    RedisClears,
    CutNats {
        replica: usize,
        shard: usize,
    },
    CutRedis {
        replica: usize,
        shard: usize,
    },
    SlowNet {
        latency_max: u64,
        length: u64,
    },
    NetClears,
    Kill {
        replica: usize,
        down: u64,
    },
    Start {
        replica: usize,
    },
    Pause {
        replica: usize,
        length: u64,
    },
    Drain {
        replica: usize,
        down: u64,
    },
    /// The drain's deadline: what has not ended is killed.
    DrainDeadline {
        replica: usize,
        life: u32,
    },
    Rebuild {
        replica: usize,
        shard: usize,
    },
    Calm,
}

/// Names of what is counted in the closing summary.
pub(crate) const FAULTS: [&str; 23] = [
    "nats crash",
    "nats crash, ack floor falls",
    "nats lame duck",
    "nats step-down",
    "PubAcks lost",
    "PubAcks late",
    "publishes lost",
    "publishes 503",
    "publishes refused",
    "API lost or late",
    "pulls lost",
    "acks lost",
    "redelivery early",
    "nats frame cut",
    "redis crash, keys kept",
    "redis crash, keys lost",
    "redis trouble",
    "connection cut",
    "slow net",
    "replica killed",
    "replica paused",
    "replica drained",
    "consumers deleted",
];
/// Shards rebuilt inside a replica, behind the names above.
pub(crate) const REBUILT: usize = FAULTS.len();

/// How often each fault was set off.
pub(crate) type Tally = [u64; FAULTS.len() + 1];

/// The moments of a run's faults.
pub(crate) fn draw(plan: &Plan, rng: &mut Rng, tally: &mut Tally) -> Vec<(u64, Act)> {
    let span = (u64::from(plan.events) * plan.gap_max / 2).clamp(300 * MS, 6 * SEC);
    let mut acts = Vec::new();
    for _ in 0..plan.faults {
        let at = rng.u64(0..span);
        acts.push((at, draw_one(plan, rng, tally)));
    }
    if plan.hands_over && plan.faults > 0 {
        // The set-up is over in a moment, and has hardly any trouble of its own.
        let faults = Box::new(JetStreamFaults { api_lost: Chance(0.2), ..Default::default() });
        tally[9] += 1;
        acts.push((0, Act::NatsSquall { faults, frame_cut: Chance::default(), length: SEC }));
    }
    if plan.deletes_consumers {
        tally[22] += 1;
        acts.push((span / 2, Act::ConsumersDeleted));
    }
    let calm = match (plan.faults, plan.deletes_consumers) {
        (0, false) => 0,
        (0, true) => span,
        _ => span + rng.u64(0..4 * SEC),
    };
    acts.push((calm, Act::Calm));
    acts
}

fn draw_one(plan: &Plan, rng: &mut Rng, tally: &mut Tally) -> Act {
    let (replica, shard) =
        (rng.usize(..plan.replicas), rng.usize(..usize::from(plan.settings.shards)));
    let short = one_of(rng, &[MS, 50 * MS, 300 * MS, 2 * SEC]);
    let ttl = plan.settings.lease.ttl;
    match rng.u8(..20) {
        0 => {
            let floor = one_of(rng, &[0, 3, 40]);
            tally[if floor > 0 { 1 } else { 0 }] += 1;
            let loss = CrashLoss { ack_floor_max: floor, stream_tail_max: 0 };
            Act::NatsCrash { down: short, loss }
        }
        1 => {
            tally[2] += 1;
            Act::NatsLeaves { down: short }
        }
        2 => {
            tally[3] += 1;
            Act::NatsStepsDown { leaderless: short }
        }
        3..=7 => nats_squall(rng, tally),
        8 => {
            let kept = match rng.u8(..3) {
                0 => Persistence::Nothing,
                1 => Persistence::AllBut(one_of(rng, &[50 * MS, SEC])),
                _ => Persistence::All,
            };
            tally[if kept == Persistence::All { 14 } else { 15 }] += 1;
            Act::RedisCrash { down: short, kept, loading: one_of(rng, &[0, 300 * MS]) }
        }
        9..=10 => {
            tally[16] += 1;
            redis_squall(rng)
        }
        11..=12 => {
            tally[17] += 1;
            if rng.bool() {
                Act::CutNats { replica, shard }
            } else {
                Act::CutRedis { replica, shard }
            }
        }
        13 => {
            tally[18] += 1;
            Act::SlowNet { latency_max: one_of(rng, &[50 * MS, 400 * MS]), length: short * 2 }
        }
        14..=15 => {
            tally[19] += 1;
            Act::Kill { replica, down: one_of(rng, &[MS, 300 * MS, 2 * ttl]) }
        }
        16..=17 => {
            tally[20] += 1;
            // Longer than the lease: when it goes on, another may read.
            Act::Pause { replica, length: one_of(rng, &[ttl / 3, ttl, 2 * ttl]) + rng.u64(..ttl) }
        }
        18 => {
            tally[21] += 1;
            Act::Drain { replica, down: short }
        }
        _ => {
            tally[REBUILT] += 1;
            Act::Rebuild { replica, shard }
        }
    }
}

fn nats_squall(rng: &mut Rng, tally: &mut Tally) -> Act {
    let mut faults = JetStreamFaults::default();
    let mut frame_cut = Chance::default();
    let length = one_of(rng, &[20 * MS, 200 * MS, SEC]);
    let chance = Chance(one_of(rng, &[0.02, 0.2, 0.7]));
    for _ in 0..rng.u8(1..=3) {
        let kind = rng.usize(4..=13);
        tally[kind] += 1;
        match kind {
            4 => faults.puback_lost = chance,
            5 => faults.puback_delay_max = one_of(rng, &[5 * MS, 100 * MS, SEC]),
            6 => faults.publish_lost = chance,
            7 => faults.publish_no_responders = chance,
            8 => faults.refusals.push(match rng.u8(..5) {
                0 => Refusal::store_full(chance),
                1 => Refusal::in_flight(chance, false),
                2 => Refusal::in_flight(chance, true),
                3 => Refusal::too_many(chance),
                _ => Refusal::unavailable(chance),
            }),
            9 => {
                faults.api_lost = chance;
                faults.api_delay_max = one_of(rng, &[0, 100 * MS, SEC]);
            }
            10 => faults.pull_lost = chance,
            11 => faults.ack_lost = chance,
            12 => {
                faults.redeliver_early = chance;
                faults.redeliver_shuffled = rng.bool();
            }
            _ => frame_cut = Chance(chance.0 / 20.0),
        }
    }
    Act::NatsSquall { faults: Box::new(faults), frame_cut, length }
}

fn redis_squall(rng: &mut Rng) -> Act {
    let chance = Chance(one_of(rng, &[0.02, 0.2]));
    let mut faults = RedisFaults::default();
    match rng.u8(..5) {
        0 => faults.latency_max = one_of(rng, &[5 * MS, 300 * MS, 4 * SEC]),
        1 => faults.out_of_memory = chance,
        2 => faults.readonly = chance,
        3 => faults.cut_after = chance,
        _ => faults.frame_cut = chance,
    }
    Act::RedisSquall { faults, length: one_of(rng, &[50 * MS, 500 * MS]) }
}
