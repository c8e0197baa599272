//! The process: all that exists once, in reading order. Arguments become a `Config`, that becomes a `Plan`,
//! and only the plan is handed on. Invariant: nothing here does work per event; that is what shards are for.
#![cfg_attr(test, allow(clippy::expect_used, clippy::unwrap_used, clippy::cast_possible_wrap))]

pub mod host;

pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
mod dial;
pub mod dlq;
pub mod doctor;
pub mod exhausted;
pub mod letter;
pub mod load;
pub mod migrate;
mod nats;
pub mod process;
mod replay;
pub mod schemas;
pub mod telemetry;
pub mod tls;
pub mod tune;
mod work;
