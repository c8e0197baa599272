//! The CDC stage on the shard that owns the companies: transform, dedup, fenced publish, done mark,
//! outcome. Invariants: an event reaches its outcome only with a PubAck (or a *done* found); the events
//! of a company count in stream order; each has exactly one outcome, unless its reading is cancelled.
//!
//! The fence. Publishes are pipelined. When one fails, nothing new of its company is sent; the failed
//! one is sent again; and an event behind it that the stream took meanwhile lies before it there, so it
//! is sent again under a new id (`;r1`). How that is noticed needs no memory of the failure: in one reading
//! the output sequences of a company must rise, and a PubAck with a lower one names a misplaced copy, also
//! one of an earlier life. Unless it says `duplicate` of an older change: that one came twice.
//! Until all that was sent together lies in order, no outcome of it is reported: after a crash in between
//! it is all read again, and the misplaced copies are found again. What an earlier life may have published
//! counts as sent together: its outcomes wait until the reader has handed on the last of it.

mod dead;

use super::bus::{AckFor, Bus, FlightRef, read_puback};
use super::effect::Effect;
use super::flight::{Flight, Flights, Flying, State};
use super::mail::{LetterFate, Mail, Parcel};
use super::note;
use super::redis::{Claim, Command, Redis};
use super::settings::Settings;
use super::setup::Facts;
use super::tenant::{Books, NONE, TenantTable};
use super::trace::Tracer;
use crate::clock::{MS, Now, SEC};
use crate::domain::cdc::{
    self, ChangeSpans, DLQ_COMPANY_UNKNOWN, EVENT_TIME_BYTES, Reason, Rejection, Sink, Table,
    TableLabel, Verdict,
};
use crate::domain::window::{IdHash, Window};
use crate::id::{Epoch, PartitionId};
use crate::metrics::{Outcome, ShardFigures};
use crate::wire::nats::encode::{begin_hpub, end_pub};
use crate::wire::nats::jetstream::ErrorClass;
use crate::wire::nats::op::Msg;
use hashbrown::HashMap;
use siphasher::sip128::SipHasher13;
use std::collections::VecDeque;
#[cfg(feature = "sabotage")]
use std::sync::atomic::Ordering::Relaxed;

/// Dead-letter reasons that are not the transform's, behind those in label order.
const REASON_REFUSED: usize = Reason::ALL.len();
const REASON_PANIC: usize = Reason::ALL.len() + 1;
const _: () = assert!(REASON_PANIC < crate::metrics::REASONS_MAX, "every reason has a counter");

/// Labels of [`ShardFigures::reasons`].
#[must_use]
pub fn reason_labels() -> Vec<&'static str> {
    let own = ["publish_refused", "panic"];
    Reason::ALL.iter().map(|reason| reason.as_str()).chain(own).collect()
}

/// Bytes not yet taken by the socket above which no further event is written.
const OUT_PAUSE: usize = 128 * 1024;
/// How soon something that waits for its turn is looked at again.
const LOOK_AGAIN: u64 = 50 * MS;

/// What the stage works with, lent for one call.
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) facts: &'a Facts,
    /// Connected, and `facts` are those of this connection: before that nobody knows where to publish.
    pub(super) may_publish: bool,
    pub(super) bus: &'a mut Bus,
    pub(super) redis: &'a mut Redis,
    pub(super) rng: &'a mut fastrand::Rng,
    pub(super) figures: &'a ShardFigures,
    pub(super) effects: &'a mut VecDeque<Effect>,
    /// Reports for readers of this very shard.
    pub(super) done: &'a mut Vec<(PartitionId, Epoch, u64)>,
    /// Events of a replay that have their place, of such readers.
    pub(super) placed: &'a mut Vec<(PartitionId, Epoch)>,
    /// Dead letters that were tried in vain, of such readers.
    pub(super) judged: &'a mut Vec<(PartitionId, Epoch, u64, LetterFate)>,
    pub(super) tracer: &'a mut Tracer,
}

struct Grave {
    reason: usize,
    detail: String,
    company: Option<Box<str>>,
}

/// The stage's state.
pub(super) struct Stage {
    flights: Flights,
    tenants: TenantTable,
    window: Window,
    flying: Flying,
    graves: HashMap<u32, Grave>,
    /// Flights held back by the publish window, in order.
    ready: VecDeque<FlightRef>,
    retries: Vec<(u64, FlightRef)>,
    hash_keys: (u64, u64),
    claim: Vec<u8>,
    claim_ttl: Vec<u8>,
    done_ttl: Vec<u8>,
    scratch: Vec<u8>,
    header: Vec<u8>,
    event_time: [u8; EVENT_TIME_BYTES],
    event_second: u64,
    open: usize,
    /// The publish window was full, and has not half emptied since.
    is_full: bool,
}

