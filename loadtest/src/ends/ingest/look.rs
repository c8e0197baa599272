//! Asks the database. New rows are those with a higher id than any seen, and those whose id was passed over
//! within the last seconds: a transaction may take its id before another and commit after it. Ids that nobody
//! commits (an upsert that found its row burns one) are forgotten then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, Row, Statement};

use super::books::{Books, FoundRow};
use super::{IngestOptions, Word, take};
use crate::contract::ingest::Table;
use crate::ends::{Course, EndError};
use crate::send::wall_ns;

/// A table that is not there yet is asked for again after this.
const ABSENT_PAUSE: Duration = Duration::from_millis(20);
/// Passed-over ids are asked for with each look for so long, then now and then, then no more.
const GAP_FRESH: Duration = Duration::from_millis(100);
const GAP_PAUSE: Duration = Duration::from_millis(100);
const GAP_MAX: Duration = Duration::from_secs(5);
/// Passed-over ids kept of a company: beyond this the final look finds them.
const GAPS_MAX: usize = 10_000;
/// Rows of a page of the final look.
const PAGE: i64 = 20_000;
/// Ids looked up at once.
const LOOKUP: usize = 5_000;
/// Days that an event's arrival may be off ours: midnight, and clocks.
const DAY_SLACK: i32 = 1;
const DAY_NS: u64 = 86_400_000_000_000;

/// A plan made while a table was empty would read it whole for ever: the primary key is the only way. Planning
/// each look anew would cost the server more than the look: partitions that no wanted day is in are left out
/// when the plan is run.
const SESSION: &str = "SET application_name = 'daisi-loadtest'; SET default_transaction_read_only = on; \
     SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off";

/// Highest ids of a schema before the run, by table.
type Baseline = [i64; Table::ALL.len()];

/// How far the rows of a company were seen.
#[derive(Debug, Default)]
struct Place {
    statements: Option<(Statement, Statement)>,
    absent_until: Option<Instant>,
    high: i64,
    gaps: BTreeMap<i64, Instant>,
    gaps_at: Option<Instant>,
}

/// The connection, and how far it has seen.
#[derive(Debug)]
pub(super) struct Looker {
    options: IngestOptions,
    client: Option<Arc<Client>>,
    baselines: HashMap<String, Baseline>,
    places: Vec<Place>,
    away_since: Option<Instant>,
}

impl Looker {
    /// Connects, and notes what is there already.
    pub(super) async fn connect(options: &IngestOptions) -> Result<Self, EndError> {
        let client = connect(&options.dsn).await.map_err(told)?;
        let baselines = baselines(&client).await.map_err(told)?;
        Ok(Self {
            options: options.clone(),
            client: Some(Arc::new(client)),
            baselines,
            places: Vec::new(),
            away_since: None,
        })
    }

    /// Drops the connection; the next look makes another.
    pub(super) fn cut(&mut self) {
        self.client = None;
        self.places.iter_mut().for_each(|place| place.statements = None);
    }

    /// Enters all new rows of companies from which any is awaited.
    pub(super) async fn look(
        &mut self,
        books: &mut Books,
        inbox: &Receiver<Word>,
        course: &mut Course,
    ) -> Result<(), EndError> {
        let outcome = self.try_look(books, inbox, course).await;
        self.settle(outcome).await
    }

    /// Looks at all rows of all companies.
    pub(super) async fn sweep(&mut self, books: &mut Books) -> Result<(), EndError> {
        loop {
            books.begin();
            let outcome = self.try_sweep(books).await;
            let is_done = outcome.is_ok();
            self.settle(outcome).await?;
            if is_done {
                return Ok(());
            }
        }
    }

