//! Requests of the JetStream API and what comes back. Invariant: no request carries a field the server
//! at hand does not know (from 2.12 on that is an error, before it is ignored in silence). Cold, except
//! for pull requests, which are appended without allocating. Source: NATS ADR-2, ADR-13; JetStream API.

use super::config::{ConsumerConfig, StreamConfig, Unsupported, null_is_default};
use super::error::ApiError;
use super::version::ServerVersion;
use crate::wire::decimal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One request: to be published with a reply inbox and a deadline. Overloaded servers drop requests
/// and unknown subjects are never answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub subject: String,
    /// JSON, or nothing.
    pub body: Vec<u8>,
}

/// What CONSUMER.CREATE may do. Servers before 2.10 create or update whatever is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerAction {
    /// Fails (10148) if it exists with another configuration.
    Create,
    /// Fails (10149) if it does not exist.
    Update,
    /// Either.
    CreateOrUpdate,
}

/// Builds requests below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    prefix: String,
}

impl Default for Api {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Api {
    /// API of the server's own domain, or of another one.
    #[must_use]
    pub fn new(domain: Option<&str>) -> Self {
        let prefix = domain.map_or("$JS.API".into(), |domain| format!("$JS.{domain}.API"));
        Self { prefix }
    }

    /// Creates a stream; the same configuration again is a success. Answer: [`StreamInfo`].
    ///
    /// # Errors
    /// [`Unsupported`] if the server does not know a field.
    pub fn stream_create(
        &self,
        config: &StreamConfig,
        server: ServerVersion,
    ) -> Result<Request, Unsupported> {
        config.check_supported(server)?;
        Ok(self.request("STREAM.CREATE", &[&config.name], to_json(config)))
    }

    /// Replaces the whole configuration: change what [`Self::stream_info`] gave. Answer:
    /// [`StreamInfo`].
    ///
    /// # Errors
    /// [`Unsupported`] if the server does not know a field.
    pub fn stream_update(
        &self,
        config: &StreamConfig,
        server: ServerVersion,
    ) -> Result<Request, Unsupported> {
        config.check_supported(server)?;
        Ok(self.request("STREAM.UPDATE", &[&config.name], to_json(config)))
    }

    /// Configuration and state of a stream. Answer: [`StreamInfo`].
    #[must_use]
    pub fn stream_info(&self, stream: &str) -> Request {
        self.request("STREAM.INFO", &[stream], Vec::new())
    }

    /// Configuration and state, with the subjects below `filter`, from `offset` on. Answer:
    /// [`StreamInfo`] with a page of at most 100,000 subjects.
    #[must_use]
    pub fn stream_info_subjects(&self, stream: &str, filter: &str, offset: u64) -> Request {
        let body = to_json(&json!({"subjects_filter": filter, "offset": offset}));
        self.request("STREAM.INFO", &[stream], body)
    }

    /// Names of the streams that store `subject` (or overlap with it). Answer: [`StreamNames`].
    #[must_use]
    pub fn stream_names(&self, subject: &str, offset: u64) -> Request {
        let body = to_json(&json!({"subject": subject, "offset": offset}));
        self.request("STREAM.NAMES", &[], body)
    }

    /// Deletes the messages below `filter`, or all. Answer: [`Purged`].
    #[must_use]
    pub fn stream_purge(&self, stream: &str, filter: Option<&str>) -> Request {
        let body = filter.map_or(Vec::new(), |filter| to_json(&json!({"filter": filter})));
        self.request("STREAM.PURGE", &[stream], body)
    }

    /// Deletes a stream. Answer: [`Deleted`].
    #[must_use]
    pub fn stream_delete(&self, stream: &str) -> Request {
        self.request("STREAM.DELETE", &[stream], Vec::new())
    }

    /// Last message of a subject, from the stream's leader: never stale. Answer:
    /// [`parse_message_get`].
    #[must_use]
    pub fn message_get_last(&self, stream: &str, subject: &str) -> Request {
        let body = to_json(&json!({"last_by_subj": subject}));
        self.request("STREAM.MSG.GET", &[stream], body)
    }

