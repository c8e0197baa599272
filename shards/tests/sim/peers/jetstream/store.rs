//! Content of one stream: messages by sequence, an index by subject, the dedup table. Persistent: only
//! what a crash is asked to lose goes. Invariant: `by_subject` and `bytes` describe `messages` exactly.
//! The order of checks in `publish` is that of the server's `processJetStreamMsg`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::config::{Discard, StreamConfig};
use super::error::ApiError;
use crate::peers::message::{Publish, header};
use crate::peers::subject::matches;
use crate::peers::version::Version;
use crate::peers::{earlier, kv};
use shards::clock::{MS, Now, SEC};

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) subject: Bytes,
    /// Raw header block, as published.
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
    /// When it was stored.
    pub(crate) at: Now,
    /// Monotonic moment at which `Nats-TTL` removes it.
    expires: Option<u64>,
}

impl Stored {
    /// Bytes on disk: record header 22, checksum 8, and 4 for the header length where there is one.
    /// Source: nats-server `fileStoreMsgSize`.
    fn size(&self) -> u64 {
        let header = if self.headers.is_empty() { 0 } else { 4 + self.headers.len() };
        (30 + self.subject.len() + header + self.payload.len()) as u64
    }
}

/// Outcome of a publish that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Sequence of the message, or of its first copy.
    pub(crate) seq: u64,
    /// The dedup table knew its `Nats-Msg-Id`.
    pub(crate) duplicate: bool,
}

/// One stream's content.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) config: StreamConfig,
    pub(crate) created: Now,
    messages: BTreeMap<u64, Stored>,
    by_subject: BTreeMap<Bytes, BTreeSet<u64>>,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    ids: BTreeMap<String, (u64, u64)>,
    ids_by_age: VecDeque<(u64, String)>,
    ttls: BTreeSet<(u64, u64)>,
}

impl Store {
    pub(crate) fn new(config: StreamConfig, created: Now) -> Self {
        Self {
            config,
            created,
            messages: BTreeMap::new(),
            by_subject: BTreeMap::new(),
            bytes: 0,
            first_seq: 0,
            last_seq: 0,
            ids: BTreeMap::new(),
            ids_by_age: VecDeque::new(),
            ttls: BTreeSet::new(),
        }
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Stored> {
        self.messages.get(&seq)
    }

    /// All messages with their sequences, in order: what an oracle compares with.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Stored)> {
        self.messages.iter().map(|(seq, m)| (*seq, m))
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Sequence of the oldest message; one past the last where none is left; 0 if none ever was.
    pub(crate) fn first_seq(&self) -> u64 {
        self.messages.keys().next().copied().unwrap_or(self.first_seq)
    }

    /// Subjects with a message, sorted, and how many each has.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = (&Bytes, usize)> {
        self.by_subject.iter().map(|(subject, seqs)| (subject, seqs.len()))
    }

    /// The newest message of a literal subject.
    pub(crate) fn last_of(&self, subject: &[u8]) -> Option<(u64, &Stored)> {
        let seq = *self.by_subject.get(subject)?.last()?;
        Some((seq, self.messages.get(&seq)?))
    }

    /// The newest message of any subject matching `pattern`.
    pub(crate) fn last_matching(&self, pattern: &[u8]) -> Option<(u64, &Stored)> {
        let newest = self.by_subject.iter().filter(|(s, _)| matches(pattern, s));
        let seq = newest.filter_map(|(_, seqs)| seqs.last()).max()?;
        Some((*seq, self.messages.get(seq)?))
    }

    /// The first message at or after `from` that one of `filters` matches; all match without filters.
    pub(crate) fn next_matching(&self, from: u64, filters: &[&str]) -> Option<(u64, &Stored)> {
        self.messages
            .range(from..)
            .find(|(_, m)| is_wanted(filters, &m.subject))
            .map(|(seq, m)| (*seq, m))
    }

    /// How many messages at or after `from` one of `filters` matches.
    pub(crate) fn count_matching(&self, from: u64, filters: &[&str]) -> u64 {
        self.messages.range(from..).filter(|(_, m)| is_wanted(filters, &m.subject)).count() as u64
    }

    /// Stores a message, or finds that it is a duplicate, or refuses it.
    pub(crate) fn publish(
        &mut self,
        now: Now,
        message: &Publish,
        version: Version,
    ) -> Result<Accepted, ApiError> {
        self.forget_old_ids(now);
        kv::check_stream(self, &message.headers)?;
        let id = header(&message.headers, "Nats-Msg-Id");
        if let Some((seq, _)) = id.and_then(|id| self.ids.get(id)) {
            return Ok(Accepted { seq: *seq, duplicate: true });
        }
        kv::check_expected(self, message)?;
        let expires = self.ttl(now, &message.headers, version)?;
        self.check_limits(message)?;
        let seq = self.append(now, message, expires);
        if let Some(id) = id {
            self.remember_id(id, seq, now.mono);
        }
        Ok(Accepted { seq, duplicate: false })
    }

