//! What a shard relies on the executor for, and glommio 0.9 gives only as `pool::executor` sets it up: a task
//! that may run does run, and a loop that always has something to do still hears what the ring knows.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

use futures_lite::future::poll_fn;
use glommio::timer::Timer;
use shards::edge::mailbox::{Ears, bell};
use shards::pool::executor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::thread::{available_parallelism, scope, sleep};
use std::time::{Duration, Instant};

/// Turns of the task. With a pre-emption timer of a millisecond it slept within a few thousand.
const TURNS: u64 = 30_000;
/// Longer than any machine keeps a thread from its core.
const STALL: Duration = Duration::from_secs(3);

#[test]
fn a_task_that_may_run_does_run_however_busy_the_cores_are() {
    turn_under_load(Duration::ZERO);
}

#[test]
fn so_it_does_when_it_spins_before_it_sleeps() {
    turn_under_load(Duration::from_micros(20));
}

fn turn_under_load(spin: Duration) {
    let (turns, is_over) = (Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
    let count = Arc::clone(&turns);
    scope(|scope| {
        for _ in 0..3 * available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        // So short a time that it turns often: each turn is a chance to be lost.
        let turning = executor("busy", core()).spin_before_park(spin).spawn(move || async move {
            while count.fetch_add(1, Relaxed) < TURNS {
                Timer::new(Duration::from_micros(50)).await;
            }
        });
        let stalled = turn_stalls(&turns);
        is_over.store(true, Relaxed);
        assert_eq!(stalled, None, "turns after which it slept for {STALL:?}");
        turning.unwrap().join().unwrap();
    });
}

// The first that we may use. Unpinned, a thread would flee from the load.
fn core() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().split(['-', ',']).next()?.parse().ok()
}

// Turns done when the next one did not come; `None` when all came.
fn turn_stalls(turns: &AtomicU64) -> Option<u64> {
    let (mut seen, mut since) = (0, Instant::now());
    while seen < TURNS {
        sleep(Duration::from_millis(10));
        let now = turns.load(Relaxed);
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > STALL {
            return Some(seen);
        }
    }
    None
}

#[test]
fn looking_at_the_ring_shows_what_came_on_other_sockets() {
    let (own, own_end) = bell().unwrap();
    let (other, other_end) = bell().unwrap();
    let looks = executor("looks", None).spawn(move || async move {
        let (mut own_ears, mut other_ears) = (own_end.listen(), other_end.listen());
        // As long as its socket's poll is in the ring, a stream does not read.
        assert!(!hears(&mut other_ears).await, "nobody has rung");
        other.ring();
        for looks in 1..=3 {
            own_ears.look_at_ring(&own).await;
            if hears(&mut other_ears).await {
                return looks;
            }
        }
        0
    });
    assert_ne!(looks.unwrap().join().unwrap(), 0, "it rang, and nobody heard");
}

async fn hears(ears: &mut Ears) -> bool {
    poll_fn(|cx| Poll::Ready(ears.poll_rung(cx).is_ready())).await
}
