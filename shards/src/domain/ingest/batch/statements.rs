//! The statements of ingest: their texts, the columns they take, and which one asks again about rows that
//! had no effect. Invariant: the columns of a kind are those its statement takes, then those only asked
//! again for.
//!
//! Every statement finds its rows by key, however large a table has grown since the statement was planned:
//! an `ORDER BY id + 0` and an `EXISTS (... OFFSET 0)` keep the planner, which saw an empty table, from
//! walking the primary key in order and from hashing a whole table. An upsert only counts: its plan then
//! holds no partition but the one a row goes to. What a row remembers of its last writer decides whether a
//! write has an effect (contract `ingest.md`, section 4.6).

use crate::columns::{Answer, ColumnType, Statement};

use ColumnType::{Bool, Date, Int4, Int8, Json, Text};

/// What rows of one call have in common. In the order in which they are written within a wave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Kind {
    Agents,
    ChatsHistory,
    Chats,
    ChatsUpdate,
    MessagesHistory,
    MessagesHistoryUndated,
    Messages,
    MessagesUndated,
    MessagesUpdate,
    ContactsHistory,
    Contacts,
    ContactsUpdate,
    Onboard,
    PostScan,
}

/// Places of the columns that several kinds have, or that rows are merged in.
pub(super) mod column {
    pub(in super::super) const MESSAGE_DATE: usize = 1;
    pub(in super::super) const MESSAGE_TYPE: usize = 8;
    pub(in super::super) const MESSAGE_TEXT: usize = 9;
    pub(in super::super) const MESSAGE_URL: usize = 10;
    pub(in super::super) const MESSAGE_OBJ: usize = 12;
    pub(in super::super) const MESSAGE_STATUS: usize = 13;
    pub(in super::super) const CONTACT_CHAT: usize = 4;
}

/// A kind's statements and columns.
pub(super) struct Spec {
    pub(super) statement: &'static Statement,
    pub(super) picks: &'static [usize],
    /// Takes the same, and leaves rows alone that are there already: tried before `statement` where that is
    /// cheaper. An upsert that names its key costs 76 us for one row, this one 40, for it spares the server
    /// to look up which index of a partition stands for the key; but it looks for each row in each unique
    /// index, 6 us a row (PostgreSQL 15).
    pub(super) first: Option<&'static Statement>,
    /// Asked about the rows of a call that counted too few.
    pub(super) again: Option<(&'static Statement, &'static [usize])>,
    pub(super) columns: &'static [ColumnType],
}

const UPTO: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

const fn counting(
    statement: &'static Statement,
    again: &'static Statement,
    asks: &'static [usize],
    columns: &'static [ColumnType],
) -> Spec {
    // The last column, the horizon, is only asked again with.
    let picks = UPTO.split_at(columns.len() - 1).0;
    Spec { statement, picks, first: None, again: Some((again, asks)), columns }
}

const fn after(first: &'static Statement, spec: Spec) -> Spec {
    Spec { first: Some(first), ..spec }
}

const fn listing(statement: &'static Statement) -> Spec {
    let columns = statement.types;
    Spec { statement, picks: UPTO.split_at(columns.len()).0, first: None, again: None, columns }
}

impl Kind {
    pub(super) const COUNT: usize = 14;

    /// Does it write rows of messages?
    pub(super) fn is_of_messages(self) -> bool {
        matches!(
            self,
            Self::MessagesHistory
                | Self::MessagesHistoryUndated
                | Self::Messages
                | Self::MessagesUndated
                | Self::MessagesUpdate
        )
    }

    pub(super) fn spec(self) -> &'static Spec {
        match self {
            Self::Agents => &AGENTS,
            Self::ChatsHistory => &CHATS_HISTORY,
            Self::Chats => &CHATS,
            Self::ChatsUpdate => &CHATS_UPDATE,
            Self::MessagesHistory => &MESSAGES_HISTORY,
            Self::MessagesHistoryUndated => &MESSAGES_HISTORY_UNDATED,
            Self::Messages => &MESSAGES,
            Self::MessagesUndated => &MESSAGES_UNDATED,
            Self::MessagesUpdate => &MESSAGES_UPDATE,
            Self::ContactsHistory => &CONTACTS_HISTORY,
            Self::Contacts => &CONTACTS,
            Self::ContactsUpdate => &CONTACTS_UPDATE,
            Self::Onboard => &ONBOARD,
            Self::PostScan => &POST_SCAN,
        }
    }
}

