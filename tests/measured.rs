//! The harness held against a real daisi on private servers: what is in order is called so, and what was lost,
//! doubled or taken away behind its back is found. Invariant: every test breaks one thing and knows how often.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::Parser;
use loadtest::bed::Bed;
use loadtest::client::Client;
use loadtest::drive::command::{MeasureArgs, RunArgs, prepare, prepare_replay};
use loadtest::drive::drive;
use loadtest::profile::{self, Blend, Profile};
use loadtest::results::{End, Results};
use loadtest::send::{Outgoing, Source};
use loadtest::trace::{Preface, Record, ReplayArgs, Writer};
use rustix::process::{Pid, Signal, kill_process};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: RunArgs,
}

/// Runs a profile on private servers and this daisi, with `meddle` beside it.
fn measured(line: &str, meddle: impl FnOnce(&Place) + Send) -> (Results, Bed) {
    let daisi = format!("--daisi={}", env!("CARGO_BIN_EXE_daisi"));
    let words = ["run", "--quiet", "--set=shards=1", &daisi].into_iter().chain(line.split(' '));
    let (order, mut bed, mut source) = prepare(&Line::parse_from(words).args).unwrap();
    let place = Place {
        nats_url: bed.nats_url().to_owned(),
        dsn: bed.postgres_dsn().unwrap().to_owned(),
        daisi: bed.daisi_pid().unwrap(),
        is_over: AtomicBool::new(false),
    };
    let results = scope(|scope| {
        scope.spawn(|| meddle(&place));
        let results = drive(order, &mut bed, &mut source, &AtomicBool::new(false));
        place.is_over.store(true, Ordering::Relaxed);
        results.unwrap()
    });
    (results, bed)
}

#[derive(Debug, Parser)]
struct ReplayLine {
    #[command(flatten)]
    replay: ReplayArgs,
    #[command(flatten)]
    measure: MeasureArgs,
}

/// Writes what a profile sends to a trace, in the place of sending it.
fn write_trace(path: &Path, profile: &Profile) {
    let mut source = Blend::new(profile).unwrap();
    let preface = Preface {
        recorded_ns: 1,
        source: "a profile".to_owned(),
        creator: "a test".to_owned(),
        server: "2.9".to_owned(),
    };
    let mut writer = Writer::create(path, &preface).unwrap();
    let mut headers = BytesMut::new();
    while let Some(planned) = source.planned() {
        let event = source.next().unwrap();
        headers.clear();
        event.append_headers(&mut headers).unwrap();
        let record = Record {
            arrived_ns: 1_780_000_000_000_000_000 + planned.as_nanos() as u64,
            seq: None,
            subject: event.subject().as_bytes(),
            headers: &headers,
            payload: event.payload(),
        };
        writer.append(&record).unwrap();
    }
    writer.finish().unwrap();
}

/// What a test may reach beside the run.
struct Place {
    nats_url: String,
    dsn: String,
    daisi: u32,
    is_over: AtomicBool,
}

