//! What a shard knows of one company, and the table of all of them. Invariants: the flights of a company
//! form one list in stream order; the books add up: pulled = outcomes + returned + in flight.

use crate::id::PartitionId;
use hashbrown::HashMap;

/// No flight.
pub(super) const NONE: u32 = u32::MAX;

/// How events of a company have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Taken from the source.
    pub pulled: u64,
    /// Published, with a PubAck.
    pub committed: u64,
    /// Done before.
    pub duplicate: u64,
    /// Of no interest by rule.
    pub filtered: u64,
    /// Handed to the dead-letter stream, with a PubAck.
    pub dead_lettered: u64,
    /// Given back unfinished, to be read again.
    pub returned: u64,
}

impl Books {
    /// Events that have no outcome yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let ended = self.committed + self.duplicate + self.filtered + self.dead_lettered;
        self.pulled - ended - self.returned
    }

    /// Has an event of it reached its end where it was sent?
    pub(super) fn was_written(&self) -> bool {
        self.committed + self.duplicate > 0
    }

    /// Add another's figures.
    pub fn add(&mut self, other: &Self) {
        self.pulled += other.pulled;
        self.committed += other.committed;
        self.duplicate += other.duplicate;
        self.filtered += other.filtered;
        self.dead_lettered += other.dead_lettered;
        self.returned += other.returned;
    }
}

/// One company on its shard.
pub(super) struct Tenant {
    pub(super) id: Box<[u8]>,
    /// First and last of its flights, in stream order.
    pub(super) head: u32,
    pub(super) tail: u32,
    /// A publish of it has failed: nothing new is sent until that one has settled.
    pub(super) fenced: bool,
    /// Last flight of the list that is in its place, where outcomes are held back; else `NONE`.
    pub(super) placed: u32,
    /// Flight whose placing sets those outcomes free; `NONE` together with `placed`.
    pub(super) barrier: u32,
    /// The partition that its events come from.
    pub(super) partition: PartitionId,
    /// An earlier life may have published events of it that have not come yet.
    pub(super) is_replaying: bool,
    /// Events of a replay in the list that are not in their place yet.
    pub(super) replay_left: u32,
    /// Failures in a row of the event at the fence.
    pub(super) failures: u32,
    /// Output sequence of the last event that counts, in this reading.
    pub(super) seq_last: u64,
    /// LSN and index of that event.
    pub(super) position_last: (u64, u64),
    pub(super) books: Books,
}

impl Tenant {
    /// Must outcomes wait, whatever lies in order: may there be misplaced copies behind them?
    pub(super) fn is_held_back(&self) -> bool {
        self.is_replaying || self.replay_left > 0
    }
}

/// All companies of a shard.
pub(super) struct TenantTable {
    places: HashMap<Box<[u8]>, u32>,
    tenants: Vec<Tenant>,
    capacity: usize,
    evicted: Books,
    evictions: u64,
}

impl TenantTable {
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity.max(1) as usize;
        Self {
            places: HashMap::new(),
            tenants: Vec::new(),
            capacity,
            evicted: Books::default(),
            evictions: 0,
        }
    }

    /// The place of a company, made on first sight.
    pub(super) fn place(&mut self, company: &[u8]) -> u32 {
        if let Some(place) = self.places.get(company) {
            return *place;
        }
        if self.tenants.len() >= self.capacity {
            self.evict_idle();
        }
        let place = u32::try_from(self.tenants.len()).unwrap_or(NONE - 1);
        self.places.insert(company.into(), place);
        let (id, books) = (company.into(), Books::default());
        let (head, tail, fenced, failures, seq_last) = (NONE, NONE, false, 0, 0);
        let (position_last, partition) = ((0, 0), PartitionId(0));
        let (is_replaying, replay_left) = (false, 0);
        self.tenants.push(Tenant {
            id,
            head,
            tail,
            fenced,
            placed: NONE,
            barrier: NONE,
            partition,
            is_replaying,
            replay_left,
            failures,
            seq_last,
            position_last,
            books,
        });
        place
    }

    pub(super) fn get(&mut self, place: u32) -> &mut Tenant {
        &mut self.tenants[place as usize]
    }

    pub(super) fn id(&self, place: u32) -> &[u8] {
        &self.tenants[place as usize].id
    }

    pub(super) fn books_of(&self, place: u32) -> &Books {
        &self.tenants[place as usize].books
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Tenant)> {
        (0..).zip(self.tenants.iter_mut())
    }

    pub(super) fn len(&self) -> usize {
        self.tenants.len()
    }

    /// The books of every company, and of those that made room under the empty name.
    pub(super) fn books(&self) -> Vec<(Box<[u8]>, Books)> {
        let mut all: Vec<_> = self.tenants.iter().map(|t| (t.id.clone(), t.books)).collect();
        if self.evictions > 0 {
            all.push((Box::default(), self.evicted));
        }
        all
    }

    // A place is an index held by flights, so only a table without any flight may be emptied; else the
    // table grows past its bound by the companies in flight, which `in_flight_max` bounds in turn.
    fn evict_idle(&mut self) {
        if self.tenants.iter().any(|tenant| tenant.head != NONE || tenant.books.in_flight() > 0) {
            return;
        }
        for tenant in self.tenants.drain(..) {
            self.evicted.add(&tenant.books);
            self.evictions += 1;
        }
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_companies_make_room_and_their_books_are_kept() {
        let mut table = TenantTable::new(2);
        for company in [b"a", b"b"] {
            let place = table.place(company);
            table.get(place).books = Books { pulled: 3, committed: 3, ..Books::default() };
        }
        let place = table.place(b"c");
        assert_eq!((place, table.len()), (0, 1));
        let total = table.books().iter().fold(Books::default(), |mut sum, (_, books)| {
            sum.add(books);
            sum
        });
        assert_eq!((total.pulled, total.committed), (6, 6));
    }

    #[test]
    fn a_company_in_flight_keeps_its_place() {
        let mut table = TenantTable::new(1);
        let place = table.place(b"a");
        table.get(place).head = 0;
        assert_eq!((table.place(b"b"), table.place(b"a")), (1, 0));
    }
}
