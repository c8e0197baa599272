//! JetStream of the simulated server: streams with their consumers, publishes, acks and time. Messages
//! go out through `out`; who receives them is the server's affair. Persistent, save open pulls.

pub(crate) mod api;
pub(crate) mod config;
pub(crate) mod consumer;
pub(crate) mod error;
pub(crate) mod faults;
pub(crate) mod request;
pub(crate) mod sources;
pub(crate) mod store;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;

use self::config::{Retention, Storage};
use self::consumer::{Consumer, Delivery, Interest};
use self::error::ApiError;
use self::faults::{CrashLoss, JetStreamFaults};
use self::request::{PullRequest, Verb};
use self::store::{Accepted, Store};
use super::message::{Emit, Publish};
use super::version::Version;
use super::{delay_up_to, earlier};
use shards::clock::{MS, Now};

/// How long the server removes the files of a consumer.
const REMOVAL: u64 = 500 * MS;

/// A stream and who reads it.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) store: Store,
    pub(crate) consumers: BTreeMap<String, Consumer>,
}

/// All streams of one account.
#[derive(Clone, Debug)]
pub(crate) struct JetStream {
    pub(crate) version: Version,
    /// Knobs; change them at any time.
    pub(crate) faults: JetStreamFaults,
    /// One PubAck of three comes a second time, later. By its sequence, not by chance: so seeds that have
    /// found something stay what they are.
    pub(crate) repeats_pubacks: bool,
    pub(crate) streams: BTreeMap<String, Stream>,
    /// What is to be sent, in order.
    pub(crate) out: VecDeque<Emit>,
    rng: Rng,
    leaderless_until: u64,
    names_made: u64,
    /// Consumers (stream, name) whose files are being removed, and until when.
    removing: BTreeMap<(String, String), u64>,
}

impl JetStream {
    pub(crate) fn new(version: Version, rng: Rng) -> Self {
        Self {
            version,
            faults: JetStreamFaults::default(),
            repeats_pubacks: false,
            streams: BTreeMap::new(),
            out: VecDeque::new(),
            rng,
            leaderless_until: 0,
            names_made: 0,
            removing: BTreeMap::new(),
        }
    }

    /// A stream's content, for an oracle.
    pub(crate) fn store(&self, stream: &str) -> Option<&Store> {
        self.streams.get(stream).map(|s| &s.store)
    }

    /// A consumer, for an oracle.
    pub(crate) fn consumer(&self, stream: &str, consumer: &str) -> Option<&Consumer> {
        self.streams.get(stream)?.consumers.get(consumer)
    }

    /// Takes a message from a client. False if nobody here listens to its subject, so that a publisher
    /// with a reply gets a 503.
    pub(crate) fn handle(&mut self, now: Now, message: &Publish, interest: Interest<'_>) -> bool {
        let Ok(subject) = std::str::from_utf8(&message.subject) else { return false };
        if let Some(call) = subject.strip_prefix("$JS.API.") {
            return self.handle_api(now, call, message, interest);
        }
        if let Some(position) = subject.strip_prefix("$JS.ACK.") {
            return self.handle_ack(now, position, message, interest);
        }
        self.handle_publish(now, message, interest)
    }

    fn is_leaderless(&self, now: Now) -> bool {
        now.mono < self.leaderless_until
    }

    fn handle_publish(&mut self, now: Now, message: &Publish, interest: Interest<'_>) -> bool {
        let mut taking = self.streams.values().filter(|s| s.store.config.takes(&message.subject));
        let Some(stream) = taking.next() else { return false };
        let name = stream.store.config.name.clone();
        if self.is_leaderless(now) || self.faults.publish_no_responders.hit(&mut self.rng) {
            return false;
        }
        if self.faults.publish_lost.hit(&mut self.rng) {
            return true;
        }
        let last_seq = |js: &Self| js.store(&name).map_or(0, Store::last_seq);
        let before = last_seq(self);
        let outcome = self.store_message(now, &name, message);
        let is_new = last_seq(self) > before; // Some refusals come after the storing.
        self.answer_publish(&name, message, outcome);
        self.deliver_all(now, &name, interest);
        if is_new {
            for sourcing in self.sourcing(&name) {
                self.copy(now, (&name, &sourcing), message);
                self.deliver_all(now, &sourcing, interest);
            }
        }
        true
    }

    // Streams that copy from `name`.
    fn sourcing(&self, name: &str) -> Vec<String> {
        let copies = |s: &&Stream| s.store.config.sources.iter().any(|source| source.name == name);
        self.streams.values().filter(copies).map(|s| s.store.config.name.clone()).collect()
    }

