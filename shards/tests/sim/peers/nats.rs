//! A simulated nats-server: connections, subscriptions, routing, and the JetStream behind them. Bytes of
//! a client go in by `handle_bytes`, bytes for it come out by `poll_output`; `tick` lets time pass.
//! Invariant: what a client sent is handled in order, and what it is sent keeps its order, save answers
//! that a fault holds back. Connections, subscriptions and pulls die with the process; streams do not.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use shards::clock::{Now, SEC};
use shards::wire::nats::decode::decode_client;
use shards::wire::nats::encode;
use shards::wire::nats::op::ClientOp;
use shards::wire::{Step, WireError};

use super::jetstream::JetStream;
use super::jetstream::faults::CrashLoss;
use super::message::{Emit, Publish};
use super::subject::{is_valid_pattern, is_valid_publish, matches};
use super::version::Version;
use super::{Chance, ConnId, Refused, earlier, take};

/// How a server is set up.
#[derive(Clone, Debug)]
pub(crate) struct NatsOptions {
    pub(crate) version: Version,
    /// Largest header block plus body of a publish, bytes.
    pub(crate) max_payload: usize,
    /// Nanoseconds of silence before the server sends PING; two unanswered close the connection.
    pub(crate) ping_interval: u64,
    /// Output a client may leave unread, bytes; beyond it the connection is cut in mid-frame.
    pub(crate) max_pending: usize,
    /// User and password, if the server asks for them.
    pub(crate) login: Option<(String, String)>,
    /// JetStream domain: the API answers under `$JS.<domain>.API.` too.
    pub(crate) domain: Option<String>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            version: Version::V2_10,
            max_payload: 1 << 20,
            ping_interval: 120 * SEC,
            max_pending: 64 << 20,
            login: None,
            domain: None,
        }
    }
}

/// Unanswered PINGs after which the server closes.
const PINGS_OUT_MAX: u32 = 2;
/// The server's first PING after connect comes early.
const FIRST_PING_AFTER: u64 = 2 * SEC;

/// A server process with its disk.
#[derive(Clone, Debug)]
pub(crate) struct NatsServer {
    options: NatsOptions,
    /// Streams, consumers and the knobs of their faults.
    pub(crate) jetstream: JetStream,
    /// A frame written to a client is cut at a random byte and the connection closed.
    pub(crate) frame_cut: Chance,
    clients: Clients,
    state: State,
    next_conn: u64,
    /// Answers that a fault holds back, by the moment they are due.
    delayed: BTreeMap<(u64, u64), Emit>,
    delayed_count: u64,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    LameDuck,
    Down,
}

type Clients = BTreeMap<ConnId, Client>;

#[derive(Clone, Debug, Default)]
struct Client {
    inbox: BytesMut,
    out: BytesMut,
    wishes: Wishes,
    has_connected: bool,
    has_pinged: bool,
    is_closing: bool,
    subscriptions: BTreeMap<u64, Subscription>,
    ping_at: u64,
    pings_out: u32,
}

#[derive(Clone, Debug)]
struct Subscription {
    pattern: Bytes,
    queue: Option<Bytes>,
    delivered: u64,
    max: Option<u64>,
}

/// CONNECT. Defaults are the server's: verbose is on where the field is absent.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire format has them")]
struct Wishes {
    verbose: bool,
    headers: bool,
    no_responders: bool,
    echo: bool,
    protocol: i64,
    user: String,
    pass: String,
}

impl Default for Wishes {
    fn default() -> Self {
        let (user, pass) = (String::new(), String::new());
        let (headers, no_responders) = (false, false);
        Self { verbose: true, headers, no_responders, echo: true, protocol: 0, user, pass }
    }
}

impl NatsServer {
    /// A running server with an empty disk.
    pub(crate) fn new(options: NatsOptions, mut rng: Rng) -> Self {
        Self {
            jetstream: JetStream::new(options.version, rng.fork()),
            options,
            frame_cut: Chance::default(),
            clients: Clients::new(),
            state: State::Up,
            next_conn: 1,
            delayed: BTreeMap::new(),
            delayed_count: 0,
            rng,
        }
    }

