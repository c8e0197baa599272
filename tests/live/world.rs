//! The world of one test: servers of its own, and what is put into and read from their streams.
//! Invariants: tests share nothing; at most two worlds exist at once; every test has a time bound.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use loadtest::client::{Client, ClientError};
use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack};
use serde_json::Value;
use shards::wire::nats::op::Msg;

use crate::change::Change;
use crate::daisi::owned;

/// Name of the stream daisi reads, by default.
pub const SOURCE: &str = "cdc_events_stream";
/// Name of the stream it writes, by default.
pub const OUTPUT: &str = "wa_stream";
/// Name of the stream of dead letters.
pub const DEAD: &str = "dlq_stream";
/// What a few events may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);
/// Worlds at once: the machines this runs on have two cores.
const WORLDS_MAX: usize = 2;
/// Seconds that a test may take at the most, waiting for its turn not counted; `DAISI_TEST_MAX` allows more.
const TEST_MAX: u64 = 120;

/// The shortest lease: where a daisi is killed and another is to go on.
pub const SHORT_LEASE: (&str, &str) = ("lease.ttl", "3s");

/// Which nats-server a claim is held on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The installed one.
    Installed,
    /// The one named by `DAISI_NATS_SERVER_NEWER`, or `.daisi/bin/nats-server`.
    Newer,
}

/// Makes two tests of each claim, a function of [`Server`]: one for each server.
macro_rules! on_each_server {
    ($($claim:ident),+ $(,)?) => {$(
        mod $claim {
            #[test]
            fn on_the_installed_server() {
                crate::world::hold(crate::world::Server::Installed, super::$claim);
            }
            #[test]
            fn on_the_newer_server() {
                crate::world::hold(crate::world::Server::Newer, super::$claim);
            }
        }
    )+};
}

/// Makes a test of each claim, on the installed server only: what it is about is not NATS, or it takes long.
macro_rules! on_the_installed_server {
    ($($claim:ident),+ $(,)?) => {$(
        mod $claim {
            #[test]
            fn holds() {
                crate::world::hold(crate::world::Server::Installed, super::$claim);
            }
        }
    )+};
}

/// Makes a test of each claim, on the newer server only: older ones lack what it is about.
macro_rules! on_the_newer_server {
    ($($claim:ident),+ $(,)?) => {$(
        mod $claim {
            #[test]
            fn holds() {
                crate::world::hold(crate::world::Server::Newer, super::$claim);
            }
        }
    )+};
}

/// Runs a claim when there is room for its world, within its time.
pub fn hold(server: Server, claim: fn(Server)) {
    if server == Server::Newer && newer_binary().is_none() {
        return say("skipped: no newer nats-server; name one in DAISI_NATS_SERVER_NEWER");
    }
    let _room = Room::enter();
    let (done, inbox) = bounded::<()>(0);
    let test_max = Duration::from_secs(chosen("DAISI_TEST_MAX", TEST_MAX));
    std::thread::spawn(move || {
        if inbox.recv_timeout(test_max) == Err(RecvTimeoutError::Timeout) {
            say(&format!("a test runs for more than {test_max:?}: ending all"));
            std::process::abort();
        }
    });
    let started = Instant::now();
    claim(server);
    drop(done);
    println!("took {:?}", started.elapsed());
}

/// Past the test harness, which shows nothing of tests that succeed.
pub fn say(text: &str) {
    // Nobody to tell it to is no failure.
    let _ = writeln!(std::io::stderr(), "live: {text}");
}

/// The number that a variable names, or the usual one: how long a test that can go on for hours does.
pub fn chosen(variable: &str, usual: u64) -> u64 {
    let Ok(text) = env::var(variable) else { return usual };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number"))
}

/// Waits until `is_so`.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(5));
    }
}

struct Room;

static ROOMS: LazyLock<(Sender<()>, Receiver<()>)> = LazyLock::new(|| bounded(WORLDS_MAX));

