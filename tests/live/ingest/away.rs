//! PostgreSQL that is gone, locked or refuses: nothing is lost, nobody waits for another's trouble longer than
//! needed, and `/ready` says why.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, SOON, Server, World, eventually};

on_the_installed_server!(
    postgresql_stopped_for_seconds_delays_and_loses_nothing,
    seven_rows_that_the_database_refuses_do_not_hold_back_the_other_493,
    a_locked_table_delays_its_company_alone,
    a_company_whose_schema_cannot_be_used_waits_alone_until_it_can,
);

fn message(company: &str, id: &str, text: &str) -> (String, String) {
    let body = format!(
        r#"{{"message_id":"{id}","chat_id":"c","jid":"j","flow":"OUT","company_id":"{company}","agent_id":"a","message_text":"{text}","message_timestamp":1735700050}}"#
    );
    (format!("v1.messages.upsert.{company}"), body)
}

fn put(world: &World, company: &str, ids: impl IntoIterator<Item = u32>) -> u64 {
    let mut client = world.client();
    let mut count = 0;
    for id in ids {
        let (subject, body) = message(company, &format!("m-{id}"), "fine");
        crate::world::put_one(&mut client, &subject, body.as_bytes());
        count += 1;
    }
    count
}

fn messages(world: &World, company: &str) -> String {
    world.sql(&format!("SELECT count(*) FROM daisi_{}.messages", company.to_lowercase()))
}

fn postgresql_stopped_for_seconds_delays_and_loses_nothing(server: Server) {
    let mut world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let mut sent = put(&world, "ACME", 0..50);
    daisi.ingested(sent, SOON);
    world.stack.postgres.stop();
    let body = daisi.not_ready("postgres", SOON);
    assert!(body.contains("down for"), "{body}");
    sent += put(&world, "ACME", 50..150);
    sleep(Duration::from_secs(2));
    daisi.not_ready("postgres", SOON);
    assert_eq!(daisi.get("/health").0, 200);
    world.stack.postgres.start().unwrap();
    daisi.ready(READY_MAX);
    sent += put(&world, "ACME", 150..200);
    let metrics = daisi.ingested(sent, SOON);
    assert_eq!((messages(&world, "ACME").as_str(), world.count(DEAD)), ("200", 0));
    assert_eq!(metrics.ingest("messages.upsert", "processed"), 200);
}

fn seven_rows_that_the_database_refuses_do_not_hold_back_the_other_493(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    put(&world, "ACME", [1_000]);
    daisi.ingested(1, SOON);
    world.sql("ALTER TABLE daisi_acme.messages ADD CHECK (message_text <> 'bad')");
    // All in the stream before daisi reads again, so that they come in batches.
    daisi.pause();
    let mut client = world.client();
    for id in 0..500 {
        let text = if id % 71 == 3 { "bad" } else { "fine" };
        let (subject, body) = message("ACME", &format!("m-{id}"), text);
        crate::world::put_one(&mut client, &subject, body.as_bytes());
    }
    daisi.resume();
    let metrics = daisi.ingested(501, SOON);
    assert_eq!(metrics.ingest("messages.upsert", "dead_lettered"), 7);
    assert_eq!(metrics.sum("daisi_ingest_refusals_total", &[("reason", "data")]), 7);
    assert_eq!(messages(&world, "ACME"), "494");
    let letters = world.await_letters(DEAD, 7);
    for letter in &letters {
        let letter = letter.json();
        let error = letter["error"].as_str().unwrap();
        assert!(error.starts_with("fatal: write: ") && error.contains("23514"), "{error}");
        assert_eq!(letter["original_payload"]["message_text"], "bad");
    }
    world.sql("ALTER TABLE daisi_acme.messages DROP CONSTRAINT messages_message_text_check");
    put(&world, "ACME", [3]);
    daisi.ingested(502, SOON);
    assert_eq!(messages(&world, "ACME"), "495");
}

/// A session that holds a lock until it is dropped.
pub struct Lock(Child);

impl Lock {
    /// Takes it.
    pub fn on(world: &World, table: &str) -> Self {
        let sql =
            format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)");
        let psql = Command::new("psql")
            .args(["-Xq", "-d", &world.stack.postgres.url(), "-c", &sql])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql starts");
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                    AND relation IS NOT NULL";
        eventually("the lock is held", SOON, || world.sql(held) != "0");
        Self(psql)
    }

    /// Gives it back.
    pub fn release(mut self, world: &World) {
        world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'");
        self.0.wait().expect("it is our child");
    }
}

fn a_locked_table_delays_its_company_alone(server: Server) {
    let world = World::ingesting(server);
    let daisi =
        Daisi::spawn(&world, &[("ingest.lock_timeout", "300ms"), ("ingest.connections", "1")]);
    daisi.ready(READY_MAX);
    let mut sent = put(&world, "Stuck", [1]) + put(&world, "Free", [1]);
    daisi.ingested(sent, SOON);
    let lock = Lock::on(&world, "daisi_stuck.messages");
    for id in 2..6 {
        sent += put(&world, "Stuck", [id]) + put(&world, "Free", [id]);
    }
    eventually("the other company goes on", SOON, || messages(&world, "Free") == "5");
    eventually("it is told who waits", SOON, || daisi.get("/shards").1.contains("Stuck"));
    assert_eq!(daisi.get("/ready").0, 200, "{}", daisi.get("/ready").1);
    sent += put(&world, "Free", 6..10);
    eventually("again", SOON, || messages(&world, "Free") == "9");
    lock.release(&world);
    let metrics = daisi.ingested(sent, SOON);
    assert_eq!(metrics.ingest("", "processed"), sent);
    assert_eq!((messages(&world, "Stuck").as_str(), world.count(DEAD)), ("5", 0));
    assert!(!daisi.get("/shards").1.contains("Stuck"));
}

fn a_company_whose_schema_cannot_be_used_waits_alone_until_it_can(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let mut sent = put(&world, "Acme", [1]);
    daisi.ingested(sent, SOON);
    // Another spelling shares the schema; who is right a person has to say.
    sent += put(&world, "ACME", 2..5) + put(&world, "Other", 0..3);
    eventually("the other company is written", SOON, || messages_or_none(&world, "other") == "3");
    let page = || daisi.get("/shards").1;
    eventually("it is told who waits, and why", SOON, || page().contains("another spelling"));
    assert_eq!(messages(&world, "Acme"), "1");
    assert_eq!((daisi.get("/ready").0, world.count(DEAD)), (200, 0));
    world.sql("DROP SCHEMA daisi_acme CASCADE");
    let metrics = daisi.ingested(sent, Duration::from_secs(30));
    assert_eq!(metrics.ingest("", "processed"), sent);
    assert_eq!(messages(&world, "Acme"), "3");
}

fn messages_or_none(world: &World, company: &str) -> String {
    let there = format!("SELECT to_regclass('daisi_{company}.messages') IS NOT NULL");
    if world.sql(&there) == "t" { messages(world, company) } else { "0".to_owned() }
}
