//! The course of one end: latencies in all and by second, and what the page and the progress line show of it
//! while it goes on. One thread writes; others read the gauge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::meter::EndSeries;
use crate::report::latency_histogram;
use crate::results::{Counts, Second, SecondEnd};

const SECOND_NS: u64 = 1_000_000_000;

/// What came out by second since the epoch.
pub type Seconds = BTreeMap<u64, SecondEnd>;

/// What others may see of an end that is looked at.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    series: EndSeries,
    p50_us: AtomicU64,
    p95_us: AtomicU64,
}

impl Gauge {
    /// One that writes to these series.
    pub fn new(name: &'static str, series: EndSeries) -> Self {
        Self { name, series, p50_us: AtomicU64::new(0), p95_us: AtomicU64::new(0) }
    }

    /// Name of the end.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// To come out, as far as told.
    pub fn expected(&self) -> u64 {
        self.series.expected.get()
    }

    /// Came out.
    pub fn seen(&self) -> u64 {
        self.series.seen.get()
    }

    /// Of the last second in which anything came: P50 and P95, microseconds.
    pub fn latency_us(&self) -> (u64, u64) {
        (self.p50_us.load(Ordering::Relaxed), self.p95_us.load(Ordering::Relaxed))
    }

    /// Faults so far, losses not among them before the end.
    pub fn faults(&self) -> u64 {
        let told = self.series.faults.iter().map(|(_, gauge)| gauge.get().unsigned_abs());
        self.series.lost.get().unsigned_abs() + told.sum::<u64>()
    }

    /// Tells of faults: those of a run that is under way, and at its end all of them.
    pub fn tell(&self, counts: &Counts, is_over: bool) {
        let Counts { lost, duplicated, out_of_order, unexpected, corrupted, .. } = *counts;
        for (kind, gauge) in &self.series.faults {
            gauge.set(match *kind {
                "duplicated" => duplicated,
                "out_of_order" => out_of_order,
                "unexpected" => unexpected,
                _ => corrupted,
            } as i64);
        }
        if is_over {
            self.series.lost.set(lost as i64);
        }
    }
}

/// Latencies of what was seen.
#[derive(Debug)]
pub struct Course {
    gauge: Arc<Gauge>,
    all: Histogram<u64>,
    second: Histogram<u64>,
    at_s: u64,
    seconds: Seconds,
    late: Histogram<u64>,
    span_ns: Option<(u64, u64)>,
}

impl Course {
    /// Nothing seen yet.
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Self {
            gauge,
            all: latency_histogram(),
            second: latency_histogram(),
            at_s: 0,
            seconds: Seconds::new(),
            late: latency_histogram(),
            span_ns: None,
        }
    }

    /// What others see of it.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// One more that must come.
    pub fn expect(&self) {
        self.gauge.series.expected.inc();
    }

    /// One more has come, at `at_ns` since the epoch.
    pub fn see(&mut self, at_ns: u64, latency_us: u64) {
        let at_s = at_ns / SECOND_NS;
        // A clock that was set back does not open a second again.
        if at_s > self.at_s {
            self.close();
            self.at_s = at_s;
        }
        self.all.saturating_record(latency_us);
        self.second.saturating_record(latency_us);
        let (first, _) = self.span_ns.unwrap_or((at_ns, at_ns));
        self.span_ns = Some((first, at_ns));
        self.gauge.series.seen.inc();
        self.gauge.series.latency.observe(latency_us as f64 / 1e6);
    }

    /// One was seen whose time is not known.
    pub fn see_untimed(&self) {
        self.gauge.series.seen.inc();
    }

    /// How long something lay between its arrival and the books.
    pub fn late(&mut self, late_us: u64) {
        self.late.saturating_record(late_us);
    }

    /// All latencies so far, microseconds.
    pub fn latency_us(&self) -> &Histogram<u64> {
        &self.all
    }

    /// Events a second from the first seen to the last.
    pub fn rate(&self) -> f64 {
        let (first, last) = self.span_ns.unwrap_or_default();
        let seconds = (last - first) as f64 / 1e9;
        if seconds > 0.0 { self.all.len() as f64 / seconds } else { 0.0 }
    }

    /// Ends it: the seconds, and how late the books were.
    pub fn end(mut self) -> (Seconds, Histogram<u64>) {
        self.close();
        (self.seconds, self.late)
    }

    fn close(&mut self) {
        if self.second.is_empty() {
            return;
        }
        let at = |quantile| self.second.value_at_quantile(quantile);
        let (p50, p95, p99) = (at(0.5), at(0.95), at(0.99));
        let (seen, max) = (self.second.len(), self.second.max());
        self.seconds.insert(self.at_s, SecondEnd { seen, p50, p95, p99, max });
        self.gauge.p50_us.store(p50, Ordering::Relaxed);
        self.gauge.p95_us.store(p95, Ordering::Relaxed);
        self.second.reset();
    }
}

/// Enters what an end saw into the series of a run that began at `start_ns`.
pub fn merge_seconds(series: &mut Vec<Second>, start_ns: u64, name: &str, seconds: &Seconds) {
    for (at_s, seen) in seconds {
        let at_s = at_s.saturating_sub(start_ns / SECOND_NS);
        while series.len() <= at_s as usize {
            series.push(Second { at_s: series.len() as u64, ..Second::default() });
        }
        series[at_s as usize].ends.insert(name.to_owned(), *seen);
    }
}
