//! What a log line about an event carries: the same fields under the same names, whatever it tells.
//! Invariant: no value of a payload, and no secret: a subject holds neither. Source: contract
//! `ingest.md` 7.3.

use super::cdc::Cx;
use super::mail::Parcel;
use crate::wire::trace::{TraceContext, hex_text};
use std::borrow::Cow;
use uuid::Uuid;

/// Who and where an event is. Cold: made only for a line that is written.
pub(super) struct Ids<'a> {
    pub(super) subject: Cow<'a, str>,
    pub(super) stream: Cow<'a, str>,
    pub(super) message_id: Cow<'a, str>,
    /// The same at each delivery, here and elsewhere: it follows from stream and sequence.
    pub(super) request_id: Uuid,
    pub(super) trace_id: Option<String>,
}

impl<'a> Ids<'a> {
    pub(super) fn of(parcel: &'a Parcel) -> Self {
        let stream = String::from_utf8_lossy(parcel.stream());
        let place = format!("nats:{stream}/{}", parcel.seq);
        let context = TraceContext::of_headers(parcel.msg.headers());
        Self {
            subject: String::from_utf8_lossy(parcel.subject()),
            message_id: parcel.message_id(),
            request_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, place.as_bytes()),
            trace_id: context.map(|context| hex_text(&context.trace_id)),
            stream,
        }
    }
}

/// Logs about an event: level, parcel, company, text, then further fields.
macro_rules! log_event {
    ($level:ident, $parcel:expr, $company:expr, $text:literal $(, $($field:tt)+)?) => {
        if tracing::enabled!(tracing::Level::$level) {
            let parcel: &$crate::pipeline::mail::Parcel = $parcel;
            let ids = $crate::pipeline::note::Ids::of(parcel);
            tracing::event!(
                tracing::Level::$level,
                company_id = %$company,
                request_id = %ids.request_id,
                nats_message_id = %ids.message_id,
                stream = %ids.stream,
                stream_sequence = parcel.seq,
                subject = %ids.subject,
                num_delivered = parcel.delivered,
                trace_id = ids.trace_id,
                $($($field)+,)?
                $text
            );
        }
    };
}
pub(super) use log_event;

/// An event has its outcome: its span ends, and whoever reads every line is told.
pub(super) fn ended(parcel: &Parcel, company: &[u8], outcome: &'static str, cx: &mut Cx<'_>) {
    cx.tracer.end(parcel, company, outcome, cx.now, &cx.figures.spans_dropped);
    log_event!(
        DEBUG,
        parcel,
        String::from_utf8_lossy(company),
        "event handled",
        stage = parcel.stage.label(),
        outcome,
        payload_size = parcel.msg.payload().len(),
        duration = seconds(cx.now.mono.saturating_sub(parcel.received))
    );
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// An error as a log may tell it: what PostgreSQL says may quote values, its SQLSTATE does not. The whole
/// text stands in the letter.
pub(super) fn without_values(error: &str) -> &str {
    let state =
        error.strip_prefix("write: ").and_then(|said| said.rfind('(').map(|at| &said[at..]));
    state.unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_quotes_stays_out_of_the_log() {
        let bad = "write: invalid input syntax for type date: \"+62 (0) 811\" (SQLSTATE 22007)";
        assert_eq!(without_values(bad), "(SQLSTATE 22007)");
        assert_eq!(without_values("write: row not found"), "write: row not found");
        let refused = "validate: /chat_id: must not be empty (rule minLength)";
        assert_eq!(without_values(refused), refused);
    }
}
