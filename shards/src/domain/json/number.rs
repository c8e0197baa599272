//! The whole number that a JSON number stands for: `100`, `1.0e2` and `10000e-2` are the same one. Pure,
//! exact, allocates nothing. Invariant: the text is a number by the grammar; the cursor has passed it.

/// What a JSON number is, read as a whole one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whole {
    /// It has a fraction.
    Not,
    /// Whole, and this.
    Is(i128),
    /// Whole, and further from zero than any type of ours holds.
    Beyond,
}

/// Digits that always fit into an `i64`.
const DIGITS_PLAIN: usize = 18;
/// Digits that always fit into an `i128`.
const DIGITS_MAX: i64 = 38;

/// Reads the text of a number.
pub(crate) fn whole(text: &[u8]) -> Whole {
    let (digits, is_negative) = match text {
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    let magnitude = if digits.len() <= DIGITS_PLAIN && digits.iter().all(u8::is_ascii_digit) {
        Whole::Is(i128::from(
            digits.iter().fold(0, |value: i64, d| value * 10 + i64::from(d - b'0')),
        ))
    } else {
        magnitude(digits)
    };
    match magnitude {
        Whole::Is(value) if is_negative => Whole::Is(-value),
        other => other,
    }
}

/// Long ones, and those with a point or an exponent.
fn magnitude(text: &[u8]) -> Whole {
    let exponent_at = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = match exponent_at {
        Some(at) => (&text[..at], exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let point_at = mantissa.iter().position(|byte| *byte == b'.');
    let (before, after) = match point_at {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let digits = || before.iter().chain(after).map(|digit| digit - b'0');
    let zeros_behind = digits().rev().take_while(|digit| *digit == 0).count();
    let zeros_ahead = digits().take_while(|digit| *digit == 0).count();
    let all = before.len() + after.len();
    if zeros_ahead == all {
        return Whole::Is(0);
    }
    // The digits that count, times ten to this.
    let scale = exponent.saturating_sub(after.len() as i64).saturating_add(zeros_behind as i64);
    if scale < 0 {
        return Whole::Not;
    }
    let counting = all - zeros_behind - zeros_ahead;
    if scale.saturating_add(counting as i64) > DIGITS_MAX {
        return Whole::Beyond;
    }
    let value = digits()
        .skip(zeros_ahead)
        .take(counting)
        .fold(0, |value: i128, digit| value * 10 + i128::from(digit));
    Whole::Is(value * 10_i128.pow(scale as u32))
}

/// The exponent, with its sign; so large that nothing is changed by being larger, if it is larger.
fn exponent(text: &[u8]) -> i64 {
    let (digits, sign) = match text {
        [b'-', digits @ ..] => (digits, -1),
        [b'+', digits @ ..] => (digits, 1),
        digits => (digits, 1),
    };
    sign * digits.iter().fold(0_i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(1 << 40)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_notation_of_a_whole_number_is_read() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("0.000e99999999999999999999", 0),
            ("1.0", 1),
            ("1e2", 100),
            ("1E+2", 100),
            ("-12.50e1", -125),
            ("10000e-2", 100),
            ("9223372036854775807", i128::from(i64::MAX)),
            ("-9223372036854775808", i128::from(i64::MIN)),
            ("9223372036854775807.000", i128::from(i64::MAX)),
            ("0.00000000000000000000000000000000000000001e41", 1),
        ] {
            assert_eq!(whole(text.as_bytes()), Whole::Is(value), "{text}");
        }
        for text in ["0.5", "1e-1", "-1.00000000000000000000000000001", "1e-99999999999999999999"] {
            assert_eq!(whole(text.as_bytes()), Whole::Not, "{text}");
        }
        for text in ["1e39", "-1e400", "1e99999999999999999999", &"9".repeat(39)] {
            assert_eq!(whole(text.as_bytes()), Whole::Beyond, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_point_moved_behind_an_exponent_changes_nothing(value: i64, shift in 0_usize..25) {
            let digits = value.unsigned_abs().to_string();
            let padded = format!("{digits:0>width$}", width = shift + 1);
            let (before, after) = padded.split_at(padded.len() - shift);
            let sign = if value < 0 { "-" } else { "" };
            let point = if after.is_empty() { "" } else { "." };
            let text = format!("{sign}{before}{point}{after}e{shift}");
            prop_assert_eq!(whole(text.as_bytes()), Whole::Is(i128::from(value)), "{}", text);
        }

        #[test]
        fn a_fraction_is_seen_wherever_a_double_sees_one(numerator: i32, halvings in 0_u32..20) {
            let value = f64::from(numerator) / f64::from(1_u32 << halvings);
            let is_whole = matches!(whole(format!("{value:e}").as_bytes()), Whole::Is(_));
            prop_assert_eq!(is_whole, value.fract() == 0.0);
        }
    }
}
