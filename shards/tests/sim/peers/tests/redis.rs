//! The simulated Redis: the dedup commands, TTL, crashes, error injection.

use bytes::BytesMut;
use fastrand::Rng;
use shards::clock::{MS, Now, SEC};
use shards::wire::resp;

use crate::peers::redis::{Persistence, RedisServer};
use crate::peers::{Chance, ConnId, Refused};

struct Lab {
    server: RedisServer,
    now: Now,
    conn: ConnId,
}

impl Lab {
    fn new(password: Option<&str>) -> Self {
        let mut server = RedisServer::new(password, Rng::with_seed(3));
        let conn = server.connect().unwrap();
        Self { server, now: Now { mono: 60 * SEC, wall: 0 }, conn }
    }

    /// A command of words; its reply with `|` for line ends. `''` is an empty argument.
    fn run(&mut self, command: &str) -> String {
        let args = command.split(' ').map(|a| if a == "''" { "" } else { a }.as_bytes());
        let mut out = BytesMut::new();
        resp::encode_command(&mut out, &args.collect::<Vec<_>>());
        self.server.handle_bytes(self.now, self.conn, &out);
        self.read()
    }

    fn read(&mut self) -> String {
        String::from_utf8_lossy(&self.server.poll_output(self.conn)).replace("\r\n", "|")
    }

    fn wait(&mut self, ns: u64) -> String {
        self.now.mono += ns;
        self.server.tick(self.now);
        self.read()
    }
}

#[test]
fn claim_then_done_as_the_dedup_uses_it() {
    let mut lab = Lab::new(None);
    assert_eq!(lab.run("SET dedup:1 me NX GET EX 10"), "$-1|");
    assert_eq!(lab.run("SET dedup:1 you NX GET EX 10"), "$2|me|");
    assert_eq!(lab.run("SET dedup:1 '' EX 10"), "+OK|");
    assert_eq!(lab.run("SET dedup:1 you NX GET EX 10"), "$0||");
    assert_eq!(lab.run("SET dedup:1 you NX"), "$-1|");
    assert_eq!(lab.server.value(lab.now, b"dedup:1").map(|v| v.len()), Some(0));
    lab.wait(10 * SEC);
    assert_eq!(lab.run("GET dedup:1"), "$-1|");
}

#[test]
fn ttl_is_kept_or_cleared() {
    let mut lab = Lab::new(None);
    lab.run("SET k v PX 1500");
    lab.run("SET k w KEEPTTL");
    lab.wait(1499 * MS);
    assert_eq!(lab.run("GET k"), "$1|w|");
    lab.wait(MS);
    assert_eq!(lab.run("GET k"), "$-1|");
    lab.run("SET k v PX 1500");
    lab.run("SET k w XX");
    lab.wait(9 * SEC);
    assert_eq!(lab.run("DEL k l"), ":1|");
}

#[test]
fn replies_to_the_rest_are_redis_own() {
    let mut lab = Lab::new(None);
    for (command, reply) in [
        ("PING", "+PONG|"),
        ("PING hi", "$2|hi|"),
        ("SELECT 1", "+OK|"),
        ("SELECT 99", "-ERR DB index is out of range|"),
        ("CLIENT SETNAME daisi", "+OK|"),
        ("CLIENT GETNAME", "$5|daisi|"),
        ("GET", "-ERR wrong number of arguments for 'get' command|"),
        ("SET k v NX XX", "-ERR syntax error|"),
        ("SET k v EX 0", "-ERR invalid expire time in 'set' command|"),
        ("SET k v EX x", "-ERR value is not an integer or out of range|"),
        ("HELLO 3", "-ERR unknown command 'HELLO', with args beginning with: '3' |"),
    ] {
        assert_eq!(lab.run(command), reply, "{command}");
    }
    assert!(lab.run("CLIENT SETINFO lib-name x").starts_with("-ERR unknown subcommand"));
    assert!(lab.run("INFO server").contains("redis_version:7.0.15"));
}

