//! What must hold at every moment of a run, read from the servers alone: the promises of DESIGN.md
//! section 5. Invariant: the oracle knows nothing of how the pipeline works; it sees the streams, the
//! ack floor, and the figures that the pipeline publishes.

use std::collections::BTreeMap;

use shards::metrics::{Outcome, ShardFigures};
use shards::pipeline::Books;

use crate::peers::jetstream::config::Retention;
use crate::peers::jetstream::store::{Store, Stored};
use crate::peers::message::header;
use crate::peers::nats::NatsServer;
use crate::plan::{DEAD_LETTERS, OUTPUT, Part, STREAM};
use crate::source::{Event, Fate};

/// The promises of DESIGN.md section 5, by their numbers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    NothingLost = 1,
    EffectivelyOnce = 2,
    Order = 3,
    Books = 4,
    WeatherCostsNothing = 5,
    /// Everything settles once the weather is fair: 5 and 7.
    Progress = 7,
    Bounded = 8,
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) promise: Promise,
    pub(crate) what: String,
}

pub(crate) fn broken<T>(promise: Promise, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { promise, what: what.into() })
}

/// One row change that is to be forwarded.
#[derive(Debug, Default)]
struct Change {
    company: u16,
    /// Source sequences, more than one where the source repeats itself.
    sources: Vec<u64>,
    /// Output sequences.
    copies: Vec<u64>,
    /// `Nats-Msg-Id` without a rebirth's suffix.
    id: String,
    rebirth_last: u32,
}

/// The memory of a run.
#[derive(Default)]
pub(crate) struct Oracle {
    fates: Vec<Fate>,
    changes: Vec<Change>,
    /// Change by output sequence - 1.
    output: Vec<u32>,
    buried: BTreeMap<u64, u32>,
    dead_seen: u64,
    /// What is read; several parts hold the same sequences as the source.
    pub(crate) parts: Vec<Part>,
    /// By part: all its messages up to here are known to have their effect.
    floors: Vec<u64>,
    /// Redis has forgotten what was done, or was never told: a repetition in the source may then take
    /// effect again, in its later place.
    pub(crate) amnesia: bool,
    pub(crate) republished: u64,
}

impl Oracle {
    /// The source stream has stored `event` under `seq`.
    pub(crate) fn note_source(&mut self, seq: u64, event: &Event) {
        assert_eq!(seq, self.fates.len() as u64 + 1, "the publisher is the only writer");
        self.fates.push(event.fate);
        if let Fate::Forward { change } = event.fate {
            let place = change as usize;
            if place >= self.changes.len() {
                self.changes.resize_with(place + 1, Change::default);
            }
            self.changes[place].company = event.company;
            self.changes[place].sources.push(seq);
        }
    }

    /// Look at what the server holds now.
    pub(crate) fn look(&mut self, nats: &NatsServer) -> Result<(), Broken> {
        let js = &nats.jetstream;
        if let Some(output) = js.store(OUTPUT) {
            for seq in self.output.len() as u64 + 1..=output.last_seq() {
                match output.get(seq) {
                    Some(stored) => self.note_output(seq, stored)?,
                    None => return broken(Promise::NothingLost, "the output lost a message"),
                }
            }
        }
        if let Some(letters) = js.store(DEAD_LETTERS) {
            while self.dead_seen < letters.last_seq() {
                self.dead_seen += 1;
                if let Some(stored) = letters.get(self.dead_seen) {
                    self.note_dead_letter(stored)?;
                }
            }
        }
        self.look_at_floor(nats)
    }

    fn look_at_floor(&mut self, nats: &NatsServer) -> Result<(), Broken> {
        self.floors.resize(self.parts.len(), 0);
        self.look_at_queue(nats)?;
        (0..self.parts.len()).try_for_each(|place| self.look_at_part(nats, place))
    }

    fn look_at_part(&mut self, nats: &NatsServer, place: usize) -> Result<(), Broken> {
        let Part { stream, consumer, prefix } = &self.parts[place];
        let js = &nats.jetstream;
        let (Some(consumer), Some(store)) = (js.consumer(stream, consumer), js.store(stream))
        else {
            return Ok(());
        };
        let is_of_part = |seq| {
            let stored = store.get(seq);
            prefix.is_empty() || stored.is_some_and(|m| m.subject.starts_with(prefix.as_bytes()))
        };
        let floor = consumer.floor().stream.min(self.fates.len() as u64);
        let risen = self.floors[place] + 1..=floor;
        risen.filter(|seq| is_of_part(*seq)).try_for_each(|seq| self.must_have_effect(seq))?;
        // Explicit acks settle single messages above the floor.
        let floor = self.floors[place].max(floor);
        let above = floor + 1..=consumer.delivered().stream.min(self.fates.len() as u64);
        let subject = [prefix.as_bytes(), b"x"].concat();
        above
            .filter(|seq| is_of_part(*seq) && consumer.is_done_with(*seq, &subject))
            .try_for_each(|seq| self.must_have_effect(seq))?;
        self.floors[place] = floor;
        Ok(())
    }

