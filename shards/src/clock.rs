//! Time as a value. Nothing below the edge asks a clock: it is told. Invariant: `mono` never goes back.

/// A moment, as seen on both clocks at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic nanoseconds since an arbitrary start of this process.
    pub mono: u64,
    /// Nanoseconds since the Unix epoch, UTC.
    pub wall: u64,
}

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SEC: u64 = 1_000_000_000;

/// Reads a duration as nanoseconds: numbers with units, as in `1m30s`, `250ms`, `1.5h`, `7d`; a bare `0` is
/// zero.
#[must_use]
pub fn parse_nanos(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        nanos = nanos.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    u64::try_from(nanos).ok().filter(|_| !text.is_empty())
}

/// Nanoseconds of a unit that [`parse_nanos`] knows.
#[must_use]
pub fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    })
}

/// `number` times `unit`, exactly: "1.5" of 60 is 90. No floating point, so nothing is rounded up.
#[must_use]
pub fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 {
        return None;
    }
    let parse =
        |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(parse(whole)?.checked_mul(unit)? + parse(fraction)? * unit / divisor)
}
