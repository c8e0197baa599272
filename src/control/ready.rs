//! Readiness and liveness from the shards' conditions. Pure. Invariant: not ready always comes with a reason
//! that names shard and cause (design §5.7). Liveness is slower to give up than readiness: taking traffic
//! away is cheap, a restart is not.

use std::time::Duration;

use serde::Serialize;

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

/// Body of `/ready`.
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
    /// `ok` while every shard's loop turns, else `stalled`. The old service's word, in the old place.
    pub status: &'static str,
    /// Shards that stand still for so long that only a restart helps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stalled: Vec<usize>,
}

/// Does this process still live? Servers that are away do not count: a restart would not bring them back.
#[must_use]
pub fn health(shards: &[ShardStatus], stall_after: Duration) -> Health {
    let limit = stall_after * HEALTH_STALLS;
    let stalled: Vec<usize> = shards
        .iter()
        .filter(|status| status.heartbeat_age > limit)
        .map(|status| status.shard)
        .collect();
    Health { status: if stalled.is_empty() { "ok" } else { "stalled" }, stalled }
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
        assert_eq!(health(&[down], STALL).status, "ok");
        assert_eq!(health(&[status(0, 30_000, DependencyState::Up)], STALL).status, "ok");
        let dead = health(&[status(3, 30_001, DependencyState::Up)], STALL);
        assert_eq!((dead.status, dead.stalled), ("stalled", vec![3]));
    }
}
