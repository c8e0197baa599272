//! Which events there are: from a subject to a decoder and a schema, each by name and version. Invariant:
//! what a route hands out keeps to our own schema and to the operator's, if there is one.
//!
//! An operator may put a schema of their own in place of ours. What they cannot do is admit more than the
//! types hold, so the decoder stays; what is stricter in theirs can only be found by running it, for every
//! event of that kind: a tree of the payload and a walk over it, 5 us and 50 allocations for a small message
//! where the decoder alone takes 0.7 us and none (`benches/ingest_decode.rs`). The other kinds pay nothing.
//!
//! A second version of an event stands beside the first as one more [`Definition`].

use super::Body;
use super::decode::dlq::{DlqMessage, dlq};
use super::decode::read::{Decoder, Fault, Source};
use super::decode::{agent, chat, contact, history, message};
use super::event::{Event, Kind};
use super::refusal::{Reason, Refusal};
use super::schema::{Schema, SchemaError, too_large};
use super::subject::Subject;
use crate::domain::json::TEXT_BYTES_MAX;

/// One version of one event.
pub(crate) struct Definition {
    pub(crate) kind: Kind,
    pub(crate) version: u16,
    pub(crate) decoder: Decoder,
    /// The schema's text.
    pub(crate) schema: &'static str,
}

/// Text of a schema below `schemas/`.
macro_rules! schema {
    ($file:literal) => {
        include_str!(concat!("../../../../schemas/", $file))
    };
}

/// The events of the contract.
pub(crate) const DEFINITIONS: [Definition; 10] = [
    Definition {
        kind: Kind::ChatsUpsert,
        version: 1,
        decoder: chat::upsert,
        schema: schema!("wa_events_stream/chats.upsert.v1.json"),
    },
    Definition {
        kind: Kind::ChatsUpdate,
        version: 1,
        decoder: chat::update,
        schema: schema!("wa_events_stream/chats.update.v1.json"),
    },
    Definition {
        kind: Kind::MessagesUpsert,
        version: 1,
        decoder: message::upsert,
        schema: schema!("wa_events_stream/messages.upsert.v1.json"),
    },
    Definition {
        kind: Kind::MessagesUpdate,
        version: 1,
        decoder: message::update,
        schema: schema!("wa_events_stream/messages.update.v1.json"),
    },
    Definition {
        kind: Kind::ContactsUpsert,
        version: 1,
        decoder: contact::upsert,
        schema: schema!("wa_events_stream/contacts.upsert.v1.json"),
    },
    Definition {
        kind: Kind::ContactsUpdate,
        version: 1,
        decoder: contact::update,
        schema: schema!("wa_events_stream/contacts.update.v1.json"),
    },
    Definition {
        kind: Kind::ConnectionUpdate,
        version: 1,
        decoder: agent::update,
        schema: schema!("wa_events_stream/connection.update.v1.json"),
    },
    Definition {
        kind: Kind::HistoryChats,
        version: 1,
        decoder: history::chats,
        schema: schema!("wa_history_events_stream/history.chats.v1.json"),
    },
    Definition {
        kind: Kind::HistoryMessages,
        version: 1,
        decoder: history::messages,
        schema: schema!("wa_history_events_stream/history.messages.v1.json"),
    },
    Definition {
        kind: Kind::HistoryContacts,
        version: 1,
        decoder: history::contacts,
        schema: schema!("wa_history_events_stream/history.contacts.v1.json"),
    },
];

/// Base of a dead letter's subject, version 1.
const DLQ_BASE: &str = "dlq";
const DLQ_FILE: &str = "dlq_stream/dlq.v1.json";
const DLQ_SCHEMA: &str = schema!("dlq_stream/dlq.v1.json");

/// A schema to be put in place of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaFile {
    /// `<stream>/<event>.v<version>.json`.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Every event that is known, with its schemas compiled. Read-only: cores may share one.
pub struct Catalog {
    entries: Vec<Entry>,
    dlq: Rules,
}

struct Entry {
    kind: Kind,
    version: u16,
    decoder: Decoder,
    rules: Rules,
}

