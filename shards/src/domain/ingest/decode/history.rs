//! History batches: lists of what realtime events bring one by one. Invariant: one bad item refuses the
//! whole batch. Source: contract `ingest.md` sections 2.8 to 2.10 and 5.10.

use super::chat::{ChatSlots, chat};
use super::contact::{ContactSlots, contact};
use super::message::{MessageSlots, message};
use super::read::{Fault, Slots, Source, Wrong, slots};
use crate::domain::ingest::event::{Event, HistoryMessages};
use crate::domain::ingest::refusal::Reason;
use crate::domain::json::{self, Cursor};

slots!(HeadSlots { is_last_batch: b"is_last_batch", agent_id: b"agent_id" });

/// `v1.history.chats`
pub(crate) fn chats(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let (_, chats) = batch::<ChatSlots, _>(source, "/chats", chat)?;
    Ok(Event::HistoryChats(chats?))
}

/// `v1.history.messages`
pub(crate) fn messages(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let (head, messages) = batch::<MessageSlots, _>(source, "/messages", message)?;
    Ok(Event::HistoryMessages(HistoryMessages {
        messages: messages?,
        is_last_batch: source.flag(head.is_last_batch, "/is_last_batch")?.unwrap_or(false),
        agent_id: source.text(head.agent_id, "/agent_id")?,
    }))
}

/// `v1.history.contacts`
pub(crate) fn contacts(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let (_, contacts) = batch::<ContactSlots, _>(source, "/contacts", contact)?;
    Ok(Event::HistoryContacts(contacts?))
}

/// How an item is made of its members.
type Make<'a, S, T> = fn(Source<'a>, &S) -> Result<T, Wrong>;
/// The items of a list, or what is wrong with the first that is.
type Items<T> = Result<Vec<T>, Wrong>;

/// The members beside the list, whose pointer is given, and its items.
fn batch<'a, S: Slots, T>(
    source: Source<'a>,
    list: &'static str,
    make: Make<'a, S, T>,
) -> Result<(HeadSlots, Items<T>), json::Fault> {
    let (mut head, mut all) = (HeadSlots::default(), Ok(Vec::new()));
    let mut cursor = source.cursor();
    cursor.each_name(|cursor, name| {
        if Some(name) == list.as_bytes().strip_prefix(b"/") {
            all = items(source, cursor, list, make)?;
            return Ok(());
        }
        head.take(cursor, name)
    })?;
    cursor.finish()?;
    Ok((head, all))
}

/// Passes the list at the cursor. What follows a bad item is passed too: the list may occur again, and
/// then this one does not count.
fn items<'a, S: Slots, T>(
    source: Source<'a>,
    cursor: &mut Cursor<'a>,
    list: &'static str,
    make: Make<'a, S, T>,
) -> Result<Items<T>, json::Fault> {
    match cursor.peek()? {
        b'[' => {}
        first => {
            cursor.skip()?;
            let is_null = first == b'n';
            return Ok(if is_null { Ok(Vec::new()) } else { Err(wrong_type(list)) });
        }
    }
    let (mut items, mut index) = (Ok(Vec::new()), 0);
    cursor.each_element(|cursor| {
        let item = item(source, cursor, make)?;
        if let Ok(made) = &mut items {
            match item {
                Ok(item) => made.push(item),
                Err(wrong) => items = Err(Wrong { item: Some((list, index)), ..wrong }),
            }
        }
        index += 1;
        Ok(())
    })?;
    Ok(items)
}

fn item<'a, S: Slots, T>(
    source: Source<'a>,
    cursor: &mut Cursor<'a>,
    make: Make<'a, S, T>,
) -> Result<Result<T, Wrong>, json::Fault> {
    if cursor.peek()? != b'{' {
        cursor.skip()?;
        return Ok(Err(wrong_type("")));
    }
    let mut members = S::default();
    members.collect(cursor)?;
    Ok(make(source, &members))
}

fn wrong_type(at: &'static str) -> Wrong {
    Wrong::new(Reason::WrongType, at)
}
