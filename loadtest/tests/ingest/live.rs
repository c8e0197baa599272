//! What reaches a real nats-server, counted by a client of its own.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loadtest::client::Client;
use loadtest::stack::{NatsOptions, Stack};
use serde_json::Value;

use super::{generate, split};

const STREAMS: [&str; 2] = ["wa_events_stream", "wa_history_events_stream"];

/// Messages of both streams per base subject, and per company.
fn stored(url: &str) -> (HashMap<String, u64>, HashMap<String, u64>) {
    let mut client = Client::connect(url).unwrap();
    let (mut subjects, mut companies) = (HashMap::new(), HashMap::new());
    for stream in STREAMS {
        let read = client.read_stream(stream, 1, |stored| {
            let subject = String::from_utf8(stored.message.subject().to_vec()).unwrap();
            let (base, company) = split(&subject);
            *subjects.entry(base.to_owned()).or_insert(0) += 1;
            *companies.entry(company.to_owned()).or_insert(0) += 1;
            ControlFlow::Continue(())
        });
        assert!(read.unwrap() > 0, "{stream}");
    }
    (subjects, companies)
}

#[test]
fn ten_thousand_events_are_in_the_streams_as_the_books_say() {
    let stack = Stack::builder().nats(NatsOptions::default()).start().unwrap();
    let url = stack.nats.url();
    let output = generate(&[
        "--url",
        &url,
        "--count",
        "10000",
        "--rate",
        "0",
        "--faults",
        "0.2",
        "--metrics-port",
        "0",
        "--json",
    ]);
    let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(totals["published"], 10_000);
    assert_eq!((&totals["resent"], &totals["reconnects"]), (&0.into(), &0.into()));
    let expected = &totals["expected"];
    assert_eq!(expected["events"], 10_000);
    assert_eq!(totals["dropped"], expected["outcomes"]["dropped"]);
    assert!(totals["dropped"].as_u64().unwrap() > 100);
    let (subjects, companies) = stored(&url);
    assert_eq!(subjects.len(), 10);
    for (subject, count) in &subjects {
        let outcomes = expected["subjects"][subject].as_object().unwrap();
        let told: u64 = outcomes.values().map(|count| count.as_u64().unwrap()).sum();
        let dropped = outcomes.get("dropped").and_then(Value::as_u64).unwrap_or(0);
        assert_eq!(*count, told - dropped, "{subject}");
    }
    assert_eq!(expected["stored"], subjects.values().sum::<u64>());
    assert_eq!(companies.len(), 3);
    assert!(companies.values().all(|count| *count > 2_500), "{companies:?}");
}

#[test]
fn a_signal_ends_a_load_with_every_puback_and_the_totals() {
    let stack = Stack::builder().nats(NatsOptions::default()).start().unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    // One dash, as the old tester's scripts have it; a rate that leaves batches part-full.
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["generate", "-url", &stack.nats.url(), "-rate", "700", "-duration", "10m"])
        .args(["-company_ids", "A,B", "-metrics-port", &port.to_string(), "--json"])
        .args(["-subjects", "v1.messages.upsert,v1.history.contacts", "-history-count", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let page = loop {
        let page = scrape(port).unwrap_or_default();
        if counted(&page, "loadgen_messages_published_total") > 300.0 {
            break page;
        }
        assert!(Instant::now() < deadline, "{page}");
        std::thread::sleep(Duration::from_millis(50));
    };
    for name in ["messages_attempted_total", "messages_published_total", "publish_errors_total"] {
        for company in ["A", "B"] {
            let labels = format!("company_id=\"{company}\",subject=\"v1.messages.upsert\"");
            assert!(page.contains(&format!("loadgen_{name}{{{labels}}}")), "{page}");
        }
    }
    let signal = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (subjects, companies) = stored(&stack.nats.url());
    let sum: u64 = subjects.values().sum();
    assert_eq!(totals["published"], sum);
    assert_eq!(totals["expected"]["events"], sum);
    assert_eq!((subjects.len(), companies.len()), (2, 2));
    assert!((300..20_000).contains(&sum), "{sum}");
}

fn scrape(port: u16) -> std::io::Result<String> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Ok(answer)
}

fn counted(page: &str, name: &str) -> f64 {
    let values = page.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn a_load_ends_after_its_duration_with_the_events_planned_in_it() {
    let stack = Stack::builder().nats(NatsOptions::default()).start().unwrap();
    let url = stack.nats.url();
    let started = Instant::now();
    let output = generate(&[
        "--url",
        &url,
        "--duration",
        "1500ms",
        "--rate",
        "400",
        "--metrics-port",
        "0",
        "--json",
    ]);
    assert!(started.elapsed() >= Duration::from_millis(1_450));
    let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(totals["published"], 600);
    assert_eq!(stored(&url).0.values().sum::<u64>(), 600);
}

#[test]
fn an_event_that_the_server_never_takes_is_an_error_with_both_sizes() {
    let options =
        NatsOptions { config_extra: "max_payload: 4096".into(), ..NatsOptions::default() };
    let stack = Stack::builder().nats(options).start().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["generate", "--url", &stack.nats.url(), "--metrics-port", "0", "--count", "100"])
        .args(["--rate", "0", "--subjects", "v1.history.chats", "--history-count", "50"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("v1.history.chats.RIDH") && said.contains("takes 4096"), "{said}");
}
