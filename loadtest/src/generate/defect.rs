//! The ways in which a bad event is bad, one for each check of the contract (cdc.md, sections 3 and 5).

use super::row::Row;

/// Why an event must end in the dead-letter stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// Cut in the middle.
    BadJson,
    /// No bytes at all.
    EmptyBody,
    /// `record` is null.
    NullRecord,
    /// The key column is empty.
    MissingKey,
    /// `agent_id` is empty.
    MissingAgent,
    /// `company_id` is empty.
    MissingCompany,
    /// `chat_id` of a message is empty.
    MissingChat,
    /// `table_name` is empty.
    MissingTable,
    /// The row names another company than schema and subject.
    CompanyMismatch,
    /// An action that is none of the four.
    UnknownAction,
    /// A delete with key columns only.
    IncompleteRow,
    /// An agent that would break the subject it goes into.
    UnsafeToken,
}

impl Defect {
    /// All of them; the generator takes them in turn.
    pub const ALL: [Self; 12] = [
        Self::BadJson,
        Self::EmptyBody,
        Self::NullRecord,
        Self::MissingKey,
        Self::MissingAgent,
        Self::MissingCompany,
        Self::MissingChat,
        Self::MissingTable,
        Self::CompanyMismatch,
        Self::UnknownAction,
        Self::IncompleteRow,
        Self::UnsafeToken,
    ];

    /// A short name for reports; `company_mismatch`, `unknown_action` and `incomplete_row` are the
    /// contract's own.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::EmptyBody => "empty_body",
            Self::NullRecord => "null_record",
            Self::MissingKey => "missing_key",
            Self::MissingAgent => "missing_agent",
            Self::MissingCompany => "missing_company",
            Self::MissingChat => "missing_chat",
            Self::MissingTable => "missing_table",
            Self::CompanyMismatch => "company_mismatch",
            Self::UnknownAction => "unknown_action",
            Self::IncompleteRow => "incomplete_row",
            Self::UnsafeToken => "unsafe_token",
        }
    }

    /// Spoils the row before it is written.
    pub(super) fn spoil(self, row: &mut Row<'_>) {
        match self {
            Self::MissingKey => row.key = "",
            Self::MissingAgent => row.agent = "",
            Self::MissingCompany => row.company = "",
            Self::MissingChat => row.chat = "",
            Self::MissingTable => row.table_name = "",
            Self::CompanyMismatch => row.company = "SomebodyElse",
            Self::UnknownAction => row.action = "truncate",
            Self::IncompleteRow => row.action = "delete",
            Self::UnsafeToken => row.agent = "agent 7.>",
            Self::BadJson | Self::EmptyBody | Self::NullRecord => {}
        }
    }

    /// Spoils what was written; `record` is where the record lies in it.
    pub(super) fn spoil_bytes(self, payload: &mut Vec<u8>, record: std::ops::Range<usize>) {
        match self {
            Self::BadJson => payload.truncate(record.end - 1),
            Self::EmptyBody => payload.clear(),
            Self::NullRecord => drop(payload.splice(record, *b"null")),
            Self::IncompleteRow => drop(payload.splice(record, KEYS_ONLY.iter().copied())),
            _ => {}
        }
    }
}

/// What PostgreSQL logs of a delete without full replica identity.
const KEYS_ONLY: &[u8] = br#"{"id":88231,"message_id":null,"chat_id":null,"agent_id":null,"company_id":null,"message_date":"2025-06-01"}"#;
