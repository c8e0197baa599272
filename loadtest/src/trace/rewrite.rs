//! What a replay changes of an event, in one pass over its bytes. Invariants: a byte that no rule below
//! names stays as it is; equal ids become equal ids and different ones different ones; a body that is no
//! JSON stays whole as it is. `docs/replay.md` has the rules in words; source: contract ingest.md,
//! sections 2.1 to 2.11; cdc.md, 2.1 to 2.3; notifications.md, 5.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shards::wire::nats::headers::Headers;
use siphasher::sip::SipHasher13;

use super::json::{Broken, Cursor, Kind as Value, Value as Field};
use super::subject::{Parts, Shape};
use super::time::put_moved;
use crate::generate::ingest::Kind;

const DAY_S: i64 = 86_400;
const SCHEMA: &[u8] = b"daisi_";
/// Replays move LSNs by less than this, so that they stay below the 2^53 that a browser can count to.
const LSN_SHIFT_MAX: u64 = 1 << 51;
/// By which the next round of a repeated replay lies higher.
const LSN_ROUND: u64 = 1 << 40;

/// What is changed, whatever the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Of which the new ids are made; `None` leaves ids as they were recorded.
    pub salt: Option<String>,
    /// Days by which times move; whole ones, so that a date and a time of one row stay in accord.
    pub days: i64,
    /// New names of companies.
    pub renames: HashMap<String, String>,
}

/// One company's copy in one round: what its ids, its LSNs and its name are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Behind every id.
    tag: String,
    /// Behind the name of the company.
    suffix: String,
    /// Onto every LSN.
    lsn: u64,
}

/// How a body came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Read; changed where a rule says so.
    Read,
    /// Not looked at: its subject is not known, or there is nothing to change.
    Unread,
    /// Not JSON.
    Foreign,
}

impl Renewal {
    /// The mark of copy `copy`, the original being 0, in round `round`, from 0.
    pub(super) fn mark(&self, copy: u32, round: u32) -> Mark {
        let mut mark = Mark::default();
        if let Some(salt) = &self.salt {
            mark.tag = format!("-{}", base36(hash(salt, 0) % 36_u64.pow(7)));
        }
        if self.salt.is_some() || copy > 0 || round > 0 {
            let salt = self.salt.as_deref().unwrap_or_default();
            mark.lsn = hash(salt, 1 + u64::from(copy)) % LSN_SHIFT_MAX;
            mark.lsn += u64::from(round) * LSN_ROUND;
        }
        if copy > 0 {
            mark.suffix = format!("_x{}", copy + 1);
            mark.tag = format!("{}x{}", dashed(mark.tag), copy + 1);
        }
        if round > 0 {
            mark.tag = format!("{}r{}", dashed(mark.tag), round + 1);
        }
        mark
    }

    fn is_idle(&self, mark: &Mark) -> bool {
        *mark == Mark::default() && self.days == 0 && self.renames.is_empty()
    }

