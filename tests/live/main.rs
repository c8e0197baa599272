//! Live tests: the built binary against real NATS and Redis servers, each test on servers of its own.
//! A test's name is the claim it proves. Claims about NATS are held on the installed server, and on the
//! one that `DAISI_NATS_SERVER_NEWER` (or `.daisi/bin/nats-server`) names; a skip is said aloud.
//! Source of the claims: contract cdc.md (section 13 lists what must hold) and DESIGN.md sections 3 to 5.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    unreachable_pub,
    missing_docs,
    reason = "tests: what cannot be had must fail them"
)]

#[macro_use]
mod world;
mod change;
mod daisi;
mod letters;
mod metrics;
mod traffic;

mod contract;
mod crash;
mod defects;
mod drain;
mod hostile;
mod ingest;
mod outage;
mod partitions;
mod replicas;
mod scale;
mod security;
mod streams;
mod trace;
