//! A validating JSON cursor: moves over a text once, checks every byte of it, allocates nothing and
//! never recurses. Invariant: what it has passed is JSON by RFC 8259, at most [`DEPTH_MAX`] deep.
//!
//! Why not the lazy values of `sonic-rs`: its strict skip calls itself for every bracket without a
//! limit, so a megabyte of `[` ends the process, and its iterators allocate a key buffer each.
//! Text must be UTF-8 already. A lone surrogate escape is passed: the grammar allows it.

use super::span::{Place, Span};

/// Deepest nesting that is read, levels. Below the 128 at which `serde_json` gives up, with room for
/// the level that the published payload adds: what we publish, any reader can read.
pub(crate) const DEPTH_MAX: u32 = 120;

/// Where and why a text is not JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) what: &'static str,
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
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    place: Place,
    depth: u32,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte of `text`, which is valid UTF-8 and lies in `place` from offset 0.
    pub(crate) fn new(text: &'a [u8], place: Place) -> Self {
        Self { text, at: 0, place, depth: 0 }
    }

    /// First byte of the next value, not yet passed.
    pub(crate) fn peek(&mut self) -> Result<u8, Fault> {
        self.skip_blanks();
        self.text.get(self.at).copied().ok_or_else(|| self.fault("value expected"))
    }

    /// Offset of the next byte.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// The range from an offset to here.
    pub(crate) fn span_from(&self, start: usize) -> Span {
        Span::new(self.place, start, self.at)
    }

    /// Enters the object that [`Self::peek`] has shown.
    pub(crate) fn enter_object(&mut self) -> Result<(), Fault> {
        self.expect(b'{', "object expected")?;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.fault("nested too deeply")) } else { Ok(()) }
    }

    /// The next key of the entered object, up to its value; `None` where the object ends.
    pub(crate) fn next_key(&mut self, first: bool) -> Result<Option<Field>, Fault> {
        self.skip_blanks();
        if self.text.get(self.at) == Some(&b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !first {
            self.expect(b',', "comma or end of object expected")?;
            self.skip_blanks();
        }
        self.key().map(Some)
    }

    /// Passes one value of any kind.
    pub(crate) fn value(&mut self) -> Result<Field, Fault> {
        let first = self.peek()?;
        let start = self.at;
        let kind = match first {
            b'"' => return self.string(),
            b'{' | b'[' => {
                self.skip_container()?;
                if first == b'{' { Kind::Object } else { Kind::Array }
            }
            _ => self.scalar(first)?,
        };
        Ok(Field { kind, span: self.span_from(start) })
    }

    /// Checks that nothing but blanks is left.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault("bytes after the value")) }
    }

    /// A cursor at the start of a container that this one has passed.
    pub(crate) fn back_to(&self, field: Field) -> Self {
        Self { at: field.span.offset(), depth: 0, ..*self }
    }

    /// The bytes of a field that this cursor has passed.
    pub(crate) fn bytes(&self, field: Field) -> &'a [u8] {
        let start = field.span.offset();
        &self.text[start..start + field.span.len()]
    }

    /// Passes a container. One bit a level tells objects from arrays, so nothing recurses.
    fn skip_container(&mut self) -> Result<(), Fault> {
        let mut objects = 0u128;
        let mut depth = 0u32;
        loop {
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    depth += 1;
                    if self.depth + depth > DEPTH_MAX {
                        return Err(self.fault("nested too deeply"));
                    }
                    let is_object = open == b'{';
                    objects = objects << 1 | u128::from(is_object);
                    if !self.at_close(is_object) {
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => _ = self.string()?,
                first => _ = self.scalar(first)?,
            }
            if self.close_levels(&mut objects, &mut depth)? {
                return Ok(());
            }
        }
    }

    /// After a value inside a container: passes closing brackets, then a comma and perhaps a key.
    /// True when the outermost bracket closed.
    fn close_levels(&mut self, objects: &mut u128, depth: &mut u32) -> Result<bool, Fault> {
        loop {
            let is_object = *objects & 1 == 1;
            if self.at_close(is_object) {
                self.at += 1;
                *objects >>= 1;
                *depth -= 1;
                if *depth == 0 {
                    return Ok(true);
                }
                continue;
            }
            self.expect(b',', "comma or closing bracket expected")?;
            if is_object {
                self.skip_blanks();
                self.key()?;
            }
            return Ok(false);
        }
    }

    fn at_close(&mut self, is_object: bool) -> bool {
        self.skip_blanks();
        self.text.get(self.at) == Some(if is_object { &b'}' } else { &b']' })
    }

    fn key(&mut self) -> Result<Field, Fault> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(self.fault("key expected"));
        }
        let key = self.string()?;
        self.skip_blanks();
        self.expect(b':', "colon expected")?;
        Ok(key)
    }

    fn string(&mut self) -> Result<Field, Fault> {
        let start = self.at + 1;
        self.at = start;
        let mut kind = Kind::Text;
        loop {
            self.at += plain_len(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                Some(_) => return Err(self.fault("control character in a string")),
                None => return Err(self.fault("string without end")),
            }
        }
        let span = self.span_from(start);
        self.at += 1;
        Ok(Field { kind, span })
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.fault("four hexadecimal digits expected"));
                }
                self.at += 6;
            }
            _ => return Err(self.fault("unknown escape")),
        }
        Ok(())
    }

    fn scalar(&mut self, first: u8) -> Result<Kind, Fault> {
        match first {
            b'n' => self.literal(b"null", Kind::Null),
            b't' => self.literal(b"true", Kind::Bool),
            b'f' => self.literal(b"false", Kind::Bool),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.fault("value expected")),
        }
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault("unknown literal"));
        }
        self.at += word.len();
        Ok(kind)
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let count = self.text[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.fault("digit expected")) } else { Ok(()) }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.text.get(self.at) != Some(&byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn skip_blanks(&mut self) {
        if self.text.get(self.at).is_some_and(|b| *b > b' ') {
            return; // Nearly always: change events come without blanks.
        }
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault { at: self.at, what }
    }
}

