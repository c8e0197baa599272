//! The decoder accepts what the schema crate accepts, and nothing else; and where they differ by intent.

use super::mutate::mutant;
use super::{Described, decode, described, schema_accepts};
use fastrand::Rng;
use serde_json::Value;
use shards::domain::ingest::{Body, Catalog, Reason};

/// Mutants in all; `DAISI_INGEST_CASES` makes it more.
const CASES: u64 = 24_000;

fn cases() -> u64 {
    std::env::var("DAISI_INGEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// Examples that `serde_json` can read.
fn origins(event: &Described) -> Vec<&[u8]> {
    let payloads = event.valid.iter().map(|example| example.payload.as_slice());
    payloads.filter(|payload| serde_json::from_slice::<Value>(payload).is_ok()).collect()
}

#[test]
fn decoder_and_schema_accept_the_same_mutants() {
    let (catalog, events) = (Catalog::load(&[]).unwrap(), described());
    let each = cases().div_ceil(events.len() as u64);
    for event in &events {
        let origins = origins(event);
        let (mut accepted, mut refused, mut doubled) = (0, 0, 0);
        for seed in 0..each {
            let mut rng = Rng::with_seed(seed);
            let payload = mutant(origins[rng.usize(..origins.len())], &mut rng);
            let schema = schema_accepts(event, &payload);
            let place =
                || format!("{} seed {seed}: {}", event.base, String::from_utf8_lossy(&payload));
            match decode(&catalog, event, &payload) {
                Ok(()) => assert_eq!(schema, Some(true), "accepted {}", place()),
                // What the subject says no schema can know.
                Err(refusal) if refusal.reason == Reason::CompanyMismatch => continue,
                // See `of_doubled_members_in_a_free_object_all_are_read`.
                Err(refusal) if refusal.reason == Reason::Nul && refusal.rule == "decoder" => {
                    doubled += 1;
                    continue;
                }
                Err(refusal) => {
                    assert_ne!(schema, Some(true), "{refusal}: {}", place());
                    let is_json = refusal.reason != Reason::BadJson;
                    assert_eq!(schema.is_some(), is_json, "{refusal}: {}", place());
                    let is_worded = !refusal.words.is_empty() && refusal.rule != "decoder";
                    assert!(is_worded, "{refusal:?}: {}", place());
                    refused += 1;
                    continue;
                }
            }
            accepted += 1;
        }
        assert!(doubled < each / 100, "{}: {doubled}", event.base);
        // Both verdicts are met often, or nothing was compared.
        assert!(
            accepted > each / 10 && refused > each / 10,
            "{}: {accepted} {refused}",
            event.base
        );
    }
}

#[test]
fn half_surrogate_pairs_are_mended_where_serde_json_gives_up() {
    let (catalog, events) = (Catalog::load(&[]).unwrap(), described());
    let mut seen = 0;
    for event in &events {
        for example in &event.valid {
            let body = Body::of(&example.payload);
            if body.as_str().as_bytes() != example.payload {
                assert!(serde_json::from_slice::<Value>(&example.payload).is_err());
                assert_eq!(decode(&catalog, event, &example.payload), Ok(()), "{}", example.name);
                seen += 1;
            }
        }
    }
    assert!(seen >= 7, "one for each realtime event");
}

/// A chat with one more member.
fn chat_with(member: &str) -> Vec<u8> {
    format!(r#"{{"chat_id":"c","jid":"j","agent_id":"a","phone_number":"p",{member}}}"#)
        .into_bytes()
}

#[test]
fn numbers_are_exact_where_a_double_is_not() {
    let (catalog, events) = (Catalog::load(&[]).unwrap(), described());
    let chats = events.iter().find(|event| event.base == "chats.upsert").unwrap();
    let reason = |member: &str| {
        decode(&catalog, chats, &chat_with(member)).err().map(|refusal| refusal.reason)
    };
    // `serde_json` rounds it to 2^63 first.
    assert_eq!(reason(r#""conversation_timestamp":9223372036854775807.0"#), None);
    assert_eq!(
        schema_accepts(chats, &chat_with(r#""conversation_timestamp":9223372036854775807.0"#)),
        Some(false)
    );
    // `serde_json` rounds these to whole numbers.
    for number in ["1.00000000000000000001", "9007199254740993.5", "1e-400"] {
        let member = format!(r#""conversation_timestamp":{number}"#);
        assert_eq!(reason(&member), Some(Reason::WrongType), "{number}");
        assert_eq!(schema_accepts(chats, &chat_with(&member)), Some(true), "{number}");
    }
    // `serde_json` refuses the whole payload.
    assert_eq!(reason(r#""last_message":{"n":1e999}"#), None);
    assert_eq!(schema_accepts(chats, &chat_with(r#""last_message":{"n":1e999}"#)), None);
    assert_eq!(reason(r#""unread_count":1e999"#), Some(Reason::OutOfRange));
}

#[test]
fn of_doubled_members_in_a_free_object_all_are_read() {
    // The object goes to PostgreSQL as it came, and `jsonb` reads all of it before the last wins.
    let (catalog, events) = (Catalog::load(&[]).unwrap(), described());
    let chats = events.iter().find(|event| event.base == "chats.upsert").unwrap();
    let payload = chat_with(r#""last_message":{"a":"\u0000","a":"x"}"#);
    let refusal = decode(&catalog, chats, &payload).unwrap_err();
    assert_eq!((refusal.reason, refusal.path.as_str()), (Reason::Nul, "/last_message"));
    assert_eq!(schema_accepts(chats, &payload), Some(true));
    // Outside of free objects the last wins, here as there.
    let payload = chat_with(r#""last_message":{"a":"\u0000"},"last_message":{"a":"x"}"#);
    assert_eq!(decode(&catalog, chats, &payload), Ok(()));
    assert_eq!(schema_accepts(chats, &payload), Some(true));
}

#[test]
fn nesting_is_bounded_for_all_that_is_read_and_skipped() {
    let (catalog, events) = (Catalog::load(&[]).unwrap(), described());
    let chats = events.iter().find(|event| event.base == "chats.upsert").unwrap();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for name in ["last_message", "surplus"] {
        let at = |levels: usize| {
            let payload = chat_with(&format!(r#""{name}":{{"a":{}}}"#, nested(levels)));
            let reason = decode(&catalog, chats, &payload).err().map(|refusal| refusal.reason);
            (reason, schema_accepts(chats, &payload))
        };
        assert_eq!(at(118), (None, Some(true)));
        // 121 levels with the event and the member around it. `serde_json` goes to 127.
        assert_eq!(at(119), (Some(Reason::TooDeep), Some(true)));
        assert_eq!(at(1 << 20), (Some(Reason::TooDeep), None));
    }
}
