//! Events to rows: what of an event goes into which column, and what the later of two events of one key
//! changes in the row of the earlier. Source: contract `ingest.md` sections 4.5 and 5. What an event lacks is
//! stored as the first service did: empty texts, zero, false; a JSON document that is absent is NULL.

use super::sheet::{Row, Sheet};
use super::statements::{Kind, column};
use super::{Batch, Hints, Item, Origin, Refused, SUSPICIOUS_SECS, Slot, metadata};
use crate::columns::Column;
use crate::domain::ingest::{
    Agent, Chat, ChatUpdate, Contact, ContactUpdate, Event, Flow, Message, MessageKey,
    MessageUpdate, Text,
};
use uuid::Uuid;

/// Tables that keys are told apart by; contacts are also touched by messages.
const AGENTS: u8 = 0;
const CHATS: u8 = 1;
const MESSAGES: u8 = 2;
pub(super) const CONTACTS: u8 = 3;

const DAY_SECS: i64 = 86_400;
/// Days from 1970 to the end of PostgreSQL's dates (`DATE_END_JULIAN` 2147483494, and 2440588 is 1970).
const DAYS_END: i64 = 2_147_483_494 - 2_440_588;

/// Names contacts; never to be changed, since ids are made from it.
const CONTACT_NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_2c8e_4d0b_5f7a_9a53_2b1e_77c4_d0a9);

/// Can the database hold it?
pub(super) fn check(event: &Event<'_>) -> Result<(), Refused> {
    let is_beyond = |secs: &i64| secs.div_euclid(DAY_SECS) >= DAYS_END;
    let mut times = messages_of(event).iter().filter_map(|message| message.message_timestamp);
    times.find(is_beyond).map_or(Ok(()), |secs| Err(Refused::Timestamp(secs)))
}

/// Messages of an event whose time is likely to be milliseconds.
#[must_use]
pub fn suspicious_timestamps(event: &Event<'_>) -> usize {
    let times = messages_of(event).iter().filter_map(|message| message.message_timestamp);
    times.filter(|secs| *secs >= SUSPICIOUS_SECS).count()
}

fn messages_of<'e, 'a>(event: &'e Event<'a>) -> &'e [Message<'a>] {
    match event {
        Event::MessagesUpsert(message) => std::slice::from_ref(message),
        Event::HistoryMessages(history) => &history.messages,
        _ => &[],
    }
}

fn text<'t>(value: Option<&'t Text<'_>>) -> Option<&'t str> {
    value.map(AsRef::as_ref)
}

fn given<'t>(value: Option<&'t Text<'_>>) -> Option<&'t str> {
    text(value).filter(|text| !text.is_empty())
}

impl Batch {
    pub(super) fn add_rows(&mut self, origin: &Origin, item: &Item<'_>, hints: &mut Hints) {
        match item.event {
            Event::ChatsUpsert(chat) => self.chat(origin, chat, Kind::Chats),
            Event::ChatsUpdate(update) => self.chat_update(origin, update),
            Event::MessagesUpsert(message) => {
                self.message(origin, message, [Kind::Messages, Kind::MessagesUndated], hints);
                self.onboard(origin, message, hints);
            }
            Event::MessagesUpdate(update) => self.message_update(origin, update, hints),
            Event::ContactsUpsert(contact) => self.contact(origin, contact, Kind::Contacts),
            Event::ContactsUpdate(update) => self.contact_update(origin, update),
            Event::ConnectionUpdate(agent) => self.agent(origin, agent),
            Event::HistoryChats(chats) => {
                chats.iter().for_each(|chat| self.chat(origin, chat, Kind::ChatsHistory));
            }
            Event::HistoryMessages(history) => {
                let kinds = [Kind::MessagesHistory, Kind::MessagesHistoryUndated];
                for message in &history.messages {
                    self.message(origin, message, kinds, hints);
                }
                if let Some(agent) = given(history.agent_id.as_ref())
                    && history.is_last_batch
                {
                    self.post_scan(origin, agent, item.position.stream);
                }
            }
            Event::HistoryContacts(contacts) => {
                let kind = Kind::ContactsHistory;
                contacts.iter().for_each(|contact| self.contact(origin, contact, kind));
            }
        }
    }

