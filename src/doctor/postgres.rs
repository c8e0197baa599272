//! What PostgreSQL says of itself, if a connection string is set, beside `tuning/postgresql/daisi.conf`. Read
//! only: pg_settings. Source: PostgreSQL manual, "Write Ahead Log" and "Resource Consumption".

use std::collections::HashMap;
use std::time::Duration;

use shards::edge::pg::describe;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::Durability;
use super::report::{Area, Finding};
use crate::config::plan::Plan;
use crate::host;
use crate::tune::files;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Oldest major version that is still maintained upstream while this is written.
const MAJOR_MIN: u32 = 14;
/// From which `wal_compression` knows LZ4.
const MAJOR_LZ4: u32 = 15;
const QUERY: &str = "SELECT name, current_setting(name), setting FROM pg_settings";

/// What a setting must be; where it depends on the machine, what is surely too little.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// It is never to be off: acknowledged events would be lost. Why.
    Kept(&'static str),
    /// It is better not off. Why.
    On(&'static str),
    /// Better not below, in the unit of pg_settings. Why.
    AtLeast(f64, &'static str),
}

/// One a line of the file; `wal_level` and `synchronous_commit` too, in words of their own.
const SETTINGS: [(&str, Wanted); 10] = [
    ("fsync", Wanted::Kept("a power loss takes commits whose events were acknowledged")),
    (
        "full_page_writes",
        Wanted::On("a power loss leaves half pages, unless the file system writes whole ones"),
    ),
    ("wal_compression", Wanted::On("whole pages after each checkpoint fill the log")),
    ("max_wal_size", Wanted::AtLeast(4096.0, "checkpoints come by size, in the middle of a load")),
    ("min_wal_size", Wanted::AtLeast(1024.0, "files of the log are made anew after a quiet time")),
    ("wal_recycle", Wanted::On("files of the log are made anew all the time")),
    ("checkpoint_timeout", Wanted::AtLeast(900.0, "each page is logged whole again after it")),
    ("checkpoint_completion_target", Wanted::AtLeast(0.9, "a checkpoint writes in bursts")),
    ("shared_buffers", Wanted::AtLeast(131_072.0, "indexes of open months do not fit")),
    ("huge_pages", Wanted::On("large shared memory costs page tables in every process")),
];

/// What the server said: of each setting its value for people, and the number or word behind it.
#[derive(Clone, Debug, Default)]
struct Facts(HashMap<String, (String, String)>);

impl Facts {
    fn shown(&self, name: &str) -> &str {
        self.0.get(name).map_or("not told", |(shown, _)| shown)
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(_, raw)| raw.as_str())
    }

    fn major(&self) -> u32 {
        host::parse_version(self.shown("server_version")).map_or(0, |(major, _)| major)
    }
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
            let is_off = |name| facts.raw(name) == Some("off");
            durability.postgres_synced = Some(!is_off("synchronous_commit") && !is_off("fsync"));
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
        let facts = settings(&client).await?;
        drop(client);
        let _ = driver.await;
        Ok(facts)
    };
    tokio::time::timeout(TIMEOUT, work).await.map_err(|_| "no answer in time".to_owned())?
}

async fn settings(client: &Client) -> Result<Facts, String> {
    let rows = client.simple_query(QUERY).await.map_err(|error| describe(&error))?;
    let text = |row: &tokio_postgres::SimpleQueryRow, column| row.get(column).map(str::to_owned);
    let settings = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((text(row, 0)?, (text(row, 1)?, text(row, 2)?))),
        _ => None,
    });
    Ok(Facts(settings.collect()))
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let version = facts.shown("server_version").to_owned();
    let mut findings = vec![
        if facts.major() < MAJOR_MIN {
            let remedy = "upgrade: this version gets no fixes any more";
            Finding::warn(Area::Postgres, "version", version, remedy)
        } else {
            Finding::ok(Area::Postgres, "version", version)
        },
        if facts.raw("synchronous_commit") == Some("off") {
            let fact = "off: a power loss takes the last commits, whose events may be out already";
            Finding::warn(
                Area::Postgres,
                "synchronous_commit",
                fact,
                "set synchronous_commit to on",
            )
        } else {
            Finding::ok(Area::Postgres, "synchronous_commit", facts.shown("synchronous_commit"))
        },
        if facts.raw("wal_level") == Some("logical") {
            Finding::ok(Area::Postgres, "wal_level", "logical")
        } else {
            let remedy = "set wal_level = logical and restart: change capture needs it";
            Finding::warn(Area::Postgres, "wal_level", facts.shown("wal_level"), remedy)
        },
    ];
    findings.extend(SETTINGS.iter().map(|(name, wanted)| setting(facts, name, *wanted)));
    findings
}

