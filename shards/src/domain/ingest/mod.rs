//! Chat events become rows of a company's schema. Pure: no sockets, no clocks. Source: contract `ingest.md`.
//!
//! Modules, bottom to top: `event`, `position` (vocabulary); `batch` (events to calls of statements).

pub mod batch;
mod event;
mod position;

pub use event::{
    Agent, Campaign, Chat, ChatUpdate, Contact, ContactUpdate, Event, Flow, HistoryMessages, Kind,
    Message, MessageKey, MessageUpdate, Text,
};
pub use position::Position;
