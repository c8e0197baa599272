//! The configuration explained, made from the table of keys: `default.toml`, `docs/configuration.md`, and the
//! list of `config show`. Invariant: both files in the repository equal what is made here; tests hold that,
//! and `DAISI_BLESS=1 cargo test -p daisi --lib config::reference` writes them.

use std::fmt::Write;

use super::Config;
use super::env::{self, LEGACY, LEGACY_PREFIX, Meaning};
use super::keys::{KEYS, Key, SECTIONS};

/// The embedded reference file: every key with its meaning, bounds, default and reason.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Column at which comments of `default.toml` break.
const COMMENT_WIDTH: usize = 100;

/// Makes `default.toml`: a valid configuration that sets every key to its default.
#[must_use]
pub fn default_toml() -> String {
    let mut out = String::from(
        "# Every key of daisi with its default. Made from the table of keys by `daisi config reference`;\n\
         # a file of yours needs only what differs. Each key is also an environment variable: DAISI_, then\n\
         # the path in capitals with __ for the dot, as DAISI_CDC__ACK_WAIT. Lists are comma separated there.\n",
    );
    for (section, about) in SECTIONS {
        out.push('\n');
        comment(&mut out, about);
        if !section.is_empty() {
            let _ = writeln!(out, "[{section}]");
        }
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            toml_entry(&mut out, key);
        }
    }
    out
}

fn toml_entry(out: &mut String, key: &Key) {
    out.push('\n');
    comment(out, key.doc);
    comment(out, &format!("Value: {}.", key.kind.remedy()));
    comment(out, &format!("Why: {}", key.why));
    let _ = match key.default {
        Some(default) => writeln!(out, "{} = {default}", key.name()),
        None => writeln!(out, "# {} =", key.name()),
    };
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > COMMENT_WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// Makes `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Made from the table of keys in `src/config/keys.rs`; do not edit.\n\n\
         One TOML file (`--config FILE` or `DAISI_CONFIG`), then the environment, then `--set key=value`; \
         the later wins. Every key is an environment variable as well: `DAISI_`, then the path in capitals \
         with `__` for the dot. Lists are comma separated there. Unknown keys and unknown `DAISI_` variables \
         are errors. Durations are written as `30s` or `250ms`, sizes as `32MiB`. Secrets belong into the \
         environment or into the file a `*_file` key names; `daisi config show` prints every value with its \
         origin and masks secrets. `daisi config check` tells every problem at once.\n",
    );
    for (section, about) in SECTIONS {
        let title = if section.is_empty() {
            "Top of the file".to_owned()
        } else {
            format!("`[{section}]`")
        };
        let _ = write!(out, "\n## {title}\n\n{}\n", escaped(about));
        out.push_str("\n| key | default | value | meaning | why this default | environment |\n");
        out.push_str("|---|---|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            markdown_row(&mut out, key);
        }
    }
    legacy_table(&mut out);
    out
}

fn markdown_row(out: &mut String, key: &Key) {
    let default = key.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
    let names: Vec<String> = [key.env_name()]
        .into_iter()
        .chain(env::legacy_names(key.path).map(str::to_owned))
        .map(|name| format!("`{name}`"))
        .collect();
    let _ = writeln!(
        out,
        "| `{}` | {default} | {} | {} | {} | {} |",
        key.name(),
        escaped(&key.kind.remedy()),
        escaped(key.doc),
        escaped(key.why),
        names.join(" ")
    );
}

fn legacy_table(out: &mut String) {
    let _ = write!(
        out,
        "\n## Variables of the service daisi replaces\n\n\
         Each is known under its bare name and with `{LEGACY_PREFIX}` before it. Of several that set one key \
         the prefixed one wins, then the lower in this table; a key's own variable wins over all of them. The \
         `OTEL_` ones are OpenTelemetry's own.\n\n\
         | variable | sets | note |\n|---|---|---|\n"
    );
    for old in LEGACY {
        let (sets, note) = match old.meaning {
            Meaning::Key(path) => (format!("`{path}`"), String::new()),
            Meaning::KeyZeroDefault(path) => {
                (format!("`{path}`"), "0 stands for the default".to_owned())
            }
            Meaning::KeyIn(path, unit) => {
                (format!("`{path}`"), format!("in {}; 0 stands for the default", unit.plural()))
            }
            Meaning::MetricsPort => {
                ("`control.listen`".to_owned(), "a port, on loopback; said at start".to_owned())
            }
            Meaning::Obsolete(why) => ("nothing".to_owned(), why.to_owned()),
        };
        let _ = writeln!(out, "| `{}` | {sets} | {} |", old.name, escaped(&note));
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace("*.*", "\\*.\\*")
}

/// What `daisi config show` prints: every key, its value with secrets masked, and where it came from.
#[must_use]
pub fn show(config: &Config) -> String {
    let rows: Vec<(String, String)> = KEYS
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let value = config.shown(index).unwrap_or_else(|| "(not set)".to_owned());
            (format!("{} = {value}", key.path), config.origin(index).to_string())
        })
        .collect();
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0).min(72);
    let mut out = String::new();
    for (left, origin) in rows {
        let _ = writeln!(out, "{left:width$}  # {origin}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Sources;

    /// Compares a file of the repository with what is made here, or writes it when asked to.
    fn check(path: &str, made: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("DAISI_BLESS").is_some() {
            std::fs::write(&path, made).expect("the file is written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "{} is out of date: run this test with DAISI_BLESS=1",
            path.display()
        );
    }

    #[test]
    fn the_reference_files_are_up_to_date() {
        check("src/config/default.toml", &default_toml());
        check("docs/configuration.md", &markdown());
    }

    #[test]
    fn every_key_appears_in_both_files_and_in_show() {
        let config = Config::load(&Sources::default());
        let (toml, docs, shown) = (default_toml(), markdown(), show(&config));
        for key in KEYS {
            assert!(
                toml.contains(&format!("\n{} = ", key.name()))
                    || toml.contains(&format!("\n# {} =", key.name()))
            );
            assert!(docs.contains(&key.env_name()), "{}", key.path);
            assert!(shown.lines().any(|line| line.starts_with(&format!("{} = ", key.path))));
        }
    }

    #[test]
    fn the_reference_file_is_a_configuration_that_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("daisi.toml");
        std::fs::write(&path, default_toml()).expect("the file is written");
        let written = Config::load(&Sources { file: Some(&path), ..Sources::default() });
        assert_eq!(written.problems(), []);
        let plain = Config::load(&Sources::default());
        for (index, key) in KEYS.iter().enumerate() {
            let read = |config: &Config| config.raw(index).map(|raw| key.kind.read(raw));
            assert_eq!(read(&written), read(&plain), "{}", key.path);
        }
    }
}
