//! Configurations of streams and consumers. Invariant: what a server sent and we do not name is kept in
//! `other`, so that read-modify-write resets nothing; a field that is not set is not sent. Source:
//! JetStream API, `StreamConfig` and `ConsumerConfig`. Durations are nanoseconds; -1 means no limit.

use super::version::ServerVersion;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// What ends the life of a stored message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Limits of age, size and count.
    #[default]
    Limits,
    /// Its last interested consumer acked it.
    Interest,
    /// A consumer acked it.
    Workqueue,
    /// A value of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// Where messages lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory: lost with the process.
    Memory,
    /// A value of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// What a full stream gives up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// Its oldest messages, in silence.
    #[default]
    Old,
    /// The new message, with an error.
    New,
    /// A value of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// Where a new consumer starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// At the first message.
    #[default]
    All,
    /// At the last message.
    Last,
    /// At the next message.
    New,
    /// At `opt_start_seq`.
    ByStartSequence,
    /// At `opt_start_time`.
    ByStartTime,
    /// At the last message of each subject.
    LastPerSubject,
    /// A value of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// What an ack covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckPolicy {
    /// One message.
    #[default]
    Explicit,
    /// This message and all before it.
    All,
    /// Nothing is acked.
    None,
    /// A value of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// How fast stored messages come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayPolicy {
    /// As fast as they are taken.
    #[default]
    Instant,
    /// At the pace they were stored.
    Original,
    /// A value of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// Rewriting of subjects before storing (2.10 and newer).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectTransform {
    /// Pattern of the subjects to rewrite.
    pub src: String,
    /// What they become, such as `p.{{partition(256,1)}}.{{wildcard(1)}}`.
    pub dest: String,
}

/// Configuration of a stream. An update replaces all of it: change what `STREAM.INFO` gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Name: no dots, wildcards, blanks or slashes.
    pub name: String,
    /// Subjects it stores; empty with `sources`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub subjects: Vec<String>,
    /// What ends the life of a message.
    pub retention: Retention,
    /// Where messages lie.
    pub storage: Storage,
    /// What a full stream gives up.
    pub discard: Discard,
    /// Copies, 1 to 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_replicas: Option<i64>,
    /// Consumers it may have; from 2.15 on 1000 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_consumers: Option<i64>,
    /// Messages it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msgs: Option<i64>,
    /// Bytes it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
    /// Age at which a message goes, in nanoseconds; 0 means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// Messages of one subject it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msgs_per_subject: Option<i64>,
    /// Bytes of headers and payload of one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msg_size: Option<i64>,
    /// How long message ids are remembered, in nanoseconds; not above `max_age`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_window: Option<i64>,
    /// Publishes are never answered: useless to us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_ack: Option<bool>,
    /// Any replica may answer gets; needed for `DIRECT.GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_direct: Option<bool>,
    /// Single messages cannot be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_delete: Option<bool>,
    /// The stream cannot be purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_purge: Option<bool>,
    /// `Nats-Rollup` is obeyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_rollup_hdrs: Option<bool>,
    /// `Nats-TTL` is obeyed (2.11 and newer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_msg_ttl: Option<bool>,
    /// Rewriting of subjects before storing (2.10 and newer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    /// Streams it copies from, as the server words them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub sources: Vec<Value>,
    /// All that is not named above, as read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl StreamConfig {
    /// Stream behind a key-value bucket for leases: last value of each key, writes that do not fit are
    /// refused, and keys expire `max_age_ns` nanoseconds after their last write. The dedup window is
    /// the server's bound, `max_age`, and at most its default of two minutes.
    #[must_use]
    pub fn kv_bucket(bucket: &str, max_age_ns: u64, replicas: u8) -> Self {
        const WINDOW_NS_DEFAULT: u64 = 120_000_000_000;
        let window = if max_age_ns == 0 { WINDOW_NS_DEFAULT } else { max_age_ns };
        Self {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            discard: Discard::New,
            num_replicas: Some(i64::from(replicas)),
            max_msgs_per_subject: Some(1),
            max_age: Some(saturating(max_age_ns)),
            duplicate_window: Some(saturating(window.min(WINDOW_NS_DEFAULT))),
            allow_direct: Some(true),
            allow_rollup_hdrs: Some(true),
            deny_delete: Some(true),
            ..Self::default()
        }
    }

    /// Checks that a server knows every field that is set; older ones would ignore it in silence.
    ///
    /// # Errors
    /// The first field it does not know.
    pub fn check_supported(&self, server: ServerVersion) -> Result<(), Unsupported> {
        let fields = [
            ("subject_transform", self.subject_transform.is_some(), ServerVersion::new(2, 10, 0)),
            ("allow_msg_ttl", self.allow_msg_ttl.is_some(), ServerVersion::new(2, 11, 0)),
        ];
        first_unsupported(&fields, server)
    }
}