pub(super) const MESSAGE_COLUMNS: &[ColumnType] = &[
    Text, Date, Text, Text, Text, Text, Text, Text, Text, Text, Text, Json, Json, Text, Int8, Json,
    Text,
];
const CHAT_COLUMNS: &[ColumnType] =
    &[Text, Text, Text, Text, Text, Bool, Text, Json, Int8, Int4, Bool, Json, Text];
const AGENT_COLUMNS: &[ColumnType] = &[Text, Text, Text, Text, Text, Text, Text, Json, Text];
const MESSAGE_ASKS: &[usize] = &[0, 1, 15, 16];
const CHAT_ASKS: &[usize] = &[0, 11, 12];
const AGENT_ASKS: &[usize] = &[0, 7, 8];

macro_rules! statement {
    ($static:ident, $name:literal, $text:expr, $types:expr, $answer:ident) => {
        static $static: Statement =
            Statement { name: $name, text: $text, types: $types, answer: Answer::$answer };
    };
}

const MESSAGE_TYPES: &[ColumnType] = MESSAGE_COLUMNS.split_at(16).0;
const CHAT_TYPES: &[ColumnType] = CHAT_COLUMNS.split_at(12).0;
const AGENT_TYPES: &[ColumnType] = AGENT_COLUMNS.split_at(8).0;

statement!(
    MESSAGES_NEW,
    "messages_new",
    |s| messages(s, DATED, "DO NOTHING"),
    MESSAGE_TYPES,
    Count
);
statement!(MESSAGES_S, "messages", |s| messages(s, DATED, REALTIME), MESSAGE_TYPES, Count);
statement!(
    MESSAGES_UNDATED_S,
    "messages_undated",
    |s| messages(s, UNDATED, REALTIME),
    MESSAGE_TYPES,
    Count
);
statement!(
    MESSAGES_HISTORY_S,
    "messages_history",
    |s| messages(s, DATED, HISTORY),
    MESSAGE_TYPES,
    Count
);
statement!(
    MESSAGES_HISTORY_UNDATED_S,
    "messages_history_undated",
    |s| messages(s, UNDATED, HISTORY),
    MESSAGE_TYPES,
    Count
);
statement!(
    MESSAGES_ASK,
    "messages_ask",
    |s| expand(include_str!("../sql/messages_classify.sql"), s, &[("same_date", SAME_DATE)]),
    &[Text, Date, Json, Text],
    List
);
statement!(
    MESSAGES_UNDATED_ASK,
    "messages_undated_ask",
    |s| expand(include_str!("../sql/messages_classify.sql"), s, &[("same_date", "")]),
    &[Text, Date, Json, Text],
    List
);
statement!(
    MESSAGES_UPDATE_S,
    "messages_update",
    |s| expand(include_str!("../sql/messages_update.sql"), s, &[]),
    &[Text, Date, Text, Json, Bool, Text, Json, Text],
    List
);
statement!(
    CHATS_S,
    "chats",
    |s| chats(s, include_str!("../sql/chats_upsert_realtime.sql")),
    CHAT_TYPES,
    Count
);
statement!(
    CHATS_HISTORY_S,
    "chats_history",
    |s| chats(s, include_str!("../sql/chats_upsert_history.sql")),
    CHAT_TYPES,
    Count
);
statement!(
    CHATS_ASK,
    "chats_ask",
    |s| expand(include_str!("../sql/chats_classify.sql"), s, &[]),
    &[Text, Json, Text],
    List
);
statement!(
    CHATS_UPDATE_S,
    "chats_update",
    |s| expand(include_str!("../sql/chats_update.sql"), s, &[]),
    &[Text, Int4, Json, Int8, Json, Text],
    List
);
statement!(
    CONTACTS_S,
    "contacts",
    |s| contacts(s, BY_PHONE, "{fate:t.last_metadata:i.meta:i.horizon}", "false"),
    &[Text, Text, Text, Text, Text, Json, Text],
    List
);
statement!(
    CONTACTS_HISTORY_S,
    "contacts_history",
    |s| contacts(s, BY_CHAT_OR_PHONE, FILL_CODE, "{foreign:t.last_metadata:i.meta}"),
    &[Text, Text, Text, Text, Text, Json, Text],
    List
);
statement!(
    CONTACTS_UPDATE_S,
    "contacts_update",
    |s| expand(include_str!("../sql/contacts_update.sql"), s, &[]),
    &[Text, Text, Text, Json, Text],
    List
);
statement!(
    AGENTS_S,
    "agents",
    |s| expand(include_str!("../sql/agents_upsert.sql"), s, &[]),
    AGENT_TYPES,
    Count
);
statement!(
    AGENTS_ASK,
    "agents_ask",
    |s| expand(include_str!("../sql/agents_classify.sql"), s, &[]),
    &[Text, Json, Text],
    List
);
statement!(
    ONBOARD_S,
    "onboard",
    |s| {
        let parts = [("free_chat", FREE_CHAT), ("free_id", FREE_ID), ("takes", ONBOARD_TAKES)];
        expand(include_str!("../sql/onboard.sql"), s, &parts)
    },
    &[Text, Text, Text, Text, Text, Int8, Bool, Text, Text, Text, Json, Text],
    List
);
statement!(
    POST_SCAN_S,
    "post_scan_add",
    |s| expand(include_str!("../sql/post_scan_add.sql"), s, &[]),
    &[Text, Text, Int8, Int8, Int8],
    List
);