    /// Writes the new body to `out`, or leaves `out` empty where it is the old one.
    pub(super) fn write_body(
        &self,
        mark: &Mark,
        shape: Shape,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Body {
        out.clear();
        let context = match shape {
            _ if self.is_idle(mark) => return Body::Unread,
            Shape::Other => return Body::Unread,
            Shape::Change => Context::Change,
            Shape::Letter => Context::Letter,
            Shape::Ingest(Kind::ChatsUpdate | Kind::MessagesUpdate) => Context::Update,
            Shape::Ingest(_) => Context::Event,
        };
        // Bytes that are not UTF-8 pass through strings as they are; the grammar is checked all the same.
        let mut cursor = Cursor::new(body);
        let mut pass = Pass { renewal: self, mark, body, out, done: 0 };
        match pass.object(&mut cursor, context).and_then(|()| cursor.finish()) {
            Ok(()) => {
                let rest = &body[pass.done..];
                pass.out.extend_from_slice(rest);
                Body::Read
            }
            Err(_) => {
                pass.out.clear();
                Body::Foreign
            }
        }
    }

    /// Writes the new block of headers to `out`.
    pub(super) fn write_headers(&self, mark: &Mark, block: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let mut done = 0;
        let place = |part: &[u8]| part.as_ptr() as usize - block.as_ptr() as usize;
        for (name, value) in Headers::new(block).iter() {
            let (start, end) = (place(value), place(value) + value.len());
            match name {
                b"Nats-Msg-Id" if !value.is_empty() => {
                    out.extend_from_slice(&block[done..end]);
                    out.extend_from_slice(mark.tag.as_bytes());
                    done = end;
                }
                b"CompanyID" | b"Daisi-Company" => {
                    out.extend_from_slice(&block[done..start]);
                    self.put_company(mark, value, out);
                    done = end;
                }
                // What the recorded publisher expected of its stream is not true of this one.
                _ if name.starts_with(b"Nats-Expected-") => {
                    out.extend_from_slice(&block[done..place(name)]);
                    let line = memchr::memmem::find(&block[end..], b"\r\n");
                    done = line.map_or(block.len(), |line| end + line + 2);
                }
                _ => {}
            }
        }
        out.extend_from_slice(&block[done..]);
    }

    /// Writes the new subject to `out`, and tells where its company stands in that.
    pub(super) fn write_subject(
        &self,
        mark: &Mark,
        subject: &str,
        parts: &Parts,
        out: &mut String,
    ) -> Option<std::ops::Range<usize>> {
        out.clear();
        let Some(at) = parts.company.clone() else {
            out.push_str(subject);
            return None;
        };
        let company = &subject[at.clone()];
        out.push_str(&subject[..at.start]);
        out.push_str(self.renames.get(company).map_or(company, String::as_str));
        out.push_str(&mark.suffix);
        let end = out.len();
        out.push_str(&subject[at.end..]);
        Some(at.start..end)
    }

    fn put_company(&self, mark: &Mark, company: &[u8], out: &mut Vec<u8>) {
        if company.is_empty() {
            return;
        }
        let renamed = match self.renames.is_empty() {
            true => None,
            // Schemas are written in small letters at times.
            false => std::str::from_utf8(company).ok().and_then(|company| {
                let same = |(old, _): &(&String, _)| old.eq_ignore_ascii_case(company);
                let alike = || self.renames.iter().find(same).map(|(_, new)| new);
                self.renames.get(company).or_else(alike)
            }),
        };
        out.extend_from_slice(renamed.map_or(company, |name| name.as_bytes()));
        out.extend_from_slice(mark.suffix.as_bytes());
    }
}

/// Which object of a body is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// An ingest event, or an item of a history batch.
    Event,
    /// A change of a chat or of a message, which may call its id `id`.
    Update,
    /// The envelope of a dead letter.
    Letter,
    /// WhatsApp's key of a message.
    Key,
    /// The envelope of a row change.
    Change,
    /// A row.
    Row,
    /// Sequin's metadata.
    Metadata,
    /// Debezium's source.
    Origin,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Keep,
    Object(Context),
    Items(Context),
    Edit(Edit),
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Id,
    Company,
    Schema,
    Subject,
    Time,
    Date,
    Lsn,
    /// Base64 of `<lsn>:<index>`.
    Place,
}

impl Context {
    fn rule(self, name: &[u8]) -> Rule {
        match (self, name) {
            (Self::Event | Self::Update | Self::Row, b"message_id" | b"chat_id")
            | (Self::Row, b"first_message_id")
            | (Self::Update | Self::Key, b"id")
            | (Self::Letter, b"original_msg_id") => Rule::Edit(Edit::Id),
            (Self::Event | Self::Update | Self::Row, b"company_id")
            | (Self::Letter, b"company") => Rule::Edit(Edit::Company),
            (
                Self::Event | Self::Update | Self::Row,
                b"message_timestamp" | b"conversation_timestamp",
            )
            | (Self::Row, b"first_message_timestamp" | b"created_at" | b"updated_at")
            | (Self::Metadata, b"commit_timestamp")
            | (Self::Change | Self::Origin, b"ts_ms" | b"ts_us" | b"ts_ns") => {
                Rule::Edit(Edit::Time)
            }
            (Self::Row, b"message_date") => Rule::Edit(Edit::Date),
            (Self::Event | Self::Update | Self::Row, b"key") => Rule::Object(Self::Key),
            (Self::Event | Self::Update, b"chats" | b"messages" | b"contacts") => {
                Rule::Items(Self::Event)
            }
            (Self::Letter, b"original_payload") => Rule::Object(Self::Update),
            (Self::Letter, b"source_subject") => Rule::Edit(Edit::Subject),
            (Self::Change, b"record" | b"changes" | b"before" | b"after") => {
                Rule::Object(Self::Row)
            }
            (Self::Change, b"metadata") => Rule::Object(Self::Metadata),
            (Self::Change, b"source") => Rule::Object(Self::Origin),
            (Self::Change, b"payload") => Rule::Object(Self::Change),
            (Self::Metadata, b"table_schema") | (Self::Origin, b"schema") => {
                Rule::Edit(Edit::Schema)
            }
            (Self::Metadata, b"commit_lsn") | (Self::Origin, b"lsn") => Rule::Edit(Edit::Lsn),
            (Self::Metadata, b"idempotency_key") => Rule::Edit(Edit::Place),
            _ => Rule::Keep,
        }
    }
}

