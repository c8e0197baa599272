//! Recording and replaying against a real nats-server: what was stored is in the trace, and what is in the
//! trace comes out again, as new events or as the recorded ones.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Parser;
use loadtest::client::Client;
use loadtest::generate::ingest::{Kind, Mix};
use loadtest::generate::{Generator, Profile, ingest};
use loadtest::load::{ensure_ingest, ensure_source};
use loadtest::send::{SendPlan, Source, send};
use loadtest::stack::{NatsOptions, Stack};
use loadtest::trace::{
    self, End, Pace, Preface, Reader, Record, RecordArgs, Renewal, Replay, ReplayArgs, ReplayPlan,
    Writer,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shards::domain::cdc::{CdcRules, CdcSettings, Verdict, transform};
use shards::domain::ingest::{Body, Catalog};
use shards::wire::nats::headers::Headers;

const STREAMS: [&str; 3] = ["cdc_events_stream", "wa_events_stream", "wa_history_events_stream"];
const PATIENCE: Duration = Duration::from_secs(30);

/// A message of a stream or an event of a trace, without its time.
type Message = (Option<u64>, String, Vec<u8>, Vec<u8>);

#[derive(Debug, Parser)]
struct RecordLine {
    #[command(flatten)]
    args: RecordArgs,
}

#[derive(Debug, Parser)]
struct ReplayLine {
    #[command(flatten)]
    args: ReplayArgs,
}

fn nats() -> (Stack, Client) {
    let stack = Stack::builder().nats(NatsOptions::default()).start().unwrap();
    let mut client = Client::connect(&stack.nats.url()).unwrap();
    ensure_ingest(&mut client, &Kind::ALL).unwrap();
    ensure_source(&mut client).unwrap();
    (stack, client)
}

fn send_all(url: &str, count: u64, source: &mut impl Source) {
    let sent = send(&SendPlan::new(url, count), source, &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!(sent.acked, count);
}

fn events() -> Mix {
    let companies = ["A", "B"].map(str::to_owned).to_vec();
    let faults = ingest::parse_faults("0.05").unwrap();
    let profile = ingest::Profile { companies, faults, ..ingest::Profile::default() };
    Mix::new(profile, vec!["C".to_owned()]).unwrap()
}

fn stored(client: &mut Client, stream: &str) -> Vec<(u64, Message)> {
    let mut found = Vec::new();
    let each = |stored: loadtest::client::Stored<'_>| {
        let message = stored.message;
        let subject = String::from_utf8(message.subject().to_vec()).unwrap();
        let headers = message.headers().to_vec();
        let message = (Some(stored.seq), subject, headers, message.payload().to_vec());
        found.push((stored.stored_ns, message));
        ControlFlow::Continue(())
    };
    client.read_stream(stream, 1, each).unwrap();
    found
}

fn in_trace(path: &Path) -> (Vec<(u64, Message)>, End) {
    let mut reader = Reader::open(path).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        let subject = String::from_utf8(record.subject.to_vec()).unwrap();
        let message = (record.seq, subject, record.headers.to_vec(), record.payload.to_vec());
        found.push((record.arrived_ns, message));
    }
    let end = reader.end().unwrap().clone();
    (found, end)
}

fn record(url: &str, file: &Path, line: &str) {
    let words = ["record", file.to_str().unwrap(), "--nats-url", url, "--quiet"];
    let args = RecordLine::try_parse_from(words.into_iter().chain(line.split(' '))).unwrap().args;
    trace::record(&args, &AtomicBool::new(false)).unwrap();
}

fn replay(url: &str, file: &Path, line: &str) {
    let words = ["replay", file.to_str().unwrap(), "--nats-url", url, "--quiet"];
    let args = ReplayLine::try_parse_from(words.into_iter().chain(line.split(' '))).unwrap().args;
    trace::replay(&args, &AtomicBool::new(false)).unwrap();
}

