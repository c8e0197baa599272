//! What an event is and whose, by its subject. Source: contract ingest.md, section 1.1; cdc.md, 1.1.

use std::ops::Range;

use crate::generate::ingest::Kind;

/// The events whose bodies are known by the names of their members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `v1.<entity>.<verb>.<company>`.
    Ingest(Kind),
    /// `v1.dlq.<company>`: an ingest event in an envelope.
    Letter,
    /// A row change.
    Change,
    /// Any other subject.
    Other,
}

/// A subject, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What its event is.
    pub shape: Shape,
    /// Where its company stands in it.
    pub company: Option<Range<usize>>,
}

impl Parts {
    /// Takes a subject apart.
    pub fn of(subject: &str) -> Self {
        if let Some((base, company)) = subject.rsplit_once('.').filter(|(_, last)| !last.is_empty())
        {
            let kind = Kind::ALL.into_iter().find(|kind| kind.subject() == base);
            let shape = kind.map(Shape::Ingest).or((base == "v1.dlq").then_some(Shape::Letter));
            if let Some(shape) = shape {
                return Self { shape, company: Some(place(subject, company.as_bytes())) };
            }
        }
        if let Some(company) = company_of_change(subject) {
            let company = company.map(|company| place(subject, company.as_bytes()));
            return Self { shape: Shape::Change, company };
        }
        // What daisi publishes: `wa.<company>.<agent>...`
        let company = subject.strip_prefix("wa.").and_then(|rest| rest.split('.').next());
        let company = company.filter(|company| !company.is_empty());
        let company = company.map(|company| place(subject, company.as_bytes()));
        Self { shape: Shape::Other, company }
    }
}

/// The company of a row change's subject, if its schema names one; `None` for another subject.
fn company_of_change(subject: &str) -> Option<Option<&str>> {
    let mut tokens = [""; 6];
    let mut count = 0;
    for token in subject.split('.') {
        *tokens.get_mut(count).filter(|_| !token.is_empty())? = token;
        count += 1;
    }
    match tokens[..count] {
        ["cdc", company, _] => Some(Some(company)),
        ["sequin", "changes", _, schema, _, _] => Some(schema.strip_prefix("daisi_")),
        ["sequin", "changes" | "rows", ..] => None,
        ["sequin", _, schema, _, _] => Some(schema.strip_prefix("daisi_")),
        _ => None,
    }
}

/// Where a part of the text lies in it.
fn place(text: &str, part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::{Kind, Parts, Shape};

    #[test]
    fn every_subject_tells_its_shape_and_its_company() {
        for (subject, shape, company) in [
            ("v1.chats.upsert.ACME", Shape::Ingest(Kind::ChatsUpsert), Some("ACME")),
            ("v1.history.messages.A-1", Shape::Ingest(Kind::HistoryMessages), Some("A-1")),
            ("v1.dlq.ACME", Shape::Letter, Some("ACME")),
            ("cdc.ACME.chats", Shape::Change, Some("ACME")),
            ("sequin.changes.db.daisi_ACME.messages.insert", Shape::Change, Some("ACME")),
            ("sequin.db.public.messages.insert", Shape::Change, None),
            ("wa.ACME.agent-1.messages.chat-1", Shape::Other, Some("ACME")),
            ("v1.chats.upsert.", Shape::Other, None),
            ("v1.unknown.upsert.ACME", Shape::Other, None),
            ("sequin.rows.db.daisi_ACME.messages", Shape::Other, None),
            ("sequin.changes.db.daisi_ACME.messages", Shape::Other, None),
            ("cdc..messages", Shape::Other, None),
            ("orders", Shape::Other, None),
        ] {
            let parts = Parts::of(subject);
            assert_eq!((parts.shape, parts.company.map(|at| &subject[at])), (shape, company));
        }
    }
}
