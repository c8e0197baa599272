//! Traffic of chat events, and what it must come to: the rows that an undisturbed daisi makes of the same
//! streams in another database. Invariant: realtime and history events are of different companies, since
//! which of the two streams is ahead is nobody's promise.

use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use loadtest::client::{Client, ClientError};
use loadtest::generate::ingest::{Books, Generator, Kind, Profile};
use serde_json::Value;

use crate::daisi::{Daisi, READY_MAX};
use crate::world::{SOON, World, put_one};

pub const REALTIME: [Kind; 7] = [
    Kind::ChatsUpsert,
    Kind::ChatsUpdate,
    Kind::MessagesUpsert,
    Kind::MessagesUpdate,
    Kind::ContactsUpsert,
    Kind::ContactsUpdate,
    Kind::ConnectionUpdate,
];
const HISTORY: [Kind; 3] = [Kind::HistoryChats, Kind::HistoryMessages, Kind::HistoryContacts];
/// Companies of the realtime events, then of the history events.
pub const COMPANIES: [&str; 5] = ["Ann", "Bob", "Cleo", "Dan", "Eve"];
/// Those of the first kind.
const REALTIME_COMPANIES: usize = 3;
/// One history event in so many.
const HISTORY_EVERY: u64 = 8;
/// One named event in so many is sent twice.
const RESENT_EVERY: u64 = 10;
/// With one event in so many the tally goes up by one.
const TALLY_EVERY: u64 = 10;
/// A chat of a company of its own, whose unread messages are counted and never set: a value that is written last hides
/// what was written twice before it, and a count does not.
const TALLY: &str = r#"{"chat_id":"tally","jid":"j","company_id":"Tally","agent_id":"a","phone_number":"1","unread_count":0}"#;
const TALLY_UP: &str =
    r#"{"chat_id":"tally","company_id":"Tally","agent_id":"a","unread_count":1}"#;

/// Traffic under way on a thread of its own.
pub struct Load(JoinHandle<Sent>);

/// What was sent and stored.
pub struct Sent {
    /// Of the realtime events.
    pub realtime: Books,
    /// Of the history events.
    pub history: Books,
    /// How often the tally went up.
    pub tally: u64,
}

impl Sent {
    /// All events.
    pub fn events(&self) -> u64 {
        self.realtime.events() + self.history.events() + 1 + self.tally
    }

    /// Those that are dead letters.
    pub fn dead_lettered(&self) -> u64 {
        self.realtime.dead_lettered() + self.history.dead_lettered()
    }

    /// Holds the tally of a disturbed daisi against what was sent: each event took effect, once.
    #[track_caller]
    pub fn assert_tally(&self, world: &World) {
        let found = world.sql("SELECT unread_count FROM daisi_tally.chats");
        assert_eq!(found, self.tally.to_string(), "the tally");
    }
}

impl Load {
    /// Sends `count` events, `rate` a second, each with its PubAck.
    pub fn start(world: &World, seed: u64, count: u64, rate: u64) -> Self {
        Self::start_with(world, (seed, count, rate), false)
    }

    /// As [`Self::start`], each with its `Nats-Msg-Id`, and one in [`RESENT_EVERY`] sent twice. What has no PubAck is
    /// published again, so the server may go away meanwhile.
    pub fn start_resending(world: &World, seed: u64, count: u64, rate: u64) -> Self {
        Self::start_with(world, (seed, count, rate), true)
    }

    fn start_with(world: &World, (seed, count, rate): (u64, u64, u64), is_named: bool) -> Self {
        let mut client = world.client();
        let mut stubborn = Stubborn { url: world.stack.nats.url(), client: None };
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let (realtime, history) = COMPANIES.split_at(REALTIME_COMPANIES);
            let mut realtime = generator(seed, &REALTIME, realtime, is_named);
            let mut history = generator(seed + 1, &HISTORY, history, is_named);
            let mut put = |subject: &str, id: &str, body: &[u8]| match is_named {
                true => stubborn.put(subject, id, body),
                false => put_one(&mut client, subject, body),
            };
            put("v1.chats.upsert.Tally", "tally", TALLY.as_bytes());
            let mut tally = 0;
            let begun = Instant::now();
            for number in 0..count {
                sleep((begun + Duration::from_micros(number * 1_000_000 / rate)) - Instant::now());
                let generator =
                    if number % HISTORY_EVERY == 0 { &mut history } else { &mut realtime };
                let event = generator.next();
                // A copy that the stream shall hold is a message of its own.
                let id = event.msg_id.map_or_else(|| format!("copy-{number}"), str::to_owned);
                let is_resent = is_named && number % RESENT_EVERY == 0;
                for _ in 0..1 + u32::from(is_resent) {
                    put(event.subject, &id, event.payload);
                }
                if number % TALLY_EVERY == 0 {
                    tally += 1;
                    put("v1.chats.update.Tally", &format!("tally-{tally}"), TALLY_UP.as_bytes());
                }
            }
            Sent { realtime: realtime.books().clone(), history: history.books().clone(), tally }
        });
        Self(thread.expect("a thread"))
    }

    /// Waits until all of it is stored.
    #[track_caller]
    pub fn sent(self) -> Sent {
        self.0.join().expect("the load gets through")
    }
}

/// A publisher that connects again, and publishes again what has no PubAck.
struct Stubborn {
    url: String,
    client: Option<Client>,
}

