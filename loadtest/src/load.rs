//! `daisi load` and `loadtest generate`, which are the same: events from a seed, published at planned
//! times with a window of PubAcks, or printed; and at the end what must have become of them.
//! Invariant: it ends with success only when all that was begun has its PubAck, so that what it prints
//! is what the streams were given.

mod args;
mod page;
mod print;
mod progress;
mod streams;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

pub(crate) use args::read_duration;
pub use args::{Events, LoadArgs, Printed, with_old_flags};
pub use streams::{ensure_ingest, ensure_source};

use crate::client::{Client, ClientError};
use crate::generate::{self, ingest};
use crate::meter::Meter;
use crate::results::Spread;
use crate::run::stop_sign;
use crate::send::{SendPlan, Sent, Source, send};
use crate::trace::TraceError;
pub(crate) use page::Page;
use print::print;
pub(crate) use print::{is_read, tell};
pub(crate) use progress::Progress;

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option, or the profile's file, says something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// NATS.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The operating system.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Its reason.
        source: io::Error,
    },
    /// A trace.
    #[error("{0}")]
    Trace(#[from] TraceError),
    /// The counters.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl LoadError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}

/// Does what was asked for, to the end or to a signal. `default_url` tells the server where the options
/// do not.
///
/// # Errors
/// What is wrong with the options, or why events could not be published.
pub fn run(
    args: &LoadArgs,
    default_url: impl FnOnce() -> Result<String, String>,
) -> Result<(), LoadError> {
    let stop = stop_sign().map_err(LoadError::io("watch for signals"))?;
    match args.events {
        Events::Ingest => ingest(args, &stop, default_url),
        Events::Cdc => cdc(args, &stop, default_url),
    }
}

fn ingest(
    args: &LoadArgs,
    stop: &AtomicBool,
    default_url: impl FnOnce() -> Result<String, String>,
) -> Result<(), LoadError> {
    let profile = args.ingest_profile()?;
    let (seed, epoch_s) = (profile.seed, profile.epoch_s);
    let mut generator = ingest::Generator::new(profile).map_err(LoadError::Usage)?;
    if let Some(printed) = args.print {
        print(args, printed, &mut generator, stop)?;
        let text = match args.json {
            true => format!("{}\n", generator.books().to_json()),
            false => generator.books().to_string(),
        };
        eprint!("{text}");
        return Ok(());
    }
    let plan = plan(args, default_url)?;
    streams::ensure_ingest(&mut Client::connect(&plan.url)?, &generator.profile().subjects)?;
    let companies = generator.profile().companies.iter();
    let pairs = companies.flat_map(|company| {
        ingest::Kind::ALL.into_iter().map(move |kind| (kind.subject(), company.as_str()))
    });
    let meter = Meter::new(pairs)?;
    let sent = publish(args, plan, meter, &mut generator, stop)?;
    let books = generator.books();
    if args.json {
        let told = json!({ "seed": seed, "epoch": epoch_s, "expected": books.to_json() });
        tell_json(&sent, told);
        return Ok(());
    }
    println!("{}; the same again: --seed {seed} --epoch {epoch_s}", summary(&sent));
    println!(
        "dropped by the stream as seen before: {}, expected {}",
        sent.acked_again,
        books.outcome(ingest::Expect::Dropped)
    );
    print!("{}{books}", details(&sent));
    Ok(())
}

fn cdc(
    args: &LoadArgs,
    stop: &AtomicBool,
    default_url: impl FnOnce() -> Result<String, String>,
) -> Result<(), LoadError> {
    let mut generator = generate::Generator::new(args.cdc_profile()?);
    if let Some(printed) = args.print {
        return print(args, printed, &mut generator, stop);
    }
    let plan = plan(args, default_url)?;
    ensure_source(&mut Client::connect(&plan.url)?)?;
    let meter = Meter::new([("cdc.*.*", "all")])?;
    let seed = generator.profile().seed;
    let sent = publish(args, plan, meter, &mut generator, stop)?;
    match args.json {
        true => tell_json(&sent, json!({ "seed": seed })),
        false => print!("{}; seed {seed}\n{}", summary(&sent), details(&sent)),
    }
    Ok(())
}

fn plan(
    args: &LoadArgs,
    default_url: impl FnOnce() -> Result<String, String>,
) -> Result<SendPlan, LoadError> {
    let url = args.url.clone().map_or_else(default_url, Ok).map_err(LoadError::Usage)?;
    Ok(SendPlan {
        duration: args.duration(),
        rate: args.rate()?,
        window: args.window(),
        batch: args.batch_size(),
        ..SendPlan::new(url, args.count.unwrap_or(u64::MAX))
    })
}

fn publish<S: Source>(
    args: &LoadArgs,
    plan: SendPlan,
    meter: Meter,
    source: &mut S,
    stop: &AtomicBool,
) -> Result<Sent, LoadError> {
    let meter = Arc::new(meter);
    let _page = match args.metrics_port {
        0 => None,
        port => Some(Page::open(port, Arc::clone(&meter))?),
    };
    let _progress = match args.is_quiet() {
        true => None,
        false => Progress::show(Arc::clone(&meter))?,
    };
    let plan = SendPlan { meter: Some(meter), ..plan };
    Ok(send(&plan, source, stop, |_| ())?)
}

pub(crate) fn summary(sent: &Sent) -> String {
    let seconds = sent.elapsed.as_secs_f64();
    let rate = sent.acked as f64 / seconds.max(1e-9);
    format!("{} events acknowledged in {seconds:.3} s, {rate:.0} events/s", sent.acked)
}

pub(crate) fn details(sent: &Sent) -> String {
    let points = |Spread { p50, p90, p99, max, .. }: Spread| {
        format!("P50 {p50}  P90 {p90}  P99 {p99}  max {max}")
    };
    format!(
        "resent {} (without id {}), reconnects {}\n\
         planned time to write, us:  {}\n\
         planned time to PubAck, us: {}\n",
        sent.resent,
        sent.resent_bare,
        sent.reconnects,
        points(Spread::of(&sent.late_us)),
        points(Spread::of(&sent.ack_us)),
    )
}

/// The totals for machines.
pub(crate) fn facts(sent: &Sent) -> Value {
    let seconds = sent.elapsed.as_secs_f64();
    json!({
        "published": sent.acked,
        "dropped": sent.acked_again,
        "elapsed_s": seconds,
        "rate": sent.acked as f64 / seconds.max(1e-9),
        "resent": sent.resent,
        "resent_bare": sent.resent_bare,
        "reconnects": sent.reconnects,
        "behind_us_max": sent.behind_max.as_micros() as u64,
        "late_us": Spread::of(&sent.late_us),
        "ack_us": Spread::of(&sent.ack_us),
    })
}

fn tell_json(sent: &Sent, mut told: Value) {
    if let (Some(told), Value::Object(facts)) = (told.as_object_mut(), facts(sent)) {
        told.extend(facts);
    }
    println!("{told}");
}
