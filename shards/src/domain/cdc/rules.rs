//! Settings of the `cdc` stage, checked once. Invariant: a compiled `CdcRules` names at least one table
//! and one output prefix that is safe in a subject.

use super::token;
use thiserror::Error;

/// A table whose changes can be published, contract `cdc.md` 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Table {
    /// `messages` and its partitions.
    Messages,
    /// `chats`.
    Chats,
    /// `agents`.
    Agents,
    /// `contacts`.
    Contacts,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Messages, Self::Chats, Self::Agents, Self::Contacts];

    /// Name in subjects, payloads and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Chats => "chats",
            Self::Agents => "agents",
            Self::Contacts => "contacts",
        }
    }

    /// The table of a name in the database; `messages_default` and `messages_y<YYYY>m<MM>` are
    /// partitions of `messages` (contract `ingest.md` 4.3).
    pub fn of_name(name: &[u8]) -> Option<Self> {
        match name {
            b"messages" | b"messages_default" => Some(Self::Messages),
            b"chats" => Some(Self::Chats),
            b"agents" => Some(Self::Agents),
            b"contacts" => Some(Self::Contacts),
            _ if is_month_partition(name) => Some(Self::Messages),
            _ => None,
        }
    }

    /// Column that addresses a row in `event_id`.
    pub fn key_column(self) -> &'static str {
        match self {
            Self::Messages => "message_id",
            Self::Chats => "chat_id",
            Self::Agents => "agent_id",
            Self::Contacts => "id",
        }
    }

    /// Whether payloads carry the row's chat.
    pub fn has_chat(self) -> bool {
        matches!(self, Self::Messages | Self::Chats)
    }
}

fn is_month_partition(name: &[u8]) -> bool {
    let Some([y1, y2, y3, y4, b'm', m1, m2]) = name.strip_prefix(b"messages_y") else {
        return false;
    };
    [y1, y2, y3, y4, m1, m2].into_iter().all(u8::is_ascii_digit)
}

/// Which envelopes are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EnvelopeRule {
    /// Told by the members of each body.
    #[default]
    Auto,
    /// Sequin only.
    Sequin,
    /// Debezium only; here an empty body is a tombstone.
    Debezium,
}

/// Settings as the configuration gives them.
#[derive(Clone, Debug)]
pub struct CdcSettings {
    /// Tables to publish, by name; at least one of the four.
    pub tables: Vec<String>,
    /// Envelopes to read.
    pub envelope: EnvelopeRule,
    /// Publish backfilled rows (`read`) too, instead of filtering them.
    pub forward_backfill: bool,
    /// First tokens of the published subject; one publish each.
    pub output_prefixes: Vec<String>,
}

impl Default for CdcSettings {
    fn default() -> Self {
        Self {
            tables: Table::ALL.iter().map(|t| t.as_str().to_owned()).collect(),
            envelope: EnvelopeRule::Auto,
            forward_backfill: false,
            output_prefixes: vec!["wa".to_owned()],
        }
    }
}

/// Why settings do not compile.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub enum RulesError {
    /// A table that no subject is defined for.
    #[error("cdc.tables: \"{name}\" is none of messages, chats, agents, contacts")]
    UnknownTable {
        /// As written.
        name: String,
    },
    /// Nothing would be published.
    #[error("cdc.tables is empty")]
    NoTables,
    /// A prefix that would break a subject.
    #[error(
        "cdc.output_prefix: \"{prefix}\" is not dot-separated tokens of letters, digits, _ and -"
    )]
    BadPrefix {
        /// As written.
        prefix: String,
    },
    /// Nothing would be published.
    #[error("cdc.output_prefix is empty")]
    NoPrefixes,
}

/// Settings, checked and ready for use on every event.
#[derive(Clone, Debug)]
pub struct CdcRules {
    allowed: [bool; 4],
    pub(crate) envelope: EnvelopeRule,
    pub(crate) forward_backfill: bool,
    output_prefixes: Box<[Box<str>]>,
}

impl CdcRules {
    /// Checks the settings.
    ///
    /// # Errors
    /// A table without a subject, a prefix that is unsafe in one, or none of either.
    pub fn compile(settings: &CdcSettings) -> Result<Self, RulesError> {
        let mut allowed = [false; 4];
        for name in &settings.tables {
            let table = Table::ALL.into_iter().find(|t| t.as_str() == name);
            let table = table.ok_or_else(|| RulesError::UnknownTable { name: name.clone() })?;
            allowed[table as usize] = true;
        }
        if settings.tables.is_empty() {
            return Err(RulesError::NoTables);
        }
        if settings.output_prefixes.is_empty() {
            return Err(RulesError::NoPrefixes);
        }
        for prefix in &settings.output_prefixes {
            if !prefix.as_bytes().split(|b| *b == b'.').all(token::is_company) {
                return Err(RulesError::BadPrefix { prefix: prefix.clone() });
            }
        }
        Ok(Self {
            allowed,
            envelope: settings.envelope,
            forward_backfill: settings.forward_backfill,
            output_prefixes: settings.output_prefixes.iter().map(|p| p.as_str().into()).collect(),
        })
    }

    /// Prefixes of the published subjects, at least one.
    pub fn output_prefixes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.output_prefixes.iter().map(AsRef::as_ref)
    }

    /// Whether the table is published.
    pub fn allows(&self, table: Table) -> bool {
        self.allowed[table as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_count_as_messages_and_nothing_else_does() {
        for name in ["messages", "messages_default", "messages_y2025m06"] {
            assert_eq!(Table::of_name(name.as_bytes()), Some(Table::Messages), "{name}");
        }
        for name in
            ["messages_", "messages_y2025m6", "messages_y2025m061", "messages_x", "Chats", ""]
        {
            assert_eq!(Table::of_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let compile = |tables: &[&str], prefixes: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            let (tables, output_prefixes) = (owned(tables), owned(prefixes));
            CdcRules::compile(&CdcSettings { tables, output_prefixes, ..CdcSettings::default() })
        };
        assert!(compile(&["messages"], &["wa", "websocket.v1"]).is_ok());
        assert_eq!(compile(&[], &["wa"]).err(), Some(RulesError::NoTables));
        assert_eq!(compile(&["chats"], &[]).err(), Some(RulesError::NoPrefixes));
        assert!(matches!(compile(&["users"], &["wa"]), Err(RulesError::UnknownTable { .. })));
        for prefix in ["", "wa.", ".wa", "w a", "wa.>", "*"] {
            assert!(matches!(compile(&["chats"], &[prefix]), Err(RulesError::BadPrefix { .. })));
        }
    }
}
