//! Header block of a message, read lazily, and its writer. Invariant: no block of a peer makes this
//! panic or ends a connection: servers pass blocks on unchecked, so a malformed one is an attribute of
//! its message. Source: NATS ADR-4.

use bytes::BytesMut;
use memchr::{memchr, memmem};

/// First bytes of every block.
pub const VERSION: &[u8] = b"NATS/1.0";
/// Bytes of a block without fields or status: version, line end, and the empty line.
pub const BLOCK_LEN_MIN: usize = VERSION.len() + 4;
/// Largest block JetStream stores, in bytes (error 10097 beyond).
pub const BLOCK_LEN_MAX: usize = 65_535;

/// Inline status of a message without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// Three digits, HTTP-like.
    pub code: u16,
    /// Text behind the code; empty where there is none, as with 503.
    pub description: &'a [u8],
}

/// A raw block. Nothing is parsed until asked for.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Takes any bytes.
    #[must_use]
    pub const fn new(block: &'a [u8]) -> Self {
        Self(block)
    }

    /// Value of the first field of this name, case-sensitive as in NATS, blanks trimmed.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().find(|&(found, _)| found == name).map(|(_, value)| value)
    }

    /// Values of all fields of this name in order.
    pub fn get_all(&self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().filter(move |&(found, _)| found == name).map(|(_, value)| value)
    }

    /// All fields in order; none if the block does not start with the version line. Lines without a
    /// colon are passed over.
    #[must_use]
    pub fn iter(&self) -> Fields<'a> {
        Fields { rest: self.split_first_line().map_or(&[], |(_, rest)| rest) }
    }

    /// Status of the version line: exactly three digits, else there is none.
    #[must_use]
    pub fn status(&self) -> Option<Status<'a>> {
        let (line, _) = self.split_first_line()?;
        let line = line.strip_prefix(b" ")?.trim_ascii();
        let (digits, description) = line.split_at_checked(3)?;
        let is_token = description.first().is_none_or(u8::is_ascii_whitespace);
        if !is_token || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code = digits.iter().fold(0, |code, &digit| code * 10 + u16::from(digit - b'0'));
        Some(Status { code, description: description.trim_ascii() })
    }

    /// Whether the whole block follows the grammar. Costs a pass over it.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let Some((line, mut rest)) = self.split_first_line() else { return false };
        if !line.trim_ascii().is_empty() && self.status().is_none() {
            return false;
        }
        while let Some((line, next)) = split_line(rest) {
            if line.is_empty() {
                return next.is_empty();
            }
            if memchr(b':', line).is_none_or(|at| at == 0) {
                return false;
            }
            rest = next;
        }
        false
    }

    /// What follows the version on its line, and the lines after it.
    fn split_first_line(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (line, rest) = split_line(self.0.strip_prefix(VERSION)?)?;
        line.first().is_none_or(|byte| *byte == b' ').then_some((line, rest))
    }
}

/// Iterator over names and values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, rest) = split_line(self.rest)?;
            if line.is_empty() {
                self.rest = &[];
                return None;
            }
            self.rest = rest;
            if let Some(colon) = memchr(b':', line) {
                return Some((&line[..colon], line[colon + 1..].trim_ascii()));
            }
        }
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = find_line_end(bytes)?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn find_line_end(bytes: &[u8]) -> Option<usize> {
    let first = memchr(b'\r', bytes)?;
    if bytes.get(first + 1) == Some(&b'\n') {
        return Some(first);
    }
    memmem::find(&bytes[first..], b"\r\n").map(|at| first + at)
}

/// Why a field cannot be written: it would end its line, or read back as another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Empty, or holds a colon, a blank, a control byte or a byte above ASCII.
    #[error("header name of {size} bytes is not valid at offset {offset}")]
    Name {
        /// Bytes of the name.
        size: usize,
        /// First byte at fault.
        offset: usize,
    },
    /// Holds a control byte.
    #[error("header value has byte {byte:#04x} at offset {offset}")]
    Value {
        /// First byte at fault.
        offset: usize,
        /// The byte.
        byte: u8,
    },
}

/// Bytes one field takes in a block.
#[must_use]
pub const fn field_len(name_len: usize, value_len: usize) -> usize {
    name_len + b": ".len() + value_len + b"\r\n".len()
}

/// Appends one block to a caller's buffer. Leaves no half of a field behind an error.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: &'a mut BytesMut,
    start: usize,
}

impl<'a> HeaderWriter<'a> {
    /// Starts a block without status.
    pub fn begin(out: &'a mut BytesMut) -> Self {
        let start = out.len();
        out.extend_from_slice(b"NATS/1.0\r\n");
        Self { out, start }
    }

    /// Starts a block with a status, as a server does.
    ///
    /// # Errors
    /// [`HeaderError::Value`] if the description holds a control byte.
    pub fn begin_status(
        out: &'a mut BytesMut,
        code: u16,
        description: &[u8],
    ) -> Result<Self, HeaderError> {
        debug_assert!((100..=999).contains(&code), "a status has three digits");
        check_value(description, 0)?;
        let start = out.len();
        out.extend_from_slice(VERSION);
        out.extend_from_slice(b" ");
        crate::wire::decimal::push(out, u64::from(code));
        if !description.is_empty() {
            out.extend_from_slice(b" ");
            out.extend_from_slice(description);
        }
        out.extend_from_slice(b"\r\n");
        Ok(Self { out, start })
    }

