//! The begin of a reading, while events come that an earlier life may have published already. Their outcomes
//! are held back until the last of them has been handed on: one that is acknowledged before is forgotten, and
//! with it that a copy behind it may lie before it in the output. Invariant: an earlier life held no more
//! than a reader may hold, and it began at the floor or before; so what it may have published lies among
//! those first events, and in the source since before this reading.

/// How far the replay has got.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) is_on: bool,
    /// Last sequence of the stream when this reading was prepared.
    pub(super) horizon: u64,
    /// Events without outcome whose place in the output is settled.
    pub(super) placed: usize,
    /// The last of them has come.
    is_reached: bool,
    /// The server had nothing more to send when it was last heard.
    is_silent: bool,
}

impl Replay {
    pub(super) fn begin(&mut self, is_on: bool) {
        (self.is_on, self.placed) = (is_on, 0);
        (self.is_reached, self.is_silent) = (false, false);
    }

    /// An event has come, and the server counts `pending` behind it. True if it belongs to the replay.
    pub(super) fn on_delivery(&mut self, seq: u64, pending: u64) -> bool {
        self.is_silent = false;
        self.is_reached |= seq >= self.horizon || pending == 0;
        self.is_on && seq <= self.horizon
    }

    /// A status of this code came. Heartbeats and expiries tell that the server has nothing to send.
    pub(super) fn on_status(&mut self, code: u16) {
        self.is_silent |= matches!(code, 100 | 404 | 408);
    }

    /// Has the last event of it come? `open` events have no outcome; `is_full`: the reader asks
    /// for no more because of what it holds.
    pub(super) fn is_over(&self, open: usize, is_full: bool) -> bool {
        // Where all that came waits for nothing but the end of the replay, no more of it can come; where some
        // are still under way, their outcomes may make room for more.
        self.is_reached || (self.placed == open && (is_full || self.is_silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(horizon: u64) -> Replay {
        let mut replay = Replay { horizon, ..Replay::default() };
        replay.begin(true);
        replay
    }

    #[test]
    fn it_ends_with_the_last_event_that_was_there() {
        let mut replay = replay(5);
        assert!(replay.on_delivery(4, 9) && !replay.is_over(1, false));
        assert!(replay.on_delivery(5, 8) && replay.is_over(2, false));
        assert!(!replay.on_delivery(6, 7), "what came in since is nobody's");
    }

    #[test]
    fn it_ends_where_nothing_is_left() {
        let mut replay = replay(5);
        assert!(replay.on_delivery(3, 0), "the rest are another partition's");
        assert!(replay.is_over(1, false));
    }

    #[test]
    fn a_full_reader_waits_for_those_that_may_make_room() {
        let mut replay = replay(50);
        assert!(replay.on_delivery(3, 40) && replay.on_delivery(4, 39));
        replay.placed = 1;
        assert!(!replay.is_over(2, true), "the other one may be filtered, or known as done");
        replay.placed = 2;
        assert!(replay.is_over(2, true) && !replay.is_over(2, false));
    }

    #[test]
    fn a_silent_server_ends_it_when_the_rest_was_purged() {
        let mut replay = replay(50);
        assert!(replay.on_delivery(3, 40));
        replay.placed = 1;
        replay.on_status(100);
        assert!(replay.is_over(1, false));
    }
}
