//! Operations of the NATS client protocol as plain data. Invariant: the offsets of a [`Msg`] lie inside
//! its frame, in the order subject, reply, headers, payload. Source: NATS client protocol.

use super::encode;
use super::headers::{Headers, Status};
use crate::wire::decimal;
use bytes::{Bytes, BytesMut};
use std::fmt;

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerOp {
    /// JSON of the server's description, blanks trimmed. See [`super::info::Info`].
    Info(Bytes),
    /// A message, with or without headers.
    Msg(Msg),
    /// Answer with PONG at once.
    Ping,
    /// The server has parsed everything sent before the PING this answers.
    Pong,
    /// Only in verbose mode.
    Ok,
    /// Text of an error without its single quotes.
    Err(Bytes),
}

/// What a client sends. The simulated server decodes with the same codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOp {
    /// JSON of the client's options, blanks trimmed.
    Connect(Bytes),
    /// PUB, or HPUB where `headers` is not empty.
    Pub {
        /// Subject published to.
        subject: Bytes,
        /// Where an answer is expected.
        reply: Option<Bytes>,
        /// Raw header block; empty without headers.
        headers: Bytes,
        /// Message body.
        payload: Bytes,
    },
    /// A subscription.
    Sub {
        /// Subject, wildcards allowed.
        subject: Bytes,
        /// Queue group.
        queue: Option<Bytes>,
        /// Id chosen by the client.
        sid: u64,
    },
    /// End of a subscription.
    Unsub {
        /// Id chosen by the client.
        sid: u64,
        /// Deliveries, counted from the SUB on, after which it ends.
        max: Option<u64>,
    },
    /// Answer with PONG.
    Ping,
    /// Answer to the server's PING.
    Pong,
}

/// One delivered message: a single reference into the buffer it arrived in, and where its parts lie.
/// Cloning counts one reference. It keeps that buffer alive: who holds messages long copies them.
#[derive(Clone)]
pub struct Msg {
    frame: Bytes,
    sid: u64,
    at: Offsets,
}

/// Where the parts of a message lie in its frame; the payload ends two bytes (CRLF) before the frame.
/// `u32`, so that a message fits one cache line; frames are bounded far below 4 GiB.
#[derive(Clone, Copy)]
pub(super) struct Offsets {
    pub(super) subject: u32,
    pub(super) subject_end: u32,
    /// Equal to `reply_end` where there is none.
    pub(super) reply: u32,
    pub(super) reply_end: u32,
    pub(super) headers: u32,
    pub(super) payload: u32,
}

const CRLF_LEN: usize = 2;
const _: () = assert!(size_of::<Msg>() <= 64, "a message fits one cache line");

impl Msg {
    pub(super) fn from_frame(frame: Bytes, sid: u64, at: Offsets) -> Self {
        debug_assert!(at.subject <= at.subject_end && at.reply <= at.reply_end);
        debug_assert!(at.headers <= at.payload && at.payload as usize + CRLF_LEN <= frame.len());
        Self { frame, sid, at }
    }

    /// Builds the frame a server would send for these parts. Cold: it allocates the frame.
    ///
    /// # Panics
    /// If the parts together exceed 4 GiB.
    #[must_use]
    pub fn new(
        subject: &[u8],
        sid: u64,
        reply: Option<&[u8]>,
        headers: &[u8],
        payload: &[u8],
    ) -> Self {
        let mut out = BytesMut::with_capacity(
            64 + subject.len() + reply.map_or(0, <[u8]>::len) + headers.len() + payload.len(),
        );
        let subject_at = if headers.is_empty() {
            encode::encode_msg(&mut out, subject, sid, reply, payload);
            encode::MSG.len()
        } else {
            encode::encode_hmsg(&mut out, subject, sid, reply, headers, payload);
            encode::HMSG.len()
        };
        assert!(u32::try_from(out.len()).is_ok(), "a frame stays below 4 GiB");
        let reply_at = subject_at + subject.len() + 1 + decimal::len(sid) + 1;
        let payload_at = out.len() - CRLF_LEN - payload.len();
        let at = Offsets {
            subject: subject_at as u32,
            subject_end: (subject_at + subject.len()) as u32,
            reply: reply_at as u32,
            reply_end: (reply_at + reply.map_or(0, <[u8]>::len)) as u32,
            headers: (payload_at - headers.len()) as u32,
            payload: payload_at as u32,
        };
        Self::from_frame(out.freeze(), sid, at)
    }

    /// Subject as sent: any bytes but blanks and line ends, UTF-8 or not. For a pulled message it is
    /// the stored subject, not the inbox.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.frame[self.at.subject as usize..self.at.subject_end as usize]
    }

    /// Id of the subscription.
    #[must_use]
    pub const fn sid(&self) -> u64 {
        self.sid
    }

    /// Where an answer is expected; the ack subject of a JetStream message.
    #[must_use]
    pub fn reply(&self) -> Option<&[u8]> {
        let reply = &self.frame[self.at.reply as usize..self.at.reply_end as usize];
        (!reply.is_empty()).then_some(reply)
    }

    /// Raw header block, empty without headers. Not checked: see [`Headers`].
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        &self.frame[self.at.headers as usize..self.at.payload as usize]
    }

    /// Value of the first header of this name (case-sensitive), blanks trimmed.
    #[must_use]
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        Headers::new(self.headers()).get(name)
    }

    /// Message body.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.at.payload as usize..self.payload_end()]
    }

    /// Subject as a reference into the frame.
    #[must_use]
    pub fn subject_bytes(&self) -> Bytes {
        self.frame.slice(self.at.subject as usize..self.at.subject_end as usize)
    }

    /// Reply as a reference into the frame.
    #[must_use]
    pub fn reply_bytes(&self) -> Option<Bytes> {
        let range = self.at.reply as usize..self.at.reply_end as usize;
        (!range.is_empty()).then(|| self.frame.slice(range))
    }

    /// Header block as a reference into the frame.
    #[must_use]
    pub fn headers_bytes(&self) -> Bytes {
        self.frame.slice(self.at.headers as usize..self.at.payload as usize)
    }

    /// Body as a reference into the frame.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.frame.slice(self.at.payload as usize..self.payload_end())
    }

    /// Bytes the message took on the wire, control line and line ends included.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// Inline status, if the payload is empty and the block carries one. Anyone may publish such a
    /// block on any subject: the caller must also know the subject as one of its own inboxes.
    #[must_use]
    pub fn status(&self) -> Option<Status<'_>> {
        if self.at.headers == self.at.payload || !self.payload().is_empty() {
            return None;
        }
        Headers::new(self.headers()).status()
    }

    const fn payload_end(&self) -> usize {
        self.frame.len() - CRLF_LEN
    }
}

/// Equality of what the message says; two spellings of one control line are equal.
impl PartialEq for Msg {
    fn eq(&self, other: &Self) -> bool {
        self.sid == other.sid
            && self.subject() == other.subject()
            && self.reply() == other.reply()
            && self.headers() == other.headers()
            && self.payload() == other.payload()
    }
}

impl Eq for Msg {}

/// Payloads are people's conversations, so only their size is shown.
impl fmt::Debug for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msg")
            .field("subject", &self.subject().escape_ascii().to_string())
            .field("sid", &self.sid)
            .field("reply", &self.reply().map(|reply| reply.escape_ascii().to_string()))
            .field("headers_len", &self.headers().len())
            .field("payload_len", &self.payload().len())
            .finish()
    }
}
