//! Publishes that wait for their PubAck, found again by the number in the reply subject. Pure. Answers
//! may come in any order (an error overtakes earlier acks on a replicated stream), and so may deadlines:
//! a lease is more impatient than an event. Invariants: every publish has a deadline, so the window ends; no
//! answer counts for another publish than its own.
//! Source: reference/nats-jetstream.md section 4.4.
//!
//! A number serves again once its publish was answered for good: the server then finds the route of a reply
//! subject in a cache, which spares it 5 % of its time an event (nats-server 2.9.10). After any other answer,
//! or none, another may yet come, and the number is never used again on this connection. An answer that is
//! sent twice is told by its sequence: a stream stores what a connection publishes in order, so that of a
//! later publish is above all that were known when it was sent.

use std::collections::VecDeque;

/// Of a number, the bits that name its slot; those above count how often the slot got a new number.
const SLOT_BITS: u32 = 24;
/// Serial of no publish.
const NOBODY: u64 = u64::MAX;

struct Waiting<T> {
    who: T,
    deadline: u64,
    slot: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    round: u64,
    /// Serial of the publish that waits, or `NOBODY`.
    serial: u64,
    /// Highest output sequence that was known when the publish was sent.
    floor: u64,
}

/// The window of outstanding publishes of one connection.
pub struct PubAcks<T> {
    /// Serial of the first in `ring`.
    first: u64,
    ring: VecDeque<Option<Waiting<T>>>,
    open: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Highest output sequence of those settled.
    floor: u64,
    /// Of the last answer that was not settled.
    doubted: u64,
}

impl<T> PubAcks<T> {
    /// Room for `capacity` open publishes without growing.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            first: 0,
            ring: VecDeque::with_capacity(capacity),
            open: 0,
            slots: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            floor: 0,
            doubted: 0,
        }
    }

    /// Number for a publish whose answer no [`Self::settle`] looks at: it has been nobody's before.
    pub fn register_once(&mut self, who: T, deadline: u64) -> u64 {
        if let Some(slot) = self.free.last().and_then(|slot| self.slots.get_mut(*slot as usize)) {
            slot.round += 1;
        }
        self.register(who, deadline)
    }

    /// Number for the next publish; its answer is due at `deadline`, monotonic ns.
    pub fn register(&mut self, who: T, deadline: u64) -> u64 {
        let serial = self.first + self.ring.len() as u64;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { round: 0, serial, floor: 0 });
            // A window is 65,536 at the most; what is beyond 2^24 would never be answered.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let round = match self.slots.get_mut(slot as usize) {
            Some(state) => {
                (state.serial, state.floor) = (serial, self.floor);
                state.round
            }
            None => 0,
        };
        self.ring.push_back(Some(Waiting { who, deadline, slot }));
        self.open += 1;
        (round << SLOT_BITS) | u64::from(slot)
    }

    /// The publish `number` was answered; `None` if nobody waits for it any more. Its number is not used
    /// again, unless [`Self::settle`] says so.
    pub fn resolve(&mut self, number: u64) -> Option<T> {
        let (place, round) = split(number);
        let slot = self.slots.get(place).filter(|slot| slot.round == round)?;
        let place = usize::try_from(slot.serial.checked_sub(self.first)?).ok()?;
        self.take(place)
    }

    /// The answer to `number`, resolved just now, was that the message is stored at `sequence` of the output
    /// stream, and was not there before. False if that is the answer to an earlier publish: nothing is known
    /// of this one.
    pub fn settle(&mut self, number: u64, sequence: u64) -> bool {
        let (place, round) = split(number);
        let Some(slot) = self.slots.get_mut(place).filter(|slot| sequence > slot.floor) else {
            self.doubted = sequence;
            return false;
        };
        self.floor = self.floor.max(sequence);
        if slot.round == round + 1 && slot.serial == NOBODY {
            slot.round = round;
        }
        true
    }

    /// The message of a publish was stored at `sequence` before. Was that in doubt, its stream has been made
    /// anew, and counts from there.
    pub fn confirm(&mut self, sequence: u64) {
        if sequence == self.doubted {
            self.floor = sequence;
        }
    }

    /// The oldest publish whose answer is overdue. Looks at the whole window: ask once a tick.
    pub fn pop_overdue(&mut self, now: u64) -> Option<T> {
        let is_overdue = |w: &Option<Waiting<T>>| w.as_ref().is_some_and(|w| w.deadline <= now);
        let place = self.ring.iter().position(is_overdue)?;
        self.take(place)
    }

    /// The connection is gone: nobody waits any more. The next one has another inbox, so numbers may begin
    /// anew.
    pub fn clear(&mut self) {
        self.first += self.ring.len() as u64;
        self.ring.clear();
        self.slots.clear();
        self.free.clear();
        (self.open, self.floor, self.doubted) = (0, 0, 0);
    }

    /// Publishes without an answer.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    fn take(&mut self, place: usize) -> Option<T> {
        let waiting = self.ring.get_mut(place)?.take()?;
        if let Some(slot) = self.slots.get_mut(waiting.slot as usize) {
            slot.serial = NOBODY;
            slot.round += 1;
            self.free.push(waiting.slot);
        }
        self.open -= 1;
        // Invariant: the front is a publish that still waits.
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.first += 1;
        }
        Some(waiting.who)
    }
}

