//! The configuration checked, resolved and typed: the only thing handed on. Invariant: a `Plan` exists only
//! if every value is inside its bounds and every relation between values holds; nobody checks again.
//! Bounds of single values stand in `keys.rs`; here stand relations, secrets and what needs the machine.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{self, KEYS};
use super::rules;
use super::value::Value;
use super::{Config, Problem};
use crate::host::Cores;

mod read;

pub use shards::edge::target::CredentialSource;
pub use shards::pipeline::TraceSettings;
pub use shards::wire::nats::auth::{Credentials, Secret};

/// A stage this version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Row changes become events for browsers.
    Cdc,
    /// Chat events become rows of PostgreSQL.
    Ingest,
    /// Dead letters of chat events are tried again.
    Dlq,
}

/// Everything the process needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Stages to run, at least one.
    pub stages: Vec<Stage>,
    /// CPU of each shard, at least one; distinct.
    pub shard_cores: Vec<usize>,
    /// How long a shard with nothing to do looks for work before it sleeps.
    pub spin_before_park: Duration,
    /// Companies to take; empty: all.
    pub companies: Vec<String>,
    /// NATS.
    pub nats: NatsPlan,
    /// Redis.
    pub redis: RedisPlan,
    /// Connection string of PostgreSQL, if there is one.
    pub postgres_dsn: Option<Secret>,
    /// Connect to ready, for each address of PostgreSQL.
    pub postgres_connect_timeout: Duration,
    /// The `cdc` stage.
    pub cdc: CdcPlan,
    /// The `ingest` stage.
    pub ingest: IngestPlan,
    /// The `dlq` stage.
    pub dlq: DlqPlan,
    /// Leases of partitions.
    pub lease: LeasePlan,
    /// The control thread.
    pub control: ControlPlan,
    /// Optional metrics.
    pub metrics: MetricsPlan,
    /// Log lines.
    pub log: LogPlan,
    /// Spans.
    pub telemetry: TelemetryPlan,
}

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS is demanded by the scheme.
    pub tls: bool,
    /// User of the address itself; stronger than the section's. A user without password is a NATS token.
    pub user: Option<String>,
    /// Password of the address itself.
    pub password: Option<Secret>,
    /// Path after the host, such as a Redis database; empty without.
    pub path: String,
}

impl ServerAddress {
    /// Who to be at this server: what its address says, else what the section says.
    #[must_use]
    pub fn credentials(&self, section: &CredentialSource) -> CredentialSource {
        CredentialSource::Fixed(match (self.user.clone(), self.password.clone()) {
            (Some(user), Some(password)) => Credentials::UserPassword { user, password },
            (Some(token), None) => Credentials::Token(Secret::new(token)),
            (None, _) => return section.clone(),
        })
    }
}

/// TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPlan {
    /// Authorities to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// TLS begins before the server's first line.
    pub first: bool,
}

impl TlsPlan {
    /// Does a setting of this section alone ask for TLS?
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.first || self.ca_file.is_some() || self.identity.is_some()
    }
}

/// NATS.
#[derive(Clone, Debug)]
pub struct NatsPlan {
    /// Servers, at least one.
    pub servers: Vec<ServerAddress>,
    /// Who daisi is, where the address does not say. A file could be read when the plan was made, and is
    /// read again for each connection.
    pub credentials: CredentialSource,
    /// TLS.
    pub tls: TlsPlan,
    /// TCP connect to PONG.
    pub connect_timeout: Duration,
    /// Silence before a ping.
    pub ping_interval: Duration,
    /// One answer of the JetStream API.
    pub request_timeout: Duration,
    /// Largest inbound frame, bytes.
    pub frame_bytes_max: usize,
    /// Replicas of what daisi creates, 1 to 5.
    pub stream_replicas: u8,
}

