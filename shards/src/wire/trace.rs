//! The two headers by which a trace passes from message to message. Invariant: what is written was read by
//! the grammar and keeps to it, so a foreign header can neither end a block nor grow it beyond
//! [`STATE_BYTES_MAX`]. Source: W3C Trace Context, sections 3.2 and 3.3.

use super::nats::headers::Headers;

/// Name of the header that says where in a trace a message stands. Others may write it in any case.
pub const TRACEPARENT: &[u8] = b"traceparent";
/// Name of the header that belongs to the tracing systems passed through.
pub const TRACESTATE: &[u8] = b"tracestate";
/// Bytes of a `traceparent` as it is written here.
pub const TRACEPARENT_LEN: usize = 55;
/// Bytes of `tracestate` that are passed on: what the standard asks for at the least.
pub const STATE_BYTES_MAX: usize = 512;

/// Someone records this trace.
const SAMPLED: u8 = 0x01;
/// Flags that are passed on: sampled, and (level 2) a random trace id. The others must be zero.
const FLAGS: u8 = 0x03;

/// Where in a trace a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: [u8; 16],
    /// The span that caused the message; not zero.
    pub parent_id: [u8; 8],
    /// As they came; see [`Self::is_sampled`].
    pub flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`: version 00, or the part of a later one that is the same.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(TRACEPARENT_LEN)?;
        let [version] = hex(&head[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        if !is_whole || [head[2], head[35], head[52]] != [b'-'; 3] {
            return None;
        }
        let [flags] = hex(&head[53..])?;
        let context = Self { trace_id: hex(&head[3..35])?, parent_id: hex(&head[36..52])?, flags };
        (context.trace_id != [0; 16] && context.parent_id != [0; 8]).then_some(context)
    }

    /// The context of a message with this header block. Two of them contradict each other: then none.
    #[must_use]
    pub fn of_headers(block: &[u8]) -> Option<Self> {
        if block.is_empty() {
            return None;
        }
        let mut all = values(block, TRACEPARENT);
        let first = all.next()?;
        all.next().is_none().then(|| Self::parse(first)).flatten()
    }

    /// Does the one who sent it record the trace?
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As a header's value, version 00.
    #[must_use]
    pub fn to_text(self) -> [u8; TRACEPARENT_LEN] {
        let mut text = [b'-'; TRACEPARENT_LEN];
        put_hex(&[0], &mut text[..2]);
        put_hex(&self.trace_id, &mut text[3..35]);
        put_hex(&self.parent_id, &mut text[36..52]);
        put_hex(&[self.flags & FLAGS], &mut text[53..]);
        text
    }
}

/// What is passed on of `tracestate`: the values in order, as long as they are printable and fit.
pub fn states(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = STATE_BYTES_MAX;
    values(block, TRACESTATE).filter(|value| !value.is_empty()).take_while(move |value| {
        let is_clean = value.iter().all(|byte| (b' '..=b'~').contains(byte));
        // The comma between two of them counts.
        let fits = is_clean && value.len() < left;
        left = left.saturating_sub(value.len() + 1);
        fits
    })
}

/// The same as one value; empty if there is none. For cold paths.
#[must_use]
pub fn state_text(block: &[u8]) -> String {
    let all: Vec<&[u8]> = states(block).collect();
    String::from_utf8_lossy(&all.join(&b',')).into_owned()
}

/// Lower case digits for people and exporters.
#[must_use]
pub fn hex_text(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    put_hex(bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn values<'a>(block: &'a [u8], name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let fields = Headers::new(block).iter();
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

// Lower case only: the standard has no other.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn put_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the standard.
    const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    // The grammar once more, by splitting: the witness.
    fn is_valid(text: &str) -> bool {
        let parts: Vec<&str> = text.split('-').collect();
        let is_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
        is_hex(version, 2)
            && *version != "ff"
            && (*version != "00" || rest.is_empty())
            && is_hex(trace, 32)
            && trace.bytes().any(|b| b != b'0')
            && is_hex(parent, 16)
            && parent.bytes().any(|b| b != b'0')
            && is_hex(flags, 2)
    }

    #[test]
    fn the_sample_of_the_standard_is_read_and_written() {
        let context = TraceContext::parse(SAMPLE.as_bytes()).unwrap();
        assert!(context.is_sampled());
        assert_eq!(hex_text(&context.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(hex_text(&context.parent_id), "00f067aa0ba902b7");
        assert_eq!(context.to_text(), SAMPLE.as_bytes());
        let later = format!("cc{}-what-comes-later", &SAMPLE[2..].replace("-01", "-fe"));
        let context = TraceContext::parse(later.as_bytes()).unwrap();
        assert!(!context.is_sampled());
        assert_eq!(context.to_text(), SAMPLE.replace("-01", "-02").as_bytes());
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for bad in [
            "",
            "00",
            &SAMPLE[..54],
            &format!("{SAMPLE}-"),
            &format!("{SAMPLE}0"),
            &format!("cc{}.x", &SAMPLE[2..]),
            &SAMPLE.replace("00-4", "ff-4"),
            &SAMPLE.to_uppercase(),
            &SAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &SAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &SAMPLE.replace("-01", "_01"),
        ] {
            assert!(!is_valid(bad));
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn headers_are_found_in_any_case_and_a_second_parent_voids_both() {
        let one = format!("NATS/1.0\r\nA: b\r\nTraceparent: {SAMPLE}\r\n\r\n");
        assert!(TraceContext::of_headers(one.as_bytes()).is_some());
        let two = one.replace("A: b", &format!("traceparent: {SAMPLE}"));
        assert_eq!(TraceContext::of_headers(two.as_bytes()), None);
        assert_eq!(TraceContext::of_headers(b""), None);
    }

    #[test]
    fn states_stay_printable_and_bounded() {
        let of = |block: &str| {
            states(block.as_bytes()).map(|s| String::from_utf8(s.to_vec()).unwrap()).collect()
        };
        let found: Vec<String> = of("NATS/1.0\r\ntracestate: a=1\r\nTracestate: b=2\r\n\r\n");
        assert_eq!(found, ["a=1", "b=2"]);
        let found: Vec<String> = of("NATS/1.0\r\ntracestate: a\u{e4}=1\r\n\r\n");
        assert!(found.is_empty());
        let long =
            format!("NATS/1.0\r\ntracestate: a=1\r\ntracestate: {}\r\n\r\n", "x".repeat(510));
        assert_eq!(of(&long), ["a=1"]);
    }

    proptest! {
        #[test]
        fn exactly_the_grammar_is_accepted(
            text in "(00|01|ff|0[0-9a-g])-[0-9a-f]{32}-([0-9a-f]{16}|0{16})-[0-9a-fA]{2}(-[!-~]{0,4})?"
        ) {
            prop_assert_eq!(TraceContext::parse(text.as_bytes()).is_some(), is_valid(&text), "{}", text);
        }

        #[test]
        fn one_changed_byte_is_judged_as_by_the_witness(at in 0..TRACEPARENT_LEN, byte in 0x20u8..0x7f) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(TraceContext::parse(text.as_bytes()).is_some(), is_valid(&text), "{}", text);
        }

        #[test]
        fn no_bytes_panic_and_what_is_read_is_written_alike(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            trace: [u8; 16],
            parent: [u8; 8],
            flags in 0u8..4,
        ) {
            let _ = (TraceContext::parse(&bytes), TraceContext::of_headers(&bytes));
            let _ = states(&bytes).count();
            let context = TraceContext { trace_id: trace, parent_id: parent, flags };
            let expected = (trace != [0; 16] && parent != [0; 8]).then_some(context);
            prop_assert_eq!(TraceContext::parse(&context.to_text()), expected);
        }
    }
}
