//! What does one change cost, from body to identity, subject and payload? Prints nanoseconds and
//! allocations per event, and a hash of the output, which must not change between runs.
//! Beside it: one strict pass of `sonic-rs` over the same body, which is what our cursor replaces.
#![expect(clippy::expect_used, reason = "the sample is part of this file's build")]

use bytes::BytesMut;
use shards::domain::cdc::{CdcRules, CdcSettings, Verdict, transform};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SAMPLE: &str = include_str!("../../tests/golden/cdc/messages_insert.json");
const SUBJECT: &[u8] = b"cdc.CompanyAAA01.messages";
const EVENTS: u64 = 500_000;
/// Many short rounds, the best of which counts: one that nobody interrupted.
const ROUNDS: u64 = 2_500;

struct Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes unchanged to the system allocator; counting touches no memory of it.
#[allow(unsafe_code, reason = "an allocator is the only way to count allocations without a crate")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

fn main() {
    let rules = CdcRules::compile(&CdcSettings::default()).expect("defaults compile");
    let body = SAMPLE.trim_end().as_bytes();
    let mut out = BytesMut::with_capacity(4096);
    publish(&rules, body, &mut out);
    let mut hasher = DefaultHasher::new();
    hasher.write(&out);
    println!("cdc body {} B, result hash {:016x}", body.len(), hasher.finish());
    measure("transform + identity + subject + payload", || publish(&rules, body, &mut out));
    measure("transform alone", || {
        black_box(transform(&rules, SUBJECT, black_box(body)));
    });
    measure("sonic-rs: strict lazy pass, envelope and row", || sonic_pass(black_box(SAMPLE)));
    measure("serde_json: to Value", || {
        black_box(serde_json::from_slice::<serde_json::Value>(black_box(body)).is_ok());
    });
}

fn measure(name: &str, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..EVENTS / ROUNDS {
            work();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (EVENTS / ROUNDS) as f64);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    println!(
        "{name}: {best:.0} ns/event, {:.2} allocations/event",
        allocations as f64 / EVENTS as f64
    );
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
