//! Figures against the baseline: a pure function. Invariants: what was asked for and not measured fails; what
//! the baseline lacks fails; a figure that shrank is told, so that it is accepted before it grows again unseen.

use super::{
    baseline::{Baseline, Figures, RatioBound},
    toolchain::Toolchain,
};
use std::collections::{BTreeMap, BTreeSet};

/// What can be gated, each alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Part {
    /// Instructions per event of the small benches, counted by valgrind.
    Instructions,
    /// Allocations per event of the small benches.
    Allocations,
    /// System calls per event of the release binary, counted by strace.
    Calls,
    /// Ratios against the bare loops and the peers, measured in turns.
    Ratios,
}

impl Part {
    pub(crate) const ALL: [Self; 4] =
        [Self::Instructions, Self::Allocations, Self::Calls, Self::Ratios];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
            Self::Calls => "calls",
            Self::Ratios => "ratios",
        }
    }
}

/// What a run of the gate found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Instructions(Toolchain, Figures),
    Allocations(Figures),
    Calls(BTreeMap<String, Figures>),
    Ratios(Figures),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Better than the baseline by more than the tolerance: it passes.
    Shrank,
    Failed(String),
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) case: String,
    pub(crate) baseline: Option<f64>,
    pub(crate) now: Option<f64>,
    pub(crate) bound: String,
    pub(crate) verdict: Verdict,
}

impl Row {
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }

    /// A part that could not be measured.
    pub(crate) fn broken(part: Part, why: &str) -> Self {
        let verdict = Verdict::Failed(format!("not measured: {why}"));
        let case = "(all)".to_owned();
        Self { part, case, baseline: None, now: None, bound: String::new(), verdict }
    }
}

/// A row for every case that the baseline or the run knows.
pub(crate) fn judge(baseline: &Baseline, found: &Found) -> Vec<Row> {
    match found {
        Found::Instructions(toolchain, figures) => instructions(baseline, toolchain, figures),
        Found::Allocations(figures) => allocations(baseline, figures),
        Found::Calls(runs) => calls(baseline, runs),
        Found::Ratios(figures) => {
            baseline.ratio.iter().map(|bound| ratio(bound, figures)).collect()
        }
    }
}

fn instructions(baseline: &Baseline, toolchain: &Toolchain, figures: &Figures) -> Vec<Row> {
    let percent_of = |case: &str| {
        let is_of = |names: &[String]| names.iter().any(|name| name == case);
        let loose = baseline.instructions_loose.iter().find(|loose| is_of(&loose.cases));
        loose.map_or(baseline.tolerance.instructions_percent, |loose| loose.percent)
    };
    let mut rows =
        by_case(Part::Instructions, &baseline.instructions, figures, |case, was, now| {
            let percent = percent_of(case);
            let row = |verdict| (format!("+{percent} %"), verdict);
            match 100.0 * (now / was - 1.0) {
                grown if grown > percent => {
                    row(Verdict::Failed(format!("{case} takes {grown:+.1} % instructions")))
                }
                grown if grown < -percent => row(Verdict::Shrank),
                _ => row(Verdict::Fine),
            }
        });
    if let Some(difference) = baseline.toolchain.difference(toolchain) {
        let why = format!(
            "accept a new baseline on this toolchain: counts of two are not comparable ({difference})"
        );
        rows.push(Row {
            case: "(toolchain)".to_owned(),
            verdict: Verdict::Failed(why),
            ..Row::broken(Part::Instructions, "")
        });
    }
    rows
}

fn allocations(baseline: &Baseline, figures: &Figures) -> Vec<Row> {
    by_case(Part::Allocations, &baseline.allocations, figures, |case, was, now| {
        let own = baseline
            .allocations_max
            .iter()
            .find(|bound| bound.cases.iter().any(|name| name == case));
        let max = own.map_or(was + baseline.tolerance.allocations, |bound| bound.max);
        let verdict = match now {
            now if now > max => {
                let why = own.map(|own| format!(" ({})", own.why)).unwrap_or_default();
                Verdict::Failed(format!("{case} allocates {now:.4} an event, {was:.4} before{why}"))
            }
            now if now < was - baseline.tolerance.allocations => Verdict::Shrank,
            _ => Verdict::Fine,
        };
        (format!("<= {max:.4}"), verdict)
    })
}

