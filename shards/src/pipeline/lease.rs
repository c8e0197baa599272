//! The lease of one partition: one key of a KV bucket, held by compare-and-set. Pure. Source:
//! reference/nats-jetstream.md section 6. Invariant: we count from before a renewal was sent, and stop
//! a margin before its end, so that our belief to hold ends before the server's.
//!
//! Where it is another replica's turn (`share`), a lease is *patient*: it looks before it asks, and asks
//! only for what has stayed free for a while.

use crate::clock::{MS, Now};

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAct {
    /// Publish our name with `Nats-Expected-Last-Subject-Sequence: expected`.
    Hold { expected: u64 },
    /// Publish the delete mark with the same guard.
    Release { expected: u64 },
    /// Read the key's last message from the leader.
    Read,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseNews {
    Nothing,
    Acquired,
    Lost,
    /// Seen free while it is another's turn: is that one still there?
    Free,
}

/// The answer to a publish with a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutResult {
    Stored {
        revision: u64,
    },
    /// Somebody else wrote in between.
    Raced,
    /// Unknown outcome, or a server in trouble.
    Failed,
}

/// The key as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyState {
    Absent,
    /// Given up by a delete mark.
    Free {
        revision: u64,
    },
    /// Ours: a put whose answer was lost.
    Ours {
        revision: u64,
    },
    Theirs,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Asking { sent: u64 },
    Reading { sent: u64 },
    Held,
    Renewing { sent: u64 },
    Released,
}

/// One partition's lease.
pub(super) struct Lease {
    state: State,
    ttl: u64,
    revision: u64,
    valid_until: u64,
    next_at: u64,
    in_doubt: bool,
    held_since: u64,
    patient: bool,
    free_since: Option<u64>,
}

impl Lease {
    pub(super) fn new(ttl: u64) -> Self {
        Self {
            state: State::Free,
            ttl,
            revision: 0,
            valid_until: 0,
            next_at: 0,
            in_doubt: false,
            held_since: 0,
            patient: false,
            free_since: None,
        }
    }

    /// Whether it is another replica's turn. One whose turn it becomes asks at once.
    pub(super) fn set_patient(&mut self, patient: bool) {
        if self.patient && !patient && self.state == State::Free {
            self.next_at = 0;
        }
        self.patient = patient;
    }

    /// Held for a whole life: so often, at the most, does a partition wander.
    pub(super) fn is_settled(&self, now: Now) -> bool {
        self.is_held() && now.mono >= self.held_since + self.ttl
    }

    /// Is the answer to a renewal under way? The revision is unknown until it is there.
    pub(super) fn is_renewing(&self) -> bool {
        matches!(self.state, State::Renewing { .. })
    }

    /// The bucket's real life of a key, which may differ from the configured one.
    pub(super) fn set_ttl(&mut self, ttl: u64) {
        self.ttl = ttl;
    }

    /// The connection is gone: whatever was asked has an unknown outcome.
    pub(super) fn disconnected(&mut self) {
        if self.state != State::Released {
            (self.state, self.next_at, self.in_doubt) = (State::Free, 0, true);
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held | State::Renewing { .. })
    }

