//! Schemas of companies: created on first sight, migrated forward. Async over a client, without a runtime
//! of its own. Invariants: replicas that race do it once (an advisory lock a company); a migration that was
//! applied is never another one later (digests); one transaction a company.

use super::months;
use crate::id::SchemaName;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

/// One step forward.
#[derive(Debug)]
pub struct Migration {
    /// Its number, from 1 without gaps.
    pub version: i32,
    /// What it does.
    pub name: &'static str,
    text: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal,)+) => {
        /// All of them, in order.
        pub const MIGRATIONS: &[Migration] = &[$(Migration {
            version: $version,
            name: $name,
            text: include_str!(concat!("../../../../migrations/000", $version, "_", $name, ".sql")),
        }),+];
    };
}

migrations! {
    1 "create_tables",
    2 "add_columns",
    3 "create_indexes",
    4 "create_post_scans",
    5 "create_exhausted_key",
}

const SCHEMA: &str = include_str!("../../../../migrations/maintain/schema.sql");
const SPELLING: &str = include_str!("../../../../migrations/maintain/spelling.sql");
const UNIQUES: &str = include_str!("../../../../migrations/maintain/uniques.sql");
const IDENTITY: &str = include_str!("../../../../migrations/maintain/identity.sql");
const PUBLICATION: &str = include_str!("../../../../migrations/maintain/publication.sql");

/// Bounds of what migrating may wait for; a batch of `CREATE` takes far less.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'; \
                     SET LOCAL client_min_messages = error; ";

static DIGESTS: LazyLock<Vec<String>> =
    LazyLock::new(|| MIGRATIONS.iter().map(|migration| digest(migration.text)).collect());

/// What of a schema is not the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Publication the tables join; none leaves change capture to the operator.
    pub publication: Option<String>,
}

/// A company's schema, as found or as made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Versions that were applied, with their digests.
    applied: Vec<(i32, String)>,
    /// How the company spells itself, once known.
    pub spelling: Option<String>,
}

/// What opening a company's schema did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Names of the migrations that were applied now.
    pub applied: Vec<&'static str>,
}

/// Why a company's schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It never reaches SQL.
    #[error("{0:?} is no company id: 1 to 48 of A-Z a-z 0-9 _ -")]
    BadCompany(String),
    /// Two companies would share a schema.
    #[error(
        "schema {schema} belongs to company {stored:?}; {met:?} is another spelling and is refused"
    )]
    OtherSpelling {
        /// The schema.
        schema: SchemaName,
        /// Who it belongs to.
        stored: String,
        /// Who wanted it.
        met: String,
    },
    /// The text of an applied migration is not what was applied.
    #[error("migration {version} ({name}) of schema {schema} was changed after it was applied")]
    Changed {
        /// The schema.
        schema: SchemaName,
        /// The migration's number.
        version: i32,
        /// And name.
        name: &'static str,
    },
    /// A newer daisi was here.
    #[error(
        "schema {schema} is at migration {version}, which this release does not know: upgrade daisi"
    )]
    Newer {
        /// The schema.
        schema: SchemaName,
        /// Its highest migration.
        version: i32,
    },
    /// Publication names are identifiers.
    #[error("{0:?} is no name of a publication: 1 to 63 of A-Z a-z 0-9 _ -")]
    BadPublication(String),
    /// PostgreSQL refused, or is away.
    #[error("{}", super::describe(.0))]
    Database(#[from] Error),
}

impl MigrateError {
    /// Does it say something about the company, so that trying again is of no use?
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Database(_))
    }
}

impl State {
    /// Migrations that are still to be applied.
    ///
    /// # Errors
    /// One was changed after it was applied, or a newer release was here.
    pub fn pending(&self, schema: &SchemaName) -> Result<&'static [Migration], MigrateError> {
        for (migration, digest) in MIGRATIONS.iter().zip(DIGESTS.iter()) {
            let found = self.applied.iter().find(|(version, _)| *version == migration.version);
            if found.is_some_and(|(_, applied)| applied != digest) {
                let (version, name) = (migration.version, migration.name);
                return Err(MigrateError::Changed { schema: schema.clone(), version, name });
            }
        }
        let version = self.applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
        match MIGRATIONS.get(usize::try_from(version).unwrap_or(0)..) {
            Some(pending) => Ok(pending),
            None => Err(MigrateError::Newer { schema: schema.clone(), version }),
        }
    }
}

/// Makes the schema of `company` ready for its rows: one question if it is, a migration if not. Partitions of
/// months are made as rows want them ([`months::Months`]) and ahead of that by the chores.
///
/// # Errors
/// The company cannot have a schema, or PostgreSQL refused; see [`MigrateError::is_final`].
pub async fn open(
    client: &Client,
    company: &str,
    options: &Options,
) -> Result<Opened, MigrateError> {
    let schema = schema_of(company)?;
    let state = look(client, &schema).await?;
    if state.pending(&schema)?.is_empty() && state.spelling.is_some() {
        check_spelling(&schema, &state, company)?;
        return Ok(Opened { applied: Vec::new() });
    }
    bring_up(client, company, options, Depth::Pending).await
}

