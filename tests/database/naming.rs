//! A chat belongs to the first contact of the stream that names it, however the events are batched.

use fastrand::Rng;
use shards::domain::ingest::{Campaign, Contact, ContactUpdate, Event, Flow, Position};
use shards::pipeline::commit::{Fate, Outcome};
use tokio_postgres::Client;

use crate::make::{HISTORY, REALTIME, Writer, at, message, text};
use crate::world::{ask, connect, run};

/// Runs of events, each with an agent and chats of its own.
const RUNS: u64 = 24;
/// Events of a run.
const EVENTS: u64 = 40;
/// Batches of a run: all at once, some, two by two, one by one.
const SIZES: [(&str, usize); 4] = [("All", 40), ("Some", 7), ("Two", 2), ("One", 1)];

/// Which events a run mixes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mix {
    Realtime,
    /// An item an event.
    History,
    /// Both, history with several items an event. Which name stays is not compared: positions of two streams do
    /// not tell, nor does the position of one event that names a contact by its phone and by its chat.
    Both,
}

type Told = (Event<'static>, Position<'static>);

#[test]
fn a_chat_belongs_to_the_first_contact_of_the_stream_that_names_it() {
    run(async {
        let seed = std::env::var("DAISI_SEED").map_or(7, |seed| seed.parse().expect("a number"));
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let mut without_chat = 0;
        for run in 0..RUNS {
            let mut rng = Rng::with_seed(seed + run);
            let mix = [Mix::Realtime, Mix::History, Mix::Both][run as usize % 3];
            let events: Vec<Told> = (1..=EVENTS).map(|n| told(&mut rng, mix, run, n)).collect();
            let mut expected: Option<String> = None;
            for (company, size) in SIZES.iter().rev() {
                for batch in events.chunks(*size) {
                    write(&mut writer, company, batch).await;
                }
                let rows = contacts(&reader, company, run, mix).await;
                let expected = expected.get_or_insert_with(|| rows.clone());
                assert_eq!(rows, *expected, "{company} of {mix:?}, DAISI_SEED={}", seed + run);
            }
            let expected = expected.unwrap_or_default();
            let chats = expected.lines().map(|row| row.split('|').nth(1));
            without_chat += chats.filter(|chat| *chat == Some("-")).count();
            // Delivered once more, in other batches: what is in the table stays.
            for batch in events.chunks(5) {
                write(&mut writer, "All", batch).await;
            }
            assert_eq!(contacts(&reader, "All", run, mix).await, expected, "{mix:?} again");
        }
        assert!(without_chat > 10, "contacts whose chat is another's: {without_chat}");
    });
}

fn told(rng: &mut Rng, mix: Mix, run: u64, number: u64) -> Told {
    let is_history = match mix {
        Mix::Realtime => false,
        Mix::History => true,
        Mix::Both => rng.u8(..3) == 0,
    };
    let position = at(if is_history { HISTORY } else { REALTIME }, run * EVENTS + number);
    let event = match rng.u8(..8) {
        _ if is_history => {
            let items = if mix == Mix::Both { rng.u8(1..4) } else { 1 };
            Event::HistoryContacts((0..items).map(|_| contact(rng, run)).collect())
        }
        0..3 => Event::ContactsUpsert(contact(rng, run)),
        3 => {
            let Contact { phone_number, agent_id, push_name, .. } = contact(rng, run);
            Event::ContactsUpdate(ContactUpdate { phone_number, agent_id, push_name })
        }
        kind => Event::MessagesUpsert(message("", |m| {
            m.message_id = format!("{run}-{number}").into();
            (m.agent_id, m.flow) = (agent(run).into(), Flow::In);
            (m.from_phone, m.chat_id) = (Some(phone(rng).into()), chat(rng, run).into());
            let (tags, assigned_to, origin) = (text("promo"), text("u"), text("Ads"));
            let campaign = Campaign { is_campaign: true, tags, assigned_to, origin };
            m.campaign = (kind == 4).then_some(campaign);
        })),
    };
    (event, position)
}

fn contact(rng: &mut Rng, run: u64) -> Contact<'static> {
    let name = format!("name {}", rng.u16(..));
    let named = match rng.u8(..8) {
        0 => None,
        1 => Some(String::new()),
        _ => Some(chat(rng, run)),
    };
    Contact {
        phone_number: phone(rng).into(),
        agent_id: agent(run).into(),
        push_name: name.into(),
        chat_id: named.map(Into::into),
    }
}

fn agent(run: u64) -> String {
    format!("agent-{run}")
}

fn phone(rng: &mut Rng) -> String {
    rng.u8(1..8).to_string()
}

fn chat(rng: &mut Rng, run: u64) -> String {
    format!("chat-{run}-{}", rng.u8(1..6))
}

async fn write(writer: &mut Writer, company: &str, events: &[Told]) {
    let events: Vec<_> =
        events.iter().map(|(event, position)| (company, event.clone(), *position)).collect();
    for outcome in writer.write(&events).await {
        let is_settled = matches!(outcome, Some(Outcome::Committed(fate)) if fate != Fate::Alone);
        assert!(is_settled, "{outcome:?}, away: {:?}", writer.commit.away());
    }
}

async fn contacts(reader: &Client, company: &str, run: u64, mix: Mix) -> String {
    let more = match mix {
        Mix::Realtime | Mix::History => {
            ", push_name, origin, tags, assigned_to, first_message_id, \
             last_metadata->>'stream_sequence'"
        }
        Mix::Both => ", first_message_id",
    };
    let sql = format!(
        "SELECT phone_number, chat_id {more} FROM daisi_{}.contacts \
         WHERE agent_id = '{}' ORDER BY phone_number",
        company.to_lowercase(),
        agent(run)
    );
    ask(reader, &sql).await
}
