//! What every file of the repository keeps to, whoever writes it: a heading, a size, no leftovers, nothing of
//! the machine it was written on. `clippy` holds the rest.
#![allow(clippy::expect_used, reason = "a test")]

mod source;

use std::fs;
use std::path::Path;

/// Longest file, lines. A talk about splitting begins at 600.
const LINES_MAX: usize = 900;
/// Files that may be longer, to how many lines, and why. One that shrinks loses its line here.
const LONGER: &[(&str, usize, &str)] = &[(
    "shards/src/pipeline/cdc.rs",
    1000,
    "one state machine: claim, publish, fence, done mark and outcome change together",
)];
/// Longest line in `shards/src` without the literals in it, columns. rustfmt breaks code at 100; comments and
/// what stands in macros it leaves alone, and they get a word more.
const COLUMNS_MAX: usize = 110;

#[test]
fn every_file_opens_with_what_it_is() {
    let bare: Vec<String> = source::all()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert!(bare.is_empty(), "first line must begin with `//! `: {bare:#?}");
}

#[test]
fn files_are_short_and_the_exceptions_are_needed() {
    let mut faults = Vec::new();
    for source in source::all() {
        let lines = source.text.lines().count();
        let exception = LONGER.iter().find(|(path, ..)| *path == source.path);
        let lines_max = exception.map_or(LINES_MAX, |(_, lines_max, _)| *lines_max);
        if lines > lines_max {
            faults.push(format!("{}: {lines} lines, at most {lines_max}", source.path));
        }
    }
    for (path, ..) in LONGER {
        let text = fs::read_to_string(source::root().join(path)).unwrap_or_default();
        // A tenth of slack, so that an exception does not come and go with every commit.
        if text.lines().count() < LINES_MAX - LINES_MAX / 10 {
            faults.push(format!("{path} needs no exception any more"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn nothing_unfinished_is_left() {
    let mut faults = Vec::new();
    for source in source::all() {
        for word in ["todo!", "dbg!", "unimplemented!"] {
            for at in source::occurrences(&source.code, word) {
                faults.push(format!(
                    "{}:{}: {word}",
                    source.path,
                    source::line_of(&source.code, at)
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_unsafe_has_its_proof_in_the_architecture() {
    let page = fs::read_to_string(source::root().join("ARCHITECTURE.md")).expect("it is there");
    let proven = |path: &str| page.lines().any(|line| line.starts_with(&format!("| `{path}` |")));
    let mut faults = Vec::new();
    for source in source::all() {
        let uses_it = source::occurrences(&source.code, "unsafe").next().is_some();
        if uses_it != proven(&source.path) {
            faults.push(format!(
                "{}: unsafe {uses_it}, a line in ARCHITECTURE.md {}",
                source.path, !uses_it
            ));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn lines_of_shards_fit_a_screen() {
    let mut faults = Vec::new();
    for source in source::all().iter().filter(|source| source.path.starts_with("shards/src/")) {
        for (number, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
            // A literal cannot be broken; what stands around it can.
            let is_comment = line.trim_start().starts_with("//");
            let text = if is_comment { line } else { code.trim_end() };
            let columns = text.chars().count();
            if columns > COLUMNS_MAX {
                faults.push(format!("{}:{}: {columns} columns", source.path, number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_file_names_a_place_of_the_machine_it_was_written_on() {
    // In pieces, so that this file does not accuse itself.
    let places = [["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"], ["/wo", "rk/"], ["/tmp", "/wt"]];
    let mut faults = Vec::new();
    for_each_text(source::root(), &mut |path, text| {
        for place in places.map(|halves| halves.concat()) {
            let hits = text.lines().enumerate().filter(|(_, line)| line.contains(&place));
            faults.extend(hits.map(|(number, _)| format!("{path}:{}: {place}", number + 1)));
        }
    });
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for_each_text(source::root(), &mut |path, text| {
        if !path.ends_with(".md") {
            return;
        }
        let folder = source::root().join(path).parent().expect("a file has a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let place = link.split('#').next().unwrap_or_default();
            if !place.is_empty() && !place.contains("://") {
                links += 1;
                assert!(folder.join(place).exists(), "{path}: {place} does not exist");
            }
        }
    });
    assert!(links > 10, "only {links} links found");
}

/// Calls `look` with each text file that is ours; hidden folders count only where CI's entry stands.
fn for_each_text(folder: &Path, look: &mut impl FnMut(&str, &str)) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = !name.starts_with('.') || name == ".ci" || name == ".cargo";
        let is_built = ["target", "corpus", "artifacts", "bench-results"].contains(&name);
        if !is_ours || is_built {
            continue;
        }
        if path.is_dir() {
            for_each_text(&path, look);
        } else if path.is_file()
            && let Ok(text) = fs::read_to_string(&path)
        {
            let short = path.strip_prefix(source::root()).unwrap_or(&path);
            look(&short.to_string_lossy(), &text);
        }
    }
}
