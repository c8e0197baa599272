//! Servers of one test, and the binary run against them as a script would. Invariant: the environment holds
//! nothing but their addresses.

use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};

use bytes::BytesMut;
use loadtest::client::{Client, StreamSpec};
use loadtest::stack::{NatsOptions, PostgresOptions, Stack, StackBuilder};
use serde_json::Value;
use shards::domain::cdc::{DeadLetter, ErrorType, write_dlq_payload};

pub(crate) const DEAD: &str = "dlq_stream";
pub(crate) const SOURCE: &str = "wa_events_stream";
/// Bodies above this are left out of letters.
pub(crate) const EMBEDDED_MAX: usize = 10_000;

pub(crate) struct World {
    pub(crate) stack: Stack,
    /// Keeps the connection that messages are put through.
    pub(crate) client: Client,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) seq: u64,
    pub(crate) subject: String,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

const HEADERS: [&str; 5] = [
    "Nats-Msg-Id",
    "Daisi-Original-Stream",
    "Daisi-Original-Sequence",
    "Daisi-Original-Timestamp",
    "Original-Nats-Msg-Id",
];

impl World {
    /// NATS with streams for events and for dead letters.
    pub(crate) fn new() -> Self {
        Self::of(Stack::builder(), String::new())
    }

    /// NATS with more in its configuration file.
    pub(crate) fn with_config(config_extra: &str) -> Self {
        Self::of(Stack::builder(), config_extra.to_owned())
    }

    /// And PostgreSQL.
    pub(crate) fn with_postgres() -> Self {
        let settings = vec![("fsync".to_owned(), "off".to_owned())];
        let options = PostgresOptions { settings, ..PostgresOptions::default() };
        Self::of(Stack::builder().postgres(options), String::new())
    }

    fn of(builder: StackBuilder, config_extra: String) -> Self {
        let stack = builder
            .nats(NatsOptions { config_extra, ..NatsOptions::default() })
            .start()
            .expect("servers start");
        let client = Client::connect(&stack.nats.url()).expect("NATS takes connections");
        let mut world = Self { stack, client };
        world.stream(SOURCE, &["v1.chats.*.*", "v1.messages.*.*", "cdc.*.*"]);
        world.stream(DEAD, &["v1.dlq.>"]);
        world
    }

    pub(crate) fn stream(&mut self, name: &str, subjects: &[&str]) {
        let duplicate_window = std::time::Duration::from_secs(120);
        let spec = StreamSpec { name, subjects, duplicate_window };
        self.client.create_stream(spec).expect("a stream");
    }

    /// Publishes, and waits for the stream.
    pub(crate) fn put(&mut self, subject: &str, body: &[u8]) -> u64 {
        let answer = self.client.request(subject, body).expect("an answer");
        let answer: Value = serde_json::from_slice(answer.payload()).expect("a PubAck");
        answer["seq"].as_u64().expect("it was stored")
    }

    /// Puts the letter of an event into the stream of dead letters.
    pub(crate) fn bury(&mut self, letter: &DeadLetter<'_>) -> u64 {
        let mut body = BytesMut::new();
        write_dlq_payload(letter, EMBEDDED_MAX, &mut body);
        self.put(&format!("v1.dlq.{}", letter.company.unwrap_or("_unknown")), &body)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daisi"));
        command.args(args).env_clear().env("NATS_URL", self.stack.nats.url());
        if let Some(postgres) = self.stack.postgres.as_option() {
            command.env("POSTGRES_DSN", postgres.url());
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Answer {
        let output = self.command(args).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs it and expects success; what it said on standard output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(0), "{args:?}: {answer:?}");
        answer.out
    }

    /// As [`Self::ok`], of a command that answers in JSON, one object a line.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let lines = self.ok(args);
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// All that a stream holds whose newest message was not deleted.
    pub(crate) fn read(&self, stream: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut client = Client::connect(&self.stack.nats.url()).expect("a connection");
        let read = client.read_stream(stream, 1, |stored| {
            let message = stored.message;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = HEADERS.into_iter();
            messages.push(Message {
                seq: stored.seq,
                subject: text(message.subject()),
                body: message.payload().to_vec(),
                headers: headers
                    .filter_map(|name| Some((name, text(message.header(name.as_bytes())?))))
                    .collect(),
            });
            ControlFlow::Continue(())
        });
        read.expect("a stream");
        messages
    }

    /// Sequences of the dead letters that there are.
    pub(crate) fn letters(&self) -> Vec<u64> {
        let rows = self.json(&["dlq", "list", "--json"]);
        rows.iter().map(|row| row["sequence"].as_u64().expect("a sequence")).collect()
    }

    /// What was sent to the source stream from `seq` on: subject and body.
    pub(crate) fn sent(&self, seq: u64) -> Vec<(String, Vec<u8>)> {
        let messages = self.read(SOURCE).into_iter().filter(|message| message.seq >= seq);
        messages.map(|message| (message.subject, message.body)).collect()
    }
}

/// A letter as most are.
pub(crate) fn letter<'a>(subject: &'a str, company: &'a str, body: &'a [u8]) -> DeadLetter<'a> {
    DeadLetter {
        source_subject: subject.as_bytes(),
        company: Some(company),
        body,
        error_type: ErrorType::Fatal,
        error: "decode: it is wrong",
        reason: Some("bad_json"),
        retry_count: 1,
        retry_max: 5,
        dead_lettered_at: "2026-01-02T03:04:05.678000000Z",
        stream: Some(SOURCE),
        stream_sequence: Some(41),
        message_id: Some("first-id"),
        published_at: Some("2026-01-02T03:04:05.000000001Z"),
    }
}
