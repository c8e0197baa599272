//! The NATS codec against transcripts of real servers and against itself. Invariant of every case: fed
//! one byte at a time it decodes alike, and every strict prefix asks for more. Source: transcripts of
//! nats-server 2.9.10, 2.10.27 and 2.15.1; cases marked "rule" no server sends.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use shards::wire::nats::encode;
use shards::wire::nats::headers::Headers;
use shards::wire::nats::jetstream::AckSubject;
use shards::wire::nats::{ClientOp, DecodeLimits, Msg, ServerOp, decode, decode_client};
use shards::wire::{Step, WireError};

type Ops<T> = (Vec<T>, Option<WireError>);
type DecodeOne<T> = fn(&mut BytesMut) -> Result<Step<T>, WireError>;

fn decode_server(inbox: &mut BytesMut) -> Result<Step<ServerOp>, WireError> {
    decode(inbox, &DecodeLimits::default())
}

/// Feeds pieces and holds the decoder to its word about `bytes_min`.
fn decode_pieces<'a, T>(
    one: DecodeOne<T>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Ops<T>, usize) {
    let mut inbox = BytesMut::new();
    let mut ops = Vec::new();
    let mut needed = 0;
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            let before = inbox.len();
            match one(&mut inbox) {
                Ok(Step::Done(op)) => {
                    assert!(before >= needed, "done with {before} bytes, {needed} were needed");
                    assert!(inbox.len() < before);
                    needed = 0;
                    ops.push(op);
                }
                Ok(Step::Need { bytes_min }) => {
                    assert!(bytes_min > 0 && inbox.len() == before);
                    needed = before + bytes_min;
                    break;
                }
                Err(error) => return ((ops, Some(error)), inbox.len()),
            }
        }
    }
    ((ops, None), inbox.len())
}

fn decode_all<T: PartialEq + std::fmt::Debug>(one: DecodeOne<T>, bytes: &[u8]) -> Ops<T> {
    let (whole, left) = decode_pieces(one, [bytes]);
    let (single, left_single) = decode_pieces(one, bytes.chunks(1));
    assert_eq!(whole.0, single.0, "{}", bytes.escape_ascii());
    assert_eq!(whole.1.is_some(), single.1.is_some(), "{}", bytes.escape_ascii());
    if whole.1.is_none() {
        assert_eq!(left, left_single);
    }
    whole
}

/// Decodes exactly one operation; each strict prefix of it must ask for more.
fn decode_one<T: PartialEq + std::fmt::Debug>(one: DecodeOne<T>, bytes: &[u8]) -> T {
    for end in 0..bytes.len() {
        let (ops, left) = decode_pieces(one, [&bytes[..end]]);
        assert_eq!((ops, left), ((Vec::new(), None), end), "{}", bytes[..end].escape_ascii());
    }
    let (mut ops, error) = decode_all(one, bytes);
    assert_eq!((ops.len(), error), (1, None), "{}", bytes.escape_ascii());
    ops.pop().unwrap()
}

fn message(bytes: &[u8]) -> Msg {
    match decode_one(decode_server, bytes) {
        ServerOp::Msg(msg) => msg,
        other => panic!("{other:?}"),
    }
}

