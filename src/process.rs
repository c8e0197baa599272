//! The process while it runs: start order, what the control thread does, stop order. Invariants: servers that
//! are away never end it; a shard that dies does; a clean stop finishes what is held, hands over leases, and
//! says what it left behind. Submodules: `shards` (plan -> shards), `view` (shards -> pages).

pub mod shards;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::shards::pool::{Pool, PoolError};
use ::shards::shard::{Command, Notice};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Exit;
use crate::config::plan::Plan;
use crate::control::otlp::Exporter;
use crate::control::ready::Phase;
use crate::control::{Board, ControlServer};
use crate::telemetry;
use view::Conditions;

/// How often the control thread looks round when nobody tells it anything.
const ROUND: Duration = Duration::from_millis(200);

/// How often the shards are asked for the books of their companies.
const BOOKS_EVERY: Duration = Duration::from_secs(2);

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The shards.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The plan names something that cannot be had.
    #[error("{0}")]
    Plan(String),
    /// The control pages.
    #[error("control.listen {address}: {error}; choose another address or port")]
    Control {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// Signal handlers.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// A shard ended without an order.
    #[error("shard {0} has died; what it held is read again after a restart. The log tells why")]
    ShardDied(u16),
}

/// `daisi run`: until a signal.
#[must_use]
pub fn run(plan: &Plan) -> Exit {
    if let Err(error) = telemetry::init(plan.log) {
        eprintln!("daisi: cannot set up logging: {error}");
        return Exit::Failed;
    }
    let stop = match stop_signals() {
        Ok(stop) => stop,
        Err(error) => return failed(&ProcessError::Signals(error)),
    };
    match Process::start(plan).and_then(|process| process.run(&stop)) {
        Ok(0) => Exit::Ok,
        Ok(left) => {
            tracing::warn!(left, "stopped with work left behind; it is delivered again");
            Exit::Failed
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &ProcessError) -> Exit {
    tracing::error!(%error, "daisi ends");
    eprintln!("daisi: {error}");
    Exit::Failed
}

// SIGTERM and SIGINT ask for a clean stop; a second one ends the process at once.
fn stop_signals() -> std::io::Result<Receiver<i32>> {
    let (sender, receiver) = bounded(1);
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if sender.try_send(signal).is_err() {
                eprintln!("daisi: second signal, ending at once; what is held is delivered again");
                std::process::exit(1);
            }
        }
    })?;
    Ok(receiver)
}

/// The running process.
pub struct Process {
    plan: Plan,
    pool: Pool,
    board: Arc<Board>,
    conditions: Conditions,
    pages: ControlServer,
}

impl Process {
    /// Starts shards and control pages. Servers need not be there yet.
    ///
    /// # Errors
    /// io_uring refused, a port in use, a plan that cannot be carried out.
    pub fn start(plan: &Plan) -> Result<Self, ProcessError> {
        let mut plans = shards::shard_plans(plan).map_err(ProcessError::Plan)?;
        let (exporter, spans) = Exporter::of(&plan.telemetry).map_err(ProcessError::Plan)?.unzip();
        plans.iter_mut().for_each(|plan| plan.spans.clone_from(&spans));
        let lanes = shards::lane_capacity(plan);
        if let Some(id) = plan.control.core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let pool = Pool::start(plans, lanes)?;
        let (conditions, views) = view::of_pool(&pool, &plan.shard_cores);
        let figures = exporter.as_ref().map(Exporter::figures).unwrap_or_default();
        let board = Arc::new(Board::new(plan, views, figures));
        let address = plan.control.listen;
        let pages = ControlServer::start(address, plan.control.core, Arc::clone(&board), exporter)
            .map_err(|error| ProcessError::Control { address, error })?;
        tracing::info!(address = %pages.address(), shards = plan.shard_cores.len(),
            cores = ?plan.shard_cores, version = env!("CARGO_PKG_VERSION"), "daisi runs");
        board.set_phase(Phase::Running);
        Ok(Self { plan: plan.clone(), pool, board, conditions, pages })
    }

    /// What the pages show.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Where the pages are.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.pages.address()
    }

    /// Runs until `stop` says so, then stops cleanly. Returns the events left without outcome.
    ///
    /// # Errors
    /// A shard has died.
    pub fn run(self, stop: &Receiver<i32>) -> Result<u64, ProcessError> {
        let mut books_at = Instant::now();
        loop {
            if self.plan.metrics.companies_max > 0 && Instant::now() >= books_at {
                books_at = Instant::now() + BOOKS_EVERY;
                self.ask_books();
            }
            crossbeam_channel::select! {
                recv(stop) -> _ => break,
                recv(self.pool.notices) -> notice => match notice {
                    Ok(notice) => self.on_notice(notice)?,
                    Err(_) => return Err(ProcessError::ShardDied(0)),
                },
                default(ROUND) => {}
            }
        }
        self.stop()
    }

    // Companies have series only where the configuration asks for it.
    fn ask_books(&self) {
        for (place, member) in self.pool.members.iter().enumerate() {
            let (asker, answer) = bounded(1);
            if member.order(Command::Books(asker))
                && let Ok(books) = answer.recv_timeout(ROUND)
            {
                self.conditions.update_books(place, books);
            }
        }
    }

    fn on_notice(&self, notice: Notice) -> Result<(), ProcessError> {
        match notice {
            Notice::Status(shard, status) => self.conditions.update(shard, *status),
            Notice::Drained(_) => {}
            Notice::Ended(shard) => return Err(ProcessError::ShardDied(shard.0)),
        }
        Ok(())
    }

    // Order: no more pulls; outcomes for what is held; acks; leases; then threads, pages last.
    fn stop(mut self) -> Result<u64, ProcessError> {
        let deadline = Instant::now() + self.plan.control.drain_deadline;
        tracing::info!(deadline_s = self.plan.control.drain_deadline.as_secs(), "draining");
        self.board.set_phase(Phase::Draining);
        self.pool.drain();
        let mut waiting: Vec<_> = self.pool.members.iter().map(|member| member.shard).collect();
        while !waiting.is_empty() {
            match self.pool.notices.recv_deadline(deadline) {
                Ok(Notice::Drained(shard)) => waiting.retain(|other| *other != shard),
                Ok(notice) => self.on_notice(notice)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let left = self.conditions.in_flight();
        for shard in &waiting {
            tracing::warn!(%shard, "not drained by the deadline");
        }
        self.pool.stop()?;
        tracing::info!(left, "daisi has stopped");
        Ok(if waiting.is_empty() { 0 } else { left.max(1) })
    }
}
