//! Rows that must be there, and what was found of them. Memory: some 60 bytes a row, its id, and a place in the
//! table that finds it. Invariant: a final look begins from nothing, so what it finds does not depend on what
//! was seen on the way.

use std::collections::{BTreeMap, HashMap};

use crate::contract::ingest::Table;
use crate::ends::EXAMPLES_MAX;
use crate::generate::ingest::Kind;
use crate::generate::record_hash;
use crate::results::Counts;

/// A row that an event writes, as the sender tells it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) company: u32,
    pub(super) table: Table,
    pub(super) id: String,
    /// `None` for the day of its arrival.
    pub(super) day: Option<i32>,
    pub(super) makes: bool,
    /// Hash of the event's `Nats-Msg-Id`; 0 for none.
    pub(super) newest: u64,
    pub(super) is_realtime: bool,
    pub(super) planned_ns: u64,
}

/// No other slot of this id.
const NONE: u32 = u32::MAX;
/// The day of the event's arrival, which nobody knows before.
const ANY_DAY: i32 = i32::MIN;

/// A row that must be there.
#[derive(Clone, Copy, Debug)]
struct Slot {
    planned_ns: u64,
    /// Of the newest event for it; 0 where that has no name.
    newest: u64,
    id_at: u64,
    company: u32,
    /// The next slot of the same id, for another day.
    next: u32,
    day: i32,
    id_len: u32,
    /// Rows found of it in the final look.
    found: u8,
    table: Table,
    is_realtime: bool,
    is_seen: bool,
    is_stale: bool,
}

/// A million rows are to fit well below a gigabyte, with their ids and the table that finds them.
const _: () = assert!(size_of::<Slot>() <= 64, "a million slots are 64 MB");

/// What is known of a company.
#[derive(Debug)]
pub(super) struct Company {
    pub(super) name: String,
    /// Rows of `messages` that were told and not seen yet.
    pub(super) outstanding: u64,
    /// First and last day of its messages.
    pub(super) days: Option<(i32, i32)>,
    /// Whether some are of the day of their arrival.
    pub(super) has_today: bool,
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Books {
    slots: Vec<Slot>,
    /// First slot of an id, by its hash.
    places: HashMap<u64, u32>,
    ids: Vec<u8>,
    pub(super) companies: Vec<Company>,
    kinds: BTreeMap<Kind, u64>,
    letters: u64,
    outstanding: u64,
    /// Of the final look.
    unexpected: u64,
    examples: Vec<String>,
}

impl Books {
    pub(super) fn company(&mut self, name: String) {
        self.companies.push(Company { name, outstanding: 0, days: None, has_today: false });
    }

    pub(super) fn other(&mut self, kind: Kind) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    pub(super) fn letter(&mut self) {
        self.letters += 1;
    }

    pub(super) fn letters(&self) -> u64 {
        self.letters
    }

    pub(super) fn kinds(&self) -> Vec<(Kind, u64)> {
        self.kinds.iter().map(|(kind, count)| (*kind, *count)).collect()
    }

    /// Rows of `messages` not seen yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Notes a row; true for a message that nobody told of before: the others are looked for at the end.
    pub(super) fn want(&mut self, wanted: Wanted) -> bool {
        let Wanted { company, table, day, makes, .. } = wanted;
        let hash = hash(company, table, wanted.id.as_bytes());
        let first = self.places.get(&hash).copied();
        let same = first.and_then(|first| self.same_row(first, &wanted));
        if let Some(same) = same {
            self.slots[same as usize].renew(&wanted);
            return false;
        }
        if !makes {
            return false;
        }
        let at = self.slots.len() as u32;
        let slot = Slot {
            planned_ns: wanted.planned_ns,
            newest: wanted.newest,
            id_at: self.ids.len() as u64,
            company,
            next: first.unwrap_or(NONE),
            day: day.unwrap_or(ANY_DAY),
            id_len: wanted.id.len() as u32,
            found: 0,
            table,
            is_realtime: wanted.is_realtime,
            is_seen: false,
            is_stale: false,
        };
        self.ids.extend_from_slice(wanted.id.as_bytes());
        self.slots.push(slot);
        self.places.insert(hash, at);
        if table != Table::Messages {
            return false;
        }
        self.outstanding += 1;
        let company = &mut self.companies[company as usize];
        company.outstanding += 1;
        match day {
            Some(day) => {
                let (first, last) = company.days.unwrap_or((day, day));
                company.days = Some((first.min(day), last.max(day)));
            }
            None => company.has_today = true,
        }
        true
    }

