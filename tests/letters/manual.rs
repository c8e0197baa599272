//! The manual for operators, run: every command of `docs/dead-letters.md`, from top to bottom.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::exhausted::give_up;
use crate::world::{World, letter};

#[test]
fn every_command_of_the_manual_works_in_the_order_of_the_page() {
    let mut world = World::with_postgres();
    for number in 1..=20 {
        let (subject, body) = (format!("v1.chats.update.C{number}"), b"{}");
        let company = format!("C{number}");
        let is_acme = number == 17 || number == 18;
        let (subject, company) =
            if is_acme { ("v1.messages.upsert.ACME", "ACME") } else { (&*subject, &*company) };
        // Reasons differ, so that the retry of a class leaves those that are named after it.
        let reason = if is_acme { "incomplete_row" } else { "bad_json" };
        let letter = letter(subject, company, body);
        world.bury(&shards::domain::cdc::DeadLetter { reason: Some(reason), ..letter });
    }
    give_up(&world, "ACME", &[("v1.chats.update.ACME", b"{}"), ("v1.chats.update.ACME", b"[]")]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dead-letters.md");
    let page = fs::read_to_string(page).expect("the manual");
    let mut count = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    daisi ")) {
        // What follows a pipe is another program's.
        let arguments = line.split(" | ").next().unwrap_or_default();
        let ours = world.command(&[]);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("\"$0\" {arguments}")).arg(ours.get_program()).env_clear();
        shell.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "daisi {arguments}: {output:?}");
        count += 1;
    }
    assert!(count > 15, "only {count} commands found");
    let letters = world.letters();
    assert_eq!(letters.len(), 17, "17 and 18 were retried, 3 was dropped: {letters:?}");
}