impl Stage {
    pub(super) fn new(settings: &Settings, rng: &mut fastrand::Rng) -> Self {
        let cdc = &settings.cdc;
        let capacity = 2 * cdc.source.in_flight_max as usize;
        Self {
            flights: Flights::with_capacity(capacity),
            tenants: TenantTable::new(cdc.companies_max),
            window: Window::new(cdc.dedup_window, cdc.dedup_ttl_s),
            flying: Flying::with_capacity(capacity),
            graves: HashMap::new(),
            ready: VecDeque::with_capacity(capacity),
            retries: Vec::new(),
            hash_keys: (rng.u64(..), rng.u64(..)),
            claim: format!("{}:{:08x}", settings.replica, rng.u32(..)).into_bytes(),
            claim_ttl: cdc.claim_ttl_s.to_string().into_bytes(),
            done_ttl: cdc.dedup_ttl_s.to_string().into_bytes(),
            scratch: Vec::with_capacity(1024),
            header: Vec::with_capacity(1024),
            event_time: [b'0'; EVENT_TIME_BYTES],
            event_second: u64::MAX,
            open: 0,
            is_full: false,
        }
    }

    /// Events without outcome.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Does the next turn have something to send, whatever arrives?
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Events without outcome, and done marks without reply.
    pub(super) fn busy(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn companies(&self) -> usize {
        self.tenants.len()
    }

    pub(super) fn window_len(&self) -> usize {
        self.window.len()
    }

    pub(super) fn books(&self) -> Vec<(Box<[u8]>, Books)> {
        self.tenants.books()
    }

    /// Take over an event. `quarantined`: it has made a shard panic before, so it is not looked at.
    pub(super) fn admit(&mut self, parcel: Parcel, quarantined: bool, cx: &mut Cx<'_>) {
        cx.figures.pulled.inc();
        self.open += 1;
        let hint = cdc::company_hint(parcel.subject()).filter(|hint| cdc::is_company(hint));
        if quarantined {
            let company = hint.map(|hint| String::from_utf8_lossy(hint).into());
            let detail = "cdc: handling this event made the process panic twice".to_owned();
            return self.bury(parcel, Grave { reason: REASON_PANIC, detail, company }, cx);
        }
        match cdc::transform(&cx.settings.cdc.rules, parcel.subject(), parcel.msg.payload()) {
            Verdict::Forward(spans) if self.is_wanted(&parcel, &spans, cx) => {
                self.forward(parcel, spans, cx);
            }
            Verdict::Forward(spans) => {
                let change = spans.bind(parcel.subject(), parcel.msg.payload());
                let (tenant, table) = (self.tenants.place(change.company()), change.table());
                self.tenants.get(tenant).books.pulled += 1;
                self.settle(&parcel, tenant, Some(table as usize), Outcome::Filtered, cx);
            }
            Verdict::Filtered { table, cause: _ } => {
                let tenant = self.tenants.place(hint.unwrap_or(DLQ_COMPANY_UNKNOWN.as_bytes()));
                self.tenants.get(tenant).books.pulled += 1;
                match table {
                    TableLabel::Foreign(name) => {
                        cx.figures.skip_foreign(name);
                        self.settle(&parcel, tenant, None, Outcome::Filtered, cx);
                    }
                    TableLabel::Known(table) => {
                        self.settle(&parcel, tenant, Some(table as usize), Outcome::Filtered, cx);
                    }
                }
            }
            Verdict::Rejected(Rejection { reason, detail, company }) => {
                let reason = Reason::ALL.iter().position(|r| *r == reason).unwrap_or(0);
                let detail = format!("cdc: {detail}");
                self.bury(parcel, Grave { reason, detail, company }, cx);
            }
        }
    }

    fn is_wanted(&self, parcel: &Parcel, spans: &ChangeSpans, cx: &Cx<'_>) -> bool {
        let wanted = &cx.settings.cdc.companies;
        let company = || spans.bind(parcel.subject(), parcel.msg.payload()).company();
        wanted.is_empty() || wanted.iter().any(|name| name.as_bytes() == company())
    }

    fn forward(&mut self, parcel: Parcel, spans: ChangeSpans, cx: &mut Cx<'_>) {
        let change = spans.bind(parcel.subject(), parcel.msg.payload());
        let tenant = self.tenants.place(change.company());
        self.tenants.get(tenant).books.pulled += 1;
        self.scratch.clear();
        change.write_dedup_key(&mut self.scratch);
        let hash = self.hash(&self.scratch);
        let table = change.table() as usize;
        if cx.settings.cdc.count_unhandled {
            change.for_each_unhandled(|column| {
                self.header.clear();
                self.header.put(change.table().as_str().as_bytes());
                self.header.put(b".");
                self.header.put(column);
                let _no_room = cx.figures.unhandled.inc(&self.header);
            });
        }
        if self.window.contains(hash, seconds(cx.now)) {
            cx.figures.tables[table].dedup[0].inc();
            return self.settle(&parcel, tenant, Some(table), Outcome::Duplicate, cx);
        }
        let state = if self.flying.insert(hash) { State::Claiming } else { State::Twin };
        let (front, replay) = (self.tenants.get(tenant), parcel.replay);
        front.partition = parcel.partition;
        front.is_replaying |= replay;
        front.replay_left += u32::from(replay);
        let name =
            self.flights.insert(Flight::new(parcel, Some(spans), tenant, hash, state, cx.now));
        self.append(tenant, name.slot);
        match state {
            State::Claiming => self.claim(name, cx),
            _ => self.advance(tenant, cx), // The one ahead of it may be held back, and nothing else comes.
        }
    }

    // May one more event be written? A full window opens again when it has half emptied: were each PubAck
    // answered by one publish, both sides would work in steps of a few events for ever (the silly window of
    // RFC 813). The bound on unwritten bytes keeps them in the cache, and spares the buffer from being moved
    // behind a socket that takes only a part.
    fn has_room(&mut self, cx: &mut Cx<'_>) -> bool {
        let (open, window) = (cx.bus.publishes_open(), cx.settings.cdc.publish_window as usize);
        self.is_full = open >= window || (self.is_full && open > window / 2);
        cx.may_publish && !self.is_full && cx.bus.conn.out().len() < OUT_PAUSE
    }

    // The dedup key is in `scratch`.
    fn claim(&mut self, name: FlightRef, cx: &mut Cx<'_>) {
        if !cx.redis.is_ready() && !cx.settings.cdc.dedup_required {
            return self.publish(name, cx);
        }
        cx.redis.claim(cx.now, name, &self.scratch, &self.claim, &self.claim_ttl);
    }

    /// Redis has answered a claim.
    pub(super) fn on_claim(&mut self, name: FlightRef, known: Claim, cx: &mut Cx<'_>) {
        let Some(flight) = self.flights.get(name) else { return };
        if flight.state != State::Claiming {
            return;
        }
        let (tenant, table) = (flight.tenant, table_of(flight));
        cx.figures.claim.record(cx.now.mono.saturating_sub(flight.since));
        #[cfg(feature = "sabotage")]
        let known = match known {
            Claim::Claimed if crate::sabotage::SKIP_ON_CLAIM.load(Relaxed) => Claim::Done,
            known => known,
        };
        match known {
            Claim::Done => {
                cx.figures.tables[table].dedup[0].inc();
                self.window.insert(self.flights.at(name.slot).hash, seconds(cx.now));
                self.end(name.slot, Outcome::Duplicate, cx);
                self.advance(tenant, cx);
            }
            // A claim proves nothing: its owner may have died before the publish.
            Claim::Claimed | Claim::Fresh => {
                if known == Claim::Claimed {
                    cx.figures.claims_met.inc();
                }
                cx.figures.tables[table].dedup[1].inc();
                crate::fault::point("after_claim");
                self.publish(name, cx);
            }
        }
    }

    /// A done mark (or the old service's key) was answered.
    pub(super) fn on_marked(&mut self, name: FlightRef) {
        if self.flights.get(name).is_some_and(|flight| flight.state == State::Marking) {
            self.flights.remove(name.slot);
        }
    }

    /// Redis is back: ask again for everything that was open, in its order.
    pub(super) fn reissue(&mut self, cx: &mut Cx<'_>) {
        for command in cx.redis.take_open() {
            let (Command::Claim(name) | Command::Done(name) | Command::Legacy(name)) = command;
            if !self.write_dedup_key(name) {
                continue;
            }
            match command {
                Command::Claim(_) => self.claim(name, cx),
                Command::Done(_) => cx.redis.done(cx.now, name, &self.scratch, &self.done_ttl),
                Command::Legacy(_) => {} // A courtesy to the old service, not a promise.
            }
        }
    }

    /// Redis is away and may be: go on without claims.
    pub(super) fn release_claims(&mut self, cx: &mut Cx<'_>) {
        for command in cx.redis.take_open() {
            match command {
                Command::Claim(name) => self.publish(name, cx),
                Command::Done(name) => self.on_marked(name),
                Command::Legacy(_) => {}
            }
        }
    }

    // Claimed: send it, unless the fence or the window holds it back.
    fn publish(&mut self, name: FlightRef, cx: &mut Cx<'_>) {
        let Some(flight) = self.flights.get(name) else { return };
        flight.state = State::Waiting;
        let tenant = flight.tenant;
        if self.tenants.get(tenant).fenced {
            return self.advance(tenant, cx);
        }
        if !self.ready.is_empty() || !self.has_room(cx) {
            self.ready.push_back(name);
            return;
        }
        self.send(name.slot, cx);
    }

    /// The publish window has room again, or the connection is back.
    pub(super) fn send_ready(&mut self, cx: &mut Cx<'_>) {
        while self.has_room(cx) {
            let Some(name) = self.ready.pop_front() else { return };
            let Some(flight) = self.flights.get(name) else { continue };
            if flight.state != State::Waiting {
                continue;
            }
            let tenant = flight.tenant;
            match self.tenants.get(tenant).fenced {
                true => self.advance(tenant, cx),
                false => self.send(name.slot, cx),
            }
        }
    }

    fn send(&mut self, slot: u32, cx: &mut Cx<'_>) {
        let prefixes = cx.settings.cdc.output_prefixes.len();
        let flight = self.flights.at(slot);
        flight.state = State::Sent;
        flight.attempts += 1;
        flight.since = cx.now.mono;
        (flight.acks_open, flight.failed, flight.duplicate) = (0, false, false);
        let (name, max) = (self.flights.name_of(slot), cx.bus.conn.info().max_payload);
        for prefix in 0..prefixes {
            if !self.write_publish(name, prefix, max, cx) {
                let detail = format!("cdc: the event exceeds the server's limit of {max} bytes");
                let tenant = self.flights.at(slot).tenant;
                self.bury_flight(slot, REASON_REFUSED, detail, cx);
                return self.advance(tenant, cx);
            }
            self.flights.at(slot).acks_open += 1;
        }
        #[cfg(feature = "sabotage")]
        if crate::sabotage::DONE_AT_SEND.load(Relaxed) {
            report_to_reader(&self.flights.at(slot).parcel, cx);
        }
    }

    // The whole HPUB into the connection's buffer: one pass for the lengths, one for the bytes.
    fn write_publish(&mut self, name: FlightRef, prefix: usize, max: u64, cx: &mut Cx<'_>) -> bool {
        self.refresh_event_time(cx.now);
        let flight = self.flights.at(name.slot);
        let Some(spans) = &flight.spans else { return false };
        let change = spans.bind(flight.parcel.subject(), flight.parcel.msg.payload());
        let (prefix_text, header) = (&cx.settings.cdc.output_prefixes[prefix], &mut self.header);
        header.clear();
        header.put(b"NATS/1.0\r\nNats-Msg-Id: ");
        change.write_message_id(header);
        if flight.rebirths > 0 {
            header.put(b";r");
            header.put_decimal(u64::from(flight.rebirths));
        }
        if prefix > 0 {
            header.put(b";");
            header.put(prefix_text.as_bytes());
        }
        header.put(b"\r\nNats-Expected-Stream: ");
        header.put(cx.facts.output_streams[prefix].as_bytes());
        header.put(b"\r\nDaisi-Company: ");
        header.put(change.company());
        header.put(b"\r\nDaisi-Lsn: ");
        header.put_decimal(change.lsn());
        if let Some(index) = change.index() {
            header.put(b"\r\nDaisi-Idx: ");
            header.put_decimal(index);
        }
        header.put(b"\r\nDaisi-Action: ");
        header.put(change.action().as_str().as_bytes());
        cx.tracer.write_onward(&flight.parcel, header);
        header.put(b"\r\n\r\n");
        let total = header.len() + change.payload_len();
        if max > 0 && total as u64 > max {
            return false;
        }
        self.scratch.clear();
        change.write_subject(prefix_text, &mut self.scratch);
        let subject_len = self.scratch.len();
        let deadline = cx.now.mono + cx.settings.cdc.publish_timeout;
        let who = AckFor::Event { flight: name, prefix: u8::try_from(prefix).unwrap_or(u8::MAX) };
        let (number, inbox, out) = cx.bus.begin_publish(deadline, who);
        self.scratch.put_decimal(number);
        let (subject, number) = self.scratch.split_at(subject_len);
        begin_hpub(out, &[subject], &[inbox.as_bytes(), b".a.", number], header.len(), total);
        out.extend_from_slice(header);
        change.write_payload(out, &self.event_time);
        end_pub(out);
        true
    }

    /// A publish was answered, or (`None`) not in time.
    pub(super) fn on_puback(
        &mut self,
        name: FlightRef,
        prefix: u8,
        ack: Option<&Msg>,
        cx: &mut Cx<'_>,
    ) {
        let Some(flight) = self.flights.get(name).filter(|f| f.state == State::Sent) else {
            return;
        };
        crate::fault::point("before_ack");
        let (slot, tenant, table) = (name.slot, flight.tenant, table_of(flight));
        flight.acks_open -= 1;
        let stream = &cx.facts.output_streams[usize::from(prefix)];
        let class = match ack.map(|msg| (msg, read_puback(msg))) {
            // Sequences of several streams do not compare, so only the first is looked at.
            Some((msg, Ok(ack)))
                if ack.stream == *stream && (prefix > 0 || cx.bus.is_own(msg, &ack)) =>
            {
                if prefix == 0 {
                    (flight.seq, flight.duplicate) = (ack.seq, ack.duplicate);
                }
                cx.figures.tables[table].published[0].inc();
                None
            }
            Some((_, Ok(_))) | None => Some((ErrorClass::Transient, String::new())),
            Some((_, Err(refusal))) => Some(refusal),
        };
        if let Some((class, text)) = class {
            cx.figures.tables[table].published[1].inc();
            cx.figures.publish_errors.inc();
            let hopeless = class == ErrorClass::Poison
                || (class == ErrorClass::Permanent
                    && flight.attempts >= cx.settings.cdc.publish_attempts_max);
            if hopeless {
                let detail = format!("cdc: the output stream refuses the event: {text}");
                self.bury_flight(slot, REASON_REFUSED, detail, cx);
                return self.advance(tenant, cx);
            }
            flight.failed = true;
        }
        if flight.acks_open > 0 {
            return;
        }
        flight.state = if flight.failed { State::Failed } else { State::Acked };
        if flight.state == State::Acked {
            cx.figures.publish.record(cx.now.mono.saturating_sub(flight.since));
        } else {
            self.raise_fence(slot, cx);
        }
        self.advance(tenant, cx);
    }

    fn raise_fence(&mut self, slot: u32, cx: &mut Cx<'_>) {
        let (name, tenant) = (self.flights.name_of(slot), self.flights.at(slot).tenant);
        let tenant = self.tenants.get(tenant);
        tenant.fenced = true;
        tenant.failures = tenant.failures.saturating_add(1);
        let (min, max) = cx.settings.cdc.retry_delays;
        let ceiling = min.saturating_mul(1 << tenant.failures.min(10)).min(max);
        let delay = ceiling / 2 + cx.rng.u64(0..=ceiling / 2);
        self.retries.push((cx.now.mono + delay, name));
    }

    /// Time goes by: what failed is sent again.
    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) {
        self.window.drop_old(seconds(cx.now));
        let mut place = 0;
        while let Some((at, name)) = self.retries.get(place).copied() {
            if at > cx.now.mono || !cx.may_publish {
                place += 1;
                continue;
            }
            self.retries.swap_remove(place);
            let Some(flight) = self.flights.get(name) else { continue };
            match flight.state {
                State::Failed => {
                    let tenant = flight.tenant;
                    // Only the first of a company's list is sent again; the others wait for it.
                    if self.first_unplaced(tenant) == name.slot {
                        self.send(name.slot, cx);
                    } else {
                        self.retries.push((cx.now.mono + LOOK_AGAIN, name));
                    }
                }
                State::Dead => self.publish_dead_letter(name, cx),
                _ => {}
            }
        }
    }

