//! What clients say to a consumer: pull requests, and what they answer to a delivery. Both are read as
//! leniently as a server does: what it does not understand it ignores or refuses, never guesses.

use bytes::Bytes;
use serde::Deserialize;

use crate::peers::message::Emit;
use crate::peers::version::Version;

/// Body of `CONSUMER.MSG.NEXT`. Not strict: unknown fields pass on all versions.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PullRequest {
    pub(super) batch: i64,
    pub(super) expires: u64,
    pub(super) no_wait: bool,
    pub(super) idle_heartbeat: u64,
    pub(super) max_bytes: u64,
}

impl PullRequest {
    /// Empty body: one message; a bare integer: a batch; else JSON.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        if body.is_empty() {
            return Some(Self { batch: 1, ..Self::default() });
        }
        let text = std::str::from_utf8(body).ok()?;
        match text.trim().parse::<i64>() {
            Ok(batch) => Some(Self { batch, ..Self::default() }),
            Err(_) => serde_json::from_str(text).ok(),
        }
    }
}

/// An open pull.
#[derive(Clone, Debug)]
pub(super) struct Pull {
    pub(super) inbox: Bytes,
    pub(super) remaining: i64,
    pub(super) bytes_left: u64,
    pub(super) delivered: u64,
    pub(super) expires: Option<u64>,
    pub(super) heartbeat: u64,
    pub(super) heartbeat_at: u64,
    pub(super) request: PullRequest,
}

impl Pull {
    /// A status that hands back what this pull still had.
    pub(super) fn status(&self, line: &str) -> Emit {
        let messages = u64::try_from(self.remaining).unwrap_or(0);
        let fields = [("Nats-Pending-Messages", messages), ("Nats-Pending-Bytes", self.bytes_left)];
        Emit::status(&self.inbox, line, &fields)
    }
}

/// What a client said about a delivered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Ack,
    /// Redeliver, after this many nanoseconds.
    Nak(u64),
    InProgress,
    Terminate,
    /// Ack, and a pull with this body.
    Next(Bytes),
    /// Not understood; still answered if a reply is set.
    Ignored,
}

impl Verb {
    /// Reads an ack payload. 2.9 does not know `+TERM <reason>`.
    pub(crate) fn read(payload: &Bytes, version: Version) -> Self {
        match payload.as_ref() {
            b"" | b"+ACK" => Self::Ack,
            b"-NAK" => Self::Nak(0),
            b"+WPI" => Self::InProgress,
            b"+TERM" => Self::Terminate,
            p if p.starts_with(b"-NAK ") => nak_delay(&p[5..]).map_or(Self::Ignored, Self::Nak),
            p if p.starts_with(b"+TERM ") && version >= Version(2, 10, 4) => Self::Terminate,
            p if p == b"+NXT" => Self::Next(Bytes::new()),
            p if p.starts_with(b"+NXT ") => Self::Next(payload.slice(5..)),
            _ => Self::Ignored,
        }
    }
}

fn nak_delay(text: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Delay {
        delay: u64,
    }
    if let Ok(json) = serde_json::from_slice::<Delay>(text) {
        return Some(json.delay);
    }
    let text = std::str::from_utf8(text).ok()?.trim();
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1e6),
        None => (text.strip_suffix('s')?, 1e9),
    };
    digits.parse::<f64>().ok().map(|n| (n * unit) as u64)
}
