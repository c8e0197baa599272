//! What a pipeline wants done by the edge: a closed list. Bytes for the servers stand in the pipeline's
//! two output buffers; everything else is one of these.

use super::ingest::Job;
use super::mail::Mail;
use crate::id::ShardId;

/// Something for the edge to perform.
#[derive(Debug)]
pub enum Effect {
    /// Open a socket to a NATS server, chosen by the edge: the next one of its list. The edge reads the
    /// credentials for each attempt.
    NatsConnect,
    /// Start TLS on the NATS socket.
    NatsStartTls,
    /// Close the NATS socket.
    NatsClose,
    /// The server's current addresses, besides the configured ones.
    NatsTopology(Vec<String>),
    /// Open a socket to Redis.
    RedisConnect,
    /// Close the Redis socket.
    RedisClose,
    /// Connect a lane to PostgreSQL.
    PgConnect {
        /// Which.
        lane: u16,
    },
    /// Close a lane's connection; a write under way comes back first.
    PgClose {
        /// Which.
        lane: u16,
    },
    /// Write a job over a lane's connection.
    PgWrite {
        /// Which; it is connected and idle.
        lane: u16,
        /// What.
        job: Box<Job>,
    },
    /// Carry a letter.
    Mail {
        /// To whom.
        to: ShardId,
        /// What.
        mail: Mail,
    },
    /// Everything is finished and handed over: the shard may end.
    Drained,
}
