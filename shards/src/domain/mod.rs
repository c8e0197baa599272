//! Rules of the product on plain values: no sockets, no clocks, no async, and no wire formats of a
//! server. Time and chance come as arguments.

pub mod cdc;
pub mod ingest;
pub(crate) mod json;
pub mod progress;
pub mod retry;
pub mod window;