struct Pass<'a> {
    renewal: &'a Renewal,
    mark: &'a Mark,
    body: &'a [u8],
    out: &'a mut Vec<u8>,
    /// Up to where the body is written.
    done: usize,
}

impl Pass<'_> {
    /// Passes the value at the cursor; what is no object has no members to change.
    fn object(&mut self, cursor: &mut Cursor<'_>, context: Context) -> Result<(), Broken> {
        if cursor.peek()? != b'{' {
            return cursor.skip();
        }
        cursor.each_member(|cursor, name| match context.rule(name) {
            Rule::Keep => cursor.skip(),
            Rule::Object(context) => self.object(cursor, context),
            Rule::Items(context) => self.items(cursor, context),
            Rule::Edit(edit) => {
                let field = cursor.value()?;
                self.edit(edit, field);
                Ok(())
            }
        })
    }

    fn items(&mut self, cursor: &mut Cursor<'_>, context: Context) -> Result<(), Broken> {
        if cursor.peek()? != b'[' {
            return cursor.skip();
        }
        cursor.each_element(|cursor| self.object(cursor, context))
    }

    /// Copies what stands before the value, then writes the new one, if the value is one that changes.
    fn edit(&mut self, edit: Edit, field: Field) {
        let at = field.at;
        let text = &self.body[at.clone()];
        if text.is_empty() {
            return;
        }
        let length = self.out.len();
        self.out.extend_from_slice(&self.body[self.done..at.start]);
        match self.write(edit, field.kind, text) {
            Some(()) => self.done = at.end,
            None => self.out.truncate(length),
        }
    }

    fn write(&mut self, edit: Edit, kind: Value, text: &[u8]) -> Option<()> {
        let (renewal, mark, out) = (self.renewal, self.mark, &mut *self.out);
        match (edit, kind) {
            (Edit::Id, Value::Text | Value::Escaped) => {
                out.extend_from_slice(text);
                out.extend_from_slice(mark.tag.as_bytes());
            }
            (Edit::Company, Value::Text) => renewal.put_company(mark, text, out),
            (Edit::Schema, Value::Text) => {
                let company = text.strip_prefix(SCHEMA)?;
                out.extend_from_slice(SCHEMA);
                renewal.put_company(mark, company, out);
            }
            (Edit::Subject, Value::Text) => {
                let subject = std::str::from_utf8(text).ok()?;
                let mut renamed = String::new();
                renewal.write_subject(mark, subject, &Parts::of(subject), &mut renamed);
                out.extend_from_slice(renamed.as_bytes());
            }
            (Edit::Time | Edit::Date, _) if renewal.days == 0 => return None,
            (Edit::Time | Edit::Date, Value::Text) => put_moved(out, text, renewal.days)?,
            (Edit::Time, Value::Number) => {
                let time = whole(text)?;
                let moved = time.checked_add(renewal.days.checked_mul(day_in_unit_of(time))?)?;
                put_number(out, u64::try_from(moved).ok().filter(|moved| *moved > 0)?);
            }
            (Edit::Date, Value::Number) => {
                let moved = whole(text)?.checked_add(renewal.days)?;
                put_number(out, u64::try_from(moved).ok()?);
            }
            (Edit::Lsn, Value::Number) => {
                put_number(out, u64::try_from(whole(text)?).ok()?.checked_add(mark.lsn)?);
            }
            (Edit::Place, Value::Text) => put_place(out, text, mark),
            _ => return None,
        }
        Some(())
    }
}

/// A positive whole number in plain digits.
fn whole(text: &[u8]) -> Option<i64> {
    let digits = text.iter().all(u8::is_ascii_digit).then_some(text)?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number > 0)
}

