//! The examples beside the schemas: schema crate and decoder both accept the valid ones, both refuse the
//! invalid ones, and for the rule in their name.

use super::{decode, described, schema_accepts};
use serde_json::Value;
use shards::domain::ingest::{Catalog, Kind, Reason};

#[test]
fn every_event_has_a_schema_and_examples_of_both_sorts() {
    let events = described();
    let mut bases: Vec<_> = Kind::ALL.iter().map(|kind| kind.base()).chain(["dlq"]).collect();
    bases.sort_unstable();
    let mut found: Vec<_> = events.iter().map(|event| event.base.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, bases);
    for event in &events {
        assert!(event.valid.len() >= 6 && event.invalid.len() >= 8, "{}", event.base);
    }
}

#[test]
fn valid_examples_are_accepted_by_schema_and_decoder() {
    let catalog = Catalog::load(&[]).unwrap();
    for event in described() {
        for example in &event.valid {
            let place = format!("{}: {}", event.base, example.name);
            assert_eq!(schema_accepts(&event, &example.payload), Some(true), "{place}");
            assert_eq!(decode(&catalog, &event, &example.payload), Ok(()), "{place}");
        }
    }
}

#[test]
fn invalid_examples_are_refused_by_both_for_the_rule_in_their_name() {
    let catalog = Catalog::load(&[]).unwrap();
    for event in described() {
        for example in &event.invalid {
            let place = format!("{}: {}", event.base, example.name);
            let (rule, _) = example.name.split_once('-').expect("rule-what");
            let refusal = decode(&catalog, &event, &example.payload).expect_err(&place);
            assert_eq!(refusal.rule.rsplit('/').next(), Some(rule), "{place}: {refusal}");
            let verdict = schema_accepts(&event, &example.payload);
            let expected = match rule {
                "json" => None,
                // What a subject says no schema can know.
                "company" => Some(true),
                _ => Some(false),
            };
            assert_eq!(verdict, expected, "{place}");
        }
    }
}

#[test]
fn reasons_for_metrics_follow_the_rule() {
    let catalog = Catalog::load(&[]).unwrap();
    for event in described() {
        for example in &event.invalid {
            let refusal = decode(&catalog, &event, &example.payload).unwrap_err();
            let reasons: &[Reason] = match refusal.rule.rsplit('/').next().unwrap() {
                "json" => &[Reason::BadJson],
                "company" => &[Reason::CompanyMismatch],
                "required" => &[Reason::Missing],
                // Null in place of something required is absent to us and a type to the schema.
                "type" => &[Reason::WrongType, Reason::Missing],
                "minLength" => &[Reason::Empty],
                "minimum" | "maximum" => &[Reason::OutOfRange],
                "enum" => &[Reason::BadValue, Reason::Missing, Reason::WrongType],
                "pattern" => &[Reason::Nul, Reason::BadValue],
                other => panic!("{other}"),
            };
            assert!(reasons.contains(&refusal.reason), "{}: {refusal:?}", example.name);
        }
    }
}

#[test]
fn items_of_history_batches_keep_to_the_schema_of_the_single_event() {
    let events = described();
    let document = |base: &str| &events.iter().find(|event| event.base == base).unwrap().document;
    for (batch, item, single) in [
        ("history.chats", "chat", "chats.upsert"),
        ("history.messages", "message", "messages.upsert"),
        ("history.contacts", "contact", "contacts.upsert"),
    ] {
        let definitions = document(batch)["$defs"].as_object().unwrap();
        let mut single = document(single).as_object().unwrap().clone();
        for (name, definition) in single["$defs"].as_object().unwrap() {
            assert_eq!(definitions.get(name), Some(definition), "{batch}: {name}");
        }
        for heading in ["$schema", "title", "$defs"] {
            single.remove(heading).expect("every schema has it");
        }
        assert_eq!(definitions[item], Value::Object(single), "{batch}");
    }
}
