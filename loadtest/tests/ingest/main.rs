//! The generator of ingest events, held against the contract by a reader that knows only the contract:
//! validity, references, books, and what really reaches a nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod contract;
mod live;

use std::collections::{HashMap, HashSet};
use std::process::{Command, Output};

use contract::{Read, judge};
use loadtest::generate::ingest::{Event, Fault, Generator, Kind, Profile, parse_faults};
use serde_json::Value;

/// Every kind, several companies and agents, and much of what is unusual.
fn wild(seed: u64) -> Profile {
    Profile {
        seed,
        subjects: Kind::ALL.to_vec(),
        companies: vec!["ACME".into(), "acme-2".into(), "Toko_3".into()],
        quirks: 0.3,
        bare: 0.1,
        ..Profile::default()
    }
}

fn troubled(seed: u64) -> Profile {
    Profile { faults: parse_faults("0.4").unwrap(), ..wild(seed) }
}

/// Base subject and company; split here as a reader of the wire would.
fn split(subject: &str) -> (&str, &str) {
    subject.rsplit_once('.').unwrap()
}

fn digest(seed: u64) -> Vec<(String, Option<String>, Vec<u8>, String)> {
    let mut generator = Generator::new(troubled(seed)).unwrap();
    let own = |event: Event<'_>| {
        let msg_id = event.msg_id.map(str::to_owned);
        (event.subject.to_owned(), msg_id, event.payload.to_owned(), event.expect.name())
    };
    (0..5_000).map(|_| own(generator.next())).collect()
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_does_not() {
    let first = digest(7);
    assert!(first == digest(7));
    let other = digest(8);
    let shared = first.iter().zip(&other).filter(|(a, b)| a.2 == b.2 && a.2.len() > 40).count();
    assert!(shared < 50, "{shared} events are the same under another seed");
}

#[test]
fn every_event_without_a_fault_is_valid_by_the_contract() {
    let mut generator = Generator::new(wild(3)).unwrap();
    let mut counts = HashMap::<&str, u32>::new();
    for _ in 0..20_000 {
        let event = generator.next();
        let (subject, company) = split(event.subject);
        let read = judge(subject, company, event.payload);
        let text = String::from_utf8_lossy(event.payload);
        assert!(read.as_ref().is_ok_and(|read| !read.items.is_empty()), "{read:?}: {text}");
        assert_eq!((event.expect.name().as_str(), event.company), ("applied", company));
        *counts.entry(event.kind.subject()).or_default() += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| *count > 1_500), "{counts:?}");
}

/// The books of someone who sees only what is published.
#[derive(Default)]
struct Observer {
    outcomes: HashMap<(String, String), u64>,
    ids: HashSet<String>,
    before: Option<(String, Vec<u8>)>,
    chats: HashSet<(String, String)>,
    messages: HashSet<(String, String)>,
    agents: HashSet<(String, String)>,
    contacts: HashSet<(String, String, String)>,
}

impl Observer {
    fn see(&mut self, subject: &str, msg_id: Option<&str>, payload: &[u8]) -> String {
        let (base, company) = split(subject);
        let here = Some((subject.to_owned(), payload.to_owned()));
        let is_copy = self.before == here;
        self.before = here;
        let outcome = if msg_id.is_some_and(|id| !self.ids.insert(id.to_owned())) {
            assert!(is_copy, "an id comes twice with another event");
            "dropped".to_owned()
        } else {
            match judge(base, company, payload) {
                Err(wrong) => format!("dead_lettered {wrong}"),
                Ok(read) if !self.apply(company, &read) => "dead_lettered out_of_order".into(),
                Ok(_) if is_copy => "applied_again".into(),
                Ok(_) => "applied".into(),
            }
        };
        *self.outcomes.entry((base.to_owned(), outcome.clone())).or_default() += 1;
        outcome
    }

    /// False if the row to be changed is not there.
    fn apply(&mut self, company: &str, read: &Read) -> bool {
        for item in &read.items {
            let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
            let row = |name: &str| (company.to_owned(), text(name));
            let contact = || (company.to_owned(), text("agent_id"), text("phone_number"));
            match read.of {
                "v1.chats.upsert" => drop(self.chats.insert(row("chat_id"))),
                "v1.messages.upsert" => drop(self.messages.insert(row("message_id"))),
                "v1.contacts.upsert" => drop(self.contacts.insert(contact())),
                "v1.connection.update" => drop(self.agents.insert(row("agent_id"))),
                "v1.chats.update" => return self.chats.contains(&row("chat_id")),
                "v1.messages.update" => return self.messages.contains(&row("message_id")),
                _ => return self.contacts.contains(&contact()),
            }
        }
        true
    }
}

