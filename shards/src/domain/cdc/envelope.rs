//! One pass over a body: which members a change event could have, and where they lie.
//! Invariant: a scanned body is one JSON value with nothing behind it.
//! Shapes: contract `cdc.md` 2.1, `notifications.md` 5. Both envelopes are gathered at once, because
//! the member that tells them apart may come last.

use super::json::{Cursor, Fault, Field, Kind, members, unescape};
use super::row::Image;
use super::rules::EnvelopeRule;
use super::span::Span;

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
    cursor.peek()?;
    cursor.enter_object()?;
    let mut first = true;
    while let Some(key) = cursor.next_key(first)? {
        first = false;
        if key.kind == Kind::Text {
            found.read(cursor.bytes(key), cursor)?;
        } else {
            let name = unescape(cursor.bytes(key)).unwrap_or_default();
            found.read(name.as_bytes(), cursor)?;
        }
    }
    Ok(())
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
            _ => _ = cursor.value()?,
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
            cursor.value()?;
            return Ok(None);
        }
        let mut database = Field::default();
        let [schema, table, commit_time, lsn, index, idempotency_key, database_name, database_raw] =
            members(
                cursor,
                &[
                    b"table_schema",
                    b"table_name",
                    b"commit_timestamp",
                    b"commit_lsn",
                    b"commit_idx",
                    b"idempotency_key",
                    b"database_name",
                    b"database",
                ],
            )?;
        if database_raw.kind == Kind::Object {
            [database] = members(&mut cursor.back_to(database_raw), &[b"id"])?;
        }
        Ok(Some(Self {
            schema,
            table,
            commit_time,
            lsn,
            index,
            idempotency_key,
            database_name,
            database_id: database,
        }))
    }
}

impl Origin {
    fn read_source(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let total_order = self.total_order;
        *self = Self { total_order, ..Self::default() };
        if cursor.peek()? != b'{' {
            return cursor.value().map(drop);
        }
        [
            self.schema,
            self.table,
            self.collection,
            self.database,
            self.name,
            self.lsn,
            self.ordinal,
            self.time_ms,
            self.time_us,
        ] = members(
            cursor,
            &[
                b"schema",
                b"table",
                b"collection",
                b"db",
                b"name",
                b"lsn",
                b"ord",
                b"ts_ms",
                b"ts_us",
            ],
        )?;
        Ok(())
    }

    fn read_transaction(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        self.total_order = Field::default();
        if cursor.peek()? != b'{' {
            return cursor.value().map(drop);
        }
        [self.total_order] = members(cursor, &[b"total_order"])?;
        Ok(())
    }
}
