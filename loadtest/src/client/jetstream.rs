//! JetStream through the blocking client: API requests, streams, and reading one from any place on.
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
/// A pull that is answered by nothing, not even by its end, was not heard.
const SILENCE_MAX: Duration = Duration::from_secs(6);

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
        let mut reading = Reading::begin(self, stream, &Start::Seq(from))?;
        let mut read = 0;
        let outcome = loop {
            // A reading that is told nothing fails by itself, so this one may wait.
            match reading.next(self, Instant::now() + 2 * SILENCE_MAX) {
                Ok(None) => {}
                Ok(Some(pulled)) => {
                    read += 1;
                    if each(pulled.stored()).is_break() || pulled.seq >= end {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let ended = reading.end(self);
        outcome?;
        ended.map(|()| read)
    }
}

/// Where a reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this sequence, or the first one behind it.
    Seq(u64),
    /// At the first message stored at this time or later; RFC 3339.
    Time(String),
}

/// A message of a reading.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Subject, headers and payload.
    pub message: Msg,
    /// Position in the stream.
    pub seq: u64,
    /// When the server stored it, nanoseconds since the epoch.
    pub stored_ns: u64,
    /// Messages behind it when it was delivered; 0 at the end of the stream.
    pub behind: u64,
}

impl Pulled {
    fn stored(&self) -> Stored<'_> {
        Stored { message: &self.message, seq: self.seq, stored_ns: self.stored_ns }
    }
}

/// A reading of a stream that goes on past its end: an ephemeral pull consumer without acks, of which the
/// server forgets a minute after its reader is gone. Invariant: it gives every message once, in stream
/// order, or an error; who meets one begins anew behind the last sequence he got.
#[derive(Debug)]
pub struct Reading {
    stream: String,
    consumer: String,
    inbox: String,
    sid: u64,
    credit: u64,
    /// Of the consumer's deliveries.
    delivered: u64,
    heard_at: Instant,
    waiting: u64,
}

impl Reading {
    /// Begins to read.
    ///
    /// # Errors
    /// As [`Client::jetstream`]; a work-queue stream refuses: its messages are for its own consumers.
    pub fn begin(client: &mut Client, stream: &str, start: &Start) -> Result<Self, ClientError> {
        let mut config = json!({
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": true,
            "inactive_threshold": nanos(Duration::from_secs(60)),
        });
        match start {
            Start::Seq(seq) => {
                config["deliver_policy"] = "by_start_sequence".into();
                config["opt_start_seq"] = (*seq).max(1).into();
            }
            Start::Time(time) => {
                config["deliver_policy"] = "by_start_time".into();
                config["opt_start_time"] = time.as_str().into();
            }
        }
        let body = json!({ "stream_name": stream, "config": config });
        let answer = client.jetstream(&format!("CONSUMER.CREATE.{stream}"), &body)?;
        let consumer = answer["name"].as_str().unwrap_or_default().to_owned();
        let inbox = format!("{}.p.{consumer}", client.inbox_prefix());
        let sid = client.subscribe(&inbox)?;
        Ok(Self {
            stream: stream.to_owned(),
            consumer,
            inbox,
            sid,
            credit: 0,
            delivered: 0,
            heard_at: Instant::now(),
            waiting: answer["num_pending"].as_u64().unwrap_or(0),
        })
    }

    /// Messages that lay in the stream when the reading began.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The next message, or `None` at `deadline`.
    ///
    /// # Errors
    /// The connection, or a consumer that the server has lost.
    pub fn next(
        &mut self,
        client: &mut Client,
        deadline: Instant,
    ) -> Result<Option<Pulled>, ClientError> {
        loop {
            if self.credit < BATCH / 2 {
                self.pull(client)?;
            }
            let silent_at = self.heard_at + SILENCE_MAX;
            let Some(message) = client.receive(deadline.min(silent_at))? else {
                if Instant::now() >= silent_at {
                    let to = format!("pull from {}", self.stream);
                    return Err(ClientError::Timeout { to, waited: SILENCE_MAX });
                }
                // A PONG may be owed.
                client.flush()?;
                return Ok(None);
            };
            if message.sid() != self.sid {
                continue;
            }
            self.heard_at = Instant::now();
            match pulled(&message) {
                Some((ack, pulled)) => {
                    self.delivered += 1;
                    if ack != self.delivered {
                        let text = format!("deliveries {} to {} are missing", self.delivered, ack);
                        return Err(ClientError::Server(text));
                    }
                    self.credit = self.credit.saturating_sub(1);
                    return Ok(Some(pulled));
                }
                None => self.take_status(&message)?,
            }
        }
    }

    /// Ends the reading; the server may forget its consumer.
    ///
    /// # Errors
    /// As [`Client::jetstream`].
    pub fn end(self, client: &mut Client) -> Result<(), ClientError> {
        client.unsubscribe(self.sid);
        let call = format!("CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        client.jetstream(&call, &Value::Null).map(drop)
    }

    fn pull(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        let body = json!({ "batch": BATCH, "expires": nanos(PULL_EXPIRES) }).to_string();
        client.publish(&next, Some(&self.inbox), body.as_bytes())?;
        client.flush()?;
        self.credit += BATCH;
        Ok(())
    }

    /// A status ends a pull; what it had left is asked for again.
    fn take_status(&mut self, message: &Msg) -> Result<(), ClientError> {
        self.credit = 0;
        match message.status() {
            Some(status) if matches!(status.code, 409 | 503) => {
                let words = String::from_utf8_lossy(status.description);
                Err(ClientError::Server(format!("{} {words}", status.code)))
            }
            _ => Ok(()),
        }
    }
}

/// The place among the consumer's deliveries, and the message.
fn pulled(message: &Msg) -> Option<(u64, Pulled)> {
    let ack = AckSubject::parse(message.reply()?).ok()?;
    let AckSubject { stream_seq, consumer_seq, timestamp_ns, pending, .. } = ack;
    let message = message.clone();
    let pulled = Pulled { message, seq: stream_seq, stored_ns: timestamp_ns, behind: pending };
    Some((consumer_seq, pulled))
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
