//! What a write costs when tables have grown since its statements were planned, and where its rows go.

use std::collections::BTreeMap;

use crate::make::{REALTIME, SENT, Writer, at, chat_update, update, upsert};
use crate::world::{ask, connect, run};
use shards::domain::ingest::{Event, Flow};
use shards::edge::pg::months;
use shards::edge::pg::write::SessionSettings;

/// Rows of each table that grow.
const ROWS: u32 = 3000;

/// Rows and entries that reading the tables of `schema` has cost so far, by index; by table where it had none.
async fn read(writer: &Writer, schema: &str) -> BTreeMap<String, u64> {
    // Counters arrive at the end of a transaction, once a second unless they are asked to.
    writer.session.client().batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let counters = format!(
        "SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = '{schema}'
            UNION ALL SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = '{schema}'"
    );
    let listed = ask(&connect().await, &counters).await;
    let pairs = listed.lines().filter_map(|line| line.split_once('|'));
    pairs.map(|(name, read)| (name.to_owned(), read.parse().unwrap())).collect()
}

/// One of each event that looks a row up, of ids that nobody has had yet and of one that is there.
async fn write_each(writer: &mut Writer, company: &str, from: u64) {
    let known = "m7".to_owned();
    for (place, id) in [format!("new{from}"), known].iter().enumerate() {
        let phone = format!("62{from}{place}");
        let events: [Event<'_>; 6] = [
            upsert(id, |message| message.message_timestamp = None),
            upsert(id, |message| {
                message.flow = Flow::In;
                message.from_phone = Some(phone.as_str().into());
                message.chat_id = phone.as_str().into();
            }),
            update(id, |update| update.status = Some("READ".into())),
            chat_update(id, Some(1), None),
            // Behind what the row has: asked about, since it had no effect.
            upsert("m8", |_| {}),
            upsert("m8", |message| message.message_timestamp = None),
        ];
        for (number, event) in events.into_iter().enumerate() {
            let sequence = if number < 4 { from + 10 * place as u64 + number as u64 } else { 1 };
            let outcomes = writer.write(&[(company, event, at(REALTIME, sequence))]).await;
            assert!(outcomes[0].is_some(), "{:?}", writer.commit.away());
        }
    }
}

#[test]
fn a_write_reads_as_much_of_a_large_table_as_of_a_small_one() {
    run(async {
        let mut writer = Writer::with(SessionSettings::default(), 0).await;
        let first = [upsert("m7", |_| {}), upsert("m8", |_| {})]
            .map(|event| ("Growing", event, at(REALTIME, 2)));
        writer.write(&first).await;
        write_each(&mut writer, "Growing", 100).await; // Plans are made here.
        let mut costs = Vec::new();
        for round in [1_u64, 2] {
            let before = read(&writer, "daisi_growing").await;
            write_each(&mut writer, "Growing", 1000 * round).await;
            let after = read(&writer, "daisi_growing").await;
            let cost = |(name, read): (String, u64)| {
                let cost = read - before.get(&name).copied().unwrap_or(0);
                (cost > 0).then_some((name, cost))
            };
            costs.push(after.into_iter().filter_map(cost).collect::<BTreeMap<_, _>>());
            let grow = format!(
                "INSERT INTO daisi_growing.messages (message_id, message_date, agent_id, chat_id, company_id)
                    SELECT 'x' || n, to_timestamp({SENT})::date, 'ag', 'chat', 'Growing' FROM generate_series(1, {ROWS}) n;
                INSERT INTO daisi_growing.contacts (id, phone_number, agent_id, chat_id)
                    SELECT 'x' || n, 'x' || n, 'ag', 'x' || n FROM generate_series(1, {ROWS}) n;
                INSERT INTO daisi_growing.onboarding_log (phone_number, agent_id)
                    SELECT 'x' || n, 'ag' FROM generate_series(1, {ROWS}) n;
                INSERT INTO daisi_growing.chats (chat_id, agent_id)
                    SELECT 'x' || n, 'ag' FROM generate_series(1, {ROWS}) n"
            );
            if round == 1 {
                connect().await.batch_execute(&grow).await.unwrap();
            }
        }
        let [small, large] = [&costs[0], &costs[1]].map(|cost| cost.values().sum::<u64>());
        assert!(small > 0 && large < small + u64::from(ROWS) / 10, "rows read: {costs:#?}");
    });
}

#[test]
fn rows_make_the_months_they_belong_to_and_no_other() {
    run(async {
        let mut writer = Writer::new().await;
        let client = connect().await;
        // 2019-03-09; 1970, which is no time of a message; the year 2100.
        for (sequence, secs) in [(1, SENT), (2, 1_552_089_600), (3, 5), (4, 4_102_444_800)] {
            let event = upsert("m", |message| message.message_timestamp = Some(secs));
            writer.fates("Monthly", REALTIME, &[(sequence, event)]).await;
        }
        let placed =
            "SELECT tableoid::regclass::text FROM daisi_monthly.messages ORDER BY message_date";
        assert_eq!(
            ask(&client, placed).await,
            "daisi_monthly.messages_default\ndaisi_monthly.messages_y2019m03\n\
             daisi_monthly.messages_y2026m01\ndaisi_monthly.messages_default"
        );
        // One whose rows are to be moved is left to those who have the time.
        client.batch_execute("INSERT INTO daisi_monthly.messages (message_id, message_date) VALUES ('w', '2018-05-05')").await.unwrap();
        let event = upsert("n", |message| message.message_timestamp = Some(1_525_132_800)); // 2018-05-01
        writer.fates("Monthly", REALTIME, &[(9, event)]).await;
        let waiting = "SELECT count(*) FROM ONLY daisi_monthly.messages_default WHERE message_date < '2019-01-01' AND message_date > '2018-01-01'";
        assert_eq!(ask(&client, waiting).await, "2");
        months::make_wanted(&client, "Monthly").await.unwrap();
        assert_eq!(ask(&client, waiting).await, "0");
        let moved = "SELECT count(*) FROM ONLY daisi_monthly.messages_y2018m05";
        assert_eq!(ask(&client, moved).await, "2");
        let left = "SELECT string_agg(message_date::text, ' ' ORDER BY message_date) FROM ONLY daisi_monthly.messages_default";
        assert_eq!(ask(&client, left).await, "1970-01-01 2100-01-01");
    });
}
