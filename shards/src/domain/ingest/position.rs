//! Where an event stands in its stream: what orders writes to a row, and what the row remembers of its last
//! writer. Pure. Source: contract `ingest.md` sections 4.6 and 4.7.

/// Origin and position of one event; for a retry from the dead letters those of the original.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position<'a> {
    /// Stream's name.
    pub stream: &'a str,
    /// Sequence in it.
    pub stream_sequence: u64,
    /// Durable consumer that delivered it.
    pub consumer: &'a str,
    /// Sequence of that delivery.
    pub consumer_sequence: u64,
    /// JetStream domain, usually empty.
    pub domain: &'a str,
    /// `Nats-Msg-Id`; empty when it had none, and `msg-<stream_sequence>` is stored then.
    pub message_id: &'a str,
    /// Full subject.
    pub subject: &'a str,
    /// When JetStream stored it, Unix ns.
    pub published_ns: u64,
}
