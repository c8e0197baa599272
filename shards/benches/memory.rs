//! How much memory does a shard's pipeline hold with 10,000 companies and 1,000,000 ids in its window?
//! Exits with 1 when that is more than 256 MiB, the process's own parts included.

#[expect(dead_code, reason = "nothing is timed here")]
mod measure;
mod script;

use script::Script;
use std::process::ExitCode;

const EVENTS: u64 = 1_000_000;
const COMPANIES: u64 = 10_000;
const BATCH: u64 = 200;
const RESIDENT_MAX_MIB: f64 = 256.0;

fn main() -> ExitCode {
    let before = resident_mib();
    let mut script = Script::new(COMPANIES, 1_000_000);
    let started = resident_mib();
    (0..EVENTS / BATCH).for_each(|_| script.batch(BATCH));
    let full = resident_mib();
    println!(
        "memory: {before:.1} MiB at start, {started:.1} MiB with an empty pipeline, {full:.1} MiB after \
         {} events of {COMPANIES} companies, all ids in the window; at most {RESIDENT_MAX_MIB} MiB; \
         output hash {:016x}",
        script.acked,
        script.output_hash()
    );
    if full <= RESIDENT_MAX_MIB { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// `VmRSS` of this process.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
