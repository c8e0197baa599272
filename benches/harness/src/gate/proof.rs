//! Does the gate find what it is for? Builds with the feature `slow` waste instructions, allocations, system
//! calls or time for each event; each must fail its part with the right words, and an ordinary build must
//! pass. Figures are compared with an ordinary build of the same minute, not with the committed ones, so that
//! this holds on every machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Found, Options, Part,
    baseline::{Baseline, Figures},
    calls, cargo,
    judge::{Verdict, judge},
    micro::{self, Ask, Build},
    take,
    toolchain::Toolchain,
};
use crate::{Args, Job, error::BenchError};

/// A bench whose first cases pass the slow place, and whose others do not.
const BENCH: &str = "cdc";
const SLOWED: &str = "cdc/transform alone";
const UNTOUCHED: &str = "cdc/serde_json: to Value";
/// Committed bound that a slow process breaks.
const RATIO: &str = "cdc: drain, events/s vs bare";

/// What a proof expects of a judgement.
enum Expect<'a> {
    Green,
    /// One failure at least has all these words.
    Red(&'a [&'a str]),
}

/// Runs the proofs of the parts; true if all hold.
pub(crate) fn run(args: &Args, options: &Options) -> Result<bool, BenchError> {
    let committed: Baseline = toml::from_str(include_str!("../../../baseline.toml"))
        .map_err(|error| BenchError::unreadable("the baseline", &error))?;
    let mut proof = Proof { args, no_build: options.no_build, committed, fine: true };
    for part in &options.only {
        match part {
            Part::Instructions | Part::Allocations => proof.micro(*part)?,
            Part::Calls => proof.calls()?,
            Part::Ratios => proof.ratios()?,
        }
    }
    println!("gate-test: {}", if proof.fine { "the gate holds" } else { "the gate does NOT hold" });
    Ok(proof.fine)
}

struct Proof<'a> {
    args: &'a Args,
    no_build: bool,
    committed: Baseline,
    fine: bool,
}

impl Proof<'_> {
    fn micro(&mut self, part: Part) -> Result<(), BenchError> {
        let look = |slow| -> Result<Found, BenchError> {
            let build = Build { benches: &[BENCH], slow };
            Ok(match part {
                Part::Instructions => {
                    let cases = micro::run(Ask::Instructions, build)?;
                    let figures = micro::figures(&cases, |case| case.instructions);
                    Found::Instructions(Toolchain::look(), figures)
                }
                _ => {
                    let cases = micro::run(Ask::Counts, build)?;
                    Found::Allocations(micro::figures(&cases, |case| case.allocations))
                }
            })
        };
        let baseline = self.baseline_of(look(None)?);
        self.expect("an ordinary build", &baseline, &look(None)?, &Expect::Green);
        let found = look(Some(part.name()))?;
        let word = if part == Part::Instructions { "instructions" } else { "allocates" };
        let what = format!("a build that wastes {}", part.name());
        self.expect(&what, &baseline, &found, &Expect::Red(&[SLOWED, word]));
        let rows = judge(&baseline, &found);
        let untouched = rows.iter().find(|row| row.case == UNTOUCHED);
        let passes = untouched.is_some_and(|row| !row.is_failed());
        self.note(passes, "what does not pass the slow place stays green");
        Ok(())
    }

    fn calls(&mut self) -> Result<(), BenchError> {
        let (daisi, slow) = self.both_builds()?;
        let look = |daisi: &Path, slow| -> Result<Found, BenchError> {
            let drain = calls::drain(calls::Traced { daisi, slow })?;
            Ok(Found::Calls([("drain".to_owned(), drain)].into()))
        };
        let baseline = self.baseline_of(look(&daisi, None)?);
        self.expect("an ordinary build", &baseline, &look(&daisi, None)?, &Expect::Green);
        let found = look(&slow, Some("calls"))?;
        let words = Expect::Red(&["drain", "system calls", "getpid"]);
        self.expect("a build with a call more an event", &baseline, &found, &words);
        Ok(())
    }

    fn ratios(&mut self) -> Result<(), BenchError> {
        let (daisi, slow) = self.both_builds()?;
        self.build(&["build", "--release", "-p", "daisi-relay"])?;
        self.build(&["build", "--release", "--manifest-path", "benches/peers/Cargo.toml"])?;
        let mut baseline = self.committed.clone();
        baseline.ratio.retain(|bound| bound.name == RATIO);
        self.note(baseline.ratio.len() == 1, "the baseline has the bound that is to be broken");
        let look = |daisi: &Path, args_extra: &[&str]| -> Result<Found, BenchError> {
            let gauged = Args {
                daisi: daisi.to_owned(),
                only: ["daisi", "daisi-relay"].map(str::to_owned).to_vec(),
                rounds: 3,
                events: 60_000,
                timed_s: 0,
                slow: args_extra.first().map(|&slow| slow.to_owned()),
                ..self.args.clone()
            };
            Ok(Found::Ratios(crate::measure(&gauged, Job::Cdc)?.ratios))
        };
        self.expect("an ordinary build", &baseline, &look(&daisi, &[])?, &Expect::Green);
        let words = Expect::Red(&[RATIO, "not >="]);
        let found = look(&slow, &["time"])?;
        self.expect("a build that wastes time", &baseline, &found, &words);
        Ok(())
    }

    /// Paths of an ordinary release build, and of a slow one beside it.
    fn both_builds(&self) -> Result<(PathBuf, PathBuf), BenchError> {
        let (daisi, slow) = (self.args.daisi.clone(), self.args.daisi.with_file_name("daisi-slow"));
        self.build(&["build", "--release", "-p", "daisi", "--features", "slow"])?;
        if !self.no_build {
            fs::copy(&daisi, &slow).map_err(BenchError::io("copy the slow build"))?;
        }
        self.build(&["build", "--release", "-p", "daisi"])?;
        Ok((daisi, slow))
    }

    fn build(&self, words: &[&str]) -> Result<(), BenchError> {
        if self.no_build { Ok(()) } else { cargo(words) }
    }

    fn baseline_of(&self, found: Found) -> Baseline {
        let mut baseline = self.committed.clone();
        baseline.instructions = Figures::new();
        baseline.allocations = Figures::new();
        baseline.allocations_max.clear();
        baseline.calls.clear();
        take(&mut baseline, found);
        baseline
    }

    fn expect(&mut self, what: &str, baseline: &Baseline, found: &Found, expect: &Expect<'_>) {
        let failures: Vec<String> = judge(baseline, found)
            .into_iter()
            .filter_map(|row| match row.verdict {
                Verdict::Failed(why) => Some(why),
                Verdict::Fine | Verdict::Shrank => None,
            })
            .collect();
        match expect {
            Expect::Green => {
                self.note(failures.is_empty(), &format!("{what} is green: {failures:?}"));
            }
            Expect::Red(words) => {
                let has_all = |why: &&String| words.iter().all(|word| why.contains(word));
                let told = failures.iter().find(has_all);
                self.note(told.is_some(), &format!("{what} is red: {failures:?}"));
            }
        }
    }

    fn note(&mut self, holds: bool, what: &str) {
        self.fine &= holds;
        println!("gate-test: {} {what}", if holds { "ok  " } else { "FAILED" });
    }
}
