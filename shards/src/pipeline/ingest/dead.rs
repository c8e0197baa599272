//! Dead letters of the ingest stage: an event that cannot be written goes to the dead-letter stream, and has
//! its outcome when that has acknowledged it. It flies alone: what comes behind it does not wait. Invariant:
//! there is nowhere else to put it, so it is tried for ever, and holds the ack floor meanwhile.

use super::{Cx, Ingest, Waiting, ingest_reason_labels};
use crate::clock::MS;
use crate::domain::cdc::DLQ_COMPANY_UNKNOWN;
use crate::metrics::Outcome;
use crate::pipeline::bus::{AckFor, read_puback};
use crate::pipeline::letter::{self, Cause};
use crate::pipeline::mail::Parcel;
use crate::wire::nats::op::Msg;
use hashbrown::HashMap;

/// How soon a letter that could not go out is tried again.
const LOOK_AGAIN: u64 = 50 * MS;

/// An event that is given up.
pub(super) struct Dead {
    waiting: Waiting,
    reason: usize,
    detail: String,
    attempts: u32,
    /// When to publish it; `None` while its PubAck is awaited.
    due: Option<u64>,
}

/// Those that have no PubAck yet, by number.
#[derive(Default)]
pub(super) struct Graveyard {
    dead: HashMap<u64, Dead>,
    numbers: u64,
}

impl Graveyard {
    pub(super) fn withdraw(&mut self, is_void: &impl Fn(&Parcel) -> bool, void: &mut Vec<Waiting>) {
        let gone = self.dead.extract_if(|_, dead| is_void(&dead.waiting.parcel));
        void.extend(gone.map(|(_, dead)| dead.waiting));
    }
}

impl Ingest {
    /// Gives an event up.
    pub(super) fn bury(
        &mut self,
        waiting: Waiting,
        reason: usize,
        detail: String,
        cx: &mut Cx<'_>,
    ) {
        let number = self.graveyard.numbers;
        self.graveyard.numbers += 1;
        let dead = Dead { waiting, reason, detail, attempts: 0, due: Some(cx.now.mono) };
        self.graveyard.dead.insert(number, dead);
        self.publish_dead(number, cx);
    }

    /// Publishes what could not go out before.
    pub(super) fn publish_due(&mut self, cx: &mut Cx<'_>) {
        let is_due = |dead: &Dead| dead.due.is_some_and(|due| due <= cx.now.mono);
        let due = self.graveyard.dead.iter().filter(|(_, dead)| is_due(dead));
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        due.into_iter().for_each(|number| self.publish_dead(number, cx));
    }

    fn publish_dead(&mut self, number: u64, cx: &mut Cx<'_>) {
        let Some(dead) = self.graveyard.dead.get_mut(&number) else { return };
        if !cx.may_publish {
            dead.due = Some(cx.now.mono + LOOK_AGAIN);
            return;
        }
        (dead.due, dead.attempts) = (None, dead.attempts.saturating_add(1));
        let parcel = &dead.waiting.parcel;
        let company = String::from_utf8_lossy(self.tenants.id(dead.waiting.tenant));
        let cause = Cause {
            stage: "ingest",
            reason: ingest_reason_labels().get(dead.reason).copied().unwrap_or("unknown"),
            detail: &dead.detail,
            company: Some(&*company).filter(|company| *company != DLQ_COMPANY_UNKNOWN),
            attempts: dead.attempts,
        };
        let stream = String::from_utf8_lossy(parcel.stream());
        letter::publish(parcel, &stream, &cause, AckFor::Refused { number }, cx);
    }

    /// A dead letter was stored, or not.
    pub(in crate::pipeline) fn on_buried(
        &mut self,
        number: u64,
        ack: Option<&Msg>,
        cx: &mut Cx<'_>,
    ) {
        let Some(dead) = self.graveyard.dead.get_mut(&number) else { return };
        if !matches!(ack.map(read_puback), Some(Ok(_))) {
            cx.figures.publish_errors.inc();
            let max = cx.settings.cdc.retry_delays.1;
            dead.due = Some(cx.now.mono + max / 2 + cx.rng.u64(0..=max / 2));
            return;
        }
        if let Some(dead) = self.graveyard.dead.remove(&number) {
            cx.figures.ingest.reasons[dead.reason].inc();
            self.settle(&dead.waiting, Outcome::DeadLettered, cx);
        }
    }

    /// The NATS connection is gone, and the PubAcks with it: every letter is sent again on the next one.
    pub(in crate::pipeline) fn disconnected(&mut self, cx: &mut Cx<'_>) {
        for dead in self.graveyard.dead.values_mut() {
            dead.due = Some(cx.now.mono);
        }
    }
}
