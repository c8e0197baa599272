//! Publishes as they are counted, under the names of the tester that came before: per subject and
//! company, attempted, published, failed. Written by the sender, read by the metrics page and the
//! progress line. Invariant: attempted = published + failed + under way.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

/// The counters, one triple a series.
#[derive(Debug)]
pub struct Meter {
    registry: Registry,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    attempted: IntCounter,
    published: IntCounter,
    failed: IntCounter,
}

/// Sums over all series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Publishes written, repeated ones once more.
    pub attempted: u64,
    /// Publishes with a PubAck.
    pub published: u64,
    /// Publishes given up with their connection; they are attempted again on the next.
    pub failed: u64,
}

impl Meter {
    /// A series for each pair of subject and company, in that order.
    ///
    /// # Errors
    /// A pair that stands twice counts in one; the library refuses nothing else.
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let family = |name: &str, help: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &["subject", "company_id"])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let attempted =
            family("loadgen_messages_attempted_total", "Publishes written to the server.")?;
        let published = family("loadgen_messages_published_total", "Publishes with a PubAck.")?;
        let failed =
            family("loadgen_publish_errors_total", "Publishes that got no PubAck and go again.")?;
        let series = pairs.into_iter().map(|(subject, company)| {
            let of =
                |family: &IntCounterVec| family.get_metric_with_label_values(&[subject, company]);
            Ok(Series {
                attempted: of(&attempted)?,
                published: of(&published)?,
                failed: of(&failed)?,
            })
        });
        let series = series.collect::<Result<_, prometheus::Error>>()?;
        Ok(Self { registry, series })
    }

    /// One more was written.
    pub fn attempt(&self, series: usize) {
        self.count(series, |series| &series.attempted);
    }

    /// One more has its PubAck.
    pub fn publish(&self, series: usize) {
        self.count(series, |series| &series.published);
    }

    /// One more got none.
    pub fn fail(&self, series: usize) {
        self.count(series, |series| &series.failed);
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        let sum = |of: fn(&Series) -> &IntCounter| self.series.iter().map(|s| of(s).get()).sum();
        Totals {
            attempted: sum(|series| &series.attempted),
            published: sum(|series| &series.published),
            failed: sum(|series| &series.failed),
        }
    }

    /// The page for Prometheus, text format 0.0.4.
    ///
    /// # Errors
    /// None in practice: names and labels were accepted at the start.
    pub fn page(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn count(&self, series: usize, of: fn(&Series) -> &IntCounter) {
        if let Some(series) = self.series.get(series) {
            of(series).inc();
        }
    }
}
