//! The local stack: private nats-server, redis-server and PostgreSQL on loopback, in one temporary
//! folder. Invariant: servers and folder end with this process, also when that is killed (`keeper`).

mod keeper;
pub mod nats;
pub mod postgres;
pub mod redis;
pub mod server;

use std::env;
use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keeper::Folder;
pub(crate) use keeper::spawn as spawn_kept;
pub use nats::{Nats, NatsAuth, NatsOptions};
pub use postgres::{Postgres, PostgresOptions};
pub use redis::{Redis, RedisOptions};
use server::{Kind, Server};

/// Why a server of the stack is not there.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// No such binary on this machine.
    #[error("{name} is neither in PATH nor in {searched:?}; set {variable} to its path")]
    BinaryMissing {
        /// The binary looked for.
        name: String,
        /// Folders looked into besides `PATH`.
        searched: Vec<PathBuf>,
        /// Environment variable that overrides the search.
        variable: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {name}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which server.
        name: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("{name} ended with {status}; its log ends:\n{log}")]
    Exited {
        /// The server.
        name: &'static str,
        /// Its exit status in words.
        status: String,
        /// Tail of its log.
        log: String,
    },
    /// It runs and does not serve.
    #[error("{name} is not ready after {waited:?}: {missing}; its log ends:\n{log}")]
    NotReady {
        /// The server.
        name: &'static str,
        /// How long it was given.
        waited: Duration,
        /// What the last probe missed.
        missing: String,
        /// Tail of its log.
        log: String,
    },
    /// Every port drawn was taken by someone else.
    #[error("no free port for {name} in {draws} draws")]
    PortsTaken {
        /// The server.
        name: &'static str,
        /// Ports tried.
        draws: u32,
    },
}

impl StackError {
    fn io(doing: &'static str, name: &'static str, source: io::Error) -> Self {
        Self::Io { doing, name, source }
    }
}

/// The servers that were asked for. Dropping it ends them and removes the folder.
#[derive(Debug)]
pub struct Stack {
    /// nats-server; using it panics if it was not asked for.
    pub nats: Slot<Nats>,
    /// redis-server; using it panics if it was not asked for.
    pub redis: Slot<Redis>,
    /// PostgreSQL; using it panics if it was not asked for.
    pub postgres: Slot<Postgres>,
    // Last: removed after the servers are gone.
    folder: Folder,
}

impl Stack {
    /// Nothing is started unless named on the builder.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// The temporary folder that holds everything; free to use for further files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Which servers, and how.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before start()"]
pub struct StackBuilder {
    nats: Option<NatsOptions>,
    redis: Option<RedisOptions>,
    postgres: Option<PostgresOptions>,
    parent: Option<PathBuf>,
}

impl StackBuilder {
    /// With a nats-server.
    pub fn nats(mut self, options: NatsOptions) -> Self {
        self.nats = Some(options);
        self
    }

    /// With a redis-server.
    pub fn redis(mut self, options: RedisOptions) -> Self {
        self.redis = Some(options);
        self
    }

    /// With a PostgreSQL.
    pub fn postgres(mut self, options: PostgresOptions) -> Self {
        self.postgres = Some(options);
        self
    }

    /// Puts the folder under `parent` instead of the system's temporary folder.
    pub fn parent(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Starts the servers side by side and returns when all of them answer.
    ///
    /// # Errors
    /// The first server that is missing, ends, or does not answer; the others are ended again.
    pub fn start(self) -> Result<Stack, StackError> {
        let parent = self.parent.unwrap_or_else(env::temp_dir);
        let folder = Folder::create(&parent)
            .map_err(|e| StackError::io("make the folder of", "the stack", e))?;
        let home = |name| folder.path().join(name);
        let (nats, redis, postgres) = std::thread::scope(|scope| {
            let nats = self.nats.map(|options| {
                let binary = options.binary.clone();
                scope.spawn(|| launch(nats::NatsKind::new(options), binary, home("nats")))
            });
            let redis = self.redis.map(|options| {
                let binary = options.binary.clone();
                scope.spawn(|| launch(redis::RedisKind::new(options), binary, home("redis")))
            });
            let postgres = self.postgres.map(|options| {
                let binary = options.binary.clone();
                scope.spawn(|| {
                    launch(postgres::PostgresKind::new(options), binary, home("postgres"))
                })
            });
            (nats.map(join), redis.map(join), postgres.map(join))
        });
        Ok(Stack {
            nats: Slot::new(nats.transpose()?, "nats"),
            redis: Slot::new(redis.transpose()?, "redis"),
            postgres: Slot::new(postgres.transpose()?, "postgres"),
            folder,
        })
    }
}

fn launch<K: Kind>(
    kind: K,
    binary: Option<PathBuf>,
    home: PathBuf,
) -> Result<Server<K>, StackError> {
    let binary = binary.map_or_else(|| find_binary(K::NAME), Ok)?;
    Server::launch(kind, binary, home)
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A server that may not have been asked for. Dereferencing an absent one panics with its name:
/// which servers a test has is written a few lines above, so absence is a mistake in that test.
#[derive(Debug)]
pub struct Slot<T> {
    server: Option<T>,
    name: &'static str,
}

impl<T> Slot<T> {
    fn new(server: Option<T>, name: &'static str) -> Self {
        Self { server, name }
    }

    /// The server, if it was asked for.
    pub fn as_option(&self) -> Option<&T> {
        self.server.as_ref()
    }
}

impl<T> Deref for Slot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let Some(server) = &self.server else {
            panic!("the stack was built without {0}: call .{0}(..) on the builder", self.name)
        };
        server
    }
}

impl<T> DerefMut for Slot<T> {
    fn deref_mut(&mut self) -> &mut T {
        let Some(server) = &mut self.server else {
            panic!("the stack was built without {0}: call .{0}(..) on the builder", self.name)
        };
        server
    }
}

/// Finds `name`: the variable `DAISI_<NAME>` (`DAISI_NATS_SERVER` for `nats-server`), then `PATH`,
/// then `/usr/sbin`, `/usr/local/bin` and `/usr/lib/postgresql/*/bin`, newest version first.
///
/// # Errors
/// [`StackError::BinaryMissing`] with everything that was tried.
pub fn find_binary(name: &str) -> Result<PathBuf, StackError> {
    let variable = format!("DAISI_{}", name.to_ascii_uppercase().replace('-', "_"));
    if let Some(path) = env::var_os(&variable) {
        return Ok(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let searched = system_folders();
    env::split_paths(&path)
        .chain(searched.iter().cloned())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or(StackError::BinaryMissing { name: name.to_owned(), searched, variable })
}

fn system_folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/bin")];
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| -> u32 {
        path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    folders.extend(versions.into_iter().map(|version| version.join("bin")));
    folders
}