    fn append(&mut self, now: Now, message: &Publish, expires: Option<u64>) -> u64 {
        let seq = self.last_seq + 1;
        let (subject, headers) = (message.subject.clone(), message.headers.clone());
        let payload = message.payload.clone();
        let stored = Stored { subject, headers, payload, at: now, expires };
        self.bytes += stored.size();
        self.by_subject.entry(stored.subject.clone()).or_default().insert(seq);
        self.ttls.extend(expires.map(|at| (at, seq)));
        self.messages.insert(seq, stored);
        self.last_seq = seq;
        self.first_seq = self.first_seq.max(1);
        self.roll_up(seq, message);
        self.enforce_limits(&message.subject);
        seq
    }

    fn roll_up(&mut self, seq: u64, message: &Publish) {
        let doomed: Vec<u64> = match header(&message.headers, "Nats-Rollup") {
            Some("sub") => self.by_subject[&message.subject].range(..seq).copied().collect(),
            Some("all") => self.messages.range(..seq).map(|(seq, _)| *seq).collect(),
            _ => return,
        };
        doomed.into_iter().for_each(|seq| drop(self.remove(seq)));
    }

    fn check_limits(&self, message: &Publish) -> Result<(), ApiError> {
        let config = &self.config;
        if config.sealed {
            return Err(ApiError::new(400, 10109, "invalid operation on sealed stream"));
        }
        if exceeds(message.size() as u64, config.max_msg_size) {
            return Err(ApiError::new(400, 10054, "message size exceeds maximum allowed"));
        }
        if message.headers.len() > usize::from(u16::MAX) {
            let text = "header size exceeds maximum allowed of 64k";
            return Err(ApiError::new(400, 10097, text));
        }
        if header(&message.headers, "Nats-Rollup").is_some() && !config.allow_rollup_hdrs {
            return Err(ApiError::new(500, 10111, "rollup not permitted"));
        }
        self.check_room(message)
    }

    fn check_room(&self, message: &Publish) -> Result<(), ApiError> {
        let config = &self.config;
        let of_subject = self.by_subject.get(&message.subject).map_or(0, |s| s.len() as u64);
        let subject_full = exceeds(of_subject + 1, config.max_msgs_per_subject);
        if config.discard == Discard::Old {
            return Ok(());
        }
        if subject_full && config.discard_new_per_subject {
            return Err(ApiError::store_failed("maximum messages per subject exceeded"));
        }
        // A message that takes the place of another of its subject needs no room.
        if !subject_full && exceeds(self.messages.len() as u64 + 1, config.max_msgs) {
            return Err(ApiError::store_failed("maximum messages exceeded"));
        }
        let size = 30 + message.subject.len() + message.size();
        if !subject_full && exceeds(self.bytes + size as u64, config.max_bytes) {
            return Err(ApiError::store_failed("maximum bytes exceeded"));
        }
        Ok(())
    }

    fn enforce_limits(&mut self, subject: &Bytes) {
        while exceeds(self.by_subject[subject].len() as u64, self.config.max_msgs_per_subject) {
            let oldest = self.by_subject[subject].first().copied();
            oldest.into_iter().for_each(|seq| drop(self.remove(seq)));
        }
        while exceeds(self.messages.len() as u64, self.config.max_msgs)
            || (exceeds(self.bytes, self.config.max_bytes) && self.messages.len() > 1)
        {
            drop(self.remove(self.first_seq()));
        }
    }

