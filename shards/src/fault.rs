//! Places where a test may end the process or make a shard panic: `DAISI_FAULT=<point>:<n>` aborts at
//! the n-th passage, `DAISI_FAULT=<point>=<text>` panics at every passage with that text at hand. Only
//! with the feature `fault`; a release has no trace of it.

#[cfg(feature = "fault")]
static WANTED: std::sync::LazyLock<Option<String>> =
    std::sync::LazyLock::new(|| std::env::var("DAISI_FAULT").ok());

/// A place named `point` is passed.
#[cfg(feature = "fault")]
pub fn point(point: &str) {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.as_deref().and_then(|text| text.split_once(':'));
    if let Some((name, count)) = wanted
        && name == point
        && Ok(PASSED.fetch_add(1, Relaxed) + 1) == count.parse()
    {
        std::process::abort();
    }
}

/// A place named `point` is passed.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn point(_point: &str) {}

/// A place named `point` is passed with texts at hand; `holds` tells whether one is among them.
///
/// # Panics
/// A test wants it to.
#[cfg(feature = "fault")]
pub fn panic_point(point: &str, holds: impl Fn(&str) -> bool) {
    let wanted = WANTED.as_deref().and_then(|text| text.split_once('='));
    if let Some((name, text)) = wanted
        && name == point
        && holds(text)
    {
        panic!("a test wants a panic at {text:?}");
    }
}

/// A place named `point` is passed with texts at hand.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn panic_point(_point: &str, _holds: impl Fn(&str) -> bool) {}
