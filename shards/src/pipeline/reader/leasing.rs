//! The lease of a reading: what its key says, what is written to it, and what follows for the reading.
//! Invariant: a reading that has lost its lease has ended before anything else is done.

use super::super::bus::{AckFor, Answer, Asker, Bus};
use super::super::lease::{KeyState, LeaseAct, LeaseNews, PutResult};
use super::super::settings::Settings;
use super::{Drain, Phase, Reader, ReaderNews, stored_text};
use crate::clock::Now;
use crate::wire::nats::jetstream::{ErrorClass, PubAck};
use crate::wire::nats::op::Msg;
use serde_json::{Value, json};

impl Reader {
    /// Our guarded write to the lease's key was answered, or not in time.
    pub(in crate::pipeline) fn on_lease_put(
        &mut self,
        now: Now,
        ack: Option<&Msg>,
        settings: &Settings,
        bus: &mut Bus,
        rng: &mut fastrand::Rng,
    ) -> ReaderNews {
        if matches!(self.drain, Drain::Releasing { .. }) {
            return self.on_released(bus);
        }
        let result = ack.map_or(PutResult::Failed, put_result);
        let (act, news) = self.lease.on_put(now, result, rng);
        self.act_on_lease(now, act, settings, bus);
        self.on_lease_news(now, news, bus)
    }

    /// The lease's key was read.
    pub(in crate::pipeline) fn on_lease_read(
        &mut self,
        now: Now,
        answer: &Answer<'_>,
        settings: &Settings,
        bus: &mut Bus,
        rng: &mut fastrand::Rng,
    ) -> ReaderNews {
        let key = match answer {
            Answer::Message(msg) => key_state(msg, &settings.replica),
            Answer::NoResponders | Answer::Timeout => KeyState::Failed,
        };
        let (act, news) = self.lease.on_read(now, key, rng);
        self.act_on_lease(now, act, settings, bus);
        self.on_lease_news(now, news, bus)
    }

    pub(super) fn on_lease_news(&mut self, now: Now, news: LeaseNews, bus: &mut Bus) -> ReaderNews {
        match news {
            LeaseNews::Nothing => ReaderNews::Nothing,
            LeaseNews::Free => ReaderNews::LeaseFree,
            LeaseNews::Acquired => {
                tracing::info!(partition = %self.partition, "lease acquired");
                if self.phase == Phase::Leasing {
                    self.inspect(now, bus);
                }
                ReaderNews::Nothing
            }
            LeaseNews::Lost => {
                tracing::warn!(partition = %self.partition, "lease lost: another replica may read");
                let was_reading = self.phase == Phase::Reading;
                self.phase = Phase::Leasing;
                self.asked += 1; // An answer on its way, or its absence, must not begin a reading.
                if self.drain == Drain::Confirming {
                    self.drain = Drain::Asked { barriers: 0 };
                }
                self.break_off_hand_over(bus);
                // What another replica acknowledges from here on is not ours to remember.
                let news = if was_reading { self.end_epoch() } else { ReaderNews::Nothing };
                self.floor_known = None;
                news
            }
        }
    }

    pub(super) fn act_on_lease(
        &mut self,
        now: Now,
        act: Option<LeaseAct>,
        settings: &Settings,
        bus: &mut Bus,
    ) {
        let Some(act) = act else { return };
        let key = format!("$KV.{}.{}.{}", settings.lease.bucket, self.stream, self.consumer);
        let deadline = now.mono + settings.lease.ttl / 4;
        let who = AckFor::Lease { reader: self.place };
        match act {
            LeaseAct::Hold { expected } => {
                let body = json!({ "owner": settings.replica, "shard": self.shard.0 }).to_string();
                let expected = expected.to_string();
                let headers = [("Nats-Expected-Last-Subject-Sequence", expected.as_str())];
                bus.publish(deadline, who, &key, &headers, body.as_bytes());
            }
            LeaseAct::Release { expected } => {
                let expected = expected.to_string();
                let headers = [
                    ("Nats-Expected-Last-Subject-Sequence", expected.as_str()),
                    ("KV-Operation", "DEL"),
                ];
                bus.publish(deadline, who, &key, &headers, b"");
            }
            LeaseAct::Read => {
                let subject = format!("$JS.API.STREAM.MSG.GET.KV_{}", settings.lease.bucket);
                let body = json!({ "last_by_subj": key }).to_string();
                bus.request(now, Asker::Lease(self.place), &subject, body.as_bytes());
            }
        }
    }
}

pub(super) fn put_result(msg: &Msg) -> PutResult {
    if msg.status().is_some() {
        return PutResult::Failed;
    }
    match PubAck::parse(msg.payload()) {
        Ok(ack) => PutResult::Stored { revision: ack.seq },
        Err(error) if error.class() == ErrorClass::WrongLastSequence => PutResult::Raced,
        Err(_) => PutResult::Failed,
    }
}

fn key_state(msg: &Msg, replica: &str) -> KeyState {
    if msg.status().is_some() {
        return KeyState::Failed;
    }
    let Ok(value) = serde_json::from_slice::<Value>(msg.payload()) else { return KeyState::Failed };
    let error = &value["error"];
    if error["err_code"] == 10_037 || error["code"] == 404 {
        return KeyState::Absent;
    }
    let Some(revision) = value["message"]["seq"].as_u64() else { return KeyState::Failed };
    match stored_text(&value) {
        None => KeyState::Free { revision }, // A delete mark has no body.
        Some(text) => {
            let owner = serde_json::from_str::<Value>(&text).unwrap_or_default();
            let ours = owner["owner"].as_str() == Some(replica);
            if ours { KeyState::Ours { revision } } else { KeyState::Theirs }
        }
    }
}
