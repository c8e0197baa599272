//! A plan becomes what each shard is told. Cold and total: what cannot be translated is said, not guessed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::shards::clock::MS;
use ::shards::domain::cdc::{CdcRules, CdcSettings as RuleSettings, EnvelopeRule};
use ::shards::edge::pg::connect::{self, PgTarget};
use ::shards::edge::pg::describe;
use ::shards::edge::pg::lane::PgPlan;
use ::shards::edge::pg::migrate::Options;
use ::shards::edge::pg::write::SessionSettings;
use ::shards::edge::target::{Address, NatsTarget, RedisTarget};
use ::shards::id::ShardId;
use ::shards::pipeline::commit::Settings as BatchSettings;
use ::shards::pipeline::{
    AckChoice, CdcSettings, DlqSettings, IngestSettings, LeaseSettings, NatsSettings,
    RedisSettings, Settings, SourceSettings, StageName, StreamPlan,
};
use ::shards::shard::ShardPlan;
use ::shards::wire::nats::DecodeLimits;
use ::shards::wire::nats::conn::ConnSettings;

use crate::config::plan::{
    AckPolicy, CdcPlan, DlqPlan, Envelope, IngestPlan, IngestSource, Plan, Secret, ServerAddress,
    Stage, TlsPlan,
};
use crate::{schemas, tls};

/// Backoff between attempts to connect. The cap is what keeps the resumption after an outage below 2 s.
const BACKOFF: (u64, u64) = (50 * MS, 1_000 * MS);
/// Companies whose state a shard keeps at once.
const COMPANIES_MAX: u32 = 200_000;
/// Bytes of dead letters that are tried at once: a quarter holds the largest that a server may allow by default.
const LETTERS_BYTES_MAX: u64 = 16 << 20;
/// Subjects of the ingest streams: contract ingest.md section 1.1.
const REALTIME_SUBJECTS: [&str; 7] = [
    "v1.chats.upsert.*",
    "v1.chats.update.*",
    "v1.messages.upsert.*",
    "v1.messages.update.*",
    "v1.contacts.upsert.*",
    "v1.contacts.update.*",
    "v1.connection.update.*",
];
const HISTORY_SUBJECTS: [&str; 3] =
    ["v1.history.chats.*", "v1.history.messages.*", "v1.history.contacts.*"];
/// Dead letters of the server's own duplicate window and age: contract ingest.md section 1.2.
const DLQ_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A plan for each shard.
///
/// # Errors
/// A file or a rule that cannot be used, in words.
pub fn shard_plans(plan: &Plan) -> Result<Vec<ShardPlan>, String> {
    let nats = nats_target(plan)?;
    let redis = redis_target(plan)?;
    let postgres = pg_plan(plan)?;
    let shards = u16::try_from(plan.shard_cores.len()).map_err(|_| "too many shards".to_owned())?;
    let replica = replica_name();
    (0..shards)
        .zip(&plan.shard_cores)
        .map(|(shard, core)| {
            Ok(ShardPlan {
                settings: settings(plan, &replica, ShardId(shard), shards)?,
                nats: nats.clone(),
                redis: redis.clone(),
                postgres: postgres.clone(),
                core: Some(*core),
                spin: plan.spin_before_park,
                spans: None,
            })
        })
        .collect()
}

/// Letters that one lane between two shards can hold: all that can be in flight, twice.
#[must_use]
pub fn lane_capacity(plan: &Plan) -> usize {
    let cdc = plan.cdc.max_in_flight * usize::from(plan.cdc.partitions);
    2 * (cdc + 2 * plan.ingest.max_in_flight) + 1024
}

// Unique per start: a lease or a claim of an earlier life is somebody else's. In the order of starts, so that
// who comes later takes nothing from those before it unless they have more than their share.
fn replica_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("{started:014x}-{}-{}", host.trim(), std::process::id())
}

