//! One event written whole: a single one, or a batch of items; and which rows it makes known.

use super::super::put::{put, rewrite};
use super::world::Told;
use super::write::{Quirk, Say};
use super::{Generator, Kind, Target, Telling};

/// A batch gets no further item beyond this: a server takes 1 MiB by default, and one item stays far
/// below what is left.
const BATCH_BYTES_MAX: usize = 768 << 10;
/// Every so many batches of messages one says that it is its agent's last.
const BATCHES_PER_SCAN: u64 = 10;

impl Generator {
    pub(super) fn write(&mut self, kind: Kind, target: Target, quirk: Quirk) {
        (self.kind, self.company) = (kind, target.company);
        rewrite!(self.subject, "{}.{}", kind.subject(), self.companies[target.company].name);
        self.payload.clear();
        self.tellings.clear();
        match kind.items() {
            Some(items) => self.write_batch(kind, items, target, quirk),
            None => self.write_one(kind, target, quirk),
        }
    }

    /// All items are one agent's, and their chats follow each other, so that none comes twice.
    fn write_batch(&mut self, kind: Kind, items: &str, target: Target, quirk: Quirk) {
        put!(&mut self.payload, "{\"", items, "\":[");
        let (agents, chats) = (u64::from(self.profile.agents), self.profile.chats_per_company());
        for item in 0..self.profile.history_count {
            if item > 0 && self.payload.len() > BATCH_BYTES_MAX {
                break;
            }
            if item > 0 {
                put!(&mut self.payload, ",");
            }
            let company = &mut self.companies[target.company];
            let past = self.rng.u64(86_400..90 * 86_400);
            let unix_s = target.message.unix_s.saturating_sub(past);
            let message = Told { number: company.next_message(), unix_s };
            let chat = (target.chat + u64::from(item) * agents) % chats;
            let target = Target { chat, message, is_new: true, ..target };
            self.write_one(kind.of_items(), target, quirk);
        }
        put!(&mut self.payload, "]");
        if kind == Kind::HistoryMessages {
            let company = &mut self.companies[target.company];
            company.batches += 1;
            let is_last = company.batches.is_multiple_of(BATCHES_PER_SCAN);
            put!(&mut self.payload, ",\"is_last_batch\":", if is_last { "true" } else { "false" });
            put!(&mut self.payload, ",\"agent_id\":\"", &self.party.agent, "\"");
        }
        put!(&mut self.payload, "}");
    }

    fn write_one(&mut self, kind: Kind, target: Target, quirk: Quirk) {
        let Target { chat, message, is_new, .. } = target;
        self.party.turn_to(self.naming, chat, self.rng.u64(..60));
        let (writer, out) = (&mut self.writer, &mut self.payload);
        let company = &self.companies[target.company].name;
        let say = Say { company, party: &self.party, unix_s: message.unix_s, quirk };
        let telling = match kind {
            Kind::ChatsUpsert | Kind::HistoryChats => {
                writer.chat(out, say);
                Telling::Chat(chat)
            }
            Kind::ChatsUpdate => return writer.chat_update(out, say),
            Kind::MessagesUpsert | Kind::HistoryMessages => {
                writer.message(out, say, message);
                let is_timed = quirk != Quirk::Untimed;
                Telling::Message { chat, told: message, is_new, is_timed }
            }
            Kind::MessagesUpdate => return writer.message_update(out, say, message.number),
            Kind::ContactsUpsert | Kind::HistoryContacts => {
                writer.contact(out, say);
                Telling::Contact(chat)
            }
            Kind::ContactsUpdate => return writer.contact_update(out, say),
            Kind::ConnectionUpdate => {
                writer.agent(out, say);
                Telling::Agent(chat % self.naming.agents)
            }
        };
        self.tellings.push(telling);
    }
}
