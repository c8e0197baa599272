//! What the doctor found, and how it is shown: aligned lines for people, one JSON object for programs. Pure.

use std::fmt::Write;

use serde::Serialize;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// This machine and this process's limits.
    Host,
    /// NATS and its streams.
    Nats,
    /// Redis.
    Redis,
    /// PostgreSQL.
    Postgres,
}

impl Area {
    fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

/// How bad it is; a later one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// daisi runs, but slower or with a weaker promise.
    Warn,
    /// daisi does not run, or would lose events.
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    /// ANSI colour: green, yellow, red.
    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[31m",
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// Short name, stable: scripts select by it.
    pub name: &'static str,
    /// How bad.
    pub level: Level,
    /// What was seen.
    pub fact: String,
    /// What to do; absent where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(area: Area, name: &'static str, fact: impl Into<String>) -> Self {
        Self { area, name, level: Level::Ok, fact: fact.into(), remedy: None }
    }

    /// As it should be, with something that would make it better still.
    pub fn hint(area: Area, name: &'static str, fact: impl Into<String>, remedy: &str) -> Self {
        Self { remedy: Some(remedy.to_owned()), ..Self::ok(area, name, fact) }
    }

    /// Weaker than it should be.
    pub fn warn(area: Area, name: &'static str, fact: impl Into<String>, remedy: &str) -> Self {
        Self { area, name, level: Level::Warn, fact: fact.into(), remedy: Some(remedy.to_owned()) }
    }

    /// Not usable.
    pub fn fail(area: Area, name: &'static str, fact: impl Into<String>, remedy: &str) -> Self {
        Self { area, name, level: Level::Fail, fact: fact.into(), remedy: Some(remedy.to_owned()) }
    }
}

/// What survives one kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// The failure.
    pub failure: &'static str,
    /// Does every acknowledged event survive it? Absent where it cannot be known from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub survives: Option<bool>,
    /// Why.
    pub because: String,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order looked at.
    pub findings: Vec<Finding>,
    /// From the smallest failure to the greatest.
    pub promises: Vec<Promise>,
}

impl Report {
    /// The worst level of all findings.
    #[must_use]
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// One JSON object and a line break.
    #[must_use]
    #[expect(clippy::expect_used, reason = "plain strings and enums always encode")]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report encodes");
        text.push('\n');
        text
    }

    /// Aligned lines, with colours if wanted.
    #[must_use]
    pub fn to_text(&self, colours: bool) -> String {
        let mut out = String::new();
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for finding in &self.findings {
            let (on, off) = if colours { (finding.level.colour(), "\x1b[0m") } else { ("", "") };
            let (area, level) = (finding.area.as_str(), finding.level.as_str());
            let _ = writeln!(
                out,
                "{on}{level:4}{off}  {area:8}  {:width$}  {}",
                finding.name, finding.fact
            );
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(out, "{:6}{:10}{:width$}  -> {remedy}", "", "", "");
            }
        }
        out.push_str(
            "\nWhat every acknowledged event survives, as far as can be seen from here:\n",
        );
        for promise in &self.promises {
            let word = promise.survives.map_or("unknown", |yes| if yes { "yes" } else { "no" });
            let _ = writeln!(out, "  {word:8} {:16} {}", promise.failure, promise.because);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            findings: vec![
                Finding::ok(Area::Host, "kernel", "6.18"),
                Finding::warn(Area::Redis, "appendfsync", "everysec", "set always"),
            ],
            promises: vec![Promise {
                failure: "killed process",
                survives: Some(true),
                because: "acks come last".into(),
            }],
        }
    }

    #[test]
    fn lines_are_aligned_and_remedies_stand_below() {
        let expected = "\
ok    host      kernel       6.18
warn  redis     appendfsync  everysec
                             -> set always

What every acknowledged event survives, as far as can be seen from here:
  yes      killed process   acks come last
";
        assert_eq!(report().to_text(false), expected);
        assert!(report().to_text(true).contains("\x1b[33mwarn\x1b[0m"));
    }

    #[test]
    fn json_has_the_same_facts() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).expect("valid");
        assert_eq!(json["findings"][1]["level"], "warn");
        assert_eq!(json["findings"][1]["remedy"], "set always");
        assert!(json["findings"][0].get("remedy").is_none());
        assert_eq!(json["promises"][0]["survives"], true);
        assert_eq!(report().worst(), Level::Warn);
    }
}
