//! The file of a trace: what is written is read back, and nothing else ever is, whatever becomes of the
//! bytes in between.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use loadtest::trace::{End, Preface, Reader, Record, TraceError, Writer};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// An event that owns its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    arrived_ns: u64,
    seq: Option<u64>,
    parts: [Vec<u8>; 3],
}

impl Event {
    fn record(&self) -> Record<'_> {
        let [subject, headers, payload] = &self.parts;
        Record { arrived_ns: self.arrived_ns, seq: self.seq, subject, headers, payload }
    }
}

impl From<Record<'_>> for Event {
    fn from(record: Record<'_>) -> Self {
        let parts = [record.subject, record.headers, record.payload].map(<[u8]>::to_vec);
        Self { arrived_ns: record.arrived_ns, seq: record.seq, parts }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let time = prop_oneof![
        0..10_u64,
        1_700_000_000_000_000_000..1_700_000_001_000_000_000_u64,
        any::<u64>()
    ];
    let seq = proptest::option::of(prop_oneof![1..100_u64, 1..=u64::MAX]);
    let part = || vec(any::<u8>(), 0..60);
    let payload =
        prop_oneof![9 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 60_000..140_000)];
    (time, seq, part(), part(), payload).prop_map(|(arrived_ns, seq, subject, headers, payload)| {
        Event { arrived_ns, seq, parts: [subject, headers, payload] }
    })
}

/// Events, and how many of them are sealed into one frame.
fn events() -> impl Strategy<Value = (Vec<Event>, usize)> {
    (vec(event(), 0..40), 1..20_usize)
}

fn written(events: &[Event], seal_every: usize) -> (Preface, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.trace");
    let preface = Preface {
        recorded_ns: 7,
        source: "subject \"v1.>\"".into(),
        creator: "test".into(),
        server: "2.10.27".into(),
    };
    let mut writer = Writer::create(&path, &preface).unwrap();
    for (number, event) in events.iter().enumerate() {
        writer.append(&event.record()).unwrap();
        if number % seal_every == 0 {
            writer.seal().unwrap();
        }
    }
    assert!(!path.exists(), "the name is given at the end");
    let (totals, size) = writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((totals.events, size), (events.len() as u64, bytes.len() as u64));
    (preface, bytes)
}

