//! Replies of Redis: no panic, any split decodes alike, and what was read can be written and read again.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shards::wire::resp::{Reply, ReplyLimits, decode_within, encode_reply};
use shards::wire::{Step, WireError};

const LIMITS: ReplyLimits =
    ReplyLimits { line_max: 256, bulk_max: 4096, elements_max: 256, depth_max: 4 };

fn all(size: usize, input: &[u8]) -> (Vec<Reply>, Option<WireError>) {
    let mut inbox = BytesMut::new();
    let mut replies = Vec::new();
    for piece in input.chunks(size) {
        inbox.extend_from_slice(piece);
        loop {
            match decode_within(&mut inbox, &LIMITS) {
                Ok(Step::Done(reply)) => replies.push(reply),
                Ok(Step::Need { bytes_min }) => {
                    assert!(bytes_min > 0);
                    break;
                }
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&cut, input)) = input.split_first() else { return };
    let whole = all(input.len().max(1), input);
    assert_eq!(whole, all(usize::from(cut).max(1), input));
    let mut out = BytesMut::new();
    whole.0.iter().for_each(|reply| encode_reply(&mut out, reply));
    assert_eq!(all(out.len().max(1), &out), (whole.0, None));
});