#[test]
fn a_trace_of_a_stream_is_the_stream_and_any_part_of_it_can_be_had() {
    let (stack, mut client) = nats();
    let url = stack.nats.url();
    send_all(&url, 4_000, &mut Generator::new(Profile::default()));
    let expected = stored(&mut client, "cdc_events_stream");
    let count = expected.len() as u64;
    let folder = tempfile::tempdir().unwrap();
    for (line, from, to) in [
        ("--until-now", 0, count),
        ("--until-now --from-seq 1001", 1_000, count),
        ("--until-now --last 77", count - 77, count),
        ("--until-now --last 1000000", 0, count),
        ("--count 500", 0, 500),
        ("--from-seq 3900 --duration 1s", 3_899, count),
        ("--until-now --from-seq 100000", count, count),
        ("--until-now --from-time 2020-01-01T00:00:00Z", 0, count),
        ("--until-now --from-time 0", count, count),
    ] {
        let file = folder.path().join(format!("{}.trace", line.replace([' ', ':'], "_")));
        record(&url, &file, &format!("--stream cdc_events_stream {line}"));
        let (found, end) = in_trace(&file);
        assert!(found == expected[from as usize..to as usize], "{line}: {} found", found.len());
        assert!(matches!(end, End::Whole(totals) if totals.gaps == 0), "{line}");
    }
    let consumers = client.jetstream("CONSUMER.NAMES.cdc_events_stream", &Value::Null).unwrap();
    assert_eq!(consumers["total"], 0, "nothing of the recorder is left behind");
    let preface = Reader::open(&folder.path().join("--count_500.trace")).unwrap();
    assert_eq!(preface.preface().source, "stream cdc_events_stream");
    assert!(preface.preface().server.starts_with("2."));
}

struct Recorder(Child);

