//! What must become of the events told so far, counted as they are told. Invariant: every event is in
//! exactly one cell, so the sum over all outcomes is the number of events.

use std::fmt::{self, Display};

use serde_json::{Map, Value, json};

use super::{Fault, Kind};

/// What must become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expect {
    /// Stored by the stream and applied.
    Applied,
    /// A copy without a `Nats-Msg-Id`: an event of its own to the stream, and applied once more.
    AppliedAgain,
    /// The stream has its `Nats-Msg-Id` already and drops it; its PubAck says `duplicate`.
    Dropped,
    /// Stored by the stream, refused, and dead-lettered as fatal. One that is
    /// [out of order](Fault::OutOfOrder) is tried again from there, finds its row by then newer than
    /// itself, and ends without effect; the others end in `exhausted_events`.
    DeadLettered(Fault),
}

impl Expect {
    /// `applied`, `applied_again`, `dropped`, or `dead_lettered <fault>`.
    pub fn name(self) -> String {
        match self {
            Self::Applied => "applied".into(),
            Self::AppliedAgain => "applied_again".into(),
            Self::Dropped => "dropped".into(),
            Self::DeadLettered(fault) => format!("dead_lettered {}", fault.name()),
        }
    }

    fn cell(self) -> usize {
        match self {
            Self::Applied => 0,
            Self::AppliedAgain => 1,
            Self::Dropped => 2,
            Self::DeadLettered(fault) => 3 + fault as usize,
        }
    }
}

const CELLS: usize = 3 + Fault::ALL.len();

/// Rows that the applied events make, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Of `agents`.
    pub agents: u64,
    /// Of `chats`.
    pub chats: u64,
    /// Of `messages`.
    pub messages: u64,
}

impl Rows {
    /// Counts what was told between two looks at the same sum.
    pub(super) fn enter(&mut self, before: Self, after: Self) {
        self.agents += after.agents - before.agents;
        self.chats += after.chats - before.chats;
        self.messages += after.messages - before.messages;
    }
}

/// The expectation. Rows of `contacts` are not in it: onboarding makes some too, under cleaned phones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    cells: [[u64; CELLS]; Kind::ALL.len()],
    /// Rows in all companies, if none of them was there before.
    pub rows: Rows,
    /// Upserts told in the place of an update that had nothing to change yet.
    pub substituted: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl Books {
    pub(super) fn enter(&mut self, kind: Kind, expect: Expect, bytes: usize) {
        self.cells[kind as usize][expect.cell()] += 1;
        self.bytes += bytes as u64;
    }

    /// Events of a kind with an outcome.
    pub fn of(&self, kind: Kind, expect: Expect) -> u64 {
        self.cells[kind as usize][expect.cell()]
    }

    /// Events of all kinds with an outcome.
    pub fn outcome(&self, expect: Expect) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.of(kind, expect)).sum()
    }

    /// Events dead-lettered, of any fault.
    pub fn dead_lettered(&self) -> u64 {
        Fault::ALL.into_iter().map(|fault| self.outcome(Expect::DeadLettered(fault))).sum()
    }

    /// All events.
    pub fn events(&self) -> u64 {
        self.cells.iter().flatten().sum()
    }

    /// Messages that the streams hold of them.
    pub fn stored(&self) -> u64 {
        self.events() - self.outcome(Expect::Dropped)
    }

    /// As one JSON object; outcomes in all and for each kind that occurred.
    pub fn to_json(&self) -> Value {
        let mut subjects = Map::new();
        for kind in Kind::ALL {
            let counted = |expect| (expect, self.of(kind, expect));
            let counts: Map<String, Value> = outcomes()
                .map(counted)
                .filter(|(_, count)| *count > 0)
                .map(|(expect, count)| (expect.name(), count.into()))
                .collect();
            if !counts.is_empty() {
                subjects.insert(kind.subject().into(), counts.into());
            }
        }
        let all: Map<String, Value> =
            outcomes().map(|expect| (expect.name(), self.outcome(expect).into())).collect();
        let Rows { agents, chats, messages } = self.rows;
        json!({
            "events": self.events(),
            "stored": self.stored(),
            "outcomes": all,
            "subjects": subjects,
            "rows": { "agents": agents, "chats": chats, "messages": messages },
            "substituted": self.substituted,
            "bytes": self.bytes,
        })
    }
}

fn outcomes() -> impl Iterator<Item = Expect> {
    let plain = [Expect::Applied, Expect::AppliedAgain, Expect::Dropped];
    let dead = Fault::ALL.into_iter().filter(|fault| fault.is_fatal()).map(Expect::DeadLettered);
    plain.into_iter().chain(dead)
}

impl Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["expected outcome", "applied", "again", "dropped", "dead"];
        writeln!(f, "{:<22}{:>10}{:>8}{:>9}{:>8}", head[0], head[1], head[2], head[3], head[4])?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, count: &dyn Fn(Expect) -> u64| {
            let dead: u64 = Fault::ALL.into_iter().map(|at| count(Expect::DeadLettered(at))).sum();
            let [applied, again] = [count(Expect::Applied), count(Expect::AppliedAgain)];
            let dropped = count(Expect::Dropped);
            writeln!(f, "{name:<22}{applied:>10}{again:>8}{dropped:>9}{dead:>8}")
        };
        for kind in Kind::ALL {
            if self.cells[kind as usize].iter().any(|count| *count > 0) {
                line(f, &format!("  {}", kind.subject()), &|expect| self.of(kind, expect))?;
            }
        }
        line(f, "all", &|expect| self.outcome(expect))?;
        for fault in Fault::ALL {
            let count = self.outcome(Expect::DeadLettered(fault));
            if count > 0 {
                writeln!(f, "  dead-lettered, {:<12} {count:>27}", fault.name())?;
            }
        }
        let Rows { agents, chats, messages } = self.rows;
        writeln!(f, "rows: {agents} agents, {chats} chats, {messages} messages")?;
        match self.substituted {
            0 => Ok(()),
            n => writeln!(f, "{n} upserts stand for updates that had nothing to change yet"),
        }
    }
}
