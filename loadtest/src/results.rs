//! What a measured run leaves behind: one JSON file, from which every report, comparison and check is made.
//! Invariant: all that a report shows stands in the file; nothing is measured again to draw it.
//!
//! `recorder` makes it while the run lasts (`seconds`, `sampler`); `files` keeps it (`hgrm`, `page`); `judge`, `text`
//! and `figure` say what it means; `table` and `number` write that down. `side` takes runs together, `compare` and
//! `limits` judge them, `command` is what a user types.

pub mod command;
mod compare;
mod distribution;
mod figure;
mod files;
mod hgrm;
mod judge;
mod limits;
mod model;
mod number;
mod page;
mod recorder;
mod sampler;
mod seconds;
mod side;
mod table;
mod text;

use std::io;
use std::path::PathBuf;

pub use crate::host::Machine;
pub use compare::Comparison;
pub use files::{PAGE_FILE, RESULTS_FILE, put};
pub use judge::Verdict;
pub use limits::{Check, Kind, Limit, LimitError};
pub use model::{
    Counts, Distribution, End, Harness, Load, ProcessUse, Results, Second, SecondEnd, Sender,
    Spread,
};
pub use recorder::{ObserverPart, Origin, Recorder, SenderPart, Sending, Told};
pub use sampler::Watched;
pub use side::Side;

/// Why results could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The reason given.
        source: io::Error,
    },
    /// Not a file of ours.
    #[error("{} is no results file: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Written by a newer version.
    #[error("{} has format {found}, this version reads {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// A histogram that is none.
    #[error("a histogram cannot be read: {reason}")]
    Histogram {
        /// What is wrong with it.
        reason: String,
    },
}