impl Recorder {
    fn start(url: &str, file: &Path, what: [&str; 2]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["record", file.to_str().unwrap(), "--nats-url", url])
            .args(what)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(command.unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn end(mut self) -> (bool, String) {
        let status = self.0.wait().unwrap();
        let mut text = String::new();
        let out = self.0.stdout.take().unwrap();
        let error = self.0.stderr.take().unwrap();
        for mut pipe in [Box::new(out) as Box<dyn std::io::Read>, Box::new(error)] {
            pipe.read_to_string(&mut text).unwrap();
        }
        (status.success(), text)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Events in whole frames of an unfinished trace.
fn on_disk(part: &Path) -> u64 {
    let Ok(mut reader) = Reader::open(part) else { return 0 };
    let mut events = 0;
    while reader.next_record().unwrap().is_some() {
        events += 1;
    }
    events
}

fn part_of(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

#[test]
fn a_subject_is_recorded_as_it_passes_until_a_signal_and_the_file_is_whole() {
    let (stack, mut client) = nats();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.trace");
    let recorder = Recorder::start(&stack.nats.url(), &file, ["--subject", "v1.>"]);
    // The recorder is there once its subscription takes a first event; core events come only from then on.
    wait_for("no first event", || {
        client.publish("v1.probe", None, b"").unwrap();
        client.barrier().unwrap();
        on_disk(&part_of(&file)) > 0
    });
    send_all(&stack.nats.url(), 3_000, &mut events());
    wait_for("not all arrived", || {
        let realtime = client.stream_range("wa_events_stream").unwrap().1;
        let history = client.stream_range("wa_history_events_stream").unwrap().1;
        on_disk(&part_of(&file)) >= 1 + realtime + history
    });
    assert!(!file.exists());
    recorder.signal(Signal::INT);
    let (is_well, text) = recorder.end();
    assert!(is_well, "{text}");
    let (found, end) = in_trace(&file);
    assert!(matches!(end, End::Whole(totals) if totals.gaps == 0), "{text}");
    assert!(!part_of(&file).exists());
    let mut published = Vec::new();
    for stream in ["wa_events_stream", "wa_history_events_stream"] {
        let messages = stored(&mut client, stream).into_iter().map(|(_, message)| message);
        published
            .extend(messages.map(|(_, subject, headers, payload)| (subject, headers, payload)));
    }
    published.sort();
    // The stream drops copies that the subject shows.
    let recorded: HashSet<_> = found
        .into_iter()
        .map(|(_, (_, subject, headers, payload))| (subject, headers, payload))
        .filter(|(subject, ..)| subject != "v1.probe")
        .collect();
    let missing = published.iter().filter(|message| !recorded.contains(*message)).count();
    assert_eq!(missing, 0);
}

#[test]
fn a_killed_recorder_leaves_a_trace_that_reads_to_its_last_frame_and_replays() {
    let (stack, mut client) = nats();
    let url = stack.nats.url();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("killed.trace");
    let recorder = Recorder::start(&url, &file, ["--stream", "cdc_events_stream"]);
    let mut generator = Generator::new(Profile::clean());
    for _ in 0..3 {
        let before = on_disk(&part_of(&file));
        send_all(&url, 500, &mut generator);
        wait_for("nothing on the disk", || on_disk(&part_of(&file)) > before);
    }
    recorder.signal(Signal::KILL);
    assert!(!recorder.end().0);
    assert!(!file.exists());
    // As if it had been killed in the middle of a write.
    let part = part_of(&file);
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
    let expected = stored(&mut client, "cdc_events_stream");
    let (found, end) = in_trace(&part);
    assert!(!found.is_empty() && expected.starts_with(&found), "{}", found.len());
    assert!(matches!(end, End::Cut { rest, .. } if rest > 0), "{end:?}");
    let (other, mut client) = nats();
    replay(&other.nats.url(), &part, "--max --keep-ids");
    let again = stored(&mut client, "cdc_events_stream");
    let bare = |all: &[(u64, Message)]| -> Vec<Message> {
        all.iter().map(|(_, message)| message.clone()).collect()
    };
    assert!(bare(&again) == bare(&found), "kept ids are the recorded bytes");
}

#[test]
fn a_server_that_went_away_leaves_a_gap_in_a_subject_and_none_in_a_stream() {
    let (mut stack, mut client) = nats();
    let url = stack.nats.url();
    let folder = tempfile::tempdir().unwrap();
    let (live, kept) = (folder.path().join("live.trace"), folder.path().join("kept.trace"));
    let on_subject = Recorder::start(&url, &live, ["--subject", "cdc.>"]);
    let on_stream = Recorder::start(&url, &kept, ["--stream", "cdc_events_stream"]);
    let mut generator = Generator::new(Profile::clean());
    wait_for("nothing recorded", || {
        send_all(&url, 1, &mut generator);
        on_disk(&part_of(&live)) > 0 && on_disk(&part_of(&kept)) > 0
    });
    stack.nats.kill();
    stack.nats.start().unwrap();
    wait_for("recording did not go on", || {
        send_all(&url, 1, &mut generator);
        client = Client::connect(&url).unwrap();
        let count = client.stream_range("cdc_events_stream").unwrap().1;
        on_disk(&part_of(&kept)) >= count
    });
    let before = on_disk(&part_of(&live));
    wait_for("the subject did not go on", || {
        send_all(&url, 1, &mut generator);
        on_disk(&part_of(&live)) > before
    });
    let last = client.stream_range("cdc_events_stream").unwrap().1;
    wait_for("not all kept", || on_disk(&part_of(&kept)) >= last);
    for recorder in [&on_subject, &on_stream] {
        recorder.signal(Signal::TERM);
    }
    let (_, text) = on_subject.end();
    assert!(text.contains("events may be missing") && text.contains("gaps"), "{text}");
    let (_, text) = on_stream.end();
    assert!(text.contains("connections made anew: 1"), "{text}");
    let (_, end) = in_trace(&live);
    assert!(matches!(end, End::Whole(totals) if totals.gaps == 1 && totals.gap_texts.len() == 1));
    let (found, end) = in_trace(&kept);
    assert!(matches!(end, End::Whole(totals) if totals.gaps == 0));
    assert!(found == stored(&mut client, "cdc_events_stream"));
}

/// A trace of all ten kinds of events and of row changes, a millisecond apart.
fn generated(path: &Path, count: u64) {
    let (mut chats, mut rows) = (events(), Generator::new(Profile::default()));
    let preface = Preface { source: "generators".into(), ..Preface::default() };
    let mut writer = Writer::create(path, &preface).unwrap();
    for number in 0..count {
        let arrived_ns = 1_748_772_000_000_000_000 + number * 1_000_000;
        let mut append = |subject: &str, id: Option<&str>, company: &str, payload: &[u8]| {
            let id = id.map(|id| format!("Nats-Msg-Id: {id}\r\n")).unwrap_or_default();
            let headers = format!("NATS/1.0\r\n{id}CompanyID: {company}\r\n\r\n").into_bytes();
            let record = Record {
                arrived_ns,
                seq: None,
                subject: subject.as_bytes(),
                headers: &headers,
                payload,
            };
            writer.append(&record).unwrap();
        };
        if number % 2 == 0 {
            let event = chats.next();
            append(event.subject, event.msg_id, event.company, event.payload);
        } else {
            let event = rows.next();
            let company = event.subject.split('.').nth(1).unwrap();
            append(event.subject, Some(event.msg_id), company, event.payload);
        }
    }
    writer.finish().unwrap();
}

/// All that a replay gives to the sender, with its planned time.
fn given(path: &Path, plan: ReplayPlan) -> Vec<(Option<Duration>, Message)> {
    let mut replay = Replay::open(path, plan).unwrap();
    let mut all = Vec::new();
    loop {
        let planned = replay.planned();
        let Some(event) = replay.next() else { break };
        let parts = (event.headers.to_vec(), event.payload.to_vec());
        all.push((planned, (None, event.subject.to_owned(), parts.0, parts.1)));
    }
    assert!(matches!(replay.end(), Ok(Some(End::Whole(_)))));
    assert_eq!(replay.account().given, all.len() as u64);
    all
}

fn salted(salt: &str) -> ReplayPlan {
    let renewal = Renewal { salt: Some(salt.to_owned()), ..Renewal::default() };
    ReplayPlan { renewal, ..ReplayPlan::default() }
}

#[test]
fn the_same_salt_gives_the_same_bytes_and_another_one_new_ids_throughout() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.trace");
    generated(&file, 2_000);
    let recorded: Vec<Message> =
        in_trace(&file).0.into_iter().map(|(_, message)| message).collect();
    let kept = given(&file, ReplayPlan::default());
    assert!(
        kept.iter().map(|(_, message)| message).eq(&recorded),
        "nothing asked, nothing changed"
    );
    let (a, b) = (given(&file, salted("a")), given(&file, salted("b")));
    assert!(a == given(&file, salted("a")), "the same salt");
    let ids = |all: &[(Option<Duration>, Message)]| -> HashSet<Vec<u8>> {
        let id =
            |message: &Message| Headers::new(&message.2).get(b"Nats-Msg-Id").map(<[u8]>::to_vec);
        all.iter().filter_map(|(_, message)| id(message)).collect()
    };
    let (of_kept, of_a, of_b) = (ids(&kept), ids(&a), ids(&b));
    assert!(of_kept.len() > 1_500 && of_a.len() == of_kept.len() && of_b.len() == of_kept.len());
    assert!(of_a.is_disjoint(&of_b) && of_a.is_disjoint(&of_kept));
    // Whatever had one id has one id again: updates find their rows, in all streams alike.
    let mut renamed = HashMap::new();
    let mut members = 0;
    for ((_, old), (_, new)) in kept.iter().zip(&a) {
        let parsed = |message: &Message| serde_json::from_slice::<Value>(&message.3).ok();
        let (Some(old), Some(new)) = (parsed(old), parsed(new)) else { continue };
        for name in ["chat_id", "message_id"] {
            for place in ["", "/record", "/after", "/messages/0", "/chats/0"] {
                let at = |value: &Value| value.pointer(&format!("{place}/{name}")).cloned();
                if let (Some(Value::String(old)), Some(Value::String(new))) = (at(&old), at(&new)) {
                    members += 1;
                    assert!(old.is_empty() || old != new, "{name} {old}");
                    let known = renamed.entry((name, old)).or_insert_with(|| new.clone());
                    assert_eq!(*known, new);
                }
            }
        }
    }
    assert!(members > 1_500, "{members}");
    let new: HashSet<_> = renamed.values().filter(|id| !id.is_empty()).collect();
    let old =
        renamed.keys().filter(|(_, id)| !id.is_empty()).map(|(_, id)| id).collect::<HashSet<_>>();
    assert_eq!(new.len(), old.len(), "different ids stay different");
}

/// What daisi decides of an event, and its identity if it is a change to be published.
fn judged(rules: &CdcRules, catalog: &Catalog, message: &Message) -> (String, Option<Vec<u8>>) {
    let (_, subject, _, payload) = message;
    if !subject.starts_with("cdc.") {
        let route = catalog.route(subject).unwrap();
        let body = Body::of(payload);
        let decoded = route.decode(&body);
        return (decoded.err().map_or_else(|| "event".into(), |_| "refused".into()), None);
    }
    match transform(rules, subject.as_bytes(), payload) {
        Verdict::Forward(spans) => {
            let mut id = Vec::new();
            spans.bind(subject.as_bytes(), payload).write_message_id(&mut id);
            ("forward".into(), Some(id))
        }
        Verdict::Filtered { cause, .. } => (format!("filtered {}", cause.as_str()), None),
        Verdict::Rejected(rejection) => (format!("rejected {:?}", rejection.reason), None),
    }
}

#[test]
fn what_daisi_decides_of_an_event_stays_and_the_identities_it_dedups_by_are_new() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.trace");
    generated(&file, 3_000);
    let rules = CdcRules::compile(&CdcSettings::default()).unwrap();
    let catalog = Catalog::load(&[]).unwrap();
    let judge = |plan: ReplayPlan| -> Vec<_> {
        let all = given(&file, plan);
        all.iter().map(|(_, message)| judged(&rules, &catalog, message)).collect()
    };
    let moved = |salt: &str, companies_times: u32| {
        let mut plan = salted(salt);
        plan.renewal.days = 30;
        ReplayPlan { companies_times, ..plan }
    };
    let kept = judge(ReplayPlan::default());
    let mut verdicts = HashMap::<&str, u32>::new();
    kept.iter().for_each(|(verdict, _)| *verdicts.entry(verdict).or_default() += 1);
    assert!(verdicts["forward"] > 1_000 && verdicts["event"] > 1_000, "{verdicts:?}");
    assert!(verdicts["refused"] > 10 && verdicts.len() > 5, "{verdicts:?}");
    let mut seen: HashSet<Vec<u8>> = kept.iter().filter_map(|(_, id)| id.clone()).collect();
    let distinct = seen.len();
    for (salt, times) in [("a", 1), ("b", 2)] {
        let judgements = judge(moved(salt, times));
        for (number, (verdict, _)) in judgements.iter().enumerate() {
            assert_eq!(*verdict, kept[number / times as usize].0, "event {number} of {salt}");
        }
        let before = seen.len();
        seen.extend(judgements.into_iter().filter_map(|(_, id)| id));
        assert_eq!(seen.len(), before + times as usize * distinct, "{salt}");
    }
}

#[test]
fn companies_are_multiplied_and_renamed_alike_in_subject_headers_and_body() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.trace");
    generated(&file, 1_000);
    let renames = [("A".to_owned(), "Other".to_owned())].into();
    let mut plan = salted("s");
    plan.renewal.renames = renames;
    let plan = ReplayPlan { companies_times: 3, pace: Pace::Max, ..plan };
    let all = given(&file, plan);
    assert_eq!(all.len(), 3_000);
    let mut by_company = HashMap::<String, Vec<&Message>>::new();
    let mut of_schema = [0; 2];
    for (planned, message) in &all {
        assert_eq!(*planned, None);
        let (_, subject, headers, payload) = message;
        let token = if subject.starts_with("cdc.") { 1 } else { 3 };
        let company = subject.split('.').nth(token).unwrap();
        assert_eq!(Headers::new(headers).get(b"CompanyID").unwrap(), company.as_bytes());
        let body = serde_json::from_slice::<Value>(payload).unwrap_or_default();
        if let Some(schema) = body.pointer("/metadata/table_schema").and_then(Value::as_str) {
            // A few events are foreign on purpose.
            of_schema[usize::from(schema == format!("daisi_{company}"))] += 1;
        }
        by_company.entry(company.to_owned()).or_default().push(message);
    }
    assert!(!by_company.contains_key("A") && by_company.contains_key("Other"));
    assert_eq!(by_company["Other"].len(), by_company["Other_x2"].len());
    assert_eq!(by_company["C"].len(), by_company["C_x3"].len());
    let [foreign, own] = of_schema;
    assert!(own > 1_400 && foreign < 30, "{own} own, {foreign} foreign");
    // Each copy is the original in another name, in the same order.
    let bare = |message: &Message| {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("_x2", "").replace("x2", "");
        [message.1.replace("_x2", ""), text(&message.2), text(&message.3)]
    };
    for (first, second) in by_company["Other"].iter().zip(&by_company["Other_x2"]) {
        assert_eq!(bare(first), bare(second));
        assert!(first.3 != second.3 || serde_json::from_slice::<Value>(&first.3).is_err());
    }
}

#[test]
fn events_are_planned_as_they_arrived_or_at_a_rate_and_rounds_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.trace");
    generated(&file, 100);
    let planned = |plan: ReplayPlan| -> Vec<u64> {
        given(&file, plan).iter().map(|(at, _)| at.unwrap().as_micros() as u64).collect()
    };
    let plan = salted("s");
    let recorded: Vec<u64> = (0..100).map(|n| n * 1_000).collect();
    assert_eq!(planned(plan.clone()), recorded);
    let fast = ReplayPlan { pace: Pace::Speed(4.0), ..plan.clone() };
    assert_eq!(planned(fast), recorded.iter().map(|us| us / 4).collect::<Vec<_>>());
    let rated = ReplayPlan { pace: Pace::Rate(500.0), companies_times: 2, ..plan.clone() };
    assert_eq!(planned(rated), (0..200).map(|n| n * 2_000).collect::<Vec<_>>());
    let twice = ReplayPlan { repeat: 2, ..plan };
    assert_eq!(planned(twice.clone()), (0..200).map(|n| n * 1_000).collect::<Vec<_>>());
    let all = given(&file, twice);
    let (first, second) = all.split_at(100);
    assert!(first.iter().zip(second).all(|(first, second)| first.1.2 != second.1.2));
}

