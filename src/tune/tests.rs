//! What becomes of a tree: a folder with the files of a host. Invariant: no test names a root but its own folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Parser as _;
use tempfile::TempDir;

use super::journal::PLACE;
use super::*;
use crate::cli::{Cli, Command};

/// Values of a host that wants everything.
const VALUES: [(&str, &str); 11] = [
    ("proc/sys/kernel/io_uring_disabled", "2"),
    ("proc/sys/kernel/numa_balancing", "1"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/sys/vm/compaction_proactiveness", "20"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "schedutil"),
    ("sys/devices/system/cpu/online", "0-1"),
    ("proc/irq/24/smp_affinity_list", "0-1"),
    ("proc/irq/9/smp_affinity_list", "1"),
];
const LIMITS: &str = "etc/security/limits.d/90-daisi.conf";

fn host() -> TempDir {
    let host = tempfile::tempdir().unwrap();
    for (path, value) in VALUES {
        put(host.path(), path, &format!("{value}\n"));
    }
    // One folder of /etc is there, one file is an older one of ours, and the others are not there.
    put(host.path(), "etc/sysctl.d/10-other.conf", "vm.swappiness = 10\n");
    put(host.path(), LIMITS, "daisi - nofile 1024\n");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(host.path().join(LIMITS), mode).unwrap();
    host
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn value(host: &TempDir, path: &str) -> String {
    fs::read_to_string(host.path().join(path)).unwrap().trim().to_owned()
}

/// Every folder, every file with its permissions and content.
fn tree(host: &TempDir) -> BTreeMap<String, (u32, String)> {
    fn walk(root: &Path, folder: &Path, tree: &mut BTreeMap<String, (u32, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mode = path.metadata().unwrap().permissions().mode();
            let text =
                if path.is_dir() { String::new() } else { fs::read_to_string(&path).unwrap() };
            tree.insert(name, (mode, text));
            if path.is_dir() {
                walk(root, &path, tree);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(host.path(), host.path(), &mut found);
    found
}

fn parsed(words: &[&str]) -> TuneArgs {
    let line = ["daisi", "tune"].into_iter().chain(words.iter().copied());
    let Command::Tune(args) = Cli::try_parse_from(line).unwrap().command else { panic!("tune") };
    args
}

/// Exit and what was said; an error counts as said, as it does on a terminal.
fn run(host: &TempDir, words: &[&str]) -> (Exit, String) {
    let args = parsed(&[&["--root", host.path().to_str().unwrap()], words].concat());
    check(&args).unwrap();
    let mut out = String::new();
    let done = if args.revert { revert(&args, &mut out) } else { tune(&args, &mut out) };
    match done {
        Ok(exit) => (exit, out),
        Err(error) => (Exit::Failed, format!("{out}{error}")),
    }
}

#[track_caller]
fn good(host: &TempDir, words: &[&str]) -> String {
    let (exit, out) = run(host, words);
    assert_eq!(exit, Exit::Ok, "{out}");
    out
}

#[test]
fn a_dry_run_tells_everything_and_writes_nothing() {
    let host = host();
    let before = tree(&host);
    let out = good(&host, &["--dry-run", "--irq-cpus", "0"]);
    assert_eq!(tree(&host), before);
    for part in [
        "vm/swappiness  60 -> 1\n",
        "cpu1/cpufreq/scaling_governor  schedutil -> performance\n",
        "transparent_hugepage/enabled  always -> madvise\n",
        "irq/24/smp_affinity_list  0-1 -> 0\n",
        "90-daisi.conf  new file\n",
        "+ vm.swappiness = 1\n",
        "- daisi - nofile 1024\n",
        "14 to change; nothing was written.",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
}

#[test]
fn what_was_applied_is_taken_back_whole() {
    let host = host();
    let before = tree(&host);
    good(&host, &["--apply", "--irq-cpus", "0"]);
    assert_eq!(value(&host, "proc/sys/vm/swappiness"), "1");
    assert_eq!(value(&host, "proc/irq/9/smp_affinity_list"), "0");
    assert_eq!(value(&host, LIMITS), files::LIMITS.text.trim());
    assert!(host.path().join("etc/tmpfiles.d/daisi-governor.conf").exists());
    assert!(host.path().join(PLACE).exists());
    good(&host, &["--revert"]);
    assert_eq!(tree(&host), before);
    assert!(good(&host, &["--revert"]).contains("Nothing to put back"));
}

#[test]
fn a_second_apply_changes_nothing_and_forgets_nothing() {
    let host = host();
    let before = tree(&host);
    good(&host, &["--apply"]);
    let applied = tree(&host);
    assert!(good(&host, &["--apply"]).contains("Nothing to do."));
    assert_eq!(tree(&host), applied);
    // Another choice adds to the journal.
    good(&host, &["--apply", "--only", "irq", "--irq-cpus", "1"]);
    good(&host, &["--apply", "--only", "irq", "--irq-cpus", "0"]);
    good(&host, &["--revert"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn a_failure_in_the_middle_stops_there_and_can_be_taken_back() {
    let host = host();
    // The draft of that file cannot be written.
    let draft = host.path().join("etc/security/limits.d/.90-daisi.conf.daisi-draft");
    fs::create_dir(&draft).unwrap();
    let before = tree(&host);
    let (exit, out) = run(&host, &["--apply", "--irq-cpus", "0"]);
    assert_eq!(exit, Exit::Failed);
    assert!(out.contains("FAILED") && out.contains("2 more not begun"), "{out}");
    assert!(out.contains("set        sysctl") && !out.contains("set        irq"), "{out}");
    assert_eq!(value(&host, "proc/sys/vm/swappiness"), "1", "what came before is done");
    assert_eq!(value(&host, "proc/irq/24/smp_affinity_list"), "0-1", "what comes behind is not");
    good(&host, &["--revert"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn a_journal_that_cannot_be_written_lets_nothing_be_changed() {
    let host = host();
    fs::create_dir_all(host.path().join("var/lib/daisi/.tune.json.daisi-draft")).unwrap();
    let before = tree(&host);
    let (exit, out) = run(&host, &["--apply"]);
    assert_eq!(exit, Exit::Failed, "{out}");
    assert_eq!(tree(&host), before);
}

#[test]
fn what_somebody_else_changed_is_told_and_left_alone() {
    let host = host();
    let before = tree(&host);
    good(&host, &["--apply"]);
    put(host.path(), "proc/sys/vm/swappiness", "30\n");
    put(host.path(), LIMITS, "mine\n");
    let (exit, out) = run(&host, &["--revert"]);
    assert_eq!(exit, Exit::Failed);
    assert!(out.contains("swappiness  30 now, 1 by us, 60 before: left alone"), "{out}");
    assert!(out.contains("2 left in"), "{out}");
    assert_eq!(value(&host, "proc/sys/vm/swappiness"), "30");
    assert_eq!(value(&host, LIMITS), "mine");
    assert_eq!(value(&host, "proc/sys/kernel/numa_balancing"), "1", "the others are put back");
    let (exit, again) = run(&host, &["--revert"]);
    assert_eq!((exit, again.matches("CHANGED").count()), (Exit::Failed, 2));
    good(&host, &["--revert", "--force"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn an_apply_over_a_change_of_somebody_else_takes_back_to_that_change() {
    let host = host();
    good(&host, &["--apply"]);
    put(host.path(), "proc/sys/vm/swappiness", "30\n");
    good(&host, &["--apply"]);
    assert_eq!(value(&host, "proc/sys/vm/swappiness"), "1");
    good(&host, &["--revert"]);
    assert_eq!(value(&host, "proc/sys/vm/swappiness"), "30");
}

#[test]
fn settings_are_chosen_by_name() {
    let host = host();
    let before = tree(&host);
    let out = good(&host, &["--apply", "--only", "sysctl,huge-pages", "--skip", "sysctl"]);
    assert!(out.contains("Done.") && !out.contains("login"), "{out}");
    assert_eq!(value(&host, "sys/kernel/mm/transparent_hugepage/enabled"), "madvise");
    assert_eq!(value(&host, "proc/sys/vm/swappiness"), "60");
    assert!(good(&host, &["--apply", "--only", "limits"]).contains("next login"));
    let out = good(&host, &["--revert", "--only", "huge-pages"]);
    assert!(out.contains("1 more in"), "{out}");
    assert_eq!(value(&host, "sys/kernel/mm/transparent_hugepage/enabled"), "always");
    good(&host, &["--revert"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn a_host_that_lacks_things_is_told_so() {
    let host = tempfile::tempdir().unwrap();
    put(host.path(), "proc/sys/vm/swappiness", "60\n");
    put(host.path(), "etc/sysctl.d/99-mine.conf", "vm.swappiness=60\n");
    put(host.path(), "etc/sysctl.d/10-early.conf", "vm.swappiness=60\n");
    let before = tree(&host);
    let out = good(&host, &["--apply"]);
    for part in [
        "this kernel has no kernel.io_uring_disabled",
        "no CPU has a governor here",
        "this kernel has no /sys/kernel/mm",
        "left alone without --irq-cpus",
        "99-mine.conf sets vm.swappiness otherwise at boot",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    assert!(!out.contains("10-early"), "{out}");
    assert!(!host.path().join("etc/tmpfiles.d").exists(), "nothing for what is not there");
    good(&host, &["--revert"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn a_journal_of_somebody_else_is_not_touched() {
    let host = host();
    put(host.path(), PLACE, "{\"version\": 2, \"entries\": [], \"folders\": []}");
    let before = tree(&host);
    for mode in ["--apply", "--revert"] {
        let (exit, out) = run(&host, &[mode]);
        assert_eq!(exit, Exit::Failed);
        assert!(out.contains("version 2"), "{out}");
    }
    assert_eq!(tree(&host), before);
}

#[test]
fn an_apply_that_was_killed_can_be_taken_back() {
    let host = host();
    let before = tree(&host);
    let args = parsed(&["--apply", "--root", host.path().to_str().unwrap()]);
    let due = changes::look(&args).unwrap().changes;
    let mut journal = Journal::hold(host.path()).unwrap();
    due.iter().for_each(|change| journal.note(entry_of(&args, change)));
    journal.save().unwrap();
    // As far as it came: one file in a new folder, one value.
    for change in
        [&due[0], &due[1], due.iter().find(|c| c.path.starts_with("etc/tmpfiles.d")).unwrap()]
    {
        make(&args, change, &mut journal).unwrap();
    }
    drop(journal);
    assert_ne!(tree(&host), before);
    good(&host, &["--revert"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn only_root_changes_the_host() {
    let allowed = |words: &[&str], is_root| is_allowed(&parsed(words), is_root);
    assert!(allowed(&["--dry-run"], false) && allowed(&["--apply"], true));
    assert!(!allowed(&["--apply"], false) && !allowed(&["--revert"], false));
    assert!(allowed(&["--apply", "--root", "copy"], false));
}

#[test]
fn one_process_at_a_time_holds_the_journal() {
    let host = host();
    let held = Journal::hold(host.path()).unwrap();
    let (exit, out) = run(&host, &["--apply"]);
    assert_eq!(exit, Exit::Failed);
    assert!(out.contains("another `daisi tune`"), "{out}");
    drop(held);
    good(&host, &["--apply"]);
}

#[test]
fn a_line_that_makes_no_sense_is_refused() {
    for words in [
        &[][..],
        &["--apply", "--dry-run"],
        &["--apply", "--force"],
        &["--apply", "--irq-cpus", "x"],
        &["--revert", "--irq-cpus", "0"],
        &["--apply", "--only", "everything"],
    ] {
        let line = ["daisi", "tune"].into_iter().chain(words.iter().copied());
        assert!(Cli::try_parse_from(line).is_err(), "{words:?}");
    }
    let host = host();
    let root = host.path().to_str().unwrap();
    let checked = |words: &[&str]| check(&parsed(&[&["--root", root], words].concat()));
    assert!(checked(&["--apply", "--only", "irq"]).is_err());
    assert!(checked(&["--apply", "--irq-cpus", "0-7"]).is_err(), "CPUs this host has not");
    assert!(checked(&["--apply", "--irq-cpus", "1"]).is_ok());
}
