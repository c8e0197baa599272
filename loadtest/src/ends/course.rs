//! The course of one end while it goes on: each event seen goes to its part of the recorder, and to what the
//! page and the progress line show. One thread writes; others read the gauge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::meter::EndSeries;
use crate::report::latency_histogram;
use crate::results::{Counts, ObserverPart};

const SECOND_NS: u64 = 1_000_000_000;

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

    /// Faults so far; what is missing is one when the run is over.
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

/// Where an end writes down what it sees.
#[derive(Debug)]
pub struct Course {
    gauge: Arc<Gauge>,
    part: ObserverPart,
    /// Of the second that is under way.
    second: Histogram<u64>,
    at_s: u64,
}

impl Course {
    /// Nothing seen yet.
    pub fn new(gauge: Arc<Gauge>, part: ObserverPart) -> Self {
        Self { gauge, part, second: latency_histogram(), at_s: 0 }
    }

    /// What others see of it.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// One more that must come, and is seen when it does.
    pub fn expect(&self) {
        self.gauge.series.expected.inc();
    }

    /// One more has come, at `at_ns` since the epoch.
    pub fn see(&mut self, at_ns: u64, latency_us: u64) {
        let at_s = at_ns / SECOND_NS;
        if at_s > self.at_s {
            self.show();
            self.at_s = at_s;
        }
        self.second.saturating_record(latency_us);
        self.part.seen(at_ns.saturating_sub(latency_us * 1_000), at_ns);
        self.gauge.series.seen.inc();
        self.gauge.series.latency.observe(latency_us as f64 / 1e6);
    }

    /// All that was expected and seen, with what has no time of its own.
    fn see_all(&self, counts: &Counts) {
        let series = &self.gauge.series;
        series.expected.inc_by(counts.expected.saturating_sub(series.expected.get()));
        series.seen.inc_by(counts.seen.saturating_sub(series.seen.get()));
    }

    /// What had arrived by then is in the books.
    pub fn booked(&mut self, arrived_ns: u64) {
        self.part.booked(arrived_ns);
    }

    /// Ends it: what the recorder is given.
    pub fn end(mut self, counts: Counts, examples: Vec<String>) -> ObserverPart {
        self.show();
        self.see_all(&counts);
        self.gauge.tell(&counts, true);
        self.part.counts = counts;
        self.part.examples = examples;
        self.part
    }

    fn show(&mut self) {
        if self.second.is_empty() {
            return;
        }
        let at = |quantile| self.second.value_at_quantile(quantile);
        self.gauge.p50_us.store(at(0.5), Ordering::Relaxed);
        self.gauge.p95_us.store(at(0.95), Ordering::Relaxed);
        self.second.reset();
    }
}
