//! One contender's turn: fresh streams and keys, then a drain or an open-loop run. A turn yields figures
//! only together with the checker's findings, so a fast loser of events shows as such.

use std::{thread, time::Duration};

use loadtest::host::{Process, cpu_of};
use serde::Serialize;

use crate::{
    contender::Contender,
    error::BenchError,
    feed::{Feed, Findings, Progress},
};

/// Time for late doubles to appear before the contender is stopped.
const LINGER: Duration = Duration::from_millis(200);

/// Time a contender gets to connect before the open loop's warm-up begins.
const SETTLE: Duration = Duration::from_millis(1500);

/// Sizes of the turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    /// Events of a drain.
    pub(crate) events: u64,
    /// Seconds a drain may take.
    pub(crate) deadline_s: u64,
    /// Events a second of the open loop.
    pub(crate) rate: u64,
    /// Seconds sent before timing starts.
    pub(crate) warmup_s: u64,
    /// Seconds timed.
    pub(crate) timed_s: u64,
}

/// The servers' processes. What a contender asks of them is a part of its price: they share its machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Servers {
    pub(crate) nats: u32,
    pub(crate) redis: u32,
}

/// User and system time so far: the contender's, and the servers'.
#[derive(Clone, Copy)]
struct Cpu {
    own: Duration,
    nats: Duration,
    redis: Duration,
}

impl Servers {
    fn cpu_with(self, process: &Process) -> Result<Cpu, BenchError> {
        Ok(Cpu { own: process.cpu()?, nats: cpu_of(self.nats)?, redis: cpu_of(self.redis)? })
    }
}

/// Figures of a drain.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Drain {
    /// Between first and last output.
    pub(crate) events_per_s: f64,
    /// User and system time of the contender, from the first output seen to the last.
    pub(crate) cpu_us_per_event: f64,
    /// The same of nats-server and of redis-server.
    pub(crate) nats_us_per_event: f64,
    pub(crate) redis_us_per_event: f64,
    /// Most memory resident.
    pub(crate) rss_mib_max: f64,
    pub(crate) findings: Findings,
}

/// Figures of an open-loop run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Paced {
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// CPU of the contender per event at this rate.
    pub(crate) cpu_us_per_event: f64,
    /// How far the sender itself lagged its plan.
    pub(crate) sender_late_us_p99: f64,
    pub(crate) findings: Findings,
}

/// Empties a preloaded stream.
pub(crate) fn drain(
    contender: &Contender,
    feed: &Feed,
    servers: Servers,
    load: Load,
) -> Result<Drain, BenchError> {
    feed.reset()?;
    feed.preload(load.events)?;
    let mut process = contender.start()?;
    let mut first = None;
    let mut last = (Progress::default(), servers.cpu_with(&process)?);
    feed.watch(load.events, load.deadline_s, |progress| {
        process.assert_running()?;
        last = (progress, servers.cpu_with(&process)?);
        if progress.messages > 0 && first.is_none() {
            first = Some(last);
        }
        Ok(())
    })?;
    let (end, cpu_end) = last;
    let too_slow = || BenchError::TooSlow {
        name: contender.name.clone(),
        seen: end.messages,
        count: load.events,
    };
    let (begin, cpu_begin) = first.ok_or_else(too_slow)?;
    if end.messages < load.events {
        return Err(too_slow());
    }
    let rss_mib_max = linger(&mut process)?;
    drop(process);
    let count = end.messages - begin.messages;
    Ok(Drain {
        events_per_s: (end.messages - 1) as f64 * 1e9 / end.span_ns.max(1) as f64,
        cpu_us_per_event: us_each(cpu_end.own - cpu_begin.own, count),
        nats_us_per_event: us_each(cpu_end.nats - cpu_begin.nats, count),
        redis_us_per_event: us_each(cpu_end.redis - cpu_begin.redis, count),
        rss_mib_max,
        findings: feed.verify(load.events)?,
    })
}

/// Follows an open loop.
pub(crate) fn paced(contender: &Contender, feed: &Feed, load: Load) -> Result<Paced, BenchError> {
    feed.reset()?;
    let mut process = contender.start()?;
    thread::sleep(SETTLE);
    process.assert_running()?;
    let cpu_begin = process.cpu()?;
    let latency = feed.paced(load.rate, load.warmup_s, load.timed_s)?;
    process.assert_running()?;
    let sent = load.rate * (load.warmup_s + load.timed_s);
    Ok(Paced {
        p50_us: latency.p50_us,
        p95_us: latency.p95_us,
        p99_us: latency.p99_us,
        max_us: latency.max_us,
        cpu_us_per_event: us_each(process.cpu()? - cpu_begin, sent),
        sender_late_us_p99: latency.sender_late_us_p99,
        findings: latency.findings,
    })
}

fn linger(process: &mut Process) -> Result<f64, BenchError> {
    thread::sleep(LINGER);
    process.assert_running()?;
    Ok(process.rss_kib_max()? as f64 / 1024.0)
}

fn us_each(time: Duration, events: u64) -> f64 {
    time.as_secs_f64() * 1e6 / events.max(1) as f64
}
