//! The relay without its socket: bytes of the server in, bytes for the server out. Invariants: a message
//! is published once its place in the window is free, and acknowledged only after its PubAck and those of
//! all before it. Any refusal, gap or silence ends it. Source: reference of JetStream pulls and acks.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use shards::clock::{Now, SEC};
use shards::domain::progress::{Admission, Progress};
use shards::pipeline::{PubAcks, tail_number};
use shards::wire::nats::auth::Credentials;
use shards::wire::nats::conn::{Conn, ConnError, ConnEvent, ConnSettings};
use shards::wire::nats::decode::DecodeLimits;
use shards::wire::nats::encode::{begin_hpub, begin_pub, encode_pub, encode_sub, end_pub};
use shards::wire::nats::headers::Headers;
use shards::wire::nats::jetstream::{
    AckPolicy, AckSubject, AckSubjectError, Api, ConsumerAction, ConsumerConfig, ConsumerInfo,
    PubAck, PubAckError, PullRequest, ResponseError, Unsupported, parse_response,
};
use shards::wire::nats::op::Msg;
use shards::wire::nats::pull::{PullLimits, PullNews, Puller};
use shards::wire::nats::subject::SubjectError;

const SID_ACKS: u64 = 1;
const SID_API: u64 = 2;
const SID_PULLS: u64 = 3;
/// daisi's `cdc.publish_timeout`.
const PUBACK_TIMEOUT: u64 = 5 * SEC;
/// daisi's `cdc.max_ack_pending`.
const ACK_PENDING_MAX: i64 = 5000;
/// The server forgets our consumer after this long without us.
const CONSUMER_IDLE_MAX_NS: i64 = 60 * 1_000_000_000;

