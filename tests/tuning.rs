//! The files of `tuning/` are what its README says, and what the programs they are for accept: real servers run
//! with them, and the doctor finds nothing to say about what they set.
#![allow(clippy::expect_used, reason = "a test")]

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use loadtest::stack::{NatsOptions, PostgresOptions, RedisOptions, Stack, find_binary};
use serde_json::Value;

/// Name and value.
type Setting = (String, String);

fn folder() -> PathBuf {
    source::root().join("tuning")
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All files but the README, by their path inside the folder.
fn files() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&folder(), &mut found);
    let short = |path: &PathBuf| path.strip_prefix(folder()).expect("inside").display().to_string();
    let mut files: Vec<String> = found.iter().map(short).collect();
    files.retain(|file| file != "README.md");
    files.sort();
    files
}

/// What a file sets, by the form that its place has.
fn settings(file: &str) -> Vec<Setting> {
    let text = read(file);
    let lines =
        || text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
    let pair = |name: &str, value: &str| (name.trim().to_owned(), bare(value).to_owned());
    match file.split('/').next().expect("a name") {
        "sysctl.d" | "postgresql" => {
            lines().filter_map(|line| line.split_once('=')).map(|(n, v)| pair(n, v)).collect()
        }
        "redis" => {
            lines().filter_map(|line| line.split_once(' ')).map(|(n, v)| pair(n, v)).collect()
        }
        "limits.d" => {
            lines().filter_map(|line| line.rsplit_once(' ')).map(|(n, v)| pair(n, v)).collect()
        }
        "tmpfiles.d" => lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|words| pair(words[1], words[words.len() - 1]))
            .collect(),
        "grub.d" => lines()
            .flat_map(|line| line.trim_end_matches('"').split(' ').skip(1).collect::<Vec<_>>())
            .filter_map(|word| word.split_once('='))
            .map(|(n, v)| pair(n, v))
            .collect(),
        "systemd" => of_unit(&text),
        "nats" => of_nats(&text),
        script if script.ends_with(".sh") => Vec::new(),
        other => panic!("{other}: no form is known for it"),
    }
}

fn bare(value: &str) -> &str {
    value.trim().trim_matches('"')
}

/// What a unit sets, not what it is and when it starts.
fn of_unit(text: &str) -> Vec<Setting> {
    let (mut is_ours, mut found) = (false, Vec::new());
    for line in text.lines() {
        if line.starts_with('[') {
            is_ours = line == "[Service]" || line == "[Slice]";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_ours)
            && !["Type", "RemainAfterExit"].contains(&name)
        {
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    found
}

fn of_nats(text: &str) -> Vec<Setting> {
    let (mut block, mut found) = (String::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_suffix(" {") {
            block = format!("{name}.");
        } else if line == "}" {
            block.clear();
        } else if let Some((name, value)) = line.split_once(':') {
            found.push((format!("{block}{name}"), bare(value).to_owned()));
        }
    }
    found
}

/// Rows of the README under the heading of a file.
fn rows(page: &str, file: &str) -> Vec<Setting> {
    let heading = format!("### [{file}]({file})\n");
    let (_, section) = page.split_once(&heading).unwrap_or_else(|| panic!("{file} has no heading"));
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{file}: setting, value, why, measured: {row}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}");
        (cells[0].replace('`', ""), bare(&cells[1].replace('`', "")).to_owned())
    })
    .collect()
}

#[test]
fn every_setting_has_a_row_and_every_row_a_setting() {
    let page = read("README.md");
    let mut total = 0;
    for file in files() {
        let (set, told) = (settings(&file), rows(&page, &file));
        assert!(file.ends_with(".sh") || !set.is_empty(), "{file} sets nothing");
        let unique = |pairs: &[Setting]| pairs.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(unique(&set), unique(&told), "{file}");
        assert_eq!(set.len(), told.len(), "{file}: a row or a line stands twice");
        total += set.len();
    }
    assert!(total > 40, "only {total} settings found");
    let headings = page.matches("\n### [").count();
    assert_eq!(headings, files().len(), "a heading for a file that is not there");
}

