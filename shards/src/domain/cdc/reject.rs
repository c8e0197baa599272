//! Why a change is dead-lettered. Invariant: every reason has one label, for metrics and headers.

use crate::domain::json::Fault;
use std::borrow::Cow;

/// Reason of a dead letter; the label values of `cdc_consumer_events_total{result}`'s `reason`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The subject has none of the shapes of contract 1.1.
    UnknownSubject,
    /// The body is no JSON, not UTF-8, empty, nested too deeply, or a document inside it is.
    BadJson,
    /// The body is larger than a span can address (1 GiB).
    TooLarge,
    /// JSON, but no change event of an accepted shape.
    UnknownEnvelope,
    /// No table name.
    MissingTable,
    /// An action other than insert, update, delete and read.
    UnknownAction,
    /// The row is null or absent.
    NullRecord,
    /// A delete without the columns that address it: the table lacks `REPLICA IDENTITY FULL`.
    IncompleteRow,
    /// The key column is empty or absent.
    MissingKey,
    /// `company_id` is empty or absent.
    MissingCompany,
    /// `agent_id` is empty or absent.
    MissingAgent,
    /// `chat_id` is empty or absent.
    MissingChat,
    /// An identifying column or the row itself is of another JSON type.
    WrongType,
    /// The commit LSN is no position.
    BadLsn,
    /// An identifier that is not safe in a subject.
    BadIdentifier,
    /// The row's company is not the schema's or the subject's.
    CompanyMismatch,
}

impl Reason {
    /// Every reason, to declare metrics with.
    pub const ALL: [Self; 16] = [
        Self::UnknownSubject,
        Self::BadJson,
        Self::TooLarge,
        Self::UnknownEnvelope,
        Self::MissingTable,
        Self::UnknownAction,
        Self::NullRecord,
        Self::IncompleteRow,
        Self::MissingKey,
        Self::MissingCompany,
        Self::MissingAgent,
        Self::MissingChat,
        Self::WrongType,
        Self::BadLsn,
        Self::BadIdentifier,
        Self::CompanyMismatch,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSubject => "unknown_subject",
            Self::BadJson => "bad_json",
            Self::TooLarge => "too_large",
            Self::UnknownEnvelope => "unknown_envelope",
            Self::MissingTable => "missing_table",
            Self::UnknownAction => "unknown_action",
            Self::NullRecord => "null_record",
            Self::IncompleteRow => "incomplete_row",
            Self::MissingKey => "missing_key",
            Self::MissingCompany => "missing_company",
            Self::MissingAgent => "missing_agent",
            Self::MissingChat => "missing_chat",
            Self::WrongType => "wrong_type",
            Self::BadLsn => "bad_lsn",
            Self::BadIdentifier => "bad_identifier",
            Self::CompanyMismatch => "company_mismatch",
        }
    }
}

/// A change that is dead-lettered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// Its class.
    pub reason: Reason,
    /// The fact, in words, for the dead letter's `error`; holds no column values.
    pub detail: Cow<'static, str>,
    /// Company whose dead letter it is: the subject's, else the row's; valid as a token.
    pub company: Option<Box<str>>,
}

/// A rejection before its company is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::new(Reason::BadJson, format!("{} at offset {}", fault.what, fault.at))
    }
}
