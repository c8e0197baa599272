//! A trace as a source of the sender: its events in their order, changed by a [`Renewal`], each at its
//! planned time. Invariant: the copies of an event follow it at once and are planned for the same time, so
//! the order within every company is the recorded one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use shards::wire::nats::headers::{HeaderError, Headers};
use shards::wire::nats::subject::validate_publish;

use super::format::{Preface, TraceError};
use super::read::{End, Reader};
use super::rewrite::{Body, Mark, Renewal};
use super::subject::{Parts, Shape};
use crate::send::{Outgoing, Source};

/// When events are planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As they arrived when they were recorded, so many times as fast.
    Speed(f64),
    /// So many events a second, copies included.
    Rate(f64),
    /// As fast as the window lets.
    Max,
}

/// How a trace is replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayPlan {
    /// When.
    pub pace: Pace,
    /// What is changed.
    pub renewal: Renewal,
    /// How many companies each company becomes.
    pub companies_times: u32,
    /// How many times the whole trace is replayed.
    pub repeat: u32,
}

impl Default for ReplayPlan {
    /// As recorded, once.
    fn default() -> Self {
        let renewal = Renewal::default();
        Self { pace: Pace::Speed(1.0), renewal, companies_times: 1, repeat: 1 }
    }
}

/// One event to be sent, borrowed until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayEvent<'a> {
    /// Where it goes.
    pub subject: &'a str,
    /// Its headers as one block; empty for none.
    pub headers: &'a [u8],
    /// Its body.
    pub payload: &'a [u8],
    /// Its company, as its subject has it.
    pub company: Option<&'a str>,
    /// What it is.
    pub shape: Shape,
    /// Number of the event in this replay, from 0.
    pub ordinal: u64,
    /// Number of the recorded event in the trace, from 0.
    pub recorded: u64,
    /// Which copy of the company, the original being 0.
    pub copy: u32,
    /// Which time round, from 0.
    pub round: u32,
}

impl Outgoing for ReplayEvent<'_> {
    fn subject(&self) -> &str {
        self.subject
    }

    fn payload(&self) -> &[u8] {
        self.payload
    }

    fn msg_id(&self) -> Option<&str> {
        let id = Headers::new(self.headers).get(b"Nats-Msg-Id")?;
        std::str::from_utf8(id).ok()
    }

    fn company(&self) -> Option<&str> {
        self.company
    }

    fn append_headers(&self, block: &mut BytesMut) -> Result<(), HeaderError> {
        block.extend_from_slice(self.headers);
        Ok(())
    }
}

/// What became of the trace's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// Read from the trace, each round anew.
    pub read: u64,
    /// Given to the sender, copies included.
    pub given: u64,
    /// Of these, copies for further companies.
    pub copies: u64,
    /// Passed on with body as recorded: no subject whose events are known.
    pub unknown: u64,
    /// Passed on with body as recorded: no JSON.
    pub not_json: u64,
    /// Left out: recorded from a subject that nobody may publish to.
    pub unsendable: u64,
}

/// A trace being replayed.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    plan: ReplayPlan,
    reader: Reader,
    preface: Preface,
    marks: Vec<Mark>,
    original: Original,
    /// The next copy of the original to be given out; their number where another one must be read.
    copy: u32,
    copies: u32,
    round: u32,
    clock: Clock,
    // The copy being given out.
    subject: String,
    headers: Vec<u8>,
    payload: Vec<u8>,
    account: Account,
    /// Events read before this round.
    read_before: u64,
    is_over: bool,
    error: Option<TraceError>,
    end: Option<End>,
}

/// An event as it was recorded.
#[derive(Debug)]
struct Original {
    subject: String,
    parts: Parts,
    headers: Vec<u8>,
    payload: Vec<u8>,
}

/// From arrival times to planned ones, nanoseconds. They never go back.
#[derive(Debug, Default)]
struct Clock {
    /// Of the round's first event.
    first: Option<u64>,
    /// Where the round begins in the replay, at the recorded speed.
    base: u64,
    last: u64,
    events: u64,
}

impl Clock {
    fn tell(&mut self, arrived: u64) {
        let first = *self.first.get_or_insert(arrived);
        self.last = self.last.max(self.base + arrived.saturating_sub(first));
        self.events += 1;
    }

    /// The next round begins a mean distance of two events behind the last one.
    fn turn(&mut self) {
        let span = self.last - self.base;
        self.base = self.last + span / self.events.saturating_sub(1).max(1);
        (self.last, self.first, self.events) = (self.base, None, 0);
    }
}

