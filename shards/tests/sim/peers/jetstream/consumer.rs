//! One pull consumer: its cursor, what it delivered and awaits acks for, and the pulls that wait.
//! Pulls are volatile; the rest survives a crash, save what a crash is asked to take back.
//! Invariant: a sequence in `deadlines` or `redeliver` that is not in `pending` is never delivered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use fastrand::Rng;

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy};
use super::request::{Pull, PullRequest, Verb};
use super::store::{Store, Stored};
use crate::peers::message::Emit;
use crate::peers::version::Version;
use crate::peers::{Chance, earlier};
use shards::clock::Now;

/// Whether anybody would receive a message on this inbox.
pub(crate) type Interest<'a> = &'a dyn Fn(&[u8]) -> bool;

/// A position by consumer and by stream sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) consumer: u64,
    pub(crate) stream: u64,
}

/// What a delivery pass needs besides the consumer itself.
pub(crate) struct Delivery<'a> {
    pub(crate) now: Now,
    pub(crate) version: Version,
    pub(crate) store: &'a Store,
    pub(crate) interest: Interest<'a>,
    /// A delivered message is queued for redelivery at once, as if its `ack_wait` had been missed.
    pub(crate) redeliver_early: Chance,
    pub(crate) rng: &'a mut Rng,
    pub(crate) out: &'a mut VecDeque<Emit>,
}

/// One consumer.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) config: ConsumerConfig,
    pub(crate) created: Now,
    /// Next stream sequence to look at for a first delivery.
    cursor: u64,
    /// With `last_per_subject`: what to deliver first.
    picked: VecDeque<u64>,
    delivered: Position,
    floor: Position,
    /// Unacknowledged stream sequence -> consumer sequence of its first delivery.
    pending: BTreeMap<u64, u64>,
    deadlines: BTreeSet<(u64, u64)>,
    deadline_of: BTreeMap<u64, u64>,
    deliveries: BTreeMap<u64, u64>,
    redeliver: VecDeque<u64>,
    waiting: VecDeque<Pull>,
    /// Undelivered matching messages, until something is removed from the stream.
    backlog: Option<u64>,
    active_at: u64,
    /// Its files are gone: it lives, heartbeats, and delivers nothing.
    pub(crate) is_mute: bool,
}

impl Consumer {
    /// A consumer that starts where its deliver policy says.
    pub(crate) fn new(config: ConsumerConfig, store: &Store, now: Now) -> Self {
        let mut picked = VecDeque::new();
        let filters = config.filters();
        let newest = |filter: &str| store.last_matching(filter.as_bytes()).map(|(seq, _)| seq);
        let cursor = match config.deliver_policy {
            DeliverPolicy::All => store.first_seq().max(1),
            DeliverPolicy::New => store.last_seq() + 1,
            DeliverPolicy::ByStartSequence => {
                config.opt_start_seq.max(store.first_seq()).min(store.last_seq() + 1).max(1)
            }
            DeliverPolicy::Last => {
                let found = if filters.is_empty() { newest(">") } else { newest(filters[0]) };
                found.unwrap_or(store.last_seq() + 1)
            }
            DeliverPolicy::LastPerSubject => {
                let subjects = store.subjects().map(|(subject, _)| subject.clone());
                let mut last: Vec<u64> = subjects
                    .filter_map(|s| store.last_of(&s).map(|(seq, m)| (seq, m.subject.clone())))
                    .filter(|(_, s)| is_wanted(&filters, s))
                    .map(|(seq, _)| seq)
                    .collect();
                last.sort_unstable();
                picked.extend(last);
                store.last_seq() + 1
            }
        };
        let start = Position { consumer: 0, stream: cursor - 1 };
        Self {
            config,
            created: now,
            cursor,
            picked,
            delivered: start,
            floor: start,
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            redeliver: VecDeque::new(),
            waiting: VecDeque::new(),
            backlog: None,
            active_at: now.mono,
            is_mute: false,
        }
    }

