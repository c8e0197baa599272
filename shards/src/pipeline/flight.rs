//! An event between admission and outcome, and the slab that holds them. Invariant: a `FlightRef` names
//! one flight and never its successor in the slot; slots are reused, so a running shard allocates none.

use super::bus::FlightRef;
use super::mail::Parcel;
use super::tenant::NONE;
use crate::clock::Now;
use crate::domain::cdc::ChangeSpans;
use crate::domain::window::IdHash;
use hashbrown::HashMap;

/// Where a flight stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The claim's reply is awaited.
    Claiming,
    /// An event of the same identity is ahead of it in the company's list.
    Twin,
    /// Claimed, and held back by the fence or the publish window.
    Waiting,
    /// Published; PubAcks are awaited.
    Sent,
    /// In the stream; counts once all before it count.
    Acked,
    /// In its place in the stream; its outcome waits until that holds for all that was sent with it.
    Placed,
    /// The publish failed, or its fate is unknown: to be sent again.
    Failed,
    /// Has its outcome; waits only to leave the list.
    Gone,
    /// Has its outcome; the done mark's reply is awaited.
    Marking,
    /// On its way to the dead-letter stream.
    Dead,
}

/// One event.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) parcel: Parcel,
    /// Absent for an event that could not be read.
    pub(super) spans: Option<ChangeSpans>,
    pub(super) tenant: u32,
    /// Next flight of the company.
    pub(super) next: u32,
    pub(super) hash: IdHash,
    pub(super) state: State,
    /// How often it was given a new message id, to land behind an earlier event.
    pub(super) rebirths: u8,
    pub(super) attempts: u32,
    /// PubAcks awaited, one a prefix.
    pub(super) acks_open: u8,
    /// Some publish of this attempt failed.
    pub(super) failed: bool,
    /// The stream had it before this attempt.
    pub(super) duplicate: bool,
    /// Output sequence of the first prefix.
    pub(super) seq: u64,
    /// When the claim or publish went out, monotonic ns.
    pub(super) since: u64,
}

impl Flight {
    /// An event that has been neither sent nor listed yet.
    pub(super) fn new(
        parcel: Parcel,
        spans: Option<ChangeSpans>,
        tenant: u32,
        hash: IdHash,
        state: State,
        now: Now,
    ) -> Self {
        Self {
            parcel,
            spans,
            tenant,
            next: NONE,
            hash,
            state,
            rebirths: 0,
            attempts: 0,
            acks_open: 0,
            failed: false,
            duplicate: false,
            seq: 0,
            since: now.mono,
        }
    }
}

/// How many events of each identity stand in the lists, twins included: were these left out, one that
/// comes while only a twin waits would fly ahead of it, and each would wait for the other.
pub(super) struct Flying(HashMap<IdHash, u32>);

impl Flying {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(HashMap::with_capacity(capacity))
    }

    /// One more; true if it is the only one.
    pub(super) fn insert(&mut self, hash: IdHash) -> bool {
        let count = self.0.entry(hash).or_default();
        *count += 1;
        *count == 1
    }

    /// One has ended, or is to be dead-lettered.
    pub(super) fn remove(&mut self, hash: &IdHash) {
        match self.0.get_mut(hash) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(hash)),
        }
    }
}

struct Slot {
    generation: u32,
    flight: Option<Flight>,
}

/// Flights by slot.
pub(super) struct Flights {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Flights {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    pub(super) fn insert(&mut self, flight: Flight) -> FlightRef {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, flight: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE - 1)
        });
        let place = &mut self.slots[slot as usize];
        place.flight = Some(flight);
        FlightRef { slot, generation: place.generation }
    }

    /// The flight of this name, if it still flies.
    pub(super) fn get(&mut self, name: FlightRef) -> Option<&mut Flight> {
        let slot = self.slots.get_mut(name.slot as usize)?;
        slot.flight.as_mut().filter(|_| slot.generation == name.generation)
    }

    /// The flight in a slot that is known to be taken: a company's list names only such.
    #[expect(clippy::expect_used, reason = "lists hold live slots only; anything else is our bug")]
    pub(super) fn at(&mut self, slot: u32) -> &mut Flight {
        self.slots[slot as usize].flight.as_mut().expect("a list names a live flight")
    }

    pub(super) fn name_of(&self, slot: u32) -> FlightRef {
        FlightRef { slot, generation: self.slots[slot as usize].generation }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Flight> {
        let place = &mut self.slots[slot as usize];
        let flight = place.flight.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        Some(flight)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots that are taken.
    pub(super) fn taken(&self) -> Vec<u32> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.flight.is_some()).map(|(n, _)| n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_taken_until_the_last_of_it_has_ended() {
        let mut flying = Flying::with_capacity(4);
        assert!(flying.insert(7), "the first flies");
        assert!(!flying.insert(7), "its twin waits");
        flying.remove(&7);
        assert!(!flying.insert(7), "a third may not overtake the twin");
        flying.remove(&7);
        flying.remove(&7);
        assert!(flying.insert(7) && flying.insert(8));
    }
}