#[test]
fn the_printed_books_are_those_of_an_independent_reader() {
    let output = generate(&["--print", "--json", "--count", "30000", "--faults", "0.4"]);
    let books: Value = serde_json::from_slice(&output.stderr).unwrap();
    let mut observer = Observer::default();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).unwrap();
        let payload = line["payload"].as_str().unwrap();
        let subject = line["subject"].as_str().unwrap();
        let outcome = observer.see(subject, line["msg_id"].as_str(), payload.as_bytes());
        assert_eq!(line["expect"], outcome.as_str(), "{subject}: {payload}");
    }
    let printed: HashMap<(String, String), u64> = books["subjects"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(subject, counts)| {
            let counts = counts.as_object().unwrap().iter();
            counts.map(|(name, n)| ((subject.clone(), name.clone()), n.as_u64().unwrap()))
        })
        .collect();
    assert_eq!(printed, observer.outcomes);
    let sum = |wanted: &str| -> u64 {
        let of = observer.outcomes.iter().filter(|((_, outcome), _)| outcome == wanted);
        of.map(|(_, count)| count).sum()
    };
    for (outcome, count) in books["outcomes"].as_object().unwrap() {
        assert_eq!(count, sum(outcome), "{outcome}");
        assert!(sum(outcome) > 300, "{outcome} hardly occurs");
    }
    assert_eq!(books["outcomes"].as_object().unwrap().len(), 3 + 6);
    assert_eq!(books["events"], 30_000);
    assert_eq!(books["stored"], 30_000 - sum("dropped"));
    assert_eq!(books["rows"]["agents"], observer.agents.len());
    assert_eq!(books["rows"]["chats"], observer.chats.len());
    assert_eq!(books["rows"]["messages"], observer.messages.len());
}

#[test]
fn expectations_hold_with_quirks_and_without_ids_too() {
    let mut generator = Generator::new(troubled(5)).unwrap();
    let mut observer = Observer::default();
    for _ in 0..20_000 {
        let event = generator.next();
        let outcome = observer.see(event.subject, event.msg_id, event.payload);
        let text = String::from_utf8_lossy(event.payload);
        assert_eq!(event.expect.name(), outcome, "{}: {text}", event.subject);
    }
    let faults = Fault::ALL.len();
    let outcomes: HashSet<_> = observer.outcomes.keys().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes.len(), 1 + faults);
}

#[test]
fn updates_alone_make_the_rows_that_they_change() {
    let subjects = vec![Kind::ChatsUpdate, Kind::MessagesUpdate, Kind::ContactsUpdate];
    let mut generator = Generator::new(Profile { subjects, ..Profile::default() }).unwrap();
    let (mut observer, mut upserts) = (Observer::default(), 0);
    for _ in 0..6_000 {
        let event = generator.next();
        assert_eq!(observer.see(event.subject, event.msg_id, event.payload), "applied");
        upserts += u64::from(event.subject.contains(".upsert."));
    }
    assert_eq!(generator.books().substituted, upserts);
    assert!((3..=3 * 128).contains(&upserts), "{upserts} upserts");
}

#[test]
fn content_is_as_varied_as_the_contract_says() {
    let mut generator = Generator::new(wild(11)).unwrap();
    let (mut sizes, mut objects, mut all) = (Vec::new(), Vec::new(), String::new());
    let (mut agents, mut urls, mut campaigns, mut groups) = (HashSet::new(), 0, 0, 0);
    let mut last_batches = 0;
    for _ in 0..20_000 {
        let event = generator.next();
        let (subject, company) = split(event.subject);
        let read = judge(subject, company, event.payload).unwrap();
        if let Some(items) = event.kind.items() {
            assert_eq!(read.items.len(), 10, "{items}");
            let text = String::from_utf8_lossy(event.payload);
            last_batches += u32::from(text.contains("\"is_last_batch\":true"));
        } else if subject == "v1.messages.upsert" {
            sizes.push(event.payload.len());
        }
        for item in &read.items {
            if let Some(agent) = item.get("agent_id").and_then(Value::as_str) {
                agents.insert((company.to_owned(), agent.to_owned()));
            }
            groups += u32::from(item.get("is_group") == Some(&Value::Bool(true)));
            campaigns += u32::from(item.contains_key("campaign"));
            if read.of == "v1.messages.upsert"
                && item.get("message_url").is_some_and(Value::is_string)
            {
                urls += 1;
                objects.push(serde_json::to_string(&item["message_obj"]).unwrap().len());
            }
        }
        all.push_str(&String::from_utf8_lossy(event.payload));
    }
    assert_eq!(agents.len(), 3 * 4);
    assert!(urls > 1_000 && campaigns > 500 && groups > 1_000, "{urls} {campaigns} {groups}");
    assert!(objects.iter().all(|size| (512..=4_096).contains(size)), "{:?}", objects.iter().max());
    let (small, large) = (objects.iter().min().unwrap(), objects.iter().max().unwrap());
    assert!(*small < 700 && *large > 3_900, "{small} {large}");
    sizes.sort_unstable();
    let (median, p99) = (sizes[sizes.len() / 2], sizes[sizes.len() * 99 / 100]);
    println!("messages: median {median} bytes, 99 of 100 below {p99}");
    assert!((450..900).contains(&median) && p99 > 2_500);
    assert!(last_batches > 100, "{last_batches}");
    let scripts = ["udah", "👩‍👩‍👧", "مرحبا", "שלום", "cafe\u{301}", "谢谢", "9007199254740993"];
    for script in scripts {
        assert!(all.contains(script), "{script}");
    }
    for phone in ["\"+62 8", "\"(62) 8", "\"+628", "\"628", "\"08"] {
        assert!(all.contains(phone), "{phone}");
    }
}

/// `loadtest generate --subjects all <args>`, for three companies.
fn generate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["generate", "--subjects", "all", "--company_ids", "ACME,acme-2,Toko_3"]);
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
