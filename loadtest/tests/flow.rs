//! Client, sender and checker against a real nats-server, with a bridge in the place of daisi that does
//! the transformation as the contract says, or wrongly on purpose.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use loadtest::check::{Checker, Expectation};
use loadtest::client::{Client, ClientError, StreamSpec};
use loadtest::generate::{Generator, Profile};
use loadtest::report::Report;
use loadtest::run::{Observe, run};
use loadtest::send::{Outgoing, SendPlan, Source, send};
use loadtest::stack::{NatsAuth, NatsOptions, Stack};
use serde_json::Value;
use serde_json::value::RawValue;
use shards::wire::nats::headers::{HeaderError, HeaderWriter, Headers};

const SOURCE: &str = "cdc_events_stream";
const SINK: &str = "wa_stream";

fn nats() -> Stack {
    let stack = Stack::builder().nats(NatsOptions::default()).start().unwrap();
    let mut client = Client::connect(&stack.nats.url()).unwrap();
    let duplicate_window = Duration::from_secs(120);
    for (name, subject) in [(SOURCE, "cdc.*.*"), (SINK, "wa.>")] {
        client.create_stream(StreamSpec { name, subjects: &[subject], duplicate_window }).unwrap();
    }
    stack
}

#[test]
fn client_asks_publishes_and_reads_a_stream_back() {
    let auth = NatsAuth::User { user: "u".into(), password: "secret".into() };
    let options = NatsOptions { auth, ..NatsOptions::default() };
    let stack = Stack::builder().nats(options).start().unwrap();
    let anonymous = stack.nats.url().replace("u:secret@", "");
    let refused = Client::connect(&anonymous).unwrap_err();
    assert!(matches!(refused, ClientError::Server(_) | ClientError::Closed), "{refused}");
    let mut client = Client::connect(&stack.nats.url()).unwrap();
    let nobody = client.request("nobody.here", b"").unwrap_err();
    assert!(matches!(nobody, ClientError::NoResponders { .. }), "{nobody}");
    let missing = client.stream_range("S").unwrap_err();
    assert!(matches!(missing, ClientError::JetStream { err_code: 10_059, .. }), "{missing}");
    let duplicate_window = Duration::from_secs(1);
    client.create_stream(StreamSpec { name: "S", subjects: &["s.*"], duplicate_window }).unwrap();
    for n in 0..5_000_u32 {
        client.publish(&format!("s.{}", n % 7), None, &n.to_le_bytes()).unwrap();
    }
    client.barrier().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.stream_range("S").unwrap().1 < 5_000 && Instant::now() < deadline {}
    let mut numbers = Vec::new();
    let read = client.read_stream("S", 1, |stored| {
        assert_eq!(stored.seq as usize, numbers.len() + 1);
        numbers.push(u32::from_le_bytes(stored.message.payload().try_into().unwrap()));
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(read.unwrap(), 5_000);
    assert!(numbers.into_iter().eq(0..5_000));
}

#[test]
fn sender_loses_and_doubles_nothing_when_the_server_is_killed() {
    const COUNT: u64 = 30_000;
    let mut stack = nats();
    let url = stack.nats.url();
    let plan = SendPlan { rate: 10_000.0, ..SendPlan::new(&url, COUNT) };
    let sender = std::thread::spawn(move || {
        let mut ids = Vec::new();
        let mut generator = Generator::new(Profile::default());
        let stop = AtomicBool::new(false);
        let sent = send(&plan, &mut generator, &stop, |event| ids.push(event.msg_id.to_owned()));
        (sent.unwrap(), ids)
    });
    std::thread::sleep(Duration::from_millis(1_000));
    stack.nats.kill();
    std::thread::sleep(Duration::from_millis(200));
    stack.nats.start().unwrap();
    let (sent, ids) = sender.join().unwrap();
    println!("resent {} acked again {}", sent.resent, sent.acked_again);
    assert_eq!((sent.acked, sent.reconnects), (COUNT, 1));
    let mut client = Client::connect(&url).unwrap();
    let mut stored_ids = Vec::new();
    let each = |stored: loadtest::client::Stored<'_>| {
        let id = stored.message.header(b"Nats-Msg-Id").unwrap();
        stored_ids.push(String::from_utf8(id.to_vec()).unwrap());
        std::ops::ControlFlow::Continue(())
    };
    client.read_stream(SOURCE, 1, each).unwrap();
    assert!(stored_ids == ids, "{} stored, {} sent", stored_ids.len(), ids.len());
}

/// Three bursts with pauses, each event with a header of its own; then the end.
struct Bursts(u32);

struct Shot(u32);

impl Outgoing for Shot {
    fn subject(&self) -> &str {
        "cdc.A.b"
    }

    fn payload(&self) -> &[u8] {
        b"{}"
    }

    fn msg_id(&self) -> Option<&str> {
        None
    }

    fn append_headers(&self, block: &mut BytesMut) -> Result<(), HeaderError> {
        let mut headers = HeaderWriter::begin(block);
        headers.add(b"X-Number", self.0.to_string().as_bytes())?;
        headers.add(b"X-Number", b"again")?;
        let _ = headers.finish();
        Ok(())
    }
}

impl Source for Bursts {
    type Event<'a> = Shot;

    fn planned(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(u64::from(self.0 / 100) * 300))
    }

    fn next(&mut self) -> Option<Shot> {
        let number = self.0;
        self.0 += 1;
        (number < 300).then_some(Shot(number))
    }
}

