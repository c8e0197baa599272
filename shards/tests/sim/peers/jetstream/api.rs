//! `$JS.API`: requests about streams, consumers and single messages, and their JSON replies. An unknown
//! subject gets no answer at all; an unmodelled call does not either, so that a client that relies on it
//! stalls in the test instead of passing by luck.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, Retention, StreamConfig};
use super::consumer::{Consumer, Interest};
use super::error::ApiError;
use super::request::PullRequest;
use super::store::{Store, Stored};
use super::{JetStream, Stream};
use crate::peers::delay_up_to;
use crate::peers::message::{Emit, Publish};
use crate::peers::subject::{contains, is_valid_name, overlaps};
use crate::peers::time::rfc3339;
use crate::peers::version::Version;
use shards::clock::Now;

type Reply = Result<Map<String, Value>, ApiError>;

/// From 2.15 a stream without `max_consumers` takes this many.
const CONSUMERS_MAX_DEFAULT: usize = 1000;
const NAMES_PAGE: usize = 1024;

impl JetStream {
    /// Answers `$JS.API.<call>`. False if nobody listens there.
    pub(super) fn handle_api(
        &mut self,
        now: Now,
        call: &str,
        message: &Publish,
        interest: Interest<'_>,
    ) -> bool {
        if let Some(target) = call.strip_prefix("CONSUMER.MSG.NEXT.") {
            return self.handle_pull(now, target, message, interest);
        }
        // DIRECT.GET has no listener where `allow_direct` is off, and is not modelled where it is on.
        if call.starts_with("DIRECT.GET.") {
            return false;
        }
        if self.is_leaderless(now) || self.faults.api_lost.hit(&mut self.rng) {
            return true;
        }
        let Some((kind, reply)) = self.dispatch(now, call, &message.payload) else { return true };
        let Some(inbox) = &message.reply else { return true };
        let mut body = Map::new();
        body.insert("type".into(), format!("io.nats.jetstream.api.v1.{kind}_response").into());
        match reply {
            Ok(fields) => body.extend(fields),
            Err(error) => drop(body.insert("error".into(), error.to_json())),
        }
        // The server escapes `>` inside strings.
        let text = Value::Object(body).to_string().replace('>', "\\u003e");
        let delay = delay_up_to(self.faults.api_delay_max, &mut self.rng);
        self.out.push_back(Emit::answer(inbox, text).after(delay));
        true
    }

    fn handle_pull(
        &mut self,
        now: Now,
        target: &str,
        message: &Publish,
        interest: Interest<'_>,
    ) -> bool {
        let Some((stream, consumer)) = target.split_once('.') else { return true };
        let is_here = self.streams.get(stream).is_some_and(|s| s.consumers.contains_key(consumer));
        if !is_here || self.is_leaderless(now) {
            // 2.9 leaves such a pull without an answer.
            return !self.version.since(10);
        }
        if self.faults.pull_lost.hit(&mut self.rng) {
            return true;
        }
        let Some(inbox) = &message.reply else { return true };
        match PullRequest::read(&message.payload) {
            Some(request) => self
                .with_consumer(now, stream, consumer, interest, |c, d| c.pull(d, inbox, request)),
            None => {
                self.out.push_back(Emit::status(inbox, "400 Bad Request - invalid JSON", &[]));
            }
        }
        true
    }

