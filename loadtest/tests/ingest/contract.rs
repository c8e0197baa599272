//! Section 2 of the contract ingest.md as tables, and a judge that reads an event by them. Written from
//! the contract alone: it shares nothing with the generator.

use serde_json::{Map, Value};

/// What is wrong with an event; the words of the generator's expectation.
pub(crate) type Wrong = &'static str;

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Text,
    Bool,
    Object,
    /// Bounds.
    Integer(f64, f64),
}

#[derive(Clone, Copy, PartialEq)]
enum Need {
    May,
    /// There, and not empty.
    Must,
    /// There; may be empty.
    There,
    /// Not empty unless `is_group` is true.
    MustUnlessGroup,
}

struct Field(&'static str, Type, Need);

use Need::{May, Must, MustUnlessGroup, There};
use Type::{Bool, Integer, Object, Text};

const INT32: Type = Integer(i32::MIN as f64, i32::MAX as f64);
const INT64: Type = Integer(-9.2e18, 9.2e18);
const NOT_NEGATIVE: Type = Integer(0.0, 9.2e18);
/// Last second of 5874897-12-31, the end of PostgreSQL's dates.
const DATED: Type = Integer(-9.2e18, 185_331_720_383_999.0);

/// 2.1; `custom_name` and `assigned_to` are accepted and dropped.
const CHAT: &[Field] = &[
    Field("chat_id", Text, Must),
    Field("jid", Text, Must),
    Field("company_id", Text, May),
    Field("agent_id", Text, Must),
    Field("phone_number", Text, MustUnlessGroup),
    Field("push_name", Text, May),
    Field("is_group", Bool, May),
    Field("group_name", Text, May),
    Field("last_message", Object, May),
    Field("conversation_timestamp", NOT_NEGATIVE, May),
    Field("unread_count", INT32, May),
    Field("not_spam", Bool, May),
];
/// 2.2.
const CHAT_UPDATE: &[Field] = &[
    Field("chat_id", Text, Must),
    Field("company_id", Text, May),
    Field("agent_id", Text, May),
    Field("unread_count", INT32, May),
    Field("last_message", Object, May),
    Field("conversation_timestamp", INT64, May),
];
/// 2.3.
const MESSAGE: &[Field] = &[
    Field("message_id", Text, Must),
    Field("from_phone", Text, May),
    Field("to_phone", Text, May),
    Field("chat_id", Text, Must),
    Field("jid", Text, Must),
    Field("flow", Text, Must),
    Field("message_type", Text, May),
    Field("message_text", Text, May),
    Field("message_url", Text, May),
    Field("company_id", Text, May),
    Field("agent_id", Text, Must),
    Field("key", Object, May),
    Field("message_obj", Object, May),
    Field("status", Text, May),
    Field("message_timestamp", DATED, May),
    Field("campaign", Object, May),
];
const KEY: &[Field] =
    &[Field("id", Text, Must), Field("fromMe", Bool, May), Field("remoteJid", Text, May)];
const CAMPAIGN: &[Field] = &[
    Field("is_campaign", Bool, May),
    Field("tags", Text, May),
    Field("assigned_to", Text, May),
    Field("origin", Text, May),
];
/// 2.4.
const MESSAGE_UPDATE: &[Field] = &[
    Field("message_id", Text, Must),
    Field("company_id", Text, May),
    Field("status", Text, May),
    Field("edited_message_obj", Object, May),
    Field("is_deleted", Bool, May),
    Field("message_url", Text, May),
];
/// 2.5.
const CONTACT: &[Field] = &[
    Field("phone_number", Text, Must),
    Field("company_id", Text, May),
    Field("agent_id", Text, Must),
    Field("push_name", Text, Must),
    Field("chat_id", Text, May),
];
/// 2.6.
const CONTACT_UPDATE: &[Field] = &[
    Field("phone_number", Text, Must),
    Field("company_id", Text, May),
    Field("agent_id", Text, Must),
    Field("push_name", Text, There),
];
/// 2.7.
const AGENT: &[Field] = &[
    Field("agent_id", Text, Must),
    Field("company_id", Text, May),
    Field("qr_code", Text, May),
    Field("status", Text, May),
    Field("agent_name", Text, May),
    Field("host_name", Text, May),
    Field("version", Text, May),
    Field("phone_number", Text, May),
];
/// 2.9, besides `messages`.
const SCAN: &[Field] = &[Field("is_last_batch", Bool, May), Field("agent_id", Text, May)];

/// 2.12: main name and alias, by where they occur.
const ALIASES: [(&str, &str, &str); 6] = [
    ("v1.chats.update", "chat_id", "id"),
    ("v1.messages.update", "message_id", "id"),
    ("v1.messages.upsert", "from_phone", "from"),
    ("v1.messages.upsert", "to_phone", "to"),
    ("key", "fromMe", "from_me"),
    ("key", "remoteJid", "remote_jid"),
];

/// An event as it is understood: its items, under their main names.
#[derive(Debug)]
pub(crate) struct Read {
    /// Subject of an item: `v1.chats.upsert` for those of `v1.history.chats`.
    pub(crate) of: &'static str,
    pub(crate) items: Vec<Map<String, Value>>,
}

/// Reads an event of `subject` (without company) published for `company`.
pub(crate) fn judge(subject: &str, company: &str, payload: &[u8]) -> Result<Read, Wrong> {
    let event: Value = serde_json::from_slice(payload).map_err(|_| "malformed")?;
    let Value::Object(event) = event else { return Err("malformed") };
    let (of, batch) = match subject {
        "v1.history.chats" => ("v1.chats.upsert", Some("chats")),
        "v1.history.messages" => ("v1.messages.upsert", Some("messages")),
        "v1.history.contacts" => ("v1.contacts.upsert", Some("contacts")),
        single => (known(single), None),
    };
    let items = match batch {
        None => vec![event],
        Some(member) => {
            check(SCAN, &event)?;
            let Some(Value::Array(items)) = event.get(member) else { return Err("wrong_type") };
            let objects = items.iter().map(|item| item.as_object().cloned());
            objects.collect::<Option<Vec<_>>>().ok_or("wrong_type")?
        }
    };
    let items = items.into_iter().map(|item| judge_item(of, company, item));
    Ok(Read { of, items: items.collect::<Result<_, _>>()? })
}

fn known(subject: &str) -> &'static str {
    let all = [
        "v1.chats.upsert",
        "v1.chats.update",
        "v1.messages.upsert",
        "v1.messages.update",
        "v1.contacts.upsert",
        "v1.contacts.update",
        "v1.connection.update",
    ];
    all.into_iter().find(|known| *known == subject).expect("a subject of section 1.1")
}

