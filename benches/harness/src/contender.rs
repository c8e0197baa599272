//! Who is measured: a name, a role and a command line, read from `contenders.toml`.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use loadtest::host::Process;
use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// What a contender is to the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// What we ship.
    Subject,
    /// The least our own client can do.
    Bare,
    /// The same job, the ordinary way.
    Peer,
    /// Reported, without a target.
    Extra,
}

/// One contender.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) role: Role,
    command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    contender: Vec<Contender>,
}

/// Values of the placeholders in a command, by name without braces.
pub(crate) type Places = BTreeMap<&'static str, String>;

/// Reads the list and fills the placeholders.
pub(crate) fn load(text: &str, places: &Places) -> Result<Vec<Contender>, BenchError> {
    let file: File =
        toml::from_str(text).map_err(|error| BenchError::unreadable("contenders", &error))?;
    let mut contenders = file.contender;
    for word in contenders.iter_mut().flat_map(|contender| &mut contender.command) {
        *word = fill(word, places);
    }
    match contenders.iter().find(|contender| contender.command.is_empty()) {
        Some(empty) => Err(BenchError::unreadable(&empty.name, &"its command is empty")),
        None => Ok(contenders),
    }
}

fn fill(word: &str, places: &Places) -> String {
    places
        .iter()
        .fold(word.to_owned(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
}

/// Those that are asked for (all, where `only` is empty) and whose binary is there; who is not is said.
pub(crate) fn there(
    mut contenders: Vec<Contender>,
    only: &[String],
) -> Result<Vec<Contender>, BenchError> {
    contenders.retain(|one| only.is_empty() || only.contains(&one.name));
    contenders.retain(|one| {
        let there = one.binary().is_file();
        if !there {
            eprintln!("bench: {} is SKIPPED: no {}", one.name, one.binary().display());
        }
        there
    });
    match contenders.is_empty() {
        true => Err(BenchError::unreadable("contenders", &"nobody is left to measure")),
        false => Ok(contenders),
    }
}

impl Contender {
    /// Path of its binary.
    pub(crate) fn binary(&self) -> &Path {
        Path::new(&self.command[0])
    }

    /// The same with further words behind its command.
    pub(crate) fn with(mut self, words: &[&str]) -> Self {
        self.command.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<Process, BenchError> {
        Ok(Process::spawn(&self.name, &self.command, Stdio::null())?)
    }

    /// Starts it; what it prints is for us.
    pub(crate) fn start_piped(&self) -> Result<Process, BenchError> {
        Ok(Process::spawn(&self.name, &self.command, Stdio::piped())?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_list_is_read_and_leaves_no_placeholder() {
        let names = ["nats_url", "redis_url", "peers", "daisi", "relay"];
        let places = names.map(|name| (name, "X".to_owned()));
        let list = load(include_str!("../contenders.toml"), &places.into()).unwrap();
        assert!(list.iter().any(|contender| contender.role == Role::Subject));
        assert!(list.iter().any(|contender| contender.role == Role::Peer));
        let words: Vec<_> = list.iter().flat_map(|contender| &contender.command).collect();
        assert!(words.iter().all(|word| !word.contains('{')), "{words:?}");
    }

    #[test]
    fn the_list_of_the_ingest_job_is_read_and_leaves_no_placeholder() {
        let names = ["nats_url", "postgres_url", "peers", "daisi", "events"];
        let places = names.map(|name| (name, "X".to_owned()));
        let list = load(include_str!("../ingest.toml"), &places.into()).unwrap();
        let roles: Vec<_> = list.iter().map(|contender| contender.role).collect();
        assert_eq!(roles, [Role::Subject, Role::Bare, Role::Peer]);
        let words: Vec<_> = list.iter().flat_map(|contender| &contender.command).collect();
        assert!(words.iter().all(|word| !word.contains('{')), "{words:?}");
    }

    #[test]
    fn an_empty_command_is_refused() {
        let text = "[[contender]]\nname = 'x'\nrole = 'extra'\ncommand = []";
        assert!(load(text, &Places::new()).is_err());
    }
}
