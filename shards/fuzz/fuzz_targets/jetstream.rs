//! What JetStream answers: no panic; an ack subject that reads can be written and read again.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shards::wire::nats::info::Info;
use shards::wire::nats::jetstream::{
    AckSubject, ConsumerInfo, PubAck, StreamInfo, parse_message_get, parse_response,
};

fuzz_target!(|input: &[u8]| {
    if let Ok(ack) = PubAck::parse(input) {
        assert!(ack.seq > 0);
    }
    if let Ok(ack) = AckSubject::parse(input) {
        let mut out = BytesMut::new();
        ack.encode(&mut out);
        assert_eq!(AckSubject::parse(&out), Ok(AckSubject { domain: None, ..ack }));
    }
    let _ = Info::parse(input);
    let _ = parse_response::<StreamInfo>(input);
    let _ = parse_response::<ConsumerInfo>(input);
    let _ = parse_message_get(input);
});
