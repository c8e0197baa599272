//! Where encoders append to. Invariant: what [`Counter`] counts is what a buffer would receive, since
//! one function writes to both.

use bytes::BytesMut;

/// A buffer that grows, or a count.
pub trait Sink {
    /// Appends.
    fn put(&mut self, bytes: &[u8]);

    /// Appends a number in decimal.
    fn put_decimal(&mut self, number: u64) {
        let mut digits = [0; DIGITS_MAX];
        self.put(decimal(number, &mut digits));
    }
}

/// Digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

/// The digits of a number, written two at a time from the right.
#[inline]
fn decimal(number: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let (mut start, mut rest) = (DIGITS_MAX, number);
    while rest >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    // One digit is left, or none: a number of even length ends with a pair, and zero has one.
    if rest > 0 || start == DIGITS_MAX {
        start -= 1;
        digits[start] = b'0' + rest as u8;
    }
    &digits[start..]
}

impl Sink for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Default)]
pub(crate) struct Counter(pub(crate) usize);

impl Sink for Counter {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    #[inline]
    fn put_decimal(&mut self, number: u64) {
        self.0 += number.checked_ilog10().map_or(1, |log| log as usize + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decimals_are_those_of_fmt_and_counted_alike(number: u64, shift in 0_u32..=64) {
            let number = number.checked_shr(shift).unwrap_or(0);
            let (mut out, mut counter) = (Vec::new(), Counter::default());
            out.put_decimal(number);
            counter.put_decimal(number);
            let text = number.to_string();
            prop_assert_eq!(out.as_slice(), text.as_bytes());
            prop_assert_eq!(counter.0, out.len());
        }
    }
}