    // What has left a work queue was acknowledged, whatever its consumer still knows of it.
    fn look_at_queue(&mut self, nats: &NatsServer) -> Result<(), Broken> {
        let Some(queue) = work_queue(nats) else { return Ok(()) };
        while self.floors[0] + 1 < queue.first_seq().min(self.fates.len() as u64 + 1) {
            self.floors[0] += 1;
            self.must_have_effect(self.floors[0])?;
        }
        let mut gone =
            (self.floors[0] + 1..=self.fates.len() as u64).filter(|s| queue.get(*s).is_none());
        gone.try_for_each(|seq| self.must_have_effect(seq))
    }

    fn must_have_effect(&self, seq: u64) -> Result<(), Broken> {
        let has = match self.fates[seq as usize - 1] {
            Fate::Forward { change } => !self.changes[change as usize].copies.is_empty(),
            Fate::Filter => true,
            Fate::Bury => self.buried.contains_key(&seq),
        };
        if has {
            return Ok(());
        }
        let fate = self.fates[seq as usize - 1];
        broken(
            Promise::NothingLost,
            format!("source {seq} is acknowledged without effect: {fate:?}"),
        )
    }

    fn note_output(&mut self, seq: u64, stored: &Stored) -> Result<(), Broken> {
        let (Some(place), Some(id)) =
            (row_number(&stored.payload), header(&stored.headers, "Nats-Msg-Id"))
        else {
            return broken(Promise::EffectivelyOnce, format!("output {seq} cannot be read"));
        };
        let Some(change) = self.changes.get(place as usize).filter(|c| !c.sources.is_empty())
        else {
            return broken(
                Promise::EffectivelyOnce,
                format!("output {seq}: change {place} never was"),
            );
        };
        let (base, rebirth) = split_id(id);
        if let Some(last) = change.copies.last() {
            let text = format!("change {place}: output {seq} ({id}) repeats output {last}");
            if base != change.id || rebirth <= change.rebirth_last {
                return broken(Promise::EffectivelyOnce, text);
            }
            self.republished += 1;
            if !self.is_misplaced(change, *last) {
                return broken(Promise::EffectivelyOnce, text + " though that was in its place");
            }
        } else if rebirth > 0 {
            return broken(Promise::EffectivelyOnce, format!("output {seq}: first copy is {id}"));
        }
        let base = base.to_owned();
        let change = &mut self.changes[place as usize];
        (change.id, change.rebirth_last) = (base, rebirth);
        change.copies.push(seq);
        self.output.push(place);
        Ok(())
    }

    // Whether an event before `change` has been stored behind its copy `last`: the one reason there is
    // for another copy.
    fn is_misplaced(&self, change: &Change, last: u64) -> bool {
        let place = if self.amnesia { change.sources.last() } else { change.sources.first() };
        let behind = self.output[last as usize..].iter().map(|c| &self.changes[*c as usize]);
        let mut of_company = behind.filter(|other| other.company == change.company);
        of_company.any(|other| other.sources.first() < place)
    }

    fn note_dead_letter(&mut self, stored: &Stored) -> Result<(), Broken> {
        let id = header(&stored.headers, "Nats-Msg-Id").unwrap_or_default();
        let seq = id.split(':').nth(2).and_then(|seq| seq.parse::<u64>().ok());
        let Some(seq) = seq.filter(|seq| *seq > 0 && *seq <= self.fates.len() as u64) else {
            return broken(
                Promise::NothingLost,
                format!("dead letter {id} names no source message"),
            );
        };
        if self.fates[seq as usize - 1] != Fate::Bury {
            let text = format!("source {seq} is dead-lettered and nothing is wrong with it");
            return broken(Promise::WeatherCostsNothing, text);
        }
        let times = self.buried.entry(seq).or_default();
        *times += 1;
        if *times > 1 {
            return broken(
                Promise::EffectivelyOnce,
                format!("source {seq} is dead-lettered twice"),
            );
        }
        Ok(())
    }

