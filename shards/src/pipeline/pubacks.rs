//! Publishes that wait for their PubAck, found again by the number in the reply subject. Pure. Answers
//! may come in any order (an error overtakes earlier acks on a replicated stream), and so may deadlines:
//! a lease is more impatient than an event. Invariant: every publish has a deadline, so the window ends.
//! Source: reference/nats-jetstream.md section 4.4.

use std::collections::VecDeque;

struct Waiting<T> {
    who: T,
    deadline: u64,
}

/// The window of outstanding publishes of one connection.
pub struct PubAcks<T> {
    first: u64,
    ring: VecDeque<Option<Waiting<T>>>,
    open: usize,
}

impl<T> PubAcks<T> {
    /// Room for `capacity` open publishes without growing.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { first: 0, ring: VecDeque::with_capacity(capacity), open: 0 }
    }

    /// Number for the next publish; its answer is due at `deadline`, monotonic ns.
    pub fn register(&mut self, who: T, deadline: u64) -> u64 {
        self.ring.push_back(Some(Waiting { who, deadline }));
        self.open += 1;
        self.first + self.ring.len() as u64 - 1
    }

    /// The publish `number` was answered; `None` if nobody waits for it any more.
    pub fn resolve(&mut self, number: u64) -> Option<T> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let waiting = self.ring.get_mut(place)?.take()?;
        self.open -= 1;
        self.trim();
        Some(waiting.who)
    }

    /// The oldest publish whose answer is overdue. Looks at the whole window: ask once a tick.
    pub fn pop_overdue(&mut self, now: u64) -> Option<T> {
        let is_overdue = |w: &Option<Waiting<T>>| w.as_ref().is_some_and(|w| w.deadline <= now);
        let place = self.ring.iter().position(is_overdue)?;
        let waiting = self.ring.get_mut(place)?.take()?;
        self.open -= 1;
        self.trim();
        Some(waiting.who)
    }

    /// The connection is gone: nobody waits any more. Numbers go on, so that no late answer fits.
    pub fn clear(&mut self) {
        self.first += self.ring.len() as u64;
        self.ring.clear();
        self.open = 0;
    }

    /// Publishes without an answer.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    // Invariant: the front is a publish that still waits.
    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.first += 1;
        }
    }
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
}
