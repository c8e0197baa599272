//! A measured run: events from any source by their planned times, all their ends looked at at once, one account.
//! `run` and `replay` are this function with another source. Invariant: what comes back tells of every event
//! that was begun, also when the run was stopped.

pub mod command;
mod live;
mod sink;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::bed::{Bed, BedError};
use crate::check::Checker;
use crate::client::{Client, ClientError};
use crate::ends::cdc::{self, Observe};
use crate::ends::ingest::{self, IngestOptions};
use crate::ends::{Course, Cuts, EndError, Gauge, Tellers, Told};
use crate::host::HostError;
use crate::load::{LoadError, Page};
use crate::meter::Meter;
use crate::results::{self, Load, ObserverPart, Recorder, Results, ResultsError, SenderPart};
use crate::send::{SendPlan, Sent, Source, send_told, wall_ns};
use live::Live;
pub use live::Show;
pub use sink::{SelfTest, self_test};

/// Where dead letters of all stages end.
const LETTERS: &str = "dlq_stream";

/// What is to be driven, and how it is looked at.
#[derive(Debug)]
pub struct Order {
    /// Name of the profile or of the trace.
    pub name: String,
    /// The command line, without secrets.
    pub command: String,
    /// What is to be sent.
    pub load: Load,
    /// How it is sent; its URL, meter, origin and cuts are filled in here.
    pub plan: SendPlan,
    /// Subject and company of each series of the page.
    pub series: Vec<(String, String)>,
    /// The end of row changes, with the checker that knows their marks.
    pub cdc: Option<(Observe, Checker)>,
    /// The end of chat events.
    pub ingest: Option<IngestOptions>,
    /// How long the last events may take after the last PubAck.
    pub drain: Duration,
    /// Latencies of events planned within so long of the first are not in the figures.
    pub warm_up: Duration,
    /// What is broken on purpose, by its time.
    pub disturb: Vec<(Duration, Disturbance)>,
    /// How it is shown while it goes on.
    pub show: Show,
    /// Port of the page `/metrics`; 0 for none.
    pub metrics_port: u16,
}

/// Something broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Sender and observers drop their connections.
    Cut,
    /// A nats-server of our own is killed and started again.
    RestartNats,
}

