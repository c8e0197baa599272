//! Reads CPU and memory of processes once a second, on its own thread. Invariant: a process that is started anew
//! under another number goes on counting where the old one stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ProcessUse;
use super::recorder::Origin;
use crate::host::{
    HostError, ThreadCpu, cpu_of, cpu_with_children_of, own_cpu, own_threads, rss_kib_max_of,
    rss_kib_with_children_of,
};
use crate::send::wall_ns;

/// Name of this process among the processes.
pub(super) const OWN: &str = "loadtest";
/// Until the first planned time is known.
const WAIT: Duration = Duration::from_millis(20);
const SECOND_NS: u64 = 1_000_000_000;

/// A process to look at.
#[derive(Clone, Debug)]
pub struct Watched {
    name: String,
    pid: Arc<AtomicU32>,
    has_children: bool,
}

impl Watched {
    /// The process `pid` alone.
    pub fn new(name: impl Into<String>, pid: u32) -> Self {
        Self { name: name.into(), pid: Arc::new(AtomicU32::new(pid)), has_children: false }
    }

    /// The process whose number stands in `pid`, and may change.
    pub fn following(name: impl Into<String>, pid: Arc<AtomicU32>) -> Self {
        Self { name: name.into(), pid, has_children: false }
    }

    /// With its children, as PostgreSQL works.
    pub fn with_children(name: impl Into<String>, pid: u32) -> Self {
        Self { has_children: true, ..Self::new(name, pid) }
    }

    /// Where to write its new number when it is started anew.
    pub fn pid(&self) -> Arc<AtomicU32> {
        self.pid.clone()
    }

    fn look(&self, pid: u32) -> Result<(Duration, u64), HostError> {
        if self.has_children {
            Ok((cpu_with_children_of(pid)?, rss_kib_with_children_of(pid)?))
        } else {
            Ok((cpu_of(pid)?, rss_kib_max_of(pid)?))
        }
    }
}

/// All processes at one time, in the order of `Sampled::names`.
#[derive(Debug, Default)]
struct Sample {
    at_ns: u64,
    cpu: Vec<Duration>,
    threads: BTreeMap<u32, ThreadCpu>,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Dropped to stop it.
    stop: Sender<()>,
    thread: JoinHandle<Sampled>,
}

impl Sampler {
    pub(super) fn start(watched: Vec<Watched>, origin: Origin) -> Result<Self, HostError> {
        let (stop, stopped) = channel();
        let looks = Looks::new(watched);
        let builder = std::thread::Builder::new().name("sampler".into());
        let thread = builder.spawn(move || looks.take(&origin, &stopped));
        let thread = thread.map_err(|source| HostError::Io {
            doing: "start the sampler's thread".into(),
            source,
        })?;
        Ok(Self { stop, thread })
    }

    /// What it saw up to the first look at or after `end_ns`.
    pub(super) fn stop(self, end_ns: u64) -> Sampled {
        drop(self.stop);
        let mut sampled =
            self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let end = sampled.samples.iter().position(|sample| sample.at_ns >= end_ns);
        if let Some(end) = end {
            sampled.samples.truncate(end + 1);
        }
        sampled
    }
}

struct Looks {
    watched: Vec<Watched>,
    /// By process: its number at the last look, CPU at that, and CPU of those that had the name before.
    cpu: Vec<(u32, Duration, Duration)>,
    sampled: Sampled,
}

impl Looks {
    fn new(watched: Vec<Watched>) -> Self {
        let names: Vec<String> =
            watched.iter().map(|w| w.name.clone()).chain([OWN.to_owned()]).collect();
        let cpu = vec![(0, Duration::ZERO, Duration::ZERO); watched.len()];
        let rss_kib_max = vec![0; names.len()];
        Self {
            watched,
            cpu,
            sampled: Sampled { names, rss_kib_max, start_ns: 0, samples: Vec::new() },
        }
    }