/// Redis.
#[derive(Clone, Debug)]
pub struct RedisPlan {
    /// Server.
    pub server: ServerAddress,
    /// Database number.
    pub database: u32,
    /// TCP connect to first answer.
    pub connect_timeout: Duration,
    /// One batch of commands.
    pub command_timeout: Duration,
    /// TLS.
    pub tls: TlsPlan,
}

/// Which acks a partition's consumer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPolicy {
    /// `All` where the stream allows it.
    Auto,
    /// One ack stands for every event before it.
    All,
    /// Each event is acked.
    Explicit,
}

/// Shape of the change events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Told from the event.
    Auto,
    /// Sequin only.
    Sequin,
    /// Debezium only.
    Debezium,
}

/// The `cdc` stage.
#[derive(Clone, Debug)]
pub struct CdcPlan {
    /// Source stream.
    pub stream: String,
    /// Its subjects; presets are resolved, none overlaps another.
    pub subjects: Vec<String>,
    /// Durable consumer.
    pub consumer: String,
    /// Age limit of the source stream if created.
    pub stream_max_age: Duration,
    /// Size limit of the source stream if created, bytes.
    pub stream_bytes_max: u64,
    /// Parts of the source stream, 1 to 256.
    pub partitions: u16,
    /// Tables whose changes are published.
    pub tables: Vec<String>,
    /// Shape of the change events.
    pub envelope: Envelope,
    /// Publish backfills.
    pub forward_backfill: bool,
    /// Stream for published events if none captures them.
    pub output_stream: String,
    /// First tokens of published subjects, one or two.
    pub output_prefixes: Vec<String>,
    /// Subjects of the output stream if created; captures every prefix.
    pub output_subjects: Vec<String>,
    /// Age limit of the output stream if created.
    pub output_max_age: Duration,
    /// Size limit of the output stream if created, bytes.
    pub output_bytes_max: u64,
    /// Duplicate window of the output stream if created.
    pub output_duplicate_window: Duration,
    /// Life of a done key in Redis.
    pub dedup_ttl: Duration,
    /// Pause while Redis is away.
    pub dedup_required: bool,
    /// Published events remembered in memory by each shard.
    pub dedup_lru: usize,
    /// Add missing subjects to an existing source stream.
    pub extend_stream: bool,
    /// Also set the old service's key.
    pub legacy_dedup: bool,
    /// Redelivery time; also the life of a claim.
    pub ack_wait: Duration,
    /// Delivered and not acked, a partition.
    pub max_ack_pending: usize,
    /// Held between receipt and ack, a shard.
    pub max_in_flight: usize,
    /// Held between receipt and ack, a shard, bytes.
    pub in_flight_bytes_max: usize,
    /// Acks.
    pub ack_policy: AckPolicy,
    /// Outstanding publishes, a shard.
    pub publish_window: usize,
    /// Resend after.
    pub publish_timeout: Duration,
    /// Tries of one event.
    pub retry_attempts: u32,
    /// Delay before the second try.
    pub retry_delay_min: Duration,
    /// Longest delay.
    pub retry_delay_max: Duration,
    /// Stream for dead letters if none captures them.
    pub dlq_stream: String,
    /// Subject of dead letters, without the company.
    pub dlq_subject: String,
    /// Largest original embedded in a dead letter, bytes.
    pub dlq_payload_bytes_max: usize,
}

/// A source stream of the `ingest` stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestSource {
    /// The stream.
    pub stream: String,
    /// Durable consumer.
    pub consumer: String,
    /// Age limit if created.
    pub max_age: Duration,
    /// Size limit if created, bytes.
    pub bytes_max: u64,
}

