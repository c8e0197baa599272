//! The reading of one partition: lease, consumer, pulls, progress, acks. It hands on what arrives and
//! acknowledges what is reported done. Crash-only: whatever disturbs the reading (lost connection, lost
//! lease, a gap in the deliveries) ends its epoch, and it begins anew at the ack floor, the same way as
//! after a killed process. Invariant: nothing is acknowledged before everything up to it is done.

use super::bus::{AckFor, Answer, Asker, Bus};
use super::lease::{Lease, PutResult};
use super::mail::Parcel;
use super::settings::{AckChoice, Settings, SourceSettings, StageName};
use super::setup::{Facts, api_error};
use super::share::Turn;
use crate::clock::{MS, Now, SEC};
use crate::domain::cdc::parse_rfc3339;
use crate::domain::progress::{Admission, Progress};
use crate::id::{Epoch, PartitionId, ShardId};
use crate::wire::nats::headers::Headers;
use crate::wire::nats::jetstream::AckSubject;
use crate::wire::nats::op::Msg;
use crate::wire::nats::pull::{PullLimits, PullNews, PullRequest, Puller};
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};

mod drain;
mod leasing;
mod replay;

use leasing::put_result;
use replay::Replay;

const RETRY: u64 = 500 * MS;
/// Rest after a consumer or a stream was found gone. The server tells its readers before it removes the
/// files, and what is made under the same name meanwhile loses its own: messages it acknowledged are not
/// there, and the consumer delivers nothing (seen on 2.9.10).
pub(super) const GONE_WAIT: u64 = SEC;
/// Events done after which an ack no longer waits for company.
const OWED_MAX: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection, or its set-up is not finished.
    Idle,
    /// Another replica reads, or nobody has answered yet.
    Leasing,
    /// `STREAM.INFO` is asked: what is in it already may have been published by an earlier life.
    Sizing,
    /// `CONSUMER.INFO` is asked.
    Inspecting,
    /// The floor is being written down before the consumer is deleted.
    SavingPosition,
    Deleting,
    /// There is no consumer: is there a floor from an interrupted re-creation?
    FindingPosition,
    Creating,
    Reading,
    /// Wait, then inspect again.
    Pausing {
        until: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// To begin when the replay is over: until then outcomes are held back, and what sets them free is read.
    CatchingUp,
    /// Pulls are withdrawn; what had been sent before still arrives, until so many barriers are passed.
    Asked {
        barriers: u32,
    },
    /// The last ack is sent once more, to be answered: the server works off its acks beside all else, and
    /// whoever has the lease next would find them open, and make the consumer anew.
    Confirming,
    /// All is acknowledged, the lease is being given back.
    Releasing {
        until: u64,
    },
    Finished,
}

/// What a drain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// The process stops.
    Stop,
    /// It is another replica's turn: stand by again afterwards.
    HandOver,
}

/// What the pipeline has to do after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum ReaderNews {
    Nothing,
    /// A new epoch has begun: all that was handed on before is void.
    EpochEnded,
    /// The lease is free while it is another replica's turn: is that one still there?
    LeaseFree,
    /// What an earlier life may have published has been handed on.
    CaughtUp,
    /// Somebody deleted the stream: it has to be made again before anything is read.
    StreamGone,
}

/// Counters of one reader, for the books.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReaderFigures {
    /// Copies of messages that were held or done.
    pub(super) redelivered: u64,
    /// Acks sent.
    pub(super) acks: u64,
    /// Pulls sent.
    pub(super) pulls: u64,
}