#[test]
fn a_source_plans_each_event_names_its_headers_and_ends_the_sending() {
    let stack = nats();
    let plan = SendPlan { rate: 1.0, ..SendPlan::new(stack.nats.url(), u64::MAX) };
    let sent = send(&plan, &mut Bursts(0), &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!((sent.acked, sent.late_us.len(), sent.resent), (300, 300, 0));
    assert!(sent.elapsed >= Duration::from_millis(600), "{:?}", sent.elapsed);
    assert!(sent.behind_max.as_micros() as u64 <= sent.late_us.max(), "{:?}", sent.behind_max);
    let mut stored = Vec::new();
    let mut client = Client::connect(&stack.nats.url()).unwrap();
    let each = |found: loadtest::client::Stored<'_>| {
        let headers = Headers::new(found.message.headers());
        let values = headers.get_all(b"X-Number").map(<[u8]>::to_vec).collect::<Vec<_>>();
        stored.push((found.stored_ns, values));
        std::ops::ControlFlow::Continue(())
    };
    client.read_stream(SOURCE, 1, each).unwrap();
    assert_eq!(stored.len(), 300);
    for (number, (stored_ns, values)) in stored.iter().enumerate() {
        assert_eq!(*values, [number.to_string().into_bytes(), b"again".to_vec()]);
        let planned_ns = sent.start_ns + (number as u64 / 100) * 300_000_000;
        assert!(
            *stored_ns >= planned_ns,
            "event {number} went {} ns early",
            planned_ns - stored_ns
        );
    }
    let ended = send(&plan, &mut Bursts(300), &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!(ended.acked, 0, "a source that has nothing");
}

#[test]
fn a_stream_that_refuses_everything_ends_the_sender_with_its_words() {
    let stack = Stack::builder().nats(NatsOptions::default()).start().unwrap();
    let url = stack.nats.url();
    let mut client = Client::connect(&url).unwrap();
    let full = serde_json::json!({
        "name": SOURCE, "subjects": ["cdc.*.*"], "retention": "limits", "storage": "file",
        "discard": "new", "max_msgs": 10, "num_replicas": 1,
    });
    client.jetstream(&format!("STREAM.CREATE.{SOURCE}"), &full).unwrap();
    let outage_max = Duration::from_millis(500);
    let plan = SendPlan { outage_max, ..SendPlan::new(&url, 100) };
    let mut generator = Generator::new(Profile::clean());
    let error = send(&plan, &mut generator, &AtomicBool::new(false), |_| ()).unwrap_err();
    assert!(error.to_string().contains("maximum messages exceeded"), "{error}");
}

/// What the bridge does to the stream of results.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bridge {
    Right,
    LosesOne,
    SendsOneTwice,
}

#[test]
fn a_run_through_a_right_bridge_is_clean() {
    for observe in [Observe::Live { pattern: "wa.>".into() }, Observe::Stream { name: SINK.into() }]
    {
        let report = run_through(Bridge::Right, &observe);
        assert!(report.outcomes.is_clean(), "{report}");
        assert_eq!(report.outcomes.forwarded, report.outcomes.expected);
        assert!(report.outcomes.expected > 4_000 && report.delivery_us.p50 > 0, "{report}");
        println!("{report}\n{}", report.to_json().unwrap());
    }
}

