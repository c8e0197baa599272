//! What the shards have counted so far, summed: the CDC half and the ingest half of the demo.

use crate::control::Board;
use crate::control::view::{LetterCounts, Outcome, ShardSnapshot};

/// The CDC half: sums over all shards.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) pulled: u64,
    pub(super) committed: u64,
    pub(super) duplicate: u64,
    pub(super) filtered: u64,
    pub(super) dead: u64,
    pub(super) returned: u64,
    pub(super) in_flight: u64,
    pub(super) reasons: Vec<(&'static str, u64)>,
    /// P50, P95, P99 and largest, microseconds.
    pub(super) latency_us: [u64; 4],
}

impl Books {
    pub(super) fn of(board: &Board) -> Self {
        let mut books = Self::default();
        let mut pairs = Vec::new();
        for snapshot in board.snapshots() {
            books.add(&snapshot);
            pairs.extend(snapshot.processing.into_iter().flat_map(|times| times.times.pairs));
        }
        pairs.sort_unstable();
        books.latency_us = [0.50, 0.95, 0.99, 1.0].map(|share| percentile_us(&pairs, share));
        books
    }

    fn add(&mut self, snapshot: &ShardSnapshot) {
        self.pulled += snapshot.pulled;
        self.returned += snapshot.returned;
        self.in_flight += snapshot.in_flight;
        for event in &snapshot.events {
            match event.outcome {
                Outcome::Committed => self.committed += event.count,
                Outcome::Duplicate => self.duplicate += event.count,
                Outcome::Filtered => self.filtered += event.count,
                Outcome::DeadLettered => {
                    self.dead += event.count;
                    self.reasons.push((event.reason, event.count));
                }
                Outcome::Expired => {}
            }
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.committed + self.duplicate + self.filtered + self.dead + self.returned
    }

    pub(super) fn balance(&self) -> bool {
        self.pulled == self.ended() + self.in_flight
    }
}

fn percentile_us(pairs: &[(u64, u64)], share: f64) -> u64 {
    let total: u64 = pairs.iter().map(|(_, count)| count).sum();
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (value, count) in pairs {
        seen += count;
        if seen >= wanted {
            return value / 1_000;
        }
    }
    0
}

/// The ingest half: sums over all shards.
#[derive(Clone, Debug, Default)]
pub(super) struct IngestBooks {
    pub(super) pulled: u64,
    pub(super) committed: u64,
    pub(super) duplicate: u64,
    pub(super) filtered: u64,
    pub(super) dead: u64,
    pub(super) returned: u64,
    pub(super) in_flight: u64,
    pub(super) batches: u64,
    pub(super) batch_events: u64,
    pub(super) reasons: Vec<(&'static str, u64)>,
    pub(super) letters: LetterCounts,
    /// Receipt to COMMIT: P50, P95, P99 and largest, microseconds.
    pub(super) latency_us: [u64; 4],
}

impl IngestBooks {
    pub(super) fn of(board: &Board) -> Self {
        let mut books = Self::default();
        let mut pairs = Vec::new();
        for ingest in board.snapshots().into_iter().filter_map(|snapshot| snapshot.ingest) {
            books.pulled += ingest.pulled;
            books.returned += ingest.returned;
            books.in_flight += ingest.in_flight;
            books.batches += ingest.batches;
            books.batch_events += ingest.batch_events;
            for (_, outcome, count) in ingest.events {
                match outcome {
                    Outcome::Committed => books.committed += count,
                    Outcome::Duplicate => books.duplicate += count,
                    Outcome::Filtered => books.filtered += count,
                    Outcome::DeadLettered => books.dead += count,
                    Outcome::Expired => {}
                }
            }
            books.reasons.extend(ingest.reasons);
            books.letters.committed += ingest.letters.committed;
            books.letters.duplicate += ingest.letters.duplicate;
            books.letters.exhausted += ingest.letters.exhausted;
            pairs.extend(ingest.latency.pairs);
        }
        pairs.sort_unstable();
        books.latency_us = [0.50, 0.95, 0.99, 1.0].map(|share| percentile_us(&pairs, share));
        books
    }

    fn ended(&self) -> u64 {
        self.committed + self.duplicate + self.filtered + self.dead + self.returned
    }

    pub(super) fn balance(&self) -> bool {
        self.pulled == self.ended() + self.in_flight
    }

    /// Dead letters of chat events that found their end.
    pub(super) fn letters_ended(&self) -> u64 {
        self.letters.committed + self.letters.duplicate + self.letters.exhausted
    }
}
