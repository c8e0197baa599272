//! What a plan accepts, resolves and refuses. Cases are data: a file in, problems or values out.

use super::super::Sources;
use super::*;

fn cores(count: usize) -> Cores {
    Cores { groups: (0..count).map(|cpu| vec![cpu]).collect(), quota: None }
}

fn resolve(file: &str, cpus: usize) -> Result<Plan, PlanError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("daisi.toml");
    std::fs::write(&path, file).expect("the file is written");
    let config = Config::load(&Sources { file: Some(&path), ..Sources::default() });
    Plan::resolve(&config, &cores(cpus))
}

/// Keys of the problems of a file, in the order found.
fn problems(file: &str) -> Vec<String> {
    let found = resolve(file, 4).map_err(|error| error.problems);
    found.err().unwrap_or_default().into_iter().map(|problem| problem.key).collect()
}

#[test]
fn the_defaults_are_a_plan_on_any_machine() {
    for cpus in [1, 2, 8] {
        let plan = resolve("", cpus).expect("defaults");
        assert_eq!(plan.shard_cores.len(), cpus.saturating_sub(1).max(1));
        assert_eq!(plan.control.core, (cpus > 1).then_some(0));
    }
    let plan = resolve("", 2).expect("defaults");
    assert_eq!(plan.cdc.subjects, ["cdc.*.*"]);
    assert_eq!(plan.cdc.output_subjects, ["wa.>"]);
    assert_eq!(plan.nats.servers[0].port, 4222);
    assert_eq!(plan.cdc.ack_wait, Duration::from_secs(30));
}

#[test]
fn all_problems_come_at_once_with_value_origin_and_remedy() {
    let file = "[cdc]\nack_wait = \"5x\"\nmax_in_flight = 0\nfoo = 1\n[log]\nlevel = \"loud\"\n";
    let text = resolve(file, 4).expect_err("four problems").to_string();
    for part in [
        "4 problems",
        "cdc.foo",
        "cdc.ack_wait = \"5x\"",
        "daisi.toml:2",
        "not a duration",
        "cdc.max_in_flight = 0",
        "a whole number from 1 to 1000000",
        "one of error, warn, info",
    ] {
        assert!(text.contains(part), "{part} missing in:\n{text}");
    }
}

#[test]
fn relations_between_values_are_checked() {
    for (file, key) in [
        ("cdc.max_in_flight = 6000", "cdc.max_in_flight"),
        ("cdc.publish_window = 5000", "cdc.publish_window"),
        ("cdc.dedup_ttl = \"10s\"", "cdc.ack_wait"),
        ("cdc.publish_timeout = \"30s\"", "cdc.publish_timeout"),
        ("cdc.retry_delay_min = \"3s\"", "cdc.retry_delay_min"),
        ("cdc.output_max_age = \"1m\"", "cdc.output_duplicate_window"),
        ("cdc.output_stream = \"cdc_events_stream\"", "cdc.output_stream"),
        ("cdc.dlq_stream = \"wa_stream\"", "cdc.dlq_stream"),
        ("cdc.output_prefixes = [\"cdc\"]", "cdc.subjects"),
        ("cdc.subjects = [\"cdc.*.*\", \"cdc.a.b\"]", "cdc.subjects"),
        ("cdc.output_subjects = [\"websocket.>\"]", "cdc.output_subjects"),
        ("nats.user = \"u\"", "nats.user"),
        ("redis.url = \"redis://h/x\"", "redis.url"),
    ] {
        assert_eq!(problems(file), [key], "{file}");
    }
}

#[test]
fn a_stage_this_version_lacks_is_refused_by_name() {
    let text = resolve("stages = [\"cdc\", \"push\"]", 2).expect_err("push").to_string();
    assert!(text.contains("\"push\" is planned"), "{text}");
    let text = resolve("stages = [\"cdx\"]", 2).expect_err("cdx").to_string();
    assert!(text.contains("\"cdx\" does not exist"), "{text}");
}

