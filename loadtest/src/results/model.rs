//! The results file, format 1. Times are microseconds unless a name says otherwise; a member that was not
//! measured is absent, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::Machine;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this format: 1.
    pub format: u32,
    /// Name of the profile or of the trace.
    pub name: String,
    /// The command line, without secrets.
    pub command: String,
    /// When the first event was planned, milliseconds since 1970.
    pub started_ms: u64,
    /// On what it was measured.
    pub machine: Machine,
    /// Versions of what took part, by name: `daisi`, `nats-server`, `redis-server`, `postgres`.
    pub versions: BTreeMap<String, String>,
    /// What was to be sent.
    pub load: Load,
    /// How the sending went.
    pub sender: Sender,
    /// Planned time to the PubAck of the source stream.
    pub ack: Distribution,
    /// What came out, stage by stage: `cdc` on `wa.>`, `ingest` as rows that another connection sees.
    pub ends: Vec<End>,
    /// The course of the run, second by second.
    pub series: Vec<Second>,
    /// CPU and memory of everybody who took part.
    pub processes: Vec<ProcessUse>,
    /// What measuring itself cost.
    pub harness: Harness,
    /// What went on besides that a reader must know, as a server that was started anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What was to be sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// In words, as `trace day.trace at 2x, companies x 4`.
    pub text: String,
    /// Events planned; absent where time alone ends the run.
    pub events: Option<u64>,
    /// Events a second planned; absent for as fast as possible, or a rate that changes.
    pub rate: Option<f64>,
    /// Companies.
    pub companies: u64,
}

/// How the sending went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sender {
    /// Publishes with a PubAck, copies included.
    pub published: u64,
    /// PubAcks that told of a duplicate.
    pub dropped: u64,
    /// Published once more after a lost connection.
    pub resent: u64,
    /// Connections made anew.
    pub reconnects: u64,
    /// First planned time to last PubAck, seconds.
    pub elapsed_s: f64,
    /// Planned time to the write: the floor that the sender itself sets.
    pub late: Spread,
    /// All its values, as in [`Distribution::histogram`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub late_histogram: String,
    /// Whether it fell behind its plan by more than a second, or by more than a tenth of the run: latencies
    /// then tell of the sender, not of daisi.
    pub fell_behind: bool,
}

/// What came out of one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// `cdc`, `ingest`, ...
    pub name: String,
    /// Where it was looked for, in words.
    pub text: String,
    /// What became of the events.
    pub counts: Counts,
    /// First delivery to last, events a second.
    pub events_per_s: f64,
    /// Planned time to the true end.
    pub latency: Distribution,
    /// The first faults in words.
    pub examples: Vec<String>,
}

/// Events of a stage by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// To come out.
    pub expected: u64,
    /// Came out, first copies.
    pub seen: u64,
    /// Did not.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Behind a newer version of their row or chat.
    pub out_of_order: u64,
    /// Nobody was to see them, or nobody sent them.
    pub unexpected: u64,
    /// Other bytes, another subject, or another id than they must have.
    pub corrupted: u64,
}

impl Counts {
    /// Whether all came out once, unchanged, in order, and nothing else did.
    pub fn is_clean(&self) -> bool {
        let Self { lost, duplicated, out_of_order, unexpected, corrupted, .. } = *self;
        [lost, duplicated, out_of_order, unexpected, corrupted] == [0; 5]
    }
}

/// Points of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Half are at or below.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

/// A distribution with all its values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Its points.
    pub points: Spread,
    /// HdrHistogram, V2 compressed, base64: what `.hgrm` and the plots are made of.
    pub histogram: String,
}

/// One second of the run, counted from the first planned time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its number, from 0.
    pub at_s: u64,
    /// Events planned for it.
    pub planned: u64,
    /// PubAcks that came in it.
    pub published: u64,
    /// By end: what came out in it, and the latency of that.
    pub ends: BTreeMap<String, SecondEnd>,
    /// Cores in use, by process.
    pub cores: BTreeMap<String, f64>,
}

/// What came out of one stage in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondEnd {
    /// Events.
    pub seen: u64,
    /// Half at or below.
    pub p50: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

/// What a process used, from the first planned time to the last event seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// `daisi`, `nats-server`, `redis-server`, `postgres` (with its children), `loadtest`.
    pub name: String,
    /// User and system time, seconds. Grain: 10 ms.
    pub cpu_s: f64,
    /// The same by event sent.
    pub cpu_us_per_event: f64,
    /// Most memory resident, MiB.
    pub rss_mib_max: f64,
}

/// What measuring cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Harness {
    /// CPU of sender, observers and sampler by event sent.
    pub cpu_us_per_event: f64,
    /// Events a second that one core of the harness could send at that price.
    pub events_per_core: f64,
    /// Time from an event's arrival in the observer to its entry in the books.
    pub observe_late: Spread,
    /// CPU by event sent of each thread of the harness, by name, microseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub threads: BTreeMap<String, f64>,
}
