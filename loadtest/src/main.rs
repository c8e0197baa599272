//! Command line of the load test: `stack` holds a local stack, `generate` prints or publishes events, `run` drives a
//! profile and checks what daisi makes of it; `record` keeps events of others in a trace, `trace` tells what it
//! holds, `replay` publishes it; `report`, `compare` and `check` read results.

use std::error::Error;
use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use loadtest::drive::command::{self as drive, MeasureArgs, ProfilesArgs, RunArgs};
use loadtest::load::{self, LoadArgs, LoadError, with_old_flags};
use loadtest::results::command::{self, CheckArgs, CompareArgs, ReportArgs};
use loadtest::run::stop_sign;
use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack};
use loadtest::trace::{self, RecordArgs, ReplayArgs, ShowArgs};

#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start nats-server, redis-server and PostgreSQL, print where they are, and end them when
    /// standard input closes or this process is ended, by whatever.
    Stack {
        /// Without PostgreSQL.
        #[arg(long)]
        no_postgres: bool,
    },
    /// Publish events, or print them, and tell what must become of them. The same as `daisi load`.
    Generate(LoadArgs),
    /// Drive a profile, measure each event from its planned time to its true end, and check all that came of it;
    /// ends with 1 unless nothing was lost, doubled, out of order or changed.
    Run(Box<RunArgs>),
    /// List the shipped profiles, or print one.
    Profiles(ProfilesArgs),
    /// Show a run again from its results file.
    Report(ReportArgs),
    /// Set runs beside a base, figure by figure.
    Compare(CompareArgs),
    /// Hold limits against a run: ends with 1 if one is broken, and one on what was not measured is.
    Check(CheckArgs),
    /// Record a stream, or what passes on a subject, to a trace: a compressed file of events with their
    /// headers and arrival times. Disturbs no other consumer.
    Record(RecordArgs),
    /// Tell what a trace holds: events, span, companies, subjects, sizes, rates.
    Trace(ShowArgs),
    /// Publish a trace again: as recorded, faster, at a rate, or as fast as possible; with ids of its own
    /// unless told otherwise, so that no dedup takes it for what was seen before.
    Replay {
        /// Which trace, how.
        #[command(flatten)]
        replay: Box<ReplayArgs>,
        /// Whether, where and how it is measured.
        #[command(flatten)]
        measure: Box<MeasureArgs>,
    },
}

fn main() -> ExitCode {
    let arguments = with_old_flags(std::env::args_os());
    let outcome = match Arguments::parse_from(arguments).command {
        Command::Stack { no_postgres } => hold_stack(no_postgres),
        Command::Generate(args) => generate(&args),
        Command::Run(args) => measured(|stop| drive::run(&args, stop)),
        Command::Profiles(args) => drive::profiles(&args).map_err(Into::into),
        Command::Report(args) => Ok(command::report(&args)),
        Command::Compare(args) => Ok(command::compare(&args)),
        Command::Check(args) => Ok(command::check(&args)),
        Command::Record(args) => on_sign(|stop| trace::record(&args, stop)),
        Command::Trace(args) => on_sign(|_| trace::show(&args)),
        Command::Replay { replay, measure } => {
            measured(|stop| drive::replay(&replay, &measure, stop))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("loadtest: {error}");
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

fn measured(work: impl FnOnce(&AtomicBool) -> Result<ExitCode, drive::RunError>) -> Outcome {
    let stop = stop_sign()?;
    match work(&stop) {
        Err(drive::RunError::Usage(what)) => {
            eprintln!("loadtest: {what}");
            Ok(ExitCode::from(2))
        }
        other => Ok(other?),
    }
}

fn hold_stack(no_postgres: bool) -> Outcome {
    let mut builder = Stack::builder().nats(NatsOptions::default()).redis(RedisOptions::default());
    if !no_postgres {
        builder = builder.postgres(PostgresOptions::default());
    }
    let stack = builder.start()?;
    println!("folder {}", stack.folder().display());
    println!("nats {} pid {}", stack.nats.url(), stack.nats.pid().unwrap_or(0));
    println!("redis {} pid {}", stack.redis.url(), stack.redis.pid().unwrap_or(0));
    if let Some(postgres) = stack.postgres.as_option() {
        println!("postgres {} pid {}", postgres.url(), postgres.pid().unwrap_or(0));
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(ExitCode::SUCCESS)
}

fn on_sign(work: impl FnOnce(&AtomicBool) -> Result<(), LoadError>) -> Outcome {
    let stop = stop_sign()?;
    Ok(work(&stop).map(|()| ExitCode::SUCCESS)?)
}

fn generate(args: &LoadArgs) -> Outcome {
    let nats_url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".into());
    match load::run(args, || Ok(nats_url)) {
        Err(LoadError::Usage(what)) => {
            eprintln!("loadtest: {what}");
            Ok(ExitCode::from(2))
        }
        other => Ok(other.map(|()| ExitCode::SUCCESS)?),
    }
}
