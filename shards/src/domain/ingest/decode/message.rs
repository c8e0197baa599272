//! Messages, whole and in parts. Source: contract `ingest.md` sections 2.3, 2.4 and 2.12.

use super::read::{Fault, Slots, Source, Wrong, collect_inner, slots};
use crate::domain::ingest::event::{
    Campaign, Event, Flow, Message, MessageKey, MessageUpdate, Text,
};
use crate::domain::ingest::refusal::Reason;
use crate::domain::json::{self, Cursor, Field};

slots!(PlainSlots {
    message_id: b"message_id",
    from_phone: b"from_phone",
    from: b"from",
    to_phone: b"to_phone",
    to: b"to",
    chat_id: b"chat_id",
    jid: b"jid",
    flow: b"flow",
    message_type: b"message_type",
    message_text: b"message_text",
    message_url: b"message_url",
    company_id: b"company_id",
    agent_id: b"agent_id",
    key: b"key",
    message_obj: b"message_obj",
    status: b"status",
    message_timestamp: b"message_timestamp",
    campaign: b"campaign",
});

slots!(KeySlots {
    id: b"id",
    from_me: b"fromMe",
    from_me_alias: b"from_me",
    remote_jid: b"remoteJid",
    remote_jid_alias: b"remote_jid",
});

slots!(CampaignSlots {
    is_campaign: b"is_campaign",
    tags: b"tags",
    assigned_to: b"assigned_to",
    origin: b"origin",
});

slots!(UpdateSlots {
    message_id: b"message_id",
    id: b"id",
    company_id: b"company_id",
    status: b"status",
    edited_message_obj: b"edited_message_obj",
    is_deleted: b"is_deleted",
    message_url: b"message_url",
});

/// A message's members, and those of its two objects.
#[derive(Default)]
pub(super) struct MessageSlots {
    plain: PlainSlots,
    key: KeySlots,
    campaign: CampaignSlots,
}

impl Slots for MessageSlots {
    fn slot(&mut self, name: &[u8]) -> Option<&mut Field> {
        self.plain.slot(name)
    }

    fn collect(&mut self, cursor: &mut Cursor<'_>) -> Result<(), json::Fault> {
        let Self { plain, key, campaign } = self;
        cursor.each_name(|cursor, name| match name {
            b"key" => collect_inner(cursor, &mut plain.key, key),
            b"campaign" => collect_inner(cursor, &mut plain.campaign, campaign),
            _ => plain.take(cursor, name),
        })
    }
}

/// `v1.messages.upsert`
pub(crate) fn upsert(source: Source<'_>) -> Result<Event<'_>, Fault> {
    Ok(Event::MessagesUpsert(message(source, &source.members()?)?))
}

/// `v1.messages.update`
pub(crate) fn update(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let s: UpdateSlots = source.members()?;
    let message_id = if s.message_id.is_some() || !s.id.is_some() {
        source.required(s.message_id, "/message_id")?
    } else {
        source.required(s.id, "/id")?
    };
    let update = MessageUpdate {
        message_id,
        status: source.text(s.status, "/status")?,
        edited_message_obj: source.object(s.edited_message_obj, "/edited_message_obj")?,
        is_deleted: source.flag(s.is_deleted, "/is_deleted")?,
        message_url: source.text(s.message_url, "/message_url")?,
    };
    source.company(s.company_id, "/company_id")?;
    Ok(Event::MessagesUpdate(update))
}

/// A message from its members; in a batch one of many.
pub(super) fn message<'a>(source: Source<'a>, s: &MessageSlots) -> Result<Message<'a>, Wrong> {
    let plain = &s.plain;
    let message = Message {
        message_id: source.required(plain.message_id, "/message_id")?,
        from_phone: either(source, (plain.from_phone, "/from_phone"), (plain.from, "/from"))?,
        to_phone: either(source, (plain.to_phone, "/to_phone"), (plain.to, "/to"))?,
        chat_id: source.required(plain.chat_id, "/chat_id")?,
        jid: source.required(plain.jid, "/jid")?,
        flow: flow(source, plain.flow)?,
        message_type: source.text(plain.message_type, "/message_type")?,
        message_text: source.text(plain.message_text, "/message_text")?,
        message_url: source.text(plain.message_url, "/message_url")?,
        agent_id: source.required(plain.agent_id, "/agent_id")?,
        key: key(source, plain.key, &s.key)?,
        message_obj: source.object(plain.message_obj, "/message_obj")?,
        status: source.text(plain.status, "/status")?,
        message_timestamp: source.integer(plain.message_timestamp, "/message_timestamp")?,
        campaign: campaign(source, plain.campaign, &s.campaign)?,
    };
    source.company(plain.company_id, "/company_id")?;
    Ok(message)
}

/// A member and where it is said to be.
type Named = (Field, &'static str);

/// The main name if it holds anything, else its alias.
fn either<'a>(source: Source<'a>, main: Named, alias: Named) -> Result<Option<Text<'a>>, Wrong> {
    let (field, at) = if main.0.is_some() { main } else { alias };
    source.text(field, at)
}

fn flow(source: Source<'_>, field: Field) -> Result<Flow, Wrong> {
    let text = source.given(field, "/flow")?;
    match text.as_ref() {
        "IN" => Ok(Flow::In),
        "OUT" => Ok(Flow::Out),
        _ => Err(Wrong::new(Reason::BadValue, "/flow")),
    }
}

fn key<'a>(
    source: Source<'a>,
    whole: Field,
    s: &KeySlots,
) -> Result<Option<MessageKey<'a>>, Wrong> {
    if !source.is_object(whole, "/key")? {
        return Ok(None);
    }
    let from_me = if s.from_me.is_some() {
        source.flag(s.from_me, "/key/fromMe")?
    } else {
        source.flag(s.from_me_alias, "/key/from_me")?
    };
    let jids = ((s.remote_jid, "/key/remoteJid"), (s.remote_jid_alias, "/key/remote_jid"));
    Ok(Some(MessageKey {
        id: source.required(s.id, "/key/id")?,
        from_me: from_me.unwrap_or(false),
        remote_jid: either(source, jids.0, jids.1)?.unwrap_or_default(),
    }))
}

fn campaign<'a>(
    source: Source<'a>,
    whole: Field,
    s: &CampaignSlots,
) -> Result<Option<Campaign<'a>>, Wrong> {
    if !source.is_object(whole, "/campaign")? {
        return Ok(None);
    }
    Ok(Some(Campaign {
        is_campaign: source.flag(s.is_campaign, "/campaign/is_campaign")?.unwrap_or(false),
        tags: source.text(s.tags, "/campaign/tags")?,
        assigned_to: source.text(s.assigned_to, "/campaign/assigned_to")?,
        origin: source.text(s.origin, "/campaign/origin")?,
    }))
}
