//! Results files, and the commands that read them. The pages stay under the target folder, for looking at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod command;
mod page;
mod synthetic;

use std::path::PathBuf;

use loadtest::report::latency_histogram;
use loadtest::results::{Counts, Distribution, Results, Second, SecondEnd, Spread, Verdict};
use proptest::prelude::*;
use synthetic::Run;

/// A folder for the files of a test, kept.
pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("results").join(name)
}

#[test]
fn points_are_those_of_the_values() {
    let mut histogram = latency_histogram();
    (1..=1_000).for_each(|us| histogram.saturating_record(us));
    let Spread { count, p50, p90, p95, p99, p999, max, mean } = Spread::of(&histogram);
    assert_eq!((count, p50, p90, p95, p99, p999, max), (1_000, 500, 900, 950, 990, 999, 1_000));
    assert!((mean - 500.5).abs() < 0.01, "{mean}");
    let kept = Distribution::of(&histogram).unwrap();
    assert_eq!(kept.values().unwrap(), histogram);
    let broken = Distribution { histogram: "AAAA".into(), ..kept };
    assert!(broken.values().is_err());
}

#[test]
fn a_folder_holds_the_run_its_curves_and_a_page() {
    let (results, folder) = (Run { seconds: 5, ..Run::default() }.results(), folder("files"));
    results.write(&folder).unwrap();
    assert_eq!(Results::read(&folder).unwrap(), results);
    assert_eq!(Results::read(&folder.join("results.json")).unwrap(), results);
    for name in ["cdc", "ingest", "ack", "sender-late"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.hgrm"))).unwrap();
        assert!(text.trim_start().starts_with("Value     Percentile TotalCount 1/(1-Percentile)"));
        assert!(text.contains("Total count    =        25000]"), "{name}: {text}");
    }
    let mut newer = results;
    newer.format = 2;
    std::fs::write(folder.join("newer.json"), serde_json::to_string(&newer).unwrap()).unwrap();
    let error = Results::read(&folder.join("newer.json")).unwrap_err().to_string();
    assert!(error.ends_with("newer.json has format 2, this version reads 1"), "{error}");
}

#[test]
fn the_verdict_tells_faults_before_warnings() {
    let mut results = Run { seconds: 2, ..Run::default() }.results();
    assert_eq!((results.verdict(), results.warnings()), (Verdict::Clean, Vec::new()));
    results.machine.load_at_start = "0.51".into();
    assert_eq!(results.verdict(), Verdict::Doubtful);
    results.sender.published = 9_000;
    results.sender.fell_behind = true;
    let warnings = results.warnings().join("\n");
    for part in ["fell behind", "events/s were published where", "9,000 of 10,000", "load of 0.51"]
    {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    results.ends[1].counts = Counts { lost: 3, corrupted: 1, ..results.ends[1].counts };
    assert_eq!(results.verdict(), Verdict::Failed);
    assert_eq!(results.summary(), "ingest: 3 lost, 1 corrupted of 10,000.");
}

prop_compose! {
    fn any_second()(
        at_s in 0_u64..100_000, planned: u64, published: u64, name in "\\PC{0,12}", seen: u64, max: u64,
        cores in 0.0..128.0_f64,
    ) -> Second {
        let point = SecondEnd { seen, p50: max / 4, p95: max / 3, p99: max / 2, max };
        let (ends, cores) = ([(name.clone(), point)].into(), [(name, cores)].into());
        Second { at_s, planned, published, ends, cores }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn json_brings_back_what_was_written(
        values in prop::collection::vec(0_u64..600_000_000, 0..50),
        name in "\\PC*",
        examples in prop::collection::vec("[\\x00-\\u{ffff}]{0,40}", 0..4),
        rate in prop::option::of(0.0..1e7_f64),
        series in prop::collection::vec(any_second(), 0..5),
        lost: u64,
    ) {
        let mut histogram = latency_histogram();
        values.iter().for_each(|&us| histogram.saturating_record(us));
        let mut results = Run { seconds: 1, rate: 10, ..Run::default() }.results();
        results.ends[0].latency = Distribution::of(&histogram).unwrap();
        results.ends[0].name = name.clone();
        results.ends[0].examples = examples;
        results.ends[0].counts.lost = lost;
        (results.name, results.load.rate, results.series) = (name, rate, series);
        let json = serde_json::to_string(&results).unwrap();
        let read: Results = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &results);
        prop_assert_eq!(read.ends[0].latency.values().unwrap(), histogram);
        // Whatever it holds, it can be shown.
        prop_assert!(!read.text().is_empty() && !read.markdown().is_empty());
        prop_assert!(read.html().unwrap().ends_with("</html>\n"));
    }
}