fn calls(baseline: &Baseline, runs: &BTreeMap<String, Figures>) -> Vec<Row> {
    let sums = |runs: &BTreeMap<String, Figures>| -> Figures {
        runs.iter().map(|(run, calls)| (run.clone(), calls.values().sum())).collect()
    };
    let none = Figures::new();
    by_case(Part::Calls, &sums(&baseline.calls), &sums(runs), |run, was, now| {
        let (before, after) = (&baseline.calls[run], runs.get(run).unwrap_or(&none));
        let Some(percent) = baseline.tolerance.calls_percent.get(run) else {
            return (String::new(), Verdict::Failed(format!("no tolerance for {run}")));
        };
        let bound = format!("+{percent} %");
        let new: Vec<&String> = after
            .iter()
            .filter(|(name, count)| {
                !before.contains_key(*name) && **count > baseline.tolerance.calls_new
            })
            .map(|(name, _)| name)
            .collect();
        let verdict = match 100.0 * (now / was - 1.0) {
            grown if grown > *percent => Verdict::Failed(format!(
                "{run}: {grown:+.1} % system calls: {}",
                what_grew(before, after)
            )),
            _ if !new.is_empty() => {
                Verdict::Failed(format!("{run}: new system calls: {}", what_grew(before, after)))
            }
            grown if grown < -percent => Verdict::Shrank,
            _ => Verdict::Fine,
        };
        (bound, verdict)
    })
}

/// The three names that grew most.
fn what_grew(before: &Figures, after: &Figures) -> String {
    let was = |name: &str| before.get(name).copied().unwrap_or(0.0);
    let mut grown: Vec<(&String, f64)> =
        after.iter().map(|(name, count)| (name, count - was(name))).collect();
    grown.retain(|(_, more)| *more > 0.0);
    grown.sort_by(|left, right| right.1.total_cmp(&left.1));
    let words = grown.iter().take(3);
    let words =
        words.map(|(name, more)| format!("{name} {:.3} -> {:.3}", was(name), was(name) + more));
    words.collect::<Vec<_>>().join(", ")
}

fn ratio(bound: &RatioBound, figures: &Figures) -> Row {
    let now = figures.get(&bound.name).copied();
    let text = match (bound.at_least, bound.at_most) {
        (Some(least), _) => format!(">= {least}"),
        (None, Some(most)) => format!("<= {most}"),
        (None, None) => "none".to_owned(),
    };
    let verdict = match now {
        None => Verdict::Failed(format!("{} was not measured", bound.name)),
        Some(now) => {
            let is_low = bound.at_least.is_some_and(|least| now < least);
            let is_high = bound.at_most.is_some_and(|most| now > most);
            match is_low || is_high {
                true => Verdict::Failed(format!("{} is {now:.2}, not {text}", bound.name)),
                false => Verdict::Fine,
            }
        }
    };
    let (part, case) = (Part::Ratios, bound.name.clone());
    Row { part, case, baseline: None, now, bound: text, verdict }
}

/// Every case of either side; one that only one side has fails.
fn by_case(
    part: Part,
    baseline: &Figures,
    figures: &Figures,
    mut judge: impl FnMut(&str, f64, f64) -> (String, Verdict),
) -> Vec<Row> {
    let cases: BTreeSet<&String> = baseline.keys().chain(figures.keys()).collect();
    let row = |case: &String| {
        let (was, now) = (baseline.get(case).copied(), figures.get(case).copied());
        let (bound, verdict) = match (was, now) {
            (Some(was), Some(now)) => judge(case, was, now),
            (None, _) => {
                let why = format!("{case} is not in the baseline: accept it");
                (String::new(), Verdict::Failed(why))
            }
            (_, None) => {
                let why = format!("{case} is in the baseline and was not measured");
                (String::new(), Verdict::Failed(why))
            }
        };
        Row { part, case: case.clone(), baseline: was, now, bound, verdict }
    };
    cases.into_iter().map(row).collect()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