    /// Message of a sequence, from the stream's leader. Answer: [`parse_message_get`].
    #[must_use]
    pub fn message_get(&self, stream: &str, seq: u64) -> Request {
        self.request("STREAM.MSG.GET", &[stream], to_json(&json!({"seq": seq})))
    }

    /// First message at or behind `seq` whose subject is one of `pattern`, from the stream's leader. It
    /// needs no consumer. Answer: [`parse_message_get`].
    #[must_use]
    pub fn message_get_next(&self, stream: &str, seq: u64, pattern: &str) -> Request {
        let body = to_json(&json!({"seq": seq, "next_by_subj": pattern}));
        self.request("STREAM.MSG.GET", &[stream], body)
    }

    /// Deletes the message of a sequence, without writing over its bytes. Answer: [`Deleted`].
    #[must_use]
    pub fn message_delete(&self, stream: &str, seq: u64) -> Request {
        let body = to_json(&json!({"seq": seq, "no_erase": true}));
        self.request("STREAM.MSG.DELETE", &[stream], body)
    }

    /// Creates or updates a consumer named by `durable_name` or `name`; without either the server
    /// names it. Compare `config` of the answer with what was asked. Answer: [`ConsumerInfo`].
    ///
    /// # Errors
    /// [`Unsupported`] if the server does not know a field.
    pub fn consumer_create(
        &self,
        stream: &str,
        config: &ConsumerConfig,
        action: ConsumerAction,
        server: ServerVersion,
    ) -> Result<Request, Unsupported> {
        config.check_supported(server)?;
        let mut body = json!({"stream_name": stream, "config": config});
        let action = match action {
            ConsumerAction::Create => "create",
            ConsumerAction::Update => "update",
            ConsumerAction::CreateOrUpdate => "",
        };
        if !action.is_empty() && server.has_consumer_action() {
            body["action"] = action.into();
        }
        let name = config.durable_name.as_deref().or(config.name.as_deref());
        let mut tokens = vec![stream];
        tokens.extend(name);
        // With a name the filter may stand in the subject too, which lets permissions see it.
        if name.is_some() {
            tokens.extend(config.filter_subject.as_deref().filter(|filter| !filter.is_empty()));
        }
        Ok(self.request("CONSUMER.CREATE", &tokens, to_json(&body)))
    }

    /// Configuration and state of a consumer: a round trip to its leader. Answer: [`ConsumerInfo`].
    #[must_use]
    pub fn consumer_info(&self, stream: &str, consumer: &str) -> Request {
        self.request("CONSUMER.INFO", &[stream, consumer], Vec::new())
    }

    /// Deletes a consumer. Answer: [`Deleted`].
    #[must_use]
    pub fn consumer_delete(&self, stream: &str, consumer: &str) -> Request {
        self.request("CONSUMER.DELETE", &[stream, consumer], Vec::new())
    }

    /// Where [`PullRequest`]s of a consumer go. Build it once.
    #[must_use]
    pub fn pull_subject(&self, stream: &str, consumer: &str) -> String {
        format!("{}.CONSUMER.MSG.NEXT.{stream}.{consumer}", self.prefix)
    }

    fn request(&self, operation: &str, tokens: &[&str], body: Vec<u8>) -> Request {
        let mut subject = format!("{}.{operation}", self.prefix);
        for token in tokens {
            subject.push('.');
            subject.push_str(token);
        }
        Request { subject, body }
    }
}

#[expect(clippy::expect_used, reason = "maps with text keys and numbers always have a JSON form")]
fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("plain data has a JSON form")
}