    // Let the events at the front of a company's list count, as far as they may.
    fn advance(&mut self, tenant: u32, cx: &mut Cx<'_>) {
        loop {
            let slot = self.first_unplaced(tenant);
            if slot == NONE {
                self.release(tenant, cx);
                let tenant = self.tenants.get(tenant);
                (tenant.fenced, tenant.failures) = (false, 0);
                return;
            }
            let is_head = self.tenants.get(tenant).placed == NONE;
            let flight = self.flights.at(slot);
            match flight.state {
                State::Gone if is_head => {
                    self.count_replayed(slot, tenant);
                    self.pop(tenant);
                    self.flights.remove(slot);
                }
                State::Dead if is_head => {
                    self.count_replayed(slot, tenant);
                    self.pop(tenant); // Flies on alone, in no order.
                }
                State::Gone | State::Dead | State::Placed => self.pass(slot, tenant, cx),
                State::Acked => {
                    if !self.place(slot, tenant, cx) {
                        return;
                    }
                }
                State::Twin => {
                    let (hash, table) = (flight.hash, table_of(flight));
                    if self.window.contains(hash, seconds(cx.now)) || self.is_placed(tenant, hash) {
                        cx.figures.tables[table].dedup[0].inc();
                        self.end(slot, Outcome::Duplicate, cx);
                        continue;
                    }
                    self.flights.at(slot).state = State::Claiming; // Those ahead of it have ended.
                    self.release(tenant, cx);
                    let name = self.flights.name_of(slot);
                    self.write_dedup_key(name);
                    return self.claim(name, cx);
                }
                State::Waiting if self.tenants.get(tenant).fenced => {
                    self.release(tenant, cx);
                    return self.lower_fence(tenant, cx);
                }
                // Nothing behind it has been sent.
                State::Waiting | State::Claiming => return self.release(tenant, cx),
                // The stream takes events again: the next that it had refused need not wait its delay.
                State::Failed if self.tenants.get(tenant).failures == 0 => {
                    return self.send(slot, cx);
                }
                State::Sent | State::Failed | State::Marking => return,
            }
        }
    }

