//! A clean stop with a standby beside it, after the faults: while events go on to come and every peer is slow,
//! the replica that reads is drained and does not come back. Invariant: slow is well within every timeout,
//! so the standby has to read soon after the lease was given back, and not when it would have expired.

use super::World;
use crate::faults::Act;
use crate::oracle::{Broken, Promise, broken};
use crate::plan::one_of;
use shards::clock::{MS, SEC};

/// From the end of the faults to the hand-over: long enough for a standby to stand by.
const CALM: u64 = 5 * SEC;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    Ahead,
    /// The replica is to stop, or about to.
    Leaving {
        replica: usize,
    },
    /// It has stopped.
    Left {
        at: u64,
    },
    Done,
}

impl World {
    /// All has settled: once somebody reads, it is to stop in the middle of more events.
    pub(super) fn begin_hand_over(&mut self) {
        if self.calm_at.is_none_or(|at| self.now.mono < at + CALM) {
            return;
        }
        let Some(replica) = (0..self.replicas.len()).find(|r| self.reads(*r)) else { return };
        self.hand_over = HandOver::Leaving { replica };
        self.calm_at = Some(self.now.mono);
        self.slow_down();
        self.left = self.rng.u32(20..=60);
        self.publish_at = self.now.mono;
        let after = MS + self.rng.u64(..u64::from(self.left) * self.plan.gap_max);
        self.later(after, Act::Drain { replica, down: u64::MAX });
    }

    fn slow_down(&mut self) {
        let slow = self.patience();
        let some = |rng: &mut fastrand::Rng| one_of(rng, &[0, slow / 4]);
        self.net.latency_max = self.net.latency_max.max(one_of(&mut self.rng, &[0, slow / 8]));
        self.redis.faults.latency_max = some(&mut self.rng);
        self.nats.jetstream.faults.puback_delay_max = some(&mut self.rng);
        self.nats.jetstream.faults.api_delay_max = some(&mut self.rng);
    }

    // The shortest wait for any answer.
    fn patience(&self) -> u64 {
        let settings = &self.plan.settings;
        settings
            .cdc
            .publish_timeout
            .min(settings.redis.reply_timeout)
            .min(settings.nats.api_timeout)
            .min(settings.nats.conn.handshake_timeout)
            .min(settings.lease.ttl / 4)
    }

    pub(super) fn look_at_hand_over(&mut self) -> Result<(), Broken> {
        match self.hand_over {
            HandOver::Leaving { replica } if self.replicas[replica].shards.is_empty() => {
                self.hand_over = HandOver::Left { at: self.now.mono };
            }
            HandOver::Left { .. } if (0..self.replicas.len()).any(|r| self.reads(r)) => {
                self.hand_over = HandOver::Done;
            }
            HandOver::Left { at } if self.now.mono > at + self.hand_over_max() => {
                let text = "the standby does not read after a clean stop: ".to_owned();
                return broken(Promise::Progress, text + &self.why_unsettled());
            }
            _ => {}
        }
        Ok(())
    }

    // The standby's next look at the lease, then a dozen answers at the most.
    fn hand_over_max(&self) -> u64 {
        self.plan.settings.lease.ttl / 4 + 12 * self.patience() / 2 + 500 * MS
    }

    fn reads(&self, replica: usize) -> bool {
        let shards = &self.replicas[replica].shards;
        shards.iter().any(|s| s.pipeline.status().readers.iter().any(|reader| reader.reading))
    }
}
