//! What runs on one core of daisi. Modules from bottom to top: vocabulary (`id`, `clock`, `columns`,
//! `metrics`), `wire` (codecs and protocol state, no IO), `domain` (rules, no IO), `pipeline`
//! (inputs in, effects out, no IO), and with the feature `runtime` the `edge` that owns sockets.
//! Imports point down this list only; `tests/layers.rs` holds that.
#![cfg_attr(test, allow(clippy::expect_used, clippy::unwrap_used))]

pub mod clock;
pub mod columns;
pub mod domain;
pub mod fault;
pub mod id;
pub mod metrics;
pub mod pipeline;
#[cfg(feature = "sabotage")]
pub mod sabotage;
#[cfg(feature = "slow")]
pub mod slow;
pub mod wire;

#[cfg(feature = "runtime")]
pub mod edge;
#[cfg(feature = "runtime")]
pub mod pool;
#[cfg(feature = "runtime")]
pub mod shard;
