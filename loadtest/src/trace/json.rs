//! A cursor that moves over a JSON text once and tells where values lie. It is not daisi's own: what makes
//! the load shares no code with what is tested. Invariants: it checks the grammar of RFC 8259 on the way,
//! allocates nothing but for a name with escapes, and its stack does not grow with the text.

use std::ops::Range;

use memchr::memchr2;

/// Deepest nesting that is read.
const DEPTH_MAX: u32 = 120;

/// The text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string without escapes: its bytes are its value.
    Text,
    /// A string with escapes.
    Escaped,
    Number,
    /// A container, a truth value or null.
    Other,
}

/// A value and where it lies; the range of a string leaves its quotes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Cursor<'a> {
    /// Before the first byte.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// First byte of the next value, not yet passed.
    pub(super) fn peek(&mut self) -> Result<u8, Broken> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Broken),
            }
        }
    }

    /// Passes the object at the cursor; `visit` has to pass the value of each name.
    pub(super) fn each_member(
        &mut self,
        mut visit: impl FnMut(&mut Self, &[u8]) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.enter(b'{')?;
        if self.peek()? == b'}' {
            return self.leave();
        }
        loop {
            let (kind, name) = self.name()?;
            if kind == Kind::Text {
                visit(self, name)?;
            } else {
                visit(self, unescaped(name).as_bytes())?;
            }
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return Err(Broken),
            }
        }
    }

    /// Passes the array at the cursor; `visit` has to pass each element.
    pub(super) fn each_element(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.enter(b'[')?;
        if self.peek()? == b']' {
            return self.leave();
        }
        loop {
            visit(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return self.leave(),
                _ => return Err(Broken),
            }
        }
    }

    /// Passes one value.
    pub(super) fn value(&mut self) -> Result<Value, Broken> {
        match self.peek()? {
            b'"' => {
                let start = self.at + 1;
                let kind = self.string()?;
                Ok(Value { kind, at: start..self.at - 1 })
            }
            first => {
                let start = self.at;
                self.skip()?;
                let is_number = first == b'-' || first.is_ascii_digit();
                let kind = if is_number { Kind::Number } else { Kind::Other };
                Ok(Value { kind, at: start..self.at })
            }
        }
    }

    /// Passes one value that nobody asks for. One bit a level tells objects from arrays.
    pub(super) fn skip(&mut self) -> Result<(), Broken> {
        let (mut objects, mut depth) = (0_u128, 0);
        loop {
            let first = self.peek()?;
            let is_open = match first {
                b'{' | b'[' => {
                    self.at += 1;
                    depth += 1;
                    if self.depth + depth > DEPTH_MAX {
                        return Err(Broken);
                    }
                    objects = objects << 1 | u128::from(first == b'{');
                    !matches!(self.peek()?, b'}' | b']')
                }
                b'"' => self.string().map(|_| false)?,
                _ => self.scalar(first).map(|()| false)?,
            };
            if !is_open && self.close(&mut objects, &mut depth)? {
                return Ok(());
            }
            if objects & 1 == 1 {
                self.name()?;
            }
        }
    }

    /// Checks that nothing but blanks is left.
    pub(super) fn finish(mut self) -> Result<(), Broken> {
        match self.peek() {
            Ok(_) => Err(Broken),
            Err(Broken) => Ok(()),
        }
    }

    /// Behind a value: passes closing brackets, then a comma. True where the outermost value ended.
    fn close(&mut self, objects: &mut u128, depth: &mut u32) -> Result<bool, Broken> {
        while *depth > 0 {
            let end = if *objects & 1 == 1 { b'}' } else { b']' };
            match self.peek()? {
                b',' => {
                    // Only behind a value: an opening bracket with a comma behind it is caught by whoever
                    // reads the value that must follow.
                    self.at += 1;
                    return Ok(false);
                }
                byte if byte == end => self.at += 1,
                _ => return Err(Broken),
            }
            *objects >>= 1;
            *depth -= 1;
        }
        Ok(true)
    }

    fn enter(&mut self, open: u8) -> Result<(), Broken> {
        if self.peek()? != open || self.depth == DEPTH_MAX {
            return Err(Broken);
        }
        self.at += 1;
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Broken> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Passes a name and its colon.
    fn name(&mut self) -> Result<(Kind, &'a [u8]), Broken> {
        if self.peek()? != b'"' {
            return Err(Broken);
        }
        let start = self.at + 1;
        let kind = self.string()?;
        let name = &self.text[start..self.at - 1];
        if self.peek()? != b':' {
            return Err(Broken);
        }
        self.at += 1;
        Ok((kind, name))
    }

    /// Passes the string whose opening quote is at the cursor.
    fn string(&mut self) -> Result<Kind, Broken> {
        let mut kind = Kind::Text;
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let length = memchr2(b'"', b'\\', rest).ok_or(Broken)?;
            // Without a branch a byte, so that many are looked at together.
            if rest[..length].iter().fold(false, |is_bad, byte| is_bad | (*byte < b' ')) {
                return Err(Broken);
            }
            self.at += length + 1;
            if rest[length] == b'"' {
                return Ok(kind);
            }
            kind = Kind::Escaped;
            match rest.get(length + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                Some(b'u') => {
                    let digits = rest.get(length + 2..length + 6).ok_or(Broken)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Broken);
                    }
                    self.at += 5;
                }
                _ => return Err(Broken),
            }
        }
    }

    fn scalar(&mut self, first: u8) -> Result<(), Broken> {
        let word: &[u8] = match first {
            b'n' => b"null",
            b't' => b"true",
            b'f' => b"false",
            _ => return self.number(),
        };
        match self.text[self.at..].starts_with(word) {
            true => self.at += word.len(),
            false => return Err(Broken),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        self.pass(b'-');
        if !self.pass(b'0') {
            self.digits()?;
        }
        if self.pass(b'.') {
            self.digits()?;
        }
        if self.pass(b'e') || self.pass(b'E') {
            let _ = self.pass(b'+') || self.pass(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Broken) }
    }

    fn pass(&mut self, byte: u8) -> bool {
        let is_there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }
}

