//! Publish preconditions, on which KV buckets and leases rest, and a bucket as an oracle reads it.
//! A bucket `B` is the stream `KV_B` with subjects `$KV.B.>` and one message a subject; a revision is a
//! stream sequence; a delete is a message with `KV-Operation: DEL`, so a key can exist and be deleted.

use bytes::Bytes;

use super::jetstream::error::ApiError;
use super::jetstream::store::Store;
use super::message::{Publish, header};

/// `Nats-Expected-Stream`: checked before the dedup table.
pub(crate) fn check_stream(store: &Store, headers: &[u8]) -> Result<(), ApiError> {
    match header(headers, "Nats-Expected-Stream") {
        Some(name) if name != store.config.name => {
            Err(ApiError::new(400, 10060, "expected stream does not match"))
        }
        _ => Ok(()),
    }
}

/// The expected-last headers: checked after the dedup table, so a retried renew whose first copy
/// carried an id is a duplicate and no conflict.
pub(crate) fn check_expected(store: &Store, message: &Publish) -> Result<(), ApiError> {
    let expected = |name| header(&message.headers, name).and_then(|v| v.parse::<u64>().ok());
    if let Some(wanted) = expected("Nats-Expected-Last-Subject-Sequence") {
        let found = store.last_of(&message.subject).map_or(0, |(seq, _)| seq);
        ensure_last(wanted, found)?;
    }
    if let Some(wanted) = expected("Nats-Expected-Last-Sequence") {
        ensure_last(wanted, store.last_seq())?;
    }
    match header(&message.headers, "Nats-Expected-Last-Msg-Id") {
        Some(id) if id != store.last_msg_id() => {
            let text = format!("wrong last msg ID: {}", store.last_msg_id());
            Err(ApiError::new(400, 10070, text))
        }
        _ => Ok(()),
    }
}

fn ensure_last(wanted: u64, found: u64) -> Result<(), ApiError> {
    if wanted == found { Ok(()) } else { Err(ApiError::wrong_last_sequence(found)) }
}

/// What a bucket holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Sequence the next compare-and-set must name.
    pub(crate) revision: u64,
    /// Value; empty for a tombstone.
    pub(crate) value: Bytes,
    /// Deleted, with a tombstone in the key's place.
    pub(crate) is_deleted: bool,
}

/// Reads `key` of the bucket stored in `store`.
pub(crate) fn entry(store: &Store, key: &str) -> Option<Entry> {
    let bucket = store.config.name.strip_prefix("KV_")?;
    let (revision, stored) = store.last_of(format!("$KV.{bucket}.{key}").as_bytes())?;
    let is_deleted = header(&stored.headers, "KV-Operation").is_some();
    Some(Entry { revision, value: stored.payload.clone(), is_deleted })
}
