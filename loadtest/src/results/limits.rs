//! Limits that a run must keep. Invariant: a limit on what was not measured is broken, and a limit that names no
//! figure is refused before anything is judged.

use std::path::Path;

use serde::Deserialize;

use super::compare::ratio;
use super::figure::{Figure, NAMES, Unit};
use super::side::{Range, Side};
use super::table::{Cell, Table, Tone};

/// Why limits cannot be held against a run.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The reason given.
        source: std::io::Error,
    },
    /// The file is no list of limits.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is called that.
    #[error("no figure is called {name:?}; after an end, `ack` or a process and a dot: {}", NAMES.join(", "))]
    Name {
        /// What was written.
        name: String,
    },
    /// Which process is meant?
    #[error("{name:?} needs a process before it, as in \"daisi.{name}\"")]
    Owner {
        /// What was written.
        name: String,
    },
    /// Not a figure.
    #[error("{text:?} is no bound for {name}: a number of 0 or more is")]
    Bound {
        /// Of which limit.
        name: String,
        /// What was written.
        text: String,
    },
    /// A ratio to what?
    #[error("a limit on a ratio needs --base")]
    Base,
    /// Nothing to hold against the run.
    #[error("no limit is given: a check of nothing would always pass")]
    None,
}

/// On which side of its bound a figure must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At or below.
    Max,
    /// At or above.
    Min,
    /// Its ratio to the base at or below.
    MaxRatio,
    /// Its ratio to the base at or above.
    MinRatio,
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    kind: Kind,
    /// `p95_us` for every end, or `cdc.p95_us`.
    name: String,
    bound: f64,
}

/// A file of limits: tables of names and bounds. `cdc.p95_us = 5000` may be quoted or not.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    max: toml::Table,
    #[serde(default)]
    min: toml::Table,
    #[serde(default)]
    max_ratio: toml::Table,
    #[serde(default)]
    min_ratio: toml::Table,
}

impl Limit {
    /// A limit on the figure `name`; `p95`, `cpu` and `rss` stand for `p95_us`, `cpu_us` and `rss_mib`.
    ///
    /// # Errors
    /// No figure has that name, or the bound is no number of 0 or more.
    pub fn new(kind: Kind, name: &str, bound: &str) -> Result<Self, LimitError> {
        let name = full_name(name)?;
        let parsed = bound.trim().replace('_', "").parse().ok();
        let parsed = parsed.filter(|bound: &f64| bound.is_finite() && *bound >= 0.0);
        let bound = parsed
            .ok_or_else(|| LimitError::Bound { name: name.clone(), text: bound.to_owned() })?;
        Ok(Self { kind, name, bound })
    }

    /// All limits of a file.
    ///
    /// # Errors
    /// It cannot be read, or says something that is no limit.
    pub fn read(path: &Path) -> Result<Vec<Self>, LimitError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| LimitError::Io { path: name.clone(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|error| LimitError::File { path: name, reason: error.to_string() })?;
        let mut limits = Vec::new();
        let tables = [
            (Kind::Max, &file.max),
            (Kind::Min, &file.min),
            (Kind::MaxRatio, &file.max_ratio),
            (Kind::MinRatio, &file.min_ratio),
        ];
        for (kind, table) in tables {
            flatten(kind, "", table, &mut limits)?;
        }
        Ok(limits)
    }

    fn is_ratio(&self) -> bool {
        matches!(self.kind, Kind::MaxRatio | Kind::MinRatio)
    }

    /// The figures it is about.
    fn keys(&self, side: &Side, base: Option<&Side>) -> Vec<String> {
        if self.name.contains('.') || self.name == "rate" {
            return vec![self.name.clone()];
        }
        let mut ends = side.ends();
        // An end that only the base has is not measured, and must not go unnoticed.
        for end in base.filter(|_| self.is_ratio()).map(Side::ends).unwrap_or_default() {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        if ends.is_empty() {
            return vec![format!("*.{}", self.name)];
        }
        ends.iter().map(|end| format!("{end}.{}", self.name)).collect()
    }
}

/// Limits with what was measured.
#[derive(Debug)]
pub struct Check {
    table: Table,
    broken: usize,
    count: usize,
}

impl Check {
    /// Holds `limits` against `side`.
    ///
    /// # Errors
    /// There is no limit, or one on a ratio without a base.
    pub fn new(limits: &[Limit], side: &Side, base: Option<&Side>) -> Result<Self, LimitError> {
        if limits.is_empty() {
            return Err(LimitError::None);
        }
        if base.is_none() && limits.iter().any(Limit::is_ratio) {
            return Err(LimitError::Base);
        }
        let (figures, of_base) = (side.figures(), base.map(Side::figures).unwrap_or_default());
        let head = ["limit", "measured", "base", "ratio", "bound", "verdict"];
        let mut check =
            Self { table: Table::new("Limits", &head).with_words(1), broken: 0, count: 0 };
        for limit in limits {
            for key in limit.keys(side, base) {
                check.judge(limit, &key, find(&figures, &key), find(&of_base, &key));
            }
        }
        Ok(check)
    }

