//! JSON values as the contract reads them: text without a copy, whole numbers however they are written,
//! free objects unread.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A text, borrowed unless an escape stands in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Read)
    }
}

/// A whole number; `1.0` and `1e2` are some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                i64::try_from(number).map(Whole).map_err(E::custom)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                // Below 2^63 a whole f64 is an i64.
                let is_whole = number.fract() == 0.0 && number.abs() < 9.2e18;
                let number = is_whole.then_some(number as i64);
                number.map(Whole).ok_or_else(|| E::custom("no whole number"))
            }
        }
        from.deserialize_any(Read)
    }
}

/// Whether a free object is one, and can be stored: a database takes no U+0000.
pub(super) fn is_object(value: Option<&RawValue>) -> bool {
    value.is_none_or(|value| {
        let text = value.get();
        text.starts_with('{') && !text.contains("\\u0000")
    })
}

/// Whether a text can be stored.
pub(super) fn is_text(text: Option<&Text<'_>>) -> bool {
    text.is_none_or(|text| !text.0.contains('\0'))
}

/// The text that must be there, if it is there and holds something.
pub(super) fn required<'a>(text: &'a Option<Text<'_>>) -> Option<&'a str> {
    text.as_ref().map(|text| &*text.0).filter(|text| !text.is_empty() && !text.contains('\0'))
}
