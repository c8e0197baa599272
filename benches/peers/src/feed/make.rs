//! Events of the `messages` table in Sequin's envelope (CDC contract §2.3), about 900 bytes. Event `n` is
//! the same bytes in every run, but for its send time.

use std::fmt::Write;

/// Agents of each company, and chats of each agent: enough to spread subjects as a real inbox does.
const AGENTS: u64 = 5;
const CHATS: u64 = 40;

/// What the feed reads back from an output: which event it was and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// 0-based number of the event in its run.
    pub number: u64,
    /// Nanoseconds from the start of the run to the planned send; 0 for a preloaded event.
    pub due_ns: u64,
}

impl Mark {
    /// Finds the mark in an output, whether the row was copied or encoded again.
    #[must_use]
    pub fn find(payload: &[u8]) -> Option<Self> {
        Some(Self {
            number: after(payload, b"\"feed_number\":")?,
            due_ns: after(payload, b"\"feed_due_ns\":")?,
        })
    }
}

fn after(payload: &[u8], name: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(payload, name)? + name.len();
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&payload[at..at + digits]).ok()?.parse().ok()
}

/// What events are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Companies the events are spread over, in turn.
    pub companies: u64,
    /// Bytes added to the text of a message, which stands in an event twice, beside some 900 of all else.
    pub padding: usize,
}

/// Makes events into buffers it keeps.
pub struct Maker {
    companies: u64,
    text: String,
    subject: String,
    body: String,
}

impl Maker {
    /// No companies are taken for one.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let greeting = "Selamat pagi, pesanan saya kapan dikirim ya? Terima kasih \u{1F64F}";
        let padding = "lorem ipsum dolor sit amet ".chars().cycle().take(shape.padding);
        Self {
            companies: shape.companies.max(1),
            text: greeting.chars().chain(padding).collect(),
            subject: String::new(),
            body: String::with_capacity(1200),
        }
    }

    /// Company of an event, as a number below the count of companies.
    #[must_use]
    pub fn company(&self, number: u64) -> u64 {
        number % self.companies
    }

    /// Subject and body of one event.
    pub fn make(&mut self, mark: Mark) -> (&str, &str) {
        let Mark { number, due_ns } = mark;
        let company = self.company(number);
        let turn = number / self.companies;
        let (agent, chat) = (turn % AGENTS, turn % (AGENTS * CHATS));
        let (lsn, idx) = (5_368_722_184 + turn / 4 * 64, turn % 4);
        self.subject.clear();
        self.body.clear();
        let text = &self.text;
        // Writing to a String cannot fail.
        let _ = write!(self.subject, "cdc.Company{company:02}.messages");
        let _ = write!(
            self.body,
            r#"{{"action":"insert","changes":null,"record":{{"id":{number},"message_id":"3EB0{number:012X}","chat_id":"chat-{chat}","agent_id":"agent-{agent}","company_id":"Company{company:02}","from_phone":"628111{chat:04}","to_phone":"62822{agent:04}","jid":"628111{chat:04}@s.whatsapp.net","flow":"IN","message_text":"{text}","message_url":null,"message_type":"text","message_obj":{{"conversation":"{text}"}},"edited_message_obj":null,"key":{{"id":"3EB0{number:012X}","fromMe":false,"remoteJid":"628111{chat:04}@s.whatsapp.net"}},"status":"delivered","is_deleted":false,"message_timestamp":1748772000,"message_date":"2025-06-01","created_at":"2025-06-01T10:00:00.120000Z","updated_at":"2025-06-01T10:00:00.120000Z","last_metadata":{{"feed_number":{number},"feed_due_ns":{due_ns}}}}},"metadata":{{"table_schema":"daisi_Company{company:02}","table_name":"messages","commit_timestamp":"2025-06-01T10:00:00.123456Z","commit_lsn":{lsn},"commit_idx":{idx},"idempotency_key":"{lsn}:{idx}","database_name":"message_service_db","record_pks":["{number}","2025-06-01"],"transaction_annotations":null,"consumer":{{"id":"0f6f8a1e-0000-4000-8000-000000000001","name":"sink_{company:02}","annotations":null}}}}}}"#
        );
        (&self.subject, &self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::{Verdict, transform};

    #[test]
    fn a_made_event_is_forwarded_and_its_mark_found_again() {
        let mut maker = Maker::new(Shape { companies: 8, padding: 0 });
        let mark = Mark { number: 4711, due_ns: 99 };
        let (subject, body) = maker.make(mark);
        assert!((900..1500).contains(&body.len()), "{} bytes", body.len());
        assert_eq!(Mark::find(body.as_bytes()), Some(mark));
        let Verdict::Forward(out) = transform("wa", subject, body.as_bytes(), "now") else {
            panic!("not forwarded")
        };
        assert_eq!(Mark::find(&out.payload), Some(mark));
        assert_eq!(Mark::find(b"{}"), None);
        let mut long = Maker::new(Shape { companies: 8, padding: 100_000 });
        assert!(long.make(mark).1.len() > 200_000);
        assert_eq!(Mark::find(long.make(mark).1.as_bytes()), Some(mark));
    }

    #[test]
    fn identities_never_repeat() {
        let mut maker = Maker::new(Shape { companies: 3, padding: 0 });
        let mut seen = std::collections::HashSet::new();
        for number in 0..1000 {
            let (subject, body) = maker.make(Mark { number, due_ns: 0 });
            match transform("wa", subject, body.as_bytes(), "now") {
                Verdict::Forward(out) => assert!(seen.insert(out.message_id)),
                other => panic!("{other:?}"),
            }
        }
    }
}
