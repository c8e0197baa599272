//! The same script against a real nats-server 2.9 and the simulated one: the transcripts are alike once
//! moments and what names the process are taken out. Skipped aloud where that server is not installed.
//! The frames are hand-written: they are the witness, not the codec.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Silence after which a step's answers are taken to be complete.
const QUIET: Duration = Duration::from_millis(80);
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn script_reads_alike_on_the_real_server() {
    let Some(mut real) = RealServer::start() else {
        eprintln!("SKIPPED: nats-server 2.9 is not installed");
        return;
    };
    let mut lab = Lab::new(Version::V2_9);
    let mut differences = String::new();
    for (subject, headers, body) in SCRIPT {
        let frame = frame(subject, headers, body);
        lab.server.handle_bytes(lab.now, lab.conn, frame.as_bytes());
        let simulated = normal_lines(&lab.server.poll_output(lab.conn));
        let observed = normal_lines(&real.talk(&frame, simulated.len()));
        if simulated != observed {
            let step = format!("{subject} {headers} {body}");
            writeln!(differences, "{step}\n  sim  {simulated:?}\n  real {observed:?}").unwrap();
        }
    }
    assert!(differences.is_empty(), "the peer differs from the server at\n{differences}");
}

/// Subject, headers, body. Every step has a reply inbox.
const SCRIPT: &[(&str, &str, &str)] = &[
    ("nobody.listens", "", "x"),
    ("$JS.API.STREAM.INFO.S", "", ""),
    ("$JS.API.STREAM.CREATE.S", "", r#"{"name":"S","subjects":["s.>"],"max_msg_size":80}"#),
    ("$JS.API.STREAM.CREATE.S", "", r#"{"name":"S","subjects":["s.>"],"max_msgs":3}"#),
    ("$JS.API.STREAM.CREATE.T", "", r#"{"name":"T","subjects":["s.a"]}"#),
    ("$JS.API.STREAM.CREATE.T", "", r#"{"name":"U"}"#),
    ("s.1", "", "one"),
    ("s.2", "Nats-Msg-Id: a", "2"),
    ("s.2", "Nats-Msg-Id: a", "2"),
    ("s.3", "Nats-Expected-Stream: T", "3"),
    ("s.1", "Nats-Expected-Last-Subject-Sequence: 7", "3"),
    ("s.1", "Nats-Expected-Last-Sequence: 7", "3"),
    ("s.1", "Nats-Expected-Last-Msg-Id: b", "3"),
    (
        "s.1",
        "",
        "012345678901234567890123456789012345678901234567890123456789012345678901234567890",
    ),
    ("s.1", "Nats-Expected-Last-Subject-Sequence: 1", "3"),
    ("$JS.API.STREAM.MSG.GET.S", "", r#"{"last_by_subj":"s.1"}"#),
    ("$JS.API.STREAM.MSG.GET.S", "", r#"{"seq":2}"#),
    ("$JS.API.STREAM.MSG.GET.S", "", r#"{"last_by_subj":"s.9"}"#),
    ("$JS.API.STREAM.NAMES", "", r#"{"subject":"s.x"}"#),
    ("$JS.API.STREAM.INFO.S", "", r#"{"subjects_filter":">"}"#),
    ("$JS.API.CONSUMER.INFO.S.c", "", ""),
    ("$JS.API.CONSUMER.MSG.NEXT.S.c", "", "1"),
    (
        "$JS.API.CONSUMER.CREATE.S.c",
        "",
        r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#,
    ),
    (
        "$JS.API.CONSUMER.CREATE.S.c",
        "",
        r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"all"}}"#,
    ),
    ("$JS.API.CONSUMER.MSG.NEXT.S.c", "", r#"{"batch":2,"no_wait":true}"#),
    ("$JS.ACK.S.c.1.2.2.0.0", "", "+ACK"),
    ("$JS.API.CONSUMER.INFO.S.c", "", ""),
    ("$JS.ACK.S.c.1.1.1.0.0", "", ""),
    ("$JS.API.CONSUMER.INFO.S.c", "", ""),
    ("$JS.API.CONSUMER.MSG.NEXT.S.c", "", r#"{"batch":5,"no_wait":true}"#),
    ("$JS.API.CONSUMER.MSG.NEXT.S.c", "", r#"{"batch":5,"no_wait":true}"#),
    ("$JS.ACK.S.c.1.3.3.0.0", "", "-NAK"),
    ("$JS.API.CONSUMER.MSG.NEXT.S.c", "", "1"),
    ("$JS.ACK.S.c.1.3.4.0.0", "", "+TERM"),
    ("$JS.API.CONSUMER.INFO.S.c", "", ""),
    ("$JS.API.CONSUMER.MSG.NEXT.S.c", "", r#"{"batch":1,"expires":10,"idle_heartbeat":9}"#),
    ("$JS.API.CONSUMER.NAMES.S", "", ""),
    ("$JS.API.STREAM.PURGE.S", "", ""),
    ("s.2", "Nats-Msg-Id: a", "2"),
    ("$JS.API.STREAM.CREATE.W", "", r#"{"name":"W","subjects":["w.>"],"retention":"workqueue"}"#),
    (
        "$JS.API.CONSUMER.CREATE.W.c",
        "",
        r#"{"stream_name":"W","config":{"durable_name":"c","ack_policy":"all"}}"#,
    ),
    (
        "$JS.API.STREAM.CREATE.F",
        "",
        r#"{"name":"F","subjects":["f.>"],"max_msgs":1,"discard":"new"}"#,
    ),
    ("f.1", "", "x"),
    ("f.2", "", "x"),
    (
        "$JS.API.STREAM.CREATE.KV_b",
        "",
        r#"{"name":"KV_b","subjects":["$KV.b.>"],"max_msgs_per_subject":1,"discard":"new"}"#,
    ),
    ("$KV.b.k", "Nats-Expected-Last-Subject-Sequence: 0", "me"),
    ("$KV.b.k", "Nats-Expected-Last-Subject-Sequence: 0", "you"),
    ("$KV.b.k", "Nats-Expected-Last-Subject-Sequence: 1", "me"),
    ("$JS.API.CONSUMER.DELETE.S.c", "", ""),
    ("$JS.API.CONSUMER.DELETE.S.c", "", ""),
    ("$JS.API.STREAM.DELETE.S", "", ""),
    ("$JS.API.NO.SUCH.CALL", "", ""),
];

fn frame(subject: &str, headers: &str, body: &str) -> String {
    let reply = format!("{INBOX}.r");
    if headers.is_empty() {
        return format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
    }
    let block = format!("NATS/1.0\r\n{headers}\r\n\r\n");
    let (head, total) = (block.len(), block.len() + body.len());
    format!("HPUB {subject} {reply} {head} {total}\r\n{block}{body}\r\n")
}

/// Frames as lines, INFO and PING left out, JSON with its fields sorted and without moments.
fn normal_lines(bytes: &[u8]) -> Vec<String> {
    let mut inbox = BytesMut::from(bytes);
    let mut lines = Vec::new();
    while let Ok(Step::Done(op)) = decode(&mut inbox, &DecodeLimits::default()) {
        if !matches!(op, ServerOp::Info(_) | ServerOp::Ping) {
            let text = line(&op);
            let json = serde_json::from_str::<Value>(&text).map(normal);
            lines.push(json.map_or(text, |json| json.to_string()));
        }
    }
    assert!(inbox.is_empty(), "left over: {inbox:?}");
    lines
}

fn normal(value: Value) -> Value {
    const PASSING: [&str; 7] =
        ["created", "ts", "time", "first_ts", "last_ts", "last_active", "cluster"];
    match value {
        Value::Object(fields) => {
            // Pages that were not asked for are there as zeros, or not.
            let kept = fields
                .into_iter()
                .filter(|(k, v)| !PASSING.contains(&&**k) && !v.is_null() && *v != 0);
            let sorted: BTreeMap<String, Value> = kept.map(|(k, v)| (k, normal(v))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        other => other,
    }
}

struct RealServer {
    process: Child,
    stream: TcpStream,
    folder: PathBuf,
}

impl RealServer {
    fn start() -> Option<Self> {
        let version = Command::new("nats-server").arg("--version").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("v2.9.") {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("daisi-conformance-{port}"));
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(&folder);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let connect = || {
            std::thread::sleep(QUIET);
            TcpStream::connect(("127.0.0.1", port)).ok()
        };
        let stream = (0..100).find_map(|_| connect()).unwrap();
        stream.set_read_timeout(Some(QUIET)).unwrap();
        let mut real = Self { process, stream, folder };
        let connect = String::from_utf8_lossy(CONNECT);
        real.talk(&format!("CONNECT {connect}\r\nSUB {INBOX}.> 1\r\n"), 0);
        Some(real)
    }

    // What comes until the server is quiet; a slow server is given time for what is expected of it.
    fn talk(&mut self, frame: &str, expected: usize) -> Vec<u8> {
        self.stream.write_all(frame.as_bytes()).unwrap();
        let mut answers = Vec::new();
        let mut chunk = [0; 65_536];
        let patience = Instant::now() + PATIENCE;
        loop {
            match self.stream.read(&mut chunk) {
                Ok(len @ 1..) => answers.extend_from_slice(&chunk[..len]),
                Ok(_) => return answers,
                Err(_) if normal_lines(&answers).len() >= expected => return answers,
                Err(_) if Instant::now() > patience => return answers,
                Err(_) => {}
            }
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).map(drop).unwrap_or_default();
        std::fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}
