//! One contender's turn at the ingest job. A drain and a history import count from the first delivery to the
//! ack of the last event, which follows its COMMIT; an open loop from each event's planned time of sending to
//! its ack, as seen by a subscriber of the acks. Every row must be there afterwards, or the turn has failed.

use std::{
    io::{BufRead, BufReader},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use loadtest::{
    client::{Client, ClientError},
    generate::ingest::{Generator, Kind},
    host::Process,
    report::latency_histogram,
    results::Spread,
    send::{SendPlan, Sent, send, wall_ns},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bed::{Bed, Cpu};
use crate::{
    contender::{Contender, Role},
    error::BenchError,
};

/// Events of the bare loop with one row a commit: more than a disk commits in its time.
pub(crate) const SINGLE_EVENTS: u64 = 60_000;
/// Messages of a history event, as the profile makes them.
const HISTORY_ITEMS: u64 = 100;
/// Between two looks at a consumer. A look costs the server some 50 us.
const LOOK: Duration = Duration::from_millis(5);
/// Time a contender gets to connect before the open loop begins.
const SETTLE: Duration = Duration::from_millis(1500);

/// Sizes of the turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Events of a drain; messages of a history import.
    pub(crate) events: u64,
    /// Events a second of the open loop.
    pub(crate) rate: u64,
    pub(crate) warmup_s: u64,
    pub(crate) timed_s: u64,
    /// Seconds a drain may take.
    pub(crate) deadline_s: u64,
}

/// Figures of a drain, or of a history import, whose events are its messages.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Drain {
    pub(crate) events_per_s: f64,
    pub(crate) cpu_us_per_event: f64,
    pub(crate) nats_us_per_event: f64,
    pub(crate) postgres_us_per_event: f64,
    pub(crate) rss_mib_max: f64,
    pub(crate) rows: u64,
    pub(crate) dirty_kib_before: u64,
}

/// Figures of an open loop; microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Paced {
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    pub(crate) cpu_us_per_event: f64,
    pub(crate) postgres_us_per_event: f64,
    /// Of the sender: planned time to PubAck.
    pub(crate) stored_us_p95: f64,
}

/// A span of work: how long, and at what price.
struct Span {
    seconds: f64,
    begin: Cpu,
    end: Cpu,
}

/// Writes a backlog of upserts of messages.
pub(crate) fn drain(contender: &Contender, bed: &Bed, load: Load) -> Result<Drain, BenchError> {
    bed.reset()?;
    let mut generator = bed.generator(Kind::MessagesUpsert)?;
    publish(bed, &mut generator, load.events, 0.0)?;
    let dirty = Bed::dirty_kib();
    let (span, rss_mib_max) = match contender.role {
        Role::Bare => told(contender, bed)?,
        _ => watched(contender, bed, Kind::MessagesUpsert.stream(), load.events, load)?,
    };
    let rows = verify(contender, bed, generator.books().rows.messages)?;
    Ok(figures(&span, load.events, rss_mib_max, rows, dirty))
}

/// Imports a backlog of history.
pub(crate) fn history(contender: &Contender, bed: &Bed, load: Load) -> Result<Drain, BenchError> {
    bed.reset()?;
    let mut generator = bed.generator(Kind::HistoryMessages)?;
    let events = load.events.div_ceil(HISTORY_ITEMS);
    publish(bed, &mut generator, events, 0.0)?;
    let dirty = Bed::dirty_kib();
    let stream = Kind::HistoryMessages.stream();
    let (span, rss_mib_max) = watched(contender, bed, stream, events, load)?;
    let rows = verify(contender, bed, generator.books().rows.messages)?;
    Ok(figures(&span, rows, rss_mib_max, rows, dirty))
}

fn figures(span: &Span, events: u64, rss_mib_max: f64, rows: u64, dirty: u64) -> Drain {
    let Span { seconds, begin, end } = span;
    Drain {
        events_per_s: events as f64 / seconds.max(1e-9),
        cpu_us_per_event: us_each(end.own - begin.own, events),
        nats_us_per_event: us_each(end.nats - begin.nats, events),
        postgres_us_per_event: us_each(end.postgres - begin.postgres, events),
        rss_mib_max,
        rows,
        dirty_kib_before: dirty,
    }
}

fn publish(
    bed: &Bed,
    generator: &mut Generator,
    count: u64,
    rate: f64,
) -> Result<Sent, BenchError> {
    let plan = SendPlan { rate, ..SendPlan::new(bed.nats_url(), count) };
    Ok(send(&plan, generator, &AtomicBool::new(false), |_| ())?)
}

