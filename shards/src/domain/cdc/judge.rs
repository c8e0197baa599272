//! The decision on one message. Invariant: every message gets exactly one verdict, and the checks run in
//! the order of contract `cdc.md` 3: subject, JSON, table, action, row, key, company, agent, chat,
//! token safety, company.

use super::change::ChangeSpans;
use super::envelope::{self, Body, Envelope, Members};
use super::facts::{Action, Facts};
use super::identity::Verbatim;
use super::reject::{Reason, Refusal, Rejection};
use super::row::{self, Image, Row};
use super::rules::{CdcRules, EnvelopeRule, Table};
use super::subject::{SCHEMA_PREFIX, SubjectShape};
use super::token;
use crate::domain::json::{Cursor, Field, Kind, Place, Span, TEXT_BYTES_MAX, Texts, unescape};

/// What becomes of a message.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// It is published, unless it was before.
    Forward(ChangeSpans),
    /// It is acknowledged and counted.
    Filtered {
        /// Table it is counted under.
        table: TableLabel<'a>,
        /// Why.
        cause: FilterCause,
    },
    /// It is dead-lettered.
    Rejected(Rejection),
}

/// A table in a metric. The foreign names come from outside: who exports them bounds their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableLabel<'a> {
    /// One of the published tables.
    Known(Table),
    /// Any other, as the body (for tombstones the subject) names it.
    Foreign(&'a [u8]),
}

/// Why a message is not published although nothing is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FilterCause {
    /// The table is not published.
    Table,
    /// A backfilled row, and `forward_backfill` is off.
    Backfill,
    /// Debezium's null value behind a delete, which only compacts a log.
    Tombstone,
}

impl FilterCause {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Backfill => "backfill",
            Self::Tombstone => "tombstone",
        }
    }
}

/// Decides on one message that came on `subject`.
pub fn transform<'a>(rules: &CdcRules, subject: &'a [u8], body: &'a [u8]) -> Verdict<'a> {
    #[cfg(feature = "slow")]
    crate::slow::event();
    let Some(shape) = SubjectShape::parse(subject) else {
        let reason = Reason::UnknownSubject;
        return reject(Refusal::new(reason, "subject of no configured shape"), None, None);
    };
    let mut judge = Judge { rules, shape, subject, body, arena: Vec::new(), row_company: None };
    match judge.decide() {
        Ok(verdict) => verdict,
        Err(refusal) => reject(refusal, shape.company(), judge.row_company),
    }
}

fn reject(refusal: Refusal, named: Option<&[u8]>, claimed: Option<&[u8]>) -> Verdict<'static> {
    let company = named.filter(|c| token::is_company(c));
    let company = company.or(claimed.filter(|c| token::is_company(c)));
    let company = company.and_then(|c| std::str::from_utf8(c).ok()).map(Box::from);
    Verdict::Rejected(Rejection { reason: refusal.reason, detail: refusal.detail, company })
}

struct Judge<'r, 'a> {
    rules: &'r CdcRules,
    shape: SubjectShape<'a>,
    subject: &'a [u8],
    body: &'a [u8],
    arena: Vec<u8>,
    /// Company of the row, for the dead letter of a subject that names none.
    row_company: Option<&'a [u8]>,
}

