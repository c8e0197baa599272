//! Many companies that nobody has seen before, all at once. Each costs a schema with all its months, so this takes
//! its time: `DAISI_COMPANIES` and `DAISI_TEST_MAX` make it a long one.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{chat, message, subject};
use crate::daisi::{Daisi, READY_MAX};
use crate::ingest::load::clean_settings;
use crate::world::{DEAD, Server, World, chosen, put_one, say};

on_the_installed_server!(a_burst_of_new_companies_on_two_replicas_stores_every_event);

/// Companies, unless `DAISI_COMPANIES` says otherwise.
const COMPANIES: u64 = 60;
/// A company's time, for both replicas together, on a machine that has other things to do.
const COMPANY_MAX: Duration = Duration::from_secs(1);
/// Companies asked at once: each partition of a question and its indexes hold locks, and there are only so many.
const ASKED_MAX: usize = 8;

fn a_burst_of_new_companies_on_two_replicas_stores_every_event(server: Server) {
    // Thousands of files; this is not about power failures.
    let world = World::ingesting_with(server, &[("fsync", "off")]);
    let count = chosen("DAISI_COMPANIES", COMPANIES);
    let names: Vec<String> = (0..count).map(|n| format!("Burst{n}")).collect();
    // Both read everything, into one database: so they race for each company, as at a hand-over.
    let sets = clean_settings(&world);
    let own = |(key, value)| (key != "postgres.dsn").then_some((key, value));
    let sets: Vec<(&str, &str)> =
        sets.iter().filter_map(|(key, value)| own((*key, value.as_str()))).collect();
    let replicas = [Daisi::spawn(&world, &[]), Daisi::spawn(&world, &sets)];
    for daisi in &replicas {
        daisi.ready(READY_MAX);
    }
    let begun = Instant::now();
    let mut client = world.client();
    let mut put = |base: &str, company: &str, body: serde_json::Value| {
        put_one(&mut client, &subject(base, company), body.to_string().as_bytes());
    };
    for name in &names {
        put("chats.upsert", name, chat(name, json!({})));
        put("messages.upsert", name, message(name, json!({})));
        let old = chat(name, json!({"chat_id": "old"}));
        put("history.chats", name, json!({ "chats": [old] }));
    }
    let within = Duration::from_secs(30) + COMPANY_MAX * u32::try_from(count).unwrap();
    for daisi in &replicas {
        let metrics = daisi.ingested(3 * count, within);
        assert_eq!(metrics.ingest("", "dead_lettered"), 0);
    }
    let took = begun.elapsed();
    say(&format!("{count} companies in {took:.1?}, {:.1?} each", took / count as u32));
    for names in names.chunks(ASKED_MAX) {
        let counted = |name: &String| {
            let schema = format!("daisi_{}", name.to_lowercase());
            format!(
                "SELECT (SELECT count(*) FROM {schema}.chats) + (SELECT count(*) FROM {schema}.messages)"
            )
        };
        let sql = names.iter().map(counted).collect::<Vec<_>>().join(" UNION ALL ");
        assert_eq!(world.sql(&sql), vec!["3"; names.len()].join("\n"));
    }
    assert_eq!(world.count(DEAD), 0);
    for daisi in &replicas {
        let log = daisi.log();
        for trouble in ["\"ERROR\"", "a company's events wait", "postgresql connection"] {
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(trouble)).collect();
            assert!(lines.is_empty(), "{lines:#?}");
        }
    }
    let log = fs::read_to_string(world.stack.postgres.home().with_extension("log")).unwrap();
    for trouble in ["deadlock", "out of shared memory", "canceling statement", "duplicate key"] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(trouble)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
