//! Options of the load: those of the tester that came before, under their old names, and a few more.
//! Source: contract ingest.md, section 9.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use shards::clock::parse_nanos;

use super::LoadError;
use crate::generate::{self, ingest};

/// Options of the old tester; Go's flags take one dash.
const OLD_FLAGS: [&str; 10] = [
    "url",
    "subjects",
    "rate",
    "duration",
    "concurrency",
    "company_ids",
    "batch-size",
    "history-count",
    "metrics-port",
    "log-level",
];
const BATCH_SIZE: i64 = 50;
const HISTORY_COUNT: i64 = 10;
const PRINT_COUNT: u64 = 1_000;

/// What to generate, how fast, and where to. An option given overrides the profile's file.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Kinds of streams' events: what agents publish, or row changes for `cdc.*.*`.
    #[arg(long, value_enum, default_value_t = Events::Ingest)]
    pub events: Events,
    /// NATS server, `nats://[user:password@|token@]host:port`; without it the configured one.
    #[arg(long)]
    pub url: Option<String>,
    /// Base subjects in turn, comma separated; one named twice comes twice as often, `all` is all ten
    /// [default: v1.chats.upsert,v1.messages.upsert].
    #[arg(long, value_delimiter = ',')]
    pub subjects: Vec<String>,
    /// Events a second in all, at planned times; 0 is as fast as it goes [default: 100; 0 to print].
    #[arg(long, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// How long, as 90s or 1h30m [default: 1m, unless --count is given].
    #[arg(long, value_parser = read_duration)]
    pub duration: Option<Duration>,
    /// Events at most [default: no limit; 1000 to print].
    #[arg(long)]
    pub count: Option<u64>,
    /// Batches that wait for PubAcks at a time: the window is this times the batch size.
    #[arg(long, default_value_t = 10, allow_negative_numbers = true)]
    pub concurrency: i64,
    /// Events written in one go at most; 0 and less is 50. Due ones do not wait for a batch to fill.
    #[arg(long, default_value_t = BATCH_SIZE, allow_negative_numbers = true)]
    pub batch_size: i64,
    /// Companies, comma separated; each meets each subject [default: RIDH].
    #[arg(long = "company_ids", alias = "company-ids", value_delimiter = ',', env = "COMPANY_ID")]
    pub company_ids: Vec<String>,
    /// So many companies with made-up names, in the place of --company_ids.
    #[arg(long)]
    pub companies: Option<u32>,
    /// Items of a history batch; 0 and less is 10 [default: 10].
    #[arg(long, allow_negative_numbers = true)]
    pub history_count: Option<i64>,
    /// Port of the page /metrics; 0 for none.
    #[arg(long, default_value_t = 9_091)]
    pub metrics_port: u16,
    /// `warn` and `error` show no progress.
    #[arg(long, default_value = "info", env = "LOG_LEVEL")]
    pub log_level: String,
    /// Share of trouble: 0.05 for all kinds alike, or malformed=0.01,missing=..,wrong_type=..,
    /// bad_value=..,foreign=..,duplicate=..,copy=..,out_of_order=..
    #[arg(long)]
    pub faults: Option<String>,
    /// Agents of a company.
    #[arg(long)]
    pub agents: Option<u32>,
    /// Chats of an agent.
    #[arg(long)]
    pub chats: Option<u32>,
    /// Same seed and options, same bytes [default: the time; 1 to print].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where the events' own time begins, Unix seconds, or `now` [default: now; 1748772000 to print].
    #[arg(long, value_parser = read_epoch)]
    pub epoch: Option<u64>,
    /// A profile in JSON; its keys are those of `generate::ingest::Profile`, or `generate::Profile`.
    #[arg(long)]
    pub profile: Option<PathBuf>,
    /// Row changes only: nothing filtered, bad or sent twice.
    #[arg(long)]
    pub clean: bool,
    /// Print events in the place of publishing them: as lines, or none to measure the generator.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "lines", require_equals = true)]
    pub print: Option<Printed>,
    /// The totals as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// Whose events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Events {
    /// WhatsApp's, on `v1.>`.
    Ingest,
    /// Row changes, on `cdc.*.*`.
    Cdc,
}

