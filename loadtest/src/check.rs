//! Compares what came out on `wa.>` with what the generator said must come. Invariant: every delivery
//! is counted under exactly one of: first copy, another copy, unexpected; faults of a first copy are
//! counted besides.
//!
//! An event of the generator is known again by the mark in its record (`last_metadata`: row, version,
//! ordinal, time of sending), never by what the system under test says of it; an event of others by the
//! subject and the id that the contract demands for it. Order is held per row (per chat, for messages) by
//! version, and per company by ordinal.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use hdrhistogram::Histogram;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError};
use crate::generate::{Event, Expect, record_hash};
use crate::report::{Outcomes, latency_histogram};

/// Examples kept of each run's faults.
const EXAMPLES_MAX: usize = 20;

/// What must come out for one event; made by the sender's side, taken by the checker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    ordinal: u64,
    row: u64,
    version: u32,
    company: u32,
    /// Hash of subject and event id; `None` for what nobody is to see.
    route: Option<u64>,
    /// Of the record; 0 where it need not come out as it is.
    record: u64,
    /// Nanoseconds since the epoch; 0 where the record is marked with it.
    planned_ns: u64,
}

/// An event without a mark, as [`Expectation::told`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Unmarked<'a> {
    /// Number of the expectation, from 0.
    pub number: u64,
    /// Number of the row or chat whose order it is part of.
    pub row: u64,
    /// Its place in that order, from 1.
    pub version: u32,
    /// Number of the company.
    pub company: u32,
    /// Where it must come out.
    pub subject: &'a str,
    /// Under which id.
    pub event_id: &'a str,
    /// With which place in its transaction.
    pub idx: Option<u64>,
    /// With which bytes, if they are known.
    pub record: Option<&'a str>,
    /// When it is planned, nanoseconds since the epoch.
    pub planned_ns: u64,
}

impl Expectation {
    /// What `event` must lead to; `None` for a duplicate, which leads to nothing new.
    pub fn of(event: &Event<'_>) -> Option<Self> {
        let (route, record) = match event.expect {
            Expect::Duplicate => return None,
            Expect::Filtered | Expect::DeadLetter { .. } => (None, 0),
            Expect::Forward { subject, event_id, record_hash } => {
                (Some(route_hash(subject.as_bytes(), event_id.as_bytes())), record_hash)
            }
        };
        let Event { ordinal, row, version, company, .. } = *event;
        Some(Self { ordinal, row: row.0, version, company, route, record, planned_ns: 0 })
    }

    /// Whether somebody is to see it.
    pub fn is_seen(&self) -> bool {
        self.route.is_some()
    }

    /// What an event without a mark must lead to.
    pub fn told(told: &Unmarked<'_>) -> Self {
        let Unmarked { number, row, version, company, planned_ns, .. } = *told;
        let route = route_hash(told.subject.as_bytes(), told.event_id.as_bytes());
        let route = Some(route ^ idx_hash(told.idx));
        let record = told.record.map_or(0, |record| record_hash(record.as_bytes()));
        Self { ordinal: number, row, version, company, route, record, planned_ns }
    }
}

/// One expectation and what became of it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    expected: Expectation,
    copies: u32,
}

/// The comparison. Memory grows by some 80 bytes an event: it is to know each one.
#[derive(Debug)]
pub struct Checker {
    /// Numbers of unmarked events by where they must come out; `None` where all are marked.
    routes: Option<HashMap<u64, u64>>,
    slots: Vec<Option<Slot>>,
    versions: Vec<u32>,
    ordinals: Vec<u64>,
    outcomes: Outcomes,
    latency_us: Histogram<u64>,
    examples: Vec<String>,
}

impl Checker {
    /// A checker for rows below `rows` ([`Profile::rows`](crate::generate::Profile::rows)).
    pub fn new(rows: u64, companies: u32) -> Self {
        Self {
            routes: None,
            slots: Vec::new(),
            versions: vec![0; rows as usize],
            ordinals: vec![0; companies as usize],
            outcomes: Outcomes::default(),
            latency_us: latency_histogram(),
            examples: Vec::new(),
        }
    }

    /// A checker for events without a mark.
    pub fn unmarked() -> Self {
        Self { routes: Some(HashMap::new()), ..Self::new(0, 0) }
    }

