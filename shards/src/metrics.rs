//! Figures of one shard: written by it alone, read by the control thread at any time. Relaxed atomics and
//! a single writer, so that counting costs a load and a store, and a scrape stops nobody. Invariant: one
//! outcome an event; the books add up to what was pulled.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Add `amount`. Only the shard that owns the block may call this: it is no atomic addition.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Add one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Its value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Set it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Its value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Sub-buckets per power of two: a relative error of 1/32 at the most.
const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// Values up to 2^37 ns (137 s); larger ones count in the last bucket.
const VALUE_BITS: u32 = 37;
/// Buckets of a histogram.
pub const BUCKETS: usize = ((VALUE_BITS - SUB_BITS) as usize + 1) * SUB;

/// Log-linear histogram of nanoseconds, the bucketing of HdrHistogram with two significant digits.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect();
        Self { buckets, sum: Counter::default() }
    }
}

impl Histogram {
    /// Count one duration, in nanoseconds.
    pub fn record(&self, value: u64) {
        let bucket = &self.buckets[bucket_of(value)];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        self.sum.add(value);
    }

    /// Non-empty buckets as (largest value in it, count), smallest first, and the sum of all values.
    #[must_use]
    pub fn snapshot(&self) -> (Vec<(u64, u64)>, u64) {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).enumerate();
        let filled = counts.filter(|(_, count)| *count > 0);
        (filled.map(|(place, count)| (bucket_max(place), count)).collect(), self.sum.get())
    }
}

fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    let Some(shift) = (u64::BITS - value.leading_zeros()).checked_sub(SUB_BITS + 1) else {
        return usize::try_from(value).unwrap_or(0); // Below 32 each value has its bucket.
    };
    // 32 to 63 in the first octave, and so on: the top bits after the leading one choose.
    let sub = usize::try_from(value >> shift).unwrap_or(0) - SUB;
    (shift as usize + 1) * SUB + sub
}

fn bucket_max(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let (shift, sub) = (bucket / SUB - 1, bucket % SUB);
    (((SUB + sub) as u64 + 1) << shift) - 1
}

/// How an event ends. Exactly one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Published, with a PubAck.
    Committed,
    /// Done before.
    Duplicate,
    /// Of no interest by rule.
    Filtered,
    /// Handed to the dead-letter stream, with a PubAck.
    DeadLettered,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] =
        [Self::Committed, Self::Duplicate, Self::Filtered, Self::DeadLettered];

    /// Name in labels; those of contract cdc.md section 3.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Committed => "processed",
            Self::Duplicate => "duplicate",
            Self::Filtered => "skipped",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Table labels with counters of their own; the last one stands for everything else.
pub const TABLES: [&str; 5] = ["messages", "chats", "agents", "contacts", "other"];
/// Names from outside that get a label of their own; the peer chooses them, so they are bounded.
pub const NAMES_MAX: usize = 64;
/// Reasons of dead letters: those of the transform, then ours.
pub const REASONS_MAX: usize = 24;

/// Figures of one table.
#[derive(Debug, Default)]
pub struct TableFigures {
    /// By [`Outcome`], in its order.
    pub outcomes: [Counter; 4],
    /// Publishes that were acknowledged, and that failed.
    pub published: [Counter; 2],
    /// Events that were known as done, and that were not.
    pub dedup: [Counter; 2],
    /// From receipt to PubAck.
    pub processing: Histogram,
}

/// Kinds of ingest events with counters of their own; the one behind them stands for what is none.
pub const KIND_UNKNOWN: usize = 10;

