//! `loadtest record`: events of a stream, or of a subject as they pass, to a trace. Nothing it does is
//! seen by other consumers. Invariant: events that may be missing are told, in words on standard error and
//! as a gap in the file; a stream has none, since its reading begins anew behind the last event.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use shards::clock::parse_nanos;

use super::format::{Preface, Record};
use super::time::{is_rfc3339, utc};
use super::write::Writer;
use crate::client::{Client, ClientError, Reading, Start};
use crate::load::{self, LoadError, read_duration};
use crate::run::is_stopped;
use crate::send::wall_ns;

/// What waits in memory is on the disk after so long: as much as a killed recorder loses.
const SEAL_AFTER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
const PROGRESS: Duration = Duration::from_millis(500);
/// How long the server may be away.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// What to record, from where, how long, and to which file.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["stream", "subject"])))]
pub struct RecordArgs {
    /// The trace to be made; `FILE.part` until it has its end.
    pub file: PathBuf,
    /// NATS server, `nats://[user:password@|token@]host:port`.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222", hide_env_values = true)]
    pub nats_url: String,
    /// Record this stream.
    #[arg(long)]
    pub stream: Option<String>,
    /// Record what passes on this subject, wildcards allowed, as `v1.>`.
    #[arg(long)]
    pub subject: Option<String>,
    /// Of a stream: from this sequence on [default: from its first].
    #[arg(long, conflicts_with_all = ["subject", "from_time", "last"])]
    pub from_seq: Option<u64>,
    /// Of a stream: from this time on, as 2026-06-01T10:00:00Z, or as 15m for that long ago.
    #[arg(long, value_parser = read_time, conflicts_with_all = ["subject", "last"])]
    pub from_time: Option<String>,
    /// Of a stream: its last events, so many.
    #[arg(long, conflicts_with = "subject")]
    pub last: Option<u64>,
    /// Of a stream: to the end that it has now.
    #[arg(long, conflicts_with = "subject")]
    pub until_now: bool,
    /// For so long, as 90s or 1h30m [default: until Ctrl-C].
    #[arg(long, value_parser = read_duration)]
    pub duration: Option<Duration>,
    /// So many events.
    #[arg(long)]
    pub count: Option<u64>,
    /// No progress line.
    #[arg(long)]
    pub quiet: bool,
}

/// Records what was asked for, to the end or until `stop` is set, and prints what the file holds.
///
/// # Errors
/// The server away for longer than a minute, which still leaves a whole file; or the file.
pub fn record(args: &RecordArgs, stop: &AtomicBool) -> Result<(), LoadError> {
    let client = Client::connect(&args.nats_url)?;
    let source = match (&args.stream, &args.subject) {
        (Some(stream), _) => format!("stream {stream}"),
        (None, subject) => format!("subject {}", subject.as_deref().unwrap_or(">")),
    };
    let preface = Preface {
        recorded_ns: wall_ns(),
        source,
        creator: concat!("loadtest ", env!("CARGO_PKG_VERSION")).to_owned(),
        server: client.info().version.clone(),
    };
    let writer = Writer::create(&args.file, &preface)?;
    let mut recorder = Recorder::new(args, stop, client, writer);
    let outcome = match (&args.stream, &args.subject) {
        (Some(stream), _) => recorder.record_stream(stream),
        (None, subject) => recorder.record_subject(subject.as_deref().unwrap_or(">")),
    };
    if outcome.is_err() && recorder.writer.totals().events == 0 {
        recorder.writer.discard();
        return outcome;
    }
    recorder.end()?;
    outcome
}

struct Recorder<'a> {
    args: &'a RecordArgs,
    stop: &'a AtomicBool,
    client: Client,
    writer: Writer,
    started: Instant,
    sealed_at: Instant,
    line: Option<Line>,
    reconnects: u64,
    /// When the last event of a subject came, nanoseconds since 1970.
    heard_ns: u64,
}