/// A day in the unit that a time of this size must be in: seconds, or a thousandth of that, and so on.
fn day_in_unit_of(time: i64) -> i64 {
    let limits = [100_000_000_000, 100_000_000_000_000, 100_000_000_000_000_000];
    DAY_S * 1_000_i64.pow(limits.iter().filter(|limit| time >= **limit).count() as u32)
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

/// Writes an idempotency key of the moved LSN; one of another form gets the tag behind it.
fn put_place(out: &mut Vec<u8>, text: &[u8], mark: &Mark) {
    let mut decoded = [0; 48];
    let moved = STANDARD.decode_slice(text, &mut decoded).ok().and_then(|length| {
        let plain = std::str::from_utf8(&decoded[..length]).ok()?;
        let (lsn, index) = plain.split_once(':')?;
        let lsn = u64::try_from(whole(lsn.as_bytes())?).ok()?;
        whole(index.as_bytes()).or_else(|| (index == "0").then_some(0))?;
        Some((lsn.checked_add(mark.lsn)?, index))
    });
    match moved {
        Some((lsn, index)) => {
            let mut plain = [0_u8; 48];
            let mut rest = &mut plain[..];
            // Twenty digits, a colon and an index that was read from as many bytes fit.
            let _ = write!(rest, "{lsn}:{index}");
            let length = 48 - rest.len();
            let start = out.len();
            out.resize(start + 64, 0);
            let written = STANDARD.encode_slice(&plain[..length], &mut out[start..]).unwrap_or(0);
            out.truncate(start + written);
        }
        None => {
            out.extend_from_slice(text);
            out.extend_from_slice(mark.tag.as_bytes());
        }
    }
}

fn dashed(tag: String) -> String {
    if tag.is_empty() { "-".to_owned() } else { tag }
}

fn hash(salt: &str, number: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x6461_6973_692d_7472, number);
    hasher.write(salt.as_bytes());
    hasher.finish()
}

