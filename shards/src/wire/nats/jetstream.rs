//! JetStream as messages on the wire: ack subjects, publish acks, API errors, requests and what comes
//! back. Tolerant reader, strict writer: unknown fields are read and kept, and none is sent to a server
//! that does not know it. Durations are integer nanoseconds. Source: JetStream API of servers 2.9 to 2.15.

mod ack;
mod api;
mod config;
mod error;
mod puback;
mod version;

pub use ack::{ACK, AckSubject, AckSubjectError, NAK, NEXT, TERM, WPI, encode_nak_delay};
pub use api::{
    Api, ConsumerAction, ConsumerInfo, ConsumerSequence, Deleted, PullRequest, Purged, Request,
    ResponseError, StoredMessage, StreamInfo, StreamNames, StreamState, parse_message_get,
    parse_response,
};
pub use config::{
    AckPolicy, ConsumerConfig, DeliverPolicy, Discard, ReplayPolicy, Retention, Storage,
    StreamConfig, SubjectTransform, Unsupported,
};
pub use error::{ApiError, ErrorClass};
pub use puback::{PubAck, PubAckError};
pub use version::ServerVersion;
