//! Settings that a run is made with: keys of daisi, daisi a second time with other keys, files of settings for
//! the servers. Invariant: without any of these a run is what it always was.

use std::{fs, path::PathBuf};

use crate::{contender::Contender, contender::Role, error::BenchError};

/// Options of a run that measures settings.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Tuned {
    /// A key of daisi, in every turn; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    sets: Vec<String>,
    /// daisi once more with keys of its own, beside the one that is measured; may be repeated.
    #[arg(long, value_name = "NAME:KEY=VALUE[;KEY=VALUE]", value_parser = variant)]
    beside: Vec<Variant>,
    /// Settings for PostgreSQL, as lines of postgresql.conf.
    #[arg(long, value_name = "FILE")]
    postgres_conf: Option<PathBuf>,
    /// Settings for Redis, as lines of redis.conf.
    #[arg(long, value_name = "FILE")]
    redis_conf: Option<PathBuf>,
}

/// A daisi with keys of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variant {
    name: String,
    sets: Vec<String>,
}

fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("no KEY=VALUE".to_owned()),
    }
}

fn variant(text: &str) -> Result<Variant, String> {
    let (name, sets) = text.split_once(':').ok_or("no NAME:KEY=VALUE")?;
    let sets = sets.split(';').map(setting).collect::<Result<_, _>>()?;
    Ok(Variant { name: name.to_owned(), sets })
}

impl Tuned {
    /// daisi with the keys, and behind it the variants, under its name and theirs.
    pub(crate) fn contenders(&self, list: Vec<Contender>) -> Vec<Contender> {
        let mut tuned = Vec::new();
        for contender in list {
            if contender.role != Role::Subject {
                tuned.push(contender);
                continue;
            }
            let contender = with_sets(contender, &self.sets);
            let variants = self.beside.iter().map(|variant| {
                let mut other = with_sets(contender.clone(), &variant.sets);
                other.name = format!("{}-{}", contender.name, variant.name);
                other
            });
            let variants: Vec<Contender> = variants.collect();
            tuned.push(contender);
            tuned.extend(variants);
        }
        tuned
    }

    /// Names and values for PostgreSQL.
    pub(crate) fn postgres(&self) -> Result<Vec<(String, String)>, BenchError> {
        let bare = |value: &str| value.trim().trim_matches('\'').to_owned();
        let pairs = lines(self.postgres_conf.as_ref())?;
        let pairs = pairs.iter().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.trim().to_owned(), bare(value))).collect())
    }

    /// Arguments for Redis.
    pub(crate) fn redis(&self) -> Result<Vec<String>, BenchError> {
        let pairs = lines(self.redis_conf.as_ref())?;
        let pairs = pairs.iter().filter_map(|line| line.split_once(' '));
        let of = |(name, value): (&str, &str)| {
            [format!("--{name}"), value.trim().trim_matches('"').to_owned()]
        };
        Ok(pairs.flat_map(of).collect())
    }
}

fn with_sets(contender: Contender, sets: &[String]) -> Contender {
    sets.iter().fold(contender, |contender, set| contender.with(&["--set", set]))
}

fn lines(path: Option<&PathBuf>) -> Result<Vec<String>, BenchError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text =
        fs::read_to_string(path).map_err(BenchError::io(format!("read {}", path.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::contender::{Places, load};

    #[test]
    fn a_variant_stands_behind_daisi_with_keys_of_its_own() {
        let text = "[[contender]]\nname = 'daisi'\nrole = 'subject'\ncommand = ['d', 'run']\n\
                    [[contender]]\nname = 'p'\nrole = 'peer'\ncommand = ['p']";
        let tuned = Tuned {
            sets: vec!["a=1".to_owned()],
            beside: vec![variant("spin:b=2;c=3,4").unwrap()],
            ..Tuned::default()
        };
        let list = tuned.contenders(load(text, &Places::new()).unwrap());
        let names: Vec<_> = list.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["daisi", "daisi-spin", "p"]);
        let words: Vec<String> = list.iter().map(Contender::words).collect();
        let expected = ["d run --set a=1", "d run --set a=1 --set b=2 --set c=3,4", "p"];
        assert_eq!(words, expected);
        assert!(variant("spin").is_err() && variant("spin:a").is_err() && setting("=1").is_err());
    }

    #[test]
    fn files_of_the_servers_are_read() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tuning");
        let tuned = Tuned {
            postgres_conf: Some(format!("{root}/postgresql/daisi.conf").into()),
            redis_conf: Some(format!("{root}/redis/daisi.conf").into()),
            ..Tuned::default()
        };
        let postgres = tuned.postgres().unwrap();
        assert!(postgres.contains(&("wal_compression".to_owned(), "lz4".to_owned())));
        let redis = tuned.redis().unwrap();
        assert!(redis.windows(2).any(|pair| pair == ["--save", ""]), "{redis:?}");
        assert!(redis.windows(2).any(|pair| pair == ["--hz", "100"]), "{redis:?}");
    }
}