    fn dispatch(&mut self, now: Now, call: &str, body: &Bytes) -> Option<(&'static str, Reply)> {
        let (head, rest) = split_call(call);
        Some(match head {
            "INFO" => ("account_info", Ok(self.account_info())),
            "STREAM.CREATE" => ("stream_create", self.stream_create(now, rest, body)),
            "STREAM.UPDATE" => ("stream_update", self.stream_update(now, rest, body)),
            "STREAM.INFO" => ("stream_info", self.stream_info(now, rest, body)),
            "STREAM.NAMES" => ("stream_names", Ok(self.stream_names(body))),
            "STREAM.DELETE" => ("stream_delete", self.stream_delete(rest)),
            "STREAM.PURGE" => ("stream_purge", self.stream_purge(rest, body)),
            "STREAM.MSG.GET" => ("stream_msg_get", self.message_get(rest, body)),
            "STREAM.MSG.DELETE" => ("stream_msg_delete", self.message_delete(rest, body)),
            "CONSUMER.CREATE" | "CONSUMER.DURABLE.CREATE" => {
                ("consumer_create", self.consumer_create(now, (head, rest), body))
            }
            "CONSUMER.INFO" => ("consumer_info", self.consumer_info(rest)),
            "CONSUMER.DELETE" => ("consumer_delete", self.consumer_delete(rest)),
            "CONSUMER.NAMES" => ("consumer_names", self.consumer_names(rest, body)),
            _ => return None,
        })
    }

    fn account_info(&self) -> Map<String, Value> {
        let consumers: usize = self.streams.values().map(|s| s.consumers.len()).sum();
        let storage: u64 = self.streams.values().map(|s| s.store.bytes()).sum();
        fields(json!({
            "memory": 0, "storage": storage, "streams": self.streams.len(), "consumers": consumers,
            "limits": {"max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1},
            "api": {"total": 0, "errors": 0},
        }))
    }

    fn stream_create(&mut self, now: Now, name: &str, body: &[u8]) -> Reply {
        let config = self.read_stream(name, body)?;
        if let Some(stream) = self.streams.get(name) {
            if stream.store.config != config {
                let text = "stream name already in use with a different configuration";
                return Err(ApiError::new(400, 10058, text));
            }
        } else {
            let store = Store::new(config, now);
            let stream = Stream { store, consumers: Default::default() };
            self.streams.insert(name.to_owned(), stream);
            self.copy_what_there_is(now, name);
        }
        let mut reply = stream_fields(self.stream(name)?);
        reply.insert("did_create".into(), true.into());
        Ok(reply)
    }

    fn copy_what_there_is(&mut self, now: Now, name: &str) {
        let Ok(stream) = self.stream(name) else { return };
        let sources: Vec<String> =
            stream.store.config.sources.iter().map(|source| source.name.clone()).collect();
        for source in sources {
            let Ok(from) = self.stream(&source) else { continue };
            let stored: Vec<Publish> = from.store.iter().map(|(_, m)| as_published(m)).collect();
            stored.iter().for_each(|message| self.copy(now, (&source, name), message));
        }
    }

    fn stream_update(&mut self, now: Now, name: &str, body: &[u8]) -> Reply {
        self.stream(name)?;
        let config = self.read_stream(name, body)?;
        let stream = self.stream_mut(name)?;
        let old = &stream.store.config;
        if old.storage != config.storage || old.retention != config.retention {
            let text = "stream configuration update can not change storage or retention";
            return Err(ApiError::new(500, 10052, text));
        }
        stream.store.config = config;
        stream.consumers.values_mut().for_each(Consumer::note_removed);
        self.expire_stream(now, name);
        Ok(stream_fields(self.stream(name)?))
    }

    /// Reads a StreamConfig and holds it against the subject and the other streams.
    fn read_stream(&self, name: &str, body: &[u8]) -> Result<StreamConfig, ApiError> {
        let config = StreamConfig::read(body, self.version)?;
        if config.name != name {
            return Err(ApiError::new(400, 10056, "stream name in subject does not match request"));
        }
        if !is_valid_name(name) {
            return Err(ApiError::new(500, 10052, "stream name is invalid"));
        }
        let others = self.streams.values().filter(|s| s.store.config.name != name);
        let mut taken = others.flat_map(|s| &s.store.config.subjects);
        if taken.any(|t| config.subjects.iter().any(|s| overlaps(s, t))) {
            return Err(ApiError::new(400, 10065, "subjects overlap with an existing stream"));
        }
        Ok(config)
    }

    fn stream_info(&self, now: Now, name: &str, body: &[u8]) -> Reply {
        #[derive(Default, Deserialize)]
        struct Request {
            #[serde(default)]
            subjects_filter: String,
        }
        let request: Request = read_optional(body)?;
        let stream = self.stream(name)?;
        let mut reply = stream_fields(stream);
        if self.version.since(10) {
            reply.insert("ts".into(), rfc3339(now.wall).into());
        }
        let filter = request.subjects_filter;
        if !filter.is_empty() {
            let counts: Map<String, Value> = stream
                .store
                .subjects()
                .map(|(subject, count)| (String::from_utf8_lossy(subject).into_owned(), count))
                .filter(|(subject, _)| contains(&filter, subject))
                .map(|(subject, count)| (subject, count.into()))
                .collect();
            reply.extend(fields(json!({"total": counts.len(), "offset": 0, "limit": 100_000})));
            reply["state"]["subjects"] = counts.into();
        }
        Ok(reply)
    }

    fn stream_names(&self, body: &[u8]) -> Map<String, Value> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Request {
            subject: String,
            offset: usize,
        }
        let request: Request = read_optional(body).unwrap_or_default();
        let is_asked = |s: &&Stream| {
            let subjects = &s.store.config.subjects;
            request.subject.is_empty() || subjects.iter().any(|p| overlaps(p, &request.subject))
        };
        let streams = self.streams.values().filter(is_asked);
        page(streams.map(|s| s.store.config.name.clone()).collect(), request.offset, "streams")
    }

