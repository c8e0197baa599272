//! Rules for texts in the configuration: names of NATS things, addresses, paths. Each says what is wrong
//! in lower case. Sources: NATS server naming rules (reference nats-jetstream.md §2.2), contract cdc.md §5.2.

use std::net::SocketAddr;

use axum::http::{HeaderName, HeaderValue};

/// Anything, but not nothing.
///
/// # Errors
/// The text is empty.
pub fn some(text: &str) -> Result<(), &'static str> {
    if text.is_empty() { Err("empty") } else { Ok(()) }
}

/// Name of a stream, a durable consumer or a bucket: at most 255 bytes of `[A-Za-z0-9_-]`.
///
/// # Errors
/// Another length or another character.
pub fn name(text: &str) -> Result<(), &'static str> {
    some(text)?;
    if text.len() > 255 {
        return Err("longer than 255 bytes");
    }
    token(text)
}

/// Company id: 1 to 48 bytes of `[A-Za-z0-9_-]` (contract §5.2).
///
/// # Errors
/// Another length or another character.
pub fn company(text: &str) -> Result<(), &'static str> {
    some(text)?;
    if text.len() > 48 { Err("longer than 48 bytes") } else { token(text) }
}

/// Name of a table as PostgreSQL gives it: at most 63 bytes of `[A-Za-z0-9_-]`.
///
/// # Errors
/// Another length or another character.
pub fn table(text: &str) -> Result<(), &'static str> {
    some(text)?;
    if text.len() > 63 { Err("longer than 63 bytes") } else { token(text) }
}

fn token(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.bytes().all(plain) { Ok(()) } else { Err("only letters, digits, _ and - are allowed") }
}

/// Subject without wildcards, at most 200 bytes: a prefix to which tokens are added.
///
/// # Errors
/// Empty token, wildcard, blank or control character, too long.
pub fn subject_prefix(text: &str) -> Result<(), &'static str> {
    subject_pattern(text)?;
    if text.contains(['*', '>']) { Err("wildcards are not allowed here") } else { Ok(()) }
}

/// Subject that may hold wildcards, at most 200 bytes.
///
/// # Errors
/// Empty token, misplaced wildcard, blank or control character, too long.
pub fn subject_pattern(text: &str) -> Result<(), &'static str> {
    if text.len() > 200 {
        return Err("longer than 200 bytes");
    }
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("blanks and control characters are not allowed in a subject");
    }
    let tokens: Vec<&str> = text.split('.').collect();
    if tokens.iter().any(|token| token.is_empty()) {
        return Err("a token between dots is empty");
    }
    if tokens.iter().rev().skip(1).any(|&token| token == ">") {
        return Err("> stands before the last token");
    }
    if tokens.iter().any(|token| token.len() > 1 && token.contains(['*', '>'])) {
        return Err("a wildcard must be a token of its own");
    }
    if text.starts_with('$') || text.starts_with("_INBOX") {
        return Err("subjects of the server itself are not allowed");
    }
    Ok(())
}

/// Source subject of the `cdc` stage: a pattern, or the name of a preset.
///
/// # Errors
/// As [`subject_pattern`].
pub fn source_subject(text: &str) -> Result<(), &'static str> {
    subject_pattern(text)
}

/// Address of a NATS server: `[nats://|tls://][user[:password]@]host[:port]`.
///
/// # Errors
/// Another scheme, no host, or a port that is none.
pub fn nats_url(text: &str) -> Result<(), &'static str> {
    server_url(text, &["nats", "tls"])
}

/// Address of a Redis server: `[redis://|rediss://][user:password@]host[:port][/db]`.
///
/// # Errors
/// Another scheme, no host, or a port that is none.
pub fn redis_url(text: &str) -> Result<(), &'static str> {
    server_url(text, &["redis", "rediss"])
}

fn server_url(text: &str, schemes: &[&str]) -> Result<(), &'static str> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if schemes.contains(&scheme) => rest,
        Some(_) => return Err("unknown scheme"),
        None => text,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    split_host_port(host_port, 0).map(|_| ())
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; without a port, `port_default`.
///
/// # Errors
/// No host, or a port that is none.
pub fn split_host_port(text: &str, port_default: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = if let Some(v6) = text.strip_prefix('[') {
        let (host, tail) = v6.split_once(']').ok_or("a bracket is not closed")?;
        if !tail.is_empty() && !tail.starts_with(':') {
            return Err("text between address and port");
        }
        (host, tail.strip_prefix(':'))
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() || host.bytes().any(|byte| byte <= b' ' || byte == b',') {
        return Err("no host name");
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| "not a port")?,
        None => port_default,
    };
    Ok((host.to_owned(), port))
}

