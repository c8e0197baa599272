//! Places of values inside an event, as small copyable ranges. Invariant: a span is only ever read
//! from the texts of the event it was found in.
//!
//! Ranges instead of borrows let a change outlive a round trip to Redis beside its own `Bytes`.

/// Which text of the event a span lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The message body.
    Body,
    /// The subject the message came on.
    Subject,
    /// Text that had to be decoded first: escaped identifiers, documents inside a string.
    Arena,
}

/// Texts that a span points into are shorter, bytes; two bits of the offset name the place.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 30;
const OFFSET_MASK: u32 = (1 << 30) - 1;

/// A range of bytes in one of the texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Span {
    tagged_start: u32,
    len: u32,
}

impl Span {
    /// The range `start..end` of `place`; both are below [`TEXT_BYTES_MAX`], which `transform` checks.
    pub(crate) fn new(place: Place, start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end < TEXT_BYTES_MAX);
        Self { tagged_start: start as u32 | (place as u32) << 30, len: (end - start) as u32 }
    }

    /// Start inside its text.
    pub(crate) fn offset(self) -> usize {
        (self.tagged_start & OFFSET_MASK) as usize
    }

    pub(crate) fn len(self) -> usize {
        self.len as usize
    }
}

/// The texts of one event.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'a> {
    pub(crate) subject: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) arena: &'a [u8],
}

impl<'a> Texts<'a> {
    /// The bytes of a span.
    pub(crate) fn get(&self, span: Span) -> &'a [u8] {
        let text = match span.tagged_start >> 30 {
            0 => self.body,
            1 => self.subject,
            _ => self.arena,
        };
        &text[span.offset()..span.offset() + span.len()]
    }
}