/// The reading of one partition by this shard.
pub(super) struct Reader {
    place: usize,
    shard: ShardId,
    partition: PartitionId,
    epoch: Epoch,
    phase: Phase,
    drain: Drain,
    goal: Goal,
    lease: Lease,
    puller: Puller,
    progress: Progress,
    source: SourceSettings,
    /// Place of the source among the sources.
    source_place: usize,
    stream: String,
    consumer: String,
    /// Length of `p.<k>.`; 0 where the source itself is read.
    prefix: usize,
    floor_known: Option<u64>,
    floor_next: u64,
    /// Number of the latest question: the answer to an earlier one is nobody's.
    asked: u32,
    config: Option<Value>,
    explicit: bool,
    ack_wait: u64,
    consumer_seq: u64,
    replay: Replay,
    /// When the stream was created, Unix ns; sequences are comparable only since then.
    stream_created: u64,
    /// The ack that stands for all that is done, and for how many; it travels with the next output, or at
    /// the next tick: alone it would cost a write here and a wake-up there for each event.
    owed: Option<Bytes>,
    /// The last ack of this reading.
    paid: Option<Bytes>,
    owed_events: u32,
    owed_due: bool,
    pub(super) figures: ReaderFigures,
    pub(super) trouble: Option<String>,
}

impl Reader {
    pub(super) fn new(
        place: usize,
        (source_place, partition): (usize, PartitionId),
        epoch: Epoch,
        settings: &Settings,
    ) -> Self {
        let source = settings.sources()[source_place].clone();
        let consumer = match source.partitions {
            0 | 1 => source.consumer.clone(),
            _ => format!("{}_p{partition}", source.consumer),
        };
        Self {
            place,
            shard: settings.shard,
            partition,
            epoch,
            phase: Phase::Idle,
            drain: Drain::No,
            goal: Goal::Stop,
            lease: Lease::new(settings.lease.ttl),
            puller: Puller::new(limits(&source, source.in_flight_max)),
            progress: Progress::with_capacity(source.in_flight_max as usize + 1),
            stream: source.read_stream(),
            prefix: if source.partitions > 1 { filter_of(partition).len() - 1 } else { 0 },
            consumer,
            floor_known: None,
            floor_next: 0,
            asked: 0,
            config: None,
            explicit: false,
            ack_wait: source.ack_wait,
            source,
            source_place,
            consumer_seq: 0,
            replay: Replay::default(),
            stream_created: 0,
            owed: None,
            paid: None,
            owed_events: 0,
            owed_due: false,
            figures: ReaderFigures::default(),
            trouble: None,
        }
    }

    /// Do replicas take turns at it?
    pub(super) fn is_shared(&self) -> bool {
        self.source.partitions > 1
    }

    pub(super) fn stage(&self) -> StageName {
        self.source.stage
    }

    pub(super) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn is_reading(&self) -> bool {
        self.phase == Phase::Reading
            && !matches!(self.drain, Drain::Releasing { .. } | Drain::Finished)
    }

    pub(super) fn holds_lease(&self) -> bool {
        self.lease.is_held()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drain == Drain::Finished
    }

    pub(super) fn in_flight(&self) -> usize {
        self.progress.open()
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.progress.held_bytes()
    }

    pub(super) fn oldest_stored(&self) -> Option<u64> {
        self.progress.oldest_stored()
    }

    /// Streams and buckets exist: go for the lease.
    pub(super) fn start(&mut self, facts: &Facts) {
        self.lease.set_ttl(facts.lease_ttl);
        if self.drain == Drain::No {
            self.phase = Phase::Leasing;
        } else {
            self.drain = Drain::Finished; // The connection went while draining: nothing is held.
        }
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) -> ReaderNews {
        self.lease.disconnected();
        let was_reading = self.phase == Phase::Reading;
        self.phase = Phase::Idle;
        if self.drain != Drain::No {
            self.end_drain();
        }
        if was_reading { self.end_epoch() } else { ReaderNews::Nothing }
    }

    /// Begin again at the ack floor, on the same connection.
    pub(super) fn resync(&mut self, now: Now, why: &str, bus: &mut Bus) -> ReaderNews {
        self.begin_anew(now, 0, why, bus)
    }

    fn begin_anew(&mut self, now: Now, rest: u64, why: &str, bus: &mut Bus) -> ReaderNews {
        // While the lease is on its way back nothing is held, and nothing may be read.
        if self.phase != Phase::Reading || matches!(self.drain, Drain::Releasing { .. }) {
            return ReaderNews::Nothing;
        }
        tracing::warn!(partition = %self.partition, floor = self.progress.floor(), why,
            "reading begins anew at the ack floor");
        self.pay(bus);
        let news = self.end_epoch();
        self.break_off_hand_over(bus);
        if self.drain != Drain::No {
            self.drain = Drain::Finished;
            self.phase = Phase::Idle;
        } else if rest > 0 {
            self.pause(now, rest, why.to_owned());
        } else {
            self.inspect(now, bus);
        }
        news
    }