impl Replay {
    /// Opens a trace to be replayed by `plan`.
    ///
    /// # Errors
    /// The file, or what it begins with.
    pub fn open(path: &Path, plan: ReplayPlan) -> Result<Self, TraceError> {
        let reader = Reader::open(path)?;
        let preface = reader.preface().clone();
        let marks = (0..plan.companies_times.max(1)).map(|copy| plan.renewal.mark(copy, 0));
        let marks = marks.collect();
        let parts = Parts { shape: Shape::Other, company: None };
        Ok(Self {
            path: path.to_owned(),
            plan,
            reader,
            preface,
            marks,
            original: Original {
                subject: String::new(),
                parts,
                headers: Vec::new(),
                payload: Vec::new(),
            },
            copy: 0,
            copies: 0,
            round: 0,
            clock: Clock::default(),
            subject: String::new(),
            headers: Vec::new(),
            payload: Vec::new(),
            account: Account::default(),
            read_before: 0,
            is_over: false,
            error: None,
            end: None,
        })
    }

    /// What stands at the start of the trace.
    pub fn preface(&self) -> &Preface {
        &self.preface
    }

    /// What became of the events so far.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// How the trace ends; `None` while there are events.
    ///
    /// # Errors
    /// Why it could not be read to its end.
    pub fn end(&self) -> Result<Option<&End>, &TraceError> {
        self.error.as_ref().map_or(Ok(self.end.as_ref()), Err)
    }

    /// Reads on until there is an event to give out; false at the end.
    fn load(&mut self) -> bool {
        while self.copy == self.copies && !self.is_over {
            match self.read() {
                Ok(true) => {}
                Ok(false) => self.is_over = true,
                Err(error) => (self.error, self.is_over) = (Some(error), true),
            }
        }
        !self.is_over
    }

    fn read(&mut self) -> Result<bool, TraceError> {
        let Some(record) = self.reader.next_record()? else {
            self.end = self.reader.end().cloned();
            return self.turn();
        };
        self.account.read += 1;
        self.clock.tell(record.arrived_ns);
        let subject = std::str::from_utf8(record.subject).ok();
        let Some(subject) = subject.filter(|subject| validate_publish(subject.as_bytes()).is_ok())
        else {
            self.account.unsendable += 1;
            return Ok(true);
        };
        let original = &mut self.original;
        subject.clone_into(&mut original.subject);
        record.headers.clone_into(&mut original.headers);
        record.payload.clone_into(&mut original.payload);
        original.parts = Parts::of(subject);
        let can_copy = original.parts.company.is_some() && original.parts.shape != Shape::Other;
        self.copies = if can_copy { self.marks.len() as u32 } else { 1 };
        self.copy = 0;
        Ok(true)
    }

    /// Begins the next round, if there is one and the last one had events.
    fn turn(&mut self) -> Result<bool, TraceError> {
        self.round += 1;
        if self.round >= self.plan.repeat || self.clock.events == 0 {
            return Ok(false);
        }
        self.clock.turn();
        self.read_before = self.account.read;
        self.reader = Reader::open(&self.path)?;
        let (renewal, round) = (&self.plan.renewal, self.round);
        self.marks = (0..self.marks.len() as u32).map(|copy| renewal.mark(copy, round)).collect();
        Ok(true)
    }

    /// Writes the copy whose turn it is; where its company stands in its subject, and whether its body is
    /// the recorded one.
    fn write(&mut self) -> (Option<Range<usize>>, bool) {
        let (renewal, mark) = (&self.plan.renewal, &self.marks[self.copy as usize]);
        let Original { subject, parts, headers, payload } = &self.original;
        let company = renewal.write_subject(mark, subject, parts, &mut self.subject);
        renewal.write_headers(mark, headers, &mut self.headers);
        let body = renewal.write_body(mark, parts.shape, payload, &mut self.payload);
        let account = &mut self.account;
        account.given += 1;
        account.copies += u64::from(self.copy > 0);
        account.unknown += u64::from(parts.shape == Shape::Other);
        account.not_json += u64::from(body == Body::Foreign);
        (company, body != Body::Read)
    }
}

impl Source for Replay {
    type Event<'a> = ReplayEvent<'a>;

    fn planned(&mut self) -> Option<Duration> {
        if !self.load() {
            return None;
        }
        match self.plan.pace {
            Pace::Max => None,
            Pace::Rate(rate) => Some(Duration::from_secs_f64(self.account.given as f64 / rate)),
            Pace::Speed(speed) => {
                Some(Duration::from_nanos((self.clock.last as f64 / speed) as u64))
            }
        }
    }

    fn next(&mut self) -> Option<ReplayEvent<'_>> {
        if !self.load() {
            return None;
        }
        let ordinal = self.account.given;
        let (company, is_as_recorded) = self.write();
        let copy = self.copy;
        self.copy += 1;
        Some(ReplayEvent {
            subject: &self.subject,
            headers: &self.headers,
            payload: if is_as_recorded { &self.original.payload } else { &self.payload },
            company: company.and_then(|at| self.subject.get(at)),
            shape: self.original.parts.shape,
            ordinal,
            recorded: self.account.read - 1 - self.read_before,
            copy,
            round: self.round,
        })
    }
}
