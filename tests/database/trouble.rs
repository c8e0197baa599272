//! When the database is not as one would like: schemas that go, tables that are locked, sessions that end,
//! other writers, many companies.

use std::time::Duration;

use shards::edge::pg::write::SessionSettings;
use shards::pipeline::commit::{Fate, Outcome};

use crate::make::{REALTIME, Writer, at, chat_update, chat_upsert, text, upsert};
use crate::world::{ask, connect, run};

const APPLIED: Option<Outcome> = Some(Outcome::Committed(Fate::Applied));

#[test]
fn a_schema_that_went_is_made_again_and_one_that_cannot_be_used_holds_its_company_alone() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let events = |sequence| {
            [
                ("Gone", upsert("m", |_| ()), at(REALTIME, sequence)),
                ("Stays", upsert("m", |_| ()), at(REALTIME, sequence + 1)),
            ]
        };
        assert_eq!(writer.write(&events(1)).await, [APPLIED, APPLIED]);
        reader.batch_execute("DROP SCHEMA daisi_gone CASCADE").await.unwrap();
        assert_eq!(writer.write(&events(3)).await, [APPLIED, APPLIED]);
        // One table went, and the migrations are recorded: a person has to look.
        reader.batch_execute("DROP TABLE daisi_gone.messages CASCADE").await.unwrap();
        let outcomes = writer.write(&events(5)).await;
        assert!(
            matches!(&outcomes[0], Some(Outcome::Held { message }) if message.contains("messages")),
            "{outcomes:?}"
        );
        assert_eq!(outcomes[1], APPLIED);
        // The spelling of another company's schema.
        let outcomes = writer
            .write(&[
                ("STAYS", upsert("x", |_| ()), at(REALTIME, 9)),
                ("not good", upsert("x", |_| ()), at(REALTIME, 9)),
            ])
            .await;
        assert!(
            matches!(&outcomes[0], Some(Outcome::Held { message }) if message.contains("\"Stays\"")),
            "{outcomes:?}"
        );
        assert!(
            matches!(&outcomes[1], Some(Outcome::Held { message }) if message.contains("no company id")),
            "{outcomes:?}"
        );
        assert_eq!(ask(&reader, "SELECT count(*) FROM daisi_stays.messages").await, "1");
    });
}

