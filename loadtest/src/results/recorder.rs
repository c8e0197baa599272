//! Takes what happens in a run and makes its results. Invariant: nobody waits for anybody. Each thread owns its
//! part and writes only there; a sampler reads CPU and memory on a thread of its own; all is merged at the end.
//!
//! Seconds count from the first planned time, which the sender knows when it begins ([`Origin`]); a part that
//! is told of an event before that counts it into second 0.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::sampler::{Sampled, Sampler, Watched};
use super::seconds::{Observed, Tally};
use super::{
    Counts, Distribution, End, Harness, Load, Machine, Results, ResultsError, Second, SecondEnd,
    Sender, Spread, distribution,
};
use crate::host::HostError;
use crate::report::latency_histogram;
use crate::send::{Sent, wall_ns};

/// Format of the file.
pub(super) const FORMAT: u32 = 1;
/// Examples of faults kept of each end.
const EXAMPLES_MAX: usize = 40;
/// A week: what is told of later, as by a clock that jumped, counts into the last second.
const SECONDS_MAX: usize = 7 * 86_400;
/// A sender later than this has fallen behind.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The first planned time, set once by whoever begins to send.
#[derive(Clone, Debug, Default)]
pub struct Origin(Arc<AtomicU64>);

impl Origin {
    /// Sets it, nanoseconds since 1970. The first call counts.
    pub fn set(&self, start_ns: u64) {
        // Another value there means that it was set before.
        let _ = self.0.compare_exchange(0, start_ns, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It, once it is set.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&start_ns| start_ns > 0)
    }

    fn second(&self, at_ns: u64) -> usize {
        let start_ns = self.0.load(Ordering::Relaxed);
        if start_ns == 0 {
            return 0;
        }
        ((at_ns.saturating_sub(start_ns) / 1_000_000_000) as usize).min(SECONDS_MAX)
    }
}

/// The books of a run.
#[derive(Debug)]
pub struct Recorder {
    origin: Origin,
    warm_up: Duration,
    machine: Machine,
    sampler: Sampler,
}

/// What the run was, told at its end.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Name of the profile or of the trace.
    pub name: String,
    /// The command line, without secrets.
    pub command: String,
    /// Versions of what took part.
    pub versions: BTreeMap<String, String>,
    /// What was to be sent.
    pub load: Load,
    /// What a reader must know besides.
    pub notes: Vec<String>,
}

/// How the sending went, as the sender tells it.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// Publishes with a PubAck, copies included.
    pub published: u64,
    /// PubAcks that told of a duplicate.
    pub dropped: u64,
    /// Published once more after a lost connection.
    pub resent: u64,
    /// Connections made anew.
    pub reconnects: u64,
    /// First planned time to last PubAck.
    pub elapsed: Duration,
    /// Planned time to the write, microseconds.
    pub late_us: &'a Histogram<u64>,
    /// Planned time to PubAck, microseconds.
    pub ack_us: &'a Histogram<u64>,
}

impl<'a> From<&'a Sent> for Sending<'a> {
    fn from(sent: &'a Sent) -> Self {
        Self {
            published: sent.acked,
            dropped: sent.acked_again,
            resent: sent.resent,
            reconnects: sent.reconnects,
            elapsed: sent.elapsed,
            late_us: &sent.late_us,
            ack_us: &sent.ack_us,
        }
    }
}

impl Recorder {
    /// Begins to look at `watched` and at this process.
    ///
    /// # Errors
    /// The sampler's thread could not be started.
    pub fn start(watched: Vec<Watched>) -> Result<Self, HostError> {
        let (machine, origin) = (Machine::look(), Origin::default());
        let (sampler, warm_up) = (Sampler::start(watched, origin.clone())?, Duration::ZERO);
        Ok(Self { sampler, origin, warm_up, machine })
    }

    /// Events planned within so long of the first are counted, checked and drawn, but their latency is not
    /// among the distributions.
    #[must_use]
    pub fn warming_up(self, warm_up: Duration) -> Self {
        Self { warm_up, ..self }
    }

    /// To be set when sending begins.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// The sender's part.
    pub fn sender(&self) -> SenderPart {
        SenderPart {
            origin: self.origin.clone(),
            planned: Tally::default(),
            published: Tally::default(),
        }
    }

