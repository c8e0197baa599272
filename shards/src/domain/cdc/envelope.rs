//! One pass over a body: which members a change event could have, and where they lie.
//! Invariant: a scanned body is one JSON value with nothing behind it.
//! Shapes: contract `cdc.md` 2.1, `notifications.md` 5. Both envelopes are gathered at once, because
//! the member that tells them apart may come last.

use super::row::Image;
use super::rules::EnvelopeRule;
use crate::domain::json::{Cursor, Fault, Field, Kind, Span};

/// Sequin's `metadata`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Metadata {
    pub(crate) schema: Field,
    pub(crate) table: Field,
    pub(crate) commit_time: Field,
    pub(crate) lsn: Field,
    pub(crate) index: Field,
    pub(crate) idempotency_key: Field,
    pub(crate) database_name: Field,
    /// `database.id`.
    pub(crate) database_id: Field,
}

/// Debezium's `source` and `transaction`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Origin {
    pub(crate) schema: Field,
    pub(crate) table: Field,
    pub(crate) collection: Field,
    pub(crate) database: Field,
    pub(crate) name: Field,
    pub(crate) lsn: Field,
    pub(crate) ordinal: Field,
    pub(crate) time_ms: Field,
    pub(crate) time_us: Field,
    pub(crate) total_order: Field,
}

/// The members of a body that either envelope uses.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Members {
    pub(crate) action: Field,
    pub(crate) record: Image,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) op: Field,
    pub(crate) after: Image,
    pub(crate) before: Image,
    pub(crate) origin: Origin,
    /// A wrapped event's `payload`.
    pub(crate) payload: Field,
}

/// A body, before its envelope is chosen.
pub(crate) enum Body {
    /// The value `null`, or no byte at all.
    Null { is_empty: bool },
    /// An object, whose members were gathered.
    Object,
    /// Any other value.
    Other,
}

/// What the members say the envelope is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Envelope {
    Sequin,
    Debezium,
    /// Debezium inside `payload`, at this span.
    Wrapped(Span),
    /// `payload` is null: a wrapped tombstone.
    Tombstone,
    Unknown,
}

/// Reads a whole body; the members of an object go to `found`.
pub(crate) fn scan(
    cursor: &mut Cursor<'_>,
    text: &[u8],
    found: &mut Members,
) -> Result<Body, Fault> {
    if text.is_empty() {
        return Ok(Body::Null { is_empty: true });
    }
    let body = if cursor.peek()? == b'{' {
        scan_members(cursor, found)?;
        Body::Object
    } else {
        match cursor.value()?.kind {
            Kind::Null => Body::Null { is_empty: false },
            _ => Body::Other,
        }
    };
    cursor.finish()?;
    Ok(body)
}

/// Reads the object at the cursor.
pub(crate) fn scan_members(cursor: &mut Cursor<'_>, found: &mut Members) -> Result<(), Fault> {
    cursor.each_name(|cursor, name| found.read(name, cursor))
}

impl Members {
    fn read(&mut self, name: &[u8], cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        match name {
            b"action" => self.action = cursor.value()?,
            b"record" => self.record = Image::read(cursor)?,
            b"metadata" => self.metadata = Metadata::read(cursor)?,
            b"op" => self.op = cursor.value()?,
            b"after" => self.after = Image::read(cursor)?,
            b"before" => self.before = Image::read(cursor)?,
            b"source" => self.origin.read_source(cursor)?,
            b"transaction" => self.origin.read_transaction(cursor)?,
            b"payload" => self.payload = cursor.value()?,
            _ => cursor.skip()?,
        }
        Ok(())
    }

    /// Chooses the envelope, within what the rule allows.
    pub(crate) fn envelope(&self, rule: EnvelopeRule) -> Envelope {
        let is_sequin = self.metadata.is_some()
            || self.action.is_some() && !matches!(self.record, Image::Absent);
        if is_sequin && !self.op.is_some() && rule != EnvelopeRule::Debezium {
            return Envelope::Sequin;
        }
        if rule == EnvelopeRule::Sequin {
            return Envelope::Unknown;
        }
        match self.payload.kind {
            _ if self.op.is_some() => Envelope::Debezium,
            Kind::Object => Envelope::Wrapped(self.payload.span),
            Kind::Null => Envelope::Tombstone,
            _ => Envelope::Unknown,
        }
    }
}

impl Metadata {
    fn read(cursor: &mut Cursor<'_>) -> Result<Option<Self>, Fault> {
        if cursor.peek()? != b'{' {
            cursor.skip()?;
            return Ok(None);
        }
        let mut meta = Self::default();
        cursor.each_name(|cursor, name| {
            match name {
                b"table_schema" => meta.schema = cursor.value()?,
                b"table_name" => meta.table = cursor.value()?,
                b"commit_timestamp" => meta.commit_time = cursor.value()?,
                b"commit_lsn" => meta.lsn = cursor.value()?,
                b"commit_idx" => meta.index = cursor.value()?,
                b"idempotency_key" => meta.idempotency_key = cursor.value()?,
                b"database_name" => meta.database_name = cursor.value()?,
                b"database" => meta.database_id = member(cursor, b"id")?,
                _ => cursor.skip()?,
            }
            Ok(())
        })?;
        Ok(Some(meta))
    }
}

impl Origin {
    fn read_source(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        *self = Self { total_order: self.total_order, ..Self::default() };
        if cursor.peek()? != b'{' {
            return cursor.skip();
        }
        cursor.each_name(|cursor, name| {
            match name {
                b"schema" => self.schema = cursor.value()?,
                b"table" => self.table = cursor.value()?,
                b"collection" => self.collection = cursor.value()?,
                b"db" => self.database = cursor.value()?,
                b"name" => self.name = cursor.value()?,
                b"lsn" => self.lsn = cursor.value()?,
                b"ord" => self.ordinal = cursor.value()?,
                b"ts_ms" => self.time_ms = cursor.value()?,
                b"ts_us" => self.time_us = cursor.value()?,
                _ => cursor.skip()?,
            }
            Ok(())
        })
    }

    fn read_transaction(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        self.total_order = member(cursor, b"total_order")?;
        Ok(())
    }
}

/// Passes the value at the cursor, and gives back its member of this name if it is an object.
fn member(cursor: &mut Cursor<'_>, wanted: &[u8]) -> Result<Field, Fault> {
    let mut found = Field::default();
    if cursor.peek()? != b'{' {
        cursor.skip()?;
        return Ok(found);
    }
    cursor.each_name(|cursor, name| {
        let value = cursor.value()?;
        if name == wanted {
            found = value;
        }
        Ok(())
    })?;
    Ok(found)
}
