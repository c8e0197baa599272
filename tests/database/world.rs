//! One PostgreSQL for all tests of this file; each test has companies of its own. Invariant: it ends with the
//! process.

use std::future::Future;
use std::sync::LazyLock;

use loadtest::stack::{PostgresOptions, Stack};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

static STACK: LazyLock<Stack> = LazyLock::new(|| {
    // No test of this file is about power failures, and builds share the disk.
    let settings = [("fsync", "off"), ("max_connections", "60")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    Stack::builder().postgres(options).start().expect("PostgreSQL starts")
});

/// Connection string of the server.
pub(crate) fn url() -> String {
    STACK.postgres.url()
}

/// Runs a test's future on a runtime of its own.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// A connection, driven in the background.
pub(crate) async fn connect() -> Client {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.expect("it answers");
    tokio::spawn(connection);
    client
}

/// The answer of `sql`: rows by line, columns by `|`, NULL as `-`.
pub(crate) async fn ask(client: &Client, sql: &str) -> String {
    let answer = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or("-")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect::<Vec<_>>().join("\n")
}
