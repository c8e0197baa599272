//! One thing done to many, at an operator's word: asked for first, shown while it goes, stopped by a signal
//! between two, counted at the end. Invariant: what is told as done is done.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use loadtest::run::{is_stopped, stop_sign};
use serde_json::{Map, Value};

use crate::cli::Exit;

/// Time between two drawings of the progress line, and between two looks at the sign to stop.
const STEP: Duration = Duration::from_millis(100);

/// How many are meant, and what to do to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// What is done, as in "retry".
    pub(crate) verb: &'a str,
    /// What was done, as in "retried".
    pub(crate) done: &'a str,
    /// What they are, as in "dead letters".
    pub(crate) what: &'a str,
    /// One JSON object a line, in place of text.
    pub(crate) json: bool,
}

/// The sign that SIGINT or SIGTERM came; a second one ends the process at once.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn watch() -> Result<Self, String> {
        stop_sign().map(Self).map_err(|error| format!("cannot watch for signals: {error}"))
    }

    pub(crate) fn is_set(&self) -> bool {
        is_stopped(&self.0)
    }
}

/// Asks before `count` are touched; with `yes`, or for a single one, it is taken as said.
///
/// # Errors
/// How to end instead.
pub(crate) fn confirm(order: Order<'_>, count: usize, yes: bool, stop: &Stop) -> Result<(), Exit> {
    if yes || count < 2 {
        return Ok(());
    }
    let Order { verb, what, .. } = order;
    if !io::stdin().is_terminal() {
        eprintln!(
            "daisi: this would {verb} {count} {what}; say --yes, or look first with --dry-run"
        );
        return Err(Exit::Usage);
    }
    eprint!("{verb} {count} {what}? [y/N] ");
    // Read beside, because a signal does not cut a read at a terminal short.
    let (typed, answer) = channel();
    let read = move || {
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line);
        // Nobody waits any more after a signal.
        let _ = typed.send(line);
    };
    std::thread::spawn(read);
    while !stop.is_set() {
        match answer.recv_timeout(STEP) {
            Ok(line) if ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()) => {
                return Ok(());
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    eprintln!("daisi: nothing was done");
    Err(Exit::Failed)
}

/// What became of them so far.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    order: Order<'a>,
    total: usize,
    done: usize,
    failed: usize,
    drawn: Option<Instant>,
    is_shown: bool,
    is_quiet: bool,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(order: Order<'a>, total: usize) -> Self {
        let is_shown = io::stderr().is_terminal() && total > 1;
        // On a terminal the progress line says enough; a file gets each of them.
        let is_quiet = is_shown && io::stdout().is_terminal() && !order.json;
        Self { order, total, done: 0, failed: 0, drawn: None, is_shown, is_quiet }
    }

    /// One more is done: `text` for people, `facts` for scripts.
    pub(crate) fn done(&mut self, text: &str, facts: Map<String, Value>) -> io::Result<()> {
        self.done += 1;
        if !self.is_quiet {
            self.clear();
            let text = if self.order.json { Value::Object(facts).to_string() } else { text.into() };
            tell(&text)?;
        }
        self.draw();
        Ok(())
    }

    /// One could not be done, and stays as it is.
    pub(crate) fn failed(&mut self, which: &str, why: &str) {
        self.failed += 1;
        self.clear();
        eprintln!("daisi: {which}: {why}");
        self.draw();
    }

    /// Ends the line and tells the sum. `cut` is why it ends before its end, if it does.
    pub(crate) fn end(mut self, cut: Option<&str>) -> Exit {
        self.clear();
        let Order { done, what, .. } = self.order;
        let sum = format!("{done} {} of {} {what}", self.done, self.total);
        let failed = match self.failed {
            0 => String::new(),
            count => format!("; {count} could not be and stay as they were"),
        };
        match cut {
            Some(why) => eprintln!(
                "daisi: {why}: {sum}{failed}. What was done stays done; the same command again goes on \
                 where this one stopped (give a list of numbers without those done)"
            ),
            None => eprintln!("{sum}{failed}"),
        }
        if self.failed == 0 && cut.is_none() { Exit::Ok } else { Exit::Failed }
    }

    fn draw(&mut self) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= STEP);
        if self.is_shown && is_due {
            let (done, failed, total) = (self.done, self.failed, self.total);
            // A terminal that went away is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[K{} {done} of {total}", self.order.done);
            if failed > 0 {
                let _ = write!(io::stderr(), ", failed {failed}");
            }
            self.drawn = Some(Instant::now());
        }
    }

    fn clear(&mut self) {
        if self.is_shown && self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Writes one line of an answer.
///
/// # Errors
/// Nobody reads it any more, or the disk is full.
pub(crate) fn tell(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// How to end when an answer could not be written: a reader that had enough is no failure.
pub(crate) fn exit_of(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Ok;
    }
    eprintln!("daisi: standard output: {error}");
    Exit::Failed
}
