//! Contacts, whole and in parts. Source: contract `ingest.md` sections 2.5, 2.6 and 2.10.

use super::read::{Fault, Source, Wrong, slots};
use crate::domain::ingest::event::{Contact, ContactUpdate, Event};

slots!(ContactSlots {
    phone_number: b"phone_number",
    company_id: b"company_id",
    agent_id: b"agent_id",
    push_name: b"push_name",
    chat_id: b"chat_id",
});

/// `v1.contacts.upsert`
pub(crate) fn upsert(source: Source<'_>) -> Result<Event<'_>, Fault> {
    Ok(Event::ContactsUpsert(contact(source, &source.members()?)?))
}

/// `v1.contacts.update`
pub(crate) fn update(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let s: ContactSlots = source.members()?;
    let update = ContactUpdate {
        phone_number: source.required(s.phone_number, "/phone_number")?,
        agent_id: source.required(s.agent_id, "/agent_id")?,
        push_name: source.given(s.push_name, "/push_name")?,
    };
    source.company(s.company_id, "/company_id")?;
    Ok(Event::ContactsUpdate(update))
}

/// A contact from its members; in a batch one of many.
pub(super) fn contact<'a>(source: Source<'a>, s: &ContactSlots) -> Result<Contact<'a>, Wrong> {
    let contact = Contact {
        phone_number: source.required(s.phone_number, "/phone_number")?,
        agent_id: source.required(s.agent_id, "/agent_id")?,
        push_name: source.required(s.push_name, "/push_name")?,
        // The column is unique, so an empty one would be taken by the first contact that has none.
        chat_id: source.text(s.chat_id, "/chat_id")?.filter(|chat_id| !chat_id.is_empty()),
    };
    source.company(s.company_id, "/company_id")?;
    Ok(contact)
}
