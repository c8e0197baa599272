//! The limit on what one company may write, where there is one: a bucket of tokens a company, that holds
//! those of a second. Pure. Invariant: over any span a company gets no more than its rate and one bucket.

use crate::clock::SEC;
use hashbrown::HashMap;

/// Buckets kept; beyond, all are full again.
const COMPANIES_MAX: usize = 100_000;

/// A company's bucket, as the moment at which it will be full, monotonic ns.
type FullAt = u64;

/// The limits of a shard.
pub(super) struct Rate {
    /// Time of one event, ns; none without a limit.
    cost: Option<u64>,
    full_at: HashMap<u32, FullAt>,
}

impl Rate {
    /// `rate_max` events a second for each company; 0 for no limit.
    pub(super) fn new(rate_max: u32) -> Self {
        Self { cost: SEC.checked_div(u64::from(rate_max)), full_at: HashMap::new() }
    }

    /// One event more. When to ask again, if the bucket is empty.
    pub(super) fn take(&mut self, tenant: u32, now: u64) -> Result<(), u64> {
        let Some(cost) = self.cost else { return Ok(()) };
        if self.full_at.len() >= COMPANIES_MAX {
            self.full_at.clear();
        }
        let full_at = self.full_at.entry(tenant).or_default();
        let next = (*full_at).max(now) + cost;
        // A bucket is never smaller than one event.
        let latest = now + SEC.max(cost);
        if next > latest {
            return Err(now + (next - latest));
        }
        *full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MS;

    #[test]
    fn a_company_gets_its_second_at_once_and_then_its_rate() {
        let mut rate = Rate::new(100);
        let now = 5 * SEC;
        assert_eq!((0..100).filter(|_| rate.take(1, now).is_ok()).count(), 100);
        assert_eq!(rate.take(1, now), Err(now + 10 * MS), "one event's time");
        assert_eq!(rate.take(2, now), Ok(()), "another company's bucket is its own");
        assert_eq!(rate.take(1, now + 10 * MS), Ok(()));
        assert!(rate.take(1, now + 10 * MS).is_err());
        let later = now + 10 * SEC;
        assert_eq!((0..200).filter(|_| rate.take(1, later).is_ok()).count(), 100, "full again");
    }

    #[test]
    fn the_slowest_rate_lets_one_through_and_none_is_no_limit() {
        let mut rate = Rate::new(1);
        assert_eq!((rate.take(1, 0), rate.take(1, 0)), (Ok(()), Err(SEC)));
        let mut rate = Rate::new(0);
        assert!((0..100_000).all(|_| rate.take(1, 0).is_ok()));
    }
}
