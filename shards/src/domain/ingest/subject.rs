//! What a subject says of an event: `v<version>.<base>.<company>`. Pure. Invariant: the company of a
//! [`Subject`] is safe in SQL and in subjects. Source: contract `ingest.md` sections 1.1 and 3.

use super::refusal::{Reason, Refusal};
use crate::domain::cdc::is_company;

/// A subject in its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// Kind of event without version and company: `chats.upsert`.
    pub base: &'a str,
    /// Version of the payload, 1 or more.
    pub version: u16,
    /// Whose event it is.
    pub company: &'a str,
}

impl<'a> Subject<'a> {
    /// Takes a subject apart: the first token is the version, the last the company, what is between the base.
    pub fn parse(subject: &'a str) -> Result<Self, Refusal> {
        let parts = subject.split_once('.').and_then(|(version, rest)| {
            let (base, company) = rest.rsplit_once('.')?;
            Some((parse_version(version)?, base, company))
        });
        let Some((version, base, company)) = parts else {
            return Err(Refusal::of_subject(Reason::UnknownSubject, subject));
        };
        if !is_company(company.as_bytes()) {
            return Err(Refusal::of_subject(Reason::BadCompany, subject));
        }
        Ok(Self { base, version, company })
    }
}

/// `v1` is 1. One spelling for each version, so that two subjects never mean the same.
pub(crate) fn parse_version(token: &str) -> Option<u16> {
    let digits = token.strip_prefix('v')?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_base_and_company_are_told_apart() {
        let check = |text, base, version, company| {
            assert_eq!(Subject::parse(text), Ok(Subject { base, version, company }));
        };
        check("v1.chats.upsert.ACME", "chats.upsert", 1, "ACME");
        check("v1.history.messages.a-b_9", "history.messages", 1, "a-b_9");
        check("v12.dlq.ACME", "dlq", 12, "ACME");
    }

    #[test]
    fn what_is_no_subject_of_ours_is_refused() {
        for (text, reason) in [
            ("", Reason::UnknownSubject),
            ("v1", Reason::UnknownSubject),
            ("v1.x", Reason::UnknownSubject),
            ("chats.upsert.ACME", Reason::UnknownSubject),
            ("v0.chats.upsert.ACME", Reason::UnknownSubject),
            ("v01.chats.upsert.ACME", Reason::UnknownSubject),
            ("v+1.chats.upsert.ACME", Reason::UnknownSubject),
            ("v70000.chats.upsert.ACME", Reason::UnknownSubject),
            ("v1.chats.upsert.", Reason::BadCompany),
            ("v1.chats.upsert.a b", Reason::BadCompany),
            ("v1.chats.upsert.a*", Reason::BadCompany),
            ("v1.chats.upsert.é", Reason::BadCompany),
        ] {
            assert_eq!(Subject::parse(text).unwrap_err().reason, reason, "{text}");
        }
        let long = format!("v1.chats.upsert.{}", "a".repeat(49));
        assert_eq!(Subject::parse(&long).unwrap_err().reason, Reason::BadCompany);
    }
}
