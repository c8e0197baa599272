//! The configuration as its sources gave it: one value a key, each with its origin, and every problem found
//! on the way. Nothing is used from here before it became a [`plan::Plan`]; until then problems only gather,
//! so that a person sees all of them at once. Precedence, weakest first: defaults, file, variables of the
//! old service, `DAISI_` variables, `--set`.

pub mod env;
pub mod keys;
pub mod plan;
pub mod reference;
pub mod rules;
pub mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use self::env::{LEGACY, LEGACY_PREFIX, Meaning, Role};
use self::keys::{KEYS, Key, Mask};
use self::value::Raw;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// A line of the file, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// An environment variable, by name.
    Env(String),
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::Env(name) => write!(out, "env {name}"),
            Self::CommandLine => out.write_str("--set"),
        }
    }
}

/// Something that keeps the configuration from becoming a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key, variable or file it is about.
    pub key: String,
    /// The value at fault, masked where it is a secret.
    pub value: Option<String>,
    /// Where that value came from.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(out, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(out, " ({origin})")?;
        }
        write!(out, ": {}\n    remedy: {}", self.what, self.remedy)
    }
}

/// One key's value and origin. `raw` is `None` while an optional key is not set.
#[derive(Clone, Debug)]
struct Slot {
    raw: Option<Raw>,
    origin: Origin,
}

/// What a configuration is read from.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The TOML file, if there is one.
    pub file: Option<&'a Path>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// `key=value` texts of the command line, in order.
    pub sets: &'a [String],
}

impl<'a> Sources<'a> {
    /// The file and `--set` texts given, and the environment of this process. Names and values that are
    /// not UTF-8 are skipped: none of ours can be.
    #[must_use]
    pub fn of_process(file: Option<&'a Path>, sets: &'a [String]) -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        let env = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        Self { file, env: env.collect(), sets }
    }
}