/// Figures of the ingest stage.
#[derive(Debug, Default)]
pub struct IngestFigures {
    /// Events taken over by this shard as owner.
    pub pulled: Counter,
    /// Events given back unfinished, to be read again.
    pub returned: Counter,
    /// By kind, then by [`Outcome`].
    pub outcomes: [[Counter; 4]; KIND_UNKNOWN + 1],
    /// Dead letters by reason, in the order of `pipeline::ingest_reason_labels`.
    pub reasons: [Counter; REASONS_MAX],
    /// Of the duplicates: events whose rows held a newer state.
    pub stale: Counter,
    /// Times that a company's limit made its events wait.
    pub limited: Counter,
    /// Messages whose time is likely to be in milliseconds.
    pub suspicious: Counter,
    /// Writes, whatever came of them.
    pub batches: Counter,
    /// Events in them.
    pub batch_events: Counter,
    /// Writes that the database could not take.
    pub away: Counter,
    /// Connections made to PostgreSQL.
    pub connects: Counter,
    /// Events held by this shard as owner.
    pub in_flight: Gauge,
    /// Connections that are open.
    pub lanes: Gauge,
    /// Companies whose events wait.
    pub held: Gauge,
    /// From taking a batch to its end.
    pub write: Histogram,
    /// From receipt to COMMIT.
    pub latency: Histogram,
}

/// What the retries of dead letters count.
#[derive(Debug, Default)]
pub struct DlqFigures {
    /// Letters that have left the stream, by [`Outcome`]: their events are committed, or were done before, or
    /// stand among the exhausted ones.
    pub outcomes: [Counter; 4],
    /// Letters taken over by this shard as owner, again at each try.
    pub pulled: Counter,
    /// Tries that failed.
    pub failed: Counter,
    /// Letters that stay in the stream for a later try.
    pub later: Counter,
    /// Letters that are being tried.
    pub in_flight: Gauge,
}

impl IngestFigures {
    /// Events with this outcome, over all kinds.
    #[must_use]
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().map(|kind| kind[outcome as usize].get()).sum()
    }
}

/// A count under a name that came from outside.
#[derive(Debug)]
pub struct Named {
    /// The name, cut to 64 bytes.
    pub name: String,
    /// How many.
    pub count: Counter,
}

/// Counts under names from outside, in the order of their first sight; full when [`NAMES_MAX`] are in.
#[derive(Debug)]
pub struct NamedCounts([OnceLock<Named>; NAMES_MAX]);

impl Default for NamedCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl NamedCounts {
    /// Names and counts so far.
    pub fn iter(&self) -> impl Iterator<Item = &Named> {
        self.0.iter().map_while(OnceLock::get)
    }

    /// Count one under `name`. False if there is no room for one more name.
    pub fn inc(&self, name: &[u8]) -> bool {
        let name = &name[..name.len().min(64)];
        for slot in &self.0 {
            let new = || Named {
                name: String::from_utf8_lossy(name).into_owned(),
                count: Counter::default(),
            };
            let named = slot.get_or_init(new);
            if named.name.as_bytes() == name {
                named.count.inc();
                return true;
            }
        }
        false
    }
}

/// All figures of a shard. Aligned so that no two shards write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardFigures {
    /// Events taken over by this shard as owner.
    pub pulled: Counter,
    /// Events given back unfinished, to be read again.
    pub returned: Counter,
    /// Copies of messages that were held or done.
    pub redelivered: Counter,
    /// By table, in the order of [`TABLES`].
    pub tables: [TableFigures; TABLES.len()],
    /// Skipped events of tables that no rule names.
    pub foreign: NamedCounts,
    /// Columns the old service did not know, as `<table>.<column>`; empty unless asked for.
    pub unhandled: NamedCounts,
    /// Dead letters by reason, in the order of `pipeline::reasons`.
    pub reasons: [Counter; REASONS_MAX],
    /// Publishes that failed and were sent again.
    pub publish_errors: Counter,
    /// Events sent a second time under a new id, to put them behind an earlier one.
    pub reordered: Counter,
    /// Claims of others (or of an earlier life) that were met and taken over.
    pub claims_met: Counter,
    /// Acks sent.
    pub acks: Counter,
    /// Pulls sent.
    pub pulls: Counter,
    /// Times a partition's reading was begun anew.
    pub resyncs: Counter,
    /// Panics contained.
    pub panics: Counter,
    /// Spans handed over for export.
    pub spans: Counter,
    /// Spans for which there was no room.
    pub spans_dropped: Counter,
    /// Connections made to NATS.
    pub nats_connects: Counter,
    /// Connections made to Redis.
    pub redis_connects: Counter,
    /// Events held by this shard as owner.
    pub in_flight: Gauge,
    /// Bytes held by the readers of this shard.
    pub in_flight_bytes: Gauge,
    /// Companies known.
    pub companies: Gauge,
    /// Ids in the dedup window.
    pub window: Gauge,
    /// Age of the oldest event not acknowledged, ms; 0 when there is none.
    pub lag_ms: Gauge,
    /// Leases held.
    pub leases: Gauge,
    /// Unix ms of the last turn of the shard's loop.
    pub heartbeat_ms: Gauge,
    /// Turns of the shard's loop.
    pub turns: Counter,
    /// From publish to PubAck.
    pub publish: Histogram,
    /// From claim to its reply.
    pub claim: Histogram,
    /// The ingest stage.
    pub ingest: IngestFigures,
    /// The retries of dead letters.
    pub dlq: DlqFigures,
}

