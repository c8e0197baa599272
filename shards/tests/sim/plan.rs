//! What a seed decides before a run begins: sizes, limits, versions, and the weather. Small limits, so
//! that every one of them bites within a few hundred events.

use fastrand::Rng;
use shards::clock::{MS, SEC};
use shards::domain::cdc::{CdcRules, CdcSettings as Rules};
use shards::id::ShardId;
use shards::pipeline::{
    AckChoice, CdcSettings, LeaseSettings, NatsSettings, RedisSettings, Settings, SourceSettings,
    StageName, StreamPlan,
};
use shards::wire::nats::DecodeLimits;
use shards::wire::nats::conn::ConnSettings;

use crate::link::Net;
use crate::peers::Chance;
use crate::peers::version::Version;

/// Seeds from here on read the source in several partitions, which replicas share.
pub(crate) const SPLIT: u64 = 1 << 32;
/// Seeds from here on have a standby that takes over from a clean stop at the end, while all peers are slow;
/// and a source stream that lacks a subject.
pub(crate) const PAIR: u64 = 1 << 33;
pub(crate) const STREAM: &str = "cdc_events_stream";
pub(crate) const CONSUMER: &str = "daisi_cdc";
pub(crate) const OUTPUT: &str = "wa_stream";
pub(crate) const DEAD_LETTERS: &str = "dlq_stream";

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) replicas: usize,
    pub(crate) companies: u16,
    pub(crate) events: u32,
    /// Longest pause between two events, ns.
    pub(crate) gap_max: u64,
    pub(crate) version: Version,
    pub(crate) workqueue: bool,
    pub(crate) net: Net,
    /// Faults of this run; 0 in fair weather.
    pub(crate) faults: usize,
    /// Drain everything at the end.
    pub(crate) ends_with_drain: bool,
    /// Before that, the replica that reads is drained and another goes on.
    pub(crate) hands_over: bool,
    /// The server sends some PubAcks twice.
    pub(crate) repeats_pubacks: bool,
    /// An operator deletes the consumers in mid-run.
    pub(crate) deletes_consumers: bool,
    /// Longest a shard is busy with a turn, ns.
    pub(crate) busy_max: u64,
    pub(crate) settings: Settings,
}

/// A partition as the servers see it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) stream: String,
    pub(crate) consumer: String,
    /// Begin of its subjects; empty where there is one partition.
    pub(crate) prefix: String,
}

impl Plan {
    /// What the partitions are read from.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let stream = self.settings.cdc.source.read_stream();
        match self.settings.cdc.source.partitions {
            1 => vec![Part { stream, consumer: CONSUMER.into(), prefix: String::new() }],
            count => (0..count)
                .map(|k| Part {
                    stream: stream.clone(),
                    consumer: format!("{CONSUMER}_p{k}"),
                    prefix: format!("p.{k}."),
                })
                .collect(),
        }
    }

    /// As `draw`, for a seed of either kind.
    pub(crate) fn of_seed(seed: u64, rng: &mut Rng) -> Self {
        let mut plan = Self::draw(rng);
        plan.repeats_pubacks = seed % 5 == 1;
        if seed >= PAIR {
            plan.replicas = 2;
            plan.hands_over = true;
            plan.settings.cdc.source.extend = true;
            plan.settings.cdc.source.plan.subjects.push("sequin.*.*.*.*".into());
        } else if seed >= SPLIT {
            plan.settings.cdc.source.partitions = rng.u16(2..=4);
            plan.replicas = rng.usize(1..=3);
            plan.companies = rng.u16(2..=8);
            plan.workqueue = false;
            plan.version = one_of(rng, &[Version::V2_10, Version::V2_15]);
        }
        // Only where nobody begins to read just then: he could not know that the name is still being freed.
        let is_steady = plan.replicas == 1 || plan.settings.cdc.source.partitions == 1;
        plan.deletes_consumers = plan.faults == 0 && is_steady && seed % 2 == 1;
        plan
    }

    fn draw(rng: &mut Rng) -> Self {
        let shards = rng.u16(1..=3);
        let calm = rng.u8(..8) == 0;
        let workqueue = rng.u8(..5) == 0;
        let mut settings = draw_settings(shards, rng);
        if workqueue && settings.cdc.source.ack == AckChoice::All {
            settings.cdc.source.ack = AckChoice::Auto; // The server refuses what the operator asked for.
        }
        Self {
            replicas: rng.usize(1..=2),
            companies: rng.u16(1..=4),
            events: one_of(rng, &[30, 60, 100, 150, 250]),
            gap_max: one_of(rng, &[100_000, MS, 5 * MS, 20 * MS]),
            version: one_of(rng, &[Version::V2_9, Version::V2_10, Version::V2_15]),
            workqueue,
            net: Net {
                latency_max: one_of(rng, &[200_000, 2 * MS, 10 * MS]),
                split: Chance(one_of(rng, &[0.0, 0.05, 0.5])),
            },
            faults: if calm { 0 } else { rng.usize(1..=6) },
            ends_with_drain: rng.bool(),
            repeats_pubacks: false,
            deletes_consumers: false,
            hands_over: false,
            busy_max: one_of(rng, &[50_000, 500_000, 3 * MS]),
            settings,
        }
    }
}

