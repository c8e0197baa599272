//! The committed baseline: figures of the last accepted run, written by `make gate-accept` with a reason, and
//! bounds written by hand, each with its own, which an accepted run leaves as they are.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use super::toolchain::Toolchain;
use crate::error::BenchError;

const HEAD: &str = "\
# What `make gate` holds a change against. The figures below `[toolchain]` are written by
#     make gate-accept REASON=\"why it costs more now\"
# which keeps the bounds: those are written by hand, with their reasons. See docs/performance-gates.md.

";

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    pub(crate) tolerance: Tolerance,
    /// Cases whose instructions spread by themselves.
    #[serde(default)]
    pub(crate) instructions_loose: Vec<InstructionsLoose>,
    /// Allocations that a case may make, where zero or the baseline is not the bound.
    #[serde(default)]
    pub(crate) allocations_max: Vec<AllocationsMax>,
    #[serde(default)]
    pub(crate) ratio: Vec<RatioBound>,
    pub(crate) toolchain: Toolchain,
    /// Per event, by case.
    #[serde(default)]
    pub(crate) instructions: Figures,
    /// Per event, by case.
    #[serde(default)]
    pub(crate) allocations: Figures,
    /// Per event, by run and name of the call.
    #[serde(default)]
    pub(crate) calls: BTreeMap<String, Figures>,
    #[serde(default)]
    pub(crate) history: Vec<Accepted>,
}

/// By how much a figure may grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tolerance {
    pub(crate) instructions_percent: f64,
    /// Added to the baseline of a case that has no bound of its own: allocations per event.
    pub(crate) allocations: f64,
    /// Of all system calls of a run, by run: they spread differently.
    pub(crate) calls_percent: Figures,
    /// Calls per event that a name may have which the baseline lacks.
    pub(crate) calls_new: f64,
}

/// A wider tolerance of cases, and why it is none of the usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstructionsLoose {
    pub(crate) percent: f64,
    pub(crate) why: String,
    pub(crate) cases: Vec<String>,
}

/// A bound on the allocations of cases, and why it is no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllocationsMax {
    pub(crate) max: f64,
    pub(crate) why: String,
    pub(crate) cases: Vec<String>,
}

/// A bound on the median of the ratios by round; one of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RatioBound {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
    pub(crate) why: String,
}

/// One `gate-accept`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accepted {
    pub(crate) date: String,
    /// The commit that was checked out, marked where the tree had changes.
    pub(crate) commit: String,
    pub(crate) reason: String,
    pub(crate) parts: Vec<String>,
}

impl Baseline {
    pub(crate) fn load(path: &Path) -> Result<Self, BenchError> {
        let what = path.display().to_string();
        let text = fs::read_to_string(path).map_err(BenchError::io(format!("read {what}")))?;
        toml::from_str(&text).map_err(|error| BenchError::unreadable(&what, &error))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), BenchError> {
        let what = path.display().to_string();
        let text = self.text()?;
        fs::write(path, text).map_err(BenchError::io(format!("write {what}")))
    }

    fn text(&self) -> Result<String, BenchError> {
        let body = toml::to_string_pretty(self)
            .map_err(|error| BenchError::unreadable("the baseline", &error))?;
        Ok(format!("{HEAD}{body}"))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_read_and_written_as_it_stands() {
        let text = include_str!("../../../baseline.toml");
        let baseline: Baseline = toml::from_str(text).unwrap();
        assert_eq!(baseline.text().unwrap(), text);
        assert!(!baseline.instructions.is_empty() && !baseline.calls.is_empty());
        assert!(!baseline.history.is_empty() && !baseline.ratio.is_empty());
        for bound in &baseline.ratio {
            assert!(bound.at_least.is_some() != bound.at_most.is_some(), "{}", bound.name);
            assert!(bound.why.len() > 10, "{}", bound.name);
        }
        for case in baseline.instructions_loose.iter().flat_map(|loose| &loose.cases) {
            assert!(baseline.instructions.contains_key(case), "no case {case}");
        }
        for bound in &baseline.allocations_max {
            for case in &bound.cases {
                assert!(baseline.allocations.contains_key(case), "no case {case}");
            }
        }
    }
}
