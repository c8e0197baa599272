//! What is written for those who run daisi speaks of what there is: metrics in alerts, dashboard and manual
//! are metrics of `/metrics` and the other way round, and every variable named in `deploy/` is a key.
#![allow(clippy::expect_used, reason = "a test")]

mod source;

use std::collections::BTreeSet;
use std::fs;

const WRITTEN: [&str; 4] =
    ["deploy/alerts.yml", "deploy/dashboards/daisi.json", "docs/metrics.md", "docs/operations.md"];
const DEPLOYED: [&str; 4] = [
    "deploy/compose.yml",
    "deploy/Dockerfile",
    "deploy/k8s/deployment.yml",
    "deploy/systemd/daisi.service",
];
/// Begins of metric names.
const FAMILIES: [&str; 7] = [
    "cdc_consumer_",
    "daisi_cdc_",
    "daisi_ingest_",
    "daisi_dlq_",
    "daisi_shard_",
    "daisi_trace_",
    "daisi_build_",
];
/// Where they are made.
const MADE: [&str; 3] =
    ["src/control/metrics.rs", "src/control/metrics/ingest.rs", "src/control/metrics/trace.rs"];
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn alerts_dashboard_and_manual_name_metrics_that_exist() {
    let real = made();
    assert!(real.len() > 20, "only {real:?}");
    for path in WRITTEN {
        for name in metrics_of(&read(path)) {
            let family = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_real = real.contains(&name) || family.is_some_and(|name| real.contains(name));
            assert!(is_real, "{path} speaks of {name}, which /metrics does not have");
        }
    }
}

#[test]
fn the_manual_names_every_metric() {
    let told = metrics_of(&read("docs/operations.md"));
    let missing: Vec<String> = made().difference(&told).cloned().collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:?}");
}

fn made() -> BTreeSet<String> {
    MADE.iter().flat_map(|path| metrics_of(&read(path))).collect()
}

#[test]
fn every_alert_has_a_runbook_line() {
    let text = read("deploy/alerts.yml");
    let alerts = text.matches("- alert: ").count();
    assert!(alerts > 5);
    assert_eq!(alerts, text.matches("runbook: \"").count());
    assert_eq!(alerts, text.matches("severity: ").count());
}

#[test]
fn every_variable_of_the_deployments_is_a_key() {
    let keys = read("docs/configuration.md");
    let mut found = 0;
    for path in DEPLOYED {
        for name in words(&read(path)).filter(|word| word.starts_with("DAISI_")) {
            found += 1;
            assert!(keys.contains(&format!("`{name}`")), "{path}: {name} is no key");
        }
    }
    assert!(found > 3, "only {found} variables found");
}

fn read(path: &str) -> String {
    fs::read_to_string(source::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

fn metrics_of(text: &str) -> BTreeSet<String> {
    let is_metric = |word: &&str| FAMILIES.iter().any(|family| word.starts_with(family));
    words(text).filter(is_metric).map(str::to_owned).collect()
}
