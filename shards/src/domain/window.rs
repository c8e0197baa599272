//! Window of event ids already done, the local half of the dedup. Pure: no clock, no IO. Invariants:
//! `len() <= capacity`; an id leaves by age first, then by count. Only *done* ids are in here: an id
//! that is merely claimed proves nothing (DESIGN section 5, promise 2).

use hashbrown::HashTable;

/// 128 bits of an event's identity, from a keyed hash: at 10^9 ids the chance of one false match is
/// below 10^-20, which is why the identity itself need not be kept.
pub type IdHash = u128;

#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2], // Two words rather than a u128: 24 bytes a slot instead of 32.
    done_s: u32,
}

/// Fixed-capacity window: a ring in order of completion, and a table of places in it.
pub struct Window {
    ring: Vec<Slot>,
    head: usize,
    len: usize,
    table: HashTable<u32>,
    capacity: usize,
    age_max_s: u32,
}

impl Window {
    /// Room for `capacity` ids (0 switches the window off), each kept `age_max_s` seconds at most.
    #[must_use]
    pub fn new(capacity: u32, age_max_s: u32) -> Self {
        let capacity = capacity as usize;
        let table = HashTable::with_capacity(capacity);
        Self { ring: Vec::with_capacity(capacity), head: 0, len: 0, table, capacity, age_max_s }
    }

    /// Ids held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing held?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Was this id done within the window?
    #[must_use]
    pub fn contains(&self, id: IdHash, now_s: u32) -> bool {
        let words = split(id);
        self.place_of(words).is_some_and(|place| !self.is_old(&self.ring[place], now_s))
    }

    /// Remember an id as done now. An id that is already here keeps its first time.
    pub fn insert(&mut self, id: IdHash, now_s: u32) {
        if self.capacity == 0 {
            return;
        }
        self.drop_old(now_s);
        let hash = split(id);
        while let Some(place) = self.place_of(hash) {
            if !self.is_old(&self.ring[place], now_s) {
                return;
            }
            self.drop_oldest(); // It and all before it are too old.
        }
        if self.len == self.capacity {
            self.drop_oldest();
        }
        let place = (self.head + self.len) % self.capacity;
        let slot = Slot { hash, done_s: now_s };
        if place == self.ring.len() {
            self.ring.push(slot);
        } else {
            self.ring[place] = slot;
        }
        self.len += 1;
        let Self { ring, table, .. } = self;
        let place = u32::try_from(place).unwrap_or(u32::MAX); // Below `capacity`, itself a u32.
        table.insert_unique(hash[0], place, |place| ring[*place as usize].hash[0]);
    }

    /// Forget what is too old; at most a few at a call, so that no call is long.
    pub fn drop_old(&mut self, now_s: u32) {
        for _ in 0..4 {
            if self.len == 0 || !self.is_old(&self.ring[self.head], now_s) {
                return;
            }
            self.drop_oldest();
        }
    }

    fn place_of(&self, hash: [u64; 2]) -> Option<usize> {
        let found = self.table.find(hash[0], |place| self.ring[*place as usize].hash == hash);
        found.map(|place| *place as usize)
    }

    fn is_old(&self, slot: &Slot, now_s: u32) -> bool {
        now_s.saturating_sub(slot.done_s) >= self.age_max_s
    }

    fn drop_oldest(&mut self) {
        let head = self.head;
        let hash = self.ring[head].hash;
        if let Ok(entry) = self.table.find_entry(hash[0], |place| *place as usize == head) {
            entry.remove();
        }
        self.head = (head + 1) % self.capacity;
        self.len -= 1;
    }
}

fn split(id: IdHash) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is wanted")]
    [id as u64, (id >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_leaves_by_age() {
        let mut window = Window::new(8, 300);
        window.insert(7, 100);
        assert!(window.contains(7, 399));
        assert!(!window.contains(7, 400));
    }

    #[test]
    fn the_oldest_id_leaves_when_full() {
        let mut window = Window::new(2, 300);
        (1..=3).for_each(|id| window.insert(id, 0));
        assert_eq!([1, 2, 3].map(|id| window.contains(id, 0)), [false, true, true]);
        assert_eq!(window.len(), 2);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(ids in proptest::collection::vec((0u128..40, 0u32..3), 0..400)) {
            let (mut window, mut model, mut now) = (Window::new(16, 20), Vec::<(u128, u32)>::new(), 0);
            for (id, step) in ids {
                now += step;
                let known = model.iter().any(|(seen, at)| *seen == id && now - at < 20);
                prop_assert_eq!(window.contains(id, now), known);
                window.insert(id, now);
                model.retain(|(_, at)| now - at < 20);
                if !known {
                    model.push((id, now));
                    if model.len() > 16 { model.remove(0); }
                }
            }
        }
    }
}