    /// Notes an event. To be called before the event can come out.
    pub fn expect(&mut self, expected: Expectation) {
        let at = expected.ordinal as usize;
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
        }
        self.slots[at] = Some(Slot { expected, copies: 0 });
        if let (Some(routes), Some(route)) = (&mut self.routes, expected.route) {
            routes.insert(route, expected.ordinal);
        }
        let (row, company) = (expected.row as usize, expected.company as usize);
        self.versions.resize(self.versions.len().max(row + 1), 0);
        self.ordinals.resize(self.ordinals.len().max(company + 1), 0);
        self.outcomes.sent += 1;
        self.outcomes.expected += u64::from(expected.route.is_some());
    }

    /// Takes one message of `wa.>`, delivered (or stored) at `at_ns` since the epoch. The latency of a first
    /// copy, microseconds.
    pub fn deliver(&mut self, subject: &[u8], payload: &[u8], at_ns: u64) -> Option<u64> {
        self.outcomes.delivered += 1;
        let (number, output, sent_ns) = match self.find(subject, payload) {
            Ok(found) => found,
            Err(why) => {
                self.unexpected(subject, why);
                return None;
            }
        };
        let slot = self.slots.get_mut(number as usize).and_then(Option::as_mut);
        let Some((slot, route)) = slot.and_then(|slot| slot.expected.route.map(|at| (slot, at)))
        else {
            self.unexpected(subject, "nobody was to see it");
            return None;
        };
        slot.copies += 1;
        let (expected, copies) = (slot.expected, slot.copies);
        if copies > 1 {
            self.outcomes.duplicated += 1;
            self.example("twice", subject, expected.ordinal);
            return None;
        }
        self.outcomes.forwarded += 1;
        let told = route_hash(subject, output.event_id.as_bytes());
        if self.routes.is_none() && route != told {
            self.outcomes.misrouted += 1;
            self.example("wrong subject or event_id", subject, expected.ordinal);
        }
        let is_known = self.routes.is_none() || expected.record != 0;
        if is_known && expected.record != record_hash(output.row_data.get().as_bytes()) {
            self.outcomes.corrupted += 1;
            self.example("record changed", subject, expected.ordinal);
        }
        self.check_order(&expected, subject);
        let latency_us = at_ns.saturating_sub(sent_ns) / 1_000;
        self.latency_us.saturating_record(latency_us);
        Some(latency_us)
    }

    /// Takes one that may have been delivered before, as a look at the stream finds it after a connection was
    /// lost: counts if it was missed, else not.
    pub fn fill(&mut self, subject: &[u8], payload: &[u8], at_ns: u64) -> Option<u64> {
        let number = self.find(subject, payload).ok().map(|(number, ..)| number as usize);
        let slot = number.and_then(|number| self.slots.get(number).copied().flatten());
        if slot.is_some_and(|slot| slot.copies > 0) {
            return None;
        }
        self.deliver(subject, payload, at_ns)
    }

    /// Which event a message is, and when that was sent.
    fn find<'p>(
        &self,
        subject: &[u8],
        payload: &'p [u8],
    ) -> Result<(u64, Output<'p>, u64), &'static str> {
        let Some(routes) = &self.routes else {
            let (output, mark) = read_output(payload).ok_or("no mark of ours")?;
            let is_sent = self.slots.get(mark.ordinal as usize).is_some_and(Option::is_some);
            return match is_sent {
                true => Ok((mark.ordinal, output, mark.sent_ns)),
                false => Err("never sent"),
            };
        };
        let output: Output<'_> = serde_json::from_slice(payload).map_err(|_| "no JSON of ours")?;
        let route = route_hash(subject, output.event_id.as_bytes()) ^ idx_hash(output.commit_idx);
        let number = *routes.get(&route).ok_or("never sent, or not there, or under another id")?;
        let slot = self.slots.get(number as usize).copied().flatten().ok_or("never sent")?;
        Ok((number, output, slot.expected.planned_ns))
    }

    /// Whether everything that must come has come.
    pub fn is_complete(&self) -> bool {
        self.outcomes.forwarded == self.outcomes.expected
    }

    /// Counts so far; `lost` is what has not come yet.
    pub fn outcomes(&self) -> Outcomes {
        let lost = self.outcomes.expected - self.outcomes.forwarded;
        Outcomes { lost, ..self.outcomes }
    }

    /// From planned sending to delivery, microseconds.
    pub fn latency_us(&self) -> &Histogram<u64> {
        &self.latency_us
    }

    /// The first faults, and the first few of what is missing, in words.
    pub fn examples(&self) -> Vec<String> {
        let missing = self.slots.iter().flatten();
        let missing = missing.filter(|slot| slot.expected.route.is_some() && slot.copies == 0);
        let missing = missing.map(|slot| {
            let Expectation { ordinal, row, version, company, .. } = slot.expected;
            format!("lost: event {ordinal}, company {company}, row {row}, version {version}")
        });
        self.examples.iter().cloned().chain(missing.take(EXAMPLES_MAX)).collect()
    }

    /// Delivers what `stream` holds from sequence `from` (1 is its start) to its present end, timed by
    /// when it was stored. Returns the sequence to go on from.
    ///
    /// # Errors
    /// As [`Client::read_stream`].
    pub fn audit(
        &mut self,
        client: &mut Client,
        stream: &str,
        from: u64,
    ) -> Result<u64, ClientError> {
        let mut next = from;
        client.read_stream(stream, from, |stored| {
            self.deliver(stored.message.subject(), stored.message.payload(), stored.stored_ns);
            next = stored.seq + 1;
            ControlFlow::Continue(())
        })?;
        Ok(next)
    }

    fn check_order(&mut self, expected: &Expectation, subject: &[u8]) {
        let Expectation { ordinal, row, version, company, .. } = *expected;
        let last = &mut self.versions[row as usize];
        if *last > version {
            self.outcomes.out_of_order += 1;
            let behind = *last;
            self.example(&format!("version {version} behind {behind}"), subject, ordinal);
        } else {
            *last = version;
        }
        // Ordinals begin with 0; kept one higher, so that 0 stands for "none yet".
        let last = &mut self.ordinals[company as usize];
        self.outcomes.out_of_order_in_company += u64::from(*last > ordinal + 1);
        *last = (*last).max(ordinal + 1);
    }

    fn unexpected(&mut self, subject: &[u8], why: &str) {
        self.outcomes.unexpected += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{why}: {}", String::from_utf8_lossy(subject)));
        }
    }

    fn example(&mut self, what: &str, subject: &[u8], ordinal: u64) {
        if self.examples.len() < EXAMPLES_MAX {
            let subject = String::from_utf8_lossy(subject);
            self.examples.push(format!("{what}: event {ordinal} on {subject}"));
        }
    }
}