    /// Time goes by.
    pub(super) fn tick(
        &mut self,
        now: Now,
        settings: &Settings,
        bus: &mut Bus,
        rng: &mut fastrand::Rng,
        turn: Turn,
    ) -> ReaderNews {
        if self.phase == Phase::Idle {
            return ReaderNews::Nothing;
        }
        if let Drain::Releasing { until } = self.drain {
            if now.mono >= until {
                self.end_drain();
            }
            return ReaderNews::Nothing;
        }
        self.lease.set_patient(turn != Turn::Ours);
        let (act, news) = self.lease.tick(now, rng);
        self.act_on_lease(now, act, settings, bus);
        let ended = self.on_lease_news(now, news, bus);
        if ended == ReaderNews::EpochEnded {
            return ended;
        }
        if turn == Turn::Theirs && self.lease.is_settled(now) {
            self.hand_over(bus);
        }
        match self.phase {
            Phase::Pausing { until } if now.mono >= until => self.inspect(now, bus),
            Phase::Reading => {
                self.owed_due = true;
                self.extend_held(now, bus);
                return match self.puller.tick(now.mono) {
                    PullNews::Inspect => self.resync(now, "the consumer is silent", bus),
                    _ => ReaderNews::Nothing,
                };
            }
            _ => {}
        }
        ReaderNews::Nothing
    }

    /// A message or a status for this reader. `None`: nothing to hand on.
    pub(super) fn on_delivery(
        &mut self,
        now: Now,
        msg: Msg,
        bus: &mut Bus,
    ) -> (Option<Parcel>, ReaderNews) {
        if let Some(status) = msg.status() {
            self.replay.on_status(status.code);
            let unserved = pending_messages(&msg);
            let id = super::bus::tail_number(msg.subject()).unwrap_or(0);
            let news = self.puller.on_status(now.mono, id, &status, unserved);
            return (None, self.on_pull_news(now, news, &msg, bus));
        }
        if self.phase != Phase::Reading {
            return (None, ReaderNews::Nothing); // Of an epoch that has ended; it comes again.
        }
        let Some(reply) = msg.reply() else { return (None, ReaderNews::Nothing) };
        let Ok(ack) = AckSubject::parse(reply) else { return (None, ReaderNews::Nothing) };
        let (seq, consumer_seq) = (ack.stream_seq, ack.consumer_seq);
        let (stored, delivered, ack_pending) = (ack.timestamp_ns, ack.delivered, ack.pending);
        if consumer_seq != self.consumer_seq + 1 {
            // A delivery went elsewhere: acknowledging past it would lose it.
            return (None, self.resync(now, "a delivery was missed", bus));
        }
        self.consumer_seq = consumer_seq;
        self.puller.on_message(now.mono, msg.frame_len() as u64);
        let bytes = u32::try_from(msg.frame_len()).unwrap_or(u32::MAX);
        let Some(subject) = msg.reply_bytes() else { return (None, ReaderNews::Nothing) };
        let index = match self.progress.admit(seq, subject, bytes, now.mono, stored) {
            Admission::New(index) => index,
            Admission::Held => {
                self.figures.redelivered += 1;
                return (None, ReaderNews::Nothing);
            }
            Admission::Acknowledged => {
                self.figures.redelivered += 1;
                // Its ack was lost, or the server fell back behind it. No later one may ever come: at
                // `max_ack_pending` the server sends nothing new until this is settled.
                bus.ack(reply);
                self.figures.acks += 1;
                return (None, ReaderNews::Nothing);
            }
        };
        let (reader, partition, epoch) = (self.shard, self.partition, self.epoch);
        let (received, prefix) = (now.mono, self.prefix);
        let replay = self.replay.on_delivery(seq, ack_pending);
        let parcel = Parcel {
            reader,
            stage: self.source.stage,
            partition,
            epoch,
            index,
            seq,
            stored,
            stream_created: self.stream_created,
            delivered,
            received,
            replay,
            prefix,
            msg,
        };
        (Some(parcel), ReaderNews::Nothing)
    }

