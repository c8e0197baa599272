//! What does one change cost, from body to identity, subject and payload? Prints nanoseconds and
//! allocations per event, and a hash of the output, which must not change between runs.
//! Beside it: one strict pass of `sonic-rs` over the same body, which is what our cursor replaces.
#![expect(clippy::expect_used, reason = "the sample is part of this file's build")]

use crate::measure::{Ask, Case, section};
use bytes::BytesMut;
use shards::domain::cdc::{CdcRules, CdcSettings, Verdict, transform};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;

const SAMPLE: &str = include_str!("../../../tests/golden/cdc/messages_insert.json");
const SUBJECT: &[u8] = b"cdc.CompanyAAA01.messages";
const EVENTS: u64 = 200;

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let rules = CdcRules::compile(&CdcSettings::default()).expect("defaults compile");
    let body = SAMPLE.trim_end().as_bytes();
    let mut out = BytesMut::with_capacity(4096);
    publish(&rules, body, &mut out);
    let mut hasher = DefaultHasher::new();
    hasher.write(&out);
    println!("cdc body {} B, result hash {:016x}", body.len(), hasher.finish());
    ask.run(vec![
        case("transform + identity + subject + payload", || publish(&rules, body, &mut out)),
        case("transform alone", || {
            black_box(transform(&rules, SUBJECT, black_box(body)));
        }),
        case("sonic-rs: strict lazy pass, envelope and row", || sonic_pass(black_box(SAMPLE))),
        case("serde_json: to Value", || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(body)).is_ok());
        }),
    ]);
}

fn case<'a>(name: &'static str, mut work: impl FnMut() + 'a) -> Case<'a> {
    let round = Box::new(move || section(|| (0..EVENTS).for_each(|_| work())));
    Case { name, events: EVENTS, round }
}

fn publish(rules: &CdcRules, body: &[u8], out: &mut BytesMut) {
    let Verdict::Forward(spans) = transform(rules, SUBJECT, black_box(body)) else {
        panic!("the sample is forwarded");
    };
    let change = spans.bind(SUBJECT, body);
    out.clear();
    change.write_dedup_key(out);
    change.write_message_id(out);
    change.write_subject("wa", out);
    let start = out.len();
    let len = change.payload_len();
    change.write_payload(out, b"2025-06-01T10:00:00Z");
    assert_eq!(out.len() - start, len);
    black_box(&out);
}

fn sonic_pass(body: &str) {
    for entry in sonic_rs::to_object_iter(body) {
        let (key, value) = entry.expect("valid");
        if key == "record" {
            for column in sonic_rs::to_object_iter(value.as_raw_str()) {
                black_box(column.expect("valid"));
            }
        }
    }
}
