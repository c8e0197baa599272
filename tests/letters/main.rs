//! The operator's commands `dlq` and `exhausted`: the built binary against a real NATS and a real PostgreSQL.
//! Letters are written by daisi's own writer, and what was sent again is read back byte for byte.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod dlq;
mod exhausted;
mod interrupt;
mod manual;
mod rights;
mod world;
