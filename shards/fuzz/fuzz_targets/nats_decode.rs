//! Both directions of the NATS protocol: no panic, and any split decodes alike. The first byte chooses
//! where the input is cut.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shards::wire::nats::{DecodeLimits, decode, decode_client};
use shards::wire::{Step, WireError};

fn all<T>(
    one: impl Fn(&mut BytesMut) -> Result<Step<T>, WireError>,
    size: usize,
    input: &[u8],
) -> (Vec<T>, Option<WireError>) {
    let mut inbox = BytesMut::new();
    let mut ops = Vec::new();
    for piece in input.chunks(size) {
        inbox.extend_from_slice(piece);
        loop {
            match one(&mut inbox) {
                Ok(Step::Done(op)) => ops.push(op),
                Ok(Step::Need { bytes_min }) => {
                    assert!(bytes_min > 0);
                    break;
                }
                Err(error) => return (ops, Some(error)),
            }
        }
    }
    (ops, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&cut, input)) = input.split_first() else { return };
    let size = usize::from(cut).max(1);
    let limits = DecodeLimits { line_max: 256, frame_max: 4096 };
    let server = |inbox: &mut BytesMut| decode(inbox, &limits);
    assert_eq!(all(server, input.len().max(1), input), all(server, size, input));
    assert_eq!(all(decode_client, input.len().max(1), input), all(decode_client, size, input));
});
