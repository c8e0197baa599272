//! The shard's Redis connection as the pipeline sees it: claims and done marks, pipelined, answered in
//! order. Invariant: a command stays in `queue` until its reply has come, so that a new connection can
//! ask again for everything the old one left open. Source: Redis manual, SET (NX with GET since 7.0).
//!
//! Nothing waits for a done mark, so marks travel with the next claim, or at the next tick: at a low rate
//! that halves the writes, the replies, and the wake-ups on both sides.

use super::bus::FlightRef;
use super::effect::Effect;
use super::settings::RedisSettings;
use crate::clock::Now;
use crate::domain::retry::Backoff;
use crate::wire::resp::{self, Reply};
use crate::wire::{Step, WireError};
use bytes::BytesMut;
use std::collections::VecDeque;

/// Bytes that may wait for company.
const LAZY_MAX: usize = 8 * 1024;

/// A command whose reply has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Claim the event; the reply tells whether it was done, claimed or unknown.
    Claim(FlightRef),
    /// Mark the event as done.
    Done(FlightRef),
    /// Set the old service's key; the reply does not matter.
    Legacy(FlightRef),
}

/// What Redis knew of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody had claimed it.
    Fresh,
    /// Somebody has claimed it and may have died: handle it.
    Claimed,
    /// It has been published.
    Done,
}

/// A reply, matched to its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The handshake is through; commands may be written.
    Ready,
    Claim(FlightRef, Claim),
    Done(FlightRef),
    Legacy(FlightRef),
}

/// Why the connection has to be closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisError {
    #[error("redis sent bytes that are not RESP: {0}")]
    Wire(#[from] WireError),
    #[error("redis refused the login: {0}")]
    Login(String),
    #[error("redis answered {0}; daisi needs Redis 7.0 or newer (SET with NX and GET)")]
    TooOld(String),
    #[error("redis answered {0}")]
    Refused(String),
    #[error("redis gave no answer for {0} ms")]
    Silent(u64),
    #[error("redis sent a reply to no command")]
    Unasked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        retry_at: u64,
    },
    Connecting,
    /// Replies of the handshake still to come.
    Greeting {
        left: u8,
    },
    Ready,
}

struct Queued {
    command: Command,
    sent: u64,
}

/// The connection and its open commands.
pub(super) struct Redis {
    settings: RedisSettings,
    link: Link,
    opened: u64,
    out: BytesMut,
    /// There is more in `out` than may wait.
    urgent: bool,
    queue: VecDeque<Queued>,
    backoff: Backoff,
    pub(super) down_reason: Option<String>,
}

