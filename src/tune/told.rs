//! What `daisi tune` says: a line a place, with what stood there before and after, and a sum at the end. Pure.

use std::fmt::Write;
use std::path::Path;

use super::changes::Change;
use super::journal::{Entry, PLACE};
use super::place::Kind;
use crate::cli::{Exit, Setting, TuneArgs};

/// What became of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// A dry run: it would be changed.
    Would,
    /// It was changed.
    Did,
    /// It is as it should be.
    Ok,
    /// The kernel does not let it be changed.
    Kept,
    /// What was to be put back is no more.
    Gone,
    /// Somebody else changed it; what is there now.
    Foreign(Option<String>),
}

impl Verb {
    fn word(&self) -> &'static str {
        match self {
            Self::Would => "would set",
            Self::Did => "set",
            Self::Ok => "ok",
            Self::Kept => "kept",
            Self::Gone => "gone",
            Self::Foreign(_) => "CHANGED",
        }
    }
}

/// A line for a change; of a file also the lines that go and come.
pub(super) fn change(out: &mut String, verb: Verb, args: &TuneArgs, change: &Change) {
    head(out, &verb, change.setting, &args.root.join(&change.path));
    let before = change.before.as_deref();
    let _ = match (&verb, change.kind) {
        (Verb::Ok, Kind::Value) => writeln!(out, "  {}", change.after),
        (Verb::Ok, Kind::File) => writeln!(out),
        (Verb::Kept, _) => {
            writeln!(out, "  {}: the kernel does not move it", before.unwrap_or_default())
        }
        (_, Kind::Value) => {
            writeln!(out, "  {} -> {}", before.unwrap_or_default(), change.after)
        }
        (_, Kind::File) => {
            writeln!(out, "  {}", if before.is_some() { "changed" } else { "new file" })
        }
    };
    if change.kind == Kind::File && matches!(verb, Verb::Would | Verb::Did) {
        difference(out, before.unwrap_or_default(), &change.after);
    }
}

fn head(out: &mut String, verb: &Verb, setting: Setting, path: &Path) {
    let _ = write!(out, "{:<9}  {:<10}  {}", verb.word(), setting.name(), path.display());
}

// Comments tell people who open the file; what it sets tells those who look at a difference.
fn difference(out: &mut String, before: &str, after: &str) {
    let sets = |line: &&str| !line.starts_with('#') && !line.trim().is_empty();
    for line in before.lines().filter(sets).filter(|line| !after.lines().any(|a| a == *line)) {
        let _ = writeln!(out, "{:23}- {line}", "");
    }
    for line in after.lines().filter(sets).filter(|line| !before.lines().any(|b| b == *line)) {
        let _ = writeln!(out, "{:23}+ {line}", "");
    }
}

/// What a setting does not do here, and why.
pub(super) fn note(out: &mut String, setting: Setting, text: &str) {
    let _ = writeln!(out, "{:<9}  {:<10}  {text}", "note", setting.name());
}

/// The first failure, and what was not begun because of it.
pub(super) fn failure(out: &mut String, error: &str, left: usize) {
    let _ = writeln!(out, "FAILED     {error}");
    let _ = writeln!(out, "           stopped here; {left} more not begun");
}

/// A failure while putting back.
pub(super) fn revert_failure(out: &mut String, error: &str) {
    let _ = writeln!(out, "FAILED     {error}");
    let _ = writeln!(out, "           stopped here; what is left stands in the journal");
}

/// What was done, or would be.
pub(super) fn tune_sum(out: &mut String, args: &TuneArgs, due: &[Change], exit: Exit) {
    out.push('\n');
    let login = due.iter().any(|change| change.setting == Setting::Limits);
    let journal = args.root.join(PLACE);
    let journal = journal.display();
    let _ = match (due.len(), args.dry_run, exit) {
        (0, ..) => writeln!(out, "Nothing to do."),
        (due, true, _) => writeln!(out, "{due} to change; nothing was written."),
        (_, _, Exit::Ok) => writeln!(
            out,
            "Done. What was there before stands in {journal}; `daisi tune --revert` puts it back.{}",
            if login { "\nLimits count from the next login." } else { "" }
        ),
        _ => writeln!(
            out,
            "Not done. What was changed above stands in {journal}; `daisi tune --revert` puts it back."
        ),
    };
}

/// A line for a place that was to be put back.
pub(super) fn entry(out: &mut String, verb: &Verb, args: &TuneArgs, entry: &Entry) {
    head(out, verb, entry.setting, &args.root.join(&entry.path));
    let shown = |text: Option<&str>| match (text, entry.kind) {
        (None, _) => "no file".to_owned(),
        (Some(text), Kind::Value) => text.to_owned(),
        (Some(_), Kind::File) => "another content".to_owned(),
    };
    let before = shown(entry.before.as_deref());
    let _ = match verb {
        Verb::Foreign(now) => writeln!(
            out,
            "  {} now, {} by us, {before} before: left alone, --force puts it back",
            shown(now.as_deref()),
            if entry.kind == Kind::Value { entry.after.as_str() } else { "a file" },
        ),
        Verb::Ok => writeln!(out, "  is as it was before"),
        Verb::Gone => writeln!(out, "  is there no more"),
        _ if entry.before.is_none() => writeln!(out, "  removed"),
        _ if entry.kind == Kind::File => writeln!(out, "  as it was before"),
        _ => writeln!(out, "  {} -> {before}", entry.after),
    };
}

/// What is left after putting back.
pub(super) fn revert_sum(out: &mut String, args: &TuneArgs, left: usize, exit: Exit) {
    out.push('\n');
    let _ = match (left, exit) {
        (0, _) => writeln!(out, "Done; the journal is closed."),
        (_, Exit::Ok) => writeln!(out, "Done; {left} more in {}.", args.root.join(PLACE).display()),
        _ => writeln!(
            out,
            "Not all was put back; {left} left in {}.",
            args.root.join(PLACE).display()
        ),
    };
}

/// There is no journal.
pub(super) fn nothing_to_revert(out: &mut String, args: &TuneArgs) {
    let _ = writeln!(out, "Nothing to put back: no {}.", args.root.join(PLACE).display());
}
