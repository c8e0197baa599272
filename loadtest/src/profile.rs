//! Profiles: named workloads in TOML, shipped in the binary or read from a file. A profile says which stages
//! are driven, how fast in which phase, and what is sent. Invariant: what is read has been checked; a key that
//! does not exist is refused, with the one that was meant.

mod blend;
mod keys;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use blend::{Blend, Mixed};

use crate::generate::{self, ingest};

/// The shipped ones, by name.
const SHIPPED: [(&str, &str); 6] = [
    ("steady", include_str!("../profiles/steady.toml")),
    ("burst", include_str!("../profiles/burst.toml")),
    ("noisy-company", include_str!("../profiles/noisy-company.toml")),
    ("history-import", include_str!("../profiles/history-import.toml")),
    ("duplicates-storm", include_str!("../profiles/duplicates-storm.toml")),
    ("reconnect", include_str!("../profiles/reconnect.toml")),
];

/// A stage of daisi, as far as it is driven here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Chat events to rows.
    Ingest,
    /// Row changes to browsers.
    Cdc,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One line for people.
    pub about: String,
    /// What is driven.
    pub stages: Vec<Stage>,
    /// Same seed, same events.
    #[serde(default = "one")]
    pub seed: u64,
    /// Companies of each stage.
    pub companies: u32,
    /// Share of the run whose latencies are left out: statements are planned in it, caches filled.
    #[serde(default)]
    pub warm_up: f64,
    /// Companies that have history events, beside the others.
    #[serde(default)]
    pub history_companies: u32,
    /// Turns of the companies in a round, the first first; those beyond the list have one.
    #[serde(default)]
    pub turns: Vec<u32>,
    /// One after another.
    pub phases: Vec<Phase>,
    /// What is broken on purpose.
    #[serde(default)]
    pub disturb: Disturb,
    /// Chat events; keys as in `daisi load --profile`.
    #[serde(default)]
    pub ingest: ingest::Profile,
    /// History events, of companies of their own.
    #[serde(default)]
    pub history: ingest::Profile,
    /// Row changes.
    #[serde(default)]
    pub cdc: generate::Profile,
}

fn one() -> u64 {
    1
}

/// A stretch of even rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// How long.
    pub seconds: f64,
    /// Chat events a second.
    #[serde(default)]
    pub ingest: f64,
    /// History events a second.
    #[serde(default)]
    pub history: f64,
    /// Row changes a second.
    #[serde(default)]
    pub cdc: f64,
}

/// What is broken on purpose, as shares of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disturb {
    /// Sender and observers drop their connections.
    pub cut_at: Option<f64>,
    /// A nats-server of our own is killed and started again.
    pub restart_nats_at: Option<f64>,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// None is shipped under that name, and no file is there.
    #[error("there is no profile {name:?}, neither shipped ({shipped}) nor as a file{meant}")]
    Unknown {
        /// As given.
        name: String,
        /// The names there are.
        shipped: String,
        /// The one that may have been meant.
        meant: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason given.
        source: std::io::Error,
    },
    /// It says something that cannot be.
    #[error("profile {name}: {what}")]
    Wrong {
        /// The profile.
        name: String,
        /// What is wrong, in words.
        what: String,
    },
}

/// Name and one line of each shipped profile.
///
/// # Errors
/// None in practice: they are read in tests.
pub fn shipped() -> Result<Vec<(&'static str, String)>, ProfileError> {
    let about = |(name, text): (&'static str, &str)| Ok((name, parse(name, text)?.about));
    SHIPPED.into_iter().map(about).collect()
}

/// The text of a shipped profile.
pub fn text_of(name: &str) -> Option<&'static str> {
    SHIPPED.into_iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| text)
}

/// A shipped profile by its name, or the one in a file.
///
/// # Errors
/// There is none, or what is wrong with it.
pub fn load(name: &str) -> Result<Profile, ProfileError> {
    if let Some(text) = text_of(name) {
        return parse(name, text);
    }
    let path = Path::new(name);
    if !path.is_file() {
        let names = SHIPPED.map(|(name, _)| name);
        let meant = keys::nearest(name, names.into_iter())
            .map_or(String::new(), |near| format!("; did you mean {near}?"));
        let (name, shipped) = (name.to_owned(), names.join(", "));
        return Err(ProfileError::Unknown { name, shipped, meant });
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| ProfileError::Io { path: path.to_owned(), source })?;
    parse(name, &text)
}

/// Reads one.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(name: &str, text: &str) -> Result<Profile, ProfileError> {
    let wrong = |what: String| ProfileError::Wrong { name: name.to_owned(), what };
    let profile: Profile =
        toml::from_str(text).map_err(|error| wrong(keys::explain(&error.to_string())))?;
    profile.check().map_err(wrong)?;
    Ok(profile)
}

