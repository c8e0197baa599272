//! What a pipeline is told once, at its start: checked values only (`config::plan` makes them), times in
//! nanoseconds. No files, no addresses: those are the edge's.

use crate::domain::cdc::CdcRules;
use crate::id::ShardId;
use crate::wire::nats::conn::ConnSettings;

/// Everything one shard's pipeline needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this process among its replicas, unique per start.
    pub replica: String,
    /// This shard.
    pub shard: ShardId,
    /// Shards in this process.
    pub shards: u16,
    /// The NATS connection.
    pub nats: NatsSettings,
    /// The Redis connection.
    pub redis: RedisSettings,
    /// The leases on partitions.
    pub lease: LeaseSettings,
    /// The CDC stage.
    pub cdc: CdcSettings,
    /// The ingest stage, if it runs.
    pub ingest: Option<IngestSettings>,
    /// The retries of dead letters, if they run; never without ingest.
    pub dlq: Option<DlqSettings>,
    /// Spans of events, if somebody takes them.
    pub trace: Option<TraceSettings>,
}

/// Which events are recorded as spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Of events without a trace, those whose hash lies below.
    pub sample_below: u64,
}

impl TraceSettings {
    /// From the share of events, 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of the whole range, cut to it"
    )]
    pub fn of_ratio(ratio: f64) -> Self {
        Self { sample_below: (ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64 }
    }
}

impl Settings {
    /// What is read, in an order that numbers the partitions: first those of CDC.
    #[must_use]
    pub fn sources(&self) -> Vec<&SourceSettings> {
        let cdc = self.cdc.enabled.then_some(&self.cdc.source);
        let ingest = self.ingest.iter().flat_map(|ingest| [&ingest.realtime, &ingest.history]);
        cdc.into_iter().chain(ingest).collect()
    }
}

/// The NATS connection and its JetStream API.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// Handshake, keep-alive, bounds.
    pub conn: ConnSettings,
    /// Bound on one API request.
    pub api_timeout: u64,
    /// Replicas of the streams and buckets that daisi creates.
    pub stream_replicas: u8,
    /// First and largest delay between two attempts to connect.
    pub backoff: (u64, u64),
}

/// The Redis connection.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// ACL user, if not the default one.
    pub username: Option<String>,
    /// Password, if the server wants one.
    pub password: Option<String>,
    /// Database number.
    pub database: u32,
    /// A reply that takes longer means that the connection is dead.
    pub reply_timeout: u64,
    /// First and largest delay between two attempts to connect.
    pub backoff: (u64, u64),
}

/// Who reads a partition.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Bucket of the leases.
    pub bucket: String,
    /// Bucket of the positions that outlive a consumer's re-creation.
    pub position_bucket: String,
    /// Life of a lease without renewal.
    pub ttl: u64,
}

/// A stream as it is created when it is missing.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// Its name.
    pub name: String,
    /// Its subjects.
    pub subjects: Vec<String>,
    /// Life of a message, ns.
    pub age_max: u64,
    /// Bound on all messages; -1 for none.
    pub bytes_max: i64,
    /// How long a message id is remembered, ns.
    pub duplicate_window: u64,
}

/// How the source is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckChoice {
    /// One ack for all before it, where the stream allows that.
    Auto,
    /// Always one ack for all before it.
    All,
    /// An ack for each message.
    Explicit,
}

/// Who an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageName {
    /// Row changes become events for browsers.
    Cdc,
    /// Chat events become rows.
    Ingest,
    /// Dead letters are tried again, by what ingest does.
    Dlq,
}

impl StageName {
    /// As the configuration names it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cdc => "cdc",
            Self::Ingest => "ingest",
            Self::Dlq => "dlq",
        }
    }
}

/// A stream that is read, and how.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// The stage that its events are for.
    pub stage: StageName,
    /// The table of the configuration that it stands in, for messages to the operator.
    pub table: &'static str,
    /// Source stream.
    pub stream: String,
    /// The source stream, when it has to be created.
    pub plan: StreamPlan,
    /// Add missing subjects to an existing stream.
    pub extend: bool,
    /// Durable consumer; with several partitions `_p<k>` is appended.
    pub consumer: String,
    /// Partitions of the source; more than one needs NATS 2.10, and reads a stream that daisi makes:
    /// it sources the first and puts `p.<k>.` before each subject, `k` by the company.
    pub partitions: u16,
    /// Ack policy of a consumer that has to be created.
    pub ack: AckChoice,
    /// `ack_wait` of a consumer that has to be created.
    pub ack_wait: u64,
    /// `max_ack_pending` of a consumer that has to be created.
    pub max_ack_pending: u32,
    /// Events asked for or held per partition.
    pub in_flight_max: u32,
    /// Bytes asked for or held per partition.
    pub in_flight_bytes_max: u64,
}

