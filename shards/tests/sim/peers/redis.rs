//! A simulated Redis: strings with TTL, and the few commands the pipeline and the doctor use, as RESP2.
//! Bytes in, bytes out, virtual time; replies of one connection keep their order, whatever the latency.
//! A crash takes connections, and of the data as much as the persistence setting lets it.
//! Replies follow redis.io's command pages and Redis 7.0 (`SET` takes `NX` and `GET` together since 7.0).

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use shards::clock::{MS, Now, SEC};
use shards::wire::Step;
use shards::wire::resp::{self, Reply};

use super::{Chance, ConnId, Refused, delay_up_to, take};

/// Knobs; change them at any time.
#[derive(Clone, Debug, Default)]
pub(crate) struct RedisFaults {
    /// A reply is held back by up to so many nanoseconds, and all behind it.
    pub(crate) latency_max: u64,
    /// `-LOADING` to every command but PING-less ones of a connection's set-up, until this moment.
    pub(crate) loading_until: u64,
    /// `-OOM` to a write.
    pub(crate) out_of_memory: Chance,
    /// `-READONLY` to a write, as a demoted master gives.
    pub(crate) readonly: Chance,
    /// The command takes effect, its reply never comes, and the connection is cut.
    pub(crate) cut_after: Chance,
    /// The connection is cut in the middle of a reply.
    pub(crate) frame_cut: Chance,
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// `appendfsync always`.
    All,
    /// Neither AOF nor RDB.
    Nothing,
    /// The writes of the last so many nanoseconds are lost: `appendfsync everysec` is up to 1 s, or 2 s.
    AllBut(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    value: Bytes,
    expires: Option<u64>,
}

/// A write as it can be taken back: when, the key, and what was there before.
type Undo = (u64, Bytes, Option<Held>);

/// How far back a crash can reach, nanoseconds.
const UNDO_WINDOW: u64 = 60 * SEC;

/// A server process with its data.
#[derive(Clone, Debug)]
pub(crate) struct RedisServer {
    pub(crate) faults: RedisFaults,
    password: Option<String>,
    is_up: bool,
    /// One map a database.
    keys: BTreeMap<(u32, Bytes), Held>,
    undo: VecDeque<(u32, Undo)>,
    clients: BTreeMap<ConnId, Client>,
    next_conn: u64,
    rng: Rng,
}

#[derive(Clone, Debug, Default)]
struct Client {
    inbox: BytesMut,
    out: BytesMut,
    /// Replies not yet due.
    held: VecDeque<(u64, Bytes)>,
    is_closing: bool,
    is_known: bool,
    database: u32,
    name: Bytes,
}

impl RedisServer {
    /// A running, empty server; with a password every command but AUTH and HELLO needs AUTH first.
    pub(crate) fn new(password: Option<&str>, rng: Rng) -> Self {
        Self {
            faults: RedisFaults::default(),
            password: password.map(str::to_owned),
            is_up: true,
            keys: BTreeMap::new(),
            undo: VecDeque::new(),
            clients: BTreeMap::new(),
            next_conn: 1,
            rng,
        }
    }

    /// A TCP connection; refused while down.
    pub(crate) fn connect(&mut self) -> Result<ConnId, Refused> {
        if !self.is_up {
            return Err(Refused::Down);
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let is_known = self.password.is_none();
        self.clients.insert(conn, Client { is_known, ..Client::default() });
        Ok(conn)
    }

    /// Bytes from a client. Ignored on a connection that is closed.
    pub(crate) fn handle_bytes(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.open_client(conn) else { return };
        client.inbox.extend_from_slice(bytes);
        while let Some(client) = self.open_client(conn) {
            // A command is an array of bulk strings, the same grammar as a reply.
            match resp::decode(&mut client.inbox) {
                Ok(Step::Done(request)) => self.handle(now, conn, &request),
                Ok(Step::Need { .. }) => break,
                Err(_) => self.refuse(now, conn),
            }
        }
        self.release(now, conn);
    }

    /// Bytes for a client since the last call.
    pub(crate) fn poll_output(&mut self, conn: ConnId) -> Bytes {
        let Some(client) = self.clients.get_mut(&conn) else { return Bytes::new() };
        let (out, is_over) = (take(&mut client.out), client.is_closing && client.held.is_empty());
        if is_over {
            self.clients.remove(&conn);
        }
        out
    }

    /// Whether the connection stands. One that the server closed counts as open until its last bytes
    /// were polled.
    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        self.clients.contains_key(&conn)
    }

