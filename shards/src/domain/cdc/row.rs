//! The identifying columns of a row image. Invariant: the whole row was validated; of a column that
//! occurs twice the last one counts, as for every reader of the published row.
//! Only these columns are read: the row's bytes are handed on as they came (contract 5.4).

use crate::domain::json::{Cursor, Fault, Field, Kind, Place, Span};

/// Text in place of a large value that an update left alone, where the old row is not logged.
/// Source: Sequin reference, "unchanged TOAST"; Debezium, `unavailable.value.placeholder`.
pub(crate) const TOAST_MARKS: [&[u8]; 2] = [b"unchanged_toast", b"__debezium_unavailable_value"];

/// A row image.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Row {
    pub(crate) span: Span,
    pub(crate) company: Field,
    pub(crate) agent: Field,
    pub(crate) chat: Field,
    pub(crate) message: Field,
    pub(crate) id: Field,
    /// MongoDB's `_id`.
    pub(crate) document_id: Field,
    /// Some column holds one of [`TOAST_MARKS`].
    pub(crate) has_toast_mark: bool,
}

/// What stands where a row is expected.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) enum Image {
    #[default]
    Absent,
    Null,
    Row(Row),
    /// A document as text inside a string, not yet decoded.
    Document(Field),
    /// A value that is no row.
    Other,
}

impl Image {
    /// Reads the value at the cursor.
    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        if cursor.peek()? == b'{' {
            return Row::read(cursor).map(Self::Row);
        }
        let value = cursor.value()?;
        Ok(match value.kind {
            Kind::Null => Self::Null,
            Kind::Text | Kind::Escaped => Self::Document(value),
            _ => Self::Other,
        })
    }
}

impl Row {
    /// Reads the object at the cursor.
    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let mut row = Self::default();
        cursor.peek()?;
        let start = cursor.offset();
        cursor.each_name(|cursor, column| {
            let value = cursor.value()?;
            row.has_toast_mark |= is_toast_mark(value, cursor);
            row.note(column, value);
            Ok(())
        })?;
        row.span = cursor.span_from(start);
        Ok(row)
    }

    fn note(&mut self, column: &[u8], value: Field) {
        match column {
            b"company_id" => self.company = value,
            b"agent_id" => self.agent = value,
            b"chat_id" => self.chat = value,
            b"message_id" => self.message = value,
            b"id" => self.id = value,
            b"_id" => self.document_id = value,
            _ => {}
        }
    }
}

#[inline]
fn is_toast_mark(value: Field, cursor: &Cursor<'_>) -> bool {
    // Nearly always the length alone answers.
    value.kind == Kind::Text
        && TOAST_MARKS.iter().any(|mark| mark.len() == value.span.len())
        && is_toast_text(cursor.bytes(value))
}

/// Whether a column's text is one of [`TOAST_MARKS`].
pub(crate) fn is_toast_text(text: &[u8]) -> bool {
    TOAST_MARKS.contains(&text)
}

/// A column of a row that was read before: raw key, raw value with quotes, and whether it is a mark.
pub(crate) struct Column<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) is_toast_mark: bool,
}

/// Calls `visit` for each column of a row that [`Row::read`] has accepted.
///
/// # Errors
/// None for such a row.
pub(crate) fn for_each_column<'a>(
    row: &'a [u8],
    mut visit: impl FnMut(Column<'a>),
) -> Result<(), Fault> {
    Cursor::new(row, Place::Body).each_member(|cursor, key, _| {
        cursor.peek()?;
        let start = cursor.offset();
        let value = cursor.value()?;
        let is_toast_mark = is_toast_mark(value, cursor);
        visit(Column { key, value: &row[start..cursor.offset()], is_toast_mark });
        Ok(())
    })
}