fn setting(facts: &Facts, name: &'static str, wanted: Wanted) -> Finding {
    let shown = facts.shown(name).to_owned();
    let is_off = facts.raw(name) == Some("off");
    let told = |why: &str| format!("{shown}: {why}");
    let remedy = || format!("set {name} = {} (tuning/postgresql/daisi.conf)", value(facts, name));
    match wanted {
        Wanted::Kept(why) if is_off => Finding::fail(Area::Postgres, name, told(why), &remedy()),
        Wanted::On(why) if is_off => Finding::warn(Area::Postgres, name, told(why), &remedy()),
        Wanted::AtLeast(least, why) if facts.raw(name).is_some_and(|raw| is_below(raw, least)) => {
            Finding::warn(Area::Postgres, name, told(why), &remedy())
        }
        _ => Finding::ok(Area::Postgres, name, shown),
    }
}

// As in the file, but for what depends on the machine and the version.
fn value(facts: &Facts, name: &str) -> &'static str {
    match name {
        "shared_buffers" => "a quarter of the machine's memory",
        "wal_compression" if facts.major() < MAJOR_LZ4 => "on",
        _ => {
            let lines = files::assignments(files::POSTGRES);
            lines.iter().find(|(have, _)| *have == name).map_or("", |(_, value)| value)
        }
    }
}

fn is_below(raw: &str, least: f64) -> bool {
    raw.parse::<f64>().is_ok_and(|value| value < least)
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    fn facts(settings: &[(&str, &str, &str)]) -> Facts {
        let own = |&(name, shown, raw): &(&str, &str, &str)| {
            (name.to_owned(), (shown.to_owned(), raw.to_owned()))
        };
        Facts(settings.iter().map(own).collect())
    }

    fn level(found: &[Finding], name: &str) -> Level {
        found.iter().find(|finding| finding.name == name).unwrap().level
    }

    #[test]
    fn settings_are_judged() {
        let shipped = facts(&[
            ("server_version", "15.14 (Debian)", "15.14 (Debian)"),
            ("synchronous_commit", "on", "on"),
            ("wal_level", "replica", "replica"),
            ("fsync", "on", "on"),
            ("wal_compression", "off", "off"),
            ("max_wal_size", "1GB", "1024"),
            ("shared_buffers", "128MB", "16384"),
            ("huge_pages", "try", "try"),
        ]);
        let found = judge(&shipped);
        for (name, expected) in [
            ("version", Level::Ok),
            ("synchronous_commit", Level::Ok),
            ("wal_level", Level::Warn),
            ("fsync", Level::Ok),
            ("wal_compression", Level::Warn),
            ("max_wal_size", Level::Warn),
            ("shared_buffers", Level::Warn),
            ("huge_pages", Level::Ok),
        ] {
            assert_eq!(level(&found, name), expected, "{name}");
        }
        let remedy = |name| found.iter().find(|f| f.name == name).unwrap().remedy.clone().unwrap();
        assert!(remedy("wal_compression").contains("= lz4"));
        let weak = judge(&facts(&[
            ("server_version", "9.6", "9.6"),
            ("fsync", "off", "off"),
            ("synchronous_commit", "off", "off"),
        ]));
        assert_eq!(level(&weak, "version"), Level::Warn);
        assert_eq!(level(&weak, "fsync"), Level::Fail);
        assert_eq!(level(&weak, "synchronous_commit"), Level::Warn);
    }

    #[test]
    fn every_line_of_the_file_is_looked_at_and_the_other_way_round() {
        let mut looked_at: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
        looked_at.extend(["synchronous_commit", "wal_level"]);
        looked_at.sort_unstable();
        let lines = files::assignments(files::POSTGRES);
        let mut written: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        written.sort_unstable();
        assert_eq!(looked_at, written);
    }
}
