//! How a load goes, on one line of a terminal that is drawn over.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::LoadError;
use crate::meter::{Meter, Totals};

const STEP: Duration = Duration::from_millis(500);

/// The line; it is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows it where standard error is a terminal.
    pub(crate) fn show(meter: Arc<Meter>) -> Result<Option<Self>, LoadError> {
        if !io::stderr().is_terminal() {
            return Ok(None);
        }
        let (stop, stopped) = channel::<()>();
        let draw = move || {
            let (started, mut before) = (Instant::now(), 0);
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                let Totals { attempted, published, failed } = meter.totals();
                let rate = (published - before) as f64 / STEP.as_secs_f64();
                before = published;
                let waiting = attempted.saturating_sub(published + failed);
                let seconds = started.elapsed().as_secs();
                let _ = write!(
                    io::stderr(),
                    "\r\x1b[K{seconds:>5} s  {rate:>8.0}/s  published {published}  \
                     waiting for PubAck {waiting}  errors {failed}"
                );
            }
            let _ = write!(io::stderr(), "\r\x1b[K");
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(draw);
        let thread = thread.map_err(LoadError::io("start the thread of the progress line"))?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