    /// An observer's part of the end `name`; several may have the same name.
    pub fn observer(&self, name: &str, text: &str) -> ObserverPart {
        ObserverPart {
            origin: self.origin.clone(),
            warm_up_ns: self.warm_up.as_nanos() as u64,
            name: name.to_owned(),
            text: text.to_owned(),
            counts: Counts::default(),
            examples: Vec::new(),
            latency_us: latency_histogram(),
            observed: Observed::new(),
            late_us: latency_histogram(),
            span_ns: None,
        }
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// None in practice: histograms are encoded to memory.
    pub fn finish(
        self,
        told: Told,
        sending: Sending<'_>,
        sender: &SenderPart,
        observers: Vec<ObserverPart>,
    ) -> Result<Results, ResultsError> {
        let start_ns = self.origin.get().unwrap_or_default();
        let seen_ns = observers.iter().filter_map(|part| Some(part.span_ns?.1)).max();
        let sent_ns = start_ns + sending.elapsed.as_nanos() as u64;
        let sampled = self.sampler.stop(seen_ns.unwrap_or(sent_ns).max(sent_ns));
        let mut late_us = latency_histogram();
        for part in &observers {
            // All have the bounds of `latency_histogram`.
            let _ = late_us.add(&part.late_us);
        }
        let (ends, by_end) = ends(observers)?;
        Ok(Results {
            format: FORMAT,
            name: told.name,
            command: told.command,
            started_ms: start_ns / 1_000_000,
            machine: self.machine,
            versions: told.versions,
            load: told.load,
            sender: sender_of(sending)?,
            ack: Distribution::of(sending.ack_us)?,
            ends,
            series: series(sender, &by_end, &sampled),
            harness: harness(&sampled, sending.published, &late_us),
            processes: sampled.processes(sending.published),
            notes: told.notes,
        })
    }
}

/// What the sender writes down.
#[derive(Debug)]
pub struct SenderPart {
    origin: Origin,
    planned: Tally,
    published: Tally,
}

impl SenderPart {
    /// An event is planned for this time.
    #[inline]
    pub fn planned(&mut self, planned_ns: u64) {
        self.planned.add(self.origin.second(planned_ns));
    }

    /// A PubAck came at this time.
    #[inline]
    pub fn published(&mut self, at_ns: u64) {
        self.published.add(self.origin.second(at_ns));
    }
}

/// What an observer of one end writes down.
#[derive(Debug)]
pub struct ObserverPart {
    origin: Origin,
    warm_up_ns: u64,
    name: String,
    text: String,
    /// What became of the events; for the observer to fill.
    pub counts: Counts,
    /// The first faults in words; for the observer to fill.
    pub examples: Vec<String>,
    latency_us: Histogram<u64>,
    observed: Observed,
    late_us: Histogram<u64>,
    /// First and last event seen after the warm-up.
    span_ns: Option<(u64, u64)>,
}

impl ObserverPart {
    /// An event came out, first copy, at `seen_ns`.
    #[inline]
    pub fn seen(&mut self, planned_ns: u64, seen_ns: u64) {
        let latency_us = seen_ns.saturating_sub(planned_ns) / 1_000;
        self.observed.add(self.origin.second(seen_ns), latency_us);
        if self.warm_up_ns > 0
            && planned_ns < self.origin.get().unwrap_or_default() + self.warm_up_ns
        {
            return;
        }
        self.latency_us.saturating_record(latency_us);
        let (first, last) = self.span_ns.unwrap_or((seen_ns, seen_ns));
        self.span_ns = Some((first.min(seen_ns), last.max(seen_ns)));
    }

    /// What had arrived by `arrived_ns` is in the books now; to be called once a batch.
    pub fn booked(&mut self, arrived_ns: u64) {
        self.late_us.saturating_record(wall_ns().saturating_sub(arrived_ns) / 1_000);
    }

