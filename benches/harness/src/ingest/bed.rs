//! What every turn of the ingest job stands on: private servers, emptied streams, fresh schemas, and the books
//! of what was published. Invariant: no turn finds anything of the one before.

use std::{fs, process::Stdio, time::Duration};

use loadtest::{
    client::Client,
    generate::ingest::{Generator, Kind, Profile},
    host::{Process, cpu_of, cpu_with_children_of},
    load::ensure_ingest,
    stack::{NatsOptions, PostgresOptions, Stack},
};
use serde_json::Value;

use crate::{Args, error::BenchError, machine::Machine};

/// What the events of a turn are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) companies: u64,
    /// Median length of a message's text in bytes; the generator's own where there is none.
    pub(crate) text: Option<u64>,
}

/// The servers.
pub(crate) struct Bed {
    stack: Stack,
    shape: Shape,
    companies: Vec<String>,
    daisi: String,
    machine: Machine,
}

/// User and system time so far of a contender and of both servers.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) own: Duration,
    pub(crate) nats: Duration,
    pub(crate) postgres: Duration,
}

impl Bed {
    pub(crate) fn start(args: &Args) -> Result<Self, BenchError> {
        Self::start_on(args, NatsOptions::default())
    }

    /// With a nats-server of choice.
    pub(crate) fn start_on(args: &Args, nats: NatsOptions) -> Result<Self, BenchError> {
        // Checkpoints come when a turn begins, not in its middle; all else is as shipped, fsync included.
        let settings = [("max_wal_size", "8GB"), ("checkpoint_timeout", "1h")];
        let mut settings =
            settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        settings.extend(args.tuned.postgres()?);
        let stack = Stack::builder()
            .nats(nats)
            .postgres(PostgresOptions { settings, ..PostgresOptions::default() })
            .start()?;
        let machine = Machine::look(stack.nats.version()?, stack.postgres.version()?);
        let shape = Shape { companies: args.companies, text: None };
        let daisi = args.daisi.display().to_string();
        let mut bed = Self { stack, shape, companies: Vec::new(), daisi, machine };
        bed.reshape(shape);
        Ok(bed)
    }

    /// Other events from the next turn on.
    pub(crate) fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        self.companies = (1..=shape.companies.max(1)).map(|n| format!("Bench{n}")).collect();
    }

    pub(crate) fn nats_url(&self) -> String {
        self.stack.nats.url()
    }

    pub(crate) fn postgres_url(&self) -> String {
        self.stack.postgres.url()
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn client(&self) -> Result<Client, BenchError> {
        Ok(Client::connect(&self.nats_url())?)
    }

    /// Valid events of one kind, of all companies in turn.
    pub(crate) fn generator(&self, kind: Kind) -> Result<Generator, BenchError> {
        let usual = Profile::default();
        let (text_median, text_sigma) = match self.shape.text {
            Some(median) => (median as f64, 0.0),
            None => (usual.text_median, usual.text_sigma),
        };
        let profile = Profile {
            subjects: vec![kind],
            companies: self.companies.clone(),
            history_count: 100,
            quirks: 0.0,
            text_median,
            text_sigma,
            ..usual
        };
        Generator::new(profile).map_err(|why| BenchError::unreadable("the profile", &why))
    }

    /// No stream but the two sources, empty; no schema but new ones; nothing left to be written to disk.
    pub(crate) fn reset(&self) -> Result<(), BenchError> {
        let mut client = self.client()?;
        let names = client.jetstream("STREAM.NAMES", &Value::Null)?;
        for name in names["streams"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            client.jetstream(&format!("STREAM.DELETE.{name}"), &Value::Null)?;
        }
        ensure_ingest(&mut client, &Kind::ALL)?;
        for company in &self.companies {
            let schema = format!("daisi_{}", company.to_ascii_lowercase());
            self.stack.postgres.psql(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE"))?;
        }
        let mut migrate = vec![self.daisi.clone(), "migrate".to_owned()];
        for company in &self.companies {
            migrate.extend(["--company".to_owned(), company.clone()]);
        }
        migrate.extend(["--set".to_owned(), format!("postgres.dsn={}", self.postgres_url())]);
        let mut process = Process::spawn("migrate", &migrate, Stdio::null())?;
        let status = process.child().wait().map_err(BenchError::io("wait for migrate"))?;
        if !status.success() {
            let status = status.to_string();
            return Err(BenchError::Feed { step: "migrate".to_owned(), status });
        }
        self.stack.postgres.psql("CHECKPOINT")?;
        Ok(())
    }

    /// Rows of `messages` of all companies; a statement each, since it locks every partition.
    pub(crate) fn messages(&self) -> Result<u64, BenchError> {
        let counts = self.companies.iter().map(|company| {
            let schema = format!("daisi_{}", company.to_ascii_lowercase());
            let answer =
                self.stack.postgres.psql(&format!("SELECT count(*) FROM {schema}.messages"))?;
            let count = answer.parse::<u64>();
            count.map_err(|error| BenchError::unreadable("the number of rows", &error))
        });
        counts.sum()
    }

    pub(crate) fn cpu_with(&self, process: &Process) -> Result<Cpu, BenchError> {
        let pid = |pid: Option<u32>, name: &str| {
            pid.ok_or_else(|| BenchError::unreadable(name, &"it does not run"))
        };
        Ok(Cpu {
            own: process.cpu()?,
            nats: cpu_of(pid(self.stack.nats.pid(), "nats-server")?)?,
            postgres: cpu_with_children_of(pid(self.stack.postgres.pid(), "postgres")?)?,
        })
    }

    /// Bytes that the kernel may still hold for the disk; for the record of a turn.
    pub(crate) fn dirty_kib() -> u64 {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Dirty:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}
