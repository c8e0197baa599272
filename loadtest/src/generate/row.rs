//! Rows and envelopes as bytes: the columns of the four tables in the order of the contract's samples
//! (contract cdc.md, section 2.3), in a Sequin or a Debezium envelope.

use fastrand::Rng;

use super::put::put;
use super::text::{Pool, TimeText, put_idempotency_key};

/// What stands where the sender writes its time: 19 digits, nanoseconds since the epoch.
pub(super) const SENT_NS_PLACEHOLDER: &[u8; 19] = b"1000000000000000000";

/// A table of the data base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Messages of a chat.
    Messages,
    /// Chats of an agent.
    Chats,
    /// Agents of a company.
    Agents,
    /// Contacts of an agent, one a chat.
    Contacts,
}

impl Table {
    /// Its name in subjects and envelopes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Chats => "chats",
            Self::Agents => "agents",
            Self::Contacts => "contacts",
        }
    }
}

/// Everything a row says, chosen before a byte is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) table: Table,
    pub(super) action: &'static str,
    pub(super) table_name: &'static str,
    pub(super) schema_company: &'a str,
    pub(super) company: &'a str,
    pub(super) agent: &'a str,
    pub(super) chat: &'a str,
    pub(super) key: &'a str,
    pub(super) number: u64,
    pub(super) time: &'a TimeText,
    pub(super) unix_s: u64,
    pub(super) lsn: u64,
    pub(super) idx: u32,
    pub(super) has_media: bool,
    pub(super) mark: Mark,
}

/// What the checker reads out of a delivered record, in `last_metadata`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) row: u64,
    pub(super) version: u32,
    pub(super) ordinal: u64,
}

/// Where the parts of a written event lie in its payload.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) record: std::ops::Range<usize>,
    pub(super) sent_at: usize,
}

/// Writes rows; owns what is cut from and scratch memory.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) pool: Pool,
    pub(super) rng: Rng,
    pub(super) scratch: Vec<u8>,
}

impl Writer {
    /// The envelope that Sequin sends.
    pub(super) fn sequin(&mut self, out: &mut Vec<u8>, row: &Row<'_>) -> Written {
        put!(out, "{\"action\":\"", row.action, "\",\"changes\":");
        match (row.action, row.table) {
            ("update", Table::Messages) => put!(out, "{\"status\":\"sent\"}"),
            ("update", Table::Chats) => put!(out, "{\"unread_count\":", self.rng.u64(..9), "}"),
            ("update", Table::Agents) => put!(out, "{\"status\":\"connecting\"}"),
            ("update", Table::Contacts) => put!(out, "{\"push_name\":null}"),
            _ => put!(out, "null"),
        }
        put!(out, ",\"record\":");
        let written = self.record(out, row);
        self.metadata(out, row);
        written
    }

    /// The envelope of Debezium's PostgreSQL connector, un-wrapped. `lsn` is the row's own there.
    pub(super) fn debezium(&mut self, out: &mut Vec<u8>, row: &Row<'_>) -> Written {
        let op = if row.action == "insert" { "c" } else { "u" };
        put!(out, "{\"before\":null,\"after\":");
        let written = self.record(out, row);
        let ms = row.unix_s * 1_000;
        put!(out, ",\"source\":{\"version\":\"3.1.0.Final\",\"connector\":\"postgresql\",");
        put!(out, "\"name\":\"daisi\",\"ts_ms\":", ms, ",\"snapshot\":\"false\",");
        put!(out, "\"db\":\"message_service_db\",\"schema\":\"daisi_", row.schema_company);
        put!(out, "\",\"table\":\"", row.table_name, "\",\"txId\":", row.number, ",\"lsn\":");
        put!(out, row.lsn, ",\"xmin\":null},\"transaction\":null,\"op\":\"", op, "\",\"ts_ms\":");
        put!(out, ms + 7, "}");
        written
    }

    fn metadata(&mut self, out: &mut Vec<u8>, row: &Row<'_>) {
        put!(out, ",\"metadata\":{\"table_schema\":\"daisi_", row.schema_company);
        put!(out, "\",\"table_name\":\"", row.table_name, "\",\"commit_timestamp\":\"", row.time);
        put!(out, "\",\"commit_lsn\":");
        match row.action {
            // A backfill reads rows, not the log.
            "read" => put!(out, "null,\"commit_idx\":null"),
            _ => put!(out, row.lsn, ",\"commit_idx\":", u64::from(row.idx)),
        }
        put!(out, ",\"idempotency_key\":\"");
        put_idempotency_key(out, &mut self.scratch, row.lsn, row.idx);
        put!(out, "\",\"record_pks\":[\"", row.number, "\"],\"transaction_annotations\":null}}");
    }

    fn record(&mut self, out: &mut Vec<u8>, row: &Row<'_>) -> Written {
        let start = out.len();
        match row.table {
            Table::Messages => self.message(out, row),
            Table::Chats => self.chat(out, row),
            Table::Agents => self.agent(out, row),
            Table::Contacts => self.contact(out, row),
        }
        let Mark { row: id, version, ordinal } = row.mark;
        put!(out, ",\"last_metadata\":{\"row\":", id, ",\"version\":", u64::from(version));
        put!(out, ",\"ordinal\":", ordinal, ",\"sent_ns\":");
        let sent_at = out.len();
        put!(out, SENT_NS_PLACEHOLDER.as_slice(), "}}");
        Written { record: start..out.len(), sent_at }
    }

