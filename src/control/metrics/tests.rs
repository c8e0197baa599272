//! The page as Prometheus reads it: names and labels of the contract, sums over shards, bounded series.

use std::time::Duration;

use super::super::ready::{Phase, readiness};
use super::super::view::{
    CompanyCount, DedupCount, Dependency, EventCount, IngestSnapshot, Outcome, PublishCount,
    TableTimes, UnhandledField,
};
use super::*;

const PLAN: MetricsPlan = MetricsPlan { companies_max: 0, unhandled_fields: true };

fn shard(number: usize, snapshot: ShardSnapshot) -> Shard {
    let up = Dependency { name: "nats", state: DependencyState::Up, since: Duration::ZERO };
    let status = ShardStatus {
        shard: number,
        core: number + 1,
        heartbeat_age: Duration::from_millis(10),
        companies: 3,
        partitions: vec![0],
        in_flight: snapshot.in_flight,
        lag: Duration::from_millis(1500 * u64::try_from(number).expect("small")),
        held: Vec::new(),
        dependencies: vec![up],
    };
    Shard { snapshot, status }
}

fn busy() -> ShardSnapshot {
    let table = || "messages".to_owned();
    let event = |outcome, reason, count| EventCount { table: table(), outcome, reason, count };
    ShardSnapshot {
        pulled: 10,
        in_flight: 2,
        events: vec![
            event(Outcome::Committed, "", 5),
            event(Outcome::Duplicate, "", 1),
            event(Outcome::DeadLettered, "bad_json", 1),
        ],
        published: vec![PublishCount { table: table(), succeeded: 5, failed: 2 }],
        dedup: vec![DedupCount { table: table(), hits: 1, misses: 6 }],
        processing: vec![TableTimes {
            table: table(),
            times: Buckets { pairs: vec![(300_000, 4), (30_000_000, 1)], sum_ns: 31_200_000 },
        }],
        unhandled_fields: vec![UnhandledField { table: table(), field: "x".into(), count: 7 }],
        ..ShardSnapshot::default()
    }
}

fn page(shards: &[Shard], plan: MetricsPlan) -> String {
    let statuses: Vec<ShardStatus> = shards.iter().map(|shard| shard.status.clone()).collect();
    let ready = readiness(Phase::Running, &statuses, Duration::from_secs(2));
    encode(shards, &ready, plan, &ExportFigures::default(), &Process::of_this()).expect("a page")
}

#[track_caller]
fn assert_lines(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(page.lines().any(|have| have == *line), "missing: {line}\n{page}");
    }
}

#[test]
fn contract_series_are_summed_over_shards_under_their_old_names() {
    let text = page(&[shard(0, busy()), shard(1, busy())], PLAN);
    assert_lines(
        &text,
        &[
            r#"cdc_consumer_events_total{table="messages",result="processed",reason=""} 10"#,
            r#"cdc_consumer_events_total{table="messages",result="duplicate",reason=""} 2"#,
            r#"cdc_consumer_events_total{table="messages",result="dead_lettered",reason="bad_json"} 2"#,
            "cdc_consumer_publish_errors_total 4",
            r#"cdc_consumer_events_published_total{table="messages",status="success"} 10"#,
            r#"cdc_consumer_events_published_total{table="messages",status="failure"} 4"#,
            r#"cdc_consumer_redis_hit_total{status="hit"} 2"#,
            r#"cdc_consumer_redis_hit_total{status="miss"} 12"#,
            r#"daisi_cdc_consumer_deduplication_checks_total{table="messages",result="miss"} 12"#,
            r#"cdc_consumer_unhandled_fields_total{table="messages",field_name="x"} 14"#,
            "cdc_consumer_lag_seconds 1.5",
        ],
    );
}

