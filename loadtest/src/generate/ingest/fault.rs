//! The kinds of trouble, and how a valid event is spoilt (contract ingest.md, sections 2 and 6).
//! Invariant: what was spoilt is wrong in exactly the way its fault names, whatever the event was.

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Kind;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Cut, empty, followed by more, or no object.
    Malformed,
    /// A required member is absent, `null` or empty.
    Missing,
    /// A member is of another JSON type.
    WrongType,
    /// A member's value is none that it may have: `flow` of `sideways`, a count beyond 32 bits, a
    /// fraction of a second, U+0000.
    BadValue,
    /// `company_id` is not that of the subject.
    Foreign,
    /// The event before it once more, under the same `Nats-Msg-Id`.
    Duplicate,
    /// The event before it once more, without one.
    Copy,
    /// An update ahead of the upsert that makes its row; the upsert comes next.
    OutOfOrder,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Missing,
        Self::WrongType,
        Self::BadValue,
        Self::Foreign,
        Self::Duplicate,
        Self::Copy,
        Self::OutOfOrder,
    ];

    /// Its name in options, profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::WrongType => "wrong_type",
            Self::BadValue => "bad_value",
            Self::Foreign => "foreign",
            Self::Duplicate => "duplicate",
            Self::Copy => "copy",
            Self::OutOfOrder => "out_of_order",
        }
    }

    /// Whether the event itself is refused.
    pub(super) fn is_fatal(self) -> bool {
        !matches!(self, Self::Duplicate | Self::Copy)
    }

    /// Whether it is in the event's own bytes.
    pub(super) fn is_spoiling(self) -> bool {
        self.is_fatal() && self != Self::OutOfOrder
    }

    /// Spoils a valid event of `kind`; those that leave an event as it is do nothing.
    pub(super) fn spoil(self, kind: Kind, payload: &mut Vec<u8>, company: &str, rng: &mut Rng) {
        if self == Self::Malformed {
            return malform(payload, rng);
        }
        // What the generator wrote is JSON; were it not, it would stay as it is and the tests tell.
        let Ok(mut event) = serde_json::from_slice::<Value>(payload) else { return };
        let item = match kind.items() {
            Some(items) => draw_item(&mut event[items], rng),
            None => Some(&mut event),
        };
        let Some(item) = item else { return };
        match self {
            Self::Missing => remove(kind.of_items(), item, rng),
            Self::WrongType => {
                let (name, value) = draw(wrong_types(kind.of_items()), rng);
                match kind.items() {
                    // The batch itself can be wrong as well: a text in the place of its items.
                    Some(items) if rng.u8(..4) == 0 => event[items] = json!("none"),
                    _ => item[name] = value.clone(),
                }
            }
            Self::BadValue => {
                let (name, value) = draw(bad_values(kind.of_items()), rng);
                item[name] = value.clone();
            }
            Self::Foreign => item["company_id"] = json!(format!("{company}-other")),
            Self::Malformed | Self::Duplicate | Self::Copy | Self::OutOfOrder => return,
        }
        payload.clear();
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(payload, &event);
    }
}

fn malform(payload: &mut Vec<u8>, rng: &mut Rng) {
    match rng.u32(..6) {
        0 => payload.clear(),
        1 => *payload = b"null".to_vec(),
        2 => *payload = b"[]".to_vec(),
        3 => payload.extend_from_slice(b"}"),
        // A piece of an object is never JSON.
        _ => payload.truncate(rng.usize(1..payload.len())),
    }
}

fn draw_item<'a>(items: &'a mut Value, rng: &mut Rng) -> Option<&'a mut Value> {
    let items = items.as_array_mut()?;
    let at = rng.usize(..items.len());
    items.get_mut(at)
}

fn draw<T>(choices: Vec<T>, rng: &mut Rng) -> T {
    let mut choices = choices;
    let at = rng.usize(..choices.len());
    choices.swap_remove(at)
}