impl<'a> Judge<'_, 'a> {
    fn decide(&mut self) -> Result<Verdict<'a>, Refusal> {
        if self.body.len() >= TEXT_BYTES_MAX || self.subject.len() >= TEXT_BYTES_MAX {
            return Err(Refusal::new(Reason::TooLarge, "body of 1 GiB or more"));
        }
        let text = utf8(self.body)?;
        let mut cursor = Cursor::new(text, Place::Body);
        let mut members = Members::default();
        match envelope::scan(&mut cursor, text, &mut members)? {
            Body::Object => {}
            Body::Null { is_empty } => return self.null_body(is_empty),
            Body::Other => return Err(no_envelope()),
        }
        match members.envelope(self.rules.envelope) {
            Envelope::Sequin => self.weigh(Facts::of_sequin(&members, self.texts())),
            Envelope::Debezium => self.weigh(Facts::of_debezium(&members, self.texts())),
            Envelope::Wrapped(payload) => self.unwrap_payload(cursor, payload),
            Envelope::Tombstone => Ok(self.tombstone()),
            Envelope::Unknown => Err(no_envelope()),
        }
    }

    /// An empty body is a tombstone only where every body is Debezium's.
    fn null_body(&self, is_empty: bool) -> Result<Verdict<'a>, Refusal> {
        match (self.rules.envelope, is_empty) {
            (EnvelopeRule::Debezium, _) | (EnvelopeRule::Auto, false) => Ok(self.tombstone()),
            (_, true) => Err(Refusal::new(Reason::BadJson, "empty body")),
            (EnvelopeRule::Sequin, false) => Err(no_envelope()),
        }
    }

    fn unwrap_payload(
        &mut self,
        cursor: Cursor<'_>,
        payload: Span,
    ) -> Result<Verdict<'a>, Refusal> {
        let payload = Field { kind: Kind::Object, span: payload };
        let mut members = Members::default();
        envelope::scan_members(&mut cursor.back_to(payload), &mut members)?;
        if !members.op.is_some() {
            return Err(no_envelope());
        }
        self.weigh(Facts::of_debezium(&members, self.texts()))
    }

    fn tombstone(&self) -> Verdict<'a> {
        let name = self.shape.table();
        let table = Table::of_name(name).map_or(TableLabel::Foreign(name), TableLabel::Known);
        Verdict::Filtered { table, cause: FilterCause::Tombstone }
    }

    fn weigh(&mut self, facts: Facts) -> Result<Verdict<'a>, Refusal> {
        let name = self.table_name(facts.table)?;
        let known = Table::of_name(name).filter(|table| self.rules.allows(*table));
        let Some(table) = known else {
            let table = TableLabel::Foreign(name);
            return Ok(Verdict::Filtered { table, cause: FilterCause::Table });
        };
        let action = facts.action?;
        if action == Action::Read && !self.rules.forward_backfill {
            let table = TableLabel::Known(table);
            return Ok(Verdict::Filtered { table, cause: FilterCause::Backfill });
        }
        let row = self.row(facts.image, action)?;
        let ids = self.identifiers(table, action, &row)?;
        self.check_company(ids.company, facts.schema)?;
        let source = facts.source.or_else(|| self.subject_database());
        let texts = self.texts();
        let verbatim = Verbatim::of(source.map(|span| texts.get(span)), texts.get(ids.key));
        Ok(Verdict::Forward(ChangeSpans {
            table,
            action,
            has_toast: row.has_toast_mark && action == Action::Update,
            lsn: facts.lsn?,
            ordinal: facts.ordinal,
            commit_time: facts.commit_time,
            source,
            verbatim,
            company: ids.company,
            agent: ids.agent,
            chat: ids.chat,
            key: ids.key,
            row: row.span,
            arena: std::mem::take(&mut self.arena).into_boxed_slice(),
        }))
    }

    fn table_name(&self, field: Field) -> Result<&'a [u8], Refusal> {
        let texts = Texts { subject: self.subject, body: self.body, arena: &[] };
        match field.kind {
            Kind::Text | Kind::Escaped if field.span.len() > 0 => Ok(texts.get(field.span)),
            _ => Err(Refusal::new(Reason::MissingTable, "no table name")),
        }
    }

    /// The row image; a document inside a string is decoded into the arena.
    fn row(&mut self, image: Image, action: Action) -> Result<Row, Refusal> {
        match image {
            Image::Row(row) => Ok(row),
            Image::Document(field) => self.document(field),
            Image::Absent | Image::Null if action == Action::Delete => {
                Err(Refusal::new(Reason::IncompleteRow, "delete without the old row"))
            }
            Image::Absent | Image::Null => {
                Err(Refusal::new(Reason::NullRecord, "row is null or absent"))
            }
            Image::Other => Err(Refusal::new(Reason::WrongType, "row is no object")),
        }
    }

    fn document(&mut self, field: Field) -> Result<Row, Refusal> {
        let inner = self.texts().get(field.span);
        let bad = || Refusal::new(Reason::BadJson, "document string cannot be decoded");
        let document = unescape(inner).ok_or_else(bad)?.into_bytes();
        let mut cursor = Cursor::new(&document, Place::Arena);
        let image = Image::read(&mut cursor)?;
        cursor.finish()?;
        let Image::Row(mut row) = image else {
            return Err(Refusal::new(Reason::WrongType, "document is no object"));
        };
        row.document_id = extended_id(&cursor, row.document_id)?;
        self.arena = document;
        Ok(row)
    }

    fn identifiers(&mut self, table: Table, action: Action, row: &Row) -> Result<Ids, Refusal> {
        let wants = Wants { table, action, may_be_number: false };
        self.row_company = self.claimed(row.company);
        let key = self.key(wants, row)?;
        let company = self.want(row.company, Reason::MissingCompany, "company_id", wants)?;
        let agent = self.want(row.agent, Reason::MissingAgent, "agent_id", wants)?;
        let chat = if table.has_chat() {
            Some(self.want(row.chat, Reason::MissingChat, "chat_id", wants)?)
        } else {
            None
        };
        let company = self.token(company, token::is_company, "company_id")?;
        let agent = self.token(agent, token::is_agent, "agent_id")?;
        let chat = chat.map(|f| self.token(f, token::is_chat, "chat_id")).transpose()?;
        let key = match table {
            Table::Messages | Table::Contacts => key.span,
            Table::Chats => chat.unwrap_or(key.span),
            Table::Agents => agent,
        };
        Ok(Ids { company, agent, chat, key })
    }

    fn key(&self, wants: Wants, row: &Row) -> Result<Field, Refusal> {
        let column = match wants.table {
            Table::Messages => row.message,
            Table::Chats => row.chat,
            Table::Agents => row.agent,
            Table::Contacts => row.id,
        };
        let has_document_id = matches!(wants.table, Table::Messages | Table::Contacts);
        let column = if has_document_id && !column.is_some() { row.document_id } else { column };
        let wants = Wants { may_be_number: wants.table == Table::Contacts, ..wants };
        self.want(column, Reason::MissingKey, wants.table.key_column(), wants)
    }

    /// An identifying column: a string that is not empty, and no TOAST mark.
    fn want(
        &self,
        field: Field,
        missing: Reason,
        column: &'static str,
        wants: Wants,
    ) -> Result<Field, Refusal> {
        let is_unknown = wants.action == Action::Update
            && field.kind == Kind::Text
            && row::is_toast_text(self.texts().get(field.span));
        match field.kind {
            _ if is_unknown => Err(Refusal::new(
                Reason::IncompleteRow,
                format!("column {column} holds a TOAST mark instead of its value"),
            )),
            Kind::Text | Kind::Escaped if field.span.len() > 0 => Ok(field),
            Kind::Number if wants.may_be_number => Ok(field),
            Kind::Absent | Kind::Null if wants.action == Action::Delete => Err(Refusal::new(
                Reason::IncompleteRow,
                format!("delete without column {column}; the table needs REPLICA IDENTITY FULL"),
            )),
            Kind::Absent | Kind::Null | Kind::Text | Kind::Escaped => {
                Err(Refusal::new(missing, format!("column {column} is empty or absent")))
            }
            _ => Err(Refusal::new(Reason::WrongType, format!("column {column} is no string"))),
        }
    }

    /// The value of an identifier, checked. One with escapes is decoded into the arena.
    fn token(
        &mut self,
        field: Field,
        is_safe: fn(&[u8]) -> bool,
        column: &'static str,
    ) -> Result<Span, Refusal> {
        let span = if field.kind == Kind::Escaped { self.decoded(field) } else { Some(field.span) };
        span.filter(|s| is_safe(self.texts().get(*s))).ok_or_else(|| {
            let detail = format!("column {column} is not safe in a subject");
            Refusal::new(Reason::BadIdentifier, detail)
        })
    }

    fn decoded(&mut self, field: Field) -> Option<Span> {
        let value = unescape(self.texts().get(field.span))?;
        let start = self.arena.len();
        self.arena.extend_from_slice(value.as_bytes());
        Some(Span::new(Place::Arena, start, self.arena.len()))
    }

    /// The row's company must be the schema's (contract 5.2), and that of a subject that names one.
    fn check_company(&self, company: Span, schema: Field) -> Result<(), Refusal> {
        let texts = self.texts();
        let company = texts.get(company);
        let of_body = match schema.kind {
            Kind::Text | Kind::Escaped => texts.get(schema.span).strip_prefix(SCHEMA_PREFIX),
            _ => None,
        };
        let agrees = of_body.is_none_or(|owner| owner.eq_ignore_ascii_case(company))
            && match self.shape {
                SubjectShape::Cdc { company: owner, .. } => owner == company,
                SubjectShape::Sequin { .. } => {
                    self.shape.company().is_none_or(|owner| owner.eq_ignore_ascii_case(company))
                }
            };
        if agrees {
            return Ok(());
        }
        Err(Refusal::new(Reason::CompanyMismatch, "row of a company other than its source's"))
    }

    /// The subject's database token.
    fn subject_database(&self) -> Option<Span> {
        let SubjectShape::Sequin { database, .. } = self.shape else { return None };
        let start = database.as_ptr() as usize - self.subject.as_ptr() as usize;
        Some(Span::new(Place::Subject, start, start + database.len()))
    }

    /// Company of a row in the body, where it can be read as it is.
    fn claimed(&self, company: Field) -> Option<&'a [u8]> {
        let body_texts = Texts { subject: self.subject, body: self.body, arena: &[] };
        let is_in_body = self.arena.is_empty() && company.kind == Kind::Text;
        is_in_body.then(|| body_texts.get(company.span))
    }

    fn texts(&self) -> Texts<'_> {
        Texts { subject: self.subject, body: self.body, arena: &self.arena }
    }
}

