//! JetStream through the blocking client: API requests, streams, and reading one from its start.
//! Source: NATS reference, JetStream API; only fields that 2.9 knows are sent.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shards::wire::nats::jetstream::AckSubject;
use shards::wire::nats::op::Msg;

use super::{Client, ClientError};

/// A stream to be created.
#[derive(Clone, Copy, Debug)]
pub struct StreamSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Subjects it captures.
    pub subjects: &'a [&'a str],
    /// `Nats-Msg-Id` seen within this window are dropped.
    pub duplicate_window: Duration,
}

/// A message read from a stream.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Subject, headers and payload.
    pub message: &'a Msg,
    /// Position in the stream.
    pub seq: u64,
    /// When the server stored it, nanoseconds since the epoch.
    pub stored_ns: u64,
}

const BATCH: u64 = 2_000;
const PULL_EXPIRES: Duration = Duration::from_secs(2);

impl Client {
    /// A request to `$JS.API.<call>`; the answer without its envelope's errors.
    ///
    /// # Errors
    /// [`ClientError::JetStream`] with the server's words, or what [`Client::request`] says.
    pub fn jetstream(&mut self, call: &str, body: &Value) -> Result<Value, ClientError> {
        let subject = format!("$JS.API.{call}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.request(&subject, body.as_bytes())?;
        let size = answer.payload().len();
        let answer: Value = serde_json::from_slice(answer.payload())
            .map_err(|source| ClientError::Json { size, source })?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(ClientError::JetStream {
                subject,
                err_code: error["err_code"].as_u64().unwrap_or(0),
                description: error["description"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Creates a file stream with limits retention; the same one again is success.
    ///
    /// # Errors
    /// As [`Client::jetstream`].
    pub fn create_stream(&mut self, stream: StreamSpec<'_>) -> Result<(), ClientError> {
        let body = json!({
            "name": stream.name,
            "subjects": stream.subjects,
            "retention": "limits",
            "storage": "file",
            "num_replicas": 1,
            "duplicate_window": nanos(stream.duplicate_window),
        });
        self.jetstream(&format!("STREAM.CREATE.{}", stream.name), &body).map(drop)
    }

    /// First and last sequence of a stream; the last is 0 where nothing was ever stored.
    ///
    /// # Errors
    /// As [`Client::jetstream`]; err_code 10059 if there is no such stream.
    pub fn stream_range(&mut self, stream: &str) -> Result<(u64, u64), ClientError> {
        let answer = self.jetstream(&format!("STREAM.INFO.{stream}"), &Value::Null)?;
        let number = |field: &str| answer["state"][field].as_u64().unwrap_or(0);
        Ok((number("first_seq"), number("last_seq")))
    }

    /// Reads a stream from `from` to the end it has when asked, through an ordinary pull consumer
    /// without acks, in stream order. Returns the number of messages read.
    ///
    /// # Errors
    /// As [`Client::jetstream`]; a timeout if the server stops delivering before the end.
    pub fn read_stream(
        &mut self,
        stream: &str,
        from: u64,
        mut each: impl FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<u64, ClientError> {
        let (_, end) = self.stream_range(stream)?;
        if end < from.max(1) {
            return Ok(0);
        }
        let consumer = self.create_reader(stream, from)?;
        let inbox = format!("{}.p.{consumer}", self.inbox_prefix());
        let sid = self.subscribe(&inbox)?;
        let outcome = self.pull_until(stream, &consumer, (&inbox, sid), end, &mut each);
        self.unsubscribe(sid);
        let deleted = self.jetstream(&format!("CONSUMER.DELETE.{stream}.{consumer}"), &Value::Null);
        let read = outcome?;
        deleted?;
        Ok(read)
    }

    fn create_reader(&mut self, stream: &str, from: u64) -> Result<String, ClientError> {
        let config = json!({
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": from.max(1),
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": true,
            "inactive_threshold": nanos(Duration::from_secs(60)),
        });
        let body = json!({ "stream_name": stream, "config": config });
        let answer = self.jetstream(&format!("CONSUMER.CREATE.{stream}"), &body)?;
        Ok(answer["name"].as_str().unwrap_or_default().to_owned())
    }

    fn pull_until(
        &mut self,
        stream: &str,
        consumer: &str,
        (inbox, sid): (&str, u64),
        end: u64,
        each: &mut impl FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<u64, ClientError> {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let body = json!({ "batch": BATCH, "expires": nanos(PULL_EXPIRES) }).to_string();
        let (mut read, mut credit) = (0, 0);
        loop {
            if credit < BATCH / 2 {
                self.publish(&next, Some(inbox), body.as_bytes())?;
                self.flush()?;
                credit += BATCH;
            }
            let deadline = Instant::now() + 3 * PULL_EXPIRES;
            let Some(message) = self.receive(deadline)? else {
                return Err(ClientError::Timeout { to: next, waited: 3 * PULL_EXPIRES });
            };
            let Some(stored) = stored(&message).filter(|_| message.sid() == sid) else {
                // A status ends a pull; what it had left is asked for again.
                credit = if message.sid() == sid { 0 } else { credit };
                continue;
            };
            credit = credit.saturating_sub(1);
            read += 1;
            if each(stored).is_break() || stored.seq >= end {
                return Ok(read);
            }
        }
    }
}

fn stored(message: &Msg) -> Option<Stored<'_>> {
    let ack = AckSubject::parse(message.reply()?).ok()?;
    Some(Stored { message, seq: ack.stream_seq, stored_ns: ack.timestamp_ns })
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
