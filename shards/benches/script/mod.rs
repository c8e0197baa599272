//! A pipeline and the scripted NATS and Redis servers it talks to, without IO. The servers agree to
//! everything: streams and consumer exist, no event was done before, each publish is stored. Invariant:
//! what the servers do lies outside of what is measured; the two copies of a socket lie inside.
#![expect(clippy::expect_used, reason = "a script that does not run is a broken bench")]

use super::measure::section;
use bytes::{Buf, BytesMut};
use shards::clock::{MS, Now, SEC};
use shards::domain::cdc::{CdcRules, CdcSettings as RuleSettings};
use shards::id::{Epoch, ShardId};
use shards::metrics::ShardFigures;
use shards::pipeline::{
    AckChoice, CdcSettings, Effect, Input, LeaseSettings, NatsSettings, Pipeline, Quarantine,
    RedisSettings, Settings, SourceSettings, StageName, StreamPlan, tail_number,
};
use shards::wire::Step;
use shards::wire::nats::auth::Credentials;
use shards::wire::nats::conn::ConnSettings;
use shards::wire::nats::decode::{DecodeLimits, decode_client};
use shards::wire::nats::encode::{encode_info, encode_msg, encode_pong};
use shards::wire::nats::op::ClientOp;
use shards::wire::resp::{self, Reply};
use std::hash::{DefaultHasher, Hasher};
use std::io::Write as _;

const SAMPLE: &str = include_str!("../../../tests/golden/cdc/messages_insert.json");
const COMPANY: &str = "CompanyAAA01";
const LSN: &str = "5368722184";
/// As the edge has it.
const INBOX: usize = 256 * 1024;

/// A pipeline that reads, and its servers.
pub(crate) struct Script {
    pipeline: Pipeline,
    now: Now,
    companies: u64,
    /// Events delivered so far.
    pub(crate) delivered: u64,
    /// Events acknowledged so far.
    pub(crate) acked: u64,
    stored: u64,
    reader: String,
    output: DefaultHasher,
    nats_in: BytesMut,
    redis_in: BytesMut,
    to_pipeline: BytesMut,
    redis_to_pipeline: BytesMut,
    body: Body,
}

// A sample with places for company and LSN.
struct Body {
    text: Vec<u8>,
    companies: Vec<usize>,
    lsn: usize,
}

impl Body {
    fn new() -> Self {
        let text = SAMPLE.trim_end();
        let companies = text.match_indices(COMPANY).map(|(at, _)| at).collect();
        let lsn = text.find(LSN).expect("the sample has its LSN");
        Self { text: text.as_bytes().to_vec(), companies, lsn }
    }

    fn fill(&mut self, company: &str, number: u64) {
        for at in &self.companies {
            self.text[*at..*at + COMPANY.len()].copy_from_slice(company.as_bytes());
        }
        let lsn = 5_000_000_000 + number;
        let mut place = &mut self.text[self.lsn..self.lsn + LSN.len()];
        write!(place, "{lsn}").expect("ten digits");
    }
}

impl Script {
    /// A pipeline with a window of `window` ids, whose events come from `companies` in turns.
    pub(crate) fn new(companies: u64, window: u32) -> Self {
        let settings = settings(window);
        let pipeline = Pipeline::new(settings, ShardFigures::new(), 1, Epoch(1), Quarantine::new());
        let mut script = Self {
            pipeline,
            now: Now { mono: SEC, wall: 1_748_772_000 * SEC },
            companies,
            delivered: 0,
            acked: 0,
            stored: 0,
            reader: String::new(),
            output: DefaultHasher::new(),
            nats_in: BytesMut::with_capacity(1 << 20),
            redis_in: BytesMut::with_capacity(1 << 20),
            to_pipeline: BytesMut::with_capacity(INBOX),
            redis_to_pipeline: BytesMut::with_capacity(INBOX),
            body: Body::new(),
        };
        script.connect();
        script
    }

    /// Hash of all that was published.
    pub(crate) fn output_hash(&self) -> u64 {
        self.output.finish()
    }

