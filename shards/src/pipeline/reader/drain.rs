//! The clean end of a reading: pulls are withdrawn, what is held gets its outcome and its ack, the server
//! confirms that, then the lease is given back. For good when the process stops; to stand by again when it
//! is another replica's turn. Invariant: the lease goes only when nothing is held and nothing can come any
//! more.

use super::{Bus, Drain, Goal, Now, Phase, Reader, ReaderNews, SEC, Settings};

impl Reader {
    /// The process stops: stop pulling, finish what is held.
    pub(in crate::pipeline) fn drain(&mut self, bus: &mut Bus) {
        let under_way = self.drain != Drain::No;
        self.goal = Goal::Stop;
        match self.phase {
            _ if under_way => {}
            Phase::Reading if self.replay.is_on => self.drain = Drain::CatchingUp,
            Phase::Reading => self.withdraw(bus),
            Phase::Idle => self.drain = Drain::Finished,
            _ => self.drain = Drain::Asked { barriers: 0 },
        }
    }

    /// The server has parsed more of what we had sent.
    pub(in crate::pipeline) fn on_barrier(&mut self) {
        if let Drain::Asked { barriers } = &mut self.drain {
            *barriers = barriers.saturating_sub(1);
        }
    }

    /// Drain outside a reading (the lease is somebody else's, or the consumer is being prepared).
    pub(in crate::pipeline) fn drain_idle(&mut self, now: Now, settings: &Settings, bus: &mut Bus) {
        // A consumer that is being made anew is there when we go: whoever watches it would find none.
        let is_busy = matches!(
            self.phase,
            Phase::Reading | Phase::SavingPosition | Phase::Deleting | Phase::Creating
        );
        if !is_busy && matches!(self.drain, Drain::Asked { .. }) {
            self.continue_drain(now, settings, bus);
        }
    }

    /// It is another replica's turn: finish what is held, give the lease back, stand by.
    pub(super) fn hand_over(&mut self, bus: &mut Bus) {
        let may_begin = self.phase == Phase::Reading && !self.replay.is_on;
        if may_begin && self.drain == Drain::No {
            tracing::info!(partition = %self.partition, "handing over to another replica");
            self.goal = Goal::HandOver;
            self.withdraw(bus);
        }
    }

    pub(super) fn continue_drain(&mut self, now: Now, settings: &Settings, bus: &mut Bus) {
        let is_quiet = self.drain == (Drain::Asked { barriers: 0 }) && self.progress.held() == 0;
        if !is_quiet || self.lease.is_renewing() {
            return;
        }
        if self.phase == Phase::Reading
            && let Some(ack) = self.paid.take()
        {
            self.drain = Drain::Confirming;
            return self.ask(now, &String::from_utf8_lossy(&ack), b"", bus);
        }
        let (act, until) = match self.goal {
            Goal::Stop => (self.lease.release(), now.mono + SEC),
            // Its answer, or that there is none, always comes; a later one would be taken for another's.
            Goal::HandOver => (self.lease.hand_over(now), u64::MAX),
        };
        match act {
            Some(act) => {
                self.drain = Drain::Releasing { until };
                self.act_on_lease(now, Some(act), settings, bus);
            }
            None => self.end_drain(),
        }
    }

    /// The release was answered, or never will be.
    pub(super) fn on_released(&mut self, bus: &mut Bus) -> ReaderNews {
        let stands_by = self.goal == Goal::HandOver;
        self.end_drain();
        if !stands_by {
            return ReaderNews::Nothing;
        }
        bus.subscribe_reader(self.place);
        self.phase = Phase::Leasing;
        let news = self.end_epoch();
        self.floor_known = None; // What the other replica acknowledges is not ours to remember.
        news
    }

    /// Over, in whatever way: with the connection too, whose subscriptions are made anew with it.
    pub(super) fn end_drain(&mut self) {
        self.drain = match self.goal {
            Goal::Stop => {
                let _held = self.lease.release();
                Drain::Finished
            }
            Goal::HandOver => Drain::No,
        };
        self.goal = Goal::Stop;
    }

    /// The reading goes on, or begins anew, on this connection.
    pub(super) fn break_off_hand_over(&mut self, bus: &mut Bus) {
        if self.drain != Drain::No && self.goal == Goal::HandOver {
            self.end_drain();
            bus.subscribe_reader(self.place);
        }
    }

    // From here on the server drops our open pulls.
    pub(super) fn withdraw(&mut self, bus: &mut Bus) {
        bus.unsubscribe_reader(self.place);
        let barriers = bus.conn.barrier();
        self.puller.void();
        self.drain = Drain::Asked { barriers };
    }
}