    fn stream_delete(&mut self, name: &str) -> Reply {
        let Some(mut stream) = self.streams.remove(name) else {
            return Err(ApiError::stream_not_found());
        };
        for consumer in stream.consumers.values_mut() {
            consumer.end_pulls("409 Consumer Deleted", false, &mut self.out);
        }
        Ok(fields(json!({"success": true})))
    }

    fn stream_purge(&mut self, name: &str, body: &[u8]) -> Reply {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Request {
            filter: String,
            seq: u64,
            keep: usize,
        }
        let request: Request = read_optional(body)?;
        let stream = self.stream_mut(name)?;
        if request.seq > 0 && request.keep > 0 {
            return Err(ApiError::bad_request());
        }
        let below = if request.seq == 0 { u64::MAX } else { request.seq };
        let removed = stream.store.purge(&request.filter, below, request.keep);
        let first_seq = stream.store.first_seq();
        stream.consumers.values_mut().for_each(|c| c.forget(&removed, first_seq));
        Ok(fields(json!({"success": true, "purged": removed.len()})))
    }

    fn message_get(&self, name: &str, body: &[u8]) -> Reply {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Request {
            seq: u64,
            last_by_subj: String,
            next_by_subj: String,
        }
        let request: Request = read_optional(body)?;
        let store = &self.stream(name)?.store;
        let found = if !request.last_by_subj.is_empty() {
            store.last_matching(request.last_by_subj.as_bytes())
        } else if !request.next_by_subj.is_empty() {
            store.next_matching(request.seq, &[&request.next_by_subj])
        } else {
            store.get(request.seq).map(|m| (request.seq, m))
        };
        let (seq, stored) = found.ok_or_else(ApiError::message_not_found)?;
        Ok(fields(json!({"message": message_json(seq, stored)})))
    }

    fn message_delete(&mut self, name: &str, body: &[u8]) -> Reply {
        #[derive(Deserialize)]
        struct Request {
            seq: u64,
        }
        let request: Request =
            serde_json::from_slice(body).map_err(|_| ApiError::invalid_json())?;
        let stream = self.stream_mut(name)?;
        if stream.store.config.deny_delete {
            return Err(ApiError::new(500, 10057, "message delete not permitted"));
        }
        if stream.store.remove(request.seq).is_none() {
            let text = format!("sequence {} not found", request.seq);
            return Err(ApiError::new(400, 10043, text));
        }
        stream.consumers.values_mut().for_each(|c| c.forget(&[request.seq], 0));
        Ok(fields(json!({"success": true})))
    }

