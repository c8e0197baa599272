//! Dead letters. Invariant: a dead letter is valid JSON whatever the event was, and never deeper than
//! what a usual reader takes. Fields: contract `ingest.md` 2.11. A cold path: it may allocate.

use super::sink::Sink;
use crate::domain::json::{Cursor, Place, TEXT_BYTES_MAX};
use base64::Engine;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Company token of a dead letter that belongs to nobody known.
pub const DLQ_COMPANY_UNKNOWN: &str = "_unknown";

/// Whether trying again could help.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorType {
    /// The event is wrong.
    Fatal,
    /// The event met trouble too often.
    Retryable,
}

/// An event that is given up, and why.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Subject it came on.
    pub source_subject: &'a [u8],
    /// Company, or `None` where no valid one can be read.
    pub company: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
    /// Class of the error.
    pub error_type: ErrorType,
    /// `<step>: <cause>`; the class is put before it.
    pub error: &'a str,
    /// Label of the reason, where the stage has one.
    pub reason: Option<&'a str>,
    /// Deliveries so far.
    pub retry_count: u64,
    /// Deliveries at which it would have been given up.
    pub retry_max: i64,
    /// Time of dead-lettering, RFC 3339 with nanoseconds, UTC.
    pub dead_lettered_at: &'a str,
    /// Stream it is stored in.
    pub stream: Option<&'a str>,
    /// Its sequence there.
    pub stream_sequence: Option<u64>,
    /// Its `Nats-Msg-Id`.
    pub message_id: Option<&'a str>,
    /// JetStream's timestamp of it, RFC 3339.
    pub published_at: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    source_subject: Cow<'a, str>,
    company: &'a str,
    original_payload: Option<&'a RawValue>,
    error: String,
    error_type: ErrorType,
    retry_count: u64,
    max_retry: i64,
    ts: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_payload_omitted_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_msg_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<&'a str>,
}

/// Appends `v1.dlq.<company>`.
pub fn write_dlq_subject(company: Option<&str>, out: &mut impl Sink) {
    out.put(b"v1.dlq.");
    out.put(company.unwrap_or(DLQ_COMPANY_UNKNOWN).as_bytes());
}

/// Appends the dead letter. A body that is no JSON (or too deep for most readers) goes in as base64;
/// one that takes more than `payload_bytes_max` bytes, in either form, is left out and its size told in
/// `original_payload_omitted_bytes`: it can be read from `stream` at `stream_sequence`.
pub fn write_dlq_payload(letter: &DeadLetter<'_>, payload_bytes_max: usize, out: &mut BytesMut) {
    let mut document = describe(letter);
    let raw = raw_json(letter.body);
    let embedded_bytes = match raw {
        Some(raw) => raw.get().len(),
        None => letter.body.len().div_ceil(3).saturating_mul(4),
    };
    if embedded_bytes > payload_bytes_max {
        document.original_payload_omitted_bytes = Some(letter.body.len());
    } else if raw.is_some() {
        document.original_payload = raw;
    } else {
        let text = base64::engine::general_purpose::STANDARD.encode(letter.body);
        document.original_payload_base64 = Some(text);
    }
    let written = serde_json::to_writer(out.writer(), &document);
    assert!(written.is_ok(), "strings and numbers always serialize, and a BytesMut takes them");
}

fn describe<'a>(letter: &DeadLetter<'a>) -> Document<'a> {
    let class = match letter.error_type {
        ErrorType::Fatal => "fatal",
        ErrorType::Retryable => "retryable",
    };
    Document {
        source_subject: String::from_utf8_lossy(letter.source_subject),
        company: letter.company.unwrap_or(DLQ_COMPANY_UNKNOWN),
        original_payload: None,
        error: format!("{class}: {}", letter.error),
        error_type: letter.error_type,
        retry_count: letter.retry_count,
        max_retry: letter.retry_max,
        ts: letter.dead_lettered_at,
        original_payload_base64: None,
        original_payload_omitted_bytes: None,
        reason: letter.reason,
        stream: letter.stream,
        stream_sequence: letter.stream_sequence,
        original_msg_id: letter.message_id,
        published_at: letter.published_at,
    }
}

