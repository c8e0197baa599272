//! The reading of the dead-letter stream, to try its events again: explicit acks, and for what fails a delay
//! that the server keeps with its count of deliveries. So the state of a retry is in the stream, and outlives
//! every process. Replicas share one consumer without a lease, since retries keep to no order: what they
//! write carries the event's own position. Invariant: a letter is acknowledged only after its event is
//! committed, and terminated only after its row in `exhausted_events` is. Source: contract `ingest.md` 1.3
//! and 6.5.

use super::bus::{Answer, Asker, Bus};
use super::mail::{LetterFate, Parcel};
use super::reader::{GONE_WAIT, pending_messages, send_pull};
use super::settings::{DlqSettings, StageName};
use super::setup::{Facts, api_error};
use super::{ReaderStatus, Settings};
use crate::clock::{MS, Now, SEC};
use crate::id::{Epoch, PartitionId, ShardId};
use crate::wire::nats::jetstream::AckSubject;
use crate::wire::nats::op::Msg;
use crate::wire::nats::pull::{PullLimits, PullNews, Puller};
use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::{Value, json};

const RETRY: u64 = 500 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection, or its set-up is not finished.
    Idle,
    /// `CONSUMER.INFO` is asked.
    Inspecting,
    Creating,
    Reading,
    /// Wait, then inspect again.
    Pausing {
        until: u64,
    },
}

/// A letter without outcome.
struct Held {
    ack: Bytes,
    seq: u64,
    delivered: u64,
    bytes: u64,
    /// When its `ack_wait` last began, monotonic ns.
    clock: u64,
}

/// The reading of dead letters by this shard.
pub(super) struct Letters {
    place: usize,
    shard: ShardId,
    partition: PartitionId,
    epoch: Epoch,
    phase: Phase,
    settings: DlqSettings,
    filter: String,
    stream: String,
    puller: Puller,
    held: HashMap<u64, Held>,
    held_bytes: u64,
    next_index: u64,
    /// Number of the latest question: the answer to an earlier one is nobody's.
    asked: u32,
    ack_wait: u64,
    draining: bool,
    trouble: Option<String>,
}

impl Letters {
    /// The reader of this shard, if it is the one that reads dead letters. `place` is its subscription.
    pub(super) fn new(
        place: usize,
        partition: PartitionId,
        epoch: Epoch,
        settings: &Settings,
    ) -> Option<Self> {
        let dlq = settings.dlq.clone()?;
        if partition.0 % settings.shards.max(1) != settings.shard.0 {
            return None;
        }
        let limits = limits(&dlq);
        Some(Self {
            place,
            shard: settings.shard,
            partition,
            epoch,
            phase: Phase::Idle,
            filter: format!("{}.>", settings.cdc.dlq_subject),
            stream: String::new(),
            puller: Puller::new(limits),
            held: HashMap::new(),
            held_bytes: 0,
            next_index: 0,
            asked: 0,
            ack_wait: dlq.ack_wait,
            settings: dlq,
            draining: false,
            trouble: None,
        })
    }

