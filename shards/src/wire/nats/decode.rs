//! Bytes -> [`ServerOp`] and [`ClientOp`]. Invariant: bytes leave the inbox only as part of a whole
//! frame; a strict prefix of a valid frame is never an error. Source: NATS client protocol; blanks come
//! in runs and operation names in any case, as servers 2.9 to 2.15 send and take them.

use super::op::{ClientOp, Msg, Offsets, ServerOp};
use crate::wire::{Step, WireError, decimal};
use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memrchr};
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take_while, take_while1};
use nom::combinator::{all_consuming, map_opt, opt, value};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Offset as _, Parser as _};
use std::ops::Range;

/// Bounds of what a peer may make us hold. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Longest control line without its CRLF. INFO has [`INFO_LINE_BYTES_MAX`] if that is more.
    pub line_max: usize,
    /// Longest header block and payload together. Not the server's `max_payload`: API replies are not
    /// held to that (one of 2.5 MB was seen on a server with 1 MiB). At most 2 GiB has effect.
    pub frame_max: usize,
}

/// Longest INFO line: a large cluster lists thousands of `connect_urls`.
pub const INFO_LINE_BYTES_MAX: usize = 1 << 20;
/// Offsets within a frame are `u32`.
const FRAME_BYTES_MAX: usize = 1 << 31;
const CRLF_LEN: usize = 2;

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { line_max: 64 << 10, frame_max: 16 << 20 }
    }
}

/// Takes one operation of a server out of `inbox`. Allocates nothing; a message is a reference into the
/// inbox's own buffer.
///
/// # Errors
/// [`WireError`] where the bytes are not the protocol; final for the connection.
pub fn decode(inbox: &mut BytesMut, limits: &DecodeLimits) -> Result<Step<ServerOp>, WireError> {
    let line_len = match find_line(inbox, limits)? {
        Step::Done(line_len) => line_len,
        Step::Need { bytes_min } => return Ok(Step::Need { bytes_min }),
    };
    match server_head(&inbox[..line_len])? {
        ServerHead::Message(head) => finish_message(inbox, line_len, head, limits),
        ServerHead::Info(json) => Ok(Step::Done(ServerOp::Info(take_part(inbox, line_len, json)))),
        ServerHead::Err(text) => Ok(Step::Done(ServerOp::Err(take_part(inbox, line_len, text)))),
        ServerHead::Word(word) => {
            let _ = inbox.split_to(line_len + CRLF_LEN);
            Ok(Step::Done(match word {
                Word::Ping => ServerOp::Ping,
                Word::Pong => ServerOp::Pong,
                Word::Ok => ServerOp::Ok,
            }))
        }
    }
}

/// Takes one operation of a client out of `inbox`, under the default limits.
///
/// # Errors
/// [`WireError`] where the bytes are not the protocol; final for the connection.
pub fn decode_client(inbox: &mut BytesMut) -> Result<Step<ClientOp>, WireError> {
    let limits = &DecodeLimits::default();
    let line_len = match find_line(inbox, limits)? {
        Step::Done(line_len) => line_len,
        Step::Need { bytes_min } => return Ok(Step::Need { bytes_min }),
    };
    let op = match client_head(&inbox[..line_len])? {
        ClientHead::Publish(head) => return finish_publish(inbox, line_len, head, limits),
        ClientHead::Connect(json) => ClientOp::Connect(take_part(inbox, line_len, json)),
        ClientHead::Sub { subject, queue, sid } => {
            let line = inbox.split_to(line_len + CRLF_LEN).freeze();
            ClientOp::Sub { subject: line.slice(subject), queue: queue.map(|q| line.slice(q)), sid }
        }
        ClientHead::Unsub { sid, max } => {
            let _ = inbox.split_to(line_len + CRLF_LEN);
            ClientOp::Unsub { sid, max }
        }
        ClientHead::Word(word) => {
            let _ = inbox.split_to(line_len + CRLF_LEN);
            match word {
                Word::Ping => ClientOp::Ping,
                Word::Pong => ClientOp::Pong,
                Word::Ok => return Err(WireError::UnknownOperation { first: b'+' }),
            }
        }
    };
    Ok(Step::Done(op))
}

