//! Families of the ingest stage. None where it does not run.

use prometheus::proto::{MetricFamily, MetricType};

use super::{FINE_BOUNDS_S, Series, Shard, Times, count, family};
use crate::control::view::{Buckets, IngestSnapshot};

/// A number of one shard: name, help, is it a counter, where it stands.
type Number = (&'static str, &'static str, bool, fn(&IngestSnapshot) -> f64);

const NUMBERS: [Number; 19] = [
    ("daisi_ingest_events_pulled_total", "Events received, each once a reading.", true, |s| {
        count(s.pulled)
    }),
    (
        "daisi_ingest_events_returned_total",
        "Events given back without an outcome when a reading ended, to be read again.",
        true,
        |s| count(s.returned),
    ),
    ("daisi_ingest_in_flight_events", "Events without an outcome yet.", false, |s| {
        count(s.in_flight)
    }),
    (
        "daisi_ingest_residual_events",
        "Pulled less outcomes less in flight; other than 0 for longer than a scrape is a defect.",
        false,
        residual,
    ),
    (
        "daisi_ingest_stale_events_total",
        "Of the duplicates: events whose rows held a newer state.",
        true,
        |s| count(s.stale),
    ),
    (
        "daisi_ingest_rate_limited_total",
        "Times that ingest.rate_limit made a company's events wait.",
        true,
        |s| count(s.limited),
    ),
    (
        "daisi_ingest_suspicious_timestamp_total",
        "Messages whose time is likely to be in milliseconds.",
        true,
        |s| count(s.suspicious),
    ),
    ("daisi_ingest_batches_total", "Writes to PostgreSQL.", true, |s| count(s.batches)),
    ("daisi_ingest_batch_events_total", "Events in those writes.", true, |s| count(s.batch_events)),
    (
        "daisi_ingest_away_total",
        "Writes that PostgreSQL could not take; their events were written again.",
        true,
        |s| count(s.away),
    ),
    ("daisi_ingest_connections", "Open connections to PostgreSQL.", false, |s| count(s.lanes)),
    (
        "daisi_ingest_held_companies",
        "Companies whose events cannot be written now; /shards names them.",
        false,
        |s| count(s.held),
    ),
    ("daisi_dlq_letters_pulled_total", "Dead letters received, again at each try.", true, |s| {
        count(s.letters.pulled)
    }),
    (
        "daisi_dlq_letters_committed_total",
        "Dead letters whose events were written at last.",
        true,
        |s| count(s.letters.committed),
    ),
    (
        "daisi_dlq_letters_duplicate_total",
        "Dead letters whose events had been done, or were older than what the rows hold.",
        true,
        |s| count(s.letters.duplicate),
    ),
    (
        "daisi_dlq_letters_exhausted_total",
        "Dead letters that became rows of exhausted_events.",
        true,
        |s| count(s.letters.exhausted),
    ),
    (
        "daisi_dlq_letters_later_total",
        "Dead letters put back into the stream for a later try.",
        true,
        |s| count(s.letters.later),
    ),
    ("daisi_dlq_tries_failed_total", "Tries that failed.", true, |s| count(s.letters.failed)),
    ("daisi_dlq_in_flight_letters", "Dead letters that are being tried.", false, |s| {
        count(s.letters.in_flight)
    }),
];

pub(super) fn families(shards: &[Shard]) -> Vec<MetricFamily> {
    let of_shards: Vec<(String, &IngestSnapshot)> = shards
        .iter()
        .filter_map(|shard| Some((shard.status.shard.to_string(), shard.snapshot.ingest.as_ref()?)))
        .collect();
    if of_shards.is_empty() {
        return Vec::new();
    }
    let mut all: Vec<MetricFamily> = NUMBERS
        .iter()
        .map(|(name, help, is_counter, pick)| {
            let new = if *is_counter { Series::counter } else { Series::gauge };
            let mut series = new(name, help);
            for (shard, snapshot) in &of_shards {
                series.add(&[("shard", shard)], pick(snapshot));
            }
            series.into_family()
        })
        .collect();
    let mut events =
        Series::counter("daisi_ingest_events_total", "Events by kind and outcome; each has one.");
    let mut refused =
        Series::counter("daisi_ingest_refusals_total", "Dead letters of the stage by reason.");
    for (_, snapshot) in &of_shards {
        for (kind, outcome, number) in &snapshot.events {
            let labels = [("event_type", *kind), ("result", outcome.as_str())];
            events.add(&labels, count(*number));
        }
        for (reason, number) in &snapshot.reasons {
            let labels = [("reason", *reason), ("error_type", error_type(reason))];
            refused.add(&labels, count(*number));
        }
    }
    all.extend([events, refused].map(Series::into_family));
    let times = |pick: fn(&IngestSnapshot) -> &Buckets| {
        let mut times = Times::default();
        of_shards.iter().for_each(|(_, snapshot)| times.merge(pick(snapshot)));
        vec![times.metric(&[], FINE_BOUNDS_S)]
    };
    for (name, help, metric) in [
        ("daisi_ingest_latency_seconds", "Receipt to COMMIT.", times(|s| &s.latency)),
        ("daisi_ingest_write_duration_seconds", "One batch.", times(|s| &s.write_times)),
    ] {
        all.push(family(name, help, MetricType::HISTOGRAM, metric));
    }
    all
}

/// The old service's word for a reason: contract ingest.md section 7.1.
fn error_type(reason: &str) -> &'static str {
    match reason {
        "bad_json" | "too_deep" | "too_large" => "unmarshal",
        "unknown_subject" | "bad_company" => "unknown",
        "not_found" => "not_found",
        "data" => "database",
        "panic" => "panic",
        _ => "validation",
    }
}

fn residual(snapshot: &IngestSnapshot) -> f64 {
    let ended: u64 = snapshot.events.iter().map(|(_, _, count)| count).sum();
    count(snapshot.pulled) - count(ended) - count(snapshot.returned) - count(snapshot.in_flight)
}
