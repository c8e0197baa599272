//! Why an event is refused: a reason for metrics, and path, rule and value for the dead letter. Cold.
//! Invariant: no text of a message, no pairing code and no phone number ever stands in a refusal.
//! Source: contract `ingest.md` 2.0, 6.2 and DESIGN section 6.

use serde_json::Value;
use std::fmt;

/// Class of a refusal; the label values of a metric. All are fatal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The subject names no event that we know.
    UnknownSubject,
    /// The subject's company is not `[A-Za-z0-9_-]{1,48}`.
    BadCompany,
    /// The body is empty or no JSON.
    BadJson,
    /// The body is nested too deeply.
    TooDeep,
    /// The body is larger than the decoder can address (1 GiB).
    TooLarge,
    /// A value is of another JSON type.
    WrongType,
    /// A required member is absent or null.
    Missing,
    /// A required member is empty.
    Empty,
    /// A number is outside what its member may hold.
    OutOfRange,
    /// A value is none of those allowed.
    BadValue,
    /// A string holds U+0000, which PostgreSQL cannot store.
    Nul,
    /// The payload belongs to another company than its subject.
    CompanyMismatch,
    /// Only the schema that an operator put in place of ours refuses it.
    OwnSchema,
}

impl Reason {
    /// Every reason, to declare metrics with.
    pub const ALL: [Self; 13] = [
        Self::UnknownSubject,
        Self::BadCompany,
        Self::BadJson,
        Self::TooDeep,
        Self::TooLarge,
        Self::WrongType,
        Self::Missing,
        Self::Empty,
        Self::OutOfRange,
        Self::BadValue,
        Self::Nul,
        Self::CompanyMismatch,
        Self::OwnSchema,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSubject => "unknown_subject",
            Self::BadCompany => "bad_company",
            Self::BadJson => "bad_json",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::WrongType => "wrong_type",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::OutOfRange => "out_of_range",
            Self::BadValue => "bad_value",
            Self::Nul => "nul",
            Self::CompanyMismatch => "company_mismatch",
            Self::OwnSchema => "own_schema",
        }
    }
}

/// An event that is refused. Its text is the cause in a dead letter's `error`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Its class.
    pub reason: Reason,
    /// JSON pointer to the value at fault; empty for the whole body.
    pub path: String,
    /// The rule that it breaks, as a pointer into the schema; a word where no schema states it.
    pub rule: String,
    /// The value, shortened, or what it is where it may be private.
    pub value: String,
    /// What is wrong, in the schema's words.
    pub words: String,
}

impl Refusal {
    /// The subject itself is at fault.
    pub(crate) fn of_subject(reason: Reason, subject: &str) -> Self {
        let words = match reason {
            Reason::BadCompany => "the company in the subject must match [A-Za-z0-9_-]{1,48}",
            Reason::CompanyMismatch => "the letter carries an event of another company",
            _ => "the subject names no event that is known here",
        };
        let value = shortened(subject);
        Self {
            reason,
            path: String::new(),
            rule: "subject".to_owned(),
            value,
            words: words.to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} (rule {}", self.words, self.rule)?;
        if !self.value.is_empty() {
            write!(f, ", value {}", self.value)?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Refusal {}

/// Members whose values are no secret and tell the operator most. What is not here is described only.
const SHOWN: [&str; 22] = [
    "chat_id",
    "message_id",
    "agent_id",
    "company_id",
    "company",
    "id",
    "flow",
    "status",
    "message_type",
    "message_timestamp",
    "conversation_timestamp",
    "unread_count",
    "is_group",
    "not_spam",
    "is_deleted",
    "is_campaign",
    "is_last_batch",
    "fromMe",
    "from_me",
    "source_subject",
    "error_type",
    "ts",
];
/// Members whose insides are free: names in them mean nothing to us.
const FREE: [&str; 4] = ["last_message", "message_obj", "edited_message_obj", "original_payload"];
/// Characters of a path or of words; no rule of ours comes near.
const LINE_CHARS_MAX: usize = 300;
/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 40;

/// A value at a path, fit for an error.
pub(crate) fn shown(path: &str, value: &Value) -> String {
    let mut names = path.rsplit('/').filter(|name| !name.bytes().all(|b| b.is_ascii_digit()));
    let is_shown = names.next().is_some_and(|name| SHOWN.contains(&name))
        && !names.any(|name| FREE.contains(&name));
    match value {
        Value::Null | Value::Bool(_) => value.to_string(),
        Value::Number(number) if is_shown => number.to_string(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(text) if is_shown => shortened(text),
        Value::String(text) => format!("a string of {} characters", text.chars().count()),
        Value::Array(elements) => format!("an array of {}", elements.len()),
        Value::Object(members) => format!("an object of {} members", members.len()),
    }
}

/// A text that may hold names from the payload: cut, with control characters escaped.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == LINE_CHARS_MAX {
            line.push_str("...");
            break;
        }
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

/// A text in quotes, cut, with control characters escaped.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_label() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }

    #[test]
    fn what_may_be_private_is_described_not_shown() {
        let check =
            |path, value, expected: &str| assert_eq!(shown(path, &value), expected, "{path}");
        check("/flow", json!("sideways"), "\"sideways\"");
        check("/messages/3/unread_count", json!(-1.5), "-1.5");
        check("/qr_code", json!("2@secret"), "a string of 8 characters");
        check("/from_phone", json!(6_281_100_022_u64), "a number");
        check("/message_obj", json!("hello"), "a string of 5 characters");
        check("/message_obj/id", json!("hello"), "a string of 5 characters");
        check("/last_message/0", json!("hello"), "a string of 5 characters");
        check("", json!([1, 2]), "an array of 2");
        check("/key", json!({"id": "x"}), "an object of 1 members");
        let long = json!("é".repeat(100));
        check("/status", long, &format!("\"{}\"...", "é".repeat(40)));
        check("/status", json!("a\u{0}\n"), r#""a\0\n""#);
    }
}
