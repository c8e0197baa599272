//! Whose turn a partition is, so that replicas share them evenly. Each shard keeps a key of its own alive in
//! the bucket of the leases while it stands by; the names of those keys are the roster, and all who see the
//! same roster give each partition to the same replica. Invariant: this only says who *should* read. Who
//! does, the lease alone decides, so a roster that is old, or differs, costs time and never a promise.

use super::bus::{AckFor, Answer, Asker, Bus};
use super::settings::Settings;
use crate::clock::Now;
use crate::id::PartitionId;
use crate::wire::nats::jetstream::{Api, StreamInfo, parse_response};

/// Whose turn a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Ours,
    Theirs,
    /// No roster yet: take only what nobody else takes, and keep what we have.
    Unknown,
}

/// This shard's key, and what it knows of the others.
pub(super) struct Share {
    /// Keys of all shards that stand by for these partitions begin so.
    prefix: String,
    me: Seat,
    roster: Option<Roster>,
    announce_at: u64,
    ask_at: u64,
}

impl Share {
    pub(super) fn new(settings: &Settings) -> Self {
        let (bucket, source) = (&settings.lease.bucket, &settings.cdc.source);
        let (stream, consumer) = (source.read_stream(), &source.consumer);
        Self {
            prefix: format!("$KV.{bucket}.standby.{stream}.{consumer}."),
            me: Seat {
                replica: token(&settings.replica),
                shards: settings.shards.max(1),
                shard: settings.shard.0,
            },
            roster: None,
            announce_at: 0,
            ask_at: 0,
        }
    }

    /// The connection is new: say at once that we are here, and see who else is.
    pub(super) fn start(&mut self) {
        (self.announce_at, self.ask_at) = (0, 0);
    }

    /// Something has changed hands: look again soon.
    pub(super) fn look_again(&mut self) {
        self.ask_at = 0;
    }

    /// Keep our key alive and the roster fresh: each three times in the life of a key.
    pub(super) fn tick(&mut self, now: Now, ttl: u64, settings: &Settings, bus: &mut Bus) {
        if now.mono >= self.announce_at {
            self.announce_at = now.mono + ttl / 3;
            bus.publish(now.mono + ttl / 3, AckFor::Presence, &self.key(), &[], b"");
        }
        if now.mono >= self.ask_at {
            self.ask_at = now.mono + ttl / 3;
            let stream = format!("KV_{}", settings.lease.bucket);
            let all = format!("{}>", self.prefix);
            let request = Api::default().stream_info_subjects(&stream, &all, 0);
            bus.request(now, Asker::Share, &request.subject, &request.body);
        }
    }

    /// The roster, or an error; then the old one stands.
    pub(super) fn on_answer(&mut self, answer: &Answer<'_>) {
        let Answer::Message(msg) = answer else { return };
        // The answer to `leave` has no subjects, and is nobody's roster.
        let Ok(info) = parse_response::<StreamInfo>(msg.payload()) else { return };
        if info.config.name.is_empty() {
            return;
        }
        let keys = info.state.subjects.keys().filter_map(|key| key.strip_prefix(&self.prefix));
        self.roster = Some(Roster::new(keys.filter_map(Seat::parse), &self.me));
    }

    /// We stop: the others need not wait until our key has expired.
    pub(super) fn leave(&mut self, now: Now, settings: &Settings, bus: &mut Bus) {
        self.roster = None;
        let stream = format!("KV_{}", settings.lease.bucket);
        let request = Api::default().stream_purge(&stream, Some(&self.key()));
        bus.request(now, Asker::Share, &request.subject, &request.body);
    }

    pub(super) fn turn(&self, partition: PartitionId) -> Turn {
        match self.roster.as_ref().map(|roster| roster.turn(partition)) {
            None => Turn::Unknown,
            Some(replica) if replica == self.me.replica => Turn::Ours,
            Some(_) => Turn::Theirs,
        }
    }

    fn key(&self) -> String {
        let Seat { replica, shards, shard } = &self.me;
        format!("{}{replica}.{shards}.{shard}", self.prefix)
    }
}

/// A shard that stands by: `shard` of `shards` of a replica reads the partitions that leave it as remainder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    replica: String,
    shards: u16,
    shard: u16,
}

impl Seat {
    fn parse(key: &str) -> Option<Self> {
        let mut tokens = key.split('.');
        let replica = tokens.next()?.to_owned();
        let (shards, shard) = (tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?);
        (shard < shards && tokens.next().is_none()).then_some(Self { replica, shards, shard })
    }

