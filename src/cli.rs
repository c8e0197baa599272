//! The command line: what was asked for, as plain data, and the commands that need no runtime. Invariant: an
//! answer goes to standard output, everything else to standard error; the exit code tells which it was.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use loadtest::load::LoadArgs;

use crate::config::plan::{Plan, PlanError};
use crate::config::{Config, Problem, Sources, reference};
use crate::dlq::DlqCommand;
use crate::exhausted::ExhaustedCommand;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `run`: stopped cleanly, nothing left behind
  1  failed, or stopped with work left behind (it is delivered again after the restart)
  2  the command line or the configuration is at fault; for `doctor`: something fails
     (`doctor` ends with 1 only under --strict, for warnings)

Examples:
  daisi demo                                    the whole path on this machine, nothing to install
  daisi load --rate 500 --duration 2m           events of agents to the configured server
  daisi --config daisi.toml config check        every problem of a file at once
  daisi --config daisi.toml doctor              what this host and the servers lack
  daisi --config daisi.toml --set log.level=debug run
  daisi tune --dry-run                          what would be changed on this host, and from what
  daisi migrate --all --dry-run                 what an upgrade would do to the companies' schemas
  daisi dlq retry --all --company ACME --dry-run  what would be sent again of a company's dead letters
  daisi exhausted list --all                    events that were given up
  NATS_URL=nats://nats:4222 REDIS_URL=redis://redis:6379 daisi run";

/// How a process ended. The numbers are an interface: scripts and service managers read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed, or work was left behind.
    Failed = 1,
    /// The command line or the configuration is at fault.
    Usage = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Moves chat events between NATS JetStream, Redis and browsers; one shard a core, on io_uring.
#[derive(Debug, Parser)]
#[command(name = "daisi", version, after_long_help = EXIT_CODES, after_help = "See --help for exit codes and examples.")]
pub struct Cli {
    /// Configuration and what to do.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// TOML file with the configuration; without one, defaults and the environment count.
    #[arg(long, short = 'c', global = true, value_name = "FILE", env = "DAISI_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one key, stronger than file and environment; may be repeated. Lists are comma separated.
    #[arg(long = "set", short = 's', global = true, value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the configured stages until SIGTERM or SIGINT; then finish what was begun, and stop.
    Run,
    /// Show the whole path on this machine: private servers, generated events, a check of every one.
    Demo,
    /// Publish events as agents do, at a rate, or print them; tell what must become of them.
    Load(Box<LoadArgs>),
    /// Tell what this host and the servers lack, with the remedy, and what survives which failure.
    Doctor(DoctorArgs),
    /// Set up this host for daisi: show what would change, change it, take it back.
    Tune(TuneArgs),
    /// Bring schemas of companies in PostgreSQL up to this release; a running daisi does so by itself.
    Migrate(MigrateArgs),
    /// List, show, send again or drop dead letters.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// List, show, send again or close events that were given up.
    #[command(subcommand)]
    Exhausted(ExhaustedCommand),
    /// Check, show or explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print version and target.
    Version,
}

/// Options of `daisi doctor`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct DoctorArgs {
    /// One JSON object instead of lines for people.
    #[arg(long)]
    pub json: bool,
    /// Warnings count: exit 1 if there is one.
    #[arg(long)]
    pub strict: bool,
    /// Look at this host only; ask no server.
    #[arg(long)]
    pub offline: bool,
}

/// Options of `daisi tune`.
#[derive(Args, Clone, Debug)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["dry_run", "apply", "revert"]),
    after_help = TUNE_HELP
)]
pub struct TuneArgs {
    /// Show every setting with its value before and after; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Change them, after what was there has been written to the journal. Needs root.
    #[arg(long)]
    pub apply: bool,
    /// Put back what was there before, from the journal. Needs root.
    #[arg(long)]
    pub revert: bool,
    /// Only these settings; may be repeated.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub only: Vec<Setting>,
    /// All but these; may be repeated.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub skip: Vec<Setting>,
    /// CPUs that interrupts are to come on, as 0 or 0-1,4: those no shard has. Without it interrupts are left alone.
    #[arg(long, value_name = "LIST", value_parser = cpu_list, conflicts_with = "revert")]
    pub irq_cpus: Option<String>,
    /// With --revert: also put back what somebody else has changed since.
    #[arg(long, conflicts_with_all = ["apply", "dry_run"])]
    pub force: bool,
    /// Folder that stands for /, to try it out in a copy.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

const TUNE_HELP: &str = "\
Settings: what each is for, and those that are not set from here, stand in tuning/README.md.
The journal is /var/lib/daisi/tune.json: what was there before, until it is put back.

Exit codes:
  0  done, or nothing to do
  1  a change failed (those before it are done, and told), or --revert left something alone
  2  the command line is at fault

Examples:
  daisi tune --dry-run
  sudo daisi tune --apply --skip governor
  sudo daisi tune --apply --only irq --irq-cpus 0
  sudo daisi tune --revert";

/// What `daisi tune` can set.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Values of the kernel: now, and at each boot.
    Sysctl,
    /// Transparent huge pages for those who ask: now, and at each boot.
    HugePages,
    /// Highest clock on every CPU that has governors: now, and at each boot.
    Governor,
    /// Locked memory and open files of the user daisi.
    Limits,
    /// CPUs that interrupts come on; until the next boot.
    Irq,
}

