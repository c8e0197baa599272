//! Protocol state of one NATS connection: handshake, keep-alive, INFO updates, lame duck. Sans-IO: the
//! owner brings bytes and time, sends what stands in `out`, and closes on an error. Source: NATS client
//! protocol, and the observations of `reference/nats-jetstream.md` sections 1.2 to 1.8.

use super::auth::{AuthError, ConnectOptions, Credentials, connect_json};
use super::decode::{DecodeLimits, decode};
use super::encode;
use super::info::Info;
use super::op::{Msg, ServerOp};
use crate::clock::Now;
use crate::wire::{Step, WireError};
use bytes::{Bytes, BytesMut};

/// Unanswered PINGs after which a connection counts as dead.
const PINGS_UNANSWERED_MAX: u32 = 2;

/// How a connection behaves; times in nanoseconds.
#[derive(Clone, Debug)]
pub struct ConnSettings {
    /// Name shown in the server's connection list.
    pub name: String,
    /// Idle time after which we ask whether the server is there.
    pub ping_interval: u64,
    /// Bound on everything from the open socket to the first PONG.
    pub handshake_timeout: u64,
    /// Encrypt even where the server leaves the choice to us.
    pub tls_required: bool,
    /// Encrypt before the server has said anything (`handshake_first`).
    pub tls_first: bool,
    /// Bounds on what the server may send.
    pub limits: DecodeLimits,
}

/// Why a connection has to be closed.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The bytes are not NATS.
    #[error("the server's bytes are not the NATS protocol: {0}")]
    Wire(#[from] WireError),
    /// INFO is not JSON.
    #[error("the server's INFO is unreadable: {0}")]
    Info(#[from] serde_json::Error),
    /// The credentials do not fit what the server asks for.
    #[error("cannot authenticate: {0}")]
    Auth(#[from] AuthError),
    /// Handshake took too long.
    #[error("no answer to the handshake within {0} ms")]
    HandshakeTimeout(u64),
    /// The server stopped answering.
    #[error("the server left {PINGS_UNANSWERED_MAX} PINGs unanswered")]
    Silent,
    /// The server sent a fatal `-ERR`.
    #[error("the server closed with -ERR '{0}'")]
    Refused(String),
    /// TLS was demanded by us, the server has none.
    #[error("TLS is required by the configuration, but the server offers none")]
    NoTls,
}

impl ConnError {
    /// Wrong or expired credentials: read them again, and come back slowly.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        match self {
            Self::Auth(_) => true,
            Self::Refused(text) => text.to_ascii_lowercase().contains("auth"),
            _ => false,
        }
    }
}

/// What the owner has to know.
#[derive(Debug)]
pub enum ConnEvent {
    /// Encrypt the socket now, then call `tls_done`.
    StartTls,
    /// The handshake is through: subscribe and work.
    Ready,
    /// A message on one of our subscriptions.
    Msg(Msg),
    /// The oldest PING without answer has one: the server has parsed all we sent before it.
    Barrier,
    /// The server is about to leave; move to another one.
    LameDuck,
    /// `-ERR` that leaves the connection open.
    Complaint(String),
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Closed,
    AwaitInfo,
    AwaitTls,
    AwaitPong,
    Ready,
}

/// One connection, from open socket to close; `open` makes it new.
pub struct Conn {
    settings: ConnSettings,
    credentials: Credentials,
    state: State,
    info: Info,
    out: BytesMut,
    opened: u64,
    heard: u64,
    pings_open: u32,
    ping_next: u64,
    tls: bool,
    lame: bool,
    pongs_owed: u32,
}

impl Conn {
    /// A closed connection.
    #[must_use]
    pub fn new(settings: ConnSettings) -> Self {
        Self {
            settings,
            credentials: Credentials::None,
            state: State::Closed,
            info: Info::default(),
            out: BytesMut::with_capacity(64 * 1024),
            opened: 0,
            heard: 0,
            pings_open: 0,
            ping_next: 0,
            tls: false,
            lame: false,
            pongs_owed: 0,
        }
    }

    /// The socket is open. `credentials` are those of this attempt: the owner reads files anew.
    /// True if TLS has to come before anything else.
    pub fn open(&mut self, now: Now, credentials: Credentials) -> bool {
        self.credentials = credentials;
        self.out.clear();
        self.info = Info::default();
        (self.opened, self.heard) = (now.mono, now.mono);
        (self.pings_open, self.pongs_owed) = (0, 0);
        self.ping_next = now.mono + self.settings.ping_interval;
        (self.tls, self.lame) = (self.settings.tls_first, false);
        self.state = if self.tls { State::AwaitTls } else { State::AwaitInfo };
        self.tls
    }