/// Why the relay ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Conn(#[from] ConnError),
    #[error("the server says: {0}")]
    Complaint(String),
    #[error("the server is going away")]
    LameDuck,
    #[error("the server tells no version we can read: {0:?}")]
    Version(String),
    #[error("consumer: {0}")]
    Unsupported(#[from] Unsupported),
    #[error("consumer: {0}")]
    Consumer(#[from] ResponseError),
    #[error("pull: {0:?}")]
    Pull(PullNews),
    #[error("delivery: {0}")]
    Delivery(#[from] AckSubjectError),
    #[error("a delivery was missed before number {0} of the consumer")]
    Gap(u64),
    #[error("a delivery on {0}, which is not below cdc.")]
    Foreign(String),
    #[error("publish: {0}")]
    Publish(#[from] PubAckError),
    #[error("publish: no PubAck in time")]
    PublishTimeout,
    #[error("a subject of ours: {0}")]
    Subject(#[from] SubjectError),
}

/// What the relay is told at its start.
pub(crate) struct Settings {
    /// Source stream.
    pub(crate) stream: String,
    /// Messages asked for or held.
    pub(crate) in_flight_max: u32,
    /// Publishes without PubAck at once.
    pub(crate) window: usize,
    /// Publish with a message id: the source's sequence.
    pub(crate) message_ids: bool,
}

/// One relay on one connection.
pub(crate) struct Relay {
    settings: Settings,
    conn: Conn,
    consumer: String,
    inbox: String,
    pull_subject: String,
    reading: bool,
    puller: Puller,
    progress: Progress,
    consumer_seq: u64,
    acks: PubAcks<u64>,
    waiting: VecDeque<(u64, u64, Msg)>,
    number: String,
    body: BytesMut,
}

impl Relay {
    /// The socket is open.
    pub(crate) fn open(now: Now, settings: Settings, rng: &mut fastrand::Rng) -> Self {
        let nonce: String = std::iter::repeat_with(|| rng.alphanumeric()).take(22).collect();
        let consumer = format!("daisi_relay_{nonce}");
        let capacity = settings.in_flight_max as usize + 1;
        let limits = PullLimits { messages_max: settings.in_flight_max, ..PullLimits::default() };
        let mut conn = Conn::new(conn_settings());
        conn.open(now, Credentials::None);
        Self {
            conn,
            pull_subject: Api::default().pull_subject(&settings.stream, &consumer),
            consumer,
            inbox: format!("_INBOX.{nonce}"),
            reading: false,
            puller: Puller::new(limits),
            progress: Progress::with_capacity(capacity),
            consumer_seq: 0,
            acks: PubAcks::with_capacity(settings.window),
            waiting: VecDeque::with_capacity(capacity),
            number: String::with_capacity(64),
            body: BytesMut::with_capacity(256),
            settings,
        }
    }

    /// Bytes came; what is decoded is taken off the front.
    pub(crate) fn receive(&mut self, now: Now, inbox: &mut BytesMut) -> Result<(), RelayError> {
        while let Some(event) = self.conn.next(now, inbox)? {
            match event {
                ConnEvent::Ready => self.prepare()?,
                ConnEvent::Msg(msg) => self.arrival(now, msg)?,
                ConnEvent::LameDuck => return Err(RelayError::LameDuck),
                ConnEvent::Complaint(text) => return Err(RelayError::Complaint(text)),
                ConnEvent::StartTls => {
                    return Err(RelayError::Complaint("TLS is required".to_owned()));
                }
                ConnEvent::Barrier => {}
            }
        }
        Ok(())
    }

    /// Time goes by: at least every 20 ms.
    pub(crate) fn tick(&mut self, now: Now) -> Result<(), RelayError> {
        self.conn.tick(now)?;
        if self.acks.pop_overdue(now.mono).is_some() {
            return Err(RelayError::PublishTimeout);
        }
        went_well(self.puller.tick(now.mono))
    }

    /// End of a turn: send what the window allows, acknowledge what may be, pull what there is room for.
    pub(crate) fn flush(&mut self, now: Now) -> Result<(), RelayError> {
        if !self.reading {
            return Ok(());
        }
        while self.acks.open() < self.settings.window {
            let Some((index, seq, msg)) = self.waiting.pop_front() else { break };
            self.publish(now, (index, seq), &msg)?;
        }
        let mut last = None;
        while let Some(durable) = self.progress.pop_durable() {
            last = Some(durable);
        }
        if let Some(durable) = last {
            encode_pub(self.conn.out(), &durable.ack, None, b"")?;
        }
        self.pull(now)
    }

    /// Bytes for the socket; take off the front what was written.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        self.conn.out()
    }

    fn prepare(&mut self) -> Result<(), RelayError> {
        let version = self.conn.info().server_version();
        let version =
            version.ok_or_else(|| RelayError::Version(self.conn.info().version.clone()))?;
        let config = ConsumerConfig {
            durable_name: Some(self.consumer.clone()),
            ack_policy: AckPolicy::All,
            max_deliver: Some(-1),
            max_ack_pending: Some(ACK_PENDING_MAX),
            inactive_threshold: Some(CONSUMER_IDLE_MAX_NS),
            ..ConsumerConfig::default()
        };
        let action = ConsumerAction::CreateOrUpdate;
        let request =
            Api::default().consumer_create(&self.settings.stream, &config, action, version)?;
        let (out, inbox) = (self.conn.out(), &self.inbox);
        encode_sub(out, format!("{inbox}.a.*").as_bytes(), None, SID_ACKS)?;
        encode_sub(out, format!("{inbox}.r.*").as_bytes(), None, SID_API)?;
        encode_sub(out, format!("{inbox}.p.*").as_bytes(), None, SID_PULLS)?;
        let reply = format!("{inbox}.r.1");
        encode_pub(out, request.subject.as_bytes(), Some(reply.as_bytes()), &request.body)?;
        Ok(())
    }

    fn arrival(&mut self, now: Now, msg: Msg) -> Result<(), RelayError> {
        match msg.sid() {
            SID_ACKS => self.on_puback(&msg),
            SID_PULLS => self.on_delivery(now, msg),
            _ => {
                let _info: ConsumerInfo = parse_response(msg.payload())?;
                self.reading = true;
                Ok(())
            }
        }
    }

    fn on_puback(&mut self, msg: &Msg) -> Result<(), RelayError> {
        let Some(number) = tail_number(msg.subject()) else { return Ok(()) };
        if let Some(index) = self.acks.resolve(number) {
            let ack = PubAck::parse(msg.payload())?;
            self.acks.settle(number, ack.seq);
            self.progress.finish(index);
        }
        Ok(())
    }

    fn on_delivery(&mut self, now: Now, msg: Msg) -> Result<(), RelayError> {
        if let Some(status) = msg.status() {
            let unserved = Headers::new(msg.headers()).get(b"Nats-Pending-Messages");
            let unserved = unserved.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let id = tail_number(msg.subject()).unwrap_or(0);
            return went_well(self.puller.on_status(now.mono, id, &status, unserved));
        }
        let ack = AckSubject::parse(msg.reply().unwrap_or_default())?;
        if ack.consumer_seq != self.consumer_seq + 1 {
            return Err(RelayError::Gap(ack.consumer_seq));
        }
        self.consumer_seq = ack.consumer_seq;
        self.puller.on_message(now.mono, msg.frame_len() as u64);
        let bytes = u32::try_from(msg.frame_len()).unwrap_or(u32::MAX);
        let (seq, stored) = (ack.stream_seq, ack.timestamp_ns);
        let subject = msg.reply_bytes().unwrap_or_default();
        let Admission::New(index) = self.progress.admit(seq, subject, bytes, now.mono, stored)
        else {
            return Ok(()); // A copy of what is held or done.
        };
        if self.waiting.is_empty() && self.acks.open() < self.settings.window {
            return self.publish(now, (index, seq), &msg);
        }
        self.waiting.push_back((index, seq, msg));
        Ok(())
    }

    fn publish(&mut self, now: Now, (index, seq): (u64, u64), msg: &Msg) -> Result<(), RelayError> {
        let Some(rest) = msg.subject().strip_prefix(b"cdc.") else {
            return Err(RelayError::Foreign(msg.subject().escape_ascii().to_string()));
        };
        let number = self.acks.register(index, now.mono + PUBACK_TIMEOUT);
        self.number.clear();
        let _infallible = std::fmt::Write::write_fmt(&mut self.number, format_args!("{number}"));
        let reply = [self.inbox.as_bytes(), b".a.", self.number.as_bytes()];
        let (out, payload) = (self.conn.out(), msg.payload());
        if self.settings.message_ids {
            self.body.clear();
            let id = format_args!("NATS/1.0\r\nNats-Msg-Id: {seq}\r\n\r\n");
            let _infallible = std::fmt::Write::write_fmt(&mut self.body, id);
            let total = self.body.len() + payload.len();
            begin_hpub(out, &[b"wa.", rest], &reply, self.body.len(), total);
            out.extend_from_slice(&self.body);
        } else {
            begin_pub(out, &[b"wa.", rest], &reply, payload.len());
        }
        out.extend_from_slice(payload);
        end_pub(out);
        Ok(())
    }

    fn pull(&mut self, now: Now) -> Result<(), RelayError> {
        let held = u32::try_from(self.progress.held()).unwrap_or(u32::MAX);
        let Some(pull) = self.puller.plan(now.mono, held, self.progress.held_bytes()) else {
            return Ok(());
        };
        let limits = PullLimits::default();
        let request = PullRequest {
            batch: pull.batch,
            max_bytes: pull.max_bytes,
            expires_ns: limits.expires,
            idle_heartbeat_ns: limits.heartbeat,
            no_wait: false,
        };
        self.body.clear();
        request.encode(&mut self.body);
        let reply = format!("{}.p.{}", self.inbox, pull.id);
        let (out, subject) = (self.conn.out(), self.pull_subject.as_bytes());
        Ok(encode_pub(out, subject, Some(reply.as_bytes()), &self.body)?)
    }
}

fn went_well(news: PullNews) -> Result<(), RelayError> {
    match news {
        PullNews::Fine | PullNews::Void => Ok(()),
        PullNews::Inspect | PullNews::Refused => Err(RelayError::Pull(news)),
    }
}

// daisi's own defaults.
fn conn_settings() -> ConnSettings {
    ConnSettings {
        name: "daisi-relay".to_owned(),
        ping_interval: 10 * SEC,
        handshake_timeout: 5 * SEC,
        tls_required: false,
        tls_first: false,
        limits: DecodeLimits::default(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use shards::wire::nats::encode::{encode_hmsg, encode_info, encode_msg, encode_pong};

    const BODY: &[u8] = b"{\"n\":1}";

    struct Server {
        relay: Relay,
        inbox: BytesMut,
        now: Now,
    }

    impl Server {
        fn new(window: usize) -> Self {
            let settings =
                Settings { stream: "S".to_owned(), in_flight_max: 8, window, message_ids: false };
            let now = Now::default();
            let relay = Relay::open(now, settings, &mut fastrand::Rng::with_seed(1));
            let mut server = Self { relay, inbox: BytesMut::new(), now };
            encode_info(&mut server.inbox, br#"{"version":"2.10.27","headers":true}"#);
            encode_pong(&mut server.inbox);
            server.turn().unwrap();
            let reply = server.relay.inbox.clone() + ".r.1";
            encode_msg(&mut server.inbox, reply.as_bytes(), SID_API, None, b"{}");
            let asked = server.turn().unwrap();
            assert!(asked.contains("CONSUMER.MSG.NEXT.S.daisi_relay_"), "{asked}");
            server
        }

        fn turn(&mut self) -> Result<String, RelayError> {
            self.relay.receive(self.now, &mut self.inbox)?;
            self.relay.flush(self.now)?;
            Ok(String::from_utf8(self.relay.out().split().to_vec()).unwrap())
        }

        fn deliver(&mut self, number: u64) {
            let ack = format!("$JS.ACK.S.c.1.{number}.{number}.7.0");
            let reply = Some(ack.as_bytes());
            encode_msg(&mut self.inbox, b"cdc.A.messages", SID_PULLS, reply, BODY);
        }

        fn puback(&mut self, number: u64, body: &[u8]) {
            let reply = format!("{}.a.{number}", self.relay.inbox);
            encode_msg(&mut self.inbox, reply.as_bytes(), SID_ACKS, None, body);
        }
    }

    const STORED: &[u8] = br#"{"stream":"wa_stream","seq":1}"#;

    #[test]
    fn one_ack_covers_what_is_stored_without_a_hole() {
        let mut server = Server::new(8);
        (1..=3).for_each(|number| server.deliver(number));
        let published = server.turn().unwrap();
        assert_eq!(published.matches("PUB wa.A.messages ").count(), 3, "{published}");
        assert!(!published.contains("$JS.ACK"), "{published}");
        server.puback(1, STORED);
        server.puback(2, STORED);
        assert_eq!(server.turn().unwrap(), "", "the first is not stored yet");
        server.puback(0, STORED);
        let acked = server.turn().unwrap();
        assert!(acked.starts_with("PUB $JS.ACK.S.c.1.3.3.7.0 0\r\n"), "{acked}");
    }

    #[test]
    fn no_more_is_open_than_the_window_holds() {
        let mut server = Server::new(2);
        (1..=3).for_each(|number| server.deliver(number));
        assert_eq!(server.turn().unwrap().matches("PUB wa.").count(), 2);
        server.puback(0, STORED);
        assert_eq!(server.turn().unwrap().matches("PUB wa.").count(), 1);
    }

    #[test]
    fn refusal_gap_and_silence_end_it() {
        let mut refused = Server::new(8);
        refused.deliver(1);
        refused.turn().unwrap();
        refused.puback(0, br#"{"error":{"code":503,"err_code":10077,"description":"full"}}"#);
        assert!(matches!(refused.turn(), Err(RelayError::Publish(_))));

        let mut missed = Server::new(8);
        missed.deliver(2);
        assert!(matches!(missed.turn(), Err(RelayError::Gap(2))));

        let mut gone = Server::new(8);
        let status = b"NATS/1.0 409 Consumer Deleted\r\n\r\n";
        let reply = gone.relay.inbox.clone() + ".p.1";
        encode_hmsg(&mut gone.inbox, reply.as_bytes(), SID_PULLS, None, status, b"");
        assert!(matches!(gone.turn(), Err(RelayError::Pull(PullNews::Inspect))));

        let mut silent = Server::new(8);
        silent.deliver(1);
        silent.turn().unwrap();
        let later = Now { mono: PUBACK_TIMEOUT + 1, wall: 0 };
        assert!(matches!(silent.relay.tick(later), Err(RelayError::PublishTimeout)));
    }
}
