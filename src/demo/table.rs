//! The closing table of the demo, and its verdict.

use std::fmt::Write as _;
use std::io::Write as _;

use super::Run;
use super::books::{Books, IngestBooks};
use super::chat::{Found, TABLES};
use crate::cli::Exit;

/// Prints it; the exit code.
pub(super) fn conclude(
    run: &Run,
    cdc: &Books,
    ingest: &IngestBooks,
    found: &Found,
    left: u64,
) -> Exit {
    let mut text = String::new();
    let _infallible = write_cdc(&mut text, run, cdc);
    let _infallible = write_ingest(&mut text, run, ingest, found);
    let faults = faults(run, cdc, ingest, found, left);
    for fault in &faults {
        let _infallible = writeln!(text, "  fault: {fault}");
    }
    text.push_str(match faults.is_empty() {
        true => {
            "\nevery event accounted for: nothing lost, nothing doubled, order kept, every row there, \
             books balance\n"
        }
        false => "\nNOT in order: see the table; the first faults are listed above\n",
    });
    let _broken = std::io::stdout().lock().write_all(text.as_bytes());
    if faults.is_empty() { Exit::Ok } else { Exit::Failed }
}

// What is not as it must be, in words.
fn faults(run: &Run, cdc: &Books, ingest: &IngestBooks, found: &Found, left: u64) -> Vec<String> {
    let expected = run.ingest.expected();
    let sent = &run.ingest.sent;
    let mut faults = run.cdc.examples.clone();
    let mut must = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    must(run.cdc.outcomes.is_clean(), "cdc: what came out is not what had to");
    must(cdc.balance() && cdc.in_flight == 0, "cdc: the books do not balance");
    must(run.cdc.published == cdc.pulled - cdc.returned, "cdc: published and pulled differ");
    must(left == 0, "events were in flight at the end of the drain");
    must(sent.acked_again == expected.dropped, "ingest: the streams dropped other than the copies");
    must(ingest.balance() && ingest.in_flight == 0, "ingest: the books do not balance");
    must(ingest.pulled - ingest.returned == expected.stored, "ingest: stored and pulled differ");
    must(
        ingest.committed + ingest.duplicate == expected.applied,
        "ingest: other events were applied than were valid",
    );
    must(ingest.dead == expected.dead, "ingest: other events were dead-lettered than were bad");
    let letters = cdc.dead + ingest.dead;
    must(ingest.letters_ended() == letters, "dlq: dead letters without an end");
    must(
        found.exhausted == letters - expected.early && ingest.letters.exhausted == found.exhausted,
        "dlq: letters given up and rows of exhausted_events differ",
    );
    for rows in &found.companies {
        for ((table, expected), found) in TABLES.iter().zip(rows.expected).zip(rows.found) {
            if found != expected {
                faults.push(format!("{}.{table}: {found} rows, expected {expected}", rows.company));
            }
        }
    }
    faults
}

fn row(out: &mut String, left: (&str, u64), right: (&str, u64)) -> std::fmt::Result {
    writeln!(out, "    {:<22} {:>10}      {:<28} {:>10}", left.0, left.1, right.0, right.1)
}

fn write_cdc(out: &mut String, run: &Run, books: &Books) -> std::fmt::Result {
    let (report, outcomes) = (&run.cdc, &run.cdc.outcomes);
    writeln!(out, "\n  CDC: row changes in                     events out")?;
    row(out, ("published by us", report.published), ("delivered on wa.>", outcomes.delivered))?;
    row(out, ("pulled by daisi", books.pulled), ("expected there", outcomes.expected))?;
    row(out, ("  published", books.committed), ("lost", outcomes.lost))?;
    row(out, ("  duplicate", books.duplicate), ("doubled", outcomes.duplicated))?;
    row(out, ("  skipped", books.filtered), ("out of order", outcomes.out_of_order))?;
    row(out, ("  dead-lettered", books.dead), ("unexpected", outcomes.unexpected))?;
    row(out, ("  in flight", books.in_flight), ("corrupted", outcomes.corrupted))?;
    let whole = &report.delivery_us;
    head(out)?;
    times(out, "pull to publish", books.latency_us, "")?;
    let whole = [whole.p50, whole.p95, whole.p99, whole.max];
    times(out, "sent to delivered", whole, "from the planned send time")?;
    writeln!(out, "    throughput           {:>8.0} events/s", report.rate)?;
    reasons(out, &books.reasons)
}