/// What is printed of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Printed {
    /// One JSON object a line: subject, msg_id, what must become of it, payload.
    Lines,
    /// Nothing.
    None,
}

impl LoadArgs {
    pub(super) fn window(&self) -> usize {
        self.batch_size() * usize::try_from(self.concurrency).unwrap_or(0).max(1)
    }

    pub(super) fn batch_size(&self) -> usize {
        usize::try_from(self.batch_size).ok().filter(|size| *size > 0).unwrap_or(50)
    }

    pub(super) fn rate(&self) -> Result<f64, LoadError> {
        let rate = self.rate.unwrap_or(if self.print.is_some() { 0.0 } else { 100.0 });
        match rate.is_finite() && rate >= 0.0 {
            true => Ok(rate),
            false => Err(LoadError::Usage(format!("--rate is {rate}; it takes 0 or more"))),
        }
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let is_endless = self.count.is_some() || self.print.is_some();
        self.duration.or((!is_endless).then_some(Duration::from_secs(60)))
    }

    pub(super) fn print_count(&self) -> u64 {
        self.count.unwrap_or(if self.duration.is_some() { u64::MAX } else { PRINT_COUNT })
    }

    pub(super) fn is_quiet(&self) -> bool {
        ["warn", "error"].contains(&self.log_level.as_str())
    }

    /// The profile of ingest events. Published ones are of now and of chats that nobody had yet, so that
    /// two runs do not meet; printed ones are always the same.
    pub(super) fn ingest_profile(&self) -> Result<ingest::Profile, LoadError> {
        if self.clean {
            return Err(LoadError::Usage("--clean goes with --events cdc".into()));
        }
        let mut profile: ingest::Profile = match &self.profile {
            Some(path) => read_profile(path)?,
            None if self.print.is_some() => ingest::Profile::default(),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let seed = u64::from(since.subsec_nanos()) ^ (since.as_secs() << 20);
                ingest::Profile { seed, epoch_s: since.as_secs(), ..ingest::Profile::default() }
            }
        };
        profile.seed = self.seed.unwrap_or(profile.seed);
        profile.epoch_s = self.epoch.unwrap_or(profile.epoch_s);
        profile.agents = self.agents.unwrap_or(profile.agents);
        profile.chats = self.chats.unwrap_or(profile.chats);
        if let Some(count) = self.history_count {
            let count = if count <= 0 { HISTORY_COUNT } else { count };
            profile.history_count = u32::try_from(count).unwrap_or(u32::MAX);
        }
        if let Some(count) = self.companies {
            profile.companies = (0..count).map(|number| format!("Company{number:05}")).collect();
        } else if !self.company_ids.is_empty() {
            profile.companies = trimmed(&self.company_ids).map(str::to_owned).collect();
        }
        let usage = |error: ingest::UnknownSubject| LoadError::Usage(error.to_string());
        if self.subjects == ["all"] {
            profile.subjects = ingest::Kind::ALL.to_vec();
        } else if !self.subjects.is_empty() {
            let kinds = trimmed(&self.subjects).map(ingest::Kind::parse);
            profile.subjects = kinds.collect::<Result<_, _>>().map_err(usage)?;
        }
        if let Some(faults) = &self.faults {
            profile.faults = ingest::parse_faults(faults).map_err(LoadError::Usage)?;
        }
        Ok(profile)
    }

    /// The profile of row changes.
    pub(super) fn cdc_profile(&self) -> Result<generate::Profile, LoadError> {
        let foreign = [
            ("--subjects", !self.subjects.is_empty()),
            ("--history-count", self.history_count.is_some()),
            ("--faults", self.faults.is_some()),
        ];
        if let Some((name, _)) = foreign.into_iter().find(|(_, is_given)| *is_given) {
            return Err(LoadError::Usage(format!("{name} goes with --events ingest")));
        }
        let mut profile = match &self.profile {
            Some(path) => read_profile(path)?,
            None if self.clean => generate::Profile::clean(),
            None => generate::Profile::default(),
        };
        profile.seed = self.seed.unwrap_or(profile.seed);
        profile.epoch_s = self.epoch.unwrap_or(profile.epoch_s);
        profile.companies = self.companies.unwrap_or(profile.companies);
        profile.agents = self.agents.unwrap_or(profile.agents);
        profile.chats = self.chats.unwrap_or(profile.chats);
        Ok(profile)
    }
}

