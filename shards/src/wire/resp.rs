//! RESP2: the few Redis commands in use, packed, and their replies, parsed. Invariant: a reply leaves
//! the inbox whole or not at all, and nothing is allocated for elements that have not arrived. Source:
//! Redis serialization protocol specification; held against the packer and parser of the `redis` crate.

use super::{Step, WireError, decimal};
use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use std::ops::Range;

/// A reply of Redis. Bulk data are references into the inbox's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(Bytes),
    /// `-ERR text`
    Error(Bytes),
    /// `:1`
    Integer(i64),
    /// `$3 abc`; `None` is null.
    Bulk(Option<Bytes>),
    /// `*2 ...`; `None` is null.
    Array(Option<Vec<Reply>>),
}

/// Bounds of what a peer may make us hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Longest line of a simple string, an error or a number, in bytes.
    pub line_max: usize,
    /// Longest bulk string, in bytes.
    pub bulk_max: usize,
    /// Elements of one reply, through all its arrays.
    pub elements_max: usize,
    /// Arrays within arrays; our commands need 4 (stream reads). Also bounds the stack.
    pub depth_max: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { line_max: 64 << 10, bulk_max: 16 << 20, elements_max: 1 << 20, depth_max: 8 }
    }
}

const CRLF_LEN: usize = 2;
/// A type byte and a line end.
const REPLY_LEN_MIN: usize = 3;

/// Takes one reply out of `inbox`, under the default limits.
///
/// # Errors
/// [`WireError`] where the bytes are not RESP2; final for the connection.
pub fn decode(inbox: &mut BytesMut) -> Result<Step<Reply>, WireError> {
    decode_within(inbox, &ReplyLimits::default())
}

/// Takes one reply out of `inbox`.
///
/// # Errors
/// [`WireError`] where the bytes are not RESP2 or beyond a limit; final for the connection.
pub fn decode_within(inbox: &mut BytesMut, limits: &ReplyLimits) -> Result<Step<Reply>, WireError> {
    let mut scan = Scan { bytes: inbox, at: 0, elements: 0, limits };
    match scan.skip_reply(0) {
        Ok(()) => {}
        Err(Stop::Need(bytes_min)) => return Ok(Step::Need { bytes_min }),
        Err(Stop::Wire(error)) => return Err(error),
    }
    let len = scan.at;
    let frame = inbox.split_to(len).freeze();
    let mut scan = Scan { bytes: &frame, at: 0, elements: 0, limits };
    match scan.read_reply(&frame) {
        Ok(reply) => Ok(Step::Done(reply)),
        Err(Stop::Wire(error)) => Err(error),
        Err(Stop::Need(_)) => Err(WireError::Malformed { what: "reply", offset: len }),
    }
}

/// Why a scan ends before the reply does.
enum Stop {
    Need(usize),
    Wire(WireError),
}

/// One line and what stands behind it.
enum Token {
    Simple(Range<usize>),
    Error(Range<usize>),
    Integer(i64),
    Bulk(Option<Range<usize>>),
    Array(Option<usize>),
}

/// Walks over a reply twice: first to see that all of it is there and within limits, then to build it.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: usize,
    limits: &'a ReplyLimits,
}

