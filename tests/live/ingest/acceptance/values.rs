//! What the values of good events come to, one event at a time. Each group of ids has companies of its own.

use serde_json::json;

use super::stage::{Stage, chat, message};
use crate::world::Server;

on_the_installed_server!(
    updates_change_what_they_name_and_nothing_else,
    messages_are_one_row_a_day_and_need_no_chat,
    agents_and_contacts_are_upserted_and_seen_by_their_company_alone,
    onboarding_is_logged_once_an_agent_and_phone,
);

fn updates_change_what_they_name_and_nothing_else(server: Server) {
    let stage = Stage::new(server, &[]);
    let update = |company: &str, count: i64, time: i64| {
        let event = json!({
            "chat_id": "c", "company_id": company, "agent_id": "a", "unread_count": count,
            "conversation_timestamp": time,
        });
        stage.write("chats.update", company, &event);
    };
    // PD-01
    let sound = json!({"unread_count": 10, "push_name": "Sari", "is_group": true});
    stage.write("chats.upsert", "Pd1", &chat("Pd1", sound));
    update("Pd1", 1, 50);
    let columns = "unread_count, push_name, is_group, conversation_timestamp";
    assert_eq!(stage.rows("Pd1", "chats", columns), "11|Sari|t|50");
    // PD-02
    let whole = json!({"message_obj": {"conversation": "hi"}, "status": "sent"});
    stage.write("messages.upsert", "Pd2", &message("Pd2", whole));
    let read = json!({"message_id": "m", "company_id": "Pd2", "status": "read"});
    stage.write("messages.update", "Pd2", &read);
    let row = stage.rows("Pd2", "messages", "status, message_obj");
    assert_eq!(row, "read|{\"conversation\": \"hi\"}");
    // PD-03
    let empty = json!({"push_name": "", "group_name": "", "last_message": {"text": ""}});
    stage.write("chats.upsert", "Pd3", &chat("Pd3", empty));
    let empty = json!({
        "message_text": "", "message_url": "", "status": "", "from_phone": "",
        "message_obj": {"conversation": ""},
    });
    stage.write("messages.upsert", "Pd3", &message("Pd3", empty));
    let found = stage.rows("Pd3", "chats", "coalesce(push_name, ''), last_message");
    assert_eq!(found, "|{\"text\": \"\"}");
    let columns = "coalesce(message_text, ''), coalesce(status, ''), message_obj";
    assert_eq!(stage.rows("Pd3", "messages", columns), "||{\"conversation\": \"\"}");
    // DI-conflict
    stage.write("chats.upsert", "Conflict", &chat("Conflict", json!({})));
    for (count, time) in [(1, 101), (1, 103), (0, 102)] {
        update("Conflict", count, time);
    }
    let columns = "unread_count, conversation_timestamp";
    assert_eq!(stage.rows("Conflict", "chats", columns), "0|103");
    // DI-05
    let steps = || {
        let chat = stage.rows("Di5", "chats", "unread_count");
        let message = stage.rows("Di5", "messages", "status");
        format!("{chat} {message}")
    };
    stage.write("chats.upsert", "Di5", &chat("Di5", json!({"unread_count": 0})));
    assert_eq!(steps(), "0 ");
    stage.write("messages.upsert", "Di5", &message("Di5", json!({"status": "sent"})));
    assert_eq!(steps(), "0 sent");
    update("Di5", 1, 60);
    assert_eq!(steps(), "1 sent");
    for status in ["read", "delivered"] {
        let event = json!({"message_id": "m", "company_id": "Di5", "status": status});
        stage.write("messages.update", "Di5", &event);
        assert_eq!(steps(), format!("1 {status}"));
    }
    // RH-1: a count of zero is written.
    let saved = |count, time, text| {
        let last = json!({"text": text});
        json!({"unread_count": count, "conversation_timestamp": time, "last_message": last})
    };
    stage.write("chats.upsert", "Rh1", &chat("Rh1", saved(5, 10, "a")));
    stage.write("chats.upsert", "Rh1", &chat("Rh1", saved(0, 20, "b")));
    let columns = "unread_count, conversation_timestamp, last_message";
    assert_eq!(stage.rows("Rh1", "chats", columns), "0|20|{\"text\": \"b\"}");
}

