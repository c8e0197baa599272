//! What is written to PostgreSQL, against a real one: schemas of companies, and rows written in batches. Rows
//! are read back by a client that knows nothing of daisi.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod bench;
mod connect;
mod contacts;
mod exhausted;
mod growth;
mod make;
mod messages;
mod migrations;
mod naming;
mod trouble;
mod world;
