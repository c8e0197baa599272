//! The one table of configuration keys: path, kind and bounds, default, meaning, reason. Everything else
//! (`default.toml`, `docs/configuration.md`, environment names, `config show`) is made from it.
//! Invariant: paths are unique and in the order of the file; every default satisfies its own kind.

mod sections;

pub use sections::SECTIONS;

use super::rules;
use super::value::{Kind, Raw, Value};

/// How a value is shown to people and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// As it is.
    Open,
    /// Only whether it is set.
    Secret,
    /// As it is, but the user-info part of an address keeps its password to itself.
    Url,
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands in the file: `section.name`, or `name` at the top.
    pub path: &'static str,
    /// Shape and bounds.
    pub kind: Kind,
    /// Default, as TOML; `None` for an optional key.
    pub default: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
    /// Why the default is what it is.
    pub why: &'static str,
    /// How its value is shown.
    pub mask: Mask,
}

impl Key {
    /// The environment variable that sets this key.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("DAISI_{}", self.path.replace('.', "__").to_ascii_uppercase())
    }

    /// Section it stands in; empty at the top of the file.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name inside its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The default as a raw value; `None` for an optional key.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "defaults are constants of this file; a test parses each"
    )]
    pub fn default_raw(&self) -> Option<Raw> {
        let text = self.default?;
        let value = toml::de::DeValue::parse(text).expect("a default is valid TOML");
        Some(Raw::from_toml(value.get_ref()))
    }

    /// The default as a checked value.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "defaults are constants of this file; a test parses each"
    )]
    pub fn default_value(&self) -> Value {
        self.default_raw().map_or(Value::Unset, |raw| {
            self.kind.read(&raw).expect("a default satisfies its own kind")
        })
    }

    const fn secret(mut self) -> Self {
        self.mask = Mask::Secret;
        self
    }

    const fn url(mut self) -> Self {
        self.mask = Mask::Url;
        self
    }
}

/// The key of that path.
#[must_use]
pub fn find(path: &str) -> Option<(usize, &'static Key)> {
    KEYS.iter().enumerate().find(|(_, key)| key.path == path)
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
    why: &'static str,
) -> Key {
    Key { path, kind, default: Some(default), doc, why, mask: Mask::Open }
}

