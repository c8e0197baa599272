//! What is written together: the parcels, and what became of each. The edge decodes and writes it where the
//! connection is; the events borrow from the parcels. Invariant: every event of a job that was written has
//! one verdict, in its order.

use super::letters::{self, GivenUp, Original};
use super::{Catalog, Waiting};
use crate::domain::ingest::{Body, Event, Position, Reason, Refusal};
use crate::id::PartitionId;
use crate::pipeline::commit::{Away, Commit, Fate, Item, Outcome, suspicious_timestamps};
use crate::pipeline::note::log_event;
use crate::pipeline::origin::Origin;
use crate::wire::nats::jetstream::AckSubject;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of one event.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Committed.
    Written(Fate),
    /// It does not keep to its schema.
    Refused(Refusal),
    /// It can never be written as it is.
    Bad {
        /// As PostgreSQL calls it.
        sqlstate: String,
        /// For operators.
        message: String,
    },
    /// Reading it panicked.
    Panicked,
    /// It is a dead letter that cannot be read.
    Unreadable(Refusal),
    /// It is a dead letter that stands among the exhausted events now.
    GivenUp,
    /// Its company cannot be written now: a person has to look.
    Held {
        /// For operators.
        message: String,
    },
    /// Nothing yet: it is to be written again, in order.
    Open,
}

/// Events to be written together, in order. Its memory is used again.
#[derive(Debug, Default)]
pub struct Job {
    pub(super) events: Vec<Waiting>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) away: Option<Away>,
    pub(super) suspicious: u64,
}

/// An event that can be written.
#[derive(Debug)]
pub struct Decoded<'a> {
    place: usize,
    company: &'a str,
    event: Event<'a>,
    position: Position<'a>,
    stream_created_ns: u64,
}

impl Decoded<'_> {
    /// As a batch takes it.
    #[must_use]
    pub fn item(&self) -> Item<'_> {
        Item {
            company: self.company,
            event: &self.event,
            position: &self.position,
            stream_created_ns: self.stream_created_ns,
        }
    }
}

/// What decoding found, beside the events that can be written.
#[derive(Debug, Default)]
pub struct Found {
    refused: Vec<(usize, Verdict)>,
    suspicious: u64,
}

impl Job {
    /// Partition and stream sequence of each event.
    pub fn places(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        self.events.iter().map(|waiting| (waiting.parcel.partition, waiting.parcel.seq))
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The events that its dead letters carry, by place; none where there is no letter.
    #[must_use]
    pub fn originals(&self, catalog: &Catalog) -> Vec<(usize, Result<Original, Refusal>)> {
        let letters = self.events.iter().enumerate().filter(|(_, waiting)| waiting.is_letter());
        letters.map(|(place, waiting)| (place, letters::open(waiting, catalog))).collect()
    }

    /// The bodies, mended; what is decoded borrows from them.
    #[must_use]
    pub fn bodies<'a>(
        &'a self,
        originals: &'a [(usize, Result<Original, Refusal>)],
    ) -> Vec<Body<'a>> {
        let mut originals = originals.iter().peekable();
        let mut body = |(place, waiting): (usize, &'a Waiting)| match originals
            .next_if(|(of, _)| *of == place)
        {
            Some((_, Ok(original))) => Body::of(&original.body),
            _ => Body::of(waiting.parcel.msg.payload()),
        };
        self.events.iter().enumerate().map(&mut body).collect()
    }

    /// Dead letters that have had their last try.
    pub fn given_up<'a>(
        &'a self,
        originals: &'a [(usize, Result<Original, Refusal>)],
    ) -> impl Iterator<Item = GivenUp<'a>> {
        originals.iter().filter_map(|(place, original)| {
            letters::row(*place, &self.events[*place], original.as_ref().ok())
        })
    }

    /// Reads every event once, but for those that are given up.
    #[must_use]
    pub fn decode<'a>(
        &'a self,
        catalog: &'a Catalog,
        originals: &'a [(usize, Result<Original, Refusal>)],
        bodies: &'a [Body<'a>],
    ) -> (Vec<Decoded<'a>>, Found) {
        let mut decoded = Vec::with_capacity(self.events.len());
        let mut found = Found::default();
        let mut originals = originals.iter().peekable();
        for (place, (waiting, body)) in self.events.iter().zip(bodies).enumerate() {
            let original = originals.next_if(|(of, _)| *of == place).map(|(_, letter)| letter);
            if waiting.given_up.is_some() {
                continue;
            }
            let original = match original.map(Result::as_ref).transpose() {
                Ok(original) => original,
                Err(refusal) => {
                    found.refused.push((place, Verdict::Unreadable(refusal.clone())));
                    continue;
                }
            };
            // A panic of a decoder is the event's own, and ends nobody else's.
            let read = catch_unwind(AssertUnwindSafe(|| read(waiting, catalog, original, body)));
            match read {
                Ok(Ok((company, event, position))) => {
                    let suspicious = suspicious_timestamps(&event) as u64;
                    if suspicious > 0 {
                        log_event!(
                            DEBUG,
                            &waiting.parcel,
                            company,
                            "a message's time is likely to be in milliseconds",
                            suspicious
                        );
                    }
                    found.suspicious += suspicious;
                    let stream_created_ns = waiting.parcel.stream_created;
                    decoded.push(Decoded { place, company, event, position, stream_created_ns });
                }
                Ok(Err(refusal)) => found.refused.push((place, Verdict::Refused(refusal))),
                Err(_) => found.refused.push((place, Verdict::Panicked)),
            }
        }
        (decoded, found)
    }

    /// What became of them, after `commit` was driven to its end with these events.
    #[must_use]
    pub fn judge(decoded: &[Decoded<'_>], found: Found, commit: &Commit) -> Judged {
        let mut verdicts = found.refused;
        let outcomes = decoded.iter().zip(commit.outcomes());
        verdicts.extend(outcomes.map(|(event, outcome)| (event.place, verdict(outcome.as_ref()))));
        verdicts.sort_unstable_by_key(|(place, _)| *place);
        Judged { verdicts, suspicious: found.suspicious, away: commit.away().cloned() }
    }

    /// Takes note of what became of the events.
    pub fn settle(&mut self, judged: Judged) {
        self.verdicts.extend(judged.verdicts.into_iter().map(|(_, verdict)| verdict));
        (self.suspicious, self.away) = (judged.suspicious, judged.away);
    }

    /// The events with their verdicts; one that was never written is still open.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Waiting, Verdict)> {
        let verdicts = self.verdicts.drain(..).chain(std::iter::repeat_with(|| Verdict::Open));
        self.events.drain(..).zip(verdicts)
    }
}

