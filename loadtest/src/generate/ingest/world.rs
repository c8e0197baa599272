//! What has been told of each company: the rows that updates can refer to, and its clock.
//! Invariant: a row is known only once an event that makes it is told as valid.

use fastrand::Rng;

use super::books::Rows;

/// A message told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) number: u64,
    pub(super) unix_s: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chat {
    pub(super) is_told: bool,
    pub(super) is_contact_told: bool,
    /// The last message whose time the receiver knows.
    pub(super) message: Option<Told>,
}

#[derive(Clone, Debug)]
pub(super) struct Company {
    pub(super) name: String,
    chats: Vec<Chat>,
    agents_told: Vec<bool>,
    messages: u64,
    /// Chats beyond the pool: those whose update came first.
    fresh: u64,
    time_us: u64,
    pub(super) batches: u64,
    /// Rows that its applied events make.
    pub(super) rows: Rows,
}

impl Company {
    pub(super) fn new(name: &str, agents: u32, chats: u64, epoch_s: u64) -> Self {
        Self {
            name: name.to_owned(),
            chats: vec![Chat::default(); chats as usize],
            agents_told: vec![false; agents as usize],
            messages: 0,
            fresh: 0,
            time_us: epoch_s * 1_000_000,
            batches: 0,
            rows: Rows::default(),
        }
    }

    /// A chat of the pool; low numbers are drawn more often the more `skew` is above 1.
    pub(super) fn draw_chat(&self, rng: &mut Rng, skew: f64) -> u64 {
        let chats = self.chats.len() as u64;
        ((rng.f64().powf(skew) * chats as f64) as u64).min(chats - 1)
    }

    /// A chat that no event has named yet.
    pub(super) fn fresh_chat(&mut self) -> u64 {
        self.fresh += 1;
        self.chats.len() as u64 + self.fresh
    }

    /// Number of the next message.
    pub(super) fn next_message(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    /// A chat of the pool; one beyond it is as if never told.
    pub(super) fn chat(&self, number: u64) -> Chat {
        self.chats.get(number as usize).copied().unwrap_or_default()
    }

    pub(super) fn tell_chat(&mut self, number: u64, rows: &mut Rows) {
        let known = self.chats.get_mut(number as usize).map(|chat| &mut chat.is_told);
        rows.chats += u64::from(known.is_none_or(|is_told| !std::mem::replace(is_told, true)));
    }

    pub(super) fn tell_contact(&mut self, number: u64) {
        if let Some(chat) = self.chats.get_mut(number as usize) {
            chat.is_contact_told = true;
        }
    }

    pub(super) fn tell_message(&mut self, number: u64, told: Told) {
        if let Some(chat) = self.chats.get_mut(number as usize) {
            chat.message = Some(told);
        }
    }

    pub(super) fn tell_agent(&mut self, agent: u64, rows: &mut Rows) {
        let known = self.agents_told.get_mut(agent as usize);
        rows.agents += u64::from(known.is_some_and(|is_told| !std::mem::replace(is_told, true)));
    }

    /// Moves the company's clock on, and tells the second.
    pub(super) fn tick(&mut self, rng: &mut Rng) -> u64 {
        self.time_us += rng.u64(500..40_000);
        self.time_us / 1_000_000
    }
}
