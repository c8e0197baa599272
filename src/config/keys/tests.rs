//! The table is whole: every key has a default of its own kind, and its reasons.

use super::*;

#[test]
fn every_default_satisfies_its_own_kind() {
    for key in KEYS {
        assert_eq!(key.default.is_none(), key.default_value() == Value::Unset, "{}", key.path);
    }
}

#[test]
fn every_key_says_what_it_does_and_why() {
    for key in KEYS {
        assert!(key.doc.ends_with('.') && key.why.ends_with('.'), "{}", key.path);
    }
}
