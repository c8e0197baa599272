//! A batch: validated events of many companies, in stream order, become calls of set-based statements. Pure.
//! Invariants: events that touch the same key take effect in the order they came (one row merged, or a later
//! *wave*); a company's calls are in the order of their waves; every event ends with one fate.
//!
//! An upsert of a key that the batch holds already, of the same kind and with nothing between, is merged
//! into its row if it brings all that the earlier one did: the later one wins, and counts for both.
//! (Otherwise the earlier one's part would be written at the later one's position, though it may be stale
//! alone.) Everything else goes to the wave behind. So a statement meets a key once, except `chats.update`,
//! whose statement works through a chat's increments in order. Rows of two contacts that name one chat take
//! effect in order too (`naming`).
//!
//! Modules, bottom to top: `statements`, `metadata`, `hints`, `sheet` (rows of one call), `naming` (who names
//! a chat), `rows` (events to rows), `onboard` (what a message does to its contact).

mod hints;
mod metadata;
mod naming;
mod onboard;
mod rows;
mod sheet;
mod statements;

pub use hints::Hints;
pub use rows::suspicious_timestamps;
pub use statements::POST_SCAN_RUN;

use super::{Event, Position};
use crate::columns::{Answer, Call, Column, Scalars, Statement};
use crate::id::SchemaName;
use hashbrown::HashMap;
use hints::KeyHash;
use naming::Naming;
use sheet::Sheet;
use siphasher::sip128::{Hasher128, SipHasher13};
use statements::Kind;
use std::hash::Hasher;

/// Rows of one call; a longer history event is written by several.
const ROWS_MAX: u32 = 1000;
/// Rows of one call up to which it is tried first to insert them.
const FIRST_ROWS_MAX: u32 = 4;
/// Companies whose names are kept between batches; beyond, all are forgotten and learnt again.
const COMPANIES_MAX: usize = 100_000;
/// Seconds from which a message's time is likely to be milliseconds: the year 5138.
const SUSPICIOUS_SECS: i64 = 100_000_000_000;

/// What is the same for all batches.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What clocks of servers may differ by.
    pub skew_ns: u64,
    /// Does a `chats.update` without `unread_count` reset it to 0?
    pub absent_unread_resets: bool,
    /// Time between the last batch of a history and the post-scan.
    pub post_scan_delay_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let skew_ns = 5 * crate::clock::SEC;
        Self { skew_ns, absent_unread_resets: true, post_scan_delay_ms: 15 * 60 * 1000 }
    }
}

/// One event with all that decides its effect.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Company of its subject.
    pub company: &'a str,
    /// The event.
    pub event: &'a Event<'a>,
    /// Where it stands.
    pub position: &'a Position<'a>,
    /// When its stream was created, Unix ns.
    pub stream_created_ns: u64,
}

/// Why an event has no rows: nothing of it was added. Fatal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It never reaches SQL.
    #[error("{0:?} is no company id")]
    Company(String),
    /// No date of the database holds it.
    #[error("message_timestamp {0} is beyond the range of dates")]
    Timestamp(i64),
}

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fate {
    /// A history event without items: no rows.
    Empty,
    /// Delivered before: no effect.
    Duplicate,
    /// Its rows hold a newer state: no effect.
    Stale,
    /// History met rows of realtime events: at most what was empty is filled. Such a row remembers nothing of
    /// history, so a second delivery is not told from the first.
    Kept,
    /// An update without its row.
    NotFound,
    /// It took effect.
    Applied,
    /// The remembered position is void for it, which only a batch of its own can tell.
    Alone,
    /// Somebody else wrote the row at the same time: once more.
    Conflict,
}

/// Where the last event of a key stands.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    wave: u32,
    sheet: u32,
    row: u32,
    event: u32,
    stream: u32,
    sequence: u64,
}

/// A row of an event.
#[derive(Clone, Copy)]
struct Part {
    event: u32,
    sheet: u32,
    row: u32,
}

/// Where a row is to be written.
enum Slot {
    /// Into this row, which is there.
    Merge { sheet: usize, row: usize },
    /// As a new row of this sheet.
    Add { sheet: usize },
}

struct Company {
    name: String,
    schema: SchemaName,
}

