//! Events as lines of JSON on standard output, for other programs and for people.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{LoadArgs, LoadError, Printed};
use crate::generate::{self, Expect, ingest};
use crate::run::is_stopped;
use crate::send::{Outgoing, Source};

/// Says what must become of an event.
pub(super) trait Line: Outgoing {
    /// In words.
    fn expect(&self) -> String;
}

impl Line for ingest::Event<'_> {
    fn expect(&self) -> String {
        self.expect.name()
    }
}

impl Line for generate::Event<'_> {
    fn expect(&self) -> String {
        match self.expect {
            Expect::Forward { subject, .. } => format!("forward {subject}"),
            Expect::Duplicate => "duplicate".into(),
            Expect::Filtered => "filtered".into(),
            Expect::DeadLetter { reason } => format!("dead_letter {}", reason.name()),
        }
    }
}

/// Prints events until the count or the duration is over, nobody reads any more, or `stop` is set.
pub(super) fn print<S: Source>(
    args: &LoadArgs,
    printed: Printed,
    source: &mut S,
    stop: &AtomicBool,
) -> Result<(), LoadError>
where
    for<'a> S::Event<'a>: Line,
{
    let (rate, count, duration) = (args.rate()?, args.print_count(), args.duration());
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (started, mut bytes, mut told) = (Instant::now(), 0, 0_u64);
    let is_over = |started: Instant| duration.is_some_and(|duration| started.elapsed() >= duration);
    while told < count && !is_stopped(stop) && !is_over(started) {
        let Some(event) = source.next() else { break };
        bytes += event.payload().len();
        told += 1;
        if printed == Printed::Lines && !is_read(writeln!(out, "{}", line(&event)))? {
            return Ok(());
        }
        if rate > 0.0 {
            is_read(out.flush())?;
            let planned = started + Duration::from_secs_f64(told as f64 / rate);
            std::thread::sleep(planned.saturating_duration_since(Instant::now()));
        }
    }
    is_read(out.flush())?;
    let seconds = started.elapsed().as_secs_f64();
    if !args.json {
        eprintln!(
            "{told} events, {:.0} bytes on average, {:.0} events/s",
            bytes as f64 / told.max(1) as f64,
            told as f64 / seconds
        );
    }
    Ok(())
}

fn line(event: &impl Line) -> Value {
    json!({
        "subject": event.subject(),
        "msg_id": event.msg_id(),
        "expect": event.expect(),
        "payload": String::from_utf8_lossy(event.payload()),
    })
}

/// Prints totals; that nobody reads them is no error.
pub(crate) fn tell(text: &str) -> Result<(), LoadError> {
    is_read(io::stdout().write_all(text.as_bytes())).map(drop)
}

/// False when nobody reads any more, as `head` does.
pub(crate) fn is_read(written: io::Result<()>) -> Result<bool, LoadError> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(LoadError::io("print")(error)),
    }
}
