//! Trace headers of anybody: no panic, and what is passed on reads as what came.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::wire::trace::{STATE_BYTES_MAX, TraceContext, states};

fuzz_target!(|input: &[u8]| {
    if let Some(context) = TraceContext::parse(input) {
        let again = TraceContext::parse(&context.to_text()).expect("what is written can be read");
        assert_eq!((again.trace_id, again.parent_id), (context.trace_id, context.parent_id));
        assert_eq!(again.is_sampled(), context.is_sampled());
    }
    let _ = TraceContext::of_headers(input);
    let passed: usize = states(input).map(|value| value.len() + 1).sum();
    assert!(passed <= STATE_BYTES_MAX);
    assert!(states(input).flatten().all(|byte| !byte.is_ascii_control()));
});