fn remove(kind: Kind, item: &mut Value, rng: &mut Rng) {
    let Some(members) = item.as_object_mut() else { return };
    let is_group = members.get("is_group") == Some(&Value::Bool(true));
    let mut required = required(kind).to_vec();
    // A group may do without a phone.
    required.retain(|name| !(is_group && *name == "phone_number"));
    if members.contains_key("key") {
        required.push("key");
    }
    let name = draw(required, rng);
    let (members, name) = match (name, members.get("key").is_some()) {
        ("key", true) => match members["key"].as_object_mut() {
            Some(key) => (key, "id"),
            None => return,
        },
        _ => (members, name),
    };
    // An empty name of a contact is a name when it changes, so there it must be gone.
    let ways = if kind == Kind::ContactsUpdate && name == "push_name" { 2 } else { 3 };
    match rng.u32(..ways) {
        0 => drop(members.shift_remove(name)),
        1 => members[name] = Value::Null,
        _ => members[name] = json!(""),
    }
}

/// Members that must be there and not be empty, where `company_id` is filled from the subject.
fn required(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::ChatsUpsert => &["chat_id", "jid", "agent_id", "phone_number"],
        Kind::ChatsUpdate => &["chat_id"],
        Kind::MessagesUpsert => &["message_id", "chat_id", "jid", "flow", "agent_id"],
        Kind::MessagesUpdate => &["message_id"],
        Kind::ContactsUpsert | Kind::ContactsUpdate => &["phone_number", "agent_id", "push_name"],
        _ => &["agent_id"],
    }
}

fn wrong_types(kind: Kind) -> Vec<(&'static str, Value)> {
    match kind {
        Kind::ChatsUpsert => vec![
            ("chat_id", json!(17)),
            ("is_group", json!("yes")),
            ("not_spam", json!(1)),
            ("last_message", json!("hi")),
            ("conversation_timestamp", json!("yesterday")),
            ("unread_count", json!("2")),
        ],
        Kind::ChatsUpdate => vec![
            ("chat_id", json!({"id": 17})),
            ("unread_count", json!(true)),
            ("last_message", json!(["hi"])),
            ("conversation_timestamp", json!("1735700050")),
        ],
        Kind::MessagesUpsert => vec![
            ("message_id", json!(9)),
            ("flow", json!(true)),
            ("key", json!("K9")),
            ("message_obj", json!("hi")),
            ("status", json!(3)),
            ("message_timestamp", json!("2025-06-01T10:00:00Z")),
            ("campaign", json!([])),
        ],
        Kind::MessagesUpdate => vec![
            ("message_id", json!(["m-9"])),
            ("status", json!(4)),
            ("edited_message_obj", json!("hello")),
            ("is_deleted", json!("true")),
        ],
        Kind::ContactsUpsert | Kind::ContactsUpdate => vec![
            ("phone_number", json!(6_281_100_022_u64)),
            ("agent_id", json!({})),
            ("push_name", json!(false)),
        ],
        _ => vec![("agent_id", json!(1)), ("status", json!(true)), ("version", json!(2.4))],
    }
}

fn bad_values(kind: Kind) -> Vec<(&'static str, Value)> {
    let nul = json!("a\u{0}b");
    match kind {
        Kind::ChatsUpsert => vec![
            ("conversation_timestamp", json!(-1)),
            ("unread_count", json!(3_000_000_000_u64)),
            ("unread_count", json!(1.5)),
            ("push_name", nul),
        ],
        Kind::ChatsUpdate => vec![
            ("unread_count", json!(-3_000_000_000_i64)),
            ("conversation_timestamp", json!(1_735_700_050.25)),
        ],
        Kind::MessagesUpsert => vec![
            ("flow", json!("sideways")),
            ("flow", json!("in")),
            // Beyond the last day that a date of PostgreSQL can be.
            ("message_timestamp", json!(9_000_000_000_000_000_u64)),
            ("message_text", nul),
        ],
        Kind::MessagesUpdate => vec![("status", nul)],
        Kind::ContactsUpsert | Kind::ContactsUpdate => vec![("push_name", nul)],
        _ => vec![("agent_name", nul.clone()), ("status", nul)],
    }
}