    /// A TCP connection; INFO is in its output at once. Refused while down or in lame duck mode.
    pub(crate) fn connect(&mut self, now: Now) -> Result<ConnId, Refused> {
        match self.state {
            State::Down => return Err(Refused::Down),
            State::LameDuck => return Err(Refused::LameDuck),
            State::Up => {}
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let ping_at = now.mono + FIRST_PING_AFTER.min(self.options.ping_interval);
        let mut client = Client { ping_at, ..Client::default() };
        encode::encode_info(&mut client.out, self.info(conn, Value::Null).as_bytes());
        self.clients.insert(conn, client);
        Ok(conn)
    }

    /// Bytes from a client. Ignored on a connection that is closed.
    pub(crate) fn handle_bytes(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.open_client(conn) else { return };
        client.inbox.extend_from_slice(bytes);
        if !bytes.is_empty() {
            client.pings_out = 0;
        }
        while let Some(client) = self.open_client(conn) {
            match decode_client(&mut client.inbox) {
                Ok(Step::Done(op)) => self.handle(now, conn, op),
                Ok(Step::Need { .. }) => break,
                Err(error) => self.refuse_bytes(conn, error),
            }
        }
    }

    /// Bytes for a client since the last call.
    pub(crate) fn poll_output(&mut self, conn: ConnId) -> Bytes {
        let Some(client) = self.clients.get_mut(&conn) else { return Bytes::new() };
        let (out, is_over) = (take(&mut client.out), client.is_closing);
        if is_over {
            self.clients.remove(&conn);
        }
        out
    }

    /// Whether the connection stands. One that the server closed counts as open until its last bytes
    /// were polled.
    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        self.clients.contains_key(&conn)
    }

    /// The client closed, or the network cut the connection: nothing more is sent.
    pub(crate) fn close(&mut self, conn: ConnId) {
        self.clients.remove(&conn);
    }

