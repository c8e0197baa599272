//! Any payload of any event: no panic; what is accepted holds nothing that PostgreSQL could not store; what
//! is refused says why, in one line. Input: one byte that chooses the event, then the payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::domain::ingest::{Body, Catalog, Event, Kind, Refusal};

thread_local! {
    static CATALOG: Catalog = Catalog::load(&[]).expect("our schemas compile");
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, payload)) = input.split_first() else { return };
    let body = Body::of(payload);
    CATALOG.with(|catalog| match Kind::ALL.get(usize::from(*choice) % (Kind::ALL.len() + 1)) {
        Some(kind) => {
            let subject = format!("v1.{}.ACME", kind.base());
            match catalog.route(&subject).expect("a subject of ours").decode(&body) {
                Ok(event) => check_event(&event),
                Err(refusal) => check_refusal(&refusal),
            }
        }
        None => {
            if let Err(refusal) = catalog.decode_dlq("v1.dlq.ACME", &body) {
                check_refusal(&refusal);
            }
        }
    });
});

fn check_event(event: &Event<'_>) {
    match event {
        Event::ChatsUpsert(chat) => check_object(chat.last_message),
        Event::ChatsUpdate(update) => check_object(update.last_message),
        Event::MessagesUpsert(message) => check_object(message.message_obj),
        Event::MessagesUpdate(update) => check_object(update.edited_message_obj),
        Event::HistoryChats(chats) => chats.iter().for_each(|chat| check_object(chat.last_message)),
        Event::HistoryMessages(batch) => {
            batch.messages.iter().for_each(|message| check_object(message.message_obj));
        }
        Event::ContactsUpsert(_)
        | Event::ContactsUpdate(_)
        | Event::ConnectionUpdate(_)
        | Event::HistoryContacts(_) => {}
    }
    // Debug writes U+0000 as `\0` and doubles a backslash that stands in a value.
    let values = format!("{event:?}").replace("\\\\", "");
    assert!(!values.contains("\\0"), "{values}");
}

fn check_object(object: Option<&str>) {
    let Some(text) = object else { return };
    assert!(text.starts_with('{') && text.ends_with('}'));
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("a free object is JSON");
}

fn check_refusal(refusal: &Refusal) {
    let text = refusal.to_string();
    assert!(!refusal.words.is_empty() && !refusal.rule.is_empty(), "{refusal:?}");
    assert!(!text.contains(['\0', '\n', '\r']), "{text}");
}
