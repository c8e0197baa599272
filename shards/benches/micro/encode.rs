//! What does it cost to write what leaves a shard? A publish with its headers, an ack, and the values of a
//! statement as PostgreSQL takes them, bound from the columns of a batch of a hundred rows.
#![expect(clippy::expect_used, reason = "the samples are part of this file's build")]

use crate::events::{self, Events};
use crate::measure::{Ask, Case, section};
use bytes::BytesMut;
use shards::domain::ingest::Catalog;
use shards::domain::ingest::batch::{Batch, Hints, Settings};
use shards::edge::pg::param::params;
use shards::wire::nats::encode::{begin_hpub, encode_pub, end_pub};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use tokio_postgres::types::{ToSql, Type};

const EVENTS: u64 = 200;
const ROWS: usize = 100;
const ACK: &[u8] =
    b"$JS.ACK.cdc_events_stream.cdc_consumers.1.1234567.1234567.1748772000123456789.77";
const SUBJECT: &[u8] = b"wa.CompanyAAA01.messages.insert";
const INBOX: &[u8] = b"_INBOX.AbCdEfGhIjKlMnOpQrStUv";
const HEADER: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: 5368722184:0:messages:88231:2025-06-01\r\n\
    Daisi-Company: CompanyAAA01\r\nDaisi-Table: messages\r\nDaisi-Action: insert\r\n\r\n";

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let catalog = Catalog::load(&[]).expect("our schemas compile");
    let events = Events::of("v1.messages.upsert", &events::plain(), ROWS, 1).decoded(&catalog);
    let (mut batch, mut hints) = (Batch::new(Settings::default(), (1, 2)), Hints::new(ROWS));
    batch.open(1_748_772_000_000_000_000);
    events.iter().for_each(|event| batch.add(&event.item(), &mut hints).expect("it fits"));
    batch.seal();
    let mut out = BytesMut::with_capacity(1 << 20);
    publish(&mut out);
    bind(&batch, &mut out);
    let mut hasher = DefaultHasher::new();
    hasher.write(&out);
    println!("encode: {} B, result hash {:016x}", out.len(), hasher.finish());
    let mut outs = [(); 3].map(|()| BytesMut::with_capacity(1 << 20));
    let [published, acked, bound] = &mut outs;
    ask.run(vec![
        case("encode: publish of 900 bytes with headers", EVENTS, || {
            published.clear();
            (0..EVENTS).for_each(|_| publish(published));
        }),
        case("encode: ack", EVENTS, || {
            acked.clear();
            for _ in 0..EVENTS {
                encode_pub(acked, black_box(ACK), None, b"").expect("a subject");
            }
        }),
        case("encode: bind of a message, 100 rows a statement", ROWS as u64, || {
            bound.clear();
            bind(&batch, bound);
        }),
    ]);
}

fn case<'a>(name: &'static str, events: u64, mut work: impl FnMut() + 'a) -> Case<'a> {
    Case { name, events, round: Box::new(move || section(&mut work)) }
}

// As the stage cdc does it.
fn publish(out: &mut BytesMut) {
    let payload = black_box(&[b'x'; 900]);
    let total = HEADER.len() + payload.len();
    begin_hpub(out, &[black_box(SUBJECT)], &[INBOX, b".a.", b"1234567"], HEADER.len(), total);
    out.extend_from_slice(HEADER);
    out.extend_from_slice(payload);
    end_pub(out);
}

// The part of it that is ours: tokio-postgres adds a length to each value.
fn bind(batch: &Batch, out: &mut BytesMut) {
    for number in 0..batch.calls() {
        for param in params(black_box(&batch.call(number))) {
            param.to_sql(&Type::TEXT, out).expect("it has a binary form");
        }
    }
    black_box(&out);
}