/// Why a run could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// NATS.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// An end.
    #[error("{0}")]
    End(#[from] EndError),
    /// The servers.
    #[error("{0}")]
    Bed(#[from] BedError),
    /// The page.
    #[error("{0}")]
    Page(#[from] LoadError),
    /// The counters.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The recorder.
    #[error("{0}")]
    Host(#[from] HostError),
    /// The account.
    #[error("{0}")]
    Results(#[from] ResultsError),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Drives it, until the source ends, the plan's time is over, or `stop` is set; what was begun is waited for.
///
/// # Errors
/// The servers, for longer than the plan allows.
pub fn drive<S: Source>(
    order: Order,
    bed: &mut Bed,
    source: &mut S,
    stop: &AtomicBool,
) -> Result<Results, DriveError> {
    let Order { name, command, load, plan, series, drain, disturb, show, metrics_port, .. } = order;
    let letters = Letters::before(bed.nats_url())?;
    let pairs = series.iter().map(|(subject, company)| (&**subject, &**company));
    let meter = Arc::new(Meter::new(pairs)?);
    let recorder = Recorder::start(bed.watched())?.warming_up(order.warm_up);
    let mut ends = Ends { patience: plan.outage_max, ..Ends::default() };
    if let Some((observe, checker)) = order.cdc {
        ends.open_cdc(bed.nats_url(), observe, checker, (&meter, &recorder))?;
    }
    let poll = order.ingest.as_ref().map(|options| options.every);
    if let Some(options) = order.ingest {
        ends.open_ingest(options, (&meter, &recorder))?;
    }
    let _page = match metrics_port {
        0 => None,
        port => Some(Page::open(port, Arc::clone(&meter))?),
    };
    let plan = SendPlan {
        url: bed.nats_url().to_owned(),
        meter: Some(Arc::clone(&meter)),
        origin: recorder.origin(),
        cuts: ends.cuts.clone(),
        ..plan
    };
    let live = Live::show(show, meter, recorder.origin(), ends.gauges.clone());
    let live = live.map_err(DriveError::Thread)?;
    let (disturbed, undisturbed) = channel::<()>();
    let mut part = recorder.sender();
    let outcome = std::thread::scope(|scope| {
        let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let disturbances = Disturbances {
            due: disturb,
            origin: recorder.origin(),
            cuts: ends.cuts.clone(),
            is_over: undisturbed,
        };
        let disturber = name("disturber").spawn_scoped(scope, || disturbances.make(bed));
        let cdc = ends.cdc.take().map(|watcher| {
            let watch = move || watcher.watch(drain).inspect_err(|_| halt(stop));
            name("end-cdc").spawn_scoped(scope, watch)
        });
        let ingest = ends.ingest.take().map(|watcher| {
            let watch = move || watcher.watch(drain).inspect_err(|_| halt(stop));
            name("end-ingest").spawn_scoped(scope, watch)
        });
        let (disturber, cdc, ingest) = (disturber, cdc.transpose(), ingest.transpose());
        let tellers = std::mem::take(&mut ends.tellers);
        let sent = send_witnessed(&plan, source, stop, tellers, &mut part);
        drop(disturbed);
        live.drain();
        let notes = disturber.map_err(DriveError::Thread).and_then(join)?;
        let cdc = cdc.map_err(DriveError::Thread)?.map(|cdc| Ok(join(cdc)?)).transpose();
        let ingest = ingest.map_err(DriveError::Thread)?.map(|end| Ok(join(end)?)).transpose();
        // An end that failed has stopped the sender: its word is the first cause.
        let (cdc, ingest): (Result<_, DriveError>, Result<_, DriveError>) = (cdc, ingest);
        Ok::<_, DriveError>((cdc?, ingest?, sent?, notes))
    });
    live.end();
    let (cdc, ingest, sent, mut notes) = outcome?;
    let letters = ingest.as_ref().map(|found| letters.told(bed.nats_url(), found.letters));
    notes.extend(remarks(order.warm_up, poll.zip(ingest.as_ref())));
    let parts = account(cdc, ingest, &mut notes);
    notes.extend(letters);
    let told = results::Told {
        name,
        command,
        versions: bed.versions().into_iter().collect(),
        load,
        notes,
    };
    Ok(recorder.finish(told, results::Sending::from(&sent), &part, parts)?)
}

/// Sends; the ends are told of each event before it goes, and the recorder of its plan and its PubAck.
fn send_witnessed<S: Source>(
    plan: &SendPlan,
    source: &mut S,
    stop: &AtomicBool,
    mut tellers: Tellers,
    part: &mut SenderPart,
) -> Result<Sent, ClientError> {
    let mut ordinal = 0;
    let part = RefCell::new(part);
    let before = |event: &S::Event<'_>, planned_ns| {
        part.borrow_mut().planned(planned_ns);
        tellers.tell(Told { event, planned_ns, ordinal });
        ordinal += 1;
    };
    let acked = || part.borrow_mut().published(wall_ns());
    send_told(plan, source, stop, before, acked)
}

/// What a reader must know of how it was measured.
fn remarks(warm_up: Duration, ingest: Option<(Duration, &ingest::Found)>) -> Vec<String> {
    let told = || {
        format!(
            "warm-up: latencies at the ends leave out what was planned in the first {warm_up:.0?}; it was checked, \
             counted and drawn"
        )
    };
    let warmed = (!warm_up.is_zero()).then(told);
    warmed.into_iter().chain(ingest.and_then(|(poll, found)| found.late_looks(poll))).collect()
}

/// What the ends have to tell, for the recorder; what has no figure of its own becomes a note.
fn account(
    cdc: Option<(Checker, Option<Course>)>,
    ingest: Option<ingest::Found>,
    notes: &mut Vec<String>,
) -> Vec<ObserverPart> {
    let mut parts = Vec::new();
    if let Some((checker, Some(course))) = cdc {
        parts.push(cdc::conclude(&checker, course));
    }
    if let Some(found) = ingest {
        let kinds = found.kinds.iter().map(|(kind, count)| format!("{} {count}", kind.subject()));
        let kinds: Vec<String> = kinds.collect();
        if !kinds.is_empty() {
            notes.push(format!("without a row of their own, counted only: {}", kinds.join(", ")));
        }
        parts.push(found.part);
    }
    parts
}

fn halt(stop: &AtomicBool) {
    stop.store(true, Ordering::Relaxed);
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The ends of a run, before it begins.
#[derive(Default)]
struct Ends {
    tellers: Tellers,
    cdc: Option<cdc::Watcher>,
    ingest: Option<ingest::Watcher>,
    gauges: Vec<Arc<Gauge>>,
    cuts: Cuts,
    patience: Duration,
}

impl Ends {
    fn open_cdc(
        &mut self,
        url: &str,
        observe: Observe,
        checker: Checker,
        books: (&Meter, &Recorder),
    ) -> Result<(), DriveError> {
        let course = self.course(("cdc", &observe.text()), books)?;
        let watcher = cdc::Watcher::new(url, observe, checker)?;
        let watcher = watcher.with(course, self.cuts.clone()).patient(self.patience);
        let (teller, watcher) = cdc::open(watcher);
        (self.tellers.cdc, self.cdc) = (Some(teller), Some(watcher));
        Ok(())
    }

    fn open_ingest(
        &mut self,
        options: IngestOptions,
        books: (&Meter, &Recorder),
    ) -> Result<(), DriveError> {
        let course = self.course(("ingest", &options.text()), books)?;
        let options = IngestOptions { outage_max: self.patience, ..options };
        let (teller, watcher) = ingest::open(options, course, self.cuts.clone())?;
        (self.tellers.ingest, self.ingest) = (Some(teller), Some(watcher));
        Ok(())
    }

    fn course(
        &mut self,
        (name, text): (&'static str, &str),
        (meter, recorder): (&Meter, &Recorder),
    ) -> Result<Course, DriveError> {
        let gauge = Arc::new(Gauge::new(name, meter.end(name)?));
        self.gauges.push(Arc::clone(&gauge));
        Ok(Course::new(gauge, recorder.observer(name, text)))
    }
}

/// What is broken on purpose, in its order.
struct Disturbances {
    due: Vec<(Duration, Disturbance)>,
    origin: results::Origin,
    cuts: Cuts,
    /// Ends when the sending is over.
    is_over: Receiver<()>,
}

impl Disturbances {
    /// Makes each at its time; what was made, in words.
    fn make(self, bed: &mut Bed) -> Result<Vec<String>, DriveError> {
        let mut made = Vec::new();
        let mut start = None;
        for (at, what) in &self.due {
            loop {
                let now = Instant::now();
                if start.is_none() && self.origin.get().is_some() {
                    start = Some(now);
                }
                let wait = start.map(|start| (start + *at).saturating_duration_since(now));
                if wait.is_some_and(|wait| wait.is_zero()) {
                    break;
                }
                let step = wait.unwrap_or(Duration::from_millis(20));
                if self.is_over.recv_timeout(step) != Err(RecvTimeoutError::Timeout) {
                    return Ok(made);
                }
            }
            let at = at.as_secs_f64();
            match what {
                Disturbance::Cut => {
                    self.cuts.order();
                    made.push(format!("connections of sender and observers cut at {at:.1} s"));
                }
                Disturbance::RestartNats if bed.restart_nats()? => {
                    made.push(format!("nats-server killed and started again at {at:.1} s"));
                }
                Disturbance::RestartNats => {
                    made.push("nats-server not started again: it is not ours".to_owned());
                }
            }
        }
        Ok(made)
    }
}

/// The stream of dead letters, before a run and after it.
struct Letters {
    before: u64,
}

impl Letters {
    fn before(url: &str) -> Result<Self, ClientError> {
        Ok(Self { before: last(url)? })
    }

    /// What came into it, beside what must have; a server that is gone by then takes no results with it.
    fn told(&self, url: &str, expected: u64) -> String {
        let found = match last(url) {
            Ok(last) => last.saturating_sub(self.before).to_string(),
            Err(error) => format!("not known ({error})"),
        };
        format!(
            "dead letters of all stages: {found} stored; refused of the chat events sent: {expected}"
        )
    }
}

fn last(url: &str) -> Result<u64, ClientError> {
    match Client::connect(url)?.stream_range(LETTERS) {
        Ok((_, last)) => Ok(last),
        Err(ClientError::JetStream { .. }) => Ok(0),
        Err(other) => Err(other),
    }
}
