//! One page with everything in it: style and drawings inline, nothing fetched, no script. Invariant: whatever a
//! results file holds reaches the page through [`escape`].

mod chart;
mod plots;

use std::fmt::Write;

use super::table::{Table, is_hidden};
use super::{End, Results, ResultsError, Side, Verdict, number};
use plots::Curve;

const STYLE: &str = include_str!("page/page.css");

/// What HTML and SVG would take for more than text, and what no page may hold, made text.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if is_hidden(c) => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Class of the `at`-th of several that stand side by side.
pub(super) fn colour(at: usize) -> &'static str {
    ["c1", "c2", "c3", "c4", "c6", "c7"][at % 6]
}

/// The page of a run.
pub(super) fn report(results: &Results) -> Result<String, ResultsError> {
    let mut body = header(&format!("Load test: {}", results.name), &results.load.text);
    verdict(results, &mut body);
    tiles(results, &mut body);
    for (title, lines) in results.lists().into_iter().filter(|(title, _)| title != "Warnings") {
        list(&title, &lines, &mut body);
    }
    for table in results.tables() {
        let _ =
            write!(body, "<section><h2>{}</h2>{}</section>", escape(&table.title), table.html());
    }
    let by_percentile = plots::percentiles("Latency by percentile".into(), &curves(results)?);
    let mut charts: Vec<_> = by_percentile.into_iter().collect();
    if !results.series.is_empty() {
        charts.push(plots::throughput(results));
        charts.extend(results.ends.iter().filter_map(|end| plots::latency(results, &end.name)));
        charts.extend(plots::cores(results));
    }
    charts.iter().for_each(|chart| body.push_str(&chart.html()));
    facts(results, &mut body);
    Ok(page(&format!("{}: load test", results.name), &body))
}

/// What a page says first.
pub(super) struct Sentence {
    pub(super) is_bad: bool,
    pub(super) text: String,
}

/// The page of a comparison: the table, then the curves of all runs on one another, end by end.
pub(super) fn compare(
    title: &str,
    sentence: &Sentence,
    notes: &[String],
    table: &Table,
    sides: &[&Side],
) -> Result<String, ResultsError> {
    let runs = || sides.iter().flat_map(|side| &side.runs);
    let mut body =
        header(&format!("Load test: {title}"), runs().next().map_or("", |run| &run.load.text));
    let class = if sentence.is_bad { "failed" } else { "clean" };
    let _ = write!(
        body,
        "<section class=\"verdict {class}\"><b>{}</b></section>",
        escape(&sentence.text)
    );
    let _ = write!(body, "<section><h2>{}</h2>{}</section>", escape(&table.title), table.html());
    if !notes.is_empty() {
        list("Notes", notes, &mut body);
    }
    let mut names: Vec<String> = Vec::new();
    for name in runs().flat_map(|run| run.distributions().into_iter().map(|(name, _)| name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let mut curves = Vec::new();
        for (at, side) in sides.iter().enumerate() {
            for (number, run) in side.runs.iter().enumerate() {
                let found = run.distributions().into_iter().find(|(other, _)| *other == name);
                let Some((_, distribution)) = found else { continue };
                let class = side_class(at, side).to_owned();
                let histogram = distribution.values()?;
                let (name, legend) = (run_name(side, number), side.name.clone());
                curves.push(Curve { name, legend, class, histogram });
            }
        }
        let title = match name.as_str() {
            "ack" => "Latency by percentile to the PubAck".into(),
            "sender-late" => "Lateness of the sender by percentile".into(),
            end => format!("Latency by percentile at {end}"),
        };
        let charts = [plots::percentiles(title, &curves), plots::latency_of_sides(sides, &name)];
        charts.iter().flatten().for_each(|chart| body.push_str(&chart.html()));
    }
    Ok(page(&format!("{title}: load test"), &body))
}

fn run_name(side: &Side, number: usize) -> String {
    if side.runs.len() == 1 { side.name.clone() } else { format!("{} {}", side.name, number + 1) }
}

/// Colour of a side; its runs are thin where there are several.
fn side_class(at: usize, side: &Side) -> &'static str {
    let classes = [
        ["c8", "c8 thin"],
        ["c1", "c1 thin"],
        ["c2", "c2 thin"],
        ["c3", "c3 thin"],
        ["c4", "c4 thin"],
    ];
    classes[at % classes.len()][usize::from(side.runs.len() > 1)]
}

fn header(title: &str, text: &str) -> String {
    format!("<header><h1>{}</h1><p>{}</p></header>", escape(title), escape(text))
}

