//! What each setting would write where on this host, and what stands there now. Read only. Invariant: a place
//! that the host lacks is told, never made: only files under /etc are.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, File};
use super::place::{self, Kind, PlaceError};
use crate::cli::{Setting, TuneArgs};
use crate::host;

/// One place and what is to stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Setting it belongs to.
    pub(super) setting: Setting,
    /// Where, below the root.
    pub(super) path: PathBuf,
    /// Value or file.
    pub(super) kind: Kind,
    /// What stands there; `None` for nothing.
    pub(super) before: Option<String>,
    /// What is to stand there.
    pub(super) after: String,
}

impl Change {
    /// Nothing to do.
    pub(super) fn is_done(&self) -> bool {
        match self.kind {
            Kind::Value => self.before.as_deref().is_some_and(|now| place::same(now, &self.after)),
            Kind::File => self.before.as_deref() == Some(self.after.as_str()),
        }
    }
}

/// All that the arguments ask for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order in which they are made.
    pub(super) changes: Vec<Change>,
    /// What this host lacks, and what else is to be known, in words.
    pub(super) notes: Vec<(Setting, String)>,
}

/// In the order in which they are made.
const ORDER: [Setting; 5] =
    [Setting::Sysctl, Setting::HugePages, Setting::Governor, Setting::Limits, Setting::Irq];

/// Is that setting asked for?
pub(super) fn is_wanted(setting: Setting, args: &TuneArgs) -> bool {
    (args.only.is_empty() || args.only.contains(&setting)) && !args.skip.contains(&setting)
}

/// Looks at the host below the root of `args`.
///
/// # Errors
/// A place that is there and cannot be read.
pub(super) fn look(args: &TuneArgs) -> Result<Changes, PlaceError> {
    let mut look = Look { root: &args.root, found: Changes::default() };
    for setting in ORDER.into_iter().filter(|setting| is_wanted(*setting, args)) {
        match setting {
            Setting::Sysctl => look.sysctl()?,
            Setting::HugePages => look.boot_file(setting, &files::HUGE_PAGES)?,
            Setting::Governor => look.governor()?,
            Setting::Limits => look.file(setting, &files::LIMITS)?,
            Setting::Irq => look.interrupts(args.irq_cpus.as_deref())?,
        }
    }
    Ok(look.found)
}

struct Look<'a> {
    root: &'a Path,
    found: Changes,
}

