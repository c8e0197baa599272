//! Stream and consumer configuration as a server reads, completes and returns it. Invariant: a field is
//! either modelled, known to have no effect on what a client of ours sees, or refused aloud.
//! From 2.12 an unknown field is error 10025; older servers drop it silently.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::sources::StreamSource;
use crate::peers::version::Version;
use shards::clock::SEC;

/// What makes a stream forget a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Retention {
    /// Count, bytes and age only.
    #[default]
    Limits,
    /// Also once every consumer acknowledged it.
    Interest,
    /// Also once its one consumer acknowledged it.
    WorkQueue,
}

/// What a full stream does with a new message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Discard {
    /// Deletes the oldest.
    #[default]
    Old,
    /// Refuses it with 10077.
    New,
}

/// Where messages live. Memory streams are empty after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    /// Survives a killed process.
    #[default]
    File,
    /// Does not.
    Memory,
}

/// Which messages are acknowledged by one ack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AckPolicy {
    /// Delivery is enough.
    #[default]
    None,
    /// That one and all before it.
    All,
    /// That one.
    Explicit,
}

/// Where a new consumer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliverPolicy {
    /// The first message.
    #[default]
    All,
    /// The last message.
    Last,
    /// What comes after creation.
    New,
    /// `opt_start_seq`.
    ByStartSequence,
    /// The last message of each subject, then what comes.
    LastPerSubject,
}

/// StreamConfig. Durations in nanoseconds; -1 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire format has them")]
pub(crate) struct StreamConfig {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    pub(crate) subjects: Vec<String>,
    pub(crate) retention: Retention,
    pub(crate) max_consumers: i64,
    pub(crate) max_msgs: i64,
    pub(crate) max_bytes: i64,
    pub(crate) max_age: u64,
    pub(crate) max_msgs_per_subject: i64,
    pub(crate) max_msg_size: i64,
    pub(crate) discard: Discard,
    pub(crate) storage: Storage,
    pub(crate) num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) no_ack: bool,
    pub(crate) duplicate_window: u64,
    pub(crate) sealed: bool,
    pub(crate) deny_delete: bool,
    pub(crate) deny_purge: bool,
    pub(crate) allow_rollup_hdrs: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) discard_new_per_subject: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<StreamSource>,
    /// Fields without effect here (`metadata`, `placement`, ...), returned as given.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// ConsumerConfig of a pull consumer. Durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) durable_name: String,
    pub(crate) name: String,
    pub(crate) deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) opt_start_seq: u64,
    pub(crate) ack_policy: AckPolicy,
    pub(crate) ack_wait: u64,
    pub(crate) max_deliver: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) backoff: Vec<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_subjects: Vec<String>,
    pub(crate) max_waiting: i64,
    pub(crate) max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) headers_only: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_batch: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_expires: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) inactive_threshold: u64,
    pub(crate) num_replicas: i64,
    /// Fields without effect here, returned as given.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// Streams' fields that change nothing a client of ours sees, with the minor version that knows them.
const STREAM_INERT: &[(&str, u16)] = &[
    ("placement", 2),
    ("allow_direct", 9),
    ("mirror_direct", 9),
    ("template_owner", 2),
    ("compression", 10),
    ("metadata", 10),
    ("consumer_limits", 10),
    ("allow_atomic", 12),
    ("allow_msg_schedules", 12),
    ("allow_msg_counter", 12),
    ("allow_batched", 14),
];
/// Streams' fields with effects that are not modelled: a test that sets one must not pass by luck.
const STREAM_UNMODELLED: &[&str] =
    &["mirror", "republish", "subject_transform", "first_seq", "persist_mode"];
const CONSUMER_INERT: &[(&str, u16)] = &[
    ("description", 2),
    ("replay_policy", 2),
    ("sample_freq", 2),
    ("mem_storage", 9),
    ("metadata", 10),
];
const CONSUMER_UNMODELLED: &[&str] = &[
    "deliver_subject",
    "deliver_group",
    "flow_control",
    "idle_heartbeat",
    "rate_limit_bps",
    "opt_start_time",
    "pause_until",
    "priority_groups",
    "priority_policy",
    "priority_timeout",
];

impl StreamConfig {
    /// Reads `body` and completes it as `version` does. Errors: 10025 for bad JSON or, from 2.12, an
    /// unknown field; 10052 for what no server takes or this one does not model.
    pub(crate) fn read(body: &[u8], version: Version) -> Result<Self, ApiError> {
        let mut config: Self =
            serde_json::from_slice(body).map_err(|_| ApiError::invalid_json())?;
        let effects = (STREAM_INERT, STREAM_UNMODELLED);
        config.other = admit_fields(config.other, effects, version)?;
        config.complete(version);
        if config.sources.iter().any(|source| !source.other.is_empty()) {
            return Err(ApiError::new(500, 10052, "not modelled by this peer: a source's options"));
        }
        if config.max_age > 0 && config.duplicate_window > config.max_age {
            let text = "duplicates window can not be larger then max age";
            return Err(ApiError::new(500, 10052, text));
        }
        Ok(config)
    }

