//! A row change (Sequin or Debezium envelope) becomes a published event. Pure: bytes in, bytes out.
//! Invariant: what is forwarded has identifiers that are safe in a subject, belongs to the company it
//! is published to, and carries its row as the bytes that came. Source: contract `cdc.md`.
//!
//! `transform` is the whole decision on one message: [`Verdict::Forward`] holds ranges into it, from
//! which [`Change`] writes identity, subject and payload; nothing is allocated for an event unless an
//! identifier is written with escapes or the row is a document inside a string.
//!
//! Modules, bottom to top, above `json`: `token`, `stamp`, `sink` (bytes); `rules`, `subject`,
//! `reject` (vocabulary); `row`, `envelope`, `facts` (reading); `judge` (deciding); `change`,
//! `identity`, `payload`, `dlq` (writing).

mod change;
mod dlq;
mod envelope;
mod facts;
mod identity;
mod judge;
mod payload;
mod reject;
mod row;
mod rules;
mod sink;
mod stamp;
mod subject;
mod token;
mod unhandled;

pub use change::{Change, ChangeSpans};
pub use dlq::{DLQ_COMPANY_UNKNOWN, DeadLetter, ErrorType, write_dlq_payload, write_dlq_subject};
pub use facts::Action;
pub use identity::IDENTITY_BYTES_MAX;
pub use judge::{FilterCause, TableLabel, Verdict, transform};
pub use payload::EVENT_TIME_BYTES;
pub use reject::{Reason, Rejection};
pub use rules::{CdcRules, CdcSettings, EnvelopeRule, RulesError, Table};
pub use sink::Sink;
pub use stamp::{parse_rfc3339, rfc3339_micros, rfc3339_nanos, rfc3339_seconds};
pub use subject::{SubjectShape, company_hint, company_token};
pub use token::{COMPANY_BYTES_MAX, TOKEN_BYTES_MAX, is_agent, is_chat, is_company};