/// Slot and round of a number.
fn split(number: u64) -> (usize, u64) {
    let slot = number & ((1 << SLOT_BITS) - 1);
    (usize::try_from(slot).unwrap_or(usize::MAX), number >> SLOT_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_publish_does_not_hide_an_impatient_one_behind_it() {
        let mut acks = PubAcks::with_capacity(4);
        acks.register("patient", 100);
        acks.register("impatient", 10);
        assert_eq!((acks.pop_overdue(10), acks.pop_overdue(10)), (Some("impatient"), None));
        assert_eq!((acks.pop_overdue(100), acks.open()), (Some("patient"), 0));
    }

    #[test]
    fn answers_in_any_order_find_their_publish_once() {
        let mut acks = PubAcks::with_capacity(4);
        let numbers: Vec<u64> = ["a", "b", "c"].iter().map(|who| acks.register(*who, 10)).collect();
        assert_eq!(acks.resolve(numbers[1]), Some("b"));
        assert_eq!(acks.resolve(numbers[1]), None);
        assert_eq!(acks.resolve(numbers[0]), Some("a"));
        assert_eq!((acks.open(), acks.resolve(99)), (1, None));
        assert_eq!(acks.pop_overdue(9), None);
        assert_eq!(acks.pop_overdue(10), Some("c"));
        let next = acks.register("d", 20);
        acks.clear();
        assert_eq!((acks.resolve(next), acks.open()), (None, 0));
    }

    #[test]
    fn a_number_serves_again_only_after_the_answer_that_is_the_last() {
        let mut acks = PubAcks::with_capacity(4);
        let first = acks.register("stored", 10);
        assert!(acks.resolve(first).is_some() && acks.settle(first, 1));
        let second = acks.register("refused", 10);
        assert_eq!(second, first);
        assert_eq!(acks.resolve(second), Some("refused"));
        let third = acks.register("late", 10);
        assert_ne!(third, first, "an answer to the second may come yet");
        assert_eq!(acks.pop_overdue(10), Some("late"));
        let fourth = acks.register("next", 20);
        assert_ne!(fourth, third);
        assert_eq!((acks.resolve(first), acks.resolve(third)), (None, None));
        assert_eq!(acks.resolve(fourth), Some("next"));
    }

    #[test]
    fn an_answer_that_comes_twice_is_not_taken_for_that_of_the_next() {
        let mut acks = PubAcks::with_capacity(4);
        let first = acks.register("a", 10);
        assert!(acks.resolve(first).is_some() && acks.settle(first, 7));
        let second = acks.register("b", 10);
        assert_eq!((second, acks.resolve(second)), (first, Some("b")));
        assert!(!acks.settle(second, 7), "that is the answer to the first");
        let third = acks.register("c", 10);
        assert_ne!(third, second, "the answer to the second may come yet");
        assert_eq!(acks.resolve(second), None);
        assert!(acks.resolve(third).is_some() && acks.settle(third, 8));
    }

    #[test]
    fn a_publish_whose_answer_is_not_looked_at_has_a_number_of_its_own() {
        let mut acks = PubAcks::with_capacity(4);
        let first = acks.register("event", 10);
        assert!(acks.resolve(first).is_some() && acks.settle(first, 7));
        let letter = acks.register_once("letter", 10);
        assert_eq!((acks.resolve(first), acks.resolve(letter)), (None, Some("letter")));
        assert!(![first, letter].contains(&acks.register("event", 10)));
    }

    #[test]
    fn an_answer_that_was_overtaken_lowers_nothing() {
        let mut acks = PubAcks::with_capacity(4);
        let (first, second) = (acks.register("a", 10), acks.register("b", 10));
        assert!(acks.resolve(second).is_some() && acks.settle(second, 2));
        assert!(acks.resolve(first).is_some() && acks.settle(first, 1));
        for who in ["c", "d"] {
            let number = acks.register(who, 10);
            assert_eq!((acks.resolve(number), acks.settle(number, 2)), (Some(who), false));
        }
    }

    #[test]
    fn a_stream_that_was_made_anew_is_believed_when_it_says_so_again() {
        let mut acks = PubAcks::with_capacity(4);
        let first = acks.register("a", 10);
        assert!(acks.resolve(first).is_some() && acks.settle(first, 1_000));
        let second = acks.register("b", 10);
        assert!(acks.resolve(second).is_some() && !acks.settle(second, 1));
        let again = acks.register("b", 10);
        assert_eq!(acks.resolve(again), Some("b"));
        acks.confirm(1);
        let third = acks.register("c", 10);
        assert!(acks.resolve(third).is_some() && acks.settle(third, 2));
    }
}
