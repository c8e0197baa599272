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

/// The servers.
pub(crate) struct Bed {
    stack: Stack,
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
        // Checkpoints come when a turn begins, not in its middle; all else is as shipped, fsync included.
        let settings = [("max_wal_size", "8GB"), ("checkpoint_timeout", "1h")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let stack = Stack::builder()
            .nats(NatsOptions::default())
            .postgres(PostgresOptions { settings, ..PostgresOptions::default() })
            .start()?;
        let machine = Machine::look(stack.nats.version()?, stack.postgres.version()?);
        let companies = (1..=args.companies.max(1)).map(|n| format!("Bench{n}")).collect();
        Ok(Self { stack, companies, daisi: args.daisi.display().to_string(), machine })
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
        let profile = Profile {
            subjects: vec![kind],
            companies: self.companies.clone(),
            history_count: 100,
            quirks: 0.0,
            ..Profile::default()
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

    /// Rows of `messages` of all companies.
    pub(crate) fn messages(&self) -> Result<u64, BenchError> {
        let counts = self.companies.iter().map(|company| {
            format!("(SELECT count(*) FROM daisi_{}.messages)", company.to_ascii_lowercase())
        });
        let sum = format!("SELECT {}", counts.collect::<Vec<_>>().join(" + "));
        let answer = self.stack.postgres.psql(&sum)?;
        answer.parse().map_err(|error| BenchError::unreadable("the number of rows", &error))
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
