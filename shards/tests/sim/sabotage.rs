//! The simulation bites: a pipeline with a planted fault does not get through.

use crate::attempt;
use crate::faults::Tally;
use shards::sabotage::{DONE_AT_SEND, SKIP_ON_CLAIM};
use std::sync::atomic::Ordering::Relaxed;

/// The simulation bites: each planted fault loses events, and is found.
#[test]
fn a_planted_fault_is_found_within_200_seeds() {
    for (name, switch) in [("skip on a claim", &SKIP_ON_CLAIM), ("done at send", &DONE_AT_SEND)] {
        switch.store(true, Relaxed);
        let mut lost = Vec::new();
        for seed in 0..200 {
            if let Err(text) = attempt(seed, false, &mut Tally::default())
                && text.contains("(NothingLost)")
            {
                lost.push(seed);
            }
        }
        switch.store(false, Relaxed);
        eprintln!("sim: {name}: events are lost in {} of 200 seeds: {lost:?}", lost.len());
        assert!(!lost.is_empty(), "nothing is wrong with \"{name}\" in 200 seeds");
    }
}
