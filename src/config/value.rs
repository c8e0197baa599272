//! What a key may hold: its kind, its bounds, and the reading of text and TOML into a typed value.
//! Invariant: a `Value` made by `Kind::read_*` is inside the bounds of that kind. Durations follow Go's
//! notation (`1m30s`), because the variables of the service daisi replaces use it.

use std::fmt;
use std::time::Duration;

use shards::clock::{parse_nanos, scaled, unit_nanos};
use toml::de::DeValue;

/// Checks one text; the error says what is wrong with it, in lower case.
pub type Rule = fn(&str) -> Result<(), &'static str>;

/// The kind of a key: its shape and its bounds, both ends included.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text that satisfies the rule.
    Text(Rule),
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// A whole number, or `"auto"`.
    CountOrAuto {
        /// Least number.
        min: u64,
        /// Greatest number.
        max: u64,
    },
    /// A span of time such as `"30s"`, bounds in milliseconds.
    Duration {
        /// Shortest span, milliseconds.
        min_ms: u64,
        /// Longest span, milliseconds.
        max_ms: u64,
    },
    /// A number of bytes such as `"32MiB"`, bounds in bytes.
    Size {
        /// Least number of bytes.
        min: u64,
        /// Greatest number of bytes.
        max: u64,
    },
    /// A list of texts, each of which satisfies the rule.
    Texts {
        /// What each item must satisfy.
        rule: Rule,
        /// Fewest items.
        min: usize,
        /// Most items.
        max: usize,
    },
    /// A list of whole numbers.
    Counts {
        /// Most items.
        items_max: usize,
        /// Greatest value of an item.
        max: u64,
    },
}

/// A value inside the bounds of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The key has no value: it is optional and nothing set it.
    Unset,
    /// `"auto"`.
    Auto,
    /// Text.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Count(u64),
    /// A span of time.
    Duration(Duration),
    /// Bytes.
    Size(u64),
    /// Texts, in the order given.
    Texts(Vec<String>),
    /// Whole numbers, in the order given.
    Counts(Vec<u64>),
}

/// A value as a source gave it, before its kind has been asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// From the environment or the command line; lists are comma separated.
    Text(String),
    /// A TOML string: never split at commas.
    Quoted(String),
    /// A TOML integer or float.
    Number(String),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// A TOML value of a type that no key has, by its name.
    Foreign(&'static str),
}

impl Raw {
    /// Takes over a parsed TOML value.
    #[must_use]
    pub fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Quoted(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => {
                Self::Number(number.as_str().replace('_', ""))
            }
            DeValue::Float(number) => Self::Number(number.as_str().replace('_', "")),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Array(items) => {
                Self::List(items.iter().map(|item| Self::from_toml(item.get_ref())).collect())
            }
            other => Self::Foreign(other.type_str()),
        }
    }

    fn scalar(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) | Self::Quoted(text) | Self::Number(text) => Ok(text.trim()),
            Self::Flag(true) => Ok("true"),
            Self::Flag(false) => Ok("false"),
            Self::List(_) => Err("a list stands where one value is expected".to_owned()),
            Self::Foreign(name) => Err(format!("a TOML {name} is not accepted here")),
        }
    }

    fn items(&self) -> Result<Vec<&str>, String> {
        match self {
            Self::List(items) => items.iter().map(Self::scalar).collect(),
            Self::Text(text) => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
            }
            other => Ok(vec![other.scalar()?]),
        }
    }
}

/// As it would be written in TOML; what `config show` and messages print.
impl fmt::Display for Raw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Quoted(text) => write!(out, "{text:?}"),
            Self::Number(text) => out.write_str(text),
            Self::Flag(flag) => write!(out, "{flag}"),
            Self::Foreign(name) => write!(out, "<{name}>"),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(out, "[{}]", items.join(", "))
            }
        }
    }
}

impl Kind {
    /// Reads a raw value.
    ///
    /// # Errors
    /// What is wrong with it, in words; [`Kind::remedy`] says what to write instead.
    pub fn read(&self, raw: &Raw) -> Result<Value, String> {
        match *self {
            Self::Texts { rule, min, max } => read_texts(&raw.items()?, rule, min, max),
            Self::Counts { items_max, max } => read_counts(&raw.items()?, items_max, max),
            _ => self.read_scalar(raw.scalar()?),
        }
    }

    fn read_scalar(&self, text: &str) -> Result<Value, String> {
        match *self {
            Self::Text(rule) => {
                rule(text).map(|()| Value::Text(text.to_owned())).map_err(Into::into)
            }
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(_) => Err("not one of the words this key knows".to_owned()),
            Self::Flag => read_flag(text),
            Self::CountOrAuto { .. } if text == "auto" => Ok(Value::Auto),
            Self::Count { min, max } | Self::CountOrAuto { min, max } => {
                inside(read_count(text)?, min, max).map(Value::Count)
            }
            Self::Duration { min_ms, max_ms } => {
                let span = parse_duration(text).ok_or("not a duration")?;
                let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
                inside(span, min, max).map(Value::Duration)
            }
            Self::Size { min, max } => {
                let size = parse_size(text).ok_or("not a size")?;
                inside(size, min, max).map(Value::Size)
            }
            Self::Texts { .. } | Self::Counts { .. } => Err("a list is expected".to_owned()),
        }
    }

