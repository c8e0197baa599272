//! What a sender is given and what it tells: events from a source, how to send them, what was sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hdrhistogram::Histogram;
use shards::wire::nats::headers::{HeaderError, HeaderWriter};

use crate::check::Expectation;
use crate::ends::Cuts;
use crate::generate::ingest::Expect;
use crate::meter::Meter;
use crate::results::Origin;

/// What the source of an event knows of its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No more than its bytes say by the rules of the contract.
    Bytes,
    /// A row change of the generator.
    Change(Expectation),
    /// One that was sent before and has no new effect.
    Copy,
    /// A chat event of the generator.
    Ingest(Expect),
}

/// Something to be published.
pub trait Outgoing {
    /// Where it goes.
    fn subject(&self) -> &str;
    /// Its body.
    fn payload(&self) -> &[u8];
    /// Its `Nats-Msg-Id`. Without one a resend may be stored a second time.
    fn msg_id(&self) -> Option<&str>;
    /// The header `CompanyID`.
    fn company(&self) -> Option<&str> {
        None
    }
    /// Appends all its headers as one block; nothing where it has none. By default `Nats-Msg-Id` and
    /// `CompanyID`.
    ///
    /// # Errors
    /// A name or a value that must not be sent.
    fn append_headers(&self, block: &mut BytesMut) -> Result<(), HeaderError> {
        let (msg_id, company) = (self.msg_id(), self.company());
        if msg_id.is_none() && company.is_none() {
            return Ok(());
        }
        let mut headers = HeaderWriter::begin(block);
        if let Some(msg_id) = msg_id {
            headers.add(b"Nats-Msg-Id", msg_id.as_bytes())?;
        }
        if let Some(company) = company {
            headers.add(b"CompanyID", company.as_bytes())?;
        }
        let _ = headers.finish();
        Ok(())
    }
    /// What is known of its effect.
    fn known(&self) -> Known {
        Known::Bytes
    }
    /// Which series of the plan's meter it belongs to.
    fn series(&self) -> usize {
        0
    }
    /// Takes the (planned) time of sending, nanoseconds since the epoch.
    fn stamp(&mut self, _sent_ns: u64) {}
}

/// What makes events, one after another.
pub trait Source {
    /// One event, borrowed until the next.
    type Event<'a>: Outgoing
    where
        Self: 'a;

    /// When the event that [`next`](Self::next) gives is planned, from the start on. `None` leaves it to
    /// [`SendPlan::rate`]. Latency counts from this time, however late the event was written.
    fn planned(&mut self) -> Option<Duration> {
        None
    }

    /// The next event; `None` once and for all where there are no more.
    fn next(&mut self) -> Option<Self::Event<'_>>;
}

/// How events are sent.
#[derive(Clone, Debug)]
pub struct SendPlan {
    /// Where to.
    pub url: String,
    /// Events to send at most.
    pub count: u64,
    /// No event is begun that is planned for later than this after the start.
    pub duration: Option<Duration>,
    /// Events a second, where the source plans nothing; 0 sends as fast as the window lets.
    pub rate: f64,
    /// Publishes without a PubAck at a time. 512 to 1024 is where JetStream's rate levels off.
    pub window: usize,
    /// Publishes written in one go; those that are due go out even if they are fewer.
    pub batch: usize,
    /// Counts each publish.
    pub meter: Option<Arc<Meter>>,
    /// Is told when the sending begins.
    pub origin: Origin,
    /// Drops its connection when told so.
    pub cuts: Cuts,
    /// How long a PubAck may take before the connection is given up and everything sent again.
    pub ack_max: Duration,
    /// How long the server may be away, or refuse, in one piece before sending fails.
    pub outage_max: Duration,
}

impl SendPlan {
    /// `count` events to `url` as fast as a window of 1024 lets, through outages of up to 60 s.
    pub fn new(url: impl Into<String>, count: u64) -> Self {
        Self {
            url: url.into(),
            count,
            duration: None,
            rate: 0.0,
            window: 1024,
            batch: 1024,
            meter: None,
            origin: Origin::default(),
            cuts: Cuts::default(),
            ack_max: Duration::from_secs(5),
            outage_max: Duration::from_secs(60),
        }
    }
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Events with a PubAck.
    pub acked: u64,
    /// PubAcks that said the stream had it: answers to resends.
    pub acked_again: u64,
    /// Publishes repeated after a reconnect or a refusal.
    pub resent: u64,
    /// Of these, the ones without a `Nats-Msg-Id`: as many may be stored twice.
    pub resent_bare: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// The first planned time, nanoseconds since the epoch.
    pub start_ns: u64,
    /// From the first planned time to the last PubAck.
    pub elapsed: Duration,
    /// The most that an event was written behind its planned time. Large: the sender or its window
    /// could not keep the rate.
    pub behind_max: Duration,
    /// Planned time to the end of the first write, microseconds: the floor that the sender itself sets.
    pub late_us: Histogram<u64>,
    /// Planned time to PubAck, microseconds.
    pub ack_us: Histogram<u64>,
}
