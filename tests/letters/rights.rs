//! Who may do what: the permissions that the manual names are enough, and one less is told in words. And the
//! question that is asked at a terminal.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::world::{SOURCE, World, letter};

const USERS: &str = r#"
no_auth_user: admin
authorization { users: [
  { user: admin, password: a }
  { user: reader, password: r, permissions: { subscribe: "_INBOX.>", publish: [
      "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.dlq_stream", "$JS.API.STREAM.MSG.GET.dlq_stream" ] } }
  { user: dropper, password: d, permissions: { subscribe: "_INBOX.>", publish: [
      "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.dlq_stream", "$JS.API.STREAM.MSG.GET.dlq_stream",
      "$JS.API.STREAM.MSG.DELETE.dlq_stream" ] } }
  { user: retrier, password: t, permissions: { subscribe: "_INBOX.>", publish: [
      "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.dlq_stream", "$JS.API.STREAM.MSG.GET.dlq_stream",
      "$JS.API.STREAM.MSG.DELETE.dlq_stream", "$JS.API.STREAM.MSG.GET.wa_events_stream", "v1.chats.>" ] } }
] }
"#;

#[test]
fn the_permissions_of_the_manual_are_enough_and_one_less_is_told() {
    let mut world = World::with_config(USERS);
    for _ in 0..4 {
        world.bury(&letter("v1.chats.update.ACME", "ACME", b"{}"));
    }
    // The id of one is taken, so what is stored under it is looked at.
    let headers = [("Nats-Msg-Id", "replay:ACME:2:1")];
    world.client.publish_with("v1.chats.update.ACME", None, &headers, b"{}").expect("published");
    world.client.barrier().expect("taken");
    let port = world.stack.nats.port();
    let run = |user: &str, args: &[&str]| {
        let set = format!("--set=nats.servers=nats://{user}@127.0.0.1:{port}");
        world.run(&[&["dlq"], args, &[set.as_str()]].concat())
    };
    let reader = run("reader:r", &["list", "--json"]);
    assert_eq!((reader.code, reader.out.lines().count()), (Some(0), 4), "{reader:?}");
    assert_eq!(run("reader:r", &["show", "1"]).code, Some(0));
    let refused = run("reader:r", &["drop", "1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("Permissions Violation"), "{refused:?}");
    assert_eq!(run("dropper:d", &["drop", "1"]).code, Some(0));
    let refused = run("dropper:d", &["retry", "2"]);
    assert!(refused.err.contains("Permissions Violation"), "{refused:?}");
    let done = run("retrier:t", &["retry", "--all", "--yes"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(world.read(SOURCE).len(), 3);
    let stranger = run("reader:wrong", &["list"]);
    assert!(
        stranger.code == Some(1) && stranger.err.contains("Authorization Violation"),
        "{stranger:?}"
    );
    assert!(!stranger.err.contains("wrong"), "{stranger:?}");
}

/// Runs a command at a terminal and answers its question; its exit code, and all that the terminal showed.
fn at_terminal(world: &World, args: &str, answer: &str) -> (Option<i32>, String) {
    let ours = world.command(&[]);
    // In place of the shell, which a signal would end with a code of its own.
    let line = format!("exec {} {args}", ours.get_program().to_string_lossy());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_clear();
    script.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("SHELL", "/bin/sh");
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("script(1) starts");
    let (mut out, mut shown) = (child.stdout.take().expect("a pipe"), Vec::new());
    while !shown.ends_with(b"[y/N] ") {
        let mut byte = [0];
        let read = out.read(&mut byte).expect("text");
        assert_eq!(read, 1, "no question: {}", String::from_utf8_lossy(&shown));
        shown.push(byte[0]);
    }
    let typed = child.stdin.as_mut().expect("a pipe").write_all(answer.as_bytes());
    typed.expect("typed");
    out.read_to_end(&mut shown).expect("text");
    let status = child.wait().expect("it ends");
    (status.code(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_terminal_is_asked_before_more_than_one_is_touched_and_shown_how_it_goes() {
    let mut world = World::new();
    for _ in 0..3 {
        world.bury(&letter("v1.chats.update.ACME", "ACME", b"{}"));
    }
    let ctrl_c = "\x03";
    for no in ["n\n", "\n", ctrl_c] {
        let (code, shown) = at_terminal(&world, "dlq retry --all", no);
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("retry 3 dead letters? [y/N]"), "{shown}");
        assert!(shown.contains("nothing was done"), "{shown}");
        assert_eq!(world.letters(), [1, 2, 3]);
    }
    let (code, shown) = at_terminal(&world, "dlq retry --all", "y\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("retried 1 of 3") && shown.contains("retried 3 of 3 dead letters"),
        "{shown}"
    );
    assert!(world.letters().is_empty());
}
