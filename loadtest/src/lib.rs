//! Local stack, event generators, open-loop sender and checker.
//! Modules from bottom to top: `stack` (private servers), `client` (blocking NATS), `meter` (counters),
//! `generate` (events from a seed), `send` (planned times), `check` (what came out), `report`, `run` (all
//! of it), `load` (events alone, as a command), `trace` (recorded events, and these sent again).

pub mod check;
pub mod client;
pub mod generate;
pub mod load;
pub mod meter;
pub mod report;
pub mod results;
pub mod run;
pub mod send;
pub mod stack;
pub mod trace;
