//! `loadtest report`, `compare` and `check` as a user types them.

use std::process::{Command, Output};

use loadtest::results::Results;

use crate::folder;
use crate::synthetic::Run;

fn loadtest(words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_loadtest")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Writes runs of these seeds and slowness; their folders, with commas between.
fn side(name: &str, seeds: &[u64], slow: f64) -> String {
    let folders = seeds.iter().map(|seed| {
        // Runs of one build differ by a few percent.
        let slow = slow * (1.0 + (*seed % 3) as f64 * 0.02);
        let results = Run { seed: *seed, seconds: 3, slow, ..Run::default() }.results();
        let folder = folder(&format!("{name}-{seed}"));
        results.write(&folder).unwrap();
        folder.display().to_string()
    });
    folders.collect::<Vec<_>>().join(",")
}

#[test]
fn a_run_is_shown_again_from_its_file() {
    let run = side("report", &[1], 1.0);
    let page = folder("report-1").join("again.html");
    let (code, text, _) = loadtest(&["report", &run]);
    assert_eq!(code, 0);
    for part in [
        "steady  clean",
        "15,000 in 3.0 s, 4,993/s",
        "Latency",
        "from the planned time to",
        "nats-server",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, nothing, _) = loadtest(&["report", &run, "--html", page.to_str().unwrap()]);
    assert_eq!((code, nothing.as_str()), (0, ""));
    let again = std::fs::read(&page).unwrap();
    assert_eq!(again, std::fs::read(folder("report-1").join("report.html")).unwrap());
    let (_, markdown, _) = loadtest(&["report", &format!("{run}/results.json"), "--markdown"]);
    assert!(markdown.starts_with("### steady clean\n"), "{markdown}");
    assert!(markdown.contains("| cdc | 15,000 |"), "{markdown}");
    let (code, _, error) = loadtest(&["report", "nowhere"]);
    assert_eq!(code, 2);
    assert!(error.starts_with("loadtest: cannot read nowhere"), "{error}");
}

#[test]
fn a_slower_build_is_called_worse_and_the_same_build_is_not() {
    let base = side("base", &[1, 2, 3], 1.0);
    let same = side("same", &[4, 5, 6], 1.0);
    let slow = side("slow", &[7, 8, 9], 1.3);
    let (code, text, _) = loadtest(&["compare", &base, &same]);
    assert_eq!(code, 0);
    assert!(text.starts_with("No change: all "), "{text}");
    let page = folder("compare.html");
    let words =
        ["compare", &format!("main={base}"), &format!("branch={slow}"), "--markdown", "--html"];
    let (code, text, _) = loadtest(&[words.as_slice(), &[page.to_str().unwrap()]].concat());
    assert_eq!(code, 0);
    assert!(text.starts_with("### Load test: branch against main\n"), "{text}");
    let row =
        |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
    for worse in ["cdc P50", "cdc P95", "ingest P99", "daisi CPU an event"] {
        assert!(row(worse).ends_with("| **worse** |"), "{}", row(worse));
    }
    for same in ["published events/s", "nats-server memory"] {
        assert!(
            row(same).ends_with("| same |") || row(same).ends_with("| noise |"),
            "{}",
            row(same)
        );
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Latency by percentile at cdc") && page.contains("branch 3"));
    let (_, single, _) = loadtest(&["compare", &side("one", &[1], 1.0), &side("other", &[7], 1.3)]);
    assert!(single.contains("worse?") && single.contains("One run a side"), "{single}");
}

#[test]
fn three_sides_and_other_loads_are_told() {
    let (base, slow) = (side("three-base", &[1, 2], 1.0), side("three-slow", &[3, 4], 1.4));
    let other = Run { seconds: 2, rate: 1_000, ..Run::default() }.results();
    other.write(&folder("three-other")).unwrap();
    let other = folder("three-other").display().to_string();
    let (code, text, _) = loadtest(&["compare", &base, &slow, &other]);
    assert_eq!(code, 0);
    assert!(text.contains("new 1 (2 runs)") && text.contains("new 2"), "{text}");
    assert!(text.contains("did not have the same load"), "{text}");
}

#[test]
fn a_fault_is_never_noise() {
    let base = side("fault-base", &[1, 2, 3], 1.0);
    let lossy = Run { seconds: 3, lost: 1, ..Run::default() }.results();
    lossy.write(&folder("lossy")).unwrap();
    let (_, text, _) = loadtest(&["compare", &base, &folder("lossy").display().to_string()]);
    let row = text.lines().find(|line| line.starts_with("cdc lost")).unwrap();
    assert!(row.ends_with("worse"), "{row}");
}

#[test]
fn check_ends_with_what_the_limits_say() {
    let run = side("check", &[1], 1.0);
    let base = side("check-base", &[1, 2, 3], 1.0);
    let check = |words: &[&str]| loadtest(&[&["check", &run], words].concat());
    let (code, text, _) = check(&[
        "--max-p95-us",
        "ingest=50000",
        "--max-lost",
        "0",
        "--min-rate",
        "4900",
        "--max-cpu-us",
        "daisi=60",
        "--max-ratio",
        "p95=1.10",
        "--base",
        &base,
    ]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("All 7 limits are kept."), "{text}");
    let line = |text: &str, name: &str| {
        text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    let (code, text, _) = check(&["--max-p95-us", "1000", "--max-lost", "0"]);
    assert_eq!(code, 1);
    assert!(line(&text, "ingest.p95_us").ends_with("at most 1.00 ms  FAIL"), "{text}");
    assert!(line(&text, "cdc.lost").ends_with("at most 0  ok"), "{text}");
    // A misspelt or missing end must not pass.
    let (code, text, _) = check(&["--max-lost", "push=0"]);
    assert_eq!(code, 1);
    assert!(line(&text, "push.lost").ends_with("FAIL: not measured"), "{text}");
    assert_eq!(check(&["--max-cpu-us", "daisy=60"]).0, 1);
    let (code, _, _) =
        check(&["--max-ratio", "p95=0.5", "--min-ratio", "rate=0.9", "--base", &base]);
    assert_eq!(code, 1);
}

#[test]
fn check_refuses_what_it_does_not_understand() {
    let run = side("refuse", &[1], 1.0);
    for (words, why) in [
        (&["--max-p95-us", "cdc=fast"][..], "no bound"),
        (&["--max-p95-us", "-5"], "unexpected argument"),
        (&["--max-p95-us", "cdc=-5"], "no bound"),
        (&["--max-p95-us", "NaN"], "no bound"),
        (&["--max-cpu-us", "60"], "needs a process"),
        (&["--max-ratio", "p95=1.1"], "--base"),
        (&["--max-ratio", "speed=1.1", "--base", &run], "no figure is called \"speed\""),
        (&["--limits", "nowhere.toml"], "cannot read nowhere.toml"),
        (&[], "no limit is given"),
    ] {
        let (code, _, error) = loadtest(&[&["check", &run], words].concat());
        assert_eq!(code, 2, "{words:?}: {error}");
        assert!(error.contains(why), "{words:?}: {error}");
    }
    assert_eq!(loadtest(&["check", "nowhere", "--max-lost", "0"]).0, 2);
}

#[test]
fn limits_stand_in_a_file_too() {
    let run = side("limits", &[1], 1.0);
    let file = folder("limits.toml");
    let path = file.to_str().unwrap();
    let text = "[max]\nlost = 0\ncdc.p99_us = 60_000\n\"daisi.rss_mib\" = 100.5\n[min]\nrate = 1000\n\
                [max-ratio]\np50_us = 1.5\n[min-ratio]\nrate = 0.8\n";
    std::fs::write(&file, text).unwrap();
    let (code, text, error) = loadtest(&["check", &run, "--limits", path, "--base", &run]);
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("All 8 limits are kept."), "{text}");
    assert_eq!(loadtest(&["check", &run, "--limits", path]).0, 2, "ratios need a base");
    for wrong in
        ["[maximum]\nlost = 0\n", "[max]\nlosses = 0\n", "[max]\nlost = \"none\"\n", "", "[max"]
    {
        std::fs::write(&file, wrong).unwrap();
        let (code, text, error) = loadtest(&["check", &run, "--limits", path]);
        assert_eq!(code, 2, "{wrong}: {text}{error}");
    }
}

#[test]
fn no_loss_where_nobody_looked_is_not_a_kept_limit() {
    let mut results = Run { seconds: 2, ..Run::default() }.results();
    results.ends[0].counts = loadtest::results::Counts::default();
    results.ends[0].latency = Results::default().ack;
    let folder = folder("nobody");
    results.write(&folder).unwrap();
    let (code, text, _) = loadtest(&["check", folder.to_str().unwrap(), "--max-lost", "0"]);
    assert_eq!(code, 1);
    assert!(text.contains("cdc.lost") && text.contains("not measured"), "{text}");
}
