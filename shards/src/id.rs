//! Names of things as types, so that a shard is never taken for a partition. Pure vocabulary.

use std::fmt;

/// A shard of this process: its place in the pool, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A partition of a source stream: the unit that one reader reads, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u16);

/// One uninterrupted reading of a partition. Whatever carries an older epoch is void: its events are
/// read again. Grows within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Longest company id, bytes: with the prefix it fits a PostgreSQL name of 63.
pub const COMPANY_BYTES_MAX: usize = 48;

/// The PostgreSQL schema of a company: `daisi_` and the company in lower case. Invariant: made only from a
/// company id of `[A-Za-z0-9_-]{1,48}`, so it may stand in SQL between double quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaName(String);

impl SchemaName {
    /// Starts every schema of ours.
    pub const PREFIX: &str = "daisi_";

    /// The schema of `company`; `None` if that is no company id.
    #[must_use]
    pub fn of(company: &str) -> Option<Self> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let is_company =
            (1..=COMPANY_BYTES_MAX).contains(&company.len()) && company.bytes().all(is_good);
        is_company.then(|| Self(format!("{}{}", Self::PREFIX, company.to_ascii_lowercase())))
    }

    /// The name, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in a statement.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The shard that owns a company. FNV-1a 32, the hash of the NATS server's `{{partition()}}`, so
/// that a split made by the server and ours agree (reference: nats-server `fnv.New32a`).
#[must_use]
pub fn shard_of(company: &[u8], shards: u16) -> ShardId {
    let shard = fnv1a32(company) % u32::from(shards.max(1));
    ShardId(u16::try_from(shard).unwrap_or(0)) // Below `shards`, so it always fits.
}

/// FNV-1a, 32 bits (Fowler, Noll, Vo; draft-eastlake-fnv).
#[must_use]
pub fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_made_of_a_company_id_and_of_nothing_else() {
        let schema = SchemaName::of("ACME-1_x").expect("a company");
        assert_eq!(
            (schema.as_str(), schema.quoted()),
            ("daisi_acme-1_x", "\"daisi_acme-1_x\"".into())
        );
        let longest = "a".repeat(COMPANY_BYTES_MAX);
        assert!(SchemaName::of(&longest).expect("a company").as_str().len() <= 63);
        for bad in ["", " ", "a.b", "a\"b", "a'b", "a;b", "\u{e9}", &format!("{longest}a")] {
            assert_eq!(SchemaName::of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn partition_agrees_with_the_server() {
        // Observed on nats-server 2.9.10, 2.10.27 and 2.15.1 with {{partition(256,1)}}.
        for (company, partition) in [("co1", 2), ("acme", 175), ("x_9", 35)] {
            assert_eq!(fnv1a32(company.as_bytes()) % 256, partition, "{company}");
        }
    }
}
