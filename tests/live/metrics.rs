//! A page of metrics, taken apart. Source: Prometheus text format 0.0.4; only what daisi writes is read.

/// One series.
#[derive(Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// All series of one scrape.
#[derive(Debug)]
pub struct Metrics(Vec<Series>);

impl Metrics {
    /// Reads a page; panics on a line that is none of the format.
    pub fn parse(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(parse_line).collect())
    }

    /// Sum of all series of that name that have these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |series: &Series| {
            labels
                .iter()
                .all(|(label, value)| series.labels.iter().any(|(l, v)| l == label && v == value))
        };
        let hits = self.0.iter().filter(|series| series.name == name && has(series));
        hits.map(|series| series.value).sum::<f64>().round() as u64
    }

    /// `daisi_ingest_events_total{event_type, result}`; every kind if none is named.
    pub fn ingest(&self, kind: &str, result: &str) -> u64 {
        let labels = [("result", result), ("event_type", kind)];
        let labels = if kind.is_empty() { &labels[..1] } else { &labels };
        self.sum("daisi_ingest_events_total", labels)
    }

    /// Whether there is such a series at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|series| series.name == name)
    }

    /// `cdc_consumer_events_total{table, result}`.
    pub fn events(&self, table: &str, result: &str) -> u64 {
        self.sum("cdc_consumer_events_total", &[("table", table), ("result", result)])
    }

    /// Events with that result, of all tables.
    pub fn result(&self, result: &str) -> u64 {
        self.sum("cdc_consumer_events_total", &[("result", result)])
    }

    /// Dead letters with that reason.
    pub fn dead(&self, reason: &str) -> u64 {
        let labels = [("result", "dead_lettered"), ("reason", reason)];
        self.sum("cdc_consumer_events_total", &labels)
    }

    /// Events taken in.
    pub fn pulled(&self) -> u64 {
        self.sum("daisi_cdc_events_pulled_total", &[])
    }

    /// Events that have an outcome.
    pub fn ended(&self) -> u64 {
        self.sum("cdc_consumer_events_total", &[])
    }

    /// Events without an outcome.
    pub fn in_flight(&self) -> u64 {
        self.sum("daisi_cdc_in_flight_events", &[])
    }

    /// Whether the books balance: pulled less outcomes, returned and in flight, over all shards.
    pub fn residual(&self) -> f64 {
        let name = "daisi_cdc_residual_events";
        self.0.iter().filter(|series| series.name == name).map(|series| series.value.abs()).sum()
    }
}

fn parse_line(line: &str) -> Series {
    let (head, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
    let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (name, value) = label.split_once("=\"").expect("a quoted label");
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    let (name, labels) = (name.to_owned(), labels.collect());
    Series { name, labels, value: value.parse().expect("a number") }
}

#[test]
fn series_are_summed_over_the_labels_that_are_not_named() {
    let page = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nb 5\n";
    let metrics = Metrics::parse(page);
    assert_eq!(metrics.sum("a", &[("x", "1")]), 7);
    assert_eq!(metrics.sum("a", &[("y", "3")]), 4);
    assert_eq!((metrics.sum("b", &[]), metrics.sum("c", &[])), (5, 0));
    assert!(metrics.has("b") && !metrics.has("c"));
}
