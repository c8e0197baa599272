//! One company: a database with a log of its own, and the transaction it is in the middle of.
//! Invariant: `(lsn, idx)` of the rows told rises; a transaction's rows share LSN and commit time.

use fastrand::Rng;

use super::profile::Profile;
use super::row::Table;
use super::text::{TimeText, time_text};

/// One row of a transaction, still to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) action: &'static str,
}

const fn change(table: Table, action: &'static str) -> Change {
    Change { table, action }
}

/// Transactions as a chat makes them, with their weights; rows are told from the last to the first.
const TRANSACTIONS: &[(u32, &[Change])] = &[
    (22, &[change(Table::Messages, "insert")]),
    (33, &[change(Table::Chats, "update"), change(Table::Messages, "insert")]),
    // Two changes of one row in one transaction: only the index tells them apart.
    (
        3,
        &[
            change(Table::Chats, "update"),
            change(Table::Chats, "update"),
            change(Table::Messages, "insert"),
        ],
    ),
    (20, &[change(Table::Messages, "update")]),
    (10, &[change(Table::Chats, "update")]),
    (2, &[change(Table::Chats, "insert")]),
    (3, &[change(Table::Agents, "update")]),
    (5, &[change(Table::Contacts, "update")]),
    (1, &[change(Table::Contacts, "delete")]),
    (1, &[change(Table::Messages, "delete")]),
];

/// Distance between the logs of two companies: their LSNs, and so their message ids, never meet.
const LSN_STRIDE: u64 = 1 << 40;

#[derive(Clone, Debug)]
pub(super) struct Company {
    pub(super) name: String,
    pub(super) lsn: u64,
    pub(super) idx: u32,
    pub(super) chat: u64,
    pub(super) messages: u64,
    pub(super) time: TimeText,
    time_us: u64,
    rows: &'static [Change],
}

impl Company {
    pub(super) fn new(number: u64, profile: &Profile) -> Self {
        let time_us = profile.epoch_s * 1_000_000;
        Self {
            name: format!("Company{number:05}"),
            lsn: 5_368_722_184 + profile.lsn_base + number * LSN_STRIDE,
            idx: 0,
            chat: 0,
            messages: 0,
            time: time_text(time_us),
            time_us,
            rows: &[],
        }
    }

    /// The next row of its transaction, and the row's index; begins a transaction if none is open.
    pub(super) fn next_change(&mut self, rng: &mut Rng, chats: u64) -> (Change, u32) {
        if self.rows.is_empty() {
            self.begin(rng, chats);
            self.rows = draw_transaction(rng);
        }
        let (last, rest) = self.rows.split_last().unwrap_or((&TRANSACTIONS[0].1[0], &[]));
        self.rows = rest;
        let idx = self.idx;
        self.idx += 1;
        (*last, idx)
    }

    /// Ends the open transaction, if any, and begins one at a later LSN with a chat of its own.
    pub(super) fn begin(&mut self, rng: &mut Rng, chats: u64) {
        self.rows = &[];
        self.idx = 0;
        self.lsn += rng.u64(200..4_000);
        self.chat = rng.u64(..chats);
        self.time_us += rng.u64(500..40_000);
        self.time = time_text(self.time_us);
    }

    pub(super) fn unix_s(&self) -> u64 {
        self.time_us / 1_000_000
    }

    /// Whether the row just told was its transaction's only one.
    pub(super) fn told_alone(&self) -> bool {
        self.idx == 1 && self.rows.is_empty()
    }
}

fn draw_transaction(rng: &mut Rng) -> &'static [Change] {
    let sum: u32 = TRANSACTIONS.iter().map(|(weight, _)| weight).sum();
    let mut rest = rng.u32(..sum);
    for (weight, rows) in TRANSACTIONS {
        if rest < *weight {
            return rows;
        }
        rest -= weight;
    }
    TRANSACTIONS[0].1
}
