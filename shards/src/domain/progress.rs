//! How far a partition is done: which delivered messages still wait for their outcome, and up to
//! where everything has one. Pure. Invariants: sequences rise within the ring; the floor never passes
//! a message without an outcome, so acknowledging the floor acknowledges only what is durable.

use bytes::Bytes;
use std::collections::VecDeque;

/// One delivered message that is not acknowledged yet.
struct Entry {
    seq: u64,
    ack: Bytes,
    bytes: u32,
    done: bool,
    /// When its `ack_wait` last began, monotonic ns.
    clock: u64,
    /// JetStream's time of storing it, Unix ns.
    stored: u64,
}

/// What to do with a message that has just been delivered.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Not seen in this reading: handle it and report its outcome under this index.
    New(u64),
    /// A copy of a message that is held here: drop it, the held one will be acknowledged.
    Held,
    /// A copy of a message that has been acknowledged: say so again.
    Acknowledged,
}

/// A message whose outcome and all before it are durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Durable {
    /// Stream sequence.
    pub seq: u64,
    /// Where its acknowledgement goes.
    pub ack: Bytes,
}

/// The delivered and unacknowledged messages of one reading of one partition.
#[derive(Default)]
pub struct Progress {
    first: u64,
    entries: VecDeque<Entry>,
    bytes: u64,
    open: usize,
    last_seq: u64,
    floor: u64,
}

impl Progress {
    /// Room for `capacity` messages without growing.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { entries: VecDeque::with_capacity(capacity), ..Self::default() }
    }

    /// Begin a new reading after `floor`: everything up to it is done, all held messages are void.
    /// Indices go on, so that a late report of the former reading meets no entry of this one.
    pub fn restart(&mut self, floor: u64) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        (self.bytes, self.open) = (0, 0);
        (self.last_seq, self.floor) = (floor, floor);
    }

    /// Take in a delivery: its stream sequence, acknowledgement subject, size and times.
    pub fn admit(
        &mut self,
        seq: u64,
        ack: Bytes,
        bytes: u32,
        clock: u64,
        stored: u64,
    ) -> Admission {
        if seq > self.last_seq {
            self.last_seq = seq;
            self.bytes += u64::from(bytes);
            self.open += 1;
            self.entries.push_back(Entry { seq, ack, bytes, done: false, clock, stored });
            return Admission::New(self.first + self.entries.len() as u64 - 1);
        }
        match self.entries.binary_search_by_key(&seq, |entry| entry.seq) {
            Ok(place) => {
                self.entries[place].ack = ack; // The newer subject is the one the server knows.
                self.entries[place].clock = clock;
                Admission::Held
            }
            Err(_) => Admission::Acknowledged,
        }
    }

    /// The message under `index` has its outcome. False if it is unknown or has had one.
    pub fn finish(&mut self, index: u64) -> bool {
        let Some(place) = index.checked_sub(self.first) else { return false };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        match self.entries.get_mut(place) {
            Some(entry) if !entry.done => {
                entry.done = true;
                self.open -= 1;
                true
            }
            _ => false,
        }
    }

    /// Take the next message, in order, that may be acknowledged.
    pub fn pop_durable(&mut self) -> Option<Durable> {
        if !self.entries.front()?.done {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= u64::from(entry.bytes);
        self.floor = entry.seq;
        Some(Durable { seq: entry.seq, ack: entry.ack })
    }

    /// Call `extend` with the acknowledgement subject of each message without outcome whose
    /// `ack_wait` has run since before `began_before`, and restart that clock at `now`.
    pub fn extend_held(&mut self, began_before: u64, now: u64, mut extend: impl FnMut(&Bytes)) {
        for entry in &mut self.entries {
            if entry.clock < began_before {
                entry.clock = now;
                extend(&entry.ack);
            }
        }
    }

    /// Messages held, with and without outcome.
    #[must_use]
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    /// Messages without outcome.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything up to this stream sequence is durable and was handed out for acknowledgement.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Unix ns at which JetStream stored the oldest message still held.
    #[must_use]
    pub fn oldest_stored(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(progress: &mut Progress, seq: u64) -> Admission {
        progress.admit(seq, Bytes::copy_from_slice(seq.to_string().as_bytes()), 10, seq, 0)
    }

    #[test]
    fn the_floor_waits_for_the_slowest() {
        let mut progress = Progress::default();
        progress.restart(4);
        assert_eq!(
            [5, 7, 9].map(|seq| admit(&mut progress, seq)),
            [Admission::New(0), Admission::New(1), Admission::New(2)]
        );
        assert!(progress.finish(2) && progress.finish(1));
        assert_eq!((progress.pop_durable(), progress.floor()), (None, 4));
        assert!(progress.finish(0));
        let acked: Vec<u64> =
            std::iter::from_fn(|| progress.pop_durable()).map(|d| d.seq).collect();
        assert_eq!(acked, [5, 7, 9]);
        assert_eq!((progress.floor(), progress.held(), progress.held_bytes()), (9, 0, 0));
    }

    #[test]
    fn a_copy_is_told_from_a_new_message() {
        let mut progress = Progress::default();
        progress.restart(0);
        admit(&mut progress, 1);
        admit(&mut progress, 2);
        progress.finish(0);
        progress.pop_durable();
        assert_eq!(admit(&mut progress, 2), Admission::Held);
        assert_eq!(admit(&mut progress, 1), Admission::Acknowledged);
    }

    #[test]
    fn a_report_of_a_former_reading_finds_nothing() {
        let mut progress = Progress::default();
        progress.restart(0);
        admit(&mut progress, 1);
        progress.restart(0);
        assert_eq!(admit(&mut progress, 1), Admission::New(1));
        assert!(!progress.finish(0), "index 0 belongs to the reading before");
        assert!(progress.finish(1));
        assert!(!progress.finish(1), "one outcome an event");
    }

    #[test]
    fn only_what_waited_long_is_extended() {
        let mut progress = Progress::default();
        progress.restart(0);
        for seq in [10, 20, 30] {
            admit(&mut progress, seq);
        }
        let mut extended = Vec::new();
        progress.extend_held(25, 100, |ack| extended.push(ack.clone()));
        assert_eq!(extended, ["10", "20"]);
        progress.extend_held(25, 100, |_| panic!("their clocks were restarted"));
    }
}