    /// Time passed: held-back answers, PINGs, and all that JetStream does by itself.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.state == State::Down {
            return;
        }
        self.run(|jetstream, interest| jetstream.tick(now, interest));
        self.send_all(now);
        let later = self.delayed.split_off(&(now.mono + 1, 0));
        for emit in std::mem::replace(&mut self.delayed, later).into_values() {
            self.send(&emit);
        }
        let conns: Vec<ConnId> = self.clients.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.keep_alive(now, conn));
    }

    /// When [`NatsServer::tick`] has something to do next, monotonic nanoseconds.
    pub(crate) fn due(&self) -> Option<u64> {
        if self.state == State::Down {
            return None;
        }
        let delayed = self.delayed.keys().next().map(|(at, _)| *at);
        let pings = self.clients.values().map(|c| c.ping_at).min();
        earlier(self.jetstream.due(), earlier(delayed, pings))
    }

    /// `kill -9`: connections are cut where they stand, unsent output included, and so is what `loss`
    /// says.
    pub(crate) fn crash(&mut self, loss: CrashLoss) {
        self.state = State::Down;
        self.clients.clear();
        self.delayed.clear();
        self.jetstream.crash(loss);
    }

    /// The process comes up again on its disk.
    pub(crate) fn restart(&mut self) {
        self.state = State::Up;
    }

    /// Lame duck mode: an INFO with `ldm` to those who speak protocol 1, and no new connections. The
    /// server closes the old ones one by one: [`NatsServer::cut`].
    pub(crate) fn lame_duck(&mut self) {
        self.state = State::LameDuck;
        let conns: Vec<ConnId> = self.clients.keys().copied().collect();
        for conn in conns {
            let info = self.info(conn, json!({"ldm": true}));
            if let Some(client) = self.open_client(conn).filter(|c| c.wishes.protocol > 0) {
                encode::encode_info(&mut client.out, info.as_bytes());
            }
        }
    }

    /// A new leader for all streams and consumers; nobody leads for `leaderless` nanoseconds.
    pub(crate) fn step_down(&mut self, now: Now, leaderless: u64) {
        self.jetstream.step_down(now, leaderless);
        self.send_all(now);
    }

    /// Sends `-ERR '<text>'`, and closes if the error is one that does.
    pub(crate) fn send_error(&mut self, conn: ConnId, text: &str, closes: bool) {
        let Some(client) = self.open_client(conn) else { return };
        encode::encode_err(&mut client.out, text.as_bytes());
        client.is_closing = closes;
    }

    /// Closes the connection from the server's side, its unsent output cut at a random byte: an `-ERR`
    /// never comes with a slow consumer or a kill.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let kept = self.rng.usize(0..=client.out.len());
        client.out.truncate(kept);
        client.is_closing = true;
    }

    fn open_client(&mut self, conn: ConnId) -> Option<&mut Client> {
        self.clients.get_mut(&conn).filter(|c| !c.is_closing)
    }

    fn info(&self, conn: ConnId, extra: Value) -> String {
        let options = &self.options;
        let version = options.version;
        let mut info = json!({
            "server_id": "SIMULATED", "server_name": "sim", "version": version.to_string(),
            "proto": 1, "headers": true, "max_payload": options.max_payload, "jetstream": true,
            "client_id": conn.0, "client_ip": "127.0.0.1",
        });
        if options.login.is_some() {
            info["auth_required"] = true.into();
        }
        if let Some(domain) = &options.domain {
            info["domain"] = domain.as_str().into();
        }
        if version.since(12) {
            info["api_lvl"] = 2.into();
        }
        if let (Value::Object(info), Value::Object(extra)) = (&mut info, extra) {
            info.extend(extra);
        }
        info.to_string()
    }

    fn refuse_bytes(&mut self, conn: ConnId, error: WireError) {
        match error {
            WireError::UnknownOperation { .. } | WireError::PayloadUnterminated { .. } => {
                self.send_error(conn, "Unknown Protocol Operation", true);
            }
            WireError::LineTooLong { .. } => {
                self.send_error(conn, "maximum control line exceeded", true);
            }
            WireError::FrameTooLarge { .. } => {
                self.send_error(conn, "Maximum Payload Violation", true);
            }
            // Bad arguments of a known operation: closed without a word.
            WireError::Malformed { .. }
            | WireError::HeadersExceedTotal { .. }
            | WireError::TooDeep { .. }
            | WireError::TooManyElements { .. } => self.hang_up(conn),
        }
    }

    fn hang_up(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.is_closing = true;
        }
    }

    fn handle(&mut self, now: Now, conn: ConnId, op: ClientOp) {
        let is_refused = self.options.login.is_some()
            && !matches!(op, ClientOp::Connect(_))
            && self.open_client(conn).is_some_and(|c| !c.has_connected);
        if is_refused {
            return self.send_error(conn, "Authorization Violation", true);
        }
        let is_ping = matches!(op, ClientOp::Ping | ClientOp::Pong);
        match op {
            ClientOp::Connect(json) => self.handle_connect(conn, &json),
            ClientOp::Ping => self.handle_ping(conn),
            ClientOp::Pong => {}
            ClientOp::Sub { subject, queue, sid } => self.handle_sub(conn, sid, subject, queue),
            ClientOp::Unsub { sid, max } => self.handle_unsub(conn, sid, max),
            ClientOp::Pub { subject, reply, headers, payload } => {
                self.handle_pub(now, conn, &Publish { subject, reply, headers, payload });
            }
        }
        if let Some(client) = self.open_client(conn).filter(|c| c.wishes.verbose && !is_ping) {
            encode::encode_ok(&mut client.out);
        }
    }

    fn handle_connect(&mut self, conn: ConnId, json: &[u8]) {
        let Ok(wishes) = serde_json::from_slice::<Wishes>(json) else { return self.hang_up(conn) };
        if !(0..=1).contains(&wishes.protocol) {
            return self.send_error(conn, "invalid client protocol", true);
        }
        if wishes.no_responders && !wishes.headers {
            return self.send_error(conn, "no responders requires headers support", true);
        }
        let is_known =
            |(user, pass): &(String, String)| *user == wishes.user && *pass == wishes.pass;
        if !self.options.login.as_ref().is_none_or(is_known) {
            return self.send_error(conn, "Authorization Violation", true);
        }
        if let Some(client) = self.open_client(conn) {
            client.wishes = wishes;
            client.has_connected = true;
        }
    }

    fn handle_ping(&mut self, conn: ConnId) {
        let second = self.info(conn, json!({"connect_info": true, "remote_account": "$G"}));
        let is_told = self.options.version.since(12);
        let Some(client) = self.open_client(conn) else { return };
        encode::encode_pong(&mut client.out);
        // Since 2.12 a second INFO follows the PONG to the first PING.
        if is_told && !client.has_pinged {
            encode::encode_info(&mut client.out, second.as_bytes());
        }
        client.has_pinged = true;
    }

    fn handle_sub(&mut self, conn: ConnId, sid: u64, pattern: Bytes, queue: Option<Bytes>) {
        if !is_valid_pattern(&pattern) {
            return self.send_error(conn, "Invalid Subject", false);
        }
        if let Some(client) = self.open_client(conn) {
            let subscription = Subscription { pattern, queue, delivered: 0, max: None };
            // A second SUB with a live sid is ignored.
            client.subscriptions.entry(sid).or_insert(subscription);
        }
    }

    fn handle_unsub(&mut self, conn: ConnId, sid: u64, max: Option<u64>) {
        let Some(client) = self.open_client(conn) else { return };
        let Some(subscription) = client.subscriptions.get_mut(&sid) else { return };
        // `max` counts from the SUB on, deliveries already made included.
        match max.filter(|max| *max > subscription.delivered) {
            Some(max) => subscription.max = Some(max),
            None => drop(client.subscriptions.remove(&sid)),
        }
    }

    fn handle_pub(&mut self, now: Now, conn: ConnId, message: &Publish) {
        let max_payload = self.options.max_payload;
        let Some(client) = self.open_client(conn) else { return };
        let (echo, has_headers) = (client.wishes.echo, client.wishes.headers);
        let expects_503 = client.wishes.no_responders
            && message.reply.as_deref().is_some_and(|r| client.listens_to(r));
        if message.size() > max_payload {
            return self.send_error(conn, "Maximum Payload Violation", true);
        }
        if !message.headers.is_empty() && !has_headers {
            return self.hang_up(conn);
        }
        // Such a publish vanishes without a word.
        if !is_valid_publish(&message.subject) {
            return;
        }
        let emit = Emit {
            route: message.subject.clone(),
            subject: message.subject.clone(),
            reply: message.reply.clone(),
            headers: message.headers.clone(),
            payload: message.payload.clone(),
            delay: 0,
        };
        let is_heard = self.route(&emit, (!echo).then_some(conn), false);
        let inward = self.inward(message);
        let mut is_taken = false;
        self.run(|jetstream, interest| is_taken = jetstream.handle(now, &inward, interest));
        if !is_heard && !is_taken && expects_503 {
            self.answer_503(message);
        }
        self.send_all(now);
    }

    /// The message as JetStream sees it: without the domain in an API subject.
    fn inward(&self, message: &Publish) -> Publish {
        let domain = self.options.domain.as_ref().map(|d| format!("$JS.{d}.API."));
        let call = domain.and_then(|d| Some(message.subject.strip_prefix(d.as_bytes())?.to_vec()));
        let mut message = message.clone();
        if let Some(call) = call {
            message.subject = [b"$JS.API.", call.as_slice()].concat().into();
        }
        message
    }

    fn answer_503(&mut self, message: &Publish) {
        let Some(inbox) = &message.reply else { return };
        let mut emit = Emit::status(inbox, "503", &[]);
        if self.options.version.since(12) {
            let subject = String::from_utf8_lossy(&message.subject);
            emit.headers = format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n").into();
        }
        self.send(&emit);
    }

    /// Runs `act` on JetStream with who listens where.
    fn run(&mut self, act: impl FnOnce(&mut JetStream, &dyn Fn(&[u8]) -> bool)) {
        let clients = &self.clients;
        let interest = |inbox: &[u8]| clients.values().any(|c| c.listens_to(inbox));
        act(&mut self.jetstream, &interest);
    }

    /// Sends what JetStream made, or puts it aside until it is due.
    fn send_all(&mut self, now: Now) {
        let made: VecDeque<Emit> = std::mem::take(&mut self.jetstream.out);
        for emit in made {
            if emit.delay == 0 {
                self.send(&emit);
            } else {
                self.delayed_count += 1;
                self.delayed.insert((now.mono + emit.delay, self.delayed_count), emit);
            }
        }
    }

    fn send(&mut self, emit: &Emit) {
        self.route(emit, None, true);
    }

    /// Writes `emit` to every subscription it matches, and to one of each queue group; whether there
    /// was any.
    fn route(&mut self, emit: &Emit, but: Option<ConnId>, is_internal: bool) -> bool {
        let mut chosen: Vec<(ConnId, u64)> = Vec::new();
        let mut groups: BTreeMap<Bytes, Vec<(ConnId, u64)>> = BTreeMap::new();
        for (conn, client) in self.clients.iter().filter(|(id, _)| Some(**id) != but) {
            for (sid, subscription) in client.matching(&emit.route) {
                match &subscription.queue {
                    None => chosen.push((*conn, sid)),
                    Some(queue) => groups.entry(queue.clone()).or_default().push((*conn, sid)),
                }
            }
        }
        for members in groups.into_values() {
            chosen.push(members[self.rng.usize(..members.len())]);
        }
        for (conn, sid) in &chosen {
            self.write(*conn, *sid, emit, is_internal);
        }
        !chosen.is_empty()
    }

    fn write(&mut self, conn: ConnId, sid: u64, emit: &Emit, is_internal: bool) {
        let pads = is_internal && !self.options.version.since(10) && emit.reply.is_none();
        let max_pending = self.options.max_pending;
        let Some(client) = self.open_client(conn) else { return };
        let mut frame = BytesMut::new();
        let (subject, reply) = (&emit.subject, emit.reply.as_deref());
        if emit.headers.is_empty() || !client.wishes.headers {
            encode::encode_msg(&mut frame, subject, sid, reply, &emit.payload);
        } else {
            encode::encode_hmsg(&mut frame, subject, sid, reply, &emit.headers, &emit.payload);
        }
        if pads {
            frame = double_blank(&frame);
        }
        client.out.extend_from_slice(&frame);
        client.count_delivery(sid);
        if client.out.len() > max_pending {
            self.cut(conn);
        } else if self.frame_cut.hit(&mut self.rng) {
            let cut_by = self.rng.usize(1..frame.len());
            if let Some(client) = self.open_client(conn) {
                client.out.truncate(client.out.len() - cut_by);
                client.is_closing = true;
            }
        }
    }

    fn keep_alive(&mut self, now: Now, conn: ConnId) {
        let interval = self.options.ping_interval;
        let Some(client) = self.open_client(conn).filter(|c| c.ping_at <= now.mono) else { return };
        if client.pings_out >= PINGS_OUT_MAX {
            return self.send_error(conn, "Stale Connection", true);
        }
        client.pings_out += 1;
        client.ping_at = now.mono + interval;
        encode::encode_ping(&mut client.out);
    }
}

