//! What the pipeline relies on, one claim a test. `Lab` is a client on the real codec: one connection,
//! one inbox, and every frame that comes back as one line of text.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod core;
mod crash;
mod kv;
mod publish;
mod pull;
mod redis;

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use serde_json::Value;
use shards::clock::Now;
use shards::wire::Step;
use shards::wire::nats::op::{Msg, ServerOp};
use shards::wire::nats::{DecodeLimits, decode, encode};

use super::ConnId;
use super::message::header_block;
use super::nats::{NatsOptions, NatsServer};
use super::version::Version;

const INBOX: &str = "_INBOX.lab";
const CONNECT: &[u8] = br#"{"verbose":false,"headers":true,"no_responders":true,"protocol":1}"#;

struct Lab {
    server: NatsServer,
    now: Now,
    conn: ConnId,
}

impl Lab {
    fn new(version: Version) -> Self {
        Self::with(NatsOptions { version, ..NatsOptions::default() })
    }

    fn with(options: NatsOptions) -> Self {
        let mut server = NatsServer::new(options, Rng::with_seed(7));
        let now = Now { mono: 1_000_000_000, wall: 1_795_209_715_000_000_000 };
        let conn = server.connect(now).unwrap();
        let mut lab = Self { server, now, conn };
        lab.greet();
        lab
    }

    fn greet(&mut self) {
        let mut out = BytesMut::new();
        encode::encode_connect(&mut out, CONNECT);
        encode::encode_sub(&mut out, format!("{INBOX}.>").as_bytes(), None, 1).unwrap();
        self.server.handle_bytes(self.now, self.conn, &out);
        self.read();
    }

    fn reconnect(&mut self) {
        self.conn = self.server.connect(self.now).unwrap();
        self.greet();
    }

    /// Raw bytes in, raw bytes out: for what our codec never writes.
    fn raw(&mut self, bytes: &str) -> String {
        self.server.handle_bytes(self.now, self.conn, bytes.as_bytes());
        String::from_utf8_lossy(&self.server.poll_output(self.conn)).replace("\r\n", "|")
    }

    /// What came since the last look, one line a frame; a PING is answered and not shown.
    fn read(&mut self) -> String {
        let mut inbox = BytesMut::from(&self.server.poll_output(self.conn)[..]);
        let mut lines = String::new();
        while let Ok(Step::Done(op)) = decode(&mut inbox, &DecodeLimits::default()) {
            if matches!(op, ServerOp::Ping) {
                self.server.handle_bytes(self.now, self.conn, b"PONG\r\n");
            } else {
                writeln!(lines, "{}", line(&op)).unwrap();
            }
        }
        lines.trim_end().to_owned()
    }

    fn publish(&mut self, subject: &str, headers: &[(&str, &str)], body: &str) -> String {
        let reply = format!("{INBOX}.ack");
        self.send(subject, Some(&reply), headers, body)
    }

    fn send(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let mut out = BytesMut::new();
        let block = if headers.is_empty() { Bytes::new() } else { header_block(headers) };
        let (subject, reply) = (subject.as_bytes(), reply.map(str::as_bytes));
        if block.is_empty() {
            encode::encode_pub(&mut out, subject, reply, body.as_bytes()).unwrap();
        } else {
            encode::encode_hpub(&mut out, subject, reply, &block, body.as_bytes()).unwrap();
        }
        self.server.handle_bytes(self.now, self.conn, &out);
        self.read()
    }

    /// A JetStream API call; the reply without its type.
    fn api(&mut self, call: &str, body: &str) -> Value {
        let text = self.publish(&format!("$JS.API.{call}"), &[], body);
        serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or(Value::Null)
    }

    fn err_code(&mut self, call: &str, body: &str) -> u64 {
        self.api(call, body)["error"]["err_code"].as_u64().unwrap_or(0)
    }

    fn stream(&mut self, config: &str) {
        let name = serde_json::from_str::<Value>(config).unwrap()["name"].to_string();
        let reply = self.api(&format!("STREAM.CREATE.{}", name.trim_matches('"')), config);
        assert_eq!(reply["error"], Value::Null);
    }

    /// Stream `S` on `s.>` with `count` messages `s.1`, `s.2`, ... and a durable pull consumer `c`.
    fn filled(version: Version, count: u64, consumer: &str) -> Self {
        let mut lab = Self::new(version);
        lab.stream(r#"{"name":"S","subjects":["s.>"]}"#);
        for n in 1..=count {
            lab.publish(&format!("s.{n}"), &[], "x");
        }
        lab.consumer("S", consumer);
        lab
    }

    fn consumer(&mut self, stream: &str, config: &str) {
        let body = format!(r#"{{"stream_name":"{stream}","config":{config}}}"#);
        let config: Value = serde_json::from_str(config).unwrap();
        let name = config["durable_name"].as_str().or(config["name"].as_str()).unwrap();
        let reply = self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body);
        assert_eq!(reply["error"], Value::Null);
    }

    fn pull(&mut self, body: &str) -> String {
        let reply = format!("{INBOX}.p");
        self.send("$JS.API.CONSUMER.MSG.NEXT.S.c", Some(&reply), &[], body)
    }

    /// Acks the delivery of stream sequence and consumer sequence of consumer `c` on `S`.
    fn ack(&mut self, (sseq, cseq): (u64, u64), payload: &str) -> String {
        self.send(&format!("$JS.ACK.S.c.1.{sseq}.{cseq}.0.0"), None, &[], payload)
    }

    fn wait(&mut self, ns: u64) -> String {
        self.now.mono += ns;
        self.now.wall += ns;
        self.server.tick(self.now);
        self.read()
    }

    fn floor(&self) -> (u64, u64) {
        let floor = self.server.jetstream.consumer("S", "c").unwrap().floor();
        (floor.consumer, floor.stream)
    }
}

fn line(op: &ServerOp) -> String {
    match op {
        ServerOp::Msg(message) => message_line(message),
        ServerOp::Info(json) => format!("INFO {}", String::from_utf8_lossy(json)),
        ServerOp::Err(text) => format!("-ERR {}", String::from_utf8_lossy(text)),
        ServerOp::Ping => "PING".into(),
        ServerOp::Pong => "PONG".into(),
        ServerOp::Ok => "+OK".into(),
    }
}

/// A delivery as `subject d<delivered> s<stream seq> c<consumer seq> p<pending>`, a status as its line
/// with pending headers, anything else as its body.
fn message_line(message: &Msg) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let reply = message.reply().map(text).unwrap_or_default();
    if let Some(position) = reply.strip_prefix("$JS.ACK.") {
        let p: Vec<&str> = position.split('.').collect();
        return format!("{} d{} s{} c{} p{}", text(message.subject()), p[2], p[3], p[4], p[6]);
    }
    let block = text(message.headers());
    match block.strip_prefix("NATS/1.0 ").filter(|_| message.payload().is_empty()) {
        Some(status) => status.trim_end().replace("\r\n", " "),
        None => text(message.payload()),
    }
}
