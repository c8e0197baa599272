//! What both envelopes say about a change, in one form. Invariant: nothing here is checked yet but JSON.
//!
//! Sequin: contract `cdc.md` 2.1. Debezium: `notifications.md` 5, and its PostgreSQL and MongoDB
//! connector references for `source`. Where Debezium has no counterpart of a Sequin field:
//!
//! - **lsn**: `source.lsn`, the position of the change itself. MongoDB has none; its cluster time
//!   stands in, as 64 bits: seconds of `source.ts_ms` above, `source.ord` below.
//! - **index**: `transaction.total_order`. Without it the row itself tells changes apart (a hash), for
//!   `sequence` repeats the LSN and `ts_ns` is the same for all changes of a transaction.
//! - **commit time**: `source.ts_us`, else `source.ts_ms`.

use super::envelope::{Members, Origin};
use super::reject::{Reason, Refusal};
use super::row::Image;
use crate::domain::json::{Field, Kind, Span, Texts};

/// What a change did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A new row.
    Insert,
    /// New values of a row.
    Update,
    /// A removed row; the image is the old one.
    Delete,
    /// An existing row, read by a backfill or snapshot.
    Read,
}

impl Action {
    /// Name in payloads and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Read => "read",
        }
    }
}

/// What tells changes of one row in one transaction apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ordinal {
    /// Place in the transaction.
    Index(u64),
    /// The source's idempotency key.
    Key(Span),
    /// Neither is known: a hash of action and row.
    RowHash,
}

/// When the change was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CommitTime {
    Unknown,
    /// Text as the source gave it.
    Text(Span),
    /// Microseconds since the Unix epoch.
    Micros(u64),
}

/// One change, as its envelope tells it.
pub(crate) struct Facts {
    pub(crate) table: Field,
    /// Schema, or database of a source without schemas.
    pub(crate) schema: Field,
    pub(crate) action: Result<Action, Refusal>,
    pub(crate) image: Image,
    pub(crate) lsn: Result<u64, Refusal>,
    pub(crate) ordinal: Ordinal,
    pub(crate) commit_time: CommitTime,
    pub(crate) source: Option<Span>,
}

impl Facts {
    /// From Sequin's members.
    pub(crate) fn of_sequin(members: &Members, texts: Texts<'_>) -> Self {
        let meta = members.metadata.unwrap_or_default();
        let action = match string(members.action, texts) {
            b"insert" => Ok(Action::Insert),
            b"update" => Ok(Action::Update),
            b"delete" => Ok(Action::Delete),
            b"read" => Ok(Action::Read),
            _ => Err(Refusal::new(Reason::UnknownAction, "action is none of insert to read")),
        };
        let index = integer(meta.index, texts).map(Ordinal::Index);
        Self {
            table: meta.table,
            schema: meta.schema,
            action,
            image: match members.record {
                Image::Document(_) => Image::Other,
                image => image,
            },
            lsn: lsn(meta.lsn, texts),
            ordinal: index
                .or_else(|| filled(meta.idempotency_key).map(Ordinal::Key))
                .unwrap_or(Ordinal::RowHash),
            commit_time: commit_time(meta.commit_time, texts),
            source: filled(meta.database_id).or_else(|| filled(meta.database_name)),
        }
    }

    /// From Debezium's members.
    pub(crate) fn of_debezium(members: &Members, texts: Texts<'_>) -> Self {
        let origin = &members.origin;
        let action = match string(members.op, texts) {
            b"c" => Ok(Action::Insert),
            b"u" => Ok(Action::Update),
            b"d" => Ok(Action::Delete),
            b"r" => Ok(Action::Read),
            _ => Err(Refusal::new(Reason::UnknownAction, "op is none of c, u, d and r")),
        };
        let is_delete = matches!(action, Ok(Action::Delete));
        let or = |a: Field, b: Field| if a.is_some() { a } else { b };
        Self {
            table: or(origin.table, origin.collection),
            schema: or(origin.schema, origin.database),
            action,
            image: if is_delete { members.before } else { members.after },
            lsn: if origin.lsn.is_some() {
                lsn(origin.lsn, texts)
            } else {
                Ok(cluster_time(origin, texts))
            },
            ordinal: integer(origin.total_order, texts).map_or(Ordinal::RowHash, Ordinal::Index),
            commit_time: debezium_time(origin, texts),
            source: filled(origin.name).or_else(|| filled(origin.database)),
        }
    }
}

/// Bytes of a string without escapes; empty for everything else. No name we know has escapes.
fn string<'a>(field: Field, texts: Texts<'a>) -> &'a [u8] {
    if field.kind == Kind::Text { texts.get(field.span) } else { b"" }
}

/// Span of a string that is not empty.
fn filled(field: Field) -> Option<Span> {
    (field.is_string() && field.span.len() > 0).then_some(field.span)
}

/// A non-negative integer; `None` for all else.
fn integer(field: Field, texts: Texts<'_>) -> Option<u64> {
    if field.kind == Kind::Number { decimal(texts.get(field.span)) } else { None }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    // Nineteen digits cannot overflow.
    let (sure, last) = digits.split_at(digits.len().min(19));
    let mut sum = 0_u64;
    for byte in sure {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum * 10 + u64::from(digit);
    }
    last.iter().try_fold(sum, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// An LSN: an integer, the same as text, or PostgreSQL's `X/Y`. Null and absent are 0 (contract 2.1).
fn lsn(field: Field, texts: Texts<'_>) -> Result<u64, Refusal> {
    let text = texts.get(field.span);
    let lsn = match field.kind {
        Kind::Absent | Kind::Null => Some(0),
        Kind::Number => decimal(text),
        Kind::Text => decimal(text).or_else(|| lsn_halves(text)),
        _ => None,
    };
    lsn.ok_or_else(|| Refusal::new(Reason::BadLsn, "commit LSN is no 64-bit position"))
}

fn lsn_halves(text: &[u8]) -> Option<u64> {
    let (high, low) = std::str::from_utf8(text).ok()?.split_once('/')?;
    let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// MongoDB's cluster time as its 64 bits; 0 where it is unknown.
fn cluster_time(origin: &Origin, texts: Texts<'_>) -> u64 {
    let secs = integer(origin.time_ms, texts).map_or(0, |ms| ms / 1000);
    let ordinal = integer(origin.ordinal, texts).unwrap_or(0);
    match (u32::try_from(secs), u32::try_from(ordinal)) {
        (Ok(secs), Ok(ordinal)) => u64::from(secs) << 32 | u64::from(ordinal),
        _ => 0,
    }
}

fn commit_time(field: Field, texts: Texts<'_>) -> CommitTime {
    match filled(field) {
        Some(span) => CommitTime::Text(span),
        None => integer(field, texts).map_or(CommitTime::Unknown, CommitTime::Micros),
    }
}

fn debezium_time(origin: &Origin, texts: Texts<'_>) -> CommitTime {
    integer(origin.time_us, texts)
        .or_else(|| integer(origin.time_ms, texts)?.checked_mul(1000))
        .map_or(CommitTime::Unknown, CommitTime::Micros)
}