/// Works on one page of one scan that is due (section 5.9); says how many contacts it looked at, and whether
/// there was a scan. Joins whole tables of an agent: it wants the planner's full choice.
pub static POST_SCAN_RUN: Statement = Statement {
    name: "post_scan_run",
    text: |s| expand(include_str!("../sql/post_scan_run.sql"), s, &[]),
    types: &[],
    answer: Answer::List,
};

static MESSAGES: Spec =
    after(&MESSAGES_NEW, counting(&MESSAGES_S, &MESSAGES_ASK, MESSAGE_ASKS, MESSAGE_COLUMNS));
static MESSAGES_UNDATED: Spec =
    counting(&MESSAGES_UNDATED_S, &MESSAGES_UNDATED_ASK, MESSAGE_ASKS, MESSAGE_COLUMNS);
static MESSAGES_HISTORY: Spec =
    counting(&MESSAGES_HISTORY_S, &MESSAGES_ASK, MESSAGE_ASKS, MESSAGE_COLUMNS);
static MESSAGES_HISTORY_UNDATED: Spec =
    counting(&MESSAGES_HISTORY_UNDATED_S, &MESSAGES_UNDATED_ASK, MESSAGE_ASKS, MESSAGE_COLUMNS);
static MESSAGES_UPDATE: Spec = listing(&MESSAGES_UPDATE_S);
static CHATS: Spec = counting(&CHATS_S, &CHATS_ASK, CHAT_ASKS, CHAT_COLUMNS);
static CHATS_HISTORY: Spec = counting(&CHATS_HISTORY_S, &CHATS_ASK, CHAT_ASKS, CHAT_COLUMNS);
static CHATS_UPDATE: Spec = listing(&CHATS_UPDATE_S);
static CONTACTS: Spec = listing(&CONTACTS_S);
static CONTACTS_HISTORY: Spec = listing(&CONTACTS_HISTORY_S);
static CONTACTS_UPDATE: Spec = listing(&CONTACTS_UPDATE_S);
static AGENTS: Spec = counting(&AGENTS_S, &AGENTS_ASK, AGENT_ASKS, AGENT_COLUMNS);
static ONBOARD: Spec = listing(&ONBOARD_S);
static POST_SCAN: Spec = listing(&POST_SCAN_S);

const DATED: &str = "i.message_date";
/// An event without a time belongs to the row its id has, if it has one.
const UNDATED: &str = "coalesce((SELECT m.message_date FROM {schema}.messages m \
    WHERE m.message_id = i.message_id ORDER BY m.id + 0 LIMIT 1), i.message_date)";
const SAME_DATE: &str = "AND m.message_date = i.message_date";
const REALTIME: &str = concat!(
    "(message_id, message_date) DO UPDATE SET ",
    include_str!("../sql/messages_upsert_realtime.sql")
);
const HISTORY: &str = concat!(
    "(message_id, message_date) DO UPDATE SET ",
    include_str!("../sql/messages_upsert_history.sql")
);
const BY_PHONE: &str = "c.agent_id = i.agent_id AND c.phone_number = i.phone_number \
    ORDER BY c.created_at, c.id";
