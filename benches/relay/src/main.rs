//! The least any relay on daisi's own client must do: pull, publish the bytes as they are, acknowledge
//! after the PubAck. No parse, no dedup, no Redis. What stands between this and `daisi run` is the price
//! of the job itself; what stands between this and a relay on another client is the price of that client.
//! Same executor, turns and buffers as a shard (`shards/src/shard.rs`), so that the comparison is fair.

mod relay;

use clap::Parser;
use relay::{Relay, RelayError, Settings};
use shards::edge::Clock;
use shards::edge::inbox::Inbox;
use shards::edge::link::Link;
use shards::edge::target::Address;
use shards::pipeline::TICK;
use shards::pool::executor;
use shards::shard::READ_MAX;
use std::future::Future as _;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::future::poll_fn;
use glommio::timer::Timer;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Copies `cdc.<company>.<table>` to `wa.<company>.<table>`. A yardstick, not a service: it reads the
/// stream from its beginning, and ends at the first failure.
#[derive(Parser)]
struct Args {
    /// NATS server.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Source stream; it exists.
    #[arg(long, default_value = "cdc_events_stream")]
    stream: String,
    /// Core to be pinned to; without it the kernel chooses.
    #[arg(long)]
    core: Option<usize>,
    /// Events asked for or held; daisi's `cdc.max_in_flight`.
    #[arg(long, default_value_t = 4096)]
    in_flight: u32,
    /// Publish with a `Nats-Msg-Id`, as whoever must not publish twice has to.
    #[arg(long)]
    message_ids: bool,
    /// Publishes without PubAck at once; daisi's `cdc.publish_window`.
    #[arg(long, default_value_t = 1024)]
    window: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let address = args.nats_url.trim_start_matches("nats://").trim_end_matches('/');
    let Some(address) = Address::parse(address, "") else {
        eprintln!("daisi-relay: {} is no nats://host:port", args.nats_url);
        return ExitCode::from(2);
    };
    let settings = Settings {
        stream: args.stream,
        in_flight_max: args.in_flight,
        window: args.window,
        message_ids: args.message_ids,
    };
    let relay = move || async move { run(&address, settings).await };
    let thread = executor("relay", args.core).spawn(relay);
    let outcome = thread.and_then(glommio::ExecutorJoinHandle::join);
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("daisi-relay: {error}");
    ExitCode::FAILURE
}

async fn run(address: &Address, settings: Settings) -> Result<(), RelayError> {
    let link = Link::connect(&address.host, address.port, CONNECT_TIMEOUT).await?;
    let clock = Clock::default();
    let mut edge = Edge {
        link,
        relay: Relay::open(clock.now(), settings, &mut fastrand::Rng::new()),
        inbox: Inbox::new(READ_MAX),
        scratch: vec![0; READ_MAX].into_boxed_slice(),
        timer: tick(),
    };
    loop {
        let turn = poll_fn(|cx| edge.poll_turn(cx)).await?;
        let now = clock.now();
        if turn.bytes {
            edge.relay.receive(now, &mut edge.inbox.bytes)?;
        }
        if turn.tick {
            edge.relay.tick(now)?;
        }
        edge.relay.flush(now)?;
    }
}

fn tick() -> Timer {
    Timer::new(Duration::from_nanos(TICK))
}

struct Edge {
    link: Link,
    relay: Relay,
    inbox: Inbox,
    scratch: Box<[u8]>,
    timer: Timer,
}

/// One turn's arrivals.
#[derive(Default)]
struct Turn {
    bytes: bool,
    tick: bool,
}

impl Edge {
    // Output first, as a shard does.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, RelayError>> {
        let mut turn = Turn::default();
        let out = self.relay.out();
        if !out.is_empty()
            && let Poll::Ready(result) = self.link.poll_write(cx, out)
        {
            result?;
        }
        if let Poll::Ready(result) = self.link.poll_read(cx, &mut self.scratch, &mut self.inbox) {
            result?;
            turn.bytes = true;
        }
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            self.timer = tick();
            turn.tick = true;
        }
        if turn.bytes || turn.tick { Poll::Ready(Ok(turn)) } else { Poll::Pending }
    }
}
