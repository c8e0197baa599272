//! Events and positions for tests, in few words; and a writer over a session of its own.

use std::borrow::Cow;
use std::cell::Cell;

use shards::domain::ingest::{Chat, ChatUpdate, Event, Flow, Message, MessageUpdate, Position};
use shards::edge::pg::write::{Session, SessionSettings};
use shards::pipeline::commit::{Batch, Commit, Fate, Hints, Item, Outcome, Settings};

use crate::world::connect;

/// 2026-01-02T00:00:00Z in ns: when the streams of the tests began.
pub(crate) const EPOCH: u64 = 1_767_312_000_000_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const REALTIME: &str = "wa_events_stream";
pub(crate) const HISTORY: &str = "wa_history_events_stream";
/// 2026-01-05T10:00:00Z
pub(crate) const SENT: i64 = 1_767_607_200;

/// A position: published a second after another, sequence by sequence.
pub(crate) fn at(stream: &'static str, sequence: u64) -> Position<'static> {
    Position {
        stream,
        stream_sequence: sequence,
        consumer: "c",
        consumer_sequence: sequence,
        subject: "v1.x.y.z",
        published_ns: EPOCH + sequence * SECOND,
        ..Position::default()
    }
}

/// All that a writer needs.
pub(crate) struct Writer {
    pub(crate) session: Session,
    pub(crate) commit: Commit,
    pub(crate) batch: Batch,
    pub(crate) hints: Hints,
    /// What the clock says; a second on with each transaction.
    pub(crate) now_ns: Cell<u64>,
    pub(crate) transactions: Cell<u32>,
    pub(crate) stream_created_ns: u64,
}

impl Writer {
    pub(crate) async fn new() -> Self {
        Self::with(SessionSettings::default(), 1000).await
    }

    pub(crate) async fn with(settings: SessionSettings, hints: usize) -> Self {
        Self {
            session: Session::new(connect().await, settings).await.expect("a session"),
            commit: Commit::default(),
            batch: Batch::new(Settings::default(), (1, 2)),
            hints: Hints::new(hints),
            now_ns: Cell::new(EPOCH + 1_000_000 * SECOND),
            transactions: Cell::new(0),
            stream_created_ns: EPOCH,
        }
    }

    /// Writes; the outcomes, of which each must be there unless the database was away.
    pub(crate) async fn write(
        &mut self,
        events: &[(&str, Event<'_>, Position<'_>)],
    ) -> Vec<Option<Outcome>> {
        let created = self.stream_created_ns;
        let items: Vec<Item<'_>> = events
            .iter()
            .map(|(company, event, position)| Item {
                company,
                event,
                position,
                stream_created_ns: created,
            })
            .collect();
        let now = || {
            self.transactions.set(self.transactions.get() + 1);
            self.now_ns.replace(self.now_ns.get() + SECOND)
        };
        self.session.write(&mut self.commit, &mut self.batch, &mut self.hints, &items, now).await;
        self.commit.outcomes().to_vec()
    }

    /// Writes events of one company and one stream, in one batch.
    pub(crate) async fn fates(
        &mut self,
        company: &str,
        stream: &'static str,
        events: &[(u64, Event<'_>)],
    ) -> Vec<Fate> {
        let events: Vec<_> = events
            .iter()
            .map(|(sequence, event)| (company, event.clone(), at(stream, *sequence)))
            .collect();
        let outcomes = self.write(&events).await;
        outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Some(Outcome::Committed(fate)) => fate,
                other => panic!("{other:?}, away: {:?}", self.commit.away()),
            })
            .collect()
    }
}

pub(crate) fn text(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(text))
}

/// A message as most are; `with` makes it another.
pub(crate) fn message<'a>(id: &'a str, with: impl FnOnce(&mut Message<'a>)) -> Message<'a> {
    let mut message = Message {
        message_id: id.into(),
        chat_id: "chat".into(),
        jid: "jid".into(),
        agent_id: "ag".into(),
        flow: Flow::Out,
        message_timestamp: Some(SENT),
        ..Message::default()
    };
    with(&mut message);
    message
}

pub(crate) fn upsert<'a>(id: &'a str, with: impl FnOnce(&mut Message<'a>)) -> Event<'a> {
    Event::MessagesUpsert(message(id, with))
}

pub(crate) fn update<'a>(id: &'a str, with: impl FnOnce(&mut MessageUpdate<'a>)) -> Event<'a> {
    let mut update = MessageUpdate { message_id: id.into(), ..MessageUpdate::default() };
    with(&mut update);
    Event::MessagesUpdate(update)
}

pub(crate) fn chat<'a>(id: &'a str, with: impl FnOnce(&mut Chat<'a>)) -> Chat<'a> {
    let mut chat = Chat {
        chat_id: id.into(),
        jid: "jid".into(),
        agent_id: "ag".into(),
        phone_number: "62".into(),
        ..Chat::default()
    };
    with(&mut chat);
    chat
}

pub(crate) fn chat_upsert<'a>(id: &'a str, with: impl FnOnce(&mut Chat<'a>)) -> Event<'a> {
    Event::ChatsUpsert(chat(id, with))
}

pub(crate) fn chat_update(id: &str, unread: Option<i32>, timestamp: Option<i64>) -> Event<'_> {
    Event::ChatsUpdate(ChatUpdate {
        chat_id: id.into(),
        unread_count: unread,
        conversation_timestamp: timestamp,
        last_message: None,
    })
}
