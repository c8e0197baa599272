//! A drain: the source stream is filled first, then a contender empties it. The server's own timestamps of
//! the first and the last output message bound the time, so a contender's start-up does not count.

use std::{collections::HashMap, io::Write as _, time::Duration};

use async_nats::jetstream::{
    Context,
    consumer::{AckPolicy, pull},
    context::PublishAckFuture,
};
use futures::StreamExt;
use serde::Serialize;

use super::make::{Maker, Mark, Shape};
use crate::bus::{self, Error, OUTPUT_STREAM, SOURCE_STREAM};

/// Deletes every stream, so the next contender starts from nothing, and creates ours again.
///
/// # Errors
/// When JetStream refuses.
pub async fn reset(context: &Context) -> Result<(), Error> {
    let mut names = context.stream_names();
    let mut doomed = Vec::new();
    while let Some(name) = names.next().await {
        doomed.push(name?);
    }
    for name in doomed {
        context.delete_stream(name).await?;
    }
    bus::ensure_streams(context).await
}

/// Publishes events `0..count` and awaits every PubAck, 4096 of them open at once.
///
/// # Errors
/// When a publish is refused, or the stream then holds another number of messages.
pub async fn preload(context: &Context, count: u64, shape: Shape) -> Result<(), Error> {
    let mut maker = Maker::new(shape);
    let mut open: std::collections::VecDeque<PublishAckFuture> = std::collections::VecDeque::new();
    for number in 0..count {
        let (subject, body) = maker.make(Mark { number, due_ns: 0 });
        let (subject, body) = (subject.to_owned(), body.to_owned());
        open.push_back(context.publish(subject, body.into()).await?);
        if open.len() >= 4096
            && let Some(oldest) = open.pop_front()
        {
            oldest.await?;
        }
    }
    for ack in open {
        ack.await?;
    }
    let held = context.get_stream(SOURCE_STREAM).await?.cached_info().state.messages;
    if held != count {
        return Err(format!("the source stream holds {held} messages, not {count}").into());
    }
    Ok(())
}

/// State of the output stream, one line of JSON each time it is looked at.
#[derive(Serialize)]
struct Progress {
    messages: u64,
    /// Nanoseconds between first and last message, by the server's clock.
    span_ns: i128,
}

/// Prints [`Progress`] every 10 ms until `count` messages came out or `deadline` has passed.
///
/// # Errors
/// When JetStream does not answer.
pub async fn watch(context: &Context, count: u64, deadline: Duration) -> Result<(), Error> {
    let mut output = context.get_stream(OUTPUT_STREAM).await?;
    let until = tokio::time::Instant::now() + deadline;
    let mut out = std::io::stdout().lock();
    loop {
        let state = &output.info().await?.state;
        let span_ns = (state.last_timestamp - state.first_timestamp).whole_nanoseconds();
        serde_json::to_writer(&mut out, &Progress { messages: state.messages, span_ns })?;
        out.write_all(b"\n")?;
        out.flush()?;
        if state.messages >= count || tokio::time::Instant::now() > until {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the checker found. Anything but `lost == 0 && doubled == 0 && foreign == 0` voids a round.
#[derive(Default, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Events that came out at least once.
    pub seen: u64,
    /// Events that never came out.
    pub lost: u64,
    /// Outputs beyond the first of their event.
    pub doubled: u64,
    /// Outputs behind a later event of their company.
    pub swapped: u64,
    /// Outputs without a mark, or with one that was never sent.
    pub foreign: u64,
}

/// Ticks off the outputs of events `0..count`.
pub struct Checker {
    seen: Vec<bool>,
    newest: HashMap<u64, u64>,
    companies: u64,
    findings: Findings,
}

impl Checker {
    /// For a run of `count` events made for `companies`.
    #[must_use]
    pub fn new(count: u64, companies: u64) -> Self {
        let seen = vec![false; usize::try_from(count).unwrap_or(usize::MAX)];
        Self { seen, newest: HashMap::new(), companies, findings: Findings::default() }
    }

    /// Takes one output, in the order of the output stream. True for the first output of its event.
    pub fn take(&mut self, mark: Option<Mark>) -> bool {
        let number = mark.map_or(u64::MAX, |mark| mark.number);
        let Some(seen) = usize::try_from(number).ok().and_then(|at| self.seen.get_mut(at)) else {
            self.findings.foreign += 1;
            return false;
        };
        if std::mem::replace(seen, true) {
            self.findings.doubled += 1;
            return false;
        }
        self.findings.seen += 1;
        let newest = self.newest.entry(number % self.companies.max(1)).or_insert(number);
        self.findings.swapped += u64::from(number < *newest);
        *newest = number.max(*newest);
        true
    }

    /// True once every event came out.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.findings.seen == self.seen.len() as u64
    }

    /// Closes the account.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        self.findings.lost = self.seen.len() as u64 - self.findings.seen;
        self.findings
    }
}

/// Reads the whole output stream and checks it against events `0..count`.
///
/// # Errors
/// When the stream cannot be read to its end within ten seconds of silence.
pub async fn verify(context: &Context, count: u64, companies: u64) -> Result<Findings, Error> {
    let stream = context.get_stream(OUTPUT_STREAM).await?;
    let state = &stream.cached_info().state;
    let held = state.messages;
    // What is asked for at once must fit into what the server holds for a client (64 MiB), or it cuts us off.
    let size = usize::try_from(state.bytes / held.max(1)).unwrap_or(usize::MAX);
    let batch = ((16 << 20) / size.max(1)).clamp(1, 4000);
    let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(batch).messages().await?;
    let mut checker = Checker::new(count, companies);
    for at in 0..held {
        let next = tokio::time::timeout(Duration::from_secs(10), messages.next()).await;
        let message = next?.ok_or_else(|| format!("the output ends at {at} of {held}"))??;
        checker.take(Mark::find(&message.payload));
    }
    Ok(checker.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(numbers: &[u64]) -> Findings {
        let mut checker = Checker::new(4, 2);
        for &number in numbers {
            checker.take(Some(Mark { number, due_ns: 0 }));
        }
        checker.finish()
    }

    #[test]
    fn a_perfect_run_has_no_findings_but_what_was_seen() {
        assert_eq!(found(&[0, 1, 2, 3]), Findings { seen: 4, ..Findings::default() });
    }

    #[test]
    fn a_lost_a_doubled_a_swapped_and_a_foreign_output_are_told_apart() {
        assert_eq!(found(&[0, 1, 3]), Findings { seen: 3, lost: 1, ..Findings::default() });
        assert_eq!(
            found(&[0, 1, 2, 3, 3]),
            Findings { seen: 4, doubled: 1, ..Findings::default() }
        );
        assert_eq!(found(&[2, 1, 0, 3]), Findings { seen: 4, swapped: 1, ..Findings::default() });
        assert_eq!(found(&[1, 0, 3, 2]), Findings { seen: 4, ..Findings::default() });
        assert_eq!(
            found(&[0, 1, 2, 3, 9]),
            Findings { seen: 4, foreign: 1, ..Findings::default() }
        );
    }
}