/// Length of the first line without its CRLF. A frame that waits for its payload scans its line again
/// when more bytes come, some hundred bytes at most; `bytes_min` tells the caller when it is worth it.
fn find_line(inbox: &[u8], limits: &DecodeLimits) -> Result<Step<usize>, WireError> {
    let limit = line_limit(inbox, limits);
    let window = &inbox[..inbox.len().min(limit + 1)];
    match memchr2(b'\r', b'\n', window) {
        Some(at) if inbox[at] == b'\n' => {
            Err(WireError::Malformed { what: "line end", offset: at })
        }
        Some(at) => match inbox.get(at + 1) {
            Some(b'\n') => Ok(Step::Done(at)),
            Some(_) => Err(WireError::Malformed { what: "line end", offset: at }),
            None => Ok(Step::Need { bytes_min: 1 }),
        },
        None if inbox.len() > limit => Err(WireError::LineTooLong { limit }),
        None => Ok(Step::Need { bytes_min: CRLF_LEN }),
    }
}

fn line_limit(inbox: &[u8], limits: &DecodeLimits) -> usize {
    let is_info = inbox.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"INFO"));
    if is_info { limits.line_max.max(INFO_LINE_BYTES_MAX) } else { limits.line_max }
}

/// Removes the line and returns the part of it that matters.
fn take_part(inbox: &mut BytesMut, line_len: usize, part: Range<usize>) -> Bytes {
    inbox.split_to(line_len + CRLF_LEN).freeze().slice(part)
}

fn finish_message(
    inbox: &mut BytesMut,
    line_len: usize,
    head: MessageHead,
    limits: &DecodeLimits,
) -> Result<Step<ServerOp>, WireError> {
    let body = match find_body(inbox, line_len, head.lengths, limits)? {
        Step::Done(body) => body,
        Step::Need { bytes_min } => return Ok(Step::Need { bytes_min }),
    };
    let reply = head.reply.unwrap_or(0..0);
    let at = Offsets {
        subject: head.subject.start as u32,
        subject_end: head.subject.end as u32,
        reply: reply.start as u32,
        reply_end: reply.end as u32,
        headers: body.headers as u32,
        payload: body.payload as u32,
    };
    let frame = inbox.split_to(body.frame_len).freeze();
    Ok(Step::Done(ServerOp::Msg(Msg::from_frame(frame, head.sid, at))))
}

fn finish_publish(
    inbox: &mut BytesMut,
    line_len: usize,
    head: MessageHead,
    limits: &DecodeLimits,
) -> Result<Step<ClientOp>, WireError> {
    let body = match find_body(inbox, line_len, head.lengths, limits)? {
        Step::Done(body) => body,
        Step::Need { bytes_min } => return Ok(Step::Need { bytes_min }),
    };
    let frame = inbox.split_to(body.frame_len).freeze();
    Ok(Step::Done(ClientOp::Pub {
        subject: frame.slice(head.subject),
        reply: head.reply.map(|reply| frame.slice(reply)),
        headers: frame.slice(body.headers..body.payload),
        payload: frame.slice(body.payload..body.frame_len - CRLF_LEN),
    }))
}

/// Where the parts behind a control line lie, once all of them are there.
struct Body {
    headers: usize,
    payload: usize,
    frame_len: usize,
}

fn find_body(
    inbox: &[u8],
    line_len: usize,
    lengths: Lengths,
    limits: &DecodeLimits,
) -> Result<Step<Body>, WireError> {
    let Lengths { headers, total } = lengths;
    let limit = limits.frame_max.min(FRAME_BYTES_MAX);
    if total > limit as u64 {
        return Err(WireError::FrameTooLarge { size: total, limit });
    }
    if headers > total {
        return Err(WireError::HeadersExceedTotal { headers, total });
    }
    let headers_at = line_len + CRLF_LEN;
    let end = headers_at + total as usize;
    let frame_len = end + CRLF_LEN;
    if inbox.len() < frame_len {
        return Ok(Step::Need { bytes_min: frame_len - inbox.len() });
    }
    if &inbox[end..frame_len] != b"\r\n" {
        return Err(WireError::PayloadUnterminated { offset: end });
    }
    Ok(Step::Done(Body { headers: headers_at, payload: headers_at + headers as usize, frame_len }))
}

/// A control line of a server; ranges count from its start.
enum ServerHead {
    Message(MessageHead),
    Info(Range<usize>),
    Err(Range<usize>),
    Word(Word),
}

/// A control line of a client.
enum ClientHead {
    Publish(MessageHead),
    Connect(Range<usize>),
    Sub { subject: Range<usize>, queue: Option<Range<usize>>, sid: u64 },
    Unsub { sid: u64, max: Option<u64> },
    Word(Word),
}

