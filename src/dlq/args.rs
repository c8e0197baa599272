//! The command line of `daisi dlq`.

use clap::{Args, Subcommand};
use shards::domain::cdc::is_company;

use crate::letter::filter::Filters;

const RETRY: &str = "\
A retry publishes the event's own bytes to its own subject with the message id replay:<company>:<seq>:<n>, \
waits until a stream has it, and then deletes the letter. If it is killed in between, the same command again \
sends nothing twice while the stream holds the event and its duplicate window lasts (2 minutes unless set \
otherwise).

The event gets a new place in its stream; the one it had first goes along in Daisi-Original-Stream, -Sequence \
and -Timestamp. The ingest stage writes it at its first place, so that it fills a gap and never undoes a later \
event. A row change of the cdc stage reaches browsers behind newer ones: look with `show` first.

Examples:
  daisi dlq retry 17 18                                    two letters
  daisi dlq retry --all --class incomplete_row --dry-run   what would be sent
  daisi dlq retry --all --company ACME --newer 2h --yes    without a question";

const DROP: &str = "\
Examples:
  daisi dlq drop 17
  daisi dlq drop --all --subject 'cdc.ACME.>' --older 7d --dry-run
  daisi dlq drop --all --subject 'cdc.ACME.>' --older 7d --yes";

const LIST: &str = "\
Oldest first, up to the letter that is the newest when the command begins.

Examples:
  daisi dlq list --company ACME --newer 2h
  daisi dlq list --class fatal --subject 'v1.messages.>' --limit 20
  daisi dlq list --json | jq -r '[.reason, .source_subject] | @tsv' | sort | uniq -c";

const SHOW: &str = "\
Examples:
  daisi dlq show 17
  daisi dlq show 17 --json | jq -r .original       the event, byte for byte, if it was JSON";

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List letters, one a line.
    #[command(after_help = LIST)]
    List(ListArgs),
    /// Print whole letters, with the event.
    #[command(after_help = SHOW)]
    Show(ShowArgs),
    /// Send events again, and delete their letters.
    #[command(after_help = RETRY)]
    Retry(ActArgs),
    /// Delete letters for good.
    #[command(after_help = DROP)]
    Drop(ActArgs),
}

/// Which letters.
#[derive(Args, Clone, Debug, Default)]
pub struct Pick {
    /// Letters of this company; `_unknown` are those of nobody known.
    #[arg(long, value_name = "COMPANY", value_parser = read_company)]
    pub company: Option<String>,
    /// The other filters.
    #[command(flatten)]
    pub filters: Filters,
}

impl Pick {
    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.company.is_none() && self.filters.is_empty()
    }
}

/// Options of `daisi dlq list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Which.
    #[command(flatten)]
    pub pick: Pick,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `daisi dlq show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Sequence in the stream of dead letters, as `list` prints it.
    #[arg(value_name = "SEQ", required = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub seq: Vec<u64>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `daisi dlq retry` and `daisi dlq drop`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["seq", "all"]))]
pub struct ActArgs {
    /// Sequence in the stream of dead letters, as `list` prints it.
    #[arg(value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub seq: Vec<u64>,
    /// Every letter that the filters admit.
    #[arg(long)]
    pub all: bool,
    /// Which, with --all.
    #[command(flatten)]
    pub pick: Pick,
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

/// A company id.
pub(crate) fn read_company(text: &str) -> Result<String, String> {
    if is_company(text.as_bytes()) {
        return Ok(text.to_owned());
    }
    Err("no company id: 1 to 48 of A-Z a-z 0-9 _ -".to_owned())
}