#[test]
fn password_is_asked_for() {
    let mut lab = Lab::new(Some("p"));
    assert_eq!(lab.run("PING"), "-NOAUTH Authentication required.|");
    assert!(lab.run("AUTH q").starts_with("-WRONGPASS"));
    assert_eq!(lab.run("AUTH default p"), "+OK|");
    assert_eq!(lab.run("PING"), "+PONG|");
}

#[test]
fn databases_are_apart() {
    let mut lab = Lab::new(None);
    lab.run("SET k v");
    lab.run("SELECT 1");
    assert_eq!(lab.run("GET k"), "$-1|");
}

#[test]
fn crash_keeps_what_persistence_says() {
    for (kept, a, b) in [
        (Persistence::All, "$1|1|", "$1|3|"),
        (Persistence::Nothing, "$-1|", "$-1|"),
        (Persistence::AllBut(SEC), "$1|1|", "$1|2|"),
    ] {
        let mut lab = Lab::new(None);
        lab.run("SET a 1");
        lab.run("SET b 2");
        lab.wait(2 * SEC);
        lab.run("SET b 3");
        lab.run("SET c 4");
        lab.server.crash(lab.now, kept);
        assert_eq!(lab.server.connect(), Err(Refused::Down));
        lab.server.restart(lab.now, SEC);
        lab.conn = lab.server.connect().unwrap();
        assert_eq!(lab.run("GET a"), "-LOADING Redis is loading the dataset in memory|");
        lab.wait(SEC);
        assert_eq!((lab.run("GET a").as_str(), lab.run("GET b").as_str()), (a, b), "{kept:?}");
        assert_eq!(lab.run("GET c") == "$-1|", kept != Persistence::All);
    }
}

#[test]
fn injected_errors_change_nothing() {
    let mut lab = Lab::new(None);
    lab.server.faults.out_of_memory = Chance::ALWAYS;
    assert!(lab.run("SET k v").starts_with("-OOM "));
    lab.server.faults.out_of_memory = Chance::default();
    lab.server.faults.readonly = Chance::ALWAYS;
    assert!(lab.run("SET k v").starts_with("-READONLY "));
    assert_eq!(lab.run("GET k"), "$-1|");
}

#[test]
fn latency_keeps_the_order_of_replies() {
    let mut lab = Lab::new(None);
    lab.server.faults.latency_max = SEC;
    let pipeline: String = (0..20).map(|n| lab.run(&format!("PING {n}"))).collect();
    assert!(pipeline.len() < 20 * 5);
    assert!(lab.server.due().is_some_and(|at| at <= lab.now.mono + SEC));
    let replies = pipeline + &lab.wait(SEC);
    let expected: String = (0..20).map(|n: u32| format!("${}|{n}|", n.to_string().len())).collect();
    assert_eq!(replies, expected);
}

#[test]
fn cut_after_takes_effect_and_says_nothing() {
    let mut lab = Lab::new(None);
    lab.server.faults.cut_after = Chance::ALWAYS;
    assert_eq!(lab.run("SET k v NX GET"), "");
    assert!(!lab.server.is_open(lab.conn));
    assert!(lab.server.value(lab.now, b"k").is_some());
    let mut cut = Lab::new(None);
    cut.server.faults.frame_cut = Chance::ALWAYS;
    assert!("$5|hello|".starts_with(cut.run("PING hello").trim_end_matches('\r')));
    assert!(!cut.server.is_open(cut.conn));
}

#[test]
fn other_protocol_is_refused_and_a_closed_connection_is_silent() {
    let mut lab = Lab::new(None);
    lab.server.handle_bytes(lab.now, lab.conn, b"+OK\r\n");
    assert!(lab.read().starts_with("-ERR Protocol error"));
    assert!(!lab.server.is_open(lab.conn));
    let conn = lab.server.connect().unwrap();
    lab.server.close(conn);
    lab.server.handle_bytes(lab.now, conn, b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(lab.server.poll_output(conn).len(), 0);
}
