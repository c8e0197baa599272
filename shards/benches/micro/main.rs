//! The parts of a shard alone: one question a module, asked of it by the clock, by a counter of allocations, or
//! under valgrind. One program, because each one is optimised as a whole, which takes its time.
//!
//! `cargo bench -p daisi-shards --bench micro [-- [NAME...] [--json] [--counts|--instructions]]`

mod cdc;
mod decode;
mod dedup;
mod encode;
mod events;
mod ingest_batch;
mod ingest_decode;
mod ingest_pipeline;
#[path = "../measure/mod.rs"]
mod measure;
mod pipeline;
#[path = "../script/mod.rs"]
mod script;

use measure::Bench;

const BENCHES: [Bench; 8] = [
    ("decode", decode::run),
    ("cdc", cdc::run),
    ("dedup", dedup::run),
    ("encode", encode::run),
    ("pipeline", pipeline::run),
    ("ingest_decode", ingest_decode::run),
    ("ingest_batch", ingest_batch::run),
    ("ingest_pipeline", ingest_pipeline::run),
];

fn main() {
    measure::main(&BENCHES);
}
