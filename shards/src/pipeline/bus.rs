//! The shard's one NATS connection as the pipeline sees it: requests with an answer, publishes with a
//! PubAck, acks, pulls. Owns the connection's state machine, its inboxes and its reconnection; knows
//! nothing of events. Invariant: after `lost` nothing of the old connection is waited for.

use super::effect::Effect;
use super::pubacks::PubAcks;
use super::settings::NatsSettings;
use crate::clock::Now;
use crate::domain::retry::Backoff;
use crate::wire::nats::auth::Credentials;
use crate::wire::nats::conn::{Conn, ConnError, ConnEvent};
use crate::wire::nats::encode;
use crate::wire::nats::headers::HeaderWriter;
use crate::wire::nats::jetstream::{ErrorClass, PubAck};
use crate::wire::nats::op::Msg;
use crate::wire::nats::subject::SubjectError;
use bytes::BytesMut;
use serde_json::Value;
use std::collections::VecDeque;

/// Subscription of PubAcks.
pub(super) const SID_ACKS: u64 = 1;
/// Subscription of API answers.
pub(super) const SID_REQUESTS: u64 = 2;
/// Subscriptions of the readers' pulls begin here.
pub(super) const SID_READERS: u64 = 16;

/// Delay before bad credentials are tried again.
const AUTH_RETRY: u64 = 4 * crate::clock::SEC;

/// A flight of the stage, named so that a stale name is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlightRef {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Who waits for a PubAck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckFor {
    Event {
        flight: FlightRef,
        prefix: u8,
    },
    DeadLetter {
        flight: FlightRef,
    },
    /// A dead letter of ingest, by its number.
    Refused {
        number: u64,
    },
    Lease {
        reader: usize,
    },
    Position {
        reader: usize,
        asked: u32,
    },
    /// Nobody waits: it is written again soon.
    Presence,
}

/// Who waits for an API answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Setup,
    /// By the number of its question.
    Reader(usize, u32),
    /// As well.
    Letters(u32),
    Nobody,
    Lease(usize),
    Share,
}

/// An answer, or what came instead.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    Message(&'a Msg),
    NoResponders,
    Timeout,
}

impl Answer<'_> {
    /// The JSON that a JetStream API answers with; `nobody` says what it means that nobody listens.
    pub(super) fn value(&self, nobody: &str) -> Result<Value, String> {
        match self {
            Answer::Message(msg) => serde_json::from_slice(msg.payload())
                .map_err(|error| format!("unreadable answer of the JetStream API: {error}")),
            Answer::NoResponders => Err(nobody.to_owned()),
            Answer::Timeout => Err("the JetStream API does not answer".to_owned()),
        }
    }
}

/// What a message turned out to be.
pub(super) enum Arrival {
    PubAck(AckFor, Msg),
    Answer(Asker, Msg),
    Delivery(usize, Msg),
    Unknown,
}

struct Request {
    number: u64,
    asker: Asker,
    deadline: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { retry_at: u64 },
    Connecting,
    Open,
}

/// The connection and all that waits on it.
pub(super) struct Bus {
    settings: NatsSettings,
    pub(super) conn: Conn,
    link: Link,
    backoff: Backoff,
    inbox: String,
    acks: PubAcks<AckFor>,
    requests: VecDeque<Request>,
    next_request: u64,
    /// Subscriptions a reader has had on this connection, so that what it pulled by an earlier one finds
    /// nobody.
    rounds: Vec<u32>,
    pub(super) down_reason: Option<String>,
}

impl Bus {
    pub(super) fn new(settings: &NatsSettings, acks_capacity: usize) -> Self {
        Self {
            settings: settings.clone(),
            conn: Conn::new(settings.conn.clone()),
            link: Link::Down { retry_at: 0 },
            backoff: Backoff::new(settings.backoff.0, settings.backoff.1),
            inbox: String::new(),
            acks: PubAcks::with_capacity(acks_capacity),
            requests: VecDeque::new(),
            next_request: 0,
            rounds: Vec::new(),
            down_reason: Some("not connected yet".into()),
        }
    }

    /// The socket is open. Inboxes are new on every connection: answers to the old one find nobody.
    pub(super) fn opened(
        &mut self,
        now: Now,
        credentials: Credentials,
        rng: &mut fastrand::Rng,
        effects: &mut VecDeque<Effect>,
    ) {
        let nonce: String = std::iter::repeat_with(|| rng.alphanumeric()).take(22).collect();
        self.inbox = format!("_INBOX.{nonce}");
        self.link = Link::Open;
        if self.conn.open(now, credentials) {
            effects.push_back(Effect::NatsStartTls);
        }
    }

    /// The handshake is through: subscribe.
    pub(super) fn ready(&mut self, readers: usize) {
        self.backoff.reset();
        self.down_reason = None;
        let out = self.conn.out();
        written(encode::encode_sub(out, format!("{}.a.*", self.inbox).as_bytes(), None, SID_ACKS));
        written(encode::encode_sub(
            out,
            format!("{}.r.*", self.inbox).as_bytes(),
            None,
            SID_REQUESTS,
        ));
        self.rounds = vec![0; readers];
        for reader in 0..readers {
            self.subscribe_reader(reader);
        }
    }

