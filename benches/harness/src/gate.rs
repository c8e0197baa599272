//! `make gate`: a change may not cost more than the committed baseline says. Each part measures, and `judge`
//! decides. Invariant: a part that cannot be measured has failed.
//! Modules: `baseline` (the file), `toolchain`, `micro` (small benches), `calls` (system calls), `judge`,
//! `proof` (builds that are slow on purpose must fail).

pub(crate) mod baseline;
mod calls;
mod judge;
pub(crate) mod micro;
mod proof;
mod toolchain;

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::{Args, Job, error::BenchError};
use baseline::{Accepted, Baseline, Figures};
use judge::{Found, Part, Row, Verdict, judge};
use micro::{Ask, Build};
use toolchain::Toolchain;

/// Contenders that a bound speaks of; the others of the lists are for reports.
const GAUGED: [&str; 5] = ["daisi", "daisi-relay", "cdc-peer", "ingest-bare", "ingest-peer"];

/// What there is to do beside measuring.
#[derive(Clone, clap::Subcommand)]
pub(crate) enum Action {
    /// Fail if something costs more than the baseline says; builds what it needs.
    Gate(Options),
    /// Write what is measured now into the baseline.
    GateAccept {
        /// Why the figures are right as they are now; it stays in the file.
        #[arg(long, value_parser = reason)]
        reason: String,
        #[command(flatten)]
        options: Options,
    },
    /// Prove that the gate fails builds that are slow on purpose, and passes the others.
    GateTest(Options),
}

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Parts to gate.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    only: Vec<Part>,
    /// The committed figures and bounds.
    #[arg(long, default_value = "benches/baseline.toml")]
    baseline: PathBuf,
    /// The binaries are built already: of `calls` and `ratios`.
    #[arg(long)]
    no_build: bool,
}

fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        text if text.len() >= 10 => Ok(text.to_owned()),
        _ => Err("say in a few words why".to_owned()),
    }
}

/// Does it; true if all is well.
pub(crate) fn run(args: &Args, action: &Action) -> Result<bool, BenchError> {
    match action {
        Action::Gate(options) => gate(args, options),
        Action::GateAccept { reason, options } => accept(args, options, reason).map(|()| true),
        Action::GateTest(options) => proof::run(args, options),
    }
}

fn gate(args: &Args, options: &Options) -> Result<bool, BenchError> {
    let baseline = Baseline::load(&options.baseline)?;
    let mut rows = Vec::new();
    let mut spans = Vec::new();
    for part in &options.only {
        eprintln!("gate: {} ...", part.name());
        let start = Instant::now();
        match measure(args, options, *part) {
            Ok(found) => rows.extend(judge(&baseline, &found)),
            Err(error) => rows.push(Row::broken(*part, &error.to_string())),
        }
        spans.push((*part, start.elapsed()));
    }
    print!("{}", table(&rows));
    print!("{}", verdict(&rows, &spans));
    Ok(!rows.iter().any(Row::is_failed))
}

/// Builds what a part needs, and measures it.
fn measure(args: &Args, options: &Options, part: Part) -> Result<Found, BenchError> {
    let build = |words: &[&str]| if options.no_build { Ok(()) } else { cargo(words) };
    match part {
        Part::Instructions => {
            let cases = micro::run(Ask::Instructions, Build::ALL)?;
            let figures = micro::figures(&cases, |case| case.instructions);
            Ok(Found::Instructions(Toolchain::look(), figures))
        }
        Part::Allocations => {
            let cases = micro::run(Ask::Counts, Build::ALL)?;
            Ok(Found::Allocations(micro::figures(&cases, |case| case.allocations)))
        }
        Part::Calls => {
            build(&["build", "--release", "-p", "daisi"])?;
            Ok(Found::Calls(calls::measure(calls::Traced { daisi: &args.daisi, slow: None })?))
        }
        Part::Ratios => {
            build(&["build", "--release", "-p", "daisi", "-p", "daisi-relay"])?;
            build(&["build", "--release", "--manifest-path", "benches/peers/Cargo.toml"])?;
            ratios(args).map(Found::Ratios)
        }
    }
}