fn base36(mut number: u64) -> String {
    let mut digits = [b'0'; 7];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::{Body, Mark, Renewal};
    use crate::generate::{Generator, Profile, ingest};
    use crate::trace::subject::{Parts, Shape};

    fn renewal() -> Renewal {
        let renames = [("ACME".to_owned(), "BETA".to_owned())].into();
        Renewal { salt: Some("s".to_owned()), days: 30, renames }
    }

    fn rewritten(renewal: &Renewal, mark: &Mark, subject: &str, body: &str) -> String {
        let mut out = Vec::new();
        match renewal.write_body(mark, Parts::of(subject).shape, body.as_bytes(), &mut out) {
            Body::Read => String::from_utf8(out).unwrap(),
            _ => body.to_owned(),
        }
    }

    /// `=T` stands for the tag, `=L` for the moved LSN 5368722184, `=K` for the key made of it.
    fn check(subject: &str, body: &str, expected: &str) {
        let renewal = renewal();
        let mark = renewal.mark(0, 0);
        let lsn = 5_368_722_184 + mark.lsn;
        let key = base64::Engine::encode(&super::STANDARD, format!("{lsn}:3"));
        let expected = expected.replace("=T", &mark.tag).replace("=L", &lsn.to_string());
        let expected = expected.replace("=K", &key);
        assert_eq!(rewritten(&renewal, &mark, subject, body), expected, "{subject}");
    }

    #[test]
    fn ids_companies_and_times_of_ingest_events_are_made_anew_and_nothing_else() {
        check(
            "v1.messages.upsert.ACME",
            r#"{ "message_id" : "m-9","chat_id":"c\"1","company_id":"ACME","agent_id":"ag-1","id":"x","key":{"id":"K9","fromMe":false},"message_obj":{"chat_id":"c","company_id":"ACME"},"message_timestamp":1735700050 }"#,
            r#"{ "message_id" : "m-9=T","chat_id":"c\"1=T","company_id":"BETA","agent_id":"ag-1","id":"x","key":{"id":"K9=T","fromMe":false},"message_obj":{"chat_id":"c","company_id":"ACME"},"message_timestamp":1738292050 }"#,
        );
        check(
            "v1.messages.update.ACME",
            r#"{"id":"m-9","company_id":"other","\u0063hat_id":"c"}"#,
            r#"{"id":"m-9=T","company_id":"other","\u0063hat_id":"c=T"}"#,
        );
        check(
            "v1.history.chats.ACME",
            r#"{"chats":[{"chat_id":"","conversation_timestamp":0},7,{"chat_id":8},{"chat_id":"a"}],"chat_id":null}"#,
            r#"{"chats":[{"chat_id":"","conversation_timestamp":0},7,{"chat_id":8},{"chat_id":"a=T"}],"chat_id":null}"#,
        );
        check(
            "v1.dlq.ACME",
            r#"{"source_subject":"v1.chats.update.ACME","company":"ACME","original_payload":{"chat_id":"c"},"ts":"2026-01-02T03:04:05Z"}"#,
            r#"{"source_subject":"v1.chats.update.BETA","company":"BETA","original_payload":{"chat_id":"c=T"},"ts":"2026-01-02T03:04:05Z"}"#,
        );
    }

    #[test]
    fn places_and_rows_of_changes_move_in_both_envelopes() {
        check(
            "cdc.ACME.messages",
            r#"{"action":"update","changes":{"chat_id":"c","x":1},"record":{"id":1,"message_id":"m","company_id":"ACME","key":{"id":"m"},"message_date":"2024-02-01","created_at":"2024-02-01T10:00:00.12Z","updated_at":1706781600120000,"last_metadata":{"message_id":"z"}},"metadata":{"table_schema":"daisi_acme","commit_lsn":5368722184,"commit_idx":3,"idempotency_key":"NTM2ODcyMjE4NDoz","commit_timestamp":"2024-12-31T10:00:00Z"}}"#,
            r#"{"action":"update","changes":{"chat_id":"c=T","x":1},"record":{"id":1,"message_id":"m=T","company_id":"BETA","key":{"id":"m=T"},"message_date":"2024-03-02","created_at":"2024-03-02T10:00:00.12Z","updated_at":1709373600120000,"last_metadata":{"message_id":"z"}},"metadata":{"table_schema":"daisi_BETA","commit_lsn":=L,"commit_idx":3,"idempotency_key":"=K","commit_timestamp":"2025-01-30T10:00:00Z"}}"#,
        );
        check(
            "sequin.db.daisi_ACME.chats.insert",
            r#"{"payload":{"op":"u","before":null,"after":{"chat_id":"c","message_date":19754},"source":{"schema":"daisi_ACME","lsn":5368722184,"ts_ms":1706781600000},"ts_ms":1706781600007}}"#,
            r#"{"payload":{"op":"u","before":null,"after":{"chat_id":"c=T","message_date":19784},"source":{"schema":"daisi_BETA","lsn":=L,"ts_ms":1709373600000},"ts_ms":1709373600007}}"#,
        );
        check(
            "cdc.ACME.chats",
            r#"{"metadata":{"commit_lsn":null,"idempotency_key":"backfill","table_schema":"public"},"record":null}"#,
            r#"{"metadata":{"commit_lsn":null,"idempotency_key":"backfill=T","table_schema":"public"},"record":null}"#,
        );
    }

    #[test]
    fn what_is_no_json_or_on_no_known_subject_stays_as_it_is() {
        let (renewal, mut out) = (renewal(), Vec::new());
        let mark = renewal.mark(0, 0);
        let mut body = |shape, text: &[u8]| renewal.write_body(&mark, shape, text, &mut out);
        assert_eq!(body(Shape::Change, b""), Body::Foreign);
        assert_eq!(body(Shape::Change, br#"{"record":{"chat_id":"c"}"#), Body::Foreign);
        assert_eq!(body(Shape::Other, br#"{"chat_id":"c"}"#), Body::Unread);
        assert_eq!(body(Shape::Letter, br#"["chat_id"]"#), Body::Read);
        assert_eq!(out, br#"["chat_id"]"#);
    }

    #[test]
    fn headers_keep_their_bytes_but_for_ids_companies_and_expectations() {
        let (renewal, mut out) = (renewal(), Vec::new());
        let mark = renewal.mark(1, 2);
        let block = b"NATS/1.0\r\nnats-msg-id: a\r\nNats-Msg-Id:id \r\nNats-Expected-Stream: S\r\nX: \t1\r\nCompanyID: ACME\r\n\r\n";
        renewal.write_headers(&mark, block, &mut out);
        let expected = format!(
            "NATS/1.0\r\nnats-msg-id: a\r\nNats-Msg-Id:id{} \r\nX: \t1\r\nCompanyID: BETA_x2\r\n\r\n",
            mark.tag
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(mark.tag.ends_with("x2r3"), "{}", mark.tag);
    }

    #[test]
    fn every_copy_round_and_salt_has_ids_of_its_own() {
        let kept = Renewal::default();
        assert_eq!(kept.mark(0, 0), Mark::default());
        let salted = |salt: &str| Renewal { salt: Some(salt.to_owned()), ..Renewal::default() };
        assert_eq!(salted("a").mark(3, 4), salted("a").mark(3, 4));
        let marks: Vec<Mark> = [kept, salted("a"), salted("b")]
            .iter()
            .flat_map(|renewal| {
                (0..3).flat_map(move |copy| (0..3).map(move |n| renewal.mark(copy, n)))
            })
            .collect();
        for (at, mark) in marks.iter().enumerate() {
            let alike = |other: &Mark| other.tag == mark.tag || other.lsn == mark.lsn;
            assert!(!marks[..at].iter().any(alike), "{mark:?}");
            assert!(mark.lsn + (1 << 50) < 1 << 53, "{mark:?}");
        }
    }

    /// What a generator made, as JSON, with ids, companies and times taken out.
    fn bare(body: &str, gone: &[&str]) -> Json {
        fn strip(value: &mut Json, gone: &[&str]) {
            match value {
                Json::Object(members) => {
                    members.retain(|name, _| !gone.contains(&name.as_str()));
                    members.values_mut().for_each(|value| strip(value, gone));
                }
                Json::Array(items) => items.iter_mut().for_each(|item| strip(item, gone)),
                _ => {}
            }
        }
        let mut value = serde_json::from_str(body).unwrap();
        strip(&mut value, gone);
        value
    }

    const CHANGED: [&str; 14] = [
        "message_id",
        "chat_id",
        "id",
        "company_id",
        "message_timestamp",
        "conversation_timestamp",
        "message_date",
        "created_at",
        "updated_at",
        "commit_timestamp",
        "commit_lsn",
        "lsn",
        "idempotency_key",
        "ts_ms",
    ];

    #[test]
    fn generated_events_change_only_in_members_that_the_rules_name() {
        let renewal = Renewal { renames: [].into(), ..renewal() };
        let (mark, mut changed) = (renewal.mark(0, 0), 0);
        let mut compare = |subject: &str, body: &[u8]| {
            let Ok(body) = std::str::from_utf8(body) else { return };
            let new = rewritten(&renewal, &mark, subject, body);
            if serde_json::from_str::<Json>(body).is_err() {
                assert_eq!(new, body);
                return;
            }
            assert_eq!(bare(&new, &CHANGED), bare(body, &CHANGED), "{subject} {body}");
            changed += u32::from(new != body);
        };
        let mut changes = Generator::new(Profile { debezium: 0.5, ..Profile::default() });
        let subjects = ingest::Kind::ALL.to_vec();
        let faults = ingest::parse_faults("0.2").unwrap();
        let profile = ingest::Profile { subjects, faults, ..ingest::Profile::default() };
        let mut events = ingest::Generator::new(profile).unwrap();
        for _ in 0..2_000 {
            let change = changes.next();
            compare(change.subject, change.payload);
            let event = events.next();
            compare(event.subject, event.payload);
        }
        assert!(changed > 3_500, "{changed}");
    }

    proptest! {
        #[test]
        fn no_body_and_no_block_makes_it_panic(
            body in prop_oneof![
                ".{0,60}",
                r#"\{"(record|metadata|key|chats)":(\{"[a-z_]{2,9}":("[0-9T:-]{0,20}"|-?[0-9]{1,25}(\.5)?|null)\}|\[\]|7)\}"#,
                r#"\{"record":\{"(message_date|created_at|message_timestamp)":("[0-9]{4}-[0-9]{2}-[0-9]{2}.{0,4}"|[0-9]{1,25})\}\}"#,
            ],
            block in "(NATS/1.0\r\n)?((Nats-Msg-Id|CompanyID|Nats-Expected-Stream|X):? ?.{0,9}\r\n){0,4}(\r\n)?",
            days in prop_oneof![-40_000..40_000_i64, Just(i64::from(i32::MAX))],
        ) {
            let renewal = Renewal { days, ..renewal() };
            let (mark, mut out) = (renewal.mark(1, 0), Vec::new());
            for shape in [Shape::Change, Shape::Letter, Shape::Ingest(ingest::Kind::HistoryChats)] {
                let read = renewal.write_body(&mark, shape, body.as_bytes(), &mut out);
                let is_json = serde_json::from_str::<Json>(&body).is_ok();
                prop_assert!(read != Body::Read || serde_json::from_slice::<Json>(&out).is_ok() || !is_json);
            }
            renewal.write_headers(&mark, block.as_bytes(), &mut out);
        }
    }
}
