//! Where a shard connects to, and as whom. Secrets in files are read again for each attempt to connect to
//! NATS, so that a rotated file is taken up without a restart.

use crate::wire::nats::auth::{Credentials, NKeySeed, Secret};
use rustls::ClientConfig;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Larger is no secret but a mistaken path.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name to look for in its certificate; addresses learnt from a server carry the seed's.
    pub name: String,
}

impl Address {
    /// An address whose certificate bears its own host name.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, name: host.trim_matches(['[', ']']).to_owned() }
    }

    /// `host:port` as a server lists it; IPv6 addresses in brackets.
    #[must_use]
    pub fn parse(text: &str, name: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        Some(Self { host: host.to_owned(), port, name: name.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where the NATS credentials come from.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// As configured.
    Fixed(Credentials),
    /// A `.creds` file: JWT and seed.
    CredsFile(PathBuf),
    /// A file with an NKey seed.
    NKeyFile(PathBuf),
    /// A file with the password of `user`.
    PasswordFile {
        /// The user.
        user: String,
        /// The file.
        path: PathBuf,
    },
    /// A file with a token.
    TokenFile(PathBuf),
}

impl CredentialSource {
    /// The credentials of this attempt.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold what it should; said with its path.
    pub fn load(&self) -> Result<Credentials, String> {
        let at = |path: &Path, why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let read = |path: &Path| read_secret(path).map_err(|why| at(path, &why));
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::CredsFile(path) => {
                Credentials::from_creds(read(path)?.expose()).map_err(|error| at(path, &error))
            }
            Self::NKeyFile(path) => NKeySeed::parse(read(path)?.expose())
                .map(|seed| Credentials::NKey { seed })
                .map_err(|error| at(path, &error)),
            Self::PasswordFile { user, path } => {
                Ok(Credentials::UserPassword { user: user.clone(), password: read(path)? })
            }
            Self::TokenFile(path) => Ok(Credentials::Token(read(path)?)),
        }
    }
}

/// The secret in a file, without the line break at its end.
///
/// # Errors
/// The file cannot be read, or is empty, as in the moment of its rewriting; said without its path.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("cannot be read: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("the file is empty".to_owned()),
        secret => Ok(Secret::new(secret)),
    }
}

/// The NATS servers.
#[derive(Clone, Debug)]
pub struct NatsTarget {
    /// Configured servers; at least one.
    pub seeds: Vec<Address>,
    /// Who we are.
    pub credentials: CredentialSource,
    /// How to encrypt, wherever that is asked for by us or by the server.
    pub tls: Arc<ClientConfig>,
    /// Bound on one TCP connect.
    pub connect_timeout: Duration,
}

/// The Redis server.
#[derive(Clone, Debug)]
pub struct RedisTarget {
    /// Its address.
    pub address: Address,
    /// How to encrypt, if at all (`rediss://`).
    pub tls: Option<Arc<ClientConfig>>,
    /// Bound on one TCP connect.
    pub connect_timeout: Duration,
}
