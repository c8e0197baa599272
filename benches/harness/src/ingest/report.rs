//! Figures of the ingest job as a table, and its targets. Ratios are taken within a round, as in the CDC job.

use serde::Serialize;

use super::turn::{Drain, Paced};
use crate::{
    contender::{Contender, Role},
    error::BenchError,
    gate::baseline::Figures,
    report::{Spread, number, put, ratio_text},
};

/// All turns of one contender, in order of rounds. A failed turn is `None` and is explained in `errors`.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) drains: Vec<Option<Drain>>,
    pub(super) histories: Vec<Option<Drain>>,
    pub(super) paced: Vec<Option<Paced>>,
    pub(super) errors: Vec<String>,
}

impl Record {
    pub(super) fn new(contender: &Contender) -> Self {
        Self {
            name: contender.name.clone(),
            role: contender.role,
            drains: Vec::new(),
            histories: Vec::new(),
            paced: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// A failed turn must not stop the others; it makes the run unsound.
    pub(super) fn note<T>(&mut self, turn: Result<T, BenchError>) -> Option<T> {
        turn.map_err(|error| self.errors.push(error.to_string())).ok()
    }

    /// Values of a figure by round.
    fn values(&self, figure: Figure) -> Vec<Option<f64>> {
        let drains = |pick: fn(&Drain) -> f64| of(&self.drains, pick);
        let paced = |pick: fn(&Paced) -> f64| of(&self.paced, pick);
        match figure {
            Figure::Drain => drains(|drain| drain.events_per_s),
            Figure::Cpu => drains(|drain| drain.cpu_us_per_event),
            Figure::Nats => drains(|drain| drain.nats_us_per_event),
            Figure::Postgres => drains(|drain| drain.postgres_us_per_event),
            Figure::Rss => drains(|drain| drain.rss_mib_max),
            Figure::History => of(&self.histories, |history| history.events_per_s),
            Figure::HistoryCpu => of(&self.histories, |history| history.cpu_us_per_event),
            Figure::HistoryPostgres => of(&self.histories, |history| history.postgres_us_per_event),
            Figure::P50 => paced(|paced| paced.p50_us),
            Figure::P95 => paced(|paced| paced.p95_us),
            Figure::P99 => paced(|paced| paced.p99_us),
            Figure::PacedCpu => paced(|paced| paced.cpu_us_per_event),
        }
    }
}

fn of<T>(turns: &[Option<T>], pick: fn(&T) -> f64) -> Vec<Option<f64>> {
    turns.iter().map(|turn| turn.as_ref().map(pick)).collect()
}

/// What is compared, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    Drain,
    Cpu,
    Nats,
    Postgres,
    Rss,
    History,
    HistoryCpu,
    HistoryPostgres,
    P50,
    P95,
    P99,
    PacedCpu,
}

impl Figure {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Drain, "drain, events/s"),
        (Self::Cpu, "drain, CPU us/event"),
        (Self::Nats, "its nats-server, us"),
        (Self::Postgres, "its PostgreSQL, us"),
        (Self::Rss, "drain, RSS MiB"),
        (Self::History, "history, rows/s"),
        (Self::HistoryCpu, "history, CPU us/row"),
        (Self::HistoryPostgres, "history, PostgreSQL us"),
        (Self::P50, "paced, P50 us"),
        (Self::P95, "paced, P95 us"),
        (Self::P99, "paced, P99 us"),
        (Self::PacedCpu, "paced, CPU us/event"),
    ];
}

/// What a target holds the subject's figure against.
#[derive(Clone, Copy)]
enum Versus {
    Itself,
    Role(Role),
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const TARGETS: [(&str, Figure, Versus, Bound); 6] = [
    ("drain >= 40,000 events/s", Figure::Drain, Versus::Itself, Bound::AtLeast(40_000.0)),
    ("drain >= 0.5 x bare", Figure::Drain, Versus::Role(Role::Bare), Bound::AtLeast(0.5)),
    ("drain >= 4 x peer", Figure::Drain, Versus::Role(Role::Peer), Bound::AtLeast(4.0)),
    ("paced P95 <= 5 ms", Figure::P95, Versus::Itself, Bound::AtMost(5_000.0)),
    ("paced P95 <= 3 x a bare commit", Figure::P95, Versus::Role(Role::Bare), Bound::AtMost(3.0)),
    ("history >= 60,000 rows/s", Figure::History, Versus::Itself, Bound::AtLeast(60_000.0)),
];

/// A target and how it was met; without a value it was not measured.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    target: &'static str,
    value: Option<Spread>,
    met: Option<bool>,
}

impl Outcome {
    /// A target that nobody measured is not met.
    pub(super) fn is_met(&self) -> bool {
        self.met == Some(true)
    }
}

