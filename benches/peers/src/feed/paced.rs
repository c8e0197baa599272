//! Open loop: events leave at planned times whatever the contender does, and latency counts from the plan,
//! so a stall costs every event that was due in it (no coordinated omission).

use std::{
    thread,
    time::{Duration, Instant},
};

use async_nats::jetstream::Context;
use futures::StreamExt;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    drain::{Checker, Findings},
    make::{Maker, Mark, Shape},
};
use crate::bus::{Error, OUTPUT_SUBJECTS};

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events a second, over all companies.
    pub rate: u64,
    /// What is sent.
    pub shape: Shape,
    /// Part at the start that is sent and checked, but not timed.
    pub warmup: Duration,
    /// Part that is timed.
    pub timed: Duration,
}

impl Pace {
    fn count(self) -> u64 {
        self.rate * (self.warmup + self.timed).as_millis() as u64 / 1000
    }

    fn due(self, number: u64) -> Duration {
        Duration::from_nanos(number * 1_000_000_000 / self.rate)
    }
}

/// Result of a paced run. Times in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Loss, doubles and order of all events, warm-up included.
    pub findings: Findings,
    /// Median of planned send to delivery.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Slowest event.
    pub max_us: f64,
    /// 99th percentile of how far the sender itself lagged its plan: the floor of what can be measured.
    pub sender_late_us_p99: f64,
}

/// Sends by plan and times each first delivery on `wa.>`.
///
/// # Errors
/// When the server goes away, or nothing is delivered for ten seconds.
pub async fn paced(context: &Context, pace: Pace) -> Result<Latency, Error> {
    let client = context.client();
    let mut outputs = client.subscribe(OUTPUT_SUBJECTS).await?;
    client.flush().await?;
    let started = Instant::now();
    let sender = thread::spawn({
        let client = client.clone();
        move || send(&client, pace, started)
    });
    let mut latency = Histogram::<u64>::new(3)?;
    let mut checker = Checker::new(pace.count(), pace.shape.companies);
    let warmup_ns = pace.warmup.as_nanos() as u64;
    while !checker.complete() {
        let next = tokio::time::timeout(Duration::from_secs(10), outputs.next()).await;
        let Ok(Some(message)) = next else { break };
        let now_ns = started.elapsed().as_nanos() as u64;
        let mark = Mark::find(&message.payload);
        if checker.take(mark)
            && let Some(mark) = mark.filter(|mark| mark.due_ns >= warmup_ns)
        {
            latency.record(now_ns.saturating_sub(mark.due_ns))?;
        }
    }
    // Doubles arrive behind the event they repeat: leave them time to show.
    while let Ok(Some(message)) =
        tokio::time::timeout(Duration::from_millis(300), outputs.next()).await
    {
        checker.take(Mark::find(&message.payload));
    }
    let late = sender.join().map_err(|_| "the sender panicked")??;
    let us = |percent: f64| latency.value_at_percentile(percent) as f64 / 1000.0;
    Ok(Latency {
        findings: checker.finish(),
        p50_us: us(50.0),
        p95_us: us(95.0),
        p99_us: us(99.0),
        max_us: latency.max() as f64 / 1000.0,
        sender_late_us_p99: late.value_at_percentile(99.0) as f64 / 1000.0,
    })
}

/// A thread of its own: the runtime's timer has a grain of 1 ms, `thread::sleep` one of about 60 us.
fn send(
    client: &async_nats::Client,
    pace: Pace,
    started: Instant,
) -> Result<Histogram<u64>, Error> {
    let mut maker = Maker::new(pace.shape);
    let mut late = Histogram::<u64>::new(3)?;
    for number in 0..pace.count() {
        let due = pace.due(number);
        if let Some(early) = due.checked_sub(started.elapsed()) {
            thread::sleep(early);
        }
        late.record(started.elapsed().saturating_sub(due).as_nanos() as u64)?;
        let (subject, body) = maker.make(Mark { number, due_ns: due.as_nanos() as u64 });
        let (subject, body) = (subject.to_owned(), body.to_owned());
        futures::executor::block_on(client.publish(subject, body.into()))?;
    }
    Ok(late)
}
