//! What a row remembers of its last writer, and how far back a remembered position counts. Pure. Source:
//! contract `ingest.md` sections 4.6 and 4.7.

use crate::domain::cdc::{Sink, rfc3339_nanos};
use crate::domain::ingest::Position;

/// Length of a horizon: `YYYY-MM-DDTHH:MM:SS.fffffffff`, without the zone so that it compares as text with
/// times of any number of digits.
const HORIZON_BYTES: usize = 29;

/// Writes `last_metadata`. Nothing is processed before it was published: with a clock behind the server's,
/// a redelivery would otherwise look newer than its first delivery.
pub(super) fn write(position: &Position<'_>, now_ns: u64, out: &mut Vec<u8>) {
    out.put(b"{\"consumer_sequence\":");
    out.put_decimal(position.consumer_sequence);
    out.put(b",\"stream_sequence\":");
    out.put_decimal(position.stream_sequence);
    put_text(out, b",\"stream\":", position.stream);
    put_text(out, b",\"consumer\":", position.consumer);
    put_text(out, b",\"domain\":", position.domain);
    if position.message_id.is_empty() {
        out.put(b",\"message_id\":\"msg-");
        out.put_decimal(position.stream_sequence);
        out.put(b"\"");
    } else {
        put_text(out, b",\"message_id\":", position.message_id);
    }
    put_text(out, b",\"message_subject\":", position.subject);
    out.put(b",\"processed_at\":\"");
    out.put(rfc3339_nanos(now_ns.max(position.published_ns), &mut [0; 30]));
    out.put(b"\"}");
}

/// Writes a moment as a horizon.
pub(super) fn write_horizon(moment_ns: u64, out: &mut Vec<u8>) {
    out.put(&rfc3339_nanos(moment_ns, &mut [0; 30])[..HORIZON_BYTES]);
}

/// A stored position counts only if its row was processed at or after this: the stream's creation, and the
/// event's own publishing less what clocks may differ by.
pub(super) fn horizon_ns(position: &Position<'_>, stream_created_ns: u64, skew_ns: u64) -> u64 {
    stream_created_ns.max(position.published_ns.saturating_sub(skew_ns))
}

/// Writes `name` and a JSON string.
pub(super) fn put_text(out: &mut Vec<u8>, name: &[u8], text: &str) {
    out.put(name);
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.put(b"\"");
        out.put(text.as_bytes());
        out.put(b"\"");
    } else {
        // Writing a string into memory cannot fail.
        let _infallible = serde_json::to_writer(&mut *out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn metadata_holds_the_position_and_survives_strange_texts() {
        let position = Position {
            stream: "wa_events_stream",
            stream_sequence: 42,
            consumer: "c",
            consumer_sequence: 7,
            domain: "",
            message_id: "a\"\\\u{1}b",
            subject: "v1.chats.upsert.ACME",
            published_ns: 1_748_772_000_000_000_001,
        };
        let read = |position: &Position<'_>, now| -> Value {
            let mut out = Vec::new();
            write(position, now, &mut out);
            serde_json::from_slice(&out).unwrap()
        };
        let expected = json!({"consumer_sequence": 7, "stream_sequence": 42, "stream": "wa_events_stream",
            "consumer": "c", "domain": "", "message_id": "a\"\\\u{1}b", "message_subject": "v1.chats.upsert.ACME",
            "processed_at": "2025-06-01T10:00:00.000000001Z"});
        assert_eq!(read(&position, 5), expected);
        let nameless = Position { message_id: "", ..position };
        assert_eq!(read(&nameless, u64::MAX)["message_id"], "msg-42");
        let mut horizon = Vec::new();
        write_horizon(horizon_ns(&position, 3, 1), &mut horizon);
        assert_eq!(horizon, b"2025-06-01T10:00:00.000000000");
        assert_eq!(horizon_ns(&position, u64::MAX, 1), u64::MAX);
    }
}