    /// The slot that an event of this id writes: of its day; without a day, the one there is.
    fn same_row(&self, first: u32, wanted: &Wanted) -> Option<u32> {
        let mut slots = self.chain(first).filter(|at| self.is(*at, wanted.company, wanted));
        match wanted.day {
            Some(day) => slots.find(|at| self.slots[*at as usize].day == day),
            // The one that was made first.
            None => slots.last(),
        }
    }

    fn is(&self, at: u32, company: u32, wanted: &Wanted) -> bool {
        let slot = &self.slots[at as usize];
        slot.company == company
            && slot.table == wanted.table
            && self.id(slot) == wanted.id.as_bytes()
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = u32> {
        let next = |at: &u32| Some(self.slots[*at as usize].next).filter(|next| *next != NONE);
        std::iter::successors(Some(first), next)
    }

    fn id(&self, slot: &Slot) -> &[u8] {
        let at = slot.id_at as usize;
        &self.ids[at..at + slot.id_len as usize]
    }

    /// The slot of a row.
    fn find(&self, company: u32, table: Table, id: &[u8], day: i32) -> Option<u32> {
        let first = *self.places.get(&hash(company, table, id))?;
        let own = |at: &u32| {
            let slot = &self.slots[*at as usize];
            slot.company == company && slot.table == table && self.id(slot) == id
        };
        let of_day = self.chain(first).filter(own).find(|at| self.slots[*at as usize].day == day);
        let any_day =
            || self.chain(first).filter(own).find(|at| self.slots[*at as usize].day == ANY_DAY);
        of_day.or_else(any_day)
    }

    /// A row of `messages` is seen for the first time: its planned time.
    pub(super) fn see(&mut self, company: u32, id: &[u8], day: i32) -> Option<u64> {
        let at = self.find(company, Table::Messages, id, day)?;
        let slot = &mut self.slots[at as usize];
        if std::mem::replace(&mut slot.is_seen, true) {
            return None;
        }
        self.outstanding -= 1;
        self.companies[company as usize].outstanding -= 1;
        Some(slot.planned_ns)
    }

    /// Begins a final look.
    pub(super) fn begin(&mut self) {
        (self.unexpected, self.examples) = (0, Vec::new());
        for slot in &mut self.slots {
            (slot.found, slot.is_stale) = (0, false);
        }
    }

    /// A row found by the final look; `newest` is the `Nats-Msg-Id` of the event that wrote it last.
    pub(super) fn find_row(&mut self, row: &FoundRow<'_>) {
        let FoundRow { company, table, id, day, newest, is_new } = *row;
        let Some(at) = self.find(company, table, id.as_bytes(), day) else {
            // What was there before is somebody else's.
            if is_new {
                self.unexpected += 1;
                let text = format!("nobody sent it: {} {id}", self.place(company, table));
                self.example(text);
            }
            return;
        };
        let slot = &mut self.slots[at as usize];
        slot.found = slot.found.saturating_add(1);
        // A legacy row, and an event without a name, cannot be compared.
        let is_named = slot.newest != 0 && newest.is_some_and(|id| !id.is_empty());
        let is_stale =
            is_named && newest.is_some_and(|id| record_hash(id.as_bytes()) != slot.newest);
        slot.is_stale |= is_stale;
        let is_twice = slot.found > 1;
        if is_twice {
            let text = format!("twice: {} {id}", self.place(company, table));
            self.example(text);
        }
        if is_stale {
            let by = newest.unwrap_or_default();
            let place = self.place(company, table);
            self.example(format!("older than the newest event: {place} {id}, written by {by}"));
        }
    }

    /// Ids of a company's rows that the final look has not found yet.
    pub(super) fn missing(&self, company: u32, table: Table) -> Vec<String> {
        let missing = self
            .slots
            .iter()
            .filter(|slot| slot.found == 0 && slot.company == company && slot.table == table);
        missing.map(|slot| String::from_utf8_lossy(self.id(slot)).into_owned()).collect()
    }

    /// What the final look has found.
    pub(super) fn account(&self) -> (Counts, Vec<String>) {
        let mut counts = Counts { unexpected: self.unexpected, ..Counts::default() };
        let mut lost = Vec::new();
        for slot in &self.slots {
            counts.expected += 1;
            counts.seen += u64::from(slot.found > 0);
            counts.duplicated += u64::from(slot.found.saturating_sub(1));
            counts.out_of_order += u64::from(slot.is_stale);
            if slot.found == 0 {
                counts.lost += 1;
                if lost.len() < EXAMPLES_MAX {
                    let id = String::from_utf8_lossy(self.id(slot));
                    lost.push(format!("lost: {} {id}", self.place(slot.company, slot.table)));
                }
            }
        }
        let examples = self.examples.iter().cloned().chain(lost);
        (counts, examples.collect())
    }

    fn place(&self, company: u32, table: Table) -> String {
        let company = self.companies.get(company as usize).map_or("?", |company| &*company.name);
        format!("{company} {}", table.name())
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

/// A row as the final look finds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundRow<'a> {
    pub(super) company: u32,
    pub(super) table: Table,
    pub(super) id: &'a str,
    /// 0 where the table has none.
    pub(super) day: i32,
    pub(super) newest: Option<&'a str>,
    /// Whether it was made since the run began.
    pub(super) is_new: bool,
}

impl Slot {
    /// A newer event writes it. History does not overwrite what a realtime event wrote.
    fn renew(&mut self, wanted: &Wanted) {
        if wanted.is_realtime || !self.is_realtime {
            self.newest = wanted.newest;
            self.is_realtime = wanted.is_realtime;
        }
    }
}

fn hash(company: u32, table: Table, id: &[u8]) -> u64 {
    let place = (u64::from(company) << 2 | table as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    record_hash(id) ^ place
}

#[cfg(test)]
mod tests {
    use super::{Books, FoundRow, Table, Wanted};
    use crate::generate::record_hash;

    fn wanted(id: &str, day: Option<i32>, makes: bool, newest: &str) -> Wanted {
        Wanted {
            company: 0,
            table: Table::Messages,
            id: id.to_owned(),
            day,
            makes,
            newest: record_hash(newest.as_bytes()),
            is_realtime: true,
            planned_ns: 7,
        }
    }

    fn row<'a>(id: &'a str, day: i32, newest: &'a str) -> FoundRow<'a> {
        let (company, table, newest) = (0, Table::Messages, Some(newest));
        FoundRow { company, table, id, day, newest, is_new: true }
    }

    fn books() -> Books {
        let mut books = Books::default();
        books.company("A".to_owned());
        assert!(books.want(wanted("m", Some(3), true, "1")));
        assert!(books.want(wanted("n", None, true, "2")));
        assert!(!books.want(wanted("m", None, false, "3")), "an update makes no row");
        assert!(!books.want(wanted("x", None, false, "4")), "of a row that nobody made");
        books
    }

    #[test]
    fn a_run_as_it_must_be_is_clean() {
        let mut books = books();
        assert_eq!(books.outstanding(), 2);
        assert_eq!(books.see(0, b"m", 3), Some(7));
        assert_eq!(books.see(0, b"m", 3), None);
        assert_eq!(books.see(0, b"n", 99), Some(7), "its day is any");
        assert_eq!(books.outstanding(), 0);
        books.begin();
        books.find_row(&row("m", 3, "3"));
        books.find_row(&row("n", 99, "2"));
        let (counts, examples) = books.account();
        assert!(counts.is_clean() && counts.expected == 2 && counts.seen == 2, "{examples:?}");
    }

    #[test]
    fn what_is_lost_twice_stale_or_a_stranger_is_told() {
        let mut books = books();
        books.begin();
        books.find_row(&row("n", 99, "2"));
        books.find_row(&row("n", 98, "2"));
        books.find_row(&row("z", 3, "9"));
        let (counts, examples) = books.account();
        assert_eq!((counts.lost, counts.duplicated, counts.unexpected), (1, 1, 1), "{examples:?}");
        assert!(examples.iter().any(|text| text == "lost: A messages m"), "{examples:?}");
        assert_eq!(books.missing(0, Table::Messages), ["m"]);
        books.begin();
        books.find_row(&row("m", 3, "1"));
        books.find_row(&row("n", 99, "2"));
        let (counts, examples) = books.account();
        assert_eq!((counts.lost, counts.out_of_order), (0, 1), "{examples:?}");
        // Of another day it is another row, which nobody sent.
        books.begin();
        books.find_row(&row("m", 4, "3"));
        assert_eq!(books.account().0.unexpected, 1);
    }
}