    /// The client closed, or the network cut the connection.
    pub(crate) fn close(&mut self, conn: ConnId) {
        self.clients.remove(&conn);
    }

    /// Time passed: held-back replies and expired keys.
    pub(crate) fn tick(&mut self, now: Now) {
        let conns: Vec<ConnId> = self.clients.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.release(now, conn));
        self.keys.retain(|_, held| held.expires.is_none_or(|at| at > now.mono));
    }

    /// When [`RedisServer::tick`] has a reply to release, monotonic nanoseconds.
    pub(crate) fn due(&self) -> Option<u64> {
        self.clients.values().filter_map(|c| c.held.front().map(|(at, _)| *at)).min()
    }

    /// `kill -9`: connections are cut, unsent output included, and data is lost as `kept` says.
    pub(crate) fn crash(&mut self, now: Now, kept: Persistence) {
        self.is_up = false;
        self.clients.clear();
        match kept {
            Persistence::All => {}
            Persistence::Nothing => self.keys.clear(),
            Persistence::AllBut(lost) => {
                while self.undo.back().is_some_and(|(_, (at, _, _))| *at + lost > now.mono) {
                    self.undo_last();
                }
            }
        }
        self.undo.clear();
    }

    /// The process comes up again, and answers `-LOADING` for `loading` nanoseconds.
    pub(crate) fn restart(&mut self, now: Now, loading: u64) {
        self.is_up = true;
        self.faults.loading_until = now.mono + loading;
    }

    /// A value as an oracle reads it, database 0; expired ones are gone.
    pub(crate) fn value(&self, now: Now, key: &[u8]) -> Option<&Bytes> {
        let held = self.keys.get(&(0, Bytes::copy_from_slice(key)))?;
        held.expires.is_none_or(|at| at > now.mono).then_some(&held.value)
    }

    fn undo_last(&mut self) {
        let Some((database, (_, key, before))) = self.undo.pop_back() else { return };
        match before {
            Some(held) => drop(self.keys.insert((database, key), held)),
            None => drop(self.keys.remove(&(database, key))),
        }
    }

    fn open_client(&mut self, conn: ConnId) -> Option<&mut Client> {
        self.clients.get_mut(&conn).filter(|c| !c.is_closing)
    }

    fn refuse(&mut self, now: Now, conn: ConnId) {
        self.answer(now, conn, &error("ERR Protocol error: invalid multibulk length"));
        self.hang_up(conn);
    }

