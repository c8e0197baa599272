//! Wall-clock text (RFC 3339, UTC) for API replies, from virtual nanoseconds. Civil date arithmetic
//! after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use shards::clock::SEC;

/// `2026-11-21T02:59:37.000000001Z` for nanoseconds since the Unix epoch.
pub(crate) fn rfc3339(wall: u64) -> String {
    let (secs, nanos) = (wall / SEC, wall % SEC);
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
