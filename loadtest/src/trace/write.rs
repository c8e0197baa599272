//! Writing a trace. Invariant: what is on the disk is always a file header and whole frames, the last of
//! them perhaps cut off; a file under its final name has its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use zstd::bulk::Compressor;

use super::format::{
    Before, FRAME_BYTES, Head, MAGIC, Preface, RECORD_BYTES_MAX, Record, TEXT_BYTES_MAX, Totals,
    TraceError, VERSION, check,
};

/// zstd's own default: two thirds of the size of level 1's, still several hundred MB a second.
const LEVEL: i32 = 3;
/// Gaps told in words at the end of a file.
const GAP_TEXTS_MAX: usize = 20;

/// A trace being written, as `FILE.part` until it has its end.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    part: PathBuf,
    offset: u64,
    compressor: Packer,
    raw: Vec<u8>,
    packed: Vec<u8>,
    before: Before,
    events: u32,
    totals: Totals,
}

/// The library's type cannot be printed.
struct Packer(Compressor<'static>);

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Writer {
    /// Begins `path`, which must not be there yet; an unfinished one of the same name is written over.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, preface: &Preface) -> Result<Self, TraceError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        if path.exists() {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(TraceError::Io { doing: "create", path: path.to_owned(), source });
        }
        let failed = |doing| failed(doing, &part);
        let options = OpenOptions::new().write(true).create(true).truncate(true).clone();
        let file = options.open(&part).map_err(failed("create"))?;
        let compressor = Compressor::new(LEVEL).map_err(failed("pack"))?;
        let mut writer = Self {
            file,
            path: path.to_owned(),
            part,
            offset: 0,
            compressor: Packer(compressor),
            raw: Vec::with_capacity(2 * FRAME_BYTES),
            packed: Vec::new(),
            before: Before::default(),
            events: 0,
            totals: Totals::default(),
        };
        writer.write_preface(preface)?;
        Ok(writer)
    }

    /// Adds an event; it is on the disk once its frame is [sealed](Self::seal).
    ///
    /// # Errors
    /// An event that is too large, or the disk.
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), TraceError> {
        // 64 for the numbers of a record.
        if record.len() + 64 > RECORD_BYTES_MAX {
            return Err(TraceError::TooLarge { size: record.len() });
        }
        self.before.append(&mut self.raw, record);
        self.events += 1;
        self.totals.events += 1;
        self.totals.bytes += record.len() as u64;
        if self.raw.len() >= FRAME_BYTES { self.seal() } else { Ok(()) }
    }

    /// Writes the events that wait for their frame to fill.
    ///
    /// # Errors
    /// The disk.
    pub fn seal(&mut self) -> Result<(), TraceError> {
        if self.events == 0 {
            return Ok(());
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        let packing = self.compressor.0.compress_to_buffer(&self.raw, &mut self.packed);
        packing.map_err(failed("pack", &self.part))?;
        let packed = std::mem::take(&mut self.packed);
        let written = self.write_frame(b'F', &packed, self.raw.len());
        self.packed = packed;
        written?;
        self.raw.clear();
        self.before = Before::default();
        self.events = 0;
        Ok(())
    }

    /// Notes a break in the recording.
    pub fn note_gap(&mut self, text: String) {
        self.totals.gaps += 1;
        if self.totals.gap_texts.len() < GAP_TEXTS_MAX {
            let short = text.chars().take(400).collect();
            self.totals.gap_texts.push(short);
        }
    }

    /// Ends the file, brings it to the disk and gives it its name.
    ///
    /// # Errors
    /// The disk; the unfinished file stays.
    pub fn finish(mut self) -> Result<(Totals, u64), TraceError> {
        self.seal()?;
        let text = json(&self.totals, &self.part)?;
        self.write_frame(b'E', &text, text.len())?;
        self.file.sync_all().map_err(failed("write", &self.part))?;
        fs::rename(&self.part, &self.path).map_err(failed("name", &self.path))?;
        Ok((self.totals, self.offset))
    }

    /// Takes the unfinished file away.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.part);
    }

    /// What it holds so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Bytes on the disk.
    pub fn size(&self) -> u64 {
        self.offset
    }

    fn write_preface(&mut self, preface: &Preface) -> Result<(), TraceError> {
        let text = json(preface, &self.part)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(&check(0, &bytes).to_le_bytes());
        self.write(&bytes)
    }

    fn write_frame(&mut self, kind: u8, body: &[u8], raw: usize) -> Result<(), TraceError> {
        let head = Head {
            kind,
            packed: body.len() as u32,
            raw: raw as u32,
            events: self.events,
            check: check(self.offset, body),
        };
        self.write(&head.to_bytes(self.offset))?;
        self.write(body)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        self.file.write_all(bytes).map_err(failed("write", &self.part))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn json(value: &impl serde::Serialize, path: &Path) -> Result<Vec<u8>, TraceError> {
    let text = serde_json::to_vec(value).map_err(io::Error::from);
    let text = text.map_err(failed("write", path))?;
    match text.len() <= TEXT_BYTES_MAX {
        true => Ok(text),
        false => Err(TraceError::TooLarge { size: text.len() }),
    }
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> TraceError {
    move |source| TraceError::Io { doing, path: path.to_owned(), source }
}
