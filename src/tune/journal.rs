//! The journal of `daisi tune`: what stood at each place before, and what was put there. Invariants: it is on
//! disk before the first change; it names a place once; while it is there, everything in it can be put back.
//! One process at a time holds it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::place::{self, Kind, PlaceError};
use crate::cli::Setting;

/// Where it stands, below the root.
pub(super) const PLACE: &str = "var/lib/daisi/tune.json";
/// Version of its form.
const VERSION: u32 = 1;

/// A place that was changed, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Setting it belongs to.
    pub(super) setting: Setting,
    /// Where, below the root.
    pub(super) path: PathBuf,
    /// Value or file.
    pub(super) kind: Kind,
    /// What was there; `None` for nothing.
    pub(super) before: Option<String>,
    /// Permissions of the file that was there.
    pub(super) mode: u32,
    /// What was put there.
    pub(super) after: String,
}

/// Why there is no journal to work with.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// A file or folder of it.
    #[error("{0}")]
    Place(#[from] PlaceError),
    /// It is not one of ours.
    #[error("{path} cannot be understood: {reason}")]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another `daisi tune` is at work.
    #[error("another `daisi tune` is at work")]
    Held,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    entries: Vec<Entry>,
    /// Folders that were made, below the root, outer ones first.
    folders: Vec<PathBuf>,
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    root: PathBuf,
    content: Content,
    // Held until it is dropped.
    _lock: Option<File>,
}

impl Journal {
    /// Reads it without holding it; empty where there is none.
    pub(super) fn read(root: &Path) -> Result<Self, JournalError> {
        let path = root.join(PLACE);
        let mut content = Content { version: VERSION, ..Content::default() };
        if let Some(text) = place::read(&path, Kind::File)? {
            let unreadable =
                |reason: String| JournalError::Unreadable { path: path.clone(), reason };
            content = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
            if content.version != VERSION {
                return Err(unreadable(format!("version {}, not {VERSION}", content.version)));
            }
        }
        Ok(Self { root: root.to_owned(), content, _lock: None })
    }

    /// Reads it and keeps others out; its folder is made.
    pub(super) fn hold(root: &Path) -> Result<Self, JournalError> {
        let folder = Path::new(PLACE).parent().unwrap_or(Path::new(""));
        let made = make_folders(root, folder)?;
        let io = |error| PlaceError::io(&root.join(folder), "lock")(error);
        let lock = File::open(root.join(folder)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Held),
            Err(TryLockError::Error(error)) => return Err(io(error).into()),
        }
        let mut journal = Self { _lock: Some(lock), ..Self::read(root)? };
        journal.content.folders.extend(made);
        Ok(journal)
    }

    /// All entries, in the order they were made.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.content.entries
    }

    /// Notes a change before it is made. What was put there by us before is not what was there before us.
    pub(super) fn note(&mut self, entry: Entry) {
        match self.content.entries.iter_mut().find(|have| have.path == entry.path) {
            Some(have) if is_ours(have, entry.before.as_deref()) => have.after = entry.after,
            Some(have) => *have = entry,
            None => self.content.entries.push(entry),
        }
    }

    /// Makes the folder of a place that is about to be written; those that were not there are noted first.
    pub(super) fn make_folder_of(&mut self, path: &Path) -> Result<(), JournalError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let absent = absent_folders(&self.root, folder);
        if absent.is_empty() {
            return Ok(());
        }
        self.content.folders.extend(absent);
        self.save()?;
        make_folders(&self.root, folder)?;
        Ok(())
    }

    /// Forgets places.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&Entry) -> bool) {
        self.content.entries.retain(|entry| !is_gone(entry));
    }

    /// Writes it.
    pub(super) fn save(&mut self) -> Result<(), JournalError> {
        let path = self.root.join(PLACE);
        #[expect(clippy::expect_used, reason = "strings, numbers and paths that were read as text")]
        let mut text = serde_json::to_string_pretty(&self.content).expect("a journal encodes");
        text.push('\n');
        // It may hold what only root could read where it stood.
        place::replace(&path, &text, 0o600)?;
        Ok(())
    }

    /// Ends it if nothing is left to be put back: the file goes, and the folders that were made and are empty.
    pub(super) fn close(mut self) -> Result<(), JournalError> {
        if !self.content.entries.is_empty() {
            return self.save();
        }
        place::remove(&self.root.join(PLACE))?;
        for folder in self.content.folders.iter().rev() {
            // Somebody else may have put something there meanwhile: then it stays.
            let _ = fs::remove_dir(self.root.join(folder));
        }
        Ok(())
    }
}

fn is_ours(entry: &Entry, current: Option<&str>) -> bool {
    current.is_some_and(|current| match entry.kind {
        Kind::Value => place::same(current, &entry.after),
        Kind::File => current == entry.after,
    })
}

// Outer ones first, below the root.
fn absent_folders(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let named = folder.ancestors().filter(|path| !path.as_os_str().is_empty());
    let mut absent: Vec<PathBuf> =
        named.filter(|path| !root.join(path).exists()).map(Path::to_owned).collect();
    absent.reverse();
    absent
}

fn make_folders(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, PlaceError> {
    let absent = absent_folders(root, folder);
    for folder in &absent {
        match fs::create_dir(root.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PlaceError::io(&root.join(folder), "make")(error));
            }
            _ => {}
        }
    }
    Ok(absent)
}
