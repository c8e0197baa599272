//! What the study measured: medians over rounds as a table in Markdown, all rounds as JSON.

use std::{fmt::Write, fs, path::Path};

use serde::Serialize;

use super::axis::{Axis, Point};
use crate::{Job, error::BenchError, ingest::turn, report::Spread, round};

/// One point of an axis.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(serialize_with = "as_text")]
    pub(super) job: Job,
    #[serde(serialize_with = "as_text")]
    pub(super) axis: Axis,
    pub(super) value: String,
    pub(super) settings: Vec<String>,
    pub(super) figures: Vec<Figures>,
    pub(super) errors: Vec<String>,
}

/// One round of one point: a drain, and an open loop.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Figures {
    /// Events of the drain.
    events: u64,
    /// Events a second of the open loop.
    rate: u64,
    events_per_s: f64,
    /// In the drain, of daisi, nats-server, and Redis or PostgreSQL.
    daisi_us: f64,
    nats_us: f64,
    store_us: f64,
    rss_mib: f64,
    /// In the open loop, microseconds.
    p50_us: f64,
    p95_us: f64,
    p99_us: f64,
    /// In the open loop, of daisi.
    paced_us: f64,
}

impl Row {
    pub(super) fn new(job: Job, axis: Axis, point: &Point) -> Self {
        Self {
            job,
            axis,
            value: point.value.clone(),
            settings: point.sets.clone(),
            figures: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn median(&self, of: impl Fn(&Figures) -> f64) -> Option<f64> {
        Spread::of(self.figures.iter().map(of)).map(|spread| spread.median)
    }
}

impl Figures {
    pub(super) fn of_cdc(
        events: u64,
        rate: u64,
        drain: &round::Drain,
        paced: &round::Paced,
    ) -> Self {
        Self {
            events,
            rate,
            events_per_s: drain.events_per_s,
            daisi_us: drain.cpu_us_per_event,
            nats_us: drain.nats_us_per_event,
            store_us: drain.redis_us_per_event,
            rss_mib: drain.rss_mib_max,
            p50_us: paced.p50_us,
            p95_us: paced.p95_us,
            p99_us: paced.p99_us,
            paced_us: paced.cpu_us_per_event,
        }
    }

    pub(super) fn of_ingest(
        events: u64,
        rate: u64,
        drain: &turn::Drain,
        paced: &turn::Paced,
    ) -> Self {
        Self {
            events,
            rate,
            events_per_s: drain.events_per_s,
            daisi_us: drain.cpu_us_per_event,
            nats_us: drain.nats_us_per_event,
            store_us: drain.postgres_us_per_event,
            rss_mib: drain.rss_mib_max,
            p50_us: paced.p50_us,
            p95_us: paced.p95_us,
            p99_us: paced.p99_us,
            paced_us: paced.cpu_us_per_event,
        }
    }
}

/// The tables, one for each job and axis.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last = None;
    for row in rows {
        if last.replace((row.job, row.axis)) != Some((row.job, row.axis)) {
            let store = if row.job == Job::Cdc { "redis" } else { "postgres" };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "\n{} by {}\n\n| {} | drain, events/s | daisi us | nats us | {store} us | MiB | rate | P50 ms | P95 ms \
                 | P99 ms | paced daisi us |\n|---|---|---|---|---|---|---|---|---|---|---|",
                row.job, row.axis, row.axis
            );
        }
        let number = |of: fn(&Figures) -> f64, digits: usize| {
            row.median(of).map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let ms = |of: fn(&Figures) -> f64| {
            row.median(of).map_or("-".to_owned(), |value| format!("{:.2}", value / 1_000.0))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.value,
            number(|f| f.events_per_s, 0),
            number(|f| f.daisi_us, 1),
            number(|f| f.nats_us, 1),
            number(|f| f.store_us, 1),
            number(|f| f.rss_mib, 0),
            number(|f| f.rate as f64, 0),
            ms(|f| f.p50_us),
            ms(|f| f.p95_us),
            ms(|f| f.p99_us),
            number(|f| f.paced_us, 1),
        );
        for error in &row.errors {
            let _ = writeln!(text, "\n{} FAILED: {error}\n", row.value);
        }
    }
    text
}

pub(super) fn keep(path: &Path, rows: &[Row]) -> Result<(), BenchError> {
    let machine = loadtest::host::Machine::look();
    let result = serde_json::json!({ "machine": machine, "rows": rows });
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, format!("{result:#}\n")))
        .map_err(BenchError::io(format!("write {}", path.display())))?;
    println!("\nkept in {}", path.display());
    Ok(())
}

fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