impl<'a> Recorder<'a> {
    fn new(args: &'a RecordArgs, stop: &'a AtomicBool, client: Client, writer: Writer) -> Self {
        let started = Instant::now();
        let has_line = !args.quiet && io::stderr().is_terminal();
        let line = has_line.then_some(Line { drawn_at: started, events: 0 });
        Self {
            args,
            stop,
            client,
            writer,
            started,
            sealed_at: started,
            line,
            reconnects: 0,
            heard_ns: wall_ns(),
        }
    }

    fn record_stream(&mut self, stream: &str) -> Result<(), LoadError> {
        let (_, last) = self.client.stream_range(stream)?;
        let mut start = match (&self.args.from_time, self.args.last) {
            (Some(time), _) => Start::Time(time.clone()),
            (None, Some(count)) => Start::Seq((last + 1).saturating_sub(count)),
            (None, None) => Start::Seq(self.args.from_seq.unwrap_or(1)),
        };
        let until = self.args.until_now.then_some(last);
        let mut lost_at = None;
        loop {
            match self.read_on(stream, &mut start, until, &mut lost_at) {
                Ok(ControlFlow::Break(())) => return Ok(()),
                Ok(ControlFlow::Continue(())) => {}
                Err(LoadError::Client(error)) => self.reconnect(error, &mut lost_at)?,
                Err(other) => return Err(other),
            }
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Reads until the recording is over or the reading fails; `start` moves on behind each event.
    fn read_on(
        &mut self,
        stream: &str,
        start: &mut Start,
        until: Option<u64>,
        lost_at: &mut Option<Instant>,
    ) -> Result<ControlFlow<()>, LoadError> {
        let mut reading = Reading::begin(&mut self.client, stream, start)?;
        if until.is_some() && reading.waiting() == 0 {
            reading.end(&mut self.client)?;
            return Ok(ControlFlow::Break(()));
        }
        while !self.is_over() {
            let Some(pulled) = reading.next(&mut self.client, Instant::now() + LOOK)? else {
                self.breathe()?;
                continue;
            };
            *lost_at = None;
            *start = Start::Seq(pulled.seq + 1);
            self.append(&Record {
                arrived_ns: pulled.stored_ns,
                seq: Some(pulled.seq),
                subject: pulled.message.subject(),
                headers: pulled.message.headers(),
                payload: pulled.message.payload(),
            })?;
            if until.is_some_and(|last| pulled.seq >= last || pulled.behind == 0) {
                break;
            }
        }
        // The events are there; a consumer that cannot be deleted is forgotten by itself.
        let _ = reading.end(&mut self.client);
        Ok(ControlFlow::Break(()))
    }

    fn record_subject(&mut self, pattern: &str) -> Result<(), LoadError> {
        self.client.subscribe(pattern)?;
        self.client.barrier()?;
        let mut lost_at = None;
        while !self.is_over() {
            match self.client.receive(Instant::now() + LOOK) {
                Ok(None) => self.breathe()?,
                Ok(Some(first)) => {
                    let arrived_ns = wall_ns();
                    self.heard_ns = arrived_ns;
                    let mut next = Some(first);
                    while let Some(message) = next.filter(|_| !self.is_full()) {
                        self.append(&Record {
                            arrived_ns,
                            seq: None,
                            subject: message.subject(),
                            headers: message.headers(),
                            payload: message.payload(),
                        })?;
                        next = self.client.receive_arrived();
                    }
                }
                Err(error) => {
                    self.lose(pattern, error, &mut lost_at)?;
                    continue;
                }
            }
            if let Err(error) = self.client.flush() {
                self.lose(pattern, error, &mut lost_at)?;
            }
        }
        Ok(())
    }

    /// A subject's events pass once: what was published until the subscription stands again is lost. A
    /// server ends a connection so when its reader is too slow, and what waited in it is lost as well: the
    /// gap begins behind the last event that came.
    fn lose(
        &mut self,
        pattern: &str,
        error: ClientError,
        lost_at: &mut Option<Instant>,
    ) -> Result<(), LoadError> {
        let reason = error.to_string();
        self.reconnect(error, lost_at)?;
        while let Err(again) = self.client.subscribe(pattern).and_then(|_| self.client.barrier()) {
            self.reconnect(again, lost_at)?;
        }
        *lost_at = None;
        let from = std::mem::replace(&mut self.heard_ns, wall_ns());
        let gap = format!("{} to {}: {reason}", utc(from), utc(self.heard_ns));
        self.tell(&format!("events may be missing, {gap}"));
        self.writer.note_gap(gap);
        Ok(())
    }

    fn reconnect(
        &mut self,
        mut error: ClientError,
        lost_at: &mut Option<Instant>,
    ) -> Result<(), LoadError> {
        // What the server refuses it refuses again.
        if matches!(error, ClientError::JetStream { .. } | ClientError::Subject(_)) {
            return Err(error.into());
        }
        self.tell(&format!("{error}; connecting again"));
        let since = *lost_at.get_or_insert_with(Instant::now);
        while since.elapsed() < OUTAGE_MAX && !is_stopped(self.stop) {
            std::thread::sleep(LOOK);
            match Client::connect(&self.args.nats_url) {
                Ok(client) => {
                    self.client = client;
                    self.reconnects += 1;
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
        Err(error.into())
    }

    fn append(&mut self, record: &Record<'_>) -> Result<(), LoadError> {
        self.writer.append(record)?;
        if self.sealed_at.elapsed() > SEAL_AFTER { self.breathe() } else { Ok(()) }
    }

    /// What is due from time to time.
    fn breathe(&mut self) -> Result<(), LoadError> {
        if self.sealed_at.elapsed() > SEAL_AFTER {
            self.writer.seal()?;
            self.sealed_at = Instant::now();
        }
        let text = self.text();
        let (events, started) = (self.writer.totals().events, self.started);
        if let Some(line) = self.line.as_mut().filter(|line| line.drawn_at.elapsed() > PROGRESS) {
            line.draw(events, started, &text);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_late = self.args.duration.is_some_and(|limit| self.started.elapsed() >= limit);
        is_late || self.is_full() || is_stopped(self.stop)
    }

    fn is_full(&self) -> bool {
        self.args.count.is_some_and(|count| self.writer.totals().events >= count)
    }

    fn text(&self) -> String {
        let totals = self.writer.totals();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let ratio = totals.bytes as f64 / self.writer.size().max(1) as f64;
        format!(
            "{} events, {:.1} MiB in {:.1} MiB on the disk (1 in {ratio:.1})",
            totals.events,
            mib(totals.bytes),
            mib(self.writer.size())
        )
    }

    fn tell(&self, text: &str) {
        let clear = if self.line.is_some() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}loadtest: {text}");
    }

    fn end(mut self) -> Result<(), LoadError> {
        self.writer.seal()?;
        let text = self.text();
        if self.line.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        let (totals, _) = self.writer.finish()?;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut told = format!("{text} in {seconds:.1} s: {}\n", self.args.file.display());
        if self.reconnects > 0 {
            told += &format!("connections made anew: {}\n", self.reconnects);
        }
        if totals.gaps > 0 {
            told += &format!("gaps, in which events may be missing: {}\n", totals.gaps);
        }
        load::tell(&told)
    }
}

/// The line of a terminal that is drawn over.
struct Line {
    drawn_at: Instant,
    events: u64,
}

impl Line {
    fn draw(&mut self, events: u64, started: Instant, text: &str) {
        let rate = (events - self.events) as f64 / self.drawn_at.elapsed().as_secs_f64();
        (self.drawn_at, self.events) = (Instant::now(), events);
        let seconds = started.elapsed().as_secs();
        let _ = write!(io::stderr(), "\r\x1b[K{seconds:>5} s  {rate:>8.0}/s  {text}");
    }
}

fn read_time(text: &str) -> Result<String, String> {
    match parse_nanos(text) {
        Some(ago) => Ok(utc(wall_ns().saturating_sub(ago))),
        None if is_rfc3339(text) => Ok(text.to_owned()),
        None => Err("write it as 2026-06-01T10:00:00Z, or as 15m for that long ago".to_owned()),
    }
}
