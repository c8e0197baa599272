//! Header blocks of anybody: no panic, and what reads as well formed can be written again.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shards::wire::nats::headers::{HeaderWriter, Headers};
use shards::wire::nats::subject::{Pattern, validate_publish};

fuzz_target!(|input: &[u8]| {
    let headers = Headers::new(input);
    let _ = (headers.status(), headers.is_well_formed());
    let mut out = BytesMut::new();
    let mut writer = HeaderWriter::begin(&mut out);
    let mut written = Vec::new();
    for (name, value) in headers.iter() {
        assert!(headers.get(name).is_some());
        if writer.add(name, value).is_ok() {
            written.push((name, value));
        }
    }
    assert_eq!(writer.finish(), out.len());
    assert_eq!(Headers::new(&out).iter().collect::<Vec<_>>(), written);
    if validate_publish(input).is_ok() {
        let pattern = Pattern::new(input.to_vec()).expect("a subject is a pattern");
        assert!(pattern.matches(input));
    }
});