    fn can_read(&self, partition: PartitionId) -> bool {
        partition.0 % self.shards == self.shard
    }
}

/// Who stands by, in the order of their names, which begin with the time of their start: who comes last is
/// last, and takes nothing where all have enough.
#[derive(Debug, PartialEq, Eq)]
struct Roster {
    seats: Vec<Seat>,
    replicas: Vec<String>,
}

impl Roster {
    // We are here, whatever the bucket says.
    fn new(seats: impl Iterator<Item = Seat>, me: &Seat) -> Self {
        let mut seats: Vec<Seat> = seats.chain([me.clone()]).collect();
        seats.sort_unstable();
        seats.dedup();
        let mut replicas: Vec<String> = seats.iter().map(|seat| seat.replica.clone()).collect();
        replicas.dedup();
        Self { seats, replicas }
    }

    // In turns; one whose shard for this partition is not there is passed over.
    fn turn(&self, partition: PartitionId) -> &str {
        let count = self.replicas.len();
        let first = usize::from(partition.0) % count;
        let mut order = (0..count).map(|step| &self.replicas[(first + step) % count]);
        let can_read = |replica: &&String| {
            self.seats.iter().any(|seat| seat.replica == **replica && seat.can_read(partition))
        };
        order.find(can_read).unwrap_or(&self.replicas[first])
    }
}

// A host's name may hold what a subject's token may not.
fn token(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(replica: &str, shards: u16, shard: u16) -> Seat {
        Seat { replica: replica.to_owned(), shards, shard }
    }

    fn roster(replicas: &[&str], shards: u16) -> Roster {
        let seats = |r: &&str| (0..shards).map(|s| seat(r, shards, s)).collect::<Vec<_>>();
        let seats: Vec<Seat> = replicas.iter().flat_map(seats).collect();
        Roster::new(seats.iter().cloned(), &seats[0])
    }

    fn turns(roster: &Roster, partitions: u16) -> Vec<&str> {
        (0..partitions).map(|k| roster.turn(PartitionId(k))).collect()
    }

    #[test]
    fn replicas_take_turns_whatever_order_their_keys_come_in() {
        for shards in 1..=3 {
            assert_eq!(turns(&roster(&["b", "a"], shards), 5), ["a", "b", "a", "b", "a"]);
            assert_eq!(roster(&["b", "a", "c"], shards), roster(&["c", "b", "a"], shards));
        }
    }

    #[test]
    fn shares_differ_by_one_at_the_most() {
        for replicas in 1..=5 {
            let names: Vec<String> = (0..replicas).map(|r| format!("r{r}")).collect();
            let roster = roster(&names.iter().map(String::as_str).collect::<Vec<_>>(), 2);
            for partitions in 1..=12 {
                let turns = turns(&roster, partitions);
                let count = |name: &String| turns.iter().filter(|turn| *turn == name).count();
                let counts: Vec<usize> = names.iter().map(count).collect();
                let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
                assert!(spread <= 1, "{partitions} partitions: {counts:?}");
            }
        }
    }

    #[test]
    fn who_comes_when_all_have_enough_takes_nothing() {
        assert_eq!(turns(&roster(&["a", "b"], 1), 2), turns(&roster(&["a", "b", "c"], 1), 2));
    }

    #[test]
    fn a_replica_whose_shard_is_away_is_passed_over() {
        let seats = [seat("a", 2, 0), seat("b", 1, 0)];
        let roster = Roster::new(seats.iter().cloned(), &seats[0]);
        // Partition 2 is `a`'s and of its shard 0; 3 of its absent shard 1, were it `a`'s; 1 is `b`'s.
        assert_eq!(turns(&roster, 3), ["a", "b", "a"]);
        let seats = [seat("a", 2, 1), seat("b", 1, 0)];
        let roster = Roster::new(seats.iter().cloned(), &seats[0]);
        assert_eq!(turns(&roster, 3), ["b", "b", "b"]);
    }

    #[test]
    fn a_key_is_read_back_and_others_are_not() {
        assert_eq!(Seat::parse("00ab-host-7.4.3"), Some(seat("00ab-host-7", 4, 3)));
        for key in ["a", "a.1", "a.1.1", "a.0.0", "a.x.0", "a.2.1.0", ""] {
            assert_eq!(Seat::parse(key), None, "{key}");
        }
        assert_eq!(token("00ab-host.example_7"), "00ab-host_example_7");
    }
}
