//! Writes batches over one connection: statements prepared once, everything independent pipelined, one
//! transaction a batch. Invariants: COMMIT is sent only after every statement of the transaction answered
//! well and nobody was in the way; an error that is not about values settles nothing.

use super::cache::Cache;
use super::exhausted::{self, Exhausted};
use super::migrate::{self, MigrateError, Options};
use super::months::Months;
use super::param::{Param, params, types};
use crate::columns::Call;
use crate::id::SchemaName;
use crate::pipeline::commit::{
    Away, Batch, Class, Commit, Failure, Hints, Item, POST_SCAN_RUN, Step,
};
use crate::pipeline::ingest::{GivenUp, Unwritten};
use futures_lite::StreamExt;
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio_postgres::{Client, Error, Statement};

/// What a session is bound to, and what it makes.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Prepared statements held; each costs the server some ten KiB, with a plan a few times that.
    pub statements_max: usize,
    /// A statement that runs longer is cancelled.
    pub statement_timeout: Duration,
    /// A statement that waits longer for a lock is cancelled.
    pub lock_timeout: Duration,
    /// How schemas are made that are not there.
    pub schemas: Options,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            statements_max: 1024,
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(5),
            schemas: Options::default(),
        }
    }
}

/// Wide values are compressed by LZ4 where the server has it (from PostgreSQL 14 on, if built with it) and
/// nobody chose otherwise: 2.5 us a message less than the default takes.
const LZ4: &str = "SELECT set_config('default_toast_compression', 'lz4', false) FROM pg_settings \
    WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals)";

/// A connection that is ready to write.
pub struct Session {
    client: Client,
    cache: Cache,
    months: Months,
    schemas: Options,
}

/// Codes, by row, of what had not the usual effect; and how many rows had an effect.
type Answered = (Vec<(i32, i32)>, u64);

