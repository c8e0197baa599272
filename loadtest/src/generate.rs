//! Change events from a seed, as Sequin and Debezium send them (contract cdc.md, section 2), together
//! with what must become of each. Invariants: same profile, same bytes; within a company the pair of
//! LSN and index rises; the versions of a row rise by one.

mod company;
mod defect;
pub mod ingest;
mod kept;
mod names;
mod profile;
mod put;
mod row;
mod text;

use fastrand::Rng;

use crate::check::Expectation;
use crate::send::{Known, Outgoing, Source};
use company::{Change, Company};
pub use defect::Defect;
use kept::Memory;
use names::Names;
pub use profile::Profile;
pub use row::Table;
use row::{Row, SENT_NS_PLACEHOLDER, Writer};
pub(crate) use text::time_text;
use text::{Pool, write_padded};

/// A row (or, for messages, a chat) whose versions must arrive in order; below [`Profile::rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u64);

/// What must become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Published once.
    Forward {
        /// Subject it is published on, with the default prefix `wa`.
        subject: &'a str,
        /// `<lsn>:<table>:<key>`.
        event_id: &'a str,
        /// [`record_hash`] of the record.
        record_hash: u64,
    },
    /// Sent before; nothing new is published.
    Duplicate,
    /// Acknowledged and counted, not published: a foreign table or a backfill read.
    Filtered,
    /// Ends in the dead-letter stream.
    DeadLetter {
        /// What is wrong with it.
        reason: Defect,
    },
}

/// One event, borrowed from the generator until the next.
#[derive(Debug)]
pub struct Event<'a> {
    /// Subject it is sent on.
    pub subject: &'a str,
    /// The envelope.
    pub payload: &'a mut [u8],
    /// What must become of it.
    pub expect: Expect<'a>,
    /// Number of its company, from 0; [`Generator::company_name`] has its name.
    pub company: u32,
    /// Chat it belongs to; empty for agents.
    pub chat: &'a str,
    /// Table of the row.
    pub table: Table,
    /// Row (chat, for messages) whose order it is part of.
    pub row: RowId,
    /// Version of that row, from 1; 0 for events that nobody is to see.
    pub version: u32,
    /// Number of the event, from 0; a duplicate has that of its original.
    pub ordinal: u64,
    /// `Nats-Msg-Id` to send it under. A duplicate has one of its own: it stands for a redelivery
    /// behind JetStream's own window, which this one would otherwise answer in our place.
    pub msg_id: &'a str,
    sent_at: Option<usize>,
}

impl Event<'_> {
    /// Writes the (planned) time of sending, nanoseconds since the epoch, into the record.
    pub fn stamp(&mut self, sent_ns: u64) {
        if let Some(at) = self.sent_at {
            write_padded(&mut self.payload[at..at + SENT_NS_PLACEHOLDER.len()], sent_ns);
        }
    }
}

impl Outgoing for Event<'_> {
    fn subject(&self) -> &str {
        self.subject
    }

    fn payload(&self) -> &[u8] {
        self.payload
    }

    fn msg_id(&self) -> Option<&str> {
        Some(self.msg_id)
    }

    fn stamp(&mut self, sent_ns: u64) {
        Event::stamp(self, sent_ns);
    }

    fn known(&self) -> Known {
        Expectation::of(self).map_or(Known::Copy, Known::Change)
    }
}

impl Source for Generator {
    type Event<'a> = Event<'a>;

    fn next(&mut self) -> Option<Event<'_>> {
        Some(Generator::next(self))
    }
}