    fn consumer_create(&mut self, now: Now, call: (&str, &str), body: &[u8]) -> Reply {
        let version = self.version;
        let (stream_name, request) = self.read_consumer(call, body)?;
        let removed = (stream_name.clone(), request.config.name.clone());
        let is_mute = self.removing.get(&removed).is_some_and(|until| now.mono < *until);
        let CreateRequest { config, action } = request;
        let stream = self.stream_mut(&stream_name)?;
        let name = config.name.clone();
        let known = stream.consumers.get(&name).map(|c| c.config.clone());
        match (action, known) {
            (Action::Create, Some(known)) if known != config => {
                return Err(ApiError::new(400, 10148, "consumer already exists"));
            }
            (Action::Update, None) => {
                return Err(ApiError::new(400, 10149, "consumer does not exist"));
            }
            (_, Some(known)) => {
                if let Some(text) = known.update_refused(&config) {
                    return Err(ApiError::new(500, 10012, text));
                }
                stream.consumers.entry(name.clone()).and_modify(|c| c.update(config));
            }
            (Action::Create | Action::Either, None) => {
                stream.admit(&config, version)?;
                let mut consumer = Consumer::new(config, &stream.store, now);
                consumer.is_mute = is_mute;
                stream.consumers.insert(name.clone(), consumer);
            }
        }
        self.consumer_fields(&stream_name, &name)
    }

    /// Reads the three forms of CONSUMER.CREATE and the older DURABLE.CREATE.
    fn read_consumer(
        &mut self,
        (head, target): (&str, &str),
        body: &[u8],
    ) -> Result<(String, CreateRequest), ApiError> {
        let mut parts = target.splitn(3, '.');
        let stream = parts.next().unwrap_or_default().to_owned();
        let (named, filter) = (parts.next(), parts.next());
        let value: Value = serde_json::from_slice(body).map_err(|_| ApiError::invalid_json())?;
        if value["stream_name"].as_str().is_some_and(|s| s != stream) {
            return Err(ApiError::new(400, 10056, "stream name in subject does not match request"));
        }
        let mut config = ConsumerConfig::read(value["config"].clone(), self.version)?;
        if head == "CONSUMER.DURABLE.CREATE" && config.durable_name.is_empty() {
            let text = "consumer expected to be durable but a durable name was not set";
            return Err(ApiError::new(400, 10020, text));
        }
        if let Some(filter) = filter {
            if !config.filter_subjects.is_empty() {
                let text = "consumer with multiple subject filters cannot use subject based API";
                return Err(ApiError::new(400, 10137, text));
            }
            if config.filter_subject != filter {
                let text =
                    "consumer create request did not match filtered subject from create subject";
                return Err(ApiError::new(400, 10131, text));
            }
        }
        config.name = self.consumer_name(named, &config)?;
        let action = Action::read(value["action"].as_str(), self.version);
        Ok((stream, CreateRequest { config, action }))
    }

    /// The name in the subject wins over the one in the body.
    fn consumer_name(
        &mut self,
        named: Option<&str>,
        config: &ConsumerConfig,
    ) -> Result<String, ApiError> {
        let durable = Some(config.durable_name.as_str()).filter(|n| !n.is_empty());
        let given = Some(config.name.as_str()).filter(|n| !n.is_empty());
        let Some(name) = named.or(durable).or(given) else {
            self.names_made += 1;
            return Ok(format!("eph{:06}", self.names_made));
        };
        if durable.is_some_and(|d| d != name) {
            let text = "consumer name in subject does not match durable name in request";
            return Err(ApiError::new(400, 10017, text));
        }
        if !is_valid_name(name) {
            return Err(ApiError::new(400, 10103, "durable name can not contain '.', '*', '>'"));
        }
        Ok(name.to_owned())
    }

