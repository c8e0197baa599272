//! A row change as what must come out of it on `wa.>` (contract cdc.md, sections 1 to 5). Read are
//! Sequin's envelope and Debezium's relational one; a document in a string is told to be unread.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::is_company;
use super::json::{Text, required};

/// What must become of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate<'a> {
    /// Published once.
    Forward(Forward<'a>),
    /// Of a table that nobody forwards, or history read back.
    Filtered,
    /// A dead letter, and why.
    Refused(&'static str),
    /// Of a shape that is not read here: what becomes of it is not known.
    Unread,
}

/// A change that must come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward<'a> {
    /// Where, with the prefix `wa`.
    pub subject: String,
    /// `<lsn>:<table>:<key>`.
    pub event_id: String,
    /// Place in its transaction, where it has one.
    pub idx: Option<u64>,
    /// The bytes of the row; `None` where they may not come out as they are.
    pub record: Option<&'a str>,
    /// What keeps its order: the chat of a message, the row of others.
    pub order: String,
    /// The company.
    pub company: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    op: Option<Text<'a>>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    table_schema: Option<Text<'a>>,
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    commit_lsn: Option<i64>,
    commit_idx: Option<u64>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    schema: Option<Text<'a>>,
    #[serde(borrow)]
    table: Option<Text<'a>>,
    lsn: Option<i64>,
}

/// One change, whoever told it.
struct Change<'e, 'a> {
    schema: &'e str,
    table: &'static str,
    lsn: i64,
    idx: Option<u64>,
    row: &'a RawValue,
}

/// The columns that make identifiers.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    chat_id: Option<Text<'a>>,
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
}

/// Contacts have a text for their key, and need nothing else of other types.
#[derive(Deserialize)]
struct ContactRow<'a> {
    #[serde(borrow)]
    company_id: Option<Text<'a>>,
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

/// What must become of `body`, published on `subject`.
pub fn read<'a>(subject: &str, body: &'a [u8]) -> Fate<'a> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'a>>(body) else {
        return Fate::Refused("no JSON of a change");
    };
    if envelope.op.is_none() && envelope.record.is_none() && envelope.action.is_none() {
        return match envelope.payload {
            Some(payload) if payload.get().starts_with('{') => {
                read(subject, payload.get().as_bytes())
            }
            _ => Fate::Refused("no change"),
        };
    }
    let table = told_table(&envelope);
    let Some(table) = known_table(table) else {
        return match table {
            "" => Fate::Refused("no table"),
            _ => Fate::Filtered,
        };
    };
    match change(&envelope, table) {
        Ok(change) => forward(subject, &change),
        Err(Kept::Filtered) => Fate::Filtered,
        Err(Kept::Refused(why)) => Fate::Refused(why),
        Err(Kept::Unread) => Fate::Unread,
    }
}

fn told_table<'a>(envelope: &'a Envelope<'_>) -> &'a str {
    let told = match (&envelope.metadata, &envelope.source) {
        (Some(metadata), _) => &metadata.table_name,
        (None, Some(source)) => &source.table,
        (None, None) => &None,
    };
    told.as_ref().map_or("", |text| &*text.0)
}

/// A partition of messages counts as messages.
fn known_table(table: &str) -> Option<&'static str> {
    let known = ["messages", "chats", "agents", "contacts"].into_iter().find(|name| *name == table);
    known.or_else(|| table.starts_with("messages_").then_some("messages"))
}

