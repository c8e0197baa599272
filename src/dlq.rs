//! `daisi dlq`: dead letters in their stream, listed, shown, sent again or dropped. Invariants: a letter is
//! deleted only after its event has its PubAck, or on the word "drop"; letters that come while a command runs
//! are none of its business, so a retry that fails again does not go round.
//!
//! The stream is read by `STREAM.MSG.GET` with `next_by_subj`: a question a letter to the stream's leader. It
//! costs a round trip each, and leaves no trace: no consumer that the worker or an alert could trip over, no
//! ack, nothing to clean up after a killed command, and one permission instead of three.

mod args;
mod stream;

pub(crate) use args::read_company;
pub use args::{ActArgs, DlqCommand, ListArgs, Pick, ShowArgs};

use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cli::{Exit, Global};
use crate::config::plan::Plan;
use crate::letter::{Letter, one_line, plain};
use crate::nats::SessionError;
use crate::replay::{self, Replayed, replay};
use crate::work::{Order, Stop, Tally, confirm, exit_of, tell};
use stream::{Letters, Stored};

/// Why a command ended before its end.
enum Cut {
    /// Told already; this is how to end.
    Exit(Exit),
    /// NATS.
    Session(SessionError),
    /// A signal.
    Stopped,
}

impl From<SessionError> for Cut {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<std::io::Error> for Cut {
    fn from(error: std::io::Error) -> Self {
        Self::Exit(exit_of(&error))
    }
}

/// Runs the command.
#[must_use]
pub fn main(global: &Global, command: &DlqCommand) -> Exit {
    let plan = match global.plan() {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    match run(&plan, command) {
        Ok(exit) | Err(Cut::Exit(exit)) => exit,
        Err(Cut::Session(error)) => {
            eprintln!("daisi: {error}");
            Exit::Failed
        }
        Err(Cut::Stopped) => {
            eprintln!("daisi: stopped before the end; nothing was changed");
            Exit::Failed
        }
    }
}

fn run(plan: &Plan, command: &DlqCommand) -> Result<Exit, Cut> {
    let stop = Stop::watch().map_err(SessionError::Refused)?;
    let mut letters = Letters::open(plan)?;
    match command {
        DlqCommand::List(args) => list(&mut letters, args, &stop),
        DlqCommand::Show(args) => show(&mut letters, args),
        DlqCommand::Retry(args) => act(&mut letters, args, Deed::Retry, &stop),
        DlqCommand::Drop(args) => act(&mut letters, args, Deed::Drop, &stop),
    }
}

fn list(letters: &mut Letters, args: &ListArgs, stop: &Stop) -> Result<Exit, Cut> {
    let mut count = 0_u64;
    each(letters, &args.pick, stop, |stored| {
        let line = if args.json { Value::Object(facts(stored)).to_string() } else { line(stored) };
        count += 1;
        tell(&line)
    })?;
    if !args.json {
        eprintln!("{count} dead letters");
    }
    Ok(Exit::Ok)
}

fn show(letters: &mut Letters, args: &ShowArgs) -> Result<Exit, Cut> {
    let mut exit = Exit::Ok;
    for seq in &args.seq {
        let Some(stored) = letters.get(*seq)? else {
            eprintln!("daisi: there is no dead letter {seq} in stream {}", letters.stream());
            exit = Exit::Failed;
            continue;
        };
        tell(&if args.json { shown_json(&stored).to_string() } else { shown(&stored) })?;
    }
    Ok(exit)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Retry,
    Drop,
}

fn act(letters: &mut Letters, args: &ActArgs, deed: Deed, stop: &Stop) -> Result<Exit, Cut> {
    let (verb, done) = match deed {
        Deed::Retry => ("retry", "retried"),
        Deed::Drop => ("drop", "dropped"),
    };
    if !args.seq.is_empty() && !args.pick.is_empty() {
        eprintln!("daisi: filters go with --all, not with sequences");
        return Err(Cut::Exit(Exit::Usage));
    }
    let mut seqs = args.seq.clone();
    if args.all {
        each(letters, &args.pick, stop, |stored| {
            seqs.push(stored.seq);
            Ok(())
        })?;
    }
    seqs.sort_unstable();
    seqs.dedup();
    let done = if args.dry_run { "looked at" } else { done };
    let order = Order { verb, done, what: "dead letters", json: args.json };
    if !args.dry_run {
        confirm(order, seqs.len(), args.yes, stop).map_err(Cut::Exit)?;
    }
    let mut tally = Tally::new(order, seqs.len());
    for seq in seqs {
        if stop.is_set() {
            return Ok(tally.end(Some("stopped")));
        }
        match act_on(letters, seq, deed, args.dry_run) {
            Ok((text, facts)) => match tally.done(&text, facts) {
                Ok(()) => {}
                Err(error) => return Ok(tally.end(Some(&format!("standard output: {error}")))),
            },
            Err(SessionError::Refused(why)) => tally.failed(&format!("dead letter {seq}"), &why),
            Err(SessionError::Lost(why)) => {
                let why = format!("dead letter {seq}: {why}; whether it was done is not known");
                return Ok(tally.end(Some(&why)));
            }
        }
    }
    Ok(tally.end(None))
}

fn act_on(
    letters: &mut Letters,
    seq: u64,
    deed: Deed,
    dry_run: bool,
) -> Result<(String, Map<String, Value>), SessionError> {
    let stored = letters.get(seq)?;
    let stored = stored.ok_or_else(|| SessionError::Refused("is not there (any more)".into()))?;
    let mut facts = Map::new();
    facts.insert("sequence".into(), json!(seq));
    let text = match deed {
        Deed::Drop if dry_run => {
            facts.insert("would".into(), json!("drop"));
            format!("would drop {seq}: {}", subject_of(&stored))
        }
        Deed::Drop => {
            letters.delete(seq)?;
            facts.insert("done".into(), json!("dropped"));
            format!("dropped {seq}: {}", subject_of(&stored))
        }
        Deed::Retry => {
            let letter = stored.letter.as_ref();
            let letter = letter.map_err(|why| SessionError::Refused(why.clone()))?;
            let subject = &letter.source_subject;
            facts.insert("source_subject".into(), json!(subject));
            if dry_run {
                replay::check(letter, letters.subject()).map_err(SessionError::Refused)?;
                facts.insert("would".into(), json!("retry"));
                format!("would retry {seq}: {}", plain(subject))
            } else {
                let name = seq.to_string();
                let Replayed { message_id, place } = letters
                    .with(|session, dead| replay(session, letter, &stored.trace, &name, 1, dead))?;
                letters.delete(seq).map_err(|error| match error {
                    SessionError::Refused(why) => SessionError::Refused(format!(
                        "was sent again as {message_id}, but could not be deleted, so drop it: {why}"
                    )),
                    lost => lost,
                })?;
                facts.insert("done".into(), json!("retried"));
                facts.insert("message_id".into(), json!(message_id));
                facts.insert("stream".into(), json!(place.stream));
                facts.insert("stream_sequence".into(), json!(place.seq));
                let (stream, at) = (place.stream, place.seq);
                format!("retried {seq}: {} -> {stream} {at}", plain(subject))
            }
        }
    };
    Ok((text, facts))
}

/// Calls `take` with each letter that is meant, oldest first, up to the end the stream has now.
fn each(
    letters: &mut Letters,
    pick: &Pick,
    stop: &Stop,
    mut take: impl FnMut(&Stored) -> std::io::Result<()>,
) -> Result<(), Cut> {
    let (mut count, mut broken) = (0, Ok(()));
    letters.each(pick.company.as_deref(), |stored| {
        if stop.is_set() {
            broken = Err(Cut::Stopped);
            return ControlFlow::Break(());
        }
        if pick.filters.admit(stored.letter.as_ref().ok(), &stored.stored_at) {
            count += 1;
            broken = take(stored).map_err(Cut::from);
        }
        let is_over = broken.is_err() || count >= pick.filters.limit();
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    broken
}

fn subject_of(stored: &Stored) -> String {
    plain(stored.letter.as_ref().map_or(&stored.subject, |letter| &letter.source_subject))
}

fn line(stored: &Stored) -> String {
    let Stored { seq, stored_at, .. } = stored;
    let at = stored_at.get(..19).unwrap_or(stored_at);
    match &stored.letter {
        Ok(letter) => {
            let class = letter.error_type.as_deref().unwrap_or("-");
            let reason = letter.reason.as_deref().unwrap_or("-");
            let error = one_line(letter.error.as_deref().unwrap_or("-"), 100);
            let subject = one_line(&letter.source_subject, 100);
            let class = one_line(&format!("{class} {reason}"), 40);
            format!("{seq:>8}  {at}Z  {class:<26}  {subject}  {error}")
        }
        Err(why) => {
            let subject = &stored.subject;
            format!("{seq:>8}  {at}Z  {:<26}  {subject}  {}", "unreadable", one_line(why, 100))
        }
    }
}

fn facts(stored: &Stored) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("sequence".into(), json!(stored.seq));
    all.insert("stored_at".into(), json!(stored.stored_at));
    all.insert("subject".into(), json!(stored.subject));
    match &stored.letter {
        Ok(letter) => all.extend(letter.facts()),
        Err(why) => drop(all.insert("unreadable".into(), json!(why))),
    }
    all
}

fn shown_json(stored: &Stored) -> Value {
    let mut all = facts(stored);
    let headers = stored.headers.iter().map(|(name, value)| (name.clone(), json!(value)));
    all.insert("headers".into(), Value::Object(headers.collect()));
    match stored.letter.as_ref().map(Letter::body_fact) {
        Ok(Some((name, body))) => drop(all.insert(name.into(), body)),
        Ok(None) => {}
        Err(_) => drop(all.insert("letter_base64".into(), json!(STANDARD.encode(&stored.data)))),
    }
    Value::Object(all)
}

fn shown(stored: &Stored) -> String {
    let mut text = format!("dead letter {} on {}\n", stored.seq, stored.subject);
    let mut add = |name: &str, value: &str| {
        text.push_str(&format!("  {name:<18} {}\n", one_line(value, usize::MAX)));
    };
    add("stored_at", &stored.stored_at);
    for (name, value) in stored.letter.iter().flat_map(Letter::facts) {
        add(&name, value.as_str().unwrap_or(&value.to_string()));
    }
    for (name, value) in &stored.headers {
        add(name, value);
    }
    match &stored.letter {
        Ok(letter) => text.push_str(&format!("event:\n{}", letter.body_text())),
        Err(why) => {
            let raw = match std::str::from_utf8(&stored.data) {
                Ok(raw) => plain(raw),
                Err(_) => STANDARD.encode(&stored.data),
            };
            text.push_str(&format!("cannot be read as a dead letter: {why}\nletter:\n{raw}"));
        }
    }
    text
}
