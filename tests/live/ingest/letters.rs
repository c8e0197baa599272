//! Dead letters are tried again, and given up with all that an operator needs (contract ingest.md 6.5).

use std::time::Duration;

use serde_json::{Value, json};

use crate::daisi::{Daisi, READY_MAX};
use crate::world::{DEAD, SOON, Server, World, eventually};

on_each_server!(a_letter_is_tried_given_up_and_never_lost);

on_the_installed_server!(
    an_update_ahead_of_its_row_takes_effect_later,
    a_retry_never_undoes_a_newer_state,
    letters_that_no_retry_can_help_are_given_up_at_once,
    tries_are_counted_over_the_death_of_a_process,
    an_outage_costs_a_letter_no_try,
);

/// Both stages, with delays that a test can wait for.
const QUICK: [(&str, &str); 4] = [
    ("stages", "ingest,dlq"),
    ("dlq.retry_delay_min", "1s"),
    ("dlq.retry_delay_max", "2s"),
    ("dlq.max_retries", "3"),
];
/// Three tries with these delays, on a busy machine.
const ALL_TRIES: Duration = Duration::from_secs(25);

const CHAT: &str = r#"{"chat_id":"chat-1","jid":"j","company_id":"ACME","agent_id":"ag-1","phone_number":"62","push_name":"Sari","unread_count":10}"#;
const UPDATE: &str = r#"{"chat_id":"chat-1","company_id":"ACME","agent_id":"ag-1","unread_count":1,"conversation_timestamp":1735700050}"#;
/// Without its agent, and spelt in a way that no writer of JSON would choose.
const POISON: &str = "{\"chat_id\" : \"chat-9\",\t\"jid\":\"j\", \"company_id\":\"ACME\",\"phone_number\":\"62\", \"unread_count\": 1.0e0}";

fn start(world: &World) -> Daisi {
    let daisi = Daisi::spawn(world, &QUICK);
    daisi.ready(READY_MAX);
    daisi
}

fn letters(daisi: &Daisi, what: &str) -> u64 {
    daisi.metrics().sum(&format!("daisi_dlq_{what}_total"), &[])
}

// Every letter has been delivered, is settled, and gone from the stream.
fn await_settled(world: &World, within: Duration) {
    eventually("every letter is settled", within, || {
        let info = world.consumer_info(DEAD, "daisi_dlq");
        let open = ["num_pending", "num_ack_pending"].map(|field| info[field].as_u64());
        open == [Some(0); 2] && info["delivered"]["consumer_seq"] != 0 && world.count(DEAD) == 0
    });
}

fn a_letter_is_tried_given_up_and_never_lost(server: Server) {
    let world = World::ingesting(server);
    let daisi = start(&world);
    world.put_bytes("v1.chats.upsert.ACME", POISON.as_bytes());
    world.put_bytes("v1.chats.upsert.ACME", CHAT.as_bytes());
    daisi.ingested(2, SOON);
    assert_eq!(world.sql("SELECT chat_id FROM daisi_acme.chats"), "chat-1", "it blocks nobody");
    await_settled(&world, ALL_TRIES);
    assert_eq!(
        world.sql(
            "SELECT company_id, source_subject, retry_count, resolved, last_error LIKE '%agent_id%', \
             event_timestamp IS NOT NULL, original_payload->>'chat_id', dlq_payload->>'stream_sequence' \
             FROM daisi_acme.exhausted_events"
        ),
        "ACME|v1.chats.upsert.ACME|3|f|t|t|chat-9|1"
    );
    let bytes = "SELECT convert_from(decode(dlq_payload->>'original_payload_base64', 'base64'), 'UTF8') \
                 FROM daisi_acme.exhausted_events";
    assert_eq!(world.sql(bytes), POISON);
    assert_eq!((letters(&daisi, "tries_failed"), letters(&daisi, "letters_exhausted")), (3, 1));
    assert_eq!(letters(&daisi, "letters_later"), 2);
}

