//! Simulated servers for deterministic simulation: NATS with JetStream, and Redis. Each is a plain
//! value: bytes in, bytes out, virtual time as an argument and chance from a seeded generator.
//! Invariant: the same seed and the same calls give the same bytes. No thread, socket, wall clock or
//! unordered map is used here. Behaviour follows what was observed on nats-server 2.9.10, 2.10.27 and
//! 2.15.1 and on Redis 7; where a server's behaviour is not modelled, the peer refuses aloud.

pub(crate) mod jetstream;
pub(crate) mod kv;
pub(crate) mod message;
pub(crate) mod nats;
pub(crate) mod redis;
pub(crate) mod subject;
pub(crate) mod time;
pub(crate) mod version;

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;

/// A connection as its server knows it. Never reused, not even across a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u64);

/// Why a peer took no connection: what a client sees as ECONNREFUSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The process is down.
    Down,
    /// The server is in lame duck mode.
    LameDuck,
}

/// Probability of one fault, drawn at each opportunity. 0 never draws, so that switching on one fault
/// leaves the random sequence of the others alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Chance(pub(crate) f64);

impl Chance {
    /// Happens at every opportunity.
    pub(crate) const ALWAYS: Self = Self(1.0);

    /// Whether it happens this time.
    pub(crate) fn hit(self, rng: &mut Rng) -> bool {
        self.0 > 0.0 && rng.f64() < self.0
    }
}

/// A delay between 0 and `max` nanoseconds; 0 without a draw when `max` is 0.
pub(crate) fn delay_up_to(max: u64, rng: &mut Rng) -> u64 {
    if max == 0 { 0 } else { rng.u64(0..=max) }
}

/// The earlier of two optional deadlines.
pub(crate) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What is in `out`. Asked of every connection at every step, so that nothing costs nothing.
pub(crate) fn take(out: &mut BytesMut) -> Bytes {
    if out.is_empty() { Bytes::new() } else { out.split().freeze() }
}