pub(crate) fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

fn draw_settings(shards: u16, rng: &mut Rng) -> Settings {
    let backoff = (50 * MS, 500 * MS);
    let conn = ConnSettings {
        name: "sim".into(),
        ping_interval: one_of(rng, &[SEC, 5 * SEC, 30 * SEC]),
        handshake_timeout: one_of(rng, &[500 * MS, 2 * SEC]),
        tls_required: false,
        tls_first: false,
        limits: DecodeLimits::default(),
    };
    let api_timeout = one_of(rng, &[300 * MS, SEC, 3 * SEC]);
    Settings {
        replica: String::new(),
        shard: ShardId(0),
        shards,
        nats: NatsSettings { conn, api_timeout, stream_replicas: 1, backoff },
        redis: RedisSettings {
            username: None,
            password: None,
            database: 0,
            reply_timeout: one_of(rng, &[200 * MS, SEC, 3 * SEC]),
            backoff,
        },
        lease: LeaseSettings {
            bucket: "daisi_leases".into(),
            position_bucket: "daisi_positions".into(),
            ttl: one_of(rng, &[SEC, 2 * SEC, 4 * SEC]),
        },
        cdc: cdc(rng),
        ingest: None,
        dlq: None,
        trace: None,
    }
}

#[expect(clippy::expect_used, reason = "the default rules compile, or no test here means anything")]
fn cdc(rng: &mut Rng) -> CdcSettings {
    let in_flight_max = one_of(rng, &[1, 4, 8, 16, 64]);
    CdcSettings {
        enabled: true,
        rules: CdcRules::compile(&Rules::default()).expect("defaults compile"),
        companies: Vec::new(),
        source: SourceSettings {
            stage: StageName::Cdc,
            table: "cdc",
            stream: STREAM.into(),
            plan: stream(STREAM, "cdc.*.*"),
            extend: false,
            consumer: CONSUMER.into(),
            partitions: 1,
            ack: one_of(
                rng,
                &[AckChoice::Auto, AckChoice::Auto, AckChoice::All, AckChoice::Explicit],
            ),
            ack_wait: one_of(rng, &[SEC, 5 * SEC, 30 * SEC]),
            max_ack_pending: one_of(rng, &[4, 32, 1000]),
            in_flight_max,
            in_flight_bytes_max: one_of(rng, &[16 << 10, 64 << 10, 32 << 20]),
        },
        output_prefixes: vec!["wa".into()],
        output_stream: stream(OUTPUT, "wa.>"),
        publish_window: one_of(rng, &[1, 2, 8, 64]),
        publish_timeout: one_of(rng, &[200 * MS, SEC, 3 * SEC]),
        publish_attempts_max: one_of(rng, &[1, 3]),
        dedup_ttl_s: 300,
        claim_ttl_s: one_of(rng, &[1, 10, 30]),
        dedup_window: one_of(rng, &[0, 4, 64, 4096]),
        dedup_required: rng.u8(..4) != 0,
        count_unhandled: false,
        retry_delays: (50 * MS, 1_000 * MS),
        legacy_dedup: rng.u8(..5) == 0,
        dlq_stream: stream(DEAD_LETTERS, "v1.dlq.>"),
        dlq_subject: "v1.dlq".into(),
        dlq_payload_max: 64 << 10,
        companies_max: one_of(rng, &[1, 3, 100]),
    }
}

fn stream(name: &str, subject: &str) -> StreamPlan {
    let (name, subjects) = (name.to_owned(), vec![subject.to_owned()]);
    // The window outlives any run: what leaves it is not this simulation's question.
    StreamPlan { name, subjects, age_max: 0, bytes_max: -1, duplicate_window: 3600 * SEC }
}
