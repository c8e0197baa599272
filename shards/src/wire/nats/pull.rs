//! Credit of one pull consumer: when to ask for how much, and what the server's statuses mean for it.
//! Pure. Source: reference/nats-jetstream.md sections 3.4 and 3.5. Invariant: what is asked for and not
//! yet come, plus what is held, stays within the caps (but for what the server served from a younger pull in
//! place of one that was counted out: one batch at the most); so a shard is never sent more than it can hold.

use super::headers::Status;
use crate::clock::{MS, SEC};
use std::collections::VecDeque;

/// Pulls open at once: one being served, one behind it so that the server never waits for us.
const PULLS_OPEN_MAX: usize = 2;
/// Silences in a row after which the consumer itself is looked at.
const SILENCES_MAX: u32 = 2;

/// Bounds of one consumer; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// Messages asked for or held, at the most.
    pub messages_max: u32,
    /// Bytes asked for or held, at the most; a quarter must hold the largest message.
    pub bytes_max: u64,
    /// Life of one pull on the server.
    pub expires: u64,
    /// The server's sign of life on an idle pull; at most half of `expires`.
    pub heartbeat: u64,
}

impl Default for PullLimits {
    fn default() -> Self {
        let (expires, heartbeat) = (30 * SEC, 5 * SEC);
        Self { messages_max: 4096, bytes_max: 32 << 20, expires, heartbeat }
    }
}

/// A pull to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Number of the pull: the last token of its reply subject.
    pub id: u64,
    /// Messages asked for.
    pub batch: u32,
    /// Bytes asked for.
    pub max_bytes: u64,
}

/// What a status or a silence means for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullNews {
    /// Nothing to do but to go on.
    Fine,
    /// All open pulls are void (new leader, shutdown, silence): already accounted for.
    Void,
    /// The consumer is gone, unknown, or silent for long: look at it before pulling again.
    Inspect,
    /// The server refuses how we ask; the text is for the operator. Pulls pause for a while.
    Refused,
}

struct OpenPull {
    id: u64,
    left: u32,
    bytes_left: u64,
}

/// The credit of one consumer on one connection.
pub struct Puller {
    limits: PullLimits,
    open: VecDeque<OpenPull>,
    next_id: u64,
    oldest_valid: u64,
    heard: u64,
    silences: u32,
    resume_at: u64,
    /// Ask for all that may be held, in however small portions.
    is_eager: bool,
}

impl Puller {
    /// No credit yet; starts at the first `plan`.
    #[must_use]
    pub fn new(limits: PullLimits) -> Self {
        assert!(limits.heartbeat * 2 <= limits.expires, "the server refuses such a heartbeat");
        let open = VecDeque::with_capacity(PULLS_OPEN_MAX);
        let (next_id, oldest_valid, heard, silences, resume_at) = (0, 0, 0, 0, 0);
        let is_eager = false;
        Self { limits, open, next_id, oldest_valid, heard, silences, resume_at, is_eager }
    }

    /// New bounds, for a consumer that was made anew. Pull numbers go on, so that a status of an old
    /// pull is never taken for one of a new pull.
    pub fn set_limits(&mut self, limits: PullLimits) {
        self.limits = limits;
        self.void();
        (self.silences, self.resume_at) = (0, 0);
    }

    /// Fill up to the bounds, until told otherwise. Else a pull is only sent when half of the messages may be
    /// asked for, and a quarter of the bytes stays free: so an eager reader of the same bounds comes to hold
    /// all that any other one has held.
    pub fn set_eager(&mut self, is_eager: bool) {
        self.is_eager = is_eager;
    }

    /// The next pull to send, given what is held; `None` while there is enough credit or no room.
    pub fn plan(&mut self, now: u64, held: u32, held_bytes: u64) -> Option<PullRequest> {
        if now < self.resume_at || self.open.len() >= PULLS_OPEN_MAX {
            return None;
        }
        let (batch, max_bytes) = self.room(held, held_bytes)?;
        if self.open.is_empty() {
            self.heard = now;
        }
        self.next_id += 1;
        self.open.push_back(OpenPull { id: self.next_id, left: batch, bytes_left: max_bytes });
        Some(PullRequest { id: self.next_id, batch, max_bytes })
    }

    /// Is nothing asked for, because of what is held?
    #[must_use]
    pub fn is_full(&self, held: u32, held_bytes: u64) -> bool {
        self.open.is_empty() && self.room(held, held_bytes).is_none()
    }

