//! Dead letters as messages: one way to write them for every stage. Invariant: the message id is that of the
//! event's place in its stream, so that a letter published twice is stored once. Source: contract `ingest.md`
//! 2.11. A cold path: it allocates.

use super::bus::AckFor;
use super::cdc::Cx;
use super::mail::Parcel;
use super::note::{log_event, without_values};
use super::origin;
use crate::domain::cdc::{
    DLQ_COMPANY_UNKNOWN, DeadLetter, ErrorType, rfc3339_nanos, write_dlq_payload,
};
use crate::wire::trace::state_text;
use bytes::BytesMut;

/// Bytes kept free for headers and the other fields of a letter; they stay far below.
const FIELDS_BYTES: u64 = 64 * 1024;

/// Why an event is given up.
pub(super) struct Cause<'a> {
    /// The stage that gave it up.
    pub(super) stage: &'static str,
    /// Label of the reason.
    pub(super) reason: &'static str,
    /// `<step>: <cause>`.
    pub(super) detail: &'a str,
    /// Whose it is; `None` where no valid company can be read.
    pub(super) company: Option<&'a str>,
    /// How often it was tried here.
    pub(super) attempts: u32,
}

/// Publishes an event of `stream` as a dead letter; its PubAck comes back to `who`.
pub(super) fn publish(
    parcel: &Parcel,
    stream: &str,
    cause: &Cause<'_>,
    who: AckFor,
    cx: &mut Cx<'_>,
) {
    let (mut at, mut published) = ([0; 30], [0; 30]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message_id = parcel.msg.header(b"Nats-Msg-Id").map(text);
    let context = cx.tracer.onward(parcel).map(|context| text(&context.to_text()));
    let state = state_text(parcel.msg.headers());
    let letter = DeadLetter {
        source_subject: parcel.subject(),
        company: cause.company,
        body: parcel.msg.payload(),
        error_type: ErrorType::Fatal,
        error: cause.detail,
        reason: Some(cause.reason),
        retry_count: parcel.delivered,
        retry_max: -1,
        dead_lettered_at: &text(rfc3339_nanos(cx.now.wall, &mut at)),
        stream: Some(stream),
        stream_sequence: Some(parcel.seq),
        message_id: message_id.as_deref(),
        published_at: Some(&text(rfc3339_nanos(parcel.stored, &mut published))),
    };
    let max = cx.bus.conn.info().max_payload.saturating_sub(FIELDS_BYTES);
    let max = usize::try_from(max).unwrap_or(usize::MAX).min(cx.settings.cdc.dlq_payload_max);
    let mut body = BytesMut::new();
    write_dlq_payload(&letter, max, &mut body);
    let company = cause.company.unwrap_or(DLQ_COMPANY_UNKNOWN);
    let subject = format!("{}.{company}", cx.settings.cdc.dlq_subject);
    let id = format!("dlq:{stream}:{}:{}", parcel.seq, parcel.stored);
    let original = parcel.message_id();
    let attempts = cause.attempts.max(1).to_string();
    let mut headers = vec![
        ("Nats-Msg-Id", id.as_str()),
        ("Nats-Expected-Stream", cx.facts.dlq_stream.as_str()),
        ("Original-Nats-Msg-Id", &*original),
        ("Daisi-Reason", cause.reason),
        ("Daisi-Attempts", attempts.as_str()),
        ("Daisi-Stage", cause.stage),
    ];
    headers.extend(origin::headers(&parcel.msg));
    if let Some(context) = &context {
        headers.push(("traceparent", context));
        headers.extend((!state.is_empty()).then_some(("tracestate", state.as_str())));
    }
    let deadline = cx.now.mono + cx.settings.cdc.publish_timeout;
    cx.bus.publish(deadline, who, &subject, &headers, &body);
    log_event!(WARN, parcel, company, "event dead-lettered", stage = cause.stage,
        reason = cause.reason, error = without_values(cause.detail), dlq_subject = %subject,
        attempt = cause.attempts.max(1));
}