fn failure(bytes: &[u8]) -> WireError {
    let (ops, error) = decode_all(decode_server, bytes);
    assert_eq!(ops, []);
    error.unwrap_or_else(|| panic!("accepted {}", bytes.escape_ascii()))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn words_info_and_errors_are_read() {
    let subscription = r#"Permissions Violation for Subscription to "no.x" using queue "qq""#;
    let cases = [
        ("PING\r\n", ServerOp::Ping),
        ("PONG\r\n", ServerOp::Pong),
        ("+OK\r\n", ServerOp::Ok),
        ("ping\r\n", ServerOp::Ping),
        ("PONG \r\n", ServerOp::Pong),
        (
            "-ERR 'Unknown Protocol Operation'\r\n",
            ServerOp::Err(bytes("Unknown Protocol Operation")),
        ),
        (
            "-ERR 'Permissions Violation for Subscription to \"no.x\" using queue \"qq\"'\r\n",
            ServerOp::Err(bytes(subscription)),
        ),
        ("-ERR bare\r\n", ServerOp::Err(bytes("bare"))),
        (
            "INFO {\"server_id\":\"X\",\"headers\":true,\"max_payload\":1048576} \r\n",
            ServerOp::Info(bytes(r#"{"server_id":"X","headers":true,"max_payload":1048576}"#)),
        ),
    ];
    for (wire, expected) in cases {
        assert_eq!(decode_one(decode_server, wire.as_bytes()), expected, "{wire:?}");
    }
}

#[test]
fn messages_without_headers_are_read() {
    let ack = b"$JS.ACK.S3.a.1.2.2.1795209715606644439.1".as_slice();
    type Case<'a> = (&'a [u8], &'a [u8], u64, Option<&'a [u8]>, &'a [u8]);
    let cases: [Case<'_>; 12] = [
        (b"MSG foo 1 5\r\nhello\r\n", b"foo", 1, None, b"hello"),
        (b"MSG foo 1 bar 5\r\nhello\r\n", b"foo", 1, Some(b"bar"), b"hello"),
        (b"MSG foo 1 0\r\n\r\n", b"foo", 1, None, b""),
        (b"MSG foo 1 005\r\nhello\r\n", b"foo", 1, None, b"hello"),
        (b"MSG _INBOX.a 14  0\r\n\r\n", b"_INBOX.a", 14, None, b""),
        (b"MSG foo 1 4\r\n\r\n\r\n\r\n", b"foo", 1, None, b"\r\n\r\n"),
        (b"MSG foo 1 11\r\nPING\r\n+OK\r\n\r\n", b"foo", 1, None, b"PING\r\n+OK\r\n"),
        (b"MSG f\xc3\xb6 1 1\r\nx\r\n", b"f\xc3\xb6", 1, None, b"x"),
        (b"MSG f\xff 1 1\r\nx\r\n", b"f\xff", 1, None, b"x"),
        (b"msg\tfoo \t1\tbar  1 \r\nx\r\n", b"foo", 1, Some(b"bar"), b"x"),
        (
            b"MSG o.1 7 $JS.ACK.S3.a.1.2.2.1795209715606644439.1 2\r\nxx\r\n",
            b"o.1",
            7,
            Some(ack),
            b"xx",
        ),
        (
            b"MSG v.1 5 $JS.ACK._.szMpdrwD.V.w.1.1.1.1795211898839463375.0 1\r\nx\r\n",
            b"v.1",
            5,
            Some(b"$JS.ACK._.szMpdrwD.V.w.1.1.1.1795211898839463375.0"),
            b"x",
        ),
    ];
    for (wire, subject, sid, reply, payload) in cases {
        let msg = message(wire);
        assert_eq!((msg.subject(), msg.sid(), msg.reply()), (subject, sid, reply));
        assert_eq!((msg.payload(), msg.headers()), (payload, b"".as_slice()));
        assert_eq!((msg.frame_len(), msg.status()), (wire.len(), None));
        assert_eq!(msg.payload_bytes(), payload);
        assert_eq!(msg.reply_bytes().as_deref(), reply);
    }
    let ack = AckSubject::parse(ack).unwrap();
    assert_eq!((ack.stream, ack.consumer), (b"S3".as_slice(), b"a".as_slice()));
    assert_eq!((ack.delivered, ack.stream_seq, ack.consumer_seq, ack.pending), (1, 2, 2, 1));
}

#[test]
fn messages_with_headers_are_read() {
    let msg = message(b"HMSG foo 1 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n");
    assert_eq!((msg.header(b"Bar"), msg.payload()), (Some(&b"Baz"[..]), &b"hello"[..]));
    let msg = message(b"HMSG foo 1 rep 22 22\r\nNATS/1.0\r\nBar: Baz\r\n\r\n\r\n");
    assert_eq!((msg.reply(), msg.payload(), msg.status()), (Some(&b"rep"[..]), &b""[..], None));
    let msg = message(b"HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\n\r\n");
    assert_eq!((Headers::new(msg.headers()).iter().count(), msg.status()), (0, None));
    let msg = message(b"HMSG foo 1 31 32\r\nNATS/1.0\r\nA: 1\r\nA: 2\r\nb:  3\r\n\r\nx\r\n");
    let headers = Headers::new(msg.headers());
    assert_eq!(headers.get_all(b"A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!((headers.get(b"b"), headers.get(b"B")), (Some(&b"3"[..]), None));
}

#[test]
fn statuses_are_read() {
    type Case<'a> = (&'a [u8], u16, &'a [u8], &'a [(&'a [u8], &'a [u8])]);
    let cases: [Case<'_>; 6] = [
        (b"HMSG i.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", 503, b"", &[]),
        (
            b"HMSG i.1 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n",
            503,
            b"",
            &[(b"Nats-Subject", b"nobody")],
        ),
        (b"HMSG p.3 5 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n", 404, b"No Messages", &[]),
        (
            b"HMSG p.2 5  81 81\r\nNATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 8\r\nNats-Pending-Bytes: 0\r\n\r\n\r\n",
            408,
            b"Request Timeout",
            &[(b"Nats-Pending-Messages", b"8"), (b"Nats-Pending-Bytes", b"0")],
        ),
        (
            b"HMSG p.7 5 75 75\r\nNATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 6\r\nNats-Last-Stream: 6\r\n\r\n\r\n",
            100,
            b"Idle Heartbeat",
            &[(b"Nats-Last-Consumer", b"6"), (b"Nats-Last-Stream", b"6")],
        ),
        (
            b"HMSG p.1 5 34 34\r\nNATS/1.0 409 Leadership Change\r\n\r\n\r\n",
            409,
            b"Leadership Change",
            &[],
        ),
    ];
    for (wire, code, description, fields) in cases {
        let msg = message(wire);
        let status = msg.status().unwrap();
        assert_eq!((status.code, status.description), (code, description));
        let found: Vec<_> = Headers::new(msg.headers()).iter().collect();
        assert_eq!(found, fields);
    }
}

#[test]
fn a_malformed_block_is_an_attribute_of_its_message() {
    let msg = message(b"HMSG foo 1 5 7\r\nabcdexy\r\n");
    assert_eq!((msg.payload(), msg.status()), (&b"xy"[..], None));
    assert!(!Headers::new(msg.headers()).is_well_formed());
    // Rule.
    let msg = message(b"HMSG foo 1 19 19\r\nNATS/1.0 4\r\nX:y\r\n\r\n\r\n");
    assert_eq!((msg.status(), msg.header(b"X")), (None, Some(&b"y"[..])));
    // A status with a payload was published by somebody: not a status.
    assert_eq!(message(b"HMSG foo 1 16 17\r\nNATS/1.0 503\r\n\r\nx\r\n").status(), None);
}

#[test]
fn operations_behind_one_another_come_in_order() {
    let (ops, error) =
        decode_all(decode_server, b"MSG foo 1 1\r\na\r\nPING\r\nMSG foo 1 1\r\nb\r\n");
    let expected = [
        ServerOp::Msg(Msg::new(b"foo", 1, None, b"", b"a")),
        ServerOp::Ping,
        ServerOp::Msg(Msg::new(b"foo", 1, None, b"", b"b")),
    ];
    assert_eq!((ops.as_slice(), error), (expected.as_slice(), None));
}

#[test]
fn what_no_server_sends_is_an_error() {
    use WireError::{
        FrameTooLarge, HeadersExceedTotal, Malformed, PayloadUnterminated, UnknownOperation,
    };
    let limit = 16 << 20;
    let cases: [(&[u8], WireError); 16] = [
        (b"MSG foo 1 4\r\nhello\r\n", PayloadUnterminated { offset: 17 }),
        (b"MSG foo 1 abc\r\n", Malformed { what: "MSG", offset: 10 }),
        (b"MSG foo 1 -1\r\n", Malformed { what: "MSG", offset: 10 }),
        (b"MSG foo 1 +1\r\n", Malformed { what: "MSG", offset: 10 }),
        (b"MSG foo 1 99999999999999999999\r\n", Malformed { what: "MSG", offset: 10 }),
        (b"MSG foo 1 16777217\r\n", FrameTooLarge { size: 16_777_217, limit }),
        (b"MSG foo 1 18446744073709551615\r\n", FrameTooLarge { size: u64::MAX, limit }),
        (b"MSG foo 1\r\n", Malformed { what: "MSG", offset: 9 }),
        (b"MSG foo 1 a b 5\r\n", Malformed { what: "MSG", offset: 13 }),
        (b"MSG foo x 5\r\n", Malformed { what: "MSG", offset: 7 }),
        (b"HMSG foo 1 30 27\r\n", HeadersExceedTotal { headers: 30, total: 27 }),
        (b"HMSG foo 1 27\r\n", Malformed { what: "HMSG", offset: 13 }),
        (b"FOO bar\r\n", UnknownOperation { first: b'F' }),
        (b"\r\n", UnknownOperation { first: b'\r' }),
        (b"PING\n", Malformed { what: "line end", offset: 4 }),
        (b"PI\rNG\r\n", Malformed { what: "line end", offset: 2 }),
    ];
    for (wire, expected) in cases {
        let error = failure(wire);
        // Offsets inside a line are the tokens' or the blanks' before them.
        match (error, expected) {
            (Malformed { what, .. }, Malformed { what: wanted, .. }) => assert_eq!(what, wanted),
            _ => assert_eq!(error, expected, "{}", wire.escape_ascii()),
        }
    }
}

#[test]
fn a_line_without_end_is_refused_at_its_bound() {
    let limits = DecodeLimits::default();
    let mut inbox = BytesMut::from(vec![b'x'; limits.line_max].as_slice());
    assert_eq!(decode(&mut inbox, &limits), Ok(Step::Need { bytes_min: 2 }));
    inbox.extend_from_slice(b"x");
    let limit = limits.line_max;
    assert_eq!(decode(&mut inbox, &limits), Err(WireError::LineTooLong { limit }));
    // A cluster's INFO may be longer than any other line.
    let mut info = BytesMut::new();
    encode::encode_info(&mut info, &[b' ', b'{'].repeat(200_000));
    assert!(matches!(decode(&mut info, &limits), Ok(Step::Done(ServerOp::Info(_)))));
    let mut info = BytesMut::from(b"INFO ".as_slice());
    info.extend_from_slice(&vec![b'x'; 1 << 20]);
    assert_eq!(decode(&mut info, &limits), Err(WireError::LineTooLong { limit: 1 << 20 }));
}

#[test]
fn clients_are_read() {
    let publish = |reply: Option<&'static str>, headers: &'static str| ClientOp::Pub {
        subject: bytes("foo"),
        reply: reply.map(bytes),
        headers: bytes(headers),
        payload: bytes("hello"),
    };
    let cases = [
        ("CONNECT {} \r\n", ClientOp::Connect(bytes("{}"))),
        ("PUB foo 5\r\nhello\r\n", publish(None, "")),
        ("PUB foo bar 5\r\nhello\r\n", publish(Some("bar"), "")),
        (
            "HPUB foo 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n",
            publish(None, "NATS/1.0\r\nBar: Baz\r\n\r\n"),
        ),
        (
            "hpub foo bar 12  17\r\nNATS/1.0\r\n\r\nhello\r\n",
            publish(Some("bar"), "NATS/1.0\r\n\r\n"),
        ),
        ("SUB foo.* 1\r\n", ClientOp::Sub { subject: bytes("foo.*"), queue: None, sid: 1 }),
        (
            "sub foo q 18446744073709551615\r\n",
            ClientOp::Sub { subject: bytes("foo"), queue: Some(bytes("q")), sid: u64::MAX },
        ),
        ("UNSUB 1\r\n", ClientOp::Unsub { sid: 1, max: None }),
        ("UNSUB  1 2\r\n", ClientOp::Unsub { sid: 1, max: Some(2) }),
        ("PING\r\n", ClientOp::Ping),
        ("pong\r\n", ClientOp::Pong),
    ];
    for (wire, expected) in cases {
        assert_eq!(decode_one(decode_client, wire.as_bytes()), expected, "{wire:?}");
    }
    for bad in [
        "PUB foo -1\r\n",
        "PUB foo\r\n",
        "PUB foo bar baz 5\r\nhello\r\n",
        "PUB foo 4\r\nhello\r\n",
        "HPUB foo 30 27\r\n",
        "SUB foo\r\n",
        "UNSUB\r\n",
        "UNSUB x\r\n",
        "+OK\r\n",
        "MSG foo 1 0\r\n\r\n",
    ] {
        let (ops, error) = decode_all(decode_client, bad.as_bytes());
        assert!(ops.is_empty() && error.is_some(), "{bad:?}");
    }
}

#[test]
fn encoders_refuse_subjects_and_then_write_nothing() {
    let mut out = BytesMut::new();
    assert!(encode::encode_pub(&mut out, b"a..b", None, b"x").is_err());
    assert!(encode::encode_pub(&mut out, b"a", Some(b"r 5\r\nPUB x"), b"x").is_err());
    assert!(encode::encode_hpub(&mut out, b"foo.*", None, b"", b"x").is_err());
    assert!(encode::encode_sub(&mut out, b"a.>.b", None, 1).is_err());
    assert!(encode::encode_sub(&mut out, b"a.>", Some(b"q q"), 1).is_err());
    assert!(out.is_empty());
}

#[test]
fn parts_make_the_line_that_the_whole_makes() {
    let (mut parts, mut whole) = (BytesMut::new(), BytesMut::new());
    let block = b"NATS/1.0\r\n\r\n";
    encode::begin_hpub(&mut parts, &[b"wa.", b"co"], &[b"_I.", b"7"], block.len(), 17);
    parts.extend_from_slice(block);
    parts.extend_from_slice(b"hello");
    encode::end_pub(&mut parts);
    encode::encode_hpub(&mut whole, b"wa.co", Some(b"_I.7"), block, b"hello").unwrap();
    assert_eq!(parts, whole);
    assert_eq!(whole.as_ref(), b"HPUB wa.co _I.7 12 17\r\nNATS/1.0\r\n\r\nhello\r\n");
}

fn subject() -> impl Strategy<Value = Vec<u8>> {
    "[!-)+-\\-/-=?-~\u{e9}]{1,6}(\\.[!-)+-\\-/-=?-~]{1,6}){0,3}".prop_map(String::into_bytes)
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"\r\nPING\r\nMSG a 1 1\r\n".to_vec())
    ]
}

fn server_op() -> impl Strategy<Value = ServerOp> {
    let text = "[!-&(-~]([ -&(-~]{0,20}[!-&(-~])?";
    let parts = (subject(), any::<u64>(), prop::option::of(subject()), payload(), payload());
    prop_oneof![
        6 => parts.prop_map(|(subject, sid, reply, headers, payload)| {
            ServerOp::Msg(Msg::new(&subject, sid, reply.as_deref(), &headers, &payload))
        }),
        1 => Just(ServerOp::Ping),
        1 => Just(ServerOp::Pong),
        1 => Just(ServerOp::Ok),
        1 => text.prop_map(|text| ServerOp::Info(text.into())),
        1 => text.prop_map(|text| ServerOp::Err(text.into())),
    ]
}

fn client_op() -> impl Strategy<Value = ClientOp> {
    let parts = (subject(), prop::option::of(subject()), payload(), payload());
    let queue = prop::option::of(subject());
    prop_oneof![
        4 => parts.prop_map(|(subject, reply, headers, payload)| ClientOp::Pub {
            subject: subject.into(),
            reply: reply.map(Bytes::from),
            headers: headers.into(),
            payload: payload.into(),
        }),
        1 => (subject(), queue, any::<u64>()).prop_map(|(subject, queue, sid)| ClientOp::Sub {
            subject: subject.into(), queue: queue.map(Bytes::from), sid,
        }),
        1 => any::<(u64, Option<u64>)>().prop_map(|(sid, max)| ClientOp::Unsub { sid, max }),
        1 => Just(ClientOp::Ping),
        1 => Just(ClientOp::Pong),
        1 => "[!-~]([ -~]{0,20}[!-~])?".prop_map(|json| ClientOp::Connect(json.into())),
    ]
}

fn encode_server(out: &mut BytesMut, op: &ServerOp) {
    match op {
        ServerOp::Info(json) => encode::encode_info(out, json),
        ServerOp::Ping => encode::encode_ping(out),
        ServerOp::Pong => encode::encode_pong(out),
        ServerOp::Ok => encode::encode_ok(out),
        ServerOp::Err(text) => encode::encode_err(out, text),
        ServerOp::Msg(m) if m.headers().is_empty() => {
            encode::encode_msg(out, m.subject(), m.sid(), m.reply(), m.payload());
        }
        ServerOp::Msg(m) => {
            encode::encode_hmsg(out, m.subject(), m.sid(), m.reply(), m.headers(), m.payload());
        }
    }
}

fn encode_client(out: &mut BytesMut, op: &ClientOp) {
    match op {
        ClientOp::Connect(json) => encode::encode_connect(out, json),
        ClientOp::Pub { subject, reply, headers, payload } if headers.is_empty() => {
            encode::encode_pub(out, subject, reply.as_deref(), payload).unwrap();
        }
        ClientOp::Pub { subject, reply, headers, payload } => {
            encode::encode_hpub(out, subject, reply.as_deref(), headers, payload).unwrap();
        }
        ClientOp::Sub { subject, queue, sid } => {
            encode::encode_sub(out, subject, queue.as_deref(), *sid).unwrap();
        }
        ClientOp::Unsub { sid, max } => encode::encode_unsub(out, *sid, *max),
        ClientOp::Ping => encode::encode_ping(out),
        ClientOp::Pong => encode::encode_pong(out),
    }
}

/// The bytes cut at places that `cuts` choose.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..8)
}

proptest! {
    #[test]
    fn decode_undoes_encode_for_servers(
        ops in prop::collection::vec(server_op(), 0..6), cuts in cuts()
    ) {
        let mut out = BytesMut::new();
        ops.iter().for_each(|op| encode_server(&mut out, op));
        let (decoded, left) = decode_pieces(decode_server, pieces(&out, &cuts));
        prop_assert_eq!(decoded, (ops, None));
        prop_assert_eq!(left, 0);
    }

    #[test]
    fn decode_undoes_encode_for_clients(
        ops in prop::collection::vec(client_op(), 0..6), cuts in cuts()
    ) {
        let mut out = BytesMut::new();
        ops.iter().for_each(|op| encode_client(&mut out, op));
        let (decoded, left) = decode_pieces(decode_client, pieces(&out, &cuts));
        prop_assert_eq!(decoded, (ops, None));
        prop_assert_eq!(left, 0);
    }

    /// Valid frames with a few bytes changed: mostly errors, and the same ones however they arrive.
    #[test]
    fn any_split_decodes_alike(
        ops in prop::collection::vec(server_op(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in cuts(),
    ) {
        let mut out = BytesMut::new();
        ops.iter().for_each(|op| encode_server(&mut out, op));
        for (at, byte) in flips {
            let at = at.index(out.len());
            out[at] = byte;
        }
        let (whole, _) = decode_pieces(decode_server, [out.as_ref()]);
        let (cut, _) = decode_pieces(decode_server, pieces(&out, &cuts));
        prop_assert_eq!(&whole, &cut);
        let (client, _) = decode_pieces(decode_client, [out.as_ref()]);
        let (client_cut, _) = decode_pieces(decode_client, pieces(&out, &cuts));
        prop_assert_eq!(client, client_cut);
    }
}