    /// Latencies so far, microseconds.
    pub fn latency_us(&self) -> &Histogram<u64> {
        &self.latency_us
    }
}

fn sender_of(sending: Sending<'_>) -> Result<Sender, ResultsError> {
    let late_max = Duration::from_micros(sending.late_us.max());
    Ok(Sender {
        published: sending.published,
        dropped: sending.dropped,
        resent: sending.resent,
        reconnects: sending.reconnects,
        elapsed_s: sending.elapsed.as_secs_f64(),
        late: Spread::of(sending.late_us),
        late_histogram: distribution::encode(sending.late_us)?,
        fell_behind: late_max > LATE_MAX.min(sending.elapsed / 10),
    })
}

type ByEnd = BTreeMap<String, Observed>;

/// Ends in the order of their first parts.
fn ends(parts: Vec<ObserverPart>) -> Result<(Vec<End>, ByEnd), ResultsError> {
    let mut merged: Vec<ObserverPart> = Vec::new();
    for part in parts {
        match merged.iter_mut().find(|other| other.name == part.name) {
            Some(other) => other.merge(part),
            None => merged.push(part),
        }
    }
    let mut by_end = ByEnd::new();
    let mut ends = Vec::new();
    for part in merged {
        let (first_ns, last_ns) = part.span_ns.unwrap_or_default();
        let span_s = (last_ns - first_ns) as f64 / 1e9;
        let seen = part.latency_us.len();
        ends.push(End {
            name: part.name.clone(),
            text: part.text,
            counts: part.counts,
            // One event, or all at once, has no rate.
            events_per_s: if span_s > 0.0 { (seen - 1) as f64 / span_s } else { 0.0 },
            latency: Distribution::of(&part.latency_us)?,
            examples: part.examples,
        });
        by_end.insert(part.name, part.observed);
    }
    Ok((ends, by_end))
}

impl ObserverPart {
    fn merge(&mut self, other: Self) {
        let (counts, more) = (&mut self.counts, other.counts);
        counts.expected += more.expected;
        counts.seen += more.seen;
        counts.lost += more.lost;
        counts.duplicated += more.duplicated;
        counts.out_of_order += more.out_of_order;
        counts.unexpected += more.unexpected;
        counts.corrupted += more.corrupted;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        // Both have the bounds of `latency_histogram`.
        let _ = self.latency_us.add(&other.latency_us);
        self.observed.merge(other.observed);
        self.span_ns = match (self.span_ns, other.span_ns) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
}

fn series(sender: &SenderPart, by_end: &ByEnd, sampled: &Sampled) -> Vec<Second> {
    let points: BTreeMap<&String, Vec<SecondEnd>> =
        by_end.iter().map(|(name, observed)| (name, observed.points())).collect();
    let observed = points.values().map(Vec::len).max().unwrap_or_default();
    let seconds = observed.max(sender.planned.len()).max(sender.published.len());
    let ends_at = |second: usize| {
        let at = |points: &Vec<SecondEnd>| points.get(second).copied().unwrap_or_default();
        points.iter().map(|(name, points)| ((*name).clone(), at(points))).collect()
    };
    (0..seconds)
        .map(|second| Second {
            at_s: second as u64,
            planned: sender.planned.at(second),
            published: sender.published.at(second),
            ends: ends_at(second),
            cores: sampled.cores(second),
        })
        .collect()
}

fn harness(sampled: &Sampled, published: u64, late_us: &Histogram<u64>) -> Harness {
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / published.max(1) as f64;
    let cpu_us_per_event = each(sampled.own_cpu());
    Harness {
        cpu_us_per_event,
        events_per_core: if cpu_us_per_event > 0.0 { 1e6 / cpu_us_per_event } else { 0.0 },
        observe_late: Spread::of(late_us),
        threads: sampled.own_threads().into_iter().map(|(name, cpu)| (name, each(cpu))).collect(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::process::Stdio;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::host::Process;

    const MS: u64 = 1_000_000;

    fn busy() -> Process {
        let words = ["sh", "-c", "while :; do :; done"].map(str::to_owned);
        Process::spawn("busy", &words, Stdio::null()).unwrap()
    }

    fn sending<'a>(late_us: &'a Histogram<u64>, ack_us: &'a Histogram<u64>) -> Sending<'a> {
        let elapsed = Duration::from_secs(2);
        let (published, dropped, resent, reconnects) = (200, 0, 0, 0);
        Sending { published, dropped, resent, reconnects, elapsed, late_us, ack_us }
    }

    #[test]
    fn what_is_planned_while_it_warms_up_is_drawn_and_not_measured() {
        let recorder = Recorder::start(Vec::new()).unwrap().warming_up(Duration::from_secs(2));
        let start_ns = wall_ns();
        recorder.origin().set(start_ns);
        let mut part = recorder.observer("cdc", "");
        for (planned_ms, latency_ms) in [(0, 900), (1_999, 900), (2_000, 3), (2_500, 3)] {
            let planned_ns = start_ns + planned_ms * MS;
            part.seen(planned_ns, planned_ns + latency_ms * MS);
        }
        let (ends, by_end) = ends(vec![part]).unwrap();
        let points = &ends[0].latency.points;
        assert!(points.count == 2 && points.max < 3_100, "{points:?}");
        let drawn: u64 = by_end["cdc"].points().iter().map(|second| second.seen).sum();
        assert_eq!(drawn, 4);
    }

    #[test]
    fn parts_of_several_threads_become_one_account() {
        let recorder = Recorder::start(Vec::new()).unwrap();
        let start_ns = wall_ns();
        recorder.origin().set(start_ns);
        recorder.origin().set(1);
        let mut sender = recorder.sender();
        let mut parts = [recorder.observer("cdc", "a"), recorder.observer("cdc", "b")];
        let (mut late_us, mut ack_us) = (latency_histogram(), latency_histogram());
        std::thread::scope(|scope| {
            for (at, part) in parts.iter_mut().enumerate() {
                scope.spawn(move || {
                    for n in (at as u64..200).step_by(2) {
                        let planned_ns = start_ns + n * 10 * MS;
                        part.seen(planned_ns, planned_ns + 3 * MS);
                        part.counts.seen += 1;
                    }
                    part.booked(wall_ns());
                    part.examples.push(format!("example {at}"));
                });
            }
        });
        for n in 0..200 {
            sender.planned(start_ns + n * 10 * MS);
            sender.published(start_ns + n * 10 * MS + MS);
            late_us.saturating_record(5);
            ack_us.saturating_record(1_000);
        }
        let told = Told { name: "test".into(), ..Told::default() };
        let results =
            recorder.finish(told, sending(&late_us, &ack_us), &sender, parts.into()).unwrap();
        assert_eq!((results.format, results.started_ms), (1, start_ns / MS));
        let [end] = results.ends.as_slice() else { panic!("{:?}", results.ends) };
        assert_eq!(
            (end.name.as_str(), end.counts.seen, end.latency.points.count),
            ("cdc", 200, 200)
        );
        assert_eq!(end.examples, ["example 0", "example 1"]);
        assert!((end.events_per_s - 100.0).abs() < 0.1, "{}", end.events_per_s);
        assert_eq!(end.latency.values().unwrap().len(), 200);
        let seen: Vec<_> = results.series.iter().map(|second| second.ends["cdc"].seen).collect();
        assert_eq!(seen, [100, 100]);
        assert_eq!(results.series[1].ends["cdc"].p99, 3_000);
        assert_eq!((results.series[0].planned, results.series[1].published), (100, 100));
        assert!(!results.sender.fell_behind);
        assert!(results.harness.observe_late.count == 2 && results.harness.cpu_us_per_event > 0.0);
    }

    #[test]
    fn a_sender_that_is_a_tenth_of_the_run_late_fell_behind() {
        let recorder = Recorder::start(Vec::new()).unwrap();
        let (mut late_us, ack_us) = (latency_histogram(), latency_histogram());
        late_us.saturating_record(210_000);
        let (told, sender) = (Told::default(), recorder.sender());
        let results =
            recorder.finish(told, sending(&late_us, &ack_us), &sender, Vec::new()).unwrap();
        assert!(results.sender.fell_behind, "{:?}", results.sender);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_figures() {
        // A number beyond those the kernel gives.
        let recorder = Recorder::start(vec![Watched::new("gone", u32::MAX / 2)]).unwrap();
        let (histogram, told, sender) = (latency_histogram(), Told::default(), recorder.sender());
        let sending = sending(&histogram, &histogram);
        let results = recorder.finish(told, sending, &sender, Vec::new()).unwrap();
        let names: Vec<_> = results.processes.iter().map(|process| &process.name).collect();
        assert_eq!(names, ["loadtest"]);
    }

    #[test]
    fn a_process_is_charged_by_second_and_across_a_new_start() {
        let first = busy();
        let watched = Watched::new("busy", first.pid());
        let pid = watched.pid();
        let recorder = Recorder::start(vec![watched]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let start_ns = wall_ns();
        recorder.origin().set(start_ns);
        let mut sender = recorder.sender();
        std::thread::sleep(Duration::from_millis(1_200));
        drop(first);
        let second = busy();
        pid.store(second.pid(), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1_000));
        (0..3).for_each(|second| sender.planned(start_ns + second * 1_000 * MS));
        let histogram = latency_histogram();
        let told = Told::default();
        let results =
            recorder.finish(told, sending(&histogram, &histogram), &sender, Vec::new()).unwrap();
        let busy = &results.processes[0];
        assert_eq!(busy.name, "busy");
        // Two cores shared with everybody: what it gets is not ours to say, that it gets some is.
        assert!(busy.cpu_s > 0.2 && busy.rss_mib_max > 0.1, "{busy:?}");
        assert!(results.series[0].cores["busy"] > 0.05, "{:?}", results.series);
        assert!(results.processes[1].name == "loadtest");
        assert!(results.harness.threads.contains_key("sampler"), "{:?}", results.harness);
    }
}
