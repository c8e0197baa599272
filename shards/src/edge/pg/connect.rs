//! Connections of a shard to PostgreSQL: TCP or Unix socket, TLS as the connection string says, whatever
//! authentication tokio-postgres knows (SCRAM, MD5, password). Invariant: every address is tried, each within
//! the timeout, and no error holds the password.

use super::super::link::resolve;
use super::stream::{PgTls, Socket};
use glommio::net::{TcpStream, UnixStream};
use rustls::ClientConfig;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Error};

/// PostgreSQL's port where none is given.
const PORT: u16 = 5432;

/// The PostgreSQL server.
#[derive(Clone)]
pub struct PgTarget {
    /// Parsed connection string.
    pub config: Config,
    /// How to encrypt, wherever the connection string and the server agree on it.
    pub tls: Arc<ClientConfig>,
    /// Bound on connecting to one address, with TLS and authentication.
    pub connect_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string names no host.
    #[error("the connection string names no host")]
    NoHost,
    /// The socket could not be opened.
    #[error("{host}: {source}")]
    Socket {
        /// Host or folder.
        host: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The server refused, or spoke in another way.
    #[error("{host}: {}", super::describe(.source))]
    Server {
        /// Host or folder.
        host: String,
        /// The server's reason.
        source: Error,
    },
}

/// What moves the bytes of a connection; to be polled until it ends, which is when the connection is lost.
pub type Driver = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Parses a connection string. Certificates are verified whenever there is TLS, so the stricter modes of
/// libpq are what `require` is here.
///
/// # Errors
/// A key or value that is not known.
pub fn parse(dsn: &str) -> Result<Config, Error> {
    dsn.replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require")
        .parse()
}

/// Connects to the first host of the target that takes us.
///
/// # Errors
/// The last host's reason.
pub async fn connect(target: &PgTarget) -> Result<(Client, Driver), ConnectError> {
    let mut failure = ConnectError::NoHost;
    for (place, host) in target.config.get_hosts().iter().enumerate() {
        let ports = target.config.get_ports();
        let port = ports.get(place).or(ports.first()).copied().unwrap_or(PORT);
        match connect_host(target, host, port).await {
            Ok(connected) => return Ok(connected),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_host(
    target: &PgTarget,
    host: &Host,
    port: u16,
) -> Result<(Client, Driver), ConnectError> {
    let name = match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let refused = |source| ConnectError::Socket { host: name.clone(), source };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let work = async {
        let socket = match host {
            Host::Tcp(name) => open_tcp(name, port, target.connect_timeout).await,
            Host::Unix(folder) => open_unix(folder, port).await,
        };
        let socket = socket.map_err(refused)?;
        let is_tcp = matches!(host, Host::Tcp(_));
        let tls = PgTls::new(Arc::clone(&target.tls), name.trim_matches(['[', ']']));
        let connected = if is_tcp {
            target.config.connect_raw(socket, tls).await
        } else {
            // As libpq: no TLS where there is no network.
            let mut config = target.config.clone();
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
            config.connect_raw(socket, tls).await
        };
        let (client, connection) =
            connected.map_err(|source| ConnectError::Server { host: name.clone(), source })?;
        let driver: Driver = Box::pin(connection);
        Ok((client, driver))
    };
    let timer = async {
        glommio::timer::sleep(target.connect_timeout).await;
        Err(refused(late()))
    };
    futures_lite::future::or(work, timer).await
}

async fn open_tcp(name: &str, port: u16, timeout: Duration) -> io::Result<Socket> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in resolve(name, port).await? {
        match TcpStream::connect_timeout(address, timeout).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Socket::Tcp(stream));
            }
            Err(error) => failure = io::Error::other(format!("{address}: {error}")),
        }
    }
    Err(failure)
}

async fn open_unix(folder: &Path, port: u16) -> io::Result<Socket> {
    let path = folder.join(format!(".s.PGSQL.{port}"));
    Ok(Socket::Unix(UnixStream::connect(path).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::SslMode;

    #[test]
    fn connection_strings_of_other_clients_are_understood() {
        for mode in ["require", "verify-full", "verify-ca"] {
            let config = parse(&format!("postgres://u:p@h:1,g:2/db?sslmode={mode}")).unwrap();
            assert_eq!(
                (config.get_ssl_mode(), config.get_ports()),
                (SslMode::Require, &[1, 2][..])
            );
        }
        assert!(parse("host=/run/postgresql user=u").is_ok());
        assert!(parse("sslmode=nonsense").is_err());
    }
}
