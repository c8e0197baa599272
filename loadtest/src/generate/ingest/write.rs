//! The members of each kind of event as bytes (contract ingest.md, sections 2.1 to 2.10).
//! Invariant: what is written here is valid; [`Fault`](super::Fault) spoils it afterwards.

use fastrand::Rng;

use super::super::put::{put, rewrite};
use super::super::text::Pool;
use super::media::{Place, put_media, put_plain};
use super::party::Party;
use super::world::Told;

/// An unusual way of writing that the contract takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quirk {
    None,
    /// The names of section 2.12.
    Alias,
    /// `company_id` is empty; the subject has it.
    CompanyEmpty,
    /// There is no `company_id`.
    CompanyAbsent,
    /// Integers as `1.0`.
    Integral,
    /// An optional member is `null`.
    Null,
    /// A member that nobody knows.
    Unknown,
    /// A message without its time.
    Untimed,
}

impl Quirk {
    pub(super) const UNUSUAL: [Self; 7] = [
        Self::Alias,
        Self::CompanyEmpty,
        Self::CompanyAbsent,
        Self::Integral,
        Self::Null,
        Self::Unknown,
        Self::Untimed,
    ];
}

/// Names that people give themselves; JSON-escaped.
const NAMES: &[&str] = &[
    "Sari",
    "Budi Santoso",
    "Rina 🌸",
    "Ibu Dewi (Toko Maju)",
    "José e\u{301}",
    "أحمد",
    "דנה לוי",
    "李雷",
    "Ключи & Ко",
    "👨‍👩‍👧‍👦 Keluarga",
    "O'Brien",
    "\\\"Mas\\\" Joko",
    "สมชาย",
    "N\u{303}o\u{308}",
    ".",
];

/// What an event says besides who it is about; chosen before a byte is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say<'a> {
    pub(super) company: &'a str,
    pub(super) party: &'a Party,
    pub(super) unix_s: u64,
    pub(super) quirk: Quirk,
}

/// Shares that the writer draws by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub(super) media: f64,
    pub(super) campaigns: f64,
}

/// Writes events; owns what is cut from.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) pool: Pool,
    pub(super) rng: Rng,
    pub(super) shares: Shares,
    pub(super) tag: u32,
    pub(super) message_id: String,
}

impl Writer {
    pub(super) fn chat(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        let Say { party, unix_s, quirk, .. } = say;
        put!(out, "{\"chat_id\":\"", &party.chat, "\",\"jid\":\"", &party.jid, "\",");
        put_company(out, say);
        put!(out, "\"agent_id\":\"", &party.agent, "\",\"phone_number\":\"");
        // A group has no phone; some producers say so, others name its owner's.
        if !party.is_group || party.number.is_multiple_of(2) {
            put!(out, &party.phone);
        }
        put!(out, "\",\"push_name\":\"", self.name(), "\",\"is_group\":");
        put_bool(out, party.is_group);
        if party.is_group {
            put!(out, ",\"group_name\":\"Grup ", self.name(), " ", party.number, "\"");
        } else if quirk == Quirk::Null {
            put!(out, ",\"group_name\":null");
        }
        self.last_message(out, unix_s);
        self.counts(out, say);
        put!(out, ",\"not_spam\":");
        put_bool(out, self.rng.u8(..20) > 0);
        if self.rng.u8(..8) == 0 {
            put!(out, ",\"custom_name\":\"langganan\",\"assigned_to\":\"u-4\"");
        }
        put_end(out, quirk);
    }

    pub(super) fn chat_update(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        let name = if say.quirk == Quirk::Alias { "id" } else { "chat_id" };
        put!(out, "{\"", name, "\":\"", &say.party.chat, "\",");
        put_company(out, say);
        put!(out, "\"agent_id\":\"", &say.party.agent, "\"");
        self.counts(out, say);
        if self.rng.bool() {
            self.last_message(out, say.unix_s);
        } else if say.quirk == Quirk::Null {
            put!(out, ",\"last_message\":null");
        }
        put_end(out, say.quirk);
    }

