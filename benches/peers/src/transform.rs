//! Envelope in, subject, headers and payload out. Pure: no clock, no IO. Follows the "DO" column of the
//! CDC contract: envelope §2.1, identifiers §5.2, payload §5.3, raw row §5.4, subject §5.5.
//! Borrows from the body where JSON allows it; the row is copied as bytes, never decoded to a map,
//! except for the rare row that holds `unchanged_toast`.

use std::borrow::Cow;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A change event as Sequin writes it. Unknown members are ignored.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    table_schema: Cow<'a, str>,
    #[serde(borrow)]
    table_name: Cow<'a, str>,
    #[serde(borrow)]
    commit_timestamp: Option<Cow<'a, str>>,
    commit_lsn: Option<u64>,
    commit_idx: Option<u64>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    database_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    database: Option<Database<'a>>,
}

#[derive(Deserialize)]
struct Database<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

/// The columns that decide where an event goes. All others are passed on unread.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    chat_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    agent_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    company_id: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Payload<'a> {
    event_id: &'a str,
    event_time: &'a str,
    company_id: &'a str,
    agent_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_id: Option<&'a str>,
    row_data: &'a RawValue,
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_time: Option<&'a str>,
    commit_lsn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_idx: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    toast_columns: Vec<String>,
}

/// What is to be published for one change.
#[derive(Debug)]
pub struct Outgoing {
    /// `<prefix>.<company>.<agent>.<table>[.<chat>]`.
    pub subject: String,
    /// JSON body, contract §5.3.
    pub payload: Vec<u8>,
    /// `Nats-Msg-Id`: company and identity, so that companies never suppress each other.
    pub message_id: String,
    /// Redis key of the claim, `dedup:{<company>}:<identity>`.
    pub dedup_key: String,
    /// Header `Daisi-Company`.
    pub company: String,
    /// Header `Daisi-Lsn`; 0 for a backfill.
    pub lsn: u64,
    /// Header `Daisi-Idx`, where the source gives one.
    pub idx: Option<u64>,
    /// Header `Daisi-Action`.
    pub action: String,
}

/// What becomes of one event before any IO.
#[derive(Debug)]
pub enum Verdict {
    /// To be deduplicated and published.
    Forward(Box<Outgoing>),
    /// A table or action nobody asked for: acknowledged, not published.
    Filtered,
    /// Goes to the dead-letter stream with this reason.
    Rejected(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Messages,
    Chats,
    Agents,
    Contacts,
}

impl Table {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "messages" => Some(Self::Messages),
            "chats" => Some(Self::Chats),
            "agents" => Some(Self::Agents),
            "contacts" => Some(Self::Contacts),
            _ if name.starts_with("messages_y") || name == "messages_default" => {
                Some(Self::Messages)
            }
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Chats => "chats",
            Self::Agents => "agents",
            Self::Contacts => "contacts",
        }
    }
}

/// Decides one event. `event_time` is the time of processing, RFC 3339 in whole seconds, UTC.
#[must_use]
pub fn transform(prefix: &str, subject: &str, body: &[u8], event_time: &str) -> Verdict {
    let mut tokens = subject.split('.');
    let (Some("cdc"), Some(company_token), Some(_), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return Verdict::Rejected("unknown_subject");
    };
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(body) else {
        return Verdict::Rejected("bad_json");
    };
    let Some(table) = Table::parse(&envelope.metadata.table_name) else {
        return Verdict::Filtered;
    };
    match envelope.action.as_ref() {
        "insert" | "update" | "delete" => {}
        "read" => return Verdict::Filtered,
        _ => return Verdict::Rejected("unknown_action"),
    }
    match forward(prefix, company_token, &envelope, table, event_time) {
        Ok(outgoing) => Verdict::Forward(Box::new(outgoing)),
        Err(reason) => Verdict::Rejected(reason),
    }
}

