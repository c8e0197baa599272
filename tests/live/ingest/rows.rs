//! What events become: rows of their company, and dead letters of what cannot be one.

use crate::daisi::{Daisi, READY_MAX};
use crate::world::{SOON, Server, World};

on_each_server!(every_kind_of_event_becomes_its_rows);

/// An event of each kind, in an order in which each finds what it needs.
const SAMPLES: [(&str, &str); 10] = [
    (
        "connection.update",
        r#"{"agent_id":"ag-1","company_id":"ACME","status":"connected","agent_name":"Front desk","host_name":"node-3","version":"2.4.0","phone_number":"6281900001"}"#,
    ),
    (
        "chats.upsert",
        r#"{"chat_id":"chat-17","jid":"6281100022@s.whatsapp.net","company_id":"ACME","agent_id":"ag-1","phone_number":"6281100022","push_name":"Sari","unread_count":2,"conversation_timestamp":1735700000,"last_message":{"text":"hi","n":9007199254740993}}"#,
    ),
    (
        "chats.update",
        r#"{"chat_id":"chat-17","company_id":"ACME","agent_id":"ag-1","unread_count":1,"conversation_timestamp":1735700050}"#,
    ),
    (
        "messages.upsert",
        r#"{"message_id":"m-9","chat_id":"chat-17","jid":"6281100022@s.whatsapp.net","flow":"IN","company_id":"ACME","agent_id":"ag-1","from_phone":"+62 811-00022","to_phone":"6281900001","key":{"id":"K9","fromMe":false},"message_type":"conversation","message_text":"hi","message_obj":{"conversation":"hi"},"status":"delivered","message_timestamp":1735700050,"campaign":{"is_campaign":true,"tags":"promo,jan","assigned_to":"u-4","origin":"Ads"}}"#,
    ),
    (
        "messages.update",
        r#"{"message_id":"m-9","company_id":"ACME","status":"read","edited_message_obj":{"conversation":"hello"}}"#,
    ),
    (
        "contacts.upsert",
        r#"{"phone_number":"62999","company_id":"ACME","agent_id":"ag-1","push_name":"Budi","chat_id":"chat-18"}"#,
    ),
    (
        "contacts.update",
        r#"{"phone_number":"62999","company_id":"ACME","agent_id":"ag-1","push_name":"Budi W."}"#,
    ),
    (
        "history.chats",
        r#"{"chats":[{"chat_id":"chat-20","jid":"j","company_id":"ACME","agent_id":"ag-1","phone_number":"6200","unread_count":0}]}"#,
    ),
    (
        "history.messages",
        r#"{"messages":[{"message_id":"h-1","chat_id":"chat-17","jid":"j","flow":"IN","company_id":"ACME","agent_id":"ag-1","status":"read","message_timestamp":1735000000}],"is_last_batch":true,"agent_id":"ag-1"}"#,
    ),
    (
        "history.contacts",
        r#"{"contacts":[{"chat_id":"chat-21","phone_number":"6277","company_id":"ACME","agent_id":"ag-1","push_name":"Tia"}]}"#,
    ),
];

fn every_kind_of_event_becomes_its_rows(server: Server) {
    let world = World::ingesting(server);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    for (base, body) in SAMPLES {
        world.put_bytes(&format!("v1.{base}.ACME"), body.as_bytes());
    }
    let metrics = daisi.ingested(10, SOON);
    assert_eq!(metrics.ingest("", "processed"), 10);
    for (base, _) in SAMPLES {
        assert_eq!(metrics.ingest(base, "processed"), 1, "{base}");
    }
    for (sql, rows) in [
        (
            "SELECT agent_id, status, agent_name, host_name, version, phone_number FROM daisi_acme.agents",
            "ag-1|connected|Front desk|node-3|2.4.0|6281900001",
        ),
        (
            "SELECT chat_id, unread_count, conversation_timestamp, last_message FROM daisi_acme.chats ORDER BY 1",
            "chat-17|3|1735700050|{\"n\": 9007199254740993, \"text\": \"hi\"}\nchat-20|0||",
        ),
        (
            "SELECT message_id, message_date, status, message_text, edited_message_obj, company_id \
             FROM daisi_acme.messages ORDER BY 1",
            "h-1|2024-12-24|read||||ACME\nm-9|2025-01-01|read|hi|{\"conversation\": \"hello\"}|ACME",
        ),
        (
            "SELECT phone_number, push_name, chat_id, origin, tags FROM daisi_acme.contacts ORDER BY 1",
            "62811-00022||chat-17|Ads|promo,jan\n6277|Tia|chat-21||\n62999|Budi W.|chat-18||",
        ),
        ("SELECT message_id, phone_number FROM daisi_acme.onboarding_log", "m-9|62811-00022"),
        (
            "SELECT last_metadata->>'stream', last_metadata->>'stream_sequence', \
             last_metadata->>'consumer', last_metadata->>'message_subject' FROM daisi_acme.agents",
            "wa_events_stream|1|daisi_ingest|v1.connection.update.ACME",
        ),
    ] {
        assert_eq!(world.sql(sql), rows, "{sql}");
    }
}