impl Setting {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sysctl => "sysctl",
            Self::HugePages => "huge-pages",
            Self::Governor => "governor",
            Self::Limits => "limits",
            Self::Irq => "irq",
        }
    }
}

fn cpu_list(text: &str) -> Result<String, String> {
    let list = crate::host::parse_cpu_list(text);
    list.map(|_| text.to_owned()).ok_or_else(|| "no list of CPUs, such as 0 or 0-1,4".to_owned())
}

/// Options of `daisi migrate`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["company", "all"]))]
pub struct MigrateArgs {
    /// A company, spelt as in its subjects; may be repeated. Its schema is made if there is none, with the
    /// partitions of this year's and last year's months.
    #[arg(long, value_name = "COMPANY")]
    pub company: Vec<String>,
    /// Every company that has a schema.
    #[arg(long)]
    pub all: bool,
    /// Tell what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Publication the tables join, for change capture; empty for none.
    #[arg(long, value_name = "NAME", default_value = "daisi_pub")]
    pub publication: String,
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell every problem at once; exit 2 if there is one.
    Check,
    /// Print every key, its value and where it came from. Secrets are masked.
    Show,
    /// Print the reference: every key with meaning, bounds, default and reason.
    Reference {
        /// A commented file to start from, or a page to read.
        #[arg(long, value_enum, default_value_t = Format::Toml)]
        format: Format,
    },
}

/// Form of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A valid configuration file.
    Toml,
    /// The page `docs/configuration.md`.
    Markdown,
}

impl Global {
    /// Reads file, environment and `--set`.
    #[must_use]
    pub fn load(&self) -> Config {
        Config::load(&Sources::of_process(self.config.as_deref(), &self.sets))
    }

    /// Reads and checks; problems and notes are told on standard error.
    ///
    /// # Errors
    /// [`Exit::Usage`] if the configuration has a problem.
    pub fn plan(&self) -> Result<Plan, Exit> {
        let config = self.load();
        tell_notes(&config);
        Plan::try_from(config).map_err(|error| tell_problems(&error))
    }
}

/// `daisi config ...`.
#[must_use]
pub fn config(global: &Global, command: ConfigCommand) -> Exit {
    match command {
        ConfigCommand::Reference { format: Format::Toml } => print(reference::DEFAULT_TOML),
        ConfigCommand::Reference { format: Format::Markdown } => print(&reference::markdown()),
        ConfigCommand::Show => show(&global.load()),
        ConfigCommand::Check => match global.plan() {
            Ok(plan) => print(&summary(&plan)),
            Err(exit) => exit,
        },
    }
}

/// `daisi version`.
#[must_use]
pub fn version() -> Exit {
    let (version, arch, os) =
        (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let level = if cfg!(target_feature = "avx2") { "x86-64-v3" } else { arch };
    print(&format!("daisi {version} ({level} {os}, {build})\n"))
}

/// Writes an answer. A reader that went away (`| head`) is no failure of ours.
#[must_use]
pub fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Ok,
    }
}

fn show(config: &Config) -> Exit {
    let printed = print(&reference::show(config));
    tell_notes(config);
    // Shown even when it is wrong: that is when one wants to see where a value came from.
    match Plan::try_from(config.clone()) {
        Ok(_) => printed,
        Err(error) => tell_problems(&error),
    }
}

fn tell_notes(config: &Config) {
    for note in config.notes() {
        eprintln!("note: {note}");
    }
}

fn tell_problems(error: &PlanError) -> Exit {
    eprintln!("daisi: {error}");
    debug_assert!(error.problems.iter().all(|Problem { remedy, .. }| !remedy.is_empty()));
    Exit::Usage
}

fn summary(plan: &Plan) -> String {
    let control =
        plan.control.core.map_or_else(|| "any CPU".to_owned(), |core| format!("CPU {core}"));
    format!(
        "configuration is valid\n  stages   {:?}\n  shards   {} on CPUs {:?}; control on {control}\n  \
         reads    {} {:?}\n  writes   {:?}\n  pages    http://{}/\n",
        plan.stages,
        plan.shard_cores.len(),
        plan.shard_cores,
        plan.cdc.stream,
        plan.cdc.subjects,
        plan.cdc.output_subjects,
        plan.control.listen,
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            &["daisi", "--set", "a=b", "--config", "f", "config", "check"][..],
            &["daisi", "config", "check", "--config", "f", "--set", "a=b"],
        ] {
            let cli = Cli::try_parse_from(line).expect("it parses");
            assert_eq!(
                (cli.global.sets.as_slice(), cli.global.config),
                (&["a=b".to_owned()][..], Some("f".into()))
            );
            assert!(matches!(cli.command, Command::Config(ConfigCommand::Check)));
        }
    }

    #[test]
    fn every_command_explains_itself_and_exit_codes_are_documented() {
        let mut command = Cli::command();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
        }
        let help = command.render_long_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains("Examples:"));
    }
}