fn forward(
    prefix: &str,
    company_token: &str,
    envelope: &Envelope<'_>,
    table: Table,
    event_time: &str,
) -> Result<Outgoing, &'static str> {
    let record = envelope.record.ok_or("null_record")?;
    let row: Row<'_> = serde_json::from_str(record.get()).map_err(|_| "bad_row")?;
    let metadata = &envelope.metadata;
    let company = checked_company(&row, metadata, company_token)?;
    let agent = row.agent_id.as_deref().filter(|id| is_agent(id)).ok_or("bad_agent")?;
    let chat = row.chat_id.as_deref().filter(|id| is_chat(id));
    if matches!(table, Table::Messages | Table::Chats) && chat.is_none() {
        return Err("bad_chat");
    }
    let key = key_of(table, &row).ok_or("missing_key")?;
    let lsn = metadata.commit_lsn.unwrap_or(0);
    let event_id = format!("{lsn}:{}:{key}", table.as_str());
    let identity = identity(metadata, table, &key, record);
    let subject = match (table, chat) {
        (Table::Messages, Some(chat)) => format!("{prefix}.{company}.{agent}.messages.{chat}"),
        _ => format!("{prefix}.{company}.{agent}.{}", table.as_str()),
    };
    let (row_data, toast_columns) = without_toast(record)?;
    let payload = Payload {
        event_id: &event_id,
        event_time,
        company_id: company,
        agent_id: agent,
        message_id: row.message_id.as_deref().filter(|_| table == Table::Messages),
        chat_id: chat.filter(|_| matches!(table, Table::Messages | Table::Chats)),
        row_data: &row_data,
        action: &envelope.action,
        commit_time: metadata.commit_timestamp.as_deref(),
        commit_lsn: lsn,
        commit_idx: metadata.commit_idx,
        toast_columns,
    };
    Ok(Outgoing {
        subject,
        payload: to_json(&payload, record.get().len() + 384)?,
        message_id: format!("{company}:{identity}"),
        dedup_key: format!("dedup:{{{company}}}:{identity}"),
        company: company.to_owned(),
        lsn,
        idx: metadata.commit_idx,
        action: envelope.action.clone().into_owned(),
    })
}

fn to_json(payload: &Payload<'_>, capacity: usize) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut out, payload).map_err(|_| "encode")?;
    Ok(out)
}

/// Row, schema and subject must name one company (contract §5.2).
fn checked_company<'r>(
    row: &'r Row<'_>,
    metadata: &Metadata<'_>,
    token: &str,
) -> Result<&'r str, &'static str> {
    let company = row.company_id.as_deref().filter(|id| is_company(id)).ok_or("bad_company")?;
    let schema = metadata.table_schema.strip_prefix("daisi_");
    if company != token || schema.is_some_and(|schema| !schema.eq_ignore_ascii_case(company)) {
        return Err("company_mismatch");
    }
    Ok(company)
}

fn key_of<'r>(table: Table, row: &'r Row<'_>) -> Option<Cow<'r, str>> {
    let key = match table {
        Table::Messages => row.message_id.as_deref().map(Cow::Borrowed),
        Table::Chats => row.chat_id.as_deref().map(Cow::Borrowed),
        Table::Agents => row.agent_id.as_deref().map(Cow::Borrowed),
        Table::Contacts => row.id.map(|id| unquoted(id.get())),
    };
    key.filter(|key| !key.is_empty() && key.as_ref() != "null")
}

/// A contact's key is a string, a number in older tables.
fn unquoted(json: &str) -> Cow<'_, str> {
    serde_json::from_str::<String>(json).map_or(Cow::Borrowed(json), Cow::Owned)
}

