//! An event of `v1.>` as the rows that it makes and changes (contract ingest.md, sections 2 and 5).
//! Invariant: a refused event has no row; a batch is refused whole.
//!
//! Of contacts only their number of events is told: what onboarding makes of messages lies beside them.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::is_company;
use super::json::{Text, Whole, is_object, is_text, required};
use crate::generate::ingest::Kind;

/// A table whose rows are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Rows with a day.
    Messages,
    /// By chat.
    Chats,
    /// By agent.
    Agents,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Chats, Self::Agents];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Chats => "chats",
            Self::Agents => "agents",
        }
    }
}

/// A row that an event writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub table: Table,
    /// `message_id`, `chat_id` or `agent_id`.
    pub id: String,
    /// Of a message: days since 1970 by its own time; `None` for the day of its arrival.
    pub day: Option<i32>,
    /// Whether the event makes the row if there is none; else it changes one that is there.
    pub makes: bool,
}

/// The last day that PostgreSQL's `date` knows, counted from 1970.
const DAY_MAX: i64 = 2_145_042_540;
const DAY_S: i64 = 86_400;

/// Kind and company of a subject, if it is one of ours.
pub fn parse_subject(subject: &str) -> Option<(Kind, &str)> {
    let (base, company) = subject.rsplit_once('.')?;
    Some((Kind::parse(base).ok()?, company))
}

/// Appends to `rows` what a body published for `company` writes.
///
/// # Errors
/// Why it is refused, in words; `rows` is then as it was.
pub fn read(
    kind: Kind,
    company: &str,
    body: &[u8],
    rows: &mut Vec<Row>,
) -> Result<(), &'static str> {
    let before = rows.len();
    let mut read = read_kind(kind, company, body, rows);
    // A member that stands twice is refused by the parser, and taken by the contract: the last one counts.
    if read == Err(UNREADABLE)
        && let Ok(value) = serde_json::from_slice::<Value>(body)
    {
        read = read_kind(kind, company, value.to_string().as_bytes(), rows);
    }
    if read.is_err() {
        rows.truncate(before);
    }
    read
}

