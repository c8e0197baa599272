//! Where bytes and time come from: sockets, TLS, mailboxes, clocks. Everything that waits is here, and
//! nothing here knows a rule of the domain. All of glommio stays behind this module.

pub mod inbox;
pub mod link;
pub mod mailbox;
pub mod pg;
pub mod target;
pub mod tls;

use crate::clock::Now;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The clocks of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock {
    /// Both clocks, read together.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono, wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX) }
    }
}
