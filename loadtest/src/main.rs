//! Command line of the load test: `stack` holds a local stack, `generate` prints or publishes events,
//! `run` publishes them and checks what daisi makes of them.

use std::error::Error;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use loadtest::client::{Client, StreamSpec};
use loadtest::generate::{Event, Expect, Generator, Profile};
use loadtest::run::{Observe, is_stopped, run, stop_sign};
use loadtest::send::{SendPlan, send};
use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack};

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
    /// Print events as lines of JSON, or publish them to the stream of `cdc.*.*`.
    Generate {
        #[command(flatten)]
        workload: Workload,
        /// Publish to this server instead of printing; creates `cdc_events_stream` if need be.
        #[arg(long)]
        nats_url: Option<String>,
        /// What to print; `none` measures the generator alone.
        #[arg(long, value_enum, default_value_t = Format::Lines)]
        format: Format,
    },
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line: subject, msg_id, what must become of it, payload.
    Lines,
    /// Nothing.
    None,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Stack { no_postgres } => hold_stack(no_postgres),
        Command::Generate { workload, nats_url: None, format } => print_events(&workload, format),
        Command::Generate { workload, nats_url: Some(url), .. } => publish(&workload, &url),
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

fn print_events(workload: &Workload, format: Format) -> Outcome {
    let stop = stop_sign()?;
    let mut generator = Generator::new(workload.profile()?);
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (started, mut bytes) = (Instant::now(), 0);
    let mut told = 0;
    while told < workload.count && !is_stopped(&stop) {
        let event = generator.next();
        bytes += event.payload.len();
        told += 1;
        if format == Format::Lines && !print_line(&mut out, &event)? {
            return Ok(ExitCode::SUCCESS);
        }
        if workload.rate > 0.0 {
            let planned = started + Duration::from_secs_f64(told as f64 / workload.rate);
            std::thread::sleep(planned.saturating_duration_since(Instant::now()));
        }
    }
    out.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{told} events, {:.0} bytes on average, {:.0} events/s",
        bytes as f64 / told.max(1) as f64,
        told as f64 / seconds
    );
    Ok(ExitCode::SUCCESS)
}

/// False when nobody reads any more, as `head` does.
fn print_line(out: &mut impl Write, event: &Event<'_>) -> io::Result<bool> {
    let expect = match event.expect {
        Expect::Forward { subject, .. } => format!("forward {subject}"),
        Expect::Duplicate => "duplicate".into(),
        Expect::Filtered => "filtered".into(),
        Expect::DeadLetter { reason } => format!("dead_letter {}", reason.name()),
    };
    let line = serde_json::json!({
        "subject": event.subject,
        "msg_id": event.msg_id,
        "expect": expect,
        "payload": String::from_utf8_lossy(event.payload),
    });
    match writeln!(out, "{line}") {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e),
    }
}

fn publish(workload: &Workload, url: &str) -> Outcome {
    let stop = stop_sign()?;
    create_source(url)?;
    let mut generator = Generator::new(workload.profile()?);
    let sent = send(&workload.plan(url.to_owned()), &mut generator, &stop, |_| ())?;
    let rate = sent.acked as f64 / sent.elapsed.as_secs_f64();
    println!("{} events acknowledged in {:.3?}, {rate:.0} events/s", sent.acked, sent.elapsed);
    Ok(ExitCode::SUCCESS)
}

/// The stream of the contract (cdc.md, section 1.2); an existing one is left as it is.
fn create_source(url: &str) -> Result<(), Box<dyn Error>> {
    let mut client = Client::connect(url)?;
    let name = "cdc_events_stream";
    if client.stream_range(name).is_err() {
        let duplicate_window = Duration::from_secs(120);
        client.create_stream(StreamSpec { name, subjects: &["cdc.*.*"], duplicate_window })?;
    }
    Ok(())
}

fn run_and_check(
    workload: &Workload,
    url: String,
    stream: Option<String>,
    drain: f64,
    json: bool,
) -> Outcome {
    let stop = stop_sign()?;
    create_source(&url)?;
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
