//! `loadtest run`, `profiles` and the measured `replay`: options to an [`Order`], and results to files and exit
//! codes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use super::live::Show;
use super::{Disturbance, DriveError, Order, drive, self_test};
use crate::bed::{Bed, BedArgs, BedError, masked};
use crate::check::Checker;
use crate::client::{Client, ClientError};
use crate::ends::cdc::Observe;
use crate::ends::ingest::IngestOptions;
use crate::generate::Generator;
use crate::generate::ingest::Kind;
use crate::load::{LoadError, ensure_ingest, ensure_source, read_duration};
use crate::profile::{self, Blend, Profile, ProfileError, Stage};
use crate::results::{Load, Results, ResultsError};
use crate::send::{SendPlan, wall_ns};
use crate::trace::{self, Reader, Replay, ReplayArgs, TraceError};

/// Events of a self-test.
const SELF_EVENTS: u64 = 300_000;
/// Events of a trace that are looked at to see whose they are.
const STAGES_LOOK: u64 = 100_000;

/// A profile, where to run it, and what to write.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// A shipped profile (`loadtest profiles`), or a file in TOML.
    #[arg(long, default_value = "steady")]
    pub profile: String,
    /// All rates, so many times as high.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub rate_times: f64,
    /// The whole run in so many seconds: its phases become shorter or longer.
    #[arg(long, value_name = "N")]
    pub seconds: Option<f64>,
    /// Same seed, same events [default: the profile's on private servers, the time on others].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Sends the profile's events as fast as it goes to a sink of its own, and tells what that costs.
    #[arg(long)]
    pub self_test: bool,
    /// The NATS server that a running daisi works on, nats://[user:password@|token@]host:port [default: private
    /// servers, with the daisi beside this binary or in PATH].
    #[arg(long)]
    pub nats_url: Option<String>,
    /// Where.
    #[command(flatten)]
    pub bed: BedArgs,
    /// How it is looked at, and what is written.
    #[command(flatten)]
    pub look: LookArgs,
    /// Publishes without a PubAck at a time.
    #[arg(long, default_value_t = 1_024)]
    pub window: usize,
    /// Shows no progress.
    #[arg(long)]
    pub quiet: bool,
    /// Prints the results as one line of JSON in the place of tables.
    #[arg(long)]
    pub json: bool,
}

/// What makes a replay a measured one, beside its own options.
#[derive(Clone, Debug, Args)]
pub struct MeasureArgs {
    /// Looks at what comes out, and ends with 1 unless all is well; meant by --daisi, --postgres-dsn and --out too.
    #[arg(long)]
    pub check: bool,
    /// Where.
    #[command(flatten)]
    pub bed: BedArgs,
    /// How it is looked at, and what is written.
    #[command(flatten)]
    pub look: LookArgs,
}

/// How a run is looked at; the same for every source of events.
#[derive(Clone, Debug, Args)]
pub struct LookArgs {
    /// Writes results.json, report.html and the distributions into this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Between two looks for new rows: the resolution of the latency of the stage ingest.
    #[arg(long, default_value = "5ms", value_parser = read_duration)]
    pub poll: Duration,
    /// Reads row changes from the stream wa_stream, timed by when it stored them, in the place of a subscription.
    #[arg(long)]
    pub from_stream: bool,
    /// How long the last events may take to come out after the last PubAck.
    #[arg(long, default_value = "30s", value_parser = read_duration)]
    pub drain: Duration,
    /// Leaves out of the latencies what is planned before this; it is checked, counted and drawn all the same
    /// [default: what the profile says; 0s for a trace].
    #[arg(long, value_parser = read_duration)]
    pub warm_up: Option<Duration>,
    /// Port of the page /metrics of the run; 0 for none.
    #[arg(long, default_value_t = 0)]
    pub metrics_port: u16,
}

/// Which profile to print.
#[derive(Clone, Debug, Args)]
pub struct ProfilesArgs {
    /// Prints this one, to be changed and given back as a file.
    pub name: Option<String>,
}

