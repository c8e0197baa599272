//! Every single figure of a run under a name, for comparing and for limits: `rate`, `cdc.p95_us`, `ingest.lost`,
//! `daisi.cpu_us`. Invariant: what was not measured has no figure.

use super::sampler::OWN;
use super::{Results, Spread, number};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Events a second.
    Rate,
    /// Microseconds of latency.
    Time,
    /// Faulty events.
    Faults,
    /// Microseconds of CPU an event.
    Cpu,
    /// MiB.
    Memory,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// Its name, `<whose>.<what>`, or `<what>` of the whole run.
    pub(super) key: String,
    pub(super) unit: Unit,
    pub(super) value: f64,
}

impl Figure {
    /// Whether it is worth a row where builds are compared: neither the harness itself, nor what stands between
    /// its neighbours, nor the tail of what daisi has no part in.
    pub(super) fn is_compared(&self) -> bool {
        let (owner, what) = self.key.rsplit_once('.').unwrap_or(("", &self.key));
        let is_tail = ["p95_us", "p999_us", "max_us"].contains(&what);
        owner != OWN && what != "p90_us" && !(owner == "ack" && is_tail)
    }

    /// For people: `cdc P95`, `daisi CPU an event`.
    pub(super) fn label(&self) -> String {
        let (owner, what) = self.key.rsplit_once('.').unwrap_or(("published", &self.key));
        let owner = if owner == "ack" { "PubAck" } else { owner };
        let what = match what {
            "rate" => "events/s",
            "p50_us" => "P50",
            "p90_us" => "P90",
            "p95_us" => "P95",
            "p99_us" => "P99",
            "p999_us" => "P99.9",
            "max_us" => "max",
            "cpu_us" => "CPU an event",
            "rss_mib" => "memory",
            faults => return format!("{owner} {}", faults.replace('_', " ")),
        };
        format!("{owner} {what}")
    }
}

impl Unit {
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{}/s", number::decimal(value)),
            Self::Time => number::time_us(value),
            Self::Faults => number::count(value as u64),
            Self::Cpu => format!("{} µs", number::decimal(value)),
            Self::Memory => format!("{} MiB", number::decimal(value)),
        }
    }

    /// More of it is better.
    pub(super) fn is_gain(self) -> bool {
        self == Self::Rate
    }
}

/// What a figure may be named after its owner, `rate` besides being the whole run's.
pub(super) const NAMES: [&str; 14] = [
    "rate",
    "p50_us",
    "p90_us",
    "p95_us",
    "p99_us",
    "p999_us",
    "max_us",
    "lost",
    "duplicated",
    "out_of_order",
    "unexpected",
    "corrupted",
    "cpu_us",
    "rss_mib",
];

/// All figures of a run, in the order in which people ask for them.
pub(super) fn figures(results: &Results) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |key: String, unit, value| figures.push(Figure { key, unit, value });
    if results.sender.elapsed_s > 0.0 {
        add("rate".into(), Unit::Rate, results.rate());
    }
    for end in &results.ends {
        let name = |what: &str| format!("{}.{what}", end.name);
        if end.events_per_s > 0.0 {
            add(name("rate"), Unit::Rate, end.events_per_s);
        }
        times(&end.name, &end.latency.points, &mut add);
        let counts = end.counts;
        if counts.expected == 0 && counts.is_clean() {
            continue; // Nobody looked for anything: no loss there is no news.
        }
        for (what, count) in [
            ("lost", counts.lost),
            ("duplicated", counts.duplicated),
            ("out_of_order", counts.out_of_order),
            ("unexpected", counts.unexpected),
            ("corrupted", counts.corrupted),
        ] {
            add(name(what), Unit::Faults, count as f64);
        }
    }
    times("ack", &results.ack.points, &mut add);
    for process in &results.processes {
        add(format!("{}.cpu_us", process.name), Unit::Cpu, process.cpu_us_per_event);
        add(format!("{}.rss_mib", process.name), Unit::Memory, process.rss_mib_max);
    }
    figures
}

fn times(owner: &str, points: &Spread, add: &mut impl FnMut(String, Unit, f64)) {
    let Spread { count, p50, p90, p95, p99, p999, max, .. } = *points;
    if count == 0 {
        return;
    }
    let points = [
        ("p50_us", p50),
        ("p90_us", p90),
        ("p95_us", p95),
        ("p99_us", p99),
        ("p999_us", p999),
        ("max_us", max),
    ];
    for (what, us) in points {
        add(format!("{owner}.{what}"), Unit::Time, us as f64);
    }
}
