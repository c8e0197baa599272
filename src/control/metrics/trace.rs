//! Families of the spans: how many were made, and what became of them.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::MetricFamily;

use super::{Series, Shard, count};
use crate::control::otlp::ExportFigures;

pub(super) fn families(shards: &[Shard], export: &ExportFigures) -> Vec<MetricFamily> {
    let mut made = Series::counter("daisi_trace_spans_total", "Spans handed over for export.");
    let mut dropped = Series::counter(
        "daisi_trace_spans_dropped_total",
        "Spans for which there was no room: the collector is away or too slow.",
    );
    for Shard { snapshot, status } in shards {
        let shard = status.shard.to_string();
        made.add(&[("shard", &shard)], count(snapshot.spans));
        dropped.add(&[("shard", &shard)], count(snapshot.spans_dropped));
    }
    let mut exported =
        Series::counter("daisi_trace_spans_exported_total", "Spans that the collector has.");
    exported.add(&[], count(export.exported.load(Relaxed)));
    let mut lost = Series::counter(
        "daisi_trace_spans_lost_total",
        "Spans that the collector refused for good.",
    );
    lost.add(&[], count(export.lost.load(Relaxed)));
    let mut failures = Series::counter(
        "daisi_trace_export_failures_total",
        "Exports in vain; their spans are sent again.",
    );
    failures.add(&[], count(export.failures.load(Relaxed)));
    [made, dropped, exported, lost, failures].into_iter().map(Series::into_family).collect()
}
