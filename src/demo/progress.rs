//! How the demo goes: on a terminal one block that is drawn over, elsewhere a few lines now and then.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::books::{Books, IngestBooks};
use crate::control::Board;

// Every second a line; on a terminal one block that is drawn over.
pub(super) fn show(
    board: Arc<Board>,
    ended: Arc<AtomicBool>,
    live: bool,
) -> Result<std::thread::JoinHandle<()>, String> {
    let started = Instant::now();
    let draw = move || {
        let mut last = [0; 2];
        let (mut drawn, mut next) = (0, Duration::ZERO);
        let step = Duration::from_millis(if live { 250 } else { 2_000 });
        while !ended.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            if started.elapsed() < next {
                continue;
            }
            let (cdc, ingest) = (Books::of(&board), IngestBooks::of(&board));
            let pulled = [cdc.pulled, ingest.pulled];
            let rates = [0, 1].map(|at| (pulled[at] - last[at]) as f64 / step.as_secs_f64());
            last = pulled;
            let seconds = started.elapsed().as_secs();
            let text = match live {
                true => block(&cdc, &ingest, seconds, rates),
                false => lines(&cdc, &ingest, seconds, rates),
            };
            let mut out = std::io::stdout().lock();
            if live && drawn > 0 {
                let _broken = write!(out, "\x1b[{drawn}A\x1b[J");
            }
            drawn = text.lines().count();
            let _broken = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            next = started.elapsed() + step;
        }
    };
    let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(draw);
    thread.map_err(|error| error.to_string())
}

fn lines(cdc: &Books, ingest: &IngestBooks, seconds: u64, rates: [f64; 2]) -> String {
    let [p50, p95, p99, _] = cdc.latency_us;
    let [i50, i95, i99, _] = ingest.latency_us;
    format!(
        "{seconds:>4} s  cdc    {:>6.0}/s  in {:>8}  published {:>8}  duplicate {:>5}  skipped {:>5}  \
         dead {:>4}  in flight {:>4}  P50 {p50} P95 {p95} P99 {p99} us\n        \
         ingest {:>6.0}/s  in {:>8}  committed {:>8}  duplicate {:>5}  skipped {:>5}  \
         dead {:>4}  in flight {:>4}  P50 {i50} P95 {i95} P99 {i99} us\n",
        rates[0],
        cdc.pulled,
        cdc.committed,
        cdc.duplicate,
        cdc.filtered,
        cdc.dead,
        cdc.in_flight,
        rates[1],
        ingest.pulled,
        ingest.committed,
        ingest.duplicate,
        ingest.filtered,
        ingest.dead,
        ingest.in_flight,
    )
}

fn block(cdc: &Books, ingest: &IngestBooks, seconds: u64, rates: [f64; 2]) -> String {
    let [p50, p95, p99, _] = cdc.latency_us;
    let [i50, i95, i99, _] = ingest.latency_us;
    let bar = |rate: f64, unit: f64| "#".repeat(((rate / unit) as usize).min(40));
    format!(
        "  running {seconds:>5} s; Ctrl-C ends and checks every event\n  \
         cdc    {:>7.0} events/s  {}\n  \
         in {:>10}   published {:>10}   duplicate {:>7}   skipped {:>7}   dead-lettered {:>6}\n  \
         in flight {:>3}   pull to publish: P50 {p50} us   P95 {p95} us   P99 {p99} us\n  \
         ingest {:>7.0} events/s  {}\n  \
         in {:>10}   committed {:>10}   duplicate {:>7}   skipped {:>7}   dead-lettered {:>6}\n  \
         in flight {:>3}   pull to COMMIT: P50 {i50} us   P95 {i95} us   P99 {i99} us\n",
        rates[0],
        bar(rates[0], 500.0),
        cdc.pulled,
        cdc.committed,
        cdc.duplicate,
        cdc.filtered,
        cdc.dead,
        cdc.in_flight,
        rates[1],
        bar(rates[1], 100.0),
        ingest.pulled,
        ingest.committed,
        ingest.duplicate,
        ingest.filtered,
        ingest.dead,
        ingest.in_flight,
    )
}
