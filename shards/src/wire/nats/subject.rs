//! Subjects and patterns: tokens between dots, wildcards, matching. Invariant: a [`Subject`] is never
//! dropped in silence by a server, and a [`Pattern`] is never refused by one. Source: NATS
//! documentation, Subject-Based Messaging; servers 2.9 to 2.15 accept `PUB a..b` and lose the message,
//! so the check is ours.

use bytes::Bytes;
use memchr::memchr;

/// Longest subject we send, in bytes. With a reply of the same length a control line stays under the
/// server's `max_control_line` of 4096.
pub const SUBJECT_BYTES_MAX: usize = 2000;

/// Why bytes are not a subject. Offsets count bytes from the start of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// No bytes at all.
    #[error("empty subject")]
    Empty,
    /// Two dots in a row, or one at either end.
    #[error("empty token at offset {offset}")]
    EmptyToken {
        /// Where the token should be.
        offset: usize,
    },
    /// `*` or `>` where none is allowed.
    #[error("wildcard at offset {offset}")]
    Wildcard {
        /// Where it stands.
        offset: usize,
    },
    /// A blank or a control byte.
    #[error("byte {byte:#04x} at offset {offset} is not allowed")]
    Forbidden {
        /// Where it stands.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// Longer than [`SUBJECT_BYTES_MAX`].
    #[error("subject of {size} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Checks a subject for publishing: no empty token, no blank, no control byte, no wildcard.
///
/// # Errors
/// The first rule that is broken.
pub fn validate_publish(subject: &[u8]) -> Result<(), SubjectError> {
    validate_parts(&[subject])
}

/// As [`validate_publish`], for a subject given as parts that stand one behind the other.
///
/// # Errors
/// The first rule that is broken; offsets count through all parts.
pub fn validate_parts(parts: &[&[u8]]) -> Result<(), SubjectError> {
    let mut offset = 0;
    let mut token_empty = true;
    for &byte in parts.iter().copied().flatten() {
        match byte {
            b'.' if token_empty => return Err(SubjectError::EmptyToken { offset }),
            b'*' | b'>' => return Err(SubjectError::Wildcard { offset }),
            0..=b' ' | 0x7f => return Err(SubjectError::Forbidden { offset, byte }),
            _ => token_empty = byte == b'.',
        }
        offset += 1;
    }
    check_end(offset, token_empty)
}

/// Checks a subject for subscribing: as for publishing, but a token may be `*`, and the last one `>`.
///
/// # Errors
/// The first rule that is broken.
pub fn validate_subscribe(pattern: &[u8]) -> Result<(), SubjectError> {
    let mut offset = 0;
    for token in pattern.split(|&byte| byte == b'.') {
        let is_last = offset + token.len() == pattern.len();
        match token {
            [] if pattern.is_empty() => return Err(SubjectError::Empty),
            [] => return Err(SubjectError::EmptyToken { offset }),
            b"*" => {}
            b">" if is_last => {}
            _ => validate_token(token, offset)?,
        }
        offset += token.len() + 1;
    }
    check_end(pattern.len(), false)
}

fn validate_token(token: &[u8], offset: usize) -> Result<(), SubjectError> {
    for (at, &byte) in token.iter().enumerate() {
        match byte {
            b'*' | b'>' => return Err(SubjectError::Wildcard { offset: offset + at }),
            0..=b' ' | 0x7f => return Err(SubjectError::Forbidden { offset: offset + at, byte }),
            _ => {}
        }
    }
    Ok(())
}

fn check_end(size: usize, token_empty: bool) -> Result<(), SubjectError> {
    match size {
        0 => Err(SubjectError::Empty),
        _ if token_empty => Err(SubjectError::EmptyToken { offset: size }),
        _ if size > SUBJECT_BYTES_MAX => {
            Err(SubjectError::TooLong { size, limit: SUBJECT_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

/// A subject that can be published to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Bytes);

impl Subject {
    /// Checks and wraps.
    ///
    /// # Errors
    /// See [`validate_publish`].
    pub fn new(subject: impl Into<Bytes>) -> Result<Self, SubjectError> {
        let subject = subject.into();
        validate_publish(&subject)?;
        Ok(Self(subject))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The parts between the dots.
    pub fn tokens(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'.')
    }
}

/// A subject that can be subscribed to: `*` stands for one token, a final `>` for one or more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Bytes);

impl Pattern {
    /// Checks and wraps.
    ///
    /// # Errors
    /// See [`validate_subscribe`].
    pub fn new(pattern: impl Into<Bytes>) -> Result<Self, SubjectError> {
        let pattern = pattern.into();
        validate_subscribe(&pattern)?;
        Ok(Self(pattern))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The parts between the dots, wildcards included.
    pub fn tokens(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'.')
    }

    /// Whether `subject` is one this pattern stands for. A subject with an empty token matches nothing.
    #[must_use]
    pub fn matches(&self, subject: &[u8]) -> bool {
        let mut rest = Some(subject);
        for wanted in self.tokens() {
            if wanted == b">" {
                return rest.is_some_and(has_no_empty_token);
            }
            let Some(token) = rest.map(first_token) else { return false };
            if token.is_empty() || (wanted != b"*" && wanted != token) {
                return false;
            }
            rest = rest.and_then(|rest| rest.get(token.len() + 1..));
        }
        rest.is_none()
    }
}

fn first_token(subject: &[u8]) -> &[u8] {
    &subject[..memchr(b'.', subject).unwrap_or(subject.len())]
}

fn has_no_empty_token(subject: &[u8]) -> bool {
    subject.split(|&byte| byte == b'.').all(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_a_server_would_lose_in_silence_are_refused() {
        use SubjectError::{Empty, EmptyToken, Forbidden, Wildcard};
        let cases: [(&[u8], SubjectError); 9] = [
            (b"", Empty),
            (b".a", EmptyToken { offset: 0 }),
            (b"a..b", EmptyToken { offset: 2 }),
            (b"a.", EmptyToken { offset: 2 }),
            (b"foo.*", Wildcard { offset: 4 }),
            (b"foo.>", Wildcard { offset: 4 }),
            (b"a b", Forbidden { offset: 1, byte: b' ' }),
            (b"a\r\nPUB x 0", Forbidden { offset: 1, byte: b'\r' }),
            (b"a\x7f", Forbidden { offset: 1, byte: 0x7f }),
        ];
        for (subject, error) in cases {
            assert_eq!(validate_publish(subject), Err(error), "{}", subject.escape_ascii());
        }
        assert_eq!(validate_publish("f\u{f6}.$JS.API-x_1".as_bytes()), Ok(()));
        assert_eq!(validate_publish(&[b'a'; SUBJECT_BYTES_MAX]), Ok(()));
        assert!(validate_publish(&[b'a'; SUBJECT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn parts_are_judged_as_the_whole_they_make() {
        assert_eq!(validate_parts(&[b"wa.", b"co", b".x"]), Ok(()));
        assert_eq!(
            validate_parts(&[b"wa.", b"", b".x"]),
            Err(SubjectError::EmptyToken { offset: 3 })
        );
        assert_eq!(validate_parts(&[b"wa.", b""]), Err(SubjectError::EmptyToken { offset: 3 }));
    }

    #[test]
    fn a_pattern_has_its_wildcards_in_tokens_of_their_own() {
        for good in ["a", "*", ">", "a.*.c", "a.>", "*.*.>"] {
            assert!(Pattern::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a..b", "a.>.b", ">.a", "a*", "a.b>", "a b", "a.", ".a"] {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn matching_follows_tokens() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.", false),
            ("a.*.c", "a.b.c", true),
            ("*", "a.b", false),
            ("a.>", "a", false),
            ("a.>", "a.", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a.b..c", false),
            (">", "x.y", true),
            ("a.b", "a.bc", false),
        ];
        for (pattern, subject, expected) in cases {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.matches(subject.as_bytes()), expected, "{pattern:?} {subject}");
        }
    }
}