/// The `ingest` stage.
#[derive(Clone, Debug)]
pub struct IngestPlan {
    /// The seven realtime events.
    pub realtime: IngestSource,
    /// The three history events.
    pub history: IngestSource,
    /// Add missing subjects to existing streams.
    pub extend_stream: bool,
    /// Redelivery time.
    pub ack_wait: Duration,
    /// Delivered and not acked, a stream.
    pub max_ack_pending: usize,
    /// Held between receipt and ack, a stream.
    pub max_in_flight: usize,
    /// Held between receipt and ack, a stream, bytes.
    pub in_flight_bytes_max: usize,
    /// Events a second of a company; 0 for no limit.
    pub rate_limit: usize,
    /// Events a transaction.
    pub batch_max: usize,
    /// Bytes of events a transaction.
    pub batch_bytes_max: usize,
    /// Connections a shard.
    pub connections: u16,
    /// PostgreSQL gives up a statement.
    pub statement_timeout: Duration,
    /// A statement gives up waiting for a lock.
    pub lock_timeout: Duration,
    /// Prepared statements a connection.
    pub statements_max: usize,
    /// Folder of schemas put in place of the built-in ones.
    pub schemas: Option<PathBuf>,
    /// Publication that new tables join.
    pub publication: Option<String>,
    /// Does an absent count reset the stored one?
    pub absent_unread_resets: bool,
    /// Last batch of a history to its post-scan.
    pub post_scan_delay: Duration,
    /// Difference of clocks.
    pub clock_skew: Duration,
}

/// The `dlq` stage.
#[derive(Clone, Debug)]
pub struct DlqPlan {
    /// Durable consumer.
    pub consumer: String,
    /// Tries before a letter is given up.
    pub max_retries: u64,
    /// Take settled letters out of the stream.
    pub delete_settled: bool,
    /// Delay after the first try.
    pub delay_min: Duration,
    /// The largest delay.
    pub delay_max: Duration,
    /// Redelivery time of a letter that is being tried.
    pub ack_wait: Duration,
    /// Delivered and not acked.
    pub max_ack_pending: usize,
    /// Being tried at once.
    pub max_in_flight: usize,
}

/// Leases of partitions.
#[derive(Clone, Debug)]
pub struct LeasePlan {
    /// Life of a lease that is not renewed.
    pub ttl: Duration,
    /// Key-value bucket.
    pub bucket: String,
}

/// The control thread.
#[derive(Clone, Debug)]
pub struct ControlPlan {
    /// Address of the pages.
    pub listen: SocketAddr,
    /// CPU of the thread; `None` where every CPU has a shard.
    pub core: Option<usize>,
    /// Longest clean stop.
    pub drain_deadline: Duration,
    /// Silence of a shard that counts as a stall.
    pub stall_after: Duration,
}

/// Optional metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsPlan {
    /// Companies with series of their own.
    pub companies_max: usize,
    /// Count columns the old service did not know.
    pub unhandled_fields: bool,
}

/// Log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// Least severe level logged.
    pub level: tracing::Level,
    /// JSON, or text for people.
    pub json: bool,
}

/// Spans of events, and who takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryPlan {
    /// The collector; without one no spans are made.
    pub endpoint: Option<String>,
    /// Headers of each export.
    pub headers: Vec<(String, Secret)>,
    /// Which events without a trace begin one.
    pub sampling: TraceSettings,
    /// Name of this service.
    pub service: String,
}

/// All that keeps a configuration from becoming a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for PlanError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(out, "{count} problem{plural} in the configuration")?;
        self.problems.iter().try_for_each(|problem| write!(out, "\n{problem}"))
    }
}

impl std::error::Error for PlanError {}

impl TryFrom<Config> for Plan {
    type Error = PlanError;

    fn try_from(config: Config) -> Result<Self, PlanError> {
        Self::resolve(&config, &Cores::read())
    }
}

impl Plan {
    /// Checks the configuration against itself and against the cores of a machine.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn resolve(config: &Config, cores: &Cores) -> Result<Self, PlanError> {
        let mut reader = read::Reader::new(config);
        let plan = reader.plan(cores);
        let problems = reader.into_problems();
        if problems.is_empty() { Ok(plan) } else { Err(PlanError { problems }) }
    }
}

#[cfg(test)]
mod tests;