impl SourceSettings {
    /// The stream that is read: the source itself, or the one that splits it.
    #[must_use]
    pub fn read_stream(&self) -> String {
        match self.partitions {
            0 | 1 => self.stream.clone(),
            partitions => format!("{}_p{partitions}", self.stream),
        }
    }
}

/// The CDC stage.
#[derive(Clone, Debug)]
pub struct CdcSettings {
    /// Run the stage at all.
    pub enabled: bool,
    /// What is forwarded, and as what.
    pub rules: CdcRules,
    /// Where the changes come from.
    pub source: SourceSettings,
    /// Companies to take; empty: all. Others are filtered.
    pub companies: Vec<String>,
    /// Prefixes of the output subjects; one publish each.
    pub output_prefixes: Vec<String>,
    /// Output stream, when none captures the output subjects.
    pub output_stream: StreamPlan,
    /// Publishes without PubAck at once.
    pub publish_window: u32,
    /// A PubAck that takes longer counts as failed.
    pub publish_timeout: u64,
    /// Attempts at a publish that is refused for good before it is dead-lettered.
    pub publish_attempts_max: u32,
    /// First and largest delay before a failed publish is sent again.
    pub retry_delays: (u64, u64),
    /// Redis keys of done events live this long, in seconds.
    pub dedup_ttl_s: u32,
    /// Redis keys of claims live this long, in seconds.
    pub claim_ttl_s: u32,
    /// Ids in the window of each shard.
    pub dedup_window: u32,
    /// Pause while Redis is away; otherwise go on, guarded by `Nats-Msg-Id` alone.
    pub dedup_required: bool,
    /// Also set the keys of the old service.
    pub legacy_dedup: bool,
    /// Count the columns that the old service did not know.
    pub count_unhandled: bool,
    /// Dead-letter stream, when none captures its subjects.
    pub dlq_stream: StreamPlan,
    /// Subject of dead letters; the company follows as a token.
    pub dlq_subject: String,
    /// Largest original embedded in a dead letter, bytes.
    pub dlq_payload_max: usize,
    /// Companies whose state is kept at once; idle ones make room.
    pub companies_max: u32,
}

/// The ingest stage. Its dead letters go where those of CDC go.
#[derive(Clone, Debug)]
pub struct IngestSettings {
    /// The stream of the seven realtime events.
    pub realtime: SourceSettings,
    /// The stream of the three history events.
    pub history: SourceSettings,
    /// Companies to take; empty: all. Others are filtered.
    pub companies: Vec<String>,
    /// Events a second that one company may write; 0 for no limit.
    pub rate_max: u32,
    /// Connections to PostgreSQL, each with a lane of companies.
    pub connections: u16,
    /// Events written together.
    pub batch_max: u32,
    /// Bytes of events written together; one larger event is written alone.
    pub batch_bytes_max: u64,
    /// A write that takes longer means that the connection is dead.
    pub write_timeout: u64,
    /// First and largest delay before PostgreSQL is tried again.
    pub backoff: (u64, u64),
    /// Companies whose state is kept at once; idle ones make room.
    pub companies_max: u32,
}

/// The retries of dead letters; their stream and subject are those of CDC's settings.
#[derive(Clone, Debug)]
pub struct DlqSettings {
    /// Durable consumer, shared by all replicas.
    pub consumer: String,
    /// Tries after which a letter is given up.
    pub attempts_max: u64,
    /// Take letters that are settled out of the stream.
    pub deletes: bool,
    /// Delay after the first try that failed, and the largest; ns.
    pub delays: (u64, u64),
    /// `ack_wait` of a consumer that has to be created.
    pub ack_wait: u64,
    /// `max_ack_pending` of a consumer that has to be created. Letters that wait for their delay count.
    pub max_ack_pending: u32,
    /// Letters asked for or held.
    pub in_flight_max: u32,
    /// Bytes asked for or held.
    pub in_flight_bytes_max: u64,
}
