//! Local stack, event generators, open-loop sender and checker.
//! Modules from bottom to top: `stack` (private servers), `host` (processes and machine), `client` (blocking NATS),
//! `meter` (counters), `generate` (events from a seed), `contract` (what an event's bytes demand), `send` (planned
//! times), `check` (what came out), `report`, `results` (what a run leaves behind), `ends` (where effects are seen),
//! `profile` (named workloads), `run` (one stage, for tests), `bed` (servers and daisi), `drive` (all of it), `load`
//! (events alone, as a command), `trace` (recorded events, and these sent again).

pub mod bed;
pub mod check;
pub mod client;
pub mod contract;
pub mod drive;
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
pub mod trace;