/// Address to listen on: `127.0.0.1:9464`, `[::]:9464`.
///
/// # Errors
/// Not an IP address with a port.
pub fn listen(text: &str) -> Result<(), &'static str> {
    text.parse::<SocketAddr>().map(|_| ()).map_err(|_| "not an IP address with a port")
}

/// Address of a collector: `http://host[:port][/path]`, or `https://`.
///
/// # Errors
/// Another scheme, no host, or a port that is none.
pub fn http_url(text: &str) -> Result<(), &'static str> {
    if !text.contains("://") {
        return Err("no scheme: begin with http:// or https://");
    }
    server_url(text, &["http", "https"])
}

/// A number from 0 to 1.
///
/// # Errors
/// Something else.
pub fn ratio(text: &str) -> Result<(), &'static str> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(()),
        Ok(_) => Err("not between 0 and 1"),
        Err(_) => Err("not a number"),
    }
}

/// Headers of an export, as the OpenTelemetry variables have them.
///
/// # Errors
/// A pair without `=`, or a name or value that HTTP does not allow.
pub fn otlp_headers(text: &str) -> Result<(), &'static str> {
    header_pairs(text).map(|_| ())
}

/// Names and values of `name=value,...`; values are percent-decoded.
///
/// # Errors
/// As [`otlp_headers`].
pub fn header_pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or("a header without =")?;
        let value = percent_decoded(value.trim()).ok_or("a % without two hexadecimal digits")?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| "not the name of a header")?;
        HeaderValue::try_from(value.as_str()).map_err(|_| "not the value of a header")?;
        Ok((name.as_str().to_owned(), value))
    };
    pairs.map(pair).collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Do two subject patterns have a subject in common?
#[must_use]
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_that_a_server_would_refuse_are_refused_here() {
        for good in ["cdc.*.*", "wa.>", ">", "a"] {
            assert_eq!(subject_pattern(good), Ok(()), "{good}");
        }
        for bad in ["", "a..b", ".a", "a.", "a b", "a.>.b", "a*.b", "$JS.API.>", "a\n"] {
            assert!(subject_pattern(bad).is_err(), "{bad:?}");
        }
        assert!(subject_prefix("wa.*").is_err());
    }

    #[test]
    fn patterns_overlap_as_the_server_sees_it() {
        for (left, right, expected) in [
            ("cdc.*.*", "cdc.a.b", true),
            ("cdc.*.*", "cdc.a", false),
            ("wa.>", "wa", false),
            ("wa.>", "wa.a.b", true),
            ("sequin.*.*.*.*", "sequin.changes.*.*.*.*", false),
            ("*.b", "a.*", true),
        ] {
            assert_eq!(overlap(left, right), expected, "{left} {right}");
            assert_eq!(overlap(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn headers_of_an_export_are_read_as_the_standard_writes_them() {
        let found = header_pairs("api-key=a%20b%3D, X-Scope = t,").expect("headers");
        let expected = [("api-key", "a b="), ("x-scope", "t")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for bad in ["x", "=v", "a b=v", "a=%", "a=%+1", "a=%0a"] {
            assert!(otlp_headers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_lies_between_nothing_and_all() {
        assert!(ratio("0").is_ok() && ratio("0.25").is_ok() && ratio("1").is_ok());
        assert!(ratio("1.1").is_err() && ratio("-0.1").is_err() && ratio("NaN").is_err());
        assert!(http_url("collector:4318").is_err() && http_url("ftp://c").is_err());
        assert_eq!(http_url("https://collector:4318/otlp"), Ok(()));
    }

    #[test]
    fn server_addresses_are_taken_apart() {
        assert_eq!(split_host_port("h", 4222), Ok(("h".to_owned(), 4222)));
        assert_eq!(split_host_port("[::1]:9", 4222), Ok(("::1".to_owned(), 9)));
        assert!(split_host_port(":9", 1).is_err() && split_host_port("h:x", 1).is_err());
        assert_eq!(nats_url("tls://u:p@h:4222"), Ok(()));
        assert!(nats_url("http://h").is_err());
        assert_eq!(redis_url("h:6379"), Ok(()));
    }
}