fn settings(plan: &Plan, replica: &str, shard: ShardId, shards: u16) -> Result<Settings, String> {
    let nats = &plan.nats;
    Ok(Settings {
        replica: replica.to_owned(),
        shard,
        shards,
        nats: NatsSettings {
            conn: ConnSettings {
                name: format!("daisi/{replica}/shard-{shard}"),
                ping_interval: ns(nats.ping_interval),
                handshake_timeout: ns(nats.connect_timeout),
                tls_required: nats.tls.is_wanted() || nats.servers.iter().any(|s| s.tls),
                tls_first: nats.tls.first,
                limits: DecodeLimits { frame_max: nats.frame_bytes_max, ..DecodeLimits::default() },
            },
            api_timeout: ns(nats.request_timeout),
            stream_replicas: nats.stream_replicas,
            backoff: BACKOFF,
        },
        redis: RedisSettings {
            username: plan.redis.server.user.clone(),
            password: plan.redis.server.password.as_ref().map(|s: &Secret| s.expose().to_owned()),
            database: plan.redis.database,
            reply_timeout: ns(plan.redis.command_timeout),
            backoff: BACKOFF,
        },
        lease: LeaseSettings {
            bucket: plan.lease.bucket.clone(),
            position_bucket: format!("{}_positions", plan.lease.bucket),
            ttl: ns(plan.lease.ttl),
        },
        cdc: cdc_settings(plan)?,
        ingest: plan.stages.contains(&Stage::Ingest).then(|| ingest_settings(plan)),
        dlq: plan.stages.contains(&Stage::Dlq).then(|| dlq_settings(&plan.dlq)),
        trace: plan.telemetry.endpoint.as_ref().map(|_| plan.telemetry.sampling),
    })
}

fn dlq_settings(dlq: &DlqPlan) -> DlqSettings {
    DlqSettings {
        consumer: dlq.consumer.clone(),
        attempts_max: dlq.max_retries,
        deletes: dlq.delete_settled,
        delays: (ns(dlq.delay_min), ns(dlq.delay_max)),
        ack_wait: ns(dlq.ack_wait),
        max_ack_pending: count(dlq.max_ack_pending),
        in_flight_max: count(dlq.max_in_flight),
        in_flight_bytes_max: LETTERS_BYTES_MAX,
    }
}

fn ingest_settings(plan: &Plan) -> IngestSettings {
    let ingest = &plan.ingest;
    IngestSettings {
        realtime: ingest_source(ingest, &ingest.realtime, &REALTIME_SUBJECTS),
        history: ingest_source(ingest, &ingest.history, &HISTORY_SUBJECTS),
        companies: plan.companies.clone(),
        rate_max: count(ingest.rate_limit),
        connections: ingest.connections,
        batch_max: count(ingest.batch_max),
        batch_bytes_max: ingest.batch_bytes_max as u64,
        // Several statements, each with its own bound, which PostgreSQL keeps while it answers at all.
        write_timeout: 2 * ns(ingest.statement_timeout),
        backoff: BACKOFF,
        companies_max: COMPANIES_MAX,
    }
}

fn ingest_source(ingest: &IngestPlan, source: &IngestSource, subjects: &[&str]) -> SourceSettings {
    SourceSettings {
        stage: StageName::Ingest,
        table: "ingest",
        stream: source.stream.clone(),
        plan: stream_plan(
            &source.stream,
            subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            source.max_age,
            Some(source.bytes_max),
            DUPLICATE_WINDOW,
        ),
        extend: ingest.extend_stream,
        consumer: source.consumer.clone(),
        partitions: 1,
        ack: AckChoice::Auto,
        ack_wait: ns(ingest.ack_wait),
        max_ack_pending: count(ingest.max_ack_pending),
        in_flight_max: count(ingest.max_in_flight),
        in_flight_bytes_max: ingest.in_flight_bytes_max as u64,
    }
}

fn stream_plan(
    name: &str,
    subjects: Vec<String>,
    age: Duration,
    bytes: Option<u64>,
    window: Duration,
) -> StreamPlan {
    StreamPlan {
        name: name.to_owned(),
        subjects,
        age_max: ns(age),
        bytes_max: bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        duplicate_window: ns(window),
    }
}

/// What every lane to PostgreSQL is made from, where a stage needs them.
fn pg_plan(plan: &Plan) -> Result<Option<PgPlan>, String> {
    let (true, Some(dsn)) = (plan.stages.contains(&Stage::Ingest), &plan.postgres_dsn) else {
        return Ok(None);
    };
    let ingest = &plan.ingest;
    let catalog = schemas::load(ingest.schemas.as_deref()).map_err(|error| error.to_string())?;
    Ok(Some(PgPlan {
        target: PgTarget {
            config: connect::parse(dsn.expose()).map_err(|error| describe(&error))?,
            tls: Arc::new(tls::client_config(&TlsPlan::default())?),
            connect_timeout: plan.postgres_connect_timeout,
        },
        session: SessionSettings {
            statements_max: ingest.statements_max,
            statement_timeout: ingest.statement_timeout,
            lock_timeout: ingest.lock_timeout,
            schemas: Options { publication: ingest.publication.clone() },
        },
        batch: BatchSettings {
            skew_ns: ns(ingest.clock_skew),
            absent_unread_resets: ingest.absent_unread_resets,
            post_scan_delay_ms: u32::try_from(ingest.post_scan_delay.as_millis())
                .unwrap_or(u32::MAX),
        },
        catalog: Arc::new(catalog),
    }))
}

