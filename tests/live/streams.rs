//! Streams and consumers: created when missing, left alone when they are there, taken over from the old
//! service. Source: contract cdc.md sections 1.1, 1.2 and 6; DESIGN.md section 3.

use std::time::Duration;

use serde_json::{Value, json};

use crate::change::message;
use crate::daisi::{Daisi, READY_MAX};
use crate::world::{OUTPUT, SOON, SOURCE, Server, World, eventually};

on_each_server!(
    streams_and_consumer_that_exist_are_left_as_they_are,
    a_push_durable_is_taken_over_behind_its_ack_floor,
    a_work_queue_is_acknowledged_event_by_event,
    every_subject_of_the_presets_is_read,
);

on_the_installed_server!(
    explicit_acks_are_kept_where_asked_for,
    a_push_durable_in_use_is_not_taken_away,
    the_output_prefix_can_be_that_of_the_old_service_or_both,
    only_the_chosen_companies_are_taken,
    the_key_of_the_old_service_is_set_and_proves_nothing,
    settings_come_from_the_variables_of_the_old_service,
);

const CONSUMER: &str = "cdc_consumers";

fn create(world: &World, config: &Value) {
    let name = config["name"].as_str().unwrap();
    world.client().jetstream(&format!("STREAM.CREATE.{name}"), config).unwrap();
}

fn create_consumer(world: &World, config: Value) {
    let body = json!({"stream_name": SOURCE, "config": config});
    let call = format!("CONSUMER.DURABLE.CREATE.{SOURCE}.{CONSUMER}");
    world.client().jetstream(&call, &body).unwrap();
}

fn streams_and_consumer_that_exist_are_left_as_they_are(server: Server) {
    let world = World::new(server);
    create(
        &world,
        &json!({"name": SOURCE, "subjects": ["cdc.*.*", "other.>"], "storage": "file",
            "retention": "limits", "max_msgs": 12_345, "max_age": 86_400_000_000_000_u64,
            "num_replicas": 1, "description": "mine"}),
    );
    create(
        &world,
        &json!({"name": "browsers", "subjects": ["wa.>"], "storage": "memory",
            "retention": "limits", "max_bytes": 55_555_555, "num_replicas": 1,
            "duplicate_window": 30_000_000_000_u64}),
    );
    // An ack wait and a bound that are not ours made the old service die (contract section 14, 26).
    create_consumer(
        &world,
        json!({"durable_name": CONSUMER, "ack_policy": "explicit", "ack_wait": 7_000_000_000_u64,
            "max_ack_pending": 100, "max_deliver": 3, "filter_subject": "cdc.*.*"}),
    );
    let configs = || [world.stream_config(SOURCE), world.stream_config("browsers")];
    let (before, consumer) = (configs(), world.consumer_info(SOURCE, CONSUMER)["config"].clone());
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let changes: Vec<_> = (1..=300).map(|n| message("ACME", &format!("M{n}"), n)).collect();
    world.put(&changes);
    daisi.settled(300, SOON);
    assert_eq!(world.count("browsers"), 300);
    assert_eq!(world.stream_config(OUTPUT), Value::Null, "another stream has the subjects");
    assert_eq!(configs(), before);
    assert_eq!(world.consumer_info(SOURCE, CONSUMER)["config"], consumer);
    eventually("all are acknowledged", SOON, || {
        world.consumer_info(SOURCE, CONSUMER)["ack_floor"]["stream_seq"] == 300
    });
}

fn a_push_durable_is_taken_over_behind_its_ack_floor(server: Server) {
    let world = World::new(server);
    create(
        &world,
        &json!({"name": SOURCE, "subjects": ["cdc.*.*"], "num_replicas": 1,
        "retention": "limits", "storage": "file"}),
    );
    let changes: Vec<_> = (1..=10).map(|n| message("ACME", &format!("M{n}"), n)).collect();
    world.put(&changes);
    // As the old service left it: four acknowledged, two delivered and not acknowledged.
    create_consumer(
        &world,
        json!({"durable_name": CONSUMER, "deliver_subject": "_INBOX.old", "ack_policy": "explicit",
            "deliver_group": CONSUMER, "ack_wait": 30_000_000_000_u64, "max_ack_pending": 6,
            "max_deliver": 3, "filter_subject": "cdc.*.*"}),
    );
    let mut old = world.client();
    old_service_reads(&world, &mut old, 4, 6);
    drop(old);
    eventually("the floor is stored", SOON, || {
        world.consumer_info(SOURCE, CONSUMER)["ack_floor"]["stream_seq"] == 4
    });
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    daisi.settled(6, SOON);
    let ids: Vec<Value> =
        world.read(OUTPUT).iter().map(|l| l.json()["message_id"].clone()).collect();
    assert_eq!(ids, ["M5", "M6", "M7", "M8", "M9", "M10"]);
    let taken = world.consumer_info(SOURCE, CONSUMER);
    assert!(taken["config"]["deliver_subject"].is_null(), "{taken}");
    assert_eq!(taken["config"]["filter_subject"], "cdc.*.*");
}