/// Hash of a record, whatever its `sent_ns`. Not for tables that an enemy fills.
pub fn record_hash(record: &[u8]) -> u64 {
    let key = b"\"sent_ns\":";
    // The mark closes the record, so the digits lie at a fixed distance from its end.
    let tail = record.len().saturating_sub(SENT_NS_PLACEHOLDER.len() + 2);
    let is_marked = record[..tail].ends_with(key);
    let body = if is_marked { &record[..tail] } else { record };
    let mut hash = record.len() as u64;
    let mut words = body.chunks_exact(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        hash = mix(hash, u64::from_le_bytes(bytes));
    }
    words.remainder().iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

fn mix(hash: u64, word: u64) -> u64 {
    // The multiplier is 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4).
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where an event comes from, apart from its bytes.
#[derive(Clone, Copy, Debug)]
struct Origin {
    company: u32,
    table: Table,
    row: RowId,
    version: u32,
    ordinal: u64,
}

/// Makes events from a profile. Reuses its memory: an event allocates nothing once buffers have grown.
#[derive(Clone, Debug)]
pub struct Generator {
    profile: Profile,
    rng: Rng,
    writer: Writer,
    companies: Vec<Company>,
    versions: Vec<u32>,
    messages_last: Vec<u64>,
    memory: Memory,
    ordinal: u64,
    defects: usize,
    names: Names,
    payload: Vec<u8>,
}

const FOREIGN_TABLES: [&str; 3] = ["onboarding_log", "exhausted_events", "user_profiles"];

/// What kind of event comes next.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Duplicate,
    Foreign,
    Backfill,
    Bad,
    Change,
}

impl Generator {
    /// A generator at its first event. `companies`, `agents` and `chats` of 0 count as 1.
    pub fn new(mut profile: Profile) -> Self {
        profile.companies = profile.companies.max(1);
        profile.agents = profile.agents.max(1);
        profile.chats = profile.chats.max(1);
        let mut rng = Rng::with_seed(profile.seed);
        let pool = Pool::new(&mut rng, profile.text_median, profile.text_sigma);
        let chats = profile.chats_per_company() * u64::from(profile.companies);
        Self {
            writer: Writer { pool, rng: rng.fork(), scratch: Vec::new() },
            rng,
            companies: (0..u64::from(profile.companies))
                .map(|n| Company::new(n, &profile))
                .collect(),
            versions: vec![0; profile.rows() as usize],
            messages_last: vec![0; chats as usize],
            memory: Memory::default(),
            ordinal: 0,
            defects: 0,
            names: Names::default(),
            payload: Vec::new(),
            profile,
        }
    }

    /// Name of a company, as it stands in subjects.
    pub fn company_name(&self, company: u32) -> &str {
        &self.companies[company as usize].name
    }

    /// The profile it was made from.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The next event. There is always one.
    #[expect(clippy::should_implement_trait, reason = "an event borrows from the generator")]
    pub fn next(&mut self) -> Event<'_> {
        match self.draw_turn() {
            Turn::Duplicate => self.repeat(),
            Turn::Foreign => {
                let table_name = FOREIGN_TABLES[self.rng.usize(..FOREIGN_TABLES.len())];
                self.tell_unseen("insert", table_name, None)
            }
            Turn::Backfill => self.tell_unseen("read", "messages", None),
            Turn::Bad => {
                let defect = Defect::ALL[self.defects % Defect::ALL.len()];
                self.defects += 1;
                self.tell_unseen("insert", "messages", Some(defect))
            }
            Turn::Change => self.tell_change(),
        }
    }

    fn draw_turn(&mut self) -> Turn {
        let Profile { duplicates, filtered, backfill, bad, .. } = self.profile;
        let mut rest = self.rng.f64();
        let mut is_next = |share: f64| {
            let is_hit = (0.0..share).contains(&rest);
            rest -= share;
            is_hit
        };
        if is_next(duplicates) && !self.memory.is_empty() {
            Turn::Duplicate
        } else if is_next(filtered) {
            Turn::Foreign
        } else if is_next(backfill) {
            Turn::Backfill
        } else if is_next(bad) {
            Turn::Bad
        } else {
            Turn::Change
        }
    }

    fn repeat(&mut self) -> Event<'_> {
        let kept = self.memory.draw(&mut self.rng);
        kept.rename_copy();
        let origin = kept.origin;
        Event {
            subject: &kept.subject,
            payload: &mut kept.payload,
            expect: Expect::Duplicate,
            company: origin.company,
            chat: &kept.chat,
            table: origin.table,
            row: origin.row,
            version: origin.version,
            ordinal: origin.ordinal,
            msg_id: &kept.msg_id,
            sent_at: None,
        }
    }

    /// The next row of a company's transaction.
    fn tell_change(&mut self) -> Event<'_> {
        let number = self.draw_company();
        let company = &mut self.companies[number as usize];
        let (mut change, idx) =
            company.next_change(&mut self.rng, self.profile.chats_per_company());
        let row_number = self.row_number(number, &mut change);
        let row = self.row_id(number, change.table);
        self.versions[row.0 as usize] += 1;
        let version = self.versions[row.0 as usize];
        let origin = self.origin(number, change.table, row, version);
        self.name(number, change.table, row_number, idx);
        let company = &self.companies[number as usize];
        let is_debezium = change.table == Table::Messages
            && change.action != "delete"
            && company.told_alone()
            && self.rng.f64() < self.profile.debezium;
        let row = self.names.row(company, origin, change, (row_number, idx));
        let row = Row { has_media: self.rng.f64() < self.profile.media, ..row };
        self.payload.clear();
        let written = if is_debezium {
            self.writer.debezium(&mut self.payload, &row)
        } else {
            self.writer.sequin(&mut self.payload, &row)
        };
        let Names { subject, msg_id, chat, wa_subject, event_id, .. } = &self.names;
        // Debezium's has no index, so a copy could be told only by a record that the stamp changes.
        if !is_debezium && self.profile.duplicates > 0.0 && self.rng.u8(..) < 32 {
            let parts = (subject.as_str(), self.payload.as_slice(), msg_id.as_str(), chat.as_str());
            self.memory.keep(&mut self.rng, origin, parts);
        }
        let record_hash = record_hash(&self.payload[written.record]);
        let expect = Expect::Forward { subject: wa_subject, event_id, record_hash };
        self.names.event(&mut self.payload, expect, origin, Some(written.sent_at))
    }

    /// An event that nobody is to see: foreign, backfill, or bad; a transaction of its own.
    fn tell_unseen(
        &mut self,
        action: &'static str,
        table_name: &'static str,
        defect: Option<Defect>,
    ) -> Event<'_> {
        let number = self.draw_company();
        let chats = self.profile.chats_per_company();
        self.companies[number as usize].begin(&mut self.rng, chats);
        let mut change = Change { table: Table::Messages, action: "insert" };
        let row_number = self.row_number(number, &mut change);
        change.action = action;
        let row = self.row_id(number, Table::Messages);
        let origin = self.origin(number, Table::Messages, row, 0);
        self.name(number, Table::Messages, row_number, 0);
        let company = &self.companies[number as usize];
        self.names.name_subject(&company.name, table_name);
        let mut row = self.names.row(company, origin, change, (row_number, 0));
        row.table_name = table_name;
        if let Some(defect) = defect {
            defect.spoil(&mut row);
        }
        self.payload.clear();
        let written = self.writer.sequin(&mut self.payload, &row);
        let sent_at = defect.is_none().then_some(written.sent_at);
        if let Some(defect) = defect {
            defect.spoil_bytes(&mut self.payload, written.record);
        }
        let expect = defect.map_or(Expect::Filtered, |reason| Expect::DeadLetter { reason });
        self.names.event(&mut self.payload, expect, origin, sent_at)
    }

    fn draw_company(&mut self) -> u32 {
        let companies = self.profile.companies;
        let place = self.rng.f64().powf(self.profile.skew);
        ((place * f64::from(companies)) as u32).min(companies - 1)
    }

    fn origin(&mut self, company: u32, table: Table, row: RowId, version: u32) -> Origin {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        Origin { company, table, row, version, ordinal }
    }

    /// Number of the row in its table. A change of a chat's message before there is one inserts it.
    fn row_number(&mut self, number: u32, change: &mut Change) -> u64 {
        let company = &mut self.companies[number as usize];
        if change.table != Table::Messages {
            return company.chat + 1;
        }
        let chat = u64::from(number) * self.profile.chats_per_company() + company.chat;
        let last = &mut self.messages_last[chat as usize];
        match (change.action, *last) {
            ("update", 1..) => *last,
            ("delete", 1..) => std::mem::take(last),
            _ => {
                change.action = "insert";
                company.messages += 1;
                *last = company.messages;
                company.messages
            }
        }
    }

    /// Rows of a company: agents, then messages, chats and contacts of each of its chats.
    fn row_id(&self, number: u32, table: Table) -> RowId {
        let (agents, chats) = (u64::from(self.profile.agents), self.profile.chats_per_company());
        let chat = self.companies[number as usize].chat;
        let place = match table {
            Table::Agents => chat / u64::from(self.profile.chats),
            Table::Messages => agents + chat,
            Table::Chats => agents + chats + chat,
            Table::Contacts => agents + 2 * chats + chat,
        };
        RowId(u64::from(number) * self.profile.rows_per_company() + place)
    }

    fn name(&mut self, number: u32, table: Table, row_number: u64, idx: u32) {
        let company = &self.companies[number as usize];
        let agent = company.chat / u64::from(self.profile.chats);
        self.names.name_row(company, agent, table, (u64::from(number), row_number));
        self.names.name_subject(&company.name, table.name());
        self.names.name_result(company, table, idx);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use serde_json::Value;

    use super::{Defect, Event, Expect, Generator, Profile, record_hash};

    fn digest(seed: u64) -> u64 {
        let mut generator = Generator::new(Profile { seed, ..Profile::default() });
        (0..20_000).fold(0, |hash: u64, _| {
            let event = generator.next();
            let text = format!("{} {} {:?}", event.subject, event.msg_id, event.expect);
            hash.rotate_left(5) ^ record_hash(event.payload) ^ record_hash(text.as_bytes())
        })
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
        assert_eq!(digest(7), digest(7));
        assert_ne!(digest(7), digest(8));
    }

    #[test]
    fn forwarded_events_are_json_that_says_what_is_expected() {
        let mut generator = Generator::new(Profile::default());
        for _ in 0..20_000 {
            let event = generator.next();
            if let Expect::Forward { subject, event_id, record_hash: expected } = event.expect {
                let envelope: Value = serde_json::from_slice(event.payload).unwrap();
                let is_sequin = envelope.get("action").is_some();
                let record = &envelope[if is_sequin { "record" } else { "after" }];
                let text = |name: &str| record[name].as_str().unwrap().to_owned();
                let (company, agent) = (text("company_id"), text("agent_id"));
                assert_eq!(event.subject, format!("cdc.{company}.{}", event.table.name()));
                let mut wa = format!("wa.{company}.{agent}.{}", event.table.name());
                if event.table.name() == "messages" {
                    wa = format!("{wa}.{}", text("chat_id"));
                }
                assert_eq!(subject, wa);
                assert!(event_id.contains(event.table.name()));
                assert_eq!(record_hash(serde_json::to_string(record).unwrap().as_bytes()), {
                    // serde_json writes escapes its own way; equal where there was none.
                    let plain = !String::from_utf8_lossy(event.payload).contains("\\u");
                    if plain { expected } else { continue }
                });
            }
        }
    }

    #[test]
    fn lsn_and_index_rise_in_a_company_and_versions_by_one_in_a_row() {
        let mut generator = Generator::new(Profile::default());
        let (mut positions, mut versions) = (HashMap::new(), HashMap::new());
        for _ in 0..50_000 {
            let event = generator.next();
            if !matches!(event.expect, Expect::Forward { .. }) {
                continue;
            }
            let mut parts = event.msg_id.rsplit(':').map(|n| n.parse::<u64>());
            let (idx, lsn) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
            let before = positions.insert(event.company, (lsn, idx));
            assert!(before.is_none_or(|before| before < (lsn, idx)));
            let before = versions.insert(event.row, event.version).unwrap_or(0);
            assert_eq!(event.version, before + 1);
        }
    }

    #[test]
    fn every_outcome_and_every_defect_occurs_in_its_share() {
        let profile = Profile { bad: 0.02, ..Profile::default() };
        let mut generator = Generator::new(profile.clone());
        let (mut sizes, mut defects) = (Vec::new(), HashMap::<Defect, u32>::new());
        let mut counts = [0_u32; 4];
        for _ in 0..100_000 {
            let event = generator.next();
            match event.expect {
                Expect::Forward { .. } => {
                    counts[0] += 1;
                    sizes.push(event.payload.len());
                }
                Expect::Duplicate => counts[1] += 1,
                Expect::Filtered => counts[2] += 1,
                Expect::DeadLetter { reason } => {
                    counts[3] += 1;
                    *defects.entry(reason).or_default() += 1;
                }
            }
        }
        let near = |count: u32, share: f64| {
            assert!((f64::from(count) - share * 1e5).abs() < 400.0, "{count} for {share}");
        };
        near(counts[1], profile.duplicates);
        near(counts[2], profile.filtered + profile.backfill);
        near(counts[3], profile.bad);
        assert_eq!(defects.len(), Defect::ALL.len());
        sizes.sort_unstable();
        let median = sizes[sizes.len() / 2];
        println!("sizes: {} {median} {}", sizes[sizes.len() / 100], sizes[sizes.len() - 1]);
        assert!((800..1_050).contains(&median), "{median}");
    }

    #[test]
    fn a_stamp_is_read_back_and_leaves_the_hash_alone() {
        let mut generator = Generator::new(Profile::clean());
        let mut event: Event<'_> = generator.next();
        let Expect::Forward { record_hash: expected, .. } = event.expect else { unreachable!() };
        event.stamp(1_748_772_000_123_456_789);
        let envelope: Value = serde_json::from_slice(event.payload).unwrap();
        let mark = &envelope["record"]["last_metadata"];
        assert_eq!(mark["sent_ns"], 1_748_772_000_123_456_789_u64);
        assert_eq!(mark["ordinal"], event.ordinal);
        let text = String::from_utf8_lossy(event.payload).into_owned();
        let start = text.find("\"record\":").unwrap() + 9;
        let end = text.find(",\"metadata\"").unwrap();
        assert_eq!(record_hash(&text.as_bytes()[start..end]), expected);
    }
}
