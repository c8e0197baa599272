//! The ingest job: contenders in turns on the same NATS and PostgreSQL, an emptied one for each turn. What a
//! turn counts as done is what its consumer has acknowledged, and afterwards every row must be there.
//! Modules: `bed` (servers, streams, schemas, rows), `turn` (drain, open loop, history), `report`.

mod bed;
mod report;
mod turn;

use std::fs;

use crate::{Args, contender, contender::Contender, contender::Role, error::BenchError};
use bed::Bed;
use loadtest::host;
use report::Record;
use turn::Load;

/// Measures the job and keeps the result: is it sound, and was every target met?
pub(crate) fn run(args: &Args) -> Result<(bool, bool), BenchError> {
    let bed = Bed::start(args)?;
    let contenders = contenders(args, &bed, args.ingest_events)?;
    let single = contenders_single(args, &bed)?;
    let load = Load {
        events: args.ingest_events.max(2),
        rate: args.rate.max(1),
        warmup_s: args.warmup_s,
        timed_s: args.timed_s,
        deadline_s: args.deadline_s,
    };
    let mut records: Vec<Record> = contenders.iter().map(Record::new).collect();
    for round in 1..=args.rounds {
        for (contender, record) in contenders.iter().zip(&mut records) {
            announce("drain", round, args.rounds, &record.name);
            let turn = turn::drain(contender, &bed, load);
            let turn = record.note(turn);
            record.drains.push(turn);
        }
        for (contender, record) in contenders.iter().zip(&mut records) {
            if contender.role == Role::Subject {
                announce("history", round, args.rounds, &record.name);
                let turn = turn::history(contender, &bed, load);
                let turn = record.note(turn);
                record.histories.push(turn);
            }
        }
    }
    for round in 1..=if args.timed_s == 0 { 0 } else { args.rounds } {
        for (contender, record) in contenders.iter().zip(&mut records) {
            announce("paced", round, args.rounds, &record.name);
            let turn = match (contender.role, &single) {
                (Role::Bare, Some(single)) => turn::single(single, &bed, load),
                (Role::Bare, None) => continue,
                _ => turn::paced(contender, &bed, load),
            };
            let turn = record.note(turn);
            record.paced.push(turn);
        }
    }
    print!("{}", report::text(&records));
    keep(args, &bed, &records)?;
    let is_met = report::outcomes(&records).iter().all(report::Outcome::is_met);
    Ok((records.iter().all(|record| record.errors.is_empty()), is_met))
}

fn announce(what: &str, round: usize, rounds: usize, name: &str) {
    eprintln!("ingest {what} {round}/{rounds}: {name} (load {})", host::load());
}

fn contenders(args: &Args, bed: &Bed, events: u64) -> Result<Vec<Contender>, BenchError> {
    let places = [
        ("nats_url", bed.nats_url()),
        ("postgres_url", bed.postgres_url()),
        ("peers", args.peers.display().to_string()),
        ("daisi", args.daisi.display().to_string()),
        ("events", events.to_string()),
    ];
    let list = contender::load(include_str!("../ingest.toml"), &places.into())?;
    contender::there(list, &args.only)
}

/// The bare loop with one row a commit: no more events than it can come to in its time.
fn contenders_single(args: &Args, bed: &Bed) -> Result<Option<Contender>, BenchError> {
    let list = contenders(args, bed, turn::SINGLE_EVENTS)?;
    let bare = list.into_iter().find(|contender| contender.role == Role::Bare);
    let seconds = args.timed_s.to_string();
    Ok(bare.map(|bare| bare.with(&["--batch", "1", "--seconds", &seconds])))
}

fn keep(args: &Args, bed: &Bed, records: &[Record]) -> Result<(), BenchError> {
    let path = args.results.join(format!("ingest-{}.json", host::unix_ms() / 1000));
    let result = serde_json::json!({
        "machine": bed.machine(),
        "events": args.ingest_events,
        "rate": args.rate,
        "companies": args.companies,
        "timed_s": args.timed_s,
        "contenders": records,
        "targets": report::outcomes(records),
    });
    fs::create_dir_all(&args.results)
        .and_then(|()| fs::write(&path, format!("{result:#}\n")))
        .map_err(BenchError::io(format!("write {}", path.display())))?;
    println!("\nkept in {}", path.display());
    Ok(())
}