impl Scan<'_> {
    fn skip_reply(&mut self, depth: usize) -> Result<(), Stop> {
        let Token::Array(Some(count)) = self.token()? else { return Ok(()) };
        if depth >= self.limits.depth_max {
            return Err(Stop::Wire(WireError::TooDeep { limit: self.limits.depth_max }));
        }
        self.elements = self.elements.saturating_add(count);
        if self.elements > self.limits.elements_max {
            let (count, limit) = (self.elements as u64, self.limits.elements_max);
            return Err(Stop::Wire(WireError::TooManyElements { count, limit }));
        }
        for left in (0..count).rev() {
            self.skip_reply(depth + 1).map_err(|stop| match stop {
                Stop::Need(bytes_min) => Stop::Need(bytes_min + left * REPLY_LEN_MIN),
                Stop::Wire(error) => Stop::Wire(error),
            })?;
        }
        Ok(())
    }

    fn read_reply(&mut self, frame: &Bytes) -> Result<Reply, Stop> {
        Ok(match self.token()? {
            Token::Simple(text) => Reply::Simple(frame.slice(text)),
            Token::Error(text) => Reply::Error(frame.slice(text)),
            Token::Integer(value) => Reply::Integer(value),
            Token::Bulk(data) => Reply::Bulk(data.map(|data| frame.slice(data))),
            Token::Array(None) => Reply::Array(None),
            // The first walk has seen `count` elements, so this allocates for what is there.
            Token::Array(Some(count)) => {
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.read_reply(frame)?);
                }
                Reply::Array(Some(items))
            }
        })
    }

    fn token(&mut self) -> Result<Token, Stop> {
        let start = self.at;
        let Some(&kind) = self.bytes.get(start) else { return Err(Stop::Need(REPLY_LEN_MIN)) };
        if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
            return Err(Stop::Wire(WireError::UnknownOperation { first: kind }));
        }
        let line = self.line()?;
        match kind {
            b'+' => Ok(Token::Simple(line)),
            b'-' => Ok(Token::Error(line)),
            b':' => self.integer(&line).map(Token::Integer),
            b'$' => {
                let limit = self.limits.bulk_max;
                self.length(&line, "bulk length", limit)?.map_or(Ok(Token::Bulk(None)), |len| {
                    self.bulk(len).map(|data| Token::Bulk(Some(data)))
                })
            }
            _ => {
                let count = self.length(&line, "array length", usize::MAX)?;
                Ok(Token::Array(count))
            }
        }
    }

    /// Text of the line at hand, without type byte and line end; moves behind it.
    fn line(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at + 1;
        let rest = &self.bytes[start..];
        let limit = self.limits.line_max;
        let window = &rest[..rest.len().min(limit + 1)];
        let malformed =
            |at| Stop::Wire(WireError::Malformed { what: "line end", offset: start + at });
        match memchr2(b'\r', b'\n', window) {
            Some(at) if rest[at] == b'\n' => Err(malformed(at)),
            Some(at) => match rest.get(at + 1) {
                Some(b'\n') => {
                    self.at = start + at + CRLF_LEN;
                    Ok(start..start + at)
                }
                Some(_) => Err(malformed(at)),
                None => Err(Stop::Need(1)),
            },
            None if rest.len() > limit => Err(Stop::Wire(WireError::LineTooLong { limit })),
            None => Err(Stop::Need(CRLF_LEN)),
        }
    }

    fn integer(&self, line: &Range<usize>) -> Result<i64, Stop> {
        let text = &self.bytes[line.clone()];
        let (negative, digits) = match text.split_first() {
            Some((b'-', digits)) => (true, digits),
            Some((b'+', digits)) => (false, digits),
            _ => (false, text),
        };
        let value = decimal::parse(digits).and_then(|size| {
            if negative { 0_i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() }
        });
        value.ok_or(Stop::Wire(WireError::Malformed { what: "integer", offset: line.start }))
    }

    /// A length, or `None` for -1.
    fn length(
        &self,
        line: &Range<usize>,
        what: &'static str,
        limit: usize,
    ) -> Result<Option<usize>, Stop> {
        let text = &self.bytes[line.clone()];
        if text == b"-1" {
            return Ok(None);
        }
        let size = decimal::parse(text)
            .ok_or(Stop::Wire(WireError::Malformed { what, offset: line.start }))?;
        match usize::try_from(size) {
            Ok(len) if len <= limit => Ok(Some(len)),
            _ => Err(Stop::Wire(WireError::FrameTooLarge { size, limit })),
        }
    }

    fn bulk(&mut self, len: usize) -> Result<Range<usize>, Stop> {
        let data = self.at..self.at + len;
        let end = data.end + CRLF_LEN;
        match self.bytes.get(data.end..end) {
            None => Err(Stop::Need(end - self.bytes.len())),
            Some(b"\r\n") => {
                self.at = end;
                Ok(data)
            }
            Some(_) => Err(Stop::Wire(WireError::PayloadUnterminated { offset: data.end })),
        }
    }
}

/// Appends a whole command: its name is the first argument. Allocates nothing beyond `out`.
pub fn encode_command(out: &mut BytesMut, args: &[&[u8]]) {
    begin_command(out, args.len());
    for value in args {
        arg(out, value);
    }
}

/// Appends the head of a command of `argc` arguments, its name included; each follows by [`arg`] or
/// [`arg_parts`].
pub fn begin_command(out: &mut BytesMut, argc: usize) {
    debug_assert!(argc > 0, "a command has a name");
    push_length(out, b"*", argc);
}

/// Appends one argument.
pub fn arg(out: &mut BytesMut, value: &[u8]) {
    arg_parts(out, &[value]);
}

/// Appends one argument given as parts that stand one behind the other.
pub fn arg_parts(out: &mut BytesMut, parts: &[&[u8]]) {
    push_length(out, b"$", parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one argument that is a number.
pub fn arg_u64(out: &mut BytesMut, value: u64) {
    push_length(out, b"$", decimal::len(value));
    decimal::push(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a reply, as a server does. Simple strings and errors hold no line end.
pub fn encode_reply(out: &mut BytesMut, reply: &Reply) {
    match reply {
        Reply::Simple(text) => push_line(out, b"+", text),
        Reply::Error(text) => push_line(out, b"-", text),
        Reply::Integer(value) => {
            out.extend_from_slice(if *value < 0 { b":-" } else { b":" });
            decimal::push(out, value.unsigned_abs());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Bulk(None) => out.extend_from_slice(b"$-1\r\n"),
        Reply::Bulk(Some(data)) => arg(out, data),
        Reply::Array(None) => out.extend_from_slice(b"*-1\r\n"),
        Reply::Array(Some(items)) => {
            push_length(out, b"*", items.len());
            for item in items {
                encode_reply(out, item);
            }
        }
    }
}

fn push_line(out: &mut BytesMut, kind: &[u8], text: &[u8]) {
    debug_assert!(memchr2(b'\r', b'\n', text).is_none());
    out.extend_from_slice(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn push_length(out: &mut BytesMut, kind: &[u8], len: usize) {
    out.extend_from_slice(kind);
    decimal::push(out, len as u64);
    out.extend_from_slice(b"\r\n");
}