    /// `Nats-TTL` (2.11+): `5`, `5s`, `1m`, `1h`, `never`; at least a second. Older servers ignore it.
    fn ttl(&self, now: Now, headers: &[u8], version: Version) -> Result<Option<u64>, ApiError> {
        let Some(text) = header(headers, "Nats-TTL").filter(|_| version.since(11)) else {
            return Ok(None);
        };
        if !self.config.allow_msg_ttl {
            return Err(ApiError::new(400, 10166, "per-message TTL is disabled"));
        }
        if text == "never" {
            return Ok(None);
        }
        let (digits, unit) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], SEC),
            Some(b'm') => (&text[..text.len() - 1], 60 * SEC),
            Some(b'h') => (&text[..text.len() - 1], 3600 * SEC),
            _ => (text, SEC),
        };
        let seconds = digits.parse::<u64>().ok().filter(|n| *n > 0);
        let seconds =
            seconds.ok_or_else(|| ApiError::new(400, 10165, "invalid per-message TTL"))?;
        Ok(Some(now.mono + seconds * unit))
    }

    /// Removes one message. Its id stays in the dedup table.
    pub(crate) fn remove(&mut self, seq: u64) -> Option<Stored> {
        let stored = self.messages.remove(&seq)?;
        self.bytes -= stored.size();
        if let Some(at) = stored.expires {
            self.ttls.remove(&(at, seq));
        }
        if let Some(seqs) = self.by_subject.get_mut(&stored.subject) {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.by_subject.remove(&stored.subject);
            }
        }
        self.first_seq = self.messages.keys().next().copied().unwrap_or(self.last_seq + 1);
        Some(stored)
    }

    /// Removes what `filter` matches (all, if empty) below `below`, but for the last `keep`.
    pub(crate) fn purge(&mut self, filter: &str, below: u64, keep: usize) -> Vec<u64> {
        let filters: Vec<&str> = Some(filter).filter(|f| !f.is_empty()).into_iter().collect();
        let found = self.messages.range(..below).filter(|(_, m)| is_wanted(&filters, &m.subject));
        let mut doomed: Vec<u64> = found.map(|(seq, _)| *seq).collect();
        doomed.truncate(doomed.len().saturating_sub(keep));
        doomed.iter().for_each(|seq| drop(self.remove(*seq)));
        doomed
    }

    /// Removes what is too old. Never early; a server looks only every so often, see [`Store::due`].
    pub(crate) fn expire(&mut self, now: u64, version: Version) {
        while self.due(version).is_some_and(|at| at <= now) {
            let by_ttl = self.ttls.first().filter(|(at, _)| late(*at, TTL_PERIOD) <= now);
            let seq = by_ttl.map_or_else(|| self.first_seq(), |(_, seq)| *seq);
            drop(self.remove(seq));
        }
    }

    /// When the next message is removed for its age: its deadline, rounded up to the server's next look
    /// (late by up to 1 s before 2.11, by up to 0.25 s since; per-message TTLs by 10 ms).
    pub(crate) fn due(&self, version: Version) -> Option<u64> {
        let period = if version.since(11) { 250 * MS } else { SEC };
        let oldest = self.messages.values().next().filter(|_| self.config.max_age > 0);
        let by_age = oldest.map(|m| late(m.at.mono + self.config.max_age, period));
        earlier(by_age, self.ttls.first().map(|(at, _)| late(*at, TTL_PERIOD)))
    }

    /// What a killed process leaves: memory streams are empty, the dedup table is rebuilt from the
    /// messages, and of a file stream the last `tail_lost` messages are gone (power loss only).
    pub(crate) fn crash(&mut self, memory: bool, tail_lost: u64) {
        let keep = if memory { 0 } else { self.last_seq.saturating_sub(tail_lost) };
        let doomed: Vec<u64> = self.messages.range(keep + 1..).map(|(seq, _)| *seq).collect();
        doomed.into_iter().for_each(|seq| drop(self.remove(seq)));
        self.last_seq = keep.min(self.last_seq);
        self.first_seq = if memory { 0 } else { self.first_seq.min(self.last_seq + 1) };
        self.ids.clear();
        self.ids_by_age.clear();
        let kept = self.messages.iter().filter_map(|(seq, m)| {
            Some((header(&m.headers, "Nats-Msg-Id")?.to_owned(), *seq, m.at.mono))
        });
        for (id, seq, at) in kept.collect::<Vec<_>>() {
            self.remember_id(&id, seq, at);
        }
    }

    fn remember_id(&mut self, id: &str, seq: u64, at: u64) {
        self.ids.insert(id.to_owned(), (seq, at));
        self.ids_by_age.push_back((at, id.to_owned()));
    }

    fn forget_old_ids(&mut self, now: Now) {
        while let Some((at, id)) = self.ids_by_age.front() {
            if at + self.config.duplicate_window > now.mono {
                return;
            }
            self.ids.remove(id);
            self.ids_by_age.pop_front();
        }
    }

    /// `Nats-Msg-Id` of the newest message that had one.
    pub(crate) fn last_msg_id(&self) -> &str {
        self.ids_by_age.back().map_or("", |(_, id)| id)
    }
}

const TTL_PERIOD: u64 = 10 * MS;

fn late(deadline: u64, period: u64) -> u64 {
    deadline.next_multiple_of(period)
}

fn exceeds(value: u64, limit: i64) -> bool {
    u64::try_from(limit).is_ok_and(|limit| value > limit)
}

fn is_wanted(filters: &[&str], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|f| matches(f.as_bytes(), subject))
}