impl Room {
    fn enter() -> Self {
        ROOMS.0.send(()).expect("both ends live for ever");
        Self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        ROOMS.1.recv().expect("both ends live for ever");
    }
}

fn newer_binary() -> Option<PathBuf> {
    let named = env::var_os("DAISI_NATS_SERVER_NEWER").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join(".daisi/bin/nats-server");
    named.or(Some(usual)).filter(|path| path.is_file())
}

/// Servers, and how to reach them.
#[derive(Debug)]
pub struct World {
    /// The servers themselves, to be killed and started.
    pub stack: Stack,
    /// `user:password@` of the test's own client, where the URL of the server holds none.
    pub login: String,
    folders: AtomicU32,
}

/// A message read from a stream.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub body: Vec<u8>,
    message: Msg,
}

impl Letter {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> Option<String> {
        self.message.header(name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    /// The payload as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("published payloads are JSON")
    }

    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("published payloads are UTF-8")
    }
}

impl World {
    /// A nats-server and a redis-server as they come.
    pub fn new(server: Server) -> Self {
        Self::with(server, NatsOptions::default(), RedisOptions::default())
    }

    /// Servers with options; the NATS binary is chosen here.
    pub fn with(server: Server, nats: NatsOptions, redis: RedisOptions) -> Self {
        let binary = if server == Server::Newer { newer_binary() } else { nats.binary.clone() };
        let stack = Stack::builder().nats(NatsOptions { binary, ..nats }).redis(redis).start();
        Self::of(stack.expect("servers start"))
    }

    /// Servers that run.
    pub fn of(stack: Stack) -> Self {
        Self { stack, login: String::new(), folders: AtomicU32::new(0) }
    }

    /// A nats-server and a PostgreSQL, where daisi runs the ingest stage alone.
    pub fn ingesting(server: Server) -> Self {
        Self::ingesting_with(server, &[])
    }

    /// As [`Self::ingesting`], with settings of PostgreSQL.
    pub fn ingesting_with(server: Server, settings: &[(&str, &str)]) -> Self {
        let nats = NatsOptions::default();
        let binary = if server == Server::Newer { newer_binary() } else { nats.binary.clone() };
        let settings = [&[("max_connections", "60")], settings].concat();
        let settings = owned(&settings);
        let postgres = PostgresOptions { settings, ..PostgresOptions::default() };
        let stack =
            Stack::builder().nats(NatsOptions { binary, ..nats }).postgres(postgres).start();
        Self::of(stack.expect("servers start"))
    }

