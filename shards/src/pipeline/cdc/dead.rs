//! Dead letters of the CDC stage: an event that cannot be published goes to the dead-letter stream, and has
//! its outcome when that has acknowledged it. Invariant: there is nowhere else to put it, so it is tried for
//! ever, and holds the ack floor meanwhile.

use super::{Cx, Grave, LOOK_AGAIN, Stage, read_puback, reason_labels};
use crate::domain::cdc::{self, DLQ_COMPANY_UNKNOWN, DeadLetter, ErrorType};
use crate::metrics::Outcome;
use crate::pipeline::bus::{AckFor, FlightRef};
use crate::pipeline::flight::{Flight, State};
use crate::pipeline::mail::Parcel;
use crate::pipeline::tenant::NONE;
use crate::wire::nats::op::Msg;
use bytes::BytesMut;

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
        let parcel = &flight.parcel;
        let (mut at, mut published) = ([0; 30], [0; 30]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let message_id = parcel.msg.header(b"Nats-Msg-Id").map(text);
        let (stream, labels) = (&cx.settings.cdc.source.stream, reason_labels());
        let letter = DeadLetter {
            source_subject: parcel.subject(),
            company: grave.company.as_deref(),
            body: parcel.msg.payload(),
            error_type: ErrorType::Fatal,
            error: &grave.detail,
            reason: labels.get(grave.reason).copied(),
            retry_count: parcel.delivered,
            retry_max: -1,
            dead_lettered_at: &text(cdc::rfc3339_nanos(now.wall, &mut at)),
            stream: Some(stream),
            stream_sequence: Some(parcel.seq),
            message_id: message_id.as_deref(),
            published_at: Some(&text(cdc::rfc3339_nanos(parcel.stored, &mut published))),
        };
        // Headers and the other fields stay far below the 64 KiB that are kept free for them.
        let max = cx.bus.conn.info().max_payload.saturating_sub(64 * 1024);
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(cx.settings.cdc.dlq_payload_max);
        let mut body = BytesMut::new();
        cdc::write_dlq_payload(&letter, max, &mut body);
        let company = grave.company.as_deref().unwrap_or(DLQ_COMPANY_UNKNOWN);
        let subject = format!("{}.{company}", cx.settings.cdc.dlq_subject);
        let id = format!("dlq:{stream}:{}:{}", parcel.seq, parcel.stored);
        let original = message_id.unwrap_or_else(|| format!("msg-{}", parcel.seq));
        let reason = labels.get(grave.reason).copied().unwrap_or("unknown");
        let attempts = flight.attempts.max(1).to_string();
        let headers = [
            ("Nats-Msg-Id", id.as_str()),
            ("Nats-Expected-Stream", cx.facts.dlq_stream.as_str()),
            ("Original-Nats-Msg-Id", original.as_str()),
            ("Daisi-Reason", reason),
            ("Daisi-Attempts", attempts.as_str()),
            ("Daisi-Stage", "cdc"),
        ];
        let deadline = now.mono + cx.settings.cdc.publish_timeout;
        let who = AckFor::DeadLetter { flight: name };
        cx.bus.publish(deadline, who, &subject, &headers, &body);
        tracing::warn!(company = grave.company.as_deref(), reason, seq = parcel.seq,
            detail = %grave.detail, "event dead-lettered");
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
