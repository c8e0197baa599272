//! Local stack, event generator, open-loop sender and checker.
//! Modules from bottom to top: `stack` (private servers), `client` (blocking NATS), `generate`
//! (events from a seed), `send` (planned times), `check` (what came out), `report`, `run` (all of it).

pub mod check;
pub mod client;
pub mod generate;
pub mod report;
pub mod run;
pub mod send;
pub mod stack;