impl Place {
    fn sql(&self, sql: &str) -> String {
        let output = std::process::Command::new("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.dsn, "-c", sql])
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

fn end<'a>(results: &'a Results, name: &str) -> &'a End {
    results.ends.iter().find(|end| end.name == name).unwrap()
}

#[test]
fn a_run_in_order_is_called_so_and_told_in_figures() {
    let (results, bed) = measured("--profile=steady --seconds=5 --rate-times=0.1", |_| ());
    bed.finish().unwrap();
    assert!(results.is_clean(), "{}", results.text());
    for name in ["cdc", "ingest"] {
        let end = end(&results, name);
        assert!(end.counts.expected > 100 && end.latency.points.count > 100, "{}", results.text());
        let seen: u64 = results.series.iter().map(|second| second.ends[name].seen).sum();
        // A quarter of the profile's time warms up, and is drawn but not measured.
        let measured = end.latency.points.count;
        assert!(measured < seen && measured > seen / 2, "{name}: {measured} of {seen}");
    }
    let planned: u64 = results.series.iter().map(|second| second.planned).sum();
    assert_eq!(planned, results.sender.published);
    for name in ["daisi", "nats-server", "redis-server", "postgres", "loadtest"] {
        assert!(results.processes.iter().any(|process| process.name == name), "{name}");
    }
    assert_eq!(results.versions.len(), 4, "{:?}", results.versions);
    let threads: Vec<_> = results.harness.threads.keys().collect();
    assert!(results.harness.threads.contains_key("end-ingest"), "{threads:?}");
}

#[test]
fn a_replayed_trace_is_checked_by_the_contract_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("day.trace");
    let profile = profile::load("steady").unwrap().scaled(0.1, Some(4.0));
    write_trace(&path, &profile);
    let daisi = format!("--daisi={}", env!("CARGO_BIN_EXE_daisi"));
    let words = ["replay", path.to_str().unwrap(), "--quiet", "--set=shards=1", &daisi];
    let line = ReplayLine::parse_from(words);
    let (order, mut bed, mut source) = prepare_replay(&line.replay, &line.measure).unwrap();
    let results = drive(order, &mut bed, &mut source, &AtomicBool::new(false)).unwrap();
    bed.finish().unwrap();
    let (of_ingest, of_cdc) = profile.events();
    assert!(results.is_clean(), "{}", results.text());
    assert_eq!(results.sender.published, of_ingest + of_cdc);
    // Most of the changes are forwarded; of the chat events three in eight are messages.
    assert!(end(&results, "cdc").counts.seen > of_cdc * 9 / 10, "{}", results.text());
    assert!(end(&results, "ingest").counts.seen > of_ingest / 4, "{}", results.text());
}

#[test]
fn what_a_daisi_that_died_left_undone_is_lost_and_told() {
    let line = "--profile=steady --seconds=4 --rate-times=0.1 --drain=3s";
    let (results, bed) = measured(line, |place| {
        sleep(Duration::from_millis(1_500));
        let daisi = Pid::from_raw(i32::try_from(place.daisi).unwrap()).unwrap();
        kill_process(daisi, Signal::KILL).unwrap();
    });
    for name in ["cdc", "ingest"] {
        let end = end(&results, name);
        let told = end.examples.iter().filter(|text| text.starts_with("lost: ")).count();
        assert!(end.counts.lost > 0 && told > 0, "{}", results.text());
        assert_eq!(end.counts.lost, end.counts.expected - end.counts.seen);
    }
    assert!(!results.is_clean());
    let said = bed.finish().unwrap_err().to_string();
    assert!(said.contains("during the run"), "{said}");
}

#[test]
fn what_came_twice_and_what_was_taken_away_is_found() {
    let line = "--profile=steady --seconds=5 --rate-times=0.1 --drain=10s";
    let (results, bed) = measured(line, |place| {
        let mut client = Client::connect(&place.nats_url).unwrap();
        client.subscribe("wa.>").unwrap();
        client.barrier().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let first = client.receive(deadline).unwrap().unwrap();
        let subject = std::str::from_utf8(first.subject()).unwrap();
        for _ in 0..3 {
            client.publish(subject, None, first.payload()).unwrap();
        }
        client.barrier().unwrap();
        let mut taken = 0;
        while taken == 0 && !place.is_over() {
            sleep(Duration::from_millis(200));
            let sql = "DELETE FROM daisi_load00000.messages WHERE id IN \
                       (SELECT id FROM daisi_load00000.messages ORDER BY id LIMIT 3) RETURNING id";
            taken = place.sql(sql).lines().count();
        }
    });
    bed.finish().unwrap();
    let (cdc, ingest) = (end(&results, "cdc"), end(&results, "ingest"));
    assert_eq!(cdc.counts.duplicated, 3, "{}", results.text());
    assert!(cdc.examples.iter().any(|text| text.starts_with("twice: ")), "{:?}", cdc.examples);
    // One that is sent once more comes back.
    assert!((1..=3).contains(&ingest.counts.lost), "{}", results.text());
    let lost = ingest.examples.iter().filter(|text| text.starts_with("lost: Load00000 messages "));
    assert_eq!(lost.count() as u64, ingest.counts.lost, "{:?}", ingest.examples);
}
