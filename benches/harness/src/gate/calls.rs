//! System calls of the release binary over fixed runs of the stage cdc on private servers, counted by strace:
//! a drain of a stream that was filled before, and a paced run. From start to end of the process, so that the
//! few hundred calls of starting and ending are in the figure, alike in every run.

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use loadtest::{
    client::Client,
    generate::{Generator, Profile},
    host::Process,
    load::ensure_source,
    send::{SendPlan, send},
    stack::{NatsOptions, Stack},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;

use super::{baseline::Figures, micro::need};
use crate::error::BenchError;
use crate::tuned::Tuned;

/// Events of the drain.
const DRAIN: u64 = 60_000;
/// Events of the paced run, and how many a second: below what a traced process can do.
const PACED: (u64, f64) = (12_000, 2_000.0);
/// The tracer holds every look at the ring for 5 ms, so that a turn finds what came in that time, on a fast
/// machine as on a busy one. Without it `io_uring_enter` alone varied tenfold, with what else was running.
const HOLD: &str = "inject=io_uring_enter:delay_exit=5000";
/// For everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(20);
/// Calls per event that are not worth a line: what is called a few times by starting and ending.
const DUST: f64 = 1e-3;
const SOURCE: &str = "cdc_events_stream";
const OUTPUT: &str = "wa_stream";

/// What is traced.
#[derive(Clone, Copy)]
pub(crate) struct Traced<'a> {
    pub(crate) daisi: &'a Path,
    /// What a build that is slow on purpose wastes.
    pub(crate) slow: Option<&'a str>,
}

/// Calls per event of both runs, by name.
pub(crate) fn measure(traced: Traced<'_>) -> Result<BTreeMap<String, Figures>, BenchError> {
    Ok([("drain".to_owned(), drain(traced)?), ("paced".to_owned(), paced(traced)?)].into())
}

/// The names with most calls, for people.
fn tell(run: &str, calls: &Figures) {
    let mut calls: Vec<(&String, &f64)> = calls.iter().collect();
    calls.sort_by(|left, right| right.1.total_cmp(left.1));
    let words = calls.iter().take(8).map(|(name, count)| format!("{name} {count:.3}"));
    eprintln!("gate: {run}, system calls an event: {}", words.collect::<Vec<_>>().join(", "));
}

/// The calls of a drain alone.
pub(crate) fn drain(traced: Traced<'_>) -> Result<Figures, BenchError> {
    need("strace")?;
    let stack = crate::start_servers(NatsOptions::default(), &Tuned::default())?;
    let mut client = Client::connect(&stack.nats.url())?;
    ensure_source(&mut client)?;
    publish(&stack, DRAIN, 0.0)?;
    let run = Run::start(traced, &stack)?;
    run.end("drain", &mut client, DRAIN)
}

fn paced(traced: Traced<'_>) -> Result<Figures, BenchError> {
    need("strace")?;
    let stack = crate::start_servers(NatsOptions::default(), &Tuned::default())?;
    let mut client = Client::connect(&stack.nats.url())?;
    ensure_source(&mut client)?;
    let run = Run::start(traced, &stack)?;
    wait("a pull of daisi", || {
        let list = client.jetstream(&format!("CONSUMER.LIST.{SOURCE}"), &Value::Null)?;
        Ok(list["consumers"][0]["num_waiting"].as_u64() > Some(0))
    })?;
    publish(&stack, PACED.0, PACED.1)?;
    run.end("paced", &mut client, PACED.0)
}

fn publish(stack: &Stack, count: u64, rate: f64) -> Result<(), BenchError> {
    let mut generator = Generator::new(Profile { companies: 8, ..Profile::clean() });
    let plan = SendPlan { rate, ..SendPlan::new(stack.nats.url(), count) };
    send(&plan, &mut generator, &AtomicBool::new(false), |_| ())?;
    Ok(())
}

/// A traced daisi.
struct Run {
    strace: Process,
    summary: String,
}

impl Run {
    fn start(traced: Traced<'_>, stack: &Stack) -> Result<Self, BenchError> {
        let summary = stack.folder().join("strace").display().to_string();
        // A tracer that is killed would let its child run on: hence a death signal of its own.
        let mut command: Vec<String> = ["strace", "-f", "-c", "-o", &summary, "-e", HOLD]
            .into_iter()
            .chain(["setpriv", "--pdeathsig", "KILL", "--", "env"])
            .map(str::to_owned)
            .collect();
        command.extend(traced.slow.map(|slow| format!("DAISI_SLOW={slow}")));
        command.extend([traced.daisi.display().to_string(), "run".to_owned()]);
        let settings = [
            "stages=cdc".to_owned(),
            "shards=1".to_owned(),
            format!("nats.servers={}", stack.nats.url()),
            format!("redis.url={}", stack.redis.url()),
            "control.listen=127.0.0.1:0".to_owned(),
            "log.level=error".to_owned(),
        ];
        command.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
        let strace = Process::spawn("strace", &command, Stdio::null())?;
        Ok(Self { strace, summary })
    }

    /// Waits for the last output, ends daisi, and reads what was counted.
    fn end(mut self, what: &str, client: &mut Client, events: u64) -> Result<Figures, BenchError> {
        wait("the last output", || {
            self.strace.assert_running()?;
            match client.stream_range(OUTPUT) {
                Ok((_, last)) => Ok(last >= events),
                // Not made yet.
                Err(loadtest::client::ClientError::JetStream { err_code: 10_059, .. }) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })?;
        kill_process(self.traced()?, Signal::TERM)
            .map_err(|error| BenchError::unreadable("daisi", &error))?;
        wait("the end of daisi", || {
            let ended = self.strace.child().try_wait();
            Ok(ended.map_err(BenchError::io("wait for strace"))?.is_some())
        })?;
        let text = fs::read_to_string(&self.summary)
            .map_err(BenchError::io(format!("read {}", self.summary)))?;
        let calls = summary(&text);
        if calls.is_empty() {
            return Err(BenchError::unreadable(
                "strace",
                &"it counted nothing: may it trace here?",
            ));
        }
        let each = |(name, count)| (name, count as f64 / events as f64);
        let mut calls: Figures = calls.into_iter().map(each).collect();
        calls.retain(|_, count| *count >= DUST);
        tell(what, &calls);
        Ok(calls)
    }

    /// daisi is the tracer's child.
    fn traced(&self) -> Result<Pid, BenchError> {
        let pid = self.strace.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))?;
        let child = children.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
        child.and_then(Pid::from_raw).ok_or_else(|| BenchError::unreadable(&path, &"no child"))
    }
}

fn wait(
    what: &str,
    mut is_there: impl FnMut() -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let start = Instant::now();
    while !is_there()? {
        if start.elapsed() > PATIENCE {
            return Err(BenchError::unreadable(what, &"it did not come in time"));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Calls by name, of what `strace -c` prints: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn summary(text: &str) -> BTreeMap<String, u64> {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (name, count) = (words.last()?, words.get(3)?.parse().ok()?);
        (*name != "total").then(|| ((*name).to_owned(), count))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_table_of_strace_is_read_without_its_frame() {
        let text = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 98.00    0.800000           8    100000           io_uring_enter
  2.00    0.010000           5      2000        12 futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.810000           7    102000        12 total
";
        let expected = [("io_uring_enter", 100_000), ("futex", 2_000)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count)).into();
        assert_eq!(summary(text), expected);
        assert!(summary("strace: attach: Operation not permitted").is_empty());
    }
}
