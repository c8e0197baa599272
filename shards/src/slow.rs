//! What makes a build slow on purpose, to show that the gate finds it (`make gate-test`): each event costs
//! more of what `DAISI_SLOW` names. Only with the feature `slow`; a release has no trace of it.

use std::hint::black_box;
use std::sync::LazyLock;

/// Turns of an empty loop, four instructions each: a twentieth of what a transform takes.
const LITTLE: u32 = 150;
/// So many turns that throughput and CPU time show it: tens of microseconds.
const MUCH: u32 = 100_000;

#[derive(Clone, Copy)]
enum Slow {
    Not,
    Instructions,
    Allocations,
    Calls,
    Time,
}

static SLOW: LazyLock<Slow> = LazyLock::new(|| match std::env::var("DAISI_SLOW").as_deref() {
    Ok("instructions") => Slow::Instructions,
    Ok("allocations") => Slow::Allocations,
    Ok("calls") => Slow::Calls,
    Ok("time") => Slow::Time,
    _ => Slow::Not,
});

/// An event passes.
pub fn event() {
    match *SLOW {
        Slow::Not => {}
        Slow::Instructions => spin(LITTLE),
        Slow::Allocations => drop(black_box(Box::new(black_box(1_u64)))),
        Slow::Calls => {
            black_box(std::process::id()); // A system call each time.
        }
        Slow::Time => spin(MUCH),
    }
}

fn spin(times: u32) {
    (0..times).for_each(|turn| {
        black_box(turn);
    });
}
