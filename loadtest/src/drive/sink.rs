//! What the harness itself can do: events of a profile are made, read for their expectations and sent as in a run,
//! to a sink that answers every publish at once. The figure is the CPU of the sending thread alone.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::time::{ClockId, clock_gettime};

use crate::ends::{Tellers, cdc, ingest};
use crate::results::Recorder;
use crate::send::{SendPlan, Source};

use super::{DriveError, send_witnessed};

/// Figures of the harness's own speed.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct SelfTest {
    /// Events sent and acknowledged.
    pub events: u64,
    /// CPU of the sending thread by event: source, expectations, encoding, PubAcks, system calls. Microseconds.
    pub sender_us_per_event: f64,
    /// Of it, the source.
    pub source_us_per_event: f64,
    /// Events a second that one core could send at that price.
    pub events_per_core: f64,
    /// Events a second that were sent, with the sink on the same machine.
    pub events_per_s: f64,
}

/// Sends what `source` has, as fast as the window lets, at most `count` events.
///
/// # Errors
/// The sink, or the threads.
pub fn self_test<S: Source + 'static>(
    source: S,
    mut alone: S,
    count: u64,
    window: usize,
) -> Result<SelfTest, DriveError> {
    let before = cpu();
    let mut made = 0;
    while made < count && alone.next().is_some() {
        made += 1;
    }
    let source_cpu = cpu().saturating_sub(before);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DriveError::Thread)?;
    let address = listener.local_addr().map_err(DriveError::Thread)?;
    let recorder = Recorder::start(Vec::new())?;
    let plan = SendPlan {
        window,
        origin: recorder.origin(),
        ..SendPlan::new(format!("nats://{address}"), count)
    };
    let (cdc_teller, cdc_words) = cdc::tell_nobody();
    let (ingest_teller, ingest_words) = ingest::tell_nobody();
    let tellers = Tellers { cdc: Some(cdc_teller), ingest: Some(ingest_teller) };
    let mut part = recorder.sender();
    let (sent, used, took) = std::thread::scope(|scope| {
        let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
        // It ends with the sender's connection, by whatever.
        let sink = name("sink").spawn_scoped(scope, || drop(swallow(&listener)));
        sink.map_err(DriveError::Thread)?;
        scope.spawn(move || cdc_words.iter().count());
        scope.spawn(move || ingest_words.iter().count());
        let (started, begin) = (Instant::now(), cpu());
        let stop = AtomicBool::new(false);
        let sent = send_witnessed(&plan, &mut Unplanned(source), &stop, tellers, &mut part);
        let figures = (cpu().saturating_sub(begin), started.elapsed());
        Ok::<_, DriveError>((sent?, figures.0, figures.1))
    })?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / sent.acked.max(1) as f64;
    let sender_us_per_event = each(used);
    Ok(SelfTest {
        events: sent.acked,
        sender_us_per_event,
        source_us_per_event: each(source_cpu),
        events_per_core: 1e6 / sender_us_per_event.max(1e-9),
        events_per_s: sent.acked as f64 / took.as_secs_f64().max(1e-9),
    })
}

/// A source without its plan: everything is due at once.
struct Unplanned<S>(S);

impl<S: Source> Source for Unplanned<S> {
    type Event<'b>
        = S::Event<'b>
    where
        Self: 'b;

    fn next(&mut self) -> Option<S::Event<'_>> {
        self.0.next()
    }
}

/// CPU of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Serves one client until it goes: answers PINGs, and each publish with a PubAck.
fn swallow(listener: &TcpListener) -> io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    socket.write_all(
        b"INFO {\"server_id\":\"SINK\",\"server_name\":\"sink\",\"version\":\"2.10.0\",\"proto\":1,\
          \"headers\":true,\"max_payload\":8388608}\r\n",
    )?;
    let (mut inbox, mut scratch) = (Vec::new(), vec![0; 256 << 10]);
    let mut out = Vec::new();
    let mut sequence = 0;
    loop {
        let length = socket.read(&mut scratch)?;
        if length == 0 {
            return Ok(());
        }
        inbox.extend_from_slice(&scratch[..length]);
        let taken = answer(&inbox, &mut out, &mut sequence);
        inbox.drain(..taken);
        send_all(&mut socket, &mut out)?;
    }
}

fn send_all(socket: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    socket.write_all(out)?;
    out.clear();
    Ok(())
}

/// Answers every whole operation; how many bytes they were.
fn answer(inbox: &[u8], out: &mut Vec<u8>, sequence: &mut u64) -> usize {
    let mut taken = 0;
    while let Some(end) = memmem::find(&inbox[taken..], b"\r\n") {
        let line = &inbox[taken..taken + end];
        let body = taken + end + 2;
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        taken = match words.as_slice() {
            [b"PING"] => {
                out.extend_from_slice(b"PONG\r\n");
                body
            }
            [b"PUB", _, reply, size] | [b"HPUB", _, reply, _, size] => {
                let size = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok());
                let next = body + size.unwrap_or(0usize) + 2;
                if next > inbox.len() {
                    return taken;
                }
                *sequence += 1;
                let ack = format!("{{\"stream\":\"SINK\",\"seq\":{sequence}}}");
                out.extend_from_slice(b"MSG ");
                out.extend_from_slice(reply);
                // The sender's one subscription.
                out.extend_from_slice(format!(" 1 {}\r\n{ack}\r\n", ack.len()).as_bytes());
                next
            }
            _ => body,
        };
    }
    taken
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{answer, self_test};
    use crate::profile::{Blend, load};

    #[test]
    fn the_sink_answers_whole_publishes_alone() {
        let (mut out, mut sequence) = (Vec::new(), 0);
        let text = b"CONNECT {}\r\nPING\r\nSUB a 1\r\nPUB s r 2\r\nhi\r\nHPUB s q 4 6\r\nab\r\nhi\r\nPUB s r 9\r\nh";
        let taken = answer(text, &mut out, &mut sequence);
        assert_eq!(&text[taken..], b"PUB s r 9\r\nh");
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.starts_with("PONG\r\nMSG r 1 25\r\n{\"stream\":\"SINK\",\"seq\":1}\r\n"),
            "{out}"
        );
        assert_eq!(sequence, 2);
    }

    #[test]
    fn the_harness_tells_its_own_price() {
        let profile = load("steady").unwrap();
        let (a, b) = (Blend::new(&profile).unwrap(), Blend::new(&profile).unwrap());
        let told = self_test(a, b, 5_000, 1_024).unwrap();
        assert_eq!(told.events, 5_000);
        assert!(told.sender_us_per_event > told.source_us_per_event, "{told:?}");
        assert!(told.events_per_core > 1_000.0, "{told:?}");
    }
}