    /// What to send now, if anything; `Lost` when the time is up without a renewal.
    pub(super) fn tick(
        &mut self,
        now: Now,
        rng: &mut fastrand::Rng,
    ) -> (Option<LeaseAct>, LeaseNews) {
        let answer_max = self.ttl / 4;
        match self.state {
            State::Free if now.mono >= self.next_at => {
                if self.in_doubt || self.patient {
                    self.state = State::Reading { sent: now.mono };
                    return (Some(LeaseAct::Read), LeaseNews::Nothing);
                }
                self.state = State::Asking { sent: now.mono };
                (Some(LeaseAct::Hold { expected: self.revision }), LeaseNews::Nothing)
            }
            State::Asking { sent } | State::Reading { sent } if now.mono > sent + answer_max => {
                self.retry_later(now, rng, true);
                (None, LeaseNews::Nothing)
            }
            State::Held | State::Renewing { .. } if now.mono >= self.valid_until => {
                self.retry_later(now, rng, true);
                (None, LeaseNews::Lost)
            }
            State::Held if now.mono >= self.next_at => {
                self.state = State::Renewing { sent: now.mono };
                (Some(LeaseAct::Hold { expected: self.revision }), LeaseNews::Nothing)
            }
            State::Renewing { sent } if now.mono > sent + answer_max => {
                // The renewal may have been stored: its revision is unknown, so read it.
                self.state = State::Renewing { sent: now.mono };
                (Some(LeaseAct::Read), LeaseNews::Nothing)
            }
            _ => (None, LeaseNews::Nothing),
        }
    }

    /// Our guarded publish was answered.
    pub(super) fn on_put(
        &mut self,
        now: Now,
        result: PutResult,
        rng: &mut fastrand::Rng,
    ) -> (Option<LeaseAct>, LeaseNews) {
        match (self.state, result) {
            (State::Asking { sent }, PutResult::Stored { revision }) => {
                self.hold(sent, revision);
                (self.held_since, self.free_since) = (now.mono, None);
                (None, LeaseNews::Acquired)
            }
            (State::Renewing { sent }, PutResult::Stored { revision }) => {
                self.hold(sent, revision);
                (None, LeaseNews::Nothing)
            }
            // Somebody holds it, or left a mark, or our own first copy was stored: look.
            (State::Asking { .. }, PutResult::Raced) => {
                self.state = State::Reading { sent: now.mono };
                (Some(LeaseAct::Read), LeaseNews::Nothing)
            }
            (State::Renewing { .. }, PutResult::Raced) => {
                (Some(LeaseAct::Read), LeaseNews::Nothing)
            }
            (State::Asking { .. }, PutResult::Failed) => {
                self.retry_later(now, rng, true);
                (None, LeaseNews::Nothing)
            }
            _ => (None, LeaseNews::Nothing), // A failed renewal is asked again by `tick`.
        }
    }

    /// The key was read.
    pub(super) fn on_read(
        &mut self,
        now: Now,
        key: KeyState,
        rng: &mut fastrand::Rng,
    ) -> (Option<LeaseAct>, LeaseNews) {
        match self.state {
            State::Reading { .. } => {
                self.in_doubt = false;
                match key {
                    KeyState::Absent | KeyState::Free { .. } if self.must_wait(now) => {
                        let first = self.free_since == Some(now.mono);
                        self.retry_later(now, rng, false);
                        (None, if first { LeaseNews::Free } else { LeaseNews::Nothing })
                    }
                    KeyState::Absent => self.ask(now, 0),
                    // A key of ours from before: take it over by a write, so that its life is known.
                    KeyState::Free { revision } | KeyState::Ours { revision } => {
                        self.ask(now, revision)
                    }
                    KeyState::Theirs => {
                        self.free_since = None;
                        self.retry_later(now, rng, false);
                        (None, LeaseNews::Nothing)
                    }
                    KeyState::Failed => {
                        self.retry_later(now, rng, true);
                        (None, LeaseNews::Nothing)
                    }
                }
            }
            State::Renewing { sent } => match key {
                KeyState::Ours { revision } => {
                    // Stored at an unknown moment after the last known renewal: renew again at once,
                    // `valid_until` stays as it was.
                    self.revision = revision;
                    self.state = State::Renewing { sent: now.mono.max(sent) };
                    (Some(LeaseAct::Hold { expected: revision }), LeaseNews::Nothing)
                }
                KeyState::Failed => (None, LeaseNews::Nothing),
                KeyState::Absent | KeyState::Free { .. } | KeyState::Theirs => {
                    self.retry_later(now, rng, false);
                    (None, LeaseNews::Lost)
                }
            },
            _ => (None, LeaseNews::Nothing),
        }
    }