    /// `told.unix_s` is the message's time; [`Quirk::Untimed`] leaves it out.
    pub(super) fn message(&mut self, out: &mut Vec<u8>, say: Say<'_>, told: Told) {
        let Say { company, party, quirk, .. } = say;
        let is_out = self.rng.u8(..5) < 2;
        let (from, to) = (&party.phone_any, &party.agent_phone);
        let (from, to) = if is_out { (to, from) } else { (from, to) };
        let is_alias = quirk == Quirk::Alias;
        self.name_message(told.number);
        put!(out, "{\"message_id\":\"", &self.message_id, "\",\"chat_id\":\"", &party.chat);
        put!(out, "\",\"jid\":\"", &party.jid, "\",\"flow\":\"", if is_out { "OUT" } else { "IN" });
        put!(out, "\",");
        put_company(out, say);
        put!(out, "\"agent_id\":\"", &party.agent, "\",\"");
        put!(out, if is_alias { "from" } else { "from_phone" }, "\":\"", from, "\",\"");
        put!(out, if is_alias { "to" } else { "to_phone" }, "\":\"", to, "\",");
        if self.rng.u8(..32) > 0 {
            put!(out, "\"key\":{\"id\":\"", &self.message_id, "\",\"");
            put!(out, if is_alias { "from_me" } else { "fromMe" }, "\":");
            put_bool(out, is_out);
            put!(out, ",\"", if is_alias { "remote_jid" } else { "remoteJid" }, "\":\"");
            put!(out, &party.jid, "\"},");
        }
        if self.rng.f64() < self.shares.media {
            let place = Place { company, message: &self.message_id };
            put_media(out, &place, &self.pool, &mut self.rng);
        } else {
            put_plain(out, &self.pool, &mut self.rng, quirk);
        }
        let status =
            if is_out { ["sent", "delivered", "read", "failed"] } else { ["delivered"; 4] };
        put!(out, "\"status\":\"", status[self.rng.usize(..4)], "\"");
        if quirk != Quirk::Untimed {
            put!(out, ",\"message_timestamp\":");
            put_integer(out, told.unix_s, quirk);
        }
        if !is_out && self.rng.f64() < self.shares.campaigns {
            self.campaign(out);
        }
        put_end(out, quirk);
    }

    pub(super) fn message_update(&mut self, out: &mut Vec<u8>, say: Say<'_>, number: u64) {
        self.name_message(number);
        let name = if say.quirk == Quirk::Alias { "id" } else { "message_id" };
        put!(out, "{\"", name, "\":\"", &self.message_id, "\",");
        put_company(out, say);
        // Drops the comma: what follows brings its own.
        out.truncate(out.len() - 1);
        match self.rng.u32(..20) {
            0 => {
                let text = self.pool.text(&mut self.rng);
                put!(out, ",\"edited_message_obj\":{\"conversation\":\"", text, "\"}");
            }
            1 => put!(out, ",\"is_deleted\":true"),
            2 => {
                put!(out, ",\"message_url\":\"https://media.daisi.example/", say.company, "/");
                put!(out, &self.message_id, ".jpg\"");
            }
            n => {
                let status = ["delivered", "read", "read", "played"][n as usize % 4];
                put!(out, ",\"status\":\"", status, "\"");
            }
        }
        if say.quirk == Quirk::Null {
            put!(out, ",\"edited_message_obj\":null");
        }
        put_end(out, say.quirk);
    }

    pub(super) fn contact(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        self.contact_open(out, say);
        match say.quirk {
            Quirk::Null => put!(out, ",\"chat_id\":null"),
            _ => put!(out, ",\"chat_id\":\"", &say.party.chat, "\""),
        }
        put_end(out, say.quirk);
    }

    pub(super) fn contact_update(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        self.contact_open(out, say);
        put_end(out, say.quirk);
    }

