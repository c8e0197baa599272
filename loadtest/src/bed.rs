//! What a run stands on: servers that run already, or private ones in a temporary folder with a daisi of our own.
//! Invariant: what was started here ends with this process, however that ends; what runs already is left alone.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::results::Watched;
use crate::stack::{
    NatsOptions, PostgresOptions, RedisOptions, Stack, StackError, find_binary, spawn_kept,
};

/// How long daisi may take to be ready, and to end.
const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 20;

/// Where to run: private servers, or, with `--nats-url`, those that run.
#[derive(Clone, Debug, Default, Args)]
pub struct BedArgs {
    /// Private servers and this daisi, ended with the run.
    #[arg(long, value_name = "PATH")]
    pub daisi: Option<PathBuf>,
    /// A setting of the private daisi, key=value; may be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// PostgreSQL of a running daisi, needed to see rows.
    #[arg(long)]
    pub postgres_dsn: Option<String>,
    /// Redis of a running daisi; named in the report, else not used.
    #[arg(long)]
    pub redis_url: Option<String>,
    /// Number of the running daisi's process, whose CPU and memory are then measured.
    #[arg(long)]
    pub daisi_pid: Option<u32>,
}

impl BedArgs {
    /// What cannot be meant together, in words; `is_private` where no running server is named.
    ///
    /// # Errors
    /// The options at fault.
    pub fn check(&self, is_private: bool) -> Result<(), String> {
        let is_foreign = self.postgres_dsn.is_some() || self.redis_url.is_some();
        match is_private {
            true if is_foreign || self.daisi_pid.is_some() => {
                Err("--postgres-dsn, --redis-url and --daisi-pid go with --nats-url".into())
            }
            false if self.daisi.is_some() || !self.sets.is_empty() => {
                Err("--daisi and --set are for private servers: they do not go with --nats-url"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// Why there is nothing to run on.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// A server.
    #[error("{0}")]
    Stack(#[from] StackError),
    /// The operating system.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Its reason.
        source: io::Error,
    },
    /// daisi ended, or is not ready.
    #[error("daisi {what}; its log ends:\n{log}")]
    Daisi {
        /// What it did, or did not.
        what: String,
        /// Tail of its log.
        log: String,
    },
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> BedError {
    move |source| BedError::Io { doing: doing.into(), source }
}

/// Servers and a daisi.
#[derive(Debug)]
pub struct Bed {
    nats_url: String,
    postgres_dsn: Option<String>,
    daisi_pid: Option<u32>,
    redis_url: Option<String>,
    // Before the stack: it ends before its servers do.
    daisi: Option<Daisi>,
    stack: Option<Stack>,
    nats_pid: Arc<AtomicU32>,
}

impl Bed {
    /// Takes the servers that run, if `nats_url` names one, or starts private ones; a private daisi runs these
    /// stages, and has tables of these companies before the first event.
    ///
    /// # Errors
    /// What could not be started.
    pub fn start(
        args: &BedArgs,
        nats_url: Option<&str>,
        stages: &str,
        companies: &[String],
    ) -> Result<Self, BedError> {
        let Some(nats_url) = nats_url else {
            return Self::start_private(args, stages, companies);
        };
        Ok(Self {
            nats_url: nats_url.to_owned(),
            postgres_dsn: args.postgres_dsn.clone(),
            daisi_pid: args.daisi_pid,
            redis_url: args.redis_url.clone(),
            daisi: None,
            stack: None,
            nats_pid: Arc::default(),
        })
    }

    fn start_private(args: &BedArgs, stages: &str, companies: &[String]) -> Result<Self, BedError> {
        let binary = args.daisi.clone().map_or_else(find_daisi, Ok)?;
        let binary =
            fs::canonicalize(&binary).map_err(failed(format!("find {}", binary.display())))?;
        let stack = Stack::builder()
            .nats(NatsOptions::default())
            .redis(RedisOptions::default())
            .postgres(PostgresOptions::default())
            .start()?;
        let dsn = stack.postgres.url();
        let daisi =
            Daisi::start(&binary, &stack, &settings(&stack, stages, &args.sets), companies)?;
        Ok(Self {
            nats_url: stack.nats.url(),
            postgres_dsn: Some(dsn),
            daisi_pid: Some(daisi.child.id()),
            redis_url: Some(stack.redis.url()),
            daisi: Some(daisi),
            nats_pid: Arc::new(AtomicU32::new(stack.nats.pid().unwrap_or(0))),
            stack: Some(stack),
        })
    }

    /// Of the NATS server.
    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }

    /// Of PostgreSQL, if there is one.
    pub fn postgres_dsn(&self) -> Option<&str> {
        self.postgres_dsn.as_deref()
    }

    /// The private servers.
    pub fn stack(&mut self) -> Option<&mut Stack> {
        self.stack.as_mut()
    }

    /// Number of daisi's process, if it is known.
    pub fn daisi_pid(&self) -> Option<u32> {
        self.daisi_pid
    }

    /// Whether all of it is ours to break.
    pub fn is_private(&self) -> bool {
        self.stack.is_some()
    }

    /// In words, without secrets.
    pub fn text(&self) -> String {
        match &self.stack {
            Some(_) => "private servers".to_owned(),
            None => {
                let named =
                    [Some(&self.nats_url), self.redis_url.as_ref(), self.postgres_dsn.as_ref()];
                named.into_iter().flatten().map(|url| masked(url)).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The processes whose CPU and memory count.
    pub fn watched(&self) -> Vec<Watched> {
        let mut watched: Vec<Watched> =
            self.daisi_pid.map(|pid| Watched::new("daisi", pid)).into_iter().collect();
        if let Some(stack) = &self.stack {
            watched.push(Watched::following("nats-server", Arc::clone(&self.nats_pid)));
            watched.extend(stack.redis.pid().map(|pid| Watched::new("redis-server", pid)));
            let postgres = stack.postgres.pid();
            watched.extend(postgres.map(|pid| Watched::with_children("postgres", pid)));
        }
        watched
    }

    /// Versions by name, as far as they can be asked for.
    pub fn versions(&self) -> Vec<(String, String)> {
        let mut versions = Vec::new();
        if let Some(stack) = &self.stack {
            let servers = [
                ("nats-server", stack.nats.version()),
                ("redis-server", stack.redis.version()),
                ("postgres", stack.postgres.version()),
            ];
            let told = servers
                .into_iter()
                .filter_map(|(name, version)| Some((name.to_owned(), version.ok()?)));
            versions.extend(told);
        }
        versions
            .extend(self.daisi.as_ref().map(|daisi| ("daisi".to_owned(), daisi.version.clone())));
        versions
    }

    /// Kills a nats-server of ours and starts it again on its port and data; true if there is one.
    ///
    /// # Errors
    /// It does not come back.
    pub fn restart_nats(&mut self) -> Result<bool, BedError> {
        let Some(stack) = &mut self.stack else { return Ok(false) };
        stack.nats.kill();
        stack.nats.start()?;
        self.nats_pid.store(stack.nats.pid().unwrap_or(0), Ordering::Relaxed);
        Ok(true)
    }

    /// Ends what was started here, daisi cleanly.
    ///
    /// # Errors
    /// daisi did not end by itself, or not with success.
    pub fn finish(mut self) -> Result<(), BedError> {
        match self.daisi.take() {
            Some(daisi) => daisi.stop(),
            None => Ok(()),
        }
    }
}

/// The defaults of the configuration, and the servers; streams find room on a small disk. What the user sets comes
/// last and wins.
fn settings(stack: &Stack, stages: &str, sets: &[String]) -> Vec<String> {
    let mut all = vec![
        format!("nats.servers={}", stack.nats.url()),
        format!("redis.url={}", stack.redis.url()),
        format!("postgres.dsn={}", stack.postgres.url()),
        format!("stages={stages}"),
        "cdc.stream_max_bytes=2GiB".to_owned(),
        "cdc.output_max_bytes=2GiB".to_owned(),
        "ingest.stream_max_bytes=2GiB".to_owned(),
        "ingest.history_max_bytes=2GiB".to_owned(),
        "control.listen=127.0.0.1:0".to_owned(),
    ];
    all.extend(sets.iter().cloned());
    all
}

/// The daisi beside this binary, else the one in PATH.
fn find_daisi() -> Result<PathBuf, BedError> {
    let own = std::env::current_exe().map_err(failed("find this binary"))?;
    let beside = own.with_file_name("daisi");
    if beside.is_file() {
        return Ok(beside);
    }
    Ok(find_binary("daisi")?)
}

/// A running daisi.
#[derive(Debug)]
struct Daisi {
    child: Child,
    log: PathBuf,
    version: String,
}

impl Daisi {
    fn start(
        binary: &Path,
        stack: &Stack,
        settings: &[String],
        companies: &[String],
    ) -> Result<Self, BedError> {
        let home = stack.folder().join("daisi");
        fs::create_dir(&home).map_err(failed("make daisi's folder"))?;
        let log = home.join("log");
        let sets: Vec<String> = settings.iter().map(|set| format!("--set={set}")).collect();
        if !companies.is_empty() {
            let mut migrate = command(binary, &home, &log)?;
            migrate.args(&sets).arg("migrate");
            for company in companies {
                migrate.args(["--company", company]);
            }
            let mut child = spawn_kept(migrate).map_err(failed("start daisi migrate"))?;
            let status = child.wait().map_err(failed("wait for daisi migrate"))?;
            if !status.success() {
                let what = format!("migrate ended with {status}");
                return Err(BedError::Daisi { what, log: tail(&log) });
            }
        }
        let version = Command::new(binary).arg("--version").output();
        let version = version.map_err(failed(format!("run {}", binary.display())))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version.trim().trim_start_matches("daisi ").to_owned();
        let mut run = command(binary, &home, &log)?;
        run.args(&sets).arg("run");
        let child = spawn_kept(run).map_err(failed("start daisi"))?;
        let mut daisi = Self { child, log, version };
        daisi.await_ready()?;
        Ok(daisi)
    }

    fn await_ready(&mut self) -> Result<(), BedError> {
        let deadline = Instant::now() + READY_MAX;
        let mut missing = "it does not say where its pages are".to_owned();
        loop {
            if let Some(status) = self.exited(Duration::ZERO)? {
                return Err(self.error(format!("ended with {status}")));
            }
            if let Some(address) = address(&self.log) {
                match ready(address) {
                    Ok((true, _)) => return Ok(()),
                    Ok((false, page)) => missing = page,
                    Err(error) => missing = error.to_string(),
                }
            }
            if Instant::now() > deadline {
                return Err(self.error(format!("is not ready within {READY_MAX:?}: {missing}")));
            }
            sleep(POLL);
        }
    }

    fn stop(mut self) -> Result<(), BedError> {
        if let Some(status) = self.exited(Duration::ZERO)? {
            return Err(self.error(format!("ended with {status} during the run")));
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
        match self.exited(STOP_MAX)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.error(format!("ended with {status}"))),
            None => Err(self.error(format!("did not end within {STOP_MAX:?}"))),
        }
    }

    fn exited(&mut self, patience: Duration) -> Result<Option<ExitStatus>, BedError> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.child.try_wait().map_err(failed("wait for daisi"))?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            sleep(POLL);
        }
    }

    fn error(&self, what: String) -> BedError {
        BedError::Daisi { what, log: tail(&self.log) }
    }
}

impl Drop for Daisi {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without the caller's environment, whose variables are settings too; ended with this process.
fn command(binary: &Path, home: &Path, log: &Path) -> Result<Command, BedError> {
    let out =
        File::options().create(true).append(true).open(log).map_err(failed("open daisi's log"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary).env_clear();
    command.current_dir(home).stdin(Stdio::null());
    command.stderr(out.try_clone().map_err(failed("open daisi's log"))?).stdout(out);
    Ok(command)
}

/// Where its pages are, as its log says.
fn address(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("\"daisi runs\""))?;
    let (_, rest) = line.split_once("\"address\":\"")?;
    rest.split('"').next()?.parse().ok()
}

/// Whether it takes traffic, and what it says.
fn ready(address: SocketAddr) -> io::Result<(bool, String)> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET /ready HTTP/1.1\r\nhost: daisi\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let is_ready = text.split(' ').nth(1) == Some("200");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((is_ready, body.to_owned()))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// An address without what stands before its `@`.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // The other form of a connection string: words, of which one is the password.
        let words = url.split_whitespace().filter(|word| !word.starts_with("password"));
        return words.collect::<Vec<_>>().join(" ");
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn secrets_are_left_out() {
        assert_eq!(masked("nats://u:p@h:4222"), "nats://h:4222");
        assert_eq!(masked("host=h password=p user=u"), "host=h user=u");
        assert_eq!(masked("nats://h"), "nats://h");
    }
}
