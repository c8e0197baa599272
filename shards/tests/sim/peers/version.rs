//! Version of a simulated nats-server and the differences between versions that a client can see.

/// `major.minor.patch`, ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u16, pub(crate) u16, pub(crate) u16);

impl Version {
    /// Debian 12's server.
    pub(crate) const V2_9: Self = Self(2, 9, 10);
    /// Debian 13's server.
    pub(crate) const V2_10: Self = Self(2, 10, 27);
    /// The newest server the reference was observed on.
    pub(crate) const V2_15: Self = Self(2, 15, 1);

    /// Whether this is `major.minor` 2.`minor` or newer.
    pub(crate) fn since(self, minor: u16) -> bool {
        self >= Self(2, minor, 0)
    }

    /// From 2.11.11 and 2.12.2 a no_wait pull ends with 404 even after messages; before with 408.
    pub(crate) fn no_wait_ends_with_404(self) -> bool {
        self >= Self(2, 12, 2) || (self >= Self(2, 11, 11) && !self.since(12))
    }

    /// From 2.11.5 a pull with a heartbeat that exceeds `max_waiting` gets no 409.
    pub(crate) fn max_waiting_is_silent(self) -> bool {
        self >= Self(2, 11, 5)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
