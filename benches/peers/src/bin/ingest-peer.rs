//! The ingest job as a good team would write it today: pull consumer, typed serde_json, a prepared upsert a
//! message over a few pipelined connections, an explicit ack each. Invariant: an event is acknowledged only
//! after its statement is committed.
//!
//! It does less than daisi, in its favour: no order (events in flight race each other), no guard against older
//! positions, no schema that words errors, and contacts it has onboarded before it remembers for ever.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use async_nats::jetstream::{AckKind, Message, consumer};
use clap::Parser;
use daisi_peers::{
    bus::{self, Error},
    ingest::{self, COLUMNS, UPDATE, database, metadata, schema},
};
use futures::StreamExt;
use tokio_postgres::{Client, Statement};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "The ingest job with async-nats, tokio-postgres and serde_json")]
struct Args {
    /// NATS server.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// PostgreSQL server.
    #[arg(long, env = "POSTGRES_DSN")]
    postgres_url: String,
    /// Durable consumer on the source stream.
    #[arg(long, default_value = "ingest_peer")]
    consumer: String,
    /// Events worked on at once.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Connections they share.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Messages asked for in one pull request.
    #[arg(long, default_value_t = 2000)]
    pull_batch: usize,
}

/// The two statements of a company, on one connection.
#[derive(Clone)]
struct Statements {
    message: Statement,
    contact: Statement,
}

struct Connection {
    client: Client,
    prepared: RefCell<HashMap<String, Statements>>,
}

struct Worker {
    connections: Vec<Connection>,
    onboarded: RefCell<HashSet<(String, String)>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let context = bus::connect(&args.nats_url, args.in_flight * 2).await?;
    let mut connections = Vec::new();
    for _ in 0..args.connections.max(1) {
        let client = database(&args.postgres_url).await?;
        connections.push(Connection { client, prepared: RefCell::default() });
    }
    let worker = Rc::new(Worker { connections, onboarded: RefCell::default() });
    let source = context.get_stream(ingest::STREAM).await?;
    let config = consumer::pull::Config {
        durable_name: Some(args.consumer.clone()),
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: bus::ACK_WAIT,
        max_ack_pending: bus::ACK_PENDING_MAX,
        ..consumer::pull::Config::default()
    };
    let consumer = source.get_or_create_consumer(&args.consumer, config).await?;
    let messages = consumer.stream().max_messages_per_batch(args.pull_batch).messages().await?;
    messages
        .enumerate()
        .for_each_concurrent(args.in_flight, |(number, message)| {
            let worker = Rc::clone(&worker);
            async move {
                match message {
                    Ok(message) => worker.handle(number, &message).await,
                    Err(error) => eprintln!("pull: {error}"),
                }
            }
        })
        .await;
    Ok(())
}

impl Worker {
    /// One event, to its row. A failure gives the event back to the server.
    async fn handle(&self, number: usize, message: &Message) {
        let connection = &self.connections[number % self.connections.len()];
        let result = match self.write(connection, message).await {
            Ok(()) => message.ack().await,
            Err(error) => {
                eprintln!("event: {error}");
                message.ack_with(AckKind::Nak(Some(Duration::from_secs(1)))).await
            }
        };
        if let Err(error) = result {
            eprintln!("ack: {error}");
        }
    }

    async fn write(&self, connection: &Connection, message: &Message) -> Result<(), Error> {
        let event = ingest::Message::read(&message.subject, &message.payload)?;
        let statements = connection.statements(&event.company_id).await?;
        let sequence = message.info().map_err(|error| error.to_string())?.stream_sequence;
        let meta = metadata(sequence, &message.subject);
        let date = event.date()?;
        let (key, object) = (event.key.as_ref(), event.message_obj.as_ref());
        connection
            .client
            .execute(
                &statements.message,
                &[
                    &event.message_id,
                    &date,
                    &event.from_phone,
                    &event.to_phone,
                    &event.chat_id,
                    &event.jid,
                    &event.agent_id,
                    &event.flow,
                    &event.message_type,
                    &event.message_text,
                    &event.message_url,
                    &key.map(|json| json.get()),
                    &object.map(|json| json.get()),
                    &event.status,
                    &event.message_timestamp,
                    &event.company_id,
                    &meta,
                ],
            )
            .await?;
        if event.flow == "IN" && !event.from_phone.is_empty() {
            self.onboard(connection, &statements.contact, &event).await?;
        }
        Ok(())
    }

    async fn onboard(
        &self,
        connection: &Connection,
        statement: &Statement,
        event: &ingest::Message,
    ) -> Result<(), Error> {
        let contact = (event.company_id.clone(), event.from_phone.clone());
        if self.onboarded.borrow().contains(&contact) {
            return Ok(());
        }
        let id = format!("{}-{}", event.agent_id, event.from_phone);
        connection
            .client
            .execute(
                statement,
                &[
                    &id,
                    &event.from_phone,
                    &event.agent_id,
                    &event.chat_id,
                    &event.company_id,
                    &event.message_id,
                    &event.message_timestamp,
                ],
            )
            .await?;
        self.onboarded.borrow_mut().insert(contact);
        Ok(())
    }
}

impl Connection {
    async fn statements(&self, company: &str) -> Result<Statements, Error> {
        if let Some(found) = self.prepared.borrow().get(company) {
            return Ok(found.clone());
        }
        let schema = schema(company);
        let message = format!(
            "INSERT INTO {schema}.messages ({COLUMNS}, company_id, is_deleted, last_metadata, created_at, \
             updated_at) VALUES ($1, $2::text::date, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, \
             $13::text::jsonb, $14, $15, $16, false, $17::text::jsonb, now(), now()) {UPDATE}"
        );
        let contact = format!(
            "WITH made AS (INSERT INTO {schema}.contacts (id, phone_number, agent_id, chat_id, company_id, \
             origin, tags, first_message_id, first_message_timestamp, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, 'DirectChat', 'Onboarded', $6, $7, now(), now()) \
             ON CONFLICT DO NOTHING RETURNING phone_number, agent_id, company_id) \
             INSERT INTO {schema}.onboarding_log (message_id, agent_id, company_id, phone_number, \
             \"timestamp\", created_at) SELECT $6, agent_id, company_id, phone_number, $7, now() FROM made"
        );
        let statements = Statements {
            message: self.client.prepare(&message).await?,
            contact: self.client.prepare(&contact).await?,
        };
        self.prepared.borrow_mut().insert(company.to_owned(), statements.clone());
        Ok(statements)
    }
}