fn judge_item(
    of: &'static str,
    company: &str,
    mut item: Map<String, Value>,
) -> Result<Map<String, Value>, Wrong> {
    under_main_names(of, &mut item);
    let fields = match of {
        "v1.chats.upsert" => CHAT,
        "v1.chats.update" => CHAT_UPDATE,
        "v1.messages.upsert" => MESSAGE,
        "v1.messages.update" => MESSAGE_UPDATE,
        "v1.contacts.upsert" => CONTACT,
        "v1.contacts.update" => CONTACT_UPDATE,
        _ => AGENT,
    };
    check(fields, &item)?;
    if let Some(Value::Object(key)) = item.get_mut("key") {
        under_main_names("key", key);
        check(KEY, key)?;
    }
    if let Some(Value::Object(campaign)) = item.get("campaign") {
        check(CAMPAIGN, campaign)?;
    }
    if let Some(flow) = item.get("flow")
        && !["IN", "OUT"].contains(&flow.as_str().unwrap_or_default())
    {
        return Err("bad_value");
    }
    match item.get("company_id").and_then(Value::as_str).unwrap_or_default() {
        "" => Ok(item),
        named if named == company => Ok(item),
        _ => Err("foreign"),
    }
}

fn under_main_names(of: &str, item: &mut Map<String, Value>) {
    for (_, main, alias) in ALIASES.iter().filter(|(place, ..)| *place == of) {
        if !item.contains_key(*main)
            && let Some(value) = item.remove(*alias)
        {
            item.insert((*main).into(), value);
        }
    }
}

/// Decoding comes before validation (section 5): a wrong type anywhere is found first.
fn check(fields: &[Field], item: &Map<String, Value>) -> Result<(), Wrong> {
    let present = |name: &str| item.get(name).filter(|value| !value.is_null());
    for Field(name, kind, _) in fields {
        present(name).map_or(Ok(()), |value| check_type(*kind, value))?;
    }
    let is_group = item.get("is_group") == Some(&Value::Bool(true));
    for Field(name, _, need) in fields {
        let is_empty = present(name).is_none_or(|value| value == "");
        let is_missing = match need {
            May => false,
            There => present(name).is_none(),
            Must => is_empty,
            MustUnlessGroup => is_empty && !is_group,
        };
        if is_missing {
            return Err("missing");
        }
    }
    if item.values().any(has_nul) { Err("bad_value") } else { Ok(()) }
}

fn check_type(kind: Type, value: &Value) -> Result<(), Wrong> {
    let is_so = match kind {
        Text => value.is_string(),
        Bool => value.is_boolean(),
        Object => value.is_object(),
        Integer(..) => value.is_number(),
    };
    if !is_so {
        return Err("wrong_type");
    }
    let Integer(min, max) = kind else { return Ok(()) };
    let number = value.as_f64().unwrap_or(f64::NAN);
    match number.fract() == 0.0 && (min..=max).contains(&number) {
        true => Ok(()),
        false => Err("bad_value"),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.values().any(has_nul),
        _ => false,
    }
}
