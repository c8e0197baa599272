//! Places where a test may end the process: `DAISI_FAULT=<point>:<n>` aborts at the n-th passage. Only
//! with the feature `fault`; a release has no trace of it.

/// A place named `point` is passed.
#[cfg(feature = "fault")]
pub fn point(point: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("DAISI_FAULT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((name, count)) = wanted
        && name == point
        && PASSED.fetch_add(1, Relaxed) + 1 == *count
    {
        std::process::abort();
    }
}

/// A place named `point` is passed.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn point(_point: &str) {}