impl Judged {
    /// Is the database away?
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// A letter has its row, or why it has not.
    pub fn give_up(&mut self, letter: &GivenUp<'_>, done: Result<(), Unwritten>) {
        let verdict = match done {
            Ok(()) => Verdict::GivenUp,
            Err(Unwritten::Held(message)) => Verdict::Held { message },
            Err(Unwritten::Away(away)) => {
                self.away = Some(away);
                Verdict::Open
            }
        };
        self.put(letter, verdict);
    }

    /// A letter waits for its row, since the database is away.
    pub fn keep(&mut self, letter: &GivenUp<'_>) {
        self.put(letter, Verdict::Open);
    }

    fn put(&mut self, letter: &GivenUp<'_>, verdict: Verdict) {
        let at = self.verdicts.partition_point(|(place, _)| *place < letter.place);
        self.verdicts.insert(at, (letter.place, verdict));
    }
}

/// Why a letter has no row among the exhausted events.
#[derive(Debug)]
pub enum Unwritten {
    /// The database cannot take it now.
    Away(Away),
    /// Its company's schema cannot be used: a person has to look.
    Held(String),
}

/// The end of a write, in words that borrow nothing.
#[derive(Debug)]
pub struct Judged {
    verdicts: Vec<(usize, Verdict)>,
    suspicious: u64,
    away: Option<Away>,
}

fn read<'a>(
    waiting: &'a Waiting,
    catalog: &'a Catalog,
    original: Option<&'a Original>,
    body: &'a Body<'a>,
) -> Result<(&'a str, Event<'a>, Position<'a>), Refusal> {
    let parcel = &waiting.parcel;
    let subject = std::str::from_utf8(parcel.subject()).unwrap_or_default();
    let route = catalog.route(original.map_or(subject, |original| &original.subject))?;
    if original.is_some() && subject.rsplit('.').next() != Some(route.company()) {
        return Err(Refusal::of_subject(Reason::CompanyMismatch, subject));
    }
    let event = route.decode(body)?;
    let first = Origin::of(&parcel.msg);
    if let Some(original) = original {
        let first = first.unwrap_or(Origin {
            stream: &original.stream,
            sequence: original.stream_sequence,
            published_ns: original.published_ns,
        });
        let position = Position {
            stream: first.stream,
            stream_sequence: first.sequence,
            message_id: &original.message_id,
            subject: &original.subject,
            published_ns: first.published_ns,
            ..Position::default()
        };
        return Ok((route.company(), event, position));
    }
    let ack = parcel.msg.reply().and_then(|reply| AckSubject::parse(reply).ok());
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap_or_default();
    let first = first.unwrap_or(Origin {
        stream: ack.map_or("", |ack| text(ack.stream)),
        sequence: parcel.seq,
        published_ns: parcel.stored,
    });
    let position = Position {
        stream: first.stream,
        stream_sequence: first.sequence,
        consumer: ack.map_or("", |ack| text(ack.consumer)),
        consumer_sequence: ack.map_or(0, |ack| ack.consumer_seq),
        domain: ack.and_then(|ack| ack.domain).map_or("", text),
        message_id: parcel.msg.header(b"Nats-Msg-Id").map_or("", text),
        subject,
        published_ns: first.published_ns,
    };
    Ok((route.company(), event, position))
}

fn verdict(outcome: Option<&Outcome>) -> Verdict {
    match outcome {
        None => Verdict::Open,
        Some(Outcome::Committed(fate)) => Verdict::Written(*fate),
        Some(Outcome::Bad { sqlstate, message }) => {
            Verdict::Bad { sqlstate: sqlstate.clone(), message: message.clone() }
        }
        Some(Outcome::Held { message }) => Verdict::Held { message: message.clone() },
    }
}
