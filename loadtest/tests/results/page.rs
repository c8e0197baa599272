//! The page: whole, without anything to fetch, and safe against what events are called.

use loadtest::results::{End, Results};

use crate::folder;
use crate::synthetic::Run;

/// What a subject may be, if somebody means harm.
const HOSTILE: &str = "lost: event 7 on wa.</title></svg><script>alert(1)</script>'\"><img src=x onerror=y>&\u{202e}\u{0}";

fn page(name: &str, results: &Results) -> String {
    let folder = folder(name);
    results.write(&folder).unwrap();
    std::fs::read_to_string(folder.join("report.html")).unwrap()
}

/// Every element that is opened is closed, in order; attributes are in quotes, so `<` opens and nothing else.
fn assert_is_nested(page: &str) {
    const VOID: [&str; 1] = ["meta"];
    let mut open: Vec<&str> = Vec::new();
    let (_, body) = page.split_once("</style>").unwrap();
    let (head, _) = page.split_once("<style>").unwrap();
    assert!(head.starts_with("<!doctype html>"));
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            if let Some(last) = open.pop() {
                assert_eq!(last, name, "closed in the wrong order");
            } else {
                assert!(["head", "body", "html"].contains(&name), "{name} was never opened");
            }
        } else if !tag.ends_with('/') && !VOID.contains(&name) && name != "body" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

fn assert_is_alone(page: &str) {
    for word in ["http:", "https:", "<script", "<link", "<img", "@import", "url(", "src="] {
        assert!(!page.replace("src=x", "").contains(word), "{word} is in the page");
    }
}

#[test]
fn a_clean_run_of_two_ends_is_told_whole() {
    let results = Run { stall: Some(41), ..Run::default() }.results();
    let page = page("two-ends", &results);
    assert_is_nested(&page);
    assert_is_alone(&page);
    for part in [
        "Every event came out once",
        "Latency by percentile",
        "Throughput over time",
        "Latency over time at cdc",
        "Latency over time at ingest",
        "CPU over time",
        "99.9%",
        "300,000",
        "prefers-color-scheme:dark",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_failed_run_shows_its_faults_as_text() {
    let mut examples: Vec<String> =
        (0..12).map(|n| format!("lost: event {n}, company 3, row {}, version 2", n * 7)).collect();
    examples.push(HOSTILE.into());
    let mut results = Run { lost: 12, examples, ..Run::default() }.results();
    results.sender.fell_behind = true;
    results.machine.load_at_start = "1.83".into();
    results.name = format!("steady {HOSTILE}");
    results.load.text = HOSTILE.into();
    results.command = HOSTILE.into();
    results.notes.push(HOSTILE.into());
    results.versions.insert(HOSTILE.into(), HOSTILE.into());
    results.processes[0].name = HOSTILE.into();
    let hostile = End { name: HOSTILE.into(), text: HOSTILE.into(), ..results.ends[1].clone() };
    for second in &mut results.series {
        if let Some(point) = second.ends.get("ingest").copied() {
            second.ends.insert(HOSTILE.into(), point);
        }
        let cores = second.cores["daisi"];
        second.cores.insert(HOSTILE.into(), cores);
    }
    let clean = Run { lost: 12, examples: vec![HOSTILE.into()], ..Run::default() }.results();
    page("failed", &clean);
    results.ends[1] = hostile;
    let page = page("hostile", &results);
    assert_is_nested(&page);
    assert_is_alone(&page);
    assert!(page.contains("12 lost, 3 duplicated, 1 out of order of 300,000"));
    assert!(page.contains("wa.&lt;/title&gt;&lt;/svg&gt;&lt;script&gt;alert(1)"), "{page}");
    assert!(!page.contains(['\0', '\u{202e}']));
    // No file may lie outside the folder, whatever an end is called.
    let names = std::fs::read_dir(folder("hostile")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for text in [results.text(), results.markdown()] {
        assert!(!text.contains(['\0', '\u{1b}', '\u{202e}']));
    }
    assert!(!results.markdown().contains("<script"));
}

#[test]
fn runs_of_two_seconds_an_hour_and_none_have_pages() {
    let two = Run { seconds: 2, ends: vec![("cdc", 720.0)], ..Run::default() }.results();
    assert_is_nested(&page("two-seconds", &two));
    let hour = Run { seconds: 3_600, rate: 20, stall: Some(1_800), ..Run::default() }.results();
    let page_of_hour = page("hour", &hour);
    assert_is_nested(&page_of_hour);
    assert!(page_of_hour.contains("Each point is 13 seconds: the worst of each figure."));
    assert!(page_of_hour.len() < 1_000_000, "{}", page_of_hour.len());
    let nothing = Results { format: 1, name: "nothing".into(), ..Results::default() };
    let page_of_nothing = page("nothing", &nothing);
    assert_is_nested(&page_of_nothing);
    assert!(page_of_nothing.contains("Only the sending was measured"));
    assert!(!page_of_nothing.contains("NaN") && !page_of_nothing.contains("inf"));
}