    fn consumer_info(&mut self, target: &str) -> Reply {
        let (stream, consumer) = target.split_once('.').unwrap_or((target, ""));
        self.stream(stream)?;
        self.consumer_fields(stream, consumer)
    }

    pub(super) fn consumer_delete(&mut self, target: &str) -> Reply {
        let (stream, name) = target.split_once('.').unwrap_or((target, ""));
        let removed = self.stream_mut(stream)?.consumers.remove(name);
        let mut consumer = removed.ok_or_else(ApiError::consumer_not_found)?;
        consumer.end_pulls("409 Consumer Deleted", false, &mut self.out);
        Ok(fields(json!({"success": true})))
    }

    fn consumer_names(&self, name: &str, body: &[u8]) -> Reply {
        #[derive(Default, Deserialize)]
        struct Request {
            #[serde(default)]
            offset: usize,
        }
        let request: Request = read_optional(body)?;
        let names = self.stream(name)?.consumers.keys().cloned().collect();
        Ok(page(names, request.offset, "consumers"))
    }

    fn consumer_fields(&mut self, stream_name: &str, name: &str) -> Reply {
        let Stream { store, consumers } = self.stream_mut(stream_name)?;
        let consumer = consumers.get_mut(name).ok_or_else(ApiError::consumer_not_found)?;
        let (delivered, floor) = (consumer.delivered(), consumer.floor());
        let backlog = consumer.backlog(store);
        Ok(fields(json!({
            "stream_name": stream_name, "name": name, "created": rfc3339(consumer.created.wall),
            "config": consumer.config,
            "delivered": {"consumer_seq": delivered.consumer, "stream_seq": delivered.stream},
            "ack_floor": {"consumer_seq": floor.consumer, "stream_seq": floor.stream},
            "num_ack_pending": consumer.ack_pending(), "num_redelivered": consumer.redelivered(),
            "num_waiting": consumer.waiting(), "num_pending": backlog,
        })))
    }

    fn stream(&self, name: &str) -> Result<&Stream, ApiError> {
        self.streams.get(name).ok_or_else(ApiError::stream_not_found)
    }

    fn stream_mut(&mut self, name: &str) -> Result<&mut Stream, ApiError> {
        self.streams.get_mut(name).ok_or_else(ApiError::stream_not_found)
    }
}

struct CreateRequest {
    config: ConsumerConfig,
    action: Action,
}

/// `action` of a consumer request, obeyed from 2.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Create,
    Update,
    Either,
}

impl Action {
    fn read(text: Option<&str>, version: Version) -> Self {
        match text.filter(|_| version.since(10)) {
            Some("create") => Self::Create,
            Some("update") => Self::Update,
            Some(_) | None => Self::Either,
        }
    }
}

impl Stream {
    /// Whether a new consumer with this config may be made.
    fn admit(&self, config: &ConsumerConfig, version: Version) -> Result<(), ApiError> {
        let limit = match usize::try_from(self.store.config.max_consumers) {
            Ok(limit) => limit,
            Err(_) if version.since(15) => CONSUMERS_MAX_DEFAULT,
            Err(_) => usize::MAX,
        };
        if self.consumers.len() >= limit {
            return Err(ApiError::new(400, 10026, "maximum consumers limit reached"));
        }
        let filters = config.filters();
        let outside = |f: &&str| !self.store.config.subjects.iter().any(|s| overlaps(s, f));
        if !version.since(10) && filters.iter().any(outside) {
            let text = "consumer filter subject is not a valid subset of the interest subjects";
            return Err(ApiError::new(400, 10093, text));
        }
        let collides = |(i, f): (usize, &&str)| filters[i + 1..].iter().any(|g| overlaps(f, g));
        if filters.iter().enumerate().any(collides) {
            return Err(ApiError::new(400, 10138, "consumer subject filters cannot overlap"));
        }
        if !config.backoff.is_empty() && config.max_deliver <= config.backoff.len() as i64 {
            let text = "max deliver is required to be > length of backoff values";
            return Err(ApiError::new(400, 10116, text));
        }
        self.admit_to_work_queue(config)
    }

