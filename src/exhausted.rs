//! `daisi exhausted`: events that were given up, as rows of their companies, listed, shown, sent again or closed.
//! Invariant: a row is closed by a retry only after its event has its PubAck. The table is
//! `edge::pg::exhausted`'s; what is asked of it here runs one question after another.

mod args;

pub use args::{ExhaustedCommand, How, ListArgs, ResolveArgs, RetryArgs, ShowArgs, Targets, Whose};

use serde_json::{Map, Value, json};
use shards::edge::pg::describe;
use shards::edge::pg::exhausted::{self, Filter, Listed, Shown};
use shards::edge::pg::migrate;
use shards::id::SchemaName;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::cli::{Exit, Global};
use crate::config::plan::Plan;
use crate::letter::{Letter, Original, one_line, plain};
use crate::nats::{Session, SessionError};
use crate::replay::{self, Replayed, replay};
use crate::work::{Order, Stop, Tally, confirm, exit_of, tell};

/// Begins the line of a note that tells of a replay.
const REPLAYED_AS: &str = "replayed as ";

/// Why a command ended before its end.
enum Cut {
    /// Told already; this is how to end.
    Exit(Exit),
    /// For people.
    Failed(String),
}

impl From<String> for Cut {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<tokio_postgres::Error> for Cut {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(describe_all(&error))
    }
}

impl From<std::io::Error> for Cut {
    fn from(error: std::io::Error) -> Self {
        Self::Exit(exit_of(&error))
    }
}

/// A row, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RowName {
    company: String,
    schema: SchemaName,
    id: i64,
}

