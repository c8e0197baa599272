//! Log set-up: one subscriber for the process, JSON or text, on standard error. Invariant: set once, before
//! any thread is started. A line is fixed text with the facts as fields; no payload above debug.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::config::plan::LogPlan;

/// Crates whose debug lines tell of sockets and rings, not of events.
const QUIET: &[&str] =
    &["hyper", "hyper_util", "axum", "tokio_postgres", "glommio", "rustls", "mio"];

/// Begins to log as planned.
///
/// # Errors
/// Something in this process logs already.
pub fn init(plan: LogPlan) -> Result<(), TryInitError> {
    let level = LevelFilter::from_level(plan.level);
    let quiet = level.min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(level)
        .with_targets(QUIET.iter().map(|&target| (target, quiet)));
    let lines = fmt::layer().with_writer(std::io::stderr).with_thread_names(true);
    let lines = if plan.json {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        lines.with_ansi(terminal).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_set_up_is_refused() {
        let plan = LogPlan { level: tracing::Level::ERROR, json: true };
        assert!(init(plan).is_ok());
        assert!(init(LogPlan { json: false, ..plan }).is_err());
    }
}
