//! The shape of an ingest workload: of whom, what, and how much of which trouble. Read from JSON or made
//! on a command line; unknown keys are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Fault, Kind};

/// A workload. Shares are fractions, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Same seed and profile, same bytes. Chats, messages and phones of two seeds differ.
    pub seed: u64,
    /// Kinds of events, taken in turn; one named twice comes twice as often.
    pub subjects: Vec<Kind>,
    /// Companies; each meets each kind, in turn.
    pub companies: Vec<String>,
    /// Turns that a company has in a round, in the order of `companies`; those beyond the list have one. With
    /// `[9]` the first has nine for each one of the others.
    pub turns: Vec<u32>,
    /// Agents of a company. 1 to 10,000.
    pub agents: u32,
    /// Chats of an agent. 1 to 100,000.
    pub chats: u32,
    /// Items of a history batch. A batch ends early at 768 KiB, below what a server takes by default.
    pub history_count: u32,
    /// How uneven chats are: 1 all alike, 2 the first quarter has half of the traffic, and so on.
    pub skew: f64,
    /// Share of chats that are groups.
    pub groups: f64,
    /// Share of messages with media.
    pub media: f64,
    /// Share of incoming messages that a campaign brought.
    pub campaigns: f64,
    /// Share of valid events written in an unusual way that the contract takes: aliases, no company,
    /// `null` members, unknown members, integers as `1.0`, a message without its time.
    pub quirks: f64,
    /// Share of events without a `Nats-Msg-Id`. A resend after an outage may store one twice.
    pub bare: f64,
    /// Share of events of each kind of trouble.
    pub faults: BTreeMap<Fault, f64>,
    /// Median length of a message's text, in bytes; lengths are log-normal.
    pub text_median: f64,
    /// Spread of the text lengths: standard deviation of their logarithm.
    pub text_sigma: f64,
    /// Start of the story told, seconds since the epoch.
    pub epoch_s: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            seed: 1,
            subjects: vec![Kind::ChatsUpsert, Kind::MessagesUpsert],
            companies: vec!["RIDH".into()],
            turns: Vec::new(),
            agents: 4,
            chats: 32,
            history_count: 10,
            skew: 1.5,
            groups: 0.12,
            media: 0.15,
            campaigns: 0.05,
            quirks: 0.02,
            bare: 0.0,
            faults: BTreeMap::new(),
            text_median: 28.0,
            text_sigma: 1.1,
            epoch_s: 1_748_772_000, // 2025-06-01T10:00:00Z, as in the contract's samples.
        }
    }
}

impl Profile {
    /// What keeps it from being generated, in words.
    ///
    /// # Errors
    /// The first key that is out of its bounds.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64, max: f64| match value {
            value if (0.0..=max).contains(&value) => Ok(()),
            _ => Err(format!("{name} is {value}; it takes 0 to {max}")),
        };
        let counts = [
            ("agents", self.agents, 10_000),
            ("chats", self.chats, 100_000),
            ("history_count", self.history_count, 100_000),
        ];
        for (name, count, max) in counts {
            if !(1..=max).contains(&count) {
                return Err(format!("{name} is {count}; it takes 1 to {max}"));
            }
        }
        let shares = [
            ("groups", self.groups),
            ("media", self.media),
            ("campaigns", self.campaigns),
            ("quirks", self.quirks),
            ("bare", self.bare),
        ];
        shares.into_iter().try_for_each(|(name, share)| within(name, share, 1.0))?;
        for (fault, share) in &self.faults {
            within(&format!("the share of {}", fault.name()), *share, 1.0)?;
        }
        within("the sum of all faults", self.faults.values().sum(), 1.0)?;
        within("text_median", self.text_median, 250_000.0)?;
        within("text_sigma", self.text_sigma, 5.0)?;
        // Times are counted in microseconds; the bound is the year 5138.
        within("epoch_s", self.epoch_s as f64, 1e11)?;
        if let Some(turns) = self.turns.iter().find(|turns| !(1..=1_000).contains(*turns)) {
            return Err(format!("turns holds {turns}; it takes 1 to 1000 each"));
        }
        if self.skew < 1.0 || !self.skew.is_finite() {
            return Err(format!("skew is {}; it takes 1 or more", self.skew));
        }
        if self.subjects.is_empty() || self.companies.is_empty() {
            return Err("there must be at least one subject and one company".into());
        }
        self.companies.iter().try_for_each(|company| check_company(company))
    }

    pub(super) fn chats_per_company(&self) -> u64 {
        u64::from(self.agents) * u64::from(self.chats)
    }
}

/// Section 3 of the contract: others are refused, and a dot would make another subject of it.
fn check_company(company: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match (1..=48).contains(&company.len()) && company.chars().all(is_plain) {
        true => Ok(()),
        false => Err(format!("company {company:?} is not 1 to 48 of A-Z a-z 0-9 _ -")),
    }
}

/// Reads `0.05` (that share, evenly of every fault) or `malformed=0.01,duplicate=0.02`.
///
/// # Errors
/// What cannot be read, in words.
pub fn parse_faults(text: &str) -> Result<BTreeMap<Fault, f64>, String> {
    let number = |text: &str| {
        let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| format!("{text:?} is no share from 0 to 1"))
    };
    if !text.contains('=') {
        let share = number(text)? / Fault::ALL.len() as f64;
        return Ok(Fault::ALL.into_iter().map(|fault| (fault, share)).collect());
    }
    let mut faults = BTreeMap::new();
    for part in text.split(',') {
        let (name, share) = part.split_once('=').ok_or(format!("{part:?} is not name=share"))?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name.trim());
        let names = || Fault::ALL.map(Fault::name).join(", ");
        let fault = fault.ok_or_else(|| format!("no fault {name:?}; there are {}", names()))?;
        faults.insert(fault, number(share)?);
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Fault, Profile, parse_faults};

    #[test]
    fn faults_are_read_as_one_share_or_one_by_one() {
        let all = parse_faults("0.08").unwrap();
        assert_eq!(all.len(), Fault::ALL.len());
        assert!((all.values().sum::<f64>() - 0.08).abs() < 1e-12);
        let some = parse_faults("malformed=0.5,out_of_order=0.25").unwrap();
        assert_eq!(some, [(Fault::Malformed, 0.5), (Fault::OutOfOrder, 0.25)].into());
        for bad in ["", "2", "malformed", "malformed=x", "nonsense=0.1"] {
            assert!(parse_faults(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_profile_out_of_bounds_is_refused_in_words() {
        assert_eq!(Profile::default().check(), Ok(()));
        let refused = |profile: Profile| profile.check().unwrap_err();
        let said = refused(Profile { companies: vec!["a.b".into()], ..Profile::default() });
        assert!(said.contains("a.b"), "{said}");
        let said = refused(Profile { media: f64::NAN, ..Profile::default() });
        assert!(said.contains("media"), "{said}");
        let faults = parse_faults("malformed=0.7,missing=0.7").unwrap();
        assert!(refused(Profile { faults, ..Profile::default() }).contains("sum"));
    }
}