#[test]
fn histograms_of_shards_are_merged_into_the_contracts_buckets() {
    let text = page(&[shard(0, busy()), shard(1, busy())], PLAN);
    assert_lines(
        &text,
        &[
            r#"cdc_consumer_processing_seconds_bucket{table="messages",le="0.005"} 8"#,
            r#"cdc_consumer_processing_seconds_bucket{table="messages",le="0.025"} 8"#,
            r#"cdc_consumer_processing_seconds_bucket{table="messages",le="0.05"} 10"#,
            r#"cdc_consumer_processing_seconds_bucket{table="messages",le="+Inf"} 10"#,
            r#"cdc_consumer_processing_seconds_sum{table="messages"} 0.0624"#,
            r#"cdc_consumer_processing_seconds_count{table="messages"} 10"#,
            r#"daisi_cdc_latency_seconds_bucket{le="0.00025"} 0"#,
            r#"daisi_cdc_latency_seconds_bucket{le="0.0005"} 8"#,
        ],
    );
}

#[test]
fn a_shard_shows_its_residual_and_its_dependencies() {
    let mut lost = busy();
    lost.pulled += 3;
    let text = page(&[shard(0, busy()), shard(1, lost)], PLAN);
    assert_lines(
        &text,
        &[
            // 10 pulled = 7 ended + 2 in flight + 1 that is missing.
            r#"daisi_cdc_residual_events{shard="0",core="1"} 1"#,
            r#"daisi_cdc_residual_events{shard="1",core="2"} 4"#,
            r#"daisi_shard_dependency_up{shard="0",core="1",dependency="nats"} 1"#,
            "daisi_ready 1",
        ],
    );
}

#[test]
fn companies_are_absent_unless_asked_for_and_then_bounded() {
    let company = |name: &str, pulled| CompanyCount {
        company: name.to_owned(),
        pulled,
        committed: pulled,
        ..CompanyCount::default()
    };
    let snapshot = ShardSnapshot {
        companies: vec![company("small", 1), company("big", 100), company("tiny", 1)],
        ..ShardSnapshot::default()
    };
    let shards = [shard(0, snapshot)];
    assert!(!page(&shards, PLAN).contains("company="));
    let text = page(&shards, MetricsPlan { companies_max: 1, ..PLAN });
    assert_lines(
        &text,
        &[
            r#"daisi_cdc_company_events_total{company="big",result="processed"} 100"#,
            r#"daisi_cdc_company_events_total{company="other",result="processed"} 2"#,
            r#"daisi_cdc_company_residual_events{company="big"} 0"#,
        ],
    );
    assert!(!text.contains("tiny"));
}

#[test]
fn a_page_without_shards_is_valid_and_tells_of_the_process() {
    let text = page(&[], PLAN);
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    assert_lines(&text, &["daisi_ready 0", "cdc_consumer_publish_errors_total 0"]);
}

#[test]
fn no_series_stands_twice_and_every_family_is_typed() {
    let text = page(&[shard(0, busy()), shard(1, busy())], PLAN);
    let mut series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name))
        .collect();
    let total = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), total);
    assert_eq!(text.matches("# TYPE").count(), text.matches("# HELP").count());
}

#[test]
fn every_name_of_ours_beside_the_old_ones_is_on_the_page() {
    let mut snapshot = busy();
    snapshot.ingest = Some(IngestSnapshot {
        events: vec![("messages.upsert", Outcome::Committed, 1)],
        reasons: vec![("not_found", 2), ("bad_json", 1)],
        ..IngestSnapshot::default()
    });
    snapshot.companies = vec![CompanyCount::default()];
    let text = page(&[shard(0, snapshot)], MetricsPlan { companies_max: 1, ..PLAN });
    assert_lines(
        &text,
        &[
            r#"daisi_ingest_refusals_total{reason="not_found",error_type="not_found"} 2"#,
            r#"daisi_ingest_refusals_total{reason="bad_json",error_type="unmarshal"} 1"#,
        ],
    );
    let shown: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|line| line.split([' ', '{']).next()).collect();
    let table = include_str!("../../../docs/metrics.md");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = table.split(|c| !is_part(c));
    let mut names = 0;
    // The ingest service's own names begin otherwise; those of CDC are ours too.
    for name in words.filter(|w| w.starts_with("daisi_") || w.starts_with("cdc_consumer_")) {
        names += 1;
        let parts = ["_bucket", "_count", "_sum"].map(|part| format!("{name}{part}"));
        let is_shown = shown.contains(name) || parts.iter().any(|part| shown.contains(&**part));
        assert!(is_shown, "docs/metrics.md names {name}, which the page does not show");
    }
    assert!(names > 40, "only {names} names found");
}
