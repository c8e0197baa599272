//! PostgreSQL: schemas of companies, and rows written in batches. Async over `tokio_postgres::Client`; the
//! connection under it is the caller's.

mod cache;
pub mod migrate;
mod param;
pub mod write;
