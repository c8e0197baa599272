//! Counts and latencies second by second. Invariant: memory grows with the values that differ in a second, not
//! with its events: one histogram is at work, and a second that is over keeps its filled places alone.

use hdrhistogram::Histogram;

use super::SecondEnd;

/// Events by second.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<u64>);

impl Tally {
    pub(super) fn add(&mut self, second: usize) {
        if self.0.len() <= second {
            self.0.resize(second + 1, 0);
        }
        self.0[second] += 1;
    }

    pub(super) fn at(&self, second: usize) -> u64 {
        self.0.get(second).copied().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A second that is over: values with their counts, and the largest one exactly.
#[derive(Clone, Debug, Default)]
struct Past {
    values: Vec<(u64, u64)>,
    max: u64,
}

/// Latencies by second.
#[derive(Debug)]
pub(super) struct Observed {
    past: Vec<Past>,
    /// The second at work; what is older goes to `past` directly.
    second: usize,
    now: Histogram<u64>,
    max: u64,
}

/// Two digits are enough to draw: 13 KiB at work, 1 KiB to 10 KiB a second kept.
#[expect(clippy::expect_used, reason = "the bounds are constants that the crate accepts")]
fn coarse() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 2).expect("constant bounds are valid")
}

impl Observed {
    pub(super) fn new() -> Self {
        Self { past: Vec::new(), second: 0, now: coarse(), max: 0 }
    }

    pub(super) fn add(&mut self, second: usize, value: u64) {
        if second > self.second {
            self.roll(second);
        }
        if second == self.second {
            self.now.saturating_record(value);
            self.max = self.max.max(value);
        } else {
            let past = &mut self.past[second];
            past.values.push((value, 1));
            past.max = past.max.max(value);
        }
    }

    pub(super) fn merge(&mut self, mut other: Self) {
        let second = self.second.max(other.second) + 1;
        self.roll(second);
        other.roll(second);
        for (past, more) in self.past.iter_mut().zip(other.past) {
            past.values.extend(more.values);
            past.max = past.max.max(more.max);
        }
    }

    /// Points of each second up to the last that has any.
    pub(super) fn points(&self) -> Vec<SecondEnd> {
        let mut work = coarse();
        let current = Past { values: values(&self.now), max: self.max };
        let mut points: Vec<SecondEnd> =
            self.past.iter().chain([&current]).map(|past| past.points(&mut work)).collect();
        while points.last().is_some_and(|point| point.seen == 0) {
            points.pop();
        }
        points
    }

    /// Puts the second at work away; `self.past` holds all before `second` then.
    fn roll(&mut self, second: usize) {
        let over = Past { values: values(&self.now), max: self.max };
        self.past.push(over);
        self.past.resize(second, Past::default());
        self.now.reset();
        (self.second, self.max) = (second, 0);
    }
}

impl Past {
    fn points(&self, work: &mut Histogram<u64>) -> SecondEnd {
        work.reset();
        for &(value, count) in &self.values {
            work.saturating_record_n(value, count);
        }
        // A place of the histogram ends above its values; nothing is above the largest.
        let at = |quantile| work.value_at_quantile(quantile).min(self.max);
        SecondEnd { seen: work.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: self.max }
    }
}

fn values(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let recorded = histogram.iter_recorded();
    recorded.map(|place| (place.value_iterated_to(), place.count_at_value())).collect()
}

#[cfg(test)]
mod tests {
    use super::Observed;

    #[test]
    fn seconds_keep_their_own_latencies_also_when_told_late_and_in_two_parts() {
        let (mut a, mut b) = (Observed::new(), Observed::new());
        (1..=100).for_each(|n| a.add(0, n));
        a.add(3, 5_000);
        a.add(1, 77);
        b.add(1, 99);
        b.add(5, 1_000_000);
        a.merge(b);
        let points = a.points();
        assert_eq!(points.len(), 6);
        assert_eq!(
            (points[0].seen, points[0].p50, points[0].p95, points[0].max),
            (100, 50, 95, 100)
        );
        assert_eq!((points[1].seen, points[1].p50, points[1].max), (2, 77, 99));
        assert_eq!((points[2].seen, points[2].max), (0, 0));
        assert_eq!((points[3].seen, points[3].max), (1, 5_000));
        assert_eq!((points[5].seen, points[5].p50, points[5].max), (1, 1_000_000, 1_000_000));
    }

    #[test]
    fn the_second_at_work_counts_too() {
        let mut observed = Observed::new();
        observed.add(1, 10);
        let points = observed.points();
        assert_eq!(points.len(), 2);
        assert_eq!((points[0].seen, points[1].seen, points[1].p99), (0, 1, 10));
    }
}
