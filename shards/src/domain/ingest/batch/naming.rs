//! Which contact names a chat. A chat belongs to the first one that does, in the order of the stream: so a
//! row of another contact that names it too goes behind the last that did, and no event is merged into a
//! row from before. An upsert's or a message's statement tells its own rows apart in their order
//! (`FREE_CHAT`), so those may share a wave: in a group, many new senders name one chat.
//!
//! History knows a contact by its chat, and only the table tells whose that is: so its rows are merged only
//! when they name the same chat or none, and a row must find in the table what the one before made of its
//! chat.

use super::hints::KeyHash;
use super::sheet::Sheet;
use super::statements::Kind;
use super::{Batch, Origin, Slot};

/// A "table" that keys of chats that contacts name are told apart by.
const CONTACT_CHATS: u8 = 4;

/// The last row that names a chat.
#[derive(Clone, Copy)]
pub(super) struct Naming {
    contact: KeyHash,
    kind: Kind,
    wave: u32,
}

impl Naming {
    /// The first wave for a row of another contact.
    fn wave_behind(self, kind: Kind) -> u32 {
        let may_share = self.kind == kind && kind != Kind::ContactsHistory;
        self.wave + u32::from(!may_share)
    }
}

impl Batch {
    /// Where the next row goes of a contact that may name a chat; `covers` is as for [`Batch::slot`].
    pub(super) fn slot_naming(
        &mut self,
        origin: &Origin,
        contact: KeyHash,
        kind: Kind,
        chat: Option<&str>,
        covers: impl FnOnce(&Sheet, usize) -> bool,
    ) -> Slot {
        let Some(chat) = chat.filter(|chat| !chat.is_empty()) else {
            return self.slot(origin, contact, kind, covers);
        };
        let key = self.key(origin.company, CONTACT_CHATS, [chat, ""]);
        let other = self.namings.get(&key).filter(|naming| naming.contact != contact);
        let behind = other.map(|naming| naming.wave_behind(kind));
        let covers = |sheet: &Sheet, row| behind.is_none() && covers(sheet, row);
        let slot = self.slot_from(behind.unwrap_or(0), origin, contact, kind, covers);
        let (Slot::Add { sheet } | Slot::Merge { sheet, .. }) = slot;
        let wave = self.sheets[sheet].wave;
        self.namings.insert(key, Naming { contact, kind, wave });
        slot
    }
}
