//! Traces through a pipeline: what an event's context becomes on what we publish, and the span of its stay in
//! a stage. Invariant: the span's id follows from the event's place in its reading, so nothing is kept per
//! event, a publish that is repeated names the same parent, and the span that ends is the one that was named.
//! Source: W3C Trace Context.
//!
//! An event that brings a context is recorded if that says so; one without is recorded by the sampling ratio.

use super::mail::Parcel;
use super::settings::{StageName, TraceSettings};
use crate::clock::Now;
use crate::domain::cdc::Sink;
use crate::metrics::Counter;
use crate::wire::trace::{TRACEPARENT, TRACESTATE, TraceContext, states};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Spans kept between two looks of the edge; a turn that ends more loses the rest, counted.
const FINISHED_MAX: usize = 4096;
/// The sampled bit, and the one of a random id: ours is a keyed hash.
const FLAGS_OWN: u8 = 0x03;

/// Text of a bounded size, so that a span can be copied; what is longer is cut.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: u16,
}

impl<const N: usize> Text<N> {
    /// The first `N` bytes.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        const { assert!(N <= u16::MAX as usize) }
        let (len, mut bytes) = (text.len().min(N), [0; N]);
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len: len as u16 }
    }

    /// Bytes that are no text are replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]).into_owned()
    }
}

/// An event's stay in a stage, from receipt to outcome.
#[derive(Clone, Copy)]
pub struct Span {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Itself.
    pub span_id: [u8; 8],
    /// What caused the event; `None` where the trace begins here.
    pub parent_id: Option<[u8; 8]>,
    /// The stage.
    pub stage: StageName,
    /// How it ended: a label of `metrics::Outcome`, or of a dead letter's fate.
    pub outcome: &'static str,
    /// Begin and end, Unix ns.
    pub time: (u64, u64),
    /// Whose event it is.
    pub company: Text<64>,
    /// Its subject.
    pub subject: Text<192>,
    /// The stream it was read from.
    pub stream: Text<64>,
    /// Its place there.
    pub sequence: u64,
}

/// What a pipeline knows of traces.
pub(super) struct Tracer {
    settings: Option<TraceSettings>,
    keys: (u64, u64),
    finished: Vec<Span>,
}

impl Tracer {
    pub(super) fn new(settings: Option<TraceSettings>, rng: &mut fastrand::Rng) -> Self {
        // Without spans no number is drawn: what else the seed decides stays as it is.
        let keys = settings.map_or((0, 0), |_| (rng.u64(..), rng.u64(..)));
        Self { settings, keys, finished: Vec::new() }
    }

    /// The context for what is published because of an event: its own, or our span in its trace.
    pub(super) fn onward(&self, parcel: &Parcel) -> Option<TraceContext> {
        let came = TraceContext::of_headers(parcel.msg.headers());
        match self.recorded(parcel, came) {
            None => came,
            Some((trace_id, parent_id)) => {
                let flags = came.map_or(FLAGS_OWN, |context| context.flags);
                Some(TraceContext { trace_id, parent_id, flags })
            }
        }
    }

    /// Appends the headers of that context to a block, each with the line end before it.
    pub(super) fn write_onward(&self, parcel: &Parcel, block: &mut Vec<u8>) {
        if parcel.msg.headers().is_empty() && self.settings.is_none() {
            return;
        }
        let Some(context) = self.onward(parcel) else { return };
        for part in [b"\r\n", TRACEPARENT, b": ", &context.to_text()] {
            block.put(part);
        }
        let mut lead: [&[u8]; 3] = [b"\r\n", TRACESTATE, b": "];
        for state in states(parcel.msg.headers()) {
            lead.iter().for_each(|part| block.put(part));
            block.put(state);
            lead = [b",", b"", b""];
        }
    }

    /// An event has its outcome.
    pub(super) fn end(
        &mut self,
        parcel: &Parcel,
        company: &[u8],
        outcome: &'static str,
        now: Now,
        dropped: &Counter,
    ) {
        if self.settings.is_none() {
            return;
        }
        let came = TraceContext::of_headers(parcel.msg.headers());
        let Some((trace_id, span_id)) = self.recorded(parcel, came) else { return };
        if self.finished.len() >= FINISHED_MAX {
            return dropped.inc();
        }
        let age = now.mono.saturating_sub(parcel.received);
        self.finished.push(Span {
            trace_id,
            span_id,
            parent_id: came.map(|context| context.parent_id),
            stage: parcel.stage,
            outcome,
            time: (now.wall.saturating_sub(age), now.wall),
            company: Text::of(company),
            subject: Text::of(parcel.subject()),
            stream: Text::of(parcel.stream()),
            sequence: parcel.seq,
        });
    }

    /// Spans that have ended since the last call.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Span> {
        self.finished.drain(..)
    }

    // Trace and span of an event, if it is recorded.
    fn recorded(&self, parcel: &Parcel, came: Option<TraceContext>) -> Option<([u8; 16], [u8; 8])> {
        let settings = self.settings?;
        let trace_id = match came {
            Some(context) => context.is_sampled().then_some(context.trace_id)?,
            None => {
                let hash = self.hash(parcel, 0);
                let (high, _) = halves(hash);
                (high < settings.sample_below).then_some(hash.to_be_bytes())?
            }
        };
        let (_, low) = halves(self.hash(parcel, 1));
        Some((trace_id, low.max(1).to_be_bytes()))
    }

    fn hash(&self, parcel: &Parcel, what: u8) -> u128 {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        hasher.write_u8(what);
        hasher.write_u16(parcel.partition.0);
        hasher.write_u32(parcel.epoch.0);
        hasher.write_u64(parcel.index);
        hasher.finish128().as_u128().max(1)
    }
}

