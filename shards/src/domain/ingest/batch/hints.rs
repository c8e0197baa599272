//! What a shard remembers of recent rows to save lookups. Never trusted for what is written: a date only says
//! where to look first, an onboarded contact was committed. Invariant: `len() <= capacity`, oldest out first.

use hashbrown::HashMap;
use std::collections::VecDeque;

/// 128 bits of a key, from a hash keyed by the process.
pub(super) type KeyHash = u128;

/// Recent keys with a value each.
#[derive(Debug)]
pub(super) struct Recent<T> {
    values: HashMap<KeyHash, T>,
    order: VecDeque<KeyHash>,
    capacity: usize,
}

impl<T: Copy> Recent<T> {
    fn new(capacity: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), capacity }
    }

    pub(super) fn get(&self, key: KeyHash) -> Option<T> {
        self.values.get(&key).copied()
    }

    /// A key that is known keeps its value: of several days of a message the first counts.
    pub(super) fn insert(&mut self, key: KeyHash, value: T) {
        if self.capacity == 0 || self.values.contains_key(&key) {
            return;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        self.values.insert(key, value);
        self.order.push_back(key);
    }
}

/// The hints of a shard.
#[derive(Debug)]
pub struct Hints {
    pub(super) dates: Recent<i32>,
    pub(super) onboarded: Recent<()>,
}

impl Hints {
    /// Room for so many of each; 0 switches hints off.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { dates: Recent::new(capacity), onboarded: Recent::new(capacity) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_and_the_first_value_stays() {
        let mut recent = Recent::new(2);
        for (key, value) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')] {
            recent.insert(key, value);
        }
        assert_eq!([1, 2, 3].map(|key| recent.get(key)), [None, Some('c'), Some('d')]);
        assert_eq!((recent.values.len(), recent.order.len()), (2, 2));
        let mut none = Recent::new(0);
        none.insert(1, ());
        assert_eq!(none.get(1), None);
    }
}
