//! Bounded lanes between shards, and the bell that wakes a parked one. One lane a direction and pair, so
//! each keeps its order. Invariant (no lost wake-up): a sender pushes before it rings, a receiver silences
//! the bell before it takes; so a letter is either seen in this round or rings for the next.

use crate::id::ShardId;
use crate::pipeline::Mail;
use crossbeam_queue::ArrayQueue;
use futures_lite::AsyncRead;
use futures_lite::future::poll_fn;
use glommio::net::UnixStream;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};

/// Wakes one shard from any thread. A socket, because a glommio executor parks in io_uring and
/// notices nothing else.
#[derive(Clone, Debug)]
pub struct Bell {
    rung: Arc<AtomicBool>,
    wire: Arc<StdUnixStream>,
}

impl Bell {
    /// Wake the shard, unless somebody already has.
    pub fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            // Non-blocking: a full socket means that a ring is on its way already.
            let _full = (&*self.wire).write(&[1]);
        }
    }
}

/// The receiving end of a [`Bell`], before it lives on its shard.
#[derive(Debug)]
pub struct BellEnd {
    rung: Arc<AtomicBool>,
    wire: StdUnixStream,
}

/// A bell and its receiving end.
///
/// # Errors
/// No socket pair can be had.
pub fn bell() -> io::Result<(Bell, BellEnd)> {
    let (near, far) = StdUnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let rung = Arc::new(AtomicBool::new(false));
    let bell = Bell { rung: Arc::clone(&rung), wire: Arc::new(near) };
    Ok((bell, BellEnd { rung, wire: far }))
}

/// The bell as its shard hears it.
pub struct Ears {
    rung: Arc<AtomicBool>,
    wire: UnixStream,
}

impl BellEnd {
    /// Bind to the executor of this thread.
    #[must_use]
    #[expect(unsafe_code, reason = "glommio takes sockets by descriptor only")]
    pub fn listen(self) -> Ears {
        // SAFETY: `into_raw_fd` gives up ownership of an open socket, and the glommio stream takes it:
        // it has one owner at any time, which closes it once.
        let wire = unsafe { UnixStream::from_raw_fd(self.wire.into_raw_fd()) };
        Ears { rung: self.rung, wire }
    }
}

impl Ears {
    /// Ready when the bell was rung; silences it. Take the letters after that.
    pub fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rings = [0; 64];
        match Pin::new(&mut self.wire).poll_read(cx, &mut rings) {
            Poll::Ready(_) => {
                self.rung.store(false, SeqCst);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Let the executor look at its ring, by waiting for `own`, the bell of these ears. glommio's yields do
    /// not: the task that yields is the next to run. Letters may have come meanwhile.
    pub async fn look_at_ring(&mut self, own: &Bell) {
        own.ring();
        poll_fn(|cx| self.poll_rung(cx)).await;
    }
}

/// All lanes and bells of a process.
#[derive(Clone, Debug)]
pub struct PostOffice {
    shards: usize,
    lanes: Arc<[ArrayQueue<Mail>]>,
    bells: Arc<[Bell]>,
}

impl PostOffice {
    /// Lanes between every two of the shards behind `bells`, each for `capacity` letters.
    #[must_use]
    pub fn new(bells: Vec<Bell>, capacity: usize) -> Self {
        let shards = bells.len();
        let lanes = std::iter::repeat_with(|| ArrayQueue::new(capacity)).take(shards * shards);
        Self { shards, lanes: lanes.collect(), bells: bells.into() }
    }

    /// Put a letter into its lane. Ring the bell afterwards, once for many.
    ///
    /// # Errors
    /// The lane is full: the letter comes back and must be offered again, before any later one.
    pub fn offer(&self, from: ShardId, to: ShardId, mail: Mail) -> Result<(), Box<Mail>> {
        self.lane(from, to).push(mail).map_err(Box::new)
    }

    /// Wake a shard.
    pub fn ring(&self, to: ShardId) {
        self.bell(to).ring();
    }

    /// What wakes a shard.
    #[must_use]
    pub fn bell(&self, of: ShardId) -> &Bell {
        &self.bells[usize::from(of.0)]
    }

    /// The next letter of a lane.
    #[must_use]
    pub fn take(&self, from: ShardId, to: ShardId) -> Option<Mail> {
        self.lane(from, to).pop()
    }

    /// Shards of this process.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..u16::try_from(self.shards).unwrap_or(u16::MAX)).map(ShardId)
    }

    fn lane(&self, from: ShardId, to: ShardId) -> &ArrayQueue<Mail> {
        &self.lanes[usize::from(from.0) * self.shards + usize::from(to.0)]
    }
}
