//! What the study changes, and the values it takes. Everything else stays as the bench has it.

use std::fmt;

use crate::Job;

/// Bytes of an event as the bench makes it.
const BYTES: u64 = 900;
/// Companies of the bench.
const COMPANIES: u64 = 8;

/// One thing that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Axis {
    /// Shards of one process.
    Shards,
    /// Companies that the same events are spread over.
    Companies,
    /// Bytes of an event.
    Payload,
    /// Events held (cdc), events of a transaction (ingest).
    Batch,
    /// Connections of a shard to PostgreSQL (ingest).
    Connections,
    /// One ack for all before, or one each (cdc).
    Ack,
    /// Version of nats-server.
    Nats,
}

/// Which nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// What the machine has.
    Installed,
    /// What `--nats-newer` names.
    Newer,
}

/// One value of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// The value, as it stands in a table.
    pub(crate) value: String,
    pub(crate) companies: u64,
    /// Bytes of an event, about.
    pub(crate) bytes: u64,
    /// Settings of daisi, `key=value`.
    pub(crate) sets: Vec<String>,
    pub(crate) server: Server,
}

impl Point {
    fn new(value: impl ToString) -> Self {
        Self {
            value: value.to_string(),
            companies: COMPANIES,
            bytes: BYTES,
            sets: Vec::new(),
            server: Server::Installed,
        }
    }

    fn set(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.sets.push(format!("{key}={value}"));
        self
    }

    /// Bytes to add to a row change, which bears its text twice.
    pub(crate) fn padding(&self) -> u64 {
        self.bytes.saturating_sub(BYTES) / 2
    }

    /// Length of a chat event's text, which stands in it twice; the generator's own for the usual event.
    pub(crate) fn text(&self) -> Option<u64> {
        (self.bytes > BYTES).then(|| self.padding())
    }
}

impl Axis {
    /// Its values for a job; none where the job has no such thing.
    pub(crate) fn points(self, job: Job) -> Vec<Point> {
        match (self, job) {
            (Self::Shards, _) => {
                [1, 2].map(|shards| Point::new(shards).set("shards", shards)).to_vec()
            }
            (Self::Companies, Job::Cdc) => companies(&[1, 10, 100, 1_000, 10_000]),
            // Each has its schema with some thirty tables, made anew for each turn.
            (Self::Companies, Job::Ingest) => companies(&[1, 8, 64, 256]),
            (Self::Payload, _) => [BYTES, 4 << 10, 16 << 10, 64 << 10, 256 << 10]
                .map(|bytes| Point { bytes, ..Point::new(bytes) })
                .to_vec(),
            (Self::Batch, Job::Cdc) => [64, 256, 1_024, 4_096, 16_384].map(held).to_vec(),
            (Self::Batch, Job::Ingest) => [10, 50, 200, 1_000, 4_000]
                .map(|batch: u32| Point::new(batch).set("ingest.batch_max", batch))
                .to_vec(),
            (Self::Connections, Job::Ingest) => [1, 2, 4, 8]
                .map(|count: u32| Point::new(count).set("ingest.connections", count))
                .to_vec(),
            (Self::Ack, Job::Cdc) => ["all", "explicit"]
                .map(|policy| Point::new(policy).set("cdc.ack_policy", policy))
                .to_vec(),
            (Self::Connections, Job::Cdc) | (Self::Ack, Job::Ingest) => Vec::new(),
            (Self::Nats, _) => [("installed", Server::Installed), ("newer", Server::Newer)]
                .map(|(value, server)| Point { server, ..Point::new(value) })
                .to_vec(),
        }
    }
}

fn companies(counts: &[u64]) -> Vec<Point> {
    counts.iter().map(|&companies| Point { companies, ..Point::new(companies) }).collect()
}

fn held(events: u64) -> Point {
    Point::new(events)
        .set("cdc.max_in_flight", events)
        .set("cdc.max_ack_pending", events.max(5_000))
        .set("cdc.publish_window", events.min(1_024))
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shards => "shards",
            Self::Companies => "companies",
            Self::Payload => "payload, bytes",
            Self::Batch => "batch",
            Self::Connections => "connections",
            Self::Ack => "ack policy",
            Self::Nats => "nats-server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_has_two_values_at_least_for_some_job_and_none_twice() {
        use clap::ValueEnum as _;
        for axis in Axis::value_variants() {
            let counts = [Job::Cdc, Job::Ingest].map(|job| {
                let points = axis.points(job);
                let distinct = points.iter().enumerate().all(|(n, p)| !points[..n].contains(p));
                assert!(distinct, "{axis}: {points:?}");
                points.len()
            });
            assert!(counts.iter().any(|&count| count >= 2), "{axis}");
        }
    }

    #[test]
    fn the_usual_event_is_not_padded_and_a_large_one_is_about_as_large_as_it_says() {
        assert_eq!((Point::new(1).padding(), Point::new(1).text()), (0, None));
        let large = Point { bytes: 64 << 10, ..Point::new(1) };
        assert_eq!(2 * large.padding() + BYTES, 64 << 10);
        assert_eq!(large.text(), Some(large.padding()));
    }
}
