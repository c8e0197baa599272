//! A blocking NATS session for commands: one question, one answer. TLS, credentials and servers are those of
//! the configuration. Invariant: an answer is taken only for the question it was asked for, and inboxes are
//! this connection's alone, so two commands at once never read each other's. Source: NATS client protocol;
//! JetStream API.

use std::thread::sleep;
use std::time::Duration;

use bytes::BytesMut;
use shards::wire::nats::auth::{self, ConnectOptions};
use shards::wire::nats::headers::{HeaderError, HeaderWriter};
use shards::wire::nats::info::Info;
use shards::wire::nats::jetstream::{
    Api, ErrorClass, PubAck, Request, ResponseError, StoredMessage, StreamInfo, StreamNames,
    parse_message_get, parse_response,
};
use shards::wire::nats::op::Msg;
use shards::wire::nats::subject::{SubjectError, validate_publish};
use shards::wire::nats::{DecodeLimits, ServerOp, decode, encode};

use crate::config::plan::{NatsPlan, ServerAddress};
use crate::dial::Link;

/// Times a publish is sent where the server says that it may pass, and the time between.
const STORE_TRIES: u32 = 5;
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// The connection is of no more use; what was asked last may or may not have been done.
    #[error("{0}")]
    Lost(String),
    /// The server said no, or the question could not be put. Nothing was done, and others may be asked.
    #[error("{0}")]
    Refused(String),
}

impl From<SubjectError> for SessionError {
    fn from(error: SubjectError) -> Self {
        Self::Refused(format!("subject: {error}"))
    }
}

