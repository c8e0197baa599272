//! Medians, ratios and targets. Ratios are taken within a round, where both sides met the same noise, and
//! then their median; min and max say how far a single round may be trusted.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    contender::Role,
    feed::Findings,
    gate::baseline::Figures,
    round::{Drain, Paced},
};

/// All turns of one contender, in order of rounds. A failed turn is `None` and is explained in `errors`.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) drains: Vec<Option<Drain>>,
    pub(crate) paced: Vec<Option<Paced>>,
    pub(crate) errors: Vec<String>,
}

/// Median with its range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let below = if values.len().is_multiple_of(2) { half - 1 } else { half };
        Some(Self { median: f64::midpoint(values[below], values[half]), min, max })
    }
}

/// What is compared. The order is the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    Throughput,
    CpuPerEvent,
    NatsPerEvent,
    RedisPerEvent,
    RssMax,
    P50,
    P95,
    P99,
    PacedCpuPerEvent,
}

impl Metric {
    const ALL: [Self; 9] = [
        Self::Throughput,
        Self::CpuPerEvent,
        Self::NatsPerEvent,
        Self::RedisPerEvent,
        Self::RssMax,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::PacedCpuPerEvent,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Throughput => "drain, events/s",
            Self::CpuPerEvent => "drain, CPU us/event",
            Self::NatsPerEvent => "its nats-server, us",
            Self::RedisPerEvent => "its redis-server, us",
            Self::RssMax => "drain, RSS MiB max",
            Self::P50 => "paced, P50 us",
            Self::P95 => "paced, P95 us",
            Self::P99 => "paced, P99 us",
            Self::PacedCpuPerEvent => "paced, CPU us/event",
        }
    }

    /// Values by round.
    fn values(self, record: &Record) -> Vec<Option<f64>> {
        let drains = |pick: fn(&Drain) -> f64| by_round(&record.drains, pick);
        let paced = |pick: fn(&Paced) -> f64| by_round(&record.paced, pick);
        match self {
            Self::Throughput => drains(|drain| drain.events_per_s),
            Self::CpuPerEvent => drains(|drain| drain.cpu_us_per_event),
            Self::NatsPerEvent => drains(|drain| drain.nats_us_per_event),
            Self::RedisPerEvent => drains(|drain| drain.redis_us_per_event),
            Self::RssMax => drains(|drain| drain.rss_mib_max),
            Self::P50 => paced(|paced| paced.p50_us),
            Self::P95 => paced(|paced| paced.p95_us),
            Self::P99 => paced(|paced| paced.p99_us),
            Self::PacedCpuPerEvent => paced(|paced| paced.cpu_us_per_event),
        }
    }
}

fn by_round<T>(turns: &[Option<T>], pick: fn(&T) -> f64) -> Vec<Option<f64>> {
    turns.iter().map(|turn| turn.as_ref().map(pick)).collect()
}

/// What the subject must reach against another role.
struct Target {
    metric: Metric,
    versus: Role,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const TARGETS: [Target; 4] = [
    Target { metric: Metric::Throughput, versus: Role::Peer, bound: Bound::AtLeast(2.5) },
    Target { metric: Metric::CpuPerEvent, versus: Role::Peer, bound: Bound::AtMost(0.2) },
    Target { metric: Metric::Throughput, versus: Role::Bare, bound: Bound::AtLeast(0.85) },
    Target { metric: Metric::P95, versus: Role::Bare, bound: Bound::AtMost(1.3) },
];

/// How the subject stands to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Met,
    Missed,
    /// One of the two sides has no figures.
    NotMeasured,
}

/// A target and how it was met.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) target: String,
    pub(crate) ratio: Option<Spread>,
    pub(crate) standing: Standing,
}

/// All targets, in the order of their table.
pub(crate) fn outcomes(records: &[Record]) -> Vec<Outcome> {
    TARGETS.iter().map(|target| target.outcome(records)).collect()
}