/// The first service's history knew a contact by its chat.
const BY_CHAT_OR_PHONE: &str = "c.id = coalesce(\
    (SELECT k.id FROM {schema}.contacts k WHERE k.chat_id = nullif(i.chat_id, '')), \
    (SELECT k.id FROM {schema}.contacts k WHERE k.agent_id = i.agent_id \
     AND k.phone_number = i.phone_number ORDER BY k.created_at, k.id LIMIT 1))";
/// History on a row of realtime: an effect only where the name is empty. Two rows of a call that find one
/// contact, one of them by its chat, take turns: the second in a batch of its own, unless it is of the same
/// event. Items of one event on one contact have their effects one after the other.
const FILL_CODE: &str = "CASE WHEN row_number() OVER (PARTITION BY t.id ORDER BY i.n) > 1 \
    THEN CASE WHEN first_value(i.meta->'stream_sequence') OVER (PARTITION BY t.id ORDER BY i.n) \
        = i.meta->'stream_sequence' THEN 1 ELSE 5 END \
    WHEN {foreign:t.last_metadata:i.meta} \
    THEN CASE WHEN coalesce(t.push_name, '') = '' THEN 0 ELSE 6 END \
    WHEN t.updated_at = $2 AND t.last_metadata->'stream_sequence' = i.meta->'stream_sequence' THEN 0 \
    ELSE {fate:t.last_metadata:i.meta:i.horizon} END";

/// A chat belongs to one contact: the first that names it and has none, in the table or in the call. Those
/// that take no chat are in nobody's way.
const FREE_CHAT: &str = "CASE WHEN coalesce(o.chat_id, '') = '' \
    OR EXISTS (SELECT FROM {schema}.contacts c WHERE c.chat_id = o.chat_id OFFSET 0) \
    OR row_number() OVER (PARTITION BY o.chat_id, {takes} ORDER BY o.n) > 1 THEN NULL ELSE o.chat_id END";
/// Does an upsert set the chat of its contact?
const UPSERT_TAKES: &str = "o.code = 0 AND coalesce(o.old_chat, '') = ''";
/// Does a message make its contact? One that is there gets no chat.
const ONBOARD_TAKES: &str = "o.found IS NULL AND NOT o.is_logged";
/// The id made of company, agent and phone, unless somebody gave that contact another phone since.
const FREE_ID: &str = "CASE WHEN EXISTS (SELECT FROM {schema}.contacts c WHERE c.id = old.id OFFSET 0) \
    THEN gen_random_uuid()::text ELSE old.id END";

fn messages(schema: &str, date: &str, conflict: &str) -> String {
    let text = include_str!("../sql/messages_upsert.sql");
    expand(text, schema, &[("date", date), ("conflict", conflict)])
}

fn chats(schema: &str, update: &str) -> String {
    expand(include_str!("../sql/chats_upsert.sql"), schema, &[("update", update)])
}

fn contacts(schema: &str, found: &str, code: &str, fills: &str) -> String {
    let parts = [
        ("found", found),
        ("code", code),
        ("fills", fills),
        ("free_chat", FREE_CHAT),
        ("free_id", FREE_ID),
        ("takes", UPSERT_TAKES),
    ];
    expand(include_str!("../sql/contacts_upsert.sql"), schema, &parts)
}

