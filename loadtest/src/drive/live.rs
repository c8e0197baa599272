//! How a run goes, while it goes: a few lines of a terminal that are drawn over, or one line every five seconds
//! where there is none. Written to standard error; standard output is the results'.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ends::Gauge;
use crate::meter::{Meter, Totals};
use crate::results::Origin;
use crate::send::wall_ns;

const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(5);

/// Whether it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// As the terminal allows.
    #[default]
    Progress,
    /// Not at all.
    Quiet,
}

/// The lines; they end with [`Live::end`].
#[derive(Debug)]
pub(super) struct Live {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    is_draining: Arc<AtomicBool>,
}

impl Live {
    /// Begins to show.
    pub(super) fn show(
        show: Show,
        meter: Arc<Meter>,
        origin: Origin,
        gauges: Vec<Arc<Gauge>>,
    ) -> io::Result<Self> {
        let is_draining = Arc::new(AtomicBool::new(false));
        if show == Show::Quiet {
            return Ok(Self { stop: None, thread: None, is_draining });
        }
        let (stop, stopped) = channel::<()>();
        let drains = Arc::clone(&is_draining);
        let draw = move || {
            let is_terminal = io::stderr().is_terminal();
            let step = if is_terminal { REDRAW } else { LINE };
            let (mut before, mut drawn) = (0, 0);
            while stopped.recv_timeout(step) == Err(RecvTimeoutError::Timeout) {
                let totals = meter.totals();
                let rate = (totals.published - before) as f64 / step.as_secs_f64();
                before = totals.published;
                let is_draining = drains.load(Ordering::Relaxed);
                let lines = lines(&origin, totals, rate, is_draining, &gauges);
                let text = match is_terminal {
                    true => redraw(&lines, &mut drawn),
                    false => lines.join("; ") + "\n",
                };
                let _ = io::stderr().write_all(text.as_bytes());
            }
            if is_terminal {
                let _ = io::stderr().write_all(redraw(&[], &mut drawn).as_bytes());
            }
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(draw)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), is_draining })
    }

    /// The sending is over.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Takes the lines away.
    pub(super) fn end(self) {
        drop(self.stop);
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

/// Over what was drawn before; every line is cleared to its end.
fn redraw(lines: &[String], drawn: &mut usize) -> String {
    let mut text = String::new();
    if *drawn > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "\x1b[{}F\x1b[J", *drawn);
    }
    lines.iter().for_each(|line| text.extend([line, "\n"]));
    *drawn = lines.len();
    text
}

fn lines(
    origin: &Origin,
    totals: Totals,
    rate: f64,
    is_draining: bool,
    gauges: &[Arc<Gauge>],
) -> Vec<String> {
    let seconds = origin.get().map_or(0.0, |start| wall_ns().saturating_sub(start) as f64 / 1e9);
    let Totals { attempted, published, failed } = totals;
    let waiting = attempted.saturating_sub(published + failed);
    let what = if is_draining { "sent" } else { "sending" };
    let mut lines = vec![format!(
        "{seconds:>6.0} s  {what} {published} ({rate:.0}/s), {waiting} without PubAck, {failed} sent again"
    )];
    lines.extend(gauges.iter().map(|gauge| {
        let (seen, expected) = (gauge.seen(), gauge.expected());
        let (p50, p95) = gauge.latency_us();
        format!(
            "{:<6} seen {seen} of {expected}, {} to come; P50 {:.1} ms, P95 {:.1} ms; faults {}",
            gauge.name(),
            expected.saturating_sub(seen),
            p50 as f64 / 1e3,
            p95 as f64 / 1e3,
            gauge.faults()
        )
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::redraw;

    #[test]
    fn what_was_drawn_is_drawn_over() {
        let mut drawn = 0;
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(redraw(&lines, &mut drawn), "a\nb\n");
        assert_eq!(redraw(&lines[..1], &mut drawn), "\x1b[2F\x1b[Ja\n");
        assert_eq!(redraw(&[], &mut drawn), "\x1b[1F\x1b[J");
    }
}