impl Stubborn {
    // The PubAck may say that the stream has it already.
    fn put(&mut self, subject: &str, id: &str, body: &[u8]) {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let answer = self.try_put(subject, id, body);
            if answer.as_ref().is_ok_and(|answer| answer["seq"].is_u64()) {
                return;
            }
            assert!(Instant::now() < deadline, "{subject}: {answer:?}");
            sleep(Duration::from_millis(10));
        }
    }

    // A client that failed is not used again: a late answer to the one question is none to the next.
    fn try_put(&mut self, subject: &str, id: &str, body: &[u8]) -> Result<Value, ClientError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.url)?,
        };
        let inbox = format!("{}.load", client.inbox_prefix());
        let sid = client.subscribe(&inbox)?;
        client.publish_with(subject, Some(&inbox), &[("Nats-Msg-Id", id)], body)?;
        client.flush()?;
        let answer = client.receive(Instant::now() + SOON)?;
        client.unsubscribe(sid);
        let Some(answer) = answer else { return Ok(Value::Null) };
        self.client = Some(client);
        // Nobody listens while JetStream recovers; that answer has no body.
        Ok(serde_json::from_slice(answer.payload()).unwrap_or_default())
    }
}

// Without message ids the streams hold what was sent, copies and all.
fn generator(seed: u64, kinds: &[Kind], companies: &[&str], is_named: bool) -> Generator {
    use loadtest::generate::ingest::Fault;
    let profile = Profile {
        seed,
        subjects: kinds.to_vec(),
        companies: companies.iter().map(|company| (*company).to_owned()).collect(),
        agents: 2,
        chats: 6,
        history_count: 5,
        bare: if is_named { 0.0 } else { 1.0 },
        quirks: 0.1,
        faults: [
            (Fault::Malformed, 0.004),
            (Fault::Missing, 0.004),
            (Fault::BadValue, 0.004),
            (Fault::Foreign, 0.004),
            (Fault::Copy, 0.02),
            (Fault::OutOfOrder, 0.004),
        ]
        .into(),
        ..Profile::default()
    };
    Generator::new(profile).expect("a sound profile")
}

/// What the rows of every company say in a database: without the numbers and times that are its own, and the
/// place in the consumer. Ids of contacts are made from their names, and of two that want one chat (their phones are
/// written differently) the first in the stream has it. With `by` or without: which event wrote each.
pub fn rows(world: &World, database: &str, by: bool) -> Vec<String> {
    let by = match by {
        true => "last_metadata - 'consumer' - 'consumer_sequence' - 'processed_at'",
        false => "NULL::jsonb",
    };
    let mut rows = Vec::new();
    for company in COMPANIES {
        let schema = format!("daisi_{}", company.to_lowercase());
        for table in ["agents", "chats", "contacts", "messages", "onboarding_log"] {
            let own = if table == "contacts" { "" } else { "- 'id'" };
            let sql = format!(
                "SELECT (to_jsonb(t) - 'created_at' - 'updated_at' - 'last_metadata' {own})::text || ' by ' \
                 || coalesce({by}, '{{}}')::text \
                 FROM {schema}.{table} t"
            );
            let answer = world.sql_in(database, &sql);
            let lines = answer.lines().map(|line| format!("{company}.{table} {line}"));
            rows.extend(lines);
        }
        // A try that a kill cut short counts; so their number is at least what it should be.
        let exhausted = format!(
            "SELECT (to_jsonb(t) - 'id' - 'created_at' - 'retry_count')::text FROM {schema}.exhausted_events t"
        );
        let answer = world.sql_in(database, &exhausted);
        rows.extend(answer.lines().map(|line| format!("{company}.exhausted_events {line}")));
    }
    rows.sort_unstable();
    rows
}

/// Settings of a daisi that writes the same streams to another database, as if it were alone.
pub fn clean_settings(world: &World) -> Vec<(&'static str, String)> {
    vec![
        ("postgres.dsn", world.database("clean")),
        ("lease.bucket", "clean".to_owned()),
        ("ingest.consumer", "clean".to_owned()),
        ("ingest.history_consumer", "clean_history".to_owned()),
        ("dlq.consumer", "clean_dlq".to_owned()),
    ]
}

/// Writes `events` to that database, undisturbed.
#[track_caller]
pub fn write_clean(world: &World, events: u64) {
    world.sql("CREATE DATABASE clean");
    let sets = clean_settings(world);
    let sets: Vec<(&str, &str)> = sets.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let clean = Daisi::spawn(world, &sets);
    let within = Duration::from_secs(60 + events / 500);
    clean.ready(READY_MAX).ingested(events, within);
}

/// Holds the rows that a disturbed daisi has made against those of the other database.
#[track_caller]
pub fn assert_as_clean(world: &World) -> Vec<String> {
    let (expected, found) = (rows(world, "clean", true), rows(world, "postgres", true));
    assert!(expected.len() > 100, "{expected:#?}");
    let lacks = |rows: &[String], row: &String| rows.binary_search(row).is_err();
    let missing: Vec<_> = expected.iter().filter(|row| lacks(&found, row)).take(5).collect();
    let surplus: Vec<_> = found.iter().filter(|row| lacks(&expected, row)).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}, surplus {surplus:#?}");
    assert_eq!(found.len(), expected.len(), "rows");
    found
}

/// Holds the rows that a disturbed daisi has made against those that an undisturbed one makes now.
#[track_caller]
pub fn assert_as_undisturbed(world: &World, sent: &Sent) {
    sent.assert_tally(world);
    write_clean(world, sent.events());
    assert_as_clean(world);
}