    fn chat(&mut self, origin: &Origin, chat: &Chat<'_>, kind: Kind) {
        let key = self.key(origin.company, CHATS, [&chat.chat_id, ""]);
        let slot = self.slot(origin, key, kind, |_, _| true);
        let timestamp = chat.conversation_timestamp.unwrap_or(0);
        let unread = chat.unread_count.unwrap_or(0);
        match slot {
            Slot::Add { sheet } => self.finish(origin, sheet, |row| {
                row.text(Some(&chat.chat_id)).text(Some(&chat.jid)).text(Some(&chat.agent_id));
                row.text(Some(&chat.phone_number)).or_empty(text(chat.push_name.as_ref()));
                row.boolean(chat.is_group.unwrap_or(false));
                row.or_empty(text(chat.group_name.as_ref())).text(chat.last_message);
                row.int8(Some(timestamp)).int4(Some(unread));
                row.boolean(chat.not_spam.unwrap_or(false));
            }),
            Slot::Merge { sheet, row } => {
                let sheet = self.renew(origin, sheet, row);
                set(sheet, 4, row, Some(text(chat.push_name.as_ref()).unwrap_or_default()));
                set(sheet, 6, row, Some(text(chat.group_name.as_ref()).unwrap_or_default()));
                set(sheet, 7, row, chat.last_message);
                if let Column::Int8(values) = &mut sheet.columns[8] {
                    values[row] = Some(timestamp);
                }
                if let Column::Int4(values) = &mut sheet.columns[9] {
                    values[row] = Some(unread);
                }
            }
        }
    }

    fn chat_update(&mut self, origin: &Origin, update: &ChatUpdate<'_>) {
        let key = self.key(origin.company, CHATS, [&update.chat_id, ""]);
        // 1 counts up, everything else is set; NULL leaves it alone.
        let absent = self.settings.absent_unread_resets.then_some(0);
        let unread = update.unread_count.map_or(absent, |count| Some(count.max(0)));
        if let Slot::Add { sheet } = self.slot(origin, key, Kind::ChatsUpdate, |_, _| false) {
            self.finish(origin, sheet, |row| {
                row.text(Some(&update.chat_id)).int4(unread).text(update.last_message);
                row.int8(update.conversation_timestamp);
            });
        }
    }

