//! A small blocking NATS client for tests, sender and checker: one socket, one thread, no surprises.
//! It speaks through daisi's own codec (`shards::wire::nats`). Invariant: while it waits to write it
//! reads, so a server that waits for us to read cannot stop us both.

mod jetstream;

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shards::wire::nats::auth::{AuthError, ConnectOptions, Credentials, Secret, connect_json};
use shards::wire::nats::encode;
use shards::wire::nats::headers::{HeaderError, HeaderWriter};
use shards::wire::nats::info::Info;
use shards::wire::nats::op::{Msg, ServerOp};
use shards::wire::nats::subject::SubjectError;
use shards::wire::nats::{DecodeLimits, decode};
use shards::wire::{Step, WireError};

pub use jetstream::{Pulled, Reading, Start, Stored, StreamSpec};

/// Bytes gathered before they are written without being asked to.
const FLUSH_AT: usize = 64 << 10;
const READ_MAX: usize = 256 << 10;
/// Handshake, requests and writes: longer than any healthy local server takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not `nats://[user:password@|token@]host:port`.
    #[error("{url:?} is not nats://[user:password@]host:port")]
    Url {
        /// As given.
        url: String,
    },
    /// The socket failed; a server that went away shows as this.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// Bytes that are not the protocol.
    #[error("protocol: {0}")]
    Wire(#[from] WireError),
    /// The server said `-ERR`.
    #[error("the server says {0:?}")]
    Server(String),
    /// INFO or an answer is not the JSON it should be.
    #[error("answer of {size} bytes: {source}")]
    Json {
        /// Its size in bytes.
        size: usize,
        /// Of the parser.
        source: serde_json::Error,
    },
    /// Nothing came in time.
    #[error("no answer to {to:?} within {waited:?}")]
    Timeout {
        /// What was asked.
        to: String,
        /// How long.
        waited: Duration,
    },
    /// Nobody listens on the subject.
    #[error("nobody answers on {subject:?}")]
    NoResponders {
        /// The subject of the request.
        subject: String,
    },
    /// JetStream refused; `err_code` is its own.
    #[error("JetStream refuses {subject:?}: {description} (err_code {err_code})")]
    JetStream {
        /// API subject.
        subject: String,
        /// JetStream's code.
        err_code: u64,
        /// Its words.
        description: String,
    },
    /// More than the server takes.
    #[error("an event of {size} bytes for {subject:?}; the server takes {size_max}")]
    TooLarge {
        /// Where it was to go.
        subject: String,
        /// Its size in bytes.
        size: u64,
        /// `max_payload` of the server.
        size_max: u64,
    },
    /// A subject that must not be sent.
    #[error("subject: {0}")]
    Subject(#[from] SubjectError),
    /// A header that must not be sent.
    #[error("header: {0}")]
    Header(#[from] HeaderError),
    /// Credentials that cannot be used.
    #[error("credentials: {0}")]
    Auth(#[from] AuthError),
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    inbox: BytesMut,
    outbox: BytesMut,
    scratch: Box<[u8]>,
    headers: BytesMut,
    arrived: VecDeque<Msg>,
    info: Info,
    inbox_prefix: String,
    sid_last: u64,
    reply_last: u64,
    pongs: u64,
}

impl Client {
    /// Connects and waits for the PONG that ends the handshake.
    ///
    /// # Errors
    /// The URL, the socket, the server's refusal, or 5 s without a handshake.
    pub fn connect(url: &str) -> Result<Self, ClientError> {
        let (address, credentials) = parse_url(url)?;
        let target = address.to_socket_addrs()?.next();
        let target = target.ok_or_else(|| ClientError::Url { url: url.to_owned() })?;
        let socket = TcpStream::connect_timeout(&target, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut client = Self {
            socket,
            inbox: BytesMut::with_capacity(READ_MAX),
            outbox: BytesMut::with_capacity(2 * FLUSH_AT),
            scratch: vec![0; READ_MAX].into_boxed_slice(),
            headers: BytesMut::new(),
            arrived: VecDeque::new(),
            info: Info::default(),
            inbox_prefix: format!("_INBOX.{:016x}", fastrand::u64(..)),
            sid_last: 0,
            reply_last: 0,
            pongs: 0,
        };
        client.shake_hands(&credentials)?;
        Ok(client)
    }

    /// What the server said of itself, last.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Subjects below this one are nobody else's.
    pub fn inbox_prefix(&self) -> &str {
        &self.inbox_prefix
    }

    /// Queues a publish; written by [`Self::flush`], or once 64 KiB have gathered.
    ///
    /// # Errors
    /// A bad subject, or the socket.
    pub fn publish(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        payload: &[u8],
    ) -> Result<(), ClientError> {
        encode::encode_pub(
            &mut self.outbox,
            subject.as_bytes(),
            reply.map(str::as_bytes),
            payload,
        )?;
        self.flush_if_large()
    }

    /// As [`Self::publish`], with headers.
    ///
    /// # Errors
    /// A bad subject or header, or the socket.
    pub fn publish_with(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<(), ClientError> {
        self.headers.clear();
        let mut writer = HeaderWriter::begin(&mut self.headers);
        for (name, value) in headers {
            writer.add(name.as_bytes(), value.as_bytes())?;
        }
        let _ = writer.finish();
        encode::encode_hpub(
            &mut self.outbox,
            subject.as_bytes(),
            reply.map(str::as_bytes),
            &self.headers,
            payload,
        )?;
        self.flush_if_large()
    }

    /// As [`Self::publish`], with a block of headers as it goes over the wire; an empty one is none.
    ///
    /// # Errors
    /// A bad subject, or the socket.
    pub fn publish_raw(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), ClientError> {
        if headers.is_empty() {
            return self.publish(subject, reply, payload);
        }
        let (subject, reply) = (subject.as_bytes(), reply.map(str::as_bytes));
        encode::encode_hpub(&mut self.outbox, subject, reply, headers, payload)?;
        self.flush_if_large()
    }

    /// Subscribes and returns the id of the subscription. Takes effect with the next flush.
    ///
    /// # Errors
    /// A bad pattern.
    pub fn subscribe(&mut self, pattern: &str) -> Result<u64, ClientError> {
        self.sid_last += 1;
        encode::encode_sub(&mut self.outbox, pattern.as_bytes(), None, self.sid_last)?;
        Ok(self.sid_last)
    }

    /// Ends a subscription with the next flush.
    pub fn unsubscribe(&mut self, sid: u64) {
        encode::encode_unsub(&mut self.outbox, sid, None);
    }

    /// Writes everything queued.
    ///
    /// # Errors
    /// The socket.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(written) => drop(self.outbox.split_to(written)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN | PollFlags::OUT, Instant::now() + PATIENCE)?;
                    self.read_available()?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        // Keeps the allocation: what was split off is the same memory.
        self.outbox.reserve(FLUSH_AT);
        Ok(())
    }

    /// Flushes, and returns when the server has parsed all of it.
    ///
    /// # Errors
    /// The socket, or 5 s without a PONG.
    pub fn barrier(&mut self) -> Result<(), ClientError> {
        let wanted = self.pongs + 1;
        encode::encode_ping(&mut self.outbox);
        self.flush()?;
        let deadline = Instant::now() + PATIENCE;
        while self.pongs < wanted {
            if !self.fill(deadline)? {
                return Err(ClientError::Timeout { to: "PING".into(), waited: PATIENCE });
            }
        }
        Ok(())
    }

    /// The next message, or `None` at `deadline`. A deadline in the past asks without waiting.
    /// Answers PINGs on the way.
    ///
    /// # Errors
    /// The socket, or the server's `-ERR`.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<Msg>, ClientError> {
        loop {
            if let Some(message) = self.arrived.pop_front() {
                return Ok(Some(message));
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// The next message already decoded, without a look at the socket.
    pub fn receive_arrived(&mut self) -> Option<Msg> {
        self.arrived.pop_front()
    }

    /// Asks on `subject` and waits for the one answer, at most 5 s. Other messages wait their turn.
    ///
    /// # Errors
    /// [`ClientError::NoResponders`], [`ClientError::Timeout`], or the socket.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> Result<Msg, ClientError> {
        self.reply_last += 1;
        let reply = format!("{}.r.{}", self.inbox_prefix, self.reply_last);
        let sid = self.subscribe(&reply)?;
        self.publish(subject, Some(&reply), payload)?;
        self.flush()?;
        let answer = self.await_on(sid, subject);
        self.unsubscribe(sid);
        let answer = answer?;
        if answer.status().is_some_and(|status| status.code == 503) {
            return Err(ClientError::NoResponders { subject: subject.to_owned() });
        }
        Ok(answer)
    }

    fn await_on(&mut self, sid: u64, subject: &str) -> Result<Msg, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.arrived.iter().position(|message| message.sid() == sid)
                && let Some(answer) = self.arrived.remove(at)
            {
                return Ok(answer);
            }
            if !self.fill(deadline)? {
                return Err(ClientError::Timeout { to: subject.to_owned(), waited: PATIENCE });
            }
        }
    }

    fn shake_hands(&mut self, credentials: &Credentials) -> Result<(), ClientError> {
        let deadline = Instant::now() + PATIENCE;
        while self.info.server_id.is_empty() {
            if !self.fill(deadline)? {
                return Err(ClientError::Timeout { to: "connect".into(), waited: PATIENCE });
            }
        }
        let options = ConnectOptions { name: "loadtest".into(), tls: false, echo: true };
        let json = connect_json(&self.info, &options, credentials)?;
        encode::encode_connect(&mut self.outbox, json.as_bytes());
        self.barrier()
    }

    fn flush_if_large(&mut self) -> Result<(), ClientError> {
        if self.outbox.len() >= FLUSH_AT { self.flush() } else { Ok(()) }
    }

    /// Waits for bytes until `deadline` and takes them in; false when none came.
    fn fill(&mut self, deadline: Instant) -> Result<bool, ClientError> {
        if self.read_available()? {
            return Ok(true);
        }
        if !self.wait(PollFlags::IN, deadline)? {
            return Ok(false);
        }
        // Readable may also mean only a PING, or nothing after all.
        self.read_available()?;
        Ok(true)
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<bool, ClientError> {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return Ok(false);
        }
        // poll(2) of nanoseconds: a socket's own timeout is rounded up to scheduler ticks.
        let timeout = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let mut watched = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            // A signal: the caller looks at the clock and at its own stop sign.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    fn read_available(&mut self) -> Result<bool, ClientError> {
        match self.socket.read(&mut self.scratch) {
            Ok(0) => Err(ClientError::Closed),
            Ok(length) => {
                self.inbox.extend_from_slice(&self.scratch[..length]);
                self.decode_all()?;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn decode_all(&mut self) -> Result<(), ClientError> {
        while let Step::Done(op) = decode(&mut self.inbox, &DecodeLimits::default())? {
            match op {
                ServerOp::Msg(message) => self.arrived.push_back(message),
                ServerOp::Info(json) => {
                    self.info = Info::parse(&json)
                        .map_err(|source| ClientError::Json { size: json.len(), source })?;
                }
                ServerOp::Ping => encode::encode_pong(&mut self.outbox),
                ServerOp::Pong => self.pongs += 1,
                ServerOp::Ok => {}
                ServerOp::Err(text) => {
                    return Err(ClientError::Server(String::from_utf8_lossy(&text).into_owned()));
                }
            }
        }
        Ok(())
    }
}

fn parse_url(url: &str) -> Result<(String, Credentials), ClientError> {
    let bad = || ClientError::Url { url: url.to_owned() };
    let rest = url.strip_prefix("nats://").ok_or_else(bad)?;
    let (who, address) = rest.rsplit_once('@').map_or((None, rest), |(w, a)| (Some(w), a));
    let credentials = match who.map(|who| who.split_once(':').ok_or(who)) {
        None => Credentials::None,
        Some(Ok((user, password))) => {
            Credentials::UserPassword { user: user.to_owned(), password: Secret::new(password) }
        }
        Some(Err(token)) => Credentials::Token(Secret::new(token)),
    };
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { address.to_owned() } else { format!("{address}:4222") };
    Ok((address, credentials))
}