impl Client {
    fn matching<'a>(&'a self, subject: &'a [u8]) -> impl Iterator<Item = (u64, &'a Subscription)> {
        let open = self.subscriptions.iter().filter(|_| !self.is_closing);
        open.filter(|(_, s)| matches(&s.pattern, subject)).map(|(sid, s)| (*sid, s))
    }

    fn listens_to(&self, subject: &[u8]) -> bool {
        self.matching(subject).next().is_some()
    }

    fn count_delivery(&mut self, sid: u64) {
        let Some(subscription) = self.subscriptions.get_mut(&sid) else { return };
        subscription.delivered += 1;
        if subscription.max.is_some_and(|max| subscription.delivered >= max) {
            self.subscriptions.remove(&sid);
        }
    }
}

/// 2.9 writes two blanks where the reply is empty in messages JetStream makes itself. The codec's
/// encoder never does, so the second one is put in behind the sid, the third word of the line.
fn double_blank(frame: &[u8]) -> BytesMut {
    let blanks = frame.iter().enumerate().filter(|(_, b)| **b == b' ');
    let third = blanks.map(|(at, _)| at).nth(2).unwrap_or(frame.len());
    [&frame[..third], b" ", &frame[third..]].into_iter().fold(BytesMut::new(), |mut all, part| {
        all.extend_from_slice(part);
        all
    })
}
