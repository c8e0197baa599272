//! One place of a host that is read and written: a value of the kernel, or a whole file. Invariant: a file is
//! there as it was or as it is to be, never in part; a value was taken by the kernel as it was meant.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What kind of place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A value under /proc or /sys: written in place, read back.
    Value,
    /// A file of ours: replaced whole.
    File,
}

/// Why a place cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The operating system said no.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel took the value as another one.
    #[error("{path}: wrote {wrote:?}, and it reads {reads:?}")]
    NotTaken {
        /// Where.
        path: PathBuf,
        /// What was meant.
        wrote: String,
        /// What is there now.
        reads: String,
    },
    /// A link leads to a file that is somebody else's.
    #[error("{path} is a symbolic link; replace it by a file, or use --skip")]
    Link {
        /// Where.
        path: PathBuf,
    },
}

impl PlaceError {
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, doing, source }
    }

    /// The kernel refused the value as such, as it does for interrupts that cannot be moved.
    pub(super) fn is_refusal(&self) -> bool {
        // EPERM, EIO, EINVAL.
        let refusals = [1, 5, 22];
        matches!(self, Self::Io { doing: "write", source, .. }
            if source.raw_os_error().is_some_and(|code| refusals.contains(&code)))
    }
}

/// What stands there; `None` where there is nothing. Of a value the chosen one of `always [madvise] never`.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Option<String>, PlaceError> {
    if kind == Kind::File && fs::symlink_metadata(path).is_ok_and(|seen| seen.is_symlink()) {
        return Err(PlaceError::Link { path: path.to_owned() });
    }
    match fs::read_to_string(path) {
        Ok(text) if kind == Kind::Value => Ok(Some(chosen(&text))),
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PlaceError::io(path, "read")(error)),
    }
}

fn chosen(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let text = inside.map_or(text, |(chosen, _)| chosen);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts `text` there.
pub(super) fn write(path: &Path, kind: Kind, text: &str, mode: u32) -> Result<(), PlaceError> {
    match kind {
        Kind::File => replace(path, text, mode),
        Kind::Value => write_value(path, text),
    }
}

// The file must be there: a kernel does not let one be made.
fn write_value(path: &Path, value: &str) -> Result<(), PlaceError> {
    let io = || PlaceError::io(path, "write");
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).map_err(io())?;
    file.write_all(format!("{value}\n").as_bytes()).map_err(io())?;
    let reads = read(path, Kind::Value)?.unwrap_or_default();
    if same(&reads, value) {
        return Ok(());
    }
    Err(PlaceError::NotTaken { path: path.to_owned(), wrote: value.to_owned(), reads })
}

/// The same value, whatever stands between its parts; lists of CPUs also in another notation.
pub(super) fn same(one: &str, other: &str) -> bool {
    let cpus = |text: &str| crate::host::parse_cpu_list(text);
    chosen(one) == chosen(other) || cpus(one).is_some_and(|list| Some(list) == cpus(other))
}

/// Replaces a file at once: whoever opens it sees the old one or the new one, after a power loss too.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), PlaceError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.daisi-draft"));
    let written = write_draft(&draft, text, mode).and_then(|()| fs::rename(&draft, path));
    let synced = written.and_then(|()| File::open(folder)?.sync_all());
    synced.map_err(|error| {
        // What is left of the draft is no use to anybody; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&draft);
        PlaceError::io(path, "write")(error)
    })
}

fn write_draft(draft: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(draft)?;
    // The mask of the process does not count.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Takes a file away; one that is gone already is no failure.
pub(super) fn remove(path: &Path) -> Result<(), PlaceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PlaceError::io(path, "remove")(error))
        }
        _ => Ok(()),
    }
}

/// Permissions of a file, those of a new one where there is none.
pub(super) fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o644, |seen| seen.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_word_counts_and_blanks_do_not() {
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(chosen("4096\t131072\t6291456\n"), "4096 131072 6291456");
        assert!(same("1", " 1\n") && same("0-1", "0,1") && !same("0-1", "0-2"));
        assert!(!same("always", "madvise"));
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_value_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.conf");
        replace(&path, "x\n", 0o600).unwrap();
        assert_eq!(read(&path, Kind::File).unwrap().as_deref(), Some("x\n"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        let absent = folder.path().join("absent");
        assert!(write(&absent, Kind::Value, "1", 0o644).is_err());
        assert!(!absent.exists());
        std::os::unix::fs::symlink(&path, &absent).unwrap();
        assert!(matches!(read(&absent, Kind::File), Err(PlaceError::Link { .. })));
    }
}
