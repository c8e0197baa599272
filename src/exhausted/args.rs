//! The command line of `daisi exhausted`.

use clap::{Args, Subcommand};

use crate::dlq::read_company;
use crate::letter::filter::Filters;

const RETRY: &str = "\
A retry publishes the event's own bytes to its own subject with the message id replay:<company>:<id>:<n>, \
waits until a stream has it, and then marks the row as resolved, with the message id in its notes. Rows of the \
service daisi replaces hold the event's values, not its bytes: those are sent as PostgreSQL writes them.

The event gets a new place in its stream; the one it had first goes along in Daisi-Original-Stream, -Sequence \
and -Timestamp. The ingest stage writes it at its first place, so that it fills a gap and never undoes a later \
event. A row change of the cdc stage reaches browsers behind newer ones: look with `show` first.

Examples:
  daisi exhausted retry --company ACME 17 18
  daisi exhausted retry --company ACME --all --class fatal --dry-run
  daisi exhausted retry --all --newer 2h --yes              every company";

const RESOLVE: &str = "\
Examples:
  daisi exhausted resolve --company ACME 17 --note 'a later update came through'
  daisi exhausted resolve --all --older 30d --note 'too old to matter' --yes";

const LIST: &str = "\
Newest first, a company after another; open ones only, unless --resolved.

Examples:
  daisi exhausted list --company ACME
  daisi exhausted list --all --newer 1d --json";

const SHOW: &str = "\
Examples:
  daisi exhausted show --company ACME 17
  daisi exhausted show --company ACME 17 --json | jq -r .original";

/// What to do with exhausted events.
#[derive(Clone, Debug, Subcommand)]
pub enum ExhaustedCommand {
    /// List events, one a line.
    #[command(after_help = LIST)]
    List(ListArgs),
    /// Print whole rows, with the event.
    #[command(after_help = SHOW)]
    Show(ShowArgs),
    /// Send events again, and mark their rows as resolved.
    #[command(after_help = RETRY)]
    Retry(RetryArgs),
    /// Mark rows as resolved.
    #[command(after_help = RESOLVE)]
    Resolve(ResolveArgs),
}

/// Whose rows, and which of them.
#[derive(Args, Clone, Debug, Default)]
pub struct Whose {
    /// Rows of this company.
    #[arg(long, value_name = "COMPANY", value_parser = read_company)]
    pub company: Option<String>,
    /// All that the filters admit: of the company, or of every company.
    #[arg(long)]
    pub all: bool,
    /// Which.
    #[command(flatten)]
    pub filters: Filters,
}

/// Options of `daisi exhausted list`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("whom").required(true).multiple(true).args(["company", "all"]))]
pub struct ListArgs {
    /// Whose.
    #[command(flatten)]
    pub whose: Whose,
    /// Also those that are resolved.
    #[arg(long)]
    pub resolved: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `daisi exhausted show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Whose.
    #[arg(long, value_name = "COMPANY", value_parser = read_company)]
    pub company: String,
    /// Number of the row, as `list` prints it.
    #[arg(value_name = "ID", required = true)]
    pub id: Vec<i64>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// The rows that something is done to.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("whom").required(true).multiple(true).args(["company", "all"]))]
pub struct Targets {
    /// Number of a row of the company, as `list` prints it.
    #[arg(value_name = "ID")]
    pub id: Vec<i64>,
    /// Whose, and which.
    #[command(flatten)]
    pub whose: Whose,
}

/// How something is done.
#[derive(Args, Clone, Copy, Debug)]
pub struct How {
    /// Tell what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; needed for more than one where there is no terminal.
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `daisi exhausted retry`.
#[derive(Args, Clone, Debug)]
pub struct RetryArgs {
    /// Which.
    #[command(flatten)]
    pub targets: Targets,
    /// How.
    #[command(flatten)]
    pub how: How,
}

/// Options of `daisi exhausted resolve`.
#[derive(Args, Clone, Debug)]
pub struct ResolveArgs {
    /// Which.
    #[command(flatten)]
    pub targets: Targets,
    /// Why they need nobody any more; goes into `notes`.
    #[arg(long, value_name = "TEXT")]
    pub note: String,
    /// How.
    #[command(flatten)]
    pub how: How,
}
