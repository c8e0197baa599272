//! Local stack, event generators, open-loop sender and checker.
//! Modules from bottom to top: `stack` (private servers), `host` (processes and machine), `client` (blocking NATS),
//! `meter` (counters), `generate` (events from a seed), `send` (planned times), `check` (what came out), `report`,
//! `results` (what a run leaves behind), `run` (all of it), `load` (events alone, as a command).

pub mod check;
pub mod client;
pub mod contract;
pub mod ends;
pub mod generate;
pub mod host;
pub mod load;
pub mod meter;
pub mod profile;
pub mod report;
pub mod results;
pub mod run;
pub mod send;
pub mod stack;
