//! The study's figures as pictures, one for each job and axis that has an order.

use std::{fs, path::Path};

use loadtest::results::{Panel, Picture};

use super::{
    axis::Axis,
    figures::{Figures, Row},
};
use crate::{Job, error::BenchError};

/// A line of a panel: its name, and what it tells of a round.
type Named<'a> = (&'a str, fn(&Figures) -> f64);

/// Writes `study-<job>-<axis>.svg` into the folder.
pub(super) fn write(folder: &Path, rows: &[Row]) -> Result<(), BenchError> {
    for (job, axis) in [Job::Cdc, Job::Ingest].into_iter().flat_map(|job| {
        [Axis::Companies, Axis::Payload, Axis::Batch, Axis::Connections].map(|axis| (job, axis))
    }) {
        let rows: Vec<&Row> =
            rows.iter().filter(|row| (row.job, row.axis) == (job, axis)).collect();
        if rows.len() < 2 {
            continue;
        }
        let path = folder.join(format!("study-{job}-{}.svg", axis.name()));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, picture(job, axis, &rows).svg()))
            .map_err(BenchError::io(format!("write {}", path.display())))?;
        println!("drawn in {}", path.display());
    }
    Ok(())
}

fn picture(job: Job, axis: Axis, rows: &[&Row]) -> Picture {
    let store = if job == Job::Cdc { "redis-server" } else { "postgres" };
    let place = |row: &Row| row.value.parse::<f64>().unwrap_or(1.0);
    let panel = |title, is_log, lines: &[Named<'_>]| Panel {
        title,
        is_log,
        lines: lines
            .iter()
            .map(|(name, of)| {
                let points = rows.iter().filter_map(|row| Some((place(row), row.median(of)?)));
                ((*name).to_owned(), points.collect())
            })
            .collect(),
    };
    Picture {
        title: format!("{job} by {axis}: medians"),
        x_title: axis.name(),
        ticks: rows.iter().map(|row| (place(row), row.value.clone())).collect(),
        panels: vec![
            panel("drain, events/s", false, &[("daisi", |f| f.events_per_s)]),
            panel(
                "drain, CPU us an event",
                true,
                &[
                    ("daisi", |f| f.daisi_us),
                    ("nats-server", |f| f.nats_us),
                    (store, |f| f.store_us),
                ],
            ),
            panel(
                "open loop, latency in us",
                true,
                &[("P50", |f| f.p50_us), ("P95", |f| f.p95_us), ("P99", |f| f.p99_us)],
            ),
        ],
    }
}