fn read_kind(
    kind: Kind,
    company: &str,
    body: &[u8],
    rows: &mut Vec<Row>,
) -> Result<(), &'static str> {
    if !is_company(company) {
        return Err("the company of the subject is none");
    }
    match kind {
        Kind::ChatsUpsert => parse::<Chat<'_>>(body)?.read(company, rows),
        Kind::ChatsUpdate => parse::<ChatUpdate<'_>>(body)?.read(company, rows),
        Kind::MessagesUpsert => parse::<Message<'_>>(body)?.read(company, rows),
        Kind::MessagesUpdate => parse::<MessageUpdate<'_>>(body)?.read(company, rows),
        Kind::ContactsUpsert => parse::<Contact<'_>>(body)?.check_named(company),
        Kind::ContactsUpdate => parse::<Contact<'_>>(body)?.check(company),
        Kind::ConnectionUpdate => parse::<Agent<'_>>(body)?.read(company, rows),
        Kind::HistoryChats => {
            let batch: Batch<'_> = parse(body)?;
            batch.chats.iter().flatten().try_for_each(|chat| chat.read(company, rows))
        }
        Kind::HistoryMessages => {
            let batch: Batch<'_> = parse(body)?;
            batch.messages.iter().flatten().try_for_each(|message| message.read(company, rows))
        }
        Kind::HistoryContacts => {
            let batch: Batch<'_> = parse(body)?;
            batch.contacts.iter().flatten().try_for_each(|contact| contact.check_named(company))
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, &'static str> {
    // Arrays are sequences to serde, and would pass as objects whose members have no names.
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    serde_json::from_slice(body).ok().filter(|_| is_object).ok_or(UNREADABLE)
}

fn check_company(given: &Option<Text<'_>>, company: &str) -> Result<(), &'static str> {
    let given = given.as_ref().map_or("", |text| &*text.0);
    let is_own = given.is_empty() || given == company;
    if is_own { Ok(()) } else { Err("of another company than its subject") }
}

fn check(is_so: bool, what: &'static str) -> Result<(), &'static str> {
    if is_so { Ok(()) } else { Err(what) }
}

const UNREADABLE: &str = "no JSON of this kind";
const LACKS: &str = "a required member is missing";
const TYPE: &str = "a member has a value that it cannot have";

#[derive(Deserialize)]
#[expect(dead_code, reason = "a member of another type refuses the event")]
struct Chat<'a> {
    #[serde(borrow)]
    chat_id: Option<Text<'a>>,
    #[serde(borrow)]
    jid: Option<Text<'a>>,
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    phone_number: Option<Text<'a>>,
    #[serde(borrow)]
    push_name: Option<Text<'a>>,
    #[serde(borrow)]
    group_name: Option<Text<'a>>,
    #[serde(borrow)]
    custom_name: Option<Text<'a>>,
    is_group: Option<bool>,
    not_spam: Option<bool>,
    #[serde(borrow)]
    last_message: Option<&'a RawValue>,
    conversation_timestamp: Option<Whole>,
    unread_count: Option<Whole>,
}

impl Chat<'_> {
    fn read(&self, company: &str, rows: &mut Vec<Row>) -> Result<(), &'static str> {
        check_company(&self.company_id, company)?;
        let id = required(&self.chat_id).ok_or(LACKS)?;
        check(required(&self.jid).is_some() && required(&self.agent_id).is_some(), LACKS)?;
        let is_group = self.is_group == Some(true);
        check(is_group || required(&self.phone_number).is_some(), LACKS)?;
        let texts = [&self.push_name, &self.group_name, &self.custom_name, &self.phone_number];
        check(texts.into_iter().all(|text| is_text(text.as_ref())), TYPE)?;
        check(is_object(self.last_message), TYPE)?;
        check(self.conversation_timestamp.is_none_or(|at| at.0 >= 0), TYPE)?;
        check(self.unread_count.is_none_or(is_count), TYPE)?;
        rows.push(Row { table: Table::Chats, id: id.to_owned(), day: None, makes: true });
        Ok(())
    }
}

fn is_count(count: Whole) -> bool {
    i32::try_from(count.0).is_ok()
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "a member of another type refuses the event")]
struct ChatUpdate<'a> {
    #[serde(borrow)]
    chat_id: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    unread_count: Option<Whole>,
    #[serde(borrow)]
    last_message: Option<&'a RawValue>,
    conversation_timestamp: Option<Whole>,
}

impl ChatUpdate<'_> {
    fn read(&self, company: &str, rows: &mut Vec<Row>) -> Result<(), &'static str> {
        check_company(&self.company_id, company)?;
        let id = if self.chat_id.is_some() { &self.chat_id } else { &self.id };
        let id = required(id).ok_or(LACKS)?;
        check(self.unread_count.is_none_or(is_count), TYPE)?;
        check(is_object(self.last_message), TYPE)?;
        rows.push(Row { table: Table::Chats, id: id.to_owned(), day: None, makes: false });
        Ok(())
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    chat_id: Option<Text<'a>>,
    #[serde(borrow)]
    jid: Option<Text<'a>>,
    #[serde(borrow)]
    flow: Option<Text<'a>>,
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Key<'a>>,
    #[serde(borrow)]
    message_type: Option<Text<'a>>,
    #[serde(borrow)]
    message_text: Option<Text<'a>>,
    #[serde(borrow)]
    message_url: Option<Text<'a>>,
    #[serde(borrow)]
    message_obj: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    message_timestamp: Option<Whole>,
    #[serde(borrow)]
    from_phone: Option<Text<'a>>,
    #[serde(borrow)]
    to_phone: Option<Text<'a>>,
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    campaign: Option<Campaign<'a>>,
}

/// Members without another use are read for their type alone.
#[derive(Deserialize)]
#[expect(dead_code, reason = "a flag of another type refuses the event")]
struct Key<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(rename = "fromMe")]
    from_me: Option<bool>,
    #[serde(borrow, rename = "remoteJid")]
    remote_jid: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "a flag of another type refuses the event")]
