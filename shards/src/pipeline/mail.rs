//! What passes between the shards of a process, and nothing else does. Lanes keep their order.

use super::settings::StageName;
use crate::id::{Epoch, PartitionId, ShardId};
use crate::wire::nats::jetstream::AckSubject;
use crate::wire::nats::op::Msg;
use std::borrow::Cow;

/// An event on its way from the shard that reads its partition to the shard that owns its company.
#[derive(Debug)]
pub struct Parcel {
    /// Who reads the partition, and wants the report.
    pub reader: ShardId,
    /// Who it is for.
    pub stage: StageName,
    /// The partition.
    pub partition: PartitionId,
    /// The reading that it belongs to.
    pub epoch: Epoch,
    /// Its place in the reader's books.
    pub index: u64,
    /// Stream sequence.
    pub seq: u64,
    /// JetStream's time of storing it, Unix ns.
    pub stored: u64,
    /// When its stream was created, Unix ns.
    pub stream_created: u64,
    /// Deliveries so far, as the server counts them.
    pub delivered: u64,
    /// When it was received here, monotonic ns.
    pub received: u64,
    /// An earlier life may have published it.
    pub replay: bool,
    /// Bytes of its subject that name the partition.
    pub prefix: usize,
    /// Subject and body.
    pub msg: Msg,
}

impl Parcel {
    /// Subject as it was published: a partitioned stream's `p.<k>.` is taken off.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.msg.subject()[self.prefix..]
    }

    /// The stream it was read from, as its ack subject names it.
    #[must_use]
    pub fn stream(&self) -> &[u8] {
        let ack = self.msg.reply().and_then(|reply| AckSubject::parse(reply).ok());
        ack.map_or(&[], |ack| ack.stream)
    }

    /// The id it was published with; without one, `msg-<sequence>`, as the contract names it.
    #[must_use]
    pub fn message_id(&self) -> Cow<'_, str> {
        match self.msg.header(b"Nats-Msg-Id") {
            Some(id) => String::from_utf8_lossy(id),
            None => format!("msg-{}", self.seq).into(),
        }
    }
}

/// What becomes of a dead letter that was tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterFate {
    /// Its event is committed.
    Done,
    /// It is tried again after a delay.
    Later,
    /// It stands among the exhausted events.
    GivenUp,
}

/// A letter between shards.
#[derive(Debug)]
pub enum Mail {
    /// Handle this event.
    Parcel(Parcel),
    /// The event under this index has reached its outcome.
    Done {
        /// Its partition.
        partition: PartitionId,
        /// Its reading.
        epoch: Epoch,
        /// Its place in the reader's books.
        index: u64,
    },
    /// An event of a replay has its place in the output; its outcome waits for [`Mail::CaughtUp`].
    Placed {
        /// Its partition.
        partition: PartitionId,
        /// Its reading.
        epoch: Epoch,
    },
    /// All that an earlier life may have published of this partition has been handed on.
    CaughtUp {
        /// The partition.
        partition: PartitionId,
    },
    /// As [`Mail::Done`], for a dead letter whose event has not been committed.
    Judged {
        /// Its partition.
        partition: PartitionId,
        /// Its reading.
        epoch: Epoch,
        /// Its place in the reader's books.
        index: u64,
        /// What is to become of it.
        fate: LetterFate,
    },
    /// Everything of this partition before `epoch` is void: drop it without an outcome.
    Cancel {
        /// The partition.
        partition: PartitionId,
        /// The first reading that counts.
        epoch: Epoch,
    },
    /// The sender has lost what it was handed: read your partitions again.
    Lost {
        /// Who lost it.
        shard: ShardId,
    },
}