/// Credit handed to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Messages wanted, 1 or more.
    pub batch: u32,
    /// Most bytes: per message, subject, ack subject, headers and payload; 0 means no bound. A message
    /// larger than this alone blocks its consumer for ever.
    pub max_bytes: u64,
    /// Nanoseconds the pull lives, above 0: one without an end would outlive us on the server.
    pub expires_ns: u64,
    /// Nanoseconds of silence after which the server says it is alive; at most half of `expires_ns`;
    /// 0 means none.
    pub idle_heartbeat_ns: u64,
    /// End as soon as nothing is waiting.
    pub no_wait: bool,
}

impl PullRequest {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert!(self.batch > 0, "a pull asks for something");
        debug_assert!(self.expires_ns > 0 || self.no_wait, "a pull has an end");
        debug_assert!(self.idle_heartbeat_ns * 2 <= self.expires_ns, "the server would refuse it");
        out.extend_from_slice(b"{\"batch\":");
        decimal::push(out, u64::from(self.batch));
        for (name, value) in [
            (b",\"expires\":".as_slice(), self.expires_ns),
            (b",\"idle_heartbeat\":", self.idle_heartbeat_ns),
            (b",\"max_bytes\":", self.max_bytes),
        ] {
            if value > 0 {
                out.extend_from_slice(name);
                decimal::push(out, value);
            }
        }
        if self.no_wait {
            out.extend_from_slice(b",\"no_wait\":true");
        }
        out.extend_from_slice(b"}");
    }

    /// The body on its own.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.into()
    }
}

/// Why an answer has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The server refused.
    #[error(transparent)]
    Api(ApiError),
    /// Not the JSON this request is answered with.
    #[error("answer of {size} bytes is malformed at line {line}, column {column}")]
    Malformed {
        /// Bytes of the answer.
        size: usize,
        /// Line where the parser stopped, from 1.
        line: usize,
        /// Column where it stopped.
        column: usize,
    },
    /// A field that should be base64 is not.
    #[error("{field} is not base64")]
    Base64 {
        /// The field.
        field: &'static str,
    },
}

/// Reads the answer to a request as `T`.
///
/// # Errors
/// [`ResponseError::Api`] if the server refused, else what is wrong with the bytes.
pub fn parse_response<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ResponseError> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Option<ApiError>,
    }
    let malformed = |error: serde_json::Error| ResponseError::Malformed {
        size: payload.len(),
        line: error.line(),
        column: error.column(),
    };
    let refusal: Refusal = serde_json::from_slice(payload).map_err(malformed)?;
    match refusal.error {
        Some(error) => Err(ResponseError::Api(error)),
        None => serde_json::from_slice(payload).map_err(malformed),
    }
}

/// Answer to creating, updating or asking about a stream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamInfo {
    /// Its whole configuration, fields we do not name included.
    pub config: StreamConfig,
    /// What it holds.
    pub state: StreamState,
    /// Replicas and their leader, as the server words them; absent on a single server.
    pub cluster: Option<Value>,
    /// Subjects in all, with a filter.
    pub total: u64,
    /// First subject of this page, with a filter.
    pub offset: u64,
}

/// What a stream holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Sequence of the oldest message.
    pub first_seq: u64,
    /// Sequence of the newest message; below one we have an ack for means that the server lost data.
    pub last_seq: u64,
    /// Subjects with messages.
    pub num_subjects: u64,
    /// Consumers.
    pub consumer_count: u64,
    /// Messages by subject, with a filter; sorted.
    #[serde(deserialize_with = "null_is_default")]
    pub subjects: serde_json::Map<String, Value>,
}

/// Answer to asking for the streams of a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StreamNames {
    /// Names of this page, at most 1024.
    #[serde(deserialize_with = "null_is_default")]
    pub streams: Vec<String>,
    /// Names in all.
    pub total: u64,
    /// First name of this page.
    pub offset: u64,
}

/// Answer to a purge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Purged {
    /// It was done.
    pub success: bool,
    /// Messages deleted.
    pub purged: u64,
}

/// Answer to a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Deleted {
    /// It was done.
    pub success: bool,
}

/// A position in two countings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConsumerSequence {
    /// Among the consumer's deliveries.
    pub consumer_seq: u64,
    /// In the stream.
    pub stream_seq: u64,
}

