//! A command that ends before its end: by a signal, by a kill, by a server that goes away. What it told as done
//! is done, nothing is lost, and the same command again goes on.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use rustix::process::{Pid, Signal, kill_process};

use crate::exhausted::give_up;
use crate::world::{World, letter};

const LETTERS: usize = 2_000;
const RETRY: [&str; 4] = ["dlq", "retry", "--all", "--yes"];

fn bury_many(world: &mut World) {
    for number in 0..LETTERS {
        let body = format!("{{ \"n\": {number}}}");
        world.bury(&letter("v1.chats.update.ACME", "ACME", body.as_bytes()));
    }
}

/// Sends `signal` once the command told of its first letter; code, lines told, standard error.
fn interrupted(world: &World, args: &[&str], signal: Signal) -> (Option<i32>, usize, String) {
    let mut child = world.spawn(args);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.next().expect("a first line").expect("text");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it is our child");
    let rest = lines.count();
    let mut err = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    (child.wait().expect("it ends").code(), 1 + rest, err)
}

fn assert_each_was_sent_once(world: &World) {
    let sent = world.sent(1);
    let bodies: BTreeSet<_> = sent.iter().map(|(_, body)| body.clone()).collect();
    assert_eq!((sent.len(), bodies.len()), (LETTERS, LETTERS));
    assert!(world.letters().is_empty());
}

#[test]
fn a_signal_ends_a_retry_between_two_letters_and_the_same_command_goes_on() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut world = World::new();
        bury_many(&mut world);
        let (code, told, err) = interrupted(&world, &RETRY, signal);
        assert_eq!(code, Some(1), "{err}");
        let sum =
            format!("stopped: retried {told} of {LETTERS} dead letters. What was done stays done");
        assert!(err.contains(&sum) && told < LETTERS, "{told} {err}");
        assert_eq!(world.sent(1).len(), told);
        assert_eq!(world.letters().len(), LETTERS - told);
        assert_eq!(world.ok(&RETRY).lines().count(), LETTERS - told);
        assert_each_was_sent_once(&world);
    }
}

#[test]
fn a_kill_sends_nothing_twice_and_loses_nothing() {
    let mut world = World::new();
    bury_many(&mut world);
    let mut left = LETTERS;
    for _ in 0..3 {
        let (code, told, err) = interrupted(&world, &RETRY, Signal::KILL);
        assert_eq!(code, None, "{err}");
        let letters = world.letters().len();
        assert!(letters <= left - told && letters > 0, "{letters} {left} {told}");
        left = letters;
    }
    world.ok(&RETRY);
    assert_each_was_sent_once(&world);
}

#[test]
fn a_server_that_goes_away_ends_it_with_what_was_done() {
    let mut world = World::new();
    bury_many(&mut world);
    let mut child = world.spawn(&RETRY);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.next().expect("a first line").expect("text");
    world.stack.nats.kill();
    let told = 1 + lines.count();
    let mut err = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(err.contains("whether it was done is not known: retried "), "{err}");
    assert!(err.contains(&format!("retried {told} of {LETTERS}")), "{told} {err}");
}

#[test]
fn a_signal_or_a_kill_leaves_no_row_closed_whose_event_was_not_sent() {
    const ROWS: usize = 600;
    let bodies: Vec<String> = (0..ROWS).map(|number| format!("{{ \"n\": {number}}}")).collect();
    let events: Vec<(&str, &[u8])> =
        bodies.iter().map(|body| ("v1.chats.update.ACME", body.as_bytes())).collect();
    let world = World::with_postgres();
    give_up(&world, "ACME", &events);
    let retry = ["exhausted", "retry", "--all", "--yes"];
    let is_closed = "SELECT count(*) FROM daisi_acme.exhausted_events WHERE resolved";
    let closed = || world.stack.postgres.psql(is_closed).unwrap().parse::<usize>().unwrap();
    let (code, told, err) = interrupted(&world, &retry, Signal::INT);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("stopped: retried {told} of {ROWS} exhausted events")), "{err}");
    assert_eq!((closed(), world.sent(1).len()), (told, told));
    let (code, again, err) = interrupted(&world, &retry, Signal::KILL);
    assert_eq!(code, None, "{err}");
    let (closed, sent) = (closed(), world.sent(1).len());
    // At most one event went out whose row the kill left open.
    assert!((told + again..ROWS).contains(&closed) && (closed..=closed + 1).contains(&sent));
    assert_eq!(world.ok(&retry).lines().count(), ROWS - closed);
    let sent: BTreeSet<_> = world.sent(1).into_iter().map(|(_, body)| body).collect();
    assert_eq!((sent.len(), world.sent(1).len()), (ROWS, ROWS));
}
