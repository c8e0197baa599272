//! Input that means harm: in subjects, in members, in depth and in length. It is counted, it breaks nothing, what
//! is sound of it is stored byte for byte, and events behind it are written.

use serde_json::{Value, json};

use super::stage::{Stage, changed, chat, message};
use crate::world::Server;

on_the_installed_server!(
    texts_that_mean_something_to_others_are_stored_as_they_are,
    depth_length_and_nul_are_refused_or_stored_and_harm_nobody,
    companies_that_would_leave_their_schema_reach_none,
);

/// What SQL, JSON, arrays of PostgreSQL, C and terminals would take for more than a text.
const TEXTS: [&str; 14] = [
    "'); DROP SCHEMA daisi_h CASCADE; --",
    "\"; DELETE FROM chats; --",
    "'' OR 1=1",
    "$1 $$x$$ $daisi$ END; $daisi$",
    "\\'; SELECT pg_sleep(60); --",
    "\\\\\\\" \\u0041 \\x00",
    "{\"a\",NULL,\"b\"}",
    "NULL",
    "\\N\t\\.\n",
    "{schema} {company} %s %1$L ${IFS} $(reboot)",
    "\u{202e}\u{feff}\u{0301}\u{1f4a9}\u{ffff}",
    "\u{1b}[2J\u{7}\u{1}\u{7f}",
    "a\r\nPUB v1.chats.upsert.H 2\r\n{}\r\n",
    "' || (SELECT string_agg(usename, '') FROM pg_user) || '",
];

fn texts_that_mean_something_to_others_are_stored_as_they_are(server: Server) {
    let stage = Stage::new(server, &[]);
    let find = |table: &str, columns: &str, key: &str, value: &str| {
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("convert_from(decode('{hex}', 'hex'), 'UTF8') = {key}");
        let sql =
            format!("SELECT json_build_array({columns})::text FROM daisi_h.{table} WHERE {key}");
        serde_json::from_str::<Value>(&stage.world.sql(&sql)).expect("one row")
    };
    for text in TEXTS {
        let all = json!({
            "chat_id": text, "jid": text, "agent_id": text, "phone_number": text, "push_name": text,
            "group_name": text, "last_message": {text: text, "deep": [text]},
        });
        stage.write("chats.upsert", "H", &chat("H", all));
        let columns = "jid, agent_id, phone_number, push_name, group_name, last_message";
        let expected = json!([text, text, text, text, text, {text: text, "deep": [text]}]);
        assert_eq!(find("chats", columns, "chat_id", text), expected);
        let all = json!({
            "message_id": text, "flow": "IN", "from_phone": text, "to_phone": text, "status": text,
            "message_text": text, "message_type": text, "message_url": text, "agent_id": text,
            "key": {"id": text, "fromMe": true, "remoteJid": text}, "message_obj": {"x": text},
            "campaign": {"is_campaign": true, "tags": text, "assigned_to": text, "origin": text},
        });
        stage.write("messages.upsert", "H", &message("H", all));
        let columns = "from_phone, to_phone, status, message_text, message_type, message_url, key";
        let key = json!({"id": text, "fromMe": true, "remoteJid": text});
        let expected = json!([text, text, text, text, text, text, key]);
        assert_eq!(find("messages", columns, "message_id", text), expected);
        let edited = json!({
            "message_id": text, "company_id": "H", "status": text, "edited_message_obj": {"e": text},
        });
        stage.write("messages.update", "H", &edited);
        let named = json!({
            "phone_number": text, "company_id": "H", "agent_id": text, "push_name": text,
            "chat_id": format!("of {text}"),
        });
        stage.write("contacts.upsert", "H", &named);
        stage.write("contacts.update", "H", &changed(named, json!({"push_name": "new"})));
        let agent = json!({"agent_id": text, "company_id": "H", "qr_code": text, "status": text});
        stage.write("connection.update", "H", &agent);
        let columns = "qr_code, status";
        assert_eq!(find("agents", columns, "agent_id", text), json!([text, text]));
        let history = json!({"chats": [chat("H", json!({"chat_id": format!("h {text}")}))]});
        stage.write("history.chats", "H", &history);
    }
    let count = TEXTS.len() as u64;
    let [agents, chats, contacts, messages] = stage.counts("H");
    assert_eq!([agents, chats, messages], [count, 2 * count, count]);
    // Onboarding cleans a phone; where that changes it, it is another contact.
    assert!((count..=2 * count).contains(&contacts), "{contacts}");
}

