//! The shape of a workload: how many of whom, and how much of which trouble. Read from TOML or made
//! in a test; unknown keys are refused.

use serde::{Deserialize, Serialize};

/// A workload. Shares are fractions of all events, 0 to 1; what they leave is forwarded changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Same seed and profile, same bytes.
    pub seed: u64,
    /// Companies, each with a database and LSN of its own. 1 to 100,000.
    pub companies: u32,
    /// Agents of a company. 1 to 10,000.
    pub agents: u32,
    /// Chats of an agent. 1 to 100,000.
    pub chats: u32,
    /// How uneven companies are: 1 all alike, 2 the first quarter has half of the traffic, and so on.
    pub skew: f64,
    /// Share of events sent before that come again, unchanged.
    pub duplicates: f64,
    /// Share of changes of tables that nobody forwards.
    pub filtered: f64,
    /// Share of backfill reads.
    pub backfill: f64,
    /// Share of events that must be dead-lettered; every kind of [`Defect`](super::Defect) in turn.
    pub bad: f64,
    /// Share of forwarded messages that come in a Debezium envelope.
    pub debezium: f64,
    /// Share of messages with media and a thumbnail.
    pub media: f64,
    /// Median length of a message's text, in bytes; lengths are log-normal.
    pub text_median: f64,
    /// Spread of the text lengths: standard deviation of their logarithm.
    pub text_sigma: f64,
    /// Start of the story told, seconds since the epoch.
    pub epoch_s: u64,
    /// Added to where the companies' logs begin. Two stories that begin at the same place have the same ids, and
    /// who saw the first takes the second for copies.
    pub lsn_base: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            seed: 1,
            companies: 16,
            agents: 4,
            chats: 32,
            skew: 1.5,
            duplicates: 0.01,
            filtered: 0.02,
            backfill: 0.01,
            bad: 0.002,
            debezium: 0.02,
            media: 0.08,
            text_median: 28.0,
            text_sigma: 1.1,
            epoch_s: 1_748_772_000, // 2025-06-01T10:00:00Z, as in the contract's samples.
            lsn_base: 0,
        }
    }
}

impl Profile {
    /// Only forwarded Sequin changes: no duplicate, nothing filtered, nothing bad.
    pub fn clean() -> Self {
        Self {
            duplicates: 0.0,
            filtered: 0.0,
            backfill: 0.0,
            bad: 0.0,
            debezium: 0.0,
            ..Self::default()
        }
    }

    /// Rows whose order can be followed, over all companies: [`RowId`](super::RowId) is below it.
    pub fn rows(&self) -> u64 {
        u64::from(self.companies) * self.rows_per_company()
    }

    pub(super) fn rows_per_company(&self) -> u64 {
        u64::from(self.agents) + 3 * self.chats_per_company()
    }

    pub(super) fn chats_per_company(&self) -> u64 {
        u64::from(self.agents) * u64::from(self.chats)
    }
}
