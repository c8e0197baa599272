//! Subject matching of the simulated server. Written apart from `wire::nats::subject` on purpose: a
//! peer that shared the client's matcher would also share its mistakes.

/// Whether `pattern` (tokens, `*`, `>` at the end) matches the literal `subject`.
pub(crate) fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut wanted = pattern.split(|b| *b == b'.');
    let mut given = subject.split(|b| *b == b'.');
    loop {
        match (wanted.next(), given.next()) {
            (Some(b">"), Some(_)) => return true,
            (Some(w), Some(g)) if w == b"*" || w == g => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether some literal subject is matched by both patterns.
pub(crate) fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

/// Whether every subject of `inner` is one of `outer`.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(i)) if i != ">" => {}
            (Some(o), Some(i)) if o == i => {}
            _ => return false,
        }
    }
}

/// Whether `pattern` may be subscribed to: no empty token, `>` only at the end, no blank.
pub(crate) fn is_valid_pattern(pattern: &[u8]) -> bool {
    let count = pattern.split(|b| *b == b'.').count();
    pattern
        .split(|b| *b == b'.')
        .enumerate()
        .all(|(i, t)| !t.is_empty() && !t.contains(&b' ') && (t != b">" || i + 1 == count))
}

/// Whether `subject` may be published to at all: no empty token. `*` and `>` pass, as on a real server.
pub(crate) fn is_valid_publish(subject: &[u8]) -> bool {
    subject.split(|b| *b == b'.').all(|t| !t.is_empty())
}

/// Whether `name` may name a stream or consumer.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains(['.', '*', '>', ' ', '/', '\\'])
}
