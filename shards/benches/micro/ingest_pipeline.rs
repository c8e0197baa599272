//! What does a chat event cost from delivery to ack, without IO? Delivery, queue, job, decoding, batch, values
//! bound, a COMMIT that always succeeds, outcome, ack. Invariants: what the servers do lies outside of what is
//! measured; every event is acknowledged.
#![expect(clippy::expect_used, reason = "a script that does not run is a broken bench")]

use crate::events;
use crate::measure::{Ask, Case, section};
use crate::script::{answer, settings};
use bytes::{Buf, BytesMut};
use shards::clock::{MS, Now, SEC};
use shards::edge::pg::param::params;
use shards::id::Epoch;
use shards::metrics::ShardFigures;
use shards::pipeline::commit::{Batch, Commit, Hints, Item, Settings as BatchSettings, Step};
use shards::pipeline::ingest::{Catalog, Decoded, Job};
use shards::pipeline::{
    Effect, IngestSettings, Input, Pipeline, Quarantine, Settings, SourceSettings, StageName,
};
use shards::wire::nats::auth::Credentials;
use shards::wire::nats::decode::decode_client;
use shards::wire::nats::encode::{encode_info, encode_msg, encode_pong};
use shards::wire::nats::op::ClientOp;
use std::hash::{DefaultHasher, Hasher};
use tokio_postgres::types::{ToSql, Type};

const STREAM: &str = "wa_events_stream";
const INBOX: usize = 256 * 1024;
const HINTS: usize = 100_000;

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let mut witness = Script::new();
    (0..20).for_each(|_| witness.batch(100));
    let hash = witness.output.finish();
    println!("ingest pipeline: {} events, output hash {hash:016x}", witness.acked);
    let [mut large, mut small] = [(); 2].map(|()| Script::new());
    ask.run(vec![
        Case {
            name: "ingest: whole event, batches of 100",
            events: 8 * 100,
            round: Box::new(|| (0..8).for_each(|_| large.batch(100))),
        },
        Case {
            name: "ingest: whole event, batches of 5",
            events: 40 * 5,
            round: Box::new(|| (0..40).for_each(|_| small.batch(5))),
        },
    ]);
}

/// A pipeline with one lane, and the servers it talks to.
struct Script {
    pipeline: Pipeline,
    now: Now,
    catalog: Catalog,
    commit: Commit,
    rows: Batch,
    hints: Hints,
    bound: BytesMut,
    message: String,
    delivered: u64,
    acked: u64,
    is_reading: bool,
    output: DefaultHasher,
    nats_in: BytesMut,
    to_pipeline: BytesMut,
}

impl Script {
    fn new() -> Self {
        let pipeline =
            Pipeline::new(ingest_settings(), ShardFigures::new(), 1, Epoch(1), Quarantine::new());
        let mut script = Self {
            pipeline,
            now: Now { mono: SEC, wall: 1_748_772_000 * SEC },
            catalog: Catalog::load(&[]).expect("our schemas compile"),
            commit: Commit::default(),
            rows: Batch::new(BatchSettings::default(), (1, 2)),
            hints: Hints::new(HINTS),
            bound: BytesMut::with_capacity(1 << 20),
            message: events::plain(),
            delivered: 0,
            acked: 0,
            is_reading: false,
            output: DefaultHasher::new(),
            nats_in: BytesMut::with_capacity(1 << 20),
            to_pipeline: BytesMut::with_capacity(INBOX),
        };
        script.connect();
        script
    }

    /// `count` events from delivery to ack.
    fn batch(&mut self, count: u64) {
        self.now.mono += MS;
        self.now.wall += MS;
        for _ in 0..count {
            self.deliver();
        }
        self.nats_turn();
        while let Some(job) = self.job() {
            let job = section(|| self.write(job));
            self.output.write(&self.bound);
            section(|| {
                self.pipeline.handle(self.now, Input::PgWritten(0, job));
                self.pipeline.flush(self.now);
            });
        }
        if self.delivered.is_multiple_of(16 * count) {
            self.now.mono += 20 * MS;
            section(|| {
                self.pipeline.handle(self.now, Input::Tick);
                self.pipeline.flush(self.now);
            });
        }
        self.serve_nats();
        assert_eq!(self.acked, self.delivered, "every event is acknowledged");
    }

    fn deliver(&mut self) {
        self.delivered += 1;
        let number = self.delivered;
        let company = format!("Company{:05}", number % 8);
        let text = events::numbered(&self.message, usize::try_from(number % 90_000).unwrap_or(0));
        let text = text.replace("\"ACME\"", &format!("\"{company}\""));
        let subject = format!("v1.messages.upsert.{company}");
        let stored = self.now.wall;
        let ack = format!("$JS.ACK.{STREAM}.daisi_ingest.1.{number}.{number}.{stored}.9");
        encode_msg(
            &mut self.nats_in,
            subject.as_bytes(),
            16,
            Some(ack.as_bytes()),
            text.as_bytes(),
        );
    }