    // Messages and bytes that the next pull may ask for.
    fn room(&self, held: u32, held_bytes: u64) -> Option<(u32, u64)> {
        let PullLimits { messages_max, bytes_max, .. } = self.limits;
        let committed = held + self.credit();
        let (committed_max, reserve) = match self.is_eager {
            true => (messages_max - 1, 0),
            false => (messages_max / 2, bytes_max / 4),
        };
        let bytes_open = self.open.iter().map(|pull| pull.bytes_left).sum::<u64>();
        let bytes = bytes_max.saturating_sub(held_bytes + bytes_open + reserve);
        // A message that does not fit blocks its pull for ever, so no pull is smaller than a quarter;
        // and none is larger than half, so that a second one can stand behind it.
        if committed > committed_max || bytes < bytes_max / 4 {
            return None;
        }
        Some((messages_max - committed, bytes.min(bytes_max / 2)))
    }

    /// A message came; `bytes` as the server counts them (subject, reply, headers, payload).
    pub fn on_message(&mut self, now: u64, bytes: u64) {
        self.heard = now;
        self.silences = 0;
        // Several pulls are served in turns; taking from the oldest keeps the sum exact.
        if let Some(pull) = self.open.front_mut() {
            pull.left = pull.left.saturating_sub(1);
            pull.bytes_left = pull.bytes_left.saturating_sub(bytes);
            if pull.left == 0 {
                self.open.pop_front();
            }
        }
    }

    /// A status came for pull `id`; `unserved` is its `Nats-Pending-Messages`, where it has one.
    pub fn on_status(
        &mut self,
        now: u64,
        id: u64,
        status: &Status<'_>,
        unserved: Option<u32>,
    ) -> PullNews {
        if id <= self.oldest_valid {
            return PullNews::Fine; // Of a pull that was given up.
        }
        self.heard = now;
        self.silences = 0;
        let text = status.description;
        match status.code {
            100 => PullNews::Fine,
            404 | 408 => self.end(id, unserved),
            409 if starts(text, b"leadership change") || starts(text, b"server shutdown") => {
                self.void();
                PullNews::Void
            }
            409 if starts(text, b"consumer deleted") || starts(text, b"consumer is push") => {
                self.void();
                PullNews::Inspect
            }
            409 if starts(text, b"exceeded") => self.refuse(now),
            409 => self.end(id, unserved),
            503 => {
                self.void();
                self.resume_at = now + 250 * MS;
                PullNews::Inspect
            }
            _ => self.refuse(now),
        }
    }

    /// Time goes by: two heartbeats of silence mean that the pulls are lost.
    pub fn tick(&mut self, now: u64) -> PullNews {
        if self.open.is_empty() || now.saturating_sub(self.heard) < 2 * self.limits.heartbeat {
            return PullNews::Fine;
        }
        self.void();
        self.silences += 1;
        if self.silences >= SILENCES_MAX {
            self.silences = 0;
            return PullNews::Inspect;
        }
        PullNews::Void
    }

    /// Give up all open pulls; what they still bring is taken as uncredited.
    pub fn void(&mut self) {
        self.open.clear();
        self.oldest_valid = self.next_id;
    }

    /// Messages asked for and not come yet.
    #[must_use]
    pub fn credit(&self) -> u32 {
        self.open.iter().map(|pull| pull.left).sum()
    }

    // Messages were taken from the oldest pull, though the server serves pulls in turns. The server's
    // own count of what it left unserved puts that right: what remains belongs to the other pull.
    fn end(&mut self, id: u64, unserved: Option<u32>) -> PullNews {
        let before = self.credit();
        self.open.retain(|pull| pull.id != id);
        if let (Some(unserved), Some(other)) = (unserved, self.open.front_mut()) {
            other.left = before.saturating_sub(unserved);
            if other.left == 0 {
                self.open.pop_front();
            }
        }
        PullNews::Fine
    }

    fn refuse(&mut self, now: u64) -> PullNews {
        self.void();
        self.resume_at = now + 5 * SEC;
        PullNews::Refused
    }
}

