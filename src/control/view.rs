//! What the control thread may see of a shard: plain numbers, copied on request. The shard's side implements
//! `ShardView` over its own counters; a scrape reads and never stops it. Invariant: every total only rises
//! during the life of a process.

use std::time::Duration;

/// One shard, as the control thread sees it. Both calls must be cheap and must not wait for the shard.
pub trait ShardView: Send + Sync {
    /// Counters and histograms, for `/metrics`.
    fn snapshot(&self) -> ShardSnapshot;
    /// Condition, for `/ready`, `/health` and `/shards`.
    fn status(&self) -> ShardStatus;
}

/// How an event ended: exactly one of these (design §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Published, PubAck received.
    Committed,
    /// A table or action that is not published.
    Filtered,
    /// Its effect had been published before.
    Duplicate,
    /// Put into the dead-letter stream.
    DeadLettered,
    /// Gone from the stream before it could be handled.
    Expired,
}

impl Outcome {
    /// Value of the label `result`; the first four are the contract's words (cdc.md §3).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "processed",
            Self::Filtered => "skipped",
            Self::Duplicate => "duplicate",
            Self::DeadLettered => "dead_lettered",
            Self::Expired => "expired",
        }
    }
}

/// Events of one table with one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCount {
    /// Table, from a bounded set; `unknown` where none could be read.
    pub table: String,
    /// How they ended.
    pub outcome: Outcome,
    /// Why, for dead letters; empty otherwise.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// Publishes of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishCount {
    /// Table.
    pub table: String,
    /// PubAck received.
    pub succeeded: u64,
    /// Refused or timed out, one for each attempt.
    pub failed: u64,
}

/// Deduplication of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DedupCount {
    /// Table.
    pub table: String,
    /// Found done.
    pub hits: u64,
    /// Not seen before.
    pub misses: u64,
}

/// Times of one kind, as `(nanoseconds, count)` pairs: each count stands for values up to and near that one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Pairs with a count above 0, in any order.
    pub pairs: Vec<(u64, u64)>,
    /// Sum of all values, nanoseconds.
    pub sum_ns: u64,
}

/// Times of one table, receipt to PubAck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableTimes {
    /// Table.
    pub table: String,
    /// The times.
    pub times: Buckets,
}

/// A column the old service did not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnhandledField {
    /// Table.
    pub table: String,
    /// Column.
    pub field: String,
    /// How often it was seen.
    pub count: u64,
}

/// Events of one company.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompanyCount {
    /// Company.
    pub company: String,
    /// Received, each event once, redeliveries again.
    pub pulled: u64,
    /// Outcome [`Outcome::Committed`].
    pub committed: u64,
    /// Outcome [`Outcome::Filtered`].
    pub filtered: u64,
    /// Outcome [`Outcome::Duplicate`].
    pub duplicate: u64,
    /// Outcome [`Outcome::DeadLettered`].
    pub dead_lettered: u64,
    /// Outcome [`Outcome::Expired`].
    pub expired: u64,
    /// Received, without an outcome yet.
    pub in_flight: u64,
}

/// Counters of the ingest stage on one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestSnapshot {
    /// Events received; redeliveries count again.
    pub pulled: u64,
    /// Events given back without an outcome, to be read again.
    pub returned: u64,
    /// Events without an outcome yet.
    pub in_flight: u64,
    /// Events that have an outcome, by kind.
    pub events: Vec<(&'static str, Outcome, u64)>,
    /// Dead letters by reason; those that there are.
    pub reasons: Vec<(&'static str, u64)>,
    /// Of the duplicates: events whose rows held a newer state.
    pub stale: u64,
    /// Times that a company's limit made its events wait.
    pub limited: u64,
    /// Messages whose time is likely to be in milliseconds.
    pub suspicious: u64,
    /// Writes.
    pub batches: u64,
    /// Events in them.
    pub batch_events: u64,
    /// Writes that the database could not take.
    pub away: u64,
    /// Connections that are open.
    pub lanes: u64,
    /// Companies whose events wait for one to look.
    pub held: u64,
    /// Taking a batch to its end.
    pub write_times: Buckets,
    /// Receipt to COMMIT.
    pub latency: Buckets,
    /// Retries of dead letters.
    pub letters: LetterCounts,
}

/// Counters of the retries of dead letters. Received = outcomes + kept + in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterCounts {
    /// Letters received, again at each try.
    pub pulled: u64,
    /// Letters whose events are committed.
    pub committed: u64,
    /// Letters whose events were done before, or are older than what the rows hold.
    pub duplicate: u64,
    /// Letters that are rows of `exhausted_events` now.
    pub exhausted: u64,
    /// Letters that stay in the stream for a later try.
    pub later: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Letters that are being tried.
    pub in_flight: u64,
}

/// Counters of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Events received; redeliveries count again.
    pub pulled: u64,
    /// Events given back without an outcome, to be read again.
    pub returned: u64,
    /// Deliveries of events that were held or done already; not in `pulled`.
    pub redelivered: u64,
    /// Events without an outcome yet.
    pub in_flight: u64,
    /// Their bytes.
    pub in_flight_bytes: u64,
    /// Events that have an outcome.
    pub events: Vec<EventCount>,
    /// Publishes.
    pub published: Vec<PublishCount>,
    /// Deduplication.
    pub dedup: Vec<DedupCount>,
    /// Receipt to PubAck.
    pub processing: Vec<TableTimes>,
    /// Publish to PubAck.
    pub publish_times: Buckets,
    /// One batch of Redis commands.
    pub redis_times: Buckets,
    /// Columns the old service did not know; empty unless asked for.
    pub unhandled_fields: Vec<UnhandledField>,
    /// The ingest stage, if it runs.
    pub ingest: Option<IngestSnapshot>,
    /// Companies of this shard; empty unless asked for.
    pub companies: Vec<CompanyCount>,
    /// Connections made again after a loss.
    pub reconnects: u64,
    /// Panics contained.
    pub panics: u64,
    /// Spans handed over for export.
    pub spans: u64,
    /// Spans for which there was no room.
    pub spans_dropped: u64,
    /// Turns of the shard's loop.
    pub turns: u64,
}

/// Condition of something a shard needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DependencyState {
    /// Works.
    Up,
    /// Not needed at this moment, such as a partition another replica holds.
    Standby,
    /// Not there yet since the start.
    Starting(String),
    /// Lost, refused or stuck, with the cause.
    Down(String),
}

/// Something a shard needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// From a fixed set: `nats`, `redis`, `stream`, `consumer`, `output`, `lease`.
    pub name: &'static str,
    /// Its condition.
    pub state: DependencyState,
    /// How long it has been so.
    pub since: Duration,
}

/// Condition of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardStatus {
    /// Number of the shard, from 0.
    pub shard: usize,
    /// CPU it is pinned to.
    pub core: usize,
    /// Time since its loop last turned.
    pub heartbeat_age: Duration,
    /// Companies it holds state of.
    pub companies: u64,
    /// Partitions it reads.
    pub partitions: Vec<u16>,
    /// Events without an outcome yet.
    pub in_flight: u64,
    /// Age of the oldest event not yet acked; zero without one.
    pub lag: Duration,
    /// Companies whose events cannot be written now, and why; some of them.
    pub held: Vec<(String, String)>,
    /// What it needs.
    pub dependencies: Vec<Dependency>,
}