impl Look<'_> {
    fn note(&mut self, setting: Setting, text: String) {
        self.found.notes.push((setting, text));
    }

    // False where there is no such value.
    fn value(&mut self, setting: Setting, path: &str, after: &str) -> Result<bool, PlaceError> {
        let path = PathBuf::from(path.trim_start_matches('/'));
        let before = place::read(&self.root.join(&path), Kind::Value)?;
        let is_there = before.is_some();
        if is_there {
            let after = after.to_owned();
            self.found.changes.push(Change { setting, path, kind: Kind::Value, before, after });
        }
        Ok(is_there)
    }

    fn file(&mut self, setting: Setting, file: &File) -> Result<(), PlaceError> {
        let path = PathBuf::from(file.place);
        let before = place::read(&self.root.join(&path), Kind::File)?;
        let after = file.text.to_owned();
        self.found.changes.push(Change { setting, path, kind: Kind::File, before, after });
        Ok(())
    }

    fn sysctl(&mut self) -> Result<(), PlaceError> {
        self.file(Setting::Sysctl, &files::SYSCTL)?;
        for (name, after) in files::assignments(files::SYSCTL.text) {
            if !self.value(Setting::Sysctl, &sysctl_path(name), after)? {
                self.note(Setting::Sysctl, format!("this kernel has no {name}"));
            }
            for rival in self.rivals(name, after) {
                let text = format!("{} sets {name} otherwise at boot", rival.display());
                self.note(Setting::Sysctl, text);
            }
        }
        Ok(())
    }

    // Files that are read after ours and say something else. Source: sysctl.d(5).
    fn rivals(&self, name: &str, after: &str) -> Vec<PathBuf> {
        let ours = Path::new(files::SYSCTL.place).file_name();
        let entries = fs::read_dir(self.root.join("etc/sysctl.d")).into_iter().flatten().flatten();
        let mut rivals: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.file_name() > ours && path.extension().is_some_and(|e| e == "conf"))
            .collect();
        rivals.sort();
        // `sysctl --system` reads it last.
        rivals.push(self.root.join("etc/sysctl.conf"));
        let says_otherwise = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let last = lines.rfind(|(have, _)| have.trim().replace('/', ".") == name);
            last.is_some_and(|(_, value)| !place::same(value, after))
        };
        rivals.retain(says_otherwise);
        rivals
    }

    fn boot_file(&mut self, setting: Setting, file: &File) -> Result<(), PlaceError> {
        for (path, after) in file.writes() {
            if self.value(setting, path, after)? {
                self.file(setting, file)?;
            } else {
                self.note(setting, format!("this kernel has no {path}"));
            }
        }
        Ok(())
    }

    // The file names them with a star, for CPUs that come later too.
    fn governor(&mut self) -> Result<(), PlaceError> {
        let mut found = 0;
        for (pattern, after) in files::GOVERNOR.writes() {
            let (folder, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
            let (folder, prefix) = folder.rsplit_once('/').unwrap_or(("", folder));
            for name in self.names(folder, prefix) {
                let path = format!("{folder}/{name}{rest}");
                found += usize::from(self.value(Setting::Governor, &path, after)?);
            }
        }
        if found > 0 {
            return self.file(Setting::Governor, &files::GOVERNOR);
        }
        let text = "no CPU has a governor here: the hypervisor or the firmware decides";
        self.note(Setting::Governor, text.to_owned());
        Ok(())
    }

    fn interrupts(&mut self, cpus: Option<&str>) -> Result<(), PlaceError> {
        let Some(cpus) = cpus else {
            let text = "left alone without --irq-cpus";
            self.note(Setting::Irq, text.to_owned());
            return Ok(());
        };
        for name in self.names("/proc/irq", "") {
            let path = format!("/proc/irq/{name}/smp_affinity_list");
            let is_there = name.parse::<u32>().is_ok() && self.root.join(&path[1..]).exists();
            if is_there {
                self.value(Setting::Irq, &path, cpus)?;
            }
        }
        let text = "lasts until the next boot: for each, install tuning/systemd/daisi-irq.service";
        self.note(Setting::Irq, text.to_owned());
        if self.root.join("proc/irq").exists() && self.is_balanced() {
            let text =
                "irqbalance is installed and moves them back: systemctl disable --now irqbalance";
            self.note(Setting::Irq, text.to_owned());
        }
        Ok(())
    }

    fn is_balanced(&self) -> bool {
        let unit = "etc/systemd/system/multi-user.target.wants/irqbalance.service";
        fs::symlink_metadata(self.root.join(unit)).is_ok()
    }

    // Names in a folder that begin so and go on with a number; in their order.
    fn names(&self, folder: &str, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder.trim_start_matches('/')));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names: Vec<(u32, String)> = names
            .filter_map(|name| name.into_string().ok())
            .filter_map(|name| Some((name.strip_prefix(prefix)?.parse().ok()?, name)))
            .collect();
        names.sort();
        names.into_iter().map(|(_, name)| name).collect()
    }
}

/// Where a sysctl is read and written.
pub(crate) fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Is every CPU of the list there? Unknown ones are, where the host does not tell.
pub(super) fn are_online(root: &Path, cpus: &str) -> bool {
    let online = host::read_trimmed(root.join("sys/devices/system/cpu/online"));
    let online = online.and_then(|text| host::parse_cpu_list(&text));
    let wanted = host::parse_cpu_list(cpus).unwrap_or_default();
    online.is_none_or(|online| wanted.iter().all(|cpu| online.contains(cpu)))
}