fn messages_are_one_row_a_day_and_need_no_chat(server: Server) {
    let stage = Stage::new(server, &[]);
    // DI-01
    for text in ["old", "new"] {
        stage.write("messages.upsert", "Di1", &message("Di1", json!({"message_text": text})));
    }
    assert_eq!(stage.rows("Di1", "messages", "message_text, status"), "new|");
    let event = json!({"message_id": "m", "company_id": "Di1", "status": "delivered"});
    stage.write("messages.update", "Di1", &event);
    assert_eq!(stage.rows("Di1", "messages", "message_text, status"), "new|delivered");
    // RM-1
    let at = |time: i64, status: &str, text: &str| {
        let with = json!({"message_timestamp": time, "status": status, "message_text": text});
        message("Rm1", with)
    };
    stage.write("messages.upsert", "Rm1", &at(1_735_700_050, "sent", "a"));
    stage.write("messages.upsert", "Rm1", &at(1_735_700_060, "read", "b"));
    let columns = "message_id, status, message_text, message_date";
    assert_eq!(stage.rows("Rm1", "messages", columns), "m|read|b|2025-01-01");
    // DI-orphan, SM-04
    stage.write("messages.upsert", "Orphan", &message("Orphan", json!({"chat_id": "none"})));
    assert_eq!(stage.counts("Orphan"), [0, 0, 0, 1]);
    stage.write("chats.upsert", "Orphan", &chat("Orphan", json!({"chat_id": "none"})));
    stage.world.sql("DELETE FROM daisi_orphan.chats");
    assert_eq!(stage.rows("Orphan", "messages", "message_id, chat_id"), "m|none");
    // SM-02: a time to come is a time. It has no partition of its own yet.
    let future = json!({"message_timestamp": 4_102_444_800_i64});
    stage.write("messages.upsert", "Sm2", &message("Sm2", future));
    let columns = "message_date, tableoid::regclass";
    assert_eq!(stage.rows("Sm2", "messages", columns), "2100-01-01|daisi_sm2.messages_default");
    // RC-04
    stage.write("chats.upsert", "Rc4", &chat("Rc4", json!({"push_name": "untouched"})));
    stage.write("messages.upsert", "Rc4", &message("Rc4", json!({"message_id": "m-1"})));
    stage.world.sql("ALTER TABLE daisi_rc4.messages ADD CONSTRAINT no CHECK (status <> 'bad')");
    let bad = message("Rc4", json!({"message_id": "m-2", "status": "bad"})).to_string();
    stage.refuse("messages.upsert", "Rc4", bad.as_bytes(), "data");
    assert_eq!(stage.rows("Rc4", "chats", "push_name"), "untouched");
    assert_eq!(stage.rows("Rc4", "messages", "message_id"), "m-1");
    stage.world.sql("ALTER TABLE daisi_rc4.messages DROP CONSTRAINT no");
    let next = json!({"message_id": "m-3", "status": "bad"});
    stage.write("messages.upsert", "Rc4", &message("Rc4", next));
    assert_eq!(stage.rows("Rc4", "messages", "message_id"), "m-1\nm-3");
}

