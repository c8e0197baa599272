//! A whole run against a running daisi: sender on this thread, observer on another, one report.
//! Invariant: an expectation is handed over before its event is sent, so the checker always knows it
//! when the event comes out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use crate::check::{Checker, Expectation};
use crate::client::{Client, ClientError};
use crate::generate::{Generator, Profile};
use crate::report::Report;
use crate::send::{SendPlan, Sent, send, wall_ns};

/// Where the results are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observe {
    /// A core subscription: latency to a subscriber, as a browser's gateway sees it. What is published
    /// while the server is away is missed; not for runs that kill it.
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

/// After the last expected event: time for a second copy to show.
const SETTLE: Duration = Duration::from_millis(300);
/// Expectations under way between the two threads.
const HANDOVER_MAX: usize = 1 << 16;

/// Sends by `plan` what `profile` says, and observes until all has come, or for `drain` after the last
/// PubAck. `stop` ends the sending early; what was sent is still waited for.
///
/// # Errors
/// The sender's or the observer's connection, for longer than the plan allows.
pub fn run(
    plan: &SendPlan,
    profile: Profile,
    observe: &Observe,
    drain: Duration,
    stop: &AtomicBool,
) -> Result<Report, ClientError> {
    let mut generator = Generator::new(profile);
    let checker = Checker::new(generator.profile().rows(), generator.profile().companies);
    let observer = Observer::new(plan, observe, checker)?;
    let (told, expectations) = sync_channel(HANDOVER_MAX);
    std::thread::scope(|scope| {
        let observer = scope.spawn(move || observer.watch(&expectations, drain));
        let sent = send(plan, &mut generator, stop, |event| {
            if let Some(expected) = Expectation::of(event) {
                // Fails only if the observer is gone, and then its error is the run's.
                let _ = told.send(expected);
            }
        });
        drop(told);
        let checker = observer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (sent, checker): (Sent, Checker) = (sent?, checker?);
        Ok(Report::new(&sent, &checker))
    })
}

struct Observer<'a> {
    plan: &'a SendPlan,
    observe: &'a Observe,
    client: Client,
    checker: Checker,
    next_seq: u64,
}

impl<'a> Observer<'a> {
    fn new(
        plan: &'a SendPlan,
        observe: &'a Observe,
        checker: Checker,
    ) -> Result<Self, ClientError> {
        let mut client = Client::connect(&plan.url)?;
        let mut next_seq = 1;
        match observe {
            Observe::Live { pattern } => {
                client.subscribe(pattern)?;
                client.barrier()?;
            }
            // A stream that is not there yet is read from its start once it is.
            Observe::Stream { name } => match client.stream_range(name) {
                Ok((_, last)) => next_seq = last + 1,
                Err(ClientError::JetStream { err_code: 10_059, .. }) => {}
                Err(other) => return Err(other),
            },
        }
        Ok(Self { plan, observe, client, checker, next_seq })
    }

    fn watch(
        mut self,
        expectations: &Receiver<Expectation>,
        drain: Duration,
    ) -> Result<Checker, ClientError> {
        let mut ended: Option<Instant> = None;
        let mut completed: Option<Instant> = None;
        let mut away_since: Option<Instant> = None;
        loop {
            match self.look(expectations) {
                Ok(()) => away_since = None,
                Err(error) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.plan.outage_max {
                        return Err(error);
                    }
                    self.reconnect();
                }
            }
            if self.take_expectations(expectations) {
                let ended = *ended.get_or_insert_with(Instant::now);
                completed =
                    self.checker.is_complete().then(|| completed.unwrap_or_else(Instant::now));
                let is_settled = completed.is_some_and(|at| at.elapsed() > SETTLE);
                if is_settled || ended.elapsed() > drain {
                    return Ok(self.checker);
                }
            }
        }
    }

    fn look(&mut self, expectations: &Receiver<Expectation>) -> Result<(), ClientError> {
        match self.observe {
            Observe::Live { .. } => {
                let mut next = self.client.receive(Instant::now() + Duration::from_millis(20))?;
                let now_ns = wall_ns();
                // Whatever has arrived by now was told before it was sent.
                self.take_expectations(expectations);
                while let Some(message) = next {
                    self.checker.deliver(message.subject(), message.payload(), now_ns);
                    next = self.client.receive_arrived();
                }
                self.client.flush()
            }
            Observe::Stream { name } => {
                std::thread::sleep(Duration::from_millis(50));
                let (_, last) = match self.client.stream_range(name) {
                    Err(ClientError::JetStream { err_code: 10_059, .. }) => return Ok(()),
                    other => other?,
                };
                self.take_expectations(expectations);
                if last >= self.next_seq {
                    self.read_on(name, expectations, last)?;
                }
                Ok(())
            }
        }
    }

    fn read_on(
        &mut self,
        name: &str,
        expectations: &Receiver<Expectation>,
        last: u64,
    ) -> Result<(), ClientError> {
        let (checker, next_seq) = (&mut self.checker, &mut self.next_seq);
        self.client.read_stream(name, *next_seq, |stored| {
            if stored.seq > last {
                expectations.try_iter().for_each(|expected| checker.expect(expected));
            }
            let message = stored.message;
            checker.deliver(message.subject(), message.payload(), stored.stored_ns);
            *next_seq = stored.seq + 1;
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Takes in what the sender has told; true once it will tell no more.
    fn take_expectations(&mut self, expectations: &Receiver<Expectation>) -> bool {
        loop {
            match expectations.try_recv() {
                Ok(expected) => self.checker.expect(expected),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn reconnect(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
        let Ok(mut client) = Client::connect(&self.plan.url) else { return };
        let is_ready = match self.observe {
            Observe::Live { pattern } => {
                client.subscribe(pattern).is_ok() && client.flush().is_ok()
            }
            Observe::Stream { .. } => true,
        };
        if is_ready {
            self.client = client;
        }
    }
}

/// Set once by Ctrl-C or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// The signal handlers could not be installed.
pub fn stop_sign() -> std::io::Result<std::sync::Arc<AtomicBool>> {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Whether the sign is set.
pub fn is_stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
