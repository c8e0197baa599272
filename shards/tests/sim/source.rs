//! The events of a run: Sequin changes of few companies, so that order matters, with duplicates, events
//! of no interest and broken ones among them. Each forwarded change carries a number of its own in its
//! row, by which the oracle knows it again without knowing how the pipeline names it.

use fastrand::Rng;

/// What has to become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The change of this number is in the output.
    Forward { change: u32 },
    /// Nothing.
    Filter,
    /// It is in the dead-letter stream.
    Bury,
}

/// An event to be published.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) subject: String,
    pub(crate) body: String,
    pub(crate) fate: Fate,
    pub(crate) company: u16,
}

/// Draws events.
pub(crate) struct Source {
    companies: u16,
    lsn: u64,
    index: u64,
    changes: u32,
    recent: Vec<Event>,
}

/// Events that may come a second time.
const RECENT: usize = 24;

impl Source {
    pub(crate) fn new(companies: u16) -> Self {
        Self { companies, lsn: 1000, index: 0, changes: 0, recent: Vec::new() }
    }

    pub(crate) fn draw(&mut self, rng: &mut Rng) -> Event {
        let company = rng.u16(..self.companies);
        match rng.u8(..100) {
            0..=11 if !self.recent.is_empty() => {
                self.recent[rng.usize(..self.recent.len())].clone()
            }
            12..=17 => self.unwanted(company, rng),
            18..=22 => self.broken(company, rng),
            _ => self.change(company, rng),
        }
    }

    /// A change that the stream did not take: it never was, so it does not come again either.
    pub(crate) fn forget(&mut self, change: u32) {
        self.recent.retain(|event| event.fate != Fate::Forward { change });
    }

    fn change(&mut self, company: u16, rng: &mut Rng) -> Event {
        let change = self.changes;
        self.changes += 1;
        let (table, row) = match rng.u8(..3) {
            0 => ("messages", format!(r#""message_id":"m{change}","chat_id":"c{}","#, rng.u8(..2))),
            _ => ("chats", format!(r#""chat_id":"c{}","#, rng.u8(..2))),
        };
        let row = format!(r#"{{"id":{change},{row}"agent_id":"a1","company_id":"co{company}"}}"#);
        let event = self.event(company, ("update", table), &row, Fate::Forward { change }, rng);
        if self.recent.len() == RECENT {
            self.recent.remove(0);
        }
        self.recent.push(event.clone());
        event
    }

    fn unwanted(&mut self, company: u16, rng: &mut Rng) -> Event {
        let row = format!(r#"{{"id":1,"agent_id":"a1","chat_id":"c","company_id":"co{company}"}}"#);
        let (action, table) = if rng.bool() { ("insert", "invoices") } else { ("read", "chats") };
        self.event(company, (action, table), &row, Fate::Filter, rng)
    }

    fn broken(&mut self, company: u16, rng: &mut Rng) -> Event {
        let other = company + 1;
        let (action, row) = match rng.u8(..4) {
            0 => ("update", "null".to_owned()),
            1 => ("update", format!(r#"{{"id":1,"chat_id":"c","company_id":"co{company}"}}"#)),
            2 => (
                "update",
                format!(r#"{{"id":1,"agent_id":"a","chat_id":"c","company_id":"co{other}"}}"#),
            ),
            _ => ("truncate", format!(r#"{{"id":1,"chat_id":"c","company_id":"co{company}"}}"#)),
        };
        let mut event = self.event(company, (action, "chats"), &row, Fate::Bury, rng);
        if rng.u8(..4) == 0 {
            event.body.truncate(event.body.len() / 2);
        }
        event
    }

    fn event(
        &mut self,
        company: u16,
        (action, table): (&str, &str),
        row: &str,
        fate: Fate,
        rng: &mut Rng,
    ) -> Event {
        // Several changes of one transaction share its LSN and differ in their index.
        if rng.u8(..4) == 0 {
            self.index += 1;
        } else {
            (self.lsn, self.index) = (self.lsn + 8, 0);
        }
        let (lsn, index) = (self.lsn, self.index);
        let body = format!(
            r#"{{"action":"{action}","changes":null,"record":{row},"metadata":{{"table_schema":"daisi_co{company}","table_name":"{table}","commit_timestamp":"2025-06-01T10:00:00.000000Z","commit_lsn":{lsn},"commit_idx":{index}}}}}"#
        );
        Event { subject: format!("cdc.co{company}.{table}"), body, fate, company }
    }
}
