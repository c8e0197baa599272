//! Readiness and liveness from the shards' conditions. Pure. Invariant: not ready always comes with a reason
//! that names shard and cause (design §5.7). Liveness is slower to give up than readiness: taking traffic
//! away is cheap, a restart is not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use shards::domain::cdc::{EVENT_TIME_BYTES, rfc3339_seconds};

use super::view::{DependencyState, ShardStatus};

/// How many times `control.stall_after` a shard may stand still before a restart is asked for.
const HEALTH_STALLS: u32 = 15;

/// What part of its life the process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Phase {
    /// Shards are being started.
    Starting = 0,
    /// Shards run.
    Running = 1,
    /// A clean stop is under way.
    Draining = 2,
}

/// Why a process is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Shard it is about; absent where it is the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<usize>,
    /// `process`, `shard`, or the name of a dependency.
    pub what: &'static str,
    /// The cause.
    pub cause: String,
}

/// Body of `/ready` as a page: the old ingest service's members, then ours.
#[derive(Debug, Serialize)]
pub struct ReadyPage {
    /// `READY` or `NOT_READY`.
    status: &'static str,
    /// When it was asked, RFC 3339, and what is wrong with each dependency.
    details: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    readiness: Readiness,
}

impl ReadyPage {
    /// As of this Unix time in seconds.
    #[must_use]
    pub fn new(readiness: Readiness, unix_s: u64) -> Self {
        let mut time = [0; EVENT_TIME_BYTES];
        rfc3339_seconds(unix_s, &mut time);
        let mut details: BTreeMap<&'static str, String> =
            readiness.reasons.iter().rev().map(|why| (why.what, why.cause.clone())).collect();
        details.insert("timestamp", String::from_utf8_lossy(&time).into_owned());
        let status = if readiness.ready { "READY" } else { "NOT_READY" };
        Self { status, details, readiness }
    }
}

/// Whether traffic may come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Traffic may come.
    pub ready: bool,
    /// Where the process stands.
    pub phase: Phase,
    /// Why not; empty when ready.
    pub reasons: Vec<Reason>,
}

/// Is this process ready, and if not, why?
#[must_use]
pub fn readiness(phase: Phase, shards: &[ShardStatus], stall_after: Duration) -> Readiness {
    let mut reasons = Vec::new();
    let mut process = |cause: &str| {
        reasons.push(Reason { shard: None, what: "process", cause: cause.to_owned() });
    };
    match phase {
        Phase::Starting => process("starting"),
        Phase::Draining => process("draining"),
        Phase::Running if shards.is_empty() => process("no shard runs"),
        Phase::Running => {}
    }
    for shard in shards {
        reasons.extend(shard_reasons(shard, stall_after));
    }
    Readiness { ready: reasons.is_empty(), phase, reasons }
}

fn shard_reasons(status: &ShardStatus, stall_after: Duration) -> Vec<Reason> {
    let shard = Some(status.shard);
    let mut reasons = Vec::new();
    if status.heartbeat_age > stall_after {
        let cause =
            format!("stalled: its loop last turned {} ms ago", status.heartbeat_age.as_millis());
        reasons.push(Reason { shard, what: "shard", cause });
    }
    for dependency in &status.dependencies {
        let cause = match &dependency.state {
            DependencyState::Up | DependencyState::Standby => continue,
            DependencyState::Starting(cause) => format!("not there yet: {cause}"),
            DependencyState::Down(cause) => {
                format!("down for {} s: {cause}", dependency.since.as_secs())
            }
        };
        reasons.push(Reason { shard, what: dependency.name, cause });
    }
    reasons
}

/// Body of `/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// A word of [`HealthWords`].
    pub status: &'static str,
    /// Of this build.
    pub version: &'static str,
    /// Shards that stand still for so long that only a restart helps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stalled: Vec<usize>,
}

/// What `status` says, after the service that daisi stands in for: probes of old may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthWords {
    /// Every shard's loop turns.
    pub good: &'static str,
    /// One does not.
    pub bad: &'static str,
}

impl HealthWords {
    /// Contract cdc.md section 11.
    pub const CDC: Self = Self { good: "ok", bad: "stalled" };
    /// Contract ingest.md section 7.2.
    pub const INGEST: Self = Self { good: "UP", bad: "DOWN" };
}

/// Does this process still live? Servers that are away do not count: a restart would not bring them back.
#[must_use]
pub fn health(shards: &[ShardStatus], stall_after: Duration, words: HealthWords) -> Health {
    let limit = stall_after * HEALTH_STALLS;
    let stalled: Vec<usize> = shards
        .iter()
        .filter(|status| status.heartbeat_age > limit)
        .map(|status| status.shard)
        .collect();
    let status = if stalled.is_empty() { words.good } else { words.bad };
    Health { status, version: env!("CARGO_PKG_VERSION"), stalled }
}

#[cfg(test)]
mod tests {
    use super::super::view::Dependency;
    use super::*;

    const STALL: Duration = Duration::from_secs(2);

    fn status(shard: usize, heartbeat_ms: u64, state: DependencyState) -> ShardStatus {
        let redis = Dependency { name: "redis", state, since: Duration::from_secs(7) };
        ShardStatus {
            shard,
            core: shard,
            heartbeat_age: Duration::from_millis(heartbeat_ms),
            companies: 0,
            partitions: Vec::new(),
            in_flight: 0,
            lag: Duration::ZERO,
            held: Vec::new(),
            dependencies: vec![redis],
        }
    }

    fn reasons(phase: Phase, shards: &[ShardStatus]) -> Vec<String> {
        let found = readiness(phase, shards, STALL);
        assert_eq!(found.ready, found.reasons.is_empty());
        let text =
            |r: Reason| format!("{}/{}: {}", r.shard.map_or(-1, |s| s as i64), r.what, r.cause);
        found.reasons.into_iter().map(text).collect()
    }

    #[test]
    fn ready_only_while_running_with_every_dependency_up_or_on_standby() {
        use DependencyState::{Down, Standby, Starting, Up};
        let good = [status(0, 1, Up), status(1, 2000, Standby)];
        assert!(reasons(Phase::Running, &good).is_empty());
        assert_eq!(reasons(Phase::Starting, &good), ["-1/process: starting"]);
        assert_eq!(reasons(Phase::Draining, &good), ["-1/process: draining"]);
        assert_eq!(reasons(Phase::Running, &[]), ["-1/process: no shard runs"]);
        let bad = [
            status(0, 2001, Up),
            status(1, 0, Down("refused".into())),
            status(2, 0, Starting("hello".into())),
        ];
        assert_eq!(
            reasons(Phase::Running, &bad),
            [
                "0/shard: stalled: its loop last turned 2001 ms ago",
                "1/redis: down for 7 s: refused",
                "2/redis: not there yet: hello",
            ]
        );
    }

    #[test]
    fn a_restart_is_asked_for_by_a_long_stall_and_never_by_a_lost_server() {
        let down = status(0, 0, DependencyState::Down("refused".into()));
        let words = HealthWords::CDC;
        assert_eq!(health(&[down], STALL, words).status, "ok");
        let slow = status(0, 30_000, DependencyState::Up);
        assert_eq!(health(&[slow], STALL, HealthWords::INGEST).status, "UP");
        let dead = health(&[status(3, 30_001, DependencyState::Up)], STALL, words);
        assert_eq!((dead.status, dead.stalled), ("stalled", vec![3]));
    }
}
