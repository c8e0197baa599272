//! Reading a trace, frame by frame, in bounded memory. Invariant: an event is given out only once the
//! check of its whole frame holds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zstd::bulk::Decompressor;

use super::format::{
    Before, HEAD_BYTES, Head, MAGIC, Preface, Record, TEXT_BYTES_MAX, Totals, TraceError, VERSION,
    check,
};
use super::write::failed;

/// How a trace ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it must.
    Whole(Totals),
    /// In the middle of a frame, or before the last one: the recorder was killed, or the copy is short.
    Cut {
        /// Where the part begins that is not whole.
        offset: u64,
        /// Bytes that are left of it.
        rest: u64,
    },
}

/// A trace being read.
pub struct Reader<R = File> {
    input: R,
    path: PathBuf,
    preface: Preface,
    offset: u64,
    decompressor: Decompressor<'static>,
    packed: Vec<u8>,
    raw: Vec<u8>,
    at: usize,
    before: Before,
    /// Events of this frame that were not given out yet.
    left: u32,
    events: u64,
    end: Option<End>,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).field("offset", &self.offset).finish()
    }
}

impl Reader<File> {
    /// Opens a trace.
    ///
    /// # Errors
    /// The file, or what it begins with.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(failed("open", path))?;
        Self::new(file, path)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the start of a trace; `path` is for messages.
    ///
    /// # Errors
    /// The file, or what it begins with.
    pub fn new(input: R, path: &Path) -> Result<Self, TraceError> {
        let decompressor = Decompressor::new().map_err(failed("unpack", path))?;
        let mut reader = Self {
            input,
            path: path.to_owned(),
            preface: Preface::default(),
            offset: 0,
            decompressor,
            packed: Vec::new(),
            raw: Vec::new(),
            at: 0,
            before: Before::default(),
            left: 0,
            events: 0,
            end: None,
        };
        reader.read_preface()?;
        Ok(reader)
    }

    /// What stands at its start.
    pub fn preface(&self) -> &Preface {
        &self.preface
    }

    /// How it ends; `None` while there are events.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next event; `None` at the [end](Self::end).
    ///
    /// # Errors
    /// The file, or bytes in it that nobody wrote like that.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, TraceError> {
        while self.left == 0 {
            if self.end.is_some() || !self.read_frame()? {
                return Ok(None);
            }
        }
        self.left -= 1;
        self.events += 1;
        let offset = self.offset;
        let record = self.before.take(&self.raw, &mut self.at);
        let is_last = self.left == 0;
        match record {
            Some(record) if !is_last || self.at == self.raw.len() => Ok(Some(record)),
            _ => Err(corrupt(&self.path, offset, "events that are not as many bytes as the frame")),
        }
    }

    fn read_preface(&mut self) -> Result<(), TraceError> {
        let mut head = [0; 16];
        if self.fill(&mut head)? < head.len() || head[..8] != *MAGIC {
            return Err(TraceError::Magic { path: self.path.clone() });
        }
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| head[at + n]));
        let (version, size) = (number(8), number(12));
        if version != VERSION {
            return Err(TraceError::Version { path: self.path.clone(), version });
        }
        let fault = |what| corrupt(&self.path, 0, what);
        if size as usize > TEXT_BYTES_MAX {
            return Err(fault("a preface longer than any that is written"));
        }
        let mut bytes = head.to_vec();
        let wanted = head.len() + size as usize + 8;
        let length = (&mut self.input).take(u64::from(size) + 8).read_to_end(&mut bytes);
        length.map_err(failed("read", &self.path))?;
        let Some((text, sum)) = bytes.split_last_chunk::<8>().filter(|_| bytes.len() == wanted)
        else {
            return Err(fault("the file ends within its preface"));
        };
        if u64::from_le_bytes(*sum) != check(0, text) {
            return Err(fault("the preface fails its check"));
        }
        let preface = serde_json::from_slice(&text[head.len()..]);
        self.preface = preface.map_err(|_| fault("the preface is not what it must be"))?;
        self.offset = wanted as u64;
        Ok(())
    }

    /// Takes in the next frame of events; false at the end of the trace.
    fn read_frame(&mut self) -> Result<bool, TraceError> {
        let mut bytes = [0; HEAD_BYTES];
        let read = self.fill(&mut bytes)?;
        if read < HEAD_BYTES {
            return Ok(self.cut(read));
        }
        let head = Head::parse(&bytes, self.offset).map_err(|what| self.fault(what))?;
        self.packed.clear();
        // What is allocated grows with what is there, not with what the head says.
        let body = (&mut self.input).take(u64::from(head.packed)).read_to_end(&mut self.packed);
        body.map_err(failed("read", &self.path))?;
        if self.packed.len() < head.packed as usize {
            return Ok(self.cut(HEAD_BYTES + self.packed.len()));
        }
        if check(self.offset, &self.packed) != head.check {
            return Err(self.fault("a frame fails its check"));
        }
        if head.kind == b'E' {
            return self.read_totals().map(|()| false);
        }
        self.unpack(head)?;
        self.offset += (HEAD_BYTES + self.packed.len()) as u64;
        Ok(true)
    }

    fn unpack(&mut self, head: Head) -> Result<(), TraceError> {
        self.raw.clear();
        self.raw.reserve(head.raw as usize);
        let unpacked = self.decompressor.decompress_to_buffer(&self.packed, &mut self.raw);
        if unpacked.ok() != Some(head.raw as usize) {
            return Err(self.fault("a frame cannot be unpacked"));
        }
        if head.events == 0 {
            return Err(self.fault("a frame without events"));
        }
        (self.at, self.left, self.before) = (0, head.events, Before::default());
        Ok(())
    }

    fn read_totals(&mut self) -> Result<(), TraceError> {
        let totals: Totals = serde_json::from_slice(&self.packed)
            .map_err(|_| self.fault("the end is not what it must be"))?;
        if totals.events != self.events {
            return Err(self.fault("the end counts other events than there are"));
        }
        if self.fill(&mut [0])? > 0 {
            return Err(self.fault("bytes behind the end"));
        }
        self.end = Some(End::Whole(totals));
        Ok(())
    }

    fn cut(&mut self, rest: usize) -> bool {
        self.end = Some(End::Cut { offset: self.offset, rest: rest as u64 });
        false
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TraceError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }

    fn fault(&self, what: &'static str) -> TraceError {
        corrupt(&self.path, self.offset, what)
    }
}

fn corrupt(path: &Path, offset: u64, what: &'static str) -> TraceError {
    TraceError::Corrupt { path: path.to_owned(), offset, what }
}
