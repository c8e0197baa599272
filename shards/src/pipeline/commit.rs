//! From validated events to their fates: which of them are written together, and what is tried next when the
//! database says no. No sockets; the edge performs what `step` asks for and reports back. Invariants: a
//! company's events are tried in their order; an event that cannot be written never takes another one with
//! it (bisecting); transient trouble settles nothing.

pub mod class;

pub use crate::domain::ingest::batch::{
    Batch, Fate, Hints, Item, POST_SCAN_RUN, Refused, Settings, suspicious_timestamps,
};
pub use class::Class;

use hashbrown::HashMap;
use std::collections::VecDeque;

/// Companies written in one transaction: each holds some dozen locks of the server's few thousand.
const COMPANIES_MAX: usize = 32;
/// Companies met for the first time that one write opens: a new schema takes some 50 ms, and the others of
/// the shard wait for it. Events of further ones are left for the next write.
const OPENS_MAX: usize = 4;
/// Attempts of one group that meets other writers, before that counts as the database being away.
const CONFLICTS_MAX: u32 = 8;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Make sure that the schema of this event's company is there, then say `opened`.
    Open {
        /// Any event of that company.
        event: u32,
    },
    /// Write these events in one transaction, in this order, then say `written`, `refused` or `failed`.
    Write(&'a [u32]),
    /// Everything that can be settled is.
    Done,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Committed(Fate),
    /// It can never be written as it is.
    Bad {
        /// As PostgreSQL calls it; empty if it never got there.
        sqlstate: String,
        /// For operators; holds no values of the event.
        message: String,
    },
    /// Nothing is known against it, but its company cannot be written now: a person has to look.
    Held {
        /// For operators.
        message: String,
    },
}

/// Why a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub class: Class,
    /// As PostgreSQL calls it; empty if it said nothing.
    pub sqlstate: String,
    /// For operators.
    pub message: String,
    /// An event of the statement that failed, as its place in what was written.
    pub event: Option<usize>,
}

/// The database is away, or too busy: what has no outcome yet is to be tried again later, in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {sqlstate:?})")]
pub struct Away {
    /// As PostgreSQL calls it.
    pub sqlstate: String,
    /// For operators.
    pub message: String,
}

struct Group {
    events: Vec<u32>,
    conflicts: u32,
}

/// A company in this write.
#[derive(Clone, Copy, Default)]
struct Standing {
    /// One of its events.
    event: u32,
    /// Its schema was asked for again.
    is_reopened: bool,
    /// Not in this write: its tables are locked, or enough others are being opened.
    is_put_off: bool,
}

/// The state of one write. Reused.
#[derive(Default)]
pub struct Commit {
    groups: VecDeque<Group>,
    outcomes: Vec<Option<Outcome>>,
    company_of: Vec<u32>,
    companies: Vec<Standing>,
    to_open: VecDeque<u32>,
    opening: Option<u32>,
    /// Companies whose schema was seen, of all writes.
    known: HashMap<Box<str>, ()>,
    away: Option<Away>,
    is_over: bool,
}