impl Target {
    fn outcome(&self, records: &[Record]) -> Outcome {
        let find = |role| records.iter().find(|record| record.role == role);
        let ratio = find(Role::Subject)
            .zip(find(self.versus))
            .and_then(|(subject, other)| ratio(self.metric, subject, other));
        let (word, bound) = match self.bound {
            Bound::AtLeast(bound) => (">=", bound),
            Bound::AtMost(bound) => ("<=", bound),
        };
        let met = |ratio: Spread| match self.bound {
            Bound::AtLeast(bound) => ratio.median >= bound,
            Bound::AtMost(bound) => ratio.median <= bound,
        };
        let standing = match ratio.map(met) {
            Some(true) => Standing::Met,
            Some(false) => Standing::Missed,
            None => Standing::NotMeasured,
        };
        let versus = format!("{:?}", self.versus).to_lowercase();
        Outcome {
            target: format!("{} {word} {bound} x {versus}", self.metric.label()),
            ratio,
            standing,
        }
    }
}

/// Of `left` to `right`, over the rounds that both finished.
fn ratio(metric: Metric, left: &Record, right: &Record) -> Option<Spread> {
    let pairs = metric.values(left).into_iter().zip(metric.values(right));
    let ratios = pairs.filter_map(|pair| match pair {
        (Some(left), Some(right)) if right > 0.0 => Some(left / right),
        _ => None,
    });
    Spread::of(ratios)
}

/// The subject's ratios to bare and peer, by name; medians of those by round.
pub(crate) fn ratios(records: &[Record]) -> Figures {
    let find = |role| records.iter().find(|record| record.role == role);
    let (mut ratios, Some(subject)) = (Figures::new(), find(Role::Subject)) else {
        return Figures::new();
    };
    for metric in Metric::ALL {
        for (role, word) in [(Role::Bare, "bare"), (Role::Peer, "peer")] {
            if let Some(spread) = find(role).and_then(|other| ratio(metric, subject, other)) {
                ratios.insert(format!("cdc: {} vs {word}", metric.label()), spread.median);
            }
        }
    }
    ratios
}

/// False if any turn failed, or lost, doubled or invented an event, or the subject broke its order.
pub(crate) fn is_sound(records: &[Record]) -> bool {
    records.iter().all(|record| record.errors.is_empty() && findings(record).all(is_kept(record)))
}

/// Each event once, for everybody; a company's events in order, for the subject, who promises it.
fn is_kept(record: &Record) -> impl Fn(Findings) -> bool {
    let ordered = record.role == Role::Subject;
    move |found| found.exactly_once() && (!ordered || found.swapped == 0)
}

fn findings(record: &Record) -> impl Iterator<Item = Findings> {
    let drains = record.drains.iter().flatten().map(|drain| drain.findings);
    drains.chain(record.paced.iter().flatten().map(|paced| paced.findings))
}

/// The report as text.
pub(crate) fn text(records: &[Record]) -> String {
    let mut out = String::new();
    let measured = |metric: &Metric| {
        records.iter().any(|record| metric.values(record).iter().any(Option::is_some))
    };
    for metric in Metric::ALL.into_iter().filter(measured) {
        table(&mut out, metric, records);
    }
    out.push_str("correctness\n");
    for record in records {
        correctness(&mut out, record);
    }
    out.push_str("\ntargets (median of the ratios by round)\n");
    for outcome in outcomes(records) {
        let ratio = outcome.ratio.map_or_else(|| "-".to_owned(), |ratio| ratio_text(&ratio));
        put(
            &mut out,
            format_args!("  {:<42} {ratio:<24} {:?}\n", outcome.target, outcome.standing),
        );
    }
    out
}