    /// The event under `index` has its outcome.
    pub(super) fn on_done(&mut self, epoch: Epoch, index: u64) {
        if epoch == self.epoch {
            self.progress.finish(index);
        }
    }

    /// An event of a replay has its place; it will have its outcome once the reading has caught up.
    pub(super) fn on_placed(&mut self, epoch: Epoch) {
        if epoch == self.epoch {
            self.replay.placed += 1;
        }
    }

    /// Acknowledge what may be, and pull as far as there is room; once a turn. `hold` stops the pulling.
    pub(super) fn flush(
        &mut self,
        now: Now,
        hold: bool,
        settings: &Settings,
        bus: &mut Bus,
    ) -> ReaderNews {
        if self.phase != Phase::Reading {
            return ReaderNews::Nothing;
        }
        while let Some(durable) = self.progress.pop_durable() {
            if self.explicit {
                bus.ack(&durable.ack);
                self.figures.acks += 1;
                self.paid = Some(durable.ack);
            } else {
                self.owed = Some(durable.ack);
                self.owed_events += 1;
            }
        }
        if !matches!(self.drain, Drain::No | Drain::CatchingUp) {
            self.pay(bus);
            self.continue_drain(now, settings, bus);
            return ReaderNews::Nothing;
        }
        if !hold {
            self.pull(now, bus);
        }
        // What ingest writes goes to PostgreSQL: there is no output that an ack could travel with, and a
        // batch is worth one.
        let is_alone = self.source.stage == StageName::Ingest;
        let is_due = self.owed_due || self.owed_events >= OWED_MAX || !bus.conn.out().is_empty();
        if is_due || is_alone || self.progress.held() == 0 {
            self.pay(bus); // Whoever goes idle leaves no ack behind.
        }
        self.catch_up(bus)
    }

    fn catch_up(&mut self, bus: &mut Bus) -> ReaderNews {
        if !self.replay.is_on {
            return ReaderNews::Nothing;
        }
        let held = u32::try_from(self.progress.held()).unwrap_or(u32::MAX);
        let is_full = self.puller.is_full(held, self.progress.held_bytes());
        if !self.replay.is_over(self.progress.open(), is_full) {
            return ReaderNews::Nothing;
        }
        self.replay.is_on = false;
        self.puller.set_eager(false);
        if self.drain == Drain::CatchingUp {
            self.withdraw(bus);
        }
        ReaderNews::CaughtUp
    }

    fn pay(&mut self, bus: &mut Bus) {
        (self.owed_events, self.owed_due) = (0, false);
        if let Some(ack) = self.owed.take() {
            bus.ack(&ack);
            self.figures.acks += 1;
            self.paid = Some(ack);
        }
    }

    fn pull(&mut self, now: Now, bus: &mut Bus) {
        let held = u32::try_from(self.progress.held()).unwrap_or(u32::MAX);
        let bytes = self.progress.held_bytes();
        let Some(pull) = self.puller.plan(now.mono, held, bytes) else { return };
        send_pull(bus, self.place, &self.stream, &self.consumer, &pull);
        self.figures.pulls += 1;
    }

    // `+WPI` at a third of the wait, so that two may be lost.
    fn extend_held(&mut self, now: Now, bus: &mut Bus) {
        let Some(before) = now.mono.checked_sub(self.ack_wait / 3) else { return };
        self.progress.extend_held(before, now.mono, |ack| bus.extend(ack));
    }

    fn end_epoch(&mut self) -> ReaderNews {
        self.floor_known = Some(self.progress.floor());
        // Of a connection or a lease that is gone; the floor tells where to go on.
        (self.owed, self.paid) = (None, None);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.progress.restart(self.progress.floor());
        self.puller.void();
        ReaderNews::EpochEnded
    }