    // The first event is in the stream. False if it lies before an earlier one and goes out again.
    fn place(&mut self, slot: u32, tenant_place: u32, cx: &mut Cx<'_>) -> bool {
        let tenant = self.tenants.get(tenant_place);
        let flight = self.flights.at(slot);
        let position = position_of(flight);
        let is_behind = flight.seq < tenant.seq_last;
        // Taken while the one before it was refused: our own first copy, or one of an earlier life. A copy
        // of an older change is not misplaced: the source sent it again, and it lies where it belongs.
        let is_misplaced = match flight.duplicate {
            true => position >= tenant.position_last,
            false => flight.rebirths == 0,
        };
        if is_behind && is_misplaced {
            tenant.fenced = true;
            flight.rebirths = flight.rebirths.saturating_add(1);
            cx.figures.reordered.inc();
            self.send(slot, cx);
            return false;
        }
        if !(is_behind && flight.duplicate) {
            (tenant.seq_last, tenant.position_last) = (flight.seq, position);
        }
        tenant.failures = 0;
        let table = &cx.figures.tables[table_of(flight)];
        table.processing.record(cx.now.mono.saturating_sub(flight.parcel.received));
        // Behind it there may be copies that lie before it: of this life where something had failed, of
        // an earlier one where it may have published them. Were it acknowledged before they are found and
        // sent again, a crash in between would leave them misplaced for ever.
        if tenant.fenced || tenant.placed != NONE || flight.parcel.replay {
            flight.state = State::Placed;
            if flight.parcel.replay {
                report_place(&flight.parcel, cx);
            }
            self.pass(slot, tenant_place, cx);
        } else {
            self.complete(slot, tenant_place, cx);
        }
        true
    }