    /// The socket is closed; nothing of this connection lives on.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.out.clear();
        self.credentials = Credentials::None;
    }

    /// TLS is up. With `tls_first` INFO is yet to come, otherwise CONNECT goes out now.
    ///
    /// # Errors
    /// [`ConnError::Auth`] if the credentials do not fit the server's INFO.
    pub fn tls_done(&mut self) -> Result<(), ConnError> {
        assert_eq!(self.state, State::AwaitTls, "TLS was not asked for");
        if self.settings.tls_first {
            self.state = State::AwaitInfo;
            return Ok(());
        }
        self.send_connect()
    }

    /// Decode and act on the next operation in `inbox`; `None` when it needs more bytes.
    ///
    /// # Errors
    /// Any error is final: close the socket.
    pub fn next(&mut self, now: Now, inbox: &mut BytesMut) -> Result<Option<ConnEvent>, ConnError> {
        // What follows INFO in the clear belongs to TLS, if TLS it is.
        while self.state != State::AwaitTls {
            let Step::Done(op) = decode(inbox, &self.settings.limits)? else { return Ok(None) };
            self.heard = now.mono;
            let event = match op {
                ServerOp::Msg(msg) => Some(ConnEvent::Msg(msg)),
                ServerOp::Ping => {
                    encode::encode_pong(&mut self.out);
                    None
                }
                ServerOp::Pong => self.on_pong(),
                ServerOp::Ok => None,
                ServerOp::Info(json) => self.on_info(&json)?,
                ServerOp::Err(text) => Some(Self::on_error(&text)?),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Time goes by: keep-alive and the handshake's bound.
    ///
    /// # Errors
    /// The server is gone; close the socket.
    pub fn tick(&mut self, now: Now) -> Result<(), ConnError> {
        match self.state {
            State::Closed => Ok(()),
            State::AwaitInfo | State::AwaitTls | State::AwaitPong => {
                let bound = self.settings.handshake_timeout;
                if now.mono.saturating_sub(self.opened) > bound {
                    return Err(ConnError::HandshakeTimeout(bound / crate::clock::MS));
                }
                Ok(())
            }
            State::Ready => self.keep_alive(now),
        }
    }

    /// Bytes for the socket. The owner takes what it has written off the front.
    pub fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Is the handshake through?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// What the server last said of itself; default before it spoke.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Has the server said that it will leave?
    #[must_use]
    pub fn is_lame(&self) -> bool {
        self.lame
    }

    /// Ask the server to tell when it has parsed everything so far: by as many [`ConnEvent::Barrier`]s
    /// from now on as this returns, because those asked for before, and the keep-alive's, come first.
    pub fn barrier(&mut self) -> u32 {
        self.ping();
        self.pongs_owed
    }

    fn ping(&mut self) {
        encode::encode_ping(&mut self.out);
        self.pongs_owed += 1;
    }

    fn on_pong(&mut self) -> Option<ConnEvent> {
        self.pings_open = 0;
        if self.state == State::AwaitPong {
            self.state = State::Ready;
            return Some(ConnEvent::Ready);
        }
        // A PONG that nobody asked for opens no barrier.
        self.pongs_owed = self.pongs_owed.checked_sub(1)?;
        Some(ConnEvent::Barrier)
    }

    fn on_info(&mut self, json: &Bytes) -> Result<Option<ConnEvent>, ConnError> {
        self.info = serde_json::from_slice(json)?; // Replaces: every INFO is the full truth.
        if self.state == State::AwaitInfo {
            let wanted = self.info.tls_required || self.settings.tls_required;
            if wanted && !self.tls {
                if !self.info.tls_required && !self.info.tls_available {
                    return Err(ConnError::NoTls);
                }
                self.tls = true;
                self.state = State::AwaitTls;
                return Ok(Some(ConnEvent::StartTls));
            }
            self.send_connect()?;
        }
        if self.info.ldm && !self.lame {
            self.lame = true;
            return Ok(Some(ConnEvent::LameDuck));
        }
        Ok(None)
    }

    fn send_connect(&mut self) -> Result<(), ConnError> {
        let options =
            ConnectOptions { name: self.settings.name.clone(), tls: self.tls, echo: true };
        let json = connect_json(&self.info, &options, &self.credentials)?;
        encode::encode_connect(&mut self.out, json.as_bytes());
        encode::encode_ping(&mut self.out);
        self.state = State::AwaitPong;
        Ok(())
    }

    fn on_error(text: &Bytes) -> Result<ConnEvent, ConnError> {
        let text = String::from_utf8_lossy(text).into_owned();
        let lower = text.to_ascii_lowercase();
        let stays_open = ["permissions violation", "invalid subject", "maximum subscriptions"];
        if stays_open.iter().any(|prefix| lower.starts_with(prefix)) {
            return Ok(ConnEvent::Complaint(text));
        }
        Err(ConnError::Refused(text))
    }

    // The clock runs on received bytes only: what we write may sit in the kernel for minutes.
    fn keep_alive(&mut self, now: Now) -> Result<(), ConnError> {
        if now.mono < self.ping_next {
            return Ok(());
        }
        if now.mono.saturating_sub(self.heard) < self.settings.ping_interval {
            self.ping_next = self.heard + self.settings.ping_interval;
            self.pings_open = 0;
            return Ok(());
        }
        if self.pings_open >= PINGS_UNANSWERED_MAX {
            return Err(ConnError::Silent);
        }
        self.ping();
        self.pings_open += 1;
        self.ping_next = now.mono + self.settings.ping_interval;
        Ok(())
    }
}