// The old service: a member of the deliver group that takes `reads` events and acknowledges `acks`.
fn old_service_reads(world: &World, old: &mut loadtest::client::Client, acks: usize, reads: usize) {
    let port = world.stack.nats.port();
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(
        &mut socket,
        b"CONNECT {\"verbose\":false}\r\nSUB _INBOX.old cdc_consumers 1\r\nPING\r\n",
    )
    .unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    let replies = |text: &str| -> Vec<String> {
        let heads = text.lines().filter(|line| line.starts_with("MSG "));
        heads.filter_map(|line| Some(line.split(' ').nth(3)?.to_owned())).collect()
    };
    while replies(&text).len() < reads {
        let mut bytes = [0; 65_536];
        let length = std::io::Read::read(&mut socket, &mut bytes).unwrap();
        assert!(length > 0, "the server hung up:\n{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    for reply in replies(&text).iter().take(acks) {
        old.publish(reply, None, b"+ACK").unwrap();
    }
    old.barrier().unwrap();
}

fn a_push_durable_in_use_is_not_taken_away(server: Server) {
    let world = World::new(server);
    create(
        &world,
        &json!({"name": SOURCE, "subjects": ["cdc.*.*"], "num_replicas": 1,
        "retention": "limits", "storage": "file"}),
    );
    create_consumer(
        &world,
        json!({"durable_name": CONSUMER, "deliver_subject": "_INBOX.old",
            "ack_policy": "explicit", "filter_subject": "cdc.*.*"}),
    );
    let mut old = world.client();
    old.subscribe("_INBOX.old").unwrap();
    old.barrier().unwrap();
    let daisi = Daisi::spawn(&world, &[]);
    daisi.not_ready("stop the old service first", SOON);
    world.put(&[message("ACME", "M1", 1)]);
    assert_eq!(world.count(OUTPUT), 0);
    drop(old);
    daisi.ready(READY_MAX);
    assert_eq!(world.await_letters(OUTPUT, 1).len(), 1);
}

fn a_work_queue_is_acknowledged_event_by_event(server: Server) {
    let world = World::new(server);
    create(
        &world,
        &json!({"name": SOURCE, "subjects": ["cdc.*.*"], "retention": "workqueue",
        "storage": "file", "num_replicas": 1}),
    );
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let changes: Vec<_> = (1..=50).map(|n| message("ACME", &format!("M{n}"), n)).collect();
    world.put(&changes);
    daisi.settled(50, SOON);
    eventually("the queue is empty", SOON, || world.count(SOURCE) == 0);
    assert_eq!(world.count(OUTPUT), 50);
    let consumer = world.consumer_info(SOURCE, CONSUMER);
    assert_eq!(consumer["config"]["ack_policy"], "explicit", "{consumer}");
}

fn explicit_acks_are_kept_where_asked_for(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("cdc.ack_policy", "explicit")]);
    daisi.ready(READY_MAX);
    let changes: Vec<_> = (1..=50).map(|n| message("ACME", &format!("M{n}"), n)).collect();
    world.put(&changes);
    daisi.settled(50, SOON);
    eventually("all are acknowledged", SOON, || {
        let consumer = world.consumer_info(SOURCE, CONSUMER);
        assert_eq!(consumer["config"]["ack_policy"], "explicit");
        consumer["ack_floor"]["stream_seq"] == 50 && consumer["num_ack_pending"] == 0
    });
}

/// All three shapes of contract section 1.1; the old service read only the first subject of its list.
fn every_subject_of_the_presets_is_read(server: Server) {
    let world = World::new(server);
    // Sequin's own stream, under the name of the old service: six tokens and five, and ours.
    let daisi = Daisi::spawn(&world, &[("cdc.subjects", "cdc.*.*,sequin,sequin-legacy")]);
    daisi.ready(READY_MAX);
    world.put(&[
        message("ACME", "M1", 1),
        message("ACME", "M2", 2).on("sequin.changes.db.daisi_ACME.messages.insert"),
        message("ACME", "M3", 3).on("sequin.db.daisi_ACME.messages.insert"),
        message("ACME", "M4", 4).on("sequin.db.daisi_Other.messages.insert"),
    ]);
    let metrics = daisi.settled(4, SOON);
    let ids: Vec<Value> =
        world.read(OUTPUT).iter().map(|l| l.json()["message_id"].clone()).collect();
    assert_eq!(ids, ["M1", "M2", "M3"]);
    assert_eq!(metrics.dead("company_mismatch"), 1);
}

