//! One private server: started, probed, killed, stopped, paused, started again on its port and data.
//! Invariant: `start` returns only when *our* process answers on the port, not another's that took it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{StackError, keeper};

/// How often a fresh port is drawn before giving up.
const PORT_DRAWS_MAX: u32 = 8;
/// How long a server may take to answer. PostgreSQL replays its log after a kill.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a clean stop may take before SIGKILL.
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(3);
const LOG_TAIL_BYTES: u64 = 2048;
/// Below Linux's ephemeral range (32768..): a client that reconnects to a dead server there could
/// otherwise be handed that very port as its own and connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A user other than ours under whom a server runs.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
}

/// What differs between the servers.
pub trait Kind {
    /// Name of the binary, also used in errors.
    const NAME: &'static str;
    /// Signal that ends it when this process dies, as `setpriv --pdeathsig` spells it.
    const DEATH_SIGNAL: &'static str = "KILL";
    /// Signal for a clean stop.
    const STOP_SIGNAL: Signal = Signal::TERM;

    /// The user it must run as, if not ours.
    fn user(&self) -> Option<User> {
        None
    }
    /// Done once, before the first start.
    ///
    /// # Errors
    /// What prevented it, with the tool's output.
    fn prepare(&mut self, binary: &Path, home: &Path) -> Result<(), StackError>;
    /// The command line for this port; writes the configuration it names.
    ///
    /// # Errors
    /// The configuration could not be written.
    fn arguments(&mut self, home: &Path, port: u16) -> Result<Vec<OsString>, StackError>;
    /// Whether the process `pid` serves on `port`; in words what is missing if not.
    ///
    /// # Errors
    /// The reason it is not ready yet.
    fn probe(&self, home: &Path, port: u16, pid: u32) -> Result<(), String>;
}

/// A server of one kind, with its folder and port.
#[derive(Debug)]
pub struct Server<K: Kind> {
    pub(super) kind: K,
    binary: PathBuf,
    home: PathBuf,
    port: u16,
    child: Option<Child>,
    log_start: u64,
}

impl<K: Kind> Server<K> {
    pub(super) fn launch(kind: K, binary: PathBuf, home: PathBuf) -> Result<Self, StackError> {
        fs::create_dir_all(&home)
            .map_err(|e| StackError::io("create the folder of", K::NAME, e))?;
        let mut server = Self { kind, binary, home, port: 0, child: None, log_start: 0 };
        server.kind.prepare(&server.binary, &server.home)?;
        for _ in 0..PORT_DRAWS_MAX {
            server.port = draw_port(K::NAME)?;
            match server.start_once() {
                Err(StackError::Exited { log, .. }) if says_port_taken(&log) => {}
                Err(other) => return Err(other),
                Ok(()) => return Ok(server),
            }
        }
        Err(StackError::PortsTaken { name: K::NAME, draws: PORT_DRAWS_MAX })
    }

    /// Starts it again on the same port and data; nothing if it runs.
    ///
    /// # Errors
    /// It exited, or did not answer within 30 s; the error holds the tail of its log.
    pub fn start(&mut self) -> Result<(), StackError> {
        if self.is_running() {
            return Ok(());
        }
        let deadline = Instant::now() + STOP_MAX;
        loop {
            match self.start_once() {
                // Connections of the killed one may hold the port, or its children its memory, a moment.
                Err(StackError::Exited { log, .. })
                    if Instant::now() < deadline && says_port_taken(&log) =>
                {
                    sleep(Duration::from_millis(50));
                }
                other => return other,
            }
        }
    }

    /// SIGKILL to it and its children; returns when they are gone. Data and port stay.
    pub fn kill(&mut self) {
        let tree = self.tree();
        signal_all(&tree, Signal::KILL);
        self.reap(&tree);
    }

    /// Clean stop; SIGKILL after 10 s. Data and port stay.
    pub fn stop(&mut self) {
        let tree = self.tree();
        // A stopped process would keep the signal pending.
        signal_all(&tree, Signal::CONT);
        signal_all(&tree[..tree.len().min(1)], K::STOP_SIGNAL);
        if self.wait_exit(STOP_MAX).is_none() {
            signal_all(&self.tree(), Signal::KILL);
        }
        self.reap(&tree);
    }

    /// SIGSTOP to it and its children: connections stay open and nobody answers.
    pub fn pause(&self) {
        signal_all(&self.tree(), Signal::STOP);
    }