    pub(super) fn agent(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        put!(out, "{\"agent_id\":\"", &say.party.agent, "\",");
        put_company(out, say);
        match self.rng.u32(..10) {
            0 => put!(out, "\"status\":\"pairing\",\"qr_code\":\"2@", self.qr_code(), "\""),
            1 => put!(out, "\"status\":\"connecting\""),
            2 => put!(out, "\"status\":\"disconnected\""),
            _ => put!(out, "\"status\":\"connected\""),
        }
        put!(out, ",\"agent_name\":\"Meja ", self.name(), "\",\"host_name\":\"node-");
        put!(out, self.rng.u64(..9), "\",\"version\":\"2.4.", self.rng.u64(..30));
        put!(out, "\",\"phone_number\":\"", &say.party.agent_phone, "\"");
        put_end(out, say.quirk);
    }

    fn contact_open(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        put!(out, "{\"phone_number\":\"", &say.party.phone, "\",");
        put_company(out, say);
        put!(out, "\"agent_id\":\"", &say.party.agent, "\",\"push_name\":\"", self.name());
        put!(out, "\"");
    }

    fn counts(&mut self, out: &mut Vec<u8>, say: Say<'_>) {
        // 0 resets, 1 adds one, more sets; most updates are one more message.
        let unread = [0, 1, 1, 1, 1, 2, 5, 12][self.rng.usize(..8)];
        // Now and then one that was long under way: a chat's time moves forward only.
        let late = if self.rng.u8(..16) == 0 { self.rng.u64(..10_800) } else { 0 };
        put!(out, ",\"unread_count\":");
        put_integer(out, unread, say.quirk);
        put!(out, ",\"conversation_timestamp\":");
        put_integer(out, say.unix_s.saturating_sub(late), say.quirk);
    }

    fn last_message(&mut self, out: &mut Vec<u8>, unix_s: u64) {
        let text = self.pool.text(&mut self.rng);
        put!(out, ",\"last_message\":{\"conversation\":\"", text, "\",\"messageTimestamp\":");
        put!(out, unix_s, "}");
    }

    fn campaign(&mut self, out: &mut Vec<u8>) {
        let tags = ["promo,jan", "promo, lebaran ,vip", "Tèmpé 🌶", ""][self.rng.usize(..4)];
        let origin = ["Ads", "Instagram", "QR"][self.rng.usize(..3)];
        put!(
            out,
            ",\"campaign\":{\"is_campaign\":true,\"tags\":\"",
            tags,
            "\",\"assigned_to\":\"u-"
        );
        put!(out, self.rng.u64(..8), "\",\"origin\":\"", origin, "\"}");
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.rng.usize(..NAMES.len())]
    }

    fn qr_code(&mut self) -> &str {
        self.pool.base64(&mut self.rng, 228)
    }

    fn name_message(&mut self, number: u64) {
        rewrite!(self.message_id, "3EB0{:08X}{number:08X}", self.tag);
    }
}

fn put_company(out: &mut Vec<u8>, say: Say<'_>) {
    match say.quirk {
        Quirk::CompanyAbsent => {}
        Quirk::CompanyEmpty => put!(out, "\"company_id\":\"\","),
        _ => put!(out, "\"company_id\":\"", say.company, "\","),
    }
}

fn put_integer(out: &mut Vec<u8>, number: u64, quirk: Quirk) {
    put!(out, number);
    if quirk == Quirk::Integral {
        put!(out, ".0");
    }
}

fn put_bool(out: &mut Vec<u8>, is_so: bool) {
    put!(out, if is_so { "true" } else { "false" });
}

fn put_end(out: &mut Vec<u8>, quirk: Quirk) {
    match quirk {
        Quirk::Unknown => put!(out, ",\"x_source\":{\"shard\":3,\"tags\":[null,1e2]}}"),
        _ => put!(out, "}"),
    }
}
