//! A validating JSON cursor: moves over a text once, checks every byte of it, allocates nothing and
//! never recurses. Invariant: what it has passed is JSON by RFC 8259, at most [`DEPTH_MAX`] deep.
//!
//! Why not the lazy values of `sonic-rs`: its strict skip calls itself for every bracket without a
//! limit, so a megabyte of `[` ends the process, and its iterators allocate a key buffer each.
//! Text must be UTF-8 already. A lone surrogate escape is passed: the grammar allows it.
//!
//! Most bytes lie in strings, so their ends are found 32 bytes at a time; blanks, escapes and faults
//! are rare in change events and leave the straight path.

use super::span::{Place, Span};
use std::fmt;
use wide::u8x32;

/// Deepest nesting that is read, levels. Below the 128 at which `serde_json` gives up, with room for
/// the level that the published payload adds: what we publish, any reader can read.
pub(crate) const DEPTH_MAX: u32 = 120;

/// Where and why a text is not JSON. Eight bytes, so that results of the cursor fit in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// Offset, bytes; texts are shorter than 1 GiB.
    pub(crate) at: u32,
    pub(crate) what: What,
}

/// What is wrong with a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    NoValue,
    NoObject,
    NoArray,
    NoKey,
    NoColon,
    NoComma,
    NoDigit,
    NoHexDigits,
    TooDeep,
    Trailing,
    ControlCharacter,
    OpenString,
    UnknownEscape,
    UnknownLiteral,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoValue => "value expected",
            Self::NoObject => "object expected",
            Self::NoArray => "array expected",
            Self::NoKey => "key expected",
            Self::NoColon => "colon expected",
            Self::NoComma => "comma or closing bracket expected",
            Self::NoDigit => "digit expected",
            Self::NoHexDigits => "four hexadecimal digits expected",
            Self::TooDeep => "nested too deeply",
            Self::Trailing => "bytes after the value",
            Self::ControlCharacter => "control character in a string",
            Self::OpenString => "string without end",
            Self::UnknownEscape => "unknown escape",
            Self::UnknownLiteral => "unknown literal",
        })
    }
}

/// What kind of value a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    /// The member does not occur.
    #[default]
    Absent,
    Null,
    Bool,
    Number,
    /// A string without escapes: its bytes are its value.
    Text,
    /// A string with escapes.
    Escaped,
    Array,
    Object,
}

/// A value and where it lies; the span of a string leaves its quotes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

impl Field {
    /// Neither absent nor null.
    pub(crate) fn is_some(self) -> bool {
        !matches!(self.kind, Kind::Absent | Kind::Null)
    }

    pub(crate) fn is_string(self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Escaped)
    }
}

/// Position in a JSON text.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    place: Place,
    depth: u32,
}

// What readers of an event use.
impl<'a> Cursor<'a> {
    /// Starts at the first byte of `text`, which is valid UTF-8 and lies in `place` from offset 0.
    pub(crate) fn new(text: &'a [u8], place: Place) -> Self {
        Self { text, at: 0, place, depth: 0 }
    }