struct Campaign<'a> {
    is_campaign: Option<bool>,
    #[serde(borrow)]
    tags: Option<Text<'a>>,
    #[serde(borrow)]
    assigned_to: Option<Text<'a>>,
    #[serde(borrow)]
    origin: Option<Text<'a>>,
}

impl Campaign<'_> {
    fn is_valid(&self) -> bool {
        [&self.tags, &self.assigned_to, &self.origin].into_iter().all(|text| is_text(text.as_ref()))
    }
}

/// The main name wins; under the other one only a text, or null, may stand in its place.
fn is_phone(main: &Option<Text<'_>>, alias: Option<&RawValue>) -> bool {
    match main {
        Some(main) => is_text(Some(main)),
        None => alias.is_none_or(|alias| {
            let alias = alias.get();
            alias == "null" || alias.starts_with('"') && !alias.contains("\\u0000")
        }),
    }
}

impl Message<'_> {
    fn read(&self, company: &str, rows: &mut Vec<Row>) -> Result<(), &'static str> {
        check_company(&self.company_id, company)?;
        let id = required(&self.message_id).ok_or(LACKS)?;
        for text in [&self.chat_id, &self.jid, &self.agent_id] {
            check(required(text).is_some(), LACKS)?;
        }
        let flow = required(&self.flow).ok_or(LACKS)?;
        check(flow == "IN" || flow == "OUT", "flow is neither IN nor OUT")?;
        check(self.key.as_ref().is_none_or(|key| required(&key.id).is_some()), LACKS)?;
        check(self.key.as_ref().is_none_or(|key| is_text(key.remote_jid.as_ref())), TYPE)?;
        check(self.campaign.as_ref().is_none_or(Campaign::is_valid), TYPE)?;
        check(is_phone(&self.from_phone, self.from) && is_phone(&self.to_phone, self.to), TYPE)?;
        let texts = [&self.message_type, &self.message_text, &self.message_url, &self.status];
        check(texts.into_iter().all(|text| is_text(text.as_ref())), TYPE)?;
        check(is_object(self.message_obj), TYPE)?;
        let day = match self.message_timestamp {
            Some(Whole(at)) if at > 0 => {
                check(at / DAY_S <= DAY_MAX, "its day is none of a calendar")?;
                i32::try_from(at / DAY_S).ok()
            }
            _ => None,
        };
        rows.push(Row { table: Table::Messages, id: id.to_owned(), day, makes: true });
        Ok(())
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "a member of another type refuses the event")]
struct MessageUpdate<'a> {
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    edited_message_obj: Option<&'a RawValue>,
    is_deleted: Option<bool>,
    #[serde(borrow)]
    message_url: Option<Text<'a>>,
}

impl MessageUpdate<'_> {
    fn read(&self, company: &str, rows: &mut Vec<Row>) -> Result<(), &'static str> {
        check_company(&self.company_id, company)?;
        let id = if self.message_id.is_some() { &self.message_id } else { &self.id };
        let id = required(id).ok_or(LACKS)?;
        let texts = [&self.status, &self.message_url];
        check(texts.into_iter().all(|text| is_text(text.as_ref())), TYPE)?;
        check(is_object(self.edited_message_obj), TYPE)?;
        rows.push(Row { table: Table::Messages, id: id.to_owned(), day: None, makes: false });
        Ok(())
    }
}

#[derive(Deserialize)]
struct Contact<'a> {
    #[serde(borrow)]
    phone_number: Option<Text<'a>>,
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    push_name: Option<Text<'a>>,
    #[serde(borrow)]
    chat_id: Option<Text<'a>>,
}

impl Contact<'_> {
    /// A new one has a name; an update may clear it.
    fn check_named(&self, company: &str) -> Result<(), &'static str> {
        check(required(&self.push_name).is_some(), LACKS)?;
        self.check(company)
    }

    fn check(&self, company: &str) -> Result<(), &'static str> {
        check_company(&self.company_id, company)?;
        let is_whole = required(&self.phone_number).is_some() && required(&self.agent_id).is_some();
        check(is_whole && self.push_name.is_some(), LACKS)?;
        check(is_text(self.push_name.as_ref()) && is_text(self.chat_id.as_ref()), TYPE)
    }
}