    pub(crate) fn delivered(&self) -> Position {
        self.delivered
    }

    pub(crate) fn floor(&self) -> Position {
        self.floor
    }

    pub(crate) fn ack_pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn redelivered(&self) -> usize {
        self.deliveries.values().filter(|n| **n > 1).count()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether `seq` needs no further delivery: what interest and work queue retention ask.
    pub(crate) fn is_done_with(&self, seq: u64, subject: &[u8]) -> bool {
        let is_wanted = is_wanted(&self.config.filters(), subject);
        !is_wanted || (seq < self.cursor && !self.pending.contains_key(&seq))
    }

    /// Matching messages not yet delivered once.
    pub(crate) fn backlog(&mut self, store: &Store) -> u64 {
        let picked = self.picked.len() as u64;
        let filters = self.config.filters();
        *self.backlog.get_or_insert_with(|| store.count_matching(self.cursor, &filters) + picked)
    }

    /// A message was stored.
    pub(crate) fn note_stored(&mut self, subject: &[u8]) {
        if is_wanted(&self.config.filters(), subject) {
            self.backlog = self.backlog.map(|n| n + 1);
        }
    }

    /// Messages were removed from the stream.
    pub(crate) fn note_removed(&mut self) {
        self.backlog = None;
    }

    /// Replaces the configuration, open pulls and positions kept.
    pub(crate) fn update(&mut self, config: ConsumerConfig) {
        self.config = config;
        self.backlog = None;
    }

    /// Takes a pull request from `inbox`, or answers why not.
    pub(crate) fn pull(&mut self, d: &mut Delivery<'_>, inbox: &Bytes, request: PullRequest) {
        self.active_at = d.now.mono;
        if let Some(line) = self.refusal(&request) {
            return d.out.push_back(Emit::status(inbox, &line, &[]));
        }
        self.drop_uninterested(d);
        if self.waiting.len() as i64 >= self.config.max_waiting {
            let is_silent = request.idle_heartbeat > 0 && d.version.max_waiting_is_silent();
            if !is_silent {
                d.out.push_back(Emit::status(inbox, "409 Exceeded MaxWaiting", &[]));
            }
            return;
        }
        if request.no_wait && self.answered_no_wait(d, inbox, &request) {
            return;
        }
        let expires = (request.expires > 0).then(|| d.now.mono + request.expires);
        self.waiting.push_back(Pull {
            inbox: inbox.clone(),
            remaining: request.batch,
            bytes_left: request.max_bytes,
            delivered: 0,
            expires,
            heartbeat: request.idle_heartbeat,
            heartbeat_at: d.now.mono + request.idle_heartbeat,
            request,
        });
        self.deliver(d);
    }

    fn refusal(&self, request: &PullRequest) -> Option<String> {
        let config = &self.config;
        let beyond = |value: u64, limit: u64| limit > 0 && value > limit;
        if request.idle_heartbeat > 0 && request.idle_heartbeat * 2 > request.expires {
            return Some("400 Bad Request - heartbeat value too large".into());
        }
        if beyond(u64::try_from(request.batch).unwrap_or(0), config.max_batch) {
            return Some(format!("409 Exceeded MaxRequestBatch of {}", config.max_batch));
        }
        if beyond(request.expires, config.max_expires) {
            let limit = std::time::Duration::from_nanos(config.max_expires);
            return Some(format!("409 Exceeded MaxRequestExpires of {limit:?}"));
        }
        beyond(request.max_bytes, config.max_bytes)
            .then(|| format!("409 Exceeded MaxRequestMaxBytes of {}", config.max_bytes))
    }

    fn answered_no_wait(
        &mut self,
        d: &mut Delivery<'_>,
        inbox: &Bytes,
        request: &PullRequest,
    ) -> bool {
        let available = self.backlog(d.store) + self.redeliver.len() as u64;
        let asked: i64 = self.waiting.iter().map(|p| p.remaining).sum();
        let line = if available == 0 && request.expires == 0 {
            "404 No Messages"
        } else if available > 0 && available < u64::try_from(asked).unwrap_or(0) {
            "408 Requests Pending"
        } else {
            return false;
        };
        d.out.push_back(Emit::status(inbox, line, &[]));
        true
    }

    /// Delivers while there is a message and a pull for it, then ends the no_wait pulls.
    pub(crate) fn deliver(&mut self, d: &mut Delivery<'_>) {
        self.drop_uninterested(d);
        while let Some(mut pull) = self.waiting.pop_front() {
            let Some(seq) = self.next(d).filter(|_| !self.is_mute) else {
                self.waiting.push_front(pull);
                break;
            };
            if self.hand_out(d, &mut pull, seq) {
                // Round robin, message by message.
                self.waiting.push_back(pull);
            }
        }
        self.end_no_wait(d);
    }

    fn drop_uninterested(&mut self, d: &Delivery<'_>) {
        self.waiting.retain(|p| (d.interest)(&p.inbox));
    }

    fn end_no_wait(&mut self, d: &mut Delivery<'_>) {
        let line =
            if d.version.no_wait_ends_with_404() { None } else { Some("408 Request Timeout") };
        self.waiting.retain(|p| {
            let is_over = p.request.no_wait && p.delivered > 0;
            if is_over {
                let none = || Emit::status(&p.inbox, "404 No Messages", &[]);
                d.out.push_back(line.map_or_else(none, |line| p.status(line)));
            }
            !is_over
        });
    }

    /// The next sequence to deliver: redeliveries first, and exempt from `max_ack_pending`.
    fn next(&mut self, d: &mut Delivery<'_>) -> Option<u64> {
        while let Some(seq) = self.redeliver.front().copied() {
            if !self.pending.contains_key(&seq) || d.store.get(seq).is_none() {
                self.redeliver.pop_front();
                self.settle(seq);
            } else if self.is_exhausted(seq) {
                self.redeliver.pop_front();
                self.give_up(d, seq);
            } else {
                return Some(seq);
            }
        }
        if self.is_full() {
            return None;
        }
        while let Some(seq) = self.picked.front().copied() {
            if d.store.get(seq).is_some() {
                return Some(seq);
            }
            self.picked.pop_front();
        }
        let filters = self.config.filters();
        d.store.next_matching(self.cursor, &filters).map(|(seq, _)| seq)
    }

    fn is_full(&self) -> bool {
        self.config.ack_policy != AckPolicy::None
            && usize::try_from(self.config.max_ack_pending)
                .is_ok_and(|limit| self.pending.len() >= limit)
    }

    fn is_exhausted(&self, seq: u64) -> bool {
        let count = self.deliveries.get(&seq).copied().unwrap_or(0);
        u64::try_from(self.config.max_deliver).is_ok_and(|limit| count >= limit)
    }

    fn give_up(&mut self, d: &mut Delivery<'_>, seq: u64) {
        let (stream, consumer) = (&d.store.config.name, &self.config.name);
        let deliveries = self.deliveries.get(&seq).copied().unwrap_or(0);
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{consumer}");
        let body = serde_json::json!({
            "type": "io.nats.jetstream.advisory.v1.max_deliver",
            "stream": stream, "consumer": consumer, "stream_seq": seq, "deliveries": deliveries,
        });
        d.out.push_back(Emit::answer(&subject.into(), body.to_string()));
        self.settle(seq);
    }

    /// Sends `seq` to `pull`; whether the pull stays open.
    fn hand_out(&mut self, d: &mut Delivery<'_>, pull: &mut Pull, seq: u64) -> bool {
        let Some(stored) = d.store.get(seq) else { return true };
        let count = self.deliveries.get(&seq).map_or(1, |n| n + 1);
        let is_first = !self.pending.contains_key(&seq);
        let backlog = self.backlog(d.store) - u64::from(is_first);
        let reply = self.ack_subject(d, seq, stored, (count, backlog));
        let payload = if self.config.headers_only { Bytes::new() } else { stored.payload.clone() };
        let size = stored.subject.len() + reply.len() + stored.headers.len() + payload.len();
        if pull.request.max_bytes > 0 && size as u64 > pull.bytes_left {
            d.out.push_back(pull.status("409 Message Size Exceeds MaxBytes"));
            return false;
        }
        d.out.push_back(Emit {
            route: pull.inbox.clone(),
            subject: stored.subject.clone(),
            reply: Some(reply),
            headers: stored.headers.clone(),
            payload,
            delay: 0,
        });
        self.book(d, seq, count);
        self.charge(d, pull, size as u64)
    }

    fn ack_subject(&self, d: &Delivery<'_>, seq: u64, m: &Stored, counts: (u64, u64)) -> Bytes {
        let (stream, consumer) = (&d.store.config.name, &self.config.name);
        let (count, backlog) = counts;
        let (cseq, stamp) = (self.delivered.consumer + 1, m.at.wall);
        format!("$JS.ACK.{stream}.{consumer}.{count}.{seq}.{cseq}.{stamp}.{backlog}").into()
    }

    fn book(&mut self, d: &mut Delivery<'_>, seq: u64, count: u64) {
        self.delivered.consumer += 1;
        self.delivered.stream = self.delivered.stream.max(seq);
        if self.redeliver.front() == Some(&seq) {
            self.redeliver.pop_front();
        } else {
            self.backlog = self.backlog.map(|n| n.saturating_sub(1));
            if self.picked.front() == Some(&seq) {
                self.picked.pop_front();
            } else {
                self.cursor = seq + 1;
            }
        }
        if self.config.ack_policy == AckPolicy::None {
            self.floor = self.delivered;
            return;
        }
        self.deliveries.insert(seq, count);
        self.pending.entry(seq).or_insert(self.delivered.consumer);
        if d.redeliver_early.hit(d.rng) {
            self.redeliver.push_back(seq);
        } else {
            self.set_deadline(seq, d.now.mono + self.ack_wait(count));
        }
    }

    fn ack_wait(&self, count: u64) -> u64 {
        let steps = &self.config.backoff;
        let step = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
        let step = step.min(steps.len().saturating_sub(1));
        steps.get(step).copied().unwrap_or(self.config.ack_wait)
    }

    fn charge(&mut self, d: &mut Delivery<'_>, pull: &mut Pull, size: u64) -> bool {
        pull.remaining -= 1;
        pull.delivered += 1;
        pull.bytes_left = pull.bytes_left.saturating_sub(size);
        pull.heartbeat_at = d.now.mono + pull.heartbeat;
        if pull.remaining > 0 {
            return true;
        }
        pull.remaining = 0;
        if pull.bytes_left > 0 && d.version.since(10) {
            d.out.push_back(pull.status("409 Batch Completed"));
        }
        false
    }

    fn set_deadline(&mut self, seq: u64, at: u64) {
        if let Some(old) = self.deadline_of.insert(seq, at) {
            self.deadlines.remove(&(old, seq));
        }
        self.deadlines.insert((at, seq));
    }

    fn clear_deadline(&mut self, seq: u64) {
        if let Some(old) = self.deadline_of.remove(&seq) {
            self.deadlines.remove(&(old, seq));
        }
    }

    /// Applies an ack. `None`: the server does not regard `seq` as delivered, and does not answer.
    /// Otherwise the sequences that this ack settled, ascending.
    pub(crate) fn acknowledge(
        &mut self,
        now: Now,
        (seq, cseq): (u64, u64),
        verb: &Verb,
        version: Version,
    ) -> Option<Vec<u64>> {
        self.active_at = now.mono;
        if seq >= self.cursor && !self.pending.contains_key(&seq) && version.since(10) {
            return None;
        }
        Some(match verb {
            Verb::Ack | Verb::Next(_) if self.config.ack_policy == AckPolicy::All => {
                self.settle_through(seq, cseq)
            }
            Verb::Ack | Verb::Next(_) | Verb::Terminate => {
                self.settle(seq).then_some(seq).into_iter().collect()
            }
            Verb::Nak(delay) => self.negative(now, seq, *delay),
            Verb::InProgress => self.extend(now, seq),
            Verb::Ignored => Vec::new(),
        })
    }

    fn negative(&mut self, now: Now, seq: u64, delay: u64) -> Vec<u64> {
        if !self.pending.contains_key(&seq) || self.redeliver.contains(&seq) {
            return Vec::new();
        }
        if delay > 0 {
            self.set_deadline(seq, now.mono + delay);
        } else {
            self.clear_deadline(seq);
            self.redeliver.push_back(seq);
        }
        Vec::new()
    }

    fn extend(&mut self, now: Now, seq: u64) -> Vec<u64> {
        if self.deadline_of.contains_key(&seq) {
            let count = self.deliveries.get(&seq).copied().unwrap_or(1);
            self.set_deadline(seq, now.mono + self.ack_wait(count));
        }
        Vec::new()
    }

    /// One message is done with; whether it was pending. The floor rises over what is settled.
    fn settle(&mut self, seq: u64) -> bool {
        let Some(cseq) = self.pending.remove(&seq) else { return false };
        self.clear_deadline(seq);
        self.deliveries.remove(&seq);
        match self.pending.first_key_value() {
            None => self.floor = self.delivered,
            Some((first, first_cseq)) if cseq == self.floor.consumer + 1 => {
                self.floor = Position { consumer: first_cseq - 1, stream: first - 1 };
            }
            Some(_) => {}
        }
        true
    }

    fn settle_through(&mut self, seq: u64, cseq: u64) -> Vec<u64> {
        if seq <= self.floor.stream {
            return Vec::new();
        }
        let settled: Vec<u64> = self.pending.range(..=seq).map(|(seq, _)| *seq).collect();
        for seq in &settled {
            self.pending.remove(seq);
            self.clear_deadline(*seq);
            self.deliveries.remove(seq);
        }
        self.floor = Position { consumer: cseq.max(self.floor.consumer), stream: seq };
        settled
    }

    /// Messages purged from the stream need no ack any more, and the cursor skips them.
    pub(crate) fn forget(&mut self, removed: &[u64], first_seq: u64) {
        self.backlog = None;
        self.cursor = self.cursor.max(first_seq);
        for seq in removed {
            self.settle(*seq);
        }
    }

    /// Time passed: missed acks are queued for redelivery, pulls expire, heartbeats go out.
    pub(crate) fn tick(&mut self, d: &mut Delivery<'_>, shuffle: bool) {
        self.expire_acks(d, shuffle);
        self.deliver(d);
        let now = d.now.mono;
        self.waiting.retain(|p| {
            let is_over = p.expires.is_some_and(|at| at <= now);
            if is_over {
                d.out.push_back(p.status("408 Request Timeout"));
            }
            !is_over
        });
        let delivered = self.delivered;
        for pull in &mut self.waiting {
            if pull.heartbeat > 0 && pull.heartbeat_at <= now {
                let fields = [
                    ("Nats-Last-Consumer", delivered.consumer),
                    ("Nats-Last-Stream", delivered.stream),
                ];
                d.out.push_back(Emit::status(&pull.inbox, "100 Idle Heartbeat", &fields));
                pull.heartbeat_at = now + pull.heartbeat;
            }
        }
        if !self.waiting.is_empty() {
            self.active_at = now;
        }
    }

    fn expire_acks(&mut self, d: &mut Delivery<'_>, shuffle: bool) {
        let mut missed = Vec::new();
        while let Some((at, seq)) = self.deadlines.first().copied().filter(|p| p.0 <= d.now.mono) {
            self.deadlines.remove(&(at, seq));
            self.deadline_of.remove(&seq);
            missed.push(seq);
        }
        // In sequence order within one check, and only there.
        missed.sort_unstable();
        if shuffle {
            d.rng.shuffle(&mut missed);
        }
        self.redeliver.extend(missed);
    }

    /// When [`Consumer::tick`] has something to do next.
    pub(crate) fn due(&self) -> Option<u64> {
        let acks = self.deadlines.first().map(|(at, _)| *at);
        let pulls = self.waiting.iter().map(|p| {
            let heartbeat = (p.heartbeat > 0).then_some(p.heartbeat_at);
            earlier(p.expires, heartbeat)
        });
        pulls.fold(earlier(acks, self.idle_until()), earlier)
    }

    /// When an ephemeral consumer dies if nothing more happens.
    pub(crate) fn idle_until(&self) -> Option<u64> {
        let threshold = Some(self.config.inactive_threshold).filter(|t| *t > 0);
        threshold.filter(|_| self.waiting.is_empty()).map(|t| self.active_at + t)
    }

    /// Ends every open pull with `line`; with pending headers where the server sends them.
    pub(crate) fn end_pulls(&mut self, line: &str, with_pending: bool, out: &mut VecDeque<Emit>) {
        for pull in self.waiting.drain(..) {
            let bare = || Emit::status(&pull.inbox, line, &[]);
            out.push_back(if with_pending { pull.status(line) } else { bare() });
        }
    }

    /// The process died: pulls are gone. With `floor_lost_max` > 0 the acks fall back too, by up to that
    /// many messages, to a state the consumer really had; with delivery counts kept or reset.
    pub(crate) fn crash(&mut self, store: &Store, floor_lost_max: u64, rng: &mut Rng) {
        self.waiting.clear();
        self.backlog = None;
        self.cursor = self.cursor.min(store.last_seq() + 1);
        if floor_lost_max == 0 || self.config.ack_policy == AckPolicy::None {
            return;
        }
        let lost = rng.u64(0..=floor_lost_max);
        let start = self.floor.stream.saturating_sub(lost).max(store.first_seq().max(1) - 1);
        let until = rng.u64(start.min(self.delivered.stream)..=self.delivered.stream);
        self.rewind(store, start.min(self.floor.stream), until, rng.bool());
    }

    /// Takes the consumer back to the moment when it had acks through `floor` and deliveries through
    /// `until`.
    fn rewind(&mut self, store: &Store, floor: u64, until: u64, reset_counts: bool) {
        let filters: Vec<String> = self.config.filters().into_iter().map(String::from).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let unacked = store
            .iter()
            .filter(|(seq, m)| *seq > floor && *seq <= until && is_wanted(&filters, &m.subject));
        let unacked: Vec<u64> = unacked.map(|(seq, _)| seq).collect();
        let regained = store.count_matching(floor + 1, &filters);
        let ahead = store.count_matching(self.floor.stream + 1, &filters);
        let consumer = self.floor.consumer.saturating_sub(regained.saturating_sub(ahead));
        self.floor = Position { consumer, stream: floor };
        self.pending.clear();
        let counts = std::mem::take(&mut self.deliveries);
        self.deadlines.clear();
        self.deadline_of.clear();
        self.redeliver.clear();
        for (index, seq) in unacked.iter().enumerate() {
            self.pending.insert(*seq, consumer + 1 + index as u64);
            let count = counts.get(seq).copied().filter(|_| !reset_counts);
            // A count of 0 makes the next delivery the first one again.
            self.deliveries.insert(*seq, count.unwrap_or(0));
            self.redeliver.push_back(*seq);
        }
        self.delivered = Position { consumer: consumer + unacked.len() as u64, stream: until };
        self.cursor = until + 1;
    }
}

fn is_wanted(filters: &[&str], subject: &[u8]) -> bool {
    filters.is_empty()
        || filters.iter().any(|f| crate::peers::subject::matches(f.as_bytes(), subject))
}
