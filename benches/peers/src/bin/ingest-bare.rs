//! The least that writing messages costs: the events of the stream are read into memory first, and then their
//! rows written over one connection, in batches of one company by `unnest`, or one row a commit. It says when
//! it begins and when it has ended, and what it measured, as JSON lines.
//!
//! No NATS while the clock runs, no order, no guard against older positions, no contacts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{self, AckPolicy};
use clap::Parser;
use daisi_peers::{
    bus::{self, Error},
    ingest::{self, COLUMNS, UPDATE, database, metadata, schema},
};
use futures::StreamExt;
use hdrhistogram::Histogram;
use tokio_postgres::{Client, Statement};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Rows of messages from memory, in batches or one a commit")]
struct Args {
    /// NATS server.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// PostgreSQL server.
    #[arg(long, env = "POSTGRES_DSN")]
    postgres_url: String,
    /// Events to take from the stream.
    #[arg(long)]
    events: usize,
    /// Rows a statement, and a commit.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Ends after so many seconds, if events last that long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// A row, in the types its parameters have.
struct Row {
    event: ingest::Message,
    date: String,
    meta: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let rows = load(&args).await?;
    let client = database(&args.postgres_url).await?;
    let mut statements = BTreeMap::new();
    for row in &rows {
        let company = &row.event.company_id;
        if !statements.contains_key(company) {
            statements.insert(company.clone(), prepare(&client, company).await?);
        }
    }
    let batches = batches(&rows, args.batch.max(1));
    let mut times = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    println!("{{\"event\":\"begin\"}}");
    let (start, deadline) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut written = 0;
    for batch in &batches {
        let sent = Instant::now();
        write(&client, &statements[&batch[0].event.company_id], batch).await?;
        times.saturating_record(sent.elapsed().as_micros() as u64);
        written += batch.len();
        if start.elapsed() > deadline {
            break;
        }
    }
    let elapsed_s = start.elapsed().as_secs_f64();
    let at = |share| times.value_at_quantile(share);
    println!(
        "{{\"event\":\"end\",\"rows\":{written},\"elapsed_s\":{elapsed_s},\"p50_us\":{},\"p95_us\":{},\
         \"p99_us\":{},\"max_us\":{}}}",
        at(0.5),
        at(0.95),
        at(0.99),
        times.max()
    );
    // The harness looks at the memory and the time of a process that is there.
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

/// The events of the stream, in its order.
async fn load(args: &Args) -> Result<Vec<Row>, Error> {
    let context = bus::connect(&args.nats_url, 1).await?;
    let source = context.get_stream(ingest::STREAM).await?;
    let config = consumer::pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
    let consumer = source.create_consumer(config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(2000).messages().await?;
    let mut rows = Vec::with_capacity(args.events);
    while rows.len() < args.events {
        let Some(message) = messages.next().await else { return Err("the stream ended".into()) };
        let message = message?;
        let event = ingest::Message::read(&message.subject, &message.payload)?;
        let sequence = message.info().map_err(|error| error.to_string())?.stream_sequence;
        let meta = metadata(sequence, &message.subject);
        rows.push(Row { date: event.date()?, event, meta });
    }
    Ok(rows)
}

async fn prepare(client: &Client, company: &str) -> Result<Statement, Error> {
    let text = format!(
        "INSERT INTO {}.messages ({COLUMNS}, company_id, is_deleted, last_metadata, created_at, updated_at) \
         SELECT i.message_id, i.day::date, i.from_phone, i.to_phone, i.chat_id, i.jid, i.agent_id, i.flow, \
         i.message_type, i.message_text, i.message_url, i.key::jsonb, i.object::jsonb, i.status, i.seconds, \
         '{company}', false, i.meta::jsonb, now(), now() FROM unnest($1::text[], $2::text[], $3::text[], \
         $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], \
         $12::text[], $13::text[], $14::text[], $15::int8[], $16::text[]) AS i (message_id, day, from_phone, \
         to_phone, chat_id, jid, agent_id, flow, message_type, message_text, message_url, key, object, \
         status, seconds, meta) {UPDATE}",
        schema(company)
    );
    Ok(client.prepare(&text).await?)
}

/// Rows of one company each, in the order of the stream; a key stands in a batch once, as a statement wants it.
fn batches(rows: &[Row], size: usize) -> Vec<Vec<&Row>> {
    let mut open: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    let mut full = Vec::new();
    for row in rows {
        let batch = open.entry(&row.event.company_id).or_default();
        let is_there = batch.iter().any(|other| other.event.message_id == row.event.message_id);
        if is_there || batch.len() >= size {
            full.push(std::mem::take(batch));
        }
        batch.push(row);
    }
    full.extend(open.into_values().filter(|batch| !batch.is_empty()));
    full
}

async fn write(client: &Client, statement: &Statement, rows: &[&Row]) -> Result<(), Error> {
    fn texts<'a>(rows: &[&'a Row], of: impl Fn(&'a Row) -> &'a str) -> Vec<&'a str> {
        rows.iter().map(|row| of(row)).collect()
    }
    let keys: Vec<_> = rows.iter().map(|row| row.event.key.as_ref().map(|j| j.get())).collect();
    let objects: Vec<_> =
        rows.iter().map(|row| row.event.message_obj.as_ref().map(|j| j.get())).collect();
    let seconds: Vec<i64> = rows.iter().map(|row| row.event.message_timestamp).collect();
    client
        .execute(
            statement,
            &[
                &texts(rows, |row| &row.event.message_id),
                &texts(rows, |row| &row.date),
                &texts(rows, |row| &row.event.from_phone),
                &texts(rows, |row| &row.event.to_phone),
                &texts(rows, |row| &row.event.chat_id),
                &texts(rows, |row| &row.event.jid),
                &texts(rows, |row| &row.event.agent_id),
                &texts(rows, |row| &row.event.flow),
                &texts(rows, |row| &row.event.message_type),
                &texts(rows, |row| &row.event.message_text),
                &texts(rows, |row| &row.event.message_url),
                &keys,
                &objects,
                &texts(rows, |row| &row.event.status),
                &seconds,
                &texts(rows, |row| &row.meta),
            ],
        )
        .await?;
    Ok(())
}
