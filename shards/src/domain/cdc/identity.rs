//! Who a change is: the dedup identity. Invariant: two deliveries of one change give the same bytes, two
//! changes never do (but for a collision of 128-bit hashes); at most [`IDENTITY_BYTES_MAX`] bytes,
//! printable ASCII without blanks, so it can be a Redis key, a header value and a message id.
//!
//! `<source>:<lsn>:<idx>:<table>:<PK>`, contract `cdc.md` 5.2 and 7. A part that is too long, holds
//! other bytes, or could be read as two parts, is replaced by `~` and its SipHash-128. The published
//! `event_id` lacks source and index, and so takes two changes in one transaction for one.

use super::change::Change;
use super::facts::Ordinal;
use super::sink::Sink;
use super::token::{self, COMPANY_BYTES_MAX};
use siphasher::sip128::{Hasher128, SipHasher24};

/// Longest identity with its company, bytes.
pub const IDENTITY_BYTES_MAX: usize = 256;
/// Longest source that stands as it is, bytes: a UUID and more.
const SOURCE_BYTES_MAX: usize = 48;
/// Longest idempotency key that stands as it is, bytes: base64 of a 20-digit LSN and an index.
const KEY_BYTES_MAX: usize = 40;
/// Longest row key that stands as it is, bytes.
const PK_BYTES_MAX: usize = 80;
const LSN_BYTES_MAX: usize = 20;
const TABLE_BYTES_MAX: usize = 8;
const _: () = assert!(
    COMPANY_BYTES_MAX
        + SOURCE_BYTES_MAX
        + LSN_BYTES_MAX
        + KEY_BYTES_MAX
        + TABLE_BYTES_MAX
        + PK_BYTES_MAX
        + 5
        <= IDENTITY_BYTES_MAX,
    "every part at its longest, and the colons between"
);

/// Keys of the hash. Part of the stored identities: a change of them makes every change look new.
const HASH_KEYS: (u64, u64) = (0x6461_6973_692d_6364, 0x632d_6964_656e_7431);

impl Change<'_> {
    /// Appends `<source>:<lsn>:<idx>:<table>:<PK>`, unique within the company.
    pub fn write_identity(&self, out: &mut impl Sink) {
        let source = self.spans.source.map_or(&b"-"[..], |span| self.texts.get(span));
        put_part(out, source, self.spans.verbatim.source);
        out.put(b":");
        out.put_decimal(self.lsn());
        out.put(b":");
        match self.spans.ordinal {
            Ordinal::Index(index) => out.put_decimal(index),
            Ordinal::Key(span) => {
                let key = self.texts.get(span);
                // A key of digits alone could be taken for an index.
                let is_number = key.iter().all(u8::is_ascii_digit);
                let is_plain = !is_number && is_plain(key, KEY_BYTES_MAX, token::GRAPHIC_NO_COLON);
                put_part(out, key, is_plain);
            }
            Ordinal::RowHash => {
                write_hash(out, &[self.action().as_str().as_bytes(), b":", self.row()]);
            }
        }
        out.put(b":");
        out.put(self.table().as_str().as_bytes());
        out.put(b":");
        put_part(out, self.key(), self.spans.verbatim.key);
    }

    /// Appends `<company>:<identity>`: the `Nats-Msg-Id`, unique among all companies of a stream.
    pub fn write_message_id(&self, out: &mut impl Sink) {
        out.put(self.company());
        out.put(b":");
        self.write_identity(out);
    }

    /// Appends the Redis key `dedup:{<company>}:<identity>`; the braces keep a company's keys on one
    /// node of a cluster.
    pub fn write_dedup_key(&self, out: &mut impl Sink) {
        out.put(b"dedup:{");
        out.put(self.company());
        out.put(b"}:");
        self.write_identity(out);
    }
}

/// Which parts of an identity stand as they are. It is written up to three times, and looked at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verbatim {
    source: bool,
    key: bool,
}

impl Verbatim {
    /// Of these parts; without a source a `-` stands for it.
    pub(crate) fn of(source: Option<&[u8]>, key: &[u8]) -> Self {
        // Only the last part may hold colons, else two identities could read alike.
        let is_source = |source| is_plain(source, SOURCE_BYTES_MAX, token::GRAPHIC_NO_COLON);
        Self {
            source: source.is_none_or(is_source),
            key: is_plain(key, PK_BYTES_MAX, token::GRAPHIC),
        }
    }
}

fn is_plain(part: &[u8], bytes_max: usize, class: u8) -> bool {
    part.len() <= bytes_max && !part.starts_with(b"~") && token::are_all(part, class)
}

fn put_part(out: &mut impl Sink, part: &[u8], is_plain: bool) {
    if is_plain {
        out.put(part);
    } else {
        write_hash(out, &[part]);
    }
}

#[cold]
fn write_hash(out: &mut impl Sink, parts: &[&[u8]]) {
    let mut hasher = SipHasher24::new_with_keys(HASH_KEYS.0, HASH_KEYS.1);
    for part in parts {
        std::hash::Hasher::write(&mut hasher, part);
    }
    let hash = hasher.finish128().as_u128();
    let mut hex = [b'~'; 33];
    for (index, digit) in hex[1..].iter_mut().enumerate() {
        let nibble = (hash >> (124 - 4 * index)) as usize & 15;
        *digit = b"0123456789abcdef"[nibble];
    }
    out.put(&hex);
}
