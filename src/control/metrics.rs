//! `/metrics`: snapshots of all shards merged into Prometheus families. Names and labels of the first group
//! are the contract's (cdc.md §9), those of the second ours, `daisi_<stage>_<thing>_<unit>`. Invariant: a
//! series appears at most once, and the number of series is bounded by configuration, not by traffic.

mod ingest;
mod trace;

use std::collections::BTreeMap;

use hdrhistogram::Histogram as Hdr;
use prometheus::core::Collector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

use super::otlp::ExportFigures;
use super::ready::Readiness;
use super::view::{Buckets, CompanyCount, DependencyState, ShardSnapshot, ShardStatus};
use crate::config::plan::MetricsPlan;

/// Upper bounds of the contract's histogram, seconds (cdc.md §9).
const CONTRACT_BOUNDS_S: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of our own histograms, seconds: a healthy event takes less than the contract's first bound.
const FINE_BOUNDS_S: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Longest time a histogram keeps apart; longer ones count as this.
const TIME_NS_MAX: u64 = 3_600_000_000_000;
/// Company label of those that have no series of their own.
const OTHER: &str = "other";

/// One shard at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Its counters.
    pub snapshot: ShardSnapshot,
    /// Its condition.
    pub status: ShardStatus,
}

/// Metrics of the process itself: CPU, memory, files. Made once, as it remembers the start time.
pub struct Process(prometheus::process_collector::ProcessCollector);

impl Process {
    /// Watches this process.
    #[must_use]
    pub fn of_this() -> Self {
        Self(prometheus::process_collector::ProcessCollector::for_self())
    }
}