#[derive(Clone, Copy)]
enum Word {
    Ping,
    Pong,
    Ok,
}

struct MessageHead {
    subject: Range<usize>,
    sid: u64,
    reply: Option<Range<usize>>,
    lengths: Lengths,
}

#[derive(Clone, Copy)]
struct Lengths {
    headers: u64,
    total: u64,
}

fn server_head(line: &[u8]) -> Result<ServerHead, WireError> {
    // Nearly every line is a message in capitals; the rest is looked for in turn.
    if let Some(args) = line.strip_prefix(b"MSG ").or_else(|| strip_name(line, b"MSG")) {
        return complete(line, args, "MSG", msg_args).map(ServerHead::Message);
    }
    if let Some(args) = line.strip_prefix(b"HMSG ").or_else(|| strip_name(line, b"HMSG")) {
        return complete(line, args, "HMSG", hmsg_args).map(ServerHead::Message);
    }
    if let Some(json) = strip_name(line, b"INFO") {
        return Ok(ServerHead::Info(trimmed(line, json)));
    }
    if let Some(text) = strip_name(line, b"-ERR") {
        return Ok(ServerHead::Err(unquoted(line, trimmed(line, text))));
    }
    word(line).map(ServerHead::Word)
}

fn client_head(line: &[u8]) -> Result<ClientHead, WireError> {
    if let Some(args) = strip_name(line, b"PUB") {
        return complete(line, args, "PUB", pub_args).map(ClientHead::Publish);
    }
    if let Some(args) = strip_name(line, b"HPUB") {
        return complete(line, args, "HPUB", hpub_args).map(ClientHead::Publish);
    }
    if let Some(args) = strip_name(line, b"SUB") {
        return complete(line, args, "SUB", sub_args);
    }
    if let Some(args) = strip_name(line, b"UNSUB") {
        return complete(line, args, "UNSUB", unsub_args);
    }
    if let Some(json) = strip_name(line, b"CONNECT") {
        return Ok(ClientHead::Connect(trimmed(line, json)));
    }
    word(line).map(ClientHead::Word)
}

/// The rest of `line` behind an operation name, in any case, and a blank.
fn strip_name<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let (blank, rest) = rest.split_first()?;
    (is_blank(*blank) && found.eq_ignore_ascii_case(name)).then_some(rest)
}

fn word(line: &[u8]) -> Result<Word, WireError> {
    let mut words = all_consuming(terminated(
        alt((
            value(Word::Ping, tag_no_case::<_, _, nom::error::Error<&[u8]>>("PING")),
            value(Word::Pong, tag_no_case("PONG")),
            value(Word::Ok, tag_no_case("+OK")),
        )),
        take_while(is_blank),
    ));
    match words.parse(line) {
        Ok((_, word)) => Ok(word),
        Err(_) => {
            Err(WireError::UnknownOperation { first: line.first().copied().unwrap_or(b'\r') })
        }
    }
}

/// Runs `args` over all that follows the name and names the place where it stopped.
fn complete<'a, T>(
    line: &'a [u8],
    rest: &'a [u8],
    what: &'static str,
    args: impl Fn(&'a [u8], &'a [u8]) -> IResult<&'a [u8], T>,
) -> Result<T, WireError> {
    match args(line, rest) {
        Ok((rest, parsed)) if rest.iter().all(|&byte| is_blank(byte)) => Ok(parsed),
        Ok((rest, _)) => Err(WireError::Malformed { what, offset: line.offset(rest) }),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => {
            Err(WireError::Malformed { what, offset: line.offset(error.input) })
        }
        Err(nom::Err::Incomplete(_)) => Err(WireError::Malformed { what, offset: line.len() }),
    }
}

/// `<subject> <sid> [reply] <#bytes>`
fn msg_args<'a>(line: &'a [u8], args: &'a [u8]) -> IResult<&'a [u8], MessageHead> {
    let (rest, (subject, sid, third, fourth)) = (first, number, next, opt(next)).parse(args)?;
    let (reply, last) = fourth.map_or((None, third), |fourth| (Some(third), fourth));
    let (_, total) = last_number(last)?;
    let lengths = Lengths { headers: 0, total };
    let reply = reply.map(|reply| range(line, reply));
    Ok((rest, MessageHead { subject: range(line, subject), sid, reply, lengths }))
}

