//! The binary as a script sees it: exit codes, what goes to standard output and what does not. The environment
//! is emptied, so that settings of the machine the test runs on do not count.
#![allow(clippy::expect_used, reason = "a test")]

use std::process::{Command, Output};

fn daisi(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi"));
    command.args(args).env_clear().envs(env.iter().copied());
    command.output().expect("the binary starts")
}

#[track_caller]
fn check(args: &[&str], env: &[(&str, &str)], code: i32, out: &str, err: &str) {
    let output = daisi(args, env);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{stdout}\n{stderr}");
    assert!(stdout.contains(out), "{out:?} not in standard output:\n{stdout}");
    assert!(stderr.contains(err), "{err:?} not in standard error:\n{stderr}");
}

#[test]
fn exit_codes_tell_use_from_configuration_from_success() {
    check(&["version"], &[], 0, "daisi ", "");
    check(&["config", "check"], &[], 0, "configuration is valid", "");
    check(&["config", "reference"], &[], 0, "[cdc]", "");
    check(&["nonsense"], &[], 2, "", "nonsense");
    check(
        &["--config", "/nonexistent/daisi.toml", "config", "check"],
        &[],
        2,
        "",
        "cannot be read",
    );
    let misspelt = [("DAISI_CDC__ACK_WIAT", "1s")];
    check(&["config", "check"], &misspelt, 2, "", "did you mean DAISI_CDC__ACK_WAIT?");
}

#[test]
fn show_prints_values_with_origin_and_no_secret_even_when_something_is_wrong() {
    let env = [("NATS_URL", "nats://u:hunter2@h"), ("DAISI_CDC__ACK_WAIT", "nonsense")];
    check(&["config", "show"], &env, 2, "u:********@h", "not a duration");
    let output = daisi(&["config", "show"], &env);
    let all = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&all).contains("hunter2"));
}

#[test]
fn doctor_answers_in_json_and_fails_where_no_server_listens() {
    // Port 1 of loopback: nothing listens there, and the refusal is immediate.
    let env = [("NATS_URL", "nats://127.0.0.1:1"), ("REDIS_URL", "redis://127.0.0.1:1")];
    check(&["doctor", "--json"], &env, 2, "\"area\": \"redis\"", "");
    let output = daisi(&["doctor", "--json"], &env);
    assert!(output.stdout.starts_with(b"{") && output.stdout.ends_with(b"}\n"));
}

#[test]
fn commands_for_dead_letters_tell_a_missing_server_from_a_wrong_line() {
    // Port 1 of loopback: nothing listens there.
    let nowhere =
        [("NATS_URL", "nats://127.0.0.1:1"), ("POSTGRES_DSN", "host=127.0.0.1 port=1 user=u")];
    check(&["dlq", "list"], &nowhere, 1, "", "NATS: 127.0.0.1:1");
    check(&["dlq", "retry"], &nowhere, 2, "", "<SEQ|--all>");
    check(&["dlq", "retry", "0"], &nowhere, 2, "", "0");
    check(&["dlq", "list", "--company", "a.b"], &nowhere, 2, "", "no company id");
    check(&["dlq", "list", "--subject", "a..b"], &nowhere, 2, "", "empty token");
    check(&["dlq", "list", "--older", "soon"], &nowhere, 2, "", "30m, 2h, 7d");
    check(&["exhausted", "list", "--all"], &nowhere, 1, "", "error connecting");
    check(&["exhausted", "list", "--all"], &[], 2, "", "postgres.dsn is not set");
    check(&["exhausted", "show", "1"], &nowhere, 2, "", "--company");
    check(&["exhausted", "retry", "--help"], &[], 0, "never undoes a later", "");
}

#[test]
fn load_prints_the_same_events_twice_and_takes_the_old_testers_options() {
    let lines = daisi(&["load", "--print", "--count", "50", "--subjects", "all"], &[]);
    assert_eq!(lines.status.code(), Some(0));
    assert_eq!(lines.stdout.iter().filter(|byte| **byte == b'\n').count(), 50);
    let old = ["load", "--print", "--count", "50", "-subjects", "all", "-rate=0"];
    assert_eq!(daisi(&old, &[]).stdout, lines.stdout);
    check(&["load", "-subjects", "v1.agents"], &[], 2, "", "v1.connection.update");
    // Port 1 of loopback: nothing listens there.
    let nowhere = [("NATS_URL", "nats://127.0.0.1:1")];
    check(&["load", "--count", "1"], &nowhere, 1, "", "socket");
    let tls = [("NATS_URL", "tls://127.0.0.1:1")];
    check(&["load", "--count", "1"], &tls, 2, "", "no TLS");
}