/// The configuration as written, not yet checked.
#[derive(Clone, Debug)]
pub struct Config {
    slots: Vec<Slot>,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Config {
    /// Reads all sources. Never fails: what is wrong is kept and told by [`plan::Plan::try_from`].
    #[must_use]
    pub fn load(sources: &Sources<'_>) -> Self {
        let slot = |key: &Key| Slot { raw: key.default_raw(), origin: Origin::Default };
        let slots = KEYS.iter().map(slot).collect();
        let mut config = Self { slots, problems: Vec::new(), notes: Vec::new() };
        if let Some(path) = sources.file {
            config.read_file(path);
        }
        config.read_env(&sources.env);
        for text in sources.sets {
            config.read_set(text);
        }
        config
    }

    /// Problems of reading: unknown names, an unreadable file. Those of values come with the plan.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Things worth telling that keep nothing from working, such as a variable without effect.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Origin of the value of the key at `index` of [`KEYS`].
    #[must_use]
    pub fn origin(&self, index: usize) -> &Origin {
        &self.slots[index].origin
    }

    /// The value of the key at `index` of [`KEYS`] as its source wrote it; `None` if it is not set.
    #[must_use]
    pub fn raw(&self, index: usize) -> Option<&Raw> {
        self.slots[index].raw.as_ref()
    }

    /// The value as it may be shown: secrets masked.
    #[must_use]
    pub fn shown(&self, index: usize) -> Option<String> {
        let raw = self.raw(index)?;
        Some(match KEYS[index].mask {
            Mask::Open => raw.to_string(),
            Mask::Secret => "\"********\"".to_owned(),
            Mask::Url => mask_urls(&raw.to_string()),
        })
    }

    fn set(&mut self, index: usize, raw: Raw, origin: Origin) {
        // An empty variable takes an optional key away, as deployment templates like to write it.
        let cleared = KEYS[index].default.is_none() && raw == Raw::Text(String::new());
        self.slots[index] = Slot { raw: (!cleared).then_some(raw), origin };
    }

    fn read_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.read_toml(path, &text),
            Err(error) => self.problems.push(Problem {
                key: path.display().to_string(),
                value: None,
                origin: None,
                what: format!("cannot be read: {error}"),
                remedy: "name a file that exists and that this user may read".to_owned(),
            }),
        }
    }

    fn read_toml(&mut self, path: &Path, text: &str) {
        match DeTable::parse(text) {
            Ok(table) => self.read_table(path, text, "", table.get_ref()),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                self.problems.push(Problem {
                    key: path.display().to_string(),
                    value: None,
                    origin: Some(Origin::File { path: path.to_owned(), line }),
                    what: format!("not valid TOML: {}", error.message()),
                    remedy: "mend the line; `daisi config reference` prints a valid file"
                        .to_owned(),
                });
            }
        }
    }

    fn read_table(&mut self, file: &Path, text: &str, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = line_of(text, name.span().start);
            let origin = Origin::File { path: file.to_owned(), line };
            let dot = if section.is_empty() { "" } else { "." };
            let path = format!("{section}{dot}{}", name.get_ref());
            match (keys::find(&path), value.get_ref()) {
                (Some((index, _)), value) => self.set(index, Raw::from_toml(value), origin),
                (None, DeValue::Table(inner)) if is_section(&path) => {
                    self.read_table(file, text, &path, inner);
                }
                (None, _) => {
                    self.unknown(&path, origin, KEYS.iter().map(|key| key.path.to_owned()))
                }
            }
        }
    }

    fn read_env(&mut self, env: &[(String, String)]) {
        // Weakest first; among the old names, the order of their table decides, not that of the environment.
        let mut old: Vec<(bool, usize, &str, &str)> = Vec::new();
        let mut canonical = Vec::new();
        for (name, value) in env {
            match env::role(name, value) {
                Role::Key(index) => canonical.push((index, name, value)),
                Role::Legacy { index, prefixed } => old.push((prefixed, index, name, value)),
                Role::Unknown => self.unknown(name, Origin::Env(name.clone()), env::known_names()),
                Role::Foreign => {}
            }
        }
        old.sort_unstable();
        for (_, index, name, value) in old {
            self.read_legacy(LEGACY[index].meaning, name, value.trim());
        }
        for (index, name, value) in canonical {
            self.set(index, Raw::Text(value.clone()), Origin::Env(name.clone()));
        }
    }

    fn read_legacy(&mut self, meaning: Meaning, name: &str, value: &str) {
        let origin = Origin::Env(name.to_owned());
        let place = |path| keys::find(path).map(|(index, _)| index);
        match meaning {
            _ if value.is_empty() => {}
            Meaning::Key(path) => {
                if let Some(index) = place(path) {
                    self.set(index, Raw::Text(value.to_owned()), origin);
                }
            }
            Meaning::KeyZeroDefault(path) => {
                if let Some(index) = place(path).filter(|_| !matches!(value, "0" | "0s")) {
                    self.set(index, Raw::Text(value.to_owned()), origin);
                }
            }
            Meaning::KeyIn(path, unit) => {
                if let Some(index) = place(path).filter(|_| value != "0") {
                    self.set(index, Raw::Text(format!("{value}{}", unit.suffix())), origin);
                }
            }
            Meaning::MetricsPort => {
                if let Some(index) = place("control.listen") {
                    self.set(index, Raw::Text(format!("127.0.0.1:{value}")), origin);
                    self.notes.push(format!(
                        "{name}: the page is on loopback; to be scraped from elsewhere set \
                         control.listen = \"0.0.0.0:{value}\""
                    ));
                }
            }
            // A bare `WORKERS` may belong to anybody; only the prefix makes it a word to us.
            Meaning::Obsolete(why) if name.starts_with(LEGACY_PREFIX) => {
                self.notes.push(format!("{name} has no effect: {why}"));
            }
            Meaning::Obsolete(_) => {}
        }
    }

    fn read_set(&mut self, text: &str) {
        let Some((path, value)) = text.split_once('=') else {
            self.problems.push(Problem {
                key: "--set".to_owned(),
                value: None,
                origin: Some(Origin::CommandLine),
                what: "no = in it".to_owned(),
                remedy: "write --set key=value, as in --set log.level=debug".to_owned(),
            });
            return;
        };
        let path = path.trim();
        match keys::find(path) {
            Some((index, _)) => self.set(index, Raw::Text(value.to_owned()), Origin::CommandLine),
            None => {
                let known = KEYS.iter().map(|key| key.path.to_owned());
                self.unknown(path, Origin::CommandLine, known);
            }
        }
    }

    fn unknown(&mut self, name: &str, origin: Origin, known: impl Iterator<Item = String>) {
        let remedy = match nearest(name, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "remove it; `daisi config reference` lists every key".to_owned(),
        };
        let what = "no such key".to_owned();
        let origin = Some(origin);
        self.problems.push(Problem { key: name.to_owned(), value: None, origin, what, remedy });
    }
}

