//! The stack against the installed servers: readiness, restart on the same data, pauses, and that
//! nothing is left behind, not even by a process killed with SIGKILL.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loadtest::stack::{NatsAuth, NatsOptions, PostgresOptions, RedisOptions, Stack, StackError};

#[test]
fn nats_and_redis_are_ready_at_once_and_leave_nothing() {
    let started = Instant::now();
    let stack =
        Stack::builder().nats(NatsOptions::default()).redis(RedisOptions::default()).start();
    let stack = stack.unwrap();
    let took = started.elapsed();
    println!("nats and redis ready in {took:?}");
    // Far above the aim: other tests and builds share the machine.
    assert!(took < Duration::from_secs(5), "took {took:?}");
    assert!(stack.nats.version().unwrap().starts_with("2."));
    assert!(stack.redis.version().unwrap().contains('.'));
    let folder = stack.folder().to_owned();
    let pids = [stack.nats.pid().unwrap(), stack.redis.pid().unwrap()];
    drop(stack);
    assert!(!folder.exists());
    assert!(pids.iter().all(|pid| !is_running(*pid)));
}

#[test]
fn redis_keeps_what_it_answered_through_a_kill() {
    let mut stack = Stack::builder().redis(RedisOptions::default()).start().unwrap();
    let port = stack.redis.port();
    assert_eq!(ask(port, "SET daisi 1\r\n"), "+OK\r\n");
    stack.redis.kill();
    assert_eq!(stack.redis.pid(), None);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    stack.redis.start().unwrap();
    assert_eq!(stack.redis.port(), port);
    assert_eq!(ask(port, "GET daisi\r\n"), "$1\r\n1\r\n");
}

#[test]
fn a_paused_server_answers_only_after_resume() {
    let mut stack = Stack::builder().redis(RedisOptions::default()).start().unwrap();
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, stack.redis.port())).unwrap();
    stack.redis.pause();
    socket.write_all(b"PING\r\n").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut answer = [0; 7];
    assert!(socket.read(&mut answer).is_err());
    assert!(stack.redis.is_running());
    stack.redis.resume();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn nats_starts_again_on_its_port_after_stop_and_kill() {
    let auth = NatsAuth::User { user: "u".into(), password: "p".into() };
    let options = NatsOptions { auth, monitor: true, ..NatsOptions::default() };
    let mut stack = Stack::builder().nats(options).start().unwrap();
    let url = stack.nats.url();
    assert!(url.starts_with("nats://u:p@127.0.0.1:"));
    for clean in [true, false] {
        let before = stack.nats.pid();
        if clean {
            stack.nats.stop()
        } else {
            stack.nats.kill()
        }
        stack.nats.start().unwrap();
        assert_ne!(stack.nats.pid(), before);
        assert_eq!(stack.nats.url(), url);
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, stack.nats.port())).unwrap();
        let mut info = String::new();
        BufReader::new(socket).read_line(&mut info).unwrap();
        assert!(info.contains("\"auth_required\":true"), "{info}");
        assert!(info.contains("\"jetstream\":true"), "{info}");
    }
}

#[test]
fn postgres_keeps_committed_rows_through_a_kill() {
    let mut stack = Stack::builder().postgres(PostgresOptions::default()).start().unwrap();
    stack.postgres.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").unwrap();
    assert_eq!(stack.postgres.psql("SHOW wal_level").unwrap(), "logical");
    stack.postgres.kill();
    assert!(stack.postgres.psql("SELECT 1").is_err());
    stack.postgres.start().unwrap();
    assert_eq!(stack.postgres.psql("SELECT n FROM t").unwrap(), "7");
    stack.postgres.stop();
    stack.postgres.start().unwrap();
    assert_eq!(stack.postgres.psql("SELECT n FROM t").unwrap(), "7");
}

#[test]
fn a_server_that_refuses_its_configuration_is_an_error_with_its_log() {
    let options = NatsOptions { config_extra: "no_such_key: {".into(), ..NatsOptions::default() };
    let error = Stack::builder().nats(options).start().unwrap_err();
    let StackError::Exited { name, log, .. } = error else { panic!("{error}") };
    assert_eq!(name, "nats-server");
    assert!(log.contains("Parse error"), "{log}");
}

#[test]
fn servers_and_folder_go_with_a_process_killed_by_sigkill() {
    let mut holder = Holder::start();
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();
    eventually("servers and folder are gone", || !holder.folder.exists() && !holder.has_servers());
}

#[test]
fn the_death_signal_alone_ends_the_servers() {
    let mut holder = Holder::start();
    // The watcher is the holder's only other child: a shell.
    let watcher = holder.children().into_iter().find(|pid| !holder.servers.contains(pid)).unwrap();
    let killed = Command::new("kill").args(["-9", &watcher.to_string()]).status().unwrap();
    assert!(killed.success());
    eventually("the watcher is gone", || !is_running(watcher));
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();
    eventually("servers are gone", || !holder.has_servers());
    assert!(holder.folder.exists(), "nobody was left to remove it");
    // A server that is being ended may still write.
    eventually("folder is removed", || std::fs::remove_dir_all(&holder.folder).is_ok());
}

/// A process that holds a whole stack.
struct Holder {
    process: Child,
    folder: PathBuf,
    servers: Vec<u32>,
}

impl Holder {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .arg("stack")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut folder = PathBuf::new();
        let mut servers = Vec::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(path) = line.strip_prefix("folder ") {
                folder = Path::new(path).to_owned();
            } else if let Some((_, pid)) = line.split_once(" pid ") {
                servers.push(pid.parse::<u32>().unwrap());
            } else if line == "ready" {
                break;
            }
        }
        assert_eq!(servers.len(), 3);
        assert!(folder.is_dir() && servers.iter().all(|pid| is_running(*pid)));
        Self { process, folder, servers }
    }

    fn has_servers(&self) -> bool {
        self.servers.iter().any(|pid| is_running(*pid))
    }

    fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let lists = tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("children")));
        lists
            .flat_map(|list| {
                list.unwrap().split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<u32>>()
            })
            .collect()
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ask(port: u16, command: &str) -> String {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.write_all(command.as_bytes()).unwrap();
    socket.write_all(b"QUIT\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.strip_suffix("+OK\r\n").unwrap().to_owned()
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