#[test]
fn a_second_replay_is_new_to_the_streams_and_one_of_the_same_salt_is_not() {
    let (stack, mut client) = nats();
    let url = stack.nats.url();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.trace");
    generated(&file, 3_000);
    let mut counts = Vec::new();
    for line in ["--max --salt a", "--speed 20x --salt b", "--max --salt b", "--rate 20000"] {
        replay(&url, &file, line);
        let count = STREAMS.map(|stream| client.stream_range(stream).unwrap().1);
        counts.push(count.iter().sum::<u64>());
    }
    let [a, b, b_again, own] = counts[..] else { unreachable!() };
    assert!(a > 2_800, "{a}: all but a few are new to an empty stream");
    assert_eq!(b, 2 * a);
    // Events without an id cannot be told.
    let bare = b_again - b;
    assert!(bare < 60, "{bare}");
    assert_eq!(own, b_again + a);
    // The bytes of both: those of `b` were stored once, in the order of the trace.
    let source: Vec<_> =
        given(&file, salted("b")).into_iter().map(|(_, message)| message).collect();
    let of_b = stored(&mut client, "cdc_events_stream");
    let share = of_b.len() / 3;
    let expected = source.iter().filter(|(_, subject, ..)| subject.starts_with("cdc."));
    let found = of_b[share..2 * share].iter().map(|(_, (_, subject, headers, payload))| {
        (None, subject.clone(), headers.clone(), payload.clone())
    });
    assert!(found.eq(expected.cloned()));
}

#[test]
fn a_broken_trace_is_replayed_to_the_break_and_commands_that_fail_say_why() {
    let (stack, mut client) = nats();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.trace");
    generated(&file, 2_000);
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let run = |command: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args([command, file.to_str().unwrap()])
            .args(more)
            .env("NATS_URL", stack.nats.url())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (is_well, text) = run("replay", &["--max"]);
    assert!(!is_well && text.contains("fails its check"), "{text}");
    assert!(client.stream_range("cdc_events_stream").unwrap().1 > 900);
    let (is_well, text) = run("trace", &[]);
    assert!(!is_well && text.contains("2000 events") && text.contains("broken"), "{text}");
    let none = folder.path().join("none.trace");
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["record", none.to_str().unwrap(), "--stream", "nope"])
        .env("NATS_URL", stack.nats.url())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("stream not found"), "{said}");
    assert!(!none.exists() && !part_of(&none).exists());
    let (is_well, text) = run("replay", &["--print", "--max", "--count", "1", "--keep-ids"]);
    assert!(is_well && text.starts_with("{\"planned_s\":null,\"subject\":\"v1."), "{text}");
}
