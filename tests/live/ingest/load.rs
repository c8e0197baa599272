//! Traffic of chat events, and what it must come to: the rows that an undisturbed daisi makes of the same
//! streams in another database. Invariant: realtime and history events are of different companies, since
//! which of the two streams is ahead is nobody's promise.

use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use loadtest::generate::ingest::{Books, Generator, Kind, Profile};

use crate::daisi::{Daisi, READY_MAX};
use crate::world::{World, put_one};

const REALTIME: [Kind; 7] = [
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
const COMPANIES: [&str; 5] = ["Ann", "Bob", "Cleo", "Dan", "Eve"];
/// Those of the first kind.
const REALTIME_COMPANIES: usize = 3;
/// One history event in so many.
const HISTORY_EVERY: u64 = 8;

/// Traffic under way on a thread of its own.
pub struct Load(JoinHandle<Sent>);

/// What was sent and stored.
pub struct Sent {
    /// Of the realtime events.
    pub realtime: Books,
    /// Of the history events.
    pub history: Books,
}

impl Sent {
    /// All events.
    pub fn events(&self) -> u64 {
        self.realtime.events() + self.history.events()
    }
}

impl Load {
    /// Sends `count` events, `rate` a second, each with its PubAck.
    pub fn start(world: &World, seed: u64, count: u64, rate: u64) -> Self {
        let mut client = world.client();
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let (realtime, history) = COMPANIES.split_at(REALTIME_COMPANIES);
            let mut realtime = generator(seed, &REALTIME, realtime);
            let mut history = generator(seed + 1, &HISTORY, history);
            let begun = Instant::now();
            for number in 0..count {
                sleep((begun + Duration::from_micros(number * 1_000_000 / rate)) - Instant::now());
                let generator =
                    if number % HISTORY_EVERY == 0 { &mut history } else { &mut realtime };
                let event = generator.next();
                put_one(&mut client, event.subject, event.payload);
            }
            Sent { realtime: realtime.books().clone(), history: history.books().clone() }
        });
        Self(thread.expect("a thread"))
    }

    /// Waits until all of it is stored.
    #[track_caller]
    pub fn sent(self) -> Sent {
        self.0.join().expect("the load gets through")
    }
}

// Without message ids: the streams hold what was sent, copies and all.
fn generator(seed: u64, kinds: &[Kind], companies: &[&str]) -> Generator {
    use loadtest::generate::ingest::Fault;
    let profile = Profile {
        seed,
        subjects: kinds.to_vec(),
        companies: companies.iter().map(|company| (*company).to_owned()).collect(),
        agents: 2,
        chats: 6,
        history_count: 5,
        bare: 1.0,
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

/// What the rows of every company say in a database: without the numbers and times that are its own. Two
/// contacts may want one chat (their phones are written differently); which of them has it depends on what
/// was written together, so contacts and their chats are told apart.
fn rows(world: &World, database: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for company in COMPANIES {
        let schema = format!("daisi_{}", company.to_lowercase());
        let chats = format!("SELECT chat_id FROM {schema}.contacts WHERE chat_id IS NOT NULL");
        let chats = world.sql_in(database, &chats);
        rows.extend(chats.lines().map(|chat| format!("{company}: a contact has {chat}")));
        for table in ["agents", "chats", "contacts", "messages", "onboarding_log"] {
            let own = if table == "contacts" { "- 'chat_id'" } else { "- 'id'" };
            let sql = format!(
                "SELECT (to_jsonb(t) - 'created_at' - 'updated_at' - 'last_metadata' {own})::text \
                 || ' at ' || coalesce(last_metadata->>'stream_sequence', '-') FROM {schema}.{table} t"
            );
            let answer = world.sql_in(database, &sql);
            let lines = answer.lines().map(|line| format!("{company}.{table} {line}"));
            rows.extend(lines);
        }
    }
    rows.sort_unstable();
    rows
}

/// Holds the rows that a disturbed daisi has made against those that an undisturbed one makes now.
#[track_caller]
pub fn assert_as_undisturbed(world: &World, events: u64) {
    world.sql("CREATE DATABASE clean");
    let clean = Daisi::spawn(
        world,
        &[
            ("postgres.dsn", &world.database("clean")),
            ("lease.bucket", "clean"),
            ("ingest.consumer", "clean"),
            ("ingest.history_consumer", "clean_history"),
        ],
    );
    clean.ready(READY_MAX).ingested(events, Duration::from_secs(60));
    let (expected, found) = (rows(world, "clean"), rows(world, "postgres"));
    assert!(expected.len() > 100, "{expected:#?}");
    let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).take(5).collect();
    let surplus: Vec<_> = found.iter().filter(|row| !expected.contains(row)).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}, surplus {surplus:#?}");
    assert_eq!(found.len(), expected.len(), "rows");
}
