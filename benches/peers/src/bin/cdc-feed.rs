//! Command line of the feed: each subcommand is one step of a measurement, its result one JSON line on
//! standard output. The harness starts these as processes of their own.

use std::time::Duration;

use clap::{Parser, Subcommand};
use daisi_peers::{
    bus::{self, Error},
    feed::{self, Pace, Shape},
};

#[derive(Parser)]
#[command(about = "Makes, sends and checks the events of a measurement")]
struct Args {
    /// NATS server.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Companies the events are spread over.
    #[arg(long, default_value_t = 8)]
    companies: u64,
    /// Bytes added to the text of each message, which stands in its event twice.
    #[arg(long, default_value_t = 0)]
    padding: usize,
    #[command(subcommand)]
    step: Step,
}

#[derive(Subcommand)]
enum Step {
    /// Delete all streams and create empty ones.
    Reset,
    /// Fill the source stream with this many events.
    Preload { count: u64 },
    /// Report the growth of the output stream until it holds this many.
    Watch {
        count: u64,
        #[arg(long, default_value_t = 120)]
        deadline_s: u64,
    },
    /// Check the output stream against this many preloaded events.
    Verify { count: u64 },
    /// Send at a fixed rate and time the deliveries.
    Paced {
        #[arg(long, default_value_t = 5000)]
        rate: u64,
        #[arg(long, default_value_t = 2)]
        warmup_s: u64,
        #[arg(long, default_value_t = 10)]
        timed_s: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let shape = Shape { companies: args.companies, padding: args.padding };
    let context = bus::connect(&args.nats_url, 8192).await?;
    match args.step {
        Step::Reset => feed::reset(&context).await,
        Step::Preload { count } => feed::preload(&context, count, shape).await,
        Step::Watch { count, deadline_s } => {
            feed::watch(&context, count, Duration::from_secs(deadline_s)).await
        }
        Step::Verify { count } => print(&feed::verify(&context, count, args.companies).await?),
        Step::Paced { rate, warmup_s, timed_s } => {
            let pace = Pace {
                rate: rate.max(1),
                shape,
                warmup: Duration::from_secs(warmup_s),
                timed: Duration::from_secs(timed_s),
            };
            print(&feed::paced(&context, pace).await?)
        }
    }
}

fn print(result: &impl serde::Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}
