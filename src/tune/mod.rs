//! `daisi tune`: sets up a host for daisi from the files of `tuning/`, and takes it back. Invariants: a dry run
//! writes nothing; nothing is changed before the journal says what was there; the first failure ends it; what
//! somebody changed after us is not put back unasked.

mod changes;
pub(crate) mod files;
mod journal;
mod place;
mod told;

use std::path::Path;

pub(crate) use self::changes::sysctl_path;
use self::changes::{Change, Changes};
use self::journal::{Entry, Journal, JournalError};
use self::place::{Kind, PlaceError};
use self::told::Verb;
use crate::cli::{Exit, Setting, TuneArgs, print};

/// Runs the command.
#[must_use]
pub fn main(args: &TuneArgs) -> Exit {
    if let Err(what) = check(args) {
        eprintln!("daisi: {what}");
        return Exit::Usage;
    }
    if !is_allowed(args, rustix::process::geteuid().is_root()) {
        eprintln!("daisi: this needs root; `daisi tune --dry-run` does not");
        return Exit::Failed;
    }
    let mut out = String::new();
    let done = if args.revert { revert(args, &mut out) } else { tune(args, &mut out) };
    let printed = print(&out);
    match done {
        Ok(exit) if printed == Exit::Ok => exit,
        Ok(_) => printed,
        Err(error) => {
            eprintln!("daisi: {error}");
            Exit::Failed
        }
    }
}

// In a folder of their own people may do as they like.
fn is_allowed(args: &TuneArgs, is_root: bool) -> bool {
    args.dry_run || is_root || args.root != Path::new("/")
}

fn check(args: &TuneArgs) -> Result<(), String> {
    if args.only.contains(&Setting::Irq) && args.irq_cpus.is_none() && !args.revert {
        return Err("--only irq needs --irq-cpus: the CPUs that no shard has".to_owned());
    }
    match &args.irq_cpus {
        Some(cpus) if !changes::are_online(&args.root, cpus) => {
            Err(format!("--irq-cpus {cpus}: this host has not all of these CPUs"))
        }
        _ => Ok(()),
    }
}

fn tune(args: &TuneArgs, out: &mut String) -> Result<Exit, JournalError> {
    let Changes { changes, notes } = changes::look(args)?;
    let (done, due): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(Change::is_done);
    let exit = if args.dry_run {
        due.iter().for_each(|change| told::change(out, Verb::Would, args, change));
        Exit::Ok
    } else {
        apply(args, &due, out)?
    };
    done.iter().for_each(|change| told::change(out, Verb::Ok, args, change));
    notes.iter().for_each(|(setting, text)| told::note(out, *setting, text));
    told::tune_sum(out, args, &due, exit);
    Ok(exit)
}

// The journal first, with everything that is about to be changed.
fn apply(args: &TuneArgs, due: &[Change], out: &mut String) -> Result<Exit, JournalError> {
    if due.is_empty() {
        return Ok(Exit::Ok);
    }
    let mut journal = Journal::hold(&args.root)?;
    for change in due {
        journal.note(entry_of(args, change));
    }
    journal.save()?;
    for (number, change) in due.iter().enumerate() {
        match make(args, change, &mut journal) {
            Ok(()) => told::change(out, Verb::Did, args, change),
            Err(JournalError::Place(error)) if is_kept(change, &error) => {
                journal.forget(|entry| entry.path == change.path);
                told::change(out, Verb::Kept, args, change);
            }
            Err(error) => {
                // What was not begun is not ours to put back; the one that failed may be half done.
                let not_begun =
                    |entry: &Entry| due[number + 1..].iter().any(|later| later.path == entry.path);
                journal.forget(not_begun);
                journal.save()?;
                told::failure(out, &error.to_string(), due.len() - number - 1);
                return Ok(Exit::Failed);
            }
        }
    }
    journal.close()?;
    Ok(Exit::Ok)
}

fn entry_of(args: &TuneArgs, change: &Change) -> Entry {
    Entry {
        setting: change.setting,
        path: change.path.clone(),
        kind: change.kind,
        before: change.before.clone(),
        mode: place::mode(&args.root.join(&change.path)),
        after: change.after.clone(),
    }
}

fn make(args: &TuneArgs, change: &Change, journal: &mut Journal) -> Result<(), JournalError> {
    let path = args.root.join(&change.path);
    if change.kind == Kind::File {
        journal.make_folder_of(&change.path)?;
    }
    Ok(place::write(&path, change.kind, &change.after, place::mode(&path))?)
}

// Some interrupts belong to a CPU, and the kernel says so only when one tries.
fn is_kept(change: &Change, error: &PlaceError) -> bool {
    change.setting == Setting::Irq && error.is_refusal()
}

// The last change is the first to be put back.
fn revert(args: &TuneArgs, out: &mut String) -> Result<Exit, JournalError> {
    if Journal::read(&args.root)?.entries().is_empty() {
        told::nothing_to_revert(out, args);
        return Ok(Exit::Ok);
    }
    let mut journal = Journal::hold(&args.root)?;
    let wanted = |entry: &&Entry| changes::is_wanted(entry.setting, args);
    let entries: Vec<Entry> = journal.entries().iter().rev().filter(wanted).cloned().collect();
    let mut exit = Exit::Ok;
    for entry in &entries {
        match put_back(args, entry) {
            Ok(verb) => {
                told::entry(out, &verb, args, entry);
                if matches!(verb, Verb::Foreign(_)) {
                    exit = Exit::Failed;
                } else {
                    journal.forget(|have| have.path == entry.path);
                }
            }
            Err(error) => {
                journal.save()?;
                told::revert_failure(out, &error.to_string());
                return Ok(Exit::Failed);
            }
        }
    }
    told::revert_sum(out, args, journal.entries().len(), exit);
    journal.close()?;
    Ok(exit)
}

fn put_back(args: &TuneArgs, entry: &Entry) -> Result<Verb, PlaceError> {
    let path = args.root.join(&entry.path);
    let now = place::read(&path, entry.kind)?;
    let is = |text: Option<&str>| match (now.as_deref(), text) {
        (Some(now), Some(text)) if entry.kind == Kind::Value => place::same(now, text),
        (now, text) => now == text,
    };
    if is(entry.before.as_deref()) {
        return Ok(Verb::Ok);
    }
    // A value that is gone, with its device or its CPU, has nobody to be put back for.
    if entry.kind == Kind::Value && now.is_none() {
        return Ok(Verb::Gone);
    }
    if !is(Some(&entry.after)) && !args.force {
        return Ok(Verb::Foreign(now));
    }
    match &entry.before {
        Some(before) => place::write(&path, entry.kind, before, entry.mode)?,
        None => place::remove(&path)?,
    }
    Ok(Verb::Did)
}

#[cfg(test)]
mod tests;
