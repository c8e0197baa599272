//! What an incoming message does to its contact, in the message's own transaction. Source: contract
//! `ingest.md` section 5.8; the rules themselves stand in `sql/onboard.sql`.

use super::rows::CONTACTS;
use super::statements::Kind;
use super::{Batch, Hints, Origin, Slot};
use crate::domain::ingest::{Flow, Message};
use std::borrow::Cow;
use uuid::Uuid;

impl Batch {
    pub(super) fn onboard(&mut self, origin: &Origin, message: &Message<'_>, hints: &Hints) {
        let Some(from) = message.from_phone.as_ref().filter(|_| message.flow == Flow::In) else {
            return;
        };
        let phone = clean(from);
        if phone.is_empty() {
            return;
        }
        let campaign = message.campaign.as_ref().filter(|campaign| campaign.is_campaign);
        let key = self.key(origin.company, CONTACTS, [&message.agent_id, &phone]);
        let was_onboarded = || {
            let place = self.places.get(&key);
            place.is_some_and(|place| place.kind == Kind::Onboard)
                || hints.onboarded.get(key).is_some()
        };
        // Only a campaign changes a contact that is in the log.
        if campaign.is_none() && was_onboarded() {
            return;
        }
        let mut id = Uuid::encode_buffer();
        let id = self.contact_id(origin, &message.agent_id, &phone, &mut id);
        self.onboarded.push(key);
        let chat = Some(message.chat_id.as_ref());
        if let Slot::Add { sheet } =
            self.slot_naming(origin, key, Kind::Onboard, chat, |_, _| false)
        {
            let tags = campaign.and_then(|campaign| campaign.tags.as_ref());
            let assigned_to = campaign.and_then(|campaign| campaign.assigned_to.as_ref());
            let from = campaign.and_then(|campaign| campaign.origin.as_ref());
            self.finish(origin, sheet, |row| {
                row.text(Some(id)).text(Some(&phone)).text(Some(&message.agent_id));
                row.text(chat).text(Some(&message.message_id));
                row.int8(Some(message.message_timestamp.unwrap_or(0)));
                row.boolean(campaign.is_some());
                for text in [tags, assigned_to, from] {
                    row.or_empty(text.map(AsRef::as_ref));
                }
            });
        }
    }
}

/// A phone number without `+`, blanks and brackets; hyphens stay.
fn clean<'a>(phone: &'a str) -> Cow<'a, str> {
    let is_dropped = |byte: u8| matches!(byte, b'+' | b' ' | b'(' | b')');
    if !phone.bytes().any(is_dropped) {
        return Cow::Borrowed(phone);
    }
    Cow::Owned(phone.chars().filter(|c| !matches!(c, '+' | ' ' | '(' | ')')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_lose_symbols_and_keep_hyphens() {
        for (given, cleaned) in [
            ("+1 (234) 567", "1234567"),
            ("+62 811-00022", "62811-00022"),
            ("+( )", ""),
            ("1", "1"),
        ] {
            assert_eq!(clean(given), cleaned);
        }
    }
}
