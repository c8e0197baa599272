//! The ten ingest events as plain borrowed data: what decoding makes and what writing takes. Pure; a string
//! is borrowed from the payload unless it is written with escapes. Invariant: a value of these types has
//! passed validation, so required members are present and not empty. Source: contract `ingest.md` section 2.
//!
//! `None` is an absent member or `null`. Free objects are kept as the text that came.

use std::borrow::Cow;

/// A string of the payload, unescaped.
pub type Text<'a> = Cow<'a, str>;

/// What kind of event a subject names, whatever its version. In the contract's order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `v1.chats.upsert`
    ChatsUpsert,
    /// `v1.chats.update`
    ChatsUpdate,
    /// `v1.messages.upsert`
    MessagesUpsert,
    /// `v1.messages.update`
    MessagesUpdate,
    /// `v1.contacts.upsert`
    ContactsUpsert,
    /// `v1.contacts.update`
    ContactsUpdate,
    /// `v1.connection.update`
    ConnectionUpdate,
    /// `v1.history.chats`
    HistoryChats,
    /// `v1.history.messages`
    HistoryMessages,
    /// `v1.history.contacts`
    HistoryContacts,
}

impl Kind {
    /// Every kind, to declare metrics with.
    pub const ALL: [Self; 10] = [
        Self::ChatsUpsert,
        Self::ChatsUpdate,
        Self::MessagesUpsert,
        Self::MessagesUpdate,
        Self::ContactsUpsert,
        Self::ContactsUpdate,
        Self::ConnectionUpdate,
        Self::HistoryChats,
        Self::HistoryMessages,
        Self::HistoryContacts,
    ];

    /// The subject's part between version and company; the label of a metric too.
    pub fn base(self) -> &'static str {
        match self {
            Self::ChatsUpsert => "chats.upsert",
            Self::ChatsUpdate => "chats.update",
            Self::MessagesUpsert => "messages.upsert",
            Self::MessagesUpdate => "messages.update",
            Self::ContactsUpsert => "contacts.upsert",
            Self::ContactsUpdate => "contacts.update",
            Self::ConnectionUpdate => "connection.update",
            Self::HistoryChats => "history.chats",
            Self::HistoryMessages => "history.messages",
            Self::HistoryContacts => "history.contacts",
        }
    }

    /// Is it a batch of old items?
    pub fn is_history(self) -> bool {
        matches!(self, Self::HistoryChats | Self::HistoryMessages | Self::HistoryContacts)
    }

    /// The stream that captures it.
    pub fn stream(self) -> &'static str {
        if self.is_history() { "wa_history_events_stream" } else { "wa_events_stream" }
    }
}