/// Why a run has no results.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An option, or the profile, says something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The servers.
    #[error("{0}")]
    Bed(#[from] BedError),
    /// NATS.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The run.
    #[error("{0}")]
    Drive(#[from] DriveError),
    /// The trace, published alone.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The trace.
    #[error("{0}")]
    Trace(#[from] TraceError),
    /// The files.
    #[error("{0}")]
    Results(#[from] ResultsError),
    /// The results as JSON.
    #[error("results: {0}")]
    Json(#[from] serde_json::Error),
}

/// Lists the shipped profiles, or prints one.
///
/// # Errors
/// There is none of that name.
pub fn profiles(args: &ProfilesArgs) -> Result<ExitCode, ProfileError> {
    match args.name.as_deref() {
        Some(name) => match profile::text_of(name) {
            Some(text) => print!("{text}"),
            None => drop(profile::load(name)?),
        },
        None => {
            for (name, about) in profile::shipped()? {
                println!("{name:<18} {about}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Drives a profile; success only if nothing was wrong.
///
/// # Errors
/// What kept it from being driven.
pub fn run(args: &RunArgs, stop: &AtomicBool) -> Result<ExitCode, RunError> {
    if args.self_test {
        return tell_self(args);
    }
    let (order, mut bed, mut source) = prepare(args)?;
    let results = drive(order, &mut bed, &mut source, stop)?;
    args.look.tell(&results, args.json)?;
    // A daisi that died is no success, whatever came out before.
    bed.finish()?;
    Ok(if results.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_self(args: &RunArgs) -> Result<ExitCode, RunError> {
    let profile = args.profile()?;
    let blend = || Blend::new(&profile).map_err(RunError::Usage);
    let told = self_test(blend()?, blend()?, SELF_EVENTS, args.window.max(1))?;
    if args.json {
        println!("{}", serde_json::to_string(&told)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} events at {:.0}/s, sink and sender on this machine; the sending thread took {:.2} us of CPU an event, \
         of it {:.2} us to make it: {:.0} events/s a core",
        told.events,
        told.events_per_s,
        told.sender_us_per_event,
        told.source_us_per_event,
        told.events_per_core
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes ready what a profile needs: the order, what it stands on, and its events.
///
/// # Errors
/// As [`run`].
pub fn prepare(args: &RunArgs) -> Result<(Order, Bed, Blend), RunError> {
    let profile = args.profile()?;
    let source = Blend::new(&profile).map_err(RunError::Usage)?;
    let (live, history) = profile.ingest_companies();
    let has = |stage| profile.stages.contains(&stage);
    let chats = live.into_iter().chain(history);
    let (stages, companies): (_, Vec<String>) = match (has(Stage::Ingest), has(Stage::Cdc)) {
        (true, true) => {
            // Those of row changes too: where dead letters are tried again they become rows of their company.
            let changes = Generator::new(profile.cdc_profile());
            let name = |number| changes.company_name(number).to_owned();
            ("ingest,dlq,cdc", chats.chain((0..profile.companies).map(name)).collect())
        }
        (true, false) => ("ingest,dlq", chats.collect()),
        _ => ("cdc", Vec::new()),
    };
    let nats_url = args.nats_url.as_deref();
    args.bed.check(nats_url.is_none()).map_err(RunError::Usage)?;
    let bed = Bed::start(&args.bed, nats_url, stages, &companies)?;
    let mut client = Client::connect(bed.nats_url())?;
    if has(Stage::Ingest) {
        ensure_ingest(&mut client, &source.kinds())?;
    }
    if has(Stage::Cdc) {
        ensure_source(&mut client)?;
    }
    drop(client);
    let generator = profile.cdc_profile();
    let checker = Checker::new(generator.rows(), generator.companies);
    let cdc = has(Stage::Cdc).then(|| (args.look.observe(), checker));
    let ingest = args.look.ingest(&bed, has(Stage::Ingest))?;
    let (of_ingest, of_cdc) = profile.events();
    let seconds = profile.length().as_secs_f64();
    let load = Load {
        text: format!(
            "profile {}: {}, {seconds:.0} s on {}",
            args.profile,
            profile.about,
            bed.text()
        ),
        events: Some(of_ingest + of_cdc),
        rate: even_rate(&profile),
        companies: u64::from(profile.companies) + u64::from(profile.history_companies),
    };
    let order = Order {
        name: args.profile.clone(),
        command: command_line(),
        load,
        plan: SendPlan { window: args.window.max(1), ..SendPlan::new("", u64::MAX) },
        series: Blend::series(&profile),
        cdc,
        ingest,
        drain: args.look.drain,
        warm_up: args.look.warm_up.unwrap_or(profile.length().mul_f64(profile.warm_up)),
        disturb: disturbances(&profile),
        show: if args.quiet { Show::Quiet } else { Show::Progress },
        metrics_port: args.look.metrics_port,
    };
    Ok((order, bed, source))
}

/// Replays a trace: published alone, or measured as a profile is.
///
/// # Errors
/// What kept it from being driven, or the trace.
pub fn replay(
    args: &ReplayArgs,
    measure: &MeasureArgs,
    stop: &AtomicBool,
) -> Result<ExitCode, RunError> {
    if !measure.is_meant() {
        trace::replay(args, stop)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (order, mut bed, mut source) = prepare_replay(args, measure)?;
    let results = drive(order, &mut bed, &mut source, stop)?;
    measure.look.tell(&results, args.json)?;
    bed.finish()?;
    if let Err(fault) = source.end() {
        return Err(RunError::Usage(format!("the trace was not replayed whole: {fault}")));
    }
    Ok(if results.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes ready what a measured replay needs.
///
/// # Errors
/// As [`replay`].
pub fn prepare_replay(
    args: &ReplayArgs,
    measure: &MeasureArgs,
) -> Result<(Order, Bed, Replay), RunError> {
    if args.print.is_some() {
        return Err(RunError::Usage("what is printed is not measured: leave out --print".into()));
    }
    let plan = args.plan.plan(&args.trace)?;
    let source = Replay::open(&args.trace, plan)?;
    let (has_ingest, has_cdc) = stages_of(&args.trace)?;
    let nats_url = measure.bed.daisi.is_none().then_some(args.nats_url.as_str());
    measure.bed.check(nats_url.is_none()).map_err(RunError::Usage)?;
    let bed = Bed::start(&measure.bed, nats_url, "ingest,dlq,cdc", &[])?;
    let mut client = Client::connect(bed.nats_url())?;
    ensure_ingest(&mut client, &Kind::ALL)?;
    ensure_source(&mut client)?;
    drop(client);
    let name = args.trace.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plan = SendPlan {
        duration: args.duration,
        window: args.window.max(1),
        ..SendPlan::new("", args.count.unwrap_or(u64::MAX))
    };
    let load = Load {
        text: format!("trace {name} on {}", bed.text()),
        events: args.count,
        rate: args.plan.rate,
        companies: 0,
    };
    let order = Order {
        name,
        command: command_line(),
        load,
        plan,
        series: vec![("trace".to_owned(), "all".to_owned())],
        cdc: has_cdc.then(|| (measure.look.observe(), Checker::unmarked())),
        ingest: measure.look.ingest(&bed, has_ingest)?,
        drain: measure.look.drain,
        warm_up: measure.look.warm_up.unwrap_or_default(),
        disturb: Vec::new(),
        show: if args.quiet { Show::Quiet } else { Show::Progress },
        metrics_port: measure.look.metrics_port,
    };
    Ok((order, bed, source))
}

/// Whether there are chat events, and whether there is anything else, in the first events of a trace.
fn stages_of(path: &Path) -> Result<(bool, bool), TraceError> {
    let mut reader = Reader::open(path)?;
    let (mut has_ingest, mut has_cdc) = (false, false);
    for _ in 0..STAGES_LOOK {
        match reader.next_record()? {
            Some(record) if record.subject.starts_with(b"v1.") => has_ingest = true,
            Some(_) => has_cdc = true,
            None => break,
        }
    }
    Ok((has_ingest, has_cdc))
}

impl MeasureArgs {
    fn is_meant(&self) -> bool {
        let bed = &self.bed;
        let is_placed = bed.daisi.is_some() || bed.postgres_dsn.is_some();
        self.check || is_placed || self.look.out.is_some()
    }
}

impl RunArgs {
    fn profile(&self) -> Result<Profile, RunError> {
        let is_above = |number: f64| number.is_finite() && number > 0.0;
        if !is_above(self.rate_times) || !self.seconds.is_none_or(is_above) {
            return Err(RunError::Usage("--rate-times and --seconds take numbers above 0".into()));
        }
        let profile = profile::load(&self.profile);
        let profile = profile.map_err(|error| RunError::Usage(error.to_string()))?;
        let mut profile = profile.scaled(self.rate_times, self.seconds);
        if self.nats_url.is_some() {
            // Others have been here before: ids that were seen already would be taken for copies.
            let now_s = wall_ns() / 1_000_000_000;
            profile = profile.fresh(wall_ns(), now_s);
        }
        profile.seed = self.seed.unwrap_or(profile.seed);
        profile.check().map_err(RunError::Usage)?;
        Ok(profile)
    }
}

impl LookArgs {
    /// Where row changes are looked for.
    pub fn observe(&self) -> Observe {
        match self.from_stream {
            true => Observe::Stream { name: "wa_stream".to_owned() },
            false => Observe::Live { pattern: "wa.>".to_owned() },
        }
    }

    /// Where rows are looked for, if chat events are sent.
    ///
    /// # Errors
    /// Nobody told where the database is.
    pub fn ingest(&self, bed: &Bed, is_driven: bool) -> Result<Option<IngestOptions>, RunError> {
        if !is_driven {
            return Ok(None);
        }
        let dsn = bed.postgres_dsn().ok_or_else(|| {
            RunError::Usage("the stage ingest ends in PostgreSQL: --postgres-dsn says where".into())
        })?;
        Ok(Some(IngestOptions { every: self.poll, ..IngestOptions::new(dsn) }))
    }

    /// Writes and prints what was found.
    ///
    /// # Errors
    /// The files.
    pub fn tell(&self, results: &Results, json: bool) -> Result<(), RunError> {
        if let Some(folder) = &self.out {
            results.write(folder)?;
        }
        match json {
            true => println!("{}", serde_json::to_string(results)?),
            false => print!("{}", results.text()),
        }
        if let Some(folder) = self.out.as_ref().filter(|_| !json) {
            println!("\n{}", folder.join("report.html").display());
        }
        Ok(())
    }
}

/// The rate of a profile that has one.
fn even_rate(profile: &Profile) -> Option<f64> {
    let mut rates = profile.phases.iter().map(|phase| phase.ingest + phase.history + phase.cdc);
    let first = rates.next()?;
    rates.all(|rate| (rate - first).abs() < 1e-9).then_some(first)
}

fn disturbances(profile: &Profile) -> Vec<(Duration, Disturbance)> {
    let at = |share: f64| profile.length().mul_f64(share);
    let cut = profile.disturb.cut_at.map(|share| (at(share), Disturbance::Cut));
    let restart =
        profile.disturb.restart_nats_at.map(|share| (at(share), Disturbance::RestartNats));
    let mut all: Vec<_> = cut.into_iter().chain(restart).collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// As it was given, with secrets left out.
pub fn command_line() -> String {
    let words = std::env::args().enumerate().map(|(at, word)| match word.split_once('=') {
        _ if at == 0 => word.rsplit('/').next().unwrap_or_default().to_owned(),
        Some((name, value)) if value.contains("://") => format!("{name}={}", masked(value)),
        _ if word.contains("://") => masked(&word),
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}