/// Gives the old tester's options, written with one dash, the second one.
pub fn with_old_flags(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_old = |text: &str| {
        let name = text.split('=').next().unwrap_or_default();
        name.strip_prefix('-').is_some_and(|name| OLD_FLAGS.contains(&name))
    };
    let renamed = args.into_iter().map(|argument| match argument.to_str() {
        Some(text) if is_old(text) => format!("-{text}").into(),
        _ => argument,
    });
    renamed.collect()
}

fn trimmed(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn read_profile<T: DeserializeOwned>(path: &PathBuf) -> Result<T, LoadError> {
    let doing = format!("read the profile {}", path.display());
    let text = std::fs::read(path).map_err(LoadError::io(doing))?;
    serde_json::from_slice(&text)
        .map_err(|error| LoadError::Usage(format!("{}: {error}", path.display())))
}

/// A duration of a command line.
pub(crate) fn read_duration(text: &str) -> Result<Duration, String> {
    let nanos = parse_nanos(text).ok_or("write it as 90s, 250ms or 1h30m")?;
    Ok(Duration::from_nanos(nanos))
}

fn read_epoch(text: &str) -> Result<u64, String> {
    if text == "now" {
        return Ok(crate::send::wall_ns() / 1_000_000_000);
    }
    text.parse().map_err(|_| "write Unix seconds, or now".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use clap::Parser;

    use super::{LoadArgs, with_old_flags};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn read(line: &str) -> LoadArgs {
        let words = std::iter::once("load").chain(line.split_whitespace()).map(Into::into);
        Line::try_parse_from(with_old_flags(words)).unwrap().load
    }

    #[test]
    fn a_command_line_of_the_old_tester_means_the_same() {
        let load = read(
            "-url nats://h:4222 -subjects v1.chats.upsert,v1.history.chats -rate=250 -duration 1m30s \
             -concurrency 4 -company_ids A,B -batch-size 0 -history-count -3 -metrics-port 9100 \
             -log-level warn",
        );
        assert_eq!(load.url.as_deref(), Some("nats://h:4222"));
        assert!((load.rate().unwrap() - 250.0).abs() < 1e-9);
        assert_eq!(load.duration(), Some(Duration::from_secs(90)));
        assert_eq!((load.batch_size(), load.window(), load.metrics_port), (50, 200, 9_100));
        assert!(load.is_quiet());
        let profile = load.ingest_profile().unwrap();
        assert_eq!((profile.history_count, profile.companies), (10, vec!["A".into(), "B".into()]));
        assert_eq!(profile.subjects.len(), 2);
    }

    #[test]
    fn defaults_are_those_of_the_old_tester() {
        let load = read("");
        assert!((load.rate().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(load.duration(), Some(Duration::from_secs(60)));
        assert_eq!((load.concurrency, load.batch_size(), load.metrics_port), (10, 50, 9_091));
        let subjects: Vec<_> =
            load.ingest_profile().unwrap().subjects.iter().map(|kind| kind.subject()).collect();
        assert_eq!(subjects, ["v1.chats.upsert", "v1.messages.upsert"]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let said = read("--subjects v2.chats.upsert").ingest_profile().unwrap_err().to_string();
        assert!(said.contains("v2.chats.upsert") && said.contains("v1.history.chats"), "{said}");
        assert!(read("--rate -1").rate().is_err());
        assert!(read("--events cdc --faults 0.1").cdc_profile().is_err());
        assert!(read("--clean").ingest_profile().is_err());
    }
}