/// Answer to creating, updating or asking about a consumer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConsumerInfo {
    /// Its stream.
    pub stream_name: String,
    /// Its name.
    pub name: String,
    /// Its whole configuration; to be compared with what was asked.
    pub config: ConsumerConfig,
    /// Newest delivery.
    pub delivered: ConsumerSequence,
    /// All up to here is acked.
    pub ack_floor: ConsumerSequence,
    /// Delivered and not acked.
    pub num_ack_pending: u64,
    /// Of these, delivered more than once.
    pub num_redelivered: u64,
    /// Open pulls.
    pub num_waiting: u64,
    /// Not delivered yet: the lag.
    pub num_pending: u64,
    /// Replicas and their leader, as the server words them.
    pub cluster: Option<Value>,
    /// It delivers nothing for now.
    pub paused: bool,
}

/// One stored message, read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its subject.
    pub subject: String,
    /// Its position; for a key-value bucket, the revision.
    pub seq: u64,
    /// Payload.
    pub data: Vec<u8>,
    /// Raw header block; empty without headers.
    pub headers: Vec<u8>,
    /// When it was stored (RFC 3339).
    pub time: String,
}

/// Reads the answer to [`Api::message_get`] or [`Api::message_get_last`].
///
/// # Errors
/// [`ResponseError::Api`] of class `NotFound` (10037) where there is none.
pub fn parse_message_get(payload: &[u8]) -> Result<StoredMessage, ResponseError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Raw,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Raw {
        subject: String,
        seq: u64,
        #[serde(deserialize_with = "null_is_default")]
        data: String,
        #[serde(deserialize_with = "null_is_default")]
        hdrs: String,
        time: String,
    }
    let Raw { subject, seq, data, hdrs, time } = parse_response::<Answer>(payload)?.message;
    let decode =
        |text: &str, field| STANDARD.decode(text).map_err(|_| ResponseError::Base64 { field });
    let (data, headers) = (decode(&data, "data")?, decode(&hdrs, "hdrs")?);
    Ok(StoredMessage { subject, seq, data, headers, time })
}

#[cfg(test)]
mod tests {
    use super::super::config::AckPolicy;
    use super::super::error::ErrorClass;
    use super::*;

    const V2_9: ServerVersion = ServerVersion::new(2, 9, 10);
    const V2_12: ServerVersion = ServerVersion::new(2, 12, 3);

    fn body(request: &Request) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn subjects_carry_prefix_and_names() {
        let api = Api::default();
        assert_eq!(api.stream_info("S").subject, "$JS.API.STREAM.INFO.S");
        assert_eq!(api.consumer_delete("S", "c").subject, "$JS.API.CONSUMER.DELETE.S.c");
        assert_eq!(api.pull_subject("S", "c"), "$JS.API.CONSUMER.MSG.NEXT.S.c");
        assert_eq!(
            Api::new(Some("hub")).stream_names("a.b", 0).subject,
            "$JS.hub.API.STREAM.NAMES"
        );
        assert_eq!(body(&api.message_get_last("KV_b", "$KV.b.k"))["last_by_subj"], "$KV.b.k");
        assert_eq!(api.stream_purge("S", None).body, b"");
        let next = body(&api.message_get_next("S", 7, "a.>"));
        assert_eq!(next, json!({"seq": 7, "next_by_subj": "a.>"}));
        let delete = api.message_delete("S", 7);
        assert_eq!(delete.subject, "$JS.API.STREAM.MSG.DELETE.S");
        assert_eq!(body(&delete), json!({"seq": 7, "no_erase": true}));
    }