fn succeeded(output: &Output, what: &str) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
    format!("{out}{err}")
}

#[test]
fn the_servers_accept_their_files_and_the_doctor_has_nothing_to_add() {
    let store = tempfile::tempdir().expect("a folder");
    // Its places are those of a server's machine; the folder is this test's.
    let nats =
        read("nats/daisi.conf").replace("/var/lib/nats", &store.path().display().to_string());
    let redis = ["--include".to_owned(), folder().join("redis/daisi.conf").display().to_string()];
    let mut postgres = settings("postgresql/daisi.conf");
    // Of memory no more than the machines of tests have, and as much as the doctor wants.
    postgres.push(("shared_buffers".to_owned(), "1GB".to_owned()));
    let stack = Stack::builder()
        .nats(NatsOptions { config_extra: nats.clone(), ..NatsOptions::default() })
        .redis(RedisOptions { args_extra: redis.to_vec(), ..RedisOptions::default() })
        .postgres(PostgresOptions { settings: postgres.clone(), ..PostgresOptions::default() })
        .start()
        .expect("the servers start with their files");

    for (name, value) in &postgres[..postgres.len() - 1] {
        if name != "shared_buffers" {
            let shown = stack.postgres.psql(&format!("SHOW {name}")).expect("a setting");
            assert_eq!(shown.trim(), value, "{name}");
        }
    }
    let report = doctor(&stack);
    let of = |area: &str, name: &str| {
        let found = report["findings"].as_array().expect("findings").iter();
        let mut found = found.filter(|f| f["area"] == area && f["name"] == name);
        found.next().unwrap_or_else(|| panic!("no {area} {name} in {report:#}")).clone()
    };
    for (name, _) in settings("postgresql/daisi.conf") {
        assert_eq!(of("postgres", &name)["level"], "ok", "{name}");
    }
    for name in ["persistence", "eviction", "no-appendfsync-on-rewrite", "save", "io-threads", "hz"]
    {
        let found = of("redis", name);
        assert!(found["level"] == "ok" && found["remedy"].is_null(), "{found}");
    }
    assert_eq!(of("redis", "persistence")["fact"], "appendonly yes, appendfsync everysec");
    assert_eq!(of("nats", "max_payload")["level"], "ok");
    assert!(store.path().join("jetstream").exists(), "NATS took the block of the file");
}

fn doctor(stack: &Stack) -> Value {
    let mut daisi = Command::new(env!("CARGO_BIN_EXE_daisi"));
    daisi.args(["doctor", "--json", "--set", "stages=ingest,cdc"]).env_clear();
    for (key, url) in [
        ("nats.servers", stack.nats.url()),
        ("redis.url", stack.redis.url()),
        ("postgres.dsn", stack.postgres.url()),
    ] {
        daisi.args(["--set", &format!("{key}={url}")]);
    }
    let output = daisi.output().expect("daisi starts");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_server_as_shipped_is_told_what_its_file_would_set() {
    let args_extra = ["--appendonly", "no", "--save", "3600", "1"].map(str::to_owned).to_vec();
    let stack = Stack::builder()
        .nats(NatsOptions { config_extra: "max_payload: 64KB\n".into(), ..NatsOptions::default() })
        .redis(RedisOptions { args_extra, ..RedisOptions::default() })
        .postgres(PostgresOptions::default())
        .start()
        .expect("the servers start");
    let report = doctor(&stack);
    let warned: BTreeSet<&str> = report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|found| found["level"] == "warn" && found["area"] != "host")
        .map(|found| {
            assert!(found["remedy"].is_string(), "{found}");
            found["name"].as_str().expect("a name")
        })
        .collect();
    for name in [
        "max_payload",
        "sync_interval",
        "persistence",
        "save",
        "hz",
        "wal_compression",
        "max_wal_size",
    ] {
        assert!(warned.contains(name), "{name} is not among {warned:?}");
    }
}

