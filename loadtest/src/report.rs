//! What a run has shown, as a table for people and as JSON for machines.

use std::fmt::{self, Display};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::check::Checker;
use crate::results::Spread;
use crate::send::Sent;

/// Outcomes of the events of a run, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Told by the generator, duplicates not counted.
    pub sent: u64,
    /// Of these, to be forwarded.
    pub expected: u64,
    /// Messages that came out, all kinds.
    pub delivered: u64,
    /// Events that came out as they must, first copies.
    pub forwarded: u64,
    /// Events that did not come out.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Behind a newer version of their row or chat.
    pub out_of_order: u64,
    /// Behind a later event of their company.
    pub out_of_order_in_company: u64,
    /// Messages that nobody was to see, or that nobody sent.
    pub unexpected: u64,
    /// Forwarded with other bytes in `row_data`.
    pub corrupted: u64,
    /// Forwarded on another subject, or under another event id.
    pub misrouted: u64,
}

impl Outcomes {
    /// Whether everything came out once, unchanged, in order, and nothing else did.
    pub fn is_clean(&self) -> bool {
        let Self { lost, duplicated, out_of_order, out_of_order_in_company, .. } = self;
        let Self { unexpected, corrupted, misrouted, .. } = self;
        [lost, duplicated, out_of_order, out_of_order_in_company, unexpected, corrupted, misrouted]
            .iter()
            .all(|count| **count == 0)
    }
}

/// An empty histogram: 1 us to 10 minutes, three digits.
#[expect(clippy::expect_used, reason = "the bounds are constants that the crate accepts")]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid")
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What became of the events.
    pub outcomes: Outcomes,
    /// Events published with a PubAck, duplicates included.
    pub published: u64,
    /// Acknowledged events a second, from first to last.
    pub rate: f64,
    /// Seconds from the first planned time to the last PubAck.
    pub elapsed_s: f64,
    /// Publishes repeated.
    pub resent: u64,
    /// Connections made anew by the sender.
    pub reconnects: u64,
    /// The most the sender lagged behind its plan, microseconds.
    pub behind_us_max: u64,
    /// Planned time to the PubAck of the source stream, microseconds.
    pub ack_us: Spread,
    /// Planned time to delivery, microseconds.
    pub delivery_us: Spread,
    /// The first faults in words.
    pub examples: Vec<String>,
}

impl Report {
    /// Of what was sent and what was seen.
    pub fn new(sent: &Sent, checker: &Checker) -> Self {
        let elapsed_s = sent.elapsed.as_secs_f64();
        Self {
            outcomes: checker.outcomes(),
            published: sent.acked,
            rate: sent.acked as f64 / elapsed_s.max(1e-9),
            elapsed_s,
            resent: sent.resent,
            reconnects: sent.reconnects,
            behind_us_max: sent.behind_max.as_micros() as u64,
            ack_us: Spread::of(&sent.ack_us),
            delivery_us: Spread::of(checker.latency_us()),
            examples: checker.examples(),
        }
    }

    /// One line of JSON.
    ///
    /// # Errors
    /// None in practice: all fields are numbers and text.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcomes { sent, expected, delivered, forwarded, lost, duplicated, .. } = self.outcomes;
        let Outcomes { out_of_order, out_of_order_in_company, .. } = self.outcomes;
        let Outcomes { unexpected, corrupted, misrouted, .. } = self.outcomes;
        let rows = [
            ("sent", sent),
            ("expected", expected),
            ("delivered", delivered),
            ("forwarded", forwarded),
            ("lost", lost),
            ("duplicated", duplicated),
            ("out of order in row", out_of_order),
            ("out of order in company", out_of_order_in_company),
            ("unexpected", unexpected),
            ("corrupted", corrupted),
            ("misrouted", misrouted),
            ("resent by the sender", self.resent),
            ("reconnects of the sender", self.reconnects),
            ("sender behind, us max", self.behind_us_max),
        ];
        for (name, count) in rows {
            writeln!(f, "{name:<26} {count:>12}")?;
        }
        writeln!(f, "{:<26} {:>12.0}", "rate, events/s", self.rate)?;
        writeln!(f, "{:<26} {:>12.3}", "elapsed, s", self.elapsed_s)?;
        let head = ["latency, us", "p50", "p90", "p99", "p99.9", "max"];
        writeln!(
            f,
            "{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}",
            head[0], head[1], head[2], head[3], head[4], head[5]
        )?;
        for (name, l) in [("  to PubAck", &self.ack_us), ("  to delivery", &self.delivery_us)] {
            let Spread { p50, p90, p95, p99, p999, max, .. } = l;
            writeln!(f, "{name:<14}{p50:>10}{p90:>10}{p95:>10}{p99:>10}{p999:>10}{max:>10}")?;
        }
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}
