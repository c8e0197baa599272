//! Measures cases of a bench: nanoseconds and allocations per event, and with `--instructions` the
//! instructions per event, counted by valgrind. Only what runs inside [`section`] is measured, so a case
//! may prepare its input between. Invariant: the counting allocator changes no result, only counts.
//!
//! `--json` is a line of JSON a case, for the gate; `--counts` takes allocations alone, over a fixed number of
//! rounds, so that the figure is the same in every run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Child, Command, Stdio};
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

/// A bench's name, and what runs its cases.
pub(crate) type Bench = (&'static str, fn(&Ask));

/// What is asked of the cases of a bench.
pub(crate) struct Ask {
    bench: &'static str,
    how: How,
    is_json: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Time,
    Counts,
    Instructions,
    /// The case of this number, for whoever watches from outside.
    Only(usize),
}

/// What was found of a case, each per event.
#[derive(Default)]
struct Figures {
    ns: Option<f64>,
    allocations: Option<f64>,
    instructions: Option<f64>,
}

/// Runs the benches that the command line names, or all, in the way it asks for.
pub(crate) fn main(benches: &[Bench]) {
    let (mut how, mut is_json, mut names) = (How::Time, false, Vec::new());
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => is_json = true,
            "--counts" => how = How::Counts,
            "--instructions" => how = How::Instructions,
            "--only-run" => {
                let place = args.next().and_then(|text| text.parse().ok());
                how = How::Only(place.unwrap_or_else(|| refuse("--only-run without a number")));
            }
            name if benches.iter().any(|bench| bench.0 == name) => names.push(arg),
            other => refuse(&format!(
                "unknown argument {other}; there are {} and --json, --counts, --instructions",
                benches.iter().map(|bench| bench.0).collect::<Vec<_>>().join(", ")
            )),
        }
    }
    for (bench, run) in benches {
        if names.is_empty() || names.iter().any(|name| name == bench) {
            run(&Ask { bench, how, is_json });
        }
    }
}

fn refuse(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(2)
}

impl Ask {
    /// Runs the cases.
    pub(crate) fn run(&self, mut cases: Vec<Case<'_>>) {
        match self.how {
            How::Only(place) => {
                (0..ROUNDS_COUNTED).for_each(|_| (cases[place].round)());
            }
            How::Time => cases.iter_mut().for_each(|case| self.print(case.name, &time(case))),
            How::Counts => cases.iter_mut().for_each(|case| self.print(case.name, &counts(case))),
            How::Instructions => self.instructions(&cases),
        }
    }

    /// This very program once more for each case, under valgrind, as many at a time as there are cores: what
    /// is counted does not depend on who else runs.
    fn instructions(&self, cases: &[Case<'_>]) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places: Vec<usize> = (0..cases.len()).collect();
        for some in places.chunks(cores) {
            let started: Vec<_> = some.iter().map(|place| valgrind(self.bench, *place)).collect();
            for (place, child) in some.iter().zip(started) {
                let case = &cases[*place];
                match child.and_then(|child| counted(child, case)) {
                    Ok(figures) => self.print(case.name, &figures),
                    Err(why) => {
                        eprintln!("{}: instructions NOT COUNTED: {why}", case.name);
                        std::process::exit(1);
                    }
                }
            }
        }
    }

    // No name here needs escaping.
    fn print(&self, name: &str, figures: &Figures) {
        let parts = [
            ("ns", figures.ns),
            ("allocations", figures.allocations),
            ("instructions", figures.instructions),
        ];
        let parts = parts.into_iter().filter_map(|(of, value)| Some((of, value?)));
        if self.is_json {
            let fields = parts.map(|(of, value)| format!(r#","{of}":{value}"#));
            let fields: String = fields.collect();
            println!(r#"{{"bench":"{}","case":"{name}"{fields}}}"#, self.bench);
        } else {
            let words = parts.map(|(of, value)| match of {
                "ns" => format!("{value:.1} ns/event"),
                "allocations" => format!("{value:.4} allocations/event"),
                _ => format!("{value:.0} {of}/event"),
            });
            println!("{name}: {}", words.collect::<Vec<_>>().join(", "));
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

fn valgrind(bench: &str, place: usize) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_section*")
        .arg(program)
        .args([bench, "--only-run", &place.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    valgrind.spawn().map_err(|error| format!("no valgrind: {error}"))
}

fn counted(child: Child, case: &Case<'_>) -> Result<Figures, String> {
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = collected(&text).filter(|_| output.status.success()).ok_or(text.as_ref())?;
    let each = count as f64 / (u64::from(ROUNDS_COUNTED) * case.events) as f64;
    Ok(Figures { instructions: Some(each), ..Figures::default() })
}

// `==7== Collected : 123`
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}
