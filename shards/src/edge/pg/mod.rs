//! PostgreSQL: schemas of companies, and rows written in batches. Async over `tokio_postgres::Client`; the
//! connection under it is the caller's.

mod cache;
pub mod chores;
pub mod connect;
pub mod exhausted;
pub mod lane;
pub mod migrate;
pub mod months;
pub mod param;
mod stream;
pub mod write;

pub use stream::{PgTls, Secured};
use tokio_postgres::Error;

/// The error with its cause; the crate's own text is one word ("db error"). Neither holds values.
#[must_use]
pub fn describe(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
