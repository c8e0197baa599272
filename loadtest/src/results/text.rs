//! A run in tables: for a terminal, and as Markdown.

use std::fmt::Write;

use super::table::{Cell, Table, Tone, markdown, plain};
use super::{Counts, End, Results, Spread, Verdict, number};

impl Results {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out =
            format!("{}  {}\n{}\n\n", plain(&self.name), self.mark(), plain(&self.summary()));
        for (name, value) in self.facts() {
            let _ = writeln!(out, "{name:<10} {}", plain(&value));
        }
        for table in self.tables() {
            let _ = write!(out, "\n{}\n{}", table.title, table.text());
        }
        for (title, lines) in self.lists() {
            let _ = writeln!(out, "\n{title}");
            lines.iter().for_each(|line| {
                let _ = writeln!(out, "  {}", plain(line));
            });
        }
        out
    }

    /// For a comment or a page of documentation.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "### {} {}\n\n{}\n\n",
            markdown(&self.name),
            self.mark(),
            markdown(&self.summary())
        );
        for (name, value) in self.facts() {
            let _ = writeln!(out, "- {name}: {}", markdown(&value));
        }
        for table in self.tables() {
            let _ = write!(out, "\n**{}**\n\n{}", table.title, table.markdown());
        }
        for (title, lines) in self.lists() {
            let _ = write!(out, "\n**{title}**\n\n");
            lines.iter().for_each(|line| {
                let _ = writeln!(out, "- {}", markdown(line));
            });
        }
        out
    }

    /// The verdict in a word.
    pub(super) fn mark(&self) -> &'static str {
        match self.verdict() {
            Verdict::Clean => "clean",
            Verdict::Doubtful => "clean, with warnings",
            Verdict::Failed => "FAILED",
        }
    }

    /// What was run, on what.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let (machine, sender) = (&self.machine, &self.sender);
        let versions = self.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let published = number::count(sender.published);
        let elapsed = number::span_s(sender.elapsed_s);
        let mut sent = format!("{published} in {elapsed}, {}/s", number::decimal(self.rate()));
        for (count, what) in [
            (sender.dropped, "known to the stream already"),
            (sender.resent, "sent again"),
            (sender.reconnects, "reconnects"),
        ] {
            if count > 0 {
                let _ = write!(sent, ", {} {what}", number::count(count));
            }
        }
        let cores = if machine.cores == 1 { "core" } else { "cores" };
        vec![
            ("load", self.load.text.clone()),
            ("published", sent),
            ("started", number::date(self.started_ms)),
            (
                "machine",
                format!(
                    "{}, {} {cores}, Linux {}, load {} before",
                    machine.cpu, machine.cores, machine.kernel, machine.load_at_start
                ),
            ),
            ("versions", versions.collect::<Vec<_>>().join(", ")),
            ("command", self.command.clone()),
            ("harness", self.harness_text()),
        ]
    }

    pub(super) fn tables(&self) -> Vec<Table> {
        let tables = [self.ends_table(), self.latency_table(), self.processes_table()];
        tables.into_iter().filter(|table| !table.is_empty()).collect()
    }

    /// Warnings, notes and faults.
    pub(super) fn lists(&self) -> Vec<(String, Vec<String>)> {
        let faults =
            self.ends.iter().map(|end| (format!("Faults at {}", end.name), end.examples.clone()));
        let lists =
            [("Warnings".to_owned(), self.warnings()), ("Notes".to_owned(), self.notes.clone())];
        lists.into_iter().chain(faults).filter(|(_, lines)| !lines.is_empty()).collect()
    }

    fn ends_table(&self) -> Table {
        let head = [
            "end",
            "expected",
            "seen",
            "lost",
            "duplicated",
            "out of order",
            "unexpected",
            "corrupted",
            "events/s",
            "looked for",
        ];
        let mut table = Table::new("What came out", &head).with_words(1);
        for End { name, text, counts, events_per_s, .. } in &self.ends {
            let Counts { expected, seen, lost, duplicated, out_of_order, unexpected, corrupted } =
                *counts;
            let fault = |count: u64| {
                Cell::new(number::count(count), if count == 0 { Tone::Faint } else { Tone::Bad })
            };
            let mut cells: Vec<Cell> = vec![
                name.as_str().into(),
                number::count(expected).into(),
                number::count(seen).into(),
            ];
            cells.extend([lost, duplicated, out_of_order, unexpected, corrupted].map(fault));
            cells.extend([number::decimal(*events_per_s).into(), text.as_str().into()]);
            table.row(cells);
        }
        table
    }

    fn latency_table(&self) -> Table {
        let head = [
            "from the planned time to",
            "events",
            "P50",
            "P90",
            "P95",
            "P99",
            "P99.9",
            "max",
            "mean",
        ];
        let mut table = Table::new("Latency", &head);
        let ends = self.ends.iter().map(|end| (end.name.as_str(), end.latency.points));
        let own = [("PubAck", self.ack.points), ("write by the sender", self.sender.late)];
        for (name, Spread { count, mean, p50, p90, p95, p99, p999, max }) in ends.chain(own) {
            let points = [p50, p90, p95, p99, p999, max].map(|us| us as f64);
            let mut cells: Vec<Cell> = vec![name.into(), number::count(count).into()];
            if count == 0 {
                cells.extend(std::iter::repeat_n(Cell::new("–", Tone::Faint), 7));
            } else {
                cells.extend(points.into_iter().chain([mean]).map(|us| number::time_us(us).into()));
            }
            table.row(cells);
        }
        table
    }

    fn processes_table(&self) -> Table {
        let head = ["process", "CPU", "CPU an event", "cores", "memory at most"];
        let mut table = Table::new("Processes", &head);
        let elapsed_s = self.sender.elapsed_s.max(1e-9);
        for process in &self.processes {
            table.row([
                process.name.as_str().into(),
                format!("{:.2} s", process.cpu_s).into(),
                format!("{:.1} µs", process.cpu_us_per_event).into(),
                format!("{:.2}", process.cpu_s / elapsed_s).into(),
                format!("{:.1} MiB", process.rss_mib_max).into(),
            ]);
        }
        table
    }

    /// What measuring cost.
    fn harness_text(&self) -> String {
        let harness = &self.harness;
        let mut text = format!(
            "{} µs of CPU an event, so a core of it carries {} events/s",
            number::decimal(harness.cpu_us_per_event),
            number::decimal(harness.events_per_core)
        );
        if harness.observe_late.count > 0 {
            let late = number::time_us(harness.observe_late.p99 as f64);
            let _ = write!(text, "; its observers enter a batch within {late} (P99)");
        }
        let mut threads: Vec<_> = harness.threads.iter().filter(|(_, us)| **us >= 0.01).collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        if !threads.is_empty() {
            let threads =
                threads.iter().map(|(name, us)| format!("{name} {} µs", number::decimal(**us)));
            let _ = write!(text, "; by thread: {}", threads.collect::<Vec<_>>().join(", "));
        }
        text
    }
}