    // One more event of a group whose outcomes are held back; the barrier sets them free.
    fn pass(&mut self, slot: u32, tenant_place: u32, cx: &mut Cx<'_>) {
        self.count_replayed(slot, tenant_place);
        self.tenants.get(tenant_place).placed = slot;
        self.close(tenant_place, cx);
    }

    // Where nothing of an earlier life can come any more, what was sent last bounds the group.
    fn close(&mut self, tenant_place: u32, cx: &mut Cx<'_>) {
        let tenant = self.tenants.get(tenant_place);
        let placed = tenant.placed;
        if placed == NONE || tenant.is_held_back() {
            return;
        }
        if tenant.barrier == NONE {
            let barrier = self.last_sent(placed);
            self.tenants.get(tenant_place).barrier = barrier;
        }
        if self.tenants.get(tenant_place).barrier == placed {
            self.release(tenant_place, cx);
        }
    }

    fn count_replayed(&mut self, slot: u32, tenant: u32) {
        let replay = u32::from(self.flights.at(slot).parcel.replay);
        let tenant = self.tenants.get(tenant);
        tenant.replay_left = tenant.replay_left.saturating_sub(replay);
    }

    /// All that an earlier life may have published of this partition has been handed on.
    pub(super) fn caught_up(&mut self, partition: PartitionId, cx: &mut Cx<'_>) {
        let mut places = Vec::new();
        for (place, tenant) in self.tenants.iter_mut().filter(|(_, t)| t.partition == partition) {
            if std::mem::take(&mut tenant.is_replaying) {
                places.push(place);
            }
        }
        places.into_iter().for_each(|place| self.close(place, cx));
    }

