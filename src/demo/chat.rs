//! The ingest half of the demo's traffic, and what the database says of it afterwards. Invariant: rows are
//! counted by a client that knows nothing of daisi, and compared with what the generator booked.

use std::sync::atomic::AtomicBool;

use hdrhistogram::Histogram;
use loadtest::client::ClientError;
use loadtest::generate::ingest::{Expect, Fault, Mix, Profile};
use loadtest::report::latency_histogram;
use loadtest::results::Spread;
use loadtest::send::{SendPlan, Sent, send};
use shards::edge::pg::{describe, migrate};
use shards::id::SchemaName;
use tokio_postgres::{Client, NoTls};

/// Companies of the realtime events, then those of the history events.
const COMPANIES: [&str; 8] = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gita", "Hana"];
const REALTIME: usize = 6;
/// Rows whose times are looked at, a company.
const TIMES_MAX: i64 = 50_000;

/// What was sent.
pub(super) struct Traffic {
    pub(super) sent: Sent,
    pub(super) mix: Mix,
    rate: f64,
}

/// What must have become of it; sums of the generators' books.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    /// Messages that the streams hold.
    pub(super) stored: u64,
    /// Copies that the streams dropped.
    pub(super) dropped: u64,
    pub(super) applied: u64,
    pub(super) dead: u64,
    /// Of these, the updates that came before their row: a retry finds the row, newer than themselves.
    pub(super) early: u64,
}

/// Tables whose rows the generator's books foretell. Contacts are not among them: onboarding makes some too.
pub(super) const TABLES: [&str; 3] = ["agents", "chats", "messages"];

/// Rows of a company, by [`TABLES`].
pub(super) struct CompanyRows {
    pub(super) company: String,
    pub(super) expected: [u64; 3],
    pub(super) found: [u64; 3],
    pub(super) contacts: u64,
}

/// What the database holds.
pub(super) struct Found {
    pub(super) companies: Vec<CompanyRows>,
    /// Letters given up, in the schemas of all companies.
    pub(super) exhausted: u64,
    /// Planned send to the commit record of a message's row, by PostgreSQL's clock.
    pub(super) commit_us: Spread,
}

/// Makes the companies' schemas and months, as `daisi migrate` does: some hundred milliseconds each, which would be all
/// that a short run's latency shows. `others` have dead letters alone, which become rows as well.
pub(super) fn make_schemas(dsn: &str, others: &[String]) -> Result<(), String> {
    on_database(dsn, async |client| {
        for company in COMPANIES.into_iter().chain(others.iter().map(String::as_str)) {
            let made = migrate::migrate(&client, company, &migrate::Options::default()).await;
            made.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

// What `work` makes of a connection.
fn on_database<T>(
    dsn: &str,
    work: impl AsyncFnOnce(Client) -> Result<T, String>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let connected = tokio_postgres::connect(dsn, NoTls).await;
        let (client, connection) = connected.map_err(|error| describe(&error))?;
        tokio::spawn(connection);
        work(client).await
    })
}

/// The mix that is sent.
pub(super) fn mix() -> Result<Mix, String> {
    let (realtime, history) = COMPANIES.split_at(REALTIME);
    let faults = [
        (Fault::Duplicate, 0.01),
        (Fault::Copy, 0.005),
        (Fault::OutOfOrder, 0.001),
        (Fault::Malformed, 0.0005),
        (Fault::Missing, 0.0005),
        (Fault::WrongType, 0.0005),
        (Fault::BadValue, 0.0005),
        (Fault::Foreign, 0.0005),
    ];
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let companies = named(realtime);
    let profile = Profile { companies, faults: faults.into(), ..Profile::default() };
    Mix::new(profile, named(history))
}

/// Sends it, until `plan` or `stop` ends it.
pub(super) fn send_mix(
    plan: &SendPlan,
    mut mix: Mix,
    stop: &AtomicBool,
) -> Result<Traffic, ClientError> {
    let sent = send(plan, &mut mix, stop, |_| ())?;
    Ok(Traffic { sent, mix, rate: plan.rate })
}

impl Traffic {
    pub(super) fn expected(&self) -> Expected {
        let mut sum = Expected::default();
        for books in self.mix.generators().map(|generator| generator.books()) {
            sum.stored += books.stored();
            sum.dropped += books.outcome(Expect::Dropped);
            sum.applied += books.outcome(Expect::Applied) + books.outcome(Expect::AppliedAgain);
            sum.dead += books.dead_lettered();
            sum.early += books.outcome(Expect::DeadLettered(Fault::OutOfOrder));
        }
        sum
    }

    /// Asks the database.
    pub(super) fn look(&self, dsn: &str) -> Result<Found, String> {
        on_database(dsn, async |client| self.count(&client).await.map_err(|error| describe(&error)))
    }

    async fn count(&self, client: &Client) -> Result<Found, tokio_postgres::Error> {
        let mut companies = Vec::new();
        let mut commit_us = latency_histogram();
        for (company, rows) in self.mix.rows() {
            let expected = [rows.agents, rows.chats, rows.messages];
            let mut entry =
                CompanyRows { company: company.to_owned(), expected, found: [0; 3], contacts: 0 };
            if let Some(schema) = SchemaName::of(company).filter(|_| expected != [0; 3]) {
                let schema = schema.quoted();
                for (table, found) in TABLES.into_iter().zip(&mut entry.found) {
                    *found = number(client, &schema, table).await?;
                }
                entry.contacts = number(client, &schema, "contacts").await?;
                self.time(client, &schema, &mut commit_us).await?;
            }
            companies.push(entry);
        }
        let exhausted = exhausted(client).await?;
        Ok(Found { companies, exhausted, commit_us: Spread::of(&commit_us) })
    }

    // A row's xmin is the transaction that wrote it last, and its position names the event that it wrote.
    async fn time(
        &self,
        client: &Client,
        schema: &str,
        commit_us: &mut Histogram<u64>,
    ) -> Result<(), tokio_postgres::Error> {
        let text = format!(
            "SELECT last_metadata->>'message_id', \
             (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::int8 \
             FROM {schema}.messages ORDER BY id DESC LIMIT {TIMES_MAX}"
        );
        for row in client.query(&text, &[]).await? {
            let (id, committed_us): (Option<String>, Option<i64>) = (row.get(0), row.get(1));
            let number = id.and_then(|id| self.mix.number_of(&id));
            let (Some(number), Some(committed_us)) = (number, committed_us) else { continue };
            let planned_us = self.sent.start_ns / 1_000 + (number as f64 / self.rate * 1e6) as u64;
            let waited = committed_us.unsigned_abs().saturating_sub(planned_us);
            commit_us.saturating_record(waited);
        }
        Ok(())
    }
}

async fn number(client: &Client, schema: &str, table: &str) -> Result<u64, tokio_postgres::Error> {
    let row = client.query_one(&format!("SELECT count(*) FROM {schema}.{table}"), &[]).await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

// Letters of both halves become rows, those of the CDC half in schemas of their own companies.
async fn exhausted(client: &Client) -> Result<u64, tokio_postgres::Error> {
    let schemas = "SELECT quote_ident(table_schema) FROM information_schema.tables \
                   WHERE table_name = 'exhausted_events'";
    let mut sum = 0;
    for row in client.query(schemas, &[]).await? {
        let schema: String = row.get(0);
        sum += number(client, &schema, "exhausted_events").await?;
    }
    Ok(sum)
}
