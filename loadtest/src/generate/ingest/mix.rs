//! Events of all ten kinds as one source: realtime events of some companies, history events of others.
//! Invariant: no company has both, since which of the two streams is read first is nobody's promise, and an
//! update must not depend on it.

use super::{Event, Generator, Kind, Profile, Rows};
use crate::send::Source;

/// One history event in so many.
const HISTORY_EVERY: u64 = 8;

/// The two generators, in turn.
#[derive(Clone, Debug)]
pub struct Mix {
    realtime: Generator,
    history: Generator,
    number: u64,
}

impl Mix {
    /// Realtime events of the companies of `profile`, history events of `history`; its kinds are not looked at.
    ///
    /// # Errors
    /// What is wrong with the profile, in words.
    pub fn new(profile: Profile, history: Vec<String>) -> Result<Self, String> {
        let (batches, singles) = Kind::ALL.into_iter().partition(|kind| kind.items().is_some());
        let seed = profile.seed.wrapping_add(1);
        let second = Profile { seed, subjects: batches, companies: history, ..profile.clone() };
        Ok(Self {
            realtime: Generator::new(Profile { subjects: singles, ..profile })?,
            history: Generator::new(second)?,
            number: 0,
        })
    }

    /// Both generators, for their books.
    pub fn generators(&self) -> [&Generator; 2] {
        [&self.realtime, &self.history]
    }

    /// The rows that each company must have.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Rows)> {
        self.realtime.rows().chain(self.history.rows())
    }

    /// The next event. There is always one.
    #[expect(clippy::should_implement_trait, reason = "an event borrows from the generator")]
    pub fn next(&mut self) -> Event<'_> {
        let is_history = self.number.is_multiple_of(HISTORY_EVERY);
        self.number += 1;
        if is_history { self.history.next() } else { self.realtime.next() }
    }

    /// Which event of both, from 0, was published under this `Nats-Msg-Id`.
    pub fn number_of(&self, msg_id: &str) -> Option<u64> {
        let realtime = |ordinal| ordinal + ordinal / (HISTORY_EVERY - 1) + 1;
        let found = self.realtime.ordinal_of(msg_id).map(realtime);
        found.or_else(|| self.history.ordinal_of(msg_id).map(|ordinal| ordinal * HISTORY_EVERY))
    }
}

impl Source for Mix {
    type Event<'a> = Event<'a>;

    fn next(&mut self) -> Option<Event<'_>> {
        Some(Mix::next(self))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::{Kind, Mix, Profile, Rows};

    #[test]
    fn every_kind_occurs_ids_lead_back_to_numbers_and_rows_add_up() {
        let companies = ["A", "B"].map(str::to_owned).to_vec();
        let profile = Profile { companies, ..Profile::default() };
        let mut mix = Mix::new(profile, vec!["C".to_owned()]).unwrap();
        let mut kinds = BTreeSet::new();
        for number in 0..2_000 {
            let event = mix.next();
            kinds.insert(event.kind);
            assert_eq!(event.kind.items().is_some(), event.company == "C");
            let id = event.msg_id.unwrap().to_owned();
            assert_eq!(mix.number_of(&id), Some(number), "{id}");
        }
        assert_eq!(kinds.len(), Kind::ALL.len());
        let mut sum = Rows::default();
        for (company, rows) in mix.rows() {
            assert!(rows.messages > 0 && rows.chats > 0, "{company} {rows:?}");
            sum.enter(Rows::default(), rows);
        }
        let [mut both, history] = mix.generators().map(|generator| generator.books().rows);
        both.enter(Rows::default(), history);
        assert_eq!(sum, both);
        assert_eq!(mix.number_of("load-00000000-7"), None);
    }
}