#[test]
fn a_run_through_a_wrong_bridge_shows_what_is_wrong() {
    let observe = Observe::Live { pattern: "wa.>".into() };
    let outcomes = run_through(Bridge::LosesOne, &observe).outcomes;
    assert_eq!((outcomes.lost, outcomes.duplicated), (1, 0));
    let outcomes = run_through(Bridge::SendsOneTwice, &observe).outcomes;
    assert_eq!((outcomes.lost, outcomes.duplicated), (0, 1));
}

fn run_through(bridge: Bridge, observe: &Observe) -> Report {
    let stack = nats();
    let url = stack.nats.url();
    // Duplicates and bad events are daisi's to find; the bridge is not that clever.
    let profile = Profile { duplicates: 0.0, bad: 0.0, ..Profile::default() };
    let plan = SendPlan { rate: 5_000.0, ..SendPlan::new(&url, 5_000) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut client = Client::connect(&url).unwrap();
        client.subscribe("cdc.*.*").unwrap();
        client.barrier().unwrap();
        let stop = &stop;
        scope.spawn(move || forward(&mut client, bridge, stop));
        let drain = Duration::from_secs(2);
        let report = run(&plan, profile, observe, drain, &AtomicBool::new(false)).unwrap();
        stop.store(true, Ordering::Relaxed);
        report
    })
}

fn forward(client: &mut Client, bridge: Bridge, stop: &AtomicBool) {
    let mut forwarded = 0;
    while !stop.load(Ordering::Relaxed) {
        let deadline = Instant::now() + Duration::from_millis(50);
        let Some(message) = client.receive(deadline).unwrap() else { continue };
        let Some((subject, payload)) = transform(message.subject(), message.payload()) else {
            continue;
        };
        forwarded += 1;
        let copies = match (bridge, forwarded) {
            (Bridge::LosesOne, 1_000) => 0,
            (Bridge::SendsOneTwice, 1_000) => 2,
            _ => 1,
        };
        for _ in 0..copies {
            client.publish(&subject, None, payload.as_bytes()).unwrap();
        }
        client.flush().unwrap();
    }
}

fn transform(subject: &[u8], payload: &[u8]) -> Option<(String, String)> {
    let subject = std::str::from_utf8(subject).unwrap();
    let table = subject.rsplit('.').next().unwrap();
    if !["messages", "chats", "agents", "contacts"].contains(&table) {
        return None;
    }
    let envelope: std::collections::HashMap<&str, &RawValue> =
        serde_json::from_slice(payload).unwrap();
    let whole: Value = serde_json::from_slice(payload).unwrap();
    if whole["action"] == "read" {
        return None;
    }
    let is_sequin = envelope.contains_key("record");
    let record = if is_sequin { envelope["record"] } else { envelope["after"] };
    let lsn = if is_sequin { &whole["metadata"]["commit_lsn"] } else { &whole["source"]["lsn"] };
    let row: Value = serde_json::from_str(record.get()).unwrap();
    let text = |name: &str| row[name].as_str().unwrap();
    let (key, chat) = match table {
        "messages" => (text("message_id"), format!(".{}", text("chat_id"))),
        "chats" => (text("chat_id"), String::new()),
        "agents" => (text("agent_id"), String::new()),
        _ => (text("id"), String::new()),
    };
    let wa = format!("wa.{}.{}.{table}{chat}", text("company_id"), text("agent_id"));
    let event = format!("{{\"event_id\":\"{lsn}:{table}:{key}\",\"row_data\":{}}}", record.get());
    Some((wa, event))
}

#[test]
fn an_audit_of_a_stream_finds_what_a_checker_expects() {
    let stack = nats();
    let mut client = Client::connect(&stack.nats.url()).unwrap();
    let profile = Profile::clean();
    let mut checker = Checker::new(profile.rows(), profile.companies);
    let mut generator = Generator::new(profile);
    for n in 0..500 {
        let event = generator.next();
        checker.expect(Expectation::of(&event).unwrap());
        let (subject, payload) = transform(event.subject.as_bytes(), event.payload).unwrap();
        if n != 321 {
            client.publish(&subject, None, payload.as_bytes()).unwrap();
        }
    }
    client.barrier().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.stream_range(SINK).unwrap().1 < 499 && Instant::now() < deadline {}
    assert_eq!(checker.audit(&mut client, SINK, 1).unwrap(), 500);
    assert_eq!((checker.outcomes().lost, checker.outcomes().forwarded), (1, 499));
    assert!(checker.examples()[0].starts_with("lost: event 321,"), "{:?}", checker.examples());
}