fn the_output_prefix_can_be_that_of_the_old_service_or_both(server: Server) {
    let world = World::new(server);
    let one = Daisi::spawn(&world, &[("cdc.output_prefixes", "websocket")]);
    one.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1)]);
    one.settled(1, SOON);
    assert_eq!(world.read(OUTPUT)[0].subject, "websocket.ACME.agent-7.messages.chat-1");
    drop(one);
    let world = World::new(server);
    let both = Daisi::spawn(&world, &[("cdc.output_prefixes", "wa,websocket")]);
    both.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1), message("ACME", "M2", 2)]);
    let metrics = both.settled(2, SOON);
    let second = format!("{OUTPUT}_websocket");
    let streams = [OUTPUT, second.as_str()];
    let letters = streams.map(|stream| world.read(stream));
    let subjects = letters.each_ref().map(|l| l.iter().map(|l| &l.subject[..]).collect::<Vec<_>>());
    let subject = "ACME.agent-7.messages.chat-1";
    assert_eq!(subjects[0], vec![format!("wa.{subject}"); 2]);
    assert_eq!(subjects[1], vec![format!("websocket.{subject}"); 2]);
    assert_eq!(metrics.events("messages", "processed"), 2, "an event is one event");
    let published = [("table", "messages"), ("status", "success")];
    assert_eq!(metrics.sum("cdc_consumer_events_published_total", &published), 4);
}

fn only_the_chosen_companies_are_taken(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn_with(&world, &[], &[("COMPANY_ID", "ACME")]);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M1", 1), message("Other", "M2", 2), message("acme", "M3", 3)]);
    let metrics = daisi.settled(3, SOON);
    assert_eq!(
        world.read(OUTPUT).iter().map(|l| l.json()["message_id"].clone()).collect::<Vec<_>>(),
        ["M1"]
    );
    assert_eq!(metrics.events("messages", "skipped"), 2);
}

/// Contract section 7, mixed running: the old key may be a lost claim, so it stops nothing.
fn the_key_of_the_old_service_is_set_and_proves_nothing(server: Server) {
    let world = World::new(server);
    let redis = |command: &str| crate::world::ask_redis(&world, command);
    assert_eq!(redis("SET dedup:7:messages:M7 seen NX EX 300"), "+OK");
    let daisi = Daisi::spawn(&world, &[("cdc.legacy_dedup", "true")]);
    daisi.ready(READY_MAX);
    world.put(&[message("ACME", "M7", 7), message("ACME", "M8", 8)]);
    daisi.settled(2, SOON);
    assert_eq!(world.count(OUTPUT), 2);
    eventually("the old service's key is set", SOON, || {
        redis("EXISTS dedup:8:messages:M8") == ":1"
    });
    let key = "dedup:{ACME}:message_service_db:8:0:messages:M8";
    eventually("ours says done", SOON, || redis(&format!("STRLEN {key}")) == ":0");
    assert_eq!(redis(&format!("EXISTS {key}")), ":1");
    let ttl = redis(&format!("TTL {key}"));
    let seconds: u64 = ttl.trim_start_matches(':').parse().unwrap();
    assert!((280..=300).contains(&seconds), "ttl {seconds}");
}

fn settings_come_from_the_variables_of_the_old_service(server: Server) {
    let world = World::new(server);
    let env = [
        ("JS_CDC_STREAM_NAME", "old_events"),
        ("DAISI_CDC_JS_WEBSOCKET_STREAM_NAME", "old_out"),
        ("JS_CDC_STREAM_SUBJECTS", "sequin.changes.*.*.*.*"),
        ("DAISI_CDC_DEDUP_TTL", "120s"),
    ];
    let daisi = Daisi::spawn_with(&world, &[], &env);
    daisi.ready(READY_MAX);
    let subject = "sequin.changes.db.daisi_ACME.messages.insert";
    world.put(&[message("ACME", "M1", 1).on(subject)]);
    daisi.settled(1, SOON);
    assert_eq!((world.count("old_events"), world.count("old_out")), (1, 1));
    let ttl =
        crate::world::ask_redis(&world, "TTL dedup:{ACME}:message_service_db:1:0:messages:M1");
    let seconds: u64 = ttl.trim_start_matches(':').parse().unwrap();
    assert!((100..=120).contains(&seconds), "ttl {seconds}");
}
