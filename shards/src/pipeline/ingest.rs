//! The ingest stage on the shard that owns the companies: events queue by company, are written in batches,
//! and reach their outcome once PostgreSQL has committed them. Invariants: a company's events are written in
//! the order they came; an event has its outcome only after COMMIT, or after the PubAck of its dead letter;
//! trouble of the database is nobody's outcome.
//!
//! A company lives on one *lane*, which is one connection. A batch is what had queued up while the one
//! before it was written: no timer holds an event back. While little waits, the first lane writes it all.
//! The database says "not now" in three ways: to everybody (the lane waits, and nothing more is pulled), to
//! one company for a moment (a lock), and to one company until a person has looked (its schema). The last
//! two keep that company's events aside, in order.
//!
//! Modules: `job` (what is written together), `letters` (dead letters that are tried again), `lane` (a
//! connection), `queue` (whose turn it is), `rate` (the limit of a company), `dead` (events that become dead
//! letters).

mod dead;
mod job;
mod lane;
mod letters;
mod queue;
mod rate;

pub use crate::domain::ingest::Catalog;
pub use job::{Decoded, Job, Unwritten, Verdict};
pub use letters::{GivenUp, Original};

use super::PANICS_MAX;
use super::cdc::{Cx, count, report_end};
use super::commit::{Away, Class, Fate};
use super::effect::Effect;
use super::mail::Parcel;
use super::note::log_event;
use super::settings::{IngestSettings, StageName};
use super::tenant::{Books, TenantTable};
use crate::clock::{Now, SEC};
use crate::domain::cdc::DLQ_COMPANY_UNKNOWN;
use crate::domain::ingest::{Kind, Reason, Refusal, Subject};
use crate::id::{Epoch, PartitionId, fnv1a32};
use crate::metrics::{KIND_UNKNOWN, Outcome};
use dead::Graveyard;
use hashbrown::HashMap;
use lane::Lane;
use rate::Rate;
use std::collections::VecDeque;

/// Dead-letter reasons that are not the decoder's, behind those in label order.
const REASON_NOT_FOUND: usize = Reason::ALL.len();
const REASON_DATA: usize = Reason::ALL.len() + 1;
const REASON_PANIC: usize = Reason::ALL.len() + 2;
const _: () = assert!(REASON_PANIC < crate::metrics::REASONS_MAX, "every reason has a counter");

/// A company whose tables are locked is tried again after this; its events cost the others one lock timeout
/// each time.
const BUSY_RETRY: u64 = SEC;
/// A company that cannot be written until a person has looked is tried again after this.
const HELD_RETRY: u64 = 5 * SEC;
/// Of an item of a history event, about.
const ITEM_BYTES: usize = 400;
/// While less than this waits, of no more companies than that, one lane writes the events of all: a
/// transaction and a statement cost the database more than another lane gains. At 5,000 events/s of 8
/// companies that is 145 us of PostgreSQL an event for 174, and 1.8 ms at P50 for 2.5. Beyond, lanes work
/// side by side: with 64 companies P50 would be 16 ms for 4.
const TOGETHER_EVENTS: u64 = 64;
const TOGETHER_COMPANIES_MAX: usize = 16;
/// Companies kept aside that are named to people.
const HELD_TOLD_MAX: usize = 20;

/// Labels of the dead-letter reasons of this stage.
#[must_use]
pub fn ingest_reason_labels() -> Vec<&'static str> {
    let own = ["not_found", "data", "panic"];
    Reason::ALL.iter().map(|reason| reason.as_str()).chain(own).collect()
}

/// Labels of the kinds of events, and of what is none.
#[must_use]
pub fn kind_labels() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.base()).chain(["unknown"]).collect()
}

/// An event on its way to PostgreSQL.
#[derive(Debug)]
pub(super) struct Waiting {
    parcel: Parcel,
    tenant: u32,
    /// Its place among the kinds, for the figures.
    kind: usize,
    /// A shard panicked while it was being written.
    is_suspect: bool,
    /// A dead letter that has had its last try: why that failed.
    given_up: Option<String>,
}

impl Waiting {
    fn new(parcel: Parcel, tenant: u32, kind: usize, is_suspect: bool) -> Self {
        Self { parcel, tenant, kind, is_suspect, given_up: None }
    }

    fn is_history(&self) -> bool {
        Kind::ALL.get(self.kind).is_some_and(|kind| kind.is_history())
    }

