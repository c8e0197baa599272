//! Prepared statements of a connection, by schema and name. Invariant: at most `capacity` are held, those
//! used lately; one that is dropped is closed on the server too.

use hashbrown::{Equivalent, HashMap};
use tokio_postgres::Statement;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    schema: Box<str>,
    name: &'static str,
}

#[derive(Hash)]
struct KeyRef<'a> {
    schema: &'a str,
    name: &'a str,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.schema == &*key.schema && self.name == key.name
    }
}

/// Two generations: what is found in the old one moves to the young one; when that is half of the capacity,
/// the old one goes.
pub(super) struct Cache<T = Statement> {
    young: HashMap<Key, T>,
    old: HashMap<Key, T>,
    capacity: usize,
}

impl<T: Clone> Cache<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), capacity: capacity.max(2) }
    }

    pub(super) fn get(&mut self, schema: &str, name: &'static str) -> Option<T> {
        let key = KeyRef { schema, name };
        if let Some(found) = self.young.get(&key) {
            return Some(found.clone());
        }
        let (key, found) = self.old.remove_entry(&key)?;
        self.keep(key, found.clone());
        Some(found)
    }

    pub(super) fn insert(&mut self, schema: &str, name: &'static str, value: T) {
        self.keep(Key { schema: schema.into(), name }, value);
    }

    fn keep(&mut self, key: Key, value: T) {
        if self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let mut cache = Cache::new(8);
        cache.insert("hot", "a", 0);
        for n in 0..100_u32 {
            assert_eq!(cache.get("hot", "a"), Some(0));
            cache.insert(&format!("s{n}"), "a", n);
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert_eq!(cache.get("s3", "a"), None);
        assert_eq!(cache.get("hot", "b"), None);
    }
}