fn depth_length_and_nul_are_refused_or_stored_and_harm_nobody(server: Server) {
    let stage = Stage::new(server, &[]);
    stage.write("chats.upsert", "H", &chat("H", json!({"chat_id": "first"})));
    // A body with a member that serde would not write.
    let raw = |member: &str| {
        let event = chat("H", json!({"last_message": "HERE"})).to_string();
        event.replace("\"HERE\"", member).into_bytes()
    };
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let listed = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let unclosed = "[".repeat(900_000);
    for (member, reason) in [
        (nested(1_000), "too_deep"),
        (listed(1_000), "too_deep"),
        (listed(400_000), "too_deep"),
        (unclosed, "too_deep"),
        ("{\"a\":\"\\u0000\"}".to_owned(), "nul"),
        ("{\"\\u0000\":1}".to_owned(), "nul"),
        ("\"\\u0000\"".to_owned(), "wrong_type"),
    ] {
        stage.refuse("chats.upsert", "H", &raw(&member), reason);
    }
    let nul = chat("H", json!({"push_name": "a\u{0}b"})).to_string();
    stage.refuse("chats.upsert", "H", nul.as_bytes(), "nul");
    stage.refuse("chats.upsert", "H", &raw("{\"a\":\"\0\"}"), "bad_json");
    stage.refuse("chats.upsert", "H", &raw("{\"a\":1e999999999}"), "data");
    // As long as the server takes it, and a list of as many items as it takes. The letter of one that is
    // refused holds it and more: whatever it comes to, it has an outcome.
    let long = "x".repeat((1 << 20) - 300);
    stage.write("chats.upsert", "H", &chat("H", json!({"chat_id": "long", "push_name": long})));
    assert_eq!(stage.rows("H", "chats", "max(length(push_name))"), long.len().to_string());
    let many: Vec<Value> =
        (0..8_000).map(|n| chat("H", json!({"chat_id": format!("{n}")}))).collect();
    stage.write("history.chats", "H", &json!({ "chats": many }));
    let large = chat("H", json!({"jid": 7, "push_name": long})).to_string();
    stage.refuse("chats.upsert", "H", large.as_bytes(), "wrong_type");
    stage.write("chats.upsert", "H", &chat("H", json!({"chat_id": "last"})));
    assert_eq!(stage.counts("H"), [0, 8_003, 0, 0]);
}

fn companies_that_would_leave_their_schema_reach_none(server: Server) {
    let stage = Stage::new(server, &[]);
    let long = "x".repeat(49);
    let names = [
        "a';DROP",
        "a\";--",
        "a\"\"b",
        "a\\b",
        "$1",
        "{schema}",
        "%2f",
        "\u{202e}x",
        "a/b",
        "public;",
        &long,
    ];
    for name in names {
        let event = chat(name, json!({})).to_string();
        stage.refuse("chats.upsert", name, event.as_bytes(), "bad_company");
    }
    // Names that are sound, and mean something to SQL.
    for name in ["public", "select", "pg_catalog", "-", "_", "1", "--", "information_schema"] {
        stage.write("chats.upsert", name, &chat(name, json!({})));
        assert_eq!(stage.counts(name), [0, 1, 0, 0], "{name}");
    }
    let others = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public')";
    assert_eq!(stage.world.sql(others), "0");
    let found = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'daisi%'";
    assert_eq!(stage.world.sql(found), "8");
}
