//! Operations -> bytes, one function each, appended to the caller's buffer. Invariant: what the safe
//! functions write is one frame; a subject that would break it, or that a server would drop in silence,
//! is refused. Source: NATS client protocol.

use super::subject::{SubjectError, validate_parts, validate_publish, validate_subscribe};
use crate::wire::decimal;
use bytes::BytesMut;

/// Opens a message without headers.
pub(super) const MSG: &[u8] = b"MSG ";
/// Opens a message with headers.
pub(super) const HMSG: &[u8] = b"HMSG ";
const CRLF: &[u8] = b"\r\n";

/// Appends CONNECT. `json` comes from [`super::auth::connect_json`] and holds no line end.
pub fn encode_connect(out: &mut BytesMut, json: &[u8]) {
    debug_assert!(!json.contains(&b'\r') && !json.contains(&b'\n'));
    push_all(out, &[b"CONNECT ", json, CRLF]);
}

/// Appends PING.
pub fn encode_ping(out: &mut BytesMut) {
    out.extend_from_slice(b"PING\r\n");
}

/// Appends PONG.
pub fn encode_pong(out: &mut BytesMut) {
    out.extend_from_slice(b"PONG\r\n");
}

/// Appends PUB. The size limit of the server (`max_payload`) is the caller's to check.
///
/// # Errors
/// [`SubjectError`] of `subject` or `reply`; nothing is written then.
pub fn encode_pub(
    out: &mut BytesMut,
    subject: &[u8],
    reply: Option<&[u8]>,
    payload: &[u8],
) -> Result<(), SubjectError> {
    check_route(subject, reply)?;
    begin_pub(out, &[subject], reply.as_slice(), payload.len());
    push_all(out, &[payload, CRLF]);
    Ok(())
}

/// Appends HPUB with a raw header block as [`super::headers::HeaderWriter`] makes it.
///
/// # Errors
/// [`SubjectError`] of `subject` or `reply`; nothing is written then.
pub fn encode_hpub(
    out: &mut BytesMut,
    subject: &[u8],
    reply: Option<&[u8]>,
    headers: &[u8],
    payload: &[u8],
) -> Result<(), SubjectError> {
    check_route(subject, reply)?;
    let total_len = headers.len() + payload.len();
    begin_hpub(out, &[subject], reply.as_slice(), headers.len(), total_len);
    push_all(out, &[headers, payload, CRLF]);
    Ok(())
}

/// Appends the control line of a PUB. Subject and reply are given as parts that stand one behind the
/// other, dots included; no parts mean no reply. The caller appends exactly `total_len` bytes and then
/// calls [`end_pub`]. The subject is the caller's to have validated: checked in debug builds only.
pub fn begin_pub(out: &mut BytesMut, subject: &[&[u8]], reply: &[&[u8]], total_len: usize) {
    debug_assert_eq!(validate_parts(subject), Ok(()));
    debug_assert!(reply.is_empty() || validate_parts(reply).is_ok());
    out.extend_from_slice(b"PUB ");
    push_route(out, subject, reply);
    decimal::push(out, total_len as u64);
    out.extend_from_slice(CRLF);
}

/// Appends the control line of an HPUB; as [`begin_pub`], with a block of `header_len` bytes first.
/// `total_len` counts block and payload.
pub fn begin_hpub(
    out: &mut BytesMut,
    subject: &[&[u8]],
    reply: &[&[u8]],
    header_len: usize,
    total_len: usize,
) {
    debug_assert_eq!(validate_parts(subject), Ok(()));
    debug_assert!(reply.is_empty() || validate_parts(reply).is_ok());
    debug_assert!(header_len <= total_len, "the total counts the headers");
    out.extend_from_slice(b"HPUB ");
    push_route(out, subject, reply);
    decimal::push(out, header_len as u64);
    out.extend_from_slice(b" ");
    decimal::push(out, total_len as u64);
    out.extend_from_slice(CRLF);
}

/// Ends what [`begin_pub`] or [`begin_hpub`] began.
pub fn end_pub(out: &mut BytesMut) {
    out.extend_from_slice(CRLF);
}

/// Appends SUB.
///
/// # Errors
/// [`SubjectError`] of `pattern` or `queue`; nothing is written then.
pub fn encode_sub(
    out: &mut BytesMut,
    pattern: &[u8],
    queue: Option<&[u8]>,
    sid: u64,
) -> Result<(), SubjectError> {
    validate_subscribe(pattern)?;
    queue.map_or(Ok(()), validate_publish)?;
    push_all(out, &[b"SUB ", pattern, b" "]);
    if let Some(queue) = queue {
        push_all(out, &[queue, b" "]);
    }
    decimal::push(out, sid);
    out.extend_from_slice(CRLF);
    Ok(())
}

/// Appends UNSUB; with `max`, counted from the SUB on, it takes effect after that many deliveries.
pub fn encode_unsub(out: &mut BytesMut, sid: u64, max: Option<u64>) {
    out.extend_from_slice(b"UNSUB ");
    decimal::push(out, sid);
    if let Some(max) = max {
        out.extend_from_slice(b" ");
        decimal::push(out, max);
    }
    out.extend_from_slice(CRLF);
}

/// Appends MSG, as a server does. Subjects are not checked: servers pass on what they were given.
pub fn encode_msg(
    out: &mut BytesMut,
    subject: &[u8],
    sid: u64,
    reply: Option<&[u8]>,
    payload: &[u8],
) {
    out.extend_from_slice(MSG);
    push_address(out, subject, sid, reply);
    decimal::push(out, payload.len() as u64);
    push_all(out, &[CRLF, payload, CRLF]);
}

/// Appends HMSG, as a server does, with a raw header block.
pub fn encode_hmsg(
    out: &mut BytesMut,
    subject: &[u8],
    sid: u64,
    reply: Option<&[u8]>,
    headers: &[u8],
    payload: &[u8],
) {
    out.extend_from_slice(HMSG);
    push_address(out, subject, sid, reply);
    decimal::push(out, headers.len() as u64);
    out.extend_from_slice(b" ");
    decimal::push(out, (headers.len() + payload.len()) as u64);
    push_all(out, &[CRLF, headers, payload, CRLF]);
}

/// Appends INFO, as a server does: with a blank before the line end.
pub fn encode_info(out: &mut BytesMut, json: &[u8]) {
    push_all(out, &[b"INFO ", json, b" \r\n"]);
}

/// Appends -ERR, as a server does.
pub fn encode_err(out: &mut BytesMut, text: &[u8]) {
    push_all(out, &[b"-ERR '", text, b"'\r\n"]);
}

/// Appends +OK, as a server in verbose mode does.
pub fn encode_ok(out: &mut BytesMut) {
    out.extend_from_slice(b"+OK\r\n");
}

fn check_route(subject: &[u8], reply: Option<&[u8]>) -> Result<(), SubjectError> {
    validate_publish(subject)?;
    reply.map_or(Ok(()), validate_publish)
}

fn push_route(out: &mut BytesMut, subject: &[&[u8]], reply: &[&[u8]]) {
    push_all(out, subject);
    out.extend_from_slice(b" ");
    if !reply.is_empty() {
        push_all(out, reply);
        out.extend_from_slice(b" ");
    }
}

fn push_address(out: &mut BytesMut, subject: &[u8], sid: u64, reply: Option<&[u8]>) {
    push_all(out, &[subject, b" "]);
    decimal::push(out, sid);
    out.extend_from_slice(b" ");
    if let Some(reply) = reply {
        push_all(out, &[reply, b" "]);
    }
}

fn push_all(out: &mut BytesMut, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}