    fn message(
        &mut self,
        origin: &Origin,
        message: &Message<'_>,
        [dated, undated]: [Kind; 2],
        hints: &mut Hints,
    ) {
        let key = self.key(origin.company, MESSAGES, [&message.message_id, ""]);
        let (date, kind) = match message.message_timestamp.filter(|secs| *secs > 0) {
            Some(secs) => (days_of(secs), dated),
            None => (days_of((origin.published_ns / crate::clock::SEC).cast_signed()), undated),
        };
        if kind == dated {
            hints.dates.insert(key, date);
        }
        let values = [
            (column::MESSAGE_TYPE, given(message.message_type.as_ref())),
            (column::MESSAGE_TEXT, given(message.message_text.as_ref())),
            (column::MESSAGE_URL, given(message.message_url.as_ref())),
            (column::MESSAGE_OBJ, message.message_obj),
            (column::MESSAGE_STATUS, given(message.status.as_ref())),
        ];
        // The same id on another day is another row.
        let is_same_row = |sheet: &Sheet, row: usize| match &sheet.columns[column::MESSAGE_DATE] {
            Column::Date(dates) => kind == undated || dates[row] == Some(date),
            _ => false,
        };
        let covers = |sheet: &Sheet, row| is_same_row(sheet, row) && sheet.is_covered(row, &values);
        match self.slot(origin, key, kind, covers) {
            Slot::Add { sheet } => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let document = key_document(message.key.as_ref(), &mut scratch);
                self.finish(origin, sheet, |row| message_row(row, message, date, document));
                self.scratch = scratch;
            }
            Slot::Merge { sheet, row } => {
                merge(self.renew(origin, sheet, row), row, &values);
            }
        }
    }

    fn message_update(&mut self, origin: &Origin, update: &MessageUpdate<'_>, hints: &Hints) {
        let key = self.key(origin.company, MESSAGES, [&update.message_id, ""]);
        let hint = hints.dates.get(key);
        let values = [
            (2, given(update.status.as_ref())),
            (3, update.edited_message_obj),
            (5, given(update.message_url.as_ref())),
        ];
        let deletes = update.is_deleted == Some(true);
        let covers = |sheet: &Sheet, row: usize| {
            let was_deleted =
                matches!(&sheet.columns[4], Column::Bool(flags) if flags[row] == Some(true));
            (deletes || !was_deleted) && sheet.is_covered(row, &values)
        };
        match self.slot(origin, key, Kind::MessagesUpdate, covers) {
            Slot::Add { sheet } => self.finish(origin, sheet, |row| {
                row.text(Some(&update.message_id)).date(hint);
                row.or_empty(text(update.status.as_ref())).text(update.edited_message_obj);
                row.boolean(deletes);
                row.or_empty(text(update.message_url.as_ref()));
            }),
            Slot::Merge { sheet, row } => {
                let sheet = self.renew(origin, sheet, row);
                merge(sheet, row, &values);
                if let Column::Bool(flags) = &mut sheet.columns[4]
                    && deletes
                {
                    flags[row] = Some(true);
                }
            }
        }
    }

    fn contact(&mut self, origin: &Origin, contact: &Contact<'_>, kind: Kind) {
        let key = self.key(origin.company, CONTACTS, [&contact.agent_id, &contact.phone_number]);
        let chat = given(contact.chat_id.as_ref());
        // A contact whose first chat is another's gets the next one it names: that is a row of its own.
        let covers = |sheet: &Sheet, row: usize| {
            let named = sheet.text(column::CONTACT_CHAT, row);
            let is_open = named.is_none() && kind == Kind::Contacts;
            is_open || named == chat.map(str::as_bytes)
        };
        match self.slot_naming(origin, key, kind, chat, covers) {
            Slot::Add { sheet } => {
                let mut id = Uuid::encode_buffer();
                let id = self.contact_id(origin, &contact.agent_id, &contact.phone_number, &mut id);
                self.finish(origin, sheet, |row| {
                    row.text(Some(id)).text(Some(&contact.phone_number));
                    row.text(Some(&contact.agent_id)).text(Some(&contact.push_name)).text(chat);
                });
            }
            Slot::Merge { sheet, row } => {
                let sheet = self.renew(origin, sheet, row);
                set(sheet, 3, row, Some(&contact.push_name));
                set(sheet, column::CONTACT_CHAT, row, chat);
            }
        }
    }

    fn contact_update(&mut self, origin: &Origin, update: &ContactUpdate<'_>) {
        let key = self.key(origin.company, CONTACTS, [&update.agent_id, &update.phone_number]);
        match self.slot(origin, key, Kind::ContactsUpdate, |_, _| true) {
            Slot::Add { sheet } => self.finish(origin, sheet, |row| {
                row.text(Some(&update.phone_number)).text(Some(&update.agent_id));
                row.text(Some(&update.push_name));
            }),
            Slot::Merge { sheet, row } => {
                let sheet = self.renew(origin, sheet, row);
                set(sheet, 2, row, Some(&update.push_name));
            }
        }
    }

    fn agent(&mut self, origin: &Origin, agent: &Agent<'_>) {
        let key = self.key(origin.company, AGENTS, [&agent.agent_id, ""]);
        let values = [
            (1, given(agent.qr_code.as_ref())),
            (2, given(agent.status.as_ref())),
            (3, given(agent.agent_name.as_ref())),
            (4, given(agent.host_name.as_ref())),
            (5, given(agent.version.as_ref())),
            (6, given(agent.phone_number.as_ref())),
        ];
        let covers = |sheet: &Sheet, row: usize| sheet.is_covered(row, &values);
        match self.slot(origin, key, Kind::Agents, covers) {
            Slot::Add { sheet } => self.finish(origin, sheet, |row| {
                row.text(Some(&agent.agent_id));
                for (_, value) in values {
                    row.or_empty(value);
                }
            }),
            Slot::Merge { sheet, row } => merge(self.renew(origin, sheet, row), row, &values),
        }
    }

    fn post_scan(&mut self, origin: &Origin, agent: &str, stream: &str) {
        let delay_ms = i64::from(self.settings.post_scan_delay_ms);
        let published_us = (origin.published_ns / 1000).cast_signed();
        let (sheet, row) = self.new_row(origin, Kind::PostScan, 0);
        self.parts.push(super::Part { event: origin.event, sheet, row });
        let sheet = &mut self.sheets[sheet as usize];
        let mut cells = Row::of(sheet);
        cells.text(Some(agent)).text(Some(stream)).int8(Some(origin.sequence.cast_signed()));
        cells.int8(Some(published_us)).int8(Some(delay_ms));
        sheet.end_row(origin.horizon_ns);
    }

    /// The id that every writer makes for this contact.
    pub(super) fn contact_id<'b>(
        &mut self,
        origin: &Origin,
        agent: &str,
        phone: &str,
        buffer: &'b mut [u8; uuid::fmt::Urn::LENGTH],
    ) -> &'b str {
        self.scratch.clear();
        let company = &self.companies[origin.company as usize].name;
        for part in [company.as_str(), agent, phone] {
            self.scratch.extend_from_slice(part.as_bytes());
            self.scratch.push(0);
        }
        Uuid::new_v5(&CONTACT_NAMESPACE, &self.scratch).hyphenated().encode_lower(buffer)
    }

    /// Writes the cells of a row, its metadata and horizon, and ends it.
    pub(super) fn finish(
        &mut self,
        origin: &Origin,
        sheet: usize,
        cells: impl FnOnce(&mut Row<'_>),
    ) {
        let (meta, horizon) = (as_text(&self.meta), as_text(&self.horizon));
        let sheet = &mut self.sheets[sheet];
        let again = sheet.last_event.replace(origin.event) == Some(origin.event);
        let mut row = Row::of(sheet);
        cells(&mut row);
        row.origin(meta, horizon, again);
        sheet.end_row(origin.horizon_ns);
    }

    /// A row that another event is merged into has that one's position.
    fn renew(&mut self, origin: &Origin, sheet: usize, row: usize) -> &mut Sheet {
        let sheet = &mut self.sheets[sheet];
        let columns = sheet.columns.len();
        set(sheet, columns - 2, row, Some(as_text(&self.meta)));
        set(sheet, columns - 1, row, Some(as_text(&self.horizon)));
        sheet.horizon_ns = sheet.horizon_ns.min(origin.horizon_ns);
        // The next row may follow another one: its metadata is not this event's to share.
        sheet.last_event = None;
        sheet
    }
}