/// Runs the command.
#[must_use]
pub fn main(global: &Global, command: &ExhaustedCommand) -> Exit {
    let plan = match global.plan() {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let Some(dsn) = &plan.postgres_dsn else {
        eprintln!("daisi: postgres.dsn is not set; set it, or POSTGRES_DSN in the environment");
        return Exit::Usage;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| Cut::Failed(error.to_string())).and_then(|runtime| {
        runtime.block_on(async {
            let client = crate::migrate::open(dsn.expose()).await?;
            run(&plan, &client, command).await
        })
    });
    match done {
        Ok(exit) | Err(Cut::Exit(exit)) => exit,
        Err(Cut::Failed(why)) => {
            eprintln!("daisi: {why}");
            Exit::Failed
        }
    }
}

async fn run(plan: &Plan, client: &Client, command: &ExhaustedCommand) -> Result<Exit, Cut> {
    let stop = Stop::watch()?;
    match command {
        ExhaustedCommand::List(args) => list(client, args, &stop).await,
        ExhaustedCommand::Show(args) => show(client, args).await,
        ExhaustedCommand::Retry(args) => retry(plan, client, args, &stop).await,
        ExhaustedCommand::Resolve(args) => resolve(client, args, &stop).await,
    }
}

async fn list(client: &Client, args: &ListArgs, stop: &Stop) -> Result<Exit, Cut> {
    let filter = filter_of(&args.whose, args.resolved);
    let mut count = 0;
    for (company, schema) in companies(client, &args.whose).await? {
        let mut before = i64::MAX;
        while count < args.whose.filters.limit() {
            let page = exhausted::list(client, &schema, &filter, before).await?;
            let Some(last) = page.last() else { break };
            before = last.id;
            for row in &page {
                if stop.is_set() {
                    return Err(Cut::Failed("stopped before the end; nothing was changed".into()));
                }
                if count >= args.whose.filters.limit() {
                    break;
                }
                count += 1;
                let line = if args.json {
                    Value::Object(facts(&company, row)).to_string()
                } else {
                    line(&company, row)
                };
                tell(&line)?;
            }
        }
    }
    if !args.json {
        eprintln!("{count} exhausted events");
    }
    Ok(Exit::Ok)
}

async fn show(client: &Client, args: &ShowArgs) -> Result<Exit, Cut> {
    let schema = schema_of(&args.company)?;
    let mut exit = Exit::Ok;
    for id in &args.id {
        let Some(row) = exhausted::show(client, &schema, *id).await? else {
            eprintln!("daisi: company {} has no exhausted event {id}", args.company);
            exit = Exit::Failed;
            continue;
        };
        let company = &args.company;
        let is_json = args.json;
        tell(&if is_json { shown_json(company, &row).to_string() } else { shown(company, &row) })?;
    }
    Ok(exit)
}

async fn retry(plan: &Plan, client: &Client, args: &RetryArgs, stop: &Stop) -> Result<Exit, Cut> {
    let done = if args.how.dry_run { "looked at" } else { "retried" };
    let order = Order { verb: "retry", done, what: "exhausted events", json: args.how.json };
    let names = chosen(client, &args.targets, stop).await?;
    if !args.how.dry_run {
        confirm(order, names.len(), args.how.yes, stop).map_err(Cut::Exit)?;
    }
    let mut session = Session::of(&plan.nats, "exhausted")?;
    let mut tally = Tally::new(order, names.len());
    for name in names {
        if stop.is_set() {
            return Ok(tally.end(Some("stopped")));
        }
        let which = format!("exhausted event {} of {}", name.id, name.company);
        match retry_one(plan, client, &mut session, &name, args.how.dry_run).await {
            Ok((text, facts)) => {
                if let Err(error) = tally.done(&text, facts) {
                    return Ok(tally.end(Some(&format!("standard output: {error}"))));
                }
            }
            Err(SessionError::Refused(why)) => tally.failed(&which, &why),
            Err(SessionError::Lost(why)) => {
                let why = format!("{which}: {why}; whether it was done is not known");
                return Ok(tally.end(Some(&why)));
            }
        }
    }
    Ok(tally.end(None))
}

async fn retry_one(
    plan: &Plan,
    client: &Client,
    session: &mut Session,
    name: &RowName,
    dry_run: bool,
) -> Result<(String, Map<String, Value>), SessionError> {
    let RowName { company, schema, id } = name;
    let lost = |error: tokio_postgres::Error| SessionError::Lost(describe_all(&error));
    let row = exhausted::show(client, schema, *id).await.map_err(lost)?;
    let row = row.ok_or_else(|| SessionError::Refused("is not there (any more)".into()))?;
    if row.listed.resolved {
        return Err(SessionError::Refused("is resolved already".into()));
    }
    let letter = letter_of(&row).map_err(SessionError::Refused)?;
    if SchemaName::of(&letter.company).as_ref() != Some(schema) {
        let told = format!("its letter says that it is of company {:?}", letter.company);
        return Err(SessionError::Refused(told));
    }
    let dead = &plan.cdc.dlq_subject;
    let mut facts = name_facts(company, *id);
    facts.insert("source_subject".into(), json!(letter.source_subject));
    let subject = plain(&letter.source_subject);
    if dry_run {
        replay::check(&letter, dead).map_err(SessionError::Refused)?;
        facts.insert("would".into(), json!("retry"));
        return Ok((format!("would retry {company} {id}: {subject}"), facts));
    }
    let first = replays_noted(row.listed.notes.as_deref()) + 1;
    let Replayed { message_id, place } =
        replay(session, &letter, &[], &id.to_string(), first, dead)?;
    let note = format!("{REPLAYED_AS}{message_id} to {} {}", place.stream, place.seq);
    exhausted::resolve(client, schema, *id, &note).await.map_err(lost)?;
    facts.insert("done".into(), json!("retried"));
    facts.insert("message_id".into(), json!(message_id));
    facts.insert("stream".into(), json!(place.stream));
    facts.insert("stream_sequence".into(), json!(place.seq));
    let (stream, at) = (place.stream, place.seq);
    Ok((format!("retried {company} {id}: {subject} -> {stream} {at}"), facts))
}

async fn resolve(client: &Client, args: &ResolveArgs, stop: &Stop) -> Result<Exit, Cut> {
    let done = if args.how.dry_run { "looked at" } else { "resolved" };
    let order = Order { verb: "resolve", done, what: "exhausted events", json: args.how.json };
    let names = chosen(client, &args.targets, stop).await?;
    if !args.how.dry_run {
        confirm(order, names.len(), args.how.yes, stop).map_err(Cut::Exit)?;
    }
    let mut tally = Tally::new(order, names.len());
    for RowName { company, schema, id } in names {
        if stop.is_set() {
            return Ok(tally.end(Some("stopped")));
        }
        let mut facts = name_facts(&company, id);
        let is_done = if args.how.dry_run {
            let row = exhausted::show(client, &schema, id).await;
            row.map(|row| row.is_some_and(|row| !row.listed.resolved))
        } else {
            exhausted::resolve(client, &schema, id, &args.note).await
        };
        let is_done = match is_done {
            Ok(is_done) => is_done,
            Err(error) => return Ok(tally.end(Some(&describe_all(&error)))),
        };
        if !is_done {
            let which = format!("exhausted event {id} of {company}");
            tally.failed(&which, "is not there, or resolved already");
            continue;
        }
        let (key, text) = match args.how.dry_run {
            true => ("would", format!("would resolve {company} {id}")),
            false => ("done", format!("resolved {company} {id}")),
        };
        facts.insert(key.into(), json!(if args.how.dry_run { "resolve" } else { "resolved" }));
        if let Err(error) = tally.done(&text, facts) {
            return Ok(tally.end(Some(&format!("standard output: {error}"))));
        }
    }
    Ok(tally.end(None))
}

/// The rows that are meant, each company's oldest first.
async fn chosen(client: &Client, targets: &Targets, stop: &Stop) -> Result<Vec<RowName>, Cut> {
    let Targets { id, whose } = targets;
    if let (false, Some(company)) = (id.is_empty(), &whose.company) {
        if !whose.filters.is_empty() || whose.all {
            eprintln!("daisi: filters and --all go without ids");
            return Err(Cut::Exit(Exit::Usage));
        }
        let schema = schema_of(company)?;
        let mut ids = id.clone();
        ids.sort_unstable();
        ids.dedup();
        let name = |id| RowName { company: company.clone(), schema: schema.clone(), id };
        return Ok(ids.into_iter().map(name).collect());
    }
    if !id.is_empty() || !whose.all {
        eprintln!(
            "daisi: say --company with ids, or --all for every open one that the filters admit"
        );
        return Err(Cut::Exit(Exit::Usage));
    }
    let filter = filter_of(whose, false);
    let mut names = Vec::new();
    for (company, schema) in companies(client, whose).await? {
        let (mut before, mut own) = (i64::MAX, Vec::new());
        loop {
            if stop.is_set() {
                return Err(Cut::Failed("stopped before the end; nothing was changed".into()));
            }
            let page = exhausted::list(client, &schema, &filter, before).await?;
            let Some(last) = page.last() else { break };
            before = last.id;
            own.extend(page.iter().map(|row| row.id));
        }
        let name = |id| RowName { company: company.clone(), schema: schema.clone(), id };
        names.extend(own.into_iter().rev().map(name));
    }
    names.truncate(usize::try_from(whose.filters.limit()).unwrap_or(usize::MAX));
    Ok(names)
}

async fn companies(client: &Client, whose: &Whose) -> Result<Vec<(String, SchemaName)>, Cut> {
    if let Some(company) = &whose.company {
        return Ok(vec![(company.clone(), schema_of(company)?)]);
    }
    let all = migrate::companies(client).await.map_err(|error| error.to_string())?;
    let all = all.into_iter();
    Ok(all.filter_map(|company| SchemaName::of(&company).map(|schema| (company, schema))).collect())
}

fn schema_of(company: &str) -> Result<SchemaName, Cut> {
    SchemaName::of(company).ok_or_else(|| Cut::Failed(format!("{company:?} is no company id")))
}

fn filter_of(whose: &Whose, resolved: bool) -> Filter {
    let filters = &whose.filters;
    let subject = filters.subject.as_ref().map(|pattern| pattern.as_bytes());
    Filter {
        subject: subject.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        classes: (!filters.class.is_empty()).then(|| filters.class.clone()),
        older: filters.older,
        newer: filters.newer,
        resolved,
    }
}

fn describe_all(error: &tokio_postgres::Error) -> String {
    let absent = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    if error.code().is_some_and(|code| absent.contains(code)) {
        let told = "this company has no exhausted_events in this database: is it spelt right, and migrated?";
        return told.to_owned();
    }
    format!("PostgreSQL: {}", describe(error))
}

/// The letter of a row. A row of the first service that lost its payload in the letter has it beside it.
fn letter_of(row: &Shown) -> Result<Letter, String> {
    let mut letter = Letter::read(row.dlq_payload.as_bytes())?;
    if letter.original == Original::Absent
        && let Some(text) = &row.original_payload
    {
        letter.original = Original::Json(text.clone().into_bytes());
    }
    Ok(letter)
}

/// How often the row was sent again, by its notes: ids of those are taken.
fn replays_noted(notes: Option<&str>) -> u64 {
    let lines = notes.unwrap_or_default().lines();
    lines.filter(|line| line.starts_with(REPLAYED_AS)).count() as u64
}

fn name_facts(company: &str, id: i64) -> Map<String, Value> {
    Map::from_iter([("company".to_owned(), json!(company)), ("id".to_owned(), json!(id))])
}

fn facts(company: &str, row: &Listed) -> Map<String, Value> {
    let mut all = name_facts(company, row.id);
    for (name, value) in [
        ("created_at", json!(row.created_at)),
        ("source_subject", json!(row.source_subject)),
        ("error_type", json!(row.error_type)),
        ("reason", json!(row.reason)),
        ("last_error", json!(row.last_error)),
        ("retry_count", json!(row.retry_count)),
        ("event_timestamp", json!(row.event_timestamp)),
        ("resolved", json!(row.resolved)),
        ("resolved_at", json!(row.resolved_at)),
        ("notes", json!(row.notes)),
    ] {
        if !value.is_null() {
            all.insert(name.to_owned(), value);
        }
    }
    all
}

fn line(company: &str, row: &Listed) -> String {
    let at = row.event_timestamp.as_deref().or(row.created_at.as_deref()).unwrap_or("-");
    let at = at.get(..19).map_or_else(|| at.to_owned(), |at| format!("{at}Z"));
    let state = if row.resolved { "resolved" } else { "open" };
    let class = row.error_type.as_deref().unwrap_or("-");
    let class = one_line(&format!("{class} {}", row.reason.as_deref().unwrap_or("-")), 40);
    let error = one_line(row.last_error.as_deref().unwrap_or("-"), 100);
    let subject = one_line(&row.source_subject, 100);
    format!("{company:<16} {:>6}  {at}  {state:<8}  {class:<26}  {subject}  {error}", row.id)
}

fn shown_json(company: &str, row: &Shown) -> Value {
    let mut all = facts(company, &row.listed);
    match letter_of(row) {
        Ok(letter) => {
            let read = letter.facts();
            let more = ["original_form", "original_bytes", "stream", "stream_sequence"];
            let more = more.into_iter().chain(["original_msg_id", "published_at", "error"]);
            all.extend(more.filter_map(|name| Some((name.to_owned(), read.get(name)?.clone()))));
            if let Some((name, body)) = letter.body_fact() {
                all.insert(name.into(), body);
            }
        }
        Err(why) => drop(all.insert("unreadable".into(), json!(why))),
    }
    all.insert("dlq_payload".into(), json!(row.dlq_payload));
    Value::Object(all)
}

fn shown(company: &str, row: &Shown) -> String {
    let mut text = format!("exhausted event {} of {company}\n", row.listed.id);
    for (name, value) in facts(company, &row.listed).into_iter().skip(2) {
        let value = one_line(value.as_str().unwrap_or(&value.to_string()), usize::MAX);
        text.push_str(&format!("  {name:<16} {value}\n"));
    }
    match letter_of(row) {
        Ok(letter) => text.push_str(&format!("event:\n{}", letter.body_text())),
        Err(why) => {
            let raw = plain(&row.dlq_payload);
            text.push_str(&format!("cannot be read as a dead letter: {why}\ndlq_payload:\n{raw}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_earlier_replays_are_counted_as_taken() {
        assert_eq!(replays_noted(None), 0);
        let notes =
            "looked at it\nreplayed as replay:A:1:1 to s 5\nreplayed as replay:A:1:2 to s 9";
        assert_eq!(replays_noted(Some(notes)), 2);
    }

    #[test]
    fn a_row_whose_letter_has_no_event_is_read_from_the_column() {
        let listed = Listed {
            id: 1,
            created_at: None,
            company: "A".into(),
            source_subject: "s".into(),
            last_error: None,
            retry_count: None,
            event_timestamp: None,
            error_type: None,
            reason: None,
            resolved: false,
            resolved_at: None,
            notes: None,
        };
        let dlq_payload = r#"{"source_subject": "s", "company": "A"}"#.to_owned();
        let row = Shown { listed, dlq_payload, original_payload: Some("[1]".into()) };
        let letter = letter_of(&row).expect("a letter");
        assert_eq!(letter.body_fact(), Some(("original", json!("[1]"))));
    }
}
