//! Chat events become rows of a company's schema. Pure: no sockets, no clocks. Source: contract `ingest.md`.
//!
//! Modules: `event`, `position` (vocabulary).

mod event;
mod position;

pub use event::{
    Agent, Campaign, Chat, ChatUpdate, Contact, ContactUpdate, Event, Flow, HistoryMessages, Kind,
    Message, MessageKey, MessageUpdate, Text,
};
pub use position::Position;