    fn admit_to_work_queue(&self, config: &ConsumerConfig) -> Result<(), ApiError> {
        if self.store.config.retention != Retention::WorkQueue {
            return Ok(());
        }
        if config.ack_policy != AckPolicy::Explicit {
            return Err(ApiError::new(400, 10098, "workqueue stream requires explicit ack"));
        }
        if config.deliver_policy != DeliverPolicy::All {
            let text = "consumer must be deliver all on workqueue stream";
            return Err(ApiError::new(400, 10101, text));
        }
        let mine = config.filters();
        let is_shared = self.consumers.values().any(|c| {
            let theirs = c.config.filters();
            let is_open = mine.is_empty() || theirs.is_empty();
            is_open || mine.iter().any(|m| theirs.iter().any(|t| overlaps(m, t)))
        });
        match (is_shared, mine.is_empty()) {
            (true, true) => {
                let text = "multiple non-filtered consumers not allowed on workqueue stream";
                Err(ApiError::new(400, 10099, text))
            }
            (true, false) => {
                let text = "filtered consumer not unique on workqueue stream";
                Err(ApiError::new(400, 10100, text))
            }
            (false, _) => Ok(()),
        }
    }
}

/// Splits `STREAM.MSG.GET.S` into `STREAM.MSG.GET` and `S`.
fn split_call(call: &str) -> (&str, &str) {
    const LONG: [&str; 3] = ["STREAM.MSG.GET", "STREAM.MSG.DELETE", "CONSUMER.DURABLE.CREATE"];
    if let Some(head) = LONG.iter().find(|head| call.starts_with(**head)) {
        return (head, call[head.len()..].trim_start_matches('.'));
    }
    let second_dot = call.match_indices('.').nth(1).map(|(at, _)| at);
    second_dot.map_or((call, ""), |at| (&call[..at], &call[at + 1..]))
}

fn read_optional<T: Default + for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|_| ApiError::invalid_json())
}

fn page(names: Vec<String>, offset: usize, key: &str) -> Map<String, Value> {
    let total = names.len();
    let listed: Vec<String> = names.into_iter().skip(offset).take(NAMES_PAGE).collect();
    let listed = if listed.is_empty() { Value::Null } else { json!(listed) };
    fields(json!({"total": total, "offset": offset, "limit": NAMES_PAGE, (key): listed}))
}

fn as_published(stored: &Stored) -> Publish {
    let Stored { subject, headers, payload, .. } = stored.clone();
    Publish { subject, reply: None, headers, payload }
}

fn stream_fields(stream: &Stream) -> Map<String, Value> {
    let store = &stream.store;
    let stamp = |m: Option<&Stored>| rfc3339(m.map_or(0, |m| m.at.wall));
    let first = store.iter().next().map(|(_, m)| m);
    fields(json!({
        "config": store.config,
        "created": rfc3339(store.created.wall),
        "state": {
            "messages": store.len(), "bytes": store.bytes(),
            "first_seq": store.first_seq(), "first_ts": stamp(first),
            "last_seq": store.last_seq(), "last_ts": stamp(store.get(store.last_seq())),
            "num_subjects": store.subjects().count(), "consumer_count": stream.consumers.len(),
        },
    }))
}

fn message_json(seq: u64, stored: &Stored) -> Value {
    let mut message = json!({
        "subject": String::from_utf8_lossy(&stored.subject), "seq": seq,
        "time": rfc3339(stored.at.wall),
    });
    if !stored.headers.is_empty() {
        message["hdrs"] = STANDARD.encode(&stored.headers).into();
    }
    if !stored.payload.is_empty() {
        message["data"] = STANDARD.encode(&stored.payload).into();
    }
    message
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("only called with object literals"),
    }
}