    // The outcomes that were held back.
    fn release(&mut self, tenant: u32, cx: &mut Cx<'_>) {
        if self.tenants.get(tenant).is_held_back() {
            return;
        }
        let last = self.tenants.get(tenant).placed;
        (self.tenants.get(tenant).placed, self.tenants.get(tenant).barrier) = (NONE, NONE);
        let mut is_released = last == NONE;
        while !is_released {
            let head = self.tenants.get(tenant).head;
            is_released = head == last;
            match self.flights.at(head).state {
                State::Placed => self.complete(head, tenant, cx),
                State::Gone => {
                    self.pop(tenant);
                    self.flights.remove(head);
                }
                _ => self.pop(tenant), // Dead: flies on alone.
            }
        }
    }

    fn complete(&mut self, slot: u32, tenant: u32, cx: &mut Cx<'_>) {
        let flight = self.flights.at(slot);
        // The stream had it before our first attempt: an earlier life of ours published it.
        let known = flight.duplicate && flight.attempts == 1 && flight.rebirths == 0;
        let outcome = if known { Outcome::Duplicate } else { Outcome::Committed };
        let hash = flight.hash;
        self.window.insert(hash, seconds(cx.now));
        self.flying.remove(&hash);
        self.pop(tenant);
        self.report(slot, outcome, cx);
        self.mark_done(slot, cx);
    }

    fn first_unplaced(&mut self, tenant: u32) -> u32 {
        let tenant = self.tenants.get(tenant);
        match tenant.placed {
            NONE => tenant.head,
            placed => self.flights.at(placed).next,
        }
    }

    // The last flight from `slot` on that may be in the stream.
    fn last_sent(&mut self, slot: u32) -> u32 {
        let (mut last, mut next) = (slot, slot);
        while next != NONE {
            let flight = self.flights.at(next);
            if matches!(flight.state, State::Sent | State::Acked | State::Failed) {
                last = next;
            }
            next = flight.next;
        }
        last
    }

    // Is an event of this identity among those whose outcome is held back?
    fn is_placed(&mut self, tenant: u32, hash: IdHash) -> bool {
        let (mut slot, last) = (self.tenants.get(tenant).head, self.tenants.get(tenant).placed);
        while last != NONE && slot != NONE {
            let flight = self.flights.at(slot);
            if flight.state == State::Placed && flight.hash == hash {
                return true;
            }
            slot = if slot == last { NONE } else { flight.next };
        }
        false
    }