    /// Appends one field. Blanks round the value are lost to every reader.
    ///
    /// # Errors
    /// [`HeaderError`] where the field would not read back as written.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeaderError> {
        self.add_parts(name, &[value])
    }

    /// Appends one field whose value is given as parts that stand one behind the other.
    ///
    /// # Errors
    /// As [`Self::add`]; offsets count through all parts.
    pub fn add_parts(&mut self, name: &[u8], value: &[&[u8]]) -> Result<(), HeaderError> {
        check_name(name)?;
        let mut offset = 0;
        for part in value {
            check_value(part, offset)?;
            offset += part.len();
        }
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        for part in value {
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Ends the block and returns its length in bytes, the `#hdr` of HPUB.
    #[must_use = "the control line needs the length"]
    pub fn finish(self) -> usize {
        self.out.extend_from_slice(b"\r\n");
        self.out.len() - self.start
    }
}

fn check_name(name: &[u8]) -> Result<(), HeaderError> {
    let bad = name.iter().position(|byte| !byte.is_ascii_graphic() || *byte == b':');
    match bad {
        _ if name.is_empty() => Err(HeaderError::Name { size: 0, offset: 0 }),
        Some(offset) => Err(HeaderError::Name { size: name.len(), offset }),
        None => Ok(()),
    }
}

fn check_value(value: &[u8], before: usize) -> Result<(), HeaderError> {
    match value.iter().position(u8::is_ascii_control) {
        Some(at) => Err(HeaderError::Value { offset: before + at, byte: value[at] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        Headers::new(block).iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect()
    }

    #[test]
    fn values_are_trimmed_and_names_are_case_sensitive() {
        let headers = Headers::new(b"NATS/1.0\r\nA: 1\r\nA: 2\r\nb:  3\r\n\r\n");
        assert_eq!(headers.get(b"A"), Some(b"1".as_slice()));
        assert_eq!(headers.get_all(b"A").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.get(b"b"), Some(b"3".as_slice()));
        assert_eq!(headers.get(b"B"), None);
        assert!(headers.is_well_formed());
        assert_eq!(headers.status(), None);
    }

    #[test]
    fn status_is_three_digits_or_none() {
        let status = |block: &'static [u8]| {
            Headers::new(block).status().map(|status| (status.code, status.description))
        };
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n"), Some((503, b"".as_slice())));
        assert_eq!(status(b"NATS/1.0 404 No Messages\r\n\r\n"), Some((404, &b"No Messages"[..])));
        assert_eq!(status(b"NATS/1.0  404   x \r\n\r\n"), Some((404, &b"x"[..])));
        for bad in ["NATS/1.0 4\r\n\r\n", "NATS/1.0 4044\r\n\r\n", "NATS/1.0 4a4\r\n\r\n"] {
            assert_eq!(status(bad.as_bytes()), None, "{bad}");
            assert!(!Headers::new(bad.as_bytes()).is_well_formed(), "{bad}");
        }
        assert_eq!(status(b"NATS/1.0503\r\n\r\n"), None);
        assert_eq!(status(b"NATS/1.0 503"), None);
    }

    #[test]
    fn malformed_blocks_yield_what_can_be_read() {
        assert_eq!(fields(b"abcde"), []);
        assert_eq!(fields(b""), []);
        assert_eq!(fields(b"NATS/1.0 4\r\nX:y\r\n\r\n"), [(b"X".to_vec(), b"y".to_vec())]);
        assert_eq!(fields(b"NATS/1.0\r\nno colon\r\nX:y\r\n"), [(b"X".to_vec(), b"y".to_vec())]);
        assert!(!Headers::new(b"NATS/1.0\r\nX:y\r\n").is_well_formed());
        assert!(!Headers::new(b"NATS/1.0\r\n\r\nrest").is_well_formed());
    }

    #[test]
    fn a_field_that_would_break_its_line_is_refused_and_leaves_nothing() {
        let mut out = BytesMut::new();
        let mut writer = HeaderWriter::begin(&mut out);
        assert_eq!(
            writer.add(b"A", b"x\r\nEvil: 1"),
            Err(HeaderError::Value { offset: 1, byte: b'\r' })
        );
        assert_eq!(writer.add(b"A:", b"x"), Err(HeaderError::Name { size: 2, offset: 1 }));
        assert_eq!(writer.add(b"", b"x"), Err(HeaderError::Name { size: 0, offset: 0 }));
        assert_eq!(
            writer.add_parts(b"A", &[b"ab", b"c\0"]),
            Err(HeaderError::Value { offset: 3, byte: 0 })
        );
        assert_eq!(writer.finish(), BLOCK_LEN_MIN);
        assert_eq!(out.as_ref(), b"NATS/1.0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(
            pairs in prop::collection::vec(("[!-9;-~]{1,12}", "([!-~\u{e4}]([ -~]{0,20}[!-~])?)?"), 0..8)
        ) {
            let mut out = BytesMut::new();
            let mut writer = HeaderWriter::begin(&mut out);
            let mut len = BLOCK_LEN_MIN;
            for (name, value) in &pairs {
                writer.add(name.as_bytes(), value.as_bytes()).unwrap();
                len += field_len(name.len(), value.len());
            }
            prop_assert_eq!(writer.finish(), len);
            prop_assert_eq!(out.len(), len);
            prop_assert!(Headers::new(&out).is_well_formed());
            let expected: Vec<_> = pairs.into_iter()
                .map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
            prop_assert_eq!(fields(&out), expected);
        }

        #[test]
        fn no_block_panics(block in prop::collection::vec(any::<u8>(), 0..64), lead: bool) {
            let block = if lead { [b"NATS/1.0".as_slice(), &block].concat() } else { block };
            let headers = Headers::new(&block);
            let _ = (headers.status(), headers.is_well_formed(), headers.iter().count());
        }
    }
}
