//! Spans as the protocol writes them. Pure. Source: opentelemetry-proto, `collector/trace/v1`; names of
//! attributes after the semantic conventions for messaging where they have one.

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as SpanMessage, Status, span::SpanKind,
};
use prost::Message;
use shards::metrics::Outcome;
use shards::pipeline::Span;

/// The flag of a sampled span in its `flags`.
const SAMPLED: u32 = 1;

/// A request with these spans.
pub(super) fn encode(spans: &[Span], service: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![text("service.name", service), text("service.version", version)],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "daisi".to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// How many spans of a request an answer refuses; an answer that cannot be read refuses none.
pub(super) fn refused(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).ok();
    let partial = answer.and_then(|answer| answer.partial_success);
    partial.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0)
}

fn span(span: &Span) -> SpanMessage {
    let stage = span.stage.label();
    let status = match span.outcome {
        name if name == Outcome::DeadLettered.label() || name == "exhausted" => StatusCode::Error,
        _ => StatusCode::Unset,
    };
    SpanMessage {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent_id.map(Vec::from).unwrap_or_default(),
        flags: SAMPLED,
        name: format!("process {stage}"),
        kind: SpanKind::Consumer.into(),
        start_time_unix_nano: span.time.0,
        end_time_unix_nano: span.time.1,
        attributes: vec![
            text("messaging.system", "nats"),
            text("messaging.destination.name", &span.subject.to_text()),
            text("daisi.stage", stage),
            text("daisi.company", &span.company.to_text()),
            text("daisi.stream", &span.stream.to_text()),
            whole("daisi.stream_sequence", span.sequence),
            text("daisi.outcome", span.outcome),
        ],
        status: Some(Status { code: status.into(), ..Status::default() }),
        ..SpanMessage::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn whole(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
