//! `loadtest replay`: a trace published again, or printed, and what became of it. The options make the
//! [`ReplayPlan`]; whoever observes the other end takes that and [`Replay`] from here.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use shards::wire::nats::headers::Headers;

use super::format::TraceError;
use super::read::Reader;
use super::replay::{Pace, Replay, ReplayEvent, ReplayPlan};
use super::rewrite::Renewal;
use super::show::end_text;
use crate::client::Client;
use crate::generate::ingest::Kind;
use crate::load::{self, LoadError, Printed, Progress, read_duration};
use crate::meter::Meter;
use crate::run::is_stopped;
use crate::send::{SendPlan, Sent, Source, send, wall_ns};

const DAY_NS: u64 = 86_400_000_000_000;

/// Which trace, how fast, and what is changed of its events.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The trace; a `.part` of a recorder that was killed does as well.
    pub trace: PathBuf,
    /// NATS server, `nats://[user:password@|token@]host:port`.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222", hide_env_values = true)]
    pub nats_url: String,
    /// How.
    #[command(flatten)]
    pub plan: ReplayPlanArgs,
    /// No event that is planned for later than this after the start, as 90s or 1h30m.
    #[arg(long, value_parser = read_duration)]
    pub duration: Option<Duration>,
    /// Events at most.
    #[arg(long)]
    pub count: Option<u64>,
    /// Publishes without a PubAck at a time.
    #[arg(long, default_value_t = 1_024)]
    pub window: usize,
    /// Print events in the place of publishing them: as lines, or none to measure the source.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "lines", require_equals = true)]
    pub print: Option<Printed>,
    /// No progress line.
    #[arg(long)]
    pub quiet: bool,
    /// The totals as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of a replay that do not say where to.
#[derive(Clone, Debug, Args)]
pub struct ReplayPlanArgs {
    /// As recorded, so many times as fast: 1x, 2x, 0.5x [default: 1x].
    #[arg(long, value_parser = read_speed, conflicts_with_all = ["rate", "max"])]
    pub speed: Option<f64>,
    /// Events a second, copies included.
    #[arg(long, value_parser = read_rate, conflicts_with = "max")]
    pub rate: Option<f64>,
    /// As fast as the window lets.
    #[arg(long)]
    pub max: bool,
    /// Every company becomes so many: itself, and copies named `<company>_x2`, `<company>_x3`, ...
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub companies_times: u32,
    /// Another name for a company, OLD=NEW; may be given more than once.
    #[arg(long, value_parser = read_rename)]
    pub rename: Vec<(String, String)>,
    /// By how many whole days times in events move, as 30d or -7d; `auto` to the last 24 hours, `none`
    /// [default: auto; none with --keep-ids or --salt].
    #[arg(long, value_parser = read_shift, allow_hyphen_values = true)]
    pub shift_time: Option<Shift>,
    /// What new ids are made of: the same salt, the same bytes [default: the time].
    #[arg(long, conflicts_with = "keep_ids")]
    pub salt: Option<String>,
    /// Ids as recorded; what was seen before is then taken for a duplicate.
    #[arg(long)]
    pub keep_ids: bool,
    /// The whole trace so many times.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
}

/// By how much times move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// So that the first event arrives within the last 24 hours.
    Auto,
    /// Days.
    Days(i64),
}

impl ReplayPlanArgs {
    /// The plan for this trace.
    ///
    /// # Errors
    /// The trace, whose first event `auto` asks for.
    pub fn plan(&self, trace: &std::path::Path) -> Result<ReplayPlan, TraceError> {
        let pace = match (self.max, self.rate) {
            (true, _) => Pace::Max,
            (false, Some(rate)) => Pace::Rate(rate),
            (false, None) => Pace::Speed(self.speed.unwrap_or(1.0)),
        };
        let is_new = !self.keep_ids;
        let given = self.shift_time;
        let shift = given.unwrap_or(match is_new && self.salt.is_none() {
            true => Shift::Auto,
            false => Shift::Days(0),
        });
        let days = match shift {
            Shift::Days(days) => days,
            Shift::Auto => {
                let first = Reader::open(trace)?.next_record()?.map(|record| record.arrived_ns);
                let now = wall_ns();
                first.map_or(0, |first| (now.saturating_sub(first) / DAY_NS) as i64)
            }
        };
        let salt = is_new.then(|| self.salt.clone().unwrap_or_else(|| wall_ns().to_string()));
        let renames: HashMap<_, _> = self.rename.iter().cloned().collect();
        Ok(ReplayPlan {
            pace,
            renewal: Renewal { salt, days, renames },
            companies_times: self.companies_times,
            repeat: self.repeat,
        })
    }
}

