//! What a replay changes of an event, in one pass over its bytes. Invariants: a byte that no rule below
//! names stays as it is; equal ids become equal ids and different ones different ones; a body that is no
//! JSON stays whole as it is. `docs/replay.md` has the rules in words; source: contract ingest.md,
//! sections 2.1 to 2.11; cdc.md, 2.1 to 2.3; notifications.md, 5.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shards::clock::{date_of, day_of};
use shards::domain::json::{Cursor, Fault, Field, Kind as Value, Place};
use shards::wire::nats::headers::Headers;
use siphasher::sip::SipHasher13;

use super::subject::{Parts, Shape};
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
        let mut cursor = Cursor::new(body, Place::Body);
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
    fn object(&mut self, cursor: &mut Cursor<'_>, context: Context) -> Result<(), Fault> {
        if cursor.peek()? != b'{' {
            return cursor.skip();
        }
        cursor.each_name(|cursor, name| match context.rule(name) {
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

    fn items(&mut self, cursor: &mut Cursor<'_>, context: Context) -> Result<(), Fault> {
        if cursor.peek()? != b'[' {
            return cursor.skip();
        }
        cursor.each_element(|cursor| self.object(cursor, context))
    }

    /// Copies what stands before the value, then writes the new one, if the value is one that changes.
    fn edit(&mut self, edit: Edit, field: Field) {
        let (start, end) = (field.span.offset(), field.span.offset() + field.span.len());
        let text = &self.body[start..end];
        if text.is_empty() {
            return;
        }
        let length = self.out.len();
        self.out.extend_from_slice(&self.body[self.done..start]);
        match self.write(edit, field.kind, text) {
            Some(()) => self.done = end,
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
            (Edit::Time | Edit::Date, Value::Text) => put_date(out, text, renewal.days)?,
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

/// Moves the date at the start of a text; what follows it stays.
fn put_date(out: &mut Vec<u8>, text: &[u8], days: i64) -> Option<()> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = std::str::from_utf8(date).ok().filter(|_| date[4] == b'-' && date[7] == b'-')?;
    let number = |at: std::ops::Range<usize>| {
        let digits = date.get(at)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
    };
    let day = day_of(number(0..4)?, number(5..7)?, number(8..10)?)?;
    let (year, month, day) = date_of(day.checked_add_signed(days)?);
    if year > 9_999 {
        return None;
    }
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    out.extend_from_slice(rest);
    Some(())
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