impl Session {
    /// Takes a connection for writing. Plans are made once and go by keys, whatever statistics a table had
    /// when it was empty: a scan of a table that has grown since would be a standstill.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn new(client: Client, settings: SessionSettings) -> Result<Self, Error> {
        let set_up = format!(
            "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
             SET enable_mergejoin = off; SET jit = off; SET timezone = 'UTC'; SET client_min_messages = error; \
             SET statement_timeout = {}; SET lock_timeout = {}; {LZ4}",
            settings.statement_timeout.as_millis(),
            settings.lock_timeout.as_millis()
        );
        client.batch_execute(&set_up).await?;
        let cache = Cache::new(settings.statements_max);
        Ok(Self { client, cache, months: Months::default(), schemas: settings.schemas })
    }

    /// The connection, for what is no batch.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Writes events and drives `commit` until everything that can be settled is: its outcomes are the
    /// result. `now_ns` is asked for each transaction. Not to be dropped half-way: the transaction would stay
    /// open on the connection.
    pub async fn write(
        &mut self,
        commit: &mut Commit,
        batch: &mut Batch,
        hints: &mut Hints,
        items: &[Item<'_>],
        now_ns: impl Fn() -> u64,
    ) {
        commit.begin(items.iter().map(|item| item.company));
        loop {
            match commit.step() {
                Step::Done => return,
                Step::Open { event } => {
                    let company = items[event as usize].company;
                    match migrate::open(&self.client, company, &self.schemas).await {
                        Ok(_) => commit.opened(company),
                        Err(error) => not_opened(commit, company, &error),
                    }
                }
                Step::Write(events) => {
                    batch.open(now_ns());
                    let mut refused = Vec::new();
                    for event in events {
                        if let Err(error) = batch.add(&items[*event as usize], hints) {
                            refused.push((*event, error));
                        }
                    }
                    refused.iter().for_each(|(event, error)| commit.refused(*event, error));
                    match self.write_batch(batch).await {
                        Ok(()) => commit.written(batch.settle(hints)),
                        Err(failure) => commit.failed(failure),
                    }
                }
            }
        }
    }

    /// Makes a dead letter a row of its company's exhausted events.
    ///
    /// # Errors
    /// The database is away, or the company's schema cannot be used.
    pub async fn give_up(&self, letter: &GivenUp<'_>) -> Result<(), Unwritten> {
        let company = letter.company;
        let no_company =
            || Unwritten::Held(MigrateError::BadCompany(company.to_owned()).to_string());
        let schema = SchemaName::of(company).ok_or_else(no_company)?;
        match migrate::open(&self.client, company, &self.schemas).await {
            Ok(_) => {}
            Err(MigrateError::Database(error)) => return Err(unwritten(&error)),
            Err(error) => return Err(Unwritten::Held(error.to_string())),
        }
        let row = Exhausted {
            letter_id: &letter.letter_id,
            company,
            source_subject: letter.source_subject,
            last_error: letter.last_error,
            retry_count: letter.retry_count,
            event_timestamp: letter.event_timestamp,
            letter: letter.letter,
            original: letter.original,
        };
        let inserted = exhausted::insert(&self.client, &schema, &row).await;
        inserted.map(|_| ()).map_err(|error| unwritten(&error))
    }

    /// Writes what was added to a batch in one transaction.
    ///
    /// # Errors
    /// Nothing of it is committed; unless the connection was lost while committing, then it may be.
    pub async fn write_batch(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        batch.seal();
        if batch.calls() == 0 {
            return Ok(());
        }
        self.make_months(batch).await;
        let numbers: Vec<usize> = (0..batch.calls()).collect();
        let written = self.transact(batch, &numbers).await;
        if written.is_err() {
            // The first error is the one to tell; a lost connection cannot roll back, and need not.
            let _rolled_back = self.client.batch_execute("ROLLBACK").await;
            return written;
        }
        crate::fault::panic_point("before_commit", |text| {
            let columns = |number: &usize| batch.call(*number).columns;
            numbers.iter().flat_map(columns).any(|column| column.holds(text))
        });
        self.client.batch_execute("COMMIT").await.map_err(|error| failure(&error, None))
    }

    /// Before the transaction, which would hold the lock that a new partition takes.
    async fn make_months(&mut self, batch: &Batch) {
        for (schema, days) in (0..batch.calls()).filter_map(|number| batch.days(number)) {
            let missing = self.months.missing(schema, days, batch.now_ns());
            for month in missing {
                self.months.see_to(&self.client, schema, month).await;
            }
        }
    }

    /// Works on one page of one post-scan of `company` that is due: a timer's task. Is there more?
    ///
    /// # Errors
    /// Nothing of the page is committed; it is looked at again.
    pub async fn post_scan(&self, company: &str, now_ns: u64) -> Result<bool, Failure> {
        let Some(schema) = SchemaName::of(company) else { return Ok(false) };
        let text = (POST_SCAN_RUN.text)(&schema.quoted());
        let scanned = async {
            self.client
                .batch_execute(
                    "BEGIN; SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; \
                     SET LOCAL enable_mergejoin = on",
                )
                .await?;
            let statement = self.client.prepare_typed(&text, &types(&[])).await?;
            let (company, now) = (Param::Text(company), Param::Time(now_ns));
            let row =
                self.client.query_one(&statement, &[&company, &now, &Param::Text("")]).await?;
            self.client.batch_execute("COMMIT").await?;
            row.try_get::<_, i32>(1)
        };
        match scanned.await {
            Ok(scans) => Ok(scans > 0),
            Err(error) => {
                let _rolled_back = self.client.batch_execute("ROLLBACK").await;
                Err(failure(&error, None))
            }
        }
    }

    async fn transact(&mut self, batch: &mut Batch, numbers: &[usize]) -> Result<(), Failure> {
        let calls = numbers.iter().map(|number| (*number, batch.call(*number))).collect();
        let answers = self.call(batch, calls, true).await?;
        let mut unclear = Vec::new();
        for (number, (codes, rows)) in answers {
            codes.into_iter().for_each(|(row, code)| batch.coded(number, row, code));
            if batch.counted(number, rows) {
                unclear.push(number);
            }
        }
        if !unclear.is_empty() {
            // What was left alone is written now, and all of them are asked about behind that.
            let follow = |number: &usize| [batch.retry(*number), batch.ask(*number)];
            let calls = unclear
                .iter()
                .flat_map(|number| follow(number).into_iter().flatten().map(|call| (*number, call)))
                .collect();
            for (number, (codes, _)) in self.call(batch, calls, false).await? {
                codes.into_iter().for_each(|(row, code)| batch.coded(number, row, code));
            }
        }
        if batch.has_conflict() {
            let message = "another writer was in the way".to_owned();
            let (class, sqlstate) = (Class::Conflict, String::new());
            return Err(Failure { class, sqlstate, message, event: None });
        }
        Ok(())
    }

    /// Makes calls, each with its number, which its answer has too; `is_first`: with BEGIN before them.
    async fn call(
        &mut self,
        batch: &Batch,
        calls: Vec<(usize, Call<'_>)>,
        is_first: bool,
    ) -> Result<Vec<(usize, Answered)>, Failure> {
        let statements = self.prepare(batch, &calls).await?;
        let mut answers: Vec<Pending<'_, Answered>> = Vec::with_capacity(calls.len() + 1);
        if is_first {
            answers.push(Box::pin(async {
                self.client.batch_execute("BEGIN").await.map(|()| (Vec::new(), 0))
            }));
        }
        for ((_, call), statement) in calls.iter().zip(&statements) {
            answers.push(Box::pin(run(&self.client, statement, call)));
        }
        let begun = answers.len() - calls.len();
        let mut answered = Vec::with_capacity(calls.len());
        for (place, answer) in in_order(answers).await.into_iter().enumerate() {
            let call = place.checked_sub(begun).and_then(|place| calls.get(place));
            let event = call.and_then(|(number, _)| batch.event_of(*number));
            let answer = answer.map_err(|error| failure(&error, event))?;
            answered.extend(call.map(|(number, _)| (*number, answer)));
        }
        Ok(answered)
    }

    async fn prepare(
        &mut self,
        batch: &Batch,
        calls: &[(usize, Call<'_>)],
    ) -> Result<Vec<Statement>, Failure> {
        let mut found: Vec<Option<Statement>> = Vec::with_capacity(calls.len());
        let mut missing: Vec<usize> = Vec::new();
        for (place, (_, call)) in calls.iter().enumerate() {
            let statement = self.cache.get(call.schema, call.statement.name);
            // Calls of one company and kind stand next to each other, or in different waves.
            let is_asked = missing.iter().any(|asked| is_same(&calls[*asked].1, call));
            if statement.is_none() && !is_asked {
                missing.push(place);
            }
            found.push(statement);
        }
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        let client = &self.client;
        let prepared = missing.iter().map(|place| -> Pending<'_, Statement> {
            let call = &calls[*place].1;
            Box::pin(async move {
                let text = (call.statement.text)(&format!("\"{}\"", call.schema));
                client.prepare_typed(&text, &types(call.statement.types)).await
            })
        });
        let prepared = in_order(prepared.collect()).await;
        for (place, statement) in missing.iter().zip(prepared) {
            let (number, call) = &calls[*place];
            let statement = statement.map_err(|error| failure(&error, batch.event_of(*number)))?;
            self.cache.insert(call.schema, call.statement.name, statement.clone());
            let same = calls.iter().map(|(_, other)| is_same(call, other));
            for (found, _) in found.iter_mut().zip(same).filter(|(_, is_same)| *is_same) {
                *found = Some(statement.clone());
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

fn is_same(one: &Call<'_>, other: &Call<'_>) -> bool {
    one.schema == other.schema && one.statement.name == other.statement.name
}

async fn run(client: &Client, statement: &Statement, call: &Call<'_>) -> Result<Answered, Error> {
    let mut rows = pin!(client.query_raw(statement, params(call)).await?);
    let mut codes = Vec::new();
    while let Some(row) = rows.next().await {
        let row = row?;
        codes.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok((codes, rows.rows_affected().unwrap_or(0)))
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

/// Sends all at once and takes the answers, which come in the order of the questions: so only the first that
/// is open has to be looked at.
async fn in_order<T>(mut futures: Vec<Pending<'_, T>>) -> Vec<Result<T, Error>> {
    let mut results: Vec<Option<Result<T, Error>>> = futures.iter().map(|_| None).collect();
    let (mut is_sent, mut first) = (false, 0);
    poll_fn(|cx| {
        for place in first..futures.len() {
            if results[place].is_none() {
                match futures[place].as_mut().poll(cx) {
                    Poll::Ready(result) => results[place] = Some(result),
                    Poll::Pending if is_sent => break,
                    Poll::Pending => {}
                }
            }
        }
        is_sent = true;
        while results.get(first).is_some_and(Option::is_some) {
            first += 1;
        }
        if first == results.len() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

fn not_opened(commit: &mut Commit, company: &str, error: &MigrateError) {
    match error {
        MigrateError::Database(cause) => {
            let failure = failure(cause, None);
            match failure.class {
                Class::Data | Class::Schema => commit.not_opened(company, &error.to_string()),
                Class::Conflict | Class::Busy | Class::Transient => {
                    commit.failed(Failure { class: Class::Transient, ..failure });
                }
            }
        }
        _ => commit.not_opened(company, &error.to_string()),
    }
}

fn unwritten(error: &Error) -> Unwritten {
    let Failure { class, sqlstate, message, .. } = failure(error, None);
    match class {
        Class::Data | Class::Schema => Unwritten::Held(message),
        Class::Conflict | Class::Busy | Class::Transient => {
            Unwritten::Away(Away { sqlstate, message })
        }
    }
}

/// Class, state and words; no values: those stand in PostgreSQL's details, which are left out.
fn failure(error: &Error, event: Option<usize>) -> Failure {
    let Some(db) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        let message = format!("{error} {cause}").trim_end().to_owned();
        return Failure { class: Class::Transient, sqlstate: String::new(), message, event };
    };
    let mut message = db.message().to_owned();
    for (what, name) in
        [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())]
    {
        if let Some(name) = name {
            let _infallible = write!(message, ", {what} {name}");
        }
    }
    let sqlstate = db.code().code().to_owned();
    Failure { class: Class::of(&sqlstate), sqlstate, message, event }
}