fn key_document<'b>(key: Option<&MessageKey<'_>>, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
    let key = key?;
    buffer.clear();
    metadata::put_text(buffer, b"{\"id\":", &key.id);
    let from_me: &[u8] = if key.from_me { b",\"fromMe\":true" } else { b",\"fromMe\":false" };
    buffer.extend_from_slice(from_me);
    metadata::put_text(buffer, b",\"remoteJid\":", &key.remote_jid);
    buffer.push(b'}');
    Some(as_text(buffer))
}

fn message_row(row: &mut Row<'_>, message: &Message<'_>, date: i32, key: Option<&str>) {
    row.text(Some(&message.message_id)).date(Some(date));
    row.or_empty(text(message.from_phone.as_ref())).or_empty(text(message.to_phone.as_ref()));
    row.text(Some(&message.chat_id)).text(Some(&message.jid)).text(Some(&message.agent_id));
    row.text(Some(match message.flow {
        Flow::In => "IN",
        Flow::Out => "OUT",
    }));
    row.or_empty(text(message.message_type.as_ref()));
    row.or_empty(text(message.message_text.as_ref()));
    row.or_empty(text(message.message_url.as_ref()));
    row.text(key).text(message.message_obj).or_empty(text(message.status.as_ref()));
    row.int8(Some(message.message_timestamp.unwrap_or(0)));
}

/// Sets what is given.
fn merge(sheet: &mut Sheet, row: usize, values: &[(usize, Option<&str>)]) {
    for (column, value) in values.iter().filter(|(_, value)| value.is_some()) {
        set(sheet, *column, row, *value);
    }
}

fn set(sheet: &mut Sheet, column: usize, row: usize, value: Option<&str>) {
    if let Some(texts) = sheet.texts(column) {
        texts.set(row, value);
    }
}

/// What we wrote ourselves is UTF-8.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The UTC day; `check` has refused what does not fit.
fn days_of(secs: i64) -> i32 {
    i32::try_from(secs.div_euclid(DAY_SECS)).unwrap_or(i32::MAX)
}
