//! `loadtest report`, `compare` and `check`: everything from files, nothing measured. Exit code: 0 done, and every
//! limit kept; 1 a limit is broken; 2 what was asked for cannot be done.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::compare::Comparison;
use super::files::put;
use super::limits::{Check, Kind, Limit, LimitError};
use super::side::Side;
use super::{Results, ResultsError};

/// What `report` is told.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("form").args(["text", "markdown"])))]
pub struct ReportArgs {
    /// A results file, or the folder of a run.
    results: PathBuf,
    /// Write the page to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print tables for a terminal; so it does unless something else is asked for.
    #[arg(long)]
    text: bool,
    /// Print Markdown.
    #[arg(long)]
    markdown: bool,
}

/// What `compare` is told.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The runs that count as base: a folder or results file, several behind commas, a name before `=`.
    base: String,
    /// Runs to hold against it, each written like the base.
    #[arg(required = true)]
    new: Vec<String>,
    /// Write a page with the curves of all runs to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print Markdown, as for a comment on a pull request.
    #[arg(long)]
    markdown: bool,
}

/// What `check` is told. Bounds without a name hold for every end.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A results file or the folder of a run; several behind commas are taken at their medians, faults at their worst.
    results: String,
    /// Limits from a TOML file: tables `max`, `min`, `max-ratio`, `min-ratio` of figures and bounds.
    #[arg(long, value_name = "FILE")]
    limits: Vec<PathBuf>,
    /// Half of the events at or below this latency.
    #[arg(long, value_name = "[END=]US")]
    max_p50_us: Vec<String>,
    /// 95 of 100 at or below.
    #[arg(long, value_name = "[END=]US")]
    max_p95_us: Vec<String>,
    /// 99 of 100 at or below.
    #[arg(long, value_name = "[END=]US")]
    max_p99_us: Vec<String>,
    /// 999 of 1,000 at or below.
    #[arg(long, value_name = "[END=]US")]
    max_p999_us: Vec<String>,
    /// Events that may be lost.
    #[arg(long, value_name = "[END=]N")]
    max_lost: Vec<String>,
    /// Second copies that may come out.
    #[arg(long, value_name = "[END=]N")]
    max_duplicated: Vec<String>,
    /// Events that may come behind newer ones of their row or chat.
    #[arg(long, value_name = "[END=]N")]
    max_out_of_order: Vec<String>,
    /// Publishes a second; with an end, events a second that come out there.
    #[arg(long, value_name = "[END=]N")]
    min_rate: Vec<String>,
    /// CPU by event of a process, microseconds.
    #[arg(long, value_name = "PROCESS=US")]
    max_cpu_us: Vec<String>,
    /// Memory of a process, MiB.
    #[arg(long, value_name = "PROCESS=MIB")]
    max_rss_mib: Vec<String>,
    /// A figure against that of the base, as `p95=1.10` or `daisi.cpu=1.05`.
    #[arg(long, value_name = "FIGURE=RATIO", requires = "base")]
    max_ratio: Vec<String>,
    /// The same from below, as `rate=0.95`.
    #[arg(long, value_name = "FIGURE=RATIO", requires = "base")]
    min_ratio: Vec<String>,
    /// The runs that ratios are taken to, written like the results.
    #[arg(long, value_name = "RESULTS")]
    base: Option<String>,
    /// Print Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A file.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Draws a run again.
pub fn report(args: &ReportArgs) -> ExitCode {
    let told = || {
        let results = Results::read(&args.results)?;
        if let Some(path) = &args.html {
            put(path, &results.html()?)?;
        }
        if args.markdown {
            print!("{}", results.markdown());
        } else if args.text || args.html.is_none() {
            print!("{}", results.text());
        }
        Ok(ExitCode::SUCCESS)
    };
    answered(told())
}

/// Sets runs beside each other.
pub fn compare(args: &CompareArgs) -> ExitCode {
    let told = || {
        let base = Side::read(&args.base, "base")?;
        let others = args.new.iter().enumerate().map(|(at, text)| {
            let name =
                if args.new.len() == 1 { "new".to_owned() } else { format!("new {}", at + 1) };
            Side::read(text, &name)
        });
        let comparison = Comparison::new(base, others.collect::<Result<_, _>>()?);
        if let Some(path) = &args.html {
            put(path, &comparison.html()?)?;
        }
        if args.markdown {
            print!("{}", comparison.markdown());
        } else {
            print!("{}", comparison.text());
        }
        Ok(ExitCode::SUCCESS)
    };
    answered(told())
}

/// Holds limits against a run.
pub fn check(args: &CheckArgs) -> ExitCode {
    let told = || {
        let limits = args.all_limits()?;
        let side = Side::read(&args.results, "results")?;
        let base = args.base.as_ref().map(|base| Side::read(base, "base")).transpose()?;
        let check = Check::new(&limits, &side, base.as_ref())?;
        print!("{}", if args.markdown { check.markdown() } else { check.text() });
        for warning in side.runs.iter().flat_map(Results::warnings) {
            println!("warning: {warning}");
        }
        Ok(if check.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    answered(told())
}

fn answered(told: Result<ExitCode, CommandError>) -> ExitCode {
    told.unwrap_or_else(|error| {
        eprintln!("loadtest: {error}");
        ExitCode::from(2)
    })
}

impl CheckArgs {
    fn all_limits(&self) -> Result<Vec<Limit>, LimitError> {
        let mut limits = Vec::new();
        for path in &self.limits {
            limits.extend(Limit::read(path)?);
        }
        let options = [
            (Kind::Max, "p50_us", &self.max_p50_us),
            (Kind::Max, "p95_us", &self.max_p95_us),
            (Kind::Max, "p99_us", &self.max_p99_us),
            (Kind::Max, "p999_us", &self.max_p999_us),
            (Kind::Max, "lost", &self.max_lost),
            (Kind::Max, "duplicated", &self.max_duplicated),
            (Kind::Max, "out_of_order", &self.max_out_of_order),
            (Kind::Min, "rate", &self.min_rate),
            (Kind::Max, "cpu_us", &self.max_cpu_us),
            (Kind::Max, "rss_mib", &self.max_rss_mib),
        ];
        for (kind, what, texts) in options {
            for text in texts {
                limits.push(match text.split_once('=') {
                    Some((owner, bound)) => Limit::new(kind, &format!("{owner}.{what}"), bound)?,
                    None => Limit::new(kind, what, text)?,
                });
            }
        }
        for (kind, texts) in [(Kind::MaxRatio, &self.max_ratio), (Kind::MinRatio, &self.min_ratio)]
        {
            for text in texts {
                let (name, bound) = text.split_once('=').unwrap_or((text, ""));
                limits.push(Limit::new(kind, name, bound)?);
            }
        }
        Ok(limits)
    }
}