    fn message(&mut self, out: &mut Vec<u8>, row: &Row<'_>) {
        let is_outgoing = row.number.is_multiple_of(3);
        let phone = 628_110_000_000 + row.mark.row;
        let text = self.pool.text(&mut self.rng);
        put!(out, "{\"id\":", row.number, ",\"message_id\":\"", row.key, "\",\"chat_id\":\"");
        put!(out, row.chat, "\",\"agent_id\":\"", row.agent, "\",\"company_id\":\"", row.company);
        put!(out, "\",\"from_phone\":\"", phone, "\",\"to_phone\":\"628222\",\"jid\":\"", phone);
        put!(out, "@s.whatsapp.net\",\"flow\":\"", if is_outgoing { "OUT" } else { "IN" });
        put!(out, "\",\"message_text\":\"", text, "\",\"message_url\":");
        if row.has_media {
            let thumbnail = self.pool.thumbnail(&mut self.rng);
            put!(out, "\"https://media.daisi.example/", row.company, "/", row.key, ".jpg\",");
            put!(out, "\"message_type\":\"image\",\"message_obj\":{\"imageMessage\":{\"url\":");
            put!(out, "\"https://mmg.whatsapp.net/o1/", row.key, "\",\"mimetype\":\"image/jpeg\",");
            put!(out, "\"fileLength\":\"", row.number * 37 % 400_000, "\",\"height\":1280,");
            put!(out, "\"width\":960,\"caption\":\"", text, "\",\"jpegThumbnail\":\"", thumbnail);
            put!(out, "\"}}");
        } else {
            put!(out, "null,\"message_type\":\"text\",\"message_obj\":{\"conversation\":\"", text);
            put!(out, "\"}");
        }
        put!(out, ",\"edited_message_obj\":null,\"key\":{\"id\":\"", row.key, "\",\"fromMe\":");
        put!(out, if is_outgoing { "true" } else { "false" }, ",\"remoteJid\":\"", phone);
        put!(out, "@s.whatsapp.net\"},\"status\":\"");
        put!(out, if row.action == "update" { "read" } else { "delivered" });
        put!(out, "\",\"is_deleted\":false,\"message_timestamp\":", row.unix_s);
        put!(out, ",\"message_date\":\"", &row.time[..10], "\",\"created_at\":\"", row.time);
        put!(out, "\",\"updated_at\":\"", row.time, "\"");
    }

    fn chat(&mut self, out: &mut Vec<u8>, row: &Row<'_>) {
        let phone = 628_110_000_000 + row.mark.row;
        let text = self.pool.text(&mut self.rng);
        put!(out, "{\"id\":", row.number, ",\"chat_id\":\"", row.chat, "\",\"jid\":\"", phone);
        put!(out, "@s.whatsapp.net\",\"push_name\":\"Rina 🌸\",\"is_group\":false,");
        put!(
            out,
            "\"group_name\":null,\"unread_count\":",
            self.rng.u64(..12),
            ",\"last_message\":"
        );
        put!(out, "{\"conversation\":\"", text, "\"},\"conversation_timestamp\":", row.unix_s);
        put!(out, ",\"not_spam\":true,\"agent_id\":\"", row.agent, "\",\"company_id\":\"");
        put!(out, row.company, "\",\"phone_number\":\"", phone, "\",\"created_at\":");
        put!(out, "\"2025-05-02T08:00:00.000000Z\",\"updated_at\":\"", row.time, "\"");
    }

    fn agent(&mut self, out: &mut Vec<u8>, row: &Row<'_>) {
        put!(out, "{\"id\":", row.number, ",\"agent_id\":\"", row.agent, "\",\"qr_code\":null,");
        put!(
            out,
            "\"status\":\"connected\",\"agent_name\":\"Meja depan\",\"phone_number\":\"628222\""
        );
        put!(out, ",\"host_name\":\"pc-3\",\"version\":\"2.1.0\",\"company_id\":\"", row.company);
        put!(out, "\",\"created_at\":\"2025-01-10T12:00:00.000000Z\",\"updated_at\":\"", row.time);
        put!(out, "\"");
    }

    fn contact(&mut self, out: &mut Vec<u8>, row: &Row<'_>) {
        let phone = 628_110_000_000 + row.mark.row;
        put!(out, "{\"id\":\"", row.key, "\",\"phone_number\":\"", phone, "\",\"agent_id\":\"");
        put!(out, row.agent, "\",\"chat_id\":\"", row.chat, "\",\"custom_name\":null,");
        put!(out, "\"push_name\":\"Rina\",\"assigned_to\":null,\"company_id\":\"", row.company);
        put!(out, "\",\"status\":\"ACTIVE\",\"created_at\":\"2025-05-02T08:00:00.000000Z\",");
        put!(out, "\"updated_at\":\"", row.time, "\"");
    }
}