fn halves(hash: u128) -> (u64, u64) {
    ((hash >> 64) as u64, hash as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, PartitionId, ShardId};
    use crate::wire::nats::op::Msg;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parcel(index: u64, headers: &str) -> Parcel {
        let reply: Option<&[u8]> = Some(b"$JS.ACK.changes.c.1.7.1.1000.0");
        Parcel {
            reader: ShardId(0),
            stage: StageName::Cdc,
            partition: PartitionId(0),
            epoch: Epoch(1),
            index,
            seq: 7,
            stored: 1000,
            stream_created: 0,
            delivered: 1,
            received: 5,
            replay: false,
            prefix: 0,
            msg: Msg::new(b"cdc.ACME.chats", 1, reply, headers.as_bytes(), b"{}"),
        }
    }

    fn block(fields: &str) -> String {
        format!("NATS/1.0\r\n{fields}\r\n")
    }

    fn tracer(ratio: Option<f64>) -> Tracer {
        Tracer::new(ratio.map(TraceSettings::of_ratio), &mut fastrand::Rng::with_seed(7))
    }

    fn onward(tracer: &Tracer, parcel: &Parcel) -> String {
        let mut out = Vec::new();
        tracer.write_onward(parcel, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn ended(tracer: &mut Tracer, parcel: &Parcel) -> Option<Span> {
        let (now, dropped) = (Now { mono: 9, wall: 1_000 }, Counter::default());
        tracer.end(parcel, b"ACME", "processed", now, &dropped);
        tracer.take().next()
    }

    #[test]
    fn without_spans_a_context_passes_as_it_is_and_nothing_is_recorded() {
        let mut off = tracer(None);
        let fields = format!("Traceparent: {PARENT}\r\ntracestate: a=1\r\nTracestate: b=2\r\n");
        let parcel = parcel(0, &block(&fields));
        let expected = format!("\r\ntraceparent: {PARENT}\r\ntracestate: a=1,b=2");
        assert_eq!(onward(&off, &parcel), expected);
        assert!(ended(&mut off, &parcel).is_none());
        assert_eq!(onward(&off, &super::tests::parcel(0, "")), "");
    }

    #[test]
    fn a_broken_context_is_not_passed_and_takes_its_state_along() {
        let fields = format!("traceparent: {}\r\ntracestate: a=1\r\n", PARENT.to_uppercase());
        assert_eq!(onward(&tracer(None), &parcel(0, &block(&fields))), "");
        assert_eq!(onward(&tracer(None), &parcel(0, &block("tracestate: a=1\r\n"))), "");
    }

    #[test]
    fn what_is_published_names_the_span_that_ends() {
        let mut on = tracer(Some(0.0));
        let parcel = parcel(3, &block(&format!("traceparent: {PARENT}\r\n")));
        let context = on.onward(&parcel).unwrap();
        let span = ended(&mut on, &parcel).unwrap();
        assert_eq!((span.trace_id, span.span_id), (context.trace_id, context.parent_id));
        let came = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!((span.trace_id, span.parent_id), (came.trace_id, Some(came.parent_id)));
        assert_eq!((span.time, span.sequence), ((996, 1_000), 7));
        let texts = (span.company.to_text(), span.subject.to_text(), span.stream.to_text());
        assert_eq!(texts, ("ACME".into(), "cdc.ACME.chats".into(), "changes".into()));
        let other = super::tests::parcel(4, &block(&format!("traceparent: {PARENT}\r\n")));
        assert_ne!(on.onward(&other).unwrap().parent_id, context.parent_id);
    }

    #[test]
    fn an_unsampled_context_decides_over_the_ratio_and_passes_as_it_is() {
        let mut all = tracer(Some(1.0));
        let unsampled = PARENT.replace("-01", "-00");
        let parcel = parcel(0, &block(&format!("traceparent: {unsampled}\r\n")));
        assert!(ended(&mut all, &parcel).is_none());
        assert_eq!(onward(&all, &parcel), format!("\r\ntraceparent: {unsampled}"));
    }

    #[test]
    fn the_ratio_decides_where_there_is_no_context() {
        let sampled = |ratio: f64| {
            let mut tracer = tracer(Some(ratio));
            (0..1000).filter(|n| ended(&mut tracer, &parcel(*n, "")).is_some()).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 1000));
        let tenth = sampled(0.1);
        assert!((60..150).contains(&tenth), "{tenth}");
        let on = tracer(Some(1.0));
        let context = on.onward(&parcel(1, "")).unwrap();
        assert!(context.is_sampled() && ended(&mut tracer(Some(1.0)), &parcel(1, "")).is_some());
    }

    #[test]
    fn spans_that_nobody_takes_are_dropped_and_counted() {
        let (mut on, dropped) = (tracer(Some(1.0)), Counter::default());
        for index in 0..FINISHED_MAX as u64 + 3 {
            on.end(&parcel(index, ""), b"A", "processed", Now { mono: 9, wall: 9 }, &dropped);
        }
        assert_eq!((on.take().count(), dropped.get()), (FINISHED_MAX, 3));
    }
}
