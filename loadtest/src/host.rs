//! What the kernel knows of processes and of the machine: CPU, memory, what it runs on. Read from `/proc`, where
//! a look costs microseconds and disturbs nobody.

mod machine;
mod process;

use std::io;

pub use machine::{Machine, load, unix_ms};
pub use process::{
    Process, ThreadCpu, cpu_of, cpu_with_children_of, own_cpu, own_threads, rss_kib_max_of,
    rss_kib_with_children_of,
};

/// Why something could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The reason given.
        source: io::Error,
    },
    /// A file of `/proc` does not have what it should.
    #[error("cannot read {path}: no {what}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is missing.
        what: &'static str,
    },
    /// A process is gone before its work was done.
    #[error("{name} ended with {status} before its time")]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: String,
    },
}

impl HostError {
    /// For `map_err`: names what was being done.
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}
