//! The files of a run: `results.json`, one `.hgrm` a distribution, `report.html`. Invariant: the JSON is written
//! last and under another name first, so a folder that has it has all.

use std::fs;
use std::path::{Path, PathBuf};

use super::recorder::FORMAT;
use super::{Distribution, Results, ResultsError, hgrm, page};

/// The file everything is made of.
pub const RESULTS_FILE: &str = "results.json";
/// The page.
pub const PAGE_FILE: &str = "report.html";

impl Results {
    /// Writes all files into `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder or a file cannot be written; a histogram of a results file made elsewhere is broken.
    pub fn write(&self, folder: &Path) -> Result<(), ResultsError> {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        for (name, distribution) in self.distributions() {
            put(
                &folder.join(format!("{}.hgrm", file_name(&name))),
                &hgrm::text(&distribution.values()?),
            )?;
        }
        put(&folder.join(PAGE_FILE), &self.html()?)?;
        let path = folder.join(RESULTS_FILE);
        let json = serde_json::to_string(self)
            .map_err(|source| ResultsError::Json { path: path.clone(), source })?;
        let part = folder.join(format!("{RESULTS_FILE}.part"));
        put(&part, &(json + "\n"))?;
        fs::rename(&part, &path).map_err(failed("write", &path))
    }

    /// Reads a results file, or that of a folder.
    ///
    /// # Errors
    /// It is not there, or is none, or is newer than this version.
    pub fn read(path: &Path) -> Result<Self, ResultsError> {
        let path = if path.is_dir() { path.join(RESULTS_FILE) } else { path.to_owned() };
        let json = fs::read(&path).map_err(failed("read", &path))?;
        let results: Self = serde_json::from_slice(&json)
            .map_err(|source| ResultsError::Json { path: path.clone(), source })?;
        if results.format != FORMAT {
            return Err(ResultsError::Format { path, found: results.format, known: FORMAT });
        }
        Ok(results)
    }

    /// The page: one file that fetches nothing.
    ///
    /// # Errors
    /// A histogram is broken.
    pub fn html(&self) -> Result<String, ResultsError> {
        page::report(self)
    }

    /// Every distribution by its name: the ends, the PubAcks, the sender's lateness.
    pub(super) fn distributions(&self) -> Vec<(String, Distribution)> {
        let late = Distribution {
            points: self.sender.late,
            histogram: self.sender.late_histogram.clone(),
        };
        let ends = self.ends.iter().map(|end| (end.name.clone(), end.latency.clone()));
        ends.chain([("ack".into(), self.ack.clone()), ("sender-late".into(), late)]).collect()
    }
}

/// Writes a file.
///
/// # Errors
/// The operating system refused.
pub fn put(path: &Path, text: &str) -> Result<(), ResultsError> {
    fs::write(path, text).map_err(failed("write", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ResultsError {
    let path: PathBuf = path.to_owned();
    move |source| ResultsError::Io { doing, path, source }
}

/// A name that leads nowhere else.
fn file_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}