/// Few short rounds: enough for bounds that are wide.
fn ratios(args: &Args) -> Result<Figures, BenchError> {
    let only =
        if args.only.is_empty() { GAUGED.map(str::to_owned).to_vec() } else { args.only.clone() };
    let gauged = Args {
        only,
        rounds: args.rounds.min(3),
        events: args.events.min(100_000),
        ingest_events: args.ingest_events.min(40_000),
        warmup_s: args.warmup_s.min(1),
        timed_s: args.timed_s.min(5),
        ..args.clone()
    };
    let mut ratios = Figures::new();
    // No bound speaks of the open loop of the ingest job.
    let ingest = Args { timed_s: 0, ..gauged.clone() };
    for (job, args) in [(Job::Cdc, &gauged), (Job::Ingest, &ingest)] {
        let measured = crate::measure(args, job)?;
        eprint!("{}", measured.text);
        if !measured.is_sound {
            let why = "a turn failed, or lost or doubled an event";
            return Err(BenchError::unreadable("a round", &why));
        }
        ratios.extend(measured.ratios);
    }
    Ok(ratios)
}

fn cargo(words: &[&str]) -> Result<(), BenchError> {
    let status = Command::new("cargo").args(words).status();
    let status = status.map_err(BenchError::io("start cargo"))?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::Feed { step: format!("cargo {}", words.join(" ")), status: status.to_string() })
}

fn accept(args: &Args, options: &Options, reason: &str) -> Result<(), BenchError> {
    let mut baseline = Baseline::load(&options.baseline)?;
    for part in &options.only {
        eprintln!("gate-accept: {} ...", part.name());
        take(&mut baseline, measure(args, options, *part)?);
    }
    baseline.history.push(Accepted {
        date: said("date", &["-u", "+%Y-%m-%d"])?,
        commit: said("git", &["describe", "--always", "--dirty"])?,
        reason: reason.to_owned(),
        parts: options.only.iter().map(|part| part.name().to_owned()).collect(),
    });
    baseline.save(&options.baseline)?;
    println!("written to {}; commit it", options.baseline.display());
    Ok(())
}

/// Figures are replaced; bounds, which are written by hand, are not.
fn take(baseline: &mut Baseline, found: Found) {
    let round = |figures: Figures, unit: f64| -> Figures {
        figures.into_iter().map(|(name, value)| (name, (value / unit).round() * unit)).collect()
    };
    match found {
        Found::Instructions(toolchain, figures) => {
            baseline.toolchain = toolchain;
            baseline.instructions = figures.into_iter().map(|(n, v)| (n, v.round())).collect();
        }
        Found::Allocations(figures) => baseline.allocations = trimmed(round(figures, 1e-4)),
        Found::Calls(runs) => {
            let rounded = |(run, calls)| (run, trimmed(round(calls, 1e-4)));
            baseline.calls = runs.into_iter().map(rounded).collect();
        }
        Found::Ratios(figures) => {
            for (name, value) in figures {
                println!("{name}: {value:.2} (bounds are written by hand)");
            }
        }
    }
}

/// Without the dust that rounding leaves in binary.
fn trimmed(figures: Figures) -> Figures {
    let trim = |value: f64| format!("{value:.4}").parse().unwrap_or(value);
    figures.into_iter().map(|(name, value)| (name, trim(value))).collect()
}

fn said(program: &str, args: &[&str]) -> Result<String, BenchError> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(BenchError::io(format!("start {program}")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(BenchError::unreadable(program, &output.status)),
    }
}

fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<13} {:<72} {:>11} {:>11} {:>8}  {:<10} verdict\n",
        "part", "case", "baseline", "now", "change", "bound"
    );
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), digits);
        let change = match (row.baseline, row.now) {
            (Some(was), Some(now)) if was > 0.0 => format!("{:+.1} %", 100.0 * (now / was - 1.0)),
            _ => "-".to_owned(),
        };
        let verdict = match &row.verdict {
            Verdict::Fine => "ok",
            Verdict::Shrank => "ok, shrank: accept it",
            Verdict::Failed(_) => "FAILED",
        };
        out += &format!(
            "{:<13} {:<72} {:>11} {:>11} {change:>8}  {:<10} {verdict}\n",
            row.part.name(),
            row.case,
            number(row.baseline),
            number(row.now),
            row.bound
        );
    }
    out
}

fn digits(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

fn verdict(rows: &[Row], spans: &[(Part, Duration)]) -> String {
    let mut out = String::from("\n");
    for row in rows {
        if let Verdict::Failed(why) = &row.verdict {
            out += &format!("gate: FAILED: {}: {why}\n", row.part.name());
        }
    }
    let shrank = rows.iter().filter(|row| row.verdict == Verdict::Shrank).count();
    if shrank > 0 {
        out += &format!("gate: {shrank} shrank: accept it with make gate-accept REASON=\"...\"\n");
    }
    for (part, span) in spans {
        out += &format!("gate: {} took {} s\n", part.name(), span.as_secs());
    }
    let is_red = rows.iter().any(Row::is_failed);
    out += if is_red { "gate: RED\n" } else { "gate: green\n" };
    out
}
