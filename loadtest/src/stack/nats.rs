//! A private nats-server with JetStream on file storage.
//! Source of the probe: the server opens its client port with an INFO line that holds its name.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StackError;
use super::server::{Kind, Server};

/// How clients of the server prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NatsAuth {
    /// Nobody is asked.
    #[default]
    None,
    /// One user with a password.
    User {
        /// User name.
        user: String,
        /// Password in clear.
        password: String,
    },
    /// One shared token.
    Token(String),
}

/// Settings of the nats-server; the default is JetStream on file storage, no authentication.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// The binary; by default found by [`find_binary`](super::find_binary).
    pub binary: Option<PathBuf>,
    /// JetStream's folder; by default inside the stack's folder and removed with it.
    pub store: Option<PathBuf>,
    /// Authentication, also written into the URL.
    pub auth: NatsAuth,
    /// Opens the monitoring port as well.
    pub monitor: bool,
    /// Appended to the configuration file as it is: TLS, accounts, limits.
    pub config_extra: String,
}

/// The running nats-server.
pub type Nats = Server<NatsKind>;

/// What makes a [`Server`] a nats-server.
#[derive(Debug)]
pub struct NatsKind {
    options: NatsOptions,
    server_name: String,
    monitor_port: Option<u16>,
}

impl NatsKind {
    pub(super) fn new(options: NatsOptions) -> Self {
        let server_name = format!("daisi-{:016x}", fastrand::u64(..));
        Self { options, server_name, monitor_port: None }
    }
}

impl Nats {
    /// How clients prove who they are from its next start on.
    pub fn set_auth(&mut self, auth: NatsAuth) {
        self.kind.options.auth = auth;
    }

    /// `nats://[user:password@]127.0.0.1:port`.
    pub fn url(&self) -> String {
        let port = self.port();
        match &self.kind.options.auth {
            NatsAuth::None => format!("nats://127.0.0.1:{port}"),
            NatsAuth::User { user, password } => {
                format!("nats://{user}:{password}@127.0.0.1:{port}")
            }
            NatsAuth::Token(token) => format!("nats://{token}@127.0.0.1:{port}"),
        }
    }

    /// `http://127.0.0.1:port` of the monitoring endpoint, if it was asked for.
    pub fn monitor_url(&self) -> Option<String> {
        self.kind.monitor_port.map(|port| format!("http://127.0.0.1:{port}"))
    }
}

impl Kind for NatsKind {
    const NAME: &'static str = "nats-server";

    fn prepare(&mut self, _binary: &Path, _home: &Path) -> Result<(), StackError> {
        Ok(())
    }

    fn arguments(&mut self, home: &Path, port: u16) -> Result<Vec<OsString>, StackError> {
        if self.options.monitor && self.monitor_port.is_none() {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
            let free =
                free.map_err(|e| StackError::io("find a monitoring port for", Self::NAME, e))?;
            self.monitor_port = Some(free.port());
        }
        let path = home.join("nats.conf");
        fs::write(&path, self.config(home, port))
            .map_err(|e| StackError::io("write the configuration of", Self::NAME, e))?;
        Ok(vec!["--config".into(), path.into()])
    }

    fn probe(&self, _home: &Path, port: u16, _pid: u32) -> Result<(), String> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let patience = Duration::from_millis(500);
        let socket = TcpStream::connect_timeout(&address, patience)
            .map_err(|e| format!("connect to port {port}: {e}"))?;
        socket.set_read_timeout(Some(patience)).map_err(|e| e.to_string())?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).map_err(|e| format!("read INFO: {e}"))?;
        if !line.contains(&self.server_name) {
            return Err(format!("port {port} answers as another server: {line:.120}"));
        }
        Ok(())
    }
}

impl NatsKind {
    fn config(&self, home: &Path, port: u16) -> String {
        let store = self.options.store.clone().unwrap_or_else(|| home.join("jetstream"));
        let mut text = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}\n",
            self.server_name
        );
        // Writing to a String cannot fail.
        let _ = match &self.options.auth {
            NatsAuth::None => Ok(()),
            NatsAuth::User { user, password } => {
                writeln!(text, "authorization {{ user: {user:?}, password: {password:?} }}")
            }
            NatsAuth::Token(token) => writeln!(text, "authorization {{ token: {token:?} }}"),
        };
        if let Some(port) = self.monitor_port {
            let _ = writeln!(text, "http: \"127.0.0.1:{port}\"");
        }
        text + &self.options.config_extra
    }
}
