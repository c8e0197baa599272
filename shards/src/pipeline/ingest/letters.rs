//! Dead letters that are tried again: what is tried, and what becomes of them. They go through the same lanes
//! and batches as events do, at the position of the event that they carry: so a retry fills a gap, and never
//! undoes a newer state. Invariant: a letter that cannot be written any more is not let go before its row is
//! among the company's `exhausted_events`. Source: contract `ingest.md` 4.6 and 6.5.

use super::{Catalog, Cx, Ingest, Outcome, Verdict, Waiting, refused};
use crate::domain::cdc::parse_rfc3339;
use crate::domain::ingest::{Body, Kind, Reason, Refusal};
use crate::pipeline::cdc::{count, report_fate};
use crate::pipeline::commit::Fate;
use crate::pipeline::mail::LetterFate;
use crate::pipeline::note::{self, log_event, without_values};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The event that a letter carries.
#[derive(Debug)]
pub struct Original {
    pub(super) subject: String,
    pub(super) body: Vec<u8>,
    pub(super) stream: String,
    pub(super) stream_sequence: u64,
    pub(super) message_id: String,
    pub(super) published_ns: u64,
    dead_lettered_at: String,
}

/// A letter for `exhausted_events`; what `edge::pg::exhausted` takes.
#[derive(Debug)]
pub struct GivenUp<'a> {
    /// Its place in the job.
    pub(super) place: usize,
    /// Name of the letter, the same at each try: `<stream>:<sequence>:<stored, ns>`.
    pub letter_id: String,
    /// Whose it is.
    pub company: &'a str,
    /// Subject of the event; the letter's own where that cannot be read.
    pub source_subject: &'a str,
    /// Why the last try failed.
    pub last_error: &'a str,
    /// Tries.
    pub retry_count: u64,
    /// The letter's `ts`.
    pub event_timestamp: Option<&'a str>,
    /// The letter as it came.
    pub letter: &'a [u8],
    /// The event as it came, where the letter can be read.
    pub original: Option<&'a [u8]>,
}

/// Reads a letter.
pub(super) fn open(waiting: &Waiting, catalog: &Catalog) -> Result<Original, Refusal> {
    let parcel = &waiting.parcel;
    let subject = std::str::from_utf8(parcel.subject()).unwrap_or_default();
    let text = Body::of(parcel.msg.payload());
    let letter = catalog.decode_dlq(subject, &text)?;
    let body = match (&letter.original_payload_base64, letter.original_payload) {
        (Some(encoded), _) => STANDARD.decode(encoded.as_bytes()).unwrap_or_default(),
        (None, payload) => payload.unwrap_or_default().as_bytes().to_vec(),
    };
    // A letter of another stage has none; it can still be shown.
    let kind = catalog.route(&letter.source_subject).map(|route| route.kind());
    let header =
        parcel.msg.header(b"Original-Nats-Msg-Id").and_then(|id| std::str::from_utf8(id).ok());
    let message_id = letter.original_msg_id.as_deref().or(header).unwrap_or_default();
    // The old service names the sequence where the event had no id. Without any it counts as older than
    // whatever stands in a row.
    let named = || message_id.strip_prefix("msg-").and_then(|sequence| sequence.parse().ok());
    let stated = letter.stream_sequence.and_then(|sequence| u64::try_from(sequence).ok());
    Ok(Original {
        stream: letter.stream.as_deref().unwrap_or(kind.map_or("", Kind::stream)).to_owned(),
        stream_sequence: stated.or_else(named).unwrap_or(0),
        message_id: message_id.to_owned(),
        published_ns: letter.published_at.as_deref().and_then(parse_rfc3339).unwrap_or(0),
        dead_lettered_at: letter.ts.into_owned(),
        subject: letter.source_subject.into_owned(),
        body,
    })
}