/// `<subject> <sid> [reply] <#hdr> <#total>`
fn hmsg_args<'a>(line: &'a [u8], args: &'a [u8]) -> IResult<&'a [u8], MessageHead> {
    let (rest, (subject, sid, third, fourth, fifth)) =
        (first, number, next, next, opt(next)).parse(args)?;
    let (reply, headers, total) =
        fifth.map_or((None, third, fourth), |fifth| (Some(third), fourth, fifth));
    let lengths = Lengths { headers: last_number(headers)?.1, total: last_number(total)?.1 };
    let reply = reply.map(|reply| range(line, reply));
    Ok((rest, MessageHead { subject: range(line, subject), sid, reply, lengths }))
}

/// `<subject> [reply] <#bytes>`
fn pub_args<'a>(line: &'a [u8], args: &'a [u8]) -> IResult<&'a [u8], MessageHead> {
    let (rest, (subject, second, third)) = (first, next, opt(next)).parse(args)?;
    let (reply, last) = third.map_or((None, second), |third| (Some(second), third));
    let lengths = Lengths { headers: 0, total: last_number(last)?.1 };
    let reply = reply.map(|reply| range(line, reply));
    Ok((rest, MessageHead { subject: range(line, subject), sid: 0, reply, lengths }))
}

/// `<subject> [reply] <#hdr> <#total>`
fn hpub_args<'a>(line: &'a [u8], args: &'a [u8]) -> IResult<&'a [u8], MessageHead> {
    let (rest, (subject, second, third, fourth)) = (first, next, next, opt(next)).parse(args)?;
    let (reply, headers, total) =
        fourth.map_or((None, second, third), |fourth| (Some(second), third, fourth));
    let lengths = Lengths { headers: last_number(headers)?.1, total: last_number(total)?.1 };
    let reply = reply.map(|reply| range(line, reply));
    Ok((rest, MessageHead { subject: range(line, subject), sid: 0, reply, lengths }))
}

/// `<subject> [queue] <sid>`
fn sub_args<'a>(line: &'a [u8], args: &'a [u8]) -> IResult<&'a [u8], ClientHead> {
    let (rest, (subject, second, third)) = (first, next, opt(next)).parse(args)?;
    let (queue, last) = third.map_or((None, second), |third| (Some(second), third));
    let (_, sid) = last_number(last)?;
    let queue = queue.map(|queue| range(line, queue));
    Ok((rest, ClientHead::Sub { subject: range(line, subject), queue, sid }))
}

/// `<sid> [max]`
fn unsub_args<'a>(_line: &'a [u8], args: &'a [u8]) -> IResult<&'a [u8], ClientHead> {
    let (rest, (sid, max)) = (map_opt(first, decimal::parse), opt(number)).parse(args)?;
    Ok((rest, ClientHead::Unsub { sid, max }))
}

/// First token: the blank behind the name is gone, more of them may follow.
fn first(input: &[u8]) -> IResult<&[u8], &[u8]> {
    preceded(take_while(is_blank), token).parse(input)
}

fn next(input: &[u8]) -> IResult<&[u8], &[u8]> {
    preceded(take_while1(is_blank), token).parse(input)
}

fn number(input: &[u8]) -> IResult<&[u8], u64> {
    map_opt(next, decimal::parse).parse(input)
}

fn last_number(token: &[u8]) -> IResult<&[u8], u64> {
    match decimal::parse(token) {
        Some(value) => Ok((&[], value)),
        None => fail(token),
    }
}

fn token(input: &[u8]) -> IResult<&[u8], &[u8]> {
    match memchr2(b' ', b'\t', input).unwrap_or(input.len()) {
        0 => fail(input),
        len => Ok((&input[len..], &input[..len])),
    }
}

fn fail<T>(input: &[u8]) -> IResult<&[u8], T> {
    Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Fail)))
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn range(line: &[u8], part: &[u8]) -> Range<usize> {
    let start = line.offset(part);
    start..start + part.len()
}

fn trimmed(line: &[u8], part: &[u8]) -> Range<usize> {
    range(line, part.trim_ascii())
}

/// The text between the first and the last single quote, if it is quoted at all.
fn unquoted(line: &[u8], text: Range<usize>) -> Range<usize> {
    let quote = tag::<_, _, nom::error::Error<&[u8]>>("'");
    match preceded(quote, nom::combinator::rest).parse(&line[text.clone()]) {
        Ok((_, inner)) => {
            let len = memrchr(b'\'', inner).unwrap_or(inner.len());
            range(line, &inner[..len])
        }
        Err(_) => text,
    }
}
