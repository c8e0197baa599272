//! Codecs and protocol state of everything daisi speaks. Sans-IO: bytes in, values out; no sockets,
//! no clocks, no async, and nothing of the domain.
//!
//! Rules of a codec: a decoder takes what there is and says how much more it needs; it consumes bytes
//! only together with a finished value; whatever a peer sends is a value or a [`WireError`], never a
//! panic; nothing is allocated by a length that was not checked against a limit first.

mod decimal;
pub mod nats;
pub mod resp;
pub mod trace;

/// What a decoder made of the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a step that is dropped loses a decoded value"]
pub enum Step<T> {
    /// One value; its bytes have left the inbox.
    Done(T),
    /// Not complete yet; the inbox is unchanged.
    Need {
        /// Bytes that must arrive, at the very least, before another attempt can succeed. Above 0.
        bytes_min: usize,
    },
}

/// Why bytes of a peer are not the protocol. Final for the connection: where the next frame starts is
/// unknown from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No end of line within the bound.
    #[error("line exceeds the limit of {limit} bytes")]
    LineTooLong {
        /// Bytes allowed before CRLF.
        limit: usize,
    },
    /// A declared length is above the bound (or above what a `u64` holds: then `size` is `u64::MAX`).
    #[error("frame of {size} bytes exceeds the limit of {limit}")]
    FrameTooLarge {
        /// Declared size in bytes.
        size: u64,
        /// Bytes allowed.
        limit: usize,
    },
    /// The first bytes name no operation or type of the protocol.
    #[error("unknown operation, first byte {first:#04x}")]
    UnknownOperation {
        /// First byte of the frame.
        first: u8,
    },
    /// A known operation whose arguments do not follow the grammar.
    #[error("malformed {what} at offset {offset}")]
    Malformed {
        /// The operation or element.
        what: &'static str,
        /// Bytes from the start of the frame.
        offset: usize,
    },
    /// A header length above the total length of its frame.
    #[error("header block of {headers} bytes exceeds the total of {total}")]
    HeadersExceedTotal {
        /// Declared length of the header block in bytes.
        headers: u64,
        /// Declared length of headers and payload in bytes.
        total: u64,
    },
    /// The bytes after the declared length are not CRLF.
    #[error("no line end after the payload at offset {offset}")]
    PayloadUnterminated {
        /// Bytes from the start of the frame.
        offset: usize,
    },
    /// Arrays nested beyond the bound.
    #[error("nesting is deeper than the limit of {limit}")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// More elements in one frame than the bound.
    #[error("{count} elements exceed the limit of {limit}")]
    TooManyElements {
        /// Declared number of elements.
        count: u64,
        /// Elements allowed.
        limit: usize,
    },
}
