//! Open-loop sender: every event has its time, given by its source or else `start + n / rate`, whatever
//! became of those before it; it is stamped with that time, so a stall counts in full against every event
//! it delays.
//! Invariant: events reach the stream in the order of the generator; after a reconnect all that lack a
//! PubAck are sent again, in order, under the same `Nats-Msg-Id`.

mod plan;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use shards::wire::nats::jetstream::PubAck;
use shards::wire::nats::op::Msg;

use crate::client::{Client, ClientError};
use crate::ends::Cuts;
pub use plan::{Known, Outgoing, SendPlan, Sent, Source};

/// Sends until `plan.count` events, or all of the source, have their PubAck, or until the plan's time is
/// over or `stop` is set and all that was begun has its PubAck; `before` sees every event first.
///
/// # Errors
/// What kept the server away for longer than `plan.outage_max`, or an event that it never takes.
pub fn send<S: Source>(
    plan: &SendPlan,
    source: &mut S,
    stop: &AtomicBool,
    mut before: impl FnMut(&S::Event<'_>),
) -> Result<Sent, ClientError> {
    send_told(plan, source, stop, |event, _| before(event), || ())
}

/// As [`send`]; `before` is also given the planned time, nanoseconds since the epoch, and `acked` is called
/// with each PubAck.
///
/// # Errors
/// As [`send`].
pub fn send_told<S: Source>(
    plan: &SendPlan,
    source: &mut S,
    stop: &AtomicBool,
    mut before: impl FnMut(&S::Event<'_>, u64),
    mut acked: impl FnMut(),
) -> Result<Sent, ClientError> {
    let mut sender = Sender::new(plan)?;
    // The count shrinks to what was drawn where the source ends before.
    let (mut drawn, mut count) = (0, plan.count);
    let mut due = sender.due(source, drawn);
    while sender.sent.acked < count {
        let is_ending = stop.load(Ordering::Relaxed) || sender.is_over(due);
        if is_ending && sender.pending.is_empty() {
            break;
        }
        let queued = sender.pending.len();
        while !is_ending && drawn < count && sender.may_send(due) && !sender.is_over(due) {
            let Some(mut event) = source.next() else {
                count = drawn;
                break;
            };
            let planned = sender.instant(due);
            before(&event, sender.wall_ns(planned));
            sender.queue(planned, &mut event)?;
            drop(event);
            drawn += 1;
            due = sender.due(source, drawn);
            if sender.pending.len() - queued >= plan.batch {
                break;
            }
        }
        let is_done = is_ending || drawn == count;
        let wake = if is_done { None } else { Some(sender.instant(due)) };
        if let Err(error) = sender.turn(wake, &mut acked) {
            sender.recover(error)?;
        }
    }
    sender.sent.elapsed = sender.start.elapsed();
    Ok(sender.sent)
}

/// Nanoseconds since the epoch.
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A publish without its PubAck, kept whole for a resend.
#[derive(Debug, Default)]
struct Pending {
    subject: String,
    /// A block as it goes over the wire; empty for none.
    headers: BytesMut,
    has_msg_id: bool,
    payload: Vec<u8>,
    series: usize,
    planned: Option<Instant>,
    /// Whether it was on the wire once.
    is_told: bool,
    is_acked: bool,
}

#[derive(Debug)]
struct Sender<'a> {
    plan: &'a SendPlan,
    client: Client,
    /// Oldest first; the n-th has reply number `first + n`.
    pending: VecDeque<Pending>,
    spare: Vec<Pending>,
    first: u64,
    /// How many of `pending`, from the front, are written to the client.
    written: usize,
    start: Instant,
    progress_at: Instant,
    acked_at: Instant,
    replies: String,
    cuts: Cuts,
    sent: Sent,
}

impl<'a> Sender<'a> {
    fn new(plan: &'a SendPlan) -> Result<Self, ClientError> {
        let (client, replies) = connect(plan)?;
        let sent = Sent {
            acked: 0,
            acked_again: 0,
            resent: 0,
            resent_bare: 0,
            reconnects: 0,
            start_ns: wall_ns(),
            elapsed: Duration::ZERO,
            behind_max: Duration::ZERO,
            late_us: crate::report::latency_histogram(),
            ack_us: crate::report::latency_histogram(),
        };
        plan.origin.set(sent.start_ns);
        let start = Instant::now();
        Ok(Self {
            plan,
            client,
            pending: VecDeque::new(),
            spare: Vec::new(),
            first: 0,
            written: 0,
            start,
            progress_at: start,
            acked_at: start,
            replies,
            cuts: plan.cuts.clone(),
            sent,
        })
    }

    /// When the next event of the source, the n-th, is planned, from the start; `None` is now.
    fn due(&self, source: &mut impl Source, number: u64) -> Option<Duration> {
        let by_rate = || number as f64 / self.plan.rate;
        let has_rate = self.plan.rate > 0.0;
        source.planned().or_else(|| has_rate.then(|| Duration::from_secs_f64(by_rate())))
    }

    fn instant(&self, due: Option<Duration>) -> Instant {
        due.map_or_else(Instant::now, |due| self.start + due)
    }

    /// A time of this run in nanoseconds since the epoch.
    fn wall_ns(&self, at: Instant) -> u64 {
        self.sent.start_ns + at.saturating_duration_since(self.start).as_nanos() as u64
    }

    /// Whether that time lies behind the plan's.
    fn is_over(&self, due: Option<Duration>) -> bool {
        let is_over = |duration| due.unwrap_or_else(|| self.start.elapsed()) >= duration;
        self.plan.duration.is_some_and(is_over)
    }

    fn may_send(&self, due: Option<Duration>) -> bool {
        self.pending.len() < self.plan.window && self.instant(due) <= Instant::now()
    }

    fn queue(&mut self, planned: Instant, event: &mut impl Outgoing) -> Result<(), ClientError> {
        event.stamp(self.wall_ns(planned));
        let mut slot = self.spare.pop().unwrap_or_default();
        slot.headers.clear();
        event.append_headers(&mut slot.headers)?;
        let size = (slot.headers.len() + event.payload().len()) as u64;
        let size_max = self.client.info().max_payload;
        if size > size_max {
            // Written, it would cost the connection, and again after each new one.
            return Err(ClientError::TooLarge { subject: event.subject().into(), size, size_max });
        }
        event.subject().clone_into(&mut slot.subject);
        slot.has_msg_id = event.msg_id().is_some();
        slot.payload.clear();
        slot.payload.extend_from_slice(event.payload());
        slot.series = event.series();
        (slot.planned, slot.is_told, slot.is_acked) = (Some(planned), false, false);
        self.pending.push_back(slot);
        Ok(())
    }

    /// Writes what is queued, takes in what has come; waits for either until `wake`.
    fn turn(&mut self, wake: Option<Instant>, acked: &mut impl FnMut()) -> Result<(), ClientError> {
        if self.cuts.is_due() {
            return Err(ClientError::Closed);
        }
        for (at, slot) in self.pending.iter().enumerate().skip(self.written) {
            let reply = reply_subject(&mut self.replies, self.first + at as u64);
            if let Some(meter) = &self.plan.meter {
                meter.attempt(slot.series);
            }
            self.client.publish_raw(&slot.subject, Some(reply), &slot.headers, &slot.payload)?;
        }
        let before = std::mem::replace(&mut self.written, self.pending.len());
        self.client.flush()?;
        let now = Instant::now();
        self.count_late(before, now);
        let patience = now + Duration::from_millis(20);
        // With a full window nothing can be sent before an ack comes, whatever the plan says.
        let is_full = self.pending.len() >= self.plan.window;
        let deadline = wake.filter(|_| !is_full).map_or(patience, |wake| wake.min(patience));
        let mut next = self.client.receive(deadline)?;
        while let Some(message) = next {
            if self.settle(&message)? {
                acked();
            }
            next = self.client.receive(now)?;
        }
        if self.pending.is_empty() {
            self.progress_at = Instant::now();
            self.acked_at = self.progress_at;
        } else if self.progress_at.elapsed() > self.plan.ack_max {
            return Err(ClientError::Timeout { to: "publish".into(), waited: self.plan.ack_max });
        }
        Ok(())
    }

    /// Enters how long behind its plan each of `pending` from `from` on was first on the wire.
    fn count_late(&mut self, from: usize, now: Instant) {
        for slot in self.pending.iter_mut().skip(from).filter(|slot| !slot.is_told) {
            slot.is_told = true;
            let planned = slot.planned.unwrap_or(now);
            let late = now.saturating_duration_since(planned);
            self.sent.late_us.saturating_record(late.as_micros() as u64);
            self.sent.behind_max = self.sent.behind_max.max(late);
        }
    }

    /// True for the first PubAck of an event.
    fn settle(&mut self, message: &Msg) -> Result<bool, ClientError> {
        let Some(at) = reply_number(message.subject()).and_then(|n| n.checked_sub(self.first))
        else {
            return Ok(false);
        };
        let Some(slot) = self.pending.get_mut(at as usize).filter(|slot| !slot.is_acked) else {
            return Ok(false);
        };
        if message.status().is_some_and(|status| status.code == 503) {
            return Err(ClientError::NoResponders { subject: slot.subject.clone() });
        }
        let ack = PubAck::parse(message.payload())
            .map_err(|error| ClientError::Server(error.to_string()))?;
        slot.is_acked = true;
        if let Some(meter) = &self.plan.meter {
            meter.publish(slot.series);
        }
        self.progress_at = Instant::now();
        self.acked_at = self.progress_at;
        self.sent.acked += 1;
        self.sent.acked_again += u64::from(ack.duplicate);
        let waited = slot.planned.map_or(Duration::ZERO, |planned| planned.elapsed());
        self.sent.ack_us.saturating_record(waited.as_micros() as u64);
        while self.pending.front().is_some_and(|slot| slot.is_acked) {
            self.spare.extend(self.pending.pop_front());
            self.first += 1;
            self.written -= 1;
        }
        Ok(true)
    }

    /// A new connection and everything unacknowledged again, until the plan's time without a PubAck
    /// is over: a server that takes connections and refuses every event is away as well.
    fn recover(&mut self, mut error: ClientError) -> Result<(), ClientError> {
        if matches!(error, ClientError::Subject(_) | ClientError::Header(_)) {
            return Err(error);
        }
        self.count_failed();
        let deadline = self.acked_at + self.plan.outage_max;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            match connect(self.plan) {
                Ok((client, replies)) => {
                    (self.client, self.replies) = (client, replies);
                    self.sent.reconnects += 1;
                    let again = self.pending.iter().take(self.written);
                    self.sent.resent += self.written as u64;
                    self.sent.resent_bare += again.filter(|slot| !slot.has_msg_id).count() as u64;
                    // Acknowledged ones in between go again too: order is worth more than their bytes,
                    // and their ids make the stream drop them.
                    self.written = 0;
                    self.progress_at = Instant::now();
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
        Err(error)
    }

    fn count_failed(&self) {
        let Some(meter) = &self.plan.meter else { return };
        let failed = self.pending.iter().take(self.written).filter(|slot| !slot.is_acked);
        failed.for_each(|slot| meter.fail(slot.series));
    }
}

fn connect(plan: &SendPlan) -> Result<(Client, String), ClientError> {
    let mut client = Client::connect(&plan.url)?;
    let replies = format!("{}.a.", client.inbox_prefix());
    client.subscribe(&format!("{replies}*"))?;
    client.barrier()?;
    Ok((client, replies))
}

/// Writes the number behind the prefix; `replies` ends with its last dot.
fn reply_subject(replies: &mut String, number: u64) -> &str {
    use std::fmt::Write as _;
    let prefix = replies.rfind('.').map_or(0, |dot| dot + 1);
    replies.truncate(prefix);
    // Writing to a String cannot fail.
    let _ = write!(replies, "{number}");
    replies
}

fn reply_number(subject: &[u8]) -> Option<u64> {
    let digits = subject.rsplit(|byte| *byte == b'.').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