#[test]
fn the_ingest_stage_wants_postgresql_and_streams_of_its_own() {
    let ingest = "stages = [\"ingest\", \"cdc\"]\n";
    assert_eq!(problems(ingest), ["postgres.dsn"]);
    assert_eq!(problems(&format!("{ingest}postgres.dsn = \"sslmode=never\"")), ["postgres.dsn"]);
    let ingest = format!("{ingest}postgres.dsn = \"postgres://u:hunter2@h/db\"\n");
    let plan = resolve(&ingest, 2).expect("a plan");
    assert_eq!(plan.stages, [Stage::Ingest, Stage::Cdc]);
    assert!(!format!("{plan:?}").contains("hunter2"));
    for (line, key) in [
        ("ingest.max_in_flight = 10000", "ingest.max_in_flight"),
        ("ingest.lock_timeout = \"1m\"", "ingest.lock_timeout"),
        ("ingest.history_stream = \"wa_events_stream\"", "ingest.history_stream"),
        ("ingest.stream = \"cdc_events_stream\"", "ingest.stream"),
        ("ingest.history_stream = \"dlq_stream\"", "ingest.history_stream"),
    ] {
        assert_eq!(problems(&format!("{ingest}{line}")), [key], "{line}");
    }
}

#[test]
fn shards_get_distinct_cores_that_exist() {
    assert_eq!(resolve("shards = 3", 4).expect("three").shard_cores, [1, 2, 3]);
    let plan = resolve("shards = 4", 4).expect("all four");
    assert_eq!((plan.shard_cores.len(), plan.control.core), (4, None));
    assert_eq!(resolve("cores = [0, 2]", 4).expect("named").control.core, Some(1));
    assert_eq!(problems("shards = 5"), ["shards"]);
    assert_eq!(problems("shards = 1\ncores = [1, 2]"), ["cores"]);
    assert_eq!(problems("cores = [9]"), ["cores"]);
    assert_eq!(problems("cores = [1]\ncontrol.core = 1"), ["control.core"]);
}

#[test]
fn a_shard_sleeps_at_once_unless_it_is_to_spin() {
    assert_eq!(resolve("", 2).expect("defaults").spin_before_park, Duration::ZERO);
    let plan = resolve("spin_before_park = \"100us\"", 2).expect("a plan");
    assert_eq!(plan.spin_before_park, Duration::from_micros(100));
    assert_eq!(problems("spin_before_park = \"21ms\""), ["spin_before_park"]);
}

#[test]
fn presets_and_addresses_are_resolved() {
    let plan = resolve(
        "cdc.subjects = [\"cdc.*.*\", \"sequin\", \"sequin-legacy\"]\n\
         nats.servers = [\"tls://u:p%40w@h:1\", \"tok@[::1]\"]\nredis.url = \"rediss://:s@r/3\"",
        2,
    )
    .expect("a plan");
    assert_eq!(plan.cdc.subjects[1..], ["sequin.*.*.*.*", "sequin.changes.*.*.*.*"]);
    let server = &plan.nats.servers[0];
    assert_eq!((server.host.as_str(), server.port, server.tls), ("h", 1, true));
    assert_eq!(server.password.as_ref().map(Secret::expose), Some("p@w"));
    assert_eq!(plan.nats.servers[1].host, "::1");
    let token = plan.nats.servers[1].credentials(&plan.nats.credentials).load();
    assert!(matches!(token, Ok(Credentials::Token(token)) if token.expose() == "tok"));
    assert_eq!((plan.redis.database, plan.redis.server.tls), (3, true));
    assert_eq!(plan.redis.server.user, None);
}

#[test]
fn secrets_come_from_files_and_never_show() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("secret");
    std::fs::write(&file, "hunter2\n").expect("the file is written");
    let toml = format!("nats.token_file = {:?}", file.display().to_string());
    let plan = resolve(&toml, 2).expect("a plan");
    let token = |plan: &Plan| match plan.nats.credentials.load() {
        Ok(Credentials::Token(token)) => token.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(token(&plan), "hunter2");
    assert!(!format!("{plan:?}").contains("hunter2"));
    std::fs::write(&file, "rotated\n").expect("the file is written again");
    assert_eq!(token(&plan), "rotated", "the same plan reads the file anew");
    assert_eq!(problems("nats.token_file = \"/nonexistent\""), ["nats.token_file"]);
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "\n").expect("the file is written");
    for key in ["nats.token_file", "redis.password_file"] {
        assert_eq!(problems(&format!("{key} = {:?}", empty.display().to_string())), [key]);
    }
    let seed = format!("nats.nkey_seed_file = {:?}", file.display().to_string());
    assert_eq!(problems(&seed), ["nats.nkey_seed_file"], "a password is no seed");
    let text = resolve("redis.url = \"http://:hunter2@h\"", 2).expect_err("a scheme").to_string();
    assert!(!text.contains("hunter2"), "{text}");
}