impl Commit {
    /// Begins a write of events of these companies, in their order.
    pub fn begin<'a>(&mut self, companies: impl Iterator<Item = &'a str>) {
        self.groups.clear();
        self.outcomes.clear();
        self.company_of.clear();
        self.companies.clear();
        self.to_open.clear();
        (self.opening, self.away, self.is_over) = (None, None, false);
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut by_company: Vec<Vec<u32>> = Vec::new();
        for (event, name) in (0..).zip(companies) {
            let number = *numbers.entry(name).or_insert_with(|| {
                let mut standing = Standing { event, ..Standing::default() };
                if !self.known.contains_key(name) {
                    standing.is_put_off = self.to_open.len() >= OPENS_MAX;
                    self.to_open.extend((!standing.is_put_off).then_some(event));
                }
                by_company.push(Vec::new());
                self.companies.push(standing);
                u32::try_from(by_company.len() - 1).unwrap_or(u32::MAX)
            });
            by_company[number as usize].push(event);
            self.company_of.push(number);
            self.outcomes.push(None);
        }
        for companies in by_company.chunks(COMPANIES_MAX) {
            let mut events = companies.concat();
            events.sort_unstable();
            self.groups.push_back(Group { events, conflicts: 0 });
        }
    }

    /// What to do next.
    pub fn step(&mut self) -> Step<'_> {
        if self.is_over {
            return Step::Done;
        }
        while let Some(event) = self.to_open.pop_front() {
            if self.is_waiting(event) {
                self.opening = Some(event);
                return Step::Open { event };
            }
        }
        while let Some(mut group) = self.groups.pop_front() {
            group.events.retain(|event| self.is_waiting(*event));
            if !group.events.is_empty() {
                self.groups.push_front(group);
                break;
            }
        }
        self.groups.front().map_or(Step::Done, |group| Step::Write(&group.events))
    }

    /// The schema of the company `name` is there.
    pub fn opened(&mut self, name: &str) {
        if self.opening.take().is_some() {
            self.known.insert(name.into(), ());
        }
    }

    /// The schema of the company `name` cannot be used: its events wait for a person.
    pub fn not_opened(&mut self, name: &str, message: &str) {
        self.known.remove(name);
        if let Some(event) = self.opening.take() {
            self.hold(event, message);
        }
    }

    /// An event of the group at hand has no rows that could be written.
    pub fn refused(&mut self, event: u32, refused: &Refused) {
        // Out of the range of dates is what PostgreSQL would say (22008); a bad company never gets there.
        let sqlstate = match refused {
            Refused::Timestamp(_) => "22008",
            Refused::Company(_) => "",
        };
        self.outcomes[event as usize] =
            Some(Outcome::Bad { sqlstate: sqlstate.to_owned(), message: refused.to_string() });
    }

    /// The group at hand is committed; the fates of those of its events that were added, in order.
    pub fn written(&mut self, fates: &[Fate]) {
        let Some(group) = self.groups.pop_front() else { return };
        let mut alone = Vec::new();
        let refused = |event: &u32| self.outcomes[*event as usize].is_some();
        let added: Vec<u32> = group.events.into_iter().filter(|event| !refused(event)).collect();
        for (event, fate) in added.into_iter().zip(fates) {
            match fate {
                Fate::Alone => alone.push(event),
                fate => self.outcomes[event as usize] = Some(Outcome::Committed(*fate)),
            }
        }
        // Each in a batch of its own, where its own horizon is the one that counts.
        for event in alone.into_iter().rev() {
            self.groups.push_front(Group { events: vec![event], conflicts: 0 });
        }
    }

    /// Nothing of the group at hand is committed.
    pub fn failed(&mut self, failure: Failure) {
        match failure.class {
            Class::Data => self.bisect(failure),
            Class::Conflict => self.conflict(failure),
            Class::Schema => self.schema(failure),
            Class::Busy => self.skip(failure),
            Class::Transient => self.give_up(failure),
        }
    }

    /// The outcomes, in the order of the events. Those without one are to be written again, in order: at
    /// once, unless [`Commit::away`] tells why not.
    pub fn outcomes(&self) -> &[Option<Outcome>] {
        &self.outcomes
    }

    /// Why some that were tried have no outcome.
    pub fn away(&self) -> Option<&Away> {
        self.away.as_ref()
    }

    fn bisect(&mut self, failure: Failure) {
        let Some(mut group) = self.groups.pop_front() else { return };
        group.events.retain(|event| self.is_waiting(*event));
        if let [event] = group.events.as_slice() {
            let (sqlstate, message) = (failure.sqlstate, failure.message);
            self.outcomes[*event as usize] = Some(Outcome::Bad { sqlstate, message });
            return;
        }
        let behind = group.events.split_off(group.events.len() / 2);
        self.groups.push_front(Group { events: behind, conflicts: 0 });
        self.groups.push_front(Group { events: group.events, conflicts: 0 });
    }

    fn conflict(&mut self, failure: Failure) {
        let conflicts = self.groups.front_mut().map_or(CONFLICTS_MAX, |group| {
            group.conflicts += 1;
            group.conflicts
        });
        if conflicts >= CONFLICTS_MAX {
            self.give_up(failure);
        }
    }

    fn schema(&mut self, failure: Failure) {
        let Some(company) = self.company_at_fault(&failure) else { return self.give_up(failure) };
        let Standing { event, is_reopened, .. } = self.companies[company];
        if is_reopened {
            return self.hold(event, &failure.message);
        }
        self.companies[company].is_reopened = true;
        // Its first event may have its outcome already.
        let waiting = (0..).zip(&self.company_of).find(|(event, of)| {
            **of as usize == company && self.outcomes[*event as usize].is_none()
        });
        self.to_open.extend(waiting.map(|(event, _)| event));
    }

    fn skip(&mut self, failure: Failure) {
        let Some(company) = self.company_at_fault(&failure) else { return self.give_up(failure) };
        self.companies[company].is_put_off = true;
        let Failure { sqlstate, message, .. } = failure;
        self.away = Some(Away { sqlstate, message });
    }

    /// The company whose statement failed, if it was a statement.
    fn company_at_fault(&self, failure: &Failure) -> Option<usize> {
        let group = self.groups.front()?;
        let mut events = group.events.iter().filter(|event| self.is_waiting(**event));
        let event = *events.nth(failure.event?)?;
        Some(self.company_of[event as usize] as usize)
    }

    fn is_waiting(&self, event: u32) -> bool {
        let company = self.company_of[event as usize] as usize;
        self.outcomes[event as usize].is_none() && !self.companies[company].is_put_off
    }

    fn give_up(&mut self, failure: Failure) {
        self.is_over = true;
        self.away = Some(Away { sqlstate: failure.sqlstate, message: failure.message });
    }

    fn hold(&mut self, event: u32, message: &str) {
        let company = self.company_of[event as usize];
        for (outcome, of) in self.outcomes.iter_mut().zip(&self.company_of) {
            if *of == company && outcome.is_none() {
                *outcome = Some(Outcome::Held { message: message.to_owned() });
            }
        }
    }
}

#[cfg(test)]
mod tests;
