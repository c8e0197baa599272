//! Ack subjects of delivered messages, and what is published to them. Invariant: parsing allocates
//! nothing, and the subject itself is used unmodified to ack. Source: NATS ADR-15; names of streams and
//! consumers never hold a dot, so splitting on dots is exact.

use crate::wire::decimal;
use bytes::BytesMut;
use memchr::memchr_iter;

/// Done with this message (with AckAll: and all before it).
pub const ACK: &[u8] = b"+ACK";
/// Deliver again now.
pub const NAK: &[u8] = b"-NAK";
/// Still at work: restart the message's `ack_wait`.
pub const WPI: &[u8] = b"+WPI";
/// Ack, and a pull with the reply as inbox.
pub const NEXT: &[u8] = b"+NXT";
/// Never deliver again.
pub const TERM: &[u8] = b"+TERM";

/// Appends the payload "deliver again after `delay_ns` nanoseconds".
pub fn encode_nak_delay(out: &mut BytesMut, delay_ns: u64) {
    out.extend_from_slice(b"-NAK {\"delay\":");
    decimal::push(out, delay_ns);
    out.extend_from_slice(b"}");
}

/// Fields of an ack subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckSubject<'a> {
    /// JetStream domain; only in the newer form, and `None` for its `_`.
    pub domain: Option<&'a [u8]>,
    /// Stream the message lies in.
    pub stream: &'a [u8],
    /// Consumer that delivered it.
    pub consumer: &'a [u8],
    /// Deliveries so far, this one included. May start again at 1 after a server was killed.
    pub delivered: u64,
    /// Position in the stream.
    pub stream_seq: u64,
    /// Position among this consumer's deliveries.
    pub consumer_seq: u64,
    /// When it was stored: nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Messages behind this one for this consumer; 0 means caught up.
    pub pending: u64,
}

/// Why a reply is not an ack subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckSubjectError {
    /// Not below `$JS.ACK.`.
    #[error("not an ack subject")]
    Prefix,
    /// Neither 9 tokens nor 11 and more.
    #[error("ack subject has {count} tokens")]
    TokenCount {
        /// Tokens found, counting no further than 11.
        count: usize,
    },
    /// A field that is no decimal number, or an empty name.
    #[error("ack subject has a malformed {field}")]
    Field {
        /// The field.
        field: &'static str,
    },
}

const PREFIX: &[u8] = b"$JS.ACK.";
/// Tokens behind the prefix: stream, consumer and five numbers.
const FIELDS_V1: usize = 7;
/// As before, behind domain and account hash.
const FIELDS_V2: usize = 9;

impl<'a> AckSubject<'a> {
    /// Reads both forms:
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.<pending>` and
    /// `$JS.ACK.<domain|_>.<account>.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.<pending>[.<more>]`.
    ///
    /// # Errors
    /// [`AckSubjectError`]; the message then did not come from a consumer.
    pub fn parse(subject: &'a [u8]) -> Result<Self, AckSubjectError> {
        let fields = subject.strip_prefix(PREFIX).ok_or(AckSubjectError::Prefix)?;
        let mut tokens: [&[u8]; FIELDS_V2] = [&[]; FIELDS_V2];
        let mut count = 0;
        let mut start = 0;
        for end in memchr_iter(b'.', fields).chain([fields.len()]) {
            tokens[count] = &fields[start..end];
            start = end + 1;
            count += 1;
            if count == FIELDS_V2 {
                break;
            }
        }
        match count {
            FIELDS_V1 => Self::from_tokens(None, &tokens[..FIELDS_V1]),
            FIELDS_V2 => {
                let domain = Some(tokens[0]).filter(|domain| *domain != b"_");
                Self::from_tokens(domain, &tokens[FIELDS_V2 - FIELDS_V1..])
            }
            _ => Err(AckSubjectError::TokenCount { count: count + 2 }),
        }
    }

    fn from_tokens(domain: Option<&'a [u8]>, tokens: &[&'a [u8]]) -> Result<Self, AckSubjectError> {
        let name = |at: usize, field| {
            Some(tokens[at]).filter(|name| !name.is_empty()).ok_or(AckSubjectError::Field { field })
        };
        let number =
            |at: usize, field| decimal::parse(tokens[at]).ok_or(AckSubjectError::Field { field });
        Ok(Self {
            domain,
            stream: name(0, "stream")?,
            consumer: name(1, "consumer")?,
            delivered: number(2, "delivery count")?,
            stream_seq: number(3, "stream sequence")?,
            consumer_seq: number(4, "consumer sequence")?,
            timestamp_ns: number(5, "timestamp")?,
            pending: number(6, "pending count")?,
        })
    }

    /// Appends the subject a server would send for these fields, in the older form.
    pub fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(PREFIX);
        out.extend_from_slice(self.stream);
        out.extend_from_slice(b".");
        out.extend_from_slice(self.consumer);
        for number in
            [self.delivered, self.stream_seq, self.consumer_seq, self.timestamp_ns, self.pending]
        {
            out.extend_from_slice(b".");
            decimal::push(out, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let v1 = AckSubject::parse(b"$JS.ACK.S3.a.1.2.3.1795209715606644439.4").unwrap();
        assert_eq!((v1.domain, v1.stream, v1.consumer), (None, &b"S3"[..], &b"a"[..]));
        assert_eq!((v1.delivered, v1.stream_seq, v1.consumer_seq, v1.pending), (1, 2, 3, 4));
        assert_eq!(v1.timestamp_ns, 1_795_209_715_606_644_439);
        let v2 = AckSubject::parse(b"$JS.ACK._.szMpdrwD.V.w.1.1.1.1795211898839463375.0").unwrap();
        assert_eq!((v2.domain, v2.stream, v2.consumer), (None, &b"V"[..], &b"w"[..]));
        let more = AckSubject::parse(b"$JS.ACK.hub.h.V.w.1.2.3.4.0.token.more").unwrap();
        assert_eq!((more.domain, more.pending), (Some(&b"hub"[..]), 0));
        let mut out = BytesMut::new();
        v1.encode(&mut out);
        assert_eq!(AckSubject::parse(&out), Ok(v1));
    }

    #[test]
    fn other_subjects_are_refused() {
        use AckSubjectError::{Field, Prefix, TokenCount};
        let cases: [(&[u8], AckSubjectError); 6] = [
            (b"", Prefix),
            (b"_INBOX.x.1", Prefix),
            (b"$JS.ACK.S.c.1.2.3.4", TokenCount { count: 8 }),
            (b"$JS.ACK.S.c.1.2.3.4.5.6", TokenCount { count: 10 }),
            (b"$JS.ACK.S.c.1.x.3.4.5", Field { field: "stream sequence" }),
            (b"$JS.ACK..c.1.2.3.4.5", Field { field: "stream" }),
        ];
        for (subject, error) in cases {
            assert_eq!(AckSubject::parse(subject), Err(error), "{}", subject.escape_ascii());
        }
    }

    #[test]
    fn nak_with_delay_is_in_nanoseconds() {
        let mut out = BytesMut::new();
        encode_nak_delay(&mut out, 1_500_000_000);
        assert_eq!(out.as_ref(), br#"-NAK {"delay":1500000000}"#);
    }
}
