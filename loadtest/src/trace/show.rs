//! `loadtest trace`: what a trace holds. Memory is bounded: subjects and companies beyond the first so
//! many count together.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::path::PathBuf;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;

use super::format::{Record, TraceError};
use super::read::{End, Reader};
use super::subject::{Parts, Shape};
use super::time::utc;
use crate::load::{self, LoadError};

const NAMES_MAX: usize = 10_000;
/// Lines of a list on a terminal.
const SHOWN: usize = 20;

/// Which trace.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The trace; a `.part` of a recorder that was killed does as well.
    pub file: PathBuf,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// Reads a whole trace and prints what it holds.
///
/// # Errors
/// The file, or bytes in it that nobody wrote like that.
pub fn show(args: &ShowArgs) -> Result<(), LoadError> {
    let mut reader = Reader::open(&args.file)?;
    let mut holds = Holds::default();
    let fault = loop {
        match reader.next_record() {
            Ok(Some(record)) => holds.enter(&record),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let preface = reader.preface();
    let size = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    let end = end_text(reader.end(), fault.as_ref());
    if args.json {
        let gaps = match reader.end() {
            Some(End::Whole(totals)) => totals.gaps,
            _ => 0,
        };
        let is_whole = matches!(reader.end(), Some(End::Whole(_)));
        let told = json!({
            "preface": preface, "file_bytes": size, "is_whole": is_whole, "end": end, "gaps": gaps,
            "holds": holds.summary(),
        });
        load::tell(&format!("{told}\n"))?;
    } else {
        let mut text = format!(
            "recorded from {} at {}\nby {}, nats-server {}\n{holds}{:.1} MiB on the disk; {end}\n",
            preface.source,
            utc(preface.recorded_ns),
            preface.creator,
            preface.server,
            size as f64 / f64::from(1 << 20)
        );
        if let Some(End::Whole(totals)) = reader.end() {
            totals.gap_texts.iter().for_each(|gap| text += &format!("  gap: {gap}\n"));
        }
        load::tell(&text)?;
    }
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

/// In words: whole, cut off, or broken.
pub(super) fn end_text(end: Option<&End>, fault: Option<&TraceError>) -> String {
    match (end, fault) {
        (_, Some(fault)) => format!("broken: {fault}"),
        (Some(End::Whole(totals)), None) if totals.gaps == 0 => "whole".to_owned(),
        (Some(End::Whole(totals)), None) => {
            format!("whole; gaps, in which events may be missing: {}", totals.gaps)
        }
        (Some(End::Cut { offset, rest }), None) => {
            format!("cut off: {rest} bytes of a frame at byte {offset}, and no end")
        }
        (None, None) => "not read to its end".to_owned(),
    }
}

/// Counts of one name.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Count {
    events: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Holds {
    events: u64,
    bytes: u64,
    first_ns: u64,
    last_ns: u64,
    /// Arrival times behind an earlier event's.
    back: u64,
    with_id: u64,
    companies: HashMap<String, Count>,
    subjects: HashMap<String, Count>,
    sizes: Histogram<u64>,
    second: u64,
    in_second: u64,
    busiest: u64,
    seqs: Option<(u64, u64)>,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            events: 0,
            bytes: 0,
            first_ns: u64::MAX,
            last_ns: 0,
            back: 0,
            with_id: 0,
            companies: HashMap::new(),
            subjects: HashMap::new(),
            sizes: crate::report::latency_histogram(),
            second: 0,
            in_second: 0,
            busiest: 0,
            seqs: None,
        }
    }
}

impl Holds {
    fn enter(&mut self, record: &Record<'_>) {
        let size = record.payload.len() as u64;
        self.events += 1;
        self.bytes += size;
        self.back += u64::from(record.arrived_ns < self.last_ns);
        self.first_ns = self.first_ns.min(record.arrived_ns);
        self.last_ns = self.last_ns.max(record.arrived_ns);
        self.sizes.saturating_record(size);
        let headers = shards::wire::nats::headers::Headers::new(record.headers);
        self.with_id += u64::from(headers.get(b"Nats-Msg-Id").is_some());
        let second = record.arrived_ns / 1_000_000_000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second += 1;
        self.busiest = self.busiest.max(self.in_second);
        if let Some(seq) = record.seq {
            let (first, last) = self.seqs.unwrap_or((seq, seq));
            self.seqs = Some((first.min(seq), last.max(seq)));
        }
        let subject = String::from_utf8_lossy(record.subject);
        let parts = Parts::of(&subject);
        let company = parts.company.clone().map_or("none", |at| &subject[at]);
        count(&mut self.companies, company, size);
        match (parts.company, parts.shape) {
            (Some(at), shape) if shape != Shape::Other => {
                let kind = format!("{}*{}", &subject[..at.start], &subject[at.end..]);
                count(&mut self.subjects, &kind, size);
            }
            _ => count(&mut self.subjects, &subject, size),
        }
    }

    fn span_s(&self) -> f64 {
        self.last_ns.saturating_sub(self.first_ns) as f64 / 1e9
    }

    fn rate(&self) -> f64 {
        self.events as f64 / self.span_s().max(1e-9)
    }

    fn summary(&self) -> serde_json::Value {
        let size = |quantile| self.sizes.value_at_quantile(quantile);
        json!({
            "events": self.events, "payload_bytes": self.bytes,
            "first_ns": if self.events == 0 { 0 } else { self.first_ns }, "last_ns": self.last_ns,
            "span_s": self.span_s(), "out_of_time": self.back, "with_msg_id": self.with_id,
            "seqs": self.seqs, "rate": self.rate(), "rate_max": self.busiest,
            "size": { "p50": size(0.5), "p99": size(0.99), "max": self.sizes.max() },
            "companies": self.companies, "subjects": self.subjects,
        })
    }
}

impl Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.events == 0 {
            return writeln!(f, "no events");
        }
        let size = |quantile| self.sizes.value_at_quantile(quantile);
        writeln!(f, "{} events, {} with a Nats-Msg-Id", self.events, self.with_id)?;
        let (first, last) = (utc(self.first_ns), utc(self.last_ns));
        writeln!(f, "arrived {first} to {last}, {:.1} s", self.span_s())?;
        writeln!(f, "rate {:.0}/s, in the busiest second {}", self.rate(), self.busiest)?;
        if let Some((first, last)) = self.seqs {
            writeln!(f, "stream sequences {first} to {last}")?;
        }
        if self.back > 0 {
            writeln!(f, "{} with a time before that of the event before", self.back)?;
        }
        let (p50, p99, max) = (size(0.5), size(0.99), self.sizes.max());
        writeln!(f, "payload bytes: {} in all, P50 {p50}  P99 {p99}  max {max}", self.bytes)?;
        write_list(f, "companies", &self.companies)?;
        write_list(f, "subjects", &self.subjects)
    }
}

fn count(counts: &mut HashMap<String, Count>, name: &str, size: u64) {
    let is_full = counts.len() >= NAMES_MAX;
    let name = if is_full && !counts.contains_key(name) { "(further ones)" } else { name };
    // Most names are there already.
    let count = match counts.get_mut(name) {
        Some(count) => count,
        None => counts.entry(name.to_owned()).or_default(),
    };
    count.events += 1;
    count.bytes += size;
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    counts: &HashMap<String, Count>,
) -> fmt::Result {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by(|a, b| b.1.events.cmp(&a.1.events).then(a.0.cmp(b.0)));
    let title = format!("{} {title}", rows.len());
    writeln!(f, "{title:<40} {:>10} {:>14}", "events", "bytes")?;
    for (name, count) in rows.iter().take(SHOWN) {
        writeln!(f, "  {name:<38} {:>10} {:>14}", count.events, count.bytes)?;
    }
    match rows.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}
