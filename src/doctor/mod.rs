//! `daisi doctor`: what this host and the servers lack, and the one promise that holds. Invariant: it changes
//! nothing anywhere, and whatever it finds wrong comes with a remedy.

mod host;
mod nats;
mod postgres;
mod promise;
mod redis;
mod report;
mod tuning;

pub use self::report::{Area, Finding, Level, Report};

use crate::cli::{DoctorArgs, Exit, Global, print};
use crate::config::plan::Plan;

/// What the servers said about how they keep what they acknowledge; `None` where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durability {
    /// Copies of the source and output streams; the least counts.
    pub stream_replicas: Option<u64>,
    /// A stream keeps its messages in memory only.
    pub stream_in_memory: bool,
    /// Redis writes each command to disk before it answers (`appendfsync always`).
    pub redis_synced: Option<bool>,
    /// Redis writes a log at all (`appendonly yes`).
    pub redis_logged: Option<bool>,
    /// PostgreSQL waits for its log at commit (`synchronous_commit` other than `off`).
    pub postgres_synced: Option<bool>,
}

/// Runs every check that `args` allows and prints the report.
#[must_use]
pub fn main(global: &Global, args: DoctorArgs) -> Exit {
    let plan = match global.plan() {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let report = examine(&plan, args.offline);
    let text = if args.json {
        report.to_json()
    } else {
        report.to_text(std::io::IsTerminal::is_terminal(&std::io::stdout()))
    };
    let printed = print(&text);
    if printed == Exit::Ok { exit_of(report.worst(), args.strict) } else { printed }
}

/// Looks at the host and, unless `offline`, asks the servers. Takes at most the sum of the connect timeouts.
#[must_use]
pub fn examine(plan: &Plan, offline: bool) -> Report {
    let mut findings = host::examine(plan);
    let mut durability = Durability::default();
    if !offline {
        nats::examine(plan, &mut findings, &mut durability);
        redis::examine(plan, &mut findings, &mut durability);
        postgres::examine(plan, &mut findings, &mut durability);
    }
    Report { findings, promises: promise::promises(&durability, offline) }
}

/// 0 without failures, 1 for warnings that are to count, 2 with a failure.
fn exit_of(worst: Level, strict: bool) -> Exit {
    match worst {
        Level::Ok => Exit::Ok,
        Level::Warn if strict => Exit::Failed,
        Level::Warn => Exit::Ok,
        Level::Fail => Exit::Usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_warnings_from_failures() {
        assert_eq!(exit_of(Level::Ok, true), Exit::Ok);
        assert_eq!(exit_of(Level::Warn, false), Exit::Ok);
        assert_eq!(exit_of(Level::Warn, true), Exit::Failed);
        assert_eq!(exit_of(Level::Fail, false), Exit::Usage);
    }
}
