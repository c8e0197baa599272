//! What does one event cost, from payload to typed value? Prints nanoseconds and allocations per event, and
//! a hash of the event, which must not change between runs. Beside it: the schema crate over the same
//! payload, which is what an operator's own schema costs, and `serde_json` into its tree.
#![expect(clippy::expect_used, reason = "the samples are part of this file's build")]

use crate::measure::{Ask, Case, section};
use shards::domain::ingest::{Body, Catalog, SchemaFile};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;

const MESSAGE: &str =
    include_str!("../../../schemas/wa_events_stream/messages.upsert.v1/valid/sample.json");
const CHAT: &str =
    include_str!("../../../schemas/wa_events_stream/chats.upsert.v1/valid/sample.json");
const INVALID: &str = include_str!(
    "../../../schemas/wa_events_stream/messages.upsert.v1/invalid/enum-flow_sideways.json"
);
const SCHEMA_FILE: &str = "wa_events_stream/messages.upsert.v1.json";
const SCHEMA: &str = include_str!("../../../schemas/wa_events_stream/messages.upsert.v1.json");
const MESSAGES: &str = "v1.messages.upsert.ACME";
const EVENTS: u64 = 200;
const ITEMS: usize = 100;

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let catalog = Catalog::load(&[]).expect("our schemas compile");
    // Another text of the same schema: it is run, and accepts the same.
    let replaced = SchemaFile { name: SCHEMA_FILE.to_owned(), text: format!("{SCHEMA}\n") };
    let replaced = Catalog::load(&[replaced]).expect("it compiles as well");
    let large = MESSAGE.replace("\"hi\"", &format!("\"{}\"", "text ".repeat(100)));
    let escaped = MESSAGE.replace("\"hi\"", "\"one\\ntwo\"");
    let batch = format!("{{\"messages\":[{}]}}", vec![MESSAGE; ITEMS].join(","));
    println!(
        "message {} B, large {} B, batch of {ITEMS} {} B, result hash {:016x}",
        MESSAGE.len(),
        large.len(),
        batch.len(),
        hash(&catalog)
    );
    let decoded = |name, catalog, subject, payload| {
        case(name, move || assert!(decode(catalog, subject, black_box(payload))))
    };
    ask.run(vec![
        decoded("messages.upsert", &catalog, MESSAGES, MESSAGE),
        decoded("messages.upsert, 1 kB of text", &catalog, MESSAGES, &large),
        decoded("messages.upsert, texts with escapes", &catalog, MESSAGES, &escaped),
        decoded("chats.upsert", &catalog, "v1.chats.upsert.ACME", CHAT),
        decoded("history.messages, batch of 100", &catalog, "v1.history.messages.ACME", &batch),
        decoded("messages.upsert with a replaced schema", &replaced, MESSAGES, MESSAGE),
        case("messages.upsert, refused and worded", || {
            assert!(!decode(&catalog, MESSAGES, black_box(INVALID)));
        }),
        case("serde_json: to Value", || {
            black_box(serde_json::from_str::<serde_json::Value>(black_box(MESSAGE)).is_ok());
        }),
    ]);
}

fn case<'a>(name: &'static str, mut work: impl FnMut() + 'a) -> Case<'a> {
    let round = Box::new(move || section(|| (0..EVENTS).for_each(|_| work())));
    Case { name, events: EVENTS, round }
}

fn decode(catalog: &Catalog, subject: &str, payload: &str) -> bool {
    let body = Body::of(payload.as_bytes());
    let route = catalog.route(black_box(subject)).expect("a subject of ours");
    black_box(route.decode(&body)).is_ok()
}

fn hash(catalog: &Catalog) -> u64 {
    let body = Body::of(MESSAGE.as_bytes());
    let route = catalog.route(MESSAGES).expect("a subject of ours");
    let mut hasher = DefaultHasher::new();
    hasher.write(format!("{:?}", route.decode(&body)).as_bytes());
    hasher.finish()
}
