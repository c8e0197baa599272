//! API errors as a JetStream server words them: HTTP-like code, `err_code` to switch on, text.

use serde_json::{Value, json};

/// An error of the JetStream API or of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// HTTP-like class.
    pub(crate) code: u16,
    /// The number a client switches on.
    pub(crate) err_code: u32,
    /// Text, which clients should not rely on, save for 10077.
    pub(crate) description: String,
}

impl ApiError {
    pub(crate) fn new(code: u16, err_code: u32, description: impl Into<String>) -> Self {
        Self { code, err_code, description: description.into() }
    }

    pub(crate) fn invalid_json() -> Self {
        Self::new(400, 10025, "invalid JSON")
    }

    pub(crate) fn bad_request() -> Self {
        Self::new(400, 10003, "bad request")
    }

    pub(crate) fn stream_not_found() -> Self {
        Self::new(404, 10059, "stream not found")
    }

    pub(crate) fn consumer_not_found() -> Self {
        Self::new(404, 10014, "consumer not found")
    }

    pub(crate) fn message_not_found() -> Self {
        Self::new(404, 10037, "no message found")
    }

    pub(crate) fn wrong_last_sequence(found: u64) -> Self {
        Self::new(400, 10071, format!("wrong last sequence: {found}"))
    }

    /// 10077: the store refused, and only the text tells why.
    pub(crate) fn store_failed(why: &str) -> Self {
        Self::new(503, 10077, why)
    }

    /// The `error` object of a reply.
    pub(crate) fn to_json(&self) -> Value {
        json!({"code": self.code, "err_code": self.err_code, "description": self.description})
    }
}
