//! Figures as people read them: thousands apart, three digits of a time, a unit at each.

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `4,999`, and `12.5` where that matters.
pub(super) fn decimal(number: f64) -> String {
    match number.abs() {
        small if small < 1e-9 => "0".into(),
        small if small < 1.0 => format!("{number:.3}"),
        small if small < 10.0 => format!("{number:.2}"),
        small if small < 100.0 => format!("{number:.1}"),
        _ if number < 0.0 => format!("-{}", count(number.abs().round() as u64)),
        _ => count(number.round() as u64),
    }
}

/// `812 µs`, `8.12 ms`, `1.25 s` of microseconds.
pub(super) fn time_us(us: f64) -> String {
    let (number, unit) = match us {
        us if us < 1_000.0 => return format!("{us:.0} µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

/// The same of a round figure: `5 ms`.
pub(super) fn time_tick(us: f64) -> String {
    let (number, unit) = match us {
        us if us < 1_000.0 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    format!("{} {unit}", short(number))
}

/// The same with thousands apart.
pub(super) fn short_count(number: f64) -> String {
    if number < 1_000.0 { short(number) } else { count(number.round() as u64) }
}

/// No more digits than it has: `0.5`, `2`.
pub(super) fn short(number: f64) -> String {
    // Rounded, because ticks are sums of steps.
    format!("{}", (number * 1e4).round() / 1e4)
}

/// `45.2 s`, `12 min 5 s` of seconds.
pub(super) fn span_s(seconds: f64) -> String {
    if seconds < 600.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    if hours > 0 {
        format!("{hours} h {minutes} min")
    } else {
        format!("{minutes} min {} s", seconds % 60)
    }
}

/// `2026-11-21 15:29:33 UTC` of milliseconds since 1970.
pub(super) fn date(ms: u64) -> String {
    let text = crate::generate::time_text(ms.saturating_mul(1_000).min(MICROS_MAX));
    let text = String::from_utf8_lossy(&text).replace('T', " ");
    format!("{} UTC", text.get(..19).unwrap_or_default())
}

/// The end of the year 9999.
const MICROS_MAX: u64 = 253_402_300_799_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([time_us(3.0), time_us(999.0), time_us(8_124.0)], ["3 µs", "999 µs", "8.12 ms"]);
        assert_eq!([time_us(81_240.0), time_us(812_400.0)], ["81.2 ms", "812 ms"]);
        assert_eq!(time_us(1_250_000.0), "1.25 s");
        assert_eq!(
            [decimal(0.0), decimal(0.25), decimal(4.0), decimal(41.26), decimal(-5_000.0)],
            ["0", "0.250", "4.00", "41.3", "-5,000"]
        );
        assert_eq!(
            [span_s(2.04), span_s(725.0), span_s(3_660.0)],
            ["2.0 s", "12 min 5 s", "1 h 1 min"]
        );
        assert_eq!(date(1_748_772_000_123), "2025-06-01 10:00:00 UTC");
        assert_eq!(date(u64::MAX), "9999-12-31 23:59:59 UTC");
    }
}