    /// Settings of every daisi of this world: servers, a free port, one shard, small streams.
    pub fn settings(&self) -> Vec<(String, String)> {
        let redis = self.stack.redis.as_option().map(|redis| ("redis.url", redis.url()));
        let postgres = self.stack.postgres.as_option().map(|postgres| {
            let size = || "1GiB".to_owned();
            [
                ("stages", "ingest".to_owned()),
                ("postgres.dsn", postgres.url()),
                ("ingest.stream_max_bytes", size()),
                ("ingest.history_max_bytes", size()),
            ]
        });
        let servers = redis.into_iter().chain(postgres.into_iter().flatten());
        let fixed = [
            ("nats.servers", self.stack.nats.url()),
            ("control.listen", "127.0.0.1:0".to_owned()),
            ("shards", "1".to_owned()),
            ("cdc.stream_max_bytes", "1GiB".to_owned()),
            ("cdc.output_max_bytes", "1GiB".to_owned()),
        ];
        fixed.into_iter().chain(servers).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// A folder that ends with the servers.
    pub fn new_folder(&self, name: &str) -> PathBuf {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let path = self.stack.folder().join(format!("{name}-{number}"));
        fs::create_dir(&path).expect("a folder");
        path
    }

    /// A new connection.
    #[track_caller]
    pub fn client(&self) -> Client {
        let url = self.stack.nats.url().replacen("://", &format!("://{}", self.login), 1);
        Client::connect(&url).expect("NATS takes connections")
    }

    /// Puts changes into the source stream, in order.
    #[track_caller]
    pub fn put(&self, changes: &[Change]) {
        let mut client = self.client();
        for (subject, body) in changes.iter().map(Change::sent) {
            put_one(&mut client, &subject, &body);
        }
    }

    /// Puts bytes that may be no change at all.
    #[track_caller]
    pub fn put_bytes(&self, subject: &str, body: &[u8]) {
        put_one(&mut self.client(), subject, body);
    }

    /// As [`Self::put_bytes`], with headers.
    #[track_caller]
    pub fn put_with(&self, subject: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut client = self.client();
        client.publish_with(subject, None, headers, body).expect("a subject and headers");
        client.barrier().expect("the server has it");
    }

    /// The answer of `sql`: rows by line, columns by `|`.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.stack.postgres.psql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// As [`Self::sql`], in another database of the server.
    #[track_caller]
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let url = self.database(database);
        let mut psql = Command::new("psql");
        let output = psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]).output();
        let output = output.expect("psql starts");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Connection string of a database.
    pub fn database(&self, name: &str) -> String {
        let url = self.stack.postgres.url();
        let (server, _) = url.rsplit_once('/').expect("a path");
        format!("{server}/{name}")
    }

    /// All that a stream holds; nothing if there is no such stream.
    #[track_caller]
    pub fn read(&self, stream: &str) -> Vec<Letter> {
        let mut letters = Vec::new();
        let read = self.client().read_stream(stream, 1, |stored| {
            letters.push(Letter {
                subject: String::from_utf8_lossy(stored.message.subject()).into_owned(),
                body: stored.message.payload().to_vec(),
                message: stored.message.clone(),
            });
            ControlFlow::Continue(())
        });
        match read {
            Ok(_) | Err(ClientError::JetStream { err_code: 10_059, .. }) => letters,
            Err(error) => panic!("reading {stream}: {error}"),
        }
    }

    /// Number of messages in a stream; 0 if there is none.
    pub fn count(&self, stream: &str) -> u64 {
        let info = self.client().jetstream(&format!("STREAM.INFO.{stream}"), &Value::Null);
        info.map_or(0, |info| info["state"]["messages"].as_u64().unwrap_or(0))
    }

    /// Waits until a stream holds `count` messages, and reads them.
    #[track_caller]
    pub fn await_letters(&self, stream: &str, count: u64) -> Vec<Letter> {
        eventually(&format!("{count} messages in {stream}"), SOON, || self.count(stream) >= count);
        self.read(stream)
    }

    /// The configuration of a stream; null if there is none.
    pub fn stream_config(&self, stream: &str) -> Value {
        let info = self.client().jetstream(&format!("STREAM.INFO.{stream}"), &Value::Null);
        info.map_or(Value::Null, |mut info| info["config"].take())
    }

    /// What the server says of a consumer; null if there is none.
    pub fn consumer_info(&self, stream: &str, consumer: &str) -> Value {
        let call = format!("CONSUMER.INFO.{stream}.{consumer}");
        self.client().jetstream(&call, &Value::Null).unwrap_or(Value::Null)
    }
}

/// Publishes and waits for the PubAck.
#[track_caller]
pub fn put_one(client: &mut Client, subject: &str, body: &[u8]) {
    let answer = client.request(subject, body).expect("an answer");
    let answer: Value = serde_json::from_slice(answer.payload()).expect("a PubAck is JSON");
    assert!(answer["error"].is_null() && answer["seq"].is_u64(), "{subject}: {answer}");
}

/// One inline command to Redis; the first line of its answer.
pub fn ask_redis(world: &World, command: &str) -> String {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, world.stack.redis.port()))
        .expect("Redis takes connections");
    socket.set_read_timeout(Some(SOON)).expect("a positive timeout");
    socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered");
    answer.lines().next().unwrap_or_default().to_owned()
}