    /// Give it up, for good.
    pub(super) fn release(&mut self) -> Option<LeaseAct> {
        let held = self.is_held();
        self.state = State::Released;
        held.then_some(LeaseAct::Release { expected: self.revision })
    }

    /// Give it back, and stand by for it.
    pub(super) fn hand_over(&mut self, now: Now) -> Option<LeaseAct> {
        let held = self.is_held();
        // What comes of the release may never be known, so look before asking again.
        (self.state, self.in_doubt) = (State::Free, true);
        self.next_at = now.mono + self.ttl / 8;
        held.then_some(LeaseAct::Release { expected: self.revision })
    }

    // Longer than the one whose turn it is takes to ask: see `retry_later`.
    fn must_wait(&mut self, now: Now) -> bool {
        self.patient && now.mono < *self.free_since.get_or_insert(now.mono) + self.ttl / 8
    }

    fn ask(&mut self, now: Now, expected: u64) -> (Option<LeaseAct>, LeaseNews) {
        self.revision = expected;
        self.state = State::Asking { sent: now.mono };
        (Some(LeaseAct::Hold { expected }), LeaseNews::Nothing)
    }

    fn hold(&mut self, sent: u64, revision: u64) {
        self.state = State::Held;
        self.revision = revision;
        self.valid_until = sent + self.ttl - self.ttl / 10;
        self.next_at = sent + self.ttl / 3;
    }

