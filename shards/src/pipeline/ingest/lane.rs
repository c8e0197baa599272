//! One connection to PostgreSQL as the pipeline sees it, and the events that wait for it. Invariants: at most
//! one job is under way; what comes back without an outcome goes before everything that came later.

use super::queue::Queue;
use super::{Job, Waiting};
use crate::clock::{Now, SEC};
use crate::domain::retry::Backoff;
use crate::pipeline::effect::Effect;
use crate::pipeline::mail::Parcel;
use crate::pipeline::settings::IngestSettings;
use std::collections::VecDeque;

/// A write that takes so long is worth a word, and no further event.
const SLOW: u64 = 5 * SEC;

/// Of an item of a history event, about.
const ITEM_BYTES: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { retry_at: u64 },
    Connecting,
    Open,
}

/// A lane.
pub(super) struct Lane {
    pub(super) place: u16,
    link: Link,
    /// Since when a job is under way.
    writing_since: Option<u64>,
    /// It took too long, and the connection was closed under it.
    given_up: bool,
    /// Nothing is written before this.
    paused_until: u64,
    backoff: Backoff,
    queue: Queue,
    /// Why nothing can be written; `None` while all is well.
    why: Option<String>,
    /// The job's memory, while none is under way.
    idle: Option<Box<Job>>,
}

impl Lane {
    pub(super) fn new(place: u16, settings: &IngestSettings) -> Self {
        Self {
            place,
            link: Link::Down { retry_at: 0 },
            writing_since: None,
            given_up: false,
            paused_until: 0,
            backoff: Backoff::new(settings.backoff.0, settings.backoff.1),
            queue: Queue::default(),
            why: Some("not connected yet".to_owned()),
            idle: None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link == Link::Open
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing_since.is_some()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.queue.push(waiting);
    }

    /// Puts events before all others of their companies, in their order.
    pub(super) fn push_front(&mut self, events: &mut VecDeque<Waiting>) {
        while let Some(waiting) = events.pop_back() {
            self.queue.push_front(waiting);
        }
    }

    /// What is to be written next, if the lane is free and something waits. `keep` may take an event away.
    pub(super) fn take_job(
        &mut self,
        now: Now,
        settings: &IngestSettings,
        mut keep: impl FnMut(Waiting) -> Option<Waiting>,
    ) -> Option<Box<Job>> {
        let is_free = self.link == Link::Open && self.writing_since.is_none();
        if !is_free || self.queue.is_empty() || now.mono < self.paused_until {
            return None;
        }
        let mut job = self.idle.take().unwrap_or_default();
        let (mut bytes, mut weight) = (0, 0);
        while weight < settings.batch_max {
            let Some(waiting) = self.queue.pop(weight_of).map(&mut keep) else { break };
            let Some(waiting) = waiting else { continue };
            bytes += waiting.parcel.msg.frame_len() as u64;
            weight += weight_of(&waiting);
            let is_alone = bytes > settings.batch_bytes_max || waiting.is_suspect;
            if is_alone && !job.events.is_empty() {
                self.queue.push_front(waiting);
                break;
            }
            job.events.push(waiting);
            if is_alone {
                break;
            }
        }
        if job.events.is_empty() {
            self.idle = Some(job);
            return None;
        }
        self.writing_since = Some(now.mono);
        Some(job)
    }

    /// The job is back; since when it was under way.
    pub(super) fn take_back(&mut self) -> u64 {
        self.given_up = false;
        self.writing_since.take().unwrap_or_default()
    }

    /// What is left of a job goes to the front; its memory is used again.
    pub(super) fn put_back(&mut self, mut left: VecDeque<Waiting>, job: Box<Job>) {
        self.push_front(&mut left);
        self.idle = Some(job);
    }

    /// The database has answered a write, whatever it said of the events.
    pub(super) fn worked(&mut self) {
        self.backoff.reset();
        if self.why.take().is_some() {
            tracing::info!(lane = self.place, "postgresql takes writes again");
        }
    }

    pub(super) fn pause(&mut self, now: Now, why: &str, rng: &mut fastrand::Rng) {
        self.paused_until = now.mono + self.backoff.next_delay(rng);
        self.tell(why);
    }

    pub(super) fn opened(&mut self) {
        self.link = Link::Open;
        self.paused_until = 0;
        if self.why.take().is_some() {
            tracing::info!(lane = self.place, "postgresql connected");
        }
    }

    pub(super) fn closed(&mut self, now: Now, why: &str, rng: &mut fastrand::Rng) {
        self.link = Link::Down { retry_at: now.mono + self.backoff.next_delay(rng) };
        self.tell(why);
    }

    fn tell(&mut self, why: &str) {
        if self.why.is_none() {
            tracing::warn!(lane = self.place, why, "nothing can be written; pulling pauses");
        }
        self.why = Some(why.to_owned());
    }

    pub(super) fn tick(
        &mut self,
        now: Now,
        settings: &IngestSettings,
        effects: &mut VecDeque<Effect>,
    ) {
        match self.link {
            Link::Down { retry_at } if now.mono >= retry_at && self.writing_since.is_none() => {
                self.link = Link::Connecting;
                effects.push_back(Effect::PgConnect { lane: self.place });
            }
            Link::Open => self.tick_open(now, settings, effects),
            Link::Down { .. } | Link::Connecting => {}
        }
    }

    fn tick_open(&mut self, now: Now, settings: &IngestSettings, effects: &mut VecDeque<Effect>) {
        let Some(since) = self.writing_since else {
            // Nothing is left to find out with whether it takes writes again: what was held is given back.
            // So pull, and see.
            if self.why.is_some() && self.queue.is_empty() && now.mono >= self.paused_until {
                self.why = None;
            }
            return;
        };
        let span = now.mono.saturating_sub(since);
        if span >= settings.write_timeout && !self.given_up {
            self.given_up = true;
            self.tell("a write is not answered");
            effects.push_back(Effect::PgClose { lane: self.place });
        } else if span >= SLOW && self.why.is_none() {
            self.tell("a write is under way for more than 5 s");
        }
    }

    pub(super) fn withdraw(&mut self, is_void: &impl Fn(&Parcel) -> bool, void: &mut Vec<Waiting>) {
        self.queue.withdraw(is_void, void);
    }
}

// A history event is as many rows as it has items, which are not counted before they are read.
fn weight_of(waiting: &Waiting) -> u32 {
    let bytes = waiting.parcel.msg.frame_len() / ITEM_BYTES;
    if waiting.is_history() { u32::try_from(bytes).unwrap_or(u32::MAX).max(1) } else { 1 }
}
