//! What does it cost to take the server's bytes apart? A read's worth of deliveries of 900 bytes, and
//! PubAcks as they answer them; each with the copy from the socket's buffer, as the edge does it.
#![expect(clippy::expect_used, reason = "the sample is part of this file's build")]

use crate::measure::{Ask, Case, section};
use bytes::BytesMut;
use shards::wire::Step;
use shards::wire::nats::decode::{DecodeLimits, decode};
use shards::wire::nats::encode::encode_msg;
use shards::wire::nats::jetstream::{AckSubject, PubAck};
use shards::wire::nats::op::ServerOp;
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;

const EVENTS: u64 = 230; // With 1,100 bytes each about what one read of 256 KiB brings.
const REPLY: &[u8] =
    b"$JS.ACK.cdc_events_stream.cdc_consumers.1.1234567.1234567.1748772000123456789.77";

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let (mut deliveries, mut acks) = (BytesMut::new(), BytesMut::new());
    for number in 0..EVENTS {
        let subject = b"cdc.CompanyAAA01.messages";
        encode_msg(&mut deliveries, subject, 16, Some(REPLY), &[b'x'; 900]);
        let inbox = format!("_INBOX.AbCdEfGhIjKlMnOpQrStUv.a.{}", 1_000_000 + number);
        let body = format!(r#"{{"stream":"wa_stream", "seq":{}}}"#, 2_000_000 + number);
        encode_msg(&mut acks, inbox.as_bytes(), 1, None, body.as_bytes());
    }
    println!("decode: result hash {:016x}", hash(&deliveries) ^ hash(&acks));
    let mut inboxes = [BytesMut::with_capacity(1 << 18), BytesMut::with_capacity(1 << 18)];
    let [inbox_a, inbox_b] = &mut inboxes;
    ask.run(vec![
        Case {
            name: "decode: delivery of 900 bytes",
            events: EVENTS,
            round: Box::new(|| section(|| take(&deliveries, inbox_a, |_| ()))),
        },
        Case {
            name: "decode: PubAck, and its JSON",
            events: EVENTS,
            round: Box::new(|| {
                section(|| {
                    take(&acks, inbox_b, |payload| {
                        black_box(PubAck::parse(payload).expect("an ack"));
                    });
                });
            }),
        },
        Case {
            name: "decode: fields of an ack subject",
            events: EVENTS,
            round: Box::new(|| {
                section(|| {
                    for _ in 0..EVENTS {
                        black_box(AckSubject::parse(black_box(REPLY)).expect("an ack subject"));
                    }
                });
            }),
        },
    ]);
}

fn take(bytes: &[u8], inbox: &mut BytesMut, mut each: impl FnMut(&[u8])) {
    inbox.extend_from_slice(bytes);
    let limits = DecodeLimits::default();
    let mut count = 0;
    while let Step::Done(op) = decode(inbox, &limits).expect("the protocol") {
        let ServerOp::Msg(msg) = op else { continue };
        each(msg.payload());
        black_box(msg);
        count += 1;
    }
    assert_eq!(count, EVENTS);
}

fn hash(bytes: &[u8]) -> u64 {
    let (mut inbox, mut hasher) = (BytesMut::from(bytes), DefaultHasher::new());
    while let Step::Done(ServerOp::Msg(msg)) =
        decode(&mut inbox, &DecodeLimits::default()).expect("the protocol")
    {
        [msg.subject(), msg.reply().unwrap_or_default(), msg.payload()]
            .into_iter()
            .for_each(|part| hasher.write(part));
    }
    hasher.finish()
}
