//! The RESP codec against the `redis` crate's packer and parser, and against itself.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use redis::Value;
use shards::wire::resp::{self, Reply, ReplyLimits};
use shards::wire::{Step, WireError};

fn decode_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Reply>, Option<WireError>, usize) {
    let mut inbox = BytesMut::new();
    let mut replies = Vec::new();
    let mut needed = 0;
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            let before = inbox.len();
            match resp::decode(&mut inbox) {
                Ok(Step::Done(reply)) => {
                    assert!(before >= needed, "done with {before} bytes, {needed} were needed");
                    needed = 0;
                    replies.push(reply);
                }
                Ok(Step::Need { bytes_min }) => {
                    assert!(bytes_min > 0 && inbox.len() == before);
                    needed = before + bytes_min;
                    break;
                }
                Err(error) => return (replies, Some(error), inbox.len()),
            }
        }
    }
    (replies, None, inbox.len())
}

fn encoded(replies: &[Reply]) -> BytesMut {
    let mut out = BytesMut::new();
    replies.iter().for_each(|reply| resp::encode_reply(&mut out, reply));
    out
}

#[test]
fn replies_are_read_and_their_prefixes_ask_for_more() {
    let bulk = |data: &'static str| Reply::Bulk(Some(Bytes::from_static(data.as_bytes())));
    let cases = [
        ("+OK\r\n", Reply::Simple(Bytes::from_static(b"OK"))),
        ("-ERR no\r\n", Reply::Error(Bytes::from_static(b"ERR no"))),
        (":-42\r\n", Reply::Integer(-42)),
        (":-9223372036854775808\r\n", Reply::Integer(i64::MIN)),
        ("$-1\r\n", Reply::Bulk(None)),
        ("$0\r\n\r\n", bulk("")),
        ("$4\r\n\r\n$1\r\n", bulk("\r\n$1")),
        ("*-1\r\n", Reply::Array(None)),
        ("*0\r\n", Reply::Array(Some(vec![]))),
        (
            "*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n",
            Reply::Array(Some(vec![
                bulk("a"),
                Reply::Array(Some(vec![Reply::Integer(1)])),
                Reply::Bulk(None),
            ])),
        ),
    ];
    for (wire, reply) in cases {
        for end in 0..wire.len() {
            assert_eq!(decode_pieces([&wire.as_bytes()[..end]]), (vec![], None, end), "{wire:?}");
        }
        assert_eq!(decode_pieces([wire.as_bytes()]), (vec![reply.clone()], None, 0), "{wire:?}");
        assert_eq!(decode_pieces(wire.as_bytes().chunks(1)), (vec![reply], None, 0), "{wire:?}");
    }
}

#[test]
fn what_is_not_resp_or_too_large_is_an_error() {
    let defaults = ReplyLimits::default();
    let limits = ReplyLimits { line_max: 8, bulk_max: 4, elements_max: 3, depth_max: 2 };
    let cases: [(&str, ReplyLimits, WireError); 11] = [
        ("!x\r\n", defaults, WireError::UnknownOperation { first: b'!' }),
        (":\r\n", defaults, WireError::Malformed { what: "integer", offset: 1 }),
        (":9223372036854775808\r\n", defaults, WireError::Malformed { what: "integer", offset: 1 }),
        ("$-2\r\n", defaults, WireError::Malformed { what: "bulk length", offset: 1 }),
        ("$1\r\nab\r\n", defaults, WireError::PayloadUnterminated { offset: 5 }),
        ("+O\nK\r\n", defaults, WireError::Malformed { what: "line end", offset: 2 }),
        ("$5\r\n", limits, WireError::FrameTooLarge { size: 5, limit: 4 }),
        ("*4\r\n", limits, WireError::TooManyElements { count: 4, limit: 3 }),
        ("*2\r\n*2\r\n", limits, WireError::TooManyElements { count: 4, limit: 3 }),
        ("*1\r\n*1\r\n*1\r\n", limits, WireError::TooDeep { limit: 2 }),
        ("+123456789", limits, WireError::LineTooLong { limit: 8 }),
    ];
    for (wire, limits, error) in cases {
        let mut inbox = BytesMut::from(wire);
        assert_eq!(resp::decode_within(&mut inbox, &limits), Err(error), "{wire:?}");
    }
    // A declared length costs nothing until its bytes are there.
    let mut inbox = BytesMut::from("*1048576\r\n");
    assert!(matches!(resp::decode(&mut inbox), Ok(Step::Need { .. })));
}

