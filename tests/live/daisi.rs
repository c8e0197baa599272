//! The binary under test as a process: started, asked over HTTP, paused, killed. Invariant: it never
//! outlives its test (death signal, the stack's watcher on its folder, and `Drop`).

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::metrics::Metrics;
use crate::world::{World, eventually};

/// Until a process on a busy machine has opened its pages.
const START_MAX: Duration = Duration::from_secs(15);
/// Until it may take traffic: streams, lease, consumer.
pub const READY_MAX: Duration = Duration::from_secs(20);
const HTTP_MAX: Duration = Duration::from_secs(5);

/// A running `daisi run`.
#[derive(Debug)]
pub struct Daisi {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Daisi {
    /// Starts it on the world's servers; `sets` are stronger than the world's own settings.
    pub fn spawn(world: &World, sets: &[(&str, &str)]) -> Self {
        Self::spawn_with(world, sets, &[])
    }

    /// As [`Self::spawn`], with variables in its environment, which is empty otherwise.
    pub fn spawn_with(world: &World, sets: &[(&str, &str)], env: &[(&str, &str)]) -> Self {
        let home = world.new_folder("daisi");
        let log = home.join("log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_daisi")]);
        for (key, value) in world.settings().iter().chain(&owned(sets)) {
            command.arg(format!("--set={key}={value}"));
        }
        command.arg("run").env_clear().envs(env.iter().copied());
        // Its folder is how the stack's watcher knows it.
        command.current_dir(&home).stdin(Stdio::null());
        let out = File::create(&log).expect("a log file");
        command.stdout(out.try_clone().expect("a second handle")).stderr(out);
        let mut child = command.spawn().expect("setpriv starts");
        let address = await_address(&mut child, &log);
        Self { child, log, address }
    }

    /// Waits until `/ready` says so.
    #[track_caller]
    pub fn ready(&self, within: Duration) -> &Self {
        let deadline = Instant::now() + within;
        loop {
            let last = self.try_get("/ready");
            match &last {
                Ok((200, _)) => return self,
                _ if Instant::now() < deadline => sleep(Duration::from_millis(10)),
                _ => panic!("not ready within {within:?}: {last:?}\n{}", self.log_tail()),
            }
        }
    }

    /// Waits until `/ready` says no with a reason that holds `text`; the body.
    #[track_caller]
    pub fn not_ready(&self, text: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            let (status, body) = self.get("/ready");
            if status == 503 && body.contains(text) {
                return body;
            }
            let log = || self.log_tail();
            assert!(Instant::now() < deadline, "/ready does not say {text:?}: {body}\n{}", log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Status and body of one page.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        match self.try_get(path) {
            Ok(answer) => answer,
            Err(error) => panic!("GET {path}: {error}\n{}", self.log_tail()),
        }
    }

    fn try_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, HTTP_MAX)?;
        stream.set_read_timeout(Some(HTTP_MAX))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: daisi\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::from(ErrorKind::InvalidData))?;
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        Ok((status, body.unwrap_or_default()))
    }

    /// One scrape.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200, "{page}");
        Metrics::parse(&page)
    }

    /// Waits until `count` events have their outcome and none is under way; the books must balance.
    #[track_caller]
    pub fn settled(&self, count: u64, within: Duration) -> Metrics {
        let deadline = Instant::now() + within;
        loop {
            let metrics = self.metrics();
            if metrics.ended() >= count && metrics.in_flight() == 0 && metrics.residual() == 0.0 {
                assert_eq!(metrics.ended(), count, "outcomes");
                return metrics;
            }
            if Instant::now() >= deadline {
                let (ended, held) = (metrics.ended(), metrics.in_flight());
                let (pulled, residual) = (metrics.pulled(), metrics.residual());
                panic!(
                    "of {count} events {ended} ended within {within:?}; pulled {pulled}, in flight \
                     {held}, residual {residual}\n{}\n{}",
                    self.get("/ready").1,
                    self.log_tail()
                );
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// As [`Self::settled`], of the ingest stage.
    #[track_caller]
    pub fn ingested(&self, count: u64, within: Duration) -> Metrics {
        let deadline = Instant::now() + within;
        loop {
            let metrics = self.metrics();
            let held = metrics.sum("daisi_ingest_in_flight_events", &[]);
            let ended = metrics.sum("daisi_ingest_events_total", &[]);
            let is_balanced = metrics.sum("daisi_ingest_residual_events", &[]) == 0;
            if ended >= count && held == 0 && is_balanced {
                assert_eq!(ended, count, "outcomes");
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "of {count} events {ended} ended within {within:?}, in flight {held}\n{}",
                self.condition()
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill9(&mut self) {
        // Gone already is what a kill wants.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }

    /// SIGTERM, and its exit status.
    #[track_caller]
    pub fn term(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit(within)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            let log = || self.log_tail();
            let ready = || self.try_get("/ready");
            assert!(Instant::now() < deadline, "runs on: {:?}\n{}", ready(), log());
            sleep(Duration::from_millis(5));
        }
    }

    /// SIGSTOP: it holds its connections and does nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is our child");
    }

    /// Whether it reads the partition of a source that has one.
    pub fn is_reading(&self) -> bool {
        self.partitions() == [0]
    }

    /// The partitions that it reads.
    #[track_caller]
    pub fn partitions(&self) -> Vec<u64> {
        let page: Value = serde_json::from_str(&self.get("/shards").1).expect("JSON");
        let shards = page.as_array().expect("a list");
        let lists = shards.iter().filter_map(|shard| shard["partitions"].as_array());
        let mut partitions: Vec<u64> = lists.flatten().filter_map(Value::as_u64).collect();
        partitions.sort_unstable();
        partitions
    }

    /// Resident memory, KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Processor time it has used, user and system, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // Behind the name, which may hold anything: proc(5), fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        fields.split(' ').skip(11).take(2).map(|text| text.parse::<u64>().expect("ticks")).sum()
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        tail(&self.log())
    }

    // What tells a stall apart from a slow machine: the pages, the counters that count, the log.
    fn condition(&self) -> String {
        let page = |path| match self.try_get(path) {
            Ok((status, body)) => format!("{path}: {status} {body}"),
            Err(error) => format!("{path}: {error}"),
        };
        let metrics = page("/metrics");
        let counts = metrics.lines().filter(|line| {
            let is_bucket = line.contains("_bucket{");
            !(line.starts_with('#') || line.ends_with(" 0") || is_bucket)
        });
        let counts: Vec<&str> = counts.collect();
        [page("/ready"), page("/shards"), counts.join("\n"), self.log_tail()].join("\n")
    }
}

impl Drop for Daisi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("daisi {}, when its test had failed:\n{}", self.child.id(), self.condition());
        }
        self.kill9();
    }
}

/// Settings that need no text of others.
pub fn owned(sets: &[(&str, &str)]) -> Vec<(String, String)> {
    sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

// The pages' address, which it logs because the port was left to it.
fn await_address(child: &mut Child, log: &PathBuf) -> SocketAddr {
    let mut found = None;
    eventually("daisi opens its pages", START_MAX, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some(status) = child.try_wait().expect("it is our child") {
            panic!("daisi ended at once with {status}:\n{}", tail(&text));
        }
        let line = text.lines().find(|line| line.contains("\"daisi runs\""));
        let rest = line.and_then(|line| line.split_once("\"address\":\""));
        found = rest.and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
        found.is_some()
    });
    found.expect("just found")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