fn an_update_ahead_of_its_row_takes_effect_later(server: Server) {
    let world = World::ingesting(server);
    let daisi = start(&world);
    world.put_bytes("v1.chats.update.ACME", UPDATE.as_bytes());
    eventually("it is tried in vain", SOON, || letters(&daisi, "tries_failed") > 0);
    let history = format!(r#"{{"chats":[{CHAT}]}}"#);
    world.put_bytes("v1.history.chats.ACME", history.as_bytes());
    await_settled(&world, ALL_TRIES);
    assert_eq!(letters(&daisi, "letters_committed"), 1);
    let row = "SELECT unread_count, conversation_timestamp, last_metadata->>'stream_sequence', \
               last_metadata->>'stream' FROM daisi_acme.chats";
    assert_eq!(world.sql(row), "11|1735700050|1|wa_events_stream", "at the event's own position");
    assert_eq!(world.sql("SELECT count(*) FROM daisi_acme.exhausted_events"), "0");
}

fn a_retry_never_undoes_a_newer_state(server: Server) {
    let world = World::ingesting(server);
    let daisi = start(&world);
    world.put_bytes("v1.chats.update.ACME", UPDATE.as_bytes());
    eventually("it is tried in vain", SOON, || letters(&daisi, "tries_failed") > 0);
    // Behind the update in the same stream: newer than it.
    world.put_bytes("v1.chats.upsert.ACME", CHAT.as_bytes());
    await_settled(&world, ALL_TRIES);
    assert_eq!(letters(&daisi, "letters_duplicate"), 1);
    assert_eq!(world.sql("SELECT unread_count FROM daisi_acme.chats"), "10");
}

fn letters_that_no_retry_can_help_are_given_up_at_once(server: Server) {
    let world = World::ingesting(server);
    let daisi = start(&world);
    let letter = |company: &str, subject: &str| {
        json!({
            "source_subject": subject, "company": company, "original_payload": {"a": 1},
            "error": "fatal: x", "error_type": "fatal", "retry_count": 1, "max_retry": 5,
            "ts": "2026-01-02T03:04:05.678Z",
        })
        .to_string()
    };
    // No letter; one of another stage; one that carries another company's event; one of nobody.
    world.put_bytes("v1.dlq.ACME", b"not \xff json");
    world.put_bytes("v1.dlq.ACME", letter("ACME", "cdc.ACME.messages").as_bytes());
    world.put_bytes("v1.dlq.ACME", letter("ACME", "v1.chats.upsert.OTHER").as_bytes());
    world.put_bytes("v1.dlq._unknown", letter("_unknown", "cdc.x").as_bytes());
    eventually("three are given up", SOON, || letters(&daisi, "letters_exhausted") == 3);
    assert_eq!(
        world.sql(
            "SELECT source_subject, retry_count, dlq_payload->>'letter_base64' IS NOT NULL \
                   FROM daisi_acme.exhausted_events ORDER BY id"
        ),
        "v1.dlq.ACME|1|t\ncdc.ACME.messages|1|f\nv1.chats.upsert.OTHER|1|f"
    );
    for absent in ["daisi_other", "daisi__unknown"] {
        assert_eq!(world.sql(&format!("SELECT to_regnamespace('{absent}') IS NULL")), "t");
    }
    let info: Value = world.consumer_info(DEAD, "daisi_dlq");
    assert_eq!(info["num_ack_pending"], 1, "the one of nobody is tried again");
    assert_eq!(world.count(DEAD), 1, "and is all that the stream holds");
}

fn tries_are_counted_over_the_death_of_a_process(server: Server) {
    let world = World::ingesting(server);
    let mut daisi = start(&world);
    world.put_bytes("v1.chats.upsert.ACME", POISON.as_bytes());
    eventually("it is tried in vain", SOON, || letters(&daisi, "tries_failed") > 0);
    daisi.kill9();
    let daisi = start(&world);
    await_settled(&world, ALL_TRIES);
    let row = "SELECT count(*), max(retry_count) FROM daisi_acme.exhausted_events";
    assert_eq!(world.sql(row), "1|3");
    assert!(letters(&daisi, "tries_failed") <= 2, "the first try was another's");
}

fn an_outage_costs_a_letter_no_try(server: Server) {
    let mut world = World::ingesting(server);
    let daisi = start(&world);
    world.put_bytes("v1.chats.update.ACME", UPDATE.as_bytes());
    eventually("it is tried in vain", SOON, || letters(&daisi, "tries_failed") > 0);
    world.stack.postgres.stop();
    daisi.not_ready("postgres", SOON);
    let failed = letters(&daisi, "tries_failed");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(letters(&daisi, "tries_failed"), failed, "nothing is tried meanwhile");
    world.stack.postgres.start().unwrap();
    daisi.ready(READY_MAX);
    let history = format!(r#"{{"chats":[{CHAT}]}}"#);
    world.put_bytes("v1.history.chats.ACME", history.as_bytes());
    await_settled(&world, ALL_TRIES);
    assert_eq!(world.sql("SELECT count(*) FROM daisi_acme.exhausted_events"), "0");
    assert_eq!(world.sql("SELECT unread_count FROM daisi_acme.chats"), "11");
}
