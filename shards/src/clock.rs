//! Time as a value. Nothing below the edge asks a clock: it is told. Invariant: `mono` never goes back.

/// A moment, as seen on both clocks at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic nanoseconds since an arbitrary start of this process.
    pub mono: u64,
    /// Nanoseconds since the Unix epoch, UTC.
    pub wall: u64,
}

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SEC: u64 = 1_000_000_000;