    /// Whether all the source's messages are acknowledged. For a work queue its being empty says so: the
    /// floor of a consumer made anew stays below what had left the queue before it.
    pub(crate) fn is_settled(&self, nats: &NatsServer) -> bool {
        let is_empty = work_queue(nats).is_some_and(|queue| queue.len() == 0);
        self.parts.iter().all(|Part { stream, consumer, prefix }| {
            let (store, js) = (nats.jetstream.store(stream), &nats.jetstream);
            let Some(consumer) = js.consumer(stream, consumer) else { return false };
            let is_of_part = |m: &Stored| m.subject.starts_with(prefix.as_bytes());
            // The floor of a part stops at its own last message.
            let last = match prefix.is_empty() {
                true => self.fates.len() as u64,
                false => store.map_or(0, |s| {
                    s.iter().filter(|(_, m)| is_of_part(m)).map(|(seq, _)| seq).max().unwrap_or(0)
                }),
            };
            let is_through = is_empty || consumer.floor().stream >= last;
            is_through && consumer.ack_pending() == 0
        })
    }

    /// All is over: everything has its effect, and each company's last copies are in order.
    pub(crate) fn look_back(&self, companies: u16) -> Result<(), Broken> {
        (1..=self.fates.len() as u64).try_for_each(|seq| self.must_have_effect(seq))?;
        (0..companies).try_for_each(|company| self.check_order(company))
    }

    fn check_order(&self, company: u16) -> Result<(), Broken> {
        let of_company = self.changes.iter().enumerate();
        let of_company = of_company.filter(|(_, c)| c.company == company && !c.sources.is_empty());
        let mut last: Vec<(u64, usize, &Change)> =
            of_company.filter_map(|(n, c)| Some((*c.copies.last()?, n, c))).collect();
        last.sort_unstable_by_key(|(seq, _, _)| *seq);
        let mut place = 0;
        for (seq, number, change) in last {
            // The earliest place that is still possible leaves the most room to those behind.
            let places = if self.amnesia { &change.sources[..] } else { &change.sources[..1] };
            let Some(next) = places.iter().find(|p| **p > place) else {
                let sources = &change.sources;
                return broken(
                    Promise::Order,
                    format!(
                        "change {number} (source {sources:?}) has its last copy at output {seq}, \
                     behind that of source {place}"
                    ),
                );
            };
            place = *next;
        }
        Ok(())
    }

    /// Messages in the source.
    pub(crate) fn sources(&self) -> u64 {
        self.fates.len() as u64
    }

    /// One number for all that was stored, in its order.
    pub(crate) fn digest(&self) -> u64 {
        let parts = self.output.iter().map(|c| u64::from(*c)).chain(self.buried.keys().copied());
        parts.fold(0xcbf2_9ce4_8422_2325, |hash, part| (hash ^ part).wrapping_mul(0x100_0000_01b3))
    }
}

/// The books of a pipeline against its own count and its figures; `past` are those of its predecessors.
pub(crate) fn check_books(
    books: &[(Box<[u8]>, Books)],
    open: usize,
    past: &Books,
    figures: &ShardFigures,
) -> Result<(), Broken> {
    let mut sum = Books::default();
    books.iter().for_each(|(_, b)| sum.add(b));
    let ended = sum.committed + sum.duplicate + sum.filtered + sum.dead_lettered + sum.returned;
    if sum.pulled != ended + open as u64 {
        return broken(Promise::Books, format!("{sum:?} with {open} in flight"));
    }
    sum.add(past);
    let counted = Books {
        pulled: figures.pulled.get(),
        committed: figures.outcome(Outcome::Committed),
        duplicate: figures.outcome(Outcome::Duplicate),
        filtered: figures.outcome(Outcome::Filtered),
        dead_lettered: figures.outcome(Outcome::DeadLettered),
        returned: figures.returned.get(),
    };
    if counted != sum {
        return broken(Promise::Books, format!("books {sum:?}, figures {counted:?}"));
    }
    Ok(())
}

// The source, if it deletes what is acknowledged.
fn work_queue(nats: &NatsServer) -> Option<&Store> {
    let source = nats.jetstream.store(STREAM)?;
    (source.config.retention == Retention::WorkQueue).then_some(source)
}

fn row_number(payload: &[u8]) -> Option<u32> {
    const MARK: &[u8] = br#""row_data":{"id":"#;
    let at = payload.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let digits = payload[at..].iter().take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

fn split_id(id: &str) -> (&str, u32) {
    let Some((base, number)) = id.rsplit_once(";r") else { return (id, 0) };
    number.parse().map_or((id, 0), |number| (base, number))
}