fn write_ingest(
    out: &mut String,
    run: &Run,
    books: &IngestBooks,
    found: &Found,
) -> std::fmt::Result {
    let (sent, expected) = (&run.ingest.sent, run.ingest.expected());
    let (batches, letters) = (books.batches.max(1), &books.letters);
    writeln!(out, "\n  ingest: chat events             counted    must be")?;
    let mut line = |name: &str, count: u64, must: Option<u64>| {
        let must = must.map_or(String::new(), |must| must.to_string());
        writeln!(out, "    {name:<26} {count:>10} {must:>10}")
    };
    line("published by us", sent.acked, Some(expected.stored + expected.dropped))?;
    line("dropped by the streams", sent.acked_again, Some(expected.dropped))?;
    line("pulled by daisi", books.pulled - books.returned, Some(expected.stored))?;
    line("  committed", books.committed, None)?;
    line("  duplicate or stale", books.duplicate, None)?;
    line("  both together", books.committed + books.duplicate, Some(expected.applied))?;
    line("  skipped", books.filtered, Some(0))?;
    line("  dead-lettered", books.dead, Some(expected.dead))?;
    line("  in flight", books.in_flight, Some(0))?;
    line("dlq: retried in the end", letters.committed + letters.duplicate, Some(expected.early))?;
    line("dlq: given up, both halves", letters.exhausted, Some(found.exhausted))?;
    head(out)?;
    times(out, "pull to COMMIT", books.latency_us, "the stage's own histogram, COMMIT answered")?;
    let whole = &found.commit_us;
    let whole = [whole.p50, whole.p95, whole.p99, whole.max];
    times(
        out,
        "sent to committed",
        whole,
        "from the planned send time to the commit record of the row",
    )?;
    let rate = sent.acked as f64 / sent.elapsed.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "    throughput           {rate:>8.0} events/s, {:.1} a transaction",
        books.batch_events as f64 / batches as f64
    )?;
    reasons(out, &books.reasons)?;
    write_rows(out, found)
}

fn write_rows(out: &mut String, found: &Found) -> std::fmt::Result {
    writeln!(out, "\n  rows, counted with SQL / expected")?;
    write!(out, "    {:<10}", "company")?;
    TABLES.iter().try_for_each(|table| write!(out, " {table:>17}"))?;
    writeln!(out, " {:>10}", "contacts")?;
    for rows in &found.companies {
        write!(out, "    {:<10}", rows.company)?;
        for (found, expected) in rows.found.iter().zip(rows.expected) {
            write!(out, " {:>17}", format!("{found} / {expected}"))?;
        }
        writeln!(out, " {:>10}", rows.contacts)?;
    }
    writeln!(out, "    exhausted_events in all schemas: {}", found.exhausted)
}

fn head(out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n    latency, us               P50      P95      P99      max")
}

fn times(out: &mut String, name: &str, us: [u64; 4], how: &str) -> std::fmt::Result {
    let [p50, p95, p99, max] = us;
    let line = format!("    {name:<20} {p50:>8} {p95:>8} {p99:>8} {max:>8}   {how}");
    writeln!(out, "{}", line.trim_end())
}

fn reasons(out: &mut String, reasons: &[(&'static str, u64)]) -> std::fmt::Result {
    let words: Vec<_> = reasons.iter().filter(|(_, count)| *count > 0).collect();
    let words: Vec<_> = words.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    match words.is_empty() {
        true => Ok(()),
        false => writeln!(out, "    dead letters         {}", words.join(", ")),
    }
}