/// The two fields of a published payload that are checked byte for byte.
#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    commit_idx: Option<u64>,
    #[serde(borrow)]
    row_data: &'a RawValue,
}

/// The generator's mark in a record.
#[derive(Clone, Copy, Debug)]
struct Mark {
    ordinal: u64,
    sent_ns: u64,
}

fn read_output(payload: &[u8]) -> Option<(Output<'_>, Mark)> {
    let output: Output<'_> = serde_json::from_slice(payload).ok()?;
    let record = output.row_data.get().as_bytes();
    // A quote inside a text is escaped, so the mark cannot be mistaken for one.
    let mark = &record[memmem::rfind(record, b"\"last_metadata\":{\"row\":")?..];
    let mark = Mark {
        ordinal: number_behind(mark, b"\"ordinal\":")?,
        sent_ns: number_behind(mark, b"\"sent_ns\":")?,
    };
    Some((output, mark))
}

fn number_behind(text: &[u8], key: &[u8]) -> Option<u64> {
    let digits = &text[memmem::find(text, key)? + key.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Two changes of one row in one transaction differ in nothing else.
fn idx_hash(idx: Option<u64>) -> u64 {
    idx.map_or(0, |idx| record_hash(&idx.to_le_bytes()))
}

fn route_hash(subject: &[u8], event_id: &[u8]) -> u64 {
    record_hash(subject).rotate_left(1) ^ record_hash(event_id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Checker, Expectation};
    use crate::generate::{Expect, Generator, Profile};
    use crate::report::Outcomes;

    /// A payload as daisi must publish it.
    type Published = (String, String);

    /// A checker that expects `count` events of which each is forwarded, and their right outputs.
    fn prepared(count: usize) -> (Checker, Vec<Published>) {
        let profile = Profile { companies: 1, agents: 1, chats: 2, ..Profile::clean() };
        let mut checker = Checker::new(profile.rows(), 1);
        let mut generator = Generator::new(profile);
        let published = (0..count).map(|n| {
            let mut event = generator.next();
            event.stamp(1_700_000_000_000_000_000 + n as u64 * 1_000_000);
            checker.expect(Expectation::of(&event).unwrap());
            let Expect::Forward { subject, event_id, .. } = event.expect else { unreachable!() };
            let text = String::from_utf8(event.payload.to_vec()).unwrap();
            let start = text.find("\"record\":").unwrap() + 9;
            let end = text.rfind(",\"metadata\":").unwrap();
            let record = &text[start..end];
            (subject.to_owned(), format!("{{\"event_id\":\"{event_id}\",\"row_data\":{record}}}"))
        });
        let published = published.collect();
        (checker, published)
    }

    fn check(disturb: impl FnOnce(&mut Vec<Published>), expected: Outcomes) {
        let (mut checker, mut published) = prepared(100);
        disturb(&mut published);
        for (subject, payload) in &published {
            checker.deliver(subject.as_bytes(), payload.as_bytes(), 1_700_000_001_000_000_000);
        }
        assert_eq!(checker.outcomes(), expected, "{:#?}", checker.examples());
        assert_eq!(checker.is_complete(), expected.lost == 0);
    }

    fn all_well() -> Outcomes {
        let n = 100;
        Outcomes { sent: n, expected: n, delivered: n, forwarded: n, ..Outcomes::default() }
    }

    #[test]
    fn an_undisturbed_run_is_clean() {
        check(|_| (), all_well());
        assert!(all_well().is_clean());
    }

    #[test]
    fn a_lost_event_is_found() {
        let expected = Outcomes { delivered: 99, forwarded: 99, lost: 1, ..all_well() };
        assert!(!expected.is_clean());
        check(|published| drop(published.remove(40)), expected);
    }

    #[test]
    fn a_doubled_event_is_found() {
        let expected = Outcomes { delivered: 101, duplicated: 1, ..all_well() };
        assert!(!expected.is_clean());
        check(|published| published.insert(70, published[40].clone()), expected);
    }

    #[test]
    fn two_swapped_events_are_found() {
        // The newest of a chat first: everything of that chat behind it is late.
        let (_, published) = prepared(100);
        let chat = &published[99].0;
        let late = published[..99].iter().filter(|(subject, _)| subject == chat).count();
        let (mut checker, mut published) = prepared(100);
        published.rotate_right(1);
        for (subject, payload) in &published {
            checker.deliver(subject.as_bytes(), payload.as_bytes(), 0);
        }
        let outcomes = checker.outcomes();
        assert!(outcomes.out_of_order > 0 && outcomes.out_of_order as usize <= late);
        assert_eq!(outcomes.out_of_order_in_company, 99);
        assert!(!outcomes.is_clean());
    }

    #[test]
    fn a_changed_record_subject_or_id_and_a_stranger_are_found() {
        let corrupted = Outcomes { corrupted: 1, ..all_well() };
        check(|p| p[3].1 = p[3].1.replacen("Company", "company", 1), corrupted);
        let misrouted = Outcomes { misrouted: 1, ..all_well() };
        check(|p| p[3].0.push('x'), misrouted);
        check(|p| p[3].1 = p[3].1.replacen("\"event_id\":\"5", "\"event_id\":\"6", 1), misrouted);
        let stranger = Outcomes { delivered: 101, unexpected: 1, ..all_well() };
        check(|p| p.push(("wa.x".into(), "{\"event_id\":\"1\",\"row_data\":{}}".into())), stranger);
    }

    #[test]
    fn latency_counts_from_the_planned_time() {
        let (mut checker, published) = prepared(1);
        let (subject, payload) = &published[0];
        checker.deliver(subject.as_bytes(), payload.as_bytes(), 1_700_000_000_001_500_000);
        assert_eq!(checker.latency_us().max(), 1_500);
    }
}