    /// SIGCONT: ends a pause.
    pub fn resume(&self) {
        signal_all(&self.tree(), Signal::CONT);
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the process is there, paused included.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// TCP port on 127.0.0.1; the same for the whole life of the stack.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Folder of its data, configuration and log.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The number in the first line of `<binary> --version`, such as `2.9.10`.
    ///
    /// # Errors
    /// The binary could not be run.
    pub fn version(&self) -> Result<String, StackError> {
        let output = Command::new(&self.binary)
            .arg("--version")
            .output()
            .map_err(|e| StackError::io("ask the version of", K::NAME, e))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "nats-server: v2.9.10", "Redis server v=7.0.15 sha=...", "postgres (PostgreSQL) 15.18 (...)"
        let numbers = text.split_ascii_whitespace().map(|word| word.trim_start_matches(['v', '=']));
        let mut versions = numbers.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        Ok(versions.next().unwrap_or_else(|| text.trim()).to_owned())
    }

    /// The last 2 KiB that it logged since its last start.
    pub fn log_tail(&self) -> String {
        read_tail(&self.log_path(), self.log_start).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.home.with_extension("log")
    }

    fn start_once(&mut self) -> Result<(), StackError> {
        let arguments = self.kind.arguments(&self.home, self.port)?;
        let path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(|e| StackError::io("open the log of", K::NAME, e))?;
        self.log_start = log.metadata().map_or(0, |m| m.len());
        let command = self.command(&arguments, log);
        let child = keeper::spawn(command).map_err(|e| StackError::io("start", K::NAME, e))?;
        self.child = Some(child);
        let ready = self.await_ready();
        if ready.is_err() {
            self.kill();
        }
        ready
    }

    fn command(&self, arguments: &[OsString], log: File) -> Command {
        let mut command = guarded(&self.binary, K::DEATH_SIGNAL, self.kind.user());
        // Out of our process group: Ctrl-C is for us, the servers end when we say so. The current
        // directory is how the watcher knows them.
        command.args(arguments).current_dir(&self.home).process_group(0).stdin(Stdio::null());
        if let Ok(second) = log.try_clone() {
            command.stderr(second);
        }
        command.stdout(log);
        command
    }

    fn await_ready(&mut self) -> Result<(), StackError> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.wait_exit(Duration::ZERO) {
                let status = status.to_string();
                return Err(StackError::Exited { name: K::NAME, status, log: self.log_tail() });
            }
            let missing = match self.kind.probe(&self.home, self.port, self.pid().unwrap_or(0)) {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            let waited = started.elapsed();
            if waited > READY_MAX {
                return Err(StackError::NotReady {
                    name: K::NAME,
                    waited,
                    missing,
                    log: self.log_tail(),
                });
            }
            sleep(POLL);
        }
    }

    /// `Some` once it has exited; the child is forgotten then.
    fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.as_mut()?.try_wait().ok()? {
                self.child = None;
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(POLL);
        }
    }

    fn reap(&mut self, tree: &[u32]) {
        if let Some(mut child) = self.child.take() {
            // It got SIGKILL or has exited; the only error possible is that it was reaped before.
            let _ = child.wait();
        }
        let deadline = Instant::now() + STOP_MAX;
        while tree.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
            sleep(POLL);
        }
    }

    /// Its pid first, then its children's: PostgreSQL serves each connection from a child.
    fn tree(&self) -> Vec<u32> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }
}

impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        if K::DEATH_SIGNAL == "KILL" {
            self.kill();
        } else {
            self.stop();
        }
    }
}

/// `binary` behind `setpriv`: ended by `death_signal` with its starter, as `user` if one is given.
pub(super) fn guarded(binary: &Path, death_signal: &str, user: Option<User>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", death_signal]);
    if let Some(User { uid, gid }) = user {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    }
    command.arg("--").arg(binary);
    command
}

fn draw_port(name: &'static str) -> Result<u16, StackError> {
    for _ in 0..256 {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(StackError::PortsTaken { name, draws: 256 })
}

/// What the three servers say when their port, or PostgreSQL's shared memory, is still held.
fn says_port_taken(log: &str) -> bool {
    let log = log.to_ascii_lowercase();
    log.contains("already in use") || log.contains("is still in use")
}

fn signal_all(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // Gone already is what a signal to end it wants.
            let _ = kill_process(pid, signal);
        }
    }
}

/// A zombie counts as gone: its parent has yet to notice, but it holds nothing.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn read_tail(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