fn text() -> impl Strategy<Value = Bytes> {
    "[ -~]{0,12}".prop_map(Bytes::from)
}

fn reply() -> impl Strategy<Value = Reply> {
    let data = prop::collection::vec(any::<u8>(), 0..24).prop_map(Bytes::from);
    let leaf = prop_oneof![
        text().prop_map(Reply::Simple),
        text().prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        prop::option::of(data).prop_map(Reply::Bulk),
        Just(Reply::Array(None)),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop::collection::vec(inner, 0..5).prop_map(|items| Reply::Array(Some(items)))
    })
}

/// The same reply in the words of the `redis` crate; `None` where it has none to compare: errors
/// carry their code apart there.
fn same(ours: &Reply, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Reply::Simple(text), Value::Okay) => text.as_ref() == b"OK",
        (Reply::Simple(text), Value::SimpleString(other)) => text == other.as_bytes(),
        (Reply::Error(_), Value::ServerError(_)) => true,
        (Reply::Integer(value), Value::Int(other)) => value == other,
        (Reply::Bulk(None) | Reply::Array(None), Value::Nil) => true,
        (Reply::Bulk(Some(data)), Value::BulkString(other)) => data == other,
        (Reply::Array(Some(items)), Value::Array(others)) => {
            items.len() == others.len()
                && items.iter().zip(others).all(|(ours, theirs)| same(ours, theirs))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn commands_are_packed_as_the_redis_crate_packs_them(
        args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        number: u64,
    ) {
        let mut command = redis::cmd("XADD");
        args.iter().for_each(|value| { command.arg(value.as_slice()); });
        let mut list = vec![b"XADD".as_slice()];
        list.extend(args.iter().map(Vec::as_slice));
        let (mut whole, mut parts) = (BytesMut::new(), BytesMut::new());
        resp::encode_command(&mut whole, &list);
        resp::begin_command(&mut parts, list.len());
        for value in &list {
            let (head, tail) = value.split_at(value.len() / 2);
            resp::arg_parts(&mut parts, &[head, tail]);
        }
        let packed = command.get_packed_command();
        prop_assert_eq!(whole.as_ref(), packed.as_slice());
        prop_assert_eq!(&parts, &whole);

        let mut ours = BytesMut::new();
        resp::begin_command(&mut ours, 2);
        resp::arg(&mut ours, b"EXPIRE");
        resp::arg_u64(&mut ours, number);
        let theirs = redis::cmd("EXPIRE").arg(number).get_packed_command();
        prop_assert_eq!(ours.as_ref(), theirs.as_slice());
    }

    #[test]
    fn replies_are_read_as_the_redis_crate_reads_them(reply in reply()) {
        let wire = encoded(std::slice::from_ref(&reply));
        let theirs = redis::parse_redis_value(&wire).unwrap();
        let (ours, error, left) = decode_pieces([wire.as_ref()]);
        prop_assert_eq!((error, left, ours.len()), (None, 0, 1));
        prop_assert!(same(&ours[0], &theirs), "{:?} {:?}", ours, theirs);
    }

    #[test]
    fn any_split_decodes_alike_and_undoes_encode(
        replies in prop::collection::vec(reply(), 0..4), size in 1_usize..40,
    ) {
        let wire = encoded(&replies);
        prop_assert_eq!(decode_pieces(wire.chunks(size)), (replies, None, 0));
    }

    #[test]
    fn damaged_replies_never_panic_and_decode_alike(
        replies in prop::collection::vec(reply(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        size in 1_usize..40,
    ) {
        let mut wire = encoded(&replies);
        for (at, byte) in flips {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let (whole, cut) = (decode_pieces([wire.as_ref()]), decode_pieces(wire.chunks(size)));
        prop_assert_eq!(whole.0, cut.0);
        prop_assert_eq!(whole.1, cut.1);
    }
}
