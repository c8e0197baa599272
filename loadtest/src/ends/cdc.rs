//! Delivery on `wa.>`: what a browser's gateway sees. By a core subscription, whose latency is the true one;
//! or read from the stream, which misses nothing while servers are killed. A subscription that was cut is
//! filled up from the stream, so that what came meanwhile is late and not lost.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Course, Cuts, EXAMPLES_MAX, Told};
use crate::check::{Checker, Expectation, Unmarked};
use crate::client::{Client, ClientError};
use crate::contract::cdc::{Fate, Forward, read};
use crate::generate::record_hash;
use crate::report::Outcomes;
use crate::results::{Counts, ObserverPart};
use crate::send::{Known, wall_ns};

/// After the last expected event: time for a second copy to show.
const SETTLE: Duration = Duration::from_millis(300);
/// How often a subscription notes how far the stream is, to be filled up from there.
const NOTE_EVERY: Duration = Duration::from_secs(1);
const NO_STREAM: u64 = 10_059;

/// Where the results are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observe {
    /// A core subscription: latency to a subscriber, as a browser's gateway sees it. What was published while it
    /// was cut is read from the stream that captures the subject, if there is one.
    Live {
        /// Usually `wa.>`.
        pattern: String,
    },
    /// The stream itself, read from its end of before the run; latency counts to when it was stored.
    Stream {
        /// Usually `wa_stream`.
        name: String,
    },
}

/// The sender's half.
#[derive(Debug)]
pub struct Teller {
    out: Sender<Expectation>,
    /// Of events without a mark: what is needed to number them.
    rows: HashMap<u64, (u64, u32)>,
    companies: HashMap<String, u32>,
    sent: HashSet<u64>,
    told: u64,
}

/// Both halves, joined by a channel.
pub fn open(watcher: Watcher) -> (Teller, Watcher) {
    let (teller, inbox) = tell_nobody();
    (teller, Watcher { inbox: Some(inbox), ..watcher })
}

/// The sender's half alone, to learn what it costs.
pub fn tell_nobody() -> (Teller, Receiver<Expectation>) {
    let (out, inbox) = channel();
    let (rows, companies, sent) = (HashMap::new(), HashMap::new(), HashSet::new());
    (Teller { out, rows, companies, sent, told: 0 }, inbox)
}

impl Observe {
    /// In words, for a report.
    pub fn text(&self) -> String {
        match self {
            Self::Live { pattern } => format!("delivery to a subscription on {pattern}"),
            Self::Stream { name } => format!("stored in the stream {name}"),
        }
    }
}

impl Teller {
    /// Reads what must come of an event and hands it over.
    pub fn tell(&mut self, told: Told<'_>) {
        let expected = match told.event.known() {
            Known::Change(expected) => Some(expected),
            Known::Copy | Known::Ingest(_) => None,
            Known::Bytes => {
                match read(told.event.subject(), told.event.payload()) {
                    Fate::Forward(forward) => self.unmarked(&forward, told.planned_ns),
                    // What is not read here comes out as something that nobody sent, and the run says so.
                    Fate::Filtered | Fate::Refused(_) | Fate::Unread => None,
                }
            }
        };
        if let Some(expected) = expected {
            // Fails only if the watcher is gone, and then its error is the run's.
            let _ = self.out.send(expected);
        }
    }

    /// `None` for one that was sent before: a redelivery has no new effect.
    fn unmarked(&mut self, forward: &Forward<'_>, planned_ns: u64) -> Option<Expectation> {
        let Forward { subject, event_id, idx, record, order, company } = forward;
        let hash = |text: &str| record_hash(text.as_bytes());
        let identity = (hash(company).rotate_left(7) ^ hash(event_id)).rotate_left(7)
            ^ idx.map_or_else(|| record.map_or(0, hash), |idx| idx.wrapping_mul(2) + 1);
        if !self.sent.insert(identity) {
            return None;
        }
        let companies = self.companies.len() as u32;
        let company_number = *self.companies.entry(company.clone()).or_insert(companies);
        let rows = self.rows.len() as u64;
        let row = hash(company).rotate_left(7) ^ hash(order);
        let (row, version) = self.rows.entry(row).or_insert((rows, 0));
        *version += 1;
        let number = self.told;
        self.told += 1;
        Some(Expectation::told(&Unmarked {
            number,
            row: *row,
            version: *version,
            company: company_number,
            subject,
            event_id,
            idx: *idx,
            record: *record,
            planned_ns,
        }))
    }
}

