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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { retry_at: u64 },
    Connecting,
    Open,
}

/// A job that is being filled.
pub(super) struct Filling {
    job: Box<Job>,
    weight: u32,
    bytes: u64,
    is_full: bool,
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

    /// Puts an event before all others of its company.
    pub(super) fn push_first(&mut self, waiting: Waiting) {
        self.queue.push_front(waiting);
    }

    /// Could it write now?
    pub(super) fn is_ready(&self, now: Now) -> bool {
        self.link == Link::Open && !self.is_writing() && now.mono >= self.paused_until
    }

    /// Weight of what waits.
    pub(super) fn queued(&self) -> u64 {
        self.queue.weight()
    }

    /// Companies with events that wait.
    pub(super) fn companies(&self) -> impl Iterator<Item = u32> {
        self.queue.companies()
    }

    /// An empty job, for [`Lane::fill`].
    pub(super) fn begin(&mut self) -> Filling {
        Filling { job: self.idle.take().unwrap_or_default(), weight: 0, bytes: 0, is_full: false }
    }

    /// Puts into a job what waits here and still has room. `keep` may take an event away.
    pub(super) fn fill(
        &mut self,
        filling: &mut Filling,
        settings: &IngestSettings,
        mut keep: impl FnMut(Waiting) -> Option<Waiting>,
    ) {
        while !filling.is_full && filling.weight < settings.batch_max {
            let Some(waiting) = self.queue.pop().map(&mut keep) else { break };
            let Some(waiting) = waiting else { continue };
            filling.bytes += waiting.parcel.msg.frame_len() as u64;
            filling.weight += waiting.weight();
            let is_alone = filling.bytes > settings.batch_bytes_max || waiting.is_suspect;
            filling.is_full = is_alone;
            if is_alone && !filling.job.events.is_empty() {
                self.queue.push_front(waiting);
                break;
            }
            filling.job.events.push(waiting);
        }
    }

    /// The job is under way from now on, unless it is empty.
    pub(super) fn start(&mut self, filling: Filling, now: Now) -> Option<Box<Job>> {
        if filling.job.events.is_empty() {
            self.idle = Some(filling.job);
            return None;
        }
        self.writing_since = Some(now.mono);
        Some(filling.job)
    }

    /// The job is back; since when it was under way.
    pub(super) fn take_back(&mut self) -> u64 {
        self.given_up = false;
        self.writing_since.take().unwrap_or_default()
    }

    /// The memory of a job is used again.
    pub(super) fn keep_memory(&mut self, job: Box<Job>) {
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
