//! What is published: subject and payload of a change. Invariant: `payload_len` is exactly what
//! `write_payload` appends. Layout: contract `cdc.md` 5.3 to 5.6; the fields behind `row_data` are ours.

use super::change::Change;
use super::facts::CommitTime;
use super::row::{Column, for_each_column};
use super::sink::{Counter, Sink};
use super::stamp;
use bytes::BytesMut;

/// Length of an event time, `YYYY-MM-DDTHH:MM:SSZ`.
pub const EVENT_TIME_BYTES: usize = 20;

impl Change<'_> {
    /// Appends `<prefix>.<company>.<agent>.<table>`, and for messages `.<chat>`.
    pub fn write_subject(&self, prefix: &str, out: &mut impl Sink) {
        out.put(prefix.as_bytes());
        out.put(b".");
        out.put(self.company());
        out.put(b".");
        out.put(self.agent());
        out.put(b".");
        out.put(self.table().as_str().as_bytes());
        // A chat's own subject ends at the table, though it has a chat id.
        if let (Some(_), Some(chat)) = (self.message_id(), self.chat()) {
            out.put(b".");
            out.put(chat);
        }
    }

    /// Appends `<lsn>:<table>:<PK>` as it stands inside a JSON string.
    pub fn write_event_id(&self, out: &mut impl Sink) {
        out.put_decimal(self.lsn());
        out.put(b":");
        out.put(self.table().as_str().as_bytes());
        out.put(b":");
        out.put(self.key());
    }

    /// Length of the payload, bytes. It can exceed the body's: compare it with the server's limit.
    pub fn payload_len(&self) -> usize {
        let mut counter = Counter::default();
        self.put_payload(&mut counter, &[b'0'; EVENT_TIME_BYTES]);
        counter.0
    }

    /// Appends the payload; `event_time` is the time of processing.
    pub fn write_payload(&self, out: &mut BytesMut, event_time: &[u8; EVENT_TIME_BYTES]) {
        self.put_payload(out, event_time);
    }

    fn put_payload(&self, out: &mut impl Sink, event_time: &[u8; EVENT_TIME_BYTES]) {
        out.put(b"{\"event_id\":\"");
        self.write_event_id(out);
        out.put(b"\",\"event_time\":\"");
        out.put(event_time);
        out.put(b"\",\"company_id\":\"");
        out.put(self.company());
        out.put(b"\",\"agent_id\":\"");
        out.put(self.agent());
        if let Some(message_id) = self.message_id() {
            out.put(b"\",\"message_id\":\"");
            out.put(message_id);
        }
        if let Some(chat) = self.chat() {
            out.put(b"\",\"chat_id\":\"");
            out.put(chat);
        }
        out.put(b"\",\"row_data\":");
        self.put_row(out);
        self.put_additions(out);
        out.put(b"}");
    }

    fn put_row(&self, out: &mut impl Sink) {
        if !self.spans.has_toast {
            return out.put(self.row());
        }
        out.put(b"{");
        let mut is_first = true;
        self.for_each_column(|column| {
            if column.is_toast_mark {
                return;
            }
            out.put(if is_first { b"\"" } else { b",\"" });
            is_first = false;
            out.put(column.key);
            out.put(b"\":");
            out.put(column.value);
        });
        out.put(b"}");
    }

    fn put_additions(&self, out: &mut impl Sink) {
        out.put(b",\"action\":\"");
        out.put(self.action().as_str().as_bytes());
        out.put(b"\",\"commit_time\":");
        self.put_commit_time(out);
        out.put(b",\"commit_lsn\":");
        out.put_decimal(self.lsn());
        out.put(b",\"commit_idx\":");
        match self.index() {
            Some(index) => out.put_decimal(index),
            None => out.put(b"null"),
        }
        if self.spans.has_toast {
            self.put_toast_columns(out);
        }
    }

    fn put_commit_time(&self, out: &mut impl Sink) {
        match self.spans.commit_time {
            CommitTime::Unknown => return out.put(b"null"),
            CommitTime::Text(span) => {
                out.put(b"\"");
                out.put(self.texts.get(span));
            }
            CommitTime::Micros(micros) => {
                out.put(b"\"");
                out.put(stamp::rfc3339_micros(micros, &mut [0; 27]));
            }
        }
        out.put(b"\"");
    }

    fn put_toast_columns(&self, out: &mut impl Sink) {
        out.put(b",\"toast_columns\":[");
        let mut is_first = true;
        self.for_each_column(|column| {
            if column.is_toast_mark {
                out.put(if is_first { b"\"" } else { b",\"" });
                is_first = false;
                out.put(column.key);
                out.put(b"\"");
            }
        });
        out.put(b"]");
    }

    fn for_each_column(&self, visit: impl FnMut(Column<'_>)) {
        let outcome = for_each_column(self.row(), visit);
        assert!(outcome.is_ok(), "a row of a change was validated by transform");
    }
}
