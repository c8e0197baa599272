//! Identifiers and subjects of the event being told, in reused strings.
//! The subjects are what the contract says (cdc.md, sections 1.1 and 5.5), formed here a second time
//! on purpose: a checker that asked daisi for them could not find it wrong.

use super::company::{Change, Company};
use super::put::rewrite;
use super::row::{Mark, Row, Table};
use super::{Event, Expect, Origin};

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) subject: String,
    pub(super) msg_id: String,
    pub(super) chat: String,
    pub(super) wa_subject: String,
    pub(super) event_id: String,
    agent: String,
    key: String,
}

impl Names {
    /// Agent, chat and key of a row; `numbers` are those of the company and of the row.
    pub(super) fn name_row(
        &mut self,
        company: &Company,
        agent: u64,
        table: Table,
        numbers: (u64, u64),
    ) {
        let chat = company.chat;
        rewrite!(self.agent, "agent-{agent}");
        // A chat may be named by its address, whose dots add tokens to the subject.
        if chat % 16 == 15 {
            rewrite!(self.chat, "62811{chat:07}@s.whatsapp.net");
        } else {
            rewrite!(self.chat, "chat-{chat}");
        }
        match table {
            Table::Messages => rewrite!(self.key, "3EB0{:05X}{:09X}", numbers.0, numbers.1),
            Table::Chats => self.chat.clone_into(&mut self.key),
            Table::Agents => self.agent.clone_into(&mut self.key),
            Table::Contacts => {
                rewrite!(self.key, "9b2f6f5e-1c1f-4f6e-{:04x}-{:012x}", numbers.0, numbers.1);
            }
        }
        if table == Table::Agents {
            self.chat.clear();
        }
    }

    /// The subject that the event comes on.
    pub(super) fn name_subject(&mut self, company: &str, table: &str) {
        rewrite!(self.subject, "cdc.{company}.{table}");
    }

    /// What is published of it, and the message id that the capture stage gives it.
    pub(super) fn name_result(&mut self, company: &Company, table: Table, idx: u32) {
        let (name, lsn, agent) = (&company.name, company.lsn, &self.agent);
        rewrite!(self.msg_id, "{name}:{lsn}:{idx}");
        rewrite!(self.event_id, "{lsn}:{}:{}", table.name(), self.key);
        rewrite!(self.wa_subject, "wa.{name}.{agent}.{}", table.name());
        if table == Table::Messages {
            self.wa_subject.push('.');
            self.wa_subject.push_str(&self.chat);
        }
    }

    /// The row that these names belong to; `place` is its number and its index in the transaction.
    pub(super) fn row<'a>(
        &'a self,
        company: &'a Company,
        origin: Origin,
        change: Change,
        place: (u64, u32),
    ) -> Row<'a> {
        Row {
            table: change.table,
            action: change.action,
            table_name: change.table.name(),
            schema_company: &company.name,
            company: &company.name,
            agent: &self.agent,
            chat: &self.chat,
            key: &self.key,
            number: place.0,
            time: &company.time,
            unix_s: company.unix_s(),
            lsn: company.lsn,
            idx: place.1,
            has_media: false,
            mark: Mark { row: origin.row.0, version: origin.version, ordinal: origin.ordinal },
        }
    }

    /// The event under these names.
    pub(super) fn event<'a>(
        &'a self,
        payload: &'a mut [u8],
        expect: Expect<'a>,
        origin: Origin,
        sent_at: Option<usize>,
    ) -> Event<'a> {
        Event {
            subject: &self.subject,
            payload,
            expect,
            company: origin.company,
            chat: &self.chat,
            table: origin.table,
            row: origin.row,
            version: origin.version,
            ordinal: origin.ordinal,
            msg_id: &self.msg_id,
            sent_at,
        }
    }
}