fn table(out: &mut String, metric: Metric, records: &[Record]) {
    let find = |role| records.iter().find(|record| record.role == role);
    let versus = |record: &Record, role| {
        find(role)
            .and_then(|other| ratio(metric, record, other))
            .map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}x", ratio.median))
    };
    put(
        out,
        format_args!(
            "{:<22} {:>10}   {:<23} {:>8} {:>8}\n",
            metric.label(),
            "median",
            "min - max",
            "vs peer",
            "vs bare"
        ),
    );
    for record in records {
        let Some(spread) = Spread::of(metric.values(record).into_iter().flatten()) else {
            put(out, format_args!("  {:<20} {:>10}\n", record.name, "-"));
            continue;
        };
        let range = format!("{} - {}", number(spread.min), number(spread.max));
        let (peer, bare) = (versus(record, Role::Peer), versus(record, Role::Bare));
        let median = number(spread.median);
        put(
            out,
            format_args!("  {:<20} {median:>10}   {range:<23} {peer:>8} {bare:>8}\n", record.name),
        );
    }
    out.push('\n');
}

fn correctness(out: &mut String, record: &Record) {
    let sum = |pick: fn(Findings) -> u64| findings(record).map(pick).sum::<u64>();
    put(
        out,
        format_args!(
            "  {:<20} {} events out; lost {}, doubled {}, foreign {}; behind a later one {}\n",
            record.name,
            sum(|found| found.seen),
            sum(|found| found.lost),
            sum(|found| found.doubled),
            sum(|found| found.foreign),
            sum(|found| found.swapped),
        ),
    );
    for error in &record.errors {
        put(out, format_args!("  {:<20} FAILED: {error}\n", record.name));
    }
}

pub(crate) fn ratio_text(ratio: &Spread) -> String {
    format!("{:.2} ({:.2} - {:.2})", ratio.median, ratio.min, ratio.max)
}

/// Whole numbers from 1000 on, one decimal below.
pub(crate) fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

pub(crate) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(events_per_s: f64, cpu_us_per_event: f64, lost: u64) -> Option<Drain> {
        let findings = Findings { seen: 10, lost, ..Findings::default() };
        Some(Drain {
            events_per_s,
            cpu_us_per_event,
            nats_us_per_event: 1.0,
            redis_us_per_event: 1.0,
            rss_mib_max: 1.0,
            findings,
        })
    }

    fn record(role: Role, drains: Vec<Option<Drain>>) -> Record {
        let name = format!("{role:?}");
        Record { name, role, drains, paced: Vec::new(), errors: Vec::new() }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([7.0]).map(|spread| spread.median), Some(7.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_pair_rounds_and_leave_out_the_failed_ones() {
        let subject = record(Role::Subject, vec![drain(100.0, 1.0, 0), None, drain(300.0, 1.0, 0)]);
        let peer =
            record(Role::Peer, vec![drain(50.0, 9.0, 0), drain(1.0, 9.0, 0), drain(100.0, 4.0, 0)]);
        let found = ratio(Metric::Throughput, &subject, &peer);
        assert_eq!(found, Some(Spread { median: 2.5, min: 2.0, max: 3.0 }));
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let records = [
            record(Role::Subject, vec![drain(100.0, 1.0, 0)]),
            record(Role::Peer, vec![drain(40.0, 4.0, 0)]),
        ];
        let standings: Vec<_> = outcomes(&records).iter().map(|outcome| outcome.standing).collect();
        use Standing::{Met, Missed, NotMeasured};
        assert_eq!(standings, [Met, Missed, NotMeasured, NotMeasured]);
    }

    #[test]
    fn one_lost_event_makes_a_run_unsound() {
        assert!(is_sound(&[record(Role::Extra, vec![drain(1.0, 1.0, 0)])]));
        assert!(!is_sound(&[record(Role::Extra, vec![drain(1.0, 1.0, 1)])]));
    }

    #[test]
    fn order_is_demanded_of_the_subject_alone() {
        let swapped = |role| {
            let mut turn = drain(1.0, 1.0, 0);
            turn.iter_mut().for_each(|turn| turn.findings.swapped = 1);
            record(role, vec![turn])
        };
        assert!(is_sound(&[swapped(Role::Peer)]));
        assert!(!is_sound(&[swapped(Role::Subject)]));
    }
}