/// Writes the page.
///
/// # Errors
/// The encoder refuses a family: one without series, or a label that is not UTF-8.
pub fn encode(
    shards: &[Shard],
    readiness: &Readiness,
    plan: MetricsPlan,
    export: &ExportFigures,
    process: &Process,
) -> Result<String, prometheus::Error> {
    let mut families = contract_families(shards, plan);
    families.extend(our_families(shards, readiness));
    families.extend(ingest::families(shards));
    families.extend(trace::families(shards, export));
    families.extend(companies(shards, plan.companies_max));
    families.extend(process.0.collect());
    families.retain(|family| !family.get_metric().is_empty());
    let mut page = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(&families, &mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn contract_families(shards: &[Shard], plan: MetricsPlan) -> Vec<MetricFamily> {
    let snapshots = || shards.iter().map(|shard| &shard.snapshot);
    let mut events =
        Series::counter("cdc_consumer_events_total", "Events by table and outcome; each has one.");
    let mut failures =
        Series::counter("cdc_consumer_publish_errors_total", "Publishes that failed.");
    let mut published =
        Series::counter("cdc_consumer_events_published_total", "Publishes by table and status.");
    let mut lookups =
        Series::counter("cdc_consumer_redis_hit_total", "Deduplication lookups by status.");
    let mut checks = Series::counter(
        "daisi_cdc_consumer_deduplication_checks_total",
        "Deduplication lookups by table and result.",
    );
    let mut fields = Series::counter(
        "cdc_consumer_unhandled_fields_total",
        "Columns the old service did not know.",
    );
    for name in ["hit", "miss"] {
        lookups.add(&[("status", name)], 0.0);
    }
    failures.add(&[], 0.0);
    for snapshot in snapshots() {
        for e in &snapshot.events {
            let labels =
                [("table", &*e.table), ("result", e.outcome.as_str()), ("reason", e.reason)];
            events.add(&labels, count(e.count));
        }
        for p in &snapshot.published {
            published.add(&[("table", &p.table), ("status", "success")], count(p.succeeded));
            published.add(&[("table", &p.table), ("status", "failure")], count(p.failed));
            failures.add(&[], count(p.failed));
        }
        for d in &snapshot.dedup {
            for (name, number) in [("hit", d.hits), ("miss", d.misses)] {
                lookups.add(&[("status", name)], count(number));
                checks.add(&[("table", &d.table), ("result", name)], count(number));
            }
        }
        for f in snapshot.unhandled_fields.iter().filter(|_| plan.unhandled_fields) {
            fields.add(&[("table", &f.table), ("field_name", &f.field)], count(f.count));
        }
    }
    let mut lag =
        Series::gauge("cdc_consumer_lag_seconds", "Age of the oldest event not yet acked.");
    let oldest = shards.iter().map(|shard| shard.status.lag.as_secs_f64()).fold(0.0, f64::max);
    lag.add(&[], oldest);
    let times = processing(shards);
    [events, failures, published, lookups, checks, fields, lag]
        .into_iter()
        .map(Series::into_family)
        .chain([times])
        .collect()
}

/// Times by table: the histograms of all shards are merged first, so that a bucket is exact for the whole.
fn processing(shards: &[Shard]) -> MetricFamily {
    let mut tables: BTreeMap<&str, Times> = BTreeMap::new();
    for times in shards.iter().flat_map(|shard| &shard.snapshot.processing) {
        tables.entry(&times.table).or_default().merge(&times.times);
    }
    let metrics = tables
        .into_iter()
        .map(|(table, times)| times.metric(&[("table", table)], CONTRACT_BOUNDS_S))
        .collect();
    family("cdc_consumer_processing_seconds", "Receipt to PubAck.", MetricType::HISTOGRAM, metrics)
}

fn our_families(shards: &[Shard], readiness: &Readiness) -> Vec<MetricFamily> {
    let mut all = shard_families(shards);
    let mut info = Series::gauge("daisi_build_info", "1; the label says which build runs.");
    info.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut ready = Series::gauge("daisi_ready", "1 while /ready answers 200.");
    ready.add(&[], f64::from(u8::from(readiness.ready)));
    all.extend([info, ready].map(Series::into_family));
    let whole = |pick: fn(&ShardSnapshot) -> Vec<&Buckets>| {
        let mut times = Times::default();
        shards.iter().flat_map(|shard| pick(&shard.snapshot)).for_each(|part| times.merge(part));
        vec![times.metric(&[], FINE_BOUNDS_S)]
    };
    for (name, help, pick) in [
        (
            "daisi_cdc_latency_seconds",
            "Receipt to PubAck, all tables.",
            (|s| s.processing.iter().map(|p| &p.times).collect())
                as fn(&ShardSnapshot) -> Vec<&Buckets>,
        ),
        ("daisi_cdc_publish_duration_seconds", "Publish to PubAck.", |s| vec![&s.publish_times]),
        ("daisi_cdc_redis_duration_seconds", "One batch of Redis commands.", |s| {
            vec![&s.redis_times]
        }),
    ] {
        all.push(family(name, help, MetricType::HISTOGRAM, whole(pick)));
    }
    all
}

fn shard_families(shards: &[Shard]) -> Vec<MetricFamily> {
    let mut pulled =
        Series::counter("daisi_cdc_events_pulled_total", "Events received, each once a reading.");
    let mut returned = Series::counter(
        "daisi_cdc_events_returned_total",
        "Events given back without an outcome when a reading ended, to be read again.",
    );
    let mut redelivered = Series::counter(
        "daisi_cdc_events_redelivered_total",
        "Deliveries of events that were held or done already.",
    );
    let mut in_flight =
        Series::gauge("daisi_cdc_in_flight_events", "Events without an outcome yet.");
    let mut in_flight_bytes =
        Series::gauge("daisi_cdc_in_flight_bytes", "Bytes of events without an outcome yet.");
    let mut residual = Series::gauge(
        "daisi_cdc_residual_events",
        "Pulled less outcomes less in flight; other than 0 for longer than a scrape is a defect.",
    );
    let mut lag = Series::gauge("daisi_cdc_lag_seconds", "Age of the oldest event not yet acked.");
    let mut heartbeat = Series::gauge(
        "daisi_shard_heartbeat_age_seconds",
        "Time since the shard's loop last turned.",
    );
    let mut turns = Series::counter("daisi_shard_turns_total", "Turns of the shard's loop.");
    let mut companies =
        Series::gauge("daisi_shard_companies", "Companies the shard holds state of.");
    let mut reconnects =
        Series::counter("daisi_shard_reconnects_total", "Connections made again after a loss.");
    let mut panics = Series::counter(
        "daisi_shard_panics_total",
        "Panics contained; what was at hand is read again.",
    );
    let mut up = Series::gauge("daisi_shard_dependency_up", "1 while it works or is not needed.");
    for Shard { snapshot, status } in shards {
        let (shard, core) = (status.shard.to_string(), status.core.to_string());
        let labels: [(&str, &str); 2] = [("shard", &shard), ("core", &core)];
        pulled.add(&labels, count(snapshot.pulled));
        returned.add(&labels, count(snapshot.returned));
        redelivered.add(&labels, count(snapshot.redelivered));
        in_flight.add(&labels, count(snapshot.in_flight));
        in_flight_bytes.add(&labels, count(snapshot.in_flight_bytes));
        residual.add(&labels, residual_of(snapshot));
        lag.add(&labels, status.lag.as_secs_f64());
        heartbeat.add(&labels, status.heartbeat_age.as_secs_f64());
        turns.add(&labels, count(snapshot.turns));
        companies.add(&labels, count(status.companies));
        reconnects.add(&labels, count(snapshot.reconnects));
        panics.add(&labels, count(snapshot.panics));
        for dependency in &status.dependencies {
            let works = matches!(dependency.state, DependencyState::Up | DependencyState::Standby);
            let labels = [labels[0], labels[1], ("dependency", dependency.name)];
            up.set(&labels, f64::from(u8::from(works)));
        }
    }
    let work = [pulled, returned, redelivered, in_flight, in_flight_bytes, residual, lag];
    let shard = [heartbeat, turns, companies, reconnects, panics, up];
    work.into_iter().chain(shard).map(Series::into_family).collect()
}

fn residual_of(snapshot: &ShardSnapshot) -> f64 {
    let ended: u64 = snapshot.events.iter().map(|event| event.count).sum();
    count(snapshot.pulled) - count(ended) - count(snapshot.returned) - count(snapshot.in_flight)
}

/// The busiest companies by name, the rest summed. A counter of `other` may fall when a company rises out of
/// it; Prometheus takes that for a restart, which costs one interval of one series.
fn companies(shards: &[Shard], companies_max: usize) -> Vec<MetricFamily> {
    if companies_max == 0 {
        return Vec::new();
    }
    let mut all: Vec<&CompanyCount> =
        shards.iter().flat_map(|shard| &shard.snapshot.companies).collect();
    all.sort_by(|left, right| {
        right.pulled.cmp(&left.pulled).then_with(|| left.company.cmp(&right.company))
    });
    let mut events =
        Series::counter("daisi_cdc_company_events_total", "Events by company and outcome.");
    let mut in_flight =
        Series::gauge("daisi_cdc_company_in_flight_events", "Events without an outcome yet.");
    let mut residual =
        Series::gauge("daisi_cdc_company_residual_events", "As daisi_cdc_residual_events.");
    for (rank, c) in all.into_iter().enumerate() {
        let company = if rank < companies_max { c.company.as_str() } else { OTHER };
        let outcomes = [
            ("processed", c.committed),
            ("skipped", c.filtered),
            ("duplicate", c.duplicate),
            ("dead_lettered", c.dead_lettered),
            ("expired", c.expired),
        ];
        for (result, number) in outcomes {
            events.add(&[("company", company), ("result", result)], count(number));
        }
        let ended: u64 = outcomes.iter().map(|(_, number)| number).sum();
        in_flight.add(&[("company", company)], count(c.in_flight));
        residual.add(&[("company", company)], count(c.pulled) - count(ended) - count(c.in_flight));
    }
    [events, in_flight, residual].into_iter().map(Series::into_family).collect()
}

/// Prometheus numbers are floating point: exact up to 2^53, which a counter of events does not reach.
#[expect(clippy::cast_precision_loss, reason = "the format has no integers")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Times merged from several shards.
#[derive(Default)]
struct Times {
    histogram: Option<Hdr<u64>>,
    sum_ns: u128,
}

impl Times {
    fn merge(&mut self, part: &Buckets) {
        let histogram = self.histogram.get_or_insert_with(new_histogram);
        for &(ns, number) in &part.pairs {
            // Clamped, so that a time out of range counts at the edge instead of being refused.
            let _ = histogram.record_n(ns.clamp(1, TIME_NS_MAX), number);
        }
        self.sum_ns += u128::from(part.sum_ns);
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are small and positive"
    )]
    fn metric(&self, labels: &[(&str, &str)], bounds_s: &[f64]) -> Metric {
        let up_to = |bound_s: f64| {
            let histogram = self.histogram.as_ref();
            histogram.map_or(0, |all| all.count_between(0, (bound_s * 1e9) as u64))
        };
        let bucket = |&bound_s: &f64| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound_s);
            bucket.set_cumulative_count(up_to(bound_s));
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(bounds_s.iter().map(bucket).collect());
        histogram.set_sample_count(self.histogram.as_ref().map_or(0, Hdr::len));
        histogram.set_sample_sum(count(u64::try_from(self.sum_ns).unwrap_or(u64::MAX)) / 1e9);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        metric
    }
}

