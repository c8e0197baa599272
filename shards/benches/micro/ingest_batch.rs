//! What does one event cost on its way from a typed value into the columns of a statement? A hundred events a
//! batch, as a lane writes them: opened, filled, sealed, asked for its calls, settled.
#![expect(clippy::expect_used, reason = "the samples are part of this file's build")]

use crate::events::{self, Events, MESSAGE};
use crate::measure::{Ask, Case, section};
use shards::domain::ingest::Catalog;
use shards::domain::ingest::batch::{Batch, Hints, Settings};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;

const BATCHES: u64 = 10;
const EVENTS: usize = 100;
const CHAT: &str =
    include_str!("../../../schemas/wa_events_stream/chats.upsert.v1/valid/sample.json");
/// As on each connection.
const HINTS: usize = 100_000;
const NOW_NS: u64 = 1_748_772_000_000_000_000;

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let catalog = Catalog::load(&[]).expect("our schemas compile");
    let plain = events::plain();
    let one = Events::of("v1.messages.upsert", &plain, EVENTS, 1);
    let many = Events::of("v1.messages.upsert", &plain, EVENTS, 8);
    let campaign = Events::of("v1.messages.upsert", MESSAGE, EVENTS, 1);
    let chats = Events::of("v1.chats.upsert", CHAT, EVENTS, 1);
    let batch_of = |items: &str| format!("{{\"messages\":[{items}]}}");
    let history: Vec<String> = (0..EVENTS).map(|n| events::numbered(&plain, n)).collect();
    let history = Events::of("v1.history.messages", &batch_of(&history.join(",")), 1, 1);
    let (one, many) = (one.decoded(&catalog), many.decoded(&catalog));
    let (chats, history) = (chats.decoded(&catalog), history.decoded(&catalog));
    let campaign = campaign.decoded(&catalog);

    let mut writer = Writer::new();
    [&one, &many, &campaign, &chats, &history].into_iter().for_each(|events| writer.write(events));
    println!("batch: {} calls, result hash {:016x}", writer.calls, writer.output.finish());
    let case = |name, events| {
        let mut writer = Writer::new();
        let work = move || (0..BATCHES).for_each(|_| section(|| writer.fill(events)));
        Case { name, events: BATCHES * EVENTS as u64, round: Box::new(work) }
    };
    ask.run(vec![
        case("batch: messages.upsert, 100 of one company", &one),
        case("batch: messages.upsert, 100 of 8 companies", &many),
        case("batch: messages.upsert, 100 replies to a campaign", &campaign),
        case("batch: chats.upsert, 100 of one company", &chats),
        case("batch: history.messages, 100 items of one event", &history),
    ]);
}

struct Writer {
    batch: Batch,
    hints: Hints,
    calls: usize,
    output: DefaultHasher,
}

impl Writer {
    fn new() -> Self {
        // A fixed key, so that every run does the same.
        let (batch, hints) = (Batch::new(Settings::default(), (1, 2)), Hints::new(HINTS));
        Self { batch, hints, calls: 0, output: DefaultHasher::new() }
    }

    fn fill(&mut self, events: &[events::Decoded<'_>]) {
        self.batch.open(NOW_NS);
        for event in events {
            self.batch.add(&event.item(), &mut self.hints).expect("it can be written");
        }
        self.batch.seal();
        for number in 0..self.batch.calls() {
            black_box(self.batch.call(number));
        }
        black_box(self.batch.settle(&mut self.hints));
    }

    fn write(&mut self, events: &[events::Decoded<'_>]) {
        self.fill(events);
        self.calls += self.batch.calls();
        for number in 0..self.batch.calls() {
            let call = self.batch.call(number);
            self.output.write(format!("{} {:?}", call.schema, call.columns).as_bytes());
        }
    }
}