/// Applies what is pending, renews what depends on the rows, also when nothing is pending, and makes the
/// partitions that the date asks for.
///
/// # Errors
/// As [`open`].
pub async fn migrate(
    client: &Client,
    company: &str,
    options: &Options,
) -> Result<Opened, MigrateError> {
    let opened = bring_up(client, company, options, Depth::All).await?;
    months::make_wanted(client, company).await?;
    Ok(opened)
}

/// How much a migration looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Nothing more once nothing is pending: another replica may have been first.
    Pending,
    /// What depends on the date and the rows as well.
    All,
}

async fn bring_up(
    client: &Client,
    company: &str,
    options: &Options,
    depth: Depth,
) -> Result<Opened, MigrateError> {
    let schema = schema_of(company)?;
    let publication = publication_of(options)?;
    let done = migrate_locked(client, &schema, company, depth).await;
    if done.is_err() {
        // The first error is the one to tell; a lost connection cannot roll back, and need not.
        let _rolled_back = client.batch_execute("ROLLBACK").await;
    }
    let opened = done?;
    if let Some(publication) = publication {
        client.batch_execute(&publish_text(&schema, publication)).await?;
    }
    Ok(opened)
}

/// What is known of a company's schema; an absent one is empty.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn look(client: &Client, schema: &SchemaName) -> Result<State, MigrateError> {
    match client.simple_query(&look_text(schema)).await {
        Ok(answer) => Ok(state_of(&answer)),
        Err(error) if is_absent(&error) => Ok(State::default()),
        Err(error) => Err(error.into()),
    }
}

/// Schemas of ours that exist, with the company's spelling where it is known.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn companies(client: &Client) -> Result<Vec<String>, MigrateError> {
    let text = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'daisi\\_%' ORDER BY nspname";
    let rows = client.simple_query(text).await?;
    let mut found = Vec::new();
    for name in rows_of(&rows).filter_map(|row| row.get(0)) {
        let Some(company) = name.strip_prefix(SchemaName::PREFIX) else { continue };
        let Some(schema) = SchemaName::of(company).filter(|schema| schema.as_str() == name) else {
            continue; // Not a name of ours.
        };
        let spelling = look(client, &schema).await?.spelling;
        found.push(spelling.unwrap_or_else(|| company.to_owned()));
    }
    Ok(found)
}

/// What of a schema depends on its rows and on the rights of the role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Partitions of messages, the default one included.
    pub partitions: u32,
    /// Tables whose rows did not allow a unique (agent, phone).
    pub not_unique: Vec<String>,
    /// Tables that should be in the publication and are not.
    pub not_published: Vec<String>,
}

/// Looks at a company's schema, which exists.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn facts(
    client: &Client,
    company: &str,
    options: &Options,
) -> Result<Facts, MigrateError> {
    let schema = schema_of(company)?;
    let publication = publication_of(options)?;
    let text = fill(FACTS, &schema)
        .replace("{bare}", schema.as_str())
        .replace("{publication}", publication.unwrap_or_default());
    let mut facts = Facts::default();
    for row in rows_of(&client.simple_query(&text).await?) {
        let value = row.get(1).unwrap_or_default();
        match row.get(0) {
            Some("partitions") => facts.partitions = value.parse().unwrap_or(0),
            Some("not unique") => facts.not_unique.push(value.to_owned()),
            Some("not published") if publication.is_some() => {
                facts.not_published.push(value.to_owned());
            }
            _ => {}
        }
    }
    Ok(facts)
}

const FACTS: &str = "\
    SELECT 'partitions', count(*)::text FROM pg_inherits WHERE inhparent = '{schema}.messages'::regclass \
    UNION ALL SELECT 'not unique', tab FROM unnest(ARRAY['contacts', 'onboarding_log']) AS tab \
    WHERE to_regclass(format('{schema}.uq_%s_agent_phone', tab)) IS NULL \
    UNION ALL SELECT 'not published', tab FROM unnest(ARRAY['agents', 'chats', 'contacts', 'messages_default']) AS tab \
    WHERE NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = '{publication}' \
    AND schemaname = '{bare}' AND tablename = tab)";

