//! Arguments -> Plan -> what was asked for -> exit code. The CPU is looked at first: the rest of the binary
//! is built for x86-64-v3, and on an older CPU would end with an illegal instruction instead of a sentence.

use std::process::ExitCode;

use clap::Parser;
use daisi::cli::{self, Cli, Command, Exit};
use daisi::{demo, dlq, doctor, exhausted, host, load, migrate, process, tune};
use loadtest::load::with_old_flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let missing = host::cpu_features_missing();
    if !missing.is_empty() {
        eprintln!(
            "daisi: this CPU lacks {}; the binary needs x86-64-v3 (Intel Haswell 2013, AMD Excavator 2015, \
             or newer). Run it on such a machine, or build it with RUSTFLAGS=\"-C target-cpu=x86-64\".",
            missing.join(", ")
        );
        return Exit::Failed.into();
    }
    dispatch(&Cli::parse_from(with_old_flags(std::env::args_os()))).into()
}

#[inline(never)]
fn dispatch(cli: &Cli) -> Exit {
    match &cli.command {
        Command::Run => run(cli),
        Command::Demo => demo::run(),
        Command::Load(args) => load::main(&cli.global, args),
        Command::Doctor(args) => doctor::main(&cli.global, *args),
        Command::Tune(args) => tune::main(args),
        Command::Migrate(args) => migrate::main(&cli.global, args),
        Command::Dlq(command) => dlq::main(&cli.global, command),
        Command::Exhausted(command) => exhausted::main(&cli.global, command),
        Command::Config(command) => cli::config(&cli.global, *command),
        Command::Version => cli::version(),
    }
}

fn run(cli: &Cli) -> Exit {
    match cli.global.plan() {
        Ok(plan) => process::run(&plan),
        Err(exit) => exit,
    }
}
