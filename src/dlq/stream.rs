//! The stream of dead letters, read and thinned out one letter at a time. Invariant: only messages on the
//! configured subject of dead letters are seen or deleted, whatever else the stream captures.

use std::ops::ControlFlow;

use shards::wire::nats::headers::Headers;
use shards::wire::nats::jetstream::{
    Api, Deleted, ErrorClass, ResponseError, StoredMessage, parse_response,
};

use crate::config::plan::Plan;
use crate::letter::Letter;
use crate::nats::{Session, SessionError};
use crate::replay::trace_of;

/// A dead letter as it lies in the stream.
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) subject: String,
    /// RFC 3339, UTC.
    pub(super) stored_at: String,
    pub(super) headers: Vec<(String, String)>,
    /// Those of a trace, to be passed on.
    pub(super) trace: Vec<(&'static str, String)>,
    pub(super) data: Vec<u8>,
    /// What it says, or why it cannot be read.
    pub(super) letter: Result<Letter, String>,
}

pub(super) struct Letters {
    session: Session,
    stream: String,
    subject: String,
}

impl Letters {
    /// Connects, and finds the stream that captures dead letters.
    pub(super) fn open(plan: &Plan) -> Result<Self, SessionError> {
        let mut session = Session::of(&plan.nats, "dlq").map_err(SessionError::Refused)?;
        let (name, subject) = (&plan.cdc.dlq_stream, plan.cdc.dlq_subject.clone());
        let found = session.stream_of(&format!("{subject}.>"), name)?;
        let found = found.ok_or_else(|| {
            let told = format!(
                "there is no stream {name:?}, and none captures {subject}.>: no event was ever dead-lettered"
            );
            SessionError::Refused(told)
        })?;
        Ok(Self { session, stream: found.config.name, subject })
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// Subject of dead letters without the company.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The session, and the subject of dead letters.
    pub(super) fn with<T>(&mut self, use_them: impl FnOnce(&mut Session, &str) -> T) -> T {
        use_them(&mut self.session, &self.subject)
    }

    /// One letter, if it is there.
    pub(super) fn get(&mut self, seq: u64) -> Result<Option<Stored>, SessionError> {
        let message = self.session.message(&self.stream, seq)?;
        let is_letter = |message: &StoredMessage| {
            let rest = message.subject.strip_prefix(self.subject.as_str());
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        Ok(message.filter(is_letter).map(|message| stored(message, &self.subject)))
    }

    /// Calls `take` with each letter there is now, oldest first.
    pub(super) fn each(
        &mut self,
        company: Option<&str>,
        mut take: impl FnMut(&Stored) -> ControlFlow<()>,
    ) -> Result<(), SessionError> {
        let pattern = format!("{}.{}", self.subject, company.unwrap_or(">"));
        let state = self.session.stream(&self.stream)?.unwrap_or_default().state;
        let mut next = state.first_seq;
        while next <= state.last_seq {
            let message = self.session.message_next(&self.stream, next, &pattern)?;
            let Some(message) = message.filter(|message| message.seq <= state.last_seq) else {
                return Ok(());
            };
            next = message.seq + 1;
            if take(&stored(message, &self.subject)).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Deletes a letter; one that is gone already is as good.
    pub(super) fn delete(&mut self, seq: u64) -> Result<(), SessionError> {
        let answer = self.session.ask(&Api::default().message_delete(&self.stream, seq))?;
        match parse_response::<Deleted>(answer.payload()) {
            Ok(Deleted { success: true }) => Ok(()),
            Ok(_) => Err(SessionError::Refused("the server did not delete it".to_owned())),
            Err(error) => match self.session.message(&self.stream, seq)? {
                None if is_refusal(&error) => Ok(()),
                _ => Err(error.into()),
            },
        }
    }
}

/// Whether the server answered that it did not delete, in which case the message may be gone.
fn is_refusal(error: &ResponseError) -> bool {
    matches!(error, ResponseError::Api(error) if error.class() != ErrorClass::Transient)
}

fn stored(message: StoredMessage, dead: &str) -> Stored {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = Headers::new(&message.headers).iter();
    let headers: Vec<(String, String)> =
        fields.map(|(name, value)| (text(name), text(value))).collect();
    let trace = trace_of(&message.headers);
    // Who may publish for one company must not write letters for another.
    let company = message.subject.strip_prefix(dead).and_then(|rest| rest.strip_prefix('.'));
    let mut letter = Letter::read(&message.data).and_then(|letter| {
        let is_own = Some(letter.company.as_str()) == company;
        let told = || format!("says that it is of company {:?}", letter.company);
        if is_own { Ok(letter) } else { Err(told()) }
    });
    if let Ok(letter) = &mut letter
        && letter.reason.is_none()
    {
        let header = headers.iter().find(|(name, _)| name == "Daisi-Reason");
        letter.reason = header.map(|(_, value)| value.clone());
    }
    let StoredMessage { subject, seq, data, time, .. } = message;
    Stored { seq, subject, stored_at: time, headers, trace, data, letter }
}
