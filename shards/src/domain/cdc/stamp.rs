//! Points in time as RFC 3339 text in UTC, without allocation. Invariant: the text has the fixed
//! length of its form, because years are held within 1970 to 9999.
//!
//! Calendar arithmetic after Howard Hinnant, "chrono-compatible low-level date algorithms".

use crate::clock::{date_of, day_of};

/// Last second of the year 9999.
const SECS_MAX: u64 = 253_402_300_799;

/// Writes `YYYY-MM-DDTHH:MM:SSZ`; seconds beyond the year 9999 are held there.
pub fn rfc3339_seconds(unix_secs: u64, out: &mut [u8; 20]) -> &[u8] {
    write_seconds(unix_secs, out);
    out[19] = b'Z';
    out
}

/// Writes `YYYY-MM-DDTHH:MM:SS.ffffffZ` from microseconds, the form of Sequin's commit times.
pub fn rfc3339_micros(unix_micros: u64, out: &mut [u8; 27]) -> &[u8] {
    write_seconds(unix_micros / 1_000_000, out);
    out[19] = b'.';
    write_digits(unix_micros % 1_000_000, &mut out[20..26]);
    out[26] = b'Z';
    out
}

/// Writes `YYYY-MM-DDTHH:MM:SS.fffffffffZ` from nanoseconds, the form of a dead letter's `ts`.
pub fn rfc3339_nanos(unix_nanos: u64, out: &mut [u8; 30]) -> &[u8] {
    write_seconds(unix_nanos / 1_000_000_000, out);
    out[19] = b'.';
    write_digits(unix_nanos % 1_000_000_000, &mut out[20..29]);
    out[29] = b'Z';
    out
}

fn write_seconds(unix_secs: u64, out: &mut [u8]) {
    let secs = unix_secs.min(SECS_MAX);
    let (year, month, day) = date_of(secs / 86_400);
    let of_day = secs % 86_400;
    out[..19].copy_from_slice(b"0000-00-00T00:00:00");
    write_digits(year, &mut out[0..4]);
    write_digits(month, &mut out[5..7]);
    write_digits(day, &mut out[8..10]);
    write_digits(of_day / 3600, &mut out[11..13]);
    write_digits(of_day / 60 % 60, &mut out[14..16]);
    write_digits(of_day % 60, &mut out[17..19]);
}

/// Reads RFC 3339 with any number of decimals and any offset, as Unix nanoseconds. Nothing before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok()
    };
    let (head, rest) = text.split_at_checked(19)?;
    let signs = [4, 7, 10, 13, 16].map(|at| head.as_bytes()[at]);
    if signs != *b"--T::" && signs != *b"--t::" {
        return None;
    }
    let [year, month, day] = [number(0..4)?, number(5..7)?, number(8..10)?];
    let [hour, minute, second] = [number(11..13)?, number(14..16)?, number(17..19)?];
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = day_of(year, month, day)?;
    let (decimals, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    let digits = &decimals[..decimals.len().min(9)];
    let nanos = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0'));
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let seconds = i64::try_from(seconds).ok()?.checked_sub(offset_seconds(zone)?)?;
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let seconds = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    let seconds = i64::from(seconds.0) * 3600 + i64::from(seconds.1) * 60;
    match zone.as_bytes().first()? {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

fn write_digits(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for nanos in [0, 1, 951_782_400_000_000_000, 1_748_772_000_123_456_789] {
            let mut out = [0; 30];
            let text = std::str::from_utf8(rfc3339_nanos(nanos, &mut out)).unwrap();
            assert_eq!(parse_rfc3339(text), Some(nanos), "{text}");
        }
        let base = 1_748_772_000_000_000_000;
        for (text, nanos) in [
            ("2025-06-01T10:00:00Z", Some(base)),
            ("2025-06-01T12:00:00.5+02:00", Some(base + 500_000_000)),
            ("2025-06-01T07:30:00-02:30", Some(base)),
            ("2025-06-01T10:00:00", None),
            ("2025-02-29T10:00:00Z", None),
            ("2025-06-31T10:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2025-06-01 10:00:00Z", None),
            ("2025-06-+1T10:00:00Z", None),
            ("0000-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), nanos, "{text}");
        }
    }

    #[test]
    fn known_moments_have_their_text() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_748_772_000, "2025-06-01T10:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (SECS_MAX, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339_seconds(secs, &mut [0; 20]), text.as_bytes());
        }
        let micros = rfc3339_micros(1_748_772_000_123_456, &mut [0; 27]).to_vec();
        assert_eq!(micros, b"2025-06-01T10:00:00.123456Z");
        let nanos = rfc3339_nanos(1_748_772_000_000_000_001, &mut [0; 30]).to_vec();
        assert_eq!(nanos, b"2025-06-01T10:00:00.000000001Z");
    }
}