fn cdc_settings(plan: &Plan) -> Result<CdcSettings, String> {
    let cdc = &plan.cdc;
    Ok(CdcSettings {
        enabled: plan.stages.contains(&Stage::Cdc),
        rules: rules(cdc)?,
        companies: plan.companies.clone(),
        source: SourceSettings {
            stage: StageName::Cdc,
            table: "cdc",
            stream: cdc.stream.clone(),
            plan: stream_plan(
                &cdc.stream,
                cdc.subjects.clone(),
                cdc.stream_max_age,
                Some(cdc.stream_bytes_max),
                DUPLICATE_WINDOW,
            ),
            extend: cdc.extend_stream,
            consumer: cdc.consumer.clone(),
            partitions: cdc.partitions,
            ack: match cdc.ack_policy {
                AckPolicy::Auto => AckChoice::Auto,
                AckPolicy::All => AckChoice::All,
                AckPolicy::Explicit => AckChoice::Explicit,
            },
            ack_wait: ns(cdc.ack_wait),
            max_ack_pending: count(cdc.max_ack_pending),
            in_flight_max: count(cdc.max_in_flight),
            in_flight_bytes_max: cdc.in_flight_bytes_max as u64,
        },
        output_prefixes: cdc.output_prefixes.clone(),
        output_stream: stream_plan(
            &cdc.output_stream,
            cdc.output_subjects.clone(),
            cdc.output_max_age,
            Some(cdc.output_bytes_max),
            cdc.output_duplicate_window,
        ),
        publish_window: count(cdc.publish_window),
        publish_timeout: ns(cdc.publish_timeout),
        publish_attempts_max: cdc.retry_attempts,
        retry_delays: (ns(cdc.retry_delay_min), ns(cdc.retry_delay_max)),
        dedup_ttl_s: seconds(cdc.dedup_ttl),
        claim_ttl_s: seconds(cdc.ack_wait),
        dedup_window: count(cdc.dedup_lru),
        dedup_required: cdc.dedup_required,
        legacy_dedup: cdc.legacy_dedup,
        count_unhandled: plan.metrics.unhandled_fields,
        dlq_stream: stream_plan(
            &cdc.dlq_stream,
            vec![format!("{}.>", cdc.dlq_subject)],
            DLQ_AGE,
            None,
            DUPLICATE_WINDOW,
        ),
        dlq_subject: cdc.dlq_subject.clone(),
        dlq_payload_max: cdc.dlq_payload_bytes_max,
        companies_max: COMPANIES_MAX,
    })
}

fn rules(cdc: &CdcPlan) -> Result<CdcRules, String> {
    CdcRules::compile(&RuleSettings {
        tables: cdc.tables.clone(),
        envelope: match cdc.envelope {
            Envelope::Auto => EnvelopeRule::Auto,
            Envelope::Sequin => EnvelopeRule::Sequin,
            Envelope::Debezium => EnvelopeRule::Debezium,
        },
        forward_backfill: cdc.forward_backfill,
        output_prefixes: cdc.output_prefixes.clone(),
    })
    .map_err(|error| error.to_string())
}

fn nats_target(plan: &Plan) -> Result<NatsTarget, String> {
    let nats = &plan.nats;
    let seeds = nats.servers.iter().map(address).collect();
    let own = nats.servers.first().map(|server| server.credentials(&nats.credentials));
    Ok(NatsTarget {
        seeds,
        credentials: own.unwrap_or_else(|| nats.credentials.clone()),
        tls: Arc::new(tls::client_config(&nats.tls)?),
        connect_timeout: nats.connect_timeout,
    })
}

fn redis_target(plan: &Plan) -> Result<RedisTarget, String> {
    let redis = &plan.redis;
    let tls = redis.server.tls.then(|| tls::client_config(&redis.tls).map(Arc::new)).transpose()?;
    let connect_timeout = redis.connect_timeout;
    Ok(RedisTarget { address: address(&redis.server), tls, connect_timeout })
}

fn address(server: &ServerAddress) -> Address {
    Address::new(&server.host, server.port)
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs().max(1)).unwrap_or(u32::MAX)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
