//! Any subject and body: no panic, and what is forwarded is published as valid JSON of the length
//! that was announced, on a subject of whole tokens. Input: subject, a zero byte, body.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shards::domain::cdc::{
    CdcRules, CdcSettings, DeadLetter, ErrorType, IDENTITY_BYTES_MAX, Verdict, transform,
    write_dlq_payload,
};

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|b| *b == 0).unwrap_or(0);
    let (subject, rest) = input.split_at(split);
    let body = rest.strip_prefix(b"\0").unwrap_or(rest);
    let subject =
        if subject.is_empty() { &b"sequin.db.public.messages.insert"[..] } else { subject };
    let settings = CdcSettings { forward_backfill: true, ..CdcSettings::default() };
    let rules = CdcRules::compile(&settings).expect("defaults compile");
    match transform(&rules, subject, body) {
        Verdict::Forward(spans) => check_change(&spans.bind(subject, body)),
        Verdict::Filtered { .. } => {}
        Verdict::Rejected(rejection) => {
            let letter = DeadLetter {
                source_subject: subject,
                company: rejection.company.as_deref(),
                body,
                error_type: ErrorType::Fatal,
                error: &rejection.detail,
                reason: Some(rejection.reason.as_str()),
                retry_count: 1,
                retry_max: -1,
                dead_lettered_at: "2026-01-02T03:04:05.000000000Z",
                stream: None,
                stream_sequence: None,
                message_id: None,
                published_at: None,
            };
            let mut out = BytesMut::new();
            write_dlq_payload(&letter, 4096, &mut out);
            serde_json::from_slice::<serde::de::IgnoredAny>(&out).expect("dead letter is JSON");
        }
    }
});

fn check_change(change: &shards::domain::cdc::Change<'_>) {
    let mut out = BytesMut::new();
    change.write_payload(&mut out, b"2025-06-01T10:00:00Z");
    assert_eq!(out.len(), change.payload_len());
    serde_json::from_slice::<serde::de::IgnoredAny>(&out).expect("payload is JSON");
    let mut id = Vec::new();
    change.write_message_id(&mut id);
    assert!(id.len() <= IDENTITY_BYTES_MAX && id.iter().all(u8::is_ascii_graphic));
    let mut subject = Vec::new();
    change.write_subject("wa", &mut subject);
    assert!(subject.iter().all(|b| b.is_ascii_graphic() && !b"*>".contains(b)));
    assert!(subject.split(|b| *b == b'.').all(|token| !token.is_empty()));
}
