//! The ingest job's message as peers see it: what is read from an event, and the row it becomes. Follows the
//! ingest contract, sections 2.3 and 5; tables are those that `daisi migrate` makes.

use serde::Deserialize;
use serde_json::value::RawValue;
use time::{OffsetDateTime, macros::format_description};

use crate::bus::Error;

/// Stream of the events.
pub const STREAM: &str = "wa_events_stream";
/// Where upserts of messages are published, without the company.
pub const SUBJECT: &str = "v1.messages.upsert.";

/// Columns of a row of `messages` that an event brings, in the order of the statements' parameters.
pub const COLUMNS: &str = "message_id, message_date, from_phone, to_phone, chat_id, jid, agent_id, flow, \
    message_type, message_text, message_url, key, message_obj, status, message_timestamp";
/// What an upsert changes in a row that is there.
pub const UPDATE: &str = "ON CONFLICT (message_id, message_date) DO UPDATE SET status = excluded.status, \
    message_text = excluded.message_text, message_url = excluded.message_url, \
    message_obj = excluded.message_obj, message_type = excluded.message_type, \
    last_metadata = excluded.last_metadata, updated_at = excluded.updated_at";

/// The members that a row needs.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Key of the row, with its day.
    pub message_id: String,
    /// Company; must be the subject's.
    pub company_id: String,
    /// Chat.
    pub chat_id: String,
    /// Address of the chat.
    pub jid: String,
    /// `IN` or `OUT`.
    pub flow: String,
    /// Agent.
    pub agent_id: String,
    /// Sender.
    #[serde(default)]
    pub from_phone: String,
    /// Receiver.
    #[serde(default)]
    pub to_phone: String,
    /// Kind of content.
    #[serde(default)]
    pub message_type: String,
    /// Its text.
    #[serde(default)]
    pub message_text: String,
    /// Where its media lie.
    #[serde(default)]
    pub message_url: String,
    /// Its key, as it came.
    pub key: Option<Box<RawValue>>,
    /// Its content, as it came.
    pub message_obj: Option<Box<RawValue>>,
    /// Delivery status.
    #[serde(default)]
    pub status: String,
    /// Seconds since the epoch.
    pub message_timestamp: i64,
}

impl Message {
    /// Reads and checks an event.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(subject: &str, payload: &[u8]) -> Result<Self, Error> {
        let company = subject.strip_prefix(SUBJECT).ok_or("no upsert of a message")?;
        let message: Self = serde_json::from_slice(payload)?;
        if message.company_id != company {
            return Err("company_id is not that of the subject".into());
        }
        let required = [&message.message_id, &message.chat_id, &message.jid, &message.agent_id];
        if required.iter().any(|text| text.is_empty()) || !["IN", "OUT"].contains(&&*message.flow) {
            return Err("a required member is empty, or flow is neither IN nor OUT".into());
        }
        Ok(message)
    }

    /// Its day, the partition of its row.
    ///
    /// # Errors
    /// The time is beyond what a date can be.
    pub fn date(&self) -> Result<String, Error> {
        let day = OffsetDateTime::from_unix_timestamp(self.message_timestamp)?.date();
        Ok(day.format(format_description!("[year]-[month]-[day]"))?)
    }
}

/// The schema of a company.
pub fn schema(company: &str) -> String {
    format!("\"daisi_{}\"", company.to_ascii_lowercase())
}

/// The position that is stored with a row.
pub fn metadata(sequence: u64, subject: &str) -> String {
    format!(
        "{{\"stream\": \"{STREAM}\", \"stream_sequence\": {sequence}, \"message_subject\": \"{subject}\"}}"
    )
}

/// A connection, driven on a task of its own.
///
/// # Errors
/// The server does not answer.
pub async fn database(url: &str) -> Result<tokio_postgres::Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("postgres: {error}");
        }
    });
    Ok(client)
}