#[derive(Deserialize)]
struct Agent<'a> {
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    qr_code: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    agent_name: Option<Text<'a>>,
    #[serde(borrow)]
    host_name: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    phone_number: Option<Text<'a>>,
}

impl Agent<'_> {
    fn read(&self, company: &str, rows: &mut Vec<Row>) -> Result<(), &'static str> {
        check_company(&self.company_id, company)?;
        let id = required(&self.agent_id).ok_or(LACKS)?;
        let texts = [&self.qr_code, &self.status, &self.agent_name, &self.host_name];
        let texts = texts.into_iter().chain([&self.version, &self.phone_number]);
        check(texts.into_iter().all(|text| is_text(text.as_ref())), TYPE)?;
        rows.push(Row { table: Table::Agents, id: id.to_owned(), day: None, makes: true });
        Ok(())
    }
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    chats: Option<Vec<Chat<'a>>>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    contacts: Option<Vec<Contact<'a>>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::{Kind, Row, Table, parse_subject, read};
    use crate::generate::ingest::{Expect, Fault, Generator, Profile, parse_faults};

    /// The generator knows what it wrote, this module only the bytes: they must agree on every event.
    #[test]
    fn the_bytes_tell_what_the_generator_knows() {
        let profile = Profile {
            subjects: Kind::ALL.to_vec(),
            companies: vec!["Ann".into(), "Bob".into()],
            quirks: 0.3,
            faults: parse_faults("0.3").unwrap(),
            ..Profile::default()
        };
        let mut generator = Generator::new(profile).unwrap();
        let (mut rows, mut made, mut refused) = (Vec::new(), HashSet::new(), 0);
        for _ in 0..20_000 {
            let event = generator.next();
            let (kind, company) = parse_subject(event.subject).unwrap();
            assert_eq!((kind, company), (event.kind, event.company));
            rows.clear();
            let outcome = read(kind, company, event.payload, &mut rows);
            let is_early = event.expect == Expect::DeadLettered(Fault::OutOfOrder);
            let body = || String::from_utf8_lossy(event.payload).into_owned();
            match event.expect {
                Expect::DeadLettered(_) if !is_early => {
                    refused += 1;
                    assert!(outcome.is_err(), "{:?} {}", event.expect, body());
                }
                _ => assert!(outcome.is_ok(), "{outcome:?} {}", body()),
            }
            for row in rows.drain(..).filter(|row| row.makes) {
                made.insert((company.to_owned(), row.table, row.id));
            }
        }
        assert!(refused > 1_000, "{refused}");
        let count = |table| made.iter().filter(|(_, of, _)| *of == table).count() as u64;
        let rows = generator.books().rows;
        assert_eq!(count(Table::Messages), rows.messages);
        assert_eq!(count(Table::Chats), rows.chats);
        assert_eq!(count(Table::Agents), rows.agents);
    }

    #[test]
    fn a_row_has_its_day_and_a_batch_is_refused_whole() {
        let message = |id: &str, more: &str| {
            let head = r#""chat_id":"c","jid":"j","flow":"IN","agent_id":"a""#;
            format!(r#"{{"message_id":"{id}",{head}{more}}}"#)
        };
        let mut rows = Vec::new();
        let body = message("m", r#","message_timestamp":1735700050"#);
        read(Kind::MessagesUpsert, "A", body.as_bytes(), &mut rows).unwrap();
        let row = Row { table: Table::Messages, id: "m".into(), day: Some(20_089), makes: true };
        assert_eq!(rows, [row]);
        let batch = format!(r#"{{"messages":[{},{}]}}"#, message("n", ""), message("", ""));
        assert!(read(Kind::HistoryMessages, "A", batch.as_bytes(), &mut rows).is_err());
        assert_eq!(rows.len(), 1);
        assert!(read(Kind::MessagesUpsert, "A.B", body.as_bytes(), &mut rows).is_err());
        assert!(read(Kind::ChatsUpsert, "A", b"[]", &mut rows).is_err());
    }
}
