//! True ends: places outside daisi where an event is seen to have had its effect. Each is told what must come
//! before an event is sent, looks on a thread and a connection of its own, and tells what became of it.
//! Invariant: an expectation is handed over before its event is sent, so whatever is seen was told before,
//! unless nobody sent it.

pub mod cdc;
mod course;
pub mod ingest;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use course::{Course, Gauge};

use crate::client::ClientError;
use crate::send::Outgoing;

/// Examples kept of each kind of fault.
pub const EXAMPLES_MAX: usize = 20;

/// Why an end could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// NATS.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// PostgreSQL.
    #[error("PostgreSQL: {0}")]
    Database(String),
    /// The operating system.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Its reason.
        source: std::io::Error,
    },
}

/// An event that is about to be sent.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// The event.
    pub event: &'a dyn Outgoing,
    /// When it is planned, nanoseconds since the epoch.
    pub planned_ns: u64,
    /// Its number in the run, from 0.
    pub ordinal: u64,
}

/// The senders' halves of the ends of a run.
#[derive(Debug, Default)]
pub struct Tellers {
    /// Of row changes.
    pub cdc: Option<cdc::Teller>,
    /// Of chat events.
    pub ingest: Option<ingest::Teller>,
}

impl Tellers {
    /// Tells the end that the event is for; what has no end here is nobody's.
    pub fn tell(&mut self, told: Told<'_>) {
        if told.event.subject().starts_with("v1.") {
            if let Some(teller) = &mut self.ingest {
                teller.tell(told);
            }
        } else if let Some(teller) = &mut self.cdc {
            teller.tell(told);
        }
    }
}

/// A word from the driver: drop your connection and make another, as if the network had. Everybody counts the
/// cuts that he has followed.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    ordered: Arc<AtomicU32>,
    followed: u32,
}

impl Cuts {
    /// Orders one of all that share it.
    pub fn order(&self) {
        self.ordered.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is one that was not followed yet; it counts as followed then.
    pub fn is_due(&mut self) -> bool {
        let ordered = self.ordered.load(Ordering::Relaxed);
        std::mem::replace(&mut self.followed, ordered) != ordered
    }
}
