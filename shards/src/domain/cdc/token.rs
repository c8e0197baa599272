//! What may stand in a subject. Invariant: an accepted identifier can neither add a token to a subject
//! nor end a protocol line. Rules: contract `cdc.md` 5.2, token safety.

/// Longest company id, bytes.
pub const COMPANY_BYTES_MAX: usize = 48;
/// Longest agent or chat id, bytes.
pub const TOKEN_BYTES_MAX: usize = 128;

/// `[A-Za-z0-9_-]{1,48}`.
pub fn is_company(id: &[u8]) -> bool {
    fits(id, COMPANY_BYTES_MAX) && are_all(id, COMPANY)
}

/// `[A-Za-z0-9_@:+=-]{1,128}`.
pub fn is_agent(id: &[u8]) -> bool {
    fits(id, TOKEN_BYTES_MAX) && are_all(id, TOKEN)
}

/// As an agent, and dots inside: none first, last or doubled.
pub fn is_chat(id: &[u8]) -> bool {
    fits(id, TOKEN_BYTES_MAX)
        && (are_all(id, TOKEN)
            || are_all(id, DOTTED)
                && !id.starts_with(b".")
                && !id.ends_with(b".")
                && !id.windows(2).any(|pair| pair == b".."))
}

fn fits(id: &[u8], bytes_max: usize) -> bool {
    !id.is_empty() && id.len() <= bytes_max
}

/// Whether every byte is of this class.
#[inline]
pub(crate) fn are_all(bytes: &[u8], class: u8) -> bool {
    // To the end, without a branch a byte: nearly every identifier is safe.
    bytes.iter().fold(class, |left, byte| left & CLASSES[usize::from(*byte)]) != 0
}

/// Bytes of a company.
const COMPANY: u8 = 1;
/// Bytes of an agent.
const TOKEN: u8 = 2;
/// Bytes of a chat.
const DOTTED: u8 = 4;
/// Printable ASCII without blank and backslash.
pub(crate) const GRAPHIC: u8 = 8;
/// As [`GRAPHIC`], without the colon.
pub(crate) const GRAPHIC_NO_COLON: u8 = 16;

/// The classes of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        classes[byte as usize] = classes_of(byte);
        byte += 1;
    }
    classes
};

const fn classes_of(byte: u8) -> u8 {
    let mut classes = 0;
    if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
        classes |= COMPANY | TOKEN | DOTTED;
    }
    if matches!(byte, b'@' | b':' | b'+' | b'=') {
        classes |= TOKEN | DOTTED;
    }
    if byte == b'.' {
        classes |= DOTTED;
    }
    if byte.is_ascii_graphic() && byte != b'\\' {
        classes |= GRAPHIC;
        if byte != b':' {
            classes |= GRAPHIC_NO_COLON;
        }
    }
    classes
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
