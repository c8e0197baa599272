//! What may stand in a subject. Invariant: an accepted identifier can neither add a token to a subject
//! nor end a protocol line. Rules: contract `cdc.md` 5.2, token safety.

/// Longest company id, bytes.
pub const COMPANY_BYTES_MAX: usize = 48;
/// Longest agent or chat id, bytes.
pub const TOKEN_BYTES_MAX: usize = 128;

/// `[A-Za-z0-9_-]{1,48}`.
pub fn is_company(id: &[u8]) -> bool {
    fits(id, COMPANY_BYTES_MAX, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// `[A-Za-z0-9_@:+=-]{1,128}`.
pub fn is_agent(id: &[u8]) -> bool {
    fits(id, TOKEN_BYTES_MAX, is_token_byte)
}

/// As an agent, and dots inside: none first, last or doubled.
pub fn is_chat(id: &[u8]) -> bool {
    fits(id, TOKEN_BYTES_MAX, |b| is_token_byte(b) || b == b'.')
        && !id.starts_with(b".")
        && !id.ends_with(b".")
        && !id.windows(2).any(|pair| pair == b"..")
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'@' | b':' | b'+' | b'=' | b'-')
}

fn fits(id: &[u8], bytes_max: usize, is_allowed: impl Fn(u8) -> bool) -> bool {
    !id.is_empty() && id.len() <= bytes_max && id.iter().all(|b| is_allowed(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_leave_its_token_is_accepted() {
        for bad in ["", "a b", "a*", ">", "a\tb", "a\r\nPUB x", "é", "a\0", "a/b"] {
            let bad = bad.as_bytes();
            assert!(!is_company(bad) && !is_agent(bad) && !is_chat(bad), "{bad:?}");
        }
        assert!(!is_company(b"a.b") && !is_agent(b"a.b") && is_chat(b"62811@s.whatsapp.net"));
        assert!(!is_chat(b".a") && !is_chat(b"a.") && !is_chat(b"a..b"));
        assert!(!is_company(b"a@b") && is_agent(b"a@b:c+d=e-f_g"));
        assert!(is_company(&[b'a'; 48]) && !is_company(&[b'a'; 49]));
        assert!(is_agent(&[b'a'; 128]) && !is_agent(&[b'a'; 129]) && !is_chat(&[b'a'; 129]));
    }
}
