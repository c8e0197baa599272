//! Claims about the judge: each kind of growth fails with words that name it, and nothing passes unseen.

use super::super::baseline::{AllocationsMax, InstructionsLoose, Tolerance};
use super::*;

fn figures(pairs: &[(&str, f64)]) -> Figures {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn toolchain(rustc: &str) -> Toolchain {
    let [target_cpu, valgrind, libc] = ["c", "v", "l"].map(str::to_owned);
    Toolchain { rustc: rustc.to_owned(), target_cpu, valgrind, libc }
}

fn baseline() -> Baseline {
    let bound = |name: &str, at_least, at_most| RatioBound {
        name: name.to_owned(),
        at_least,
        at_most,
        why: "a test".to_owned(),
    };
    let max = |case: &str, max| AllocationsMax {
        max,
        why: "two per receive".to_owned(),
        cases: vec![case.to_owned()],
    };
    Baseline {
        tolerance: Tolerance {
            instructions_percent: 2.0,
            allocations: 0.001,
            calls_percent: figures(&[("drain", 10.0)]),
            calls_new: 0.05,
        },
        instructions_loose: vec![InstructionsLoose {
            percent: 5.0,
            why: "hashes by random keys".to_owned(),
            cases: vec!["b".to_owned()],
        }],
        allocations_max: vec![max("hot", 0.0), max("read", 0.02)],
        ratio: vec![bound("drain vs bare", Some(0.4), None), bound("cpu vs peer", None, Some(0.5))],
        toolchain: toolchain("1"),
        instructions: figures(&[("a", 1000.0), ("b", 50.0)]),
        allocations: figures(&[("hot", 0.0), ("read", 0.009), ("cold", 3.0)]),
        calls: [("drain".to_owned(), figures(&[("io_uring_enter", 0.08), ("futex", 0.02)]))].into(),
        history: Vec::new(),
    }
}

/// The words of what failed.
fn failures(found: &Found) -> Vec<String> {
    let words = judge(&baseline(), found).into_iter().filter_map(|row| match row.verdict {
        Verdict::Failed(why) => Some(why),
        Verdict::Fine | Verdict::Shrank => None,
    });
    words.collect()
}

fn counted(pairs: &[(&str, f64)]) -> Found {
    Found::Instructions(toolchain("1"), figures(pairs))
}

#[test]
fn instructions_may_grow_by_two_percent_and_no_more() {
    assert!(failures(&counted(&[("a", 1019.0), ("b", 50.0)])).is_empty());
    let why = failures(&counted(&[("a", 1021.0), ("b", 50.0)]));
    assert_eq!(why, ["a takes +2.1 % instructions"]);
    assert!(failures(&counted(&[("a", 1000.0), ("b", 52.0)])).is_empty());
    let why = failures(&counted(&[("a", 1000.0), ("b", 53.0)]));
    assert_eq!(why, ["b takes +6.0 % instructions"]);
}

#[test]
fn what_shrank_is_told_and_passes() {
    let rows = judge(&baseline(), &counted(&[("a", 900.0), ("b", 50.0)]));
    assert_eq!(rows[0].verdict, Verdict::Shrank);
    assert!(!rows[0].is_failed());
}

#[test]
fn a_case_that_only_one_side_has_fails() {
    let why = failures(&counted(&[("a", 1000.0), ("c", 1.0)]));
    assert_eq!(
        why,
        ["b is in the baseline and was not measured", "c is not in the baseline: accept it"]
    );
    assert_eq!(failures(&counted(&[])).len(), 2);
}

#[test]
fn another_toolchain_fails_whatever_the_counts() {
    let found = Found::Instructions(toolchain("2"), figures(&[("a", 1000.0), ("b", 50.0)]));
    let why = failures(&found);
    assert_eq!(why.len(), 1);
    assert!(why[0].starts_with("accept a new baseline on this toolchain"), "{why:?}");
    assert!(why[0].contains("rustc: 1, now 2"), "{why:?}");
}

#[test]
fn allocations_keep_to_their_own_bound_or_to_the_baseline() {
    let of = |hot, read, cold| {
        failures(&Found::Allocations(figures(&[("hot", hot), ("read", read), ("cold", cold)])))
    };
    assert!(of(0.0, 0.015, 3.0005).is_empty());
    assert_eq!(of(1.0, 0.009, 3.0).len(), 1);
    assert!(of(1.0, 0.009, 3.0)[0].starts_with("hot allocates 1.0000 an event, 0.0000 before"));
    assert!(of(0.0, 0.03, 3.0)[0].contains("two per receive"));
    assert!(of(0.0, 0.009, 3.1)[0].starts_with("cold allocates"));
}

#[test]
fn more_system_calls_are_named() {
    let of = |calls: &[(&str, f64)]| {
        failures(&Found::Calls([("drain".to_owned(), figures(calls))].into()))
    };
    assert!(of(&[("io_uring_enter", 0.085), ("futex", 0.02)]).is_empty());
    let why = of(&[("io_uring_enter", 0.08), ("futex", 0.02), ("getpid", 1.0)]);
    assert_eq!(why, ["drain: +1000.0 % system calls: getpid 0.000 -> 1.000"]);
    let why = of(&[("io_uring_enter", 0.01), ("futex", 0.02), ("getpid", 0.06)]);
    assert_eq!(why, ["drain: new system calls: getpid 0.000 -> 0.060"]);
    assert_eq!(failures(&Found::Calls(BTreeMap::new())).len(), 1);
}

#[test]
fn ratios_keep_to_their_bounds_and_must_be_measured() {
    let of = |pairs: &[(&str, f64)]| failures(&Found::Ratios(figures(pairs)));
    assert!(of(&[("drain vs bare", 0.5), ("cpu vs peer", 0.4)]).is_empty());
    let why = of(&[("drain vs bare", 0.3), ("cpu vs peer", 0.6)]);
    assert_eq!(why, ["drain vs bare is 0.30, not >= 0.4", "cpu vs peer is 0.60, not <= 0.5"]);
    assert_eq!(of(&[("drain vs bare", 0.5)]), ["cpu vs peer was not measured"]);
}
