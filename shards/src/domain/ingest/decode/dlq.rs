//! Dead letters as they are read back: ours, those of the capture stages, and those of the old service.
//! Invariant: `company` is the subject's. Source: contract `ingest.md` sections 2.11 and 6.5.

use super::read::{Fault, Source, Wrong, slots};
use crate::domain::ingest::event::Text;
use crate::domain::ingest::refusal::Reason;

/// A dead letter. Section 2.11; what is optional there may be absent from letters of the old service.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DlqMessage<'a> {
    /// Subject of the event, with its company.
    pub source_subject: Text<'a>,
    /// The event as JSON text; nothing if it is no JSON or was `null`.
    pub original_payload: Option<&'a str>,
    /// The event in base64 if it is no JSON.
    pub original_payload_base64: Option<Text<'a>>,
    /// Whether an escaped U+0000 stands in the letter, which `jsonb` refuses.
    pub has_nul: bool,
    /// Class and cause.
    pub error: Text<'a>,
    /// `fatal`, `retryable` or `unknown`.
    pub error_type: Text<'a>,
    /// Deliveries at dead-lettering.
    pub retry_count: i64,
    /// Deliveries at which it was given up.
    pub max_retry: i64,
    /// When, RFC 3339.
    pub ts: Text<'a>,
    /// Stream of the event.
    pub stream: Option<Text<'a>>,
    /// Its sequence there.
    pub stream_sequence: Option<i64>,
    /// Its `Nats-Msg-Id`.
    pub original_msg_id: Option<Text<'a>>,
    /// JetStream's timestamp of it, RFC 3339.
    pub published_at: Option<Text<'a>>,
}

slots!(DlqSlots {
    source_subject: b"source_subject",
    company: b"company",
    original_payload: b"original_payload",
    original_payload_base64: b"original_payload_base64",
    error: b"error",
    error_type: b"error_type",
    retry_count: b"retry_count",
    max_retry: b"max_retry",
    ts: b"ts",
    stream: b"stream",
    stream_sequence: b"stream_sequence",
    original_msg_id: b"original_msg_id",
    published_at: b"published_at",
});

/// `v1.dlq`
pub(crate) fn dlq(source: Source<'_>) -> Result<DlqMessage<'_>, Fault> {
    let s: DlqSlots = source.members()?;
    let source_subject = source.required(s.source_subject, "/source_subject")?;
    source.required(s.company, "/company")?;
    let letter = DlqMessage {
        source_subject,
        original_payload: source.any(s.original_payload),
        original_payload_base64: source
            .text(s.original_payload_base64, "/original_payload_base64")?,
        has_nul: source.has_nul(),
        error: source.given(s.error, "/error")?,
        error_type: error_type(source.given(s.error_type, "/error_type")?)?,
        retry_count: count(source.natural(s.retry_count, "/retry_count")?, "/retry_count")?,
        max_retry: count(source.integer(s.max_retry, "/max_retry")?, "/max_retry")?,
        ts: time(source.given(s.ts, "/ts")?, "/ts")?,
        stream: source.text(s.stream, "/stream")?,
        stream_sequence: source.natural(s.stream_sequence, "/stream_sequence")?,
        original_msg_id: source.text(s.original_msg_id, "/original_msg_id")?,
        published_at: source
            .text(s.published_at, "/published_at")?
            .map(|text| time(text, "/published_at"))
            .transpose()?,
    };
    source.company(s.company, "/company")?;
    Ok(letter)
}

fn count(value: Option<i64>, at: &'static str) -> Result<i64, Wrong> {
    value.ok_or(Wrong::new(Reason::Missing, at))
}

fn error_type(text: Text<'_>) -> Result<Text<'_>, Wrong> {
    match text.as_ref() {
        "fatal" | "retryable" | "unknown" => Ok(text),
        _ => Err(Wrong::new(Reason::BadValue, "/error_type")),
    }
}

fn time<'a>(text: Text<'a>, at: &'static str) -> Result<Text<'a>, Wrong> {
    if is_time(text.as_bytes()) { Ok(text) } else { Err(Wrong::new(Reason::BadValue, at)) }
}

/// RFC 3339, and a day that the calendar has: PostgreSQL must be able to take it.
fn is_time(text: &[u8]) -> bool {
    let Some((head, rest)) = text.split_at_checked("0000-00-00T00:00:00".len()) else {
        return false;
    };
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().try_fold(0_u32, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0'))
        })
    };
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
        return false;
    };
    let (Some(hour), Some(minute), Some(second)) = (number(11..13), number(14..16), number(17..19))
    else {
        return false;
    };
    let marks = [head[4], head[7], head[10], head[13], head[16]];
    marks == *b"--T::"
        && year > 0
        && (1..=days(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && is_zone(without_fraction(rest))
}

fn days(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap),
        1..=12 => 31,
        _ => 0,
    }
}

fn without_fraction(text: &[u8]) -> &[u8] {
    let Some(digits) = text.strip_prefix(b".") else { return text };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 { text } else { &digits[len..] }
}

/// `Z`, or an offset of less than 16 hours, which is what PostgreSQL takes.
fn is_zone(text: &[u8]) -> bool {
    match text {
        b"Z" => true,
        [b'+' | b'-', hour @ .., b':', b'0'..=b'5', b'0'..=b'9'] => {
            matches!(hour, [b'0', b'0'..=b'9'] | [b'1', b'0'..=b'5'])
        }
        _ => false,
    }
}