/// What is asked of an identifying column.
#[derive(Clone, Copy)]
struct Wants {
    table: Table,
    action: Action,
    may_be_number: bool,
}

/// Identifiers of a row, found safe.
struct Ids {
    company: Span,
    agent: Span,
    chat: Option<Span>,
    key: Span,
}

/// The body, found to be UTF-8, once for all of its strings.
fn utf8(body: &[u8]) -> Result<&[u8], Refusal> {
    if simdutf8::basic::from_utf8(body).is_ok() {
        return Ok(body);
    }
    // Only the slower check says where.
    let offset = std::str::from_utf8(body).err().map_or(0, |fault| fault.valid_up_to());
    Err(Refusal::new(Reason::BadJson, format!("not UTF-8 at offset {offset}")))
}

fn no_envelope() -> Refusal {
    Refusal::new(Reason::UnknownEnvelope, "no change event of an accepted shape")
}

/// MongoDB's `_id`: a string, or its Extended JSON forms (notifications contract, 5).
fn extended_id(cursor: &Cursor<'_>, id: Field) -> Result<Field, Refusal> {
    if id.kind != Kind::Object {
        return Ok(id);
    }
    let mut forms = [Field::default(); 3];
    cursor.back_to(id).each_name(|cursor, name| {
        let value = cursor.value()?;
        match name {
            b"$oid" => forms[0] = value,
            b"$numberLong" => forms[1] = value,
            b"$numberInt" => forms[2] = value,
            _ => {}
        }
        Ok(())
    })?;
    Ok(forms.into_iter().find(|form| form.is_string()).unwrap_or(id))
}
