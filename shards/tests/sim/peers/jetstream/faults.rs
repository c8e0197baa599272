//! Knobs of the simulated JetStream. All off by default; each is drawn at its own opportunity.

use fastrand::Rng;

use super::error::ApiError;
use crate::peers::Chance;

/// What a publish may be answered instead of its PubAck.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) chance: Chance,
    pub(crate) error: ApiError,
    /// The message is stored all the same: the answer belongs to a copy of one still in flight.
    pub(crate) stores: bool,
}

impl Refusal {
    /// 10077 with the text of a full stream; not stored.
    pub(crate) fn store_full(chance: Chance) -> Self {
        let error = ApiError::store_failed("maximum messages exceeded");
        Self { chance, error, stores: false }
    }

    /// 10158: the same `Nats-Msg-Id` is in flight; `stores` says what becomes of the first copy. Up to
    /// 2.10 it goes out as `duplicate` with sequence 0.
    pub(crate) fn in_flight(chance: Chance, stores: bool) -> Self {
        let error = ApiError::new(409, 10158, "duplicate message id is in process");
        Self { chance, error, stores }
    }

    /// 10167 (2.11+): the ingest queue is full; not stored.
    pub(crate) fn too_many(chance: Chance) -> Self {
        Self { chance, error: ApiError::new(429, 10167, "too many requests"), stores: false }
    }

    /// 10008: transient; not stored.
    pub(crate) fn unavailable(chance: Chance) -> Self {
        let error = ApiError::new(503, 10008, "JetStream system temporarily unavailable");
        Self { chance, error, stores: false }
    }
}

/// Probabilities and delays.
#[derive(Clone, Debug, Default)]
pub(crate) struct JetStreamFaults {
    /// The message is stored, its PubAck never sent.
    pub(crate) puback_lost: Chance,
    /// A PubAck is held back by up to so many nanoseconds; later ones may overtake it.
    pub(crate) puback_delay_max: u64,
    /// The message vanishes: not stored, not answered.
    pub(crate) publish_lost: Chance,
    /// As if no leader listened: 503, not stored.
    pub(crate) publish_no_responders: Chance,
    /// Error answers, tried in order.
    pub(crate) refusals: Vec<Refusal>,
    /// An API request is dropped without an answer.
    pub(crate) api_lost: Chance,
    /// An API reply is held back by up to so many nanoseconds.
    pub(crate) api_delay_max: u64,
    /// A pull request is dropped without an answer.
    pub(crate) pull_lost: Chance,
    /// An ack is dropped without an answer.
    pub(crate) ack_lost: Chance,
    /// A delivered message is queued for redelivery at once.
    pub(crate) redeliver_early: Chance,
    /// Missed acks are redelivered in random order instead of sequence order.
    pub(crate) redeliver_shuffled: bool,
}

impl JetStreamFaults {
    pub(crate) fn refusal(&self, rng: &mut Rng) -> Option<Refusal> {
        self.refusals.iter().find(|r| r.chance.hit(rng)).cloned()
    }
}

/// What a crash takes besides connections and open pulls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CrashLoss {
    /// Ack floors fall back by up to so many messages (seen with `kill -9`, replicas 1, all versions).
    pub(crate) ack_floor_max: u64,
    /// The last messages of each stream, up to so many, are lost although acknowledged: power loss with
    /// the default `sync_interval`. Never with a mere kill.
    pub(crate) stream_tail_max: u64,
}
