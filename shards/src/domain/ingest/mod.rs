//! Chat events become rows of a company's schema. Pure: no sockets, no clocks. Source: contract `ingest.md`.
//!
//! From a message to an event: [`Catalog::route`] reads its subject, [`Body::of`] mends its payload, and
//! [`Route::decode`] makes an [`Event`] or a [`Refusal`]. From events to the database: [`batch`].
//!
//! Modules, bottom to top: `event`, `position`, `refusal` (vocabulary); `subject`, `body` (the two halves of
//! a message); `decode` (reading); `schema` (wording); `catalog` (which events there are); `batch` (events to
//! calls of statements).

pub mod batch;
mod body;
mod catalog;
mod decode;
mod event;
mod position;
mod refusal;
mod schema;
mod subject;

pub use body::Body;
pub use catalog::{Catalog, Route, SchemaFile};
pub use decode::dlq::DlqMessage;
pub use event::{
    Agent, Campaign, Chat, ChatUpdate, Contact, ContactUpdate, Event, Flow, HistoryMessages, Kind,
    Message, MessageKey, MessageUpdate, Text,
};
pub use position::Position;
pub use refusal::{Reason, Refusal};
pub use schema::SchemaError;
pub use subject::Subject;