#[expect(
    clippy::expect_used,
    reason = "the bounds are constants the crate accepts; a test makes one"
)]
fn new_histogram() -> Hdr<u64> {
    Hdr::new_with_bounds(1, TIME_NS_MAX, 3).expect("constant bounds")
}

/// One family under construction: a value a label set, in a fixed order, so that pages compare.
struct Series {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: BTreeMap<Vec<(String, String)>, f64>,
}

impl Series {
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::COUNTER, values: BTreeMap::new() }
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::GAUGE, values: BTreeMap::new() }
    }

    fn add(&mut self, labels: &[(&str, &str)], number: f64) {
        *self.slot(labels) += number;
    }

    fn set(&mut self, labels: &[(&str, &str)], number: f64) {
        *self.slot(labels) = number;
    }

    fn slot(&mut self, labels: &[(&str, &str)]) -> &mut f64 {
        let key = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.values.entry(key).or_insert(0.0)
    }

    fn into_family(self) -> MetricFamily {
        let metric = |(labels, number): (Vec<(String, String)>, f64)| {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (&**n, &**v)).collect();
            let mut metric = Metric::from_label(pairs(&labels));
            if self.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
            metric
        };
        family(self.name, self.help, self.kind, self.values.into_iter().map(metric).collect())
    }
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests;
