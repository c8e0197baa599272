//! Measures contenders in turns (A B C A B C ...) on the same local servers, so that noise falls on all of
//! them alike. A turn is a drain (throughput at saturation, CPU per event) or an open loop (latency at a
//! fixed rate). Every turn is checked: each event out exactly once, or the run fails.
//!
//! Exit code: 0 sound, and with `--gate` every target met; 1 a turn failed or a target was not met; 2 usage.

mod contender;
mod error;
mod feed;
mod ingest;
mod machine;
mod report;
mod round;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use loadtest::{
    host,
    stack::{NatsOptions, RedisOptions, Stack},
};

use crate::{
    contender::Contender,
    error::BenchError,
    feed::Feed,
    machine::Machine,
    report::{Record, Standing},
    round::{Load, Servers},
};

/// What is measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Job {
    /// Row changes to browsers.
    Cdc,
    /// Chat events to rows.
    Ingest,
}

/// Measure daisi beside the least that the job takes, and the job as it is ordinarily done.
#[derive(Parser)]
struct Args {
    /// Jobs to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Job::Cdc, Job::Ingest])]
    jobs: Vec<Job>,
    /// Turns of each contender, for drain and open loop each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Events of a drain.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Events of a drain of the ingest job, and messages of its history import.
    #[arg(long, default_value_t = 80_000)]
    ingest_events: u64,
    /// Seconds a drain may take.
    #[arg(long, default_value_t = 120)]
    deadline_s: u64,
    /// Events a second of the open loop.
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Companies the events are spread over.
    #[arg(long, default_value_t = 8)]
    companies: u64,
    /// Seconds of the open loop before timing starts.
    #[arg(long, default_value_t = 2)]
    warmup_s: u64,
    /// Seconds timed; 0 leaves the open loop out.
    #[arg(long, default_value_t = 10)]
    timed_s: u64,
    /// List of contenders of the CDC job; by default the one built in.
    #[arg(long)]
    contenders: Option<PathBuf>,
    /// Only contenders with these names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder of the peers' binaries, `cdc-feed` among them.
    #[arg(long, env = "DAISI_PEERS", default_value = "benches/peers/target/release")]
    peers: PathBuf,
    /// The daisi binary.
    #[arg(long, env = "DAISI_BIN", default_value = "target/release/daisi")]
    daisi: PathBuf,
    /// The bare relay on our own client.
    #[arg(long, env = "DAISI_RELAY", default_value = "target/release/daisi-relay")]
    relay: PathBuf,
    /// Folder results are kept in.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
    /// Fail unless every target was measured and met.
    #[arg(long)]
    gate: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, BenchError> {
    let mut fine = true;
    for job in &args.jobs {
        let (is_sound, is_met) = match job {
            Job::Cdc => cdc(args)?,
            Job::Ingest => ingest::run(args)?,
        };
        fine &= is_sound && (is_met || !args.gate);
    }
    Ok(fine)
}

/// The CDC job: is it sound, and was every target met?
fn cdc(args: &Args) -> Result<(bool, bool), BenchError> {
    let stack = start_servers()?;
    let contenders = contenders(args, &stack)?;
    let feed = Feed {
        binary: args.peers.join("cdc-feed").display().to_string(),
        nats_url: stack.nats.url(),
        redis_address: format!("127.0.0.1:{}", stack.redis.port()),
        companies: args.companies,
    };
    let machine = Machine::look(stack.nats.version()?, stack.redis.version()?);
    let servers = servers(&stack)?;
    let records = measure(args, &contenders, &feed, servers);
    print!("{}", report::text(&records));
    keep(args, &machine, &records)?;
    // A target nobody measured is not met: a gate must not open because a binary is absent.
    let unmet = |outcome: &report::Outcome| outcome.standing != Standing::Met;
    Ok((report::is_sound(&records), !report::outcomes(&records).iter().any(unmet)))
}

/// Redis without its append-only file: claims live for minutes, and the contract's deployment keeps none.
fn start_servers() -> Result<Stack, BenchError> {
    let args_extra = ["--appendonly", "no", "--save", ""].map(str::to_owned).to_vec();
    Ok(Stack::builder()
        .nats(NatsOptions::default())
        .redis(RedisOptions { args_extra, ..RedisOptions::default() })
        .start()?)
}

fn contenders(args: &Args, stack: &Stack) -> Result<Vec<Contender>, BenchError> {
    let text = match &args.contenders {
        Some(path) => {
            fs::read_to_string(path).map_err(BenchError::io(format!("read {}", path.display())))?
        }
        None => include_str!("../contenders.toml").to_owned(),
    };
    let places = [
        ("nats_url", stack.nats.url()),
        ("redis_url", stack.redis.url()),
        ("peers", args.peers.display().to_string()),
        ("daisi", args.daisi.display().to_string()),
        ("relay", args.relay.display().to_string()),
    ];
    let contenders = contender::load(&text, &places.into())?;
    contender::there(contenders, &args.only)
}

fn servers(stack: &Stack) -> Result<Servers, BenchError> {
    let pid = |pid: Option<u32>, name: &str| {
        pid.ok_or_else(|| BenchError::unreadable(name, &"it does not run"))
    };
    Ok(Servers {
        nats: pid(stack.nats.pid(), "nats-server")?,
        redis: pid(stack.redis.pid(), "redis-server")?,
    })
}

/// All drains first, then all open loops; in both the contenders take turns.
fn measure(args: &Args, contenders: &[Contender], feed: &Feed, servers: Servers) -> Vec<Record> {
    let load = Load {
        events: args.events.max(2),
        deadline_s: args.deadline_s,
        rate: args.rate.max(1),
        warmup_s: args.warmup_s,
        timed_s: args.timed_s,
    };
    let mut records: Vec<Record> = contenders.iter().map(Record::new).collect();
    for round in 1..=args.rounds {
        for (contender, record) in contenders.iter().zip(&mut records) {
            eprintln!("drain {round}/{}: {} (load {})", args.rounds, record.name, host::load());
            let turn = round::drain(contender, feed, servers, load);
            let turn = record.note(turn);
            record.drains.push(turn);
        }
    }
    for round in 1..=if args.timed_s == 0 { 0 } else { args.rounds } {
        for (contender, record) in contenders.iter().zip(&mut records) {
            eprintln!("paced {round}/{}: {} (load {})", args.rounds, record.name, host::load());
            let turn = round::paced(contender, feed, load);
            let turn = record.note(turn);
            record.paced.push(turn);
        }
    }
    records
}

impl Record {
    fn new(contender: &Contender) -> Self {
        Self {
            name: contender.name.clone(),
            role: contender.role,
            drains: Vec::new(),
            paced: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// A failed turn must not stop the others; it makes the run unsound.
    fn note<T>(&mut self, turn: Result<T, BenchError>) -> Option<T> {
        turn.map_err(|error| self.errors.push(error.to_string())).ok()
    }
}

fn keep(args: &Args, machine: &Machine, records: &[Record]) -> Result<(), BenchError> {
    let path = args.results.join(format!("cdc-{}.json", host::unix_ms() / 1000));
    let result = serde_json::json!({
        "machine": machine,
        "events": args.events,
        "rate": args.rate,
        "companies": args.companies,
        "timed_s": args.timed_s,
        "contenders": records,
        "targets": report::outcomes(records),
    });
    fs::create_dir_all(&args.results)
        .and_then(|()| fs::write(&path, format!("{result:#}\n")))
        .map_err(BenchError::io(format!("write {}", path.display())))?;
    println!("\nkept in {}", path.display());
    Ok(())
}