impl From<HeaderError> for SessionError {
    fn from(error: HeaderError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<ResponseError> for SessionError {
    fn from(error: ResponseError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Where a stream put a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stream: String,
    pub(crate) seq: u64,
    /// The stream had a message of this id already, at `seq`.
    pub(crate) duplicate: bool,
}

/// A connection past its handshake.
pub(crate) struct Session {
    link: Link,
    info: Info,
    limits: DecodeLimits,
    inbox: String,
    asked: u64,
}

impl Session {
    /// Connects to the first server of the plan that takes us; `who` is the name that the server lists.
    pub(crate) fn of(plan: &NatsPlan, who: &str) -> Result<Self, String> {
        let mut last = "no NATS server is configured".to_owned();
        for server in &plan.servers {
            match Self::open(server, plan, who) {
                Ok(session) if session.info.jetstream => return Ok(session),
                Ok(_) => last = format!("{}:{}: JetStream is off", server.host, server.port),
                Err(error) => last = format!("{}:{}: {error}", server.host, server.port),
            }
        }
        Err(format!("NATS: {last}"))
    }

    /// Connects to one server.
    pub(crate) fn open(server: &ServerAddress, plan: &NatsPlan, who: &str) -> Result<Self, String> {
        let mut link = Link::connect(server, plan.connect_timeout)?;
        if plan.tls.first {
            link.upgrade(&server.host, &plan.tls)?;
        }
        let limits = DecodeLimits { frame_max: plan.frame_bytes_max, ..DecodeLimits::default() };
        let ServerOp::Info(json) = link.receive(|inbox| decode(inbox, &limits))? else {
            return Err("the server did not begin with INFO: is it NATS?".to_owned());
        };
        let info = Info::parse(&json).map_err(|error| format!("INFO: {error}"))?;
        let tls = server.tls || info.tls_required || plan.tls.is_wanted();
        if tls && !plan.tls.first {
            link.upgrade(&server.host, &plan.tls)?;
        }
        let options = ConnectOptions { name: format!("daisi/{who}"), tls, echo: true };
        let credentials = server.credentials(&plan.credentials).load()?;
        let json =
            auth::connect_json(&info, &options, &credentials).map_err(|error| error.to_string())?;
        let inbox = format!("_INBOX.daisi.{}.{}", info.server_id, info.client_id);
        let mut session = Self { link, info, limits, inbox, asked: 0 };
        session.greet(&json).map_err(|error| error.to_string())?;
        session.link.set_timeout(plan.request_timeout).map_err(|error| error.to_string())?;
        Ok(session)
    }

    /// What the server said of itself.
    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// Puts a question to JetStream; the payload of its answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Msg, SessionError> {
        let answer = self.request(&request.subject, &[], &request.body)?;
        answer.ok_or_else(|| {
            SessionError::Refused("JetStream does not answer for this account".to_owned())
        })
    }

    /// Publishes and waits until a stream has it. A message whose outcome is unknown or that may pass later
    /// is sent again: give it a `Nats-Msg-Id`.
    pub(crate) fn store(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Place, SessionError> {
        let mut tries = 1;
        loop {
            let Some(answer) = self.request(subject, headers, body)? else {
                return Err(SessionError::Refused(format!("no stream takes {subject}")));
            };
            match PubAck::parse(answer.payload()) {
                Ok(PubAck { stream, seq, duplicate }) => {
                    return Ok(Place { stream: stream.into_owned(), seq, duplicate });
                }
                Err(error) if error.class() == ErrorClass::Transient && tries < STORE_TRIES => {
                    tries += 1;
                    sleep(STORE_PAUSE);
                }
                Err(error) => return Err(SessionError::Refused(error.to_string())),
            }
        }
    }

    /// The message of a sequence, if the stream has it.
    pub(crate) fn message(
        &mut self,
        stream: &str,
        seq: u64,
    ) -> Result<Option<StoredMessage>, SessionError> {
        let answer = self.ask(&Api::default().message_get(stream, seq))?;
        found(parse_message_get(answer.payload()))
    }

    /// The first message at or behind `seq` on a subject of `pattern`, if the stream has one.
    pub(crate) fn message_next(
        &mut self,
        stream: &str,
        seq: u64,
        pattern: &str,
    ) -> Result<Option<StoredMessage>, SessionError> {
        let answer = self.ask(&Api::default().message_get_next(stream, seq, pattern))?;
        found(parse_message_get(answer.payload()))
    }

    /// The stream of that name.
    pub(crate) fn stream(&mut self, name: &str) -> Result<Option<StreamInfo>, SessionError> {
        let answer = self.ask(&Api::default().stream_info(name))?;
        found(parse_response(answer.payload()))
    }

    /// The stream that captures the subject, else the one of that name.
    pub(crate) fn stream_of(
        &mut self,
        subject: &str,
        name: &str,
    ) -> Result<Option<StreamInfo>, SessionError> {
        let answer = self.ask(&Api::default().stream_names(subject, 0))?;
        let names: StreamNames = parse_response(answer.payload())?;
        let name = names.streams.first().map_or(name, String::as_str);
        self.stream(name)
    }

    fn greet(&mut self, connect: &str) -> Result<(), SessionError> {
        let mut out = BytesMut::new();
        encode::encode_connect(&mut out, connect.as_bytes());
        encode::encode_sub(&mut out, format!("{}.*", self.inbox).as_bytes(), None, 1)?;
        encode::encode_ping(&mut out);
        self.link.send(&out).map_err(SessionError::Lost)?;
        while !matches!(self.next()?, ServerOp::Pong) {}
        Ok(())
    }

    /// The answer, or nothing where nobody listens on the subject.
    fn request(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Option<Msg>, SessionError> {
        validate_publish(subject.as_bytes())?;
        self.asked += 1;
        let reply = format!("{}.{}", self.inbox, self.asked);
        let block = if headers.is_empty() { BytesMut::new() } else { header_block(headers)? };
        let (size, size_max) = (block.len() + body.len(), self.info.max_payload);
        if size as u64 > size_max {
            let told = format!("a message of {size} bytes, and the server takes {size_max}");
            return Err(SessionError::Refused(told));
        }
        let (mut out, to) = (BytesMut::new(), Some(reply.as_bytes()));
        if block.is_empty() {
            encode::encode_pub(&mut out, subject.as_bytes(), to, body)?;
        } else {
            encode::encode_hpub(&mut out, subject.as_bytes(), to, &block, body)?;
        }
        self.link.send(&out).map_err(SessionError::Lost)?;
        loop {
            // What comes late, for a question that was given up, has another subject.
            if let ServerOp::Msg(message) = self.next()?
                && message.subject() == reply.as_bytes()
            {
                return Ok(Some(message).filter(|message| message.status().is_none()));
            }
        }
    }

    /// The next operation that is not housekeeping; an error of the server ends the session.
    fn next(&mut self) -> Result<ServerOp, SessionError> {
        loop {
            let limits = self.limits;
            let op = self.link.receive(|inbox| decode(inbox, &limits));
            match op.map_err(SessionError::Lost)? {
                ServerOp::Ping => self.link.send(b"PONG\r\n").map_err(SessionError::Lost)?,
                ServerOp::Err(text) => {
                    return Err(SessionError::Lost(String::from_utf8_lossy(&text).into_owned()));
                }
                ServerOp::Info(_) | ServerOp::Ok => {}
                op => return Ok(op),
            }
        }
    }
}

fn found<T>(answer: Result<T, ResponseError>) -> Result<Option<T>, SessionError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ResponseError::Api(error)) if error.class() == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn header_block(headers: &[(&str, &str)]) -> Result<BytesMut, HeaderError> {
    let mut block = BytesMut::new();
    let mut writer = HeaderWriter::begin(&mut block);
    for (name, value) in headers {
        writer.add(name.as_bytes(), value.as_bytes())?;
    }
    let _length = writer.finish();
    Ok(block)
}