/// The value of a string, from the bytes between its quotes; empty for one that has none.
fn unescaped(inner: &[u8]) -> String {
    let quoted = [b"\"", inner, b"\""].concat();
    serde_json::from_slice(&quoted).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Broken, Cursor, DEPTH_MAX};

    fn is_json(text: &str) -> bool {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.skip().and_then(|()| cursor.finish()).is_ok()
    }

    /// The same by the functions that visit.
    fn is_visited(text: &str) -> bool {
        fn visit(cursor: &mut Cursor<'_>) -> Result<(), Broken> {
            match cursor.peek()? {
                b'{' => cursor.each_member(|cursor, _| visit(cursor)),
                b'[' => cursor.each_element(visit),
                _ => cursor.value().map(drop),
            }
        }
        let mut cursor = Cursor::new(text.as_bytes());
        visit(&mut cursor).and_then(|()| cursor.finish()).is_ok()
    }

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        let nested = |open: &str, close: &str, depth: usize| {
            format!("{}1{}", open.repeat(depth), close.repeat(depth))
        };
        let max = DEPTH_MAX as usize;
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for is_read in [is_json, is_visited] {
                assert!(is_read(&nested(open, close, max)));
                assert!(!is_read(&nested(open, close, max + 1)));
                assert!(!is_read(&open.repeat(1 << 20)));
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_any_text(
            text in prop_oneof![
                vec(prop::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "1", "-", "0", ".", "e", "null",
                    "true", " ", "\\u", "00e9", "é", "\t", "\"b\":", "\"c\":[", "},{", "false", "\\n",
                ]), 0..24).prop_map(|parts| parts.concat()),
                ".*",
            ],
        ) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json(&text), theirs);
            prop_assert_eq!(is_visited(&text), theirs);
        }
    }
}
