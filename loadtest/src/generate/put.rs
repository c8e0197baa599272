//! Bytes of an event, piece by piece and without allocation, as in `put!(out, "{\"id\":", id, "}")`.
//! Invariant: a text goes out as it is, so it must stand escaped where it comes from.

use super::text::{TimeText, put_number};

/// Appends pieces to a `Vec<u8>`.
macro_rules! put {
    ($out:expr, $($part:expr),+ $(,)?) => {{ $( $crate::generate::put::Put::put(&$part, $out); )+ }};
}
pub(super) use put;

/// Clears a string and fills it by a format.
macro_rules! rewrite {
    ($text:expr, $($format:tt)+) => {{
        use std::fmt::Write as _;
        $text.clear();
        // Writing to a String cannot fail.
        let _ = write!($text, $($format)+);
    }};
}
pub(super) use rewrite;

/// A piece of an event.
pub(super) trait Put {
    fn put(&self, out: &mut Vec<u8>);
}

impl Put for &str {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Put for &String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Put for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, *self);
    }
}

impl Put for TimeText {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl Put for &TimeText {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(*self);
    }
}

impl Put for &[u8] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}
