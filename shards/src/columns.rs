//! Values of many rows, column by column: what a set-based statement takes. Pure vocabulary; who encodes them
//! knows the server. Invariants: the columns of one call have equally many rows; clearing keeps the memory.

use std::fmt;

/// What one statement is called with.
pub struct Call<'a> {
    /// Schema it works in, without quotes.
    pub schema: &'a str,
    /// What to run.
    pub statement: &'static Statement,
    /// First parameters, before the columns.
    pub scalars: Scalars<'a>,
    /// The rows.
    pub columns: &'a [Column],
    /// Which of the columns the statement takes, in this order.
    pub picks: &'static [usize],
    /// How many there are.
    pub rows: usize,
}

/// Parameters that hold for all rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalars<'a> {
    /// `$1`, text: the company.
    pub company: &'a str,
    /// `$2`, timestamptz: now, Unix ns.
    pub now_ns: u64,
    /// `$3`, text: see `newer` in the texts of the statements.
    pub horizon: &'a str,
}

/// A statement, whatever the schema.
pub struct Statement {
    /// Its name; unique.
    pub name: &'static str,
    /// Its text in a schema, which comes in quotes.
    pub text: fn(&str) -> String,
    /// Types of the columns it takes.
    pub types: &'static [ColumnType],
    /// What it says of its rows.
    pub answer: Answer,
}

/// What a statement says of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// How many had an effect.
    Count,
    /// Row number (from 1) and code, int4 both, of each that had not the usual effect.
    List,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Type of a column; the array type of the server has it as elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// text
    Text,
    /// jsonb
    Json,
    /// bigint
    Int8,
    /// integer
    Int4,
    /// boolean
    Bool,
    /// date
    Date,
}

/// One column.
#[derive(Clone, Debug)]
pub enum Column {
    /// text
    Text(Texts),
    /// jsonb
    Json(Texts),
    /// bigint
    Int8(Vec<Option<i64>>),
    /// integer
    Int4(Vec<Option<i32>>),
    /// boolean
    Bool(Vec<Option<bool>>),
    /// date, days since 1970-01-01
    Date(Vec<Option<i32>>),
}

/// Texts, end to end in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    cells: Vec<Option<Span>>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Column {
    /// An empty column.
    #[must_use]
    pub fn new(of: ColumnType) -> Self {
        match of {
            ColumnType::Text => Self::Text(Texts::default()),
            ColumnType::Json => Self::Json(Texts::default()),
            ColumnType::Int8 => Self::Int8(Vec::new()),
            ColumnType::Int4 => Self::Int4(Vec::new()),
            ColumnType::Bool => Self::Bool(Vec::new()),
            ColumnType::Date => Self::Date(Vec::new()),
        }
    }

    /// Its type.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        match self {
            Self::Text(_) => ColumnType::Text,
            Self::Json(_) => ColumnType::Json,
            Self::Int8(_) => ColumnType::Int8,
            Self::Int4(_) => ColumnType::Int4,
            Self::Bool(_) => ColumnType::Bool,
            Self::Date(_) => ColumnType::Date,
        }
    }

    /// Rows in it.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(texts) | Self::Json(texts) => texts.cells.len(),
            Self::Int8(values) => values.len(),
            Self::Int4(values) | Self::Date(values) => values.len(),
            Self::Bool(values) => values.len(),
        }
    }

    /// No rows?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Is this the text of a row?
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Text(texts) | Self::Json(texts) => {
                (0..texts.len()).any(|row| texts.get(row) == Some(text.as_bytes()))
            }
            Self::Int8(_) | Self::Int4(_) | Self::Bool(_) | Self::Date(_) => false,
        }
    }

    /// No rows any more.
    pub fn clear(&mut self) {
        match self {
            Self::Text(texts) | Self::Json(texts) => texts.clear(),
            Self::Int8(values) => values.clear(),
            Self::Int4(values) | Self::Date(values) => values.clear(),
            Self::Bool(values) => values.clear(),
        }
    }

    /// Bytes that its memory holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        match self {
            Self::Text(texts) | Self::Json(texts) => {
                texts.bytes.capacity() + texts.cells.capacity() * size_of::<Option<Span>>()
            }
            Self::Int8(values) => values.capacity() * size_of::<Option<i64>>(),
            Self::Int4(values) | Self::Date(values) => values.capacity() * size_of::<Option<i32>>(),
            Self::Bool(values) => values.capacity() * size_of::<Option<bool>>(),
        }
    }
}

impl Texts {
    /// Adds a row.
    pub fn push(&mut self, text: Option<&str>) {
        let span = text.map(|text| self.keep(text.as_bytes()));
        self.cells.push(span);
    }

    /// Adds a row with the text of the row before it, which is kept once.
    pub fn push_again(&mut self) {
        let span = self.cells.last().copied().flatten();
        self.cells.push(span);
    }

    /// Gives a row another text.
    pub fn set(&mut self, row: usize, text: Option<&str>) {
        let span = text.map(|text| self.keep(text.as_bytes()));
        self.cells[row] = span;
    }

    /// The text of a row.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.cells[row].map(|span| &self.bytes[span.start as usize..span.end as usize])
    }

    /// Rows in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// No rows?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.cells.clear();
    }

    fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        // A batch is bounded far below 4 GiB (limits of payload and batch).
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: place(start), end: place(self.bytes.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_apart_replaced_and_shared() {
        let mut texts = Texts::default();
        for text in [Some("a"), None, Some(""), Some("bc")] {
            texts.push(text);
        }
        texts.push_again();
        texts.set(0, Some("longer"));
        texts.set(3, None);
        let all: Vec<_> = (0..texts.len()).map(|row| texts.get(row)).collect();
        assert_eq!(all, [Some(&b"longer"[..]), None, Some(b""), None, Some(b"bc")]);
        let mut column = Column::Text(texts);
        assert_eq!(["bc", "", "a"].map(|text| column.holds(text)), [true, true, false]);
        let held = column.capacity();
        column.clear();
        assert!(column.is_empty() && column.capacity() == held);
    }
}
