//! What a run means in a few sentences: sound or not, and what speaks against its figures.

use super::{Counts, End, Results, number};

/// Load before the run above which somebody else was at work.
const LOAD_MAX: f64 = 0.5;
/// Share of the planned rate that counts as reached.
const RATE_SHARE_MIN: f64 = 0.98;
/// Share of the machine's cores in use above which they decide the figures.
const FULL_SHARE: f64 = 0.95;

/// Whether the figures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All came out once, unchanged, in order.
    Clean,
    /// The same, but the figures are to be read with care.
    Doubtful,
    /// Something was lost, doubled, late or wrong.
    Failed,
}

impl Results {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        if !self.is_clean() {
            Verdict::Failed
        } else if self.warnings().is_empty() {
            Verdict::Clean
        } else {
            Verdict::Doubtful
        }
    }

    /// Whether every event came out as it must at every end.
    pub fn is_clean(&self) -> bool {
        self.ends.iter().all(|end| end.counts.is_clean())
    }

    /// Publishes with a PubAck a second.
    pub fn rate(&self) -> f64 {
        if self.sender.elapsed_s > 0.0 {
            self.sender.published as f64 / self.sender.elapsed_s
        } else {
            0.0
        }
    }

    /// The verdict in one sentence.
    pub fn summary(&self) -> String {
        if self.ends.is_empty() {
            return "Only the sending was measured: nobody looked at what came out.".into();
        }
        if !self.is_clean() {
            let faults = self.ends.iter().filter(|end| !end.counts.is_clean()).map(faults);
            return faults.collect::<Vec<_>>().join("; ") + ".";
        }
        let seen = self
            .ends
            .iter()
            .map(|end| format!("{} at {}", number::count(end.counts.seen), end.name));
        let seen = seen.collect::<Vec<_>>().join(", ");
        format!("Every event came out once, unchanged and in order: {seen}.")
    }

    /// What speaks against the figures.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let late = &self.sender.late;
        if self.sender.fell_behind {
            let late = number::time_us(late.max as f64);
            warnings.push(format!(
                "The sender fell behind its plan by {late}: latencies tell of the sender, not of daisi."
            ));
        }
        if let Some(rate) = self.load.rate
            && self.rate() < rate * RATE_SHARE_MIN
        {
            let (got, rate) = (number::decimal(self.rate()), number::decimal(rate));
            warnings.push(format!("{got} events/s were published where {rate} were planned."));
        }
        if let Some(events) = self.load.events
            && self.sender.published < events
        {
            let (published, events) = (number::count(self.sender.published), number::count(events));
            warnings.push(format!("{published} of {events} planned events were published."));
        }
        for end in &self.ends {
            let latency = &end.latency.points;
            if end.counts.expected == 0 {
                warnings.push(format!("Nothing was expected at {}.", end.name));
            } else if !self.sender.fell_behind && late.p99 * 4 > latency.p99 && latency.count > 0 {
                let [late, of] = [late.p99, latency.p99].map(|us| number::time_us(us as f64));
                let name = &end.name;
                warnings.push(format!(
                    "The sender's own lateness (P99 {late}) is more than a quarter of the P99 of {name} ({of})."
                ));
            }
        }
        if self.machine.load_at_start.parse().is_ok_and(|load: f64| load > LOAD_MAX) {
            let load = &self.machine.load_at_start;
            warnings.push(format!(
                "The machine had a load of {load} before the run: others were at work."
            ));
        }
        let (cores, used) = (self.machine.cores as f64, self.cores_in_use());
        if cores > 0.0 && used > cores * FULL_SHARE {
            let (used, cores) = (number::decimal(used), self.machine.cores);
            warnings.push(format!(
                "{used} of {cores} cores were in use: the machine sets the figures."
            ));
        }
        warnings
    }

    /// Cores in use by all who took part, on average over the run.
    pub(super) fn cores_in_use(&self) -> f64 {
        let seconds = self.series.iter().filter(|second| !second.cores.is_empty());
        let (count, sum) = seconds.fold((0_u32, 0.0), |(count, sum), second| {
            (count + 1, sum + second.cores.values().sum::<f64>())
        });
        sum / f64::from(count.max(1))
    }
}

/// What is wrong at an end, as `cdc: 12 lost, 3 duplicated of 1,000`.
fn faults(end: &End) -> String {
    let expected = number::count(end.counts.expected);
    format!("{}: {} of {expected}", end.name, end.counts.faults().join(", "))
}

impl Counts {
    /// What is wrong, as `12 lost` and `3 duplicated`.
    pub(super) fn faults(&self) -> Vec<String> {
        let Self { lost, duplicated, out_of_order, unexpected, corrupted, .. } = *self;
        let faults = [
            (lost, "lost"),
            (duplicated, "duplicated"),
            (out_of_order, "out of order"),
            (unexpected, "unexpected"),
            (corrupted, "corrupted"),
        ];
        let faults = faults.iter().filter(|(count, _)| *count > 0);
        faults.map(|(count, what)| format!("{} {what}", number::count(*count))).collect()
    }
}