fn is_section(path: &str) -> bool {
    keys::SECTIONS.iter().any(|(name, _)| *name == path)
}

/// The known name most like `name`, if any is like it at all.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    /// Below this two names share little more than letters; 0.8 keeps `ack_wiat` and drops `colour`.
    const LIKENESS_MIN: f64 = 0.8;
    let rated = known.map(|known| (strsim::normalized_damerau_levenshtein(name, &known), known));
    let best = rated.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1).or_else(|| same_name_elsewhere(name))
}

/// A key put into the wrong section, or at the top, is found by its last name.
fn same_name_elsewhere(name: &str) -> Option<String> {
    let last = name.rsplit('.').next()?;
    let mut same = KEYS.iter().filter(|key| key.name() == last);
    let key = same.next()?;
    same.next().is_none().then(|| key.path.to_owned())
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// Hides what stands between `:` and `@` of each address in the text; a user alone is a token, hidden too.
/// A comma may be part of a password: what holds an `@` but no scheme goes on with the address before it.
#[must_use]
pub fn mask_urls(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        let mut whole = part.to_owned();
        if part.contains('@') {
            while !whole.contains("://")
                && let Some(before) = parts.pop()
            {
                whole = format!("{before},{whole}");
            }
        }
        parts.push(whole);
    }
    let shown: Vec<String> = parts.iter().map(|part| mask_url(part)).collect();
    shown.join(",")
}

