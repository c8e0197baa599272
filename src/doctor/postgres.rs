//! What PostgreSQL says of itself, if a connection string is set. Read only: SHOW. Source: PostgreSQL manual,
//! "Write Ahead Log" settings.

use std::time::Duration;

use shards::edge::pg::describe;
use tokio_postgres::{Client, NoTls};

use super::Durability;
use super::report::{Area, Finding};
use crate::config::plan::Plan;
use crate::host;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Oldest major version that is still maintained upstream while this is written.
const MAJOR_MIN: u32 = 14;

/// What the server said.
#[derive(Clone, Debug, Default)]
struct Facts {
    version: String,
    synchronous_commit: String,
    wal_level: String,
}

pub(super) fn examine(plan: &Plan, findings: &mut Vec<Finding>, durability: &mut Durability) {
    let Some(dsn) = &plan.postgres_dsn else { return };
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(ask(dsn.expose())));
    match asked {
        Ok(facts) => {
            durability.postgres_synced = Some(facts.synchronous_commit != "off");
            findings.push(Finding::ok(Area::Postgres, "connection", "answers"));
            findings.extend(judge(&facts));
        }
        Err(error) => findings.push(Finding::fail(
            Area::Postgres,
            "connection",
            error,
            "start the server, or correct postgres.dsn; this check speaks no TLS (sslmode=require)",
        )),
    }
}

async fn ask(dsn: &str) -> Result<Facts, String> {
    let work = async {
        let (client, connection) =
            tokio_postgres::connect(dsn, NoTls).await.map_err(|error| describe(&error))?;
        let driver = tokio::spawn(connection);
        let facts = Facts {
            version: show(&client, "server_version").await?,
            synchronous_commit: show(&client, "synchronous_commit").await?,
            wal_level: show(&client, "wal_level").await?,
        };
        drop(client);
        let _ = driver.await;
        Ok(facts)
    };
    tokio::time::timeout(TIMEOUT, work).await.map_err(|_| "no answer in time".to_owned())?
}

async fn show(client: &Client, setting: &str) -> Result<String, String> {
    let rows =
        client.simple_query(&format!("SHOW {setting}")).await.map_err(|error| describe(&error))?;
    let value = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    value.ok_or_else(|| format!("{setting} has no value"))
}

fn judge(facts: &Facts) -> [Finding; 3] {
    let old = host::parse_version(&facts.version).is_none_or(|(major, _)| major < MAJOR_MIN);
    let version = facts.version.clone();
    [
        if old {
            Finding::warn(
                Area::Postgres,
                "version",
                version,
                "upgrade: this version gets no fixes any more",
            )
        } else {
            Finding::ok(Area::Postgres, "version", version)
        },
        if facts.synchronous_commit == "off" {
            let fact = "off: a power loss takes the last commits, whose events may be out already";
            Finding::warn(
                Area::Postgres,
                "synchronous_commit",
                fact,
                "set synchronous_commit to on",
            )
        } else {
            Finding::ok(Area::Postgres, "synchronous_commit", &*facts.synchronous_commit)
        },
        if facts.wal_level == "logical" {
            Finding::ok(Area::Postgres, "wal_level", "logical")
        } else {
            let remedy = "set wal_level = logical and restart: change capture needs it";
            Finding::warn(Area::Postgres, "wal_level", &*facts.wal_level, remedy)
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn settings_are_judged() {
        let levels = |version: &str, commit: &str, wal: &str| {
            let facts = Facts {
                version: version.into(),
                synchronous_commit: commit.into(),
                wal_level: wal.into(),
            };
            judge(&facts).map(|finding| finding.level)
        };
        assert_eq!(levels("15.14 (Debian)", "on", "logical"), [Level::Ok; 3]);
        assert_eq!(levels("9.6", "off", "replica"), [Level::Warn; 3]);
    }
}