    /// First byte of the next value, not yet passed.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Result<u8, Fault> {
        match self.text.get(self.at) {
            Some(&byte) if byte > b' ' => Ok(byte), // Change events come without blanks.
            _ => self.peek_behind_blanks(),
        }
    }

    /// Offset of the next byte.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// The range from an offset to here.
    #[inline]
    pub(crate) fn span_from(&self, start: usize) -> Span {
        Span::new(self.place, start, self.at)
    }

    /// Passes the object at the cursor, and calls `visit` at each value, which it has to pass, with the
    /// key as it stands between its quotes and whether there are escapes in it.
    #[inline(always)]
    pub(crate) fn each_member(
        &mut self,
        mut visit: impl FnMut(&mut Self, &'a [u8], Kind) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter(b'{', What::NoObject)?;
        if self.peek_is(b'}') {
            return self.leave();
        }
        loop {
            let (key, kind) = self.named_key()?;
            visit(self, key, kind)?;
            match self.peek() {
                Ok(b',') => self.at += 1,
                Ok(b'}') => return self.leave(),
                _ => return Err(self.fault(What::NoComma)),
            }
        }
    }

    /// As [`Self::each_member`], with the key's value. A key that has none, a lone surrogate, is empty.
    #[inline(always)]
    pub(crate) fn each_name(
        &mut self,
        mut visit: impl FnMut(&mut Self, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.each_member(|cursor, key, kind| {
            let decoded;
            let name = if kind == Kind::Text {
                key
            } else {
                decoded = unescape(key).unwrap_or_default();
                decoded.as_bytes()
            };
            visit(cursor, name)
        })
    }

    /// Passes the array at the cursor, and calls `visit` at each element, which it has to pass.
    #[inline(always)]
    pub(crate) fn each_element(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter(b'[', What::NoArray)?;
        if self.peek_is(b']') {
            return self.leave();
        }
        loop {
            visit(self)?;
            match self.peek() {
                Ok(b',') => self.at += 1,
                Ok(b']') => return self.leave(),
                _ => return Err(self.fault(What::NoComma)),
            }
        }
    }

    /// Passes one value of any kind.
    #[inline(always)]
    pub(crate) fn value(&mut self) -> Result<Field, Fault> {
        let first = self.peek()?;
        let start = self.at;
        let kind = self.pass(first)?;
        let quotes = usize::from(matches!(kind, Kind::Text | Kind::Escaped));
        Ok(Field { kind, span: Span::new(self.place, start + quotes, self.at - quotes) })
    }

    /// Passes one value that nobody asks for.
    #[inline(always)]
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        let first = self.peek()?;
        self.pass(first).map(drop)
    }

    /// Checks that nothing but blanks is left.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault(What::Trailing)) }
    }

    /// A cursor at the start of a container that this one has passed.
    pub(crate) fn back_to(&self, field: Field) -> Self {
        Self { at: field.span.offset(), depth: 0, ..*self }
    }

    /// The bytes of a field that this cursor has passed.
    #[inline]
    pub(crate) fn bytes(&self, field: Field) -> &'a [u8] {
        let start = field.span.offset();
        &self.text[start..start + field.span.len()]
    }
}