    pub(super) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }

    pub(super) fn is_drained(&self) -> bool {
        self.draining && (self.phase != Phase::Reading || self.held.is_empty())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.held.len()
    }

    /// No lease: whoever asks gets a share of the letters.
    pub(super) fn status(&self) -> ReaderStatus {
        ReaderStatus {
            partition: self.partition,
            leased: true,
            reading: self.phase == Phase::Reading,
            trouble: self.trouble.clone(),
        }
    }

    /// Streams exist: go for the consumer.
    pub(super) fn start(&mut self, now: Now, facts: &Facts, bus: &mut Bus) {
        self.stream.clone_from(&facts.dlq_stream);
        if !self.draining {
            self.inspect(now, bus);
        }
    }

    /// The connection is gone. The server delivers what was held again. True if there was any.
    pub(super) fn disconnected(&mut self) -> bool {
        self.phase = Phase::Idle;
        self.asked += 1;
        self.end_epoch()
    }

    /// Another shard has lost what it had been handed.
    pub(super) fn resync(&mut self, bus: &mut Bus) -> bool {
        for held in self.held.values() {
            bus.nak(&held.ack, 0);
        }
        self.end_epoch()
    }

    fn end_epoch(&mut self) -> bool {
        self.puller.void();
        self.held_bytes = 0;
        if std::mem::take(&mut self.held).is_empty() {
            return false;
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        true
    }

    /// The process stops: take no more, finish what is held.
    pub(super) fn drain(&mut self, bus: &mut Bus) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.puller.void();
        if self.phase == Phase::Reading {
            bus.unsubscribe_reader(self.place);
        } else {
            self.phase = Phase::Idle;
        }
    }

    /// Time goes by.
    pub(super) fn tick(&mut self, now: Now, bus: &mut Bus) {
        match self.phase {
            Phase::Pausing { until } if now.mono >= until => self.inspect(now, bus),
            Phase::Reading => {
                self.extend_held(now, bus);
                if self.puller.tick(now.mono) == PullNews::Inspect {
                    self.inspect(now, bus);
                }
            }
            _ => {}
        }
    }

    // `+WPI` at a third of the wait, so that two may be lost.
    fn extend_held(&mut self, now: Now, bus: &mut Bus) {
        for held in self.held.values_mut() {
            if now.mono.saturating_sub(held.clock) >= self.ack_wait / 3 {
                held.clock = now.mono;
                bus.extend(&held.ack);
            }
        }
    }

    /// Pull as far as there is room. `hold` stops that.
    pub(super) fn flush(&mut self, now: Now, hold: bool, bus: &mut Bus) {
        if self.phase != Phase::Reading || hold || self.draining {
            return;
        }
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        if let Some(pull) = self.puller.plan(now.mono, held, self.held_bytes) {
            send_pull(bus, self.place, &self.stream, &self.settings.consumer, &pull);
        }
    }

    /// A letter or a status. `None`: nothing to hand on.
    pub(super) fn on_delivery(&mut self, now: Now, msg: Msg, bus: &mut Bus) -> Option<Parcel> {
        if let Some(status) = msg.status() {
            let unserved = pending_messages(&msg);
            let id = super::bus::tail_number(msg.subject()).unwrap_or(0);
            match self.puller.on_status(now.mono, id, &status, unserved) {
                PullNews::Fine | PullNews::Void => {}
                PullNews::Inspect => {
                    self.trouble = Some("the consumer is gone".to_owned());
                    self.phase = Phase::Pausing { until: now.mono + GONE_WAIT };
                }
                PullNews::Refused => {
                    let text = String::from_utf8_lossy(status.description).into_owned();
                    self.trouble = Some(format!("the server refuses our pull: {text}"));
                }
            }
            return None;
        }
        let ack = msg.reply_bytes()?;
        let Ok(AckSubject { stream_seq: seq, timestamp_ns: stored, delivered, .. }) =
            AckSubject::parse(&ack)
        else {
            return None;
        };
        if self.draining || self.phase != Phase::Reading {
            bus.nak(&ack, 0); // For another replica, or for the next life.
            return None;
        }
        let bytes = msg.frame_len() as u64;
        self.puller.on_message(now.mono, bytes);
        let index = self.next_index;
        self.next_index += 1;
        self.held_bytes += bytes;
        self.held.insert(index, Held { ack, seq, delivered, bytes, clock: now.mono });
        Some(Parcel {
            reader: self.shard,
            stage: StageName::Dlq,
            partition: self.partition,
            epoch: self.epoch,
            index,
            seq,
            stored,
            stream_created: 0,
            delivered,
            received: now.mono,
            replay: false,
            prefix: 0,
            msg,
        })
    }

    /// What became of the letter under `index`.
    pub(super) fn on_fate(
        &mut self,
        now: Now,
        (epoch, index): (Epoch, u64),
        fate: LetterFate,
        bus: &mut Bus,
    ) {
        if epoch != self.epoch {
            return;
        }
        let Some(held) = self.held.remove(&index) else { return };
        self.held_bytes -= held.bytes;
        match fate {
            LetterFate::Done => bus.ack(&held.ack),
            LetterFate::Later => bus.nak(&held.ack, self.delay(held.delivered)),
            LetterFate::GivenUp => bus.terminate(&held.ack),
        }
        if self.settings.deletes && fate != LetterFate::Later {
            // Nobody waits for the answer: what is left lying is handled, and only shows in lists.
            let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", self.stream);
            let body = json!({ "seq": held.seq, "no_erase": true }).to_string();
            bus.request(now, Asker::Nobody, &subject, body.as_bytes());
        }
    }

    // Twice as long after each try, up to the bound.
    fn delay(&self, delivered: u64) -> u64 {
        let (base, max) = self.settings.delays;
        let doublings = u32::try_from(delivered.saturating_sub(1)).unwrap_or(u32::MAX).min(32);
        base.saturating_mul(1 << doublings).min(max)
    }
}