impl Profile {
    /// What keeps it from being driven, in words.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn check(&self) -> Result<(), String> {
        if self.phases.is_empty() || self.stages.is_empty() {
            return Err("there must be at least one of phases and one of stages".into());
        }
        if !(1..=100_000).contains(&self.companies) {
            return Err(format!("companies is {}; it takes 1 to 100000", self.companies));
        }
        for (at, phase) in self.phases.iter().enumerate() {
            let Phase { seconds, ingest, history, cdc } = *phase;
            let is_finite = |number: f64| (0.0..=1e7).contains(&number);
            if !(seconds > 0.0
                && seconds <= 1e7
                && [ingest, history, cdc].into_iter().all(is_finite))
            {
                return Err(format!("phase {}: a number is out of its bounds", at + 1));
            }
            if history > 0.0 && self.history_companies == 0 {
                return Err(format!("phase {}: history without history_companies", at + 1));
            }
            let has = |stage| self.stages.contains(&stage);
            if (ingest > 0.0 || history > 0.0) && !has(Stage::Ingest)
                || cdc > 0.0 && !has(Stage::Cdc)
            {
                return Err(format!("phase {}: a rate of a stage that is not driven", at + 1));
            }
        }
        if !(0.0..1.0).contains(&self.warm_up) {
            return Err(format!("warm_up is {}; it is a share of the run, 0 to 1", self.warm_up));
        }
        let shares = [self.disturb.cut_at, self.disturb.restart_nats_at];
        if shares.into_iter().flatten().any(|share| !(0.0..1.0).contains(&share)) {
            return Err("disturb: a share is 0 to 1".into());
        }
        self.ingest_profile().check()?;
        self.history_profile().check()
    }

    /// How long it lasts.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.phases.iter().map(|phase| phase.seconds).sum())
    }

    /// Events that it plans, by stage: ingest with history, cdc.
    pub fn events(&self) -> (u64, u64) {
        let sum = |rate: fn(&Phase) -> f64| {
            self.phases.iter().map(|phase| (rate(phase) * phase.seconds).ceil() as u64).sum::<u64>()
        };
        (sum(|phase| phase.ingest) + sum(|phase| phase.history), sum(|phase| phase.cdc))
    }

    /// The same at other rates and of another length.
    #[must_use]
    pub fn scaled(mut self, rate_times: f64, seconds: Option<f64>) -> Self {
        let length = self.length().as_secs_f64();
        let stretch = seconds.map_or(1.0, |seconds| seconds / length);
        for phase in &mut self.phases {
            phase.seconds *= stretch;
            phase.ingest *= rate_times;
            phase.history *= rate_times;
            phase.cdc *= rate_times;
        }
        self
    }

    /// As a story that nobody was told before: of now, of chats and logs of its own.
    #[must_use]
    pub fn fresh(mut self, seed: u64, now_s: u64) -> Self {
        self.seed = seed;
        for profile in [&mut self.ingest, &mut self.history] {
            profile.epoch_s = now_s;
        }
        // A log grows by less than 1 MiB a second of a story.
        self.cdc.lsn_base = now_s << 20;
        self.cdc.epoch_s = now_s;
        self
    }

    /// Names of the companies that have events of chats: live ones, then those with history.
    pub fn ingest_companies(&self) -> (Vec<String>, Vec<String>) {
        let live = (0..self.companies).map(|number| format!("Load{number:05}"));
        let history = (0..self.history_companies).map(|number| format!("Past{number:05}"));
        (live.collect(), history.collect())
    }

    pub(crate) fn ingest_profile(&self) -> ingest::Profile {
        let (companies, _) = self.ingest_companies();
        let (seed, turns) = (self.seed, self.turns.clone());
        ingest::Profile { seed, companies, turns, ..self.ingest.clone() }
    }

    pub(crate) fn history_profile(&self) -> ingest::Profile {
        let (_, mut companies) = self.ingest_companies();
        if companies.is_empty() {
            companies.push("Past00000".to_owned());
        }
        ingest::Profile { seed: self.seed.wrapping_add(1), companies, ..self.history.clone() }
    }

    pub(crate) fn cdc_profile(&self) -> generate::Profile {
        generate::Profile { seed: self.seed, companies: self.companies, ..self.cdc.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{SHIPPED, load, parse, shipped};

    #[test]
    fn every_shipped_profile_is_read_and_says_what_it_is() {
        for ((name, _), (listed, about)) in SHIPPED.into_iter().zip(shipped().unwrap()) {
            assert_eq!(name, listed);
            assert!(about.len() > 20 && !about.contains('\n'), "{name}: {about}");
            let profile = load(name).unwrap();
            let (ingest, cdc) = profile.events();
            assert!(ingest + cdc > 1_000, "{name}");
            let scaled = profile.clone().scaled(2.0, Some(30.0));
            assert!((scaled.length().as_secs_f64() - 30.0).abs() < 1e-6);
            let back = toml::to_string(&profile).unwrap();
            assert_eq!(parse(name, &back).unwrap(), profile, "{name}: written and read again");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_meant() {
        let said = load("stedy").unwrap_err().to_string();
        assert!(said.contains("did you mean steady?"), "{said}");
        let steady = super::text_of("steady").unwrap();
        let said = parse("x", &steady.replace("seconds = 60", "secnds = 60")).unwrap_err();
        assert!(said.to_string().contains("did you mean seconds?"), "{said}");
        let said = parse("x", &steady.replace("bad = 0.001", "bda = 0.001")).unwrap_err();
        assert!(said.to_string().contains("did you mean bad?"), "{said}");
        let said = parse("x", &steady.replace("companies = 16", "companies = 0")).unwrap_err();
        assert!(said.to_string().contains("companies is 0"), "{said}");
        let said = parse("x", &steady.replace("\"ingest\", \"cdc\"", "\"cdc\"")).unwrap_err();
        assert!(said.to_string().contains("not driven"), "{said}");
    }
}