    fn copy(&mut self, now: Now, (from, to): (&str, &str), message: &Publish) {
        let version = self.version;
        let Some(stream) = self.streams.get_mut(to) else { return };
        let sources = stream.store.config.sources.iter().filter(|source| source.name == from);
        let subjects: Vec<Bytes> =
            sources.filter_map(|source| source.subject_of(&message.subject)).collect();
        for subject in subjects {
            let copy = Publish { subject, reply: None, ..message.clone() };
            if stream.store.publish(now, &copy, version).is_ok_and(|accepted| !accepted.duplicate) {
                stream.consumers.values_mut().for_each(|c| c.note_stored(&copy.subject));
            }
        }
    }

    fn store_message(
        &mut self,
        now: Now,
        name: &str,
        message: &Publish,
    ) -> Result<Accepted, ApiError> {
        let refusal = self.faults.refusal(&mut self.rng);
        if let Some(refusal) = refusal.as_ref().filter(|r| !r.stores) {
            return Err(refusal.error.clone());
        }
        let Some(stream) = self.streams.get_mut(name) else {
            return Err(ApiError::stream_not_found());
        };
        let messages_before = stream.store.len();
        let accepted = stream.store.publish(now, message, self.version)?;
        if !accepted.duplicate {
            let is_displaced = stream.store.len() <= messages_before;
            for consumer in stream.consumers.values_mut() {
                consumer.note_stored(&message.subject);
                if is_displaced {
                    consumer.note_removed();
                }
            }
        }
        refusal.map_or(Ok(accepted), |refusal| Err(refusal.error))
    }

