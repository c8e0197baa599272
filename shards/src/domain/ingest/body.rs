//! A payload as text that every later step can rely on. Pure. Invariant: it is UTF-8 and no escape in it is
//! half a surrogate pair; both are U+FFFD instead, as for the old service. Source: contract `ingest.md` 2.0.
//!
//! PostgreSQL's `jsonb` refuses half pairs, and free objects are handed to it as the text they came in, so
//! they are mended here, once. A copy is made only of a payload that has something to mend.

use std::borrow::Cow;

/// Bytes of an escape with four digits: `\u0041`.
const ESCAPE_BYTES: usize = 6;

/// A payload, mended. Events borrow from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body<'a> {
    text: Cow<'a, str>,
    /// Is there an escaped U+0000 anywhere? If not, nobody has to look for one.
    has_nul: bool,
}

impl<'a> Body<'a> {
    /// Looks through a payload; borrows it if there is nothing to mend.
    pub fn of(payload: &'a [u8]) -> Self {
        let text = match simdutf8::basic::from_utf8(payload) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(payload),
        };
        let Some(first) = memchr::memchr(b'\\', text.as_bytes()) else {
            return Self { text, has_nul: false };
        };
        let mut escapes = Escapes { text: text.as_bytes(), at: first, found: Found::default() };
        while escapes.step() {}
        let Found { halves, has_nul } = escapes.found;
        Self { text: if halves.is_empty() { text } else { without(text, &halves) }, has_nul }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an escaped U+0000 stands in it somewhere.
    pub fn has_nul(&self) -> bool {
        self.has_nul
    }
}

/// Whether an escaped U+0000 stands in a piece of a body that holds its strings whole.
pub(crate) fn has_nul(text: &str) -> bool {
    let mut escapes = Escapes { text: text.as_bytes(), at: 0, found: Found::default() };
    while escapes.step() {}
    escapes.found.has_nul
}

#[derive(Default)]
struct Found {
    /// Where escapes stand that are half a pair.
    halves: Vec<usize>,
    has_nul: bool,
}

/// Walks from escape to escape. In JSON a backslash stands in strings only, so none needs to be told apart;
/// a text that is no JSON is refused later, whatever was read here.
struct Escapes<'a> {
    text: &'a [u8],
    at: usize,
    found: Found,
}

impl Escapes<'_> {
    /// Passes one escape; false when there is none left.
    fn step(&mut self) -> bool {
        let Some(offset) = memchr::memchr(b'\\', &self.text[self.at..]) else { return false };
        let start = self.at + offset;
        let Some(unit) = unit_at(self.text, start) else {
            self.at = (start + 2).min(self.text.len());
            return true;
        };
        self.at = start + ESCAPE_BYTES;
        match unit {
            0 => self.found.has_nul = true,
            0xd800..0xdc00 => match unit_at(self.text, self.at) {
                Some(0xdc00..0xe000) => self.at += ESCAPE_BYTES,
                _ => self.found.halves.push(start),
            },
            0xdc00..0xe000 => self.found.halves.push(start),
            _ => {}
        }
        true
    }
}

/// The UTF-16 unit that is escaped at `start`.
fn unit_at(text: &[u8], start: usize) -> Option<u16> {
    let escape = text.get(start..start + ESCAPE_BYTES)?;
    let digits = escape.strip_prefix(b"\\u")?;
    digits
        .iter()
        .try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// The text with U+FFFD in place of each of these escapes, which are as long as its own.
#[cold]
fn without<'a>(text: Cow<'a, str>, halves: &[usize]) -> Cow<'a, str> {
    let mut bytes = text.into_owned().into_bytes();
    for start in halves {
        bytes[*start..start + ESCAPE_BYTES].copy_from_slice(br"\ufffd");
    }
    Cow::Owned(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mended(payload: &[u8]) -> String {
        Body::of(payload).as_str().to_owned()
    }

    #[test]
    fn what_is_sound_is_borrowed() {
        for sound in ["", "{}", r#"{"a":"\n\"\\ud800 \ud83d\ude00 \u00e9"}"#, "\u{1f600}"] {
            let body = Body::of(sound.as_bytes());
            assert!(matches!(body.text, Cow::Borrowed(text) if text == sound), "{sound}");
            assert!(!body.has_nul());
        }
    }

    #[test]
    fn bad_bytes_and_half_pairs_become_the_replacement_character() {
        assert_eq!(mended(b"\"a\xffb\""), "\"a\u{fffd}b\"");
        for (half, whole) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\uDFFFx""#, r#""\ufffdx""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\n""#, r#""\ufffd\n""#),
            (r#""\\\ud800""#, r#""\\\ufffd""#),
        ] {
            assert_eq!(mended(half.as_bytes()), whole);
        }
        assert_eq!(mended(b"\"\xff\\udc00\""), "\"\u{fffd}\\ufffd\"");
    }

    #[test]
    fn an_escaped_nul_is_told_from_a_backslash_before_digits() {
        for (text, expected) in [
            (r#""\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\\\u0000""#, true),
            (r#""\u"#, false),
        ] {
            assert_eq!(Body::of(text.as_bytes()).has_nul(), expected, "{text}");
            assert_eq!(has_nul(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_string_of_escapes_can_be_read_afterwards(
            parts in prop::collection::vec(
                prop::sample::select(vec![r"\ud800", r"\udbff", r"\udc00", r"\udfff", r"\\", r"\n", "u", "x"]),
                0..12,
            ),
        ) {
            let quoted = format!("\"{}\"", parts.concat());
            prop_assert!(serde_json::from_str::<String>(&mended(quoted.as_bytes())).is_ok());
            if let Ok(value) = serde_json::from_str::<String>(&quoted) {
                prop_assert_eq!(serde_json::from_str::<String>(&mended(quoted.as_bytes())).unwrap(), value);
            }
        }

        #[test]
        fn no_bytes_end_the_walk(payload: Vec<u8>) {
            let body = Body::of(&payload);
            let again = Body::of(body.as_str().as_bytes());
            prop_assert_eq!(again.as_str(), body.as_str());
        }
    }
}