    fn is_letter(&self) -> bool {
        self.parcel.stage == StageName::Dlq
    }

    // A history event is as many rows as it has items, which are not counted before they are read.
    fn weight(&self) -> u32 {
        let items = self.parcel.msg.frame_len() / ITEM_BYTES;
        if self.is_history() { u32::try_from(items).unwrap_or(u32::MAX).max(1) } else { 1 }
    }
}

/// A company whose events are kept aside.
struct Aside {
    events: VecDeque<Waiting>,
    /// When it is tried again; monotonic ns.
    until: u64,
}

/// The stage's state.
pub(super) struct Ingest {
    lanes: Vec<Lane>,
    /// The first lane writes events of all lanes: no other may begin before it is back.
    is_together: bool,
    tenants: TenantTable,
    aside: HashMap<u32, Aside>,
    /// Companies that were put aside and have not been written since, and why.
    troubled: HashMap<u32, String>,
    graveyard: Graveyard,
    /// The first reading of each partition that counts.
    epochs: HashMap<PartitionId, Epoch>,
    rate: Rate,
    companies: Vec<String>,
    open: usize,
    letters_open: usize,
}

impl Ingest {
    pub(super) fn new(settings: &IngestSettings) -> Self {
        let lanes = 0..settings.connections.max(1);
        Self {
            lanes: lanes.map(|place| Lane::new(place, settings)).collect(),
            is_together: false,
            tenants: TenantTable::new(settings.companies_max),
            aside: HashMap::new(),
            troubled: HashMap::new(),
            graveyard: Graveyard::default(),
            epochs: HashMap::new(),
            rate: Rate::new(settings.rate_max),
            companies: settings.companies.clone(),
            open: 0,
            letters_open: 0,
        }
    }

    /// Events without outcome.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Dead letters that are being tried.
    pub(super) fn letters_open(&self) -> usize {
        self.letters_open
    }

    pub(super) fn companies(&self) -> usize {
        self.tenants.len()
    }

    pub(super) fn books(&self) -> Vec<(Box<[u8]>, Books)> {
        self.tenants.books()
    }

