//! Claims about batches, on the calls they make.

use super::*;
use crate::domain::ingest::{
    Chat, ChatUpdate, Contact, ContactUpdate, Flow, HistoryMessages, Message, MessageUpdate,
};

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
            "a messages_new m",
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
fn rows_are_first_tried_as_new_ones_where_no_message_comes_in_two_waves() {
    let (mut batch, mut hints) = batch();
    let events = [
        ("A", 1, upsert("m", "sent")),
        ("A", 2, update("n")), // Another message: the order between the two does not matter.
        ("B", 3, upsert("m", "sent")),
        ("B", 4, update("m")), // The row that is there must have the upsert before the update.
    ];
    let made = calls(&mut batch, &mut hints, &events);
    assert_eq!(
        made,
        ["A messages_new m", "A messages_update n", "B messages m", "B messages_update m"]
    );
    let retries: Vec<_> = (0..4).map(|number| batch.retry(number).map(|c| describe(&c))).collect();
    assert_eq!(retries, [Some("A messages m".to_owned()), None, None, None]);
    assert!(batch.counted(0, 0) && !batch.counted(0, 1));

    batch.open(1);
    let ids = ["1", "2", "3", "4", "5"];
    let many = (1..).zip(ids).map(|(at, id)| ("A", at, upsert(id, "sent"))).collect::<Vec<_>>();
    let many = calls(&mut batch, &mut hints, &many);
    assert_eq!(many, ["A messages 1,2,3,4,5"], "that costs more the more rows there are");
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

fn contact<'a>(phone: &'a str, chat: &'a str) -> Contact<'a> {
    let chat_id = Some(chat.into()).filter(|_| chat != "-");
    Contact { phone_number: phone.into(), chat_id, ..Contact::default() }
}

fn contact_upsert<'a>(phone: &'a str, chat: &'a str) -> Event<'a> {
    Event::ContactsUpsert(contact(phone, chat))
}

/// Makes a contact, in the chat.
fn incoming<'a>(phone: &'a str, chat: &'a str) -> Event<'a> {
    let (flow, from_phone) = (Flow::In, Some(phone.into()));
    Event::MessagesUpsert(Message { flow, from_phone, chat_id: chat.into(), ..message(phone, "x") })
}

/// Calls that name chats: statement, then phone and chat of its rows.
fn chats_named(events: Vec<Event<'_>>) -> Vec<String> {
    let (mut batch, mut hints) = batch();
    let events: Vec<_> = (1..).zip(events).map(|(at, event)| ("A", at, event)).collect();
    calls(&mut batch, &mut hints, &events);
    let described = (0..batch.calls()).map(|number| {
        let call = batch.call(number);
        let chat = if call.statement.name == "onboard" { 3 } else { 4 };
        if !call.statement.name.starts_with("contacts") && call.statement.name != "onboard" {
            return String::new();
        }
        let cell = |column: usize, row| match &call.columns[column] {
            crate::columns::Column::Text(texts) => {
                String::from_utf8_lossy(texts.get(row).unwrap_or(b"-")).into_owned()
            }
            other => panic!("{other:?}"),
        };
        let rows = (0..call.rows).map(|row| format!("{}:{}", cell(1, row), cell(chat, row)));
        format!("{} {}", call.statement.name, rows.collect::<Vec<_>>().join(","))
    });
    described.filter(|call| !call.is_empty()).collect()
}

#[test]
fn a_contact_that_names_the_chat_of_another_goes_behind_it() {
    let events = vec![
        contact_upsert("1", "c"),
        contact_upsert("2", "c"), // Behind it in the same call.
        incoming("3", "c"),
        incoming("4", "c"),
        contact_upsert("5", "d"), // Nobody else's: at once.
        contact_upsert("1", "c"), // Not merged: 2 may have the chat by now.
        contact_upsert("6", "c"),
        incoming("7", "d"),
    ];
    let expected = ["contacts 1:c,2:c,5:d", "onboard 3:c,4:c,7:d", "contacts 1:c,6:c"];
    assert_eq!(chats_named(events), expected);
}

#[test]
fn a_later_chat_of_a_contact_is_merged_only_while_nobody_else_named_it() {
    let events = vec![
        contact_upsert("1", "-"),
        contact_upsert("1", "c"), // Merged.
        contact_upsert("1", "c"), // Merged.
        contact_upsert("2", "-"),
        contact_upsert("3", "d"),
        contact_upsert("2", "d"), // Else it would be ahead of 3.
        contact_upsert("4", "e"),
        contact_upsert("4", "f"), // Its own if `e` is another's.
        contact_upsert("5", ""),
        contact_upsert("6", ""), // No chat at all.
        contact_upsert("5", ""), // Merged.
    ];
    let expected = ["contacts 1:c,2:-,3:d,4:e,5:-,6:-", "contacts 2:d,4:f"];
    assert_eq!(chats_named(events), expected);
}

#[test]
fn history_finds_contacts_by_chats_that_the_row_before_may_have_given() {
    let history = |items: &[(&'static str, &'static str)]| {
        Event::HistoryContacts(items.iter().map(|(phone, chat)| contact(phone, chat)).collect())
    };
    let events = vec![
        // The second is merged; the third is not, for it may be of another contact.
        history(&[("1", "c"), ("1", "c"), ("1", "d"), ("2", "c"), ("3", "-"), ("3", "-")]),
        history(&[("4", "e"), ("3", "f"), ("2", "c")]),
        contact_upsert("5", "e"),
    ];
    let expected = ["contacts_history 1:c,3:-,4:e", "contacts_history 1:d,2:c,3:f", "contacts 5:e"];
    assert_eq!(chats_named(events), expected);
}

#[test]
fn chats_are_forgotten_with_their_batch_and_of_one_company() {
    let (mut batch, mut hints) = batch();
    for _ in 0..2 {
        batch.open(7);
        let events = [("A", 1, contact_upsert("1", "c")), ("B", 2, incoming("2", "c"))];
        calls(&mut batch, &mut hints, &events);
        assert!(batch.sheets.iter().all(|sheet| sheet.wave == 0));
    }
    let update = ContactUpdate { phone_number: "2".into(), ..ContactUpdate::default() };
    let events = [("A", 3, Event::ContactsUpdate(update)), ("A", 4, incoming("2", "c"))];
    calls(&mut batch, &mut hints, &events);
    assert_eq!(batch.sheets.last().map(|sheet| sheet.wave), Some(1), "the row of its contact");
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
