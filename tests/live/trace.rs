//! Traces: the headers of an event go onto what is published because of it, and spans of the sampled ones to a
//! collector. Source: W3C Trace Context; OTLP/HTTP; contract ingest.md 7.3 for the log.
#![expect(clippy::disallowed_types, reason = "a test's collector has a thread a connection")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use shards::wire::trace::{TraceContext, hex_text};

use crate::change::message;
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, OUTPUT, SOON, SOURCE, Server, World, eventually};

on_each_server!(a_trace_passes_to_what_is_published_and_to_letters_sent_again);

on_the_installed_server!(
    a_sampled_event_is_a_span_and_an_unsampled_one_is_none,
    spans_of_ingest_tell_how_events_ended,
    a_collector_that_is_away_costs_spans_and_nothing_else,
);

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn a_trace_passes_to_what_is_published_and_to_letters_sent_again(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    // Go's carriers write names so.
    let named = |id| [("Traceparent", SAMPLED), ("Tracestate", "a=1"), ("Nats-Msg-Id", id)];
    let (subject, body) = message("ACME", "M1", 1).sent();
    world.put_with(&subject, &named("m-1"), &body);
    world.put_with("cdc.ACME.messages", &named("m-2"), b"{ no json \"62811\"");
    world.put_with("cdc.ACME.messages", &[("traceparent", "00-x")], b"{ no json");
    daisi.settled(3, SOON);
    let sent = world.await_letters(OUTPUT, 1);
    assert_eq!(sent[0].header("traceparent").as_deref(), Some(SAMPLED));
    assert_eq!(sent[0].header("tracestate").as_deref(), Some("a=1"));
    let dead = world.await_letters(DEAD, 2);
    assert_eq!(dead[0].header("traceparent").as_deref(), Some(SAMPLED));
    assert_eq!(dead[0].header("tracestate").as_deref(), Some("a=1"));
    assert_eq!(dead[1].header("traceparent"), None, "what is no context goes no further");
    told_with_its_ids(&daisi.log());
    retry(&world);
    daisi.settled(5, SOON);
    let again = &world.read(SOURCE)[3..];
    assert_eq!(again[0].header("traceparent").as_deref(), Some(SAMPLED));
    assert_eq!(again[0].header("tracestate").as_deref(), Some("a=1"));
    assert_eq!((again.len(), again[1].header("traceparent")), (2, None));
}