async fn migrate_locked(
    client: &Client,
    schema: &SchemaName,
    company: &str,
    depth: Depth,
) -> Result<Opened, MigrateError> {
    // Asked of the table of tables: `to_regclass` answers from a cache, in which what another replica made
    // while we waited for the lock is still missing.
    let lock = format!(
        "{BEGIN}SELECT pg_advisory_xact_lock(hashtextextended('daisi migrates {schema}', 0)); \
         SELECT 1 FROM pg_tables WHERE schemaname = '{schema}' AND tablename = 'daisi_migrations'"
    );
    let answer = client.simple_query(&lock).await?;
    let exists = rows_of(&answer).any(|row| row.get(0) == Some("1"));
    let state = if exists {
        state_of(&client.simple_query(&look_text(schema)).await?)
    } else {
        State::default()
    };
    if state.spelling.is_some() {
        check_spelling(schema, &state, company)?;
    }
    let pending = state.pending(schema)?;
    if depth == Depth::Pending && pending.is_empty() && state.spelling.is_some() {
        client.batch_execute("COMMIT").await?;
        return Ok(Opened { applied: Vec::new() });
    }
    client.batch_execute(&migrate_text(schema, company, pending)).await?;
    let state = state_of(&client.simple_query(&look_text(schema)).await?);
    check_spelling(schema, &state, company)?;
    client.batch_execute("COMMIT").await?;
    Ok(Opened { applied: pending.iter().map(|migration| migration.name).collect() })
}

fn migrate_text(schema: &SchemaName, company: &str, pending: &[Migration]) -> String {
    let mut text = SCHEMA.to_owned();
    for migration in pending {
        text.push_str(migration.text);
        let digest = &DIGESTS[usize::try_from(migration.version - 1).unwrap_or(0)];
        let _infallible = write!(
            text,
            "INSERT INTO {{schema}}.daisi_migrations (version, name, digest) VALUES ({}, '{}', '{digest}');",
            migration.version, migration.name
        );
    }
    text.push_str(&SPELLING.replace("{company}", company));
    text.push_str(UNIQUES);
    text.push_str(IDENTITY);
    fill(&text, schema)
}

fn publish_text(schema: &SchemaName, publication: &str) -> String {
    let text = PUBLICATION.replace("{publication}", publication);
    format!("SET client_min_messages = error; {} RESET client_min_messages", fill(&text, schema))
}

pub(super) fn fill(text: &str, schema: &SchemaName) -> String {
    text.replace("{schema}", &schema.quoted())
}

fn look_text(schema: &SchemaName) -> String {
    fill(
        "SELECT version, digest, NULL FROM {schema}.daisi_migrations UNION ALL \
         SELECT NULL, NULL, company FROM {schema}.daisi_tenant",
        schema,
    )
}

fn state_of(answer: &[SimpleQueryMessage]) -> State {
    let mut state = State::default();
    for row in rows_of(answer) {
        match (row.get(0).and_then(|text| text.parse().ok()), row.get(1)) {
            (Some(version), Some(digest)) => state.applied.push((version, digest.to_owned())),
            _ => state.spelling = row.get(2).map(str::to_owned),
        }
    }
    state
}

pub(super) fn rows_of(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = &SimpleQueryRow> {
    answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

pub(super) fn schema_of(company: &str) -> Result<SchemaName, MigrateError> {
    SchemaName::of(company).ok_or_else(|| MigrateError::BadCompany(company.to_owned()))
}

fn publication_of(options: &Options) -> Result<Option<&str>, MigrateError> {
    let Some(name) = options.publication.as_deref() else { return Ok(None) };
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(Some(name));
    }
    Err(MigrateError::BadPublication(name.to_owned()))
}

fn check_spelling(schema: &SchemaName, state: &State, company: &str) -> Result<(), MigrateError> {
    match &state.spelling {
        Some(stored) if stored != company => Err(MigrateError::OtherSpelling {
            schema: schema.clone(),
            stored: stored.clone(),
            met: company.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn is_absent(error: &Error) -> bool {
    let absent = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    error.code().is_some_and(|code| absent.contains(code))
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_from_one_and_texts_leave_nothing_to_fill_in() {
        let schema = SchemaName::of("Acme").unwrap();
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), index + 1);
            assert!(migration.text.starts_with("-- "), "{}", migration.name);
        }
        let text = migrate_text(&schema, "Acme", MIGRATIONS) + &publish_text(&schema, "p");
        for placeholder in ["{schema}", "{company}", "{publication}"] {
            assert!(!text.contains(placeholder), "{placeholder}");
        }
    }

    #[test]
    fn a_changed_migration_is_named_and_a_newer_schema_is_left_alone() {
        let schema = SchemaName::of("acme").unwrap();
        let with = |version, digest: &str| State {
            applied: vec![(version, digest.to_owned())],
            spelling: None,
        };
        let error = with(2, "another").pending(&schema).unwrap_err();
        assert!(error.to_string().contains("migration 2 (add_columns) of schema daisi_acme"));
        assert_eq!(State::default().pending(&schema).unwrap().len(), MIGRATIONS.len());
        let newer = with(i32::try_from(MIGRATIONS.len()).unwrap() + 1, "x").pending(&schema);
        assert!(matches!(newer, Err(MigrateError::Newer { .. })));
    }
}