    /// Why events cannot be written now, if so. Then none should be pulled.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.lanes.iter().find_map(Lane::trouble)
    }

    pub(super) fn lanes_connected(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_connected()).count()
    }

    /// Does nothing that comes now go on before a write has ended?
    pub(super) fn is_busy(&self) -> bool {
        self.is_together || self.lanes.iter().all(Lane::is_writing)
    }

    /// Companies that wait, and why: the first of them.
    pub(super) fn held(&self) -> Vec<(String, String)> {
        let troubled = self.troubled.iter().take(HELD_TOLD_MAX);
        let named = troubled.map(|(tenant, why)| (self.name(*tenant), why.clone()));
        named.collect()
    }

    pub(super) fn held_len(&self) -> usize {
        self.troubled.len()
    }

    fn name(&self, tenant: u32) -> String {
        String::from_utf8_lossy(self.tenants.id(tenant)).into_owned()
    }

    /// Take over an event. After `panics` of a shard with it at hand it is written alone, so that none but
    /// itself is to blame for the next; after that it is not looked at.
    pub(super) fn admit(&mut self, parcel: Parcel, panics: u32, cx: &mut Cx<'_>) {
        let (open, pulled) = match parcel.stage {
            StageName::Dlq => (&mut self.letters_open, &cx.figures.dlq.pulled),
            StageName::Ingest | StageName::Cdc => (&mut self.open, &cx.figures.ingest.pulled),
        };
        *open += 1;
        pulled.inc();
        let text = std::str::from_utf8(parcel.subject()).unwrap_or_default();
        let (company, kind) = match Subject::parse(text) {
            Ok(Subject { base, company, .. }) => (company, kind_of(base)),
            Err(refusal) => {
                let tenant = self.tenant(DLQ_COMPANY_UNKNOWN);
                let detail = refused(&refusal);
                let waiting = Waiting::new(parcel, tenant, KIND_UNKNOWN, false);
                if waiting.is_letter() {
                    return self.try_later(waiting, &detail, cx);
                }
                return self.bury(waiting, refusal.reason as usize, detail, cx);
            }
        };
        let lane = self.lane_of(company.as_bytes(), cx.settings.shards);
        let is_wanted = self.companies.is_empty() || self.companies.iter().any(|c| c == company);
        let tenant = self.tenant(company);
        let is_homeless = company == DLQ_COMPANY_UNKNOWN;
        let waiting = Waiting::new(parcel, tenant, kind, panics > 0);
        if waiting.is_letter() && (panics >= PANICS_MAX || is_homeless) {
            let why =
                if is_homeless { HOMELESS } else { "handle: it made the process panic twice" };
            return self.try_later(waiting, why, cx);
        }
        if panics >= PANICS_MAX {
            let detail = "handle: this event made the process panic twice".to_owned();
            return self.bury(waiting, REASON_PANIC, detail, cx);
        }
        if !is_wanted && waiting.is_letter() {
            return self.try_later(waiting, "its company is not among those of this process", cx);
        }
        if !is_wanted {
            return self.settle(&waiting, Outcome::Filtered, cx);
        }
        // Also where its company is aside: older ones may stand in the queue yet, and go aside before it.
        self.lanes[lane].push(waiting);
    }

    /// End of a turn: every lane that is free takes what has queued up.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>) {
        let Some(settings) = &cx.settings.ingest else { return };
        if self.is_together {
            return;
        }
        self.is_together = self.may_go_together(cx.now);
        let (aside, rate, figures) = (&mut self.aside, &mut self.rate, cx.figures);
        // What follows on an event that is aside joins it, so that order is kept.
        let mut keep = |waiting: Waiting| {
            let tenant = waiting.tenant;
            if let Some(aside) = aside.get_mut(&tenant) {
                aside.events.push_back(waiting);
                return None;
            }
            let until = match rate.take(tenant, cx.now.mono) {
                Ok(()) => return Some(waiting),
                Err(until) => until,
            };
            figures.ingest.limited.inc();
            aside.insert(tenant, Aside { events: VecDeque::from([waiting]), until });
            None
        };
        let mut write = |lane: &mut Lane, filling| {
            let Some(job) = lane.start(filling, cx.now) else { return false };
            figures.ingest.batch_events.add(job.len() as u64);
            cx.effects.push_back(Effect::PgWrite { lane: lane.place, job });
            true
        };
        if self.is_together {
            let mut filling = self.lanes[0].begin();
            self.lanes.iter_mut().for_each(|lane| lane.fill(&mut filling, settings, &mut keep));
            self.is_together = write(&mut self.lanes[0], filling);
            return;
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_ready(cx.now)) {
            let mut filling = lane.begin();
            lane.fill(&mut filling, settings, &mut keep);
            write(lane, filling);
        }
    }

    // Not where one company could make the others wait: a lock, or the schema of a company met for the first
    // time, holds up its own lane alone.
    fn may_go_together(&self, now: Now) -> bool {
        let queued: u64 = self.lanes.iter().map(Lane::queued).sum();
        let companies = || self.lanes.iter().flat_map(Lane::companies);
        self.lanes.len() > 1
            && (1..TOGETHER_EVENTS).contains(&queued)
            && self.troubled.is_empty()
            && self.lanes.iter().all(|lane| lane.is_ready(now))
            && companies().count() <= TOGETHER_COMPANIES_MAX
            && companies().all(|tenant| self.tenants.books_of(tenant).was_written())
    }

    /// A lane has its connection.
    pub(super) fn on_opened(&mut self, lane: u16) {
        if let Some(lane) = self.lanes.get_mut(usize::from(lane)) {
            lane.opened();
        }
    }

    /// A lane has lost its connection, or got none.
    pub(super) fn on_closed(&mut self, lane: u16, why: &str, cx: &mut Cx<'_>) {
        let Some(lane) = self.lanes.get_mut(usize::from(lane)) else { return };
        lane.closed(cx.now, why, cx.rng);
    }

    /// A job comes back from a lane.
    pub(super) fn on_written(&mut self, place: u16, mut job: Box<Job>, cx: &mut Cx<'_>) {
        let Some(lane) = self.lanes.get_mut(usize::from(place)) else { return };
        let since = lane.take_back();
        self.is_together = false;
        cx.figures.ingest.write.record(cx.now.mono.saturating_sub(since));
        cx.figures.ingest.batches.inc();
        cx.figures.ingest.suspicious.add(job.suspicious);
        let away = job.away.take();
        let is_busy = away.as_ref().is_some_and(|away| Class::of(&away.sqlstate) == Class::Busy);
        let mut left = VecDeque::new();
        for (waiting, verdict) in job.take() {
            if self.is_stale(&waiting.parcel) {
                self.give_back(&waiting, cx);
                continue;
            }
            match verdict {
                Verdict::Open => left.push_back(waiting),
                Verdict::Held { message } => {
                    self.put_aside(waiting, &message, cx.now.mono + HELD_RETRY);
                }
                verdict if waiting.is_letter() => self.end_letter(waiting, verdict, cx),
                verdict => self.end(waiting, verdict, cx),
            }
        }
        if is_busy {
            let why = away.as_ref().map(ToString::to_string).unwrap_or_default();
            let until = cx.now.mono + BUSY_RETRY / 2 + cx.rng.u64(0..=BUSY_RETRY / 2);
            left.drain(..).for_each(|waiting| self.put_aside(waiting, &why, until));
        }
        self.lanes[usize::from(place)].keep_memory(job);
        self.put_back(left, cx);
        match away.filter(|_| !is_busy) {
            Some(away) => self.on_away(place, &away, cx),
            None => self.lanes[usize::from(place)].worked(),
        }
    }

    // Before all that came later, each on the lane of its company.
    fn put_back(&mut self, mut left: VecDeque<Waiting>, cx: &Cx<'_>) {
        while let Some(waiting) = left.pop_back() {
            let lane = self.lane_of(self.tenants.id(waiting.tenant), cx.settings.shards);
            self.lanes[lane].push_first(waiting);
        }
    }

    fn on_away(&mut self, place: u16, away: &Away, cx: &mut Cx<'_>) {
        cx.figures.ingest.away.inc();
        let lane = &mut self.lanes[usize::from(place)];
        lane.pause(cx.now, &away.to_string(), cx.rng);
        // A server that only reads now may not be the one to write to any more: look at all of them again.
        if away.sqlstate == READ_ONLY && lane.is_connected() {
            cx.effects.push_back(Effect::PgClose { lane: place });
        }
    }

    fn end(&mut self, waiting: Waiting, verdict: Verdict, cx: &mut Cx<'_>) {
        match verdict {
            Verdict::Written(fate) => match fate {
                Fate::Empty | Fate::Applied | Fate::Kept | Fate::Alone | Fate::Conflict => {
                    self.commit(&waiting, Outcome::Committed, cx);
                }
                Fate::Stale => {
                    cx.figures.ingest.stale.inc();
                    self.commit(&waiting, Outcome::Duplicate, cx);
                }
                Fate::Duplicate => self.commit(&waiting, Outcome::Duplicate, cx),
                Fate::NotFound => {
                    let what = kind_labels()[waiting.kind].split('.').next().unwrap_or_default();
                    let what = what.trim_end_matches('s');
                    let detail = format!("write: {what} not found");
                    self.bury(waiting, REASON_NOT_FOUND, detail, cx);
                }
            },
            Verdict::Refused(refusal) => {
                let detail = refused(&refusal);
                self.bury(waiting, refusal.reason as usize, detail, cx);
            }
            Verdict::Bad { sqlstate, message } => {
                let detail = match sqlstate.as_str() {
                    "" => format!("write: {message}"),
                    state => format!("write: {message} (SQLSTATE {state})"),
                };
                self.bury(waiting, REASON_DATA, detail, cx);
            }
            Verdict::Panicked => {
                cx.figures.panics.inc();
                let detail = "decode: reading this event made the process panic".to_owned();
                self.bury(waiting, REASON_PANIC, detail, cx);
            }
            // Told apart by the caller, or a letter's.
            Verdict::Open | Verdict::Held { .. } | Verdict::Unreadable(_) | Verdict::GivenUp => {
                self.give_back(&waiting, cx);
            }
        }
    }

    fn commit(&mut self, waiting: &Waiting, outcome: Outcome, cx: &mut Cx<'_>) {
        crate::fault::point("before_ingest_ack");
        cx.figures.ingest.latency.record(cx.now.mono.saturating_sub(waiting.parcel.received));
        self.settle(waiting, outcome, cx);
    }

    fn put_aside(&mut self, waiting: Waiting, why: &str, until: u64) {
        let tenant = waiting.tenant;
        if self.troubled.insert(tenant, why.to_owned()).is_none() {
            log_event!(
                WARN,
                &waiting.parcel,
                self.name(tenant),
                "a company's events wait, and are tried again",
                why
            );
        }
        let new = || Aside { events: VecDeque::new(), until };
        self.aside.entry(tenant).or_insert_with(new).events.push_back(waiting);
    }

    /// Time goes by: connections, companies that were put aside, dead letters.
    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) {
        let Some(settings) = &cx.settings.ingest else { return };
        for lane in &mut self.lanes {
            lane.tick(cx.now, settings, cx.effects);
        }
        self.try_aside(cx);
        self.publish_due(cx);
    }

    fn try_aside(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<u32> = self
            .aside
            .iter()
            .filter(|(_, aside)| aside.until <= cx.now.mono)
            .map(|(tenant, _)| *tenant)
            .collect();
        for tenant in due {
            let Some(aside) = self.aside.remove(&tenant) else { continue };
            self.put_back(aside.events, cx);
        }
    }

    /// Everything of this partition before `epoch` is void. What is being written is dropped when it is back.
    pub(super) fn cancel(&mut self, partition: PartitionId, epoch: Epoch, cx: &mut Cx<'_>) {
        self.epochs.insert(partition, epoch);
        let is_void = |parcel: &Parcel| parcel.partition == partition && parcel.epoch < epoch;
        let mut void = Vec::new();
        for lane in &mut self.lanes {
            lane.withdraw(&is_void, &mut void);
        }
        for aside in self.aside.values_mut() {
            queue::withdraw(&mut aside.events, &is_void, &mut void);
        }
        self.aside.retain(|_, aside| !aside.events.is_empty());
        self.troubled.retain(|tenant, _| self.aside.contains_key(tenant));
        self.graveyard.withdraw(&is_void, &mut void);
        void.iter().for_each(|waiting| self.give_back(waiting, cx));
    }

    // By what the choice of the shard has left of the hash.
    fn lane_of(&self, company: &[u8], shards: u16) -> usize {
        let hash = fnv1a32(company) / u32::from(shards.max(1));
        hash as usize % self.lanes.len()
    }

    fn is_stale(&self, parcel: &Parcel) -> bool {
        self.epochs.get(&parcel.partition).is_some_and(|epoch| parcel.epoch < *epoch)
    }

    fn tenant(&mut self, company: &str) -> u32 {
        let tenant = self.tenants.place(company.as_bytes());
        self.tenants.get(tenant).books.pulled += 1;
        tenant
    }

    fn close(&mut self, waiting: &Waiting) {
        match waiting.is_letter() {
            true => self.letters_open -= 1,
            false => self.open -= 1,
        }
    }

    // Read again by whoever reads the partition then.
    fn give_back(&mut self, waiting: &Waiting, cx: &mut Cx<'_>) {
        self.close(waiting);
        self.tenants.get(waiting.tenant).books.returned += 1;
        match waiting.is_letter() {
            true => cx.figures.dlq.later.inc(),
            false => cx.figures.ingest.returned.inc(),
        }
    }

    fn settle(&mut self, waiting: &Waiting, outcome: Outcome, cx: &mut Cx<'_>) {
        self.close(waiting);
        if !self.troubled.is_empty() && self.troubled.remove(&waiting.tenant).is_some() {
            tracing::info!(company_id = %self.name(waiting.tenant), "a company's events go on");
        }
        count(&mut self.tenants.get(waiting.tenant).books, outcome);
        match waiting.is_letter() {
            true => cx.figures.dlq.outcomes[outcome as usize].inc(),
            false => cx.figures.ingest.outcomes[waiting.kind][outcome as usize].inc(),
        }
        report_end(&waiting.parcel, self.tenants.id(waiting.tenant), outcome, cx);
    }
}

/// Why a letter of no company stays in the stream.
const HOMELESS: &str = "no valid company can be read, so there is no schema to try it in";
/// SQLSTATE of a server that takes no writes.
const READ_ONLY: &str = "25006";

fn refused(refusal: &Refusal) -> String {
    format!("validate: {refusal}")
}

fn kind_of(base: &str) -> usize {
    Kind::ALL.iter().position(|kind| kind.base() == base).unwrap_or(KIND_UNKNOWN)
}

const _: () = assert!(Kind::ALL.len() == KIND_UNKNOWN, "every kind has its counters");

#[cfg(test)]
pub(super) mod tests;