    fn on_pull_news(&mut self, now: Now, news: PullNews, msg: &Msg, bus: &mut Bus) -> ReaderNews {
        match news {
            PullNews::Fine | PullNews::Void => ReaderNews::Nothing,
            PullNews::Refused => {
                let status = String::from_utf8_lossy(msg.headers()).replace("\r\n", " ");
                self.trouble = Some(format!("the server refuses our pull: {}", status.trim()));
                ReaderNews::Nothing
            }
            PullNews::Inspect => self.begin_anew(now, GONE_WAIT, "the consumer is gone", bus),
        }
    }
}

// Consumer.
impl Reader {
    /// Is `asked` the number of the question that is open?
    pub(super) fn awaits(&self, asked: u32) -> bool {
        asked == self.asked
    }

    /// The answer to the open question, about the consumer or its position.
    pub(super) fn on_answer(
        &mut self,
        now: Now,
        answer: &Answer<'_>,
        facts: &Facts,
        settings: &Settings,
        bus: &mut Bus,
    ) -> ReaderNews {
        if self.drain == Drain::Confirming {
            self.drain = Drain::Asked { barriers: 0 };
            // Answered or not: a lost ack costs the next reader a look at what is done.
            return ReaderNews::Nothing;
        }
        let value = answer.value("the consumer's API does not answer");
        let is_sizing = self.phase == Phase::Sizing;
        let is_gone = is_sizing && value.as_ref().is_ok_and(|v| v["error"]["err_code"] == 10_059);
        let done = value.and_then(|value| match self.phase {
            Phase::Sizing => self.on_size(now, &value, bus),
            Phase::Inspecting => self.on_info(now, &value, settings, bus),
            Phase::FindingPosition => self.on_position(now, &value, facts, bus),
            Phase::Deleting => self.on_deleted(now, &value, facts, bus),
            Phase::Creating => self.on_created(now, &value, settings, bus),
            _ => Ok(()),
        });
        match done {
            Ok(()) => {}
            Err(trouble) => self.pause(now, RETRY, trouble),
        }
        if is_gone { ReaderNews::StreamGone } else { ReaderNews::Nothing }
    }

