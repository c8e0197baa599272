//! The scaling study: daisi alone, one thing changed at a time. Along an axis its points take turns, as
//! contenders do, so that what the machine does besides falls on all of them alike.
//! Modules: `axis` (what is changed, and to what), `figures` (what was measured, as table and JSON).

mod axis;
mod figures;

use std::path::PathBuf;

use loadtest::{host, stack::NatsOptions};

use crate::{
    Args, Job,
    contender::{Contender, Role},
    error::BenchError,
    feed::Feed,
    ingest::{
        bed::{Bed, Shape},
        turn,
    },
    round::{self, Load},
};
pub(crate) use axis::Axis;
use axis::{Point, Server};
use figures::{Figures, Row};

/// Bytes of all events of a drain at the most: a drain of large events is one of fewer.
const DRAIN_BYTES: u64 = 192 << 20;
/// Bytes a second of an open loop at the most.
const PACED_BYTES: u64 = 24 << 20;

/// Measures along the axes and keeps the result: did every turn succeed?
pub(crate) fn run(args: &Args, axes: &[Axis]) -> Result<bool, BenchError> {
    let mut rows = Vec::new();
    for job in &args.jobs {
        for axis in axes {
            let points = axis.points(*job);
            if !points.is_empty() {
                rows.extend(along(args, *job, *axis, &points)?);
            }
        }
    }
    print!("{}", figures::text(&rows));
    let path = args.results.join(format!("study-{}.json", host::unix_ms() / 1_000));
    figures::keep(&path, &rows)?;
    Ok(rows.iter().all(|row| row.errors.is_empty()))
}

fn along(args: &Args, job: Job, axis: Axis, points: &[Point]) -> Result<Vec<Row>, BenchError> {
    let mut beds = Vec::new();
    let mut rows: Vec<Row> = points.iter().map(|point| Row::new(job, axis, point)).collect();
    for round in 1..=args.rounds {
        for (point, row) in points.iter().zip(&mut rows) {
            let nats = NatsOptions { binary: binary(args, point)?, ..NatsOptions::default() };
            if !beds.iter().any(|(server, _)| *server == point.server) {
                beds.push((point.server, Ground::start(args, job, nats)?));
            }
            let ground = beds.iter_mut().find(|(server, _)| *server == point.server);
            let Some((_, ground)) = ground else { continue };
            let (job, axis) = (row.job, row.axis);
            eprintln!(
                "study {round}/{}: {job}, {axis} {} (load {})",
                args.rounds,
                row.value,
                host::load()
            );
            match ground.measure(args, point) {
                Ok(figures) => row.figures.push(figures),
                Err(error) => row.errors.push(error.to_string()),
            }
        }
    }
    Ok(rows)
}

fn binary(args: &Args, point: &Point) -> Result<Option<PathBuf>, BenchError> {
    match (point.server, &args.nats_newer) {
        (Server::Installed, _) => Ok(None),
        (Server::Newer, Some(path)) => Ok(Some(path.clone())),
        (Server::Newer, None) => {
            Err(BenchError::unreadable("--nats-newer", &"the axis `nats` needs a second server"))
        }
    }
}

/// Servers of one job.
enum Ground {
    Cdc { stack: Box<loadtest::stack::Stack>, contender: Contender },
    Ingest { bed: Box<Bed>, contender: Contender },
}

impl Ground {
    fn start(args: &Args, job: Job, nats: NatsOptions) -> Result<Self, BenchError> {
        Ok(match job {
            Job::Cdc => {
                let stack = crate::start_servers(nats)?;
                let contender = subject(crate::contenders(args, &stack)?)?;
                Self::Cdc { stack: Box::new(stack), contender }
            }
            Job::Ingest => {
                let bed = Box::new(Bed::start_on(args, nats)?);
                let contender = subject(crate::ingest::contenders(args, &bed, 0)?)?;
                Self::Ingest { bed, contender }
            }
        })
    }

    fn measure(&mut self, args: &Args, point: &Point) -> Result<Figures, BenchError> {
        let sets: Vec<&str> = point.sets.iter().flat_map(|set| ["--set", set]).collect();
        let events = |usual: u64| usual.min(DRAIN_BYTES / point.bytes).max(2);
        let rate = args.rate.min(PACED_BYTES / point.bytes).max(1);
        match self {
            Self::Cdc { stack, contender } => {
                let feed = Feed { padding: point.padding(), ..crate::feed(args, stack) };
                let feed = Feed { companies: point.companies, ..feed };
                let load = Load {
                    events: events(args.events),
                    deadline_s: args.deadline_s,
                    rate,
                    warmup_s: args.warmup_s,
                    timed_s: args.timed_s,
                };
                let contender = contender.clone().with(&sets);
                let drain = round::drain(&contender, &feed, crate::servers(stack)?, load)?;
                let paced = round::paced(&contender, &feed, load)?;
                Ok(Figures::of_cdc(load.events, rate, &drain, &paced))
            }
            Self::Ingest { bed, contender } => {
                bed.reshape(Shape { companies: point.companies, text: point.text() });
                let load = turn::Load {
                    events: events(args.ingest_events),
                    deadline_s: args.deadline_s,
                    rate,
                    warmup_s: args.warmup_s,
                    timed_s: args.timed_s,
                };
                let contender = contender.clone().with(&sets);
                let drain = turn::drain(&contender, bed, load)?;
                let paced = turn::paced(&contender, bed, load)?;
                Ok(Figures::of_ingest(load.events, rate, &drain, &paced))
            }
        }
    }
}

fn subject(contenders: Vec<Contender>) -> Result<Contender, BenchError> {
    let mut subjects = contenders.into_iter().filter(|one| one.role == Role::Subject);
    subjects.next().ok_or_else(|| BenchError::unreadable("contenders", &"daisi is not built"))
}
