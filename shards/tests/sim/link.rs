//! A byte stream between a pipeline and a peer: random delay, random cuts, and an end. Invariant: bytes
//! arrive once, in order, and never before they were written; what a cut takes is the tail only.

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use std::collections::VecDeque;

use crate::peers::{Chance, ConnId};

/// How the network behaves at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    /// Longest delay of a piece, ns.
    pub(crate) latency_max: u64,
    /// Probability that a write arrives in two pieces.
    pub(crate) split: Chance,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pieces: VecDeque<(u64, Bytes)>,
    last_at: u64,
    closed: bool,
    ended: bool,
}

impl Pipe {
    /// Takes all of `bytes` along.
    pub(crate) fn push(&mut self, now: u64, bytes: &mut BytesMut, net: Net, rng: &mut Rng) {
        if self.closed {
            return bytes.clear();
        }
        if bytes.len() > 1 && net.split.hit(rng) {
            let head = bytes.split_to(rng.usize(1..bytes.len()));
            self.put(now, head.freeze(), net, rng);
        }
        self.put(now, bytes.split().freeze(), net, rng);
    }

    fn put(&mut self, now: u64, bytes: Bytes, net: Net, rng: &mut Rng) {
        // Mostly quick, rarely slow: as queues are.
        let ceiling = if rng.u8(..) < 200 { net.latency_max / 4 } else { net.latency_max };
        self.last_at = self.last_at.max(now + rng.u64(0..=ceiling));
        self.pieces.push_back((self.last_at, bytes));
    }

    /// The next piece that has arrived.
    pub(crate) fn take(&mut self, now: u64) -> Option<Bytes> {
        self.pieces.pop_front_if(|(at, _)| *at <= now).map(|(_, bytes)| bytes)
    }

    /// When the next piece arrives, or the end does.
    pub(crate) fn due(&self) -> Option<u64> {
        match self.pieces.front() {
            Some((at, _)) => Some(*at),
            None => (self.closed && !self.ended).then_some(self.last_at),
        }
    }

    /// The writer closed: what is under way still arrives.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// The connection breaks: a random tail of what is under way never arrives.
    pub(crate) fn cut(&mut self, rng: &mut Rng) {
        self.pieces.truncate(rng.usize(0..=self.pieces.len()));
        if let Some((_, last)) = self.pieces.back_mut() {
            last.truncate(rng.usize(0..=last.len()));
        }
        self.closed = true;
    }

    /// True once: everything has arrived and nothing more comes.
    pub(crate) fn ends(&mut self) -> bool {
        let ends = self.closed && self.pieces.is_empty() && !self.ended;
        self.ended |= ends;
        ends
    }
}

/// A connection as the pipeline's side sees it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) conn: ConnId,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    pub(crate) inbox: BytesMut,
}

impl Socket {
    pub(crate) fn new(conn: ConnId) -> Self {
        Self { conn, up: Pipe::default(), down: Pipe::default(), inbox: BytesMut::new() }
    }
}

/// One of a shard's two connections.
#[derive(Debug, Default)]
pub(crate) enum Side {
    #[default]
    Closed,
    /// The attempt is decided at this moment.
    Connecting(u64),
    Open(Box<Socket>),
}

impl Side {
    pub(crate) fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Open(socket) => Some(socket),
            Self::Closed | Self::Connecting(_) => None,
        }
    }

    /// When the shard has to look at it.
    pub(crate) fn due(&self) -> Option<u64> {
        match self {
            Self::Closed => None,
            Self::Connecting(at) => Some(*at),
            Self::Open(socket) => socket.down.due(),
        }
    }
}
