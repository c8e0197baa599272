//! Who an event is about: agent, chat, addresses and phones, in reused strings. Invariant: a pure
//! function of seed, company and number, so an event of any kind names the same chat the same way; two
//! companies have chats of the same names, which must never meet.

use super::super::put::rewrite;

/// Ways in which a phone is written. Cleaned as section 5.8 says, they are three different numbers.
const SPELLINGS: u64 = 6;

/// Spelling without a sign or a space.
pub(super) const PLAIN: u64 = 0;

/// One chat of one agent, and its other side.
#[derive(Clone, Debug, Default)]
pub(super) struct Party {
    pub(super) agent: String,
    pub(super) agent_phone: String,
    pub(super) chat: String,
    pub(super) jid: String,
    /// Of a contact event: always spelled in the same way for one contact.
    pub(super) phone: String,
    /// Of this one message.
    pub(super) phone_any: String,
    pub(super) number: u64,
    pub(super) is_group: bool,
}

/// What names are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming {
    /// Of the seed: two seeds share no chat and no message.
    pub(super) tag: u32,
    pub(super) agents: u64,
    /// Below this of 1024 chats are groups.
    pub(super) groups: u64,
}

impl Party {
    /// Turns to chat `number` of a company.
    pub(super) fn turn_to(&mut self, naming: Naming, number: u64, spelling: u64) {
        let Naming { tag, agents, groups } = naming;
        self.number = number;
        // Odd, so it reaches every remainder: groups lie evenly among the chats.
        self.is_group = (number * 389 + 200) % 1_024 < groups;
        let agent = number % agents;
        rewrite!(self.agent, "agent-{agent}");
        rewrite!(self.agent_phone, "62222{agent:07}");
        rewrite!(self.chat, "chat-{tag:08x}-{number}");
        // A stride prime to a milliard: within a company no phone comes twice.
        let digits = (u64::from(tag) + number % 1_000_000_000 * 387_420_489) % 1_000_000_000;
        if self.is_group {
            rewrite!(self.jid, "120363{tag:010}{number}@g.us");
        } else {
            rewrite!(self.jid, "628{digits:09}@s.whatsapp.net");
        }
        spell(&mut self.phone, digits, number % SPELLINGS);
        spell(&mut self.phone_any, digits, spelling % SPELLINGS);
    }
}

fn spell(out: &mut String, digits: u64, spelling: u64) {
    let (head, middle, tail) = (digits / 10_000_000, digits / 10_000 % 1_000, digits % 10_000);
    match spelling {
        PLAIN => rewrite!(out, "628{digits:09}"),
        1 => rewrite!(out, "+628{digits:09}"),
        2 => rewrite!(out, "+62 8{head:02}-{middle:03}-{tail:04}"),
        3 => rewrite!(out, "(62) 8{head:02} {middle:03}{tail:04}"),
        4 => rewrite!(out, "628{head:02}-{middle:03}-{tail:04}"),
        _ => rewrite!(out, "08{head:02} {middle:03} {tail:04}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Naming, Party};

    #[test]
    fn chats_and_phones_differ_and_groups_have_their_share() {
        let naming = Naming { tag: 7, agents: 4, groups: 123 };
        let (mut party, mut seen, mut groups) = (Party::default(), HashSet::new(), 0);
        for number in 0..20_000 {
            party.turn_to(naming, number, 1);
            groups += u32::from(party.is_group);
            assert!(seen.insert(party.chat.clone()) && seen.insert(party.phone_any.clone()));
            assert!(seen.insert(party.jid.clone()));
        }
        assert!((2_300..2_500).contains(&groups), "{groups}");
    }
}
