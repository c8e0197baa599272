//! Servers that go away, lose what was in them, or have no room: afterwards everything is written, and nobody had
//! to restart daisi.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Stage, chat, subject};
use crate::daisi::{Daisi, READY_MAX};
use crate::ingest::away::Lock;
use crate::world::{DEAD, SHORT_LEASE, SOON, Server, World, eventually, put_one};

on_each_server!(nats_may_stop_and_streams_and_consumers_may_go);

on_the_installed_server!(
    a_database_without_a_free_session_delays_and_loses_nothing,
    a_restart_in_the_middle_of_a_history_batch_loses_none_of_it,
    a_locked_table_delays_its_event_and_the_next,
);

const REALTIME: &str = "wa_events_stream";
const HISTORY: &str = "wa_history_events_stream";
const CONSUMERS: [(&str, &str); 2] =
    [(REALTIME, "daisi_ingest"), (HISTORY, "daisi_ingest_history")];
/// As long as the contract says.
const AWAY: Duration = Duration::from_secs(10);

fn put(world: &World, id: &str) {
    let body = chat("A", json!({"chat_id": id})).to_string();
    put_one(&mut world.client(), &subject("chats.upsert", "A"), body.as_bytes());
}

fn put_history(world: &World, id: &str) {
    let body = json!({"chats": [chat("A", json!({"chat_id": id}))]}).to_string();
    put_one(&mut world.client(), &subject("history.chats", "A"), body.as_bytes());
}

#[track_caller]
fn await_chats(world: &World, ids: &[&str]) {
    let found = "SELECT string_agg(chat_id, ' ' ORDER BY chat_id) FROM daisi_a.chats";
    eventually(&format!("chats {ids:?}"), READY_MAX, || world.sql(found) == ids.join(" "));
    assert_eq!(world.count(DEAD), 0);
}

fn nats_may_stop_and_streams_and_consumers_may_go(server: Server) {
    let mut stage = Stage::new(server, &[]);
    stage.write("chats.upsert", "A", &chat("A", json!({"chat_id": "1"})));
    // MQ-01
    stage.world.stack.nats.stop();
    stage.daisi.not_ready("nats", SOON);
    sleep(AWAY);
    stage.world.stack.nats.start().unwrap();
    put(&stage.world, "2");
    await_chats(&stage.world, &["1", "2"]);
    // MQ-02: with an event on its way, and the connection alive.
    put(&stage.world, "3");
    stage.world.stack.nats.stop();
    stage.world.stack.nats.start().unwrap();
    put(&stage.world, "4");
    await_chats(&stage.world, &["1", "2", "3", "4"]);
    // MQ-04: made anew while it runs, and nothing is read twice to any effect.
    let call = |call: &str| stage.world.client().jetstream(call, &Value::Null).unwrap();
    for (stream, consumer) in CONSUMERS {
        call(&format!("CONSUMER.DELETE.{stream}.{consumer}"));
    }
    put(&stage.world, "5");
    put_history(&stage.world, "6");
    await_chats(&stage.world, &["1", "2", "3", "4", "5", "6"]);
    // MQ-03, while it runs: the stream is there again, from its first sequence on.
    for stream in [REALTIME, HISTORY] {
        call(&format!("STREAM.DELETE.{stream}"));
        let is_back = || !stage.world.stream_config(stream).is_null();
        // A pull that went to it as it was deleted is answered by nobody: two silences of ten seconds then.
        eventually(&format!("{stream} is there again"), 2 * READY_MAX, is_back);
    }
    put(&stage.world, "7");
    put_history(&stage.world, "8");
    await_chats(&stage.world, &["1", "2", "3", "4", "5", "6", "7", "8"]);
    // The same by a restart, and a row of the old stream is older than an event of the new one.
    call(&format!("STREAM.DELETE.{REALTIME}"));
    stage.daisi.kill9();
    stage.daisi = Daisi::spawn(&stage.world, &[SHORT_LEASE]);
    stage.daisi.ready(READY_MAX);
    let renamed = chat("A", json!({"chat_id": "1", "push_name": "renamed"})).to_string();
    put_one(&mut stage.world.client(), &subject("chats.upsert", "A"), renamed.as_bytes());
    let name = "SELECT push_name FROM daisi_a.chats WHERE chat_id = '1'";
    eventually("the new stream's event", SOON, || stage.world.sql(name) == "renamed");
    stage.daisi.ready(SOON);
}

/// Sessions of a role that sleep, until they are dropped.
struct Sleepers(Vec<Child>);

