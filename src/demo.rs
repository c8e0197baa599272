//! `daisi demo`: private servers, this very process's shards, generated events of several companies, and a
//! check of every one. Invariant: it ends with exit 1 if an event was lost, doubled or out of order, or if
//! the books do not balance. Nothing outside its temporary folder is touched.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use loadtest::generate::Profile;
use loadtest::report::Report;
use loadtest::run::{self, Observe};
use loadtest::send::SendPlan;
use loadtest::stack::{NatsOptions, RedisOptions, Stack};
use tracing::Level;

use crate::cli::Exit;
use crate::config::plan::{LogPlan, Plan};
use crate::config::{Config, Sources};
use crate::control::Board;
use crate::control::view::{Outcome, ShardSnapshot};
use crate::process::Process;
use crate::telemetry;

/// Seconds of a run without a terminal, unless `DEMO_SECONDS` says otherwise.
const SECONDS: u64 = 30;
/// Events a second, unless `DEMO_RATE` says otherwise: the contract's requirement for one replica.
const RATE: u64 = 5_000;
/// How long everything that was sent may take to come out.
const DRAIN: Duration = Duration::from_secs(20);

/// What `DEMO_SECONDS` and the terminal make of a run.
struct Length {
    /// `None`: until Ctrl-C.
    seconds: Option<u64>,
    rate: u64,
    live: bool,
}

/// Runs the demo.
#[must_use]
pub fn run() -> Exit {
    match demo() {
        Ok(exit) => exit,
        Err(why) => {
            eprintln!("daisi demo: {why}");
            Exit::Failed
        }
    }
}

fn demo() -> Result<Exit, String> {
    let length = length()?;
    let log = LogPlan { level: Level::ERROR, json: false };
    telemetry::init(log).map_err(|error| format!("cannot set up logging: {error}"))?;
    println!("starting a private nats-server and redis-server ...");
    let stack = Stack::builder()
        .nats(NatsOptions::default())
        .redis(RedisOptions::default())
        .start()
        .map_err(|error| format!("{error}\n`make setup` installs what is missing"))?;
    let plan = plan(&stack)?;
    let process = Process::start(&plan).map_err(|error| error.to_string())?;
    println!(
        "nats-server {} and redis-server {} run in {}; daisi on core {:?}, pages on http://{}",
        stack.nats.version().map_err(|error| error.to_string())?,
        stack.redis.version().map_err(|error| error.to_string())?,
        stack.folder().display(),
        plan.shard_cores,
        process.address()
    );
    let board = Arc::clone(process.board());
    let (stop_process, stopped) = bounded(1);
    let shards = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || process.run(&stopped))
        .map_err(|error| error.to_string())?;
    let report = wait_ready(&board).and_then(|()| load(&stack, &board, &length));
    let books = settle(&board);
    let left = stop(&stop_process, shards)?;
    Ok(conclude(&report?, &books, left))
}

fn length() -> Result<Length, String> {
    let number = |name: &str| match std::env::var(name) {
        Ok(text) => {
            let number = text.trim().parse().ok().filter(|number| *number > 0);
            number.map(Some).ok_or(format!("{name} is {text:?}; it takes a number above 0"))
        }
        Err(_) => Ok(None),
    };
    let live = std::io::stdout().is_terminal();
    let seconds = number("DEMO_SECONDS")?.or((!live).then_some(SECONDS));
    Ok(Length { seconds, rate: number("DEMO_RATE")?.unwrap_or(RATE), live })
}

// The defaults of the configuration, and the two servers; the caller's environment stays out of it.
fn plan(stack: &Stack) -> Result<Plan, String> {
    let sets = [
        format!("nats.servers={}", stack.nats.url()),
        format!("redis.url={}", stack.redis.url()),
        "stages=cdc".to_owned(),
        "control.listen=127.0.0.1:0".to_owned(),
    ];
    let sources = Sources { file: None, env: Default::default(), sets: &sets };
    Plan::try_from(Config::load(&sources)).map_err(|error| error.to_string())
}