    fn mark_done(&mut self, slot: u32, cx: &mut Cx<'_>) {
        if !cx.redis.is_ready() && !cx.settings.cdc.dedup_required {
            self.flights.remove(slot);
            return;
        }
        let name = self.flights.name_of(slot);
        self.flights.at(slot).state = State::Marking;
        self.write_dedup_key(name);
        if cx.settings.cdc.legacy_dedup {
            let flight = self.flights.at(slot);
            if let Some(spans) = &flight.spans {
                let msg = &flight.parcel.msg;
                self.header.clear();
                self.header.put(b"dedup:");
                spans.bind(flight.parcel.subject(), msg.payload()).write_event_id(&mut self.header);
                cx.redis.legacy(cx.now, name, &self.header, &self.done_ttl);
            }
        }
        cx.redis.done(cx.now, name, &self.scratch, &self.done_ttl);
    }

    // Send everything that waited behind the fence, in order.
    fn lower_fence(&mut self, tenant: u32, cx: &mut Cx<'_>) {
        let front = self.tenants.get(tenant);
        front.fenced = false;
        let mut slot = front.head;
        while slot != NONE {
            let flight = self.flights.at(slot);
            let (next, waits) = (flight.next, flight.state == State::Waiting);
            if waits {
                let name = self.flights.name_of(slot);
                self.ready.push_back(name);
            }
            slot = next;
        }
        self.send_ready(cx);
    }
}

// Endings.
impl Stage {
    /// Everything of this partition before `epoch` is void.
    pub(super) fn cancel(&mut self, partition: PartitionId, epoch: Epoch, cx: &mut Cx<'_>) {
        for slot in self.flights.taken() {
            let flight = self.flights.at(slot);
            let stale = flight.parcel.partition == partition && flight.parcel.epoch < epoch;
            if !stale || flight.state == State::Marking {
                continue;
            }
            if flight.state != State::Gone {
                let tenant = flight.tenant;
                self.tenants.get(tenant).books.returned += 1;
                cx.figures.returned.inc();
                self.open -= 1;
            }
            if flight_owns_hash(self.flights.at(slot).state) {
                let hash = self.flights.at(slot).hash;
                self.flying.remove(&hash);
            }
            self.flights.at(slot).state = State::Gone;
        }
        self.relink(partition);
        for slot in self.flights.taken() {
            let flight = self.flights.at(slot);
            if flight.state == State::Gone && flight.parcel.partition == partition {
                self.graves.remove(&slot);
                self.flights.remove(slot);
            }
        }
        // What is left in a list may have waited for what is gone.
        let left: Vec<u32> =
            self.tenants.iter_mut().filter(|(_, t)| t.head != NONE).map(|(n, _)| n).collect();
        left.into_iter().for_each(|tenant| self.advance(tenant, cx));
    }

    // Take the gone out of the lists of the partition's companies, and let each begin its reading anew.
    fn relink(&mut self, partition: PartitionId) {
        for (_, tenant) in self.tenants.iter_mut().filter(|(_, t)| t.partition == partition) {
            let (mut slot, mut kept, mut last) = (tenant.head, NONE, NONE);
            while slot != NONE {
                let next = self.flights.at(slot).next;
                if self.flights.at(slot).state != State::Gone {
                    match last {
                        NONE => kept = slot,
                        last => self.flights.at(last).next = slot,
                    }
                    last = slot;
                }
                slot = next;
            }
            if last != NONE {
                self.flights.at(last).next = NONE;
            }
            (tenant.head, tenant.tail) = (kept, last);
            (tenant.placed, tenant.barrier) = (NONE, NONE);
            (tenant.is_replaying, tenant.replay_left) = (false, 0);
            (tenant.seq_last, tenant.position_last) = (0, (0, 0));
            if kept == NONE {
                (tenant.fenced, tenant.failures) = (false, 0);
            }
        }
    }

    /// The connection is gone: what other shards read and handed to us is to be read again. Own
    /// partitions are cancelled by their readers.
    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>) {
        self.ready.clear();
        let mut told: Vec<u16> = Vec::new();
        for slot in self.flights.taken() {
            let flight = self.flights.at(slot);
            let (reader, shard) = (flight.parcel.reader, cx.settings.shard);
            let open = !matches!(flight.state, State::Marking | State::Gone);
            if open && reader != shard && !told.contains(&reader.0) {
                told.push(reader.0);
                cx.effects.push_back(Effect::Mail { to: reader, mail: Mail::Lost { shard } });
            }
        }
    }

    // An event that has no flight gets its outcome.
    fn settle(
        &mut self,
        parcel: &Parcel,
        tenant: u32,
        table: Option<usize>,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        if let Some(table) = table {
            cx.figures.tables[table].outcomes[outcome as usize].inc();
        }
        self.open -= 1;
        count(&mut self.tenants.get(tenant).books, outcome);
        report_end(parcel, self.tenants.id(tenant), outcome, cx);
    }

    // The flight in `slot` gets its outcome.
    fn report(&mut self, slot: u32, outcome: Outcome, cx: &mut Cx<'_>) {
        let flight = self.flights.at(slot);
        let (tenant, table) = (flight.tenant, table_of(flight));
        cx.figures.tables[table].outcomes[outcome as usize].inc();
        self.open -= 1;
        count(&mut self.tenants.get(tenant).books, outcome);
        report_end(&self.flights.at(slot).parcel, self.tenants.id(tenant), outcome, cx);
    }

    // As `report`, and it only waits to leave its list.
    fn end(&mut self, slot: u32, outcome: Outcome, cx: &mut Cx<'_>) {
        let flight = self.flights.at(slot);
        let (hash, owns) = (flight.hash, flight_owns_hash(flight.state));
        if owns {
            self.flying.remove(&hash);
        }
        self.report(slot, outcome, cx);
        self.flights.at(slot).state = State::Gone;
    }
}