/// The half that looks.
#[derive(Debug)]
pub struct Watcher {
    url: String,
    observe: Observe,
    outage_max: Duration,
    client: Client,
    checker: Checker,
    course: Option<Course>,
    cuts: Cuts,
    inbox: Option<Receiver<Expectation>>,
    /// The stream behind the subscription, and how far it was delivered for sure.
    stream: Option<String>,
    next_seq: u64,
    noted_at: Instant,
    /// Whether a cut is to be filled up.
    is_gap: bool,
}

impl Watcher {
    /// Connects and begins to look; `checker` knows what marks to expect.
    ///
    /// # Errors
    /// The connection.
    pub fn new(url: &str, observe: Observe, checker: Checker) -> Result<Self, ClientError> {
        let mut client = Client::connect(url)?;
        let stream = match &observe {
            Observe::Live { pattern } => {
                client.subscribe(pattern)?;
                client.barrier()?;
                stream_of(&mut client, pattern)?
            }
            Observe::Stream { name } => Some(name.clone()),
        };
        // A stream that is not there yet is read from its start once it is.
        let mut next_seq = 1;
        if let Some(name) = &stream {
            match client.stream_range(name) {
                Ok((_, last)) => next_seq = last + 1,
                Err(ClientError::JetStream { err_code: NO_STREAM, .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(Self {
            url: url.to_owned(),
            observe,
            outage_max: Duration::from_secs(60),
            client,
            checker,
            course: None,
            cuts: Cuts::default(),
            inbox: None,
            stream,
            next_seq,
            noted_at: Instant::now(),
            is_gap: false,
        })
    }

    /// Enters what is seen into a course, and follows cuts.
    #[must_use]
    pub fn with(self, course: Course, cuts: Cuts) -> Self {
        Self { course: Some(course), cuts, ..self }
    }

    /// How long the server may be away in one piece.
    #[must_use]
    pub fn patient(self, outage_max: Duration) -> Self {
        Self { outage_max, ..self }
    }

    /// Looks until the teller is gone and all has come, or for `drain` after that.
    ///
    /// # Errors
    /// The server is away for longer than allowed.
    pub fn watch(mut self, drain: Duration) -> Result<(Checker, Option<Course>), ClientError> {
        let mut ended: Option<Instant> = None;
        let mut completed: Option<Instant> = None;
        let mut away_since: Option<Instant> = None;
        loop {
            let looked = match self.cuts.is_due() {
                true => Err(ClientError::Closed),
                false => self.look(),
            };
            match looked {
                Ok(()) => away_since = None,
                Err(error) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.outage_max {
                        return Err(error);
                    }
                    self.reconnect();
                }
            }
            let is_told = self.take_expectations();
            if let Some(course) = &self.course {
                course.gauge().tell(&counts(&self.checker.outcomes()), false);
            }
            if is_told {
                let ended = *ended.get_or_insert_with(Instant::now);
                completed =
                    self.checker.is_complete().then(|| completed.unwrap_or_else(Instant::now));
                let is_settled = completed.is_some_and(|at| at.elapsed() > SETTLE);
                if is_settled && !self.is_gap || ended.elapsed() > drain {
                    return Ok((self.checker, self.course));
                }
            }
        }
    }

    fn look(&mut self) -> Result<(), ClientError> {
        match &self.observe {
            Observe::Live { .. } => self.listen(),
            Observe::Stream { .. } => {
                std::thread::sleep(Duration::from_millis(50));
                self.read_on(Checker::deliver)
            }
        }
    }

    fn listen(&mut self) -> Result<(), ClientError> {
        if self.is_gap {
            self.read_on(Checker::fill)?;
            self.is_gap = false;
        }
        let mut next = self.client.receive(Instant::now() + Duration::from_millis(20))?;
        let now_ns = wall_ns();
        // Whatever has arrived by now was told before it was sent.
        self.take_expectations();
        let has_arrived = next.is_some();
        while let Some(message) = next {
            let latency_us = self.checker.deliver(message.subject(), message.payload(), now_ns);
            enter(&mut self.course, now_ns, latency_us);
            next = self.client.receive_arrived();
        }
        if let Some(course) = self.course.as_mut().filter(|_| has_arrived) {
            course.booked(now_ns);
        }
        self.note()?;
        self.client.flush()
    }

    /// The stream's end, once a second: the server sent us what it had stored before it answers.
    fn note(&mut self) -> Result<(), ClientError> {
        if self.noted_at.elapsed() < NOTE_EVERY {
            return Ok(());
        }
        self.noted_at = Instant::now();
        let Some(name) = &self.stream else {
            if let Observe::Live { pattern } = &self.observe {
                self.stream = stream_of(&mut self.client, pattern)?;
            }
            return Ok(());
        };
        let (_, last) = self.client.stream_range(name)?;
        self.next_seq = last + 1;
        Ok(())
    }

    fn read_on(
        &mut self,
        take: impl Fn(&mut Checker, &[u8], &[u8], u64) -> Option<u64>,
    ) -> Result<(), ClientError> {
        let Some(name) = self.stream.clone() else { return Ok(()) };
        let last = match self.client.stream_range(&name) {
            Err(ClientError::JetStream { err_code: NO_STREAM, .. }) => return Ok(()),
            other => other?.1,
        };
        self.take_expectations();
        if last < self.next_seq {
            return Ok(());
        }
        let Self { client, checker, next_seq, course, inbox, .. } = self;
        client.read_stream(&name, *next_seq, |stored| {
            if stored.seq > last
                && let Some(inbox) = &inbox
            {
                inbox.try_iter().for_each(|expected| expect(checker, course, expected));
            }
            let message = stored.message;
            let at_ns = stored.stored_ns;
            let latency_us = take(checker, message.subject(), message.payload(), at_ns);
            enter(course, at_ns, latency_us);
            *next_seq = stored.seq + 1;
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Takes in what the sender has told; true once it will tell no more.
    fn take_expectations(&mut self) -> bool {
        let Some(inbox) = &self.inbox else { return true };
        loop {
            match inbox.try_recv() {
                Ok(expected) => expect(&mut self.checker, &self.course, expected),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn reconnect(&mut self) {
        self.is_gap = true;
        std::thread::sleep(Duration::from_millis(100));
        let Ok(mut client) = Client::connect(&self.url) else { return };
        let is_ready = match &self.observe {
            Observe::Live { pattern } => {
                client.subscribe(pattern).is_ok() && client.barrier().is_ok()
            }
            Observe::Stream { .. } => true,
        };
        if is_ready {
            self.client = client;
        }
    }
}

fn expect(checker: &mut Checker, course: &Option<Course>, expected: Expectation) {
    checker.expect(expected);
    if let Some(course) = course.as_ref().filter(|_| expected.is_seen()) {
        course.expect();
    }
}

fn enter(course: &mut Option<Course>, at_ns: u64, latency_us: Option<u64>) {
    if let (Some(course), Some(latency_us)) = (course, latency_us) {
        course.see(at_ns, latency_us);
    }
}

/// The stream that captures a subject, if one does.
fn stream_of(client: &mut Client, pattern: &str) -> Result<Option<String>, ClientError> {
    let answer = client.jetstream("STREAM.NAMES", &json!({ "subject": pattern }))?;
    Ok(answer["streams"][0].as_str().map(str::to_owned))
}

fn counts(outcomes: &Outcomes) -> Counts {
    Counts {
        expected: outcomes.expected,
        seen: outcomes.forwarded,
        lost: outcomes.lost,
        duplicated: outcomes.duplicated,
        out_of_order: outcomes.out_of_order,
        unexpected: outcomes.unexpected,
        corrupted: outcomes.corrupted + outcomes.misrouted,
    }
}

/// What the checker has to tell, for the recorder.
pub fn conclude(checker: &Checker, course: Course) -> ObserverPart {
    let mut examples = checker.examples();
    examples.truncate(2 * EXAMPLES_MAX);
    course.end(counts(&checker.outcomes()), examples)
}