    // What the server sends, by way of the copy out of the socket's buffer.
    fn nats_turn(&mut self) {
        let Self { pipeline, nats_in, to_pipeline, now, .. } = self;
        section(|| {
            to_pipeline.extend_from_slice(nats_in);
            pipeline.handle(*now, Input::NatsBytes(to_pipeline));
            if to_pipeline.is_empty() && to_pipeline.capacity() < INBOX / 2 {
                *to_pipeline = BytesMut::with_capacity(INBOX);
            }
            pipeline.flush(*now);
        });
        self.nats_in.clear();
    }

    fn job(&mut self) -> Option<Box<Job>> {
        let mut effects = self.pipeline.effects().drain(..);
        effects.find_map(|effect| match effect {
            Effect::PgWrite { job, .. } => Some(job),
            _ => None,
        })
    }

    // As a lane does it, but for the connection.
    fn write(&mut self, mut job: Box<Job>) -> Box<Job> {
        let Self { catalog, commit, rows, hints, bound, now, .. } = self;
        bound.clear();
        let judged = {
            let originals = job.originals(catalog);
            let bodies = job.bodies(&originals);
            let (decoded, found) = job.decode(catalog, &originals, &bodies);
            let items: Vec<Item<'_>> = decoded.iter().map(Decoded::item).collect();
            commit.begin(items.iter().map(|item| item.company));
            loop {
                match commit.step() {
                    Step::Done => break,
                    Step::Open { event } => commit.opened(items[event as usize].company),
                    Step::Write(events) => {
                        rows.open(now.wall);
                        for event in events {
                            rows.add(&items[*event as usize], hints).expect("it can be written");
                        }
                        rows.seal();
                        for number in 0..rows.calls() {
                            for param in params(&rows.call(number)) {
                                param.to_sql(&Type::TEXT, bound).expect("it has a binary form");
                            }
                        }
                        commit.written(rows.settle(hints));
                    }
                }
            }
            Job::judge(&decoded, found, commit)
        };
        job.settle(judged);
        job
    }

    // Answers what stands in the pipeline's buffer, into `nats_in`.
    fn serve_nats(&mut self) {
        let mut out = BytesMut::from(&self.pipeline.nats_out()[..]);
        section(|| {
            let len = self.pipeline.nats_out().len();
            self.pipeline.nats_out().advance(len);
        });
        while let shards::wire::Step::Done(op) = decode_client(&mut out).expect("the protocol") {
            match op {
                ClientOp::Ping => encode_pong(&mut self.nats_in),
                ClientOp::Pub { subject, reply, payload, .. } => {
                    self.on_publish(&subject, reply.as_deref(), &payload);
                }
                ClientOp::Connect(_) | ClientOp::Pong => {}
                ClientOp::Sub { .. } | ClientOp::Unsub { .. } => {}
            }
        }
    }

    fn on_publish(&mut self, subject: &[u8], reply: Option<&[u8]>, payload: &[u8]) {
        let text = String::from_utf8_lossy(subject);
        if text.starts_with("$JS.ACK.") {
            let number = text.split('.').nth(5).and_then(|part| part.parse().ok());
            self.acked = number.expect("an ack subject");
            return;
        }
        let reply = reply.expect("all else wants an answer");
        if text.starts_with("$JS.API.CONSUMER.MSG.NEXT") {
            self.is_reading |= text.contains(STREAM);
            return; // Served by `deliver`.
        }
        let (sid, answer) = match text.starts_with("$KV.") {
            true => (1, r#"{"stream":"KV", "seq":1}"#),
            false => (2, answer(&text, payload)),
        };
        encode_msg(&mut self.nats_in, reply, sid, None, answer.as_bytes());
    }

    fn connect(&mut self) {
        self.pipeline.handle(self.now, Input::Tick);
        self.pipeline.effects().clear();
        self.pipeline.handle(self.now, Input::NatsOpened(Credentials::None));
        self.pipeline.handle(self.now, Input::PgOpened(0));
        let info = br#"{"version":"2.10.27","headers":true,"max_payload":1048576}"#;
        encode_info(&mut self.nats_in, info);
        for _ in 0..60 {
            self.pipeline.handle(self.now, Input::NatsBytes(&mut self.nats_in));
            self.pipeline.handle(self.now, Input::Tick);
            self.pipeline.flush(self.now);
            self.serve_nats();
            if self.is_reading {
                break;
            }
        }
        self.pipeline.effects().clear();
        assert!(self.is_reading, "the pipeline reads: {:?}", self.pipeline.status());
    }
}

fn ingest_settings() -> Settings {
    let mut settings = settings(1);
    let source = |name: &str, subject: &str, table| {
        let mut source = SourceSettings { stage: StageName::Ingest, ..settings.cdc.source.clone() };
        (source.stream, source.consumer) = (name.to_owned(), "daisi_ingest".to_owned());
        (source.plan.name, source.plan.subjects) = (name.to_owned(), vec![subject.to_owned()]);
        source.table = table;
        source
    };
    settings.ingest = Some(IngestSettings {
        realtime: source(STREAM, "v1.messages.upsert.*", "ingest"),
        history: source("wa_history_stream", "v1.history.>", "history"),
        companies: Vec::new(),
        rate_max: 0,
        connections: 1,
        batch_max: 500,
        batch_bytes_max: 4 << 20,
        write_timeout: 30 * SEC,
        backoff: (250 * MS, 5 * SEC),
        companies_max: 200_000,
    });
    settings.cdc.enabled = false;
    settings
}