// Small parts.
impl Stage {
    fn append(&mut self, tenant: u32, slot: u32) {
        let tenant = self.tenants.get(tenant);
        match tenant.tail {
            NONE => tenant.head = slot,
            tail => self.flights.at(tail).next = slot,
        }
        tenant.tail = slot;
    }

    fn pop(&mut self, tenant: u32) {
        let tenant = self.tenants.get(tenant);
        let next = self.flights.at(tenant.head).next;
        self.flights.at(tenant.head).next = NONE;
        tenant.head = next;
        if next == NONE {
            tenant.tail = NONE;
        }
    }

    // Into `scratch`; false if the flight has ended.
    fn write_dedup_key(&mut self, name: FlightRef) -> bool {
        let Some(flight) = self.flights.get(name) else { return false };
        let Some(spans) = &flight.spans else { return false };
        self.scratch.clear();
        let msg = &flight.parcel.msg;
        spans.bind(flight.parcel.subject(), msg.payload()).write_dedup_key(&mut self.scratch);
        true
    }

    fn hash(&self, key: &[u8]) -> IdHash {
        SipHasher13::new_with_keys(self.hash_keys.0, self.hash_keys.1).hash(key).as_u128()
    }

    fn refresh_event_time(&mut self, now: Now) {
        let second = now.wall / SEC;
        if second != self.event_second {
            self.event_second = second;
            cdc::rfc3339_seconds(second, &mut self.event_time);
        }
    }
}

// An event has its outcome: to its reader, its trace, and those who read every line.
pub(super) fn report_end(parcel: &Parcel, company: &[u8], outcome: Outcome, cx: &mut Cx<'_>) {
    note::ended(parcel, company, outcome.label(), cx);
    report_to_reader(parcel, cx);
}

fn report_to_reader(parcel: &Parcel, cx: &mut Cx<'_>) {
    let Parcel { reader, partition, epoch, index, .. } = *parcel;
    if reader == cx.settings.shard {
        cx.done.push((partition, epoch, index));
    } else {
        let mail = Mail::Done { partition, epoch, index };
        cx.effects.push_back(Effect::Mail { to: reader, mail });
    }
}

pub(super) fn report_fate(parcel: &Parcel, fate: LetterFate, cx: &mut Cx<'_>) {
    let Parcel { reader, partition, epoch, index, .. } = *parcel;
    if reader == cx.settings.shard {
        cx.judged.push((partition, epoch, index, fate));
    } else {
        let mail = Mail::Judged { partition, epoch, index, fate };
        cx.effects.push_back(Effect::Mail { to: reader, mail });
    }
}

fn report_place(parcel: &Parcel, cx: &mut Cx<'_>) {
    let Parcel { reader, partition, epoch, .. } = *parcel;
    if reader == cx.settings.shard {
        cx.placed.push((partition, epoch));
    } else {
        cx.effects.push_back(Effect::Mail { to: reader, mail: Mail::Placed { partition, epoch } });
    }
}

pub(super) fn count(books: &mut Books, outcome: Outcome) {
    match outcome {
        Outcome::Committed => books.committed += 1,
        Outcome::Duplicate => books.duplicate += 1,
        Outcome::Filtered => books.filtered += 1,
        Outcome::DeadLettered => books.dead_lettered += 1,
    }
}

fn flight_owns_hash(state: State) -> bool {
    match state {
        State::Claiming | State::Twin | State::Waiting | State::Sent => true,
        State::Acked | State::Placed | State::Failed => true,
        State::Gone | State::Marking | State::Dead => false,
    }
}

// LSN and index within the transaction: what orders the changes of a company's source.
fn position_of(flight: &Flight) -> (u64, u64) {
    let msg = &flight.parcel.msg;
    let Some(spans) = &flight.spans else { return (0, 0) };
    let change = spans.bind(flight.parcel.subject(), msg.payload());
    (change.lsn(), change.index().unwrap_or(0))
}

fn table_of(flight: &Flight) -> usize {
    flight.spans.as_ref().map_or(Table::ALL.len(), |spans| spans.table as usize)
}

fn seconds(now: Now) -> u32 {
    u32::try_from(now.mono / SEC).unwrap_or(u32::MAX)
}
