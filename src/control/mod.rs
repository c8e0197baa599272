//! The control thread's pages: metrics, health, readiness, shards; and the export of spans. Invariant: a page reads copies and never
//! makes a shard wait.

pub mod http;
pub mod metrics;
pub mod otlp;
pub mod ready;
pub mod view;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use self::otlp::{ExportFigures, Exporter};
use self::ready::{HealthWords, Phase};
use self::view::{ShardStatus, ShardView};
use crate::config::plan::{MetricsPlan, Plan, Stage};

/// What the pages show: the shards and the phase of the process.
pub struct Board {
    shards: Vec<Box<dyn ShardView>>,
    phase: AtomicU8,
    stall_after: Duration,
    metrics: MetricsPlan,
    words: HealthWords,
    export: Arc<ExportFigures>,
    process: metrics::Process,
}

impl Board {
    /// A board over these shards, in phase [`Phase::Starting`].
    #[must_use]
    pub fn new(plan: &Plan, shards: Vec<Box<dyn ShardView>>, export: Arc<ExportFigures>) -> Self {
        Self {
            shards,
            phase: AtomicU8::new(Phase::Starting as u8),
            stall_after: plan.control.stall_after,
            metrics: plan.metrics,
            words: match plan.stages.contains(&Stage::Ingest) {
                true => HealthWords::INGEST,
                false => HealthWords::CDC,
            },
            export,
            process: metrics::Process::of_this(),
        }
    }

    /// Moves the process to that phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Where the process stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Running,
            _ => Phase::Draining,
        }
    }

    /// Conditions of all shards, in order.
    #[must_use]
    pub fn statuses(&self) -> Vec<ShardStatus> {
        self.shards.iter().map(|shard| shard.status()).collect()
    }

    /// Figures of all shards, in order.
    #[must_use]
    pub fn snapshots(&self) -> Vec<view::ShardSnapshot> {
        self.shards.iter().map(|shard| shard.snapshot()).collect()
    }

    /// Body of `/ready`.
    #[must_use]
    pub fn readiness(&self) -> ready::Readiness {
        ready::readiness(self.phase(), &self.statuses(), self.stall_after)
    }

    /// Body of `/health`.
    #[must_use]
    pub fn health(&self) -> ready::Health {
        ready::health(&self.statuses(), self.stall_after, self.words)
    }

    fn metrics_page(&self) -> Result<String, prometheus::Error> {
        let shard = |view: &dyn ShardView| metrics::Shard {
            snapshot: view.snapshot(),
            status: view.status(),
        };
        let shards: Vec<metrics::Shard> = self.shards.iter().map(|view| shard(&**view)).collect();
        metrics::encode(&shards, &self.readiness(), self.metrics, &self.export, &self.process)
    }
}

/// The thread that serves the pages. Dropping it stops it.
pub struct ControlServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Listens at once, so that a port in use is an error here, and serves from a thread of its own, pinned
    /// to `core` if there is one. It exports spans too, where there is an exporter.
    ///
    /// # Errors
    /// The address cannot be listened on, or no thread or runtime can be made.
    pub fn start(
        listen: SocketAddr,
        core: Option<usize>,
        board: Arc<Board>,
        exporter: Option<Exporter>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            runtime.block_on(async {
                let export = exporter.map(|exporter| {
                    let (stop, stopped) = oneshot::channel();
                    (stop, tokio::spawn(exporter.run(stopped)))
                });
                if let Err(error) = http::serve(listener, board, stopped).await {
                    tracing::error!(%error, "control pages ended");
                }
                // Shards have ended by now: what they left is exported, within the exporter's bound.
                if let Some((stop, task)) = export {
                    let _ended = stop.send(());
                    let _panicked = task.await;
                }
            });
            // Connections still open are dropped with the runtime: a stop does not wait for a scraper.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("control-http".to_owned()).spawn(serve)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// The address it listens on; with port 0 asked for, the one given.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