    // A candidate asks every 20th of the ttl: a takeover is late by that at the most.
    fn retry_later(&mut self, now: Now, rng: &mut fastrand::Rng, in_doubt: bool) {
        let step = (self.ttl / 20).max(50 * MS);
        self.state = State::Free;
        self.revision = 0;
        self.in_doubt |= in_doubt;
        self.next_at = now.mono + step / 2 + rng.u64(0..=step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SEC;

    fn at(seconds: u64) -> Now {
        Now { mono: seconds * SEC, wall: 0 }
    }

    fn held() -> (Lease, fastrand::Rng) {
        let (mut lease, mut rng) = (Lease::new(10 * SEC), fastrand::Rng::with_seed(1));
        assert_eq!(lease.tick(at(0), &mut rng).0, Some(LeaseAct::Hold { expected: 0 }));
        let news = lease.on_put(at(1), PutResult::Stored { revision: 7 }, &mut rng).1;
        assert_eq!(news, LeaseNews::Acquired);
        (lease, rng)
    }

    #[test]
    fn belief_ends_before_the_servers_does() {
        let (mut lease, mut rng) = held();
        assert_eq!(lease.tick(at(4), &mut rng).0, Some(LeaseAct::Hold { expected: 7 }));
        // No answer at all: sent at 0, ttl 10, margin 1.
        assert_eq!(lease.tick(at(9), &mut rng).1, LeaseNews::Lost);
        assert!(!lease.is_held());
    }

    #[test]
    fn a_renewal_whose_answer_was_lost_is_found_again() {
        let (mut lease, mut rng) = held();
        lease.tick(at(4), &mut rng);
        assert_eq!(lease.tick(at(7), &mut rng).0, Some(LeaseAct::Read));
        let (act, news) = lease.on_read(at(7), KeyState::Ours { revision: 9 }, &mut rng);
        assert_eq!((act, news), (Some(LeaseAct::Hold { expected: 9 }), LeaseNews::Nothing));
        lease.on_put(at(8), PutResult::Stored { revision: 10 }, &mut rng);
        assert!(lease.is_held());
        assert_eq!(lease.tick(at(14), &mut rng).1, LeaseNews::Nothing, "valid from 7 on");
    }

    #[test]
    fn somebody_elses_key_ends_it() {
        let (mut lease, mut rng) = held();
        lease.tick(at(4), &mut rng);
        assert_eq!(lease.on_put(at(4), PutResult::Raced, &mut rng).0, Some(LeaseAct::Read));
        assert_eq!(lease.on_read(at(4), KeyState::Theirs, &mut rng).1, LeaseNews::Lost);
    }

    #[test]
    fn a_delete_mark_is_taken_over_by_its_revision() {
        let (mut lease, mut rng) = (Lease::new(10 * SEC), fastrand::Rng::with_seed(1));
        lease.tick(at(0), &mut rng);
        assert_eq!(lease.on_put(at(0), PutResult::Raced, &mut rng).0, Some(LeaseAct::Read));
        let (act, _) = lease.on_read(at(0), KeyState::Free { revision: 3 }, &mut rng);
        assert_eq!(act, Some(LeaseAct::Hold { expected: 3 }));
    }

    #[test]
    fn a_patient_one_leaves_a_free_key_to_the_other_for_a_while() {
        let (mut lease, mut rng) = (Lease::new(16 * SEC), fastrand::Rng::with_seed(1));
        lease.set_patient(true);
        let free = KeyState::Free { revision: 3 };
        assert_eq!(lease.tick(at(10), &mut rng).0, Some(LeaseAct::Read));
        assert_eq!(lease.on_read(at(10), free, &mut rng), (None, LeaseNews::Free));
        assert_eq!(lease.tick(at(10), &mut rng), (None, LeaseNews::Nothing), "not at once again");
        assert_eq!(lease.tick(at(12), &mut rng).0, Some(LeaseAct::Read));
        // Free since 10, for an eighth of 16: the other does not come.
        let act = lease.on_read(at(12), free, &mut rng).0;
        assert_eq!(act, Some(LeaseAct::Hold { expected: 3 }));
    }

    #[test]
    fn a_key_that_was_taken_meanwhile_is_waited_for_anew() {
        let (mut lease, mut rng) = (Lease::new(16 * SEC), fastrand::Rng::with_seed(1));
        lease.set_patient(true);
        for (second, key, news) in [
            (10, KeyState::Absent, LeaseNews::Free),
            (12, KeyState::Theirs, LeaseNews::Nothing),
            (20, KeyState::Absent, LeaseNews::Free),
        ] {
            assert_eq!(lease.tick(at(second), &mut rng).0, Some(LeaseAct::Read), "{second}");
            assert_eq!(lease.on_read(at(second), key, &mut rng), (None, news), "{second}");
        }
    }

    #[test]
    fn one_whose_turn_it_becomes_asks_at_once() {
        let (mut lease, mut rng) = (Lease::new(16 * SEC), fastrand::Rng::with_seed(1));
        lease.set_patient(true);
        lease.tick(at(10), &mut rng);
        lease.on_read(at(10), KeyState::Absent, &mut rng);
        lease.set_patient(false);
        assert_eq!(lease.tick(at(10), &mut rng).0, Some(LeaseAct::Hold { expected: 0 }));
    }

    #[test]
    fn what_is_handed_over_is_looked_at_before_it_is_asked_for_again() {
        let (mut lease, mut rng) = held();
        assert!(!lease.is_settled(at(10)) && lease.is_settled(at(11)), "acquired at 1, ttl 10");
        assert_eq!(lease.hand_over(at(4)), Some(LeaseAct::Release { expected: 7 }));
        assert!(!lease.is_held());
        assert_eq!(lease.tick(at(5), &mut rng), (None, LeaseNews::Nothing));
        assert_eq!(lease.tick(at(6), &mut rng).0, Some(LeaseAct::Read));
    }

    #[test]
    fn release_is_guarded_and_final() {
        let (mut lease, mut rng) = held();
        assert_eq!(lease.release(), Some(LeaseAct::Release { expected: 7 }));
        assert_eq!(lease.tick(at(60), &mut rng), (None, LeaseNews::Nothing));
    }
}