/// A validated event. `company_id` of every item equals the subject's company, so it is not repeated here.
#[derive(Clone, PartialEq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages are most events; a box would cost each of them"
)]
pub enum Event<'a> {
    /// Section 2.1.
    ChatsUpsert(Chat<'a>),
    /// Section 2.2.
    ChatsUpdate(ChatUpdate<'a>),
    /// Section 2.3.
    MessagesUpsert(Message<'a>),
    /// Section 2.4.
    MessagesUpdate(MessageUpdate<'a>),
    /// Section 2.5.
    ContactsUpsert(Contact<'a>),
    /// Section 2.6.
    ContactsUpdate(ContactUpdate<'a>),
    /// Section 2.7.
    ConnectionUpdate(Agent<'a>),
    /// Section 2.8.
    HistoryChats(Vec<Chat<'a>>),
    /// Section 2.9.
    HistoryMessages(HistoryMessages<'a>),
    /// Section 2.10.
    HistoryContacts(Vec<Contact<'a>>),
}

/// A chat, whole. Section 2.1.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chat<'a> {
    /// Business key.
    pub chat_id: Text<'a>,
    /// WhatsApp address.
    pub jid: Text<'a>,
    /// Agent that holds the chat.
    pub agent_id: Text<'a>,
    /// May be empty for a group only.
    pub phone_number: Text<'a>,
    /// Name the other side gave itself.
    pub push_name: Option<Text<'a>>,
    /// Is it a group?
    pub is_group: Option<bool>,
    /// Name of the group.
    pub group_name: Option<Text<'a>>,
    /// A free JSON object, as it came.
    pub last_message: Option<&'a str>,
    /// Unix seconds, not negative.
    pub conversation_timestamp: Option<i64>,
    /// Unread messages.
    pub unread_count: Option<i32>,
    /// Marked as not spam.
    pub not_spam: Option<bool>,
}

/// A change of a chat. Section 2.2; rules in 5.2.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChatUpdate<'a> {
    /// Selects the row.
    pub chat_id: Text<'a>,
    /// See 5.2: 1 increments, others set, absent resets.
    pub unread_count: Option<i32>,
    /// A free JSON object, as it came; replaces.
    pub last_message: Option<&'a str>,
    /// Unix seconds; only moves forward.
    pub conversation_timestamp: Option<i64>,
}

/// A message, whole. Section 2.3.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Message<'a> {
    /// Business key, with the message's date.
    pub message_id: Text<'a>,
    /// Sender.
    pub from_phone: Option<Text<'a>>,
    /// Receiver.
    pub to_phone: Option<Text<'a>>,
    /// Chat; need not exist.
    pub chat_id: Text<'a>,
    /// WhatsApp address.
    pub jid: Text<'a>,
    /// In or out.
    pub flow: Flow,
    /// Kind of content.
    pub message_type: Option<Text<'a>>,
    /// Text content.
    pub message_text: Option<Text<'a>>,
    /// Where the media lies.
    pub message_url: Option<Text<'a>>,
    /// Agent.
    pub agent_id: Text<'a>,
    /// WhatsApp key.
    pub key: Option<MessageKey<'a>>,
    /// A free JSON object, as it came.
    pub message_obj: Option<&'a str>,
    /// Free text.
    pub status: Option<Text<'a>>,
    /// Unix seconds, any value.
    pub message_timestamp: Option<i64>,
    /// Drives onboarding; not stored. Ignored in history.
    pub campaign: Option<Campaign<'a>>,
}

/// Direction of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flow {
    /// `IN`: from the customer.
    #[default]
    In,
    /// `OUT`: from the agent.
    Out,
}

/// The WhatsApp key of a message.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MessageKey<'a> {
    /// Required when there is a key.
    pub id: Text<'a>,
    /// Sent by the agent's own device; `false` when absent, as the old service stored it.
    pub from_me: bool,
    /// Chat's address; empty when absent.
    pub remote_jid: Text<'a>,
}

/// Campaign that a message came by.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Campaign<'a> {
    /// Does it belong to a campaign?
    pub is_campaign: bool,
    /// Comma-separated.
    pub tags: Option<Text<'a>>,
    /// Whom the contact is assigned to.
    pub assigned_to: Option<Text<'a>>,
    /// Where the contact comes from.
    pub origin: Option<Text<'a>>,
}

/// A change of a message. Section 2.4.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MessageUpdate<'a> {
    /// Selects the row.
    pub message_id: Text<'a>,
    /// Set when not empty.
    pub status: Option<Text<'a>>,
    /// A free JSON object, as it came; set when present.
    pub edited_message_obj: Option<&'a str>,
    /// `true` sets; `false` never unsets.
    pub is_deleted: Option<bool>,
    /// Set when not empty.
    pub message_url: Option<Text<'a>>,
}

/// A contact. Sections 2.5 and 2.10.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Contact<'a> {
    /// With the agent the business key; as it came.
    pub phone_number: Text<'a>,
    /// Agent.
    pub agent_id: Text<'a>,
    /// Name the contact gave itself.
    pub push_name: Text<'a>,
    /// Stored when given.
    pub chat_id: Option<Text<'a>>,
}

/// A change of a contact. Section 2.6.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ContactUpdate<'a> {
    /// With the agent selects the row.
    pub phone_number: Text<'a>,
    /// Agent.
    pub agent_id: Text<'a>,
    /// The new name; may be empty.
    pub push_name: Text<'a>,
}

/// An agent's state. Section 2.7.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Agent<'a> {
    /// Business key.
    pub agent_id: Text<'a>,
    /// Pairing code.
    pub qr_code: Option<Text<'a>>,
    /// Free text.
    pub status: Option<Text<'a>>,
    /// Name for people.
    pub agent_name: Option<Text<'a>>,
    /// Host the agent runs on.
    pub host_name: Option<Text<'a>>,
    /// Version of the agent's program.
    pub version: Option<Text<'a>>,
    /// Number of the agent.
    pub phone_number: Option<Text<'a>>,
}

/// A batch of old messages. Section 2.9.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HistoryMessages<'a> {
    /// The messages; may be empty.
    pub messages: Vec<Message<'a>>,
    /// Triggers the post-scan of 5.9 when `agent_id` is given.
    pub is_last_batch: bool,
    /// Agent that was scanned.
    pub agent_id: Option<Text<'a>>,
}
