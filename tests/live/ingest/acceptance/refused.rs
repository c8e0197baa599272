//! What must store nothing: broken, wrong, another company's, too large. Each is one letter with its reason, and
//! a good event behind all of them is written.

use loadtest::client::ClientError;
use serde_json::{Value, json};

use super::stage::{Stage, changed, chat, message};
use crate::world::{DEAD, Server};

on_the_installed_server!(
    what_does_not_keep_to_its_schema_stores_nothing,
    another_companys_event_changes_neither_company,
    what_the_server_refuses_or_nobody_captures_is_never_processed,
);

fn what_does_not_keep_to_its_schema_stores_nothing(server: Server) {
    let stage = Stage::new(server, &[]);
    stage.write("chats.upsert", "A", &chat("A", json!({"chat_id": "first"})));
    let chats = |with| chat("A", with).to_string().into_bytes();
    let messages = |with| message("A", with).to_string().into_bytes();
    let history = |chats: Value| json!({ "chats": chats }).to_string().into_bytes();
    let lacking = changed(chat("A", json!({"chat_id": "h-2"})), json!({"jid": null}));
    let cases: [(&str, &str, Vec<u8>, &str); 17] = [
        ("IV-01", "chats.upsert", b"{\"chat_id\": \"c\", ".to_vec(), "bad_json"),
        ("IV-01", "chats.upsert", b"{\"chat_id\": \"c\"} x".to_vec(), "bad_json"),
        ("IV-02", "chats.upsert", chats(json!({"chat_id": null})), "missing"),
        ("IV-02", "chats.upsert", chats(json!({"chat_id": ""})), "empty"),
        ("IV-03", "chats.upsert", chats(json!({"conversation_timestamp": "now"})), "wrong_type"),
        ("IV-03", "chats.upsert", chats(json!({"unread_count": "one"})), "wrong_type"),
        ("IV-03", "chats.upsert", chats(json!({"is_group": "yes"})), "wrong_type"),
        ("IV-05", "chats.upsert", Vec::new(), "bad_json"),
        (
            "SV-01",
            "chats.upsert",
            chats(
                json!({"jid": 7, "push_name": [], "unread_count": -1, "is_group": 1, "extra": {}}),
            ),
            "wrong_type",
        ),
        ("SV-02", "messages.upsert", messages(json!({"flow": "sideways"})), "bad_value"),
        ("SV-02", "messages.upsert", messages(json!({"status": 7})), "wrong_type"),
        ("SV-02", "messages.upsert", messages(json!({"message_obj": "text"})), "wrong_type"),
        ("SV-03", "history.chats", history(json!("none")), "wrong_type"),
        ("SM-01", "messages.upsert", messages(json!({"message_timestamp": "noon"})), "wrong_type"),
        (
            "PD-05",
            "history.chats",
            history(json!([chat("A", json!({"chat_id": "h-1"})), lacking])),
            "missing",
        ),
        ("null", "chats.upsert", b"null".to_vec(), "wrong_type"),
        ("array", "chats.upsert", b"[]".to_vec(), "wrong_type"),
    ];
    for (id, base, body, reason) in cases {
        println!("{id}");
        stage.refuse(base, "A", &body, reason);
    }
    assert_eq!(stage.counts("A"), [0, 1, 0, 0]);
    // SV-01: an extra member alone is no reason.
    stage.write("chats.upsert", "A", &chat("A", json!({"extra": {"a": 1}})));
    assert_eq!(stage.counts("A"), [0, 2, 0, 0]);
}

fn another_companys_event_changes_neither_company(server: Server) {
    let stage = Stage::new(server, &[]);
    let state = |company| {
        ["agents", "chats", "contacts", "messages"]
            .map(|table| stage.rows(company, &format!("{table} t"), "to_jsonb(t)::text"))
    };
    let contact = |company: &str| json!({"phone_number": "1", "company_id": company, "agent_id": "a", "push_name": company});
    let agent = |company: &str| json!({"agent_id": "a", "company_id": company, "status": company});
    for company in ["A", "B"] {
        stage.write("connection.update", company, &agent(company));
        stage.write("chats.upsert", company, &chat(company, json!({"push_name": company})));
        stage.write("messages.upsert", company, &message(company, json!({"status": company})));
        stage.write("contacts.upsert", company, &contact(company));
    }
    let before = [state("A"), state("B")];
    // DI-03 both ways, TI-01, TI-02, AG-3.
    for (on, of) in [("A", "B"), ("B", "A")] {
        let events = [
            ("chats.upsert", chat(of, json!({"unread_count": 9}))),
            ("chats.update", json!({"chat_id": "c", "company_id": of, "unread_count": 9})),
            ("messages.upsert", message(of, json!({"status": "x"}))),
            ("messages.update", json!({"message_id": "m", "company_id": of, "status": "x"})),
            ("contacts.upsert", contact(of)),
            ("contacts.update", contact(of)),
            ("connection.update", agent(of)),
            ("history.chats", json!({"chats": [chat(on, json!({})), chat(of, json!({}))]})),
            ("history.messages", json!({"messages": [message(of, json!({}))]})),
            ("history.contacts", json!({"contacts": [contact(of)]})),
        ];
        for (base, event) in events {
            stage.refuse(base, on, event.to_string().as_bytes(), "company_mismatch");
        }
    }
    for company in [" ", "tenant*invalid", "tenant with spaces", "12345", "a"] {
        let event = chat(company, json!({"chat_id": "TI-03"})).to_string();
        stage.refuse("chats.upsert", "A", event.as_bytes(), "company_mismatch");
    }
    assert_eq!([state("A"), state("B")], before);
    // TI-02: one that is truly absent, or empty, is the subject's.
    for (id, company) in [("TI-02-absent", json!(null)), ("TI-02-empty", json!(""))] {
        let event = chat("A", json!({"chat_id": id, "company_id": company}));
        stage.write("chats.upsert", "A", &event);
    }
    let filled = "TI-02-absent|A\nTI-02-empty|A\nc|A";
    assert_eq!(stage.rows("A", "chats", "chat_id, company_id"), filled);
}

fn what_the_server_refuses_or_nobody_captures_is_never_processed(server: Server) {
    let stage = Stage::new(server, &[]);
    // IV-04
    let large = chat("A", json!({"push_name": "x".repeat(2 << 20)})).to_string();
    let refused = stage.world.client().request("v1.chats.upsert.A", large.as_bytes());
    refused.expect_err("larger than the server takes");
    // SV-04
    for subject in ["v999.chats.upsert.A", "v2.chats.upsert.A", "v1.chats.upsert", "v1.agents.A"] {
        let body = chat("A", json!({})).to_string();
        let answer = stage.world.client().request(subject, body.as_bytes());
        assert!(matches!(answer, Err(ClientError::NoResponders { .. })), "{subject}: {answer:?}");
    }
    stage.write("chats.upsert", "A", &chat("A", json!({})));
    assert_eq!((stage.counts("A"), stage.world.count(DEAD)), ([0, 1, 0, 0], 0));
}
