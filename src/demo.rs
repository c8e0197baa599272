//! `daisi demo`: private servers, this very process's shards, generated events of several companies, and a
//! check of every one: of row changes at what came out, of chat events at the rows in the database.
//! Invariant: it ends with exit 1 if an event was lost, doubled or out of order, if a row is missing or one
//! too many, or if the books do not balance. Nothing outside its temporary folder is touched.

mod books;
mod chat;
mod progress;
mod table;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use loadtest::generate::ingest::{Fault, Mix};
use loadtest::generate::{Generator, Profile};
use loadtest::report::Report;
use loadtest::run::{self, Observe};
use loadtest::send::SendPlan;
use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack};
use tracing::Level;

use crate::cli::Exit;
use crate::config::plan::{LogPlan, Plan};
use crate::config::{Config, Sources};
use crate::control::Board;
use crate::process::Process;
use crate::telemetry;
use books::{Books, IngestBooks};
use chat::Traffic;

/// Seconds of a run without a terminal, unless `DEMO_SECONDS` says otherwise.
const SECONDS: u64 = 30;
/// Row changes a second, unless `DEMO_RATE` says otherwise: the contract's requirement for one replica.
const RATE: u64 = 5_000;
/// Chat events a second, unless `DEMO_INGEST_RATE` says otherwise: what leaves two cores room for all servers.
const INGEST_RATE: u64 = 1_000;
/// How long everything that was sent may take to come out.
const DRAIN: Duration = Duration::from_secs(20);
/// How long the last dead letters may take to be tried, tried again and given up.
const LETTERS: Duration = Duration::from_secs(20);

/// What `DEMO_SECONDS` and the terminal make of a run.
struct Length {
    /// `None`: until Ctrl-C.
    seconds: Option<u64>,
    rate: u64,
    ingest_rate: u64,
    live: bool,
}