/// All targets, in the order of their table.
pub(super) fn outcomes(records: &[Record]) -> Vec<Outcome> {
    let find = |role| records.iter().find(|record| record.role == role);
    let outcome = |(target, figure, versus, bound)| {
        let value = find(Role::Subject).and_then(|subject| match versus {
            Versus::Itself => Spread::of(subject.values(figure).into_iter().flatten()),
            Versus::Role(role) => find(role).and_then(|other| ratio(figure, subject, other)),
        });
        let met = value.map(|value| match bound {
            Bound::AtLeast(bound) => value.median >= bound,
            Bound::AtMost(bound) => value.median <= bound,
        });
        Outcome { target, value, met }
    };
    TARGETS.into_iter().map(outcome).collect()
}

/// The subject's ratios to bare and peer, by name; medians of those by round.
pub(super) fn ratios(records: &[Record]) -> Figures {
    let find = |role| records.iter().find(|record| record.role == role);
    let (mut ratios, Some(subject)) = (Figures::new(), find(Role::Subject)) else {
        return Figures::new();
    };
    for (figure, label) in Figure::ALL {
        for (role, word) in [(Role::Bare, "bare"), (Role::Peer, "peer")] {
            if let Some(spread) = find(role).and_then(|other| ratio(figure, subject, other)) {
                ratios.insert(format!("ingest: {label} vs {word}"), spread.median);
            }
        }
    }
    ratios
}

/// Of `left` to `right`, over the rounds that both finished.
fn ratio(figure: Figure, left: &Record, right: &Record) -> Option<Spread> {
    let pairs = left.values(figure).into_iter().zip(right.values(figure));
    Spread::of(pairs.filter_map(|pair| match pair {
        (Some(left), Some(right)) if right > 0.0 => Some(left / right),
        _ => None,
    }))
}

/// The report as text.
pub(super) fn text(records: &[Record]) -> String {
    let mut out = String::from("\ningest job\n");
    for (figure, label) in Figure::ALL {
        let measured = |record: &&Record| record.values(figure).iter().any(Option::is_some);
        let records: Vec<&Record> = records.iter().filter(measured).collect();
        if !records.is_empty() {
            table(&mut out, (figure, label), &records);
        }
    }
    out.push_str("targets of the ingest job (ratios: median of those by round)\n");
    for Outcome { target, value, met } in outcomes(records) {
        let value = value.map_or_else(
            || "-".to_owned(),
            |value| if value.median < 100.0 { ratio_text(&value) } else { number(value.median) },
        );
        let standing = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        put(&mut out, format_args!("  {target:<34} {value:<24} {standing}\n"));
    }
    for record in records {
        for error in &record.errors {
            put(&mut out, format_args!("  {:<20} FAILED: {error}\n", record.name));
        }
    }
    out
}

fn table(out: &mut String, (figure, label): (Figure, &str), records: &[&Record]) {
    let find = |role| records.iter().find(|record| record.role == role);
    let versus = |record: &Record, role| {
        let ratio = find(role).and_then(|other| ratio(figure, record, other));
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}x", ratio.median))
    };
    let head = ["median", "min - max", "vs peer", "vs bare"];
    put(
        out,
        format_args!(
            "{label:<22} {:>10}   {:<23} {:>8} {:>8}\n",
            head[0], head[1], head[2], head[3]
        ),
    );
    for record in records {
        let Some(spread) = Spread::of(record.values(figure).into_iter().flatten()) else {
            continue;
        };
        let range = format!("{} - {}", number(spread.min), number(spread.max));
        let (peer, bare) = (versus(record, Role::Peer), versus(record, Role::Bare));
        let (name, median) = (&record.name, number(spread.median));
        put(out, format_args!("  {name:<20} {median:>10}   {range:<23} {peer:>8} {bare:>8}\n"));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{Drain, Record, Role, outcomes};

    fn record(role: Role, rates: &[f64]) -> Record {
        let drain = |rate: &f64| {
            Some(Drain {
                events_per_s: *rate,
                cpu_us_per_event: 1.0,
                nats_us_per_event: 1.0,
                postgres_us_per_event: 1.0,
                rss_mib_max: 1.0,
                rows: 1,
                dirty_kib_before: 0,
            })
        };
        let drains = rates.iter().map(drain).collect();
        let (name, histories) = (format!("{role:?}"), Vec::new());
        Record { name, role, drains, histories, paced: Vec::new(), errors: Vec::new() }
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let records = [
            record(Role::Subject, &[30_000.0, 42_000.0, 45_000.0]),
            record(Role::Bare, &[90_000.0, 90_000.0, 90_000.0]),
            record(Role::Peer, &[10_000.0, 10_000.0, 10_000.0]),
        ];
        let met: Vec<_> = outcomes(&records).iter().map(|outcome| outcome.met).collect();
        assert_eq!(met, [Some(true), Some(false), Some(true), None, None, None]);
        assert!(!outcomes(&records)[3].is_met());
    }
}
