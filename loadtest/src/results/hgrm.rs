//! The text form of a distribution that plotters of HdrHistogram read: value, percentile, count so far and
//! 1 / (1 - percentile), with a footer. Values are milliseconds, as these plotters label them.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Steps in each half of the way to 100 %.
const STEPS: u32 = 5;
const US_PER_MS: f64 = 1_000.0;

/// The text of a histogram of microseconds.
pub(super) fn text(histogram: &Histogram<u64>) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(STEPS) {
        total += step.count_since_last_iteration();
        let (value, quantile) =
            (step.value_iterated_to() as f64 / US_PER_MS, step.quantile_iterated_to());
        let _ = if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10} {inverse:>14.2}")
        } else {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")
        };
    }
    let (mean, deviation) = (histogram.mean() / US_PER_MS, histogram.stdev() / US_PER_MS);
    let (max, count) = (histogram.max() as f64 / US_PER_MS, histogram.len());
    let (buckets, places) = (histogram.buckets(), 2_048);
    let _ = writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let _ = writeln!(out, "#[Max     = {max:>12.3}, Total count    = {count:>12}]");
    let _ = writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {places:>12}]");
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::text;
    use crate::report::latency_histogram;

    /// Value in ms, percentile, count, and the inverse where there is one.
    fn parsed(text: &str) -> Vec<(f64, f64, u64, Option<f64>)> {
        let lines = text.lines().skip(2).filter(|line| !line.starts_with('#'));
        let fields = lines.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let parse = |fields: Vec<&str>| {
            let inverse = fields.get(3).map(|text| text.parse().unwrap());
            (
                fields[0].parse().unwrap(),
                fields[1].parse().unwrap(),
                fields[2].parse().unwrap(),
                inverse,
            )
        };
        fields.map(parse).collect()
    }

    #[test]
    fn it_parses_back_to_the_same_distribution() {
        let mut histogram = latency_histogram();
        (1..=10_000).for_each(|us| histogram.saturating_record(us * 10));
        let text = text(&histogram);
        let rows = parsed(&text);
        assert!(rows.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].2 <= pair[1].2));
        for (value, quantile, total, inverse) in &rows {
            let expected = histogram.value_at_quantile(*quantile) as f64 / 1e3;
            assert!((value - expected).abs() <= expected * 0.002 + 0.001, "{value} at {quantile}");
            let counted = histogram.count_between(0, (value * 1e3).round() as u64);
            assert_eq!(*total, counted, "at {quantile}");
            let inverse_of = |quantile: f64| 1.0 / (1.0 - quantile);
            assert!(inverse.is_none_or(|i| (i / inverse_of(*quantile) - 1.0).abs() < 0.01));
        }
        let last = rows.last().unwrap();
        assert_eq!((last.1, last.2, last.3), (1.0, 10_000, None));
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }

    #[test]
    fn nothing_recorded_is_still_a_file() {
        assert!(text(&latency_histogram()).contains("Total count    =            0]"));
    }
}