/// What both halves were sent, and what came out of the first.
struct Run {
    cdc: Report,
    ingest: Traffic,
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
    println!("starting a private nats-server, redis-server and PostgreSQL ...");
    // Rows then tell when they were committed, by the server's own clock.
    let settings = vec![("track_commit_timestamp".to_owned(), "on".to_owned())];
    let stack = Stack::builder()
        .nats(NatsOptions::default())
        .redis(RedisOptions::default())
        .postgres(PostgresOptions { settings, ..PostgresOptions::default() })
        .start()
        .map_err(|error| format!("{error}\n`make setup` installs what is missing"))?;
    chat::make_schemas(&stack.postgres.url(), &letter_companies())?;
    let plan = plan(&stack)?;
    let process = Process::start(&plan).map_err(|error| error.to_string())?;
    println!(
        "nats-server {}, redis-server {} and PostgreSQL {} run in {}; daisi on core {:?}, \
         pages on http://{}",
        stack.nats.version().map_err(|error| error.to_string())?,
        stack.redis.version().map_err(|error| error.to_string())?,
        stack.postgres.version().map_err(|error| error.to_string())?,
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
    let run = wait_ready(&board).and_then(|()| load(&stack, &board, &length));
    let (books, ingest) = settle(&board, run.as_ref().ok());
    let left = stop(&stop_process, shards)?;
    let run = run?;
    let found = run.ingest.look(&stack.postgres.url())?;
    Ok(table::conclude(&run, &books, &ingest, &found, left))
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
    let rate = number("DEMO_RATE")?.unwrap_or(RATE);
    let ingest_rate = number("DEMO_INGEST_RATE")?.unwrap_or(INGEST_RATE);
    Ok(Length { seconds, rate, ingest_rate, live })
}

// The defaults of the configuration, and the servers; the caller's environment stays out of it. Dead letters
// are retried soon, so that the table shows their end; all streams find room on a small disk.
fn plan(stack: &Stack) -> Result<Plan, String> {
    let sets = [
        format!("nats.servers={}", stack.nats.url()),
        format!("redis.url={}", stack.redis.url()),
        format!("postgres.dsn={}", stack.postgres.url()),
        "stages=ingest,dlq,cdc".to_owned(),
        "cdc.stream_max_bytes=2GiB".to_owned(),
        "cdc.output_max_bytes=2GiB".to_owned(),
        "ingest.stream_max_bytes=2GiB".to_owned(),
        "ingest.history_max_bytes=2GiB".to_owned(),
        "dlq.max_retries=2".to_owned(),
        "dlq.retry_delay_min=1s".to_owned(),
        "dlq.retry_delay_max=1s".to_owned(),
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

// Send, observe, and show how it goes: the chat events on a thread of their own.
fn load(stack: &Stack, board: &Arc<Board>, length: &Length) -> Result<Run, String> {
    let (cdc, ingest) =
        (paced(stack, length, length.rate), paced(stack, length, length.ingest_rate));
    let profile = profile();
    let mix = chat::mix()?;
    announce(length, &profile, &mix);
    let stop = run::stop_sign().map_err(|error| error.to_string())?;
    let shown = Arc::new(AtomicBool::new(false));
    let progress = progress::show(Arc::clone(board), Arc::clone(&shown), length.live)?;
    let (report, traffic) = std::thread::scope(|scope| {
        let chat = scope.spawn(|| chat::send_mix(&ingest, mix, &stop));
        let observe = Observe::Live { pattern: "wa.>".to_owned() };
        let report = run::run(&cdc, profile, &observe, DRAIN, &stop);
        if report.is_err() {
            stop.store(true, Relaxed);
        }
        (report, chat.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    shown.store(true, Relaxed);
    let _ended = progress.join();
    let report = report.map_err(|error| error.to_string())?;
    Ok(Run { cdc: report, ingest: traffic.map_err(|error| error.to_string())? })
}

/// The mix of row changes.
fn profile() -> Profile {
    Profile { companies: 8, bad: 0.001, ..Profile::default() }
}

/// Where dead letters of row changes end: their companies, and the name that stands for none.
fn letter_companies() -> Vec<String> {
    let generator = Generator::new(profile());
    let named = (0..generator.profile().companies).map(|n| generator.company_name(n).to_owned());
    named.chain(["_unknown".to_owned()]).collect()
}

fn paced(stack: &Stack, length: &Length, rate: u64) -> SendPlan {
    let count = length.seconds.map_or(u64::MAX, |seconds| seconds * rate);
    SendPlan { rate: rate as f64, ..SendPlan::new(stack.nats.url(), count) }
}

fn announce(length: &Length, profile: &Profile, mix: &Mix) {
    let until = length.seconds.map_or("until Ctrl-C".to_owned(), |s| format!("for {s} s"));
    println!("publishing {until}:");
    println!(
        "  cdc     {} row changes/s of {} companies: {}% duplicates, {}% of foreign tables, \
         {}% backfill, {}% bad",
        length.rate,
        profile.companies,
        profile.duplicates * 100.0,
        profile.filtered * 100.0,
        profile.backfill * 100.0,
        profile.bad * 100.0
    );
    let faults = &mix.generators()[0].profile().faults;
    let share = |fault| faults.get(&fault).copied().unwrap_or(0.0) * 100.0;
    let again = share(Fault::Duplicate) + share(Fault::Copy);
    let all: f64 = faults.values().sum();
    println!(
        "  ingest  {} chat events/s of {} companies, all ten kinds: {again:.1}% duplicates, \
         {:.2}% updates ahead of their row, {:.2}% bad\n",
        length.ingest_rate,
        mix.rows().count(),
        share(Fault::OutOfOrder),
        all * 100.0 - again - share(Fault::OutOfOrder)
    );
}

// The last outcomes reach the counters a moment after the last event is seen outside; rows have no such
// witness, and a dead letter takes its tries.
fn settle(board: &Board, run: Option<&Run>) -> (Books, IngestBooks) {
    let deadline = Instant::now() + if run.is_some() { DRAIN + LETTERS } else { Duration::ZERO };
    loop {
        let (cdc, ingest) = (Books::of(board), IngestBooks::of(board));
        let is_idle = cdc.in_flight + ingest.in_flight == 0 && cdc.balance() && ingest.balance();
        let expected = run.map_or(0, |run| run.ingest.expected().stored);
        let is_read = ingest.pulled - ingest.returned >= expected;
        let letters = cdc.dead + ingest.dead;
        if is_idle && is_read && ingest.letters_ended() >= letters || Instant::now() > deadline {
            return (cdc, ingest);
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
