//! A change that is to be published. Invariant: its identifiers are safe in a subject and its row is
//! valid JSON; only `transform` makes one.

use super::facts::{Action, CommitTime, Ordinal};
use super::identity::Verbatim;
use super::rules::Table;
use crate::domain::json::{Span, Texts};

/// A change as ranges into the message it came in, to be kept beside that message's `Bytes` across a
/// wait. Allocates only for text that had to be decoded.
#[derive(Clone, Debug)]
pub struct ChangeSpans {
    pub(crate) table: Table,
    pub(crate) action: Action,
    /// Some column of the row holds a TOAST mark and must be left out.
    pub(crate) has_toast: bool,
    pub(crate) lsn: u64,
    pub(crate) ordinal: Ordinal,
    pub(crate) commit_time: CommitTime,
    pub(crate) source: Option<Span>,
    pub(crate) verbatim: Verbatim,
    pub(crate) company: Span,
    pub(crate) agent: Span,
    pub(crate) chat: Option<Span>,
    pub(crate) key: Span,
    pub(crate) row: Span,
    pub(crate) arena: Box<[u8]>,
}

impl ChangeSpans {
    /// The change, read in place; `subject` and `body` are those that `transform` was given.
    ///
    /// # Panics
    /// Reading may panic if they are shorter.
    pub fn bind<'a>(&'a self, subject: &'a [u8], body: &'a [u8]) -> Change<'a> {
        Change { spans: self, texts: Texts { subject, body, arena: &self.arena } }
    }
}

/// A change together with the bytes it lies in.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub(crate) spans: &'a ChangeSpans,
    pub(crate) texts: Texts<'a>,
}

impl<'a> Change<'a> {
    /// Table.
    pub fn table(&self) -> Table {
        self.spans.table
    }

    /// What happened.
    pub fn action(&self) -> Action {
        self.spans.action
    }

    /// Company of the row, `[A-Za-z0-9_-]{1,48}`.
    pub fn company(&self) -> &'a [u8] {
        self.texts.get(self.spans.company)
    }

    /// Agent of the row, `[A-Za-z0-9_@:+=-]{1,128}`.
    pub fn agent(&self) -> &'a [u8] {
        self.texts.get(self.spans.agent)
    }

    /// Chat of the row, of messages and chats.
    pub fn chat(&self) -> Option<&'a [u8]> {
        self.spans.chat.map(|span| self.texts.get(span))
    }

    /// Key column, as it stands inside a JSON string (escapes kept).
    pub fn key(&self) -> &'a [u8] {
        self.texts.get(self.spans.key)
    }

    /// Message id, of messages; as it stands inside a JSON string.
    pub fn message_id(&self) -> Option<&'a [u8]> {
        (self.table() == Table::Messages).then(|| self.key())
    }

    /// Commit position; 0 for a backfilled row.
    pub fn lsn(&self) -> u64 {
        self.spans.lsn
    }

    /// Place in the transaction, where the source tells it.
    pub fn index(&self) -> Option<u64> {
        match self.spans.ordinal {
            Ordinal::Index(index) => Some(index),
            Ordinal::Key(_) | Ordinal::RowHash => None,
        }
    }

    /// The row image as received: one JSON object.
    pub fn row(&self) -> &'a [u8] {
        self.texts.get(self.spans.row)
    }
}
