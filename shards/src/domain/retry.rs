//! Delays between attempts. Exponential with full jitter, so that many clients of one server that
//! comes back do not return in step (AWS Architecture Blog, "Exponential Backoff And Jitter").
//! Chance is an argument.

/// Grows with each failure from `base` to `cap`, both in nanoseconds.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: u64,
    cap: u64,
    failures: u32,
}

impl Backoff {
    /// Delays drawn from `base/2..base` at first, from `cap/2..cap` at last.
    #[must_use]
    pub fn new(base: u64, cap: u64) -> Self {
        assert!(base > 0 && base <= cap, "a backoff needs 0 < base <= cap");
        Self { base, cap, failures: 0 }
    }

    /// Nanoseconds to wait before the next attempt.
    pub fn next_delay(&mut self, rng: &mut fastrand::Rng) -> u64 {
        let ceiling = self.base.saturating_mul(1 << self.failures.min(20)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        // Half fixed, half drawn: never a hot loop, never in step.
        ceiling / 2 + rng.u64(0..=ceiling / 2)
    }

    /// Something worked: begin anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_never_beyond() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(50, 4_000);
        let delays: Vec<u64> = (0..12).map(|_| backoff.next_delay(&mut rng)).collect();
        assert!(delays[0] <= 50 && delays[0] >= 25, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= 4_000), "{delays:?}");
        assert!(delays[11] >= 2_000, "{delays:?}");
        backoff.reset();
        assert!(backoff.next_delay(&mut rng) <= 50);
    }
}