fn verdict(results: &Results, out: &mut String) {
    let (class, word) = match results.verdict() {
        Verdict::Clean => ("clean", "Clean"),
        Verdict::Doubtful => ("doubtful", "Clean, with warnings"),
        Verdict::Failed => ("failed", "Failed"),
    };
    let summary = escape(&results.summary());
    let _ = write!(out, "<section class=\"verdict {class}\"><b>{word}</b><p>{summary}</p>");
    let warnings = results.warnings();
    if !warnings.is_empty() {
        out.push_str("<ul>");
        warnings.iter().for_each(|line| {
            let _ = write!(out, "<li>{}</li>", escape(line));
        });
        out.push_str("</ul>");
    }
    out.push_str("</section>");
}

/// The headline figures: the sending, then a row for each end.
fn tiles(results: &Results, out: &mut String) {
    let sender = &results.sender;
    let [rate, published] = [results.rate(), sender.published as f64].map(number::decimal);
    let of_rate = results.load.rate.map(|rate| format!("{} planned", number::decimal(rate)));
    let elapsed = number::span_s(sender.elapsed_s);
    let mut tiles = vec![
        tile("published", &format!("{rate}/s"), &of_rate.unwrap_or_default()),
        tile("events", &published, &format!("in {elapsed}")),
    ];
    for (name, points) in [("PubAck, P99", results.ack.points), ("sender late, P99", sender.late)] {
        let max = format!("{} at most", number::time_us(points.max as f64));
        tiles.push(match points.count {
            0 => tile(name, "–", ""),
            _ => tile(name, &number::time_us(points.p99 as f64), &max),
        });
    }
    for process in results.processes.iter().take(1) {
        let cpu = format!("{} µs", number::decimal(process.cpu_us_per_event));
        let memory = format!("{} MiB", number::decimal(process.rss_mib_max));
        tiles.push(tile(&format!("CPU an event, {}", process.name), &cpu, &memory));
    }
    let cores = format!("of {}", results.machine.cores);
    tiles.push(tile("cores in use by all", &number::decimal(results.cores_in_use()), &cores));
    let _ = write!(out, "<div class=\"tiles\">{}</div>", tiles.concat());
    results.ends.iter().for_each(|end| end_tiles(end, out));
}

fn end_tiles(end: &End, out: &mut String) {
    let (name, text) = (escape(&end.name), escape(&end.text));
    let faults = end.counts.faults();
    let chips: String = match faults.is_empty() {
        true => "<span class=\"chip good\">nothing lost, doubled or out of order</span>".into(),
        false => {
            faults.iter().map(|fault| format!("<span class=\"chip bad\">{fault}</span>")).collect()
        }
    };
    let _ = write!(out, "<p class=\"row\">{name} <i>{text}</i>{chips}</p><div class=\"tiles\">");
    let points = end.latency.points;
    let rate = format!("{}/s", number::decimal(end.events_per_s));
    out.push_str(&tile("seen", &number::count(end.counts.seen), &rate));
    let times =
        [("P50", points.p50), ("P95", points.p95), ("P99", points.p99), ("P99.9", points.p999)];
    for (name, us) in times.into_iter().chain([("max", points.max)]) {
        let value = if points.count == 0 { "–".into() } else { number::time_us(us as f64) };
        out.push_str(&tile(name, &value, ""));
    }
    out.push_str("</div>");
}

fn tile(name: &str, value: &str, more: &str) -> String {
    let [name, value, more] = [name, value, more].map(escape);
    format!("<div class=\"tile\"><span>{name}</span><b>{value}</b><small>{more}</small></div>")
}

fn list(title: &str, lines: &[String], out: &mut String) {
    let class = if title.starts_with("Faults") { " class=\"faults\"" } else { "" };
    let _ = write!(out, "<section{class}><h2>{}</h2><ul>", escape(title));
    lines.iter().for_each(|line| {
        let _ = write!(out, "<li>{}</li>", escape(line));
    });
    out.push_str("</ul></section>");
}

fn facts(results: &Results, out: &mut String) {
    out.push_str("<section><h2>How it was measured</h2><dl>");
    for (name, value) in results.facts() {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    }
    out.push_str("</dl></section>");
}

/// The ends, then what the harness itself adds.
fn curves(results: &Results) -> Result<Vec<Curve>, ResultsError> {
    let ends = results.ends.len();
    let curves =
        results.distributions().into_iter().enumerate().map(|(at, (name, distribution))| {
            let (name, class) = match at.checked_sub(ends) {
                None => (name, colour(at)),
                Some(0) => ("PubAck of the source stream".into(), "c6 dash"),
                Some(_) => ("write by the sender".into(), "c8 dots"),
            };
            let (legend, histogram) = (name.clone(), distribution.values()?);
            Ok(Curve { name, legend, class: class.into(), histogram })
        });
    curves.collect()
}

/// A whole page around `body`.
fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        escape(title)
    )
}
