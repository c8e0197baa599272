//! The small benches of `shards/benches/micro`, run by cargo and read as lines of JSON. Invariant: a bench that
//! fails makes the run fail.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::baseline::Figures;
use crate::error::BenchError;

/// What is asked of the benches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Nanoseconds and allocations.
    Time,
    /// Allocations alone, over a fixed number of rounds.
    Counts,
    Instructions,
}

/// Which benches, and how they are built.
#[derive(Clone, Copy)]
pub(crate) struct Build<'a> {
    /// Their names; all without.
    pub(crate) benches: &'a [&'a str],
    /// What a build that is slow on purpose wastes; an ordinary build without.
    pub(crate) slow: Option<&'a str>,
}

impl Build<'_> {
    /// All of them, as they ship.
    pub(crate) const ALL: Self = Self { benches: &[], slow: None };
}

/// What one case told, each per event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) ns: Option<f64>,
    pub(crate) allocations: Option<f64>,
    pub(crate) instructions: Option<f64>,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.bench, self.case)
    }
}

/// Runs the benches.
pub(crate) fn run(ask: Ask, build: Build<'_>) -> Result<Vec<Case>, BenchError> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "-q", "-p", "daisi-shards", "--bench", "micro"]);
    if let Some(slow) = build.slow {
        cargo.args(["--features", "slow"]).env("DAISI_SLOW", slow);
    }
    cargo.args(["--", "--json"]).args(build.benches);
    match ask {
        Ask::Time => {}
        Ask::Counts => {
            cargo.arg("--counts");
        }
        Ask::Instructions => {
            need("valgrind")?;
            cargo.arg("--instructions");
        }
    }
    let output = cargo.stderr(Stdio::inherit()).output().map_err(BenchError::io("start cargo"))?;
    if !output.status.success() {
        let status = output.status.to_string();
        return Err(BenchError::Feed { step: "cargo bench".to_owned(), status });
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// A tool that must be there; one that is not says how it is got.
pub(crate) fn need(tool: &str) -> Result<(), BenchError> {
    let asked = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let why = format!("it is not installed: make setup, or apt-get install {tool}");
    Err(BenchError::unreadable(tool, &why))
}

/// A figure by case; a case without it is left out, and so fails as not measured.
pub(crate) fn figures(cases: &[Case], pick: fn(&Case) -> Option<f64>) -> Figures {
    cases.iter().filter_map(|case| Some((case.name(), pick(case)?))).collect()
}

fn parse(text: &str) -> Result<Vec<Case>, BenchError> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let case = |line| {
        serde_json::from_str(line).map_err(|error| BenchError::unreadable("cargo bench", &error))
    };
    lines.map(case).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{figures, need, parse};

    #[test]
    fn lines_of_json_are_cases_and_the_rest_is_talk() {
        let text = "cdc body 1066 B\n\
            {\"bench\":\"cdc\",\"case\":\"all\",\"ns\":1.5,\"allocations\":0}\n\
            {\"bench\":\"cdc\",\"case\":\"one\",\"instructions\":7}\n";
        let cases = parse(text).unwrap();
        assert_eq!(figures(&cases, |case| case.ns), [("cdc/all".to_owned(), 1.5)].into());
        assert_eq!(figures(&cases, |case| case.instructions), [("cdc/one".to_owned(), 7.0)].into());
        assert!(parse("{\"bench\":1}").is_err());
    }

    #[test]
    fn a_tool_that_is_not_there_is_named_with_its_package() {
        let error = need("no-such-tool").unwrap_err().to_string();
        assert!(error.contains("apt-get install no-such-tool"), "{error}");
    }
}