fn starts(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PullLimits =
        PullLimits { messages_max: 100, bytes_max: 10_000, expires: 30 * SEC, heartbeat: 5 * SEC };

    fn status(code: u16, description: &[u8]) -> Status<'_> {
        Status { code, description }
    }

    #[test]
    fn asks_for_what_it_can_hold_and_no_more() {
        let mut puller = Puller::new(LIMITS);
        let first = puller.plan(0, 0, 0).unwrap();
        assert_eq!((first.batch, first.max_bytes), (100, 5_000));
        assert_eq!(puller.plan(0, 0, 0), None, "all is asked for");
        (0..60).for_each(|_| puller.on_message(1, 10));
        assert_eq!(puller.plan(1, 60, 600), None, "60 held and 40 asked for");
        let second = puller.plan(1, 5, 50).unwrap();
        assert_eq!(second.batch, 55);
        assert_eq!(puller.plan(1, 0, 0), None, "two pulls are open");
    }

    #[test]
    fn held_bytes_stop_the_pulling() {
        let mut puller = Puller::new(LIMITS);
        assert_eq!(puller.plan(0, 3, 5_100), None);
        assert_eq!(puller.plan(0, 3, 5_000).map(|pull| pull.max_bytes), Some(2_500));
    }

    #[test]
    fn an_eager_reader_fills_beyond_what_any_other_has_held() {
        let mut puller = Puller::new(LIMITS);
        puller.set_eager(true);
        assert_eq!(puller.plan(0, 3, 7_600), None);
        assert_eq!(puller.plan(0, 3, 7_000).map(|pull| pull.max_bytes), Some(3_000));
        puller.void();
        assert_eq!(puller.plan(0, 99, 0).map(|pull| pull.batch), Some(1));
        assert!(!puller.is_full(99, 0), "one is asked for");
        puller.void();
        assert!(puller.is_full(100, 0) && puller.is_full(3, 7_600) && !puller.is_full(99, 7_000));
    }

    #[test]
    fn silence_voids_the_credit_then_asks_for_inspection() {
        let mut puller = Puller::new(LIMITS);
        puller.plan(0, 0, 0).unwrap();
        assert_eq!(puller.tick(9 * SEC), PullNews::Fine);
        assert_eq!(puller.tick(10 * SEC), PullNews::Void);
        assert_eq!(puller.credit(), 0);
        puller.plan(10 * SEC, 0, 0).unwrap();
        assert_eq!(puller.tick(20 * SEC), PullNews::Inspect);
    }

    #[test]
    fn each_status_has_its_consequence() {
        for (code, text, news, credit) in [
            (100, &b"Idle Heartbeat"[..], PullNews::Fine, 100),
            (404, b"No Messages", PullNews::Fine, 0),
            (408, b"Request Timeout", PullNews::Fine, 0),
            (409, b"Batch Completed", PullNews::Fine, 0),
            (409, b"Message Size Exceeds MaxBytes", PullNews::Fine, 0),
            (409, b"Leadership Change", PullNews::Void, 0),
            (409, b"Server Shutdown", PullNews::Void, 0),
            (409, b"Consumer Deleted", PullNews::Inspect, 0),
            (409, b"Exceeded MaxRequestBatch of 10", PullNews::Refused, 0),
            (400, b"Bad Request - heartbeat value too large", PullNews::Refused, 0),
            (503, b"", PullNews::Inspect, 0),
        ] {
            let mut puller = Puller::new(LIMITS);
            let id = puller.plan(0, 0, 0).unwrap().id;
            assert_eq!(puller.on_status(1, id, &status(code, text), None), news, "{code}");
            assert_eq!(puller.credit(), credit, "{code}");
        }
    }

    #[test]
    fn the_servers_count_corrects_ours_when_a_later_pull_ends_first() {
        let mut puller = Puller::new(LIMITS);
        puller.plan(0, 0, 0).unwrap(); // 100 asked for
        (0..60).for_each(|_| puller.on_message(1, 10));
        let later = puller.plan(1, 0, 0).unwrap(); // 60 more
        // Served in turns: 15 of each, all taken from the first here.
        (0..30).for_each(|_| puller.on_message(1, 10));
        assert_eq!(puller.credit(), 70);
        puller.on_status(2, later.id, &status(408, b"Request Timeout"), Some(45));
        assert_eq!(puller.credit(), 25, "the first pull still has 25 to come");
    }

    #[test]
    fn a_status_of_an_abandoned_pull_changes_nothing() {
        let mut puller = Puller::new(LIMITS);
        let old = puller.plan(0, 0, 0).unwrap().id;
        puller.void();
        puller.plan(1, 0, 0).unwrap();
        assert_eq!(
            puller.on_status(1, old, &status(409, b"Consumer Deleted"), None),
            PullNews::Fine
        );
        assert_eq!(puller.credit(), 100);
    }
}
