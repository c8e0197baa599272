//! Command line of the load test: `stack` holds a local stack, `generate` prints or publishes events,
//! `run` publishes them and checks what daisi makes of them; `record` keeps those of others in a trace,
//! `trace` tells what it holds, `replay` publishes it.

use std::error::Error;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use loadtest::client::Client;
use loadtest::generate::Profile;
use loadtest::load::{self, LoadArgs, LoadError, with_old_flags};
use loadtest::run::{Observe, run, stop_sign};
use loadtest::send::SendPlan;
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
    /// Record a stream, or what passes on a subject, to a trace: a compressed file of events with their
    /// headers and arrival times. Disturbs no other consumer.
    Record(RecordArgs),
    /// Tell what a trace holds: events, span, companies, subjects, sizes, rates.
    Trace(ShowArgs),
    /// Publish a trace again: as recorded, faster, at a rate, or as fast as possible; with ids of its own
    /// unless told otherwise, so that no dedup takes it for what was seen before.
    Replay(ReplayArgs),
    /// Publish events and check what comes out on `wa.>`; ends with 1 unless all is well.
    Run {
        #[command(flatten)]
        workload: Workload,
        /// The server that daisi works on.
        #[arg(long)]
        nats_url: String,
        /// Read this stream instead of a live subscription to `wa.>`; for runs that kill servers.
        #[arg(long)]
        stream: Option<String>,
        /// Seconds to wait for the last events after the last PubAck.
        #[arg(long, default_value_t = 30.0)]
        drain: f64,
        /// Print the report as one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What to generate, and how fast. An option given overrides the profile's file.
#[derive(Debug, Args)]
struct Workload {
    /// A profile in JSON; `loadtest::generate::Profile` names its keys.
    #[arg(long)]
    profile: Option<PathBuf>,
    /// Seed: same seed, same bytes.
    #[arg(long)]
    seed: Option<u64>,
    /// Companies.
    #[arg(long)]
    companies: Option<u32>,
    /// Agents of a company.
    #[arg(long)]
    agents: Option<u32>,
    /// Chats of an agent.
    #[arg(long)]
    chats: Option<u32>,
    /// Only forwarded changes: nothing filtered, bad or sent twice.
    #[arg(long)]
    clean: bool,
    /// Events.
    #[arg(long, default_value_t = 1_000)]
    count: u64,
    /// Events a second; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Publishes without a PubAck at a time.
    #[arg(long, default_value_t = 1_024)]
    window: usize,
}

fn main() -> ExitCode {
    let arguments = with_old_flags(std::env::args_os());
    let outcome = match Arguments::parse_from(arguments).command {
        Command::Stack { no_postgres } => hold_stack(no_postgres),
        Command::Generate(args) => generate(&args),
        Command::Record(args) => on_sign(|stop| trace::record(&args, stop)),
        Command::Trace(args) => on_sign(|_| trace::show(&args)),
        Command::Replay(args) => on_sign(|stop| trace::replay(&args, stop)),
        Command::Run { workload, nats_url, stream, drain, json } => {
            run_and_check(&workload, nats_url, stream, drain, json)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("loadtest: {error}");
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

impl Workload {
    fn profile(&self) -> Result<Profile, Box<dyn Error>> {
        let mut profile = match &self.profile {
            Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
            None if self.clean => Profile::clean(),
            None => Profile::default(),
        };
        profile.seed = self.seed.unwrap_or(profile.seed);
        profile.companies = self.companies.unwrap_or(profile.companies);
        profile.agents = self.agents.unwrap_or(profile.agents);
        profile.chats = self.chats.unwrap_or(profile.chats);
        Ok(profile)
    }

    fn plan(&self, url: String) -> SendPlan {
        SendPlan { rate: self.rate, window: self.window.max(1), ..SendPlan::new(url, self.count) }
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

fn run_and_check(
    workload: &Workload,
    url: String,
    stream: Option<String>,
    drain: f64,
    json: bool,
) -> Outcome {
    let stop = stop_sign()?;
    load::ensure_source(&mut Client::connect(&url)?)?;
    let observe = match stream {
        Some(name) => Observe::Stream { name },
        None => Observe::Live { pattern: "wa.>".into() },
    };
    let drain = Duration::from_secs_f64(drain);
    let report = run(&workload.plan(url), workload.profile()?, &observe, drain, &stop)?;
    if json {
        println!("{}", report.to_json()?);
    } else {
        print!("{report}");
    }
    Ok(if report.outcomes.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
