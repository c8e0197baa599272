//! A text as a tree of values, for the schema crate. Slow and allocating: for refused events, and for
//! kinds whose schema an operator replaced. Invariant: of doubled members the last stays, a number is
//! whole in the tree if and only if its text is, whole numbers of 64 bits are exact, and others stay others.
//!
//! Why not `serde_json::from_str`: it refuses numbers that a double cannot hold, where the grammar and
//! PostgreSQL's `jsonb` have no such bound, and rounds `9223372036854775807.0` up to what no `i64` is.

use super::cursor::{Cursor, Fault, Field, Kind, unescape};
use super::number::{Whole, whole};
use super::span::Place;
use serde_json::{Map, Number, Value};

/// A fraction next to numbers so large that doubles there have none.
const LARGEST_WITH_FRACTION: f64 = 4_503_599_627_370_495.5;

/// The tree of a whole text, which is shorter than [`super::TEXT_BYTES_MAX`].
pub(crate) fn tree(text: &str) -> Result<Value, Fault> {
    let mut cursor = Cursor::new(text.as_bytes(), Place::Body);
    let value = value(&mut cursor)?;
    cursor.finish()?;
    Ok(value)
}

// Calls itself once a level; the cursor bounds the levels.
fn value(cursor: &mut Cursor<'_>) -> Result<Value, Fault> {
    match cursor.peek()? {
        b'{' => {
            let mut members = Map::new();
            cursor.each_name(|cursor, name| {
                let name = String::from_utf8_lossy(name).into_owned();
                members.insert(name, value(cursor)?);
                Ok(())
            })?;
            Ok(Value::Object(members))
        }
        b'[' => {
            let mut elements = Vec::new();
            cursor.each_element(|cursor| {
                elements.push(value(cursor)?);
                Ok(())
            })?;
            Ok(Value::Array(elements))
        }
        _ => cursor.value().map(|field| simple(cursor, field)),
    }
}

fn simple(cursor: &Cursor<'_>, field: Field) -> Value {
    let bytes = cursor.bytes(field);
    match field.kind {
        Kind::Bool => Value::Bool(bytes == b"true"),
        Kind::Number => number(bytes),
        Kind::Text => Value::String(String::from_utf8_lossy(bytes).into_owned()),
        Kind::Escaped => Value::String(unescape(bytes).unwrap_or_default()),
        Kind::Null | Kind::Absent | Kind::Array | Kind::Object => Value::Null,
    }
}

fn number(text: &[u8]) -> Value {
    let double =
        || str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let number = match whole(text) {
        Whole::Is(value) => i64::try_from(value)
            .map(Number::from)
            .or_else(|_| u64::try_from(value).map(Number::from))
            .ok()
            .or_else(|| Number::from_f64(outside(value))),
        Whole::Beyond => Number::from_f64(double().clamp(f64::MIN, f64::MAX)),
        Whole::Not => Number::from_f64(with_fraction(double())),
    };
    number.map_or(Value::Null, Value::Number)
}

/// A double for what is beyond 64 bits, and stays beyond them.
fn outside(value: i128) -> f64 {
    let near = value as f64;
    let is_rounded_in = value < i128::from(i64::MIN) && near >= i64::MIN as f64;
    if is_rounded_in { near.next_down() } else { near }
}

/// The nearest double that is not whole.
fn with_fraction(near: f64) -> f64 {
    if near.fract() != 0.0 {
        near
    } else if near.abs() < LARGEST_WITH_FRACTION {
        near.next_up()
    } else {
        LARGEST_WITH_FRACTION.copysign(near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn numbers_are_whole_where_their_text_is() {
        for (text, expected) in [
            ("1.0", json!(1)),
            ("1e2", json!(100)),
            ("9223372036854775807.0", json!(i64::MAX)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1e400", json!(f64::MAX)),
            ("-1e400", json!(f64::MIN)),
            ("-0", json!(0)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("-9223372036854775809", json!((i64::MIN as f64).next_down())),
        ] {
            assert_eq!(tree(text), Ok(expected), "{text}");
        }
        for text in ["1.00000000000000000000001", "9007199254740993.5", "1e-400", "0.5", "1e300e"] {
            let is_whole = tree(text).is_ok_and(|v| v.as_f64().is_some_and(|v| v.fract() == 0.0));
            assert!(!is_whole, "{text}");
        }
    }

    #[test]
    fn the_last_of_doubled_members_stays() {
        assert_eq!(tree(r#"{"a":1,"b":[],"a":{"c":"\u00e9"}}"#), Ok(json!({"a":{"c":"é"},"b":[]})));
        assert!(tree("{} x").is_err() && tree("").is_err() && tree("[1,]").is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9_f64).prop_map(|v| json!(v.floor() + 0.5)),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(value in any_json()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(tree(&text), Ok(value.clone()), "{}", text);
            }
        }
    }
}