/// `<source>:<lsn>:<idx>:<table>:<key>`, unique for each change of a row (contract §5.2).
fn identity(metadata: &Metadata<'_>, table: Table, key: &str, record: &RawValue) -> String {
    let database = metadata.database.as_ref().and_then(|database| database.id.as_deref());
    let source = database.or(metadata.database_name.as_deref()).unwrap_or("-");
    let lsn = metadata.commit_lsn.unwrap_or(0);
    let table = table.as_str();
    match (metadata.commit_idx, metadata.idempotency_key.as_deref()) {
        (Some(idx), _) => format!("{source}:{lsn}:{idx}:{table}:{key}"),
        (None, Some(idempotency)) => format!("{source}:{lsn}:{idempotency}:{table}:{key}"),
        (None, None) => format!("{source}:{lsn}:{:016x}:{table}:{key}", hash(record.get())),
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Columns whose value is only a placeholder are left out and named (contract §5.4).
fn without_toast(record: &RawValue) -> Result<(Cow<'_, RawValue>, Vec<String>), &'static str> {
    if memchr::memmem::find(record.get().as_bytes(), b"\"unchanged_toast\"").is_none() {
        return Ok((Cow::Borrowed(record), Vec::new()));
    }
    let mut columns = Vec::new();
    let mut row: Columns = serde_json::from_str(record.get()).map_err(|_| "bad_row")?;
    row.retain(|name, value| {
        let keep = value.as_str() != Some("unchanged_toast");
        if !keep {
            columns.push(name.clone());
        }
        keep
    });
    let row = serde_json::value::to_raw_value(&row).map_err(|_| "encode")?;
    Ok((Cow::Owned(row), columns))
}

type Columns = serde_json::Map<String, serde_json::Value>;

fn is_company(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=48).contains(&id.len()) && id.bytes().all(allowed)
}

fn is_agent(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(is_agent_byte)
}

fn is_agent_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@' | b':' | b'+' | b'=' | b'-')
}

fn is_chat(id: &str) -> bool {
    let dots = id.starts_with('.') || id.ends_with('.') || id.contains("..");
    let bytes = id.bytes().all(|byte| byte == b'.' || is_agent_byte(byte));
    (1..=128).contains(&id.len()) && bytes && !dots
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"action":"insert","changes":null,"record":{"id":88231,"message_id":"3EB0C1A9F2","chat_id":"chat-51","agent_id":"agent-7","company_id":"CompanyAAA01","big":12345678901234567890},"metadata":{"table_schema":"daisi_CompanyAAA01","table_name":"messages","commit_timestamp":"2025-06-01T10:00:00.123456Z","commit_lsn":5368722184,"commit_idx":0,"database_name":"message_service_db"}}"#;

    fn check(subject: &str, body: &str) -> Verdict {
        transform("wa", subject, body.as_bytes(), "2025-06-01T10:00:00Z")
    }

    fn forwarded(body: &str) -> Outgoing {
        match check("cdc.CompanyAAA01.messages", body) {
            Verdict::Forward(outgoing) => *outgoing,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    fn rejected(body: &str) -> &'static str {
        match check("cdc.CompanyAAA01.messages", body) {
            Verdict::Rejected(reason) => reason,
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn a_message_keeps_its_row_byte_for_byte() {
        let out = forwarded(MESSAGE);
        assert_eq!(out.subject, "wa.CompanyAAA01.agent-7.messages.chat-51");
        assert_eq!(
            out.dedup_key,
            "dedup:{CompanyAAA01}:message_service_db:5368722184:0:messages:3EB0C1A9F2"
        );
        let expected = r#"{"event_id":"5368722184:messages:3EB0C1A9F2","event_time":"2025-06-01T10:00:00Z","company_id":"CompanyAAA01","agent_id":"agent-7","message_id":"3EB0C1A9F2","chat_id":"chat-51","row_data":{"id":88231,"message_id":"3EB0C1A9F2","chat_id":"chat-51","agent_id":"agent-7","company_id":"CompanyAAA01","big":12345678901234567890},"action":"insert","commit_time":"2025-06-01T10:00:00.123456Z","commit_lsn":5368722184,"commit_idx":0}"#;
        assert_eq!(String::from_utf8(out.payload).unwrap(), expected);
    }

    #[test]
    fn a_placeholder_column_is_left_out_and_named() {
        let out = forwarded(&MESSAGE.replace("12345678901234567890", r#""unchanged_toast""#));
        let payload: serde_json::Value = serde_json::from_slice(&out.payload).unwrap();
        assert_eq!(payload["toast_columns"], serde_json::json!(["big"]));
        assert!(payload["row_data"].get("big").is_none());
    }

    #[test]
    fn a_backfill_and_a_foreign_table_are_filtered() {
        for (from, to) in [("insert", "read"), (r#""messages""#, r#""onboarding_log""#)] {
            let body = MESSAGE.replace(from, to);
            assert!(matches!(check("cdc.CompanyAAA01.messages", &body), Verdict::Filtered));
        }
    }

    #[test]
    fn bad_events_are_rejected_with_their_reason() {
        assert_eq!(rejected("{"), "bad_json");
        assert_eq!(rejected(&MESSAGE.replace("insert", "truncate")), "unknown_action");
        assert_eq!(rejected(&MESSAGE.replace("daisi_CompanyAAA01", "daisi_B")), "company_mismatch");
        assert_eq!(rejected(&MESSAGE.replace("agent-7", "a b")), "bad_agent");
        assert_eq!(rejected(&MESSAGE.replace("chat-51", "a..b")), "bad_chat");
        assert!(matches!(check("cdc.Other.messages", MESSAGE), Verdict::Rejected(_)));
        assert!(matches!(check("cdc.x", MESSAGE), Verdict::Rejected("unknown_subject")));
    }
}