impl Sleepers {
    fn new(world: &World, role: &str, count: u32) -> Self {
        let url = world.stack.postgres.url().replacen("postgres@", &format!("{role}@"), 1);
        let sleeper = || {
            let mut psql = Command::new("psql");
            psql.args(["-Xq", "-d", &url, "-c", "SELECT pg_sleep(60)"]);
            psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql starts")
        };
        let sleepers = Self((0..count).map(|_| sleeper()).collect());
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        eventually("they sleep", SOON, || world.sql(asleep) == count.to_string());
        sleepers
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            // Gone already is what a kill wants.
            let _ = sleeper.kill();
            let _ = sleeper.wait();
        }
    }
}

// DB-02
fn a_database_without_a_free_session_delays_and_loses_nothing(server: Server) {
    const SLEEPERS: u32 = 6;
    let world = World::ingesting(server);
    world.sql(
        "CREATE ROLE sleeper LOGIN; CREATE ROLE writer LOGIN; \
         GRANT CREATE ON DATABASE postgres TO writer",
    );
    let dsn = world.stack.postgres.url().replacen("postgres@", "writer@", 1);
    let daisi = Daisi::spawn(&world, &[("postgres.dsn", &dsn)]);
    daisi.ready(READY_MAX);
    put(&world, "1");
    daisi.ingested(1, SOON);
    // Its sessions end, and none begins before the sleepers have taken them all.
    let of_writer = "FROM pg_stat_activity WHERE usename = 'writer'";
    world.sql("ALTER ROLE writer NOLOGIN");
    eventually("its sessions are gone", SOON, || {
        world.sql(&format!("SELECT count(pg_terminate_backend(pid)) {of_writer}")) == "0"
    });
    // The bound last: sessions of ours that look count, and one of them may take a sleeper's place.
    let sleepers = Sleepers::new(&world, "sleeper", SLEEPERS);
    world.sql(&format!("ALTER DATABASE postgres CONNECTION LIMIT {SLEEPERS}"));
    world.sql("ALTER ROLE writer LOGIN");
    put(&world, "2");
    let full = "too many connections";
    daisi.not_ready(full, SOON);
    sleep(Duration::from_secs(2));
    assert_eq!(world.sql(&format!("SELECT count(*) {of_writer}")), "0");
    daisi.not_ready(full, SOON);
    drop(sleepers);
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sleeper'");
    put(&world, "3");
    await_chats(&world, &["1", "2", "3"]);
    daisi.ready(READY_MAX).ingested(3, SOON);
}

// RC-01
fn a_restart_in_the_middle_of_a_history_batch_loses_none_of_it(server: Server) {
    let mut stage = Stage::new(server, &[SHORT_LEASE]);
    stage.write("chats.upsert", "A", &chat("A", json!({"chat_id": "first"})));
    let lock = Lock::on(&stage.world, "daisi_a.chats");
    let chats: Vec<Value> =
        (0..50).map(|n| chat("A", json!({"chat_id": format!("h-{n}")}))).collect();
    let body = json!({ "chats": chats }).to_string();
    put_one(&mut stage.world.client(), &subject("history.chats", "A"), body.as_bytes());
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("it is being written", SOON, || stage.world.sql(waits) != "0");
    stage.daisi.kill9();
    lock.release(&stage.world);
    stage.daisi = Daisi::spawn(&stage.world, &[SHORT_LEASE]);
    stage.daisi.ready(READY_MAX);
    put(&stage.world, "later");
    let count = "SELECT count(*) FROM daisi_a.chats";
    eventually("all of it is stored", READY_MAX, || stage.world.sql(count) == "52");
    assert_eq!(stage.world.count(DEAD), 0);
}

// DB-04, with a shorter lock and shorter patience
fn a_locked_table_delays_its_event_and_the_next(server: Server) {
    let stage = Stage::new(server, &[("ingest.lock_timeout", "300ms")]);
    stage.write("chats.upsert", "A", &chat("A", json!({"chat_id": "1"})));
    let lock = Lock::on(&stage.world, "daisi_a.chats");
    put(&stage.world, "2");
    // Several times as long as a statement waits for it.
    sleep(Duration::from_secs(3));
    let waiting = stage.daisi.metrics().sum("daisi_ingest_in_flight_events", &[]);
    assert_eq!(waiting, 1, "neither written nor given up");
    lock.release(&stage.world);
    put(&stage.world, "3");
    await_chats(&stage.world, &["1", "2", "3"]);
}