/// Configuration of a pull consumer. An update replaces all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig {
    /// Name of one that outlives its clients; `name` is sent as well then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_name: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it starts.
    pub deliver_policy: DeliverPolicy,
    /// First sequence, with [`DeliverPolicy::ByStartSequence`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_seq: Option<u64>,
    /// First time (RFC 3339), with [`DeliverPolicy::ByStartTime`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<String>,
    /// What an ack covers.
    pub ack_policy: AckPolicy,
    /// Nanoseconds without an ack after which a message comes again; 30 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_wait: Option<i64>,
    /// Deliveries of one message; -1 means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliver: Option<i64>,
    /// Nanoseconds in place of `ack_wait`, by delivery.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub backoff: Vec<i64>,
    /// The one pattern it delivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_subject: Option<String>,
    /// Several patterns without overlap (2.10 and newer), instead of `filter_subject`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub filter_subjects: Vec<String>,
    /// How fast stored messages come.
    pub replay_policy: ReplayPolicy,
    /// Unacked messages at which new ones wait; 1000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ack_pending: Option<i64>,
    /// Open pulls; 512 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<i64>,
    /// Largest batch of a pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<i64>,
    /// Longest life of a pull, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_expires: Option<i64>,
    /// Most bytes of a pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
    /// Nanoseconds without use after which it is deleted; absent on durables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_threshold: Option<i64>,
    /// Copies of its state; 0 means as its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_replicas: Option<i64>,
    /// Its state lies in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_storage: Option<bool>,
    /// Payloads are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_only: Option<bool>,
    /// Names and values for people and tools (2.10 and newer).
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "null_is_default")]
    pub metadata: Map<String, Value>,
    /// Time (RFC 3339) until which it delivers nothing (2.11 and newer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<String>,
    /// Groups of pullers (2.11 and newer).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub priority_groups: Vec<String>,
    /// How groups share (2.11 and newer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_policy: Option<String>,
    /// Nanoseconds a pinned client may stay away (2.11 and newer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_timeout: Option<i64>,
    /// All that is not named above, as read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ConsumerConfig {
    /// A durable of this name with the server's defaults.
    #[must_use]
    pub fn durable(name: &str) -> Self {
        Self { durable_name: Some(name.into()), name: Some(name.into()), ..Self::default() }
    }

    /// Checks that a server knows every field that is set: 2.9 ignored `filter_subjects` and silently
    /// made a consumer without a filter.
    ///
    /// # Errors
    /// The first field it does not know.
    pub fn check_supported(&self, server: ServerVersion) -> Result<(), Unsupported> {
        let (v2_10, v2_11) = (ServerVersion::new(2, 10, 0), ServerVersion::new(2, 11, 0));
        let fields = [
            ("filter_subjects", !self.filter_subjects.is_empty(), v2_10),
            ("metadata", !self.metadata.is_empty(), v2_10),
            ("pause_until", self.pause_until.is_some(), v2_11),
            ("priority_groups", !self.priority_groups.is_empty(), v2_11),
            ("priority_policy", self.priority_policy.is_some(), v2_11),
            ("priority_timeout", self.priority_timeout.is_some(), v2_11),
        ];
        first_unsupported(&fields, server)
    }
}

/// A field is set that the server does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} needs server {since}, this one is {server}")]
pub struct Unsupported {
    /// The field.
    pub field: &'static str,
    /// First server that knows it.
    pub since: ServerVersion,
    /// The server at hand.
    pub server: ServerVersion,
}

fn first_unsupported(
    fields: &[(&'static str, bool, ServerVersion)],
    server: ServerVersion,
) -> Result<(), Unsupported> {
    match fields.iter().find(|&&(_, is_set, since)| is_set && server < since) {
        Some(&(field, _, since)) => Err(Unsupported { field, since, server }),
        None => Ok(()),
    }
}

fn saturating(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Go writes an empty list as `null` in places.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_modify_write_keeps_what_is_not_named() {
        let json = r#"{"name":"S","subjects":["v1.\u003e"],"retention":"limits","max_consumers":-1,
            "max_msgs":-1,"storage":"file","discard":"old","compression":"s2","sealed":false,
            "republish":{"src":"a","dest":"b"},"first_seq":18446744073709551615,"persist_mode":"new"}"#;
        let mut config: StreamConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.subjects, ["v1.>"]);
        config.max_consumers = Some(5000);
        let mut expected: Value = serde_json::from_str(json).unwrap();
        expected["max_consumers"] = 5000.into();
        assert_eq!(serde_json::to_value(&config).unwrap(), expected);
    }

    #[test]
    fn values_of_newer_servers_are_kept() {
        let json = r#"{"name":"S","retention":"forever","storage":"tape","discard":"old"}"#;
        let config: StreamConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.retention, Retention::Other("forever".into()));
        assert_eq!(
            serde_json::to_value(&config).unwrap(),
            serde_json::from_str::<Value>(json).unwrap()
        );
    }

    #[test]
    fn lists_may_be_null() {
        let json = r#"{"backoff":null,"filter_subjects":null,"metadata":null,"ack_policy":"all"}"#;
        let config: ConsumerConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config, ConsumerConfig { ack_policy: AckPolicy::All, ..Default::default() });
    }

    #[test]
    fn fields_unknown_to_a_server_are_refused_before_they_are_sent() {
        let old = ServerVersion::new(2, 9, 10);
        let config = ConsumerConfig { filter_subjects: vec!["a".into()], ..Default::default() };
        assert_eq!(config.check_supported(old).unwrap_err().field, "filter_subjects");
        assert_eq!(config.check_supported(ServerVersion::new(2, 10, 0)), Ok(()));
        assert_eq!(ConsumerConfig::durable("d").check_supported(old), Ok(()));
    }

    #[test]
    fn bucket_for_leases_is_the_documented_stream() {
        let expected = serde_json::json!({"name":"KV_leases","subjects":["$KV.leases.>"],
            "max_msgs_per_subject":1,"discard":"new","allow_rollup_hdrs":true,"deny_delete":true,
            "allow_direct":true,"num_replicas":3,"storage":"file","max_age":5_000_000_000_i64,
            "duplicate_window":5_000_000_000_i64,"retention":"limits"});
        let config = StreamConfig::kv_bucket("leases", 5_000_000_000, 3);
        assert_eq!(serde_json::to_value(config).unwrap(), expected);
        let forever = StreamConfig::kv_bucket("x", 0, 1);
        assert_eq!(forever.duplicate_window, Some(120_000_000_000));
    }
}