    fn complete(&mut self, version: Version) {
        self.sources.iter_mut().for_each(|source| source.complete(version));
        for limit in [
            &mut self.max_consumers,
            &mut self.max_msgs,
            &mut self.max_bytes,
            &mut self.max_msgs_per_subject,
            &mut self.max_msg_size,
        ] {
            *limit = if *limit == 0 { -1 } else { *limit };
        }
        self.num_replicas = self.num_replicas.max(1);
        for flag in ["allow_direct", "mirror_direct"] {
            self.other.entry(flag).or_insert(false.into());
        }
        if self.duplicate_window == 0 {
            let window = 120 * SEC;
            self.duplicate_window =
                if self.max_age == 0 { window } else { window.min(self.max_age) };
        }
        if self.subjects.is_empty() && self.sources.is_empty() {
            self.subjects = vec![self.name.clone()];
        }
    }

    /// Whether a publish to `subject` goes into this stream.
    pub(crate) fn takes(&self, subject: &[u8]) -> bool {
        self.subjects.iter().any(|p| crate::peers::subject::matches(p.as_bytes(), subject))
    }
}

impl ConsumerConfig {
    /// Reads and completes a config as `version` does. Errors as [`StreamConfig::read`].
    pub(crate) fn read(value: Value, version: Version) -> Result<Self, ApiError> {
        let mut config: Self =
            serde_json::from_value(value).map_err(|_| ApiError::invalid_json())?;
        let effects = (CONSUMER_INERT, CONSUMER_UNMODELLED);
        config.other = admit_fields(config.other, effects, version)?;
        if !version.since(10) {
            // 2.9 does not know the field and drops it: the consumer is silently unfiltered.
            config.filter_subjects.clear();
        }
        config.complete();
        Ok(config)
    }

    fn complete(&mut self) {
        if let Some(first) = self.backoff.first() {
            self.ack_wait = *first;
        }
        if self.ack_wait == 0 && self.ack_policy != AckPolicy::None {
            self.ack_wait = 30 * SEC;
        }
        if self.max_deliver == 0 {
            self.max_deliver = -1;
        }
        if self.max_ack_pending == 0 && self.ack_policy != AckPolicy::None {
            self.max_ack_pending = 1000;
        }
        if self.max_waiting == 0 {
            self.max_waiting = 512;
        }
        if self.durable_name.is_empty() && self.inactive_threshold == 0 {
            self.inactive_threshold = 5 * SEC;
        }
        self.other.entry("replay_policy").or_insert_with(|| "instant".into());
    }

    /// Filters, singular and plural form alike; empty means all.
    pub(crate) fn filters(&self) -> Vec<&str> {
        let single = Some(self.filter_subject.as_str()).filter(|f| !f.is_empty());
        single.into_iter().chain(self.filter_subjects.iter().map(String::as_str)).collect()
    }

    /// The first field of `new` that an update may not change, in the server's words.
    pub(crate) fn update_refused(&self, new: &Self) -> Option<&'static str> {
        if self.deliver_policy != new.deliver_policy {
            return Some("deliver policy can not be updated");
        }
        if self.opt_start_seq != new.opt_start_seq {
            return Some("start sequence can not be updated");
        }
        if self.ack_policy != new.ack_policy {
            return Some("ack policy can not be updated");
        }
        (self.max_waiting != new.max_waiting).then_some("max waiting can not be updated")
    }
}

fn admit_fields(
    fields: Map<String, Value>,
    (inert, unmodelled): (&[(&str, u16)], &[&str]),
    version: Version,
) -> Result<Map<String, Value>, ApiError> {
    let mut kept = Map::new();
    for (name, value) in fields {
        let inert = inert.iter().any(|(n, minor)| *n == name && version.since(*minor));
        if inert {
            kept.insert(name, value);
        } else if unmodelled.contains(&name.as_str()) && !is_default(&value) {
            return Err(ApiError::new(500, 10052, format!("not modelled by this peer: {name}")));
        } else if version.since(12) && !unmodelled.contains(&name.as_str()) {
            return Err(ApiError::invalid_json());
        }
    }
    Ok(kept)
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_u64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Bool(true) | Value::Object(_) => false,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
