//! The ten kinds of ingest events and where each is published (contract ingest.md, section 1.1),
//! written down a second time on purpose: a checker that asked daisi could not find it wrong.

use serde::{Deserialize, Serialize};

/// A kind of event; version 1 of each, in the contract's order. In JSON it is its base subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Kind {
    /// A chat, whole.
    ChatsUpsert,
    /// A change of a chat.
    ChatsUpdate,
    /// A message, whole.
    MessagesUpsert,
    /// A change of a message.
    MessagesUpdate,
    /// A contact, whole.
    ContactsUpsert,
    /// A new name of a contact.
    ContactsUpdate,
    /// The state of an agent.
    ConnectionUpdate,
    /// Old chats.
    HistoryChats,
    /// Old messages.
    HistoryMessages,
    /// Old contacts.
    HistoryContacts,
}

/// No kind is published there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event is published on {given:?}; there are {}", Kind::ALL.map(Kind::subject).join(", "))]
pub struct UnknownSubject {
    /// The subject asked for.
    pub given: String,
}

impl Kind {
    /// All ten.
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

    /// Its subject without the company.
    pub fn subject(self) -> &'static str {
        match self {
            Self::ChatsUpsert => "v1.chats.upsert",
            Self::ChatsUpdate => "v1.chats.update",
            Self::MessagesUpsert => "v1.messages.upsert",
            Self::MessagesUpdate => "v1.messages.update",
            Self::ContactsUpsert => "v1.contacts.upsert",
            Self::ContactsUpdate => "v1.contacts.update",
            Self::ConnectionUpdate => "v1.connection.update",
            Self::HistoryChats => "v1.history.chats",
            Self::HistoryMessages => "v1.history.messages",
            Self::HistoryContacts => "v1.history.contacts",
        }
    }

    /// The kind published on a base subject.
    ///
    /// # Errors
    /// None is.
    pub fn parse(subject: &str) -> Result<Self, UnknownSubject> {
        let found = Self::ALL.into_iter().find(|kind| kind.subject() == subject);
        found.ok_or_else(|| UnknownSubject { given: subject.to_owned() })
    }

    /// The stream that captures it.
    pub fn stream(self) -> &'static str {
        if self.items().is_some() { "wa_history_events_stream" } else { "wa_events_stream" }
    }

    /// The member that holds the items of a history batch.
    pub fn items(self) -> Option<&'static str> {
        match self {
            Self::HistoryChats => Some("chats"),
            Self::HistoryMessages => Some("messages"),
            Self::HistoryContacts => Some("contacts"),
            _ => None,
        }
    }

    /// What an item of it looks like: itself, unless it is a batch.
    pub(super) fn of_items(self) -> Self {
        match self {
            Self::HistoryChats => Self::ChatsUpsert,
            Self::HistoryMessages => Self::MessagesUpsert,
            Self::HistoryContacts => Self::ContactsUpsert,
            single => single,
        }
    }

    /// What makes the row that it changes, and what changes the row that it makes.
    pub(super) fn pair(self) -> Option<(Self, Self)> {
        match self {
            Self::ChatsUpsert | Self::ChatsUpdate => Some((Self::ChatsUpsert, Self::ChatsUpdate)),
            Self::MessagesUpsert | Self::MessagesUpdate => {
                Some((Self::MessagesUpsert, Self::MessagesUpdate))
            }
            Self::ContactsUpsert | Self::ContactsUpdate => {
                Some((Self::ContactsUpsert, Self::ContactsUpdate))
            }
            _ => None,
        }
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.subject().to_owned()
    }
}

impl TryFrom<String> for Kind {
    type Error = UnknownSubject;

    fn try_from(subject: String) -> Result<Self, UnknownSubject> {
        Self::parse(&subject)
    }
}
