//! Publish acks. Invariant: a success has a sequence above 0 and no `error`; anything else is not an
//! ack. Runs once an event, so the usual form is scanned by hand without allocating; whatever looks
//! unusual goes to a JSON parser, which decides. Source: NATS ADR-1; section "JetStream publish" of the
//! documentation; spelling differs between servers up to 2.11 and from 2.12 on.

use super::error::{ApiError, ErrorClass};
use crate::wire::decimal;
use memchr::memchr2;
use serde::Deserialize;
use std::borrow::Cow;

/// The stream has the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubAck<'a> {
    /// Stream that answered. Anyone may answer a publish, so this is to be compared.
    pub stream: Cow<'a, str>,
    /// Position of the message, or of the first copy if `duplicate`. Above 0.
    pub seq: u64,
    /// The stream had a message of this id already.
    pub duplicate: bool,
}

/// A reply that is not an ack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PubAckError {
    /// The stream refused.
    #[error(transparent)]
    Api(ApiError),
    /// Sequence 0: the first copy of this id is still in flight and may yet fail. Ask again.
    #[error("publish ack without a sequence, duplicate {duplicate}")]
    Unsettled {
        /// As the reply said.
        duplicate: bool,
    },
    /// Not a publish ack at all; the outcome is unknown.
    #[error("publish ack of {size} bytes is malformed")]
    Malformed {
        /// Bytes of the reply.
        size: usize,
    },
}

impl PubAckError {
    /// What to do about it. An unknown outcome is transient: the same id is asked about again.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Api(error) => error.class(),
            Self::Unsettled { .. } | Self::Malformed { .. } => ErrorClass::Transient,
        }
    }
}

impl<'a> PubAck<'a> {
    /// Reads the payload of a reply to a publish.
    ///
    /// # Errors
    /// [`PubAckError`]: the message is not known to be stored.
    pub fn parse(payload: &'a [u8]) -> Result<Self, PubAckError> {
        let ack = match scan(payload) {
            Some(ack) => ack,
            None => parse_any(payload)?,
        };
        if ack.seq == 0 {
            return Err(PubAckError::Unsettled { duplicate: ack.duplicate });
        }
        Ok(ack)
    }
}

/// Reads a flat object of plain strings, unsigned numbers and booleans with `stream` and `seq` in it
/// once each. `None` is "look closer", never "wrong".
fn scan(payload: &[u8]) -> Option<PubAck<'_>> {
    let mut rest = payload.strip_prefix(b"{")?;
    let (mut stream, mut seq, mut duplicate) = (None, None, None);
    loop {
        let (key, after) = scan_string(rest.trim_ascii_start())?;
        let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        rest = match key {
            b"stream" if stream.is_none() => {
                let (text, after) = scan_string(value)?;
                stream = Some(text);
                after
            }
            b"seq" if seq.is_none() => {
                let (number, after) = scan_number(value)?;
                seq = Some(number);
                after
            }
            b"duplicate" if duplicate.is_none() => {
                let (flag, after) = scan_bool(value)?;
                duplicate = Some(flag);
                after
            }
            b"domain" | b"batch" => scan_string(value)?.1,
            b"count" => scan_number(value)?.1,
            _ => return None,
        };
        rest = rest.trim_ascii_start();
        match rest.split_first()? {
            (b',', after) => rest = after,
            (b'}', after) if after.trim_ascii_start().is_empty() => break,
            _ => return None,
        }
    }
    let stream = Cow::Borrowed(std::str::from_utf8(stream?).ok()?);
    Some(PubAck { stream, seq: seq?, duplicate: duplicate.unwrap_or(false) })
}

/// A string without escapes and control bytes.
fn scan_string(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let input = input.strip_prefix(b"\"")?;
    let end = memchr2(b'"', b'\\', input)?;
    let text = &input[..end];
    let is_plain = input[end] == b'"' && text.iter().all(|&byte| byte >= b' ');
    is_plain.then_some((text, &input[end + 1..]))
}

fn scan_number(input: &[u8]) -> Option<(u64, &[u8])> {
    let len = input.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = input.split_at(len);
    // JSON has no leading zeros; a fraction or an exponent fails at the comma that is not there.
    if digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    Some((decimal::parse(digits)?, rest))
}