/// From the first delivery to the ack of the last event.
fn watched(
    contender: &Contender,
    bed: &Bed,
    stream: &str,
    count: u64,
    load: Load,
) -> Result<(Span, f64), BenchError> {
    let mut client = bed.client()?;
    let mut process = contender.start()?;
    let deadline = Instant::now() + Duration::from_secs(load.deadline_s);
    let mut begun: Option<(Instant, Cpu)> = None;
    loop {
        process.assert_running()?;
        let (delivered, floor) = consumer(&mut client, stream)?;
        if delivered > 0 && begun.is_none() {
            begun = Some((Instant::now(), bed.cpu_with(&process)?));
        }
        if let Some((at, begin)) = begun.filter(|_| floor >= count) {
            let span =
                Span { seconds: at.elapsed().as_secs_f64(), begin, end: bed.cpu_with(&process)? };
            return Ok((span, process.rss_kib_max()? as f64 / 1024.0));
        }
        if Instant::now() > deadline {
            let name = contender.name.clone();
            return Err(BenchError::TooSlow { name, seen: floor, count });
        }
        thread::sleep(LOOK);
    }
}

/// Highest sequence delivered and acknowledged by the one consumer of a stream; zero before there is one.
fn consumer(client: &mut Client, stream: &str) -> Result<(u64, u64), BenchError> {
    let list = client.jetstream(&format!("CONSUMER.LIST.{stream}"), &Value::Null)?;
    let number = |part: &str| list["consumers"][0][part]["stream_seq"].as_u64().unwrap_or(0);
    Ok((number("delivered"), number("ack_floor")))
}

/// What the bare loop says on its standard output.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Said {
    Begin,
    End { rows: u64, elapsed_s: f64, p50_us: f64, p95_us: f64, p99_us: f64, max_us: f64 },
}

/// The bare loop, which tells itself when it begins and ends.
fn told(contender: &Contender, bed: &Bed) -> Result<(Span, f64), BenchError> {
    let (process, begin, end, said) = listen(contender, bed)?;
    let Said::End { elapsed_s, .. } = said else { return Err(silent(contender)) };
    let rss_mib_max = process.rss_kib_max()? as f64 / 1024.0;
    Ok((Span { seconds: elapsed_s, begin, end }, rss_mib_max))
}

fn listen(contender: &Contender, bed: &Bed) -> Result<(Process, Cpu, Cpu, Said), BenchError> {
    let mut process = contender.start_piped()?;
    let Some(stdout) = process.child().stdout.take() else { return Err(silent(contender)) };
    let mut begin = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(BenchError::io(format!("read {}", contender.name)))?;
        let said = serde_json::from_str(&line)
            .map_err(|error| BenchError::unreadable(&contender.name, &error))?;
        let now = bed.cpu_with(&process)?;
        match (said, begin) {
            (Said::Begin, _) => begin = Some(now),
            (end, Some(begin)) => return Ok((process, begin, now, end)),
            (_, None) => break,
        }
    }
    process.assert_running()?;
    Err(silent(contender))
}

fn silent(contender: &Contender) -> BenchError {
    BenchError::unreadable(&contender.name, &"it does not say when it begins and ends")
}

/// One row a commit, one after another: what a commit takes at the least.
pub(crate) fn single(contender: &Contender, bed: &Bed, load: Load) -> Result<Paced, BenchError> {
    bed.reset()?;
    let mut generator = bed.generator(Kind::MessagesUpsert)?;
    let sent = publish(bed, &mut generator, SINGLE_EVENTS.max(load.events), 0.0)?;
    let (_process, begin, end, said) = listen(contender, bed)?;
    let Said::End { rows, p50_us, p95_us, p99_us, max_us, .. } = said else {
        return Err(silent(contender));
    };
    Ok(Paced {
        p50_us,
        p95_us,
        p99_us,
        max_us,
        cpu_us_per_event: us_each(end.own - begin.own, rows),
        postgres_us_per_event: us_each(end.postgres - begin.postgres, rows),
        stored_us_p95: sent.ack_us.value_at_quantile(0.95) as f64,
    })
}

