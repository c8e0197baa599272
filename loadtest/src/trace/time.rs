//! Times as traces show and move them.

use std::io::Write as _;

use shards::clock::{date_of, day_of};

const DAY_S: u64 = 86_400;

/// Nanoseconds since 1970 as people write them, to the second.
pub(super) fn utc(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (year, month, day) = date_of(seconds / DAY_S);
    let (hour, minute, second) = (seconds % DAY_S / 3_600, seconds % 3_600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Whether it begins with a date and goes on with a time and a zone; the server reads the rest.
pub(super) fn is_rfc3339(text: &str) -> bool {
    let is_zoned =
        text.ends_with('Z') || text.get(19..).is_some_and(|rest| rest.contains(['+', '-']));
    text.len() >= 20 && text.as_bytes()[10] == b'T' && is_zoned && day(text.as_bytes()).is_some()
}

/// Moves the date at the start of a text; what follows it stays. Writes nothing where there is none.
pub(super) fn put_moved(out: &mut Vec<u8>, text: &[u8], days: i64) -> Option<()> {
    let (year, month, day) = date_of(day(text)?.checked_add_signed(days)?);
    if year > 9_999 {
        return None;
    }
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    out.extend_from_slice(&text[10..]);
    Some(())
}

/// The day, from 1970, of a text that begins with a date.
fn day(text: &[u8]) -> Option<u64> {
    let date = text.get(..10).filter(|date| date[4] == b'-' && date[7] == b'-')?;
    let number = |digits: &[u8]| {
        let all = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
        Some(all.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    };
    day_of(number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?)
}

#[cfg(test)]
mod tests {
    use super::{is_rfc3339, utc};

    #[test]
    fn times_are_written_and_known() {
        assert_eq!(utc(1_748_772_059_999_999_999), "2025-06-01T10:00:59Z");
        for (text, is_time) in [
            ("2026-06-01T10:00:00Z", true),
            ("2026-06-01T10:00:00.5+02:00", true),
            ("2026-06-31T10:00:00Z", false),
            ("2026-06-01 10:00:00Z", false),
            ("2026-06-01T10:00:00", false),
            ("yesterday", false),
        ] {
            assert_eq!(is_rfc3339(text), is_time, "{text}");
        }
    }
}
