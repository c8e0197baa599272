//! Version of a server and what it can do. Source: release notes of nats-server 2.9 to 2.15; the
//! features were tried against 2.9.10, 2.10.27 and 2.15.1.

use std::fmt;

/// Version of a server. A pre-release counts as its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl ServerVersion {
    /// Oldest server we talk to.
    pub const FLOOR: Self = Self::new(2, 9, 10);
    /// Oldest server without known loss of whole streams on process kills.
    pub const RECOMMENDED: Self = Self::new(2, 10, 23);

    /// From its numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `2.10.27`, with or without a leading `v` and a suffix such as `-beta.1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let version = Self::new(next()?, next()?, next()?);
        numbers.next().is_none().then_some(version)
    }

    /// `action` of CONSUMER.CREATE is obeyed; older servers ignore it.
    #[must_use]
    pub fn has_consumer_action(self) -> bool {
        self >= Self::new(2, 10, 0)
    }

    /// Consumers take several filters; older servers ignore them and deliver everything.
    #[must_use]
    pub fn has_filter_subjects(self) -> bool {
        self >= Self::new(2, 10, 0)
    }

    /// Streams can rewrite subjects before storing.
    #[must_use]
    pub fn has_subject_transform(self) -> bool {
        self >= Self::new(2, 10, 0)
    }

    /// Streams and consumers carry metadata.
    #[must_use]
    pub fn has_metadata(self) -> bool {
        self >= Self::new(2, 10, 0)
    }

    /// A pull on a missing consumer is answered with 503; older servers stay silent.
    #[must_use]
    pub fn has_pull_no_responders(self) -> bool {
        self >= Self::new(2, 10, 0)
    }

    /// `+TERM` may carry a reason; older servers then ignore it altogether.
    #[must_use]
    pub fn has_term_reason(self) -> bool {
        self >= Self::new(2, 10, 4)
    }

    /// `Nats-TTL` is obeyed on streams that allow it; older servers store for ever.
    #[must_use]
    pub fn has_message_ttl(self) -> bool {
        self >= Self::new(2, 11, 0)
    }

    /// Consumers can be paused and have priority groups.
    #[must_use]
    pub fn has_consumer_pause(self) -> bool {
        self >= Self::new(2, 11, 0)
    }

    /// Unknown fields of a request are an error (10025).
    #[must_use]
    pub fn refuses_unknown_fields(self) -> bool {
        self >= Self::new(2, 12, 0)
    }

    /// Atomic batches, with dedup inside them.
    #[must_use]
    pub fn has_atomic_batch(self) -> bool {
        self >= Self::new(2, 12, 1)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text| ServerVersion::parse(text).unwrap();
        assert!(version("2.9.10") < version("2.10.0"));
        assert!(version("v2.12.0-beta.1") == ServerVersion::new(2, 12, 0));
        assert!(!version("2.9.25").has_filter_subjects());
        assert!(!version("2.10.3").has_term_reason() && version("2.10.4").has_term_reason());
        assert!(!version("2.12.0").has_atomic_batch());
        for bad in ["", "2", "2.10", "2.10.x", "2.10.1.1", "-1.0.0"] {
            assert_eq!(ServerVersion::parse(bad), None, "{bad:?}");
        }
    }
}
