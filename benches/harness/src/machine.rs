//! On what a result was measured: the machine, and the servers of this run.

use loadtest::host;
use serde::Serialize;

/// Facts kept beside the figures.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    unix_s: u64,
    #[serde(flatten)]
    host: host::Machine,
    nats_server: String,
    /// Redis, or PostgreSQL in the ingest job.
    store: String,
}

impl Machine {
    /// Looks once, at the start of a run.
    pub(crate) fn look(nats_server: String, store: String) -> Self {
        let unix_s = host::unix_ms() / 1000;
        Self { unix_s, host: host::Machine::look(), nats_server, store }
    }
}