    /// A server that is away is waited for; whatever else it refuses is an error.
    async fn settle(&mut self, outcome: Result<(), Error>) -> Result<(), EndError> {
        let Err(error) = outcome else {
            self.away_since = None;
            return Ok(());
        };
        let is_away = error.is_closed() || error.as_db_error().is_none_or(is_passing);
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if !is_away || since.elapsed() > self.options.outage_max {
            return Err(told(error));
        }
        self.cut();
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    async fn client(&mut self) -> Result<Arc<Client>, Error> {
        if let Some(client) = &self.client {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(connect(&self.options.dsn).await?);
        self.client = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn try_look(
        &mut self,
        books: &mut Books,
        inbox: &Receiver<Word>,
        course: &mut Course,
    ) -> Result<(), Error> {
        let client = self.client().await?;
        let mut asked = JoinSet::new();
        for number in 0..books.companies.len() {
            let days = match books.companies[number].outstanding {
                0 => continue,
                _ => self.days(books, number),
            };
            if !self.prepare(&client, books, number).await? {
                continue;
            }
            let place = &mut self.places[number];
            let Some((new, passed)) = place.statements.clone() else { continue };
            let gaps = place.due_gaps();
            let (high, client) = (place.high, Arc::clone(&client));
            asked.spawn(async move {
                let (first, last) = days;
                // Both are under way at once.
                let new = client.query(&new, &[&high, &first, &last]).await;
                let mut rows = new?;
                if !gaps.is_empty() {
                    rows.extend(client.query(&passed, &[&gaps, &first, &last]).await?);
                }
                Ok::<_, Error>((number, rows, wall_ns()))
            });
        }
        while let Some(joined) = asked.join_next().await {
            // A task panics only if the library does.
            let Ok(answer) = joined else { continue };
            let (number, rows, at_ns) = answer?;
            if rows.is_empty() {
                continue;
            }
            // Whatever is there by now was told before it was sent.
            take(inbox, books, course);
            self.enter(books, course, (number, &rows, at_ns));
            course.booked(at_ns);
        }
        Ok(())
    }

    fn enter(
        &mut self,
        books: &mut Books,
        course: &mut Course,
        (number, rows, at_ns): (usize, &[Row], u64),
    ) {
        let place = &mut self.places[number];
        for row in rows {
            let (id, message_id, day): (i64, Option<&str>, i32) =
                (row.get(0), row.get(1), row.get(2));
            place.see(id);
            let message_id = message_id.unwrap_or_default().as_bytes();
            if let Some(planned_ns) = books.see(number as u32, message_id, day) {
                course.see(at_ns, at_ns.saturating_sub(planned_ns) / 1_000);
            }
        }
    }

    /// First and last day of a company's messages; those without a time are of today.
    fn days(&self, books: &Books, number: usize) -> (i32, i32) {
        let company = &books.companies[number];
        let today = (wall_ns() / DAY_NS) as i32;
        let (first, last) = company.days.unwrap_or((today, today));
        match company.has_today {
            true => (first.min(today - DAY_SLACK), last.max(today + DAY_SLACK)),
            false => (first, last),
        }
    }

    /// Prepares the statements of a company; false while its table is not there.
    async fn prepare(
        &mut self,
        client: &Client,
        books: &Books,
        number: usize,
    ) -> Result<bool, Error> {
        while self.places.len() <= number {
            let name = &books.companies[self.places.len()].name;
            let high = self.baseline(name, Table::Messages);
            self.places.push(Place { high, ..Place::default() });
        }
        let place = &mut self.places[number];
        if place.statements.is_some() {
            return Ok(true);
        }
        if place.absent_until.is_some_and(|until| Instant::now() < until) {
            return Ok(false);
        }
        let schema = schema(&books.companies[number].name);
        let select = |which: &str| {
            format!(
                "SELECT id, message_id, message_date - date '1970-01-01' FROM {schema}.messages \
                 WHERE {which} AND message_date BETWEEN date '1970-01-01' + $2::int4 \
                 AND date '1970-01-01' + $3::int4 ORDER BY id"
            )
        };
        let (new, passed) = (select("id > $1"), select("id = ANY ($1)"));
        match (client.prepare(&new).await, client.prepare(&passed).await) {
            (Ok(new), Ok(passed)) => {
                place.statements = Some((new, passed));
                Ok(true)
            }
            (Err(error), _) | (_, Err(error)) if is_absent(&error) => {
                place.absent_until = Some(Instant::now() + ABSENT_PAUSE);
                Ok(false)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn baseline(&self, company: &str, table: Table) -> i64 {
        let schema = format!("daisi_{}", company.to_ascii_lowercase());
        self.baselines.get(&schema).map_or(0, |baseline| baseline[table as usize])
    }

    async fn try_sweep(&mut self, books: &mut Books) -> Result<(), Error> {
        let client = self.client().await?;
        for number in 0..books.companies.len() {
            let name = books.companies[number].name.clone();
            for table in Table::ALL {
                let baseline = self.baseline(&name, table);
                let sweep = Sweep { client: &client, company: number as u32, name: &name, table };
                match sweep.new_rows(books, baseline).await {
                    Err(error) if is_absent(&error) => continue,
                    other => other?,
                }
                if baseline > 0 {
                    sweep.old_rows(books, baseline).await?;
                }
            }
        }
        Ok(())
    }
}

/// A final look at one table of one company.
struct Sweep<'a> {
    client: &'a Client,
    company: u32,
    name: &'a str,
    table: Table,
}

impl Sweep<'_> {
    fn select(&self, which: &str) -> String {
        let (schema, table) = (schema(self.name), self.table.name());
        let (id, day) = match self.table {
            Table::Messages => ("message_id", "message_date - date '1970-01-01'"),
            Table::Chats => ("chat_id", "0"),
            Table::Agents => ("agent_id", "0"),
        };
        let which = which.replace("{id}", id);
        format!(
            "SELECT id, {id}, {day}, last_metadata->>'message_id' FROM {schema}.{table} WHERE {which}"
        )
    }

    /// All rows made since the run began.
    async fn new_rows(&self, books: &mut Books, baseline: i64) -> Result<(), Error> {
        let page = self.client.prepare(&self.select("id > $1 ORDER BY id LIMIT $2")).await?;
        let mut after = baseline;
        loop {
            let rows = self.client.query(&page, &[&after, &PAGE]).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.get(0);
            rows.iter().for_each(|row| self.enter(books, row, true));
        }
    }

    /// Rows that were there before and are written by the run.
    async fn old_rows(&self, books: &mut Books, baseline: i64) -> Result<(), Error> {
        let missing = books.missing(self.company, self.table);
        if missing.is_empty() {
            return Ok(());
        }
        let lookup = self.client.prepare(&self.select("{id} = ANY ($1) AND id <= $2")).await?;
        for ids in missing.chunks(LOOKUP) {
            for row in self.client.query(&lookup, &[&ids, &baseline]).await? {
                self.enter(books, &row, false);
            }
        }
        Ok(())
    }

    fn enter(&self, books: &mut Books, row: &Row, is_new: bool) {
        let (id, newest): (Option<&str>, Option<&str>) = (row.get(1), row.get(3));
        let id = id.unwrap_or_default();
        let (company, table, day) = (self.company, self.table, row.get(2));
        books.find_row(&FoundRow { company, table, id, day, newest, is_new });
    }
}

impl Place {
    /// Ids between the highest and this one were passed over.
    fn see(&mut self, id: i64) {
        self.gaps.remove(&id);
        if id <= self.high {
            return;
        }
        let now = Instant::now();
        let room = GAPS_MAX.saturating_sub(self.gaps.len());
        self.gaps.extend((self.high + 1..id).rev().take(room).map(|gap| (gap, now)));
        self.high = id;
    }

    /// The ones to ask for now.
    fn due_gaps(&mut self) -> Vec<i64> {
        if self.gaps.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        self.gaps.retain(|_, since| now.duration_since(*since) < GAP_MAX);
        let is_round = self.gaps_at.is_none_or(|at| now.duration_since(at) > GAP_PAUSE);
        if is_round {
            self.gaps_at = Some(now);
        }
        let is_due = |since: &Instant| is_round || now.duration_since(*since) < GAP_FRESH;
        self.gaps.iter().filter(|(_, since)| is_due(since)).map(|(id, _)| *id).collect()
    }
}

async fn connect(dsn: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    // Its end shows as an error of the client.
    tokio::spawn(connection);
    client.batch_execute(SESSION).await?;
    Ok(client)
}

async fn baselines(client: &Client) -> Result<HashMap<String, Baseline>, Error> {
    let schemas = "SELECT table_schema::text FROM information_schema.tables \
                   WHERE table_name = 'messages' AND table_schema LIKE 'daisi\\_%'";
    let mut baselines = HashMap::new();
    for row in client.query(schemas, &[]).await? {
        let schema: String = row.get(0);
        let mut baseline = Baseline::default();
        for table in Table::ALL {
            let table_name = table.name();
            let quoted = schema.replace('"', "\"\"");
            let max = format!("SELECT max(id) FROM \"{quoted}\".{table_name}");
            match client.query_one(&max, &[]).await {
                Ok(row) => baseline[table as usize] = row.get::<_, Option<i64>>(0).unwrap_or(0),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        baselines.insert(schema, baseline);
    }
    Ok(baselines)
}

/// Companies hold nothing that a quoted name must escape: the contract's rules refuse others.
fn schema(company: &str) -> String {
    format!("\"daisi_{}\"", company.to_ascii_lowercase())
}

fn is_absent(error: &Error) -> bool {
    let absent = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    error.code().is_some_and(|code| absent.contains(code))
}

/// What passes by itself: a server that starts or stops, or has no room just now; and a plan that a new
/// partition has made stale.
fn is_passing(error: &tokio_postgres::error::DbError) -> bool {
    let code = error.code().code();
    ["08", "53", "57P"].iter().any(|class| code.starts_with(class)) || code == "0A000"
}

fn told(error: Error) -> EndError {
    let told =
        error.as_db_error().map(|error| format!("{} ({})", error.message(), error.code().code()));
    EndError::Database(told.unwrap_or_else(|| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn ids_passed_over_are_asked_for_until_they_come() {
        let mut place = Place { high: 10, ..Place::default() };
        place.see(11);
        assert!(place.due_gaps().is_empty());
        place.see(15);
        assert_eq!((place.high, place.due_gaps()), (15, vec![12, 13, 14]));
        place.see(13);
        assert_eq!(place.due_gaps(), [12, 14]);
        place.see(12);
        place.see(14);
        assert_eq!((place.high, place.due_gaps().len()), (15, 0));
    }
}
