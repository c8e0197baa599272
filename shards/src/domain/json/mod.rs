//! JSON as the stages read it. Pure. Invariant: nothing here knows what the text means.
//!
//! Modules: `span` (places in texts), `cursor` (one validating pass), `number` (whole numbers in any
//! notation), `tree` (the slow form that schemas are checked on).

mod cursor;
mod number;
mod span;
mod tree;

pub(crate) use cursor::{Cursor, Fault, Field, Kind, What, unescape};
pub(crate) use number::{Whole, whole};
pub(crate) use span::{Place, Span, TEXT_BYTES_MAX, Texts};
pub(crate) use tree::tree;
