//! Bytes of events: numbers, times and texts appended without allocation.
//! Invariant: every slice of the pools is valid inside a JSON string, so nothing is escaped later.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;

/// Words of customers and agents, JSON-escaped; several scripts, emoji (with joiners), escapes.
const WORDS: &[&str] = &[
    "halo",
    "kak,",
    "pesanan",
    "saya",
    "belum",
    "sampai",
    "terima kasih",
    "banyak",
    "mohon",
    "dicek",
    "ya",
    "baik,",
    "kami",
    "bantu",
    "segera",
    "harga",
    "berapa?",
    "masih",
    "ada",
    "stok?",
    "the",
    "order",
    "arrives",
    "tomorrow",
    "please",
    "wait",
    "invoice",
    "#4417",
    "paid",
    "thanks!",
    "\\\"urgent\\\"",
    "C:\\\\kirim",
    "baris\\nbaru",
    "👍",
    "🙏🏽",
    "😂😂",
    "👩‍👩‍👧",
    "🇮🇩",
    "é",
    "über",
    "naïve",
    "Ключ",
    "заказ",
    "готов",
    "مرحبا",
    "شكرا",
    "订单",
    "已发货",
    "谢谢",
    "ありがとう",
    "주문",
    "\\u00e9t\\u00e9",
    "100%",
    "Rp1.250.000",
    "<b>",
    "&",
    "cafe\u{301}",
    "n\u{303}a\u{308}\u{323}",
    "ใช่ค่ะ",
    "שלום, תודה",
    "\u{202b}שקל 5\u{202c}",
    "nggih,",
    "udah di-transfer ya kak 🙏",
    "https://toko.example/p?id=9&x=1",
];

/// Texts and thumbnails to cut from, and the distribution of lengths.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    text: String,
    starts: Vec<usize>,
    base64: String,
    lengths: Vec<usize>,
}

/// Longest text, in bytes. WhatsApp's own bound is 65,536 characters; few come near.
const TEXT_MAX: usize = 6_000;
const THUMBNAIL_MAX: usize = 2_400;

impl Pool {
    pub(super) fn new(rng: &mut Rng, median: f64, sigma: f64) -> Self {
        let (mut text, mut starts) = (String::new(), Vec::new());
        while text.len() < 16 * TEXT_MAX {
            starts.push(text.len());
            text.push_str(WORDS[rng.usize(..WORDS.len())]);
            text.push(' ');
        }
        let bytes: Vec<u8> =
            std::iter::repeat_with(|| rng.u8(..)).take(3 * THUMBNAIL_MAX).collect();
        let lengths = (0..1024).map(|_| log_normal(rng, median, sigma)).collect();
        Self { text, starts, base64: STANDARD.encode(bytes), lengths }
    }

    /// A text of whole words, of a drawn length.
    pub(super) fn text(&self, rng: &mut Rng) -> &str {
        self.text_within(rng, TEXT_MAX)
    }

    /// As [`Self::text`], of about `bytes_max` at most: the word that passes it is whole.
    pub(super) fn text_within(&self, rng: &mut Rng, bytes_max: usize) -> &str {
        let length = self.lengths[rng.usize(..self.lengths.len())].min(bytes_max);
        let first = rng.usize(..self.starts.len() * 3 / 4);
        let start = self.starts[first];
        // Words average about eight bytes; the nearest boundary behind the length ends the text.
        let last = self.starts[first..].partition_point(|s| s - start < length) + first;
        &self.text[start..self.starts[last.min(self.starts.len() - 1)] - 1]
    }

    /// A piece of base64 as large as a preview picture.
    pub(super) fn thumbnail(&self, rng: &mut Rng) -> &str {
        let length = rng.usize(150..THUMBNAIL_MAX / 4) * 4;
        self.base64(rng, length)
    }

    /// As many characters of base64; the pool has 9,600.
    pub(super) fn base64(&self, rng: &mut Rng, length: usize) -> &str {
        let start = rng.usize(..self.base64.len() - length);
        &self.base64[start..start + length]
    }
}

fn log_normal(rng: &mut Rng, median: f64, sigma: f64) -> usize {
    // Box-Muller. The first draw is kept off zero, where the logarithm has no end.
    let (a, b) = (rng.f64().max(1e-12), rng.f64());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    (median * (sigma * normal).exp()).clamp(1.0, TEXT_MAX as f64) as usize
}

/// Appends decimal digits.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends exactly `digits.len()` digits, leading zeros included.
pub(super) fn write_padded(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Appends the base64 of `<lsn>:<idx>`: Sequin's idempotency key.
pub(super) fn put_idempotency_key(out: &mut Vec<u8>, scratch: &mut Vec<u8>, lsn: u64, idx: u32) {
    scratch.clear();
    put_number(scratch, lsn);
    scratch.push(b':');
    put_number(scratch, u64::from(idx));
    let start = out.len();
    out.resize(start + scratch.len().div_ceil(3) * 4, 0);
    // The space is exactly what four characters a started triple take.
    let _ = STANDARD.encode_slice(&scratch, &mut out[start..]);
}

/// `2025-06-01T10:00:00.123456Z`; its first ten bytes are the date.
pub(crate) type TimeText = [u8; 27];

/// The text of a time in microseconds since the epoch.
/// Days to date: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
pub(crate) fn time_text(micros: u64) -> TimeText {
    let seconds = micros / 1_000_000;
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    write_padded(&mut text[..4], era * 400 + year_of_era + u64::from(month <= 2));
    write_padded(&mut text[5..7], month);
    write_padded(&mut text[8..10], day_of_year - (153 * shifted + 2) / 5 + 1);
    write_padded(&mut text[11..13], second / 3_600);
    write_padded(&mut text[14..16], second / 60 % 60);
    write_padded(&mut text[17..19], second % 60);
    write_padded(&mut text[20..26], micros % 1_000_000);
    text
}

#[cfg(test)]
mod tests {
    use super::time_text;

    #[test]
    fn times_are_written_as_sequin_writes_them() {
        let check = |micros, text: &str| assert_eq!(time_text(micros), text.as_bytes());
        check(1_748_772_000_123_456, "2025-06-01T10:00:00.123456Z");
        check(951_782_400_000_000, "2000-02-29T00:00:00.000000Z");
        check(1_767_225_599_999_999, "2025-12-31T23:59:59.999999Z");
    }
}