    /// Receive what reader `reader` pulls.
    pub(super) fn subscribe_reader(&mut self, reader: usize) {
        let subject = format!("{}.p{reader}-{}.*", self.inbox, self.rounds[reader]);
        let sid = SID_READERS + reader as u64;
        written(encode::encode_sub(self.conn.out(), subject.as_bytes(), None, sid));
    }

    /// Stop receiving: the server drops the reader's open pulls.
    pub(super) fn unsubscribe_reader(&mut self, reader: usize) {
        encode::encode_unsub(self.conn.out(), SID_READERS + reader as u64, None);
        self.rounds[reader] += 1;
    }

    /// The socket is closed, or has to be. True if the connection had been through its handshake.
    pub(super) fn lost(
        &mut self,
        now: Now,
        why: &str,
        auth: bool,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let was_ready = self.conn.is_ready();
        self.conn.close();
        self.acks.clear();
        self.requests.clear();
        let mut delay = self.backoff.next_delay(rng);
        if auth {
            delay = AUTH_RETRY; // Hammering a server with bad credentials helps nobody.
        }
        if was_ready {
            delay = rng.u64(0..=self.settings.backoff.0); // First attempt at once, but not in step.
        }
        self.link = Link::Down { retry_at: now.mono + delay };
        self.down_reason = Some(why.to_owned());
        was_ready
    }