/// See the module. Memory is reused by [`Batch::open`].
pub struct Batch {
    settings: Settings,
    now_ns: u64,
    hash_key: (u64, u64),
    companies: Vec<Company>,
    company_ids: HashMap<String, u32>,
    sheets: Vec<Sheet>,
    idle: [Vec<Sheet>; Kind::COUNT],
    open: HashMap<(u32, Kind, u32), u32>,
    places: HashMap<KeyHash, Place>,
    namings: HashMap<KeyHash, Naming>,
    streams: Vec<String>,
    parts: Vec<Part>,
    order: Vec<u32>,
    fates: Vec<Fate>,
    onboarded: Vec<KeyHash>,
    meta: Vec<u8>,
    horizon: Vec<u8>,
    scratch: Vec<u8>,
    /// The wave in which a company's messages are written; `None` if there are several.
    message_waves: HashMap<u32, Option<u32>>,
}

/// The event being added.
#[derive(Clone, Copy)]
struct Origin {
    company: u32,
    event: u32,
    stream: u32,
    sequence: u64,
    horizon_ns: u64,
    published_ns: u64,
}

impl Batch {
    /// An empty batch; `hash_key` is chance, so that nobody can choose keys that collide.
    #[must_use]
    pub fn new(settings: Settings, hash_key: (u64, u64)) -> Self {
        Self {
            settings,
            now_ns: 0,
            hash_key,
            companies: Vec::new(),
            company_ids: HashMap::new(),
            sheets: Vec::new(),
            idle: std::array::from_fn(|_| Vec::new()),
            open: HashMap::new(),
            places: HashMap::new(),
            namings: HashMap::new(),
            streams: Vec::new(),
            parts: Vec::new(),
            order: Vec::new(),
            fates: Vec::new(),
            onboarded: Vec::new(),
            meta: Vec::new(),
            horizon: Vec::new(),
            scratch: Vec::new(),
            message_waves: HashMap::new(),
        }
    }

    /// Begins anew; what was in it is forgotten.
    pub fn open(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        for sheet in self.sheets.drain(..) {
            let kind = sheet.kind as usize;
            self.idle[kind].extend(sheet.recycle());
        }
        self.open.clear();
        self.places.clear();
        self.namings.clear();
        self.streams.clear();
        self.parts.clear();
        self.order.clear();
        self.fates.clear();
        self.onboarded.clear();
        if self.companies.len() > COMPANIES_MAX {
            self.companies.clear();
            self.company_ids.clear();
        }
    }

