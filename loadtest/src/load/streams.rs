//! The streams that take the events, made where nobody made them yet. Invariant: one that is there is
//! left as it is. Source: contract ingest.md, section 1.2; cdc.md, section 1.2.

use std::time::Duration;

use serde_json::json;

use crate::client::{Client, ClientError, StreamSpec};
use crate::generate::ingest::Kind;

const MAX_AGE: Duration = Duration::from_secs(30 * 86_400);
/// JetStream's word for subjects that a stream of another name has.
const OVERLAP: u64 = 10_065;

/// The streams of these kinds. Whoever serves them may have given them other names.
///
/// # Errors
/// Why one could not be made.
pub fn ensure_ingest(client: &mut Client, kinds: &[Kind]) -> Result<(), ClientError> {
    for (at, kind) in kinds.iter().enumerate() {
        let name = kind.stream();
        let is_first = kinds[..at].iter().all(|before| before.stream() != name);
        if !is_first || client.stream_range(name).is_ok() {
            continue;
        }
        let own = Kind::ALL.into_iter().filter(|kind| kind.stream() == name);
        let subjects: Vec<String> = own.map(|kind| format!("{}.*", kind.subject())).collect();
        let body = json!({
            "name": name,
            "subjects": subjects,
            "retention": "limits",
            "storage": "file",
            "max_age": MAX_AGE.as_nanos() as u64,
        });
        match client.jetstream(&format!("STREAM.CREATE.{name}"), &body) {
            Ok(_) | Err(ClientError::JetStream { err_code: OVERLAP, .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// The stream of row changes.
///
/// # Errors
/// Why it could not be made.
pub fn ensure_source(client: &mut Client) -> Result<(), ClientError> {
    let name = "cdc_events_stream";
    if client.stream_range(name).is_err() {
        let duplicate_window = Duration::from_secs(120);
        client.create_stream(StreamSpec { name, subjects: &["cdc.*.*"], duplicate_window })?;
    }
    Ok(())
}