    fn hang_up(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.is_closing = true;
        }
    }

    fn handle(&mut self, now: Now, conn: ConnId, request: &Reply) {
        let Some(args) = arguments(request) else { return self.refuse(now, conn) };
        let Some((name, args)) = args.split_first() else { return };
        let name = String::from_utf8_lossy(name).to_ascii_uppercase();
        let refused = self.turned_away(now, conn, &name).map(error);
        let reply = refused.unwrap_or_else(|| self.execute(now, conn, (&name, args)));
        if self.faults.cut_after.hit(&mut self.rng) {
            return self.hang_up(conn);
        }
        self.answer(now, conn, &reply);
    }

    fn answer(&mut self, now: Now, conn: ConnId, reply: &Reply) {
        let mut bytes = BytesMut::new();
        resp::encode_reply(&mut bytes, reply);
        let wait = delay_up_to(self.faults.latency_max, &mut self.rng);
        let is_cut = self.faults.frame_cut.hit(&mut self.rng);
        if is_cut {
            bytes.truncate(self.rng.usize(..bytes.len()));
        }
        let Some(client) = self.open_client(conn) else { return };
        let before = client.held.back().map_or(0, |(at, _)| *at);
        let at = before.max(now.mono + wait);
        client.held.push_back((at, bytes.freeze()));
        client.is_closing = is_cut;
    }

    fn release(&mut self, now: Now, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        while let Some((_, reply)) = client.held.pop_front_if(|(at, _)| *at <= now.mono) {
            client.out.extend_from_slice(&reply);
        }
    }

    /// Why a command is not even looked at.
    fn turned_away(&mut self, now: Now, conn: ConnId, name: &str) -> Option<&'static str> {
        let is_known = self.clients.get(&conn).is_some_and(|c| c.is_known);
        if !is_known && !matches!(name, "AUTH" | "HELLO") {
            return Some("NOAUTH Authentication required.");
        }
        let is_set_up = matches!(name, "AUTH" | "HELLO" | "SELECT" | "CLIENT" | "INFO");
        if now.mono < self.faults.loading_until && !is_set_up {
            return Some("LOADING Redis is loading the dataset in memory");
        }
        let is_write = matches!(name, "SET" | "DEL");
        if is_write && self.faults.readonly.hit(&mut self.rng) {
            return Some("READONLY You can't write against a read only replica.");
        }
        // DEL frees memory and is allowed.
        if name == "SET" && self.faults.out_of_memory.hit(&mut self.rng) {
            return Some("OOM command not allowed when used memory > 'maxmemory'.");
        }
        None
    }

    fn execute(&mut self, now: Now, conn: ConnId, (name, args): (&str, &[Bytes])) -> Reply {
        let database = self.clients.get(&conn).map_or(0, |c| c.database);
        match (name, args) {
            ("PING", []) => Reply::Simple("PONG".into()),
            ("PING", [text]) => bulk(Some(text.clone())),
            ("AUTH", [pass]) => self.authenticate(conn, b"default", pass),
            ("AUTH", [user, pass]) => self.authenticate(conn, user, pass),
            ("SELECT", [index]) => self.select(conn, index),
            ("CLIENT", [what, rest @ ..]) => self.client(conn, what, rest),
            ("INFO", _) => bulk(Some(self.info(now).into())),
            ("GET", [key]) => bulk(self.live(now, database, key).map(|h| h.value.clone())),
            ("SET", [key, value, flags @ ..]) => {
                self.set(now, (database, key.clone()), value, flags)
            }
            ("DEL", [_, ..]) => {
                let found = args.iter().filter(|key| self.delete(now, database, key)).count();
                Reply::Integer(found as i64)
            }
            ("PING" | "AUTH" | "SELECT" | "CLIENT" | "GET" | "SET" | "DEL", _) => {
                let name = name.to_ascii_lowercase();
                error(format!("ERR wrong number of arguments for '{name}' command"))
            }
            _ => {
                let shown = args.iter().map(|a| format!("'{}' ", String::from_utf8_lossy(a)));
                let shown: String = shown.collect();
                let head = format!("ERR unknown command '{name}', with args beginning with: ");
                error(head + &shown)
            }
        }
    }

    fn authenticate(&mut self, conn: ConnId, user: &[u8], pass: &[u8]) -> Reply {
        let Some(expected) = self.password.as_ref() else {
            let text = "ERR AUTH <password> called without any password configured for the default \
                        user. Are you sure your configuration is correct?";
            return error(text);
        };
        if user != b"default" || expected.as_bytes() != pass {
            let text = "WRONGPASS invalid username-password pair or user is disabled.";
            return error(text);
        }
        if let Some(client) = self.open_client(conn) {
            client.is_known = true;
        }
        ok()
    }

    fn select(&mut self, conn: ConnId, index: &[u8]) -> Reply {
        let index = std::str::from_utf8(index).ok().and_then(|i| i.parse::<u32>().ok());
        let Some(index) = index.filter(|i| *i < 16) else {
            return error("ERR DB index is out of range");
        };
        if let Some(client) = self.open_client(conn) {
            client.database = index;
        }
        ok()
    }

    fn client(&mut self, conn: ConnId, what: &[u8], rest: &[Bytes]) -> Reply {
        let Some(client) = self.open_client(conn) else { return error("ERR closed") };
        match (what.to_ascii_uppercase().as_slice(), rest) {
            (b"SETNAME", [name]) => {
                client.name = name.clone();
                ok()
            }
            (b"GETNAME", []) => bulk(Some(client.name.clone()).filter(|n| !n.is_empty())),
            // SETINFO came with 7.2; older servers answer what 7.0 does.
            _ => {
                let what = String::from_utf8_lossy(what);
                let text = format!(
                    "ERR unknown subcommand or wrong number of arguments for '{what}'. Try CLIENT HELP."
                );
                error(text)
            }
        }
    }

    fn info(&self, now: Now) -> String {
        let loading = u8::from(now.mono < self.faults.loading_until);
        let keys = self.keys.keys().filter(|(database, _)| *database == 0).count();
        format!(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\r\n# Persistence\r\n\
             loading:{loading}\r\naof_enabled:0\r\n\r\n# Replication\r\nrole:master\r\n\r\n\
             # Keyspace\r\ndb0:keys={keys},expires=0,avg_ttl=0\r\n"
        )
    }

    fn live(&self, now: Now, database: u32, key: &Bytes) -> Option<&Held> {
        let held = self.keys.get(&(database, key.clone()))?;
        held.expires.is_none_or(|at| at > now.mono).then_some(held)
    }

    fn set(
        &mut self,
        now: Now,
        (database, key): (u32, Bytes),
        value: &Bytes,
        flags: &[Bytes],
    ) -> Reply {
        let options = match SetOptions::read(flags) {
            Ok(options) => options,
            Err(text) => return error(text),
        };
        let before = self.live(now, database, &key).cloned();
        let is_set = match options.condition {
            Condition::Always => true,
            Condition::Absent => before.is_none(),
            Condition::Present => before.is_some(),
        };
        if is_set {
            let kept = before.as_ref().and_then(|h| h.expires).filter(|_| options.keeps_ttl);
            let expires = options.ttl.map(|ttl| now.mono + ttl).or(kept);
            let held = Held { value: value.clone(), expires };
            self.replace(now, database, &key, Some(held));
        }
        match (options.gets, is_set) {
            (true, _) => bulk(before.map(|h| h.value)),
            (false, true) => ok(),
            (false, false) => bulk(None),
        }
    }

    fn delete(&mut self, now: Now, database: u32, key: &Bytes) -> bool {
        let is_there = self.live(now, database, key).is_some();
        self.replace(now, database, key, None);
        is_there
    }

    fn replace(&mut self, now: Now, database: u32, key: &Bytes, held: Option<Held>) {
        let slot = (database, key.clone());
        let before = match held {
            Some(held) => self.keys.insert(slot, held),
            None => self.keys.remove(&slot),
        };
        self.undo.push_back((database, (now.mono, key.clone(), before)));
        while self.undo.front().is_some_and(|(_, (at, ..))| *at + UNDO_WINDOW < now.mono) {
            self.undo.pop_front();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    Absent,
    Present,
}

#[derive(Clone, Copy, Debug)]
struct SetOptions {
    condition: Condition,
    gets: bool,
    keeps_ttl: bool,
    /// Nanoseconds.
    ttl: Option<u64>,
}

impl SetOptions {
    fn read(flags: &[Bytes]) -> Result<Self, &'static str> {
        const SYNTAX: &str = "ERR syntax error";
        let (condition, ttl) = (Condition::Always, None);
        let mut options = Self { condition, gets: false, keeps_ttl: false, ttl };
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            match flag.to_ascii_uppercase().as_slice() {
                b"NX" if options.condition != Condition::Present => {
                    options.condition = Condition::Absent;
                }
                b"XX" if options.condition != Condition::Absent => {
                    options.condition = Condition::Present;
                }
                b"GET" => options.gets = true,
                b"KEEPTTL" if options.ttl.is_none() => options.keeps_ttl = true,
                unit @ (b"EX" | b"PX") if options.ttl.is_none() && !options.keeps_ttl => {
                    let scale = if unit == b"EX" { SEC } else { MS };
                    options.ttl = Some(positive(flags.next().ok_or(SYNTAX)?)? * scale);
                }
                _ => return Err(SYNTAX),
            }
        }
        Ok(options)
    }
}

fn positive(text: &[u8]) -> Result<u64, &'static str> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    match text.parse::<i64>() {
        Err(_) => Err("ERR value is not an integer or out of range"),
        Ok(n) => u64::try_from(n)
            .ok()
            .filter(|n| *n > 0)
            .ok_or("ERR invalid expire time in 'set' command"),
    }
}

fn arguments(request: &Reply) -> Option<Vec<Bytes>> {
    let Reply::Array(Some(items)) = request else { return None };
    let bulk = |item: &Reply| match item {
        Reply::Bulk(Some(bytes)) => Some(bytes.clone()),
        _ => None,
    };
    items.iter().map(bulk).collect()
}

fn error(text: impl Into<Bytes>) -> Reply {
    Reply::Error(text.into())
}

fn ok() -> Reply {
    Reply::Simple(Bytes::from_static(b"OK"))
}

fn bulk(value: Option<Bytes>) -> Reply {
    Reply::Bulk(value)
}