const fn optional(path: &'static str, kind: Kind, doc: &'static str, why: &'static str) -> Key {
    Key { path, kind, default: None, doc, why, mask: Mask::Open }
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const TEXT: Kind = Kind::Text(rules::some);
const NAME: Kind = Kind::Text(rules::name);
/// Shards and cores in one process: above what one machine has today, and small enough for fixed tables.
const CORES_MAX: u64 = 1024;

/// Every key there is.
pub const KEYS: &[Key] = &[
    key(
        "stages",
        Kind::Texts { rule: rules::name, min: 1, max: 8 },
        r#"["cdc"]"#,
        "Stages that run in this process.",
        "What runs without PostgreSQL; add \"ingest\" where postgres.dsn is set. Another name is refused, not ignored.",
    ),
    key(
        "shards",
        Kind::CountOrAuto { min: 1, max: CORES_MAX },
        r#""auto""#,
        "Shards, each on a core of its own. auto: physical cores this process may use, less one, at least 1.",
        "One core stays for the control thread and the kernel's own work; two shards on one physical core share its units.",
    ),
    key(
        "cores",
        Kind::Counts { items_max: 1024, max: 4095 },
        "[]",
        "CPU numbers to pin the shards to, one a shard. Empty: chosen from those this process may use, one a physical core first.",
        "The scheduler's own mask already says what this process may use.",
    ),
    key(
        "spin_before_park",
        duration(0, 20),
        r#""0s""#,
        "Time a shard with nothing to do looks for work before it sleeps. It takes its core's time for it: set it where the core is the shard's alone.",
        "Sleep costs nothing; to wake takes some 10 us. A shard wakes every 20 ms, so an idle one spends a share of spin/20 ms; at 20 ms it never sleeps.",
    ),
    key(
        "companies",
        Kind::Texts { rule: rules::company, min: 0, max: 10_000 },
        "[]",
        "Companies whose events are taken; events of others are counted as filtered. Empty: all.",
        "One deployment serves every company.",
    ),
    key(
        "nats.servers",
        Kind::Texts { rule: rules::nats_url, min: 1, max: 16 },
        r#"["nats://127.0.0.1:4222"]"#,
        "Addresses of NATS servers, `[nats://|tls://][user:password@]host[:port]`; tried in turn.",
        "The port a NATS server has by default, on this machine.",
    )
    .url(),
    optional("nats.user", TEXT, "User name.", "A server without users needs none."),
    optional(
        "nats.password",
        TEXT,
        "Password of the user. Prefer password_file or the environment.",
        "No secret has a default.",
    )
    .secret(),
    optional(
        "nats.password_file",
        TEXT,
        "File that holds the password; a final line break is dropped.",
        "No secret has a default.",
    ),
    optional(
        "nats.token",
        TEXT,
        "Token, in place of user and password.",
        "No secret has a default.",
    )
    .secret(),
    optional("nats.token_file", TEXT, "File that holds the token.", "No secret has a default."),
    optional(
        "nats.nkey_seed_file",
        TEXT,
        "File that holds an NKey seed (`SU...`).",
        "No secret has a default.",
    ),
    optional(
        "nats.credentials_file",
        TEXT,
        "Credentials file with a user JWT and its seed (`.creds`).",
        "No secret has a default.",
    ),
    key(
        "nats.connect_timeout",
        duration(100, MINUTE),
        r#""5s""#,
        "Time from the first packet to a connection that is ready: TCP, TLS, authentication, PONG.",
        "A server that accepts and then stays silent must not hold a shard; 5 s rides out a slow TLS handshake.",
    ),
    key(
        "nats.ping_interval",
        duration(SECOND, 5 * MINUTE),
        r#""10s""#,
        "Silence after which the server is asked whether it still lives; two unanswered pings end the connection.",
        "A dead peer is noticed within 30 s, the time after which its events come again.",
    ),
    key(
        "nats.request_timeout",
        duration(500, MINUTE),
        r#""5s""#,
        "Time allowed for one answer of the JetStream API.",
        "An overloaded server drops requests without an answer, so each has a deadline and is repeated.",
    ),
    key(
        "nats.frame_max",
        Kind::Size { min: MIB, max: 256 * MIB },
        r#""16MiB""#,
        "Largest message taken from the server.",
        "API answers may exceed the server's max_payload: one with 60,000 subjects had 2.5 MB.",
    ),
    key(
        "nats.stream_replicas",
        count(1, 5),
        "1",
        "Replicas of streams and buckets that daisi creates.",
        "A single server takes no more; set 3 on a cluster.",
    ),
    optional(
        "nats.tls.ca_file",
        TEXT,
        "PEM file with the certificate authorities to trust, in place of the system's.",
        "The system's list is right for public certificates.",
    ),
    optional(
        "nats.tls.cert_file",
        TEXT,
        "PEM file with the client certificate.",
        "Only servers that verify clients need it.",
    ),
    optional(
        "nats.tls.key_file",
        TEXT,
        "PEM file with the key of the client certificate.",
        "Only servers that verify clients need it.",
    ),
    key(
        "nats.tls.first",
        Kind::Flag,
        "false",
        "Begin TLS before the server's INFO (`handshake_first`, NATS 2.10.4).",
        "Servers do the opposite unless told otherwise.",
    ),
    key(
        "redis.url",
        Kind::Text(rules::redis_url),
        r#""redis://127.0.0.1:6379""#,
        "Address of Redis, `[redis://|rediss://][user:password@]host[:port][/db]`.",
        "The port Redis has by default, on this machine.",
    )
    .url(),
    optional("redis.username", TEXT, "ACL user.", "Redis without ACLs needs none."),
    optional(
        "redis.password",
        TEXT,
        "Password. Prefer password_file or the environment.",
        "No secret has a default.",
    )
    .secret(),
    optional(
        "redis.password_file",
        TEXT,
        "File that holds the password; a final line break is dropped.",
        "No secret has a default.",
    ),
    key(
        "redis.connect_timeout",
        duration(100, MINUTE),
        r#""5s""#,
        "Time from the first packet to a connection that answers.",
        "As for NATS.",
    ),
    key(
        "redis.command_timeout",
        duration(50, MINUTE),
        r#""2s""#,
        "Time allowed for one batch of commands; then the connection is taken for dead.",
        "A thousand times what a batch takes on a healthy server, a fraction of ack_wait.",
    ),
    optional(
        "redis.tls.ca_file",
        TEXT,
        "PEM file with the certificate authorities to trust, in place of the system's.",
        "The system's list is right for public certificates.",
    ),
    optional(
        "postgres.dsn",
        TEXT,
        "Connection string, `postgres://user:password@host/db` or `host=... user=...`.",
        "The ingest stage needs it; the cdc stage needs no database.",
    )
    .secret(),
    key(
        "postgres.connect_timeout",
        duration(100, MINUTE),
        r#""5s""#,
        "Time from the first packet to a connection that is ready, for each address.",
        "As for NATS.",
    ),
    key(
        "cdc.stream",
        NAME,
        r#""cdc_events_stream""#,
        "Stream the change events are read from; created if absent, missing subjects are added.",
        "The name the service of today uses.",
    ),
    key(
        "cdc.subjects",
        Kind::Texts { rule: rules::source_subject, min: 1, max: 16 },
        r#"["cdc.*.*"]"#,
        "Subjects of that stream, or the presets `sequin` (sequin.*.*.*.*) and `sequin-legacy` (sequin.changes.*.*.*.*).",
        "The capture stage and routed Sequin sinks publish cdc.<company>.<table>.",
    ),
    key(
        "cdc.consumer",
        NAME,
        r#""cdc_consumers""#,
        "Durable consumer; with several partitions their number is added to it.",
        "The name the service of today uses, so that its position is taken over.",
    ),
    key(
        "cdc.stream_max_age",
        duration(HOUR, 365 * DAY),
        r#""7d""#,
        "Age limit of the source stream if daisi creates it.",
        "A week of events can be replayed after a mistake.",
    ),
    key(
        "cdc.stream_max_bytes",
        Kind::Size { min: 16 * MIB, max: 1024 * TIB },
        r#""100GiB""#,
        "Size limit of the source stream if daisi creates it.",
        "A stream without a limit fills the disk.",
    ),
    key(
        "cdc.partitions",
        count(1, 256),
        "1",
        "Parts the source stream is split into, each with one reader at a time; above 1 NATS 2.10 is needed.",
        "One reader feeds all shards of a process; more are for several replicas.",
    ),
    key(
        "cdc.tables",
        Kind::Texts { rule: rules::table, min: 1, max: 64 },
        r#"["messages", "chats", "agents", "contacts"]"#,
        "Tables whose changes are published; partitions such as messages_y2025m06 count as their table. Others are filtered.",
        "The tables browsers know.",
    ),
    key(
        "cdc.envelope",
        Kind::Choice(&["auto", "sequin", "debezium"]),
        r#""auto""#,
        "Shape of the change events.",
        "The two shapes cannot be mistaken for each other; fix one to refuse the other.",
    ),
    key(
        "cdc.forward_backfill",
        Kind::Flag,
        "false",
        "Publish rows of a backfill (`read`) too, marked as such.",
        "A backfill is not a change: browsers would see old rows as news.",
    ),
    key(
        "cdc.output_stream",
        NAME,
        r#""wa_stream""#,
        "Stream created for the published events if none captures their subjects.",
        "The name the service of today uses.",
    ),
    key(
        "cdc.output_prefixes",
        Kind::Texts { rule: rules::subject_prefix, min: 1, max: 2 },
        r#"["wa"]"#,
        "First tokens of the published subjects; two of them during a migration, each event is then published twice.",
        "The contract's prefix; `websocket` is what later versions of the old service used.",
    ),
    key(
        "cdc.output_subjects",
        Kind::Texts { rule: rules::subject_pattern, min: 0, max: 16 },
        "[]",
        "Subjects of the output stream if daisi creates it. Empty: `<prefix>.>` for each prefix.",
        "Whatever is published must be captured.",
    ),
    key(
        "cdc.output_max_age",
        duration(MINUTE, 365 * DAY),
        r#""24h""#,
        "Age limit of the output stream if daisi creates it.",
        "Browsers that were away longer read the database.",
    ),
    key(
        "cdc.output_max_bytes",
        Kind::Size { min: 16 * MIB, max: 1024 * TIB },
        r#""10GiB""#,
        "Size limit of the output stream if daisi creates it.",
        "Some ten million events; a stream without a limit fills the disk.",
    ),
    key(
        "cdc.output_duplicate_window",
        duration(SECOND, DAY),
        r#""2m""#,
        "Time in which the output stream itself drops a second copy, if daisi creates it.",
        "The server's own default; Redis remembers longer.",
    ),
    key(
        "cdc.dedup_ttl",
        duration(SECOND, 7 * DAY),
        r#""300s""#,
        "How long Redis remembers that an event was published. Not shorter than ack_wait.",
        "Ten times ack_wait: longer than a redelivery takes, short enough for 100 MiB at 3,000 events/s.",
    ),
    key(
        "cdc.dedup_required",
        Kind::Flag,
        "true",
        "While Redis is away: true pauses, false goes on, guarded by the output stream's duplicate window alone.",
        "No duplicates before no delay.",
    ),
    key(
        "cdc.dedup_lru",
        count(0, 50_000_000),
        "1000000",
        "Published events each shard remembers in memory, in front of Redis. 0 turns it off.",
        "About 40 MB a shard; covers what a restart of a server redelivers.",
    ),
    key(
        "cdc.extend_stream",
        Kind::Flag,
        "false",
        "Add missing subjects to an existing source stream.",
        "What exists is the operator's: it is altered only where he says so.",
    ),
    key(
        "cdc.legacy_dedup",
        Kind::Flag,
        "false",
        "Also set the key of the old service, while one still runs beside.",
        "One more command an event, needed only during a migration.",
    ),
    key(
        "cdc.ack_wait",
        duration(SECOND, HOUR),
        r#""30s""#,
        "Time without an ack after which the server delivers an event again; also the life of a claim in Redis.",
        "As today: several times longer than a restart of NATS or Redis takes.",
    ),
    key(
        "cdc.max_ack_pending",
        count(1, 1_000_000),
        "5000",
        "Events a partition may have delivered and not acked.",
        "As today; above max_in_flight, so that the server is never what waits.",
    ),
    key(
        "cdc.max_in_flight",
        count(1, 1_000_000),
        "4096",
        "Events a shard may hold between receipt and ack. Not above max_ack_pending.",
        "Covers 40 ms at 100,000 events/s; more adds memory and waiting, not speed.",
    ),
    key(
        "cdc.max_in_flight_bytes",
        Kind::Size { min: MIB, max: 64 * GIB },
        r#""32MiB""#,
        "Bytes a shard may hold between receipt and ack.",
        "max_in_flight events of 8 KiB; bounds memory when rows are large.",
    ),
    key(
        "cdc.ack_policy",
        Kind::Choice(&["auto", "all", "explicit"]),
        r#""auto""#,
        "all: one ack stands for every event before it. explicit: each event is acked. auto: all where the stream allows it.",
        "Fewer acks are faster by half; work-queue streams allow only explicit.",
    ),
    key(
        "cdc.publish_window",
        count(1, 65_536),
        "1024",
        "Publishes a shard may have sent and not yet seen acknowledged. Not above max_in_flight.",
        "Covers 10 ms of round trip at 100,000 events/s.",
    ),
    key(
        "cdc.publish_timeout",
        duration(100, 5 * MINUTE),
        r#""5s""#,
        "Time after which an unacknowledged publish is sent again. Shorter than ack_wait.",
        "An election of a replicated stream takes up to 6 s: one resend, dropped as duplicate.",
    ),
    key(
        "cdc.retry_attempts",
        count(1, 100),
        "5",
        "Tries of one event that the server refuses, before it is dead-lettered. Trouble of a whole server is not counted.",
        "With the delays below about 3 s: longer than a hiccup, shorter than ack_wait.",
    ),
    key(
        "cdc.retry_delay_min",
        duration(1, MINUTE),
        r#""100ms""#,
        "Delay before the second try; it doubles, with jitter, with each further one.",
        "Long enough not to hammer a server that just said no.",
    ),
    key(
        "cdc.retry_delay_max",
        duration(1, 5 * MINUTE),
        r#""2s""#,
        "Longest delay between two tries.",
        "Keeps all tries of an event well inside ack_wait.",
    ),
    key(
        "cdc.dlq_stream",
        NAME,
        r#""dlq_stream""#,
        "Stream created for dead letters if none captures their subject.",
        "One dead-letter stream for all stages.",
    ),
    key(
        "cdc.dlq_subject",
        Kind::Text(rules::subject_prefix),
        r#""v1.dlq""#,
        "Subject of dead letters; the company is added to it.",
        "The subject retry tools listen to today.",
    ),
    key(
        "cdc.dlq_payload_max",
        Kind::Size { min: KIB, max: 64 * MIB },
        r#""512KiB""#,
        "Largest original embedded in a dead letter; of a larger one only stream and sequence are kept.",
        "Half of the server's default max_payload: base64 and the fields around it still fit.",
    ),
    key(
        "ingest.stream",
        NAME,
        r#""wa_events_stream""#,
        "Stream of the realtime events; created if absent.",
        "The name the service of today uses.",
    ),
    key(
        "ingest.consumer",
        NAME,
        r#""daisi_ingest""#,
        "Durable consumer of that stream.",
        "A name of our own: the consumers of the service of today are one a company.",
    ),
    key(
        "ingest.stream_max_age",
        duration(HOUR, 365 * DAY),
        r#""30d""#,
        "Age limit of the realtime stream if daisi creates it.",
        "As today.",
    ),
    key(
        "ingest.stream_max_bytes",
        Kind::Size { min: 16 * MIB, max: 1024 * TIB },
        r#""100GiB""#,
        "Size limit of the realtime stream if daisi creates it.",
        "A stream without a limit fills the disk.",
    ),
    key(
        "ingest.history_stream",
        NAME,
        r#""wa_history_events_stream""#,
        "Stream of the history events; created if absent, with limits retention.",
        "The name the service of today uses.",
    ),
    key(
        "ingest.history_consumer",
        NAME,
        r#""daisi_ingest_history""#,
        "Durable consumer of that stream, without a filter: where retention is by interest, it holds that of all companies.",
        "A name of our own.",
    ),
    key(
        "ingest.history_max_age",
        duration(HOUR, 365 * DAY),
        r#""30d""#,
        "Age limit of the history stream if daisi creates it.",
        "As today.",
    ),
    key(
        "ingest.history_max_bytes",
        Kind::Size { min: 16 * MIB, max: 1024 * TIB },
        r#""100GiB""#,
        "Size limit of the history stream if daisi creates it.",
        "A stream without a limit fills the disk.",
    ),
    key(
        "ingest.extend_stream",
        Kind::Flag,
        "true",
        "Add missing subjects to an existing source stream; nothing else of it is altered.",
        "The ten subjects are the contract's; a stream without one of them refuses its events.",
    ),
    key(
        "ingest.ack_wait",
        duration(SECOND, HOUR),
        r#""30s""#,
        "Time without an ack after which the server delivers an event again, if daisi creates the consumer.",
        "As today; what is held is extended, so that an outage of PostgreSQL costs no delivery.",
    ),
    key(
        "ingest.max_ack_pending",
        count(1, 1_000_000),
        "8192",
        "Events of one stream that may be delivered and not acked, if daisi creates the consumer.",
        "Above max_in_flight, so that the server is never what waits.",
    ),
    key(
        "ingest.max_in_flight",
        count(1, 1_000_000),
        "4096",
        "Events of one stream held between receipt and ack. Not above max_ack_pending.",
        "Several batches: while one is written, the next ones queue up.",
    ),
    key(
        "ingest.max_in_flight_bytes",
        Kind::Size { min: MIB, max: 64 * GIB },
        r#""32MiB""#,
        "Bytes of one stream held between receipt and ack.",
        "max_in_flight events of 8 KiB; bounds memory when events are large.",
    ),
    key(
        "ingest.rate_limit",
        count(0, 10_000_000),
        "0",
        "Events a second that one company may write, after a second's worth at once; 0 for no limit. What is above it \
         waits, in order.",
        "Companies take turns as it is. A stream is read in order, so that a company far above its limit fills \
         max_in_flight in time, and then all wait for it: a limit smooths bursts, and is no shield against a flood.",
    ),
    key(
        "ingest.batch_max",
        count(1, 10_000),
        "1000",
        "Events written in one transaction at the most; of history events about as many items.",
        "38,000 events/s from a backlog where 500 gave 36,000; larger ones hold their locks for longer.",
    ),
    key(
        "ingest.batch_max_bytes",
        Kind::Size { min: 64 * KIB, max: GIB },
        r#""4MiB""#,
        "Bytes of events written in one transaction at the most; a larger event is written alone.",
        "Bounds what one transaction costs where events are history batches of a megabyte.",
    ),
    key(
        "ingest.connections",
        count(1, 64),
        "2",
        "Connections of each shard to PostgreSQL. A company's events use one of them.",
        "While one waits for its commit, the other's batch is built and parsed.",
    ),
    key(
        "ingest.statement_timeout",
        duration(SECOND, HOUR),
        r#""30s""#,
        "Time after which PostgreSQL gives up a statement. A write that takes twice as long costs its connection.",
        "A thousand times what a batch takes; a query that hangs must not hold a company for ever.",
    ),
    key(
        "ingest.lock_timeout",
        duration(100, 10 * MINUTE),
        r#""2s""#,
        "Time after which a statement gives up waiting for a lock. Then its company waits, and others go on.",
        "Each try delays the other companies of its connection for so long.",
    ),
    key(
        "ingest.statements_max",
        count(16, 100_000),
        "1024",
        "Prepared statements a connection keeps, some seven a company.",
        "Each costs the server some ten KiB and more with its plan.",
    ),
    optional(
        "ingest.schemas",
        TEXT,
        "Folder of JSON Schemas put in place of the built-in ones, `<stream>/<event>.v<version>.json`.",
        "The built-in ones are the contract.",
    ),
    optional(
        "ingest.publication",
        TEXT,
        "Publication that the tables join when they are made, for change capture.",
        "A role that writes rows need not be allowed to publish tables; `daisi migrate --publication` does it.",
    ),
    key(
        "ingest.absent_unread",
        Kind::Choice(&["reset", "keep"]),
        r#""reset""#,
        "What a chats.update without unread_count does to the count.",
        "As today: producers leave zeros out.",
    ),
    key(
        "ingest.post_scan_delay",
        duration(SECOND, DAY),
        r#""15m""#,
        "Time from the last batch of a history to the look for contacts to onboard.",
        "As today.",
    ),
    key(
        "ingest.clock_skew",
        duration(0, MINUTE),
        r#""5s""#,
        "What the clocks of the servers may differ by, when an event's place is compared with its row's.",
        "More than clocks that are kept in step differ.",
    ),
    key(
        "dlq.consumer",
        NAME,
        r#""daisi_dlq""#,
        "Durable consumer of the dead letters, with explicit acks. All replicas share it.",
        "A name of our own: the consumer of the service of today is left alone.",
    ),
    key(
        "dlq.max_retries",
        count(1, 1_000),
        "5",
        "Tries after which a letter is given up: it becomes a row of its company's exhausted_events.",
        "As the service of today promises; five tries with these delays take 15 minutes.",
    ),
    key(
        "dlq.delete_settled",
        Kind::Flag,
        "true",
        "Delete a letter from its stream once its event is committed or it is a row of exhausted_events.",
        "What is left in the stream, and in `daisi dlq list`, is what still needs somebody.",
    ),
    key(
        "dlq.retry_delay_min",
        duration(SECOND, 24 * HOUR),
        r#""1m""#,
        "Delay after the first try that failed; it doubles after each further one.",
        "An upsert that comes late is seldom later.",
    ),
    key(
        "dlq.retry_delay_max",
        duration(SECOND, 24 * HOUR),
        r#""15m""#,
        "The largest delay between two tries. Not below retry_delay_min.",
        "Long enough for a cause to be mended, short enough to be waited for.",
    ),
    key(
        "dlq.ack_wait",
        duration(SECOND, HOUR),
        r#""30s""#,
        "Time without an ack after which the server delivers a letter again, if daisi creates the consumer.",
        "As today; what is being tried is extended.",
    ),
    key(
        "dlq.max_ack_pending",
        count(1, 1_000_000),
        "10000",
        "Letters delivered and not acked, those between two tries included, if daisi creates the consumer.",
        "When it is reached, new letters wait until older ones have had their next try.",
    ),
    key(
        "dlq.max_in_flight",
        count(1, 100_000),
        "64",
        "Letters that are being tried at once. Not above max_ack_pending.",
        "Retries leave the connections to the events that are new.",
    ),
    key(
        "lease.ttl",
        duration(3 * SECOND, MINUTE),
        r#""10s""#,
        "Time after which the partitions of a replica that died are free for the others.",
        "A bucket with three replicas cannot be written for 6 s after its leader is killed; below that every election costs all leases.",
    ),
    key(
        "lease.bucket",
        NAME,
        r#""daisi_leases""#,
        "JetStream key-value bucket that holds the leases; deployments that share a NATS account need one each.",
        "A name nobody else uses.",
    ),
    key(
        "control.listen",
        Kind::Text(rules::listen),
        r#""127.0.0.1:9464""#,
        "Address of `/metrics`, `/health`, `/ready` and `/shards`.",
        "Loopback only: these pages name companies. 9464 is the port of Prometheus exporters by custom.",
    ),
    optional(
        "control.core",
        count(0, 4095),
        "CPU the control thread is pinned to. Unset: the first one no shard has.",
        "The mask of this process decides.",
    ),
    key(
        "control.drain_deadline",
        duration(SECOND, 10 * MINUTE),
        r#""25s""#,
        "Time a clean stop may take; what is left then is delivered again after the restart.",
        "Kubernetes kills after 30 s.",
    ),
    key(
        "control.stall_after",
        duration(100, 5 * MINUTE),
        r#""2s""#,
        "A shard whose loop has not turned for so long makes the process not ready.",
        "A healthy loop turns thousands of times a second; 2 s is no hiccup of the scheduler.",
    ),
    key(
        "metrics.companies",
        count(0, 10_000),
        "0",
        "Companies that get series of their own, the busiest first; the rest is summed as `other`. 0: none.",
        "Each costs six series; their number is not ours to choose.",
    ),
    key(
        "metrics.unhandled_fields",
        Kind::Flag,
        "false",
        "Count columns that the old service did not know, by name.",
        "With today's tables eight increments a message, for nobody.",
    ),
    key(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        r#""info""#,
        "Least severe level that is logged.",
        "info has no line per event.",
    ),
    key(
        "log.format",
        Kind::Choice(&["json", "text"]),
        r#""json""#,
        "json: one object a line. text: for people.",
        "Log collectors parse it.",
    ),
    optional(
        "telemetry.otlp_endpoint",
        Kind::Text(rules::http_url),
        "Collector that takes OTLP over HTTP in protobuf, as http://collector:4318; /v1/traces is added. Unset: no spans are made.",
        "Off, tracing costs nothing.",
    )
    .url(),
    optional(
        "telemetry.otlp_headers",
        Kind::Text(rules::otlp_headers),
        "Headers of each export, as name=value, separated by commas; values percent-encoded.",
        "Collectors in the same cluster want none.",
    )
    .secret(),
    optional(
        "telemetry.otlp_headers_file",
        Kind::Text(rules::some),
        "File that holds them instead; read at the start.",
        "Keys of an account belong into a file.",
    ),
    key(
        "telemetry.sample_ratio",
        Kind::Text(rules::ratio),
        "0",
        "Share of the events without a trace that begin one, 0 to 1. Where an event has a trace, its sampled flag alone decides.",
        "Whoever begins a trace decides what is recorded.",
    ),
    key(
        "telemetry.service_name",
        TEXT,
        r#""daisi""#,
        "Name of this service in spans.",
        "The name of the program.",
    ),
];

#[cfg(test)]
mod tests;