/// A letter that has had its last try, as a row.
pub(super) fn row<'a>(
    place: usize,
    waiting: &'a Waiting,
    original: Option<&'a Original>,
) -> Option<GivenUp<'a>> {
    let last_error = waiting.given_up.as_deref()?;
    let parcel = &waiting.parcel;
    let subject = std::str::from_utf8(parcel.subject()).unwrap_or_default();
    let stream = String::from_utf8_lossy(parcel.stream());
    Some(GivenUp {
        place,
        letter_id: format!("{stream}:{}:{}", parcel.seq, parcel.stored),
        company: subject.rsplit('.').next().unwrap_or_default(),
        source_subject: original.map_or(subject, |original| &original.subject),
        last_error,
        retry_count: parcel.delivered,
        event_timestamp: original.map(|original| original.dead_lettered_at.as_str()),
        letter: parcel.msg.payload(),
        original: original.map(|original| original.body.as_slice()),
    })
}

impl Ingest {
    /// A letter comes back from a lane.
    pub(super) fn end_letter(&mut self, mut waiting: Waiting, verdict: Verdict, cx: &mut Cx<'_>) {
        let (error, is_hopeless) = match verdict {
            Verdict::Written(Fate::Stale | Fate::Duplicate) => {
                return self.commit(&waiting, Outcome::Duplicate, cx);
            }
            Verdict::Written(Fate::NotFound) => ("write: row not found".to_owned(), false),
            Verdict::Written(_) => return self.commit(&waiting, Outcome::Committed, cx),
            Verdict::GivenUp => {
                log_event!(
                    WARN,
                    &waiting.parcel,
                    self.name(waiting.tenant),
                    "a dead letter is given up: see `daisi exhausted`",
                    error = waiting.given_up.as_deref().map(without_values)
                );
                return self.let_go(&waiting, LetterFate::GivenUp, cx);
            }
            Verdict::Unreadable(refusal) => (refused(&refusal), true),
            // Of another stage, of a version that is not known here, or of another company than its subject.
            Verdict::Refused(refusal) => {
                let hopeless = [Reason::UnknownSubject, Reason::CompanyMismatch];
                (refused(&refusal), hopeless.contains(&refusal.reason))
            }
            Verdict::Bad { sqlstate, message } => (format!("write: {message} ({sqlstate})"), false),
            Verdict::Panicked => ("decode: reading it made the process panic".to_owned(), false),
            Verdict::Open | Verdict::Held { .. } => return self.give_back(&waiting, cx),
        };
        cx.figures.dlq.failed.inc();
        let attempts_max = cx.settings.dlq.as_ref().map_or(u64::MAX, |dlq| dlq.attempts_max);
        if is_hopeless || waiting.parcel.delivered >= attempts_max {
            waiting.given_up = Some(error);
            let lane = self.lane_of(self.tenants.id(waiting.tenant), cx.settings.shards);
            return self.lanes[lane].push(waiting);
        }
        self.try_later(waiting, &error, cx);
    }

    /// A letter stays in the stream.
    pub(super) fn try_later(&mut self, waiting: Waiting, why: &str, cx: &mut Cx<'_>) {
        log_event!(
            DEBUG,
            &waiting.parcel,
            self.name(waiting.tenant),
            "a dead letter is tried again later",
            error = without_values(why)
        );
        cx.figures.dlq.later.inc();
        self.let_go(&waiting, LetterFate::Later, cx);
    }

    fn let_go(&mut self, waiting: &Waiting, fate: LetterFate, cx: &mut Cx<'_>) {
        self.close(waiting);
        let books = &mut self.tenants.get(waiting.tenant).books;
        if fate == LetterFate::GivenUp {
            count(books, Outcome::DeadLettered);
            cx.figures.dlq.outcomes[Outcome::DeadLettered as usize].inc();
        } else {
            books.returned += 1;
        }
        let outcome = if fate == LetterFate::GivenUp { "exhausted" } else { "tried_later" };
        note::ended(&waiting.parcel, self.tenants.id(waiting.tenant), outcome, cx);
        report_fate(&waiting.parcel, fate, cx);
    }
}
