//! Faults planted on purpose, to show that the simulation finds such. Only with the feature `sabotage`; a
//! release has no trace of it. Each switch is set by one test and read at one place of the CDC stage.

use std::sync::atomic::AtomicBool;

/// An event that somebody has claimed is skipped, as the old service did: contract cdc.md section 7.
pub static SKIP_ON_CLAIM: AtomicBool = AtomicBool::new(false);

/// An event counts as done once it is sent, before its PubAck.
pub static DONE_AT_SEND: AtomicBool = AtomicBool::new(false);
