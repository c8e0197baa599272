//! A daisi with its servers, and events that are sent to it one by one. Invariant: what was sent has its outcome
//! before the next thing is looked at.

use std::cell::Cell;

use serde_json::{Map, Value, json};

use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, SOON, Server, World, put_one};

/// Servers, a daisi, and how many events it has had.
pub struct Stage {
    /// Dropped first: it needs the servers.
    pub daisi: Daisi,
    /// The servers.
    pub world: World,
    sent: Cell<u64>,
    dead: Cell<u64>,
}

impl Stage {
    /// All of it, ready.
    pub fn new(server: Server, sets: &[(&str, &str)]) -> Self {
        let world = World::ingesting(server);
        let daisi = Daisi::spawn(&world, sets);
        daisi.ready(READY_MAX);
        Self { daisi, world, sent: Cell::new(0), dead: Cell::new(0) }
    }

    /// An event that must be written, and is.
    #[track_caller]
    pub fn write(&self, base: &str, company: &str, body: &Value) {
        put_one(&mut self.world.client(), &subject(base, company), body.to_string().as_bytes());
        self.sent.set(self.sent.get() + 1);
        let metrics = self.daisi.ingested(self.sent.get(), SOON);
        let dead = metrics.ingest("", "dead_lettered");
        assert_eq!(dead, self.dead.get(), "{base} {body}: {:?}", self.last_error());
    }

    /// An event that must be refused, and is: for `reason`, in one letter.
    #[track_caller]
    pub fn refuse(&self, base: &str, company: &str, body: &[u8], reason: &str) {
        put_one(&mut self.world.client(), &subject(base, company), body);
        self.sent.set(self.sent.get() + 1);
        self.dead.set(self.dead.get() + 1);
        let metrics = self.daisi.ingested(self.sent.get(), SOON);
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
        assert_eq!(metrics.ingest("", "dead_lettered"), self.dead.get(), "{base} {text}");
        let letters = self.world.await_letters(DEAD, self.dead.get());
        assert_eq!(letters.len() as u64, self.dead.get(), "{base} {text}: one letter");
        // Not read as JSON: a number may be more than a reader of JSON takes.
        let Some(letter) = letters.last() else { return };
        assert_eq!(letter.header("Daisi-Reason").as_deref(), Some(reason), "{base} {text}");
        let subject = json!(subject(base, company));
        assert!(letter.text().contains(&format!("\"source_subject\":{subject}")), "{subject}");
    }

    /// What a table of a company holds, in these columns, by their order.
    #[track_caller]
    pub fn rows(&self, company: &str, table: &str, columns: &str) -> String {
        let schema = format!("daisi_{}", company.to_lowercase());
        self.world.sql(&format!("SELECT {columns} FROM \"{schema}\".{table} ORDER BY 1"))
    }

    /// How many rows each table has that events write: agents, chats, contacts, messages.
    #[track_caller]
    pub fn counts(&self, company: &str) -> [u64; 4] {
        ["agents", "chats", "contacts", "messages"]
            .map(|table| self.rows(company, table, "count(*)").parse().expect("a count"))
    }

    fn last_error(&self) -> Option<String> {
        self.world.read(DEAD).last().map(|letter| letter.text().chars().take(1_000).collect())
    }
}

/// `v1.<base>.<company>`
pub fn subject(base: &str, company: &str) -> String {
    format!("v1.{base}.{company}")
}

/// A chat of a company, sound unless `with` says otherwise; `null` takes a member away.
pub fn chat(company: &str, with: Value) -> Value {
    let sound = json!({
        "chat_id": "c", "jid": "j", "company_id": company, "agent_id": "a", "phone_number": "1",
    });
    changed(sound, with)
}

/// A message of a company, as [`chat`].
pub fn message(company: &str, with: Value) -> Value {
    let sound = json!({
        "message_id": "m", "chat_id": "c", "jid": "j", "flow": "OUT", "company_id": company,
        "agent_id": "a", "message_timestamp": 1_735_700_050,
    });
    changed(sound, with)
}

/// `event` with the members of `with`.
pub fn changed(mut event: Value, with: Value) -> Value {
    let (Some(members), Value::Object(with)) = (event.as_object_mut(), with) else { return event };
    members.extend(with);
    let kept: Map<String, Value> =
        std::mem::take(members).into_iter().filter(|(_, value)| !value.is_null()).collect();
    Value::Object(kept)
}
