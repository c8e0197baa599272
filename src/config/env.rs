//! Environment variables: which one sets which key. Invariant: a name that begins with `DAISI_` is a key, a
//! variable of the old service, set by Kubernetes, or an error. Sources: contracts cdc.md §10 and ingest.md §8;
//! Kubernetes documentation, "Services", environment variables.

use super::keys::KEYS;

/// What a bare number of the old service counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Minutes.
    Minutes,
    /// Days.
    Days,
}

impl Unit {
    /// As a duration is written here.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Minutes => "m",
            Self::Days => "d",
        }
    }

    /// For people.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Minutes => "minutes",
            Self::Days => "days",
        }
    }
}

/// What a variable of the service daisi replaces means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The value of that key.
    Key(&'static str),
    /// The value of that key; `0` stands for its default.
    KeyZeroDefault(&'static str),
    /// The value of that key, in this unit.
    KeyIn(&'static str, Unit),
    /// A port: daisi listens on loopback there.
    MetricsPort,
    /// Nothing any more, for this reason.
    Obsolete(&'static str),
}

/// A variable of the service daisi replaces.
#[derive(Clone, Copy, Debug)]
pub struct Legacy {
    /// Bare name; contract §10 rows are known as `DAISI_CDC_<name>` too.
    pub name: &'static str,
    /// What it means here.
    pub meaning: Meaning,
}

const fn legacy(name: &'static str, meaning: Meaning) -> Legacy {
    Legacy { name, meaning }
}

const CONSUMER: Meaning = Meaning::Obsolete(
    "one consumer a stream takes the place of one a company; see `ingest.consumer`",
);
const SUBJECTS: Meaning = Meaning::Obsolete("the ten subjects are those of the contract");
const RETRIES: Meaning = Meaning::Obsolete(
    "no delivery is spent on an outage, and an event that is wrong is dead-lettered at once",
);
const MIGRATION: Meaning = Meaning::Obsolete("a company's schema is always made on first sight");
const POOL: Meaning = Meaning::Obsolete("shards take the place of the worker pool; see `shards`");

/// All of them; where several set one key, the later one wins.
pub const LEGACY: &[Legacy] = &[
    legacy("NATS_URL", Meaning::Key("nats.servers")),
    legacy("REDIS_ADDR", Meaning::Key("redis.url")),
    legacy("REDIS_ADDRESS", Meaning::Key("redis.url")),
    legacy("REDIS_URL", Meaning::Key("redis.url")),
    legacy("POSTGRES_DSN", Meaning::Key("postgres.dsn")),
    legacy("COMPANY_ID", Meaning::Key("companies")),
    legacy("LOG_LEVEL", Meaning::Key("log.level")),
    legacy("DEDUP_TTL", Meaning::Key("cdc.dedup_ttl")),
    legacy("JS_CDC_STREAM_NAME", Meaning::Key("cdc.stream")),
    legacy("JS_CDC_STREAM_SUBJECTS", Meaning::Key("cdc.subjects")),
    legacy("JS_CDC_CONSUMER_GROUP", Meaning::Key("cdc.consumer")),
    legacy("JS_WA_STREAM_NAME", Meaning::Key("cdc.output_stream")),
    legacy("JS_WEBSOCKET_STREAM_NAME", Meaning::Key("cdc.output_stream")),
    legacy("JS_WA_STREAM_SUBJECTS", Meaning::Key("cdc.output_subjects")),
    legacy("JS_WEBSOCKET_STREAM_SUBJECTS", Meaning::Key("cdc.output_subjects")),
    legacy("JS_ACK_WAIT", Meaning::KeyZeroDefault("cdc.ack_wait")),
    legacy("JS_MAX_DELIVER", Meaning::KeyZeroDefault("cdc.retry_attempts")),
    legacy("JS_MAX_ACK_PENDING", Meaning::KeyZeroDefault("cdc.max_ack_pending")),
    legacy("DATABASE_POSTGRESDSN", Meaning::Key("postgres.dsn")),
    legacy("LOGLEVEL", Meaning::Key("log.level")),
    legacy("SERVER_PORT", Meaning::MetricsPort),
    legacy("NATS_REALTIME_STREAM", Meaning::Key("ingest.stream")),
    legacy("NATS_HISTORICAL_STREAM", Meaning::Key("ingest.history_stream")),
    legacy("NATS_DLQSTREAM", Meaning::Key("cdc.dlq_stream")),
    legacy("NATS_DLQSUBJECT", Meaning::Key("cdc.dlq_subject")),
    legacy("NATS_DLQBASEDELAYMINUTES", Meaning::KeyIn("dlq.retry_delay_min", Unit::Minutes)),
    legacy("NATS_DLQMAXDELAYMINUTES", Meaning::KeyIn("dlq.retry_delay_max", Unit::Minutes)),
    legacy("NATS_DLQACKWAIT", Meaning::Key("dlq.ack_wait")),
    legacy("NATS_DLQMAXACKPENDING", Meaning::Key("dlq.max_ack_pending")),
    legacy("NATS_DLQWORKERS", POOL),
    legacy("NATS_REALTIME_CONSUMER", CONSUMER),
    legacy("NATS_HISTORICAL_CONSUMER", CONSUMER),
    legacy("NATS_REALTIME_GROUP", CONSUMER),
    legacy("NATS_HISTORICAL_GROUP", CONSUMER),
    legacy("NATS_REALTIME_MAXAGE", Meaning::KeyIn("ingest.stream_max_age", Unit::Days)),
    legacy("NATS_HISTORICAL_MAXAGE", Meaning::KeyIn("ingest.history_max_age", Unit::Days)),
    legacy("NATS_REALTIME_SUBJECTLIST", SUBJECTS),
    legacy("NATS_HISTORICAL_SUBJECTLIST", SUBJECTS),
    legacy("NATS_REALTIME_MAXDELIVER", RETRIES),
    legacy("NATS_HISTORICAL_MAXDELIVER", RETRIES),
    legacy("NATS_REALTIME_NAKBASEDELAY", RETRIES),
    legacy("NATS_REALTIME_NAKMAXDELAY", RETRIES),
    legacy("NATS_HISTORICAL_NAKBASEDELAY", RETRIES),
    legacy("NATS_HISTORICAL_NAKMAXDELAY", RETRIES),
    legacy("DATABASE_POSTGRESAUTOMIGRATE", MIGRATION),
    legacy("OTEL_EXPORTER_OTLP_ENDPOINT", Meaning::Key("telemetry.otlp_endpoint")),
    legacy("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Meaning::Key("telemetry.otlp_endpoint")),
    legacy("OTEL_EXPORTER_OTLP_HEADERS", Meaning::Key("telemetry.otlp_headers")),
    legacy("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Meaning::Key("telemetry.otlp_headers")),
    legacy("OTEL_TRACES_SAMPLER_ARG", Meaning::Key("telemetry.sample_ratio")),
    legacy("OTEL_SERVICE_NAME", Meaning::Key("telemetry.service_name")),
    legacy("WORKERS", POOL),
    legacy("WORKERS_MULTIPLIER", POOL),
    legacy("MIN_WORKERS", POOL),
    legacy("METRICS_PORT", Meaning::MetricsPort),
    legacy(
        "PANIC_GUARD_FAILURE_THRESHOLD_DURATION",
        Meaning::Obsolete(
            "a process that makes no progress is not ready; see `control.stall_after`",
        ),
    ),
];

/// Prefix that documents of the old service put before its variables.
pub const LEGACY_PREFIX: &str = "DAISI_CDC_";

/// Names that begin with `DAISI_` and are no keys: the command line's own, and those of tests and tools.
pub const RESERVED: &[&str] = &[
    "DAISI_CONFIG",
    "DAISI_FAULT",
    "DAISI_SLOW",
    "DAISI_BLESS",
    "DAISI_SEED",
    "DAISI_NATS_SERVER",
    "DAISI_REDIS_SERVER",
    "DAISI_POSTGRES_SERVER",
    "DAISI_POSTGRES",
    "DAISI_INITDB",
];

/// What one variable of the environment is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sets the key of that index by its canonical name.
    Key(usize),
    /// A variable of the old service: its place in [`LEGACY`], and whether it bears the prefix.
    Legacy {
        /// Index into [`LEGACY`].
        index: usize,
        /// `DAISI_CDC_` stands before it: more specific than the bare name.
        prefixed: bool,
    },
    /// Ours by prefix, but unknown.
    Unknown,
    /// Not ours.
    Foreign,
}

/// Tells what the variable is. Its value decides only for `..._PORT`, which Kubernetes fills with an address.
#[must_use]
pub fn role(name: &str, value: &str) -> Role {
    if let Some(index) = LEGACY.iter().position(|legacy| legacy.name == name) {
        return Role::Legacy { index, prefixed: false };
    }
    let Some(tail) = name.strip_prefix("DAISI_") else { return Role::Foreign };
    let path = tail.replace("__", ".").to_ascii_lowercase();
    if let Some(index) = KEYS.iter().position(|key| key.path == path) {
        return Role::Key(index);
    }
    let bare = name.strip_prefix(LEGACY_PREFIX);
    if let Some(index) = bare.and_then(|bare| LEGACY.iter().position(|old| old.name == bare)) {
        return Role::Legacy { index, prefixed: true };
    }
    let ignored = RESERVED.contains(&name) || is_service_link(name, value);
    if ignored { Role::Foreign } else { Role::Unknown }
}

/// Kubernetes sets these in every pod for a service called `daisi` or `daisi-...`.
fn is_service_link(name: &str, value: &str) -> bool {
    let address = value.contains("://");
    let protocol = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && address)
        || (name.contains("_PORT_") && protocol)
}

/// Every name that could have been meant, for the remedy of an unknown one.
pub fn known_names() -> impl Iterator<Item = String> {
    let canonical = KEYS.iter().map(super::keys::Key::env_name);
    canonical.chain(LEGACY.iter().map(|legacy| format!("{LEGACY_PREFIX}{}", legacy.name)))
}

/// Names of the old service that set the key of that path, bare.
pub fn legacy_names(path: &str) -> impl Iterator<Item = &'static str> {
    LEGACY.iter().filter(move |legacy| sets(legacy.meaning, path)).map(|legacy| legacy.name)
}

fn sets(meaning: Meaning, path: &str) -> bool {
    match meaning {
        Meaning::Key(key) | Meaning::KeyZeroDefault(key) | Meaning::KeyIn(key, _) => key == path,
        Meaning::MetricsPort => path == "control.listen",
        Meaning::Obsolete(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_name_is_told_apart() {
        assert!(matches!(role("DAISI_CONTROL__LISTEN", ""), Role::Key(_)));
        assert!(matches!(role("DAISI_SHARDS", ""), Role::Key(_)));
        assert!(matches!(role("NATS_URL", ""), Role::Legacy { prefixed: false, .. }));
        assert!(matches!(
            role("DAISI_CDC_METRICS_PORT", "8080"),
            Role::Legacy { prefixed: true, .. }
        ));
        assert_eq!(role("DAISI_CDC_METRIC_PORT", "8080"), Role::Unknown);
        assert_eq!(role("DAISI_CONTROL_LISTEN", "x"), Role::Unknown);
        assert_eq!(role("HOME", "/"), Role::Foreign);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_called_daisi_is_not_ours() {
        for (name, value) in [
            ("DAISI_SERVICE_HOST", "10.0.0.1"),
            ("DAISI_SERVICE_PORT", "9464"),
            ("DAISI_CDC_SERVICE_PORT_METRICS", "9464"),
            ("DAISI_PORT", "tcp://10.0.0.1:9464"),
            ("DAISI_CDC_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ] {
            assert_eq!(role(name, value), Role::Foreign, "{name}");
        }
    }

    #[test]
    fn every_old_variable_names_a_key_that_exists() {
        for old in LEGACY {
            if let Meaning::Key(path) | Meaning::KeyZeroDefault(path) | Meaning::KeyIn(path, _) =
                old.meaning
            {
                assert!(super::super::keys::find(path).is_some(), "{}", old.name);
            }
        }
    }
}