#[test]
fn a_locked_table_holds_up_its_company_only() {
    run(async {
        let limits = SessionSettings {
            lock_timeout: Duration::from_millis(200),
            ..SessionSettings::default()
        };
        let (mut writer, blocker) = (Writer::with(limits, 100).await, connect().await);
        let events = |sequence| {
            [
                ("Locked", upsert("m", |m| m.status = text("s")), at(REALTIME, sequence)),
                ("Free", upsert("m", |m| m.status = text("s")), at(REALTIME, sequence + 1)),
                ("Locked", chat_upsert("c", |_| ()), at(REALTIME, sequence + 2)),
            ]
        };
        assert_eq!(writer.write(&events(1)).await, [APPLIED, APPLIED, APPLIED]);
        blocker
            .batch_execute("BEGIN; LOCK TABLE daisi_locked.messages IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        assert_eq!(writer.write(&events(4)).await, [None, APPLIED, None]);
        assert_eq!(writer.commit.away().unwrap().sqlstate, "55P03");
        blocker.batch_execute("COMMIT").await.unwrap();
        let outcomes = writer.write(&events(4)).await;
        assert_eq!(outcomes, [APPLIED, Some(Outcome::Committed(Fate::Duplicate)), APPLIED]);
        assert!(writer.commit.away().is_none());
    });
}

#[test]
fn a_session_that_ends_settles_nothing_and_another_one_goes_on() {
    run(async {
        let (mut writer, admin) = (Writer::new().await, connect().await);
        assert_eq!(
            writer.write(&[("Ends", upsert("a", |_| ()), at(REALTIME, 1))]).await,
            [APPLIED]
        );
        let pid = ask(writer.session.client(), "SELECT pg_backend_pid()").await;
        ask(&admin, &format!("SELECT pg_terminate_backend({pid})")).await;
        let event = [("Ends", upsert("b", |_| ()), at(REALTIME, 2))];
        assert_eq!(writer.write(&event).await, [None]);
        assert!(writer.commit.away().is_some());
        let mut writer = Writer::new().await;
        assert_eq!(writer.write(&event).await, [APPLIED]);
    });
}

#[test]
fn writers_of_the_same_keys_lose_nothing() {
    run(async {
        let reader = connect().await;
        let ids: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
        let mut first = Writer::new().await;
        assert_eq!(
            first.write(&[("Both", chat_upsert("c", |_| ()), at(REALTIME, 1))]).await,
            [APPLIED]
        );
        // Two streams, so that positions do not compare and every increment counts; keys in opposite orders.
        let writers = [first, Writer::new().await, Writer::new().await, Writer::new().await];
        let streams = ["s0", "s1", "s2", "s3"];
        let tasks = writers.into_iter().zip(streams).enumerate().map(|(place, (mut writer, stream))| {
            let mut ids = ids.clone();
            if place % 2 == 1 {
                ids.reverse();
            }
            async move {
                let mut counted = 0;
                for round in 0..12_u64 {
                    let mut events: Vec<_> = ids
                        .iter()
                        .zip(0..)
                        .map(|(id, n)| ("Both", upsert(id, |m| (m.flow, m.from_phone) = (shards::domain::ingest::Flow::In, text(id))), at(stream, 100 + round * 100 + n)))
                        .collect();
                    events.push(("Both", chat_update("c", Some(1), None), at(stream, 190 + round * 100)));
                    loop {
                        let outcomes = writer.write(&events).await;
                        // Away means: again, in order. What is committed is a redelivery then.
                        if outcomes.iter().all(Option::is_some) {
                            assert!(outcomes.iter().all(|outcome| matches!(outcome, Some(Outcome::Committed(fate)) if *fate != Fate::Conflict && *fate != Fate::NotFound)), "{outcomes:?}");
                            counted += u32::from(*outcomes.last().unwrap() == APPLIED);
                            break;
                        }
                    }
                }
                counted
            }
        });
        let mut tasks = tasks.collect::<Vec<_>>().into_iter();
        let (a, b, c, d) = (
            tasks.next().unwrap(),
            tasks.next().unwrap(),
            tasks.next().unwrap(),
            tasks.next().unwrap(),
        );
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        assert_eq!(a + b + c + d, 48);
        assert_eq!(ask(&reader, "SELECT unread_count FROM daisi_both.chats").await, "48");
        assert_eq!(
            ask(&reader, "SELECT count(*), count(DISTINCT message_id) FROM daisi_both.messages")
                .await,
            "40|40"
        );
        assert_eq!(
            ask(&reader, "SELECT count(*), count(DISTINCT phone_number) FROM daisi_both.contacts")
                .await,
            "40|40"
        );
        assert_eq!(ask(&reader, "SELECT count(*) FROM daisi_both.onboarding_log").await, "40");
    });
}

#[test]
fn many_companies_share_a_batch_and_a_small_cache() {
    run(async {
        let limits = SessionSettings { statements_max: 4, ..SessionSettings::default() };
        let (mut writer, reader) = (Writer::with(limits, 100).await, connect().await);
        let names: Vec<String> = (0..40).map(|n| format!("Many{n}")).collect();
        for round in 0..2 {
            let events: Vec<_> = names
                .iter()
                .cycle()
                .take(120)
                .zip(0..)
                .map(|(name, n)| {
                    (
                        name.as_str(),
                        upsert(["a", "b", "c"][n / 40], |_| ()),
                        at(REALTIME, round * 1000 + n as u64),
                    )
                })
                .collect();
            // New ones are opened a few at a time, by as many writes.
            let mut writes = 1;
            while writer.write(&events).await.contains(&None) {
                assert!(writer.commit.away().is_none() && writes < 20);
                writes += 1;
            }
            assert_eq!(writes, if round == 0 { 10 } else { 1 });
            let again = |(name, event, _): &(_, _, _), n| {
                (*name, Clone::clone(event), at(REALTIME, 500 + round * 1000 + n))
            };
            let events: Vec<_> = events.iter().zip(0..).map(|(event, n)| again(event, n)).collect();
            writer.transactions.set(0);
            assert_eq!(writer.write(&events).await, vec![APPLIED; 120]);
            assert_eq!(writer.transactions.get(), 2);
        }
        assert_eq!(ask(&reader, "SELECT count(*) FROM daisi_many39.messages").await, "3");
        let prepared: u32 =
            ask(writer.session.client(), "SELECT count(*) FROM pg_prepared_statements")
                .await
                .parse()
                .unwrap();
        assert!(prepared <= 6, "{prepared}");
    });
}