    /// What may be written: the remedy of every message about a bad value, and the bounds in the reference.
    #[must_use]
    pub fn remedy(&self) -> String {
        match *self {
            Self::Text(_) => "text".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Flag => "true or false".to_owned(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::CountOrAuto { min, max } => {
                format!("\"auto\", or a whole number from {min} to {max}")
            }
            Self::Duration { min_ms, max_ms } => format!(
                "a duration from {} to {}, written as \"30s\" or \"250ms\"",
                format_duration(Duration::from_millis(min_ms)),
                format_duration(Duration::from_millis(max_ms))
            ),
            Self::Size { min, max } => format!(
                "a size from {} to {}, written as \"32MiB\" or \"64KiB\"",
                format_size(min),
                format_size(max)
            ),
            Self::Texts { min, max, .. } => format!("a list of {min} to {max} texts"),
            Self::Counts { items_max, max } => {
                format!("a list of at most {items_max} whole numbers from 0 to {max}")
            }
        }
    }
}

fn inside<T: PartialOrd>(value: T, min: T, max: T) -> Result<T, String> {
    if value < min {
        Err("below the least value".to_owned())
    } else if value > max {
        Err("above the greatest value".to_owned())
    } else {
        Ok(value)
    }
}

fn read_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a whole number".to_owned())
}

fn read_flag(text: &str) -> Result<Value, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(Value::Flag(true)),
        "false" | "0" | "no" | "off" => Ok(Value::Flag(false)),
        _ => Err("neither true nor false".to_owned()),
    }
}

fn read_texts(items: &[&str], rule: Rule, min: usize, max: usize) -> Result<Value, String> {
    if items.len() < min {
        return Err(format!("{} items, and at least {min} are needed", items.len()));
    }
    if items.len() > max {
        return Err(format!("{} items, and at most {max} are allowed", items.len()));
    }
    for (index, item) in items.iter().enumerate() {
        rule(item).map_err(|what| format!("{item:?}: {what}"))?;
        if items[..index].contains(item) {
            return Err(format!("{item:?} stands twice"));
        }
    }
    Ok(Value::Texts(items.iter().map(|&item| item.to_owned()).collect()))
}

fn read_counts(items: &[&str], items_max: usize, max: u64) -> Result<Value, String> {
    if items.len() > items_max {
        return Err(format!("{} items, and at most {items_max} are allowed", items.len()));
    }
    let mut counts = Vec::with_capacity(items.len());
    for item in items {
        let count = inside(read_count(item)?, 0, max).map_err(|what| format!("{item}: {what}"))?;
        if counts.contains(&count) {
            return Err(format!("{count} stands twice"));
        }
        counts.push(count);
    }
    Ok(Value::Counts(counts))
}

/// Reads a duration: numbers with units, as in `1m30s`, `250ms`, `1.5h`, `7d`; a bare `0` is zero.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse_nanos(text).map(Duration::from_nanos)
}

/// Reads a size: a number with `B`, `KiB`, `MiB`, `GiB`, `TiB` or none of them.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    u64::try_from(scaled(number, unit)?).ok()
}

/// The shortest text that [`parse_duration`] reads back to the same span, in its largest whole unit.
#[must_use]
pub fn format_duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    let units = ["d", "h", "m", "s", "ms", "us"];
    let whole = units.iter().find_map(|unit| {
        let size = unit_nanos(unit)?;
        (nanos >= size && nanos.is_multiple_of(size)).then(|| format!("{}{unit}", nanos / size))
    });
    whole.unwrap_or_else(|| if nanos == 0 { "0s".to_owned() } else { format!("{nanos}ns") })
}

/// The shortest text that [`parse_size`] reads back to the same number of bytes.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units
        .iter()
        .find(|(_, shift)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift))
        .map(|(unit, shift)| format!("{}{unit}", bytes >> shift));
    whole.unwrap_or_else(|| format!("{bytes}B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_go_notation_and_print_back() {
        for (text, ms) in [("30s", 30_000), ("250ms", 250), ("1m30s", 90_000), ("1.5h", 5_400_000)]
        {
            let span = parse_duration(text).expect(text);
            assert_eq!(span, Duration::from_millis(ms));
            assert_eq!(parse_duration(&format_duration(span)), Some(span));
        }
        for text in ["", "30", "s", "3x", "-1s", "1.s.", "99999999999999999999999s", "1..5s", "1 s"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_read_and_print_back() {
        for (text, bytes) in
            [("32MiB", 32 << 20), ("1.5KiB", 1536), ("7", 7), ("100GiB", 100 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        for text in ["", "MiB", "1MB", "1kib", "-1", "99999999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_value_outside_its_bounds_is_refused_at_both_ends() {
        let kind = Kind::Count { min: 2, max: 4 };
        let read = |text: &str| kind.read(&Raw::Text(text.to_owned()));
        assert_eq!(read("2"), Ok(Value::Count(2)));
        assert_eq!(read("4"), Ok(Value::Count(4)));
        assert!(read("1").is_err() && read("5").is_err() && read("x").is_err());
    }

    #[test]
    fn only_environment_text_is_split_at_commas() {
        let kind = Kind::Texts { rule: |_| Ok(()), min: 0, max: 4 };
        let texts = |items: &[&str]| Value::Texts(items.iter().map(|&i| i.to_owned()).collect());
        assert_eq!(kind.read(&Raw::Text("a, b,".to_owned())), Ok(texts(&["a", "b"])));
        assert_eq!(kind.read(&Raw::Quoted("a,b".to_owned())), Ok(texts(&["a,b"])));
        assert!(kind.read(&Raw::Text("a,a".to_owned())).is_err(), "twice the same");
    }
}
