//! Payload to event: one validating pass that gathers where the members lie, then one look at each of them.
//! Pure. Invariant: an event comes out if and only if the kind's own schema accepts the payload and every
//! `company_id` in it is the subject's, empty or absent. Source: contract `ingest.md` section 2.
//!
//! Members are judged after the pass, so of doubled ones the last counts, whatever the first was. Events
//! borrow from the body; only strings with escapes, and the lists of history batches, are allocated.
//!
//! Modules: `read` (members to values), then one file for each entity, `history`, and `dlq`.

pub(crate) mod agent;
pub(crate) mod chat;
pub(crate) mod contact;
pub(crate) mod dlq;
pub(crate) mod history;
pub(crate) mod message;
pub(crate) mod read;