    /// The position is written down, or not.
    pub(super) fn on_position_put(
        &mut self,
        now: Now,
        asked: u32,
        ack: Option<&Msg>,
        bus: &mut Bus,
    ) {
        if !self.awaits(asked) || self.phase != Phase::SavingPosition {
            return; // The answer to the erasing after a re-creation.
        }
        match ack.map(put_result) {
            Some(PutResult::Stored { .. }) => {
                self.phase = Phase::Deleting;
                let (stream, consumer) = (&self.stream, &self.consumer);
                let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}");
                self.ask(now, &subject, b"", bus);
            }
            _ => self.pause(now, RETRY, "the position cannot be written to its bucket".to_owned()),
        }
    }

    fn pause(&mut self, now: Now, rest: u64, trouble: String) {
        self.trouble = Some(trouble);
        self.phase = Phase::Pausing { until: now.mono + rest };
    }

    fn ask(&mut self, now: Now, subject: &str, body: &[u8], bus: &mut Bus) {
        self.asked += 1;
        bus.request(now, Asker::Reader(self.place, self.asked), subject, body);
    }

    fn inspect(&mut self, now: Now, bus: &mut Bus) {
        self.phase = Phase::Sizing;
        let subject = format!("$JS.API.STREAM.INFO.{}", self.stream);
        self.ask(now, &subject, b"", bus);
    }

    fn on_size(&mut self, now: Now, info: &Value, bus: &mut Bus) -> Result<(), String> {
        let error = &info["error"];
        if !error.is_null() {
            return Err(format!("reading stream {}: {}", self.stream, api_error(error)));
        }
        self.replay.horizon = info["state"]["last_seq"].as_u64().unwrap_or(u64::MAX);
        let created = info["created"].as_str().and_then(parse_rfc3339).unwrap_or(0);
        if self.stream_created != created {
            // The floor is of a stream that was deleted; this one counts from 1, and all of it is unread.
            self.floor_known = None;
        }
        self.stream_created = created;
        self.phase = Phase::Inspecting;
        let (stream, consumer) = (&self.stream, &self.consumer);
        let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}");
        self.ask(now, &subject, b"", bus);
        Ok(())
    }

    fn on_info(
        &mut self,
        now: Now,
        info: &Value,
        settings: &Settings,
        bus: &mut Bus,
    ) -> Result<(), String> {
        let error = &info["error"];
        if error["err_code"] == 10_014 || error["code"] == 404 {
            self.phase = Phase::FindingPosition;
            let subject = format!("$JS.API.STREAM.MSG.GET.KV_{}", settings.lease.position_bucket);
            let body = json!({ "last_by_subj": self.position_key(settings) }).to_string();
            self.ask(now, &subject, body.as_bytes(), bus);
            return Ok(());
        }
        if !error.is_null() {
            return Err(format!("consumer {}: {}", self.consumer, api_error(error)));
        }
        if info["push_bound"] == true {
            return Err(format!(
                "consumer {} is a push consumer in use: stop the old service first",
                self.consumer
            ));
        }
        let seq = |part: &str, field: &str| info[part][field].as_u64().unwrap_or(0);
        let floor = seq("ack_floor", "stream_seq").max(self.floor_known.unwrap_or(0));
        let is_push = info["config"]["deliver_subject"].as_str().is_some_and(|s| !s.is_empty());
        let disturbed = ["num_ack_pending", "num_waiting"].iter().any(|f| info[*f] != 0);
        let behind = seq("delivered", "stream_seq") < floor;
        if !(is_push || disturbed || behind) {
            self.take_config(&info["config"]);
            let delivered = seq("delivered", "stream_seq");
            self.begin_reading(delivered.max(floor), seq("delivered", "consumer_seq"));
            return Ok(());
        }
        self.config = Some(info["config"].clone());
        self.floor_next = floor;
        self.phase = Phase::SavingPosition;
        let deadline = now.mono + settings.nats.api_timeout;
        let who = AckFor::Position { reader: self.place, asked: self.asked };
        let body = floor.to_string();
        bus.publish(deadline, who, &self.position_key(settings), &[], body.as_bytes());
        Ok(())
    }

    fn on_position(
        &mut self,
        now: Now,
        value: &Value,
        facts: &Facts,
        bus: &mut Bus,
    ) -> Result<(), String> {
        let error = &value["error"];
        let absent = error["err_code"] == 10_037 || error["code"] == 404;
        if !error.is_null() && !absent {
            return Err(format!("reading the position: {}", api_error(error)));
        }
        let saved = stored_text(value).and_then(|text| text.parse().ok()).unwrap_or(0);
        self.floor_next = self.floor_known.unwrap_or(0).max(saved);
        self.create(now, facts, bus);
        Ok(())
    }

    fn on_deleted(
        &mut self,
        now: Now,
        value: &Value,
        facts: &Facts,
        bus: &mut Bus,
    ) -> Result<(), String> {
        let error = &value["error"];
        if !error.is_null() && error["err_code"] != 10_014 {
            return Err(format!("deleting consumer {}: {}", self.consumer, api_error(error)));
        }
        self.create(now, facts, bus);
        Ok(())
    }

    fn create(&mut self, now: Now, facts: &Facts, bus: &mut Bus) {
        self.phase = Phase::Creating;
        let mut config = self.config.take().unwrap_or_else(|| self.default_config(facts));
        if let Some(fields) = config.as_object_mut() {
            for push_only in [
                "deliver_subject",
                "deliver_group",
                "flow_control",
                "idle_heartbeat",
                "opt_start_time",
            ] {
                fields.remove(push_only);
            }
            fields.remove("opt_start_seq");
        }
        let start_after = if self.is_workqueue(facts) { 0 } else { self.floor_next };
        config["deliver_policy"] = "all".into(); // A work queue holds nothing that was acknowledged.
        if start_after > 0 {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = (start_after + 1).into();
        }
        let body = json!({ "stream_name": self.stream, "config": config }).to_string();
        let (stream, consumer) = (&self.stream, &self.consumer);
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}");
        self.ask(now, &subject, body.as_bytes(), bus);
    }

    fn on_created(
        &mut self,
        now: Now,
        value: &Value,
        settings: &Settings,
        bus: &mut Bus,
    ) -> Result<(), String> {
        let error = &value["error"];
        if !error.is_null() {
            return Err(format!("creating consumer {}: {}", self.consumer, api_error(error)));
        }
        // The consumer itself keeps the position from here on.
        let (who, key) = (
            AckFor::Position { reader: self.place, asked: self.asked },
            self.position_key(settings),
        );
        let deadline = now.mono + settings.nats.api_timeout;
        bus.publish(deadline, who, &key, &[("KV-Operation", "DEL")], b"");
        self.take_config(&value["config"]);
        self.begin_reading(
            self.floor_next,
            value["delivered"]["consumer_seq"].as_u64().unwrap_or(0),
        );
        Ok(())
    }

    fn begin_reading(&mut self, floor: u64, consumer_seq: u64) {
        tracing::info!(partition = %self.partition, consumer = %self.consumer, floor, "reading");
        self.trouble = None;
        self.progress.restart(floor);
        self.consumer_seq = consumer_seq;
        // Only CDC publishes what it takes, and holds the outcomes of a replay back.
        self.replay.begin(self.source.stage == StageName::Cdc && floor < self.replay.horizon);
        self.puller.set_eager(self.replay.is_on);
        self.phase = Phase::Reading;
    }

    // What exists decides: it may be the operator's.
    fn take_config(&mut self, config: &Value) {
        self.explicit = config["ack_policy"] != "all";
        self.ack_wait = config["ack_wait"].as_u64().filter(|w| *w > 0).unwrap_or(30 * SEC);
        let pending_max = config["max_ack_pending"].as_u64().filter(|max| *max > 0);
        let cap = pending_max.and_then(|max| u32::try_from(max).ok()).unwrap_or(u32::MAX);
        self.puller.set_limits(limits(&self.source, self.source.in_flight_max.min(cap).max(1)));
    }

    fn default_config(&self, facts: &Facts) -> Value {
        let source = &self.source;
        let all = match source.ack {
            AckChoice::All => true,
            AckChoice::Explicit => false,
            AckChoice::Auto => !self.is_workqueue(facts),
        };
        let mut config = json!({
            "durable_name": self.consumer, "name": self.consumer,
            "description": format!("daisi, {}", source.table),
            "ack_policy": if all { "all" } else { "explicit" },
            "ack_wait": source.ack_wait, "max_deliver": -1,
            "max_ack_pending": source.max_ack_pending, "replay_policy": "instant",
        });
        if source.partitions > 1 {
            config["filter_subject"] = filter_of(self.partition).into();
        }
        config
    }

    fn is_workqueue(&self, facts: &Facts) -> bool {
        facts.workqueues.get(self.source_place).is_some_and(|workqueue| *workqueue)
    }

    fn position_key(&self, settings: &Settings) -> String {
        let (bucket, stream) = (&settings.lease.position_bucket, &self.stream);
        format!("$KV.{bucket}.{stream}.{}", self.consumer)
    }
}

