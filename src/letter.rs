//! A dead letter as an operator's commands read it. They must show whatever lies there, also what the worker's
//! decoder refuses (`Catalog::decode_dlq`), and send a body again byte for byte, which that one mends. So it is
//! read here on its own, and little is demanded. Invariant: [`Letter::original`] is what the event was.
//! Source: contract `ingest.md` 2.11, and the members that `edge::pg::exhausted` adds.

pub mod filter;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// A dead letter, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) company: String,
    pub(crate) source_subject: String,
    pub(crate) error_type: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) retry_count: Option<u64>,
    pub(crate) ts: Option<String>,
    pub(crate) stream: Option<String>,
    pub(crate) stream_sequence: Option<u64>,
    pub(crate) original_msg_id: Option<String>,
    pub(crate) published_at: Option<String>,
    pub(crate) original: Original,
}

/// The event's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Original {
    /// It was JSON.
    Json(Vec<u8>),
    /// It came in base64.
    Bytes(Vec<u8>),
    /// It was too large for the letter; so many bytes lie in the stream it came from.
    Omitted(u64),
    /// The letter does not hold it.
    Absent,
}

#[derive(Deserialize)]
struct Document<'a> {
    source_subject: String,
    company: String,
    error_type: Option<String>,
    reason: Option<String>,
    error: Option<String>,
    retry_count: Option<u64>,
    ts: Option<String>,
    stream: Option<String>,
    stream_sequence: Option<u64>,
    original_msg_id: Option<String>,
    published_at: Option<String>,
    #[serde(borrow, default, deserialize_with = "as_it_is")]
    original_payload: Option<&'a RawValue>,
    original_payload_base64: Option<String>,
    original_payload_omitted_bytes: Option<u64>,
}

/// A letter that the table could not take as it is.
#[derive(Deserialize)]
struct Opaque {
    letter_base64: String,
}

/// Also `null`: that may be the whole event.
fn as_it_is<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

impl Letter {
    /// Reads a letter; the reason why not is for people.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if let Ok(Opaque { letter_base64 }) = serde_json::from_slice(bytes) {
            let inner = STANDARD.decode(letter_base64);
            return Self::read_plain(&inner.map_err(|error| format!("letter_base64: {error}"))?);
        }
        Self::read_plain(bytes)
    }

    fn read_plain(bytes: &[u8]) -> Result<Self, String> {
        let document: Document<'_> =
            serde_json::from_slice(bytes).map_err(|error| format!("no dead letter: {error}"))?;
        let original = match (document.original_payload_base64, document.original_payload) {
            // The stronger one: the table keeps the bytes there, and values only beside it.
            (Some(text), _) => {
                let bytes = STANDARD.decode(text);
                let bytes = bytes.map_err(|error| format!("original_payload_base64: {error}"))?;
                let is_json = serde_json::from_slice::<&RawValue>(&bytes).is_ok();
                if is_json { Original::Json(bytes) } else { Original::Bytes(bytes) }
            }
            (None, raw) => match (document.original_payload_omitted_bytes, raw) {
                (Some(size), _) => Original::Omitted(size),
                (None, Some(raw)) => Original::Json(raw.get().as_bytes().to_vec()),
                (None, None) => Original::Absent,
            },
        };
        Ok(Self {
            company: document.company,
            source_subject: document.source_subject,
            error_type: document.error_type,
            reason: document.reason,
            error: document.error,
            retry_count: document.retry_count,
            ts: document.ts,
            stream: document.stream,
            stream_sequence: document.stream_sequence,
            original_msg_id: document.original_msg_id,
            published_at: document.published_at,
            original,
        })
    }

    /// What it says, for scripts; without the body.
    pub(crate) fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        let mut tell = |name: &str, value: Value| {
            if !value.is_null() {
                facts.insert(name.to_owned(), value);
            }
        };
        tell("company", json!(self.company));
        tell("source_subject", json!(self.source_subject));
        tell("error_type", json!(self.error_type));
        tell("reason", json!(self.reason));
        tell("error", json!(self.error));
        tell("retry_count", json!(self.retry_count));
        tell("ts", json!(self.ts));
        tell("stream", json!(self.stream));
        tell("stream_sequence", json!(self.stream_sequence));
        tell("original_msg_id", json!(self.original_msg_id));
        tell("published_at", json!(self.published_at));
        let (form, size) = match &self.original {
            Original::Json(body) => ("json", Some(body.len() as u64)),
            Original::Bytes(body) => ("bytes", Some(body.len() as u64)),
            Original::Omitted(size) => ("omitted", Some(*size)),
            Original::Absent => ("absent", None),
        };
        tell("original_form", json!(form));
        tell("original_bytes", json!(size));
        facts
    }

    /// The body for scripts: as text if it is JSON, because a reader of JSON would not keep its bytes.
    pub(crate) fn body_fact(&self) -> Option<(&'static str, Value)> {
        match &self.original {
            Original::Json(body) => Some(("original", json!(String::from_utf8_lossy(body)))),
            Original::Bytes(body) => Some(("original_base64", json!(STANDARD.encode(body)))),
            Original::Omitted(_) | Original::Absent => None,
        }
    }

    /// The body for people.
    pub(crate) fn body_text(&self) -> String {
        match &self.original {
            Original::Json(body) => plain(&String::from_utf8_lossy(body)),
            Original::Bytes(body) => match std::str::from_utf8(body) {
                Ok(text) => plain(text),
                Err(_) => format!("(not text; base64) {}", STANDARD.encode(body)),
            },
            Original::Omitted(size) => {
                format!(
                    "({size} bytes, too large for the letter; `retry` reads it from its stream)"
                )
            }
            Original::Absent => "(the letter does not hold it)".to_owned(),
        }
    }

    /// Whether it belongs to one of the classes: a type of error or the label of a reason.
    pub(crate) fn is_of(&self, classes: &[String]) -> bool {
        let is = |name: &Option<String>| name.as_ref().is_some_and(|name| classes.contains(name));
        classes.is_empty() || is(&self.error_type) || is(&self.reason)
    }
}