/// Why a change does not come out.
enum Kept {
    Filtered,
    Refused(&'static str),
    Unread,
}

fn change<'e, 'a>(envelope: &'e Envelope<'a>, table: &'static str) -> Result<Change<'e, 'a>, Kept> {
    let text = |text: &'e Option<Text<'a>>| text.as_ref().map_or("", |text| &*text.0);
    if let Some(op) = &envelope.op {
        let row = match &*op.0 {
            "c" | "u" => envelope.after,
            "d" => envelope.before,
            "r" => return Err(Kept::Filtered),
            _ => return Err(Kept::Refused("unknown operation")),
        };
        let row = row.ok_or(Kept::Refused("no row"))?;
        if row.get().starts_with('"') {
            return Err(Kept::Unread);
        }
        let source = envelope.source.as_ref().ok_or(Kept::Refused("no source"))?;
        let lsn = source.lsn.unwrap_or(0);
        return Ok(Change { schema: text(&source.schema), table, lsn, idx: None, row });
    }
    match text(&envelope.action) {
        "insert" | "update" | "delete" => {}
        "read" => return Err(Kept::Filtered),
        _ => return Err(Kept::Refused("unknown action")),
    }
    let metadata = envelope.metadata.as_ref().ok_or(Kept::Refused("no metadata"))?;
    let Metadata { commit_lsn, commit_idx, .. } = *metadata;
    let (schema, lsn) = (text(&metadata.table_schema), commit_lsn.unwrap_or(0));
    let row = envelope.record.ok_or(Kept::Refused("no record"))?;
    Ok(Change { schema, table, lsn, idx: commit_idx, row })
}

fn forward<'a>(subject: &str, change: &Change<'_, 'a>) -> Fate<'a> {
    let Change { schema, table, lsn, idx, row } = *change;
    let refused = || Fate::Refused("the row lacks an identifier, or one is no text");
    let ids = if table == "contacts" { contact_ids(row) } else { row_ids(row, table) };
    let Some(Ids { company, agent, chat, key }) = ids else { return refused() };
    let is_agent = is_token(&agent) && !agent.contains('.');
    let is_chat = chat.as_deref().is_none_or(is_chat);
    if !is_company(&company) || !is_agent || !is_chat || key.chars().any(char::is_control) {
        return Fate::Refused("an identifier holds what a subject must not");
    }
    let of_schema = schema.get(..6).filter(|head| *head == "daisi_").map(|_| &schema[6..]);
    let of_subject = subject.strip_prefix("cdc.").and_then(|rest| rest.split('.').next());
    let is_own = of_schema.is_none_or(|of| of.eq_ignore_ascii_case(&company))
        && of_subject.is_none_or(|of| of == company);
    if !is_own {
        return Fate::Refused("of another company than its subject or schema");
    }
    let (out, order) = match &chat {
        Some(chat) if table == "messages" => {
            (format!("wa.{company}.{agent}.messages.{chat}"), format!("messages {chat}"))
        }
        _ => (format!("wa.{company}.{agent}.{table}"), format!("{table} {key}")),
    };
    let record = Some(row.get()).filter(|row| !row.contains("\"unchanged_toast\""));
    let event_id = format!("{lsn}:{table}:{key}");
    Fate::Forward(Forward { subject: out, event_id, idx, record, order, company })
}

struct Ids {
    company: String,
    agent: String,
    chat: Option<String>,
    key: String,
}

fn row_ids(row: &RawValue, table: &str) -> Option<Ids> {
    let row: Row<'_> = serde_json::from_str(row.get()).ok()?;
    let own = |text: &Option<Text<'_>>| required(text).map(str::to_owned);
    let (agent, chat) = (own(&row.agent_id)?, own(&row.chat_id));
    let key = match table {
        "messages" => own(&row.message_id)?,
        "chats" => chat.clone()?,
        _ => agent.clone(),
    };
    if table == "messages" && chat.is_none() {
        return None;
    }
    let chat = chat.filter(|_| table != "agents");
    Some(Ids { company: own(&row.company_id)?, agent, chat, key })
}

fn contact_ids(row: &RawValue) -> Option<Ids> {
    let row: ContactRow<'_> = serde_json::from_str(row.get()).ok()?;
    let own = |text: &Option<Text<'_>>| required(text).map(str::to_owned);
    let (company, agent) = (own(&row.company_id)?, own(&row.agent_id)?);
    Some(Ids { company, agent, chat: None, key: own(&row.id)? })
}

/// Characters of an agent or a chat; dots are a chat's alone.
fn is_token(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@:+=-.".contains(c);
    (1..=128).contains(&text.len()) && text.chars().all(is_plain)
}

fn is_chat(chat: &str) -> bool {
    is_token(chat) && chat.split('.').all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Fate, read};
    use crate::generate::{Expect, Generator, Profile, record_hash};

    /// The generator knows what it wrote, this module only the bytes: they must agree on every event.
    #[test]
    fn the_bytes_tell_what_the_generator_knows() {
        let profile = Profile { bad: 0.1, debezium: 0.2, duplicates: 0.0, ..Profile::default() };
        let mut generator = Generator::new(profile);
        let mut refused = 0;
        for _ in 0..20_000 {
            let event = generator.next();
            let body = || String::from_utf8_lossy(event.payload).into_owned();
            match (event.expect, read(event.subject, event.payload)) {
                (Expect::Forward { subject, event_id, record_hash: hash }, Fate::Forward(told)) => {
                    assert_eq!(
                        (told.subject.as_str(), told.event_id.as_str()),
                        (subject, event_id)
                    );
                    assert_eq!(record_hash(told.record.unwrap().as_bytes()), hash);
                }
                (Expect::Filtered, Fate::Filtered) => {}
                (Expect::DeadLetter { .. }, Fate::Refused(_)) => refused += 1,
                (expected, told) => panic!("{expected:?} {told:?} {}", body()),
            }
        }
        assert!(refused > 1_000, "{refused}");
    }

    #[test]
    fn what_is_not_read_here_says_so() {
        let body = br#"{"op":"c","after":"{}","source":{"table":"messages"}}"#;
        assert_eq!(read("cdc.A.messages", body), Fate::Unread);
        let wrapped = br#"{"schema":{},"payload":{"op":"r","source":{"table":"chats"}}}"#;
        assert_eq!(read("cdc.A.chats", wrapped), Fate::Filtered);
    }
}
