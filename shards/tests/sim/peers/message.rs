//! Messages inside the simulated server: what was published, what is to be sent, and the header block
//! they carry. A header block is kept as raw bytes, since a server does not check it either.

use bytes::Bytes;

/// A publish as decoded from a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publish {
    /// Literal subject.
    pub(crate) subject: Bytes,
    /// Where answers go.
    pub(crate) reply: Option<Bytes>,
    /// Raw header block; empty if there is none.
    pub(crate) headers: Bytes,
    /// Body.
    pub(crate) payload: Bytes,
}

impl Publish {
    /// Header plus body: what `max_payload` and `max_msg_size` count.
    pub(crate) fn size(&self) -> usize {
        self.headers.len() + self.payload.len()
    }
}

/// A message the server makes itself: an API reply, a PubAck, a delivery, a status, an advisory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Emit {
    /// Subject it is routed by: the inbox.
    pub(crate) route: Bytes,
    /// Subject it shows: the stored one on a delivery, else the inbox.
    pub(crate) subject: Bytes,
    /// Reply subject: the ack subject of a delivery.
    pub(crate) reply: Option<Bytes>,
    /// Raw header block.
    pub(crate) headers: Bytes,
    /// Body.
    pub(crate) payload: Bytes,
    /// Nanoseconds to hold it back.
    pub(crate) delay: u64,
}

impl Emit {
    /// An answer to `inbox` with a body and no header.
    pub(crate) fn answer(inbox: &Bytes, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self { route: inbox.clone(), subject: inbox.clone(), payload, ..Self::default() }
    }

    /// A status line, `NATS/1.0 <line>`, with `fields` behind it and no body.
    pub(crate) fn status(inbox: &Bytes, line: &str, fields: &[(&str, u64)]) -> Self {
        let mut block = format!("NATS/1.0 {line}\r\n");
        for (name, value) in fields {
            block.push_str(&format!("{name}: {value}\r\n"));
        }
        block.push_str("\r\n");
        let (route, subject) = (inbox.clone(), inbox.clone());
        Self { route, subject, headers: block.into(), ..Self::default() }
    }

    /// The same, held back by `delay` nanoseconds.
    pub(crate) fn after(mut self, delay: u64) -> Self {
        self.delay = delay;
        self
    }
}

/// Value of the first header `name` in `block`, blanks trimmed. Names are compared case-sensitively, as
/// the server does: `nats-msg-id` is an ordinary header.
pub(crate) fn header<'a>(block: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(block).ok()?;
    text.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim())
    })
}

/// A header block of `fields`, as a client would send it.
#[cfg(test)]
pub(crate) fn header_block(fields: &[(&str, &str)]) -> Bytes {
    let lines: String = fields.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
    format!("NATS/1.0\r\n{lines}\r\n").into()
}