    /// Events in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fates.len()
    }

    /// No events?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fates.is_empty()
    }

    /// Adds an event behind those that are in it.
    ///
    /// # Errors
    /// It cannot be written, whatever the database holds; the batch is as it was.
    pub fn add(&mut self, item: &Item<'_>, hints: &mut Hints) -> Result<(), Refused> {
        rows::check(item.event)?;
        let company = self.company(item.company)?;
        let horizon_ns =
            metadata::horizon_ns(item.position, item.stream_created_ns, self.settings.skew_ns);
        self.meta.clear();
        metadata::write(item.position, self.now_ns, &mut self.meta);
        self.horizon.clear();
        metadata::write_horizon(horizon_ns, &mut self.horizon);
        let origin = Origin {
            company,
            event: u32::try_from(self.fates.len()).unwrap_or(u32::MAX),
            stream: self.stream(item.position.stream),
            sequence: item.position.stream_sequence,
            horizon_ns,
            published_ns: item.position.published_ns,
        };
        self.fates.push(Fate::Empty);
        self.add_rows(&origin, item, hints);
        Ok(())
    }

    /// Puts the calls in order. Between the last `add` and the first `call`.
    pub fn seal(&mut self) {
        self.order.clear();
        self.order.extend(0..u32::try_from(self.sheets.len()).unwrap_or(u32::MAX));
        let sheets = &self.sheets;
        self.order.sort_unstable_by_key(|at| {
            let sheet = &sheets[*at as usize];
            (sheet.wave, sheet.company, sheet.kind, *at)
        });
        for sheet in &mut self.sheets {
            self.horizon.clear();
            metadata::write_horizon(sheet.horizon_ns, &mut self.horizon);
            sheet.horizon.clear();
            sheet.horizon.push_str(std::str::from_utf8(&self.horizon).unwrap_or_default());
        }
        self.find_first_tries();
    }

    // Where a message comes in two waves the second would take effect before what the first left for later.
    fn find_first_tries(&mut self) {
        self.message_waves.clear();
        for sheet in self.sheets.iter().filter(|sheet| sheet.kind.is_of_messages()) {
            let wave = self.message_waves.entry(sheet.company).or_insert(Some(sheet.wave));
            *wave = wave.filter(|wave| *wave == sheet.wave);
        }
        for sheet in &mut self.sheets {
            sheet.tries_first = sheet.spec().first.is_some()
                && sheet.rows <= FIRST_ROWS_MAX
                && self.message_waves.get(&sheet.company).is_some_and(Option::is_some);
        }
    }

    /// How many calls there are, in the order to be made.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.order.len()
    }

    /// A call.
    #[must_use]
    pub fn call(&self, number: usize) -> Call<'_> {
        let sheet = &self.sheets[self.order[number] as usize];
        let spec = sheet.spec();
        let first = spec.first.filter(|_| sheet.tries_first);
        self.call_of(sheet, first.unwrap_or(spec.statement), spec.picks)
    }

    /// The call to be made where [`Self::call`] left rows alone that were there: then it counted too few.
    #[must_use]
    pub fn retry(&self, number: usize) -> Option<Call<'_>> {
        let sheet = &self.sheets[self.order[number] as usize];
        sheet.tries_first.then(|| self.call_of(sheet, sheet.spec().statement, sheet.spec().picks))
    }

    /// The schema and the days of the messages that a call writes, if it may write to a day that has none
    /// yet.
    #[must_use]
    pub fn days(&self, number: usize) -> Option<(&SchemaName, &[Option<i32>])> {
        let sheet = &self.sheets[self.order[number] as usize];
        let is_upsert = sheet.spec().columns == statements::MESSAGE_COLUMNS;
        match &sheet.columns[statements::column::MESSAGE_DATE] {
            Column::Date(days) if is_upsert => {
                Some((&self.companies[sheet.company as usize].schema, days))
            }
            _ => None,
        }
    }

    /// When it was opened, Unix ns.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The call that asks what became of the rows of one that counted too few.
    #[must_use]
    pub fn ask(&self, number: usize) -> Option<Call<'_>> {
        let sheet = &self.sheets[self.order[number] as usize];
        let (statement, picks) = sheet.spec().again?;
        Some(self.call_of(sheet, statement, picks))
    }

    /// A call had an effect on so many rows. Must it be asked about?
    #[must_use]
    pub fn counted(&self, number: usize, rows: u64) -> bool {
        let sheet = &self.sheets[self.order[number] as usize];
        sheet.spec().statement.answer == Answer::Count && rows < u64::from(sheet.rows)
    }

    /// A row of a call, from 1, had this code; a row of -1 stands for one that cannot be named.
    pub fn coded(&mut self, number: usize, row: i32, code: i32) {
        let sheet = &mut self.sheets[self.order[number] as usize];
        let code = u8::try_from(code).unwrap_or(u8::MAX);
        sheet.set_code(u32::try_from(i64::from(row) - 1).ok(), code);
    }

    /// First of the events that a call is about; any tells the company.
    #[must_use]
    pub fn event_of(&self, number: usize) -> Option<usize> {
        let sheet = self.order.get(number)?;
        let part = self.parts.iter().find(|part| part.sheet == *sheet);
        part.map(|part| part.event as usize)
    }

    /// Did a row meet another writer, so that the whole must be tried again before it is committed?
    #[must_use]
    pub fn has_conflict(&self) -> bool {
        self.sheets.iter().any(|sheet| {
            sheet.codes().iter().any(|code| fate_of(sheet.kind, *code) == Fate::Conflict)
        })
    }

    /// What became of the events, in the order they were added. After the answers; `hints` learn what is
    /// committed by now.
    pub fn settle(&mut self, hints: &mut Hints) -> &[Fate] {
        for part in &self.parts {
            let sheet = &self.sheets[part.sheet as usize];
            let fate = fate_of(sheet.kind, sheet.code_of(part.row));
            let event = &mut self.fates[part.event as usize];
            *event = (*event).max(fate);
        }
        for key in self.onboarded.drain(..) {
            hints.onboarded.insert(key, ());
        }
        &self.fates
    }

    fn call_of<'s>(
        &'s self,
        sheet: &'s Sheet,
        statement: &'static Statement,
        picks: &'static [usize],
    ) -> Call<'s> {
        let company = &self.companies[sheet.company as usize];
        Call {
            schema: company.schema.as_str(),
            statement,
            scalars: Scalars {
                company: &company.name,
                now_ns: self.now_ns,
                horizon: &sheet.horizon,
            },
            columns: &sheet.columns,
            picks,
            rows: sheet.rows as usize,
        }
    }

    fn company(&mut self, name: &str) -> Result<u32, Refused> {
        if let Some(id) = self.company_ids.get(name) {
            return Ok(*id);
        }
        let schema = SchemaName::of(name).ok_or_else(|| Refused::Company(name.to_owned()))?;
        let id = u32::try_from(self.companies.len()).unwrap_or(u32::MAX);
        self.companies.push(Company { name: name.to_owned(), schema });
        self.company_ids.insert(name.to_owned(), id);
        Ok(id)
    }

    fn stream(&mut self, name: &str) -> u32 {
        let place = self.streams.iter().position(|stream| stream == name);
        let place = place.unwrap_or_else(|| {
            self.streams.push(name.to_owned());
            self.streams.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn key(&self, company: u32, table: u8, parts: [&str; 2]) -> KeyHash {
        let mut hasher = SipHasher13::new_with_keys(self.hash_key.0, self.hash_key.1);
        // By name, since numbers of companies do not outlive `companies`, and hints do.
        for text in [self.companies[company as usize].name.as_str(), parts[0], parts[1]] {
            hasher.write(text.as_bytes());
            hasher.write_u8(0xff); // In no UTF-8.
        }
        hasher.write_u8(table);
        hasher.finish128().as_u128()
    }

    /// Where the next row of `key` goes; `covers` tells whether it brings all that a row does.
    fn slot(
        &mut self,
        origin: &Origin,
        key: KeyHash,
        kind: Kind,
        covers: impl FnOnce(&Sheet, usize) -> bool,
    ) -> Slot {
        self.slot_from(0, origin, key, kind, covers)
    }

    /// As [`Self::slot`]; a new row goes to no wave before this one.
    fn slot_from(
        &mut self,
        first_wave: u32,
        origin: &Origin,
        key: KeyHash,
        kind: Kind,
        covers: impl FnOnce(&Sheet, usize) -> bool,
    ) -> Slot {
        let mut wave = first_wave;
        if let Some(place) = self.places.get_mut(&key) {
            let is_later = place.stream == origin.stream && origin.sequence > place.sequence;
            let follows = place.kind == kind && (is_later || place.event == origin.event);
            let is_mergeable = follows && kind != Kind::ChatsUpdate && kind != Kind::Onboard;
            if is_mergeable && covers(&self.sheets[place.sheet as usize], place.row as usize) {
                (place.event, place.sequence) = (origin.event, origin.sequence);
                let (sheet, row) = (place.sheet, place.row);
                self.parts.push(Part { event: origin.event, sheet, row });
                return Slot::Merge { sheet: sheet as usize, row: row as usize };
            }
            wave = wave.max(place.wave + u32::from(!(follows && kind == Kind::ChatsUpdate)));
        }
        let (sheet, row) = self.new_row(origin, kind, wave);
        self.places.insert(
            key,
            Place {
                kind,
                wave,
                sheet,
                row,
                event: origin.event,
                stream: origin.stream,
                sequence: origin.sequence,
            },
        );
        if kind != Kind::Onboard {
            self.parts.push(Part { event: origin.event, sheet, row });
        }
        Slot::Add { sheet: sheet as usize }
    }

    /// The sheet, and the number of the row that will be written there.
    fn new_row(&mut self, origin: &Origin, kind: Kind, wave: u32) -> (u32, u32) {
        let opened = self.open.get(&(origin.company, kind, wave)).copied();
        if let Some(sheet) = opened.filter(|sheet| self.sheets[*sheet as usize].rows < ROWS_MAX) {
            return (sheet, self.sheets[sheet as usize].rows);
        }
        let mut sheet = self.idle[kind as usize].pop().unwrap_or_else(|| Sheet::new(kind));
        (sheet.company, sheet.wave) = (origin.company, wave);
        let number = u32::try_from(self.sheets.len()).unwrap_or(u32::MAX);
        self.sheets.push(sheet);
        self.open.insert((origin.company, kind, wave), number);
        (number, 0)
    }
}

/// The codes of the statements.
fn fate_of(kind: Kind, code: u8) -> Fate {
    let is_history = matches!(
        kind,
        Kind::ChatsHistory
            | Kind::MessagesHistory
            | Kind::MessagesHistoryUndated
            | Kind::ContactsHistory
    );
    match code {
        0 => Fate::Applied,
        1 => Fate::Duplicate,
        2 => Fate::Stale,
        3 => Fate::NotFound,
        5 => Fate::Alone,
        6 if is_history => Fate::Kept,
        _ => Fate::Conflict,
    }
}

#[cfg(test)]
mod tests;
