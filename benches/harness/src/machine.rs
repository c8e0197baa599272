//! On what a result was measured: without it a figure means nothing next week.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// Facts kept beside the figures.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    unix_s: u64,
    cpu: String,
    cores: usize,
    kernel: String,
    nats_server: String,
    /// Redis, or PostgreSQL in the ingest job.
    store: String,
    /// One-minute load when the run began: above 0.5 somebody else is at work.
    load_at_start: String,
}

impl Machine {
    /// Looks once, at the start of a run. What cannot be read is `unknown`, which is no reason to stop.
    pub(crate) fn look(nats_server: String, store: String) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
        Self {
            unix_s: unix_s(),
            cpu: cpu.unwrap_or("unknown").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            nats_server,
            store,
            load_at_start: load(),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// One-minute load average.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}
