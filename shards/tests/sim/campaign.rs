//! Many seeds, on all cores: the tests that hold the promises, and what they print. A seed that fails is
//! told with its settings and last steps; `DAISI_SIM_ALL` goes on after it and lists every failure.

use crate::faults::{FAULTS, Tally};
use crate::plan::{PAIR, SPLIT};
use crate::world::Report;
use crate::{number, run};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[test]
fn simulation_holds_the_promises() {
    hold(number("DAISI_SIM_BASE", 0), number("DAISI_SIM_SEEDS", 300));
}

#[test]
fn simulation_of_shared_partitions_holds_the_promises() {
    hold(SPLIT + number("DAISI_SIM_BASE", 0), number("DAISI_SIM_SEEDS", 300));
}

#[test]
fn simulation_of_hand_overs_holds_the_promises() {
    hold(PAIR + number("DAISI_SIM_BASE", 0), number("DAISI_SIM_SEEDS", 300));
}

fn hold(base: u64, seeds: u64) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = number("DAISI_SIM_THREADS", threads);
    let (next, failed, began) = (AtomicU64::new(base), AtomicBool::new(false), Instant::now());
    let work = || {
        let (mut sum, mut failures, mut told) = (Sum::default(), Vec::new(), Instant::now());
        while !failed.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= base + seeds {
                break;
            }
            match run(seed, &mut sum.faults) {
                Ok(report) => sum.add(&report),
                Err(text) => {
                    failures.push(text);
                    failed.store(std::env::var_os("DAISI_SIM_ALL").is_none(), Relaxed);
                }
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                eprintln!("sim: {} of {seeds} seeds", seed - base);
            }
        }
        (sum, failures)
    };
    let parts: Vec<(Sum, Vec<String>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    close(&parts, began.elapsed());
}

fn close(parts: &[(Sum, Vec<String>)], took: Duration) {
    let total = |of: fn(&Sum) -> u64| parts.iter().map(|(sum, _)| of(sum)).sum::<u64>();
    let (runs, events) = (total(|s| s.runs), total(|s| s.events));
    eprintln!(
        "sim: {runs} runs, {events} events, {} steps, {} virtual s in {:.1} s ({:.0} runs/s); \
         {} events published again behind earlier ones",
        total(|s| s.steps),
        total(|s| s.seconds),
        took.as_secs_f64(),
        runs as f64 / took.as_secs_f64(),
        total(|s| s.republished),
    );
    for (place, name) in FAULTS.iter().chain(&["shard rebuilt"]).enumerate() {
        let times: u64 = parts.iter().map(|(sum, _)| sum.faults[place]).sum();
        eprintln!("sim: {times:8} {name}");
    }
    let failures: Vec<&String> = parts.iter().flat_map(|(_, failures)| failures).collect();
    if std::env::var_os("DAISI_SIM_ALL").is_some() {
        for text in &failures {
            let told: Vec<&str> = text.lines().filter(|l| l.starts_with("seed ")).collect();
            eprintln!("{}", told.join("\n"));
        }
    }
    if let Some(text) = failures.first() {
        panic!(
            "{} of {} runs failed; the first:\n{text}",
            failures.len(),
            runs + failures.len() as u64
        );
    }
}

/// Runs that once broke a promise, by what was wrong.
#[test]
fn runs_that_once_failed_hold() {
    let seeds = [
        7,             // Publishes before the set-up of a new connection was through.
        55,            // A copy stored before an earlier event of its company, with a plain PubAck.
        43,            // A publish without deadline hid all overdue ones behind it.
        620,           // A lost ack was never sent again.
        856,           // The same, at max_ack_pending: nothing came any more.
        15_070,        // A work queue whose consumer was made anew never counted as settled.
        22_047, // An event of an identity overtook a twin that waited; each waited for the other.
        SPLIT + 5_275, // A question open at the loss of a lease led to a second reader of the partition.
        PAIR + 26, // The answer to an extension of the source stream was lost: asked again without its body.
    ];
    for seed in seeds {
        assert!(run(seed, &mut Tally::default()).is_ok(), "seed {seed}");
    }
}

/// These failed while an outcome was reported before what had been sent with it lay in order.
#[test]
fn runs_that_broke_the_order_after_a_crash_hold() {
    let seeds = [
        // The earlier event of a misplaced pair was acknowledged before the later one was published
        // again; a crash in between forgot that the later one was misplaced.
        21_413,
        18_530,
        16_140,
        // As before, where the later one had been published by an earlier life, and had not come again yet.
        82_223,
        SPLIT + 37_533,
    ];
    for seed in seeds {
        assert!(run(seed, &mut Tally::default()).is_ok(), "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| run(seed, &mut Tally::default()));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[derive(Default)]
struct Sum {
    runs: u64,
    events: u64,
    steps: u64,
    republished: u64,
    seconds: u64,
    faults: Tally,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.events += report.events;
        self.steps += report.steps;
        self.republished += report.republished;
        self.seconds += report.lasted / shards::clock::SEC;
    }
}
