//! Points in time as RFC 3339 text in UTC, without allocation. Invariant: the text has the fixed
//! length of its form, because years are held within 1970 to 9999.
//!
//! Calendar arithmetic after Howard Hinnant, "chrono-compatible low-level date algorithms".

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

/// Year, month and day of a day counted from 1970-01-01.
fn date_of(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // Days from 0000-03-01, so that a leap day ends its year.
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
