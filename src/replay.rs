//! An event is sent again: its own bytes to its own subject, under a message id that makes a second try
//! harmless. Invariants: nothing is sent where the letter's author could reach more than events; an ack that
//! says "duplicate" counts only if what is stored is this very event. Source: contract `ingest.md` 4.6, 6.6.
//!
//! The message gets a new place in its stream. The place it had first goes along in headers, through any number
//! of replays; the ingest stage writes it at that one.

use crate::letter::{Letter, Original};
use crate::nats::{Place, Session, SessionError};
use shards::domain::ingest::Subject;
use shards::pipeline::origin;
use shards::wire::nats::headers::Headers;
use shards::wire::trace::{TraceContext, state_text};

/// Begins every message id of a replay.
const REPLAY: &str = "replay:";
/// Headers that tell where an event was first.
const ORIGIN: [&str; 4] =
    [origin::STREAM, origin::SEQUENCE, origin::TIMESTAMP, "Original-Nats-Msg-Id"];
/// Ids tried where one is taken by another message.
const IDS_MAX: u64 = 8;

/// What was sent, and where it lies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) message_id: String,
    pub(crate) place: Place,
}

/// Sends the event of a letter again. `name` is the letter's own within its company, `first` the number of
/// the first id that may be free; `dead` the subject of dead letters, without company; `trace` what
/// [`trace_of`] made of the letter's own headers.
pub(crate) fn replay(
    session: &mut Session,
    letter: &Letter,
    trace: &[(&str, String)],
    name: &str,
    first: u64,
    dead: &str,
) -> Result<Replayed, SessionError> {
    check(letter, dead).map_err(SessionError::Refused)?;
    let body = body_of(session, letter)?;
    let origin = origin_of(session, letter)?;
    for number in first..first.saturating_add(IDS_MAX) {
        let message_id = format!("{REPLAY}{}:{name}:{number}", letter.company);
        let mut headers = vec![("Nats-Msg-Id", message_id.as_str())];
        headers.extend(origin.iter().chain(trace).map(|(name, value)| (*name, value.as_str())));
        let place = session.store(&letter.source_subject, &headers, &body)?;
        // The id may be that of a letter of a stream that was made anew since, or its message consumed.
        let is_stored = !place.duplicate || {
            let stored = session.message(&place.stream, place.seq)?;
            stored.is_some_and(|it| it.subject == letter.source_subject && it.data == body)
        };
        if is_stored {
            return Ok(Replayed { message_id, place });
        }
    }
    let told = "its message ids are taken by other messages; wait for the stream's duplicate window to pass";
    Err(SessionError::Refused(told.to_owned()))
}

/// The headers of a trace in a block, as they are passed on.
pub(crate) fn trace_of(block: &[u8]) -> Vec<(&'static str, String)> {
    let Some(context) = TraceContext::of_headers(block) else { return Vec::new() };
    let parent = String::from_utf8_lossy(&context.to_text()).into_owned();
    let all = [("traceparent", parent), ("tracestate", state_text(block))];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Why the event must not be sent: a letter is written by whoever may publish to its subject, and would be
/// sent with an operator's rights.
pub(crate) fn check(letter: &Letter, dead: &str) -> Result<(), String> {
    let Letter { source_subject: subject, company, original, .. } = letter;
    let is_below = |prefix: &str| {
        subject.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if subject.starts_with('$') || is_below("_INBOX") {
        return Err(format!("{subject:?} is a subject of the server's own; no event came there"));
    }
    if is_below(dead) {
        return Err(format!("{subject:?} is a subject of dead letters"));
    }
    if let Ok(parsed) = Subject::parse(subject)
        && parsed.company != company
    {
        return Err(format!("{subject:?} is not a subject of company {company:?}"));
    }
    match original {
        Original::Absent => Err("the letter does not hold the event".to_owned()),
        Original::Omitted(_) if origin(letter).is_none() => {
            Err("the event was too large for the letter, which does not say where it lies"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// Where the event was first. The letter of a replay tells the replay's place; the replay itself knows better.
fn origin_of(
    session: &mut Session,
    letter: &Letter,
) -> Result<Vec<(&'static str, String)>, SessionError> {
    let is_replay = letter.original_msg_id.as_ref().is_some_and(|id| id.starts_with(REPLAY));
    if is_replay
        && let Some((stream, sequence)) = origin(letter)
        && let Some(stored) = session.message(stream, sequence)?
    {
        let headers = Headers::new(&stored.headers);
        let is_it =
            headers.get(b"Nats-Msg-Id") == letter.original_msg_id.as_ref().map(|id| id.as_bytes());
        let told = ORIGIN.into_iter().filter_map(|name| {
            let value = headers.get(name.as_bytes())?;
            Some((name, String::from_utf8_lossy(value).into_owned()))
        });
        if is_it {
            return Ok(told.collect());
        }
    }
    let sequence = letter.stream_sequence.map(|sequence| sequence.to_string());
    let values = [
        letter.stream.clone(),
        sequence,
        letter.published_at.clone(),
        letter.original_msg_id.clone(),
    ];
    Ok(ORIGIN.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect())
}

fn body_of(session: &mut Session, letter: &Letter) -> Result<Vec<u8>, SessionError> {
    let size = match &letter.original {
        Original::Json(body) | Original::Bytes(body) => return Ok(body.clone()),
        Original::Omitted(size) => *size,
        Original::Absent => 0,
    };
    let (stream, sequence) = origin(letter).unwrap_or_default();
    let stored = session.message(stream, sequence)?.filter(|stored| {
        // A stream that was made anew has another message there.
        stored.subject == letter.source_subject && stored.data.len() as u64 == size
    });
    stored.map(|stored| stored.data).ok_or_else(|| {
        let told = format!(
            "the event was too large for the letter, and stream {stream:?} holds it no more at {sequence}"
        );
        SessionError::Refused(told)
    })
}

/// Stream and sequence of the event. A stream's name is one token, or it would be another call of the API.
fn origin(letter: &Letter) -> Option<(&str, u64)> {
    let stream = letter.stream.as_deref().filter(|name| !name.is_empty() && !name.contains('.'));
    stream.zip(letter.stream_sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_reaches_nothing_but_subjects_of_events() {
        let refused = |subject: &str, company: &str| {
            let text = format!(
                r#"{{"source_subject":"{subject}","company":"{company}","original_payload":1}}"#
            );
            check(&Letter::read(text.as_bytes()).expect("a letter"), "v1.dlq").is_err()
        };
        for subject in ["$JS.API.STREAM.DELETE.wa_stream", "$SYS.x", "_INBOX.a", "_INBOX"] {
            assert!(refused(subject, "ACME"), "{subject}");
        }
        assert!(refused("v1.dlq.ACME", "ACME") && refused("v1.dlq", "ACME"));
        assert!(refused("v1.chats.upsert.OTHER", "ACME"));
        assert!(!refused("v1.chats.upsert.ACME", "ACME"));
        assert!(!refused("v1.dlqs.x.ACME", "ACME"));
        assert!(!refused("cdc.ACME.chats", "ACME"));
        assert!(!refused("sequin.changes.db.public.chats.insert", "ACME"));
    }
}