/// Fills in `{name}` and `{name:argument:...}`; parts may hold further ones.
fn expand(text: &str, schema: &str, parts: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((inner, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        let mut words = inner.split(':');
        let name = words.next().unwrap_or_default();
        let arguments: Vec<&str> = words.collect();
        match (name, arguments.as_slice()) {
            ("schema", _) => out.push_str(schema),
            ("newer", [stored, new, horizon]) => out.push_str(&newer(stored, new, horizon)),
            ("foreign", [stored, new]) => out.push_str(&foreign(stored, new)),
            ("fate", [stored, new, horizon]) => out.push_str(&fate(stored, new, horizon)),
            ("judge", [row, new, horizon]) => out.push_str(&judge(row, new, horizon)),
            ("union", [old, more]) => out.push_str(&union(old, more)),
            ("rows", columns) => out.push_str(&rows(columns)),
            _ => {
                let part = parts.iter().find(|(part, _)| *part == name).map(|(_, text)| *text);
                out.push_str(&expand(part.unwrap_or_default(), schema, parts));
            }
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The rows of a call, each column a parameter's array, from `$4` on. Unnested in the list of what is
/// selected, not in FROM, where they would be gathered in a tuple store first: 2 us a row of 39 (PostgreSQL
/// 15).
fn rows(columns: &[&str]) -> String {
    let unnested = columns.iter().enumerate().map(|(at, column)| {
        let (name, of) = column.trim().split_once(' ').unwrap_or_default();
        format!("unnest(${}::{of}[]) AS {name}", at + 4)
    });
    format!("(SELECT {})", unnested.collect::<Vec<_>>().join(", "))
}

/// Is `new` newer than what the row remembers? Positions of another stream do not compare. A position from
/// before the horizon (the stream's creation, or the event's own publishing) says nothing. Compared as JSON
/// and as text, so that a strange value of another writer is no error.
fn newer(stored: &str, new: &str, horizon: &str) -> String {
    format!(
        "(coalesce({stored}->>'stream', '') <> {new}->>'stream' \
         OR coalesce({stored}->'stream_sequence' < {new}->'stream_sequence', true) \
         OR {})",
        before(stored, horizon)
    )
}

fn before(stored: &str, horizon: &str) -> String {
    format!("coalesce(rtrim({stored}->>'processed_at', 'Z') COLLATE \"C\" < {horizon}, false)")
}

/// Was the row written by another stream that we know the name of?
fn foreign(stored: &str, new: &str) -> String {
    format!("(coalesce({stored}->>'stream', '') NOT IN ('', {new}->>'stream'))")
}

fn fate(stored: &str, new: &str, horizon: &str) -> String {
    format!("CASE WHEN {} THEN 0 ELSE {} END", newer(stored, new, horizon), ranked(stored, new))
}

fn ranked(stored: &str, new: &str) -> String {
    format!("CASE WHEN {stored}->'stream_sequence' = {new}->'stream_sequence' THEN 1 ELSE 2 END")
}

/// After a call that counted too few: what this batch wrote itself bears its time, and is not told apart from
/// what a later wave of it wrote.
fn judge(row: &str, new: &str, horizon: &str) -> String {
    let stored = &format!("{row}.last_metadata");
    format!(
        "CASE WHEN {row}.updated_at = $2 THEN 0 WHEN {} THEN 6 WHEN {} THEN 5 ELSE {} END",
        foreign(stored, new),
        before(stored, horizon),
        ranked(stored, new)
    )
}

/// Two lists of tags: trimmed, each once, in order, the old ones first.
fn union(old: &str, more: &str) -> String {
    format!(
        "coalesce((SELECT string_agg(tag, ',' ORDER BY at) FROM (\
         SELECT btrim(word) AS tag, min(place) AS at \
         FROM unnest(string_to_array({old} || ',' || {more}, ',')) WITH ORDINALITY AS w (word, place) \
         WHERE btrim(word) <> '' GROUP BY btrim(word)) tags), '')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; Kind::COUNT] = [
        Kind::Agents,
        Kind::ChatsHistory,
        Kind::Chats,
        Kind::ChatsUpdate,
        Kind::MessagesHistory,
        Kind::MessagesHistoryUndated,
        Kind::Messages,
        Kind::MessagesUndated,
        Kind::MessagesUpdate,
        Kind::ContactsHistory,
        Kind::Contacts,
        Kind::ContactsUpdate,
        Kind::Onboard,
        Kind::PostScan,
    ];

    #[test]
    fn texts_are_filled_in_and_take_as_many_parameters_as_there_are_columns() {
        let mut names = Vec::new();
        for kind in KINDS {
            let spec = kind.spec();
            let first = spec.first.map(|first| (first, spec.picks));
            let pairs = [Some((spec.statement, spec.picks)), first, spec.again];
            for (statement, picks) in pairs.into_iter().flatten() {
                let text = (statement.text)("\"daisi_x\"");
                // Braces of array literals do not occur; any that is left was not filled in.
                assert!(
                    !text.contains('{') && text.contains("\"daisi_x\"."),
                    "{statement:?}\n{text}"
                );
                assert_eq!(picks.len(), statement.types.len(), "{statement:?}");
                for (pick, of) in picks.iter().zip(statement.types) {
                    assert_eq!(spec.columns[*pick], *of, "{statement:?} column {pick}");
                }
                let last = format!("${}", 3 + picks.len());
                let beyond = format!("${}", 4 + picks.len());
                assert!(text.contains(&last) && !text.contains(&beyond), "{statement:?}");
                names.push(statement.name);
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 19, "a statement without a name of its own, or one that is new");
    }
}