fn agents_and_contacts_are_upserted_and_seen_by_their_company_alone(server: Server) {
    let stage = Stage::new(server, &[]);
    let agent = |company: &str, word: &str| {
        let event = json!({
            "agent_id": "a", "company_id": company, "qr_code": word, "status": word,
            "agent_name": word, "host_name": word, "version": word, "phone_number": word,
        });
        stage.write("connection.update", company, &event);
    };
    let columns = "agent_id, qr_code, status, agent_name, host_name, version, phone_number, \
                   updated_at > created_at";
    // AG-1, AG-2, RA-1
    agent("Ag", "one");
    assert_eq!(stage.rows("Ag", "agents", columns), "a|one|one|one|one|one|one|f");
    let born = stage.rows("Ag", "agents", "created_at");
    agent("Ag", "two");
    assert_eq!(stage.rows("Ag", "agents", columns), "a|two|two|two|two|two|two|t");
    assert_eq!(stage.rows("Ag", "agents", "created_at"), born);
    // AG-4: read back as empty, not as NULL.
    agent("Ag4", "");
    let none = "count(*) FILTER (WHERE qr_code = '' AND status = '' AND agent_name = '' \
                AND host_name = '' AND version = '' AND phone_number = '')";
    assert_eq!(stage.rows("Ag4", "agents", none), "1");
    // RK-1; status and notes of a contact come from no event, and stay an operator's.
    let contact = |company: &str, phone: &str, agent: &str, name: &str| json!({"phone_number": phone, "company_id": company, "agent_id": agent, "push_name": name});
    stage.write("contacts.upsert", "Rk", &contact("Rk", "1", "a", "old"));
    stage.world.sql("UPDATE daisi_rk.contacts SET notes = 'mine', dob = '2000-01-02'");
    stage.write("contacts.upsert", "Rk", &contact("Rk", "1", "a", "new"));
    // RK-3
    let columns = "phone_number, push_name, status, notes, gender, dob, coalesce(pob, '')";
    assert_eq!(stage.rows("Rk", "contacts", columns), "1|new|ACTIVE|mine|MALE|2000-01-02|");
    // RK-4: phone and agent together are the key; neither alone is, and an empty one is refused.
    for (phone, agent, reason) in
        [("1", "b", "not_found"), ("2", "a", "not_found"), ("1", "", "empty")]
    {
        let update = contact("Rk", phone, agent, "wrong").to_string();
        stage.refuse("contacts.update", "Rk", update.as_bytes(), reason);
    }
    stage.write("contacts.update", "Rk", &contact("Rk", "1", "a", "found"));
    assert_eq!(stage.rows("Rk", "contacts", "push_name"), "found");
    // RA-2, RH-2, RK-2, RM-2: the same keys in two companies.
    for company in ["Left", "Right"] {
        agent(company, company);
        let named = json!({"push_name": company});
        stage.write("chats.upsert", company, &chat(company, named));
        stage.write("contacts.upsert", company, &contact(company, "1", "a", company));
        let named = json!({"message_text": company});
        stage.write("messages.upsert", company, &message(company, named));
    }
    for company in ["Left", "Right"] {
        for (table, column) in [
            ("agents", "agent_name"),
            ("chats", "push_name"),
            ("contacts", "push_name"),
            ("messages", "message_text"),
        ] {
            let found = stage.rows(company, table, &format!("{column}, company_id"));
            assert_eq!(found, format!("{company}|{company}"), "{table}");
        }
    }
}

fn onboarding_is_logged_once_an_agent_and_phone(server: Server) {
    let stage = Stage::new(server, &[]);
    let incoming = |id: &str, agent: &str| {
        let from = json!({"message_id": id, "agent_id": agent, "flow": "IN", "from_phone": "62"});
        stage.write("messages.upsert", "Ob", &message("Ob", from));
    };
    let log =
        || stage.rows("Ob", "onboarding_log", "message_id, agent_id, phone_number, company_id");
    // OB-1; within two seconds, because it is there with the message.
    incoming("m-1", "a");
    assert_eq!(log(), "m-1|a|62|Ob");
    // OB-2; and another message of the same phone.
    incoming("m-1", "a");
    incoming("m-2", "a");
    assert_eq!(log(), "m-1|a|62|Ob");
    // OB-3: another agent's contact is another contact.
    incoming("m-3", "b");
    assert_eq!(log(), "m-1|a|62|Ob\nm-3|b|62|Ob");
}