fn wait_ready(board: &Board) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let readiness = board.readiness();
        if readiness.ready && board.statuses().iter().any(|s| !s.partitions.is_empty()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let causes: Vec<_> = readiness.reasons.iter().map(|r| r.cause.clone()).collect();
            return Err(format!("not ready within 15 s: {}", causes.join("; ")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

// Send, observe, and show how it goes.
fn load(stack: &Stack, board: &Arc<Board>, length: &Length) -> Result<Report, String> {
    let mut send = SendPlan::new(stack.nats.url(), u64::MAX);
    send.rate = length.rate as f64;
    if let Some(seconds) = length.seconds {
        send.count = seconds * length.rate;
    }
    let until = length.seconds.map_or("until Ctrl-C".to_owned(), |s| format!("for {s} s"));
    let profile = Profile { companies: 8, bad: 0.001, ..Profile::default() };
    println!(
        "publishing {} events/s of {} companies {until}: {}% duplicates, {}% of foreign tables, \
         {}% backfill, {}% bad\n",
        length.rate,
        profile.companies,
        profile.duplicates * 100.0,
        profile.filtered * 100.0,
        profile.backfill * 100.0,
        profile.bad * 100.0
    );
    let stop = run::stop_sign().map_err(|error| error.to_string())?;
    let shown = Arc::new(AtomicBool::new(false));
    let progress = show_progress(Arc::clone(board), Arc::clone(&shown), length.live)?;
    let observe = Observe::Live { pattern: "wa.>".to_owned() };
    let report = run::run(&send, profile, &observe, DRAIN, &stop);
    shown.store(true, Relaxed);
    let _ended = progress.join();
    report.map_err(|error| error.to_string())
}

// Every second a line; on a terminal one block that is drawn over.
fn show_progress(
    board: Arc<Board>,
    ended: Arc<AtomicBool>,
    live: bool,
) -> Result<std::thread::JoinHandle<()>, String> {
    let started = Instant::now();
    let draw = move || {
        let last = AtomicU64::new(0);
        let (mut drawn, mut next) = (0, Duration::ZERO);
        let step = Duration::from_millis(if live { 250 } else { 2_000 });
        while !ended.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            if started.elapsed() < next {
                continue;
            }
            let books = Books::of(&board);
            let passed = books.pulled - last.swap(books.pulled, Relaxed);
            let rate = passed as f64 / step.as_secs_f64();
            let text = progress(&books, started.elapsed(), rate, live);
            let mut out = std::io::stdout().lock();
            if live && drawn > 0 {
                let _broken = write!(out, "\x1b[{drawn}A\x1b[J");
            }
            drawn = text.lines().count();
            let _broken = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            next = started.elapsed() + step;
        }
    };
    let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(draw);
    thread.map_err(|error| error.to_string())
}

fn progress(books: &Books, elapsed: Duration, rate: f64, live: bool) -> String {
    let [p50, p95, p99, _] = books.latency_us;
    let seconds = elapsed.as_secs();
    if !live {
        return format!(
            "{seconds:>4} s  {rate:>7.0}/s  in {:>8}  out {:>8}  duplicate {:>6}  skipped {:>6}  \
             dead {:>5}  in flight {:>5}  P50 {p50} P95 {p95} P99 {p99} us\n",
            books.pulled,
            books.committed,
            books.duplicate,
            books.filtered,
            books.dead,
            books.in_flight
        );
    }
    let bar = "#".repeat(((rate / 500.0) as usize).min(60));
    format!(
        "  running {seconds:>5} s   {rate:>7.0} events/s  {bar}\n  \
         in {:>10}   published {:>10}   duplicate {:>7}   skipped {:>7}   dead-lettered {:>6}\n  \
         in flight {:>3}   pull to publish: P50 {p50} us   P95 {p95} us   P99 {p99} us\n  \
         Ctrl-C ends and checks every event\n",
        books.pulled, books.committed, books.duplicate, books.filtered, books.dead, books.in_flight
    )
}

/// The sums over all shards.
#[derive(Clone, Debug, Default)]
struct Books {
    pulled: u64,
    committed: u64,
    duplicate: u64,
    filtered: u64,
    dead: u64,
    returned: u64,
    in_flight: u64,
    reasons: Vec<(&'static str, u64)>,
    /// P50, P95, P99 and largest, microseconds.
    latency_us: [u64; 4],
}

impl Books {
    fn of(board: &Board) -> Self {
        let mut books = Self::default();
        let mut pairs = Vec::new();
        for snapshot in board.snapshots() {
            books.add(&snapshot);
            pairs.extend(snapshot.processing.into_iter().flat_map(|times| times.times.pairs));
        }
        pairs.sort_unstable();
        books.latency_us = [0.50, 0.95, 0.99, 1.0].map(|share| percentile_us(&pairs, share));
        books
    }

    fn add(&mut self, snapshot: &ShardSnapshot) {
        self.pulled += snapshot.pulled;
        self.returned += snapshot.returned;
        self.in_flight += snapshot.in_flight;
        for event in &snapshot.events {
            match event.outcome {
                Outcome::Committed => self.committed += event.count,
                Outcome::Duplicate => self.duplicate += event.count,
                Outcome::Filtered => self.filtered += event.count,
                Outcome::DeadLettered => {
                    self.dead += event.count;
                    self.reasons.push((event.reason, event.count));
                }
                Outcome::Expired => {}
            }
        }
    }

    fn ended(&self) -> u64 {
        self.committed + self.duplicate + self.filtered + self.dead + self.returned
    }

    fn balance(&self) -> bool {
        self.pulled == self.ended() + self.in_flight
    }
}

fn percentile_us(pairs: &[(u64, u64)], share: f64) -> u64 {
    let total: u64 = pairs.iter().map(|(_, count)| count).sum();
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (value, count) in pairs {
        seen += count;
        if seen >= wanted {
            return value / 1_000;
        }
    }
    0
}

// The last outcomes reach the counters a moment after the last event is seen outside.
fn settle(board: &Board) -> Books {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let books = Books::of(board);
        if books.in_flight == 0 && books.balance() || Instant::now() > deadline {
            return books;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stop(
    stop: &Sender<i32>,
    process: std::thread::JoinHandle<Result<u64, crate::process::ProcessError>>,
) -> Result<u64, String> {
    let _ended = stop.send(0);
    match process.join() {
        Ok(left) => left.map_err(|error| error.to_string()),
        Err(_) => Err("the control thread panicked".to_owned()),
    }
}

fn conclude(report: &Report, books: &Books, left: u64) -> Exit {
    let outcomes = &report.outcomes;
    let mut text = String::new();
    let _infallible = write_table(&mut text, report, books);
    let mut out = std::io::stdout().lock();
    let _broken = out.write_all(text.as_bytes());
    let expected = report.published == books.pulled - books.returned;
    let fine =
        outcomes.is_clean() && books.balance() && books.in_flight == 0 && expected && left == 0;
    let verdict = match fine {
        true => {
            "every event accounted for: nothing lost, nothing doubled, order kept, books balance"
        }
        false => "NOT in order: see the table; the first faults are listed above",
    };
    let _broken = writeln!(out, "\n{verdict}");
    if fine { Exit::Ok } else { Exit::Failed }
}

fn write_table(out: &mut String, report: &Report, books: &Books) -> std::fmt::Result {
    let outcomes = &report.outcomes;
    writeln!(out, "\n  events in                              events out")?;
    let row = |out: &mut String, left: (&str, u64), right: (&str, u64)| {
        writeln!(out, "    {:<20} {:>10}        {:<20} {:>10}", left.0, left.1, right.0, right.1)
    };
    row(out, ("published by us", report.published), ("delivered on wa.>", outcomes.delivered))?;
    row(out, ("pulled by daisi", books.pulled), ("expected there", outcomes.expected))?;
    row(out, ("  processed", books.committed), ("lost", outcomes.lost))?;
    row(out, ("  duplicate", books.duplicate), ("doubled", outcomes.duplicated))?;
    row(out, ("  skipped", books.filtered), ("out of order", outcomes.out_of_order))?;
    row(out, ("  dead-lettered", books.dead), ("unexpected", outcomes.unexpected))?;
    row(out, ("  in flight", books.in_flight), ("corrupted", outcomes.corrupted))?;
    let [p50, p95, p99, max] = books.latency_us;
    let whole = &report.delivery_us;
    writeln!(out, "\n  latency, us               P50      P95      P99      max")?;
    writeln!(out, "    pull to publish    {p50:>8} {p95:>8} {p99:>8} {max:>8}")?;
    writeln!(
        out,
        "    sent to delivered  {:>8} {:>8} {:>8} {:>8}   (from the planned send time)",
        whole.p50, whole.p95, whole.p99, whole.max
    )?;
    writeln!(out, "  throughput           {:>8.0} events/s", report.rate)?;
    let reasons: Vec<_> = books.reasons.iter().filter(|(_, count)| *count > 0).collect();
    if !reasons.is_empty() {
        let words: Vec<_> = reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        writeln!(out, "  dead letters         {}", words.join(", "))?;
    }
    for example in &report.examples {
        writeln!(out, "  fault: {example}")?;
    }
    Ok(())
}
