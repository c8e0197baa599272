//! Change events as Sequin sends them, one at a time and by hand: the generator of the load test makes
//! valid traffic, this makes the exact event that a claim is about. Source: contract cdc.md section 2.

use serde_json::{Value, json};

/// A change event under construction.
#[derive(Clone, Debug)]
pub struct Change {
    /// Subject it is sent on.
    pub subject: String,
    /// The envelope.
    pub envelope: Value,
}

/// A message row of a company; chat `chat-1`, agent `agent-7`.
pub fn message(company: &str, id: &str, lsn: u64) -> Change {
    let record = json!({
        "id": 88231, "message_id": id, "chat_id": "chat-1", "agent_id": "agent-7",
        "company_id": company, "from_phone": "628111", "to_phone": "628222",
        "jid": "628111@s.whatsapp.net", "flow": "IN", "message_text": "hi", "message_url": null,
        "message_type": "text", "message_obj": {"conversation": "hi"}, "edited_message_obj": null,
        "key": {"id": id, "fromMe": false}, "status": "delivered", "is_deleted": false,
        "message_timestamp": 1_748_772_000, "message_date": "2025-06-01",
        "created_at": "2025-06-01T10:00:00.120000Z", "last_metadata": {"stream_sequence": 41},
    });
    Change::new("insert", company, "messages", lsn, record)
}

/// A chat row.
pub fn chat(company: &str, id: &str, lsn: u64) -> Change {
    let record = json!({
        "id": 512, "chat_id": id, "jid": "628111@s.whatsapp.net", "is_group": false,
        "unread_count": 4, "last_message": {"conversation": "hi"}, "agent_id": "agent-7",
        "company_id": company, "phone_number": "628111",
    });
    Change::new("update", company, "chats", lsn, record)
}

/// An agent row.
pub fn agent(company: &str, id: &str, lsn: u64) -> Change {
    let record = json!({
        "id": 7, "agent_id": id, "status": "connected", "company_id": company,
        "created_at": "2025-01-10T12:00:00.000000Z",
    });
    Change::new("update", company, "agents", lsn, record)
}

/// A contact row.
pub fn contact(company: &str, id: &str, lsn: u64) -> Change {
    let record = json!({
        "id": id, "phone_number": "628111", "agent_id": "agent-7", "chat_id": "chat-1",
        "company_id": company, "status": "ACTIVE",
    });
    Change::new("insert", company, "contacts", lsn, record)
}

impl Change {
    /// A change of any table on `cdc.<company>.<table>`.
    pub fn new(action: &str, company: &str, table: &str, lsn: u64, record: Value) -> Self {
        let envelope = json!({
            "action": action, "changes": null, "record": record,
            "metadata": {
                "table_schema": format!("daisi_{company}"), "table_name": table,
                "commit_timestamp": "2025-06-01T10:00:00.123456Z",
                "commit_lsn": lsn, "commit_idx": 0,
                "idempotency_key": format!("{lsn}:0"), "database_name": "message_service_db",
                "transaction_annotations": null,
            },
        });
        Self { subject: format!("cdc.{company}.{table}"), envelope }
    }

    /// Another subject.
    pub fn on(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// A member of the envelope: `action`, `record`, ...
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.envelope[member] = value;
        self
    }

    /// A column of the record.
    pub fn column(mut self, name: &str, value: Value) -> Self {
        self.envelope["record"][name] = value;
        self
    }

    /// A column of the record less.
    pub fn without(mut self, name: &str) -> Self {
        self.envelope["record"].as_object_mut().expect("a row").shift_remove(name);
        self
    }

    /// A member of the metadata.
    pub fn meta(mut self, name: &str, value: Value) -> Self {
        self.envelope["metadata"][name] = value;
        self
    }

    /// Subject and bytes.
    pub fn sent(&self) -> (String, Vec<u8>) {
        (self.subject.clone(), self.envelope.to_string().into_bytes())
    }
}
