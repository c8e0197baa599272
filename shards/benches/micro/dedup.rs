//! What does it cost to know whether an event was done before? The window when full, and the two halves
//! of a Redis claim.
#![expect(clippy::expect_used, reason = "the sample is part of this file's build")]

use crate::measure::{Ask, Case, section};
use bytes::BytesMut;
use shards::domain::window::Window;
use shards::wire::Step;
use shards::wire::resp::{self, Reply};
use siphasher::sip128::SipHasher13;
use std::hint::black_box;

const EVENTS: u64 = 512;
const WINDOW: u32 = 1_000_000;
const KEY: &[u8] = b"dedup:{CompanyAAA01}:5368722184:0:messages:88231:2025-06-01";

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let hash = |number: u64| {
        SipHasher13::new_with_keys(1, 2).hash(black_box(&number.to_le_bytes())).as_u128()
    };
    let mut window = Window::new(WINDOW, 300);
    (0..u64::from(WINDOW)).for_each(|number| window.insert(hash(number), 0));
    let known = (0..2 * u64::from(WINDOW)).filter(|n| window.contains(hash(*n), 1)).count();
    println!("dedup: {known} of {} ids known", 2 * WINDOW);
    let (mut next, mut out) = (u64::from(WINDOW), BytesMut::with_capacity(1 << 18));
    let (mut replies, mut inbox) = (BytesMut::new(), BytesMut::with_capacity(1 << 16));
    (0..EVENTS).for_each(|_| resp::encode_reply(&mut replies, &Reply::Bulk(None)));
    ask.run(vec![
        Case {
            name: "dedup: hash of a key",
            events: EVENTS,
            round: Box::new(|| {
                section(|| {
                    (0..EVENTS).for_each(|_| {
                        black_box(SipHasher13::new_with_keys(1, 2).hash(black_box(KEY)).as_u128());
                    })
                })
            }),
        },
        Case {
            name: "dedup: window of 1,000,000, full: look up, drop the oldest, insert",
            events: EVENTS,
            round: Box::new(|| {
                let hashes: Vec<u128> = (next..next + EVENTS).map(hash).collect();
                next += EVENTS;
                section(|| {
                    for hash in &hashes {
                        assert!(!window.contains(*hash, 1), "a new id");
                        window.insert(*hash, 1);
                    }
                });
            }),
        },
        Case {
            name: "dedup: write a claim",
            events: EVENTS,
            round: Box::new(|| {
                out.clear();
                section(|| (0..EVENTS).for_each(|_| claim(&mut out)));
            }),
        },
        Case {
            name: "dedup: read the reply to a claim",
            events: EVENTS,
            round: Box::new(|| {
                section(|| {
                    inbox.extend_from_slice(&replies);
                    for _ in 0..EVENTS {
                        let reply = resp::decode(&mut inbox).expect("RESP");
                        assert_eq!(black_box(reply), Step::Done(Reply::Bulk(None)));
                    }
                });
            }),
        },
    ]);
}

// As the pipeline writes it.
fn claim(out: &mut BytesMut) {
    resp::begin_command(out, 7);
    resp::arg(out, b"SET");
    resp::arg(out, black_box(KEY));
    resp::arg(out, b"host-1234:0badcafe");
    out.extend_from_slice(b"$2\r\nNX\r\n$3\r\nGET\r\n$2\r\nEX\r\n");
    resp::arg(out, b"120");
}
