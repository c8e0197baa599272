//! Claims about batches, on the calls they make.

use super::*;
use crate::domain::ingest::{Chat, ChatUpdate, HistoryMessages, Message, MessageUpdate};

const SENT: i64 = 1_767_607_200;

fn message<'a>(id: &'a str, status: &'a str) -> Message<'a> {
    Message {
        message_id: id.into(),
        status: Some(status.into()),
        message_timestamp: Some(SENT),
        ..Message::default()
    }
}

fn batch() -> (Batch, Hints) {
    let mut batch = Batch::new(Settings::default(), (1, 2));
    batch.open(7);
    (batch, Hints::new(10))
}

/// Adds events of (company, sequence, event) and tells the calls: company, statement, texts of the first
/// column.
fn calls(batch: &mut Batch, hints: &mut Hints, events: &[(&str, u64, Event<'_>)]) -> Vec<String> {
    for (company, stream_sequence, event) in events {
        let position =
            Position { stream: "s", stream_sequence: *stream_sequence, ..Position::default() };
        let item = Item { company, event, position: &position, stream_created_ns: 0 };
        batch.add(&item, hints).unwrap();
    }
    batch.seal();
    (0..batch.calls()).map(|number| describe(&batch.call(number))).collect()
}

fn describe(call: &Call<'_>) -> String {
    let crate::columns::Column::Text(keys) = &call.columns[0] else { panic!("no key") };
    let keys = (0..call.rows).map(|row| String::from_utf8_lossy(keys.get(row).unwrap_or_default()));
    let keys = keys.collect::<Vec<_>>().join(",");
    format!("{} {:?} {keys}", call.scalars.company, call.statement)
}

fn upsert<'a>(id: &'a str, status: &'a str) -> Event<'a> {
    Event::MessagesUpsert(message(id, status))
}

fn update(id: &str) -> Event<'_> {
    let status = Some("read".into());
    Event::MessagesUpdate(MessageUpdate {
        message_id: id.into(),
        status,
        ..MessageUpdate::default()
    })
}

#[test]
fn what_touches_a_key_again_goes_to_a_later_wave_unless_it_can_be_merged() {
    let (mut batch, mut hints) = batch();
    let events = [
        ("B", 1, upsert("m", "sent")),
        ("a", 2, upsert("m", "sent")),
        ("B", 3, upsert("m", "read")), // Merged.
        ("B", 4, upsert("m", "")),     // Lacks the status: a row of its own.
        ("B", 5, update("m")),
        ("B", 6, update("m")), // Merged.
        ("B", 5, update("m")), // Out of order: the database decides.
        ("B", 7, upsert("n", "sent")),
        (
            "B",
            8,
            Event::MessagesUpsert(Message {
                message_timestamp: Some(SENT + 86_400),
                ..message("n", "x")
            }),
        ),
    ];
    let calls = calls(&mut batch, &mut hints, &events);
    assert_eq!(
        calls,
        [
            "B messages m,n",
            "a messages m",
            "B messages m,n",
            "B messages_update m",
            "B messages_update m",
        ]
    );
    assert_eq!(batch.len(), 9);
    // The fates of merged events are one.
    batch.coded(0, 1, 2);
    batch.coded(3, 1, 3);
    use Fate::{Applied, NotFound, Stale};
    let fates = [Stale, Applied, Stale, Applied, NotFound, NotFound, Applied, Applied, Applied];
    assert_eq!(batch.settle(&mut hints), fates);
}

#[test]
fn increments_of_a_chat_stay_in_one_call_and_in_order() {
    let (mut batch, mut hints) = batch();
    let count = |id: &'static str| {
        Event::ChatsUpdate(ChatUpdate {
            chat_id: id.into(),
            unread_count: Some(1),
            ..ChatUpdate::default()
        })
    };
    let whole = Event::ChatsUpsert(Chat { chat_id: "c".into(), ..Chat::default() });
    let events = [
        ("A", 1, count("c")),
        ("A", 2, count("d")),
        ("A", 3, count("c")),
        ("A", 4, whole),
        ("A", 5, count("c")),
    ];
    let calls = calls(&mut batch, &mut hints, &events);
    assert_eq!(calls, ["A chats_update c,d,c", "A chats c", "A chats_update c"]);
}

#[test]
fn a_long_history_event_is_cut_into_calls_and_has_one_fate() {
    let (mut batch, mut hints) = batch();
    let ids: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
    let messages = ids.iter().map(|id| message(id, "x")).collect();
    let event = Event::HistoryMessages(HistoryMessages {
        messages,
        is_last_batch: true,
        agent_id: Some("ag".into()),
    });
    let calls = calls(&mut batch, &mut hints, &[("A", 1, event)]);
    assert_eq!(calls.len(), 4);
    assert_eq!(batch.call(0).rows + batch.call(1).rows + batch.call(2).rows, 2500);
    assert!(!batch.counted(0, 1000) && batch.counted(2, 499));
    for number in 0..3 {
        batch.coded(number, -1, 6);
    }
    assert_eq!(batch.settle(&mut hints), [Fate::Applied]); // The post-scan's row is new.
}

#[test]
fn memory_is_reused_and_names_are_kept() {
    let (mut batch, mut hints) = batch();
    let held = |batch: &Batch| -> usize {
        let sheets = batch.sheets.iter().chain(batch.idle.iter().flatten());
        sheets.flat_map(|sheet| &sheet.columns).map(crate::columns::Column::capacity).sum()
    };
    let mut first = None;
    for round in 0..5 {
        batch.open(round);
        let events = [
            ("A", round + 1, upsert("m", "sent")),
            ("A", round + 2, update("m")),
            ("B", 9, update("n")),
        ];
        calls(&mut batch, &mut hints, &events);
        assert_eq!(*first.get_or_insert(held(&batch)), held(&batch));
        assert_eq!((batch.companies.len(), batch.sheets.len()), (2, 3));
    }
}

#[test]
fn what_cannot_be_written_leaves_no_trace() {
    let (mut batch, mut hints) = batch();
    let position = Position::default();
    let late =
        Event::MessagesUpsert(Message { message_timestamp: Some(i64::MAX), ..message("m", "") });
    let good = upsert("m", "");
    for (company, event) in [("A", &late), ("not good", &good)] {
        let item = Item { company, event, position: &position, stream_created_ns: 0 };
        batch.add(&item, &mut hints).unwrap_err();
    }
    batch.seal();
    assert_eq!((batch.len(), batch.calls()), (0, 0));
    let milliseconds =
        Event::MessagesUpsert(Message { message_timestamp: Some(SENT * 1000), ..message("m", "") });
    assert_eq!([&milliseconds, &good].map(suspicious_timestamps), [1, 0]);
}
