//! Command line of the load test: `stack` holds a local stack, `generate` prints or publishes events.

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack};

#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts nats-server, redis-server and PostgreSQL, prints where they are, and ends them when
    /// standard input closes or this process is ended, by whatever.
    Stack {
        /// Without PostgreSQL.
        #[arg(long)]
        no_postgres: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Stack { no_postgres } => hold_stack(no_postgres),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hold_stack(no_postgres: bool) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Stack::builder().nats(NatsOptions::default()).redis(RedisOptions::default());
    if !no_postgres {
        builder = builder.postgres(PostgresOptions::default());
    }
    let stack = builder.start()?;
    println!("folder {}", stack.folder().display());
    println!("nats {} pid {}", stack.nats.url(), stack.nats.pid().unwrap_or(0));
    println!("redis {} pid {}", stack.redis.url(), stack.redis.pid().unwrap_or(0));
    if let Some(postgres) = stack.postgres.as_option() {
        println!("postgres {} pid {}", postgres.url(), postgres.pid().unwrap_or(0));
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