fn scan_bool(input: &[u8]) -> Option<(bool, &[u8])> {
    if let Some(rest) = input.strip_prefix(b"true") {
        return Some((true, rest));
    }
    input.strip_prefix(b"false").map(|rest| (false, rest))
}

#[derive(Deserialize)]
struct AnyAck<'a> {
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[cold]
fn parse_any(payload: &[u8]) -> Result<PubAck<'_>, PubAckError> {
    let malformed = PubAckError::Malformed { size: payload.len() };
    let Ok(any) = serde_json::from_slice::<AnyAck<'_>>(payload) else { return Err(malformed) };
    if let Some(error) = any.error {
        return Err(PubAckError::Api(error));
    }
    match (any.stream, any.seq) {
        (Some(stream), Some(seq)) => Ok(PubAck { stream, seq, duplicate: any.duplicate }),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ack(stream: &str, seq: u64, duplicate: bool) -> Result<PubAck<'_>, PubAckError> {
        Ok(PubAck { stream: Cow::Borrowed(stream), seq, duplicate })
    }

    #[test]
    fn acks_of_all_servers_are_read() {
        let parse = |text: &'static str| PubAck::parse(text.as_bytes());
        assert_eq!(parse(r#"{"stream":"S5", "seq":2}"#), ack("S5", 2, false));
        assert_eq!(parse(r#"{"stream":"S5","seq":2}"#), ack("S5", 2, false));
        assert_eq!(parse(r#"{"stream":"S5", "seq":2,"duplicate": true}"#), ack("S5", 2, true));
        assert_eq!(parse(r#"{"stream":"V","domain":"hub","seq":1}"#), ack("V", 1, false));
        assert_eq!(parse(r#"{"stream":"AB","seq":4,"batch":"u1","count":4}"#), ack("AB", 4, false));
        assert_eq!(parse(r#"{"new":[{"a":1}],"stream":"A\u003e","seq":4}"#), ack("A>", 4, false));
        assert_eq!(parse(r#"{"stream":"S","seq":2,"error":null}"#), ack("S", 2, false));
    }

    #[test]
    fn sequence_zero_and_errors_are_not_acks() {
        let first_in_flight = br#"{"stream":"KV_r", "seq":0,"duplicate": true}"#;
        assert_eq!(PubAck::parse(first_in_flight), Err(PubAckError::Unsettled { duplicate: true }));
        let lost = br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"},"stream":"S5","seq":0}"#;
        let error = PubAck::parse(lost).unwrap_err();
        assert_eq!(error.class(), ErrorClass::WrongLastSequence);
        // An error with a sequence is still an error, wherever it stands.
        let late = br#"{"stream":"S5","seq":7,"error":{"code":503,"description":"x"}}"#;
        assert_eq!(PubAck::parse(late).unwrap_err().class(), ErrorClass::Transient);
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in [
            "",
            "{}",
            "+ACK",
            r#"{"stream":"S"}"#,
            r#"{"seq":1}"#,
            r#"{"stream":"S","seq":-1}"#,
            r#"{"stream":"S","seq":1.5}"#,
            r#"{"stream":"S","seq":01}"#,
            r#"{"stream":"S","seq":1"#,
            r#"{"stream":"S","seq":1}x"#,
            r#"{"stream":"S","seq":1,}"#,
            r#"{"stream":"S","seq":1,"seq":2}"#,
            r#"{"stream":"S","seq":99999999999999999999}"#,
        ] {
            let size = bad.len();
            assert_eq!(
                PubAck::parse(bad.as_bytes()),
                Err(PubAckError::Malformed { size }),
                "{bad}"
            );
        }
    }

    proptest! {
        /// Whatever the scan accepts, the JSON parser reads the same.
        #[test]
        fn scan_agrees_with_the_parser(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", ",", ":", " ", "\"stream\"", "\"seq\"", "\"duplicate\"", "\"S\"", "12", "0",
                "true", "false", "\"count\"", "\"x\\n\"", "-1", "\"stream\":\"S\"", "\"seq\":3",
            ]), 0..12),
        ) {
            let text = format!("{{{}}}", parts.concat());
            if let Some(scanned) = scan(text.as_bytes()) {
                prop_assert_eq!(parse_any(text.as_bytes()), Ok(scanned));
            }
        }
    }
}
