//! Why a measurement could not be made. None of these is a result: a slow contender is not an error.

use std::io;

/// What stopped the harness.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The reason given.
        source: io::Error,
    },
    /// A process did not start, ended early, or cannot be read.
    #[error(transparent)]
    Host(#[from] loadtest::host::HostError),
    /// The local servers did not start.
    #[error(transparent)]
    Stack(#[from] loadtest::stack::StackError),
    /// The harness's own connection to NATS.
    #[error("nats: {0}")]
    Client(#[from] loadtest::client::ClientError),
    /// A step of the feed ended badly.
    #[error("feed step {step} ended with {status}")]
    Feed {
        /// The subcommand.
        step: String,
        /// How it ended.
        status: String,
    },
    /// The feed or a file said something unreadable.
    #[error("cannot read {what}: {reason}")]
    Unreadable {
        /// What was being read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A contender did not get through the events in time.
    #[error("{name} put out {seen} of {count} events before the deadline")]
    TooSlow {
        /// The contender.
        name: String,
        /// Outputs at the deadline.
        seen: u64,
        /// Outputs expected.
        count: u64,
    },
}

impl BenchError {
    /// For `map_err`: names what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }

    /// For text that does not parse.
    pub(crate) fn unreadable(what: &str, reason: &impl ToString) -> Self {
        Self::Unreadable { what: what.to_owned(), reason: reason.to_string() }
    }
}
