//! `daisi migrate`: brings schemas of companies up to this release from the command line, and tells what
//! became of each. What is done is the shards' own code (`edge::pg::migrate`). Invariant: one company that
//! cannot be migrated keeps none of the others from it, and shows in the exit code.

use std::fmt::Write;
use std::sync::Arc;

use shards::edge::pg::migrate::{self, Facts, MigrateError, Options};
use shards::edge::pg::{PgTls, connect, describe};
use shards::id::SchemaName;
use tokio_postgres::Client;

use crate::cli::{self, Exit, Global, MigrateArgs};
use crate::config::plan::TlsPlan;

/// Runs the command.
#[must_use]
pub fn main(global: &Global, args: &MigrateArgs) -> Exit {
    let plan = match global.plan() {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let Some(dsn) = &plan.postgres_dsn else {
        eprintln!("daisi: postgres.dsn is not set; set it, or POSTGRES_DSN in the environment");
        return Exit::Usage;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(migrate_all(dsn.expose(), args)));
    match done {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("daisi: {error}");
            Exit::Failed
        }
    }
}

async fn migrate_all(dsn: &str, args: &MigrateArgs) -> Result<Exit, String> {
    let client = open(dsn).await?;
    let options =
        Options { publication: (!args.publication.is_empty()).then(|| args.publication.clone()) };
    let companies = if args.all {
        migrate::companies(&client).await.map_err(|error| error.to_string())?
    } else {
        args.company.clone()
    };
    let mut failed = 0;
    for company in &companies {
        let told = if args.dry_run {
            foresee(&client, company).await
        } else {
            migrate_one(&client, company, &options).await
        };
        match told {
            Ok(line) if cli::print(&line) == Exit::Ok => {}
            Ok(_) => return Ok(Exit::Failed),
            Err(error) => {
                failed += 1;
                eprintln!("daisi: {company}: {error}");
            }
        }
    }
    let done = companies.len() - failed;
    let verb = if args.dry_run { "looked at" } else { "migrated" };
    let printed = cli::print(&format!("{done} of {} companies {verb}\n", companies.len()));
    Ok(if failed == 0 { printed } else { Exit::Failed })
}

/// A connection, as the connection string says.
pub(crate) async fn open(dsn: &str) -> Result<Client, String> {
    let tls = crate::tls::client_config(&TlsPlan::default())?;
    let config = connect::parse(dsn).map_err(|error| describe(&error))?;
    let connected = config.connect(PgTls::new(Arc::new(tls), "")).await;
    let (client, connection) = connected.map_err(|error| describe(&error))?;
    // Ends with the client; what it would tell, the client's calls tell too.
    tokio::spawn(connection);
    Ok(client)
}

async fn foresee(client: &Client, company: &str) -> Result<String, MigrateError> {
    let schema = SchemaName::of(company);
    let schema = schema.ok_or_else(|| MigrateError::BadCompany(company.to_owned()))?;
    let state = migrate::look(client, &schema).await?;
    let pending = state.pending(&schema)?;
    let names: Vec<&str> = pending.iter().map(|migration| migration.name).collect();
    Ok(match names.as_slice() {
        [] => format!("{company}: {schema} is up to date\n"),
        names => format!("{company}: {schema} would get {}\n", names.join(", ")),
    })
}

async fn migrate_one(
    client: &Client,
    company: &str,
    options: &Options,
) -> Result<String, MigrateError> {
    let opened = migrate::migrate(client, company, options).await?;
    let facts = migrate::facts(client, company, options).await?;
    Ok(line(company, &opened.applied, &facts))
}

fn line(company: &str, applied: &[&str], facts: &Facts) -> String {
    let mut line = format!("{company}: ");
    match applied {
        [] => line.push_str("was up to date"),
        names => line.push_str(&format!("applied {}", names.join(", "))),
    }
    let _infallible = write!(line, "; {} partitions of messages", facts.partitions);
    for (tables, what) in [
        (&facts.not_unique, "has equal (agent_id, phone_number) and stays without a unique index"),
        (&facts.not_published, "is not in the publication"),
    ] {
        for table in tables {
            let _infallible = write!(line, "\n  note: {table} {what}");
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_done_and_what_an_operator_should_know() {
        let quiet = Facts { partitions: 26, ..Facts::default() };
        assert_eq!(line("A", &[], &quiet), "A: was up to date; 26 partitions of messages\n");
        let facts = Facts {
            partitions: 3,
            not_unique: vec!["contacts".to_owned()],
            not_published: vec!["chats".to_owned()],
        };
        let told = line("A", &["create_tables", "add_columns"], &facts);
        assert!(told.starts_with("A: applied create_tables, add_columns; 3 partitions"), "{told}");
        assert!(
            told.contains("note: contacts has equal") && told.ends_with("not in the publication\n")
        );
    }
}
