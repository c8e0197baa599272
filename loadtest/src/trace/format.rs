//! Layout of a trace file, version 1. Whole numbers are little-endian.
//!
//! ```text
//! file    = magic "DAISITRC" | version u32 | size u32 | JSON of `Preface` | check u64
//!           then frames of events, then one frame that ends the file
//! frame   = kind u8 | packed u32 | raw u32 | events u32 | check u64 | head check u32 | body
//!           kind 'F': the body is zstd of records; 'E': the body is the JSON of `Totals`, not packed
//! record  = time | sequence | size, subject | size, headers | size, payload
//!           numbers are LEB128; time and sequence are zigzag differences to the record before in the
//!           frame; sequence 0 is none; headers are the block as it came, or nothing
//! ```
//! A check is SipHash-1-3 under the key 0 of what it covers and of the offset at which that begins, so a
//! frame in a wrong place is found too. `check` covers the body, `head check` the 21 bytes before it.

use std::hash::Hasher as _;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

pub(super) const MAGIC: &[u8; 8] = b"DAISITRC";
pub(super) const VERSION: u32 = 1;
/// A frame is ended once it has so many bytes.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// Longest record: what the NATS codec takes as one message, and its subject.
pub(super) const RECORD_BYTES_MAX: usize = (16 << 20) + (128 << 10);
/// Longest frame, unpacked.
pub(super) const RAW_BYTES_MAX: usize = FRAME_BYTES + RECORD_BYTES_MAX;
/// Longest body of a frame: what zstd makes of [`RAW_BYTES_MAX`] where nothing can be packed.
pub(super) const PACKED_BYTES_MAX: usize = RAW_BYTES_MAX + RAW_BYTES_MAX / 128 + 1_024;
/// Longest text at the start and at the end of a file.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 10;
pub(super) const HEAD_BYTES: usize = 25;

/// Why a trace cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The operating system.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Some other file.
    #[error("{}: not a trace: it does not begin with DAISITRC", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// Made by a later version.
    #[error("{}: format {version} is not known here; this version reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// As it stands there.
        version: u32,
    },
    /// Bytes that nobody wrote like that.
    #[error("{}: at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the part at fault begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An event that no frame holds.
    #[error("an event of {size} bytes; a trace holds at most {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
}

/// What stands at the start of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preface {
    /// When recording began, nanoseconds since 1970.
    pub recorded_ns: u64,
    /// What was recorded, in words.
    pub source: String,
    /// What wrote the file.
    pub creator: String,
    /// Version of the NATS server.
    pub server: String,
}

/// What stands at the end of a trace that was ended and not cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Events.
    pub events: u64,
    /// Bytes of subjects, headers and payloads.
    pub bytes: u64,
    /// Breaks in the recording: connections lost, where events may be missing.
    pub gaps: u64,
    /// The first of them in words.
    pub gap_texts: Vec<String>,
}

/// One recorded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was stored in the stream or, without one, arrived; nanoseconds since 1970.
    pub arrived_ns: u64,
    /// Position in the stream.
    pub seq: Option<u64>,
    /// As it came.
    pub subject: &'a [u8],
    /// The block as it came; empty without headers.
    pub headers: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Bytes of its parts.
    pub fn len(&self) -> usize {
        self.subject.len() + self.headers.len() + self.payload.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the record before said, from which the next one differs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    arrived_ns: u64,
    seq: u64,
}

impl Before {
    pub(super) fn append(&mut self, out: &mut Vec<u8>, record: &Record<'_>) {
        let seq = record.seq.unwrap_or(0);
        put_number(out, zigzag(record.arrived_ns.wrapping_sub(self.arrived_ns)));
        put_number(out, zigzag(seq.wrapping_sub(self.seq)));
        *self = Self { arrived_ns: record.arrived_ns, seq };
        for part in [record.subject, record.headers, record.payload] {
            put_number(out, part.len() as u64);
            out.extend_from_slice(part);
        }
    }

    /// The record at `at`, which moves behind it; `None` where there is none.
    pub(super) fn take<'a>(&mut self, raw: &'a [u8], at: &mut usize) -> Option<Record<'a>> {
        let mut rest = raw.get(*at..)?;
        self.arrived_ns = self.arrived_ns.wrapping_add(unzigzag(take_number(&mut rest)?));
        self.seq = self.seq.wrapping_add(unzigzag(take_number(&mut rest)?));
        let subject = take_part(&mut rest)?;
        let headers = take_part(&mut rest)?;
        let payload = take_part(&mut rest)?;
        *at = raw.len() - rest.len();
        let seq = (self.seq > 0).then_some(self.seq);
        Some(Record { arrived_ns: self.arrived_ns, seq, subject, headers, payload })
    }
}

/// Head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) packed: u32,
    pub(super) raw: u32,
    pub(super) events: u32,
    pub(super) check: u64,
}

impl Head {
    pub(super) fn to_bytes(self, offset: u64) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = self.kind;
        bytes[1..5].copy_from_slice(&self.packed.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.raw.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.events.to_le_bytes());
        bytes[13..21].copy_from_slice(&self.check.to_le_bytes());
        let check = check(offset, &bytes[..21]) as u32;
        bytes[21..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8; HEAD_BYTES], offset: u64) -> Result<Self, &'static str> {
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
        if number(21) != check(offset, &bytes[..21]) as u32 {
            return Err("the head of a frame fails its check");
        }
        let head = Self {
            kind: bytes[0],
            packed: number(1),
            raw: number(5),
            events: number(9),
            check: u64::from(number(13)) | u64::from(number(17)) << 32,
        };
        let (packed_max, raw_max) = match head.kind {
            b'F' => (PACKED_BYTES_MAX, RAW_BYTES_MAX),
            b'E' => (TEXT_BYTES_MAX, TEXT_BYTES_MAX),
            _ => return Err("a frame of a kind that is not known"),
        };
        match head.packed as usize <= packed_max && head.raw as usize <= raw_max {
            true => Ok(head),
            false => Err("a frame longer than any that is written"),
        }
    }
}

pub(super) fn check(offset: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(&offset.to_le_bytes());
    hasher.write(bytes);
    hasher.finish()
}

fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (at, byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Some(number);
        }
    }
    None
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = usize::try_from(take_number(rest)?).ok()?;
    let (part, behind) = rest.split_at_checked(size)?;
    *rest = behind;
    Some(part)
}
