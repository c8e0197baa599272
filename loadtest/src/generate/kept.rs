//! Events kept to be sent a second time. Invariant: a copy has the bytes of its original.

use std::fmt::Write as _;

use super::Origin;

/// How many past events can come again.
const KEPT_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) subject: String,
    pub(super) payload: Vec<u8>,
    pub(super) msg_id: String,
    pub(super) chat: String,
    pub(super) origin: Origin,
    id_len: usize,
    copies: u32,
}

impl Kept {
    /// Counts one more copy and renames it: `<id>~<copy>`.
    pub(super) fn rename_copy(&mut self) {
        self.copies += 1;
        self.msg_id.truncate(self.id_len);
        // Writing to a String cannot fail.
        let _ = write!(self.msg_id, "~{}", self.copies);
    }
}

/// The events kept; a new one takes the place of a random older one.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    kept: Vec<Kept>,
}

impl Memory {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn draw(&mut self, rng: &mut fastrand::Rng) -> &mut Kept {
        let at = rng.usize(..self.kept.len());
        &mut self.kept[at]
    }

    pub(super) fn keep(
        &mut self,
        rng: &mut fastrand::Rng,
        origin: Origin,
        (subject, payload, msg_id, chat): (&str, &[u8], &str, &str),
    ) {
        if self.kept.len() < KEPT_MAX {
            self.kept.push(Kept {
                subject: subject.to_owned(),
                payload: payload.to_owned(),
                msg_id: msg_id.to_owned(),
                chat: chat.to_owned(),
                origin,
                id_len: msg_id.len(),
                copies: 0,
            });
            return;
        }
        let slot = self.draw(rng);
        subject.clone_into(&mut slot.subject);
        payload.clone_into(&mut slot.payload);
        msg_id.clone_into(&mut slot.msg_id);
        chat.clone_into(&mut slot.chat);
        (slot.origin, slot.id_len, slot.copies) = (origin, msg_id.len(), 0);
    }
}