// Consumer.
impl Letters {
    /// Is `asked` the number of the question that is open?
    pub(super) fn awaits(&self, asked: u32) -> bool {
        asked == self.asked
    }

    /// The answer to the open question.
    pub(super) fn on_answer(&mut self, now: Now, answer: &Answer<'_>, bus: &mut Bus) {
        let value = answer.value("the consumer's API does not answer");
        let done = value.and_then(|value| match self.phase {
            Phase::Inspecting => self.on_info(now, &value, bus),
            Phase::Creating => self.on_created(&value),
            _ => Ok(()),
        });
        if let Err(trouble) = done {
            tracing::warn!(consumer = %self.settings.consumer, %trouble, "dead letters are not read");
            self.trouble = Some(trouble);
            self.phase = Phase::Pausing { until: now.mono + RETRY };
        }
    }

    fn ask(&mut self, now: Now, verb: &str, body: &[u8], bus: &mut Bus) {
        self.asked += 1;
        let subject = format!("$JS.API.CONSUMER.{verb}.{}.{}", self.stream, self.settings.consumer);
        bus.request(now, Asker::Letters(self.asked), &subject, body);
    }

    fn inspect(&mut self, now: Now, bus: &mut Bus) {
        self.phase = Phase::Inspecting;
        self.ask(now, "INFO", b"", bus);
    }

    fn on_info(&mut self, now: Now, info: &Value, bus: &mut Bus) -> Result<(), String> {
        let error = &info["error"];
        if error["err_code"] == 10_014 || error["code"] == 404 {
            self.phase = Phase::Creating;
            let config = json!({
                "durable_name": self.settings.consumer, "name": self.settings.consumer,
                "description": "daisi, dlq", "ack_policy": "explicit", "deliver_policy": "all",
                "ack_wait": self.settings.ack_wait, "max_deliver": -1, "replay_policy": "instant",
                "max_ack_pending": self.settings.max_ack_pending, "filter_subject": self.filter,
            });
            let body = json!({ "stream_name": self.stream, "config": config }).to_string();
            self.ask(now, "DURABLE.CREATE", body.as_bytes(), bus);
            return Ok(());
        }
        self.begin(info)
    }

    fn on_created(&mut self, info: &Value) -> Result<(), String> {
        self.begin(info)
    }

    fn begin(&mut self, info: &Value) -> Result<(), String> {
        let (error, config) = (&info["error"], &info["config"]);
        let consumer = &self.settings.consumer;
        if !error.is_null() {
            return Err(format!("consumer {consumer}: {}", api_error(error)));
        }
        if config["ack_policy"] != "explicit"
            || config["deliver_subject"].as_str().is_some_and(|subject| !subject.is_empty())
        {
            return Err(format!(
                "consumer {consumer} is no pull consumer with explicit acks: name another in dlq.consumer"
            ));
        }
        self.ack_wait = config["ack_wait"].as_u64().filter(|wait| *wait > 0).unwrap_or(30 * SEC);
        self.puller.set_limits(limits(&self.settings));
        (self.phase, self.trouble) = (Phase::Reading, None);
        tracing::info!(%consumer, "reading dead letters");
        Ok(())
    }
}

fn limits(settings: &DlqSettings) -> PullLimits {
    let (messages_max, bytes_max) = (settings.in_flight_max, settings.in_flight_bytes_max);
    PullLimits { messages_max, bytes_max, ..PullLimits::default() }
}
