//! Deterministic simulation: the pipelines that ship, against simulated peers, on one virtual clock, from
//! one seed. `DAISI_SIM_SEEDS` seeds (300) are run from `DAISI_SIM_BASE` (0) on; a failing one is shown
//! with its settings and last steps, and `DAISI_SIM_SEED=<n>` runs it alone (test `sim_one`).
//! After TigerBeetle's VOPR: what one seed finds, the same seed finds again.

#[cfg(not(feature = "sabotage"))]
mod campaign;
mod faults;
mod link;
mod oracle;
mod peers;
mod plan;
#[cfg(feature = "sabotage")]
mod sabotage;
mod source;
mod world;

use faults::Tally;
use oracle::Broken;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Report, World};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One run; a failure as text.
fn run(seed: u64, tally: &mut Tally) -> Result<Report, String> {
    attempt(seed, false, tally).map_err(|_| {
        // Again, and taking notes this time: the same seed is the same run.
        attempt(seed, true, &mut Tally::default()).err().unwrap_or_default()
    })
}

fn attempt(seed: u64, with_trace: bool, tally: &mut Tally) -> Result<Report, String> {
    let mut world = World::new(seed, with_trace, tally);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let why = match outcome {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(Broken { promise, what })) => {
            format!("promise {} ({promise:?}) is broken: {what}", promise as u8)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            format!("a pipeline panicked: {}", text.unwrap_or_default())
        }
    };
    Err(format!("{}\nseed {seed}: {why}\nagain: DAISI_SIM_SEED={seed}", world.tell()))
}

#[test]
fn sim_one() {
    let seed = number("DAISI_SIM_SEED", 1);
    if let Err(text) = run(seed, &mut Tally::default()) {
        panic!("{text}");
    }
}
