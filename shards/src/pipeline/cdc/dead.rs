//! Dead letters of the CDC stage: an event that cannot be published goes to the dead-letter stream, and has
//! its outcome when that has acknowledged it. Invariant: there is nowhere else to put it, so it is tried for
//! ever, and holds the ack floor meanwhile.

use super::{Cx, Grave, LOOK_AGAIN, Stage, reason_labels};
use crate::domain::cdc::DLQ_COMPANY_UNKNOWN;
use crate::metrics::Outcome;
use crate::pipeline::bus::{AckFor, FlightRef, read_puback};
use crate::pipeline::flight::{Flight, State};
use crate::pipeline::letter::{self, Cause};
use crate::pipeline::mail::Parcel;
use crate::pipeline::tenant::NONE;
use crate::wire::nats::op::Msg;

impl Stage {
    // An event that never flew is dead-lettered.
    pub(super) fn bury(&mut self, parcel: Parcel, grave: Grave, cx: &mut Cx<'_>) {
        let company = grave.company.as_deref().unwrap_or(DLQ_COMPANY_UNKNOWN);
        let tenant = self.tenants.place(company.as_bytes());
        self.tenants.get(tenant).books.pulled += 1;
        let name = self.flights.insert(Flight::new(parcel, None, tenant, 0, State::Dead, cx.now));
        self.graves.insert(name.slot, grave);
        self.publish_dead_letter(name, cx);
    }

    // A flight turns into a dead letter; it leaves its company's list when it gets to the front.
    pub(super) fn bury_flight(
        &mut self,
        slot: u32,
        reason: usize,
        detail: String,
        cx: &mut Cx<'_>,
    ) {
        let flight = self.flights.at(slot);
        let (hash, tenant) = (flight.hash, flight.tenant);
        flight.state = State::Dead;
        self.flying.remove(&hash);
        let company = String::from_utf8_lossy(&self.tenants.get(tenant).id).into();
        self.graves.insert(slot, Grave { reason, detail, company: Some(company) });
        let name = self.flights.name_of(slot);
        self.publish_dead_letter(name, cx);
    }

    pub(super) fn publish_dead_letter(&mut self, name: FlightRef, cx: &mut Cx<'_>) {
        let (Some(grave), now) = (self.graves.get(&name.slot), cx.now) else { return };
        if !cx.may_publish {
            self.retries.push((now.mono + LOOK_AGAIN, name));
            return;
        }
        let Some(flight) = self.flights.get(name) else { return };
        let cause = Cause {
            stage: "cdc",
            reason: reason_labels().get(grave.reason).copied().unwrap_or("unknown"),
            detail: &grave.detail,
            company: grave.company.as_deref(),
            attempts: flight.attempts,
        };
        let (stream, who) = (&cx.settings.cdc.source.stream, AckFor::DeadLetter { flight: name });
        letter::publish(&flight.parcel, stream, &cause, who, cx);
    }

    /// The dead letter was stored, or not.
    pub(in crate::pipeline) fn on_buried(
        &mut self,
        name: FlightRef,
        ack: Option<&Msg>,
        cx: &mut Cx<'_>,
    ) {
        let Some(flight) = self.flights.get(name).filter(|f| f.state == State::Dead) else {
            return;
        };
        if !matches!(ack.map(read_puback), Some(Ok(_))) {
            // There is nowhere else to put it: hold the ack floor and try for ever.
            cx.figures.publish_errors.inc();
            let max = cx.settings.cdc.retry_delays.1;
            let delay = max / 2 + cx.rng.u64(0..=max / 2);
            self.retries.push((cx.now.mono + delay, name));
            return;
        }
        let tenant = flight.tenant;
        let reason = self.graves.remove(&name.slot).map_or(0, |grave| grave.reason);
        cx.figures.reasons[reason].inc();
        self.report(name.slot, Outcome::DeadLettered, cx);
        // Still in its company's list if events before it are open: then it leaves with them.
        self.flights.at(name.slot).state = State::Gone;
        if !self.unlinked(tenant, name.slot) {
            return self.advance(tenant, cx);
        }
        self.flights.remove(name.slot);
    }

    fn unlinked(&mut self, tenant: u32, wanted: u32) -> bool {
        let mut slot = self.tenants.get(tenant).head;
        while slot != NONE {
            if slot == wanted {
                return false;
            }
            slot = self.flights.at(slot).next;
        }
        true
    }
}