/// The body as it can be put into a document: by our own cursor first, which bounds its depth.
fn raw_json(body: &[u8]) -> Option<&RawValue> {
    if body.len() >= TEXT_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let mut cursor = Cursor::new(body, Place::Body);
    cursor.value().and_then(|_| cursor.finish()).ok()?;
    serde_json::from_str(text).ok()
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test that cannot read its own data must fail")]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    fn letter(body: &[u8]) -> DeadLetter<'_> {
        DeadLetter {
            source_subject: b"cdc.ACME.chats",
            company: Some("ACME"),
            body,
            error_type: ErrorType::Fatal,
            error: "transform: bad \"key\"",
            reason: Some("missing_key"),
            retry_count: 1,
            retry_max: 5,
            dead_lettered_at: "2026-01-02T03:04:05.678000000Z",
            stream: Some("cdc_events_stream"),
            stream_sequence: Some(7),
            message_id: None,
            published_at: None,
        }
    }

    fn written(letter: &DeadLetter<'_>, limit: usize) -> Value {
        let mut out = BytesMut::new();
        write_dlq_payload(letter, limit, &mut out);
        serde_json::from_slice(&out).expect("a dead letter is JSON")
    }

    #[test]
    fn fields_stand_in_the_order_of_the_contract() {
        let mut out = BytesMut::new();
        write_dlq_payload(&letter(br#"{"n":9007199254740993}"#), 1000, &mut out);
        let text = std::str::from_utf8(&out).expect("UTF-8");
        assert_eq!(
            text,
            concat!(
                r#"{"source_subject":"cdc.ACME.chats","company":"ACME","#,
                r#""original_payload":{"n":9007199254740993},"#,
                r#""error":"fatal: transform: bad \"key\"","error_type":"fatal","#,
                r#""retry_count":1,"max_retry":5,"ts":"2026-01-02T03:04:05.678000000Z","#,
                r#""reason":"missing_key","stream":"cdc_events_stream","stream_sequence":7}"#
            )
        );
    }

    #[test]
    fn body_that_is_no_json_or_too_deep_goes_in_as_base64() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for body in [&b"not json"[..], b"\xff\xfe", b"", b"{} x", deep.as_bytes()] {
            let out = written(&letter(body), 100_000);
            assert_eq!(out["original_payload"], Value::Null);
            assert_eq!(out["original_payload_base64"], json!(STANDARD.encode(body)));
        }
    }

    #[test]
    fn body_beyond_the_bound_is_left_out_and_says_so() {
        let body = format!("[{}]", "1,".repeat(500) + "1");
        for (limit, is_there) in [(body.len(), true), (body.len() - 1, false)] {
            let out = written(&letter(body.as_bytes()), limit);
            assert_eq!(out["original_payload"].is_array(), is_there);
            assert_eq!(out.get("original_payload_omitted_bytes").is_some(), !is_there);
            assert_eq!(out["stream_sequence"], json!(7));
        }
        let out = written(&letter(b"not json"), 11);
        assert_eq!(out["original_payload_omitted_bytes"], json!(8));
    }

    #[test]
    fn event_of_nobody_goes_to_the_unknown_company() {
        let mut subject = Vec::new();
        write_dlq_subject(None, &mut subject);
        assert_eq!(subject, b"v1.dlq._unknown");
        let nobody = DeadLetter { company: None, source_subject: b"\xff", ..letter(b"{}") };
        let out = written(&nobody, 10);
        assert_eq!(out["company"], json!("_unknown"));
        assert_eq!(out["source_subject"], json!("\u{fffd}"));
    }
}
