//! Drives the feed: each step of a measurement is one short-lived process that prints JSON lines. The
//! harness itself speaks to no server but for emptying Redis.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

use loadtest::host::Process;
use serde::{Deserialize, de::DeserializeOwned};

use crate::error::BenchError;

/// Where the feed's binary is and what it talks to.
pub(crate) struct Feed {
    pub(crate) binary: String,
    pub(crate) nats_url: String,
    /// `host:port` of Redis.
    pub(crate) redis_address: String,
    pub(crate) companies: u64,
}

/// A look at the output stream.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Progress {
    pub(crate) messages: u64,
    /// Between first and last message, by the server's clock.
    pub(crate) span_ns: u64,
}

/// What the checker found.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize)]
pub(crate) struct Findings {
    pub(crate) seen: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) swapped: u64,
    pub(crate) foreign: u64,
}

impl Findings {
    /// Every event came out, and once. Order is another promise, which not every contender makes.
    pub(crate) fn exactly_once(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.foreign == 0
    }
}

/// Result of an open-loop run; microseconds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) findings: Findings,
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    pub(crate) sender_late_us_p99: f64,
}

impl Feed {
    /// Empties both servers: streams deleted and created, Redis flushed.
    pub(crate) fn reset(&self) -> Result<(), BenchError> {
        self.step(&["reset"])?;
        self.flush_redis().map_err(BenchError::io("flush redis"))
    }

    pub(crate) fn preload(&self, count: u64) -> Result<(), BenchError> {
        self.step(&["preload", &count.to_string()]).map(|_| ())
    }

    pub(crate) fn verify(&self, count: u64) -> Result<Findings, BenchError> {
        parse("verify", &self.step(&["verify", &count.to_string()])?)
    }

    pub(crate) fn paced(
        &self,
        rate: u64,
        warmup_s: u64,
        timed_s: u64,
    ) -> Result<Latency, BenchError> {
        let [rate, warmup, timed] = [rate, warmup_s, timed_s].map(|value| value.to_string());
        let line =
            self.step(&["paced", "--rate", &rate, "--warmup-s", &warmup, "--timed-s", &timed])?;
        parse("paced", &line)
    }

    /// Calls `look` for each report on the output stream until it holds `count` or `deadline_s` is over.
    pub(crate) fn watch(
        &self,
        count: u64,
        deadline_s: u64,
        mut look: impl FnMut(Progress) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let [count, deadline] = [count, deadline_s].map(|value| value.to_string());
        let mut process = self.spawn(&["watch", &count, "--deadline-s", &deadline])?;
        let Some(stdout) = process.child().stdout.take() else {
            return Err(BenchError::unreadable("watch", &"its output is not piped"));
        };
        for line in BufReader::new(stdout).lines() {
            look(parse("watch", &line.map_err(BenchError::io("read the watch"))?)?)?;
        }
        ended_well("watch", &mut process)
    }

    fn step(&self, step: &[&str]) -> Result<String, BenchError> {
        let mut process = self.spawn(step)?;
        let mut text = String::new();
        if let Some(mut stdout) = process.child().stdout.take() {
            stdout.read_to_string(&mut text).map_err(BenchError::io("read the feed"))?;
        }
        ended_well(step[0], &mut process).map(|()| text)
    }

    fn spawn(&self, step: &[&str]) -> Result<Process, BenchError> {
        let companies = self.companies.to_string();
        let command = [&self.binary, "--nats-url", &self.nats_url, "--companies", &companies];
        let words = command.iter().chain(step).map(|&word| word.to_owned());
        Ok(Process::spawn("feed", &words.collect::<Vec<_>>(), Stdio::piped())?)
    }

    fn flush_redis(&self) -> std::io::Result<()> {
        let mut redis = TcpStream::connect(&self.redis_address)?;
        redis.write_all(b"FLUSHALL SYNC\r\n")?;
        let mut reply = [0; 5];
        redis.read_exact(&mut reply)?;
        match &reply {
            b"+OK\r\n" => Ok(()),
            other => Err(std::io::Error::other(String::from_utf8_lossy(other).into_owned())),
        }
    }
}

fn ended_well(step: &str, process: &mut Process) -> Result<(), BenchError> {
    let status = process.child().wait().map_err(BenchError::io("wait for the feed"))?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::Feed { step: step.to_owned(), status: status.to_string() })
}

fn parse<T: DeserializeOwned>(step: &str, line: &str) -> Result<T, BenchError> {
    serde_json::from_str(line).map_err(|error| BenchError::unreadable(step, &error))
}