    /// `count` events from delivery to ack: delivery, claim, its reply, publish, PubAck, done mark and
    /// ack, reply.
    pub(crate) fn batch(&mut self, count: u64) {
        self.now.mono += MS;
        self.now.wall += MS;
        self.deliver(count);
        while !self.nats_in.is_empty() {
            self.nats_turn();
            self.redis_turn();
            self.serve_nats();
        }
        let is_tick = self.delivered.is_multiple_of(16 * count);
        if is_tick {
            section(|| {
                self.pipeline.handle(self.now, Input::Tick);
                self.pipeline.flush(self.now);
            });
        }
        self.serve_nats();
        if is_tick {
            assert_eq!(self.acked, self.delivered, "every event is acknowledged");
        }
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

    // Every command in the pipeline's buffer is answered as by an empty Redis.
    fn redis_turn(&mut self) {
        let mut out = BytesMut::from(&self.pipeline.redis_out()[..]);
        section(|| {
            let len = self.pipeline.redis_out().len();
            self.pipeline.redis_out().advance(len);
        });
        while let Step::Done(Reply::Array(Some(words))) = resp::decode(&mut out).expect("RESP") {
            let reply = match words.len() {
                7 => Reply::Bulk(None),
                _ => Reply::Simple("OK".into()),
            };
            resp::encode_reply(&mut self.redis_in, &reply);
        }
        let Self { pipeline, redis_in, redis_to_pipeline, now, .. } = self;
        section(|| {
            redis_to_pipeline.extend_from_slice(redis_in);
            pipeline.handle(*now, Input::RedisBytes(redis_to_pipeline));
            pipeline.flush(*now);
        });
        self.redis_in.clear();
    }

    fn deliver(&mut self, count: u64) {
        for _ in 0..count {
            self.delivered += 1;
            let number = self.delivered;
            let company = format!("Company{:05}", number % self.companies);
            self.body.fill(&company, number);
            let subject = format!("cdc.{company}.messages");
            let stored = self.now.wall;
            let ack = format!("$JS.ACK.S.cdc_consumers.1.{number}.{number}.{stored}.99");
            let reply = Some(ack.as_bytes());
            encode_msg(&mut self.nats_in, subject.as_bytes(), 16, reply, &self.body.text);
        }
    }

    // Answers what stands in the pipeline's buffer, into `nats_in`.
    fn serve_nats(&mut self) {
        let mut out = BytesMut::from(&self.pipeline.nats_out()[..]);
        section(|| {
            let len = self.pipeline.nats_out().len();
            self.pipeline.nats_out().advance(len);
        });
        while let Step::Done(op) = decode_client(&mut out).expect("the protocol") {
            match op {
                ClientOp::Ping => encode_pong(&mut self.nats_in),
                ClientOp::Pub { subject, reply, headers, payload } => {
                    self.on_publish(&subject, reply.as_deref(), &headers, &payload);
                }
                ClientOp::Connect(_) | ClientOp::Pong => {}
                ClientOp::Sub { .. } | ClientOp::Unsub { .. } => {}
            }
        }
    }

    fn on_publish(&mut self, subject: &[u8], reply: Option<&[u8]>, headers: &[u8], payload: &[u8]) {
        let text = String::from_utf8_lossy(subject);
        if text.starts_with("$JS.ACK.") {
            let number = text.split('.').nth(5).and_then(|part| part.parse().ok());
            self.acked = number.expect("an ack subject");
            return;
        }
        let reply = reply.expect("all else wants an answer");
        let (sid, answer) = if text.starts_with("wa.") {
            [subject, headers, payload].into_iter().for_each(|part| self.output.write(part));
            self.stored += 1;
            (1, format!(r#"{{"stream":"wa_stream", "seq":{}}}"#, self.stored))
        } else if text.starts_with("$KV.") {
            (1, r#"{"stream":"KV", "seq":1}"#.to_owned())
        } else if text.starts_with("$JS.API.CONSUMER.MSG.NEXT") {
            self.reader = String::from_utf8_lossy(reply).into_owned();
            assert!(tail_number(reply).is_some(), "a pull has its number");
            return; // Served by `deliver`.
        } else {
            (2, answer(&text, payload).to_owned())
        };
        encode_msg(&mut self.nats_in, reply, sid, None, answer.as_bytes());
    }

    fn connect(&mut self) {
        self.pipeline.handle(self.now, Input::Tick);
        let asked = self.pipeline.effects().drain(..).count();
        assert_eq!(asked, 2, "both connections are asked for");
        self.pipeline.handle(self.now, Input::NatsOpened(Credentials::None));
        self.pipeline.handle(self.now, Input::RedisOpened);
        encode_info(
            &mut self.nats_in,
            br#"{"version":"2.10.27","headers":true,"max_payload":1048576}"#,
        );
        self.redis_in.extend_from_slice(b"+PONG\r\n");
        self.redis_to_pipeline.clear();
        let greeting = self.pipeline.redis_out().len();
        self.pipeline.redis_out().advance(greeting);
        self.pipeline.handle(self.now, Input::RedisBytes(&mut self.redis_in));
        for _ in 0..40 {
            self.pipeline.handle(self.now, Input::NatsBytes(&mut self.nats_in));
            self.pipeline.handle(self.now, Input::Tick);
            self.pipeline.flush(self.now);
            self.serve_nats();
            if !self.reader.is_empty() {
                break;
            }
        }
        let drained = |effect: &Effect| matches!(effect, Effect::NatsTopology(_));
        assert!(self.pipeline.effects().drain(..).all(|effect| drained(&effect)), "no trouble");
        assert!(!self.reader.is_empty(), "the pipeline reads: {:?}", self.pipeline.status());
    }
}

/// What JetStream's API says: everything is there, and nothing in it.
pub(crate) fn answer(subject: &str, body: &[u8]) -> &'static str {
    if subject.ends_with("STREAM.NAMES") {
        return match body.windows(2).any(|part| part == b"wa") {
            true => r#"{"streams":["wa_stream"]}"#,
            false => r#"{"streams":["dlq_stream"]}"#,
        };
    }
    if subject.contains("STREAM.INFO") {
        return r#"{"config":{"max_age":10000000000,"subjects":["cdc.*.*"],"retention":"limits"},"state":{"last_seq":0}}"#;
    }
    r#"{"config":{"ack_policy":"all","ack_wait":30000000000,"max_ack_pending":5000},"num_ack_pending":0,
        "num_waiting":0,"ack_floor":{"stream_seq":0},"delivered":{"stream_seq":0,"consumer_seq":0}}"#
}

/// The defaults of the configuration.
pub(crate) fn settings(window: u32) -> Settings {
    let backoff = (250 * MS, 5 * SEC);
    Settings {
        replica: "host-1234-5f2b8c9d0e1a2".to_owned(),
        shard: ShardId(0),
        shards: 1,
        nats: NatsSettings {
            conn: ConnSettings {
                name: "bench".to_owned(),
                ping_interval: 10 * SEC,
                handshake_timeout: 5 * SEC,
                tls_required: false,
                tls_first: false,
                limits: DecodeLimits::default(),
            },
            api_timeout: 5 * SEC,
            stream_replicas: 1,
            backoff,
        },
        redis: RedisSettings {
            username: None,
            password: None,
            database: 0,
            reply_timeout: 2 * SEC,
            backoff,
        },
        lease: LeaseSettings {
            bucket: "daisi_leases".to_owned(),
            position_bucket: "daisi_leases_positions".to_owned(),
            ttl: 24 * 3600 * SEC, // Renewals are not what is measured.
        },
        cdc: cdc_settings(window),
        ingest: None,
        dlq: None,
        trace: None,
    }
}

fn cdc_settings(window: u32) -> CdcSettings {
    let stream = |name: &str, subject: &str| StreamPlan {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        age_max: 24 * 3600 * SEC,
        bytes_max: -1,
        duplicate_window: 120 * SEC,
    };
    CdcSettings {
        enabled: true,
        count_unhandled: false,
        rules: CdcRules::compile(&RuleSettings::default()).expect("defaults compile"),
        companies: Vec::new(),
        source: SourceSettings {
            stage: StageName::Cdc,
            table: "cdc",
            stream: "cdc_events_stream".to_owned(),
            plan: stream("cdc_events_stream", "cdc.*.*"),
            extend: false,
            consumer: "cdc_consumers".to_owned(),
            partitions: 1,
            ack: AckChoice::Auto,
            ack_wait: 30 * SEC,
            max_ack_pending: 5000,
            in_flight_max: 4096,
            in_flight_bytes_max: 32 << 20,
        },
        output_prefixes: vec!["wa".to_owned()],
        output_stream: stream("wa_stream", "wa.>"),
        publish_window: 1024,
        publish_timeout: 5 * SEC,
        publish_attempts_max: 5,
        retry_delays: (100 * MS, 2 * SEC),
        dedup_ttl_s: 300,
        claim_ttl_s: 30,
        dedup_window: window,
        dedup_required: true,
        legacy_dedup: false,
        dlq_stream: stream("dlq_stream", "v1.dlq.>"),
        dlq_subject: "v1.dlq".to_owned(),
        dlq_payload_max: 512 << 10,
        companies_max: 200_000,
    }
}