    fn take(mut self, origin: &Origin, stopped: &Receiver<()>) -> Sampled {
        // The last look before the first planned time is the one from which everything counts.
        let mut next_ns = None;
        loop {
            let sample = self.look();
            if next_ns.is_none() {
                self.sampled.samples.clear();
            }
            self.sampled.samples.push(sample);
            self.sampled.start_ns = origin.get().unwrap_or_default();
            next_ns = origin.get().map(|start_ns| {
                let past = wall_ns().saturating_sub(start_ns) / SECOND_NS;
                start_ns + (past + 1) * SECOND_NS
            });
            let wait = next_ns
                .map_or(WAIT, |next_ns| Duration::from_nanos(next_ns.saturating_sub(wall_ns())));
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                let last = self.look();
                self.sampled.samples.push(last);
                return self.sampled;
            }
        }
    }

    fn look(&mut self) -> Sample {
        let mut sample = Sample { at_ns: wall_ns(), ..Sample::default() };
        for (at, watched) in self.watched.iter().enumerate() {
            let (known, last, before) = &mut self.cpu[at];
            let pid = watched.pid.load(Ordering::Relaxed);
            if pid != *known {
                *before += *last;
                (*known, *last) = (pid, Duration::ZERO);
            }
            // A process that is gone keeps what it had.
            if let Ok((cpu, rss_kib)) = watched.look(pid) {
                *last = (*last).max(cpu);
                let max = &mut self.sampled.rss_kib_max[at];
                *max = (*max).max(rss_kib);
            }
            sample.cpu.push(*before + *last);
        }
        sample.cpu.push(own_cpu());
        if let Some(own) = self.sampled.rss_kib_max.last_mut() {
            *own = rss_kib_max_of(std::process::id()).unwrap_or(*own);
        }
        sample.threads = own_threads().unwrap_or_default();
        sample
    }
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Sampled {
    names: Vec<String>,
    rss_kib_max: Vec<u64>,
    start_ns: u64,
    /// The first is the base.
    samples: Vec<Sample>,
}

impl Sampled {
    /// Cores in use in a second, by process; a second behind the last look has none.
    pub(super) fn cores(&self, second: usize) -> BTreeMap<String, f64> {
        let middle_ns = self.start_ns + second as u64 * SECOND_NS + SECOND_NS / 2;
        let after = self.samples.partition_point(|sample| sample.at_ns <= middle_ns);
        let (Some(before), Some(after)) =
            (after.checked_sub(1).map(|before| &self.samples[before]), self.samples.get(after))
        else {
            return BTreeMap::new();
        };
        let wall = after.at_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9;
        let used = before.cpu.iter().zip(&after.cpu).map(|(before, after)| {
            let cores = after.saturating_sub(*before).as_secs_f64() / wall;
            // Three decimals are finer than the grain of the kernel's books.
            (cores * 1_000.0).round() / 1_000.0
        });
        let used = self.names.iter().zip(used).zip(&self.rss_kib_max);
        let used = used.filter(|(_, rss_kib)| **rss_kib > 0);
        used.map(|((name, cores), _)| (name.clone(), cores)).collect()
    }

    /// What each used from the base to the last look. Who was never seen has no line: nothing is not 0.
    pub(super) fn processes(&self, events: u64) -> Vec<ProcessUse> {
        let used = self.names.iter().zip(&self.rss_kib_max).enumerate();
        let used = used.filter(|(_, (_, rss_kib))| **rss_kib > 0);
        used.map(|(at, (name, rss_kib))| {
            let cpu_s = self.cpu(at).as_secs_f64();
            ProcessUse {
                name: name.clone(),
                cpu_s,
                cpu_us_per_event: cpu_s * 1e6 / events.max(1) as f64,
                rss_mib_max: *rss_kib as f64 / 1024.0,
            }
        })
        .collect()
    }

    pub(super) fn own_cpu(&self) -> Duration {
        self.cpu(self.names.len() - 1)
    }

    /// CPU of this process's threads by name. What ended between two looks is missing from its last look on.
    pub(super) fn own_threads(&self) -> BTreeMap<String, Duration> {
        let mut last: BTreeMap<u32, &ThreadCpu> = BTreeMap::new();
        for sample in &self.samples {
            last.extend(sample.threads.iter().map(|(number, thread)| (*number, thread)));
        }
        let base = self.samples.first();
        let mut sums: BTreeMap<String, Duration> = BTreeMap::new();
        for (number, thread) in last {
            let before = base.and_then(|base| base.threads.get(&number));
            let before = before.map_or(Duration::ZERO, |thread| thread.cpu);
            *sums.entry(thread.name.clone()).or_default() += thread.cpu.saturating_sub(before);
        }
        sums
    }

    fn cpu(&self, at: usize) -> Duration {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.cpu[at].saturating_sub(first.cpu[at]),
            _ => Duration::ZERO,
        }
    }
}
