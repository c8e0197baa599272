//! Dead letters that are given up, as rows of their company's `exhausted_events`, for operators. Invariants:
//! a letter has one row at most, however often it is inserted; whatever a letter holds, it has a row, and the
//! event's own bytes can be had from it. Source: contract `ingest.md` 4.2, 6.5 and 6.6.
//!
//! `jsonb` keeps values, not bytes: spaces, the order of members and the spelling of numbers are gone, and
//! some texts it refuses. So `dlq_payload` is the letter with members of ours: `daisi_letter`, its name, by
//! which the row is unique; `original_payload_base64`, the event as it came. An event that cannot be
//! `jsonb` is there in base64 only; a letter that cannot stands in it as `letter_base64`.

use crate::id::SchemaName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// Rows of a page of [`list`], at most.
pub const PAGE_ROWS_MAX: usize = 500;

/// A dead letter to be given up.
#[derive(Clone, Copy, Debug)]
pub struct Exhausted<'a> {
    /// Name of the letter, the same at each try: `<stream>:<sequence>:<stored, ns>`.
    pub letter_id: &'a str,
    /// Whose it is.
    pub company: &'a str,
    /// Subject of the event; the letter's own where that cannot be read.
    pub source_subject: &'a str,
    /// Why the last try failed.
    pub last_error: &'a str,
    /// Tries of the worker.
    pub retry_count: u64,
    /// The letter's `ts`, RFC 3339.
    pub event_timestamp: Option<&'a str>,
    /// The letter as it came.
    pub letter: &'a [u8],
    /// The event as it came, where the letter can be read.
    pub original: Option<&'a [u8]>,
}

/// Which rows are meant. The default means those that are open.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A NATS pattern for `source_subject`.
    pub subject: Option<String>,
    /// Classes of error or labels of reasons, any of them.
    pub classes: Option<Vec<String>>,
    /// Happened longer ago than this.
    pub older: Option<Duration>,
    /// Happened within this.
    pub newer: Option<Duration>,
    /// Also rows that are resolved.
    pub resolved: bool,
}

/// A row without its payloads. Times are RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number within the company.
    pub id: i64,
    /// When it was given up.
    pub created_at: Option<String>,
    /// Whose it is.
    pub company: String,
    /// Subject of the event.
    pub source_subject: String,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// Tries of the worker.
    pub retry_count: Option<i64>,
    /// When the event was dead-lettered.
    pub event_timestamp: Option<String>,
    /// Class of the error.
    pub error_type: Option<String>,
    /// Label of the reason.
    pub reason: Option<String>,
    /// It needs nobody any more.
    pub resolved: bool,
    /// Since when.
    pub resolved_at: Option<String>,
    /// What operators wrote.
    pub notes: Option<String>,
}

/// A row with its payloads, as `jsonb` writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The rest of the row.
    pub listed: Listed,
    /// The letter, and members of ours.
    pub dlq_payload: String,
    /// The event.
    pub original_payload: Option<String>,
}

/// Gives a letter up; the row's id, or `None` if it has a row. Not inside a transaction of the caller's: what
/// `jsonb` refuses is tried a second time in another form.
///
/// # Errors
/// PostgreSQL refused, or is away: keep the letter.
pub async fn insert(
    client: &Client,
    schema: &SchemaName,
    event: &Exhausted<'_>,
) -> Result<Option<i64>, Error> {
    let original = event.original.map(|bytes| STANDARD.encode(bytes));
    let whole = as_object(event.letter).map(Cow::Borrowed);
    let bare = original.is_some().then(|| without_event(event.letter)).flatten();
    let opaque = format!("{{\"letter_base64\":\"{}\"}}", STANDARD.encode(event.letter));
    let at = event.event_timestamp;
    for (payload, original, at) in [
        (whole, &original, at),
        (bare.map(Cow::Owned), &original, at),
        (Some(Cow::Borrowed(opaque.as_str())), &None, at),
    ] {
        let Some(payload) = payload else { continue };
        match insert_as(client, schema, event, &payload, original, at).await {
            Err(error) if is_about_data(&error) => {}
            done => return done,
        }
    }
    insert_as(client, schema, event, &opaque, &None, None).await
}

/// A page of rows, newest first: those with an id below `before`.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn list(
    client: &Client,
    schema: &SchemaName,
    filter: &Filter,
    before: i64,
) -> Result<Vec<Listed>, Error> {
    let subject = filter.subject.as_deref().map(regex_of);
    let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
    let (older, newer) = (seconds(filter.older), seconds(filter.newer));
    let limit = i64::try_from(PAGE_ROWS_MAX).unwrap_or(i64::MAX);
    let text = format!(
        "SELECT {COLUMNS} FROM {}.exhausted_events WHERE id < $1 \
         AND ($2::text IS NULL OR source_subject ~ $2) \
         AND ($3::text[] IS NULL OR dlq_payload ->> 'error_type' = ANY ($3) \
              OR dlq_payload ->> 'reason' = ANY ($3)) \
         AND ($4::float8 IS NULL OR {HAPPENED} < now() - make_interval(secs => $4)) \
         AND ($5::float8 IS NULL OR {HAPPENED} >= now() - make_interval(secs => $5)) \
         AND ($6 OR resolved IS NOT TRUE) ORDER BY id DESC LIMIT $7",
        schema.quoted()
    );
    let params: [&(dyn ToSql + Sync); 7] =
        [&before, &subject, &filter.classes, &older, &newer, &filter.resolved, &limit];
    let rows = client.query(&text, &params).await?;
    rows.iter().map(listed).collect()
}

