//! Chats, whole and in parts. Source: contract `ingest.md` sections 2.1, 2.2 and 2.12.

use super::read::{Fault, Source, Wrong, slots};
use crate::domain::ingest::event::{Chat, ChatUpdate, Event};

slots!(ChatSlots {
    chat_id: b"chat_id",
    jid: b"jid",
    company_id: b"company_id",
    agent_id: b"agent_id",
    phone_number: b"phone_number",
    push_name: b"push_name",
    custom_name: b"custom_name",
    is_group: b"is_group",
    group_name: b"group_name",
    last_message: b"last_message",
    conversation_timestamp: b"conversation_timestamp",
    unread_count: b"unread_count",
    not_spam: b"not_spam",
});

slots!(UpdateSlots {
    chat_id: b"chat_id",
    id: b"id",
    company_id: b"company_id",
    agent_id: b"agent_id",
    unread_count: b"unread_count",
    last_message: b"last_message",
    conversation_timestamp: b"conversation_timestamp",
});

/// `v1.chats.upsert`
pub(crate) fn upsert(source: Source<'_>) -> Result<Event<'_>, Fault> {
    Ok(Event::ChatsUpsert(chat(source, &source.members()?)?))
}

/// `v1.chats.update`
pub(crate) fn update(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let s: UpdateSlots = source.members()?;
    let chat_id = if s.chat_id.is_some() || !s.id.is_some() {
        source.required(s.chat_id, "/chat_id")?
    } else {
        source.required(s.id, "/id")?
    };
    let update = ChatUpdate {
        chat_id,
        unread_count: source.integer32(s.unread_count, "/unread_count")?,
        last_message: source.object(s.last_message, "/last_message")?,
        conversation_timestamp: source
            .integer(s.conversation_timestamp, "/conversation_timestamp")?,
    };
    source.text(s.agent_id, "/agent_id")?;
    source.company(s.company_id, "/company_id")?;
    Ok(Event::ChatsUpdate(update))
}

/// A chat from its members; in a batch one of many.
pub(super) fn chat<'a>(source: Source<'a>, s: &ChatSlots) -> Result<Chat<'a>, Wrong> {
    let is_group = source.flag(s.is_group, "/is_group")?;
    let phone_number = if is_group == Some(true) {
        source.text(s.phone_number, "/phone_number")?.unwrap_or_default()
    } else {
        source.required(s.phone_number, "/phone_number")?
    };
    let chat = Chat {
        chat_id: source.required(s.chat_id, "/chat_id")?,
        jid: source.required(s.jid, "/jid")?,
        agent_id: source.required(s.agent_id, "/agent_id")?,
        phone_number,
        push_name: source.text(s.push_name, "/push_name")?,
        is_group,
        group_name: source.text(s.group_name, "/group_name")?,
        last_message: source.object(s.last_message, "/last_message")?,
        conversation_timestamp: source
            .natural(s.conversation_timestamp, "/conversation_timestamp")?,
        unread_count: source.integer32(s.unread_count, "/unread_count")?,
        not_spam: source.flag(s.not_spam, "/not_spam")?,
    };
    // Known to the old service, which drops it; its type counted.
    source.text(s.custom_name, "/custom_name")?;
    source.company(s.company_id, "/company_id")?;
    Ok(chat)
}