/// Asks a consumer for messages, for the reader at `place`.
pub(super) fn send_pull(
    bus: &mut Bus,
    place: usize,
    stream: &str,
    consumer: &str,
    pull: &PullRequest,
) {
    let limits = PullLimits::default();
    let body = format!(
        r#"{{"batch":{},"expires":{},"idle_heartbeat":{},"max_bytes":{}}}"#,
        pull.batch, limits.expires, limits.heartbeat, pull.max_bytes
    );
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    bus.pull(place, pull.id, &subject, body.as_bytes());
}

fn filter_of(partition: PartitionId) -> String {
    format!("p.{partition}.>")
}

fn limits(source: &SourceSettings, messages_max: u32) -> PullLimits {
    let bytes_max = source.in_flight_bytes_max;
    PullLimits { messages_max, bytes_max, ..PullLimits::default() }
}

/// What the server left unserved of a pull, where a status says so.
pub(super) fn pending_messages(msg: &Msg) -> Option<u32> {
    let value = Headers::new(msg.headers()).get(b"Nats-Pending-Messages")?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

// Body of the message in an answer of STREAM.MSG.GET; `None` if absent or empty.
fn stored_text(value: &Value) -> Option<String> {
    let data = value["message"]["data"].as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty()).then_some(text)
}