/// One row, if it is there.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn show(client: &Client, schema: &SchemaName, id: i64) -> Result<Option<Shown>, Error> {
    let text = format!(
        "SELECT {COLUMNS}, dlq_payload::text, original_payload::text FROM {}.exhausted_events \
         WHERE id = $1",
        schema.quoted()
    );
    let row = client.query_opt(&text, &[&id]).await?;
    row.map(|row| {
        Ok(Shown {
            listed: listed(&row)?,
            dlq_payload: row.try_get(12)?,
            original_payload: row.try_get(13)?,
        })
    })
    .transpose()
}

/// Notes that a row needs nobody any more, and why; what is noted already stays. False if it was so, or is
/// not there.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn resolve(
    client: &Client,
    schema: &SchemaName,
    id: i64,
    note: &str,
) -> Result<bool, Error> {
    let text = format!(
        "UPDATE {}.exhausted_events SET resolved = true, resolved_at = now(), \
         notes = concat_ws(E'\\n', nullif(notes, ''), $2::text) WHERE id = $1 AND resolved IS NOT TRUE",
        schema.quoted()
    );
    Ok(client.execute(&text, &[&id, &storable(note)]).await? == 1)
}

/// What [`listed`] reads, in its order.
const COLUMNS: &str = "id, \
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
    company_id, source_subject, last_error, retry_count, \
    to_char(event_timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
    dlq_payload ->> 'error_type', dlq_payload ->> 'reason', coalesce(resolved, false), \
    to_char(resolved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), notes";

const HAPPENED: &str = "coalesce(event_timestamp, created_at)";

fn listed(row: &Row) -> Result<Listed, Error> {
    Ok(Listed {
        id: row.try_get(0)?,
        created_at: row.try_get(1)?,
        company: row.try_get(2)?,
        source_subject: row.try_get(3)?,
        last_error: row.try_get(4)?,
        retry_count: row.try_get(5)?,
        event_timestamp: row.try_get(6)?,
        error_type: row.try_get(7)?,
        reason: row.try_get(8)?,
        resolved: row.try_get(9)?,
        resolved_at: row.try_get(10)?,
        notes: row.try_get(11)?,
    })
}

async fn insert_as(
    client: &Client,
    schema: &SchemaName,
    event: &Exhausted<'_>,
    payload: &str,
    original_base64: &Option<String>,
    at: Option<&str>,
) -> Result<Option<i64>, Error> {
    let text = format!(
        "INSERT INTO {}.exhausted_events (created_at, company_id, source_subject, last_error, \
         retry_count, event_timestamp, dlq_payload, original_payload, resolved) \
         VALUES (now(), $1, $2, $3, $4, $5::text::timestamptz, $6::text::jsonb || \
         jsonb_strip_nulls(jsonb_build_object('daisi_letter', $7::text, \
         'original_payload_base64', $8::text)), \
         nullif($6::text::jsonb -> 'original_payload', 'null'), false) \
         ON CONFLICT ((dlq_payload ->> 'daisi_letter')) \
         WHERE dlq_payload ->> 'daisi_letter' IS NOT NULL DO NOTHING RETURNING id",
        schema.quoted()
    );
    let retry_count = i64::try_from(event.retry_count).unwrap_or(i64::MAX);
    let (subject, error) = (storable(event.source_subject), storable(event.last_error));
    let params: [&(dyn ToSql + Sync); 8] = [
        &event.company,
        &subject,
        &error,
        &retry_count,
        &at,
        &payload,
        &event.letter_id,
        original_base64,
    ];
    let row = client.query_opt(&text, &params).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// The letter as text if it is one JSON object; whether `jsonb` takes it, PostgreSQL says.
fn as_object(letter: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(letter).ok()?;
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    raw.get().starts_with('{').then_some(text)
}

/// The letter without the event, which is where `jsonb` most often finds what it refuses: an escaped U+0000,
/// or half a surrogate pair.
fn without_event(letter: &[u8]) -> Option<String> {
    let mut members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(letter).ok()?;
    members.remove("original_payload")?;
    serde_json::to_string(&members).ok()
}

/// Text that PostgreSQL takes: it cannot store U+0000.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Class 22 is a value that cannot be; 54 a value beyond a limit, such as JSON that is nested too deeply.
fn is_about_data(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("54"))
}

/// A NATS pattern as PostgreSQL matches it: `*` is one token, a final `>` one or more.
fn regex_of(pattern: &str) -> String {
    let tokens = pattern.split('.').map(|token| match token {
        "*" => "[^.]+".to_owned(),
        ">" => "[^.]+(\\.[^.]+)*".to_owned(),
        _ => escaped(token),
    });
    format!("^{}$", tokens.collect::<Vec<_>>().join("\\."))
}

fn escaped(token: &str) -> String {
    let mut text = String::new();
    for char in token.chars() {
        if char.is_ascii_punctuation() {
            text.push('\\');
        }
        text.push(char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_become_a_pattern_in_which_nothing_else_has_a_meaning() {
        assert_eq!(regex_of("v1.*.upsert.>"), r"^v1\.[^.]+\.upsert\.[^.]+(\.[^.]+)*$");
        assert_eq!(regex_of("a+b.$x"), r"^a\+b\.\$x$");
    }

    #[test]
    fn only_one_whole_object_is_a_letter() {
        assert!(as_object(b" {\"a\":1} ").is_some());
        for bad in [&b"[1]"[..], b"{} {}", b"", b"\xff", b"null"] {
            assert_eq!(as_object(bad), None, "{bad:?}");
        }
    }
}