/// Text of somebody else's that a terminal may show: control characters are escaped, line ends and tabs stay.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => shown.push(char),
            _ if char.is_control() => shown.extend(char.escape_default()),
            _ => shown.push(char),
        }
    }
    shown
}

/// The same on one line of at most `chars_max`.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let shown = plain(text).replace(['\n', '\t'], " ");
    match shown.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}...", &shown[..end]),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(letter: &str) -> Original {
        Letter::read(letter.as_bytes()).expect("a letter").original
    }

    #[test]
    fn the_body_keeps_its_bytes_whatever_form_it_has() {
        let head = r#"{"source_subject":"s","company":"A","#;
        let of = |rest: &str| original(&format!("{head}{rest}}}"));
        let odd = "{ \"n\" : 1.0e2,\n\"s\":\"\\ud800\" }";
        assert_eq!(of(&format!("\"original_payload\":{odd}")), Original::Json(odd.into()));
        assert_eq!(of(r#""original_payload":null"#), Original::Json(b"null".to_vec()));
        let base64 = r#""original_payload":null,"original_payload_base64":"/w==""#;
        assert_eq!(of(base64), Original::Bytes(vec![0xff]));
        let both = r#""original_payload":{"a":1},"original_payload_base64":"eyAiYSI6MX0=""#;
        assert_eq!(of(both), Original::Json(b"{ \"a\":1}".to_vec()));
        let omitted = r#""original_payload":null,"original_payload_omitted_bytes":9"#;
        assert_eq!(of(omitted), Original::Omitted(9));
        assert_eq!(of(r#""error":"e""#), Original::Absent);
        let opaque = STANDARD.encode(format!("{head}\"original_payload\":[1 ]}}"));
        let opaque = format!("{{\"letter_base64\":\"{opaque}\",\"daisi_letter\":\"x\"}}");
        assert_eq!(original(&opaque), Original::Json(b"[1 ]".to_vec()));
    }

    #[test]
    fn what_is_no_letter_says_why() {
        let why = |bytes: &[u8]| Letter::read(bytes).expect_err("no letter");
        assert!(why(b"not json").contains("line 1"));
        assert!(why(br#"{"company":"A"}"#).contains("source_subject"));
        assert!(
            why(br#"{"source_subject":"s","company":"A","original_payload_base64":"*"}"#)
                .starts_with("original_payload_base64")
        );
    }

    #[test]
    fn a_terminal_is_shown_no_control_characters() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\nc");
        assert_eq!(one_line("a\nb\u{7}cdef", 6), "a b\\u{...");
    }
}
