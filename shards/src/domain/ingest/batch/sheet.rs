//! The rows of one call, column by column, and what the database said of them. Invariants: columns have
//! `rows` rows each; a cleared sheet keeps its memory up to a bound.

use super::statements::{Kind, Spec};
use crate::columns::{Column, Texts};

/// Memory that an idle sheet may keep, bytes; one that grew beyond it in a burst gives it back.
const IDLE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Sheet {
    pub(super) kind: Kind,
    pub(super) company: u32,
    pub(super) wave: u32,
    pub(super) columns: Vec<Column>,
    pub(super) rows: u32,
    /// The lowest horizon of its rows, and its text once the batch is sealed.
    pub(super) horizon_ns: u64,
    pub(super) horizon: String,
    /// Is it tried first to insert its rows, leaving alone what is there?
    pub(super) tries_first: bool,
    /// The event that wrote the last row.
    pub(super) last_event: Option<u32>,
    /// What the database said of each row; empty while all had the usual effect.
    codes: Vec<u8>,
}

impl Sheet {
    pub(super) fn new(kind: Kind) -> Self {
        let columns = kind.spec().columns.iter().map(|of| Column::new(*of)).collect();
        Self {
            kind,
            company: 0,
            wave: 0,
            columns,
            rows: 0,
            horizon_ns: u64::MAX,
            horizon: String::new(),
            tries_first: false,
            last_event: None,
            codes: Vec::new(),
        }
    }

    pub(super) fn spec(&self) -> &'static Spec {
        self.kind.spec()
    }

    /// Ready for other rows; `None` if it holds too much memory to be kept.
    pub(super) fn recycle(mut self) -> Option<Self> {
        self.columns.iter_mut().for_each(Column::clear);
        self.rows = 0;
        self.horizon_ns = u64::MAX;
        self.horizon.clear();
        self.codes.clear();
        self.tries_first = false;
        self.last_event = None;
        let held: usize = self.columns.iter().map(Column::capacity).sum();
        (held <= IDLE_BYTES_MAX).then_some(self)
    }

    /// Ends the row that was written; its number.
    pub(super) fn end_row(&mut self, horizon_ns: u64) -> u32 {
        let row = self.rows;
        self.rows += 1;
        self.horizon_ns = self.horizon_ns.min(horizon_ns);
        debug_assert!(self.columns.iter().all(|column| column.len() == self.rows as usize));
        row
    }

    pub(super) fn code_of(&self, row: u32) -> u8 {
        self.codes.get(row as usize).copied().unwrap_or(0)
    }

    /// A row, from 0, had this code; a number that is no row stands for all.
    pub(super) fn set_code(&mut self, row: Option<u32>, code: u8) {
        self.codes.resize(self.rows as usize, 0);
        match row.and_then(|row| self.codes.get_mut(row as usize)) {
            Some(place) => *place = code,
            None => self.codes.fill(code),
        }
    }

    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Is every text of a row that is not empty replaced by one of these?
    pub(super) fn is_covered(&self, row: usize, values: &[(usize, Option<&str>)]) -> bool {
        values.iter().all(|(column, value)| {
            value.is_some() || self.text(*column, row).is_none_or(<[u8]>::is_empty)
        })
    }

    /// A text of a row; a column of another type has none.
    pub(super) fn text(&self, column: usize, row: usize) -> Option<&[u8]> {
        match &self.columns[column] {
            Column::Text(texts) | Column::Json(texts) => texts.get(row),
            _ => None,
        }
    }

    /// The texts of a column; a column of another type takes nothing.
    pub(super) fn texts(&mut self, column: usize) -> Option<&mut Texts> {
        match &mut self.columns[column] {
            Column::Text(texts) | Column::Json(texts) => Some(texts),
            _ => None,
        }
    }
}

/// Writes the cells of one row, column after column.
pub(super) struct Row<'s> {
    columns: std::slice::IterMut<'s, Column>,
}

impl<'s> Row<'s> {
    pub(super) fn of(sheet: &'s mut Sheet) -> Self {
        Self { columns: sheet.columns.iter_mut() }
    }

    /// A text or a JSON document.
    pub(super) fn text(&mut self, text: Option<&str>) -> &mut Self {
        match self.columns.next() {
            Some(Column::Text(texts) | Column::Json(texts)) => texts.push(text),
            other => debug_assert!(false, "no text column: {other:?}"),
        }
        self
    }

    /// A text, empty when absent.
    pub(super) fn or_empty(&mut self, text: Option<&str>) -> &mut Self {
        self.text(Some(text.unwrap_or_default()))
    }

    pub(super) fn int8(&mut self, value: Option<i64>) -> &mut Self {
        match self.columns.next() {
            Some(Column::Int8(values)) => values.push(value),
            other => debug_assert!(false, "no bigint column: {other:?}"),
        }
        self
    }

    pub(super) fn int4(&mut self, value: Option<i32>) -> &mut Self {
        match self.columns.next() {
            Some(Column::Int4(values)) => values.push(value),
            other => debug_assert!(false, "no integer column: {other:?}"),
        }
        self
    }

    pub(super) fn boolean(&mut self, value: bool) -> &mut Self {
        match self.columns.next() {
            Some(Column::Bool(values)) => values.push(Some(value)),
            other => debug_assert!(false, "no boolean column: {other:?}"),
        }
        self
    }

    pub(super) fn date(&mut self, value: Option<i32>) -> &mut Self {
        match self.columns.next() {
            Some(Column::Date(values)) => values.push(value),
            other => debug_assert!(false, "no date column: {other:?}"),
        }
        self
    }

    /// Metadata and horizon, the last two columns; an event with many rows has them once.
    pub(super) fn origin(&mut self, meta: &str, horizon: &str, again: bool) {
        for text in [meta, horizon] {
            match self.columns.next() {
                Some(Column::Text(texts) | Column::Json(texts)) if again => texts.push_again(),
                Some(Column::Text(texts) | Column::Json(texts)) => texts.push(Some(text)),
                other => debug_assert!(false, "no text column: {other:?}"),
            }
        }
    }
}