fn mask_url(part: &str) -> String {
    let start = part.find("://").map_or_else(|| part.find('"').map_or(0, |at| at + 1), |at| at + 3);
    let Some(at) = part.rfind('@').filter(|&at| at >= start) else { return part.to_owned() };
    let user = match part[start..at].split_once(':') {
        Some((user, _)) => format!("{user}:********"),
        None => "********".to_owned(),
    };
    format!("{}{user}{}", &part[..start], &part[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(file: &str, env: &[(&str, &str)], sets: &[&str]) -> Config {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("daisi.toml");
        std::fs::write(&path, file).expect("the file is written");
        let env = env.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::load(&Sources { file: Some(&path), env, sets: &sets })
    }

    fn value(config: &Config, path: &str) -> (String, String) {
        let (index, _) = keys::find(path).expect(path);
        let origin = config.origin(index).to_string();
        let origin = origin.rsplit('/').next().unwrap_or_default().to_owned();
        (config.shown(index).unwrap_or_default(), origin)
    }

    fn pair(value: &str, origin: &str) -> (String, String) {
        (value.to_owned(), origin.to_owned())
    }

    #[test]
    fn the_stronger_source_wins_and_says_where_the_value_came_from() {
        let file = "[cdc]\nack_wait = \"20s\"\n";
        let get =
            |env: &[(&str, &str)], sets: &[&str]| value(&load(file, env, sets), "cdc.ack_wait");
        assert_eq!(value(&load("", &[], &[]), "cdc.ack_wait"), pair("\"30s\"", "default"));
        assert_eq!(get(&[], &[]), pair("\"20s\"", "daisi.toml:2"));
        let bare = ("JS_ACK_WAIT", "21s");
        let prefixed = ("DAISI_CDC_JS_ACK_WAIT", "22s");
        let own = ("DAISI_CDC__ACK_WAIT", "23s");
        assert_eq!(get(&[bare], &[]), pair("\"21s\"", "env JS_ACK_WAIT"));
        assert_eq!(get(&[prefixed, bare], &[]), pair("\"22s\"", "env DAISI_CDC_JS_ACK_WAIT"));
        assert_eq!(get(&[own, prefixed, bare], &[]), pair("\"23s\"", "env DAISI_CDC__ACK_WAIT"));
        assert_eq!(get(&[own], &["cdc.ack_wait=24s"]), pair("\"24s\"", "--set"));
    }

    #[test]
    fn an_unknown_name_from_any_source_is_a_problem_with_the_nearest_right_one() {
        let file = "colour = 1\n[cdc]\nack_wiat = \"1s\"\n[nast]\nservers = []\n";
        let env = [("DAISI_CDC__DEDUP_TLT", "1s"), ("DAISI_CDC_JS_ACK_WAITS", "1s")];
        let config = load(file, &env, &["log.levle=debug"]);
        let mut found: Vec<(&str, &str)> =
            config.problems().iter().map(|p| (p.key.as_str(), p.remedy.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("DAISI_CDC_JS_ACK_WAITS", "did you mean DAISI_CDC_JS_ACK_WAIT?"),
                ("DAISI_CDC__DEDUP_TLT", "did you mean DAISI_CDC__DEDUP_TTL?"),
                ("cdc.ack_wiat", "did you mean cdc.ack_wait?"),
                ("colour", "remove it; `daisi config reference` lists every key"),
                ("log.levle", "did you mean log.level?"),
                ("nast", "remove it; `daisi config reference` lists every key"),
            ]
        );
    }

    #[test]
    fn broken_toml_and_a_missing_file_are_problems_with_a_place() {
        let config = load("[cdc]\nack_wait = \n", &[], &[]);
        assert!(
            config.problems()[0].to_string().contains("daisi.toml:2"),
            "{:?}",
            config.problems()
        );
        let missing =
            Sources { file: Some(Path::new("/nonexistent/x.toml")), ..Sources::default() };
        assert!(Config::load(&missing).problems()[0].what.contains("cannot be read"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let env = [
            ("DAISI_NATS__PASSWORD", "hunter2"),
            ("NATS_URL", "nats://me:hunter2@h:1,nats://hunter2@i"),
            ("REDIS_URL", "redis://:hunter2@h"),
            ("POSTGRES_DSN", "postgres://u:hunter2@h/db"),
        ];
        let config = load("", &env, &[]);
        let shown: Vec<String> = (0..KEYS.len()).filter_map(|index| config.shown(index)).collect();
        assert!(!shown.join("\n").contains("hunter2"), "{shown:?}");
        assert!(value(&config, "nats.servers").0.contains("me:********@h:1"));
    }

    #[test]
    fn a_password_with_a_comma_is_hidden_whole() {
        let shown = mask_urls(r#"["nats://u:hun,ter2@h", "tls://i"]"#);
        assert_eq!(shown, r#"["nats://u:********@h", "tls://i"]"#);
        assert_eq!(mask_urls("nats://h1,u:p@h2"), "nats://h1,u:********@h2");
        assert_eq!(mask_urls("nats://u:h,u,n@h2"), "nats://u:********@h2");
    }

    #[test]
    fn zero_stands_for_the_default_where_the_old_service_had_it_so() {
        let config = load("", &[("JS_MAX_DELIVER", "0"), ("JS_ACK_WAIT", "0s")], &[]);
        assert_eq!(value(&config, "cdc.retry_attempts").1, "default");
        assert_eq!(value(&config, "cdc.ack_wait").1, "default");
    }

    #[test]
    fn ages_of_the_old_service_are_days() {
        let ages = [("NATS_REALTIME_MAXAGE", "12"), ("NATS_HISTORICAL_MAXAGE", "0")];
        let config = load("", &ages, &[]);
        assert_eq!(value(&config, "ingest.stream_max_age").0, "\"12d\"");
        assert_eq!(value(&config, "ingest.history_max_age").1, "default");
    }

    #[test]
    fn a_setting_without_effect_is_noted_only_when_it_is_surely_ours() {
        assert!(load("", &[("WORKERS", "4")], &[]).notes().is_empty());
        assert_eq!(load("", &[("DAISI_CDC_WORKERS", "4")], &[]).notes().len(), 1);
        let config = load("", &[("METRICS_PORT", "8080")], &[]);
        assert_eq!(value(&config, "control.listen").0, "\"127.0.0.1:8080\"");
        assert_eq!(config.notes().len(), 1);
    }
}