    /// Time goes by: reconnection, keep-alive, overdue handshake.
    pub(super) fn tick(
        &mut self,
        now: Now,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), ConnError> {
        match self.link {
            Link::Down { retry_at } if now.mono >= retry_at => {
                self.link = Link::Connecting;
                effects.push_back(Effect::NatsConnect);
                Ok(())
            }
            Link::Open => self.conn.tick(now),
            Link::Down { .. } | Link::Connecting => Ok(()),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.conn.is_ready()
    }

    pub(super) fn next_event(
        &mut self,
        now: Now,
        inbox: &mut BytesMut,
    ) -> Result<Option<ConnEvent>, ConnError> {
        self.conn.next(now, inbox)
    }

    /// Tell a message by the subscription that brought it.
    pub(super) fn classify(&mut self, msg: Msg) -> Arrival {
        match msg.sid() {
            SID_ACKS => {
                let who = tail_number(msg.subject()).and_then(|number| self.acks.resolve(number));
                who.map_or(Arrival::Unknown, |who| Arrival::PubAck(who, msg))
            }
            SID_REQUESTS => {
                let number = tail_number(msg.subject());
                let place = self.requests.iter().position(|r| Some(r.number) == number);
                let request = place.and_then(|place| self.requests.remove(place));
                request.map_or(Arrival::Unknown, |request| Arrival::Answer(request.asker, msg))
            }
            sid if sid >= SID_READERS => {
                let reader = usize::try_from(sid - SID_READERS).unwrap_or(usize::MAX);
                Arrival::Delivery(reader, msg)
            }
            _ => Arrival::Unknown,
        }
    }

    /// Is this PubAck of the first output stream, which came as `msg`, the answer to its own publish? It may
    /// be an earlier one's, sent twice.
    pub(super) fn is_own(&mut self, msg: &Msg, ack: &PubAck<'_>) -> bool {
        if ack.duplicate {
            self.acks.confirm(ack.seq);
            return true;
        }
        tail_number(msg.subject()).is_some_and(|number| self.acks.settle(number, ack.seq))
    }

    /// Send an API request; its answer, or its absence, comes back to `asker`.
    pub(super) fn request(&mut self, now: Now, asker: Asker, subject: &str, body: &[u8]) {
        self.next_request += 1;
        let number = self.next_request;
        let deadline = now.mono + self.settings.api_timeout;
        self.requests.push_back(Request { number, asker, deadline });
        let reply = format!("{}.r.{number}", self.inbox);
        written(encode::encode_pub(
            self.conn.out(),
            subject.as_bytes(),
            Some(reply.as_bytes()),
            body,
        ));
    }

    /// The next request that nobody answered in time.
    pub(super) fn pop_overdue_request(&mut self, now: Now) -> Option<Asker> {
        if self.requests.front()?.deadline > now.mono {
            return None;
        }
        self.requests.pop_front().map(|request| request.asker)
    }

    /// The next publish that nobody acknowledged in time.
    pub(super) fn pop_overdue_publish(&mut self, now: Now) -> Option<AckFor> {
        self.acks.pop_overdue(now.mono)
    }

    /// Publishes without PubAck.
    pub(super) fn publishes_open(&self) -> usize {
        self.acks.open()
    }

    /// Cold publish with headers and a PubAck, for leases, positions and dead letters.
    pub(super) fn publish(
        &mut self,
        deadline: u64,
        who: AckFor,
        subject: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let number = self.acks.register_once(who, deadline);
        let reply = format!("{}.a.{number}", self.inbox);
        let mut block = BytesMut::new();
        let mut writer = HeaderWriter::begin(&mut block);
        for (name, value) in headers {
            // Values are ours: numbers, checked ids. A refused one is left out, never sent broken.
            let _refused = writer.add(name.as_bytes(), value.as_bytes());
        }
        let _length = writer.finish();
        let (out, reply) = (self.conn.out(), Some(reply.as_bytes()));
        written(encode::encode_hpub(out, subject.as_bytes(), reply, &block, body));
    }

    /// Register a hot publish: the number for its reply, and the two halves of the reply subject.
    pub(super) fn begin_publish(
        &mut self,
        deadline: u64,
        who: AckFor,
    ) -> (u64, &str, &mut BytesMut) {
        let number = match who {
            AckFor::Event { prefix: 0, .. } => self.acks.register(who, deadline),
            // Nobody asks `is_own` of other answers.
            _ => self.acks.register_once(who, deadline),
        };
        (number, &self.inbox, self.conn.out())
    }

    /// Acknowledge: an empty publish to the ack subject.
    pub(super) fn ack(&mut self, subject: &[u8]) {
        written(encode::encode_pub(self.conn.out(), subject, None, b""));
    }

    /// Restart a message's `ack_wait`.
    pub(super) fn extend(&mut self, subject: &[u8]) {
        written(encode::encode_pub(self.conn.out(), subject, None, b"+WPI"));
    }

    /// Deliver it again, after `delay` nanoseconds at the earliest.
    pub(super) fn nak(&mut self, subject: &[u8], delay: u64) {
        let body = format!(r#"-NAK {{"delay":{delay}}}"#);
        written(encode::encode_pub(self.conn.out(), subject, None, body.as_bytes()));
    }

    /// Never deliver it again.
    pub(super) fn terminate(&mut self, subject: &[u8]) {
        written(encode::encode_pub(self.conn.out(), subject, None, b"+TERM"));
    }

    /// Send a pull for `reader`.
    pub(super) fn pull(&mut self, reader: usize, id: u64, subject: &str, body: &[u8]) {
        let reply = format!("{}.p{reader}-{}.{id}", self.inbox, self.rounds[reader]);
        written(encode::encode_pub(
            self.conn.out(),
            subject.as_bytes(),
            Some(reply.as_bytes()),
            body,
        ));
    }
}

// Every subject here is made of configured names and our own tokens, or was sent to us as a reply; one
// that the codec refuses is our bug, and what waits for its answer will time out and say so.
fn written(result: Result<(), SubjectError>) {
    if let Err(error) = result {
        tracing::error!(%error, "a subject of ours was refused by our own codec");
        debug_assert!(false, "a subject of ours was refused: {error}");
    }
}

/// What a stream says to a publish, or why it is not stored.
pub(super) fn read_puback(msg: &Msg) -> Result<PubAck<'_>, (ErrorClass, String)> {
    if let Some(status) = msg.status() {
        return Err((ErrorClass::Transient, format!("status {}", status.code)));
    }
    PubAck::parse(msg.payload()).map_err(|error| (error.class(), error.to_string()))
}

/// The number in a subject's last token; `None` unless that is 1 to 19 digits.
#[must_use]
pub fn tail_number(subject: &[u8]) -> Option<u64> {
    let tail = subject.rsplit(|byte| *byte == b'.').next()?;
    if tail.is_empty() || tail.len() > 19 {
        return None;
    }
    tail.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SEC;
    use crate::wire::nats::conn::ConnSettings;
    use crate::wire::nats::decode::DecodeLimits;

    #[test]
    fn only_publishes_of_the_first_prefix_take_numbers_again() {
        let conn = ConnSettings {
            name: "x".to_owned(),
            ping_interval: SEC,
            handshake_timeout: SEC,
            tls_required: false,
            tls_first: false,
            limits: DecodeLimits::default(),
        };
        let backoff = (SEC, SEC);
        let settings = NatsSettings { conn, api_timeout: SEC, stream_replicas: 1, backoff };
        let mut bus = Bus::new(&settings, 4);
        let flight = FlightRef { slot: 0, generation: 0 };
        let (first, ..) = bus.begin_publish(SEC, AckFor::Event { flight, prefix: 0 });
        assert!(bus.acks.resolve(first).is_some() && bus.acks.settle(first, 1));
        let (other, ..) = bus.begin_publish(SEC, AckFor::Event { flight, prefix: 1 });
        assert_ne!(
            other, first,
            "an answer to the first that comes again would be taken for its own"
        );
    }

    #[test]
    fn only_a_plain_number_is_a_tail() {
        for (subject, number) in [
            ("_INBOX.x.a.12", Some(12)),
            ("_INBOX.x.a.", None),
            ("_INBOX.x.a.1b", None),
            ("_INBOX.x.a.99999999999999999999", None),
            ("7", Some(7)),
        ] {
            assert_eq!(tail_number(subject.as_bytes()), number, "{subject}");
        }
    }
}
