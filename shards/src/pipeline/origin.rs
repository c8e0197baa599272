//! Where an event was first: a replay has a new place in its stream, and carries the one that it had in
//! headers, so that what it writes never undoes a newer state. Source: contract `ingest.md` 4.6, 6.6.

use crate::domain::cdc::parse_rfc3339;
use crate::wire::nats::op::Msg;

/// Name of the stream.
pub const STREAM: &str = "Daisi-Original-Stream";
/// Sequence in it.
pub const SEQUENCE: &str = "Daisi-Original-Sequence";
/// When JetStream stored it there, RFC 3339.
pub const TIMESTAMP: &str = "Daisi-Original-Timestamp";

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) stream: &'a str,
    pub(super) sequence: u64,
    pub(super) published_ns: u64,
}

impl<'a> Origin<'a> {
    /// What the headers say, if they say all of it.
    pub(super) fn of(msg: &'a Msg) -> Option<Self> {
        if msg.headers().is_empty() {
            return None;
        }
        let text = |name: &str| std::str::from_utf8(msg.header(name.as_bytes())?).ok();
        Some(Self {
            stream: text(STREAM)?,
            sequence: text(SEQUENCE)?.parse().ok()?,
            published_ns: parse_rfc3339(text(TIMESTAMP)?)?,
        })
    }
}

/// The headers of `msg` that say so, for what is made of it.
pub(super) fn headers(msg: &Msg) -> impl Iterator<Item = (&'static str, &str)> {
    let is_whole = Origin::of(msg).is_some();
    [STREAM, SEQUENCE, TIMESTAMP].into_iter().filter(move |_| is_whole).filter_map(|name| {
        let value = std::str::from_utf8(msg.header(name.as_bytes())?).ok()?;
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg(headers: &str) -> Msg {
        Msg::new(b"v1.chats.upsert.A", 1, None, headers.as_bytes(), b"{}")
    }

    #[test]
    fn a_replay_tells_where_it_was_first() {
        let whole = "NATS/1.0\r\nDaisi-Original-Stream: s\r\nDaisi-Original-Sequence: 41\r\n\
                     Daisi-Original-Timestamp: 1970-01-01T00:00:01Z\r\n\r\n";
        let msg_whole = msg(whole);
        let origin = Origin { stream: "s", sequence: 41, published_ns: 1_000_000_000 };
        assert_eq!(Origin::of(&msg_whole), Some(origin));
        assert_eq!(headers(&msg_whole).count(), 3);
    }

    #[test]
    fn half_a_place_is_none() {
        for headers_text in [
            "",
            "NATS/1.0\r\n\r\n",
            "NATS/1.0\r\nDaisi-Original-Stream: s\r\nDaisi-Original-Sequence: 41\r\n\r\n",
            "NATS/1.0\r\nDaisi-Original-Stream: s\r\nDaisi-Original-Sequence: x\r\n\
             Daisi-Original-Timestamp: 1970-01-01T00:00:01Z\r\n\r\n",
        ] {
            let msg = msg(headers_text);
            assert_eq!((Origin::of(&msg), headers(&msg).count()), (None, 0), "{headers_text}");
        }
    }
}