/// The schemas of one event and version.
struct Rules {
    own: Schema,
    /// The operator's, if it is another.
    replaced: Option<Schema>,
}

/// An event's way from its subject to its type.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    entry: &'a Entry,
    company: &'a str,
}

impl Catalog {
    /// Compiles every schema; those of `files` are put in place of ours. A file that belongs to no event is
    /// an error: a misspelt one would not be missed.
    pub fn load(files: &[SchemaFile]) -> Result<Self, SchemaError> {
        let all: Vec<&Definition> = DEFINITIONS.iter().collect();
        Self::of(&all, files)
    }

    pub(crate) fn of(
        definitions: &[&Definition],
        files: &[SchemaFile],
    ) -> Result<Self, SchemaError> {
        let names: Vec<String> =
            definitions.iter().map(|definition| file_name(definition)).collect();
        if let Some(file) =
            files.iter().find(|file| file.name != DLQ_FILE && !names.contains(&file.name))
        {
            return Err(SchemaError::UnknownEvent {
                file: file.name.clone(),
                example: DLQ_FILE.to_owned(),
            });
        }
        let entries = definitions.iter().zip(&names).map(|(definition, name)| {
            Ok(Entry {
                kind: definition.kind,
                version: definition.version,
                decoder: definition.decoder,
                rules: Rules::compile(name, definition.schema, files)?,
            })
        });
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            dlq: Rules::compile(DLQ_FILE, DLQ_SCHEMA, files)?,
        })
    }

    /// The route of a subject; no route if it names no event.
    pub fn route<'a>(&'a self, subject: &'a str) -> Result<Route<'a>, Refusal> {
        let Subject { base, version, company } = Subject::parse(subject)?;
        self.entries
            .iter()
            .find(|entry| entry.version == version && entry.kind.base() == base)
            .map(|entry| Route { entry, company })
            .ok_or_else(|| Refusal::of_subject(Reason::UnknownSubject, subject))
    }

    /// Reads a dead letter that came on `subject`.
    pub fn decode_dlq<'a>(
        &self,
        subject: &'a str,
        body: &'a Body<'_>,
    ) -> Result<DlqMessage<'a>, Refusal> {
        let Subject { base, version, company } = Subject::parse(subject)?;
        if (base, version) != (DLQ_BASE, 1) {
            return Err(Refusal::of_subject(Reason::UnknownSubject, subject));
        }
        self.dlq.judge(company, body, dlq)
    }
}

/// Where the schema of an event lies below the folder of schemas.
pub(crate) fn file_name(definition: &Definition) -> String {
    let Definition { kind, version, .. } = definition;
    format!("{}/{}.v{version}.json", kind.stream(), kind.base())
}

impl<'a> Route<'a> {
    /// What kind of event it is.
    pub fn kind(&self) -> Kind {
        self.entry.kind
    }

    /// Version of its payload.
    pub fn version(&self) -> u16 {
        self.entry.version
    }

    /// Whose event it is.
    pub fn company(&self) -> &'a str {
        self.company
    }

    /// Reads a payload.
    pub fn decode<'b>(&self, body: &'b Body<'_>) -> Result<Event<'b>, Refusal>
    where
        'a: 'b,
    {
        #[cfg(feature = "slow")]
        crate::slow::event();
        self.entry.rules.judge(self.company, body, self.entry.decoder)
    }
}

impl Rules {
    fn compile(name: &str, text: &str, files: &[SchemaFile]) -> Result<Self, SchemaError> {
        let replaced = files
            .iter()
            .find(|file| file.name == name && file.text != text)
            .map(|file| Schema::compile(name, &file.text))
            .transpose()?;
        Ok(Self { own: Schema::compile(name, text)?, replaced })
    }

    fn judge<'b, T>(
        &self,
        company: &'b str,
        body: &'b Body<'_>,
        decode: impl Fn(Source<'b>) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        if body.as_str().len() >= TEXT_BYTES_MAX {
            return Err(too_large(body));
        }
        let decoded = decode(Source::new(body, company)).map_err(|f| self.own.refusal(f, body))?;
        if let Some(replaced) = &self.replaced {
            replaced.admit(body)?;
        }
        Ok(decoded)
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
