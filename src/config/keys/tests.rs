//! The table is whole: every key has a default of its own kind, a section and its reasons.

use std::collections::HashSet;

use super::*;

#[test]
fn every_default_satisfies_its_own_kind() {
    for key in KEYS {
        assert_eq!(key.default.is_none(), key.default_value() == Value::Unset, "{}", key.path);
    }
}

#[test]
fn paths_are_unique_and_every_section_is_described() {
    let paths: HashSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(paths.len(), KEYS.len());
    let described: HashSet<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    let used: HashSet<&str> = KEYS.iter().map(Key::section).collect();
    assert_eq!(described, used);
}

#[test]
fn every_key_says_what_it_does_and_why() {
    for key in KEYS {
        assert!(key.doc.ends_with('.') && key.why.ends_with('.'), "{}", key.path);
    }
}
