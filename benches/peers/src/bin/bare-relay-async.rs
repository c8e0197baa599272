//! The least any relay on async-nats must do: pull, publish the bytes as they are, ack after the PubAck.
//! No parse, no dedup. What stands between this and `cdc-peer` is the price of the job itself.

use async_nats::jetstream::{Context, Message};
use clap::Parser;
use daisi_peers::bus::{self, Error};
use futures::StreamExt;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Copies cdc.<company>.<table> to wa.<company>.<table>")]
struct Args {
    /// NATS server.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Durable consumer on the source stream.
    #[arg(long, default_value = "bare_relay_async")]
    consumer: String,
    /// Events on their way at once.
    #[arg(long, default_value_t = 512)]
    in_flight: usize,
    /// Messages asked for in one pull request.
    #[arg(long, default_value_t = 2000)]
    pull_batch: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let context = bus::connect(&args.nats_url, args.in_flight * 2).await?;
    bus::ensure_streams(&context).await?;
    let consumer = bus::durable(&context, &args.consumer).await?;
    let messages =
        consumer.stream().max_messages_per_batch(args.pull_batch).messages().await?.take_until(
            Box::pin(async {
                tokio::signal::ctrl_c().await.ok();
            }),
        );
    messages
        .for_each_concurrent(args.in_flight, |message| async {
            let outcome = match message {
                Ok(message) => relay(&context, &message).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = outcome {
                eprintln!("relay: {error}");
            }
        })
        .await;
    context.client().flush().await?;
    Ok(())
}

async fn relay(context: &Context, message: &Message) -> Result<(), Error> {
    let rest = message.subject.strip_prefix("cdc.").ok_or("a subject outside cdc.")?;
    context.publish(format!("wa.{rest}"), message.payload.clone()).await?.await?;
    message.ack().await
}
