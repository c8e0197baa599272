//! Publishes as they are counted, under the names of the tester that came before: per subject and
//! company, attempted, published, failed. Written by the sender, read by the metrics page and the
//! progress line. Invariant: attempted = published + failed + under way.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

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

/// What an end counts.
#[derive(Debug)]
pub struct EndSeries {
    /// `loadtest_expected_total`.
    pub expected: IntCounter,
    /// `loadtest_seen_total`.
    pub seen: IntCounter,
    /// `loadtest_latency_seconds`.
    pub latency: Histogram,
    /// `loadtest_lost`.
    pub lost: IntGauge,
    /// `loadtest_faults`, by the label `kind`.
    pub faults: Vec<(&'static str, IntGauge)>,
}

/// Bounds of the buckets, seconds: half a millisecond to a minute.
const LATENCY_BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0,
    60.0,
];

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

    /// The series of an end, on the same page.
    ///
    /// # Errors
    /// An end of that name has them already.
    pub fn end(&self, end: &str) -> Result<EndSeries, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("end", end);
        let counter = |name, help| {
            let counter = IntCounter::with_opts(opts(name, help))?;
            self.registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |opts| {
            let gauge = IntGauge::with_opts(opts)?;
            self.registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let latency = HistogramOpts::new(
            "loadtest_latency_seconds",
            "Planned time of an event to its effect outside.",
        );
        let latency = latency.const_label("end", end).buckets(LATENCY_BOUNDS.to_vec());
        let latency = Histogram::with_opts(latency)?;
        self.registry.register(Box::new(latency.clone()))?;
        let faults = ["duplicated", "out_of_order", "unexpected", "corrupted"].map(|kind| {
            let opts = opts("loadtest_faults", "Effects that are wrong.").const_label("kind", kind);
            Ok::<_, prometheus::Error>((kind, gauge(opts)?))
        });
        Ok(EndSeries {
            expected: counter("loadtest_expected_total", "Effects that must be seen.")?,
            seen: counter("loadtest_seen_total", "Effects that were seen.")?,
            latency,
            lost: gauge(opts("loadtest_lost", "Effects missing when the run was over."))?,
            faults: faults.into_iter().collect::<Result<_, _>>()?,
        })
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
