//! The sections of the file, and what each is about. Invariant: each has keys, and each key one of them.

/// What each section is about, in the order of the file.
pub const SECTIONS: &[(&str, &str)] = &[
    ("", "What this process does, and on which cores."),
    ("nats", "NATS servers with JetStream: where events come from and go to."),
    (
        "nats.tls",
        "TLS towards NATS. Used when an address says tls://, when the server demands it, or when a file is named here.",
    ),
    ("redis", "Redis: remembers which events were published."),
    ("redis.tls", "TLS towards Redis, used when the address says rediss://."),
    (
        "postgres",
        "PostgreSQL: where the ingest stage writes, and where `daisi doctor` looks for the source of the change events.",
    ),
    ("cdc", "The stage that turns row changes into events for browsers."),
    (
        "ingest",
        "The stage that turns chat events into rows of PostgreSQL. Its dead letters go where those of cdc go.",
    ),
    (
        "dlq",
        "The stage that tries dead letters of chat events again. It needs the ingest stage beside it.",
    ),
    ("lease", "Who reads a partition, when several replicas run."),
    ("control", "The control thread: metrics, health, shutdown."),
    ("metrics", "What `/metrics` shows beyond the fixed set."),
    ("log", "Log lines on standard error."),
    (
        "telemetry",
        "Spans of events to an OpenTelemetry collector. Trace headers are passed on without it too.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{KEYS, Key};
    use super::*;

    #[test]
    fn paths_are_unique_and_every_section_is_described() {
        let paths: HashSet<&str> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        let described: HashSet<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        let used: HashSet<&str> = KEYS.iter().map(Key::section).collect();
        assert_eq!(described, used);
    }
}