/// What can be read of these bytes, and how that ends.
fn read(bytes: &[u8]) -> (Vec<Event>, Result<End, TraceError>) {
    let mut reader = match Reader::new(bytes, Path::new("t.trace")) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut events = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => events.push(Event::from(record)),
            Ok(None) => return (events, Ok(reader.end().unwrap().clone())),
            Err(error) => return (events, Err(error)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read((events, seal_every) in events()) {
        let (preface, bytes) = written(&events, seal_every);
        let reader = Reader::new(bytes.as_slice(), Path::new("t.trace")).unwrap();
        prop_assert_eq!(reader.preface(), &preface);
        let (found, end) = read(&bytes);
        prop_assert!(found == events);
        let is_whole = matches!(end, Ok(End::Whole(totals)) if totals.events == events.len() as u64);
        prop_assert!(is_whole);
    }

    #[test]
    fn a_trace_cut_anywhere_gives_its_first_events_and_says_so(
        (events, seal_every) in events(),
        cut in any::<Index>(),
    ) {
        let (_, bytes) = written(&events, seal_every);
        let cut = cut.index(bytes.len());
        let (found, end) = read(&bytes[..cut]);
        prop_assert!(events.starts_with(&found));
        match end {
            Ok(End::Cut { offset, rest }) => prop_assert_eq!(offset + rest, cut as u64),
            Ok(End::Whole(_)) => prop_assert!(false, "a cut trace passes for a whole one"),
            // Before its first frame it is no trace yet.
            Err(error) => prop_assert!(found.is_empty(), "{}", error),
        }
    }

    #[test]
    fn flipped_bits_give_an_error_and_never_other_events(
        (events, seal_every) in events(),
        flips in vec((any::<Index>(), 0..8_u8), 1..4),
    ) {
        let (_, whole) = written(&events, seal_every);
        let mut bytes = whole.clone();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        prop_assume!(bytes != whole);
        let (found, end) = read(&bytes);
        prop_assert!(events.starts_with(&found));
        prop_assert!(end.is_err(), "{:?}", end);
    }

    #[test]
    fn arbitrary_bytes_are_refused(
        start in prop_oneof![Just(0), Just(8), Just(12), Just(16), any::<usize>()],
        tail in vec(any::<u8>(), 0..300),
    ) {
        let (_, whole) = written(&[], 1);
        let mut bytes = whole[..start % (whole.len() + 1)].to_vec();
        bytes.extend(&tail);
        prop_assume!(bytes != whole);
        let (found, end) = read(&bytes);
        prop_assert!(found.is_empty());
        prop_assert!(!matches!(end, Ok(End::Whole(_))));
    }
}

#[test]
fn what_is_wrong_is_said_with_file_and_place() {
    let (_, bytes) = written(&[], 1);
    let said = |bytes: &[u8]| read(bytes).1.unwrap_err().to_string();
    let mut later = bytes.clone();
    later[8] = 9;
    assert_eq!(said(&later), "t.trace: format 9 is not known here; this version reads 1");
    assert_eq!(said(b"{}"), "t.trace: not a trace: it does not begin with DAISITRC");
    assert_eq!(said(b""), "t.trace: not a trace: it does not begin with DAISITRC");
    let mut bad = bytes.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let offset = bytes.len() - 25 - br#"{"events":0,"bytes":0,"gaps":0,"gap_texts":[]}"#.len();
    assert_eq!(said(&bad), format!("t.trace: at byte {offset}: a frame fails its check"));
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(said(&longer), format!("t.trace: at byte {offset}: bytes behind the end"));
    // A preface of 4 GiB is not allocated.
    let mut hostile = bytes;
    hostile[12..16].fill(0xff);
    assert_eq!(said(&hostile), "t.trace: at byte 0: a preface longer than any that is written");
}

#[test]
fn frames_in_another_order_are_refused() {
    let event = |number: u64| Event {
        arrived_ns: number,
        seq: Some(number),
        parts: [b"s".to_vec(), Vec::new(), vec![b'x'; 100]],
    };
    let (_, bytes) = written(&[event(1), event(2)], 1);
    let (_, none) = written(&[], 1);
    let preface = none.len() - 25 - br#"{"events":0,"bytes":0,"gaps":0,"gap_texts":[]}"#.len();
    let size =
        |at: usize| 25 + u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
    let second = preface + size(preface);
    let behind = second + size(second);
    let swapped = [&bytes[..preface], &bytes[second..behind], &bytes[preface..second]].concat();
    let (found, end) = read(&swapped);
    assert!(found.is_empty());
    assert!(end.unwrap_err().to_string().contains("fails its check"));
}

#[test]
fn no_trace_is_written_over_and_no_event_is_too_large_for_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.trace");
    std::fs::write(&path, "kept").unwrap();
    let refused = Writer::create(&path, &Preface::default()).unwrap_err();
    assert!(refused.to_string().contains("t.trace"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    let mut writer = Writer::create(&folder.path().join("u.trace"), &Preface::default()).unwrap();
    let payload = vec![0; 17 << 20];
    let record =
        Record { arrived_ns: 0, seq: None, subject: b"s", headers: b"", payload: &payload };
    assert!(matches!(writer.append(&record), Err(TraceError::TooLarge { .. })));
    // As much as the NATS codec takes.
    let largest = Record { payload: &payload[..16 << 20], ..record };
    writer.append(&largest).unwrap();
    writer.append(&Record { payload: b"small", ..record }).unwrap();
    writer.finish().unwrap();
    let mut reader = Reader::open(&folder.path().join("u.trace")).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().payload.len(), 16 << 20);
    assert_eq!(reader.next_record().unwrap().unwrap().payload, b"small");
    assert!(reader.next_record().unwrap().is_none());
}
