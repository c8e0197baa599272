//! Receive buffers that are used again. Messages refer to the buffer they arrived in, so a full one is laid
//! aside until its last message is gone, and then serves anew. Invariant: at most [`CHUNKS_MAX`] buffers are
//! laid aside; what the messages in flight keep alive besides is bounded by their number.

use bytes::BytesMut;
use std::collections::VecDeque;

/// Buffers laid aside at the most: 16 MiB a connection.
const CHUNKS_MAX: usize = 64;
/// Room below which a buffer counts as full.
const ROOM_MIN: usize = 4 * 1024;

/// The receive buffer of one connection.
pub struct Inbox {
    /// Bytes received and not decoded yet.
    pub bytes: BytesMut,
    size: usize,
    aside: VecDeque<BytesMut>,
}

impl Inbox {
    /// Buffers of `size` bytes each.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(size), size, aside: VecDeque::new() }
    }

    /// Append what was received. A buffer without room for it is laid aside; only an unfinished
    /// frame is copied to the next one.
    pub fn extend(&mut self, received: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < received.len().max(ROOM_MIN) {
            self.renew();
        }
        self.bytes.extend_from_slice(received);
    }

    /// The connection is gone, and what it had sent with it.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    fn renew(&mut self) {
        let mut next = self.take_free().unwrap_or_else(|| BytesMut::with_capacity(self.size));
        next.extend_from_slice(&self.bytes);
        let mut full = std::mem::replace(&mut self.bytes, next);
        full.clear();
        if self.aside.len() < CHUNKS_MAX {
            self.aside.push_back(full);
        }
    }

    // The oldest is free first. Messages are held in order, so looking at a few is enough.
    fn take_free(&mut self) -> Option<BytesMut> {
        for _ in 0..self.aside.len().min(2) {
            let mut chunk = self.aside.pop_front()?;
            if chunk.try_reclaim(self.size) {
                return Some(chunk);
            }
            self.aside.push_back(chunk);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_serves_anew_once_its_messages_are_gone() {
        let mut inbox = Inbox::new(64 * 1024);
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..200 {
            inbox.extend(&[7; 16 * 1024]);
            let message = inbox.bytes.split().freeze();
            assert!(message.iter().all(|byte| *byte == 7));
            addresses.insert(message.as_ptr() as usize / (64 * 1024));
        }
        assert!(addresses.len() <= 8, "200 messages in {} places", addresses.len());
    }

    #[test]
    fn a_message_that_is_held_keeps_its_bytes() {
        let mut inbox = Inbox::new(16 * 1024);
        let held: Vec<_> = (0..100u8)
            .map(|n| {
                inbox.extend(&[n; 8 * 1024]);
                inbox.bytes.split().freeze()
            })
            .collect();
        for (n, message) in (0..100u8).zip(held) {
            assert!(message.iter().all(|byte| *byte == n));
        }
    }

    #[test]
    fn an_unfinished_frame_moves_along() {
        let mut inbox = Inbox::new(16 * 1024);
        inbox.extend(b"MSG foo");
        inbox.extend(&[b'x'; 20 * 1024]);
        assert!(inbox.bytes.starts_with(b"MSG fooxxx"));
        assert_eq!(inbox.bytes.len(), 20 * 1024 + 7);
    }
}
