//! The CDC job as a good team would write it today: pull consumer, typed serde_json, claims in Redis over
//! one multiplexed connection, publish with `Nats-Msg-Id`, explicit ack. Invariant: an event is
//! acknowledged only after its PubAck, or after its dead letter's.
//!
//! Tuned on two cores shared with NATS and Redis: one thread, 256 in flight (figures in benches/README.md).
//! It does less than daisi in two ways, both in its favour: no order per company is kept (events in flight
//! race each other), and a publish that fails is handed back to the server instead of being retried here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{AckKind, Context, Message},
};
use clap::Parser;
use daisi_peers::{
    bus::{self, Error},
    transform::{Outgoing, Verdict, transform},
};
use futures::StreamExt;
use redis::aio::ConnectionManager;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinSet;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "The CDC job with async-nats, tokio, redis and serde_json")]
struct Args {
    /// NATS server.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Redis server.
    #[arg(long, env = "REDIS_URL", default_value = "redis://127.0.0.1:6379")]
    redis_url: String,
    /// First token of the published subjects.
    #[arg(long, default_value = "wa")]
    output_prefix: String,
    /// Durable consumer on the source stream.
    #[arg(long, default_value = "cdc_peer")]
    consumer: String,
    /// Events worked on at once.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Messages asked for in one pull request.
    #[arg(long, default_value_t = 2000)]
    pull_batch: usize,
    /// Worker threads; 0 runs everything on the main thread.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Seconds a claim or a done mark lives.
    #[arg(long, default_value_t = 300)]
    dedup_ttl: u64,
}

/// One counter for each outcome; their sum is what was pulled.
#[derive(Default)]
struct Outcomes {
    processed: AtomicU64,
    duplicate: AtomicU64,
    filtered: AtomicU64,
    dead_lettered: AtomicU64,
    failed: AtomicU64,
}

struct Worker {
    args: Args,
    context: Context,
    redis: ConnectionManager,
    claim: String,
    outcomes: Outcomes,
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    let mut builder = if args.threads == 0 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(args.threads);
        builder
    };
    builder.enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> Result<(), Error> {
    let context = bus::connect(&args.nats_url, args.in_flight * 2).await?;
    bus::ensure_streams(&context).await?;
    let redis = redis::Client::open(args.redis_url.as_str())?.get_connection_manager().await?;
    let claim = format!("claim-{}", std::process::id());
    let worker = Worker { args, context, redis, claim, outcomes: Outcomes::default() };
    let worker = Arc::new(worker);
    // The futures of one stream run on one thread, so each thread reads a stream of its own.
    let lanes = worker.args.threads.max(1);
    let mut serving = JoinSet::new();
    for _ in 0..lanes {
        let worker = Arc::clone(&worker);
        serving.spawn(async move { worker.serve(worker.args.in_flight.div_ceil(lanes)).await });
    }
    while let Some(lane) = serving.join_next().await {
        lane??;
    }
    worker.context.client().flush().await?;
    let Outcomes { processed, duplicate, filtered, dead_lettered, failed } = &worker.outcomes;
    eprintln!(
        "processed {} duplicate {} filtered {} dead_lettered {} failed {}",
        processed.load(Relaxed),
        duplicate.load(Relaxed),
        filtered.load(Relaxed),
        dead_lettered.load(Relaxed),
        failed.load(Relaxed)
    );
    Ok(())
}

impl Worker {
    /// Pulls until told to stop, then finishes what is in flight.
    async fn serve(&self, in_flight: usize) -> Result<(), Error> {
        let consumer = bus::durable(&self.context, &self.args.consumer).await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(self.args.pull_batch)
            .messages()
            .await?
            .take_until(Box::pin(stop_signal()));
        messages
            .for_each_concurrent(in_flight, |message| async {
                match message {
                    Ok(message) => self.handle(&message).await,
                    Err(error) => eprintln!("pull: {error}"),
                }
            })
            .await;
        Ok(())
    }

    /// One event, to its one outcome. A failure gives the event back to the server.
    async fn handle(&self, message: &Message) {
        let result = match self.process(message).await {
            Ok(outcome) => {
                outcome.fetch_add(1, Relaxed);
                message.ack().await
            }
            Err(error) => {
                eprintln!("event: {error}");
                self.outcomes.failed.fetch_add(1, Relaxed);
                message.ack_with(AckKind::Nak(Some(Duration::from_secs(1)))).await
            }
        };
        if let Err(error) = result {
            eprintln!("ack: {error}");
        }
    }

    async fn process(&self, message: &Message) -> Result<&AtomicU64, Error> {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
        match transform(&self.args.output_prefix, &message.subject, &message.payload, &now) {
            Verdict::Forward(outgoing) => self.forward(*outgoing).await,
            Verdict::Filtered => Ok(&self.outcomes.filtered),
            Verdict::Rejected(reason) => self.dead_letter(message, reason).await,
        }
    }

    /// Claim, publish, mark done. Only a done mark skips: a claim may be what a crash left behind.
    async fn forward(&self, outgoing: Outgoing) -> Result<&AtomicU64, Error> {
        let mut redis = self.redis.clone();
        let found: Option<String> = redis::cmd("SET")
            .arg(&outgoing.dedup_key)
            .arg(&self.claim)
            .arg("NX")
            .arg("GET")
            .arg("EX")
            .arg(self.args.dedup_ttl)
            .query_async(&mut redis)
            .await?;
        if found.as_deref() == Some("") {
            return Ok(&self.outcomes.duplicate);
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", outgoing.message_id);
        headers.insert("Daisi-Company", outgoing.company);
        headers.insert("Daisi-Lsn", outgoing.lsn.to_string());
        if let Some(idx) = outgoing.idx {
            headers.insert("Daisi-Idx", idx.to_string());
        }
        headers.insert("Daisi-Action", outgoing.action);
        self.context
            .publish_with_headers(outgoing.subject, headers, outgoing.payload.into())
            .await?
            .await?;
        redis::cmd("SET")
            .arg(&outgoing.dedup_key)
            .arg("")
            .arg("EX")
            .arg(self.args.dedup_ttl)
            .query_async::<()>(&mut redis)
            .await?;
        Ok(&self.outcomes.processed)
    }

    async fn dead_letter(&self, message: &Message, reason: &str) -> Result<&AtomicU64, Error> {
        let mut headers = HeaderMap::new();
        headers.insert("Daisi-Reason", reason);
        headers.insert("Daisi-Source-Subject", message.subject.as_str());
        let payload = message.payload.clone();
        self.context.publish_with_headers("v1.dlq._unknown", headers, payload).await?.await?;
        Ok(&self.outcomes.dead_lettered)
    }
}

async fn stop_signal() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminate) = terminate else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