// The line of the dead letter; no line quotes the body.
#[track_caller]
fn told_with_its_ids(log: &str) {
    let line = log.lines().find(|line| line.contains("event dead-lettered")).expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    for (name, value) in [
        ("company_id", "ACME"),
        ("nats_message_id", "m-2"),
        ("stream", SOURCE),
        ("subject", "cdc.ACME.messages"),
        ("trace_id", TRACE),
        ("stage", "cdc"),
        ("reason", "bad_json"),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    assert!(line["stream_sequence"].is_u64() && line["num_delivered"].is_u64(), "{line}");
    assert_eq!(line["request_id"].as_str().map(str::len), Some(36), "{line}");
    assert!(!log.contains("62811"), "{log}");
}

fn retry(world: &World) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi"));
    command.args(["dlq", "retry", "--all", "--yes"]).env_clear();
    let output = command.env("NATS_URL", world.stack.nats.url()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn a_sampled_event_is_a_span_and_an_unsampled_one_is_none(server: Server) {
    let world = World::new(server);
    let collector = Collector::start();
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=top%20secret"),
        ("OTEL_SERVICE_NAME", "chat"),
    ];
    let mut daisi = Daisi::spawn_with(&world, &[], &env);
    daisi.ready(READY_MAX);
    let put = |id: &str, lsn: u64, headers: &[(&str, &str)]| {
        let (subject, body) = message("ACME", id, lsn).sent();
        world.put_with(&subject, headers, &body);
    };
    put("M1", 1, &[("traceparent", UNSAMPLED)]);
    put("M2", 2, &[("traceparent", SAMPLED)]);
    put("M3", 3, &[]);
    daisi.settled(3, SOON);
    // The end exports what still waits, so nothing comes after it.
    assert!(daisi.term(SOON).success());
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = &spans[0];
    assert_eq!(
        (hex_text(&span.trace_id), hex_text(&span.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(
        (attribute(span, "daisi.company"), attribute(span, "daisi.outcome")),
        ("ACME".into(), "processed".into())
    );
    assert_eq!(
        (attribute(span, "daisi.stream"), attribute(span, "daisi.stream_sequence")),
        (SOURCE.into(), "2".into())
    );
    assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano);
    let heads = collector.heads();
    assert!(heads.contains("POST /v1/traces") && heads.contains("api-key: top secret"), "{heads}");
    let sent = world.read(OUTPUT);
    assert_eq!(sent[0].header("traceparent").as_deref(), Some(UNSAMPLED));
    let onward = sent[1].header("traceparent").expect("a context");
    let onward = TraceContext::parse(onward.as_bytes()).expect("by the grammar");
    assert_eq!(onward.trace_id.as_slice(), span.trace_id, "one trace");
    assert_eq!(onward.parent_id.as_slice(), span.span_id, "what is published names our span");
    assert_eq!(sent[2].header("traceparent"), None);
    assert!(!daisi.log().contains("top secret"));
}

fn spans_of_ingest_tell_how_events_ended(server: Server) {
    let world = World::ingesting(server);
    let collector = Collector::start();
    let sets =
        [("telemetry.otlp_endpoint", collector.url.as_str()), ("telemetry.sample_ratio", "1")];
    let daisi = Daisi::spawn(&world, &sets);
    daisi.ready(READY_MAX);
    let chat = r#"{"chat_id":"chat-1","jid":"j","company_id":"ACME","agent_id":"ag-1","phone_number":"62","push_name":"Sari","unread_count":10}"#;
    world.put_with("v1.chats.upsert.ACME", &[("traceparent", SAMPLED)], chat.as_bytes());
    world.put_with("v1.chats.upsert.ACME", &[("traceparent", SAMPLED)], b"{}");
    world.put_with("v1.chats.upsert.ACME", &[], b"{ no json");
    daisi.ingested(3, SOON);
    eventually("three spans are exported", SOON, || collector.spans().len() == 3);
    let spans = collector.spans();
    let outcome = |seq: &str| {
        let span = spans.iter().find(|span| attribute(span, "daisi.stream_sequence") == seq);
        let span = span.unwrap_or_else(|| panic!("no span of {seq}: {spans:?}"));
        (attribute(span, "daisi.outcome"), hex_text(&span.parent_span_id))
    };
    assert_eq!(outcome("1"), ("processed".into(), PARENT.into()));
    assert_eq!(outcome("2"), ("dead_lettered".into(), PARENT.into()));
    assert_eq!(outcome("3"), ("dead_lettered".into(), String::new()), "it begins a trace");
    // A letter of an event that began a trace here belongs to that trace.
    let letters = world.read(DEAD);
    let of_third = letters.iter().find(|letter| letter.json()["stream_sequence"] == 3);
    let context = of_third.and_then(|letter| letter.header("traceparent")).expect("a context");
    let third = spans.iter().find(|span| span.parent_span_id.is_empty()).expect("the third");
    assert!(
        context.contains(&hex_text(&third.trace_id)) && context.contains(&hex_text(&third.span_id))
    );
    let metrics = daisi.metrics();
    let count = |name: &str| metrics.sum(name, &[]);
    assert_eq!(
        (count("daisi_trace_spans_total"), count("daisi_trace_spans_dropped_total")),
        (3, 0)
    );
}

fn a_collector_that_is_away_costs_spans_and_nothing_else(server: Server) {
    let world = World::new(server);
    // A port that was free a moment ago: nobody listens.
    let away = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", away.local_addr().expect("bound"));
    drop(away);
    let sets = [("telemetry.otlp_endpoint", url.as_str()), ("telemetry.sample_ratio", "1")];
    let mut daisi = Daisi::spawn(&world, &sets);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1), message("ACME", "M2", 2)]);
    daisi.settled(2, SOON);
    eventually("an export has failed", SOON, || {
        daisi.metrics().sum("daisi_trace_export_failures_total", &[]) > 0
    });
    assert_eq!(daisi.get("/ready").0, 200);
    assert_eq!(world.count(OUTPUT), 2);
    assert!(daisi.term(SOON).success());
    assert!(daisi.log().contains("spans are left behind"), "{}", daisi.log());
}

#[track_caller]
fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|found| found.value.clone()).and_then(|value| value.value);
    match value {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

/// Requests as they came: head and body.
type Taken = Mutex<Vec<(String, Vec<u8>)>>;

/// Takes OTLP over HTTP and keeps what came.
struct Collector {
    url: String,
    taken: Arc<Taken>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let taken: Arc<Taken> = Arc::default();
        let kept = Arc::clone(&taken);
        // Ends with the tests' process.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || while take(&socket, &kept).is_some() {});
            }
        });
        Self { url, taken }
    }

    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().expect("no panic");
        let requests = taken.iter().map(|(_, body)| {
            ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP in protobuf")
        });
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans).collect()
    }

    fn heads(&self) -> String {
        let taken = self.taken.lock().expect("no panic");
        taken.iter().map(|(head, _)| head.as_str()).collect()
    }
}

// One request; nothing at the end of the connection.
fn take(mut socket: &TcpStream, kept: &Taken) -> Option<()> {
    socket.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    kept.lock().ok()?.push((head, body));
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}