/// Reads the object at the cursor and gives back the fields of these names, the last of each.
pub(crate) fn members<const N: usize>(
    cursor: &mut Cursor<'_>,
    names: &[&[u8]; N],
) -> Result<[Field; N], Fault> {
    let mut fields = [Field::default(); N];
    cursor.enter_object()?;
    let mut first = true;
    while let Some(key) = cursor.next_key(first)? {
        first = false;
        let wanted = index_of(cursor, key, names);
        let value = cursor.value()?;
        if let Some(index) = wanted {
            fields[index] = value;
        }
    }
    Ok(fields)
}

fn index_of<const N: usize>(cursor: &Cursor<'_>, key: Field, names: &[&[u8]; N]) -> Option<usize> {
    let bytes = cursor.bytes(key);
    if key.kind == Kind::Text {
        return names.iter().position(|name| *name == bytes);
    }
    let name = unescape(bytes)?;
    names.iter().position(|n| *n == name.as_bytes())
}

/// The value of a string, from the bytes between its quotes. `None` for a lone surrogate. Allocates.
pub(crate) fn unescape(inner: &[u8]) -> Option<String> {
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    sonic_rs::from_slice(&quoted).ok()
}

/// Length of the run without quote, backslash and control characters, eight bytes at a time.
#[inline]
fn plain_len(text: &[u8]) -> usize {
    let mut len = 0;
    while let Some(chunk) = text[len..].first_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*chunk));
        if special != 0 {
            return len + special.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let rest = &text[len..];
    len + rest.iter().position(|b| *b < 0x20 || matches!(b, b'"' | b'\\')).unwrap_or(rest.len())
}

/// High bit of each byte that ends a plain run; bits above the lowest one may be set in error
/// (a borrow), so only the lowest counts. Source: "Bit Twiddling Hacks", determine a zero byte.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x;
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    (quote | backslash | below(word, 0x20)) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        fn plain_run_ends_at_the_first_special_byte(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let slow = text.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
            prop_assert_eq!(plain_len(&text), slow.unwrap_or(text.len()));
        }
    }
}
