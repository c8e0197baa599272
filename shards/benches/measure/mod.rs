//! Measures cases of a bench: nanoseconds and allocations per event, and with `--instructions` the
//! instructions per event, counted by valgrind. Only what runs inside [`section`] is measured, so a case
//! may prepare its input between. Invariant: the counting allocator changes no result, only counts.
//!
//! `cargo bench -p daisi-shards --bench <name> [-- --instructions]`

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

/// Runs all cases, in the way the command line asks for.
pub(crate) fn run(mut cases: Vec<Case<'_>>) {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        None => cases.iter_mut().for_each(time),
        Some("--instructions") => {
            (0..).zip(&cases).for_each(|(place, case)| instructions(place, case));
        }
        Some("--only-run") => {
            let place: usize = args.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
            (0..ROUNDS_COUNTED).for_each(|_| (cases[place].round)());
        }
        Some(other) => eprintln!("unknown argument {other}; the only one is --instructions"),
    }
}

fn time(case: &mut Case<'_>) {
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
    println!("{}: {ns:.1} ns/event, {allocations:.4} allocations/event", case.name);
}

// This very program once more, for one case, under valgrind.
fn instructions(place: usize, case: &Case<'_>) {
    let Ok(program) = std::env::current_exe() else { return };
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_section*")
        .arg(program)
        .args(["--only-run", &place.to_string()])
        .output();
    match output {
        Err(error) => println!("{}: instructions NOT COUNTED, no valgrind: {error}", case.name),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            match collected(&text) {
                Some(count) if output.status.success() => {
                    let each = count as f64 / (u64::from(ROUNDS_COUNTED) * case.events) as f64;
                    println!("{}: {each:.0} instructions/event", case.name);
                }
                _ => println!("{}: instructions NOT COUNTED: {text}", case.name),
            }
        }
    }
}

// `==7== Collected : 123`
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}
