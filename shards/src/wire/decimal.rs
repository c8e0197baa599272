//! Unsigned decimals as protocols write them: digits only, leading zeros allowed. Invariant: `parse`
//! undoes `push`, and neither allocates.

use bytes::BytesMut;

/// Digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

/// The value of `digits`, or `None` if it is empty, holds anything but digits, or overflows.
pub(crate) fn parse(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    if digits.len() < DIGITS_MAX {
        return parse_short(digits);
    }
    digits.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Nineteen digits cannot overflow, so the loop needs no checks.
fn parse_short(digits: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// Appends `value` without going through `fmt`.
pub(crate) fn push(out: &mut BytesMut, value: u64) {
    let mut digits = [0_u8; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Digits `push` writes for `value`.
pub(crate) fn len(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signs_blanks_and_overflow_are_refused() {
        for bad in
            ["", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "99999999999999999999"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse(b"005"), Some(5));
        assert_eq!(parse(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse(b"0000000000000000000000000000007"), Some(7));
    }

    proptest! {
        #[test]
        fn parse_undoes_push(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            push(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            let text = value.to_string();
            prop_assert_eq!(out.as_ref(), text.as_bytes());
            prop_assert_eq!(parse(&out), Some(value));
        }
    }
}
