//! How near a batch comes to the bare loop beside it: the same rows, the same upsert, nothing else. Interleaved,
//! so that the machine's moods meet both.

use std::time::{Duration, Instant};

use shards::domain::ingest::{Event, Flow, Message, MessageKey, Position};
use shards::edge::pg::migrate;
use shards::pipeline::commit::Item;
use tokio_postgres::Statement;

use crate::make::{EPOCH, REALTIME, SECOND, SENT, Writer, at, message, text};
use crate::world::{connect, run};

const BARE: &str = "INSERT INTO daisi_bare.messages AS t (message_id, message_date, from_phone, to_phone, chat_id, jid, agent_id, flow, \
    message_type, message_text, message_url, key, message_obj, status, message_timestamp, company_id, is_deleted, last_metadata, created_at, updated_at) \
    SELECT i.*, 'Bare', false, $16::jsonb, now(), now() FROM unnest($1::text[], $2::date[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
    $8::text[], $9::text[], $10::text[], $11::text[], $12::jsonb[], $13::jsonb[], $14::text[], $15::int8[]) i \
    ON CONFLICT (message_id, message_date) DO UPDATE SET status = excluded.status, message_text = excluded.message_text, \
    message_url = excluded.message_url, message_obj = excluded.message_obj, message_type = excluded.message_type, \
    last_metadata = excluded.last_metadata, updated_at = excluded.updated_at";
const META: &str = "{\"consumer_sequence\": 1, \"stream_sequence\": 1, \"stream\": \"wa_events_stream\", \"consumer\": \"daisi_ingest\", \"domain\": \"\", \
    \"message_id\": \"msg-1\", \"message_subject\": \"v1.messages.upsert.Bench\", \"processed_at\": \"2026-01-02T03:04:05.123456789Z\"}";
const BATCH: usize = 100;
const OBJECT: &str = "{\"conversation\": \"hello, this is the usual length of a message\", \"contextInfo\": {\"expiration\": 0, \"quoted\": null}}";

struct Names {
    id: String,
    chat: String,
    phone: String,
}

fn names(from: usize) -> Vec<Names> {
    (from..from + BATCH)
        .map(|n| Names {
            id: format!("3EB0{:016X}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            chat: format!("chat-{}", n % 5000),
            phone: format!("62811{:07}", n % 5000),
        })
        .collect()
}

fn event<'a>(names: &'a Names, flow: Flow) -> Message<'a> {
    message(&names.id, |m| {
        m.chat_id = names.chat.as_str().into();
        m.jid = names.phone.as_str().into();
        (m.from_phone, m.to_phone) = (text(&names.phone), text("6281900001"));
        (m.message_type, m.status, m.flow) = (text("conversation"), text("delivered"), flow);
        m.message_text = text("hello, this is the usual length of a message");
        m.message_obj = Some(OBJECT);
        m.key = Some(MessageKey {
            id: names.id.as_str().into(),
            from_me: false,
            remote_jid: names.phone.as_str().into(),
        });
    })
}

async fn bare(client: &tokio_postgres::Client, statement: &Statement, rows: &[Names]) {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let phones: Vec<&str> = rows.iter().map(|row| row.phone.as_str()).collect();
    let chats: Vec<&str> = rows.iter().map(|row| row.chat.as_str()).collect();
    let same = |text: &'static str| vec![text; rows.len()];
    let keys: Vec<String> = rows
        .iter()
        .map(|row| {
            format!("{{\"id\":\"{}\",\"fromMe\":false,\"remoteJid\":\"{}\"}}", row.id, row.phone)
        })
        .collect();
    let (to, agent, flow, kind) =
        (same("6281900001"), same("ag"), same("OUT"), same("conversation"));
    let (words, url, object, status) = (
        same("hello, this is the usual length of a message"),
        same(""),
        same(OBJECT),
        same("delivered"),
    );
    let (dates, times) = (same("2026-01-05"), vec![SENT; rows.len()]);
    let result = client
        .execute(
            statement,
            &[
                &ids, &dates, &phones, &to, &chats, &phones, &agent, &flow, &kind, &words, &url,
                &keys, &object, &status, &times, &META,
            ],
        )
        .await;
    assert_eq!(result.expect("bare rows"), rows.len() as u64);
}

/// Writes rows as events; the time that took, making them not counted.
async fn ours(writer: &mut Writer, rows: &[Names], flow: Flow, sequence: u64) -> Duration {
    let positions: Vec<Position<'_>> =
        rows.iter().zip(sequence..).map(|(_, sequence)| at(REALTIME, sequence)).collect();
    let events: Vec<Event<'_>> =
        rows.iter().map(|names| Event::MessagesUpsert(event(names, flow))).collect();
    let item =
        |(event, position)| Item { company: "Bench", event, position, stream_created_ns: EPOCH };
    let items: Vec<Item<'_>> = events.iter().zip(&positions).map(item).collect();
    let started = Instant::now();
    let now = || writer.now_ns.replace(writer.now_ns.get() + SECOND);
    writer
        .session
        .write(&mut writer.commit, &mut writer.batch, &mut writer.hints, &items, now)
        .await;
    let took = started.elapsed();
    let outcomes = writer.commit.outcomes();
    assert!(outcomes.iter().all(Option::is_some), "{:?}", writer.commit.away());
    took
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "a measurement: cargo test --release --test database beside -- --ignored --nocapture"]
fn batches_beside_the_bare_loop() {
    run(async {
        let (total, size) = (number("ROWS", 100_000), number("SIZE", BATCH));
        let is_in = std::env::var("FLOW").is_ok_and(|text| text == "in");
        let flow = if is_in { Flow::In } else { Flow::Out };
        let mut writer = Writer::new().await;
        let plain = connect().await;
        for company in ["Bare", "Bench"] {
            migrate::open(&plain, company, &migrate::Options::default()).await.expect("a schema");
        }
        // Texts for dates and documents, as a plain client would send them.
        let bare_text = BARE
            .replace("$2::date[]", "$2::text[]::date[]")
            .replace("$12::jsonb[], $13::jsonb[]", "$12::text[]::jsonb[], $13::text[]::jsonb[]")
            .replace("$16::jsonb", "$16::text::jsonb");
        let statement = plain.prepare(&bare_text).await.expect("it prepares");
        let (mut bare_time, mut our_time, mut done) = (Duration::ZERO, Duration::ZERO, 0);
        while done < total {
            let batches: Vec<Vec<Names>> =
                (0..20).map(|batch| names(done + batch * BATCH)).collect();
            let started = Instant::now();
            for rows in &batches {
                bare(&plain, &statement, rows).await;
            }
            bare_time += started.elapsed();
            let rows: Vec<Names> = batches.into_iter().flatten().collect();
            for chunk in rows.chunks(size) {
                our_time += ours(&mut writer, chunk, flow, done as u64 + 1).await;
                done += chunk.len();
            }
        }
        let [bare, ours] = [bare_time, our_time].map(|time| done as f64 / time.as_secs_f64());
        println!(
            "bare, batches of {BATCH}: {bare:.0} rows/s; ours, batches of {size}: {ours:.0} rows/s; \
             ratio {:.2}",
            ours / bare
        );
    });
}
