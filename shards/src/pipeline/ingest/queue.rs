//! Events that wait for a lane: each company's in the order they came, the companies in turn. So the flood of
//! one does not stand before the few events of another. Pure. Invariants: of one company the oldest goes
//! first; a company with an event that waits stands in the round once.

use super::Waiting;
use crate::pipeline::mail::Parcel;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Weight that a company may take before it is the next one's turn. Each company in a batch costs statements
/// of its own, so turns are not shorter.
const TURN: u32 = 64;
/// Lists kept for companies to come.
const SPARE_MAX: usize = 1024;

/// The queue of a lane.
#[derive(Default)]
pub(super) struct Queue {
    /// Companies with events, in the order of their turns.
    round: VecDeque<u32>,
    waiting: HashMap<u32, VecDeque<Waiting>>,
    spare: Vec<VecDeque<Waiting>>,
    /// What the first of the round has had of its turn.
    taken: u32,
    /// Of all that waits.
    weight: u64,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.round.is_empty()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn companies(&self) -> impl Iterator<Item = u32> {
        self.round.iter().copied()
    }

    /// Behind all others of its company.
    pub(super) fn push(&mut self, event: Waiting) {
        let tenant = event.tenant;
        self.weight += u64::from(event.weight());
        let events = self.waiting.entry(tenant).or_insert_with(|| {
            self.round.push_back(tenant);
            self.spare.pop().unwrap_or_default()
        });
        events.push_back(event);
    }

    /// Before all others of its company, and its company before all others.
    pub(super) fn push_front(&mut self, event: Waiting) {
        let tenant = event.tenant;
        self.weight += u64::from(event.weight());
        let events = self.waiting.entry(tenant).or_insert_with(|| {
            self.round.push_front(tenant);
            self.taken = 0;
            self.spare.pop().unwrap_or_default()
        });
        events.push_front(event);
    }

    /// The next event; its weight is what it takes of its company's turn.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let tenant = *self.round.front()?;
        let events = self.waiting.get_mut(&tenant)?;
        let event = events.pop_front()?;
        self.weight -= u64::from(event.weight());
        self.taken = self.taken.saturating_add(event.weight());
        if events.is_empty() {
            self.round.pop_front();
            self.taken = 0;
            let list = self.waiting.remove(&tenant).unwrap_or_default();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(list);
            }
        } else if self.taken >= TURN {
            self.round.rotate_left(1);
            self.taken = 0;
        }
        Some(event)
    }

    /// Moves what is void out of it.
    pub(super) fn withdraw(&mut self, is_void: &impl Fn(&Parcel) -> bool, void: &mut Vec<Waiting>) {
        for events in self.waiting.values_mut() {
            withdraw(events, is_void, void);
        }
        self.waiting.retain(|_, events| !events.is_empty());
        self.round.retain(|tenant| self.waiting.contains_key(tenant));
        self.taken = 0;
        let waiting = self.waiting.values().flatten();
        self.weight = waiting.map(|event| u64::from(event.weight())).sum();
    }
}

/// Moves what is void out of a list.
pub(super) fn withdraw(
    events: &mut VecDeque<Waiting>,
    is_void: &impl Fn(&Parcel) -> bool,
    void: &mut Vec<Waiting>,
) {
    for _ in 0..events.len() {
        let Some(waiting) = events.pop_front() else { return };
        if is_void(&waiting.parcel) {
            void.push(waiting);
        } else {
            events.push_back(waiting);
        }
    }
}
