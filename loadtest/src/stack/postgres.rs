//! A private PostgreSQL with logical replication on, trusting loopback.
//! Source of the probe: `postmaster.pid`, whose eighth line says `ready` (PostgreSQL, `miscadmin.h`).

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::StackError;
use super::server::{Kind, Server, User, guarded};

/// Settings of PostgreSQL; the default has `wal_level = logical` and everything else as shipped.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// The `postgres` binary, with `initdb` beside it; by default the newest installed.
    pub binary: Option<PathBuf>,
    /// Further settings, name and value; the last of two equal ones wins.
    pub settings: Vec<(String, String)>,
}

/// The running PostgreSQL.
pub type Postgres = Server<PostgresKind>;

/// What makes a [`Server`] a PostgreSQL.
#[derive(Debug)]
pub struct PostgresKind {
    options: PostgresOptions,
    user: Option<User>,
}

impl PostgresKind {
    pub(super) fn new(options: PostgresOptions) -> Self {
        // PostgreSQL refuses to run as root.
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        Self { options, user: is_root.then(service_user) }
    }
}

impl Postgres {
    /// `postgres://postgres@127.0.0.1:port/postgres`; no password is asked.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port())
    }
}

impl Kind for PostgresKind {
    const NAME: &'static str = "postgres";
    /// Immediate shutdown: as abrupt for the data as a kill, but the shared memory is given back.
    const DEATH_SIGNAL: &'static str = "QUIT";
    /// Fast shutdown: ends sessions, writes a checkpoint.
    const STOP_SIGNAL: Signal = Signal::INT;

    fn user(&self) -> Option<User> {
        self.user
    }

    fn prepare(&mut self, binary: &Path, home: &Path) -> Result<(), StackError> {
        if let Some(User { uid, gid }) = self.user {
            chown(home, Some(uid), Some(gid))
                .map_err(|e| StackError::io("hand over the folder of", Self::NAME, e))?;
        }
        let initdb = binary.with_file_name("initdb");
        let output = guarded(&initdb, "KILL", self.user)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--no-instructions", "-D"])
            .arg(data(home))
            .current_dir(home)
            .output()
            .map_err(|e| StackError::io("run initdb of", Self::NAME, e))?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(StackError::Exited { name: "initdb", status: output.status.to_string(), log })
    }

    fn arguments(&mut self, home: &Path, port: u16) -> Result<Vec<OsString>, StackError> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), data(home).into()];
        let sockets = home.to_string_lossy();
        let port = port.to_string();
        let fixed = [
            ("port", port.as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &sockets),
            ("wal_level", "logical"),
        ];
        let extra = self.options.settings.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in fixed.into_iter().chain(extra) {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        Ok(arguments)
    }

    fn probe(&self, home: &Path, port: u16, pid: u32) -> Result<(), String> {
        let path = data(home).join("postmaster.pid");
        let text = fs::read_to_string(path).map_err(|e| format!("read postmaster.pid: {e}"))?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let is_ours = lines.first() == Some(&pid.to_string().as_str());
        if is_ours && lines.get(3) == Some(&port.to_string().as_str()) {
            match lines.get(7) {
                Some(&"ready") => return Ok(()),
                state => return Err(format!("postmaster.pid says {state:?}")),
            }
        }
        Err("postmaster.pid is another's".into())
    }
}

fn data(home: &Path) -> PathBuf {
    home.join("data")
}

/// The user of the distribution's PostgreSQL, else nobody; initdb wants one that has a name.
fn service_user() -> User {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let is_wanted = fields.next() == Some(wanted);
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            is_wanted.then_some(User { uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody")).unwrap_or(User { uid: 65_534, gid: 65_534 })
}

/// A `psql -c` run against the server; for tests that want no client library.
impl Postgres {
    /// Runs `sql` through `psql` and returns the unaligned, tuples-only output.
    ///
    /// # Errors
    /// `psql` is not beside the server's binary, or refused the statement.
    pub fn psql(&self, sql: &str) -> Result<String, StackError> {
        let output = Command::new("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql])
            .output()
            .map_err(|e| StackError::io("run psql of", PostgresKind::NAME, e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(StackError::Exited { name: "psql", status: output.status.to_string(), log })
    }
}