impl Redis {
    pub(super) fn new(settings: &RedisSettings, capacity: usize) -> Self {
        Self {
            settings: settings.clone(),
            link: Link::Down { retry_at: 0 },
            opened: 0,
            out: BytesMut::with_capacity(64 * 1024),
            urgent: false,
            queue: VecDeque::with_capacity(capacity),
            backoff: Backoff::new(settings.backoff.0, settings.backoff.1),
            down_reason: Some("not connected yet".into()),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.link == Link::Ready
    }

    /// Commands are written whose replies are to come: for no longer than the reply timeout.
    pub(super) fn owes_replies(&self) -> bool {
        self.is_ready() && !self.queue.is_empty()
    }

    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Is there something in `out` that should not wait?
    pub(super) fn is_due(&self) -> bool {
        (self.urgent && !self.out.is_empty()) || self.out.len() >= LAZY_MAX
    }

    /// The socket is open: log in, choose the database, and ask for a sign of life.
    pub(super) fn opened(&mut self, now: Now) {
        self.out.clear();
        let mut left = 1;
        if let Some(password) = &self.settings.password {
            let user = self.settings.username.as_deref().unwrap_or("default");
            resp::encode_command(&mut self.out, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
            left += 1;
        }
        if self.settings.database != 0 {
            let database = self.settings.database.to_string();
            resp::encode_command(&mut self.out, &[b"SELECT", database.as_bytes()]);
            left += 1;
        }
        resp::encode_command(&mut self.out, &[b"PING"]);
        self.urgent = true;
        self.link = Link::Greeting { left };
        self.opened = now.mono;
    }

    /// The socket is closed, or has to be. Open commands wait for the next connection.
    pub(super) fn lost(&mut self, now: Now, why: &str, rng: &mut fastrand::Rng) {
        self.out.clear();
        self.link = Link::Down { retry_at: now.mono + self.backoff.next_delay(rng) };
        self.down_reason = Some(why.to_owned());
    }

    /// Take the open commands, to ask them again in their order.
    pub(super) fn take_open(&mut self) -> Vec<Command> {
        self.queue.drain(..).map(|queued| queued.command).collect()
    }

    /// Time goes by: reconnection, overdue replies.
    pub(super) fn tick(
        &mut self,
        now: Now,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), RedisError> {
        let timeout = self.settings.reply_timeout;
        self.urgent = true;
        match self.link {
            Link::Down { retry_at } if now.mono >= retry_at => {
                self.link = Link::Connecting;
                effects.push_back(Effect::RedisConnect);
                Ok(())
            }
            Link::Greeting { .. } if now.mono > self.opened + timeout => {
                Err(RedisError::Silent(timeout / crate::clock::MS))
            }
            Link::Ready if self.queue.front().is_some_and(|q| now.mono > q.sent + timeout) => {
                Err(RedisError::Silent(timeout / crate::clock::MS))
            }
            _ => Ok(()),
        }
    }

    /// `SET key claim NX GET EX ttl`. Without a connection it is only remembered.
    pub(super) fn claim(
        &mut self,
        now: Now,
        flight: FlightRef,
        key: &[u8],
        claim: &[u8],
        ttl: &[u8],
    ) {
        self.queue.push_back(Queued { command: Command::Claim(flight), sent: now.mono });
        self.urgent = true;
        if self.is_ready() {
            let out = &mut self.out;
            resp::begin_command(out, 7);
            resp::arg(out, b"SET");
            resp::arg(out, key);
            resp::arg(out, claim);
            out.extend_from_slice(b"$2\r\nNX\r\n$3\r\nGET\r\n$2\r\nEX\r\n");
            resp::arg(out, ttl);
        }
    }

    /// `SET key "" EX ttl`: the state that lets an event be skipped.
    pub(super) fn done(&mut self, now: Now, flight: FlightRef, key: &[u8], ttl: &[u8]) {
        self.queue.push_back(Queued { command: Command::Done(flight), sent: now.mono });
        self.urgent &= !self.out.is_empty(); // What was urgent has been written.
        if self.is_ready() {
            let out = &mut self.out;
            resp::begin_command(out, 5);
            resp::arg(out, b"SET");
            resp::arg(out, key);
            out.extend_from_slice(b"$0\r\n\r\n$2\r\nEX\r\n");
            resp::arg(out, ttl);
        }
    }

    /// `SET dedup:<event_id> seen NX EX ttl`: what the old service looks for.
    pub(super) fn legacy(&mut self, now: Now, flight: FlightRef, key: &[u8], ttl: &[u8]) {
        self.queue.push_back(Queued { command: Command::Legacy(flight), sent: now.mono });
        self.urgent &= !self.out.is_empty();
        if self.is_ready() {
            let args: [&[u8]; 6] = [b"SET", key, b"seen", b"NX", b"EX", ttl];
            resp::encode_command(&mut self.out, &args);
        }
    }

    /// The next reply in `inbox`, matched to its command.
    pub(super) fn next(&mut self, inbox: &mut BytesMut) -> Result<Option<Answer>, RedisError> {
        loop {
            let Step::Done(reply) = resp::decode(inbox)? else { return Ok(None) };
            if let Link::Greeting { left } = self.link {
                if let Reply::Error(text) = &reply {
                    return Err(login_error(text));
                }
                if left > 1 {
                    self.link = Link::Greeting { left: left - 1 };
                    continue;
                }
                self.link = Link::Ready;
                self.backoff.reset();
                self.down_reason = None;
                return Ok(Some(Answer::Ready));
            }
            return self.on_reply(&reply).map(Some);
        }
    }

    fn on_reply(&mut self, reply: &Reply) -> Result<Answer, RedisError> {
        // Peek first: a refused command must stay open for the next connection.
        let command = self.queue.front().ok_or(RedisError::Unasked)?.command;
        if let Reply::Error(text) = reply {
            return Err(command_error(text));
        }
        self.queue.pop_front();
        Ok(match (command, reply) {
            (Command::Claim(flight), Reply::Bulk(Some(value))) => {
                let known = if value.is_empty() { Claim::Done } else { Claim::Claimed };
                Answer::Claim(flight, known)
            }
            (Command::Claim(flight), _) => Answer::Claim(flight, Claim::Fresh),
            (Command::Done(flight), _) => Answer::Done(flight),
            (Command::Legacy(flight), _) => Answer::Legacy(flight),
        })
    }
}

// LOADING passes by itself and is no fault of the login.
fn login_error(text: &[u8]) -> RedisError {
    let words = String::from_utf8_lossy(text).into_owned();
    let login = ["NOAUTH", "WRONGPASS", "ERR AUTH", "NOPERM"];
    match login.iter().any(|prefix| words.starts_with(prefix)) {
        true => RedisError::Login(words),
        false => RedisError::Refused(words),
    }
}

fn command_error(text: &[u8]) -> RedisError {
    let words = String::from_utf8_lossy(text).into_owned();
    match words.starts_with("ERR syntax error") {
        true => RedisError::TooOld(words),
        false => RedisError::Refused(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHT: FlightRef = FlightRef { slot: 0, generation: 0 };
    const NOW: Now = Now { mono: 0, wall: 0 };

    fn connected() -> Redis {
        let settings = RedisSettings {
            username: None,
            password: None,
            database: 0,
            reply_timeout: 1,
            backoff: (1, 1),
        };
        let mut redis = Redis::new(&settings, 4);
        redis.opened(NOW);
        assert!(redis.is_due(), "a greeting does not wait");
        redis.out().clear();
        assert!(matches!(redis.next(&mut BytesMut::from("+PONG\r\n")), Ok(Some(Answer::Ready))));
        redis
    }

    #[test]
    fn done_marks_wait_for_a_claim_or_a_tick() {
        let mut redis = connected();
        redis.done(NOW, FLIGHT, b"key", b"300");
        assert!(!redis.is_due(), "nobody waits for a mark");
        redis.claim(NOW, FLIGHT, b"other", b"me", b"30");
        assert!(redis.is_due(), "an event waits for its claim");
        redis.out().clear();
        redis.done(NOW, FLIGHT, b"key", b"300");
        assert!(!redis.is_due(), "what was urgent is written");
        redis.tick(NOW, &mut VecDeque::new()).unwrap();
        assert!(redis.is_due(), "a tick is the longest wait");
    }

    #[test]
    fn many_done_marks_wait_no_longer() {
        let mut redis = connected();
        while redis.out().len() < LAZY_MAX {
            assert!(!redis.is_due());
            redis.done(NOW, FLIGHT, b"key", b"300");
        }
        assert!(redis.is_due());
    }
}