// The grammar.
impl<'a> Cursor<'a> {
    fn enter(&mut self, open: u8, otherwise: What) -> Result<(), Fault> {
        if self.peek() != Ok(open) {
            return Err(self.fault(otherwise));
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.fault(What::TooDeep)) } else { Ok(()) }
    }

    fn leave(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Passes the value that begins with `first`, at the cursor.
    #[inline(always)]
    fn pass(&mut self, first: u8) -> Result<Kind, Fault> {
        match first {
            b'"' => self.string(),
            b'{' | b'[' => self.container(first),
            _ => self.scalar(first),
        }
    }

    /// Passes a container. One bit a level tells objects from arrays, so nothing recurses.
    fn container(&mut self, open: u8) -> Result<Kind, Fault> {
        let mut objects = 0_u128;
        let mut depth = 0;
        let mut first = open;
        loop {
            if let b'{' | b'[' = first {
                self.at += 1;
                depth += 1;
                if self.depth + depth > DEPTH_MAX {
                    return Err(self.fault(What::TooDeep));
                }
                let is_object = first == b'{';
                objects = objects << 1 | u128::from(is_object);
                if !self.peek_is(if is_object { b'}' } else { b']' }) {
                    first = self.element(is_object)?;
                    continue;
                }
            } else {
                self.simple(first)?;
            }
            if self.close_levels(&mut objects, &mut depth)? {
                return Ok(if open == b'{' { Kind::Object } else { Kind::Array });
            }
            first = self.element(objects & 1 == 1)?;
        }
    }

    /// After a value inside a container: passes closing brackets, then a comma. True when the
    /// outermost bracket closed.
    #[inline]
    fn close_levels(&mut self, objects: &mut u128, depth: &mut u32) -> Result<bool, Fault> {
        loop {
            let close = if *objects & 1 == 1 { b'}' } else { b']' };
            match self.peek() {
                Ok(b',') => {
                    self.at += 1;
                    return Ok(false);
                }
                Ok(byte) if byte == close => self.at += 1,
                _ => return Err(self.fault(What::NoComma)),
            }
            *objects >>= 1;
            *depth -= 1;
            if *depth == 0 {
                return Ok(true);
            }
        }
    }

    /// First byte of the next element's value; its key, if it has one, is passed.
    #[inline]
    fn element(&mut self, is_object: bool) -> Result<u8, Fault> {
        if is_object {
            self.key()?;
        }
        self.peek()
    }

    /// As [`Self::key`], with its bytes.
    #[inline(always)]
    fn named_key(&mut self) -> Result<(&'a [u8], Kind), Fault> {
        if !self.peek_is(b'"') {
            return Err(self.fault(What::NoKey));
        }
        let start = self.at + 1;
        let kind = self.string()?;
        let key = self.text.get(start..self.at - 1).unwrap_or_default();
        self.colon()?;
        Ok((key, kind))
    }

    /// Passes a key and its colon.
    #[inline(always)]
    fn key(&mut self) -> Result<(), Fault> {
        if !self.peek_is(b'"') {
            return Err(self.fault(What::NoKey));
        }
        self.string()?;
        self.colon()
    }

    #[inline(always)]
    fn colon(&mut self) -> Result<(), Fault> {
        if !self.peek_is(b':') {
            return Err(self.fault(What::NoColon));
        }
        self.at += 1;
        Ok(())
    }

    fn simple(&mut self, first: u8) -> Result<Kind, Fault> {
        if first == b'"' { self.string() } else { self.scalar(first) }
    }

    /// Passes the string whose opening quote is at the cursor.
    #[inline(always)]
    fn string(&mut self) -> Result<Kind, Fault> {
        let start = self.at + 1;
        if let Some(block) = block_at(self.text, start) {
            let end = start + special_bytes(block).trailing_zeros() as usize;
            if self.text.get(end) == Some(&b'"') {
                self.at = end + 1;
                return Ok(Kind::Text);
            }
        }
        self.string_slow()
    }

    /// Passes a string that is long, near the end of the text, with escapes, or at fault.
    #[inline(never)]
    fn string_slow(&mut self) -> Result<Kind, Fault> {
        self.at += 1;
        let mut kind = Kind::Text;
        loop {
            self.at = plain_end(self.text, self.at);
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.fault(What::ControlCharacter)),
                None => return Err(self.fault(What::OpenString)),
            }
            kind = Kind::Escaped;
        }
        self.at += 1;
        Ok(kind)
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.fault(What::NoHexDigits));
                }
                self.at += 6;
            }
            _ => return Err(self.fault(What::UnknownEscape)),
        }
        Ok(())
    }

    fn scalar(&mut self, first: u8) -> Result<Kind, Fault> {
        match first {
            b'n' => self.literal(b"null", Kind::Null),
            b't' => self.literal(b"true", Kind::Bool),
            b'f' => self.literal(b"false", Kind::Bool),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.fault(What::NoValue)),
        }
    }

    #[inline]
    fn literal<const N: usize>(&mut self, word: &[u8; N], kind: Kind) -> Result<Kind, Fault> {
        if self.text[self.at..].first_chunk() != Some(word) {
            return Err(self.fault(What::UnknownLiteral));
        }
        self.at += N;
        Ok(kind)
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        if self.is_at(b'-') {
            self.at += 1;
        }
        if self.is_at(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.is_at(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if self.is_at(b'e') || self.is_at(b'E') {
            self.at += 1;
            if self.is_at(b'+') || self.is_at(b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Fault> {
        let mut at = self.at;
        while self.text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == self.at {
            return Err(self.fault(What::NoDigit));
        }
        self.at = at;
        Ok(())
    }

    /// Whether the next byte is this one.
    #[inline(always)]
    fn is_at(&self, byte: u8) -> bool {
        self.text.get(self.at) == Some(&byte)
    }

    /// Whether the next byte behind blanks is this one; they are passed.
    #[inline(always)]
    fn peek_is(&mut self, byte: u8) -> bool {
        self.is_at(byte) || self.peek() == Ok(byte)
    }

    #[cold]
    fn peek_behind_blanks(&mut self) -> Result<u8, Fault> {
        self.skip_blanks();
        self.text.get(self.at).copied().ok_or_else(|| self.fault(What::NoValue))
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    #[cold]
    fn fault(&self, what: What) -> Fault {
        Fault { at: self.at as u32, what }
    }
}

/// The value of a string, from the bytes between its quotes. `None` for a lone surrogate. Allocates.
pub(crate) fn unescape(inner: &[u8]) -> Option<String> {
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    sonic_rs::from_slice(&quoted).ok()
}

/// Offset of the first quote, backslash or control character at or after `start`, else the length.
fn plain_end(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(block) = block_at(text, at) {
        let special = special_bytes(block);
        if special != 0 {
            return at + special.trailing_zeros() as usize;
        }
        at += BLOCK_BYTES;
    }
    let rest = text.len().saturating_sub(at);
    // The last block of the text without what lies before `at`, or a short text with blanks behind it.
    let (block, before) = match text.last_chunk() {
        Some(block) => (*block, BLOCK_BYTES - rest),
        None => {
            let mut block = [b' '; BLOCK_BYTES];
            block[..text.len()].copy_from_slice(text);
            (block, at)
        }
    };
    let special = u64::from(special_bytes(block)) >> before;
    at + (special.trailing_zeros() as usize).min(rest)
}

#[inline(always)]
fn block_at(text: &[u8], at: usize) -> Option<[u8; BLOCK_BYTES]> {
    text.get(at..)?.first_chunk().copied()
}

/// Bytes looked at in one step: a register of AVX2.
const BLOCK_BYTES: usize = 32;

/// One bit for each byte that ends a plain run of a string, the lowest for the first byte.
#[inline(always)]
fn special_bytes(block: [u8; BLOCK_BYTES]) -> u32 {
    let bytes = u8x32::new(block);
    let is_control = bytes.min(u8x32::splat(0x1f)).simd_eq(bytes);
    let is_quote = bytes.simd_eq(u8x32::splat(b'"'));
    let is_backslash = bytes.simd_eq(u8x32::splat(b'\\'));
    (is_control | is_quote | is_backslash).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn is_json(text: &str) -> bool {
        let mut cursor = Cursor::new(text.as_bytes(), Place::Body);
        cursor.value().and_then(|_| cursor.finish()).is_ok()
    }

    fn nested(open: &str, close: &str, depth: usize) -> String {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    }

    #[test]
    fn grammar_is_that_of_rfc_8259() {
        for good in [
            "0",
            "-0",
            "-0.5e+10",
            "[]",
            "{}",
            " [ 1 , {\"a\" : null} ] ",
            r#""\u0041\/""#,
            "1E400",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "nul",
            "truex",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "{\"a\" 1}",
            "\"\u{1}\"",
            r#""\x""#,
            r#""\u12g4""#,
            "\"",
            "[",
            "{",
            "[}",
            "{]",
            "1 1",
            "NaN",
            "\u{feff}1",
            "{,}",
            "[,]",
            "{\"a\"}",
            "'a'",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        let max = DEPTH_MAX as usize;
        assert!(is_json(&nested("[", "]", max)) && is_json(&nested("{\"a\":", "}", max)));
        assert!(!is_json(&nested("[", "]", max + 1)));
        assert!(!is_json(&"[".repeat(1 << 20)) && !is_json(&"{\"a\":".repeat(1 << 20)));
    }

    fn almost_json() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop::sample::select(vec![
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                "\"a\"",
                "\"",
                "\\",
                "1",
                "-",
                "0",
                ".",
                "e",
                "null",
                "true",
                " ",
                "\\u",
                "00e9",
                "é",
                "\t",
                "\"b\":",
                "long enough text",
            ]),
            0..24,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_any_text(text in prop_oneof![almost_json(), ".*"]) {
            // IgnoredAny reads the grammar only, as we do: lone surrogates and huge numbers pass.
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json(&text), theirs);
        }

        #[test]
        fn plain_run_ends_at_the_first_special_byte(
            text in vec(prop_oneof![9 => 0x20_u8.., 1 => any::<u8>()], 0..100),
            start in 0_usize..100,
        ) {
            let start = start.min(text.len());
            let slow = text[start..].iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
            prop_assert_eq!(plain_end(&text, start), slow.map_or(text.len(), |len| start + len));
        }
    }
}