    #[test]
    fn action_is_sent_only_to_servers_that_obey_it() {
        let config = ConsumerConfig {
            ack_policy: AckPolicy::All,
            filter_subject: Some("v1.>".into()),
            ..ConsumerConfig::durable("d")
        };
        let create = |server| {
            let api = Api::default();
            api.consumer_create("S", &config, ConsumerAction::Create, server).unwrap()
        };
        assert_eq!(create(V2_9).subject, "$JS.API.CONSUMER.CREATE.S.d.v1.>");
        assert_eq!(body(&create(V2_9)).get("action"), None);
        let request = body(&create(V2_12));
        assert_eq!(request["action"], "create");
        assert_eq!(request["stream_name"], "S");
        let expected = json!({"durable_name":"d","name":"d","deliver_policy":"all",
            "ack_policy":"all","filter_subject":"v1.>","replay_policy":"instant"});
        assert_eq!(request["config"], expected);
    }

    #[test]
    fn pull_request_is_what_servers_take() {
        let pull = PullRequest {
            batch: 500,
            max_bytes: 1 << 20,
            expires_ns: 30_000_000_000,
            idle_heartbeat_ns: 5_000_000_000,
            no_wait: false,
        };
        assert_eq!(
            String::from_utf8(pull.to_body()).unwrap(),
            r#"{"batch":500,"expires":30000000000,"idle_heartbeat":5000000000,"max_bytes":1048576}"#
        );
        let probe = PullRequest {
            batch: 1,
            max_bytes: 0,
            expires_ns: 0,
            idle_heartbeat_ns: 0,
            no_wait: true,
        };
        assert_eq!(probe.to_body(), br#"{"batch":1,"no_wait":true}"#);
    }

    #[test]
    fn refusals_come_before_results() {
        let refusal = br#"{"type":"io.nats.jetstream.api.v1.stream_info_response",
            "error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        match parse_response::<StreamInfo>(refusal) {
            Err(ResponseError::Api(error)) => assert_eq!(error.class(), ErrorClass::NotFound),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            parse_response::<StreamInfo>(b"[1,"),
            Err(ResponseError::Malformed { size: 3, line: 1, .. })
        ));
        assert_eq!(
            parse_response::<StreamNames>(br#"{"total":0,"offset":0,"limit":1024,"streams":null}"#),
            Ok(StreamNames::default())
        );
    }

    #[test]
    fn stream_and_consumer_info_are_read_tolerantly() {
        let info: StreamInfo = parse_response(
            br#"{"type":"x","config":{"name":"S","future":[1]},"created":"2026-01-01T00:00:00Z",
            "state":{"messages":3,"last_seq":9,"subjects":{"a":1,"b":2}},"total":2,"limit":100000}"#,
        )
        .unwrap();
        assert_eq!((info.state.last_seq, info.total), (9, 2));
        assert_eq!(info.state.subjects["b"], 2);
        assert_eq!(info.config.other["future"], json!([1]));
        let info: ConsumerInfo = parse_response(
            br#"{"stream_name":"S","name":"d","config":{"ack_policy":"all","ack_wait":30000000000},
            "delivered":{"consumer_seq":4,"stream_seq":7,"last_active":"x"},"num_pending":12}"#,
        )
        .unwrap();
        assert_eq!((info.delivered.stream_seq, info.num_pending), (7, 12));
        assert_eq!(info.config.ack_wait, Some(30_000_000_000));
    }

    #[test]
    fn stored_message_is_decoded() {
        let message = parse_message_get(
            br#"{"type":"x","message":{"subject":"$KV.b.k","seq":7,"data":"b3duZXI=",
            "hdrs":"TkFUUy8xLjANCg0K","time":"2026-01-01T00:00:00Z"}}"#,
        )
        .unwrap();
        assert_eq!((message.seq, message.data.as_slice()), (7, b"owner".as_slice()));
        assert_eq!(message.headers, b"NATS/1.0\r\n\r\n");
        let bad = br#"{"message":{"subject":"s","seq":1,"data":"***"}}"#;
        assert_eq!(parse_message_get(bad), Err(ResponseError::Base64 { field: "data" }));
        let deleted = br#"{"message":{"subject":"s","seq":1,"time":"t"}}"#;
        assert_eq!(parse_message_get(deleted).unwrap().data, b"");
    }
}