impl ShardFigures {
    /// A new block, all zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Count a skipped event of a foreign table under its name, or under `other` when names run out.
    pub fn skip_foreign(&self, name: &[u8]) {
        if !self.foreign.inc(name) {
            self.tables[TABLES.len() - 1].outcomes[Outcome::Filtered as usize].inc();
        }
    }

    /// Events with this outcome, over all tables.
    #[must_use]
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        let named: u64 = self.tables.iter().map(|t| t.outcomes[outcome as usize].get()).sum();
        let foreign = self.foreign.iter().map(|table| table.count.get());
        named + if outcome == Outcome::Filtered { foreign.sum() } else { 0 }
    }

    /// Count all that is held as given back: the pipeline that held it is gone. That one's own count is
    /// not asked, since a panic may have come in the middle of it.
    pub fn give_all_back(&self) {
        let ended: u64 = Outcome::ALL.map(|outcome| self.outcome(outcome)).iter().sum();
        give_back(&self.pulled, ended, &self.returned);
        let ended: u64 = Outcome::ALL.map(|outcome| self.ingest.outcome(outcome)).iter().sum();
        give_back(&self.ingest.pulled, ended, &self.ingest.returned);
        let ended: u64 = self.dlq.outcomes.iter().map(Counter::get).sum();
        give_back(&self.dlq.pulled, ended, &self.dlq.later);
    }
}

fn give_back(pulled: &Counter, ended: u64, returned: &Counter) {
    returned.add(pulled.get().saturating_sub(ended + returned.get()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_foreign_table_is_counted_under_its_name_until_names_run_out() {
        let figures = ShardFigures::new();
        (0..100).for_each(|n| figures.skip_foreign(format!("t{n}").as_bytes()));
        figures.skip_foreign(b"t5");
        assert_eq!(figures.foreign.iter().nth(5).map(|t| t.count.get()), Some(2));
        assert_eq!(figures.tables[4].outcomes[2].get(), 36);
        assert_eq!(figures.outcome(Outcome::Filtered), 101);
    }

    #[test]
    fn what_a_lost_pipeline_held_is_given_back_once() {
        let figures = ShardFigures::new();
        let stages = [
            (&figures.pulled, &figures.tables[1].outcomes[0], &figures.returned),
            (&figures.ingest.pulled, &figures.ingest.outcomes[2][3], &figures.ingest.returned),
            (&figures.dlq.pulled, &figures.dlq.outcomes[1], &figures.dlq.later),
        ];
        for (pulled, ended, returned) in stages {
            pulled.add(10);
            ended.add(3);
            returned.add(2);
        }
        for _ in 0..2 {
            figures.give_all_back();
            assert_eq!(stages.map(|(_, _, returned)| returned.get()), [7; 3]);
        }
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_with_small_error(value in 0u64..(1 << VALUE_BITS)) {
            let bucket = bucket_of(value);
            let max = bucket_max(bucket);
            prop_assert!(value <= max && max - value <= value / 32, "{value} in {bucket} to {max}");
            prop_assert!(bucket == 0 || bucket_max(bucket - 1) < value);
        }
    }
}
