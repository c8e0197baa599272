//! A private redis-server that syncs every write: a kill loses no answered command.
//! Source of the probe: `INFO server` names the process id, so another's Redis is not taken for ours.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StackError;
use super::server::{Kind, Server};

/// Settings of the redis-server; the default is `appendonly yes`, `appendfsync always`.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The binary; by default found by [`find_binary`](super::find_binary).
    pub binary: Option<PathBuf>,
    /// `requirepass`, also written into the URL.
    pub password: Option<String>,
    /// Further arguments, e.g. `["--maxmemory", "100mb"]`; the last of two equal ones wins.
    pub args_extra: Vec<String>,
}

/// The running redis-server.
pub type Redis = Server<RedisKind>;

/// What makes a [`Server`] a redis-server.
#[derive(Debug)]
pub struct RedisKind {
    options: RedisOptions,
}

impl RedisKind {
    pub(super) fn new(options: RedisOptions) -> Self {
        Self { options }
    }
}

impl Redis {
    /// `redis://[:password@]127.0.0.1:port`.
    pub fn url(&self) -> String {
        let port = self.port();
        match &self.kind.options.password {
            None => format!("redis://127.0.0.1:{port}"),
            Some(password) => format!("redis://:{password}@127.0.0.1:{port}"),
        }
    }
}

impl Kind for RedisKind {
    const NAME: &'static str = "redis-server";

    fn prepare(&mut self, _binary: &Path, _home: &Path) -> Result<(), StackError> {
        Ok(())
    }

    fn arguments(&mut self, home: &Path, port: u16) -> Result<Vec<OsString>, StackError> {
        let port = port.to_string();
        let fixed = ["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no", "--save", ""];
        let durable = ["--appendonly", "yes", "--appendfsync", "always", "--dir"];
        let mut arguments: Vec<OsString> = fixed.iter().chain(&durable).map(Into::into).collect();
        arguments.push(home.into());
        if let Some(password) = &self.options.password {
            arguments.extend(["--requirepass".into(), password.into()]);
        }
        arguments.extend(self.options.args_extra.iter().map(Into::into));
        Ok(arguments)
    }

    fn probe(&self, _home: &Path, port: u16, pid: u32) -> Result<(), String> {
        let answer = ask_info(port, self.options.password.as_deref())
            .map_err(|e| format!("INFO on port {port}: {e}"))?;
        let is_ours = answer.contains(&format!("process_id:{pid}\r\n"));
        let is_loading = answer.contains("loading:1");
        match (is_ours, is_loading) {
            (true, false) => Ok(()),
            (true, true) => Err("it is loading its append-only file".into()),
            (false, _) => {
                Err(format!("port {port} does not answer as process {pid}: {answer:.80}"))
            }
        }
    }
}

/// Inline commands, so that this needs no codec.
fn ask_info(port: u16, password: Option<&str>) -> std::io::Result<String> {
    let patience = Duration::from_millis(500);
    let mut socket = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), patience)?;
    socket.set_read_timeout(Some(patience))?;
    if let Some(password) = password {
        socket.write_all(format!("AUTH {password}\r\n").as_bytes())?;
    }
    socket.write_all(b"INFO server\r\nINFO persistence\r\nQUIT\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