#[test]
fn nats_server_checks_its_files() {
    let binary = find_binary("nats-server").expect("nats-server is installed");
    let folder = tempfile::tempdir().expect("a folder");
    let check = |text: &str| {
        let file = folder.path().join("nats.conf");
        fs::write(&file, text).expect("a file");
        Command::new(&binary).arg("-t").arg("-c").arg(&file).output().expect("nats-server starts")
    };
    let base = read("nats/daisi.conf");
    assert!(succeeded(&check(&base), "daisi.conf").contains("is valid"));
    assert!(!check(&format!("{base}no_such_setting: 1\n")).status.success(), "the check checks");
    let version = Command::new(&binary).arg("--version").output().expect("nats-server starts");
    let version = succeeded(&version, "--version");
    if version.contains("v2.9.") {
        eprintln!("tuning: sync.conf is not checked: {} lacks sync_interval", version.trim());
    } else {
        assert!(succeeded(&check(&read("nats/sync.conf")), "sync.conf").contains("is valid"));
    }
}

#[test]
fn systemd_accepts_its_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("tuning: units are not checked: no systemd-analyze");
    }
    let units = tempfile::tempdir().expect("a folder");
    let into = |file: &str, place: &str, change: &dyn Fn(String) -> String| {
        let path = units.path().join(place);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, change(read(file))).expect("written");
    };
    let as_is = |text: String| text;
    // Only what is there can be started.
    let there = |text: String| text.replace("/usr/local/lib/daisi/irq-affinity.sh", "/bin/true");
    into("systemd/daisi.slice", "daisi.slice", &as_is);
    into("systemd/daisi.service.d/50-cpus.conf", "daisi.service.d/50-cpus.conf", &as_is);
    into(
        "systemd/containerd.service.d/50-daisi.conf",
        "containerd.service.d/50-daisi.conf",
        &as_is,
    );
    into("systemd/others.slice.d/50-daisi.conf", "system.slice.d/50-daisi.conf", &as_is);
    into("systemd/daisi-irq.service", "daisi-irq.service", &there);
    let service = "[Service]\nExecStart=/bin/true\n";
    for name in ["daisi.service", "containerd.service"] {
        fs::write(units.path().join(name), service).expect("written");
    }
    let names = ["daisi.slice", "daisi.service", "containerd.service", "daisi-irq.service"];
    let verify = |names: &[&str]| {
        let paths = names.iter().map(|name| units.path().join(name));
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--generators=no"]).args(paths);
        command.env("SYSTEMD_UNIT_PATH", format!("{}:", units.path().display()));
        command.output().expect("systemd-analyze starts")
    };
    let told = succeeded(&verify(&names), "verify");
    assert!(!told.contains(&units.path().display().to_string()), "{told}");
    into("systemd/daisi.slice", "wrong.service", &|_| {
        "[Service]\nExecStart=/bin/true\nNoSuch=1\n".into()
    });
    let told = verify(&["wrong.service"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("NoSuch"), "the check checks");
}

#[test]
fn interrupts_are_moved_by_the_script_and_the_rest_is_told() {
    let root = tempfile::tempdir().expect("a folder");
    let put = |irq: &str, list: &str| {
        let folder = root.path().join("proc/irq").join(irq);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("smp_affinity_list"), list).expect("written");
    };
    put("24", "0-7\n");
    put("25", "0\n");
    // One that cannot be written.
    fs::create_dir_all(root.path().join("proc/irq/26/smp_affinity_list")).expect("made");
    let run = |args: &[&str]| {
        let mut script = Command::new(folder().join("irq-affinity.sh"));
        script.args(args).env("IRQ_ROOT", root.path()).output().expect("sh starts")
    };
    let list =
        || fs::read_to_string(root.path().join("proc/irq/24/smp_affinity_list")).expect("a file");
    let told = succeeded(&run(&["--dry-run", "0"]), "dry run");
    assert!(told.contains("0-7 -> 0") && told.contains("none written"), "{told}");
    assert_eq!(list(), "0-7\n");
    let told = succeeded(&run(&["0"]), "run");
    assert!(told.contains("1 moved, 1 as they should be, 1 that the kernel keeps"), "{told}");
    assert_eq!(list(), "0\n");
    for wrong in [&[][..], &["all"], &["0;1"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
