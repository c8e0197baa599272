//! Measures cases of a bench: nanoseconds and allocations per event, and with `--instructions` the
//! instructions per event, counted by valgrind. Only what runs inside [`section`] is measured, so a case
//! may prepare its input between. Invariant: the counting allocator changes no result, only counts.
//!
//! `cargo bench -p daisi-shards --bench <name> [-- [--json] [--counts|--instructions]]`: `--json` is a line of
//! JSON a case, for the gate; `--counts` takes allocations alone, over a fixed number of rounds, so that the
//! figure is the same in every run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Many short rounds, the best of which counts: one that nobody interrupted.
const TIME_MIN: Duration = Duration::from_millis(800);
const ROUNDS_WARM: u32 = 3;
/// Instructions hardly vary, and valgrind is slow.
const ROUNDS_COUNTED: u32 = 20;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS_MEASURED: AtomicU64 = AtomicU64::new(0);
static NANOS_MEASURED: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes unchanged to the system allocator; counting touches no memory of it.
#[allow(unsafe_code, reason = "an allocator is the only way to count allocations without a crate")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// One question and how it is asked.
pub(crate) struct Case<'a> {
    /// What is measured.
    pub(crate) name: &'static str,
    /// Events of a round.
    pub(crate) events: u64,
    /// A round; what it puts into [`section`] is measured.
    pub(crate) round: Box<dyn FnMut() + 'a>,
}

/// Measures what `work` does. Sections do not nest, and hold some dozens of events: entering one costs
/// two looks at the clock.
pub(crate) fn section<R>(work: impl FnOnce() -> R) -> R {
    let (start, before) = (Instant::now(), ALLOCATIONS.load(Relaxed));
    let result = measured_section(work);
    ALLOCATIONS_MEASURED.fetch_add(ALLOCATIONS.load(Relaxed) - before, Relaxed);
    NANOS_MEASURED.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    result
}

// Valgrind collects within functions of this name.
#[inline(never)]
fn measured_section<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// What is asked of the cases.
#[derive(Clone, Copy, PartialEq)]
enum Ask {
    Time,
    Counts,
    Instructions,
}

/// What was found of a case, each per event.
#[derive(Default)]
struct Figures {
    ns: Option<f64>,
    allocations: Option<f64>,
    instructions: Option<f64>,
}

/// Runs all cases, in the way the command line asks for.
pub(crate) fn run(mut cases: Vec<Case<'_>>) {
    let (mut ask, mut is_json) = (Ask::Time, false);
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => is_json = true,
            "--counts" => ask = Ask::Counts,
            "--instructions" => ask = Ask::Instructions,
            "--only-run" => {
                let place: usize = args.next().and_then(|text| text.parse().ok()).unwrap_or(0);
                return (0..ROUNDS_COUNTED).for_each(|_| (cases[place].round)());
            }
            other => {
                eprintln!("unknown argument {other}; there are --json, --counts, --instructions");
                std::process::exit(2);
            }
        }
    }
    for (place, case) in (0..).zip(&mut cases) {
        let figures = match ask {
            Ask::Time => Ok(time(case)),
            Ask::Counts => Ok(counts(case)),
            Ask::Instructions => instructions(place, case),
        };
        match figures {
            Ok(figures) if is_json => print_json(case.name, &figures),
            Ok(figures) => print_text(case.name, &figures),
            Err(why) => {
                eprintln!("{}: instructions NOT COUNTED: {why}", case.name);
                std::process::exit(1);
            }
        }
    }
}

fn time(case: &mut Case<'_>) -> Figures {
    (0..ROUNDS_WARM).for_each(|_| (case.round)());
    ALLOCATIONS_MEASURED.store(0, Relaxed);
    let (start, mut rounds, mut best) = (Instant::now(), 0_u64, u64::MAX);
    while start.elapsed() < TIME_MIN || rounds < 10 {
        NANOS_MEASURED.store(0, Relaxed);
        (case.round)();
        best = best.min(NANOS_MEASURED.load(Relaxed));
        rounds += 1;
    }
    let allocations = ALLOCATIONS_MEASURED.load(Relaxed) as f64 / (rounds * case.events) as f64;
    let ns = best as f64 / case.events as f64;
    Figures { ns: Some(ns), allocations: Some(allocations), instructions: None }
}

// Warm memory first: what grows to its size once is no price of an event.
fn counts(case: &mut Case<'_>) -> Figures {
    (0..ROUNDS_WARM).for_each(|_| (case.round)());
    ALLOCATIONS_MEASURED.store(0, Relaxed);
    (0..ROUNDS_COUNTED).for_each(|_| (case.round)());
    let events = (u64::from(ROUNDS_COUNTED) * case.events) as f64;
    let allocations = Some(ALLOCATIONS_MEASURED.load(Relaxed) as f64 / events);
    Figures { allocations, ..Figures::default() }
}

// This very program once more, for one case, under valgrind.
fn instructions(place: usize, case: &Case<'_>) -> Result<Figures, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_section*")
        .arg(program)
        .args(["--only-run", &place.to_string()])
        .output()
        .map_err(|error| format!("no valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = collected(&text).filter(|_| output.status.success()).ok_or(text.as_ref())?;
    let each = count as f64 / (u64::from(ROUNDS_COUNTED) * case.events) as f64;
    Ok(Figures { instructions: Some(each), ..Figures::default() })
}

fn print_text(name: &str, figures: &Figures) {
    let parts = [
        figures.ns.map(|ns| format!("{ns:.1} ns/event")),
        figures.allocations.map(|count| format!("{count:.4} allocations/event")),
        figures.instructions.map(|count| format!("{count:.0} instructions/event")),
    ];
    println!("{name}: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
}

// The bench's name is that of its program without cargo's hash. No name here needs escaping.
fn print_json(name: &str, figures: &Figures) {
    let program = std::env::current_exe().unwrap_or_default();
    let stem = program.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let bench = stem.rsplit_once('-').map_or(stem, |(bench, _)| bench);
    let parts = [
        ("ns", figures.ns),
        ("allocations", figures.allocations),
        ("instructions", figures.instructions),
    ];
    let parts =
        parts.into_iter().filter_map(|(key, value)| Some(format!(r#","{key}":{}"#, value?)));
    println!(r#"{{"bench":"{bench}","case":"{name}"{}}}"#, parts.collect::<String>());
}

// `==7== Collected : 123`
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}