/// Follows an open loop.
pub(crate) fn paced(contender: &Contender, bed: &Bed, load: Load) -> Result<Paced, BenchError> {
    bed.reset()?;
    let stream = Kind::MessagesUpsert.stream();
    let mut process = contender.start()?;
    thread::sleep(SETTLE);
    process.assert_running()?;
    let mut generator = bed.generator(Kind::MessagesUpsert)?;
    let mut client = bed.client()?;
    client.subscribe(&format!("$JS.ACK.{stream}.>"))?;
    client.barrier()?;
    let begin = bed.cpu_with(&process)?;
    let (count, warm) = (load.rate * (load.warmup_s + load.timed_s), load.rate * load.warmup_s);
    let is_over = AtomicBool::new(false);
    let (sent, acks) = thread::scope(|scope| {
        let acks = scope.spawn(|| observe(&mut client, count, &is_over));
        let sent = publish(bed, &mut generator, count, load.rate as f64);
        // What is not acknowledged a while after the last PubAck is late by any measure.
        is_over.store(true, Relaxed);
        (sent, acks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (sent, acks) = (sent?, acks?);
    let end = bed.cpu_with(&process)?;
    process.assert_running()?;
    let is_watermark = contender.role == Role::Subject;
    let latency = latency(&acks, is_watermark, &sent, load.rate, warm..count)?;
    verify(contender, bed, generator.books().rows.messages)?;
    Ok(Paced {
        p50_us: latency.p50 as f64,
        p95_us: latency.p95 as f64,
        p99_us: latency.p99 as f64,
        max_us: latency.max as f64,
        cpu_us_per_event: us_each(end.own - begin.own, count),
        postgres_us_per_event: us_each(end.postgres - begin.postgres, count),
        stored_us_p95: sent.ack_us.value_at_quantile(0.95) as f64,
    })
}

/// Acks as they come, until all events must have theirs: sequence, and when it was seen.
fn observe(
    client: &mut Client,
    count: u64,
    is_over: &AtomicBool,
) -> Result<Vec<(u64, u64)>, ClientError> {
    let mut acks = Vec::with_capacity(count as usize);
    let mut deadline = None;
    let mut highest = 0;
    loop {
        let mut next = client.receive(Instant::now() + Duration::from_millis(20))?;
        let now = wall_ns();
        while let Some(message) = next {
            if let Some(seq) = acked(message.subject(), message.payload()) {
                highest = highest.max(seq);
                acks.push((seq, now));
            }
            next = client.receive_arrived();
        }
        client.flush()?;
        if is_over.load(Relaxed) {
            // The first that find the stream read to its end wait a little for those beside it.
            let grace = Duration::from_millis(if highest >= count { 300 } else { 10_000 });
            let over = *deadline.get_or_insert_with(Instant::now);
            if over.elapsed() > grace {
                return Ok(acks);
            }
        }
    }
}

/// The stream sequence of an ack; `None` for word that an event is still worked on, or is given back.
fn acked(subject: &[u8], payload: &[u8]) -> Option<u64> {
    let is_ack = payload.is_empty() || payload.starts_with(b"+ACK") || payload.starts_with(b"+NXT");
    // $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>, and two
    // tokens more in front of the stream where a domain is named (NATS 2.10 and later).
    let tokens: Vec<&[u8]> = subject.split(|byte| *byte == b'.').collect();
    let at = if tokens.len() > 9 { 7 } else { 5 };
    let digits = std::str::from_utf8(tokens.get(at)?).ok()?;
    digits.parse().ok().filter(|_| is_ack)
}

/// Planned time of sending to ack, of the events with these numbers.
fn latency(
    acks: &[(u64, u64)],
    is_watermark: bool,
    sent: &Sent,
    rate: u64,
    numbers: std::ops::Range<u64>,
) -> Result<Spread, BenchError> {
    let mut histogram = latency_histogram();
    let planned_ns = |number: u64| sent.start_ns + (number as f64 * 1e9 / rate as f64) as u64;
    let mut floor = 0;
    for (seq, at_ns) in acks {
        let first = if is_watermark { floor } else { seq - 1 };
        for number in (first..*seq).filter(|number| numbers.contains(number)) {
            histogram.saturating_record(at_ns.saturating_sub(planned_ns(number)) / 1_000);
        }
        floor = floor.max(*seq);
    }
    let (seen, count) = (histogram.len(), numbers.end - numbers.start);
    if seen != count {
        let why = format!("of {count} events {seen} were acknowledged");
        return Err(BenchError::unreadable("the acks", &why));
    }
    Ok(Spread::of(&histogram))
}

fn verify(contender: &Contender, bed: &Bed, expected: u64) -> Result<u64, BenchError> {
    match bed.messages()? {
        rows if rows == expected => Ok(rows),
        rows => {
            let why = format!("{rows} rows, expected {expected}");
            Err(BenchError::unreadable(&format!("the rows of {}", contender.name), &why))
        }
    }
}

fn us_each(time: Duration, events: u64) -> f64 {
    time.as_secs_f64() * 1e6 / events.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::acked;

    #[test]
    fn an_ack_is_told_by_its_body_and_its_sequence_by_its_place() {
        let short = b"$JS.ACK.wa_events_stream.daisi_ingest.1.17.3.1700000000000000000.5";
        assert_eq!(acked(short, b""), Some(17));
        assert_eq!(acked(short, b"+ACK"), Some(17));
        assert_eq!(acked(short, b"+WPI"), None);
        assert_eq!(acked(short, b"-NAK"), None);
        let long = b"$JS.ACK._.hash.wa_events_stream.daisi_ingest.1.17.3.1700000000000000000.5.tok";
        assert_eq!(acked(long, b""), Some(17));
        assert_eq!(acked(b"$JS.ACK.x", b""), None);
    }
}