    /// Whether every limit is kept.
    pub fn is_kept(&self) -> bool {
        self.broken == 0
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        format!("{}\n{}\n", self.table.text(), self.summary())
    }

    /// For a comment on a pull request.
    pub fn markdown(&self) -> String {
        format!("{}\n{}\n", self.table.markdown(), self.summary())
    }

    fn summary(&self) -> String {
        match self.broken {
            0 => format!("All {} limits are kept.", self.count),
            broken => format!("{broken} of {} limits are broken.", self.count),
        }
    }

    fn judge(
        &mut self,
        limit: &Limit,
        key: &str,
        found: Option<&(Figure, Range)>,
        base: Option<&(Figure, Range)>,
    ) {
        let range = |found: Option<&(Figure, Range)>| found.map(|(_, range)| *range);
        let ratio = ratio(range(base), range(found)).filter(|_| limit.is_ratio());
        let value = if limit.is_ratio() { ratio } else { range(found).map(|range| range.median) };
        let is_kept = match limit.kind {
            Kind::Max | Kind::MaxRatio => value.is_some_and(|value| value <= limit.bound),
            Kind::Min | Kind::MinRatio => value.is_some_and(|value| value >= limit.bound),
        };
        let show = |found: Option<&(Figure, Range)>| {
            found.map_or("–".into(), |(figure, range)| figure.unit.show(range.median))
        };
        let unit = unit_of(key);
        let bound = match limit.kind {
            Kind::Max => format!("at most {}", unit.show(limit.bound)),
            Kind::Min => format!("at least {}", unit.show(limit.bound)),
            Kind::MaxRatio => format!("at most {} times base", limit.bound),
            Kind::MinRatio => format!("at least {} times base", limit.bound),
        };
        let verdict = match (value, is_kept) {
            (_, true) => Cell::new("ok", Tone::Good),
            (Some(_), false) => Cell::new("FAIL", Tone::Bad),
            (None, false) => Cell::new("FAIL: not measured", Tone::Bad),
        };
        let of_base = if limit.is_ratio() { show(base) } else { String::new() };
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let cells = [key.to_owned(), show(found), of_base, ratio, bound];
        self.table.row(cells.map(Cell::from).into_iter().chain([verdict]));
        self.count += 1;
        self.broken += usize::from(!is_kept);
    }
}

fn find<'a>(figures: &'a [(Figure, Range)], key: &str) -> Option<&'a (Figure, Range)> {
    figures.iter().find(|(figure, _)| figure.key == key)
}

fn unit_of(key: &str) -> Unit {
    match key.rsplit('.').next().unwrap_or_default() {
        "rate" => Unit::Rate,
        "cpu_us" => Unit::Cpu,
        "rss_mib" => Unit::Memory,
        time if time.ends_with("_us") => Unit::Time,
        _ => Unit::Faults,
    }
}

/// The name with its unit, if some figure can be called that.
fn full_name(name: &str) -> Result<String, LimitError> {
    let (owner, what) = name.rsplit_once('.').unwrap_or(("", name));
    let spelt = what.replace('-', "_");
    let known = |wanted: String| NAMES.iter().find(|name| **name == wanted);
    let full = known(spelt.clone())
        .or_else(|| known(format!("{spelt}_us")))
        .or_else(|| known(format!("{spelt}_mib")))
        .ok_or_else(|| LimitError::Name { name: name.to_owned() })?;
    match owner {
        "" if ["cpu_us", "rss_mib"].contains(full) => {
            Err(LimitError::Owner { name: (*full).into() })
        }
        "" if name.contains('.') => Err(LimitError::Name { name: name.to_owned() }),
        "" => Ok((*full).to_owned()),
        owner => Ok(format!("{owner}.{full}")),
    }
}

fn flatten(
    kind: Kind,
    owner: &str,
    table: &toml::Table,
    limits: &mut Vec<Limit>,
) -> Result<(), LimitError> {
    for (name, value) in table {
        let name = if owner.is_empty() { name.clone() } else { format!("{owner}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(kind, &name, inner, limits)?,
            toml::Value::Integer(_) | toml::Value::Float(_) => {
                limits.push(Limit::new(kind, &name, &value.to_string())?);
            }
            other => return Err(LimitError::Bound { name, text: other.to_string() }),
        }
    }
    Ok(())
}