    fn answer_publish(
        &mut self,
        name: &str,
        message: &Publish,
        outcome: Result<Accepted, ApiError>,
    ) {
        let is_mute = self.streams.get(name).is_some_and(|s| s.store.config.no_ack);
        let Some(reply) = message.reply.as_ref().filter(|_| !is_mute) else { return };
        if self.faults.puback_lost.hit(&mut self.rng) {
            return;
        }
        let repeated = outcome.as_ref().ok().filter(|ok| self.repeats_pubacks && ok.seq % 3 == 0);
        let later = repeated.map(|accepted| MS * (accepted.seq % 20));
        let body = match outcome {
            Ok(accepted) => puback(name, accepted, self.version),
            // The first copy is in flight: an error from 2.11 on, before that an ack that is none.
            Err(error) if error.err_code == 10158 && !self.version.since(11) => {
                puback(name, Accepted { seq: 0, duplicate: true }, self.version)
            }
            Err(error) => format!(r#"{{"error":{},"stream":"{name}","seq":0}}"#, error.to_json()),
        };
        let delay = delay_up_to(self.faults.puback_delay_max, &mut self.rng);
        if let Some(later) = later {
            self.out.push_back(Emit::answer(reply, body.clone()).after(delay + later));
        }
        self.out.push_back(Emit::answer(reply, body).after(delay));
    }

    fn handle_ack(
        &mut self,
        now: Now,
        position: &str,
        message: &Publish,
        interest: Interest<'_>,
    ) -> bool {
        let Some((stream, consumer, at)) = ack_position(position) else { return false };
        if !self.streams.get(stream).is_some_and(|s| s.consumers.contains_key(consumer)) {
            return false;
        }
        if self.is_leaderless(now) {
            return false;
        }
        if self.faults.ack_lost.hit(&mut self.rng) {
            return true;
        }
        let verb = Verb::read(&message.payload, self.version);
        let Some(answered) = self.settle(now, (stream, consumer), at, &verb) else { return true };
        match (&verb, &message.reply) {
            (Verb::Next(body), Some(inbox)) => {
                if let Some(request) = PullRequest::read(body) {
                    self.with_consumer(now, stream, consumer, interest, |c, d| {
                        c.pull(d, inbox, request);
                    });
                }
            }
            (_, Some(reply)) if answered => self.out.push_back(Emit::answer(reply, Bytes::new())),
            (_, Some(_) | None) => {}
        }
        self.with_consumer(now, stream, consumer, interest, |c, d| c.deliver(d));
        true
    }

    fn settle(
        &mut self,
        now: Now,
        (stream, consumer): (&str, &str),
        at: (u64, u64),
        verb: &Verb,
    ) -> Option<bool> {
        let version = self.version;
        let stream = self.streams.get_mut(stream)?;
        let settled = stream.consumers.get_mut(consumer)?.acknowledge(now, at, verb, version)?;
        stream.retire(&settled);
        Some(true)
    }

    /// Runs `act` on a consumer with all it needs to deliver.
    fn with_consumer(
        &mut self,
        now: Now,
        stream: &str,
        consumer: &str,
        interest: Interest<'_>,
        act: impl FnOnce(&mut Consumer, &mut Delivery<'_>),
    ) {
        let Some(Stream { store, consumers }) = self.streams.get_mut(stream) else { return };
        let Some(consumer) = consumers.get_mut(consumer) else { return };
        let (redeliver_early, version) = (self.faults.redeliver_early, self.version);
        let (rng, out) = (&mut self.rng, &mut self.out);
        let mut delivery = Delivery { now, version, store, interest, redeliver_early, rng, out };
        act(consumer, &mut delivery);
    }

    fn deliver_all(&mut self, now: Now, stream: &str, interest: Interest<'_>) {
        let Some(names) = self.streams.get(stream).map(Stream::consumer_names) else { return };
        for consumer in names {
            self.with_consumer(now, stream, &consumer, interest, |c, d| c.deliver(d));
        }
    }

    /// Time passed: ages, ack waits, pulls, heartbeats, ephemeral consumers.
    pub(crate) fn tick(&mut self, now: Now, interest: Interest<'_>) {
        if self.is_leaderless(now) {
            return;
        }
        let names: Vec<String> = self.streams.keys().cloned().collect();
        for name in names {
            self.expire_stream(now, &name);
            let Some(consumers) = self.streams.get(&name).map(Stream::consumer_names) else {
                continue;
            };
            let shuffle = self.faults.redeliver_shuffled;
            for consumer in consumers {
                self.with_consumer(now, &name, &consumer, interest, |c, d| c.tick(d, shuffle));
            }
        }
    }

    fn expire_stream(&mut self, now: Now, name: &str) {
        let Some(stream) = self.streams.get_mut(name) else { return };
        let before = stream.store.len();
        stream.store.expire(now.mono, self.version);
        if stream.store.len() < before {
            stream.consumers.values_mut().for_each(Consumer::note_removed);
        }
        stream.consumers.retain(|_, c| c.idle_until().is_none_or(|at| at > now.mono));
    }

    /// When [`JetStream::tick`] has something to do next, monotonic nanoseconds.
    pub(crate) fn due(&self) -> Option<u64> {
        let consumers = self.streams.values().flat_map(|s| s.consumers.values().map(Consumer::due));
        let stores = self.streams.values().map(|s| s.store.due(self.version));
        let due = consumers.chain(stores).fold(None, earlier);
        due.map(|at| at.max(self.leaderless_until))
    }

    /// A new leader: each open pull ends with a 409 that has no pending headers. For `leaderless`
    /// nanoseconds nobody leads: publishes, pulls and acks get 503, API calls no answer.
    pub(crate) fn step_down(&mut self, now: Now, leaderless: u64) {
        self.leaderless_until = now.mono + leaderless;
        self.end_pulls("409 Leadership Change", false);
    }

    /// Somebody deletes a consumer. Its readers hear of it at once; its files go a while later, and with them
    /// those of a consumer that was made under its name meanwhile (as seen on 2.9.10).
    pub(crate) fn operator_deletes(&mut self, now: Now, stream: &str, name: &str) {
        if self.consumer_delete(&format!("{stream}.{name}")).is_ok() {
            self.removing.insert((stream.to_owned(), name.to_owned()), now.mono + REMOVAL);
        }
    }

    /// Ends all open pulls.
    pub(crate) fn end_pulls(&mut self, line: &str, with_pending: bool) {
        for stream in self.streams.values_mut() {
            for consumer in stream.consumers.values_mut() {
                consumer.end_pulls(line, with_pending, &mut self.out);
            }
        }
    }

    /// The process died. What is not on disk, and what `loss` says, is gone.
    pub(crate) fn crash(&mut self, loss: CrashLoss) {
        self.out.clear();
        self.leaderless_until = 0;
        for stream in self.streams.values_mut() {
            let is_memory = stream.store.config.storage == Storage::Memory;
            let tail = delay_up_to(loss.stream_tail_max, &mut self.rng);
            stream.store.crash(is_memory, tail);
            for consumer in stream.consumers.values_mut() {
                consumer.crash(&stream.store, loss.ack_floor_max, &mut self.rng);
            }
        }
    }
}

impl Stream {
    fn consumer_names(&self) -> Vec<String> {
        self.consumers.keys().cloned().collect()
    }

    /// Removes what was acknowledged, where retention says so.
    fn retire(&mut self, settled: &[u64]) {
        if self.store.config.retention == Retention::Limits {
            return;
        }
        for seq in settled {
            let Some(subject) = self.store.get(*seq).map(|m| m.subject.clone()) else { continue };
            if self.consumers.values().all(|c| c.is_done_with(*seq, &subject)) {
                self.store.remove(*seq);
            }
        }
    }
}

fn puback(stream: &str, accepted: Accepted, version: Version) -> String {
    // Up to 2.11 with a blank before "seq".
    let blank = if version.since(12) { "" } else { " " };
    let duplicate = if accepted.duplicate { r#","duplicate": true"# } else { "" };
    format!(r#"{{"stream":"{stream}",{blank}"seq":{}{duplicate}}}"#, accepted.seq)
}

/// `<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ts>.<pending>` -> names and (sseq, cseq).
fn ack_position(text: &str) -> Option<(&str, &str, (u64, u64))> {
    let parts: Vec<&str> = text.split('.').collect();
    let [stream, consumer, _, sseq, cseq, _, _] = parts[..] else { return None };
    Some((stream, consumer, (sseq.parse().ok()?, cseq.parse().ok()?)))
}
