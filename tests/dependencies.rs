//! Every direct dependency is used by its package and has its line in `DEPENDENCIES.md`, no line speaks of one
//! that is gone, and the workspace declares none that nobody takes. Read from the manifests themselves, peers and fuzzers included.
#![allow(clippy::expect_used, reason = "a test")]

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

const MANIFESTS: [&str; 6] = [
    "Cargo.toml",
    "shards/Cargo.toml",
    "loadtest/Cargo.toml",
    "benches/harness/Cargo.toml",
    "benches/peers/Cargo.toml",
    "shards/fuzz/Cargo.toml",
];
const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn every_dependency_says_why_it_is_there() {
    let used: BTreeSet<String> =
        MANIFESTS.iter().flat_map(|path| used_by(&manifest(path))).collect();
    let explained = explained();
    let missing: Vec<_> = used.difference(&explained).collect();
    let stale: Vec<_> = explained.difference(&used).collect();
    assert!(missing.is_empty(), "no line in DEPENDENCIES.md for {missing:?}");
    assert!(stale.is_empty(), "DEPENDENCIES.md explains what is not used: {stale:?}");
}

#[test]
fn every_package_uses_what_it_depends_on() {
    let sources = source::all();
    let mut faults = Vec::new();
    for path in MANIFESTS {
        let folder = path.strip_suffix("Cargo.toml").expect("a manifest");
        // A package's files are those that no deeper manifest claims.
        let is_nested = |file: &str| {
            let deeper = MANIFESTS.iter().filter_map(|other| other.strip_suffix("Cargo.toml"));
            deeper.filter(|other| other.len() > folder.len()).any(|other| file.starts_with(other))
        };
        let own = sources.iter().filter(|s| s.path.starts_with(folder) && !is_nested(&s.path));
        let code: Vec<&str> = own.map(|source| source.code.as_str()).collect();
        for name in used_by(&manifest(path)) {
            let word = name.replace('-', "_");
            if !code.iter().any(|code| source::occurrences(code, &word).next().is_some()) {
                faults.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(faults.is_empty(), "depended on and never named in the code: {faults:?}");
}

#[test]
fn the_workspace_declares_nothing_that_nobody_uses() {
    let used: BTreeSet<String> =
        MANIFESTS.iter().flat_map(|path| used_by(&manifest(path))).collect();
    let root = manifest("Cargo.toml");
    let declared = root["workspace"]["dependencies"].as_table().expect("a table");
    let unused: Vec<_> =
        declared.keys().filter(|name| !is_ours(name) && !used.contains(*name)).collect();
    assert!(unused.is_empty(), "declared in Cargo.toml and used nowhere: {unused:?}");
}

#[test]
fn every_manifest_is_looked_at() {
    let root = manifest("Cargo.toml");
    let list = |key: &str| root["workspace"][key].as_array().expect("a list").clone();
    for folder in list("members").iter().chain(&list("exclude")) {
        let path = format!("{}/Cargo.toml", folder.as_str().expect("a path"));
        assert!(MANIFESTS.contains(&path.as_str()), "{path} is not in the list above");
    }
}

fn manifest(path: &str) -> Table {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    text.expect("the manifest is there").parse().expect("the manifest is TOML")
}

fn used_by(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let places = std::iter::once(manifest).chain(targets.filter_map(|(_, value)| value.as_table()));
    let tables =
        places.flat_map(|place| KINDS.iter().filter_map(|kind| place.get(*kind)?.as_table()));
    tables.flat_map(Table::keys).filter(|name| !is_ours(name)).cloned().collect()
}

fn is_ours(name: &str) -> bool {
    name.starts_with("daisi-")
}

/// Names in the first column of the tables, in backquotes.
fn explained() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("DEPENDENCIES.md");
    let text = fs::read_to_string(page).expect("DEPENDENCIES.md is there");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let mut names = BTreeSet::new();
    for (name, rest) in rows {
        let reason = rest.trim().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        assert!(reason.trim().len() >= 10, "`{name}` has no reason");
        assert!(names.insert(name.to_owned()), "`{name}` has two lines");
    }
    names
}