/// Replays a trace to its end, or until the count or the duration is over or `stop` is set.
///
/// # Errors
/// The trace, or why events could not be published.
pub fn replay(args: &ReplayArgs, stop: &AtomicBool) -> Result<(), LoadError> {
    let plan = args.plan.plan(&args.trace)?;
    let mut source = Replay::open(&args.trace, plan.clone())?;
    if let Some(printed) = args.print {
        print(args, printed, &mut source, stop)?;
        return tell(args, &plan, &source, None);
    }
    let mut client = Client::connect(&args.nats_url)?;
    load::ensure_ingest(&mut client, &Kind::ALL)?;
    load::ensure_source(&mut client)?;
    drop(client);
    let meter = Arc::new(Meter::new([("trace", "all")])?);
    let progress = match args.quiet {
        true => None,
        false => Progress::show(Arc::clone(&meter))?,
    };
    let send_plan = SendPlan {
        duration: args.duration,
        window: args.window.max(1),
        meter: Some(meter),
        ..SendPlan::new(&args.nats_url, args.count.unwrap_or(u64::MAX))
    };
    let sent = send(&send_plan, &mut source, stop, |_| ());
    drop(progress);
    tell(args, &plan, &source, Some(&sent?))
}

fn tell(
    args: &ReplayArgs,
    plan: &ReplayPlan,
    source: &Replay,
    sent: Option<&Sent>,
) -> Result<(), LoadError> {
    let account = source.account();
    let fault = source.end().err();
    let end = end_text(source.end().ok().flatten(), fault);
    let again = again(plan);
    if args.json {
        let mut told = sent.map_or_else(|| json!({}), load::facts);
        told["events"] = json!(account);
        told["again"] = again.into();
        told["trace"] = end.into();
        load::tell(&format!("{told}\n"))?;
    } else {
        let lines = format!(
            "{} events of the trace, {} given to the sender, of them {} for further companies\n\
             as recorded: {} on subjects that are not known, {} that are no JSON; left out: {}\n\
             the trace is {end}\n",
            account.read,
            account.given,
            account.copies,
            account.unknown,
            account.not_json,
            account.unsendable
        );
        match sent {
            // Beside printed events, totals are no event.
            None => eprint!("{lines}"),
            Some(sent) => load::tell(&format!(
                "{}; the same again: {again}\ndropped by the stream as seen before: {}\n{}{lines}",
                load::summary(sent),
                sent.acked_again,
                load::details(sent)
            ))?,
        }
    }
    match fault {
        Some(_) => Err(LoadError::Usage("the trace was not replayed whole".to_owned())),
        None => Ok(()),
    }
}

/// The options that give the same bytes.
fn again(plan: &ReplayPlan) -> String {
    let ids = match &plan.renewal.salt {
        Some(salt) => format!("--salt {salt}"),
        None => "--keep-ids".to_owned(),
    };
    format!("{ids} --shift-time {}d", plan.renewal.days)
}

fn print(
    args: &ReplayArgs,
    printed: Printed,
    source: &mut Replay,
    stop: &AtomicBool,
) -> Result<(), LoadError> {
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (started, mut bytes, mut told) = (Instant::now(), 0, 0_u64);
    while told < args.count.unwrap_or(u64::MAX) && !is_stopped(stop) {
        let planned = source.planned();
        let Some(event) = source.next() else { break };
        bytes += event.payload.len();
        told += 1;
        if printed == Printed::Lines && !load::is_read(writeln!(out, "{}", line(&event, planned)))?
        {
            return Ok(());
        }
    }
    load::is_read(out.flush())?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{told} events, {:.0} bytes on average, {:.0} events/s, {:.3} us an event",
        bytes as f64 / told.max(1) as f64,
        told as f64 / seconds.max(1e-9),
        seconds * 1e6 / told.max(1) as f64
    );
    Ok(())
}

fn line(event: &ReplayEvent<'_>, planned: Option<Duration>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = Headers::new(event.headers).iter();
    let headers: Vec<_> = headers.map(|(name, value)| [text(name), text(value)]).collect();
    json!({
        "planned_s": planned.map(|planned| planned.as_secs_f64()),
        "subject": event.subject,
        "headers": headers,
        "payload": text(event.payload),
    })
}

fn read_positive(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)
}

fn read_speed(text: &str) -> Result<f64, String> {
    read_positive(text.strip_suffix('x').unwrap_or(text))
        .ok_or_else(|| "write it as 1x, 2x or 0.5x".to_owned())
}

fn read_rate(text: &str) -> Result<f64, String> {
    read_positive(text)
        .ok_or_else(|| "it takes more than 0; as fast as possible is --max".to_owned())
}

fn read_rename(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("write it as OLD=NEW")?;
    match is_company(new) && !old.is_empty() {
        true => Ok((old.to_owned(), new.to_owned())),
        false => {
            Err(format!("{new:?} cannot name a company: letters, digits, _ and -, 48 at most"))
        }
    }
}

fn is_company(name: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=48).contains(&name.len()) && name.bytes().all(is_safe)
}

fn read_shift(text: &str) -> Result<Shift, String> {
    match text {
        "auto" => Ok(Shift::Auto),
        "none" => Ok(Shift::Days(0)),
        _ => {
            let days = text.strip_suffix('d').and_then(|days| days.parse::<i32>().ok());
            let days = days.ok_or("write whole days, as 30d or -7d, or auto or none")?;
            Ok(Shift::Days(days.into()))
        }
    }
}
