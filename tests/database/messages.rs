//! Messages and chats, end to end: columns, conflicts, positions, order inside a batch, bad rows.

use shards::domain::ingest::{Event, Flow, HistoryMessages, MessageKey};
use shards::pipeline::commit::{Fate, Outcome};

use crate::make::{
    EPOCH, HISTORY, REALTIME, SECOND, SENT, Writer, at, chat, chat_update, chat_upsert, message,
    text, update, upsert,
};
use crate::world::{ask, connect, run};

use Fate::{Alone, Applied, Duplicate, Kept, NotFound, Stale};

#[test]
fn a_message_is_stored_whole_and_a_partial_one_blanks_nothing() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let key = MessageKey { id: "K\"9".into(), from_me: true, remote_jid: "r".into() };
        let whole = upsert("m", |m| {
            m.from_phone = text("+62 1");
            m.to_phone = text("62 2");
            m.flow = Flow::Out;
            (m.message_type, m.message_text) = (text("t"), text("h\u{e9} \"\\"));
            (m.message_url, m.status) = (text("u"), text("sent"));
            m.message_obj = Some("{\"n\": 12345678901234567890}");
            m.key = Some(key);
        });
        assert_eq!(writer.fates("Whole", REALTIME, &[(5, whole)]).await, [Applied]);
        let row = "SELECT message_id, from_phone, to_phone, chat_id, jid, flow, message_type, message_text, message_url, agent_id, \
            company_id, message_obj, edited_message_obj, key, status, is_deleted, message_timestamp, message_date, created_at = updated_at, \
            last_metadata->>'processed_at', created_at AT TIME ZONE 'UTC' FROM daisi_whole.messages";
        assert_eq!(
            ask(&reader, row).await,
            "m|+62 1|62 2|chat|jid|OUT|t|h\u{e9} \"\\|u|ag|Whole|{\"n\": 12345678901234567890}|-|\
             {\"id\": \"K\\\"9\", \"fromMe\": true, \"remoteJid\": \"r\"}|sent|f|1767607200|2026-01-05|t|\
             2026-01-13T13:46:40.000000000Z|2026-01-13 13:46:40"
        );
        let metadata = "SELECT last_metadata - 'processed_at' FROM daisi_whole.messages";
        let metadata = ask(&reader, metadata).await;
        for part in [
            "\"stream_sequence\": 5",
            "\"message_id\": \"msg-5\"",
            "\"stream\": \"wa_events_stream\"",
            "\"consumer\": \"c\"",
            "\"domain\": \"\"",
        ] {
            assert!(metadata.contains(part), "{metadata}");
        }
        let partial = upsert("m", |m| {
            (m.status, m.message_text, m.jid) = (text("read"), text(""), "other".into())
        });
        assert_eq!(writer.fates("Whole", REALTIME, &[(6, partial)]).await, [Applied]);
        let after = "SELECT count(*) OVER (), status, message_text, message_url, message_type, message_obj IS NULL, jid, updated_at > created_at FROM daisi_whole.messages";
        assert_eq!(ask(&reader, after).await, "1|read|h\u{e9} \"\\|u|t|f|jid|t");
    });
}

#[test]
fn a_position_decides_whether_a_write_has_an_effect() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let status = |word: &'static str| upsert("m", |m| m.status = text(word));
        let now = "SELECT status FROM daisi_guard.messages";
        for (sequence, word, fate, then) in [
            (5, "five", Applied, "five"),
            (5, "again", Duplicate, "five"),
            (4, "late", Stale, "five"),
            (7, "seven", Applied, "seven"),
        ] {
            assert_eq!(
                writer.fates("Guard", REALTIME, &[(sequence, status(word))]).await,
                [fate],
                "{word}"
            );
            assert_eq!(ask(&reader, now).await, then);
        }
        // Next to a new row and in one batch, in and out of order.
        let events = [(6, status("six")), (8, upsert("n", |_| ()))];
        assert_eq!(writer.fates("Guard", REALTIME, &events).await, [Stale, Applied]);
        let events = [(9, status("nine")), (3, upsert("n", |_| ())), (10, upsert("o", |_| ()))];
        assert_eq!(writer.fates("Guard", REALTIME, &events).await, [Applied, Stale, Applied]);
        // (What a later event of the batch wrote counts as applied for both.)
        // A stale event next to a newer one that lacks what it brings: not even that is taken from it.
        let events = [(7, upsert("m", |m| m.message_text = text("stale"))), (11, status("eleven"))];
        assert_eq!(writer.fates("Guard", REALTIME, &events).await, [Applied, Applied]);
        assert_eq!(
            ask(
                &reader,
                "SELECT status, message_text FROM daisi_guard.messages WHERE message_id = 'm'"
            )
            .await,
            "eleven|"
        );
        // What the first service's dead letters left says nothing, nor does a row without metadata.
        for metadata in [
            "'{\"stream\": \"\", \"stream_sequence\": 99}'",
            "NULL",
            "'{}'",
            "'{\"stream\": 7, \"stream_sequence\": \"x\", \"processed_at\": []}'",
        ] {
            reader
                .batch_execute(&format!(
                    "UPDATE daisi_guard.messages SET last_metadata = {metadata}"
                ))
                .await
                .unwrap();
            assert_eq!(writer.fates("Guard", REALTIME, &[(2, status(metadata))]).await, [Applied]);
            assert_eq!(ask(&reader, &format!("{now} WHERE message_id = 'm'")).await, metadata);
        }
    });
}

#[test]
fn a_stream_made_anew_and_one_that_lost_its_tail_are_newer() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let status = |word: &'static str| upsert("m", |m| m.status = text(word));
        assert_eq!(writer.fates("Anew", REALTIME, &[(1000, status("old"))]).await, [Applied]);
        // Published after the row was processed, beyond the skew: another message with a lower sequence.
        let mut position = at(REALTIME, 2);
        position.published_ns = writer.now_ns.get() + 3 * SECOND;
        let outcome = writer.write(&[("Anew", status("within"), position)]).await;
        assert_eq!(outcome, [Some(Outcome::Committed(Stale))]);
        position.published_ns = writer.now_ns.get() + 30 * SECOND;
        let outcome = writer.write(&[("Anew", status("lost tail"), position)]).await;
        assert_eq!(outcome, [Some(Outcome::Committed(Applied))]);
        assert_eq!(ask(&reader, "SELECT status FROM daisi_anew.messages").await, "lost tail");
        // And its redelivery is none the newer, because nothing is processed before it was published.
        assert_eq!(
            writer.write(&[("Anew", status("again"), position)]).await,
            [Some(Outcome::Committed(Duplicate))]
        );
        writer.now_ns.set(position.published_ns + 60 * SECOND);
        writer.stream_created_ns = position.published_ns + 30 * SECOND;
        // With others in the batch whose horizon is as high, and with one whose is lower: `Alone` shows nowhere.
        assert_eq!(writer.fates("Anew", REALTIME, &[(1, status("made anew"))]).await, [Applied]);
        assert_eq!(ask(&reader, "SELECT status FROM daisi_anew.messages").await, "made anew");
        let (low, mut high) = (at(REALTIME, 1), at(REALTIME, 1));
        writer.stream_created_ns = EPOCH;
        high.published_ns = writer.now_ns.get() + 100 * SECOND;
        let events = [("Anew", upsert("n", |_| ()), low), ("Anew", status("alone"), high)];
        let outcomes = writer.write(&events).await;
        assert!(!outcomes.contains(&Some(Outcome::Committed(Alone))));
        assert_eq!(
            outcomes,
            [Some(Outcome::Committed(Applied)), Some(Outcome::Committed(Applied))]
        );
        assert_eq!(
            ask(&reader, "SELECT status FROM daisi_anew.messages WHERE message_id = 'm'").await,
            "alone"
        );
    });
}

#[test]
fn events_of_one_key_take_effect_in_order_inside_a_batch() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let events = [
            (1, upsert("a", |m| (m.status, m.message_text) = (text("sent"), text("hi")))),
            (2, upsert("b", |_| ())),
            (3, upsert("a", |m| m.status = text("delivered"))),
            (4, update("a", |u| u.status = text("read"))),
            (
                5,
                update("a", |u| {
                    (u.is_deleted, u.edited_message_obj) = (Some(true), Some("{\"e\": 1}"))
                }),
            ),
            (6, upsert("a", |m| (m.status, m.message_url) = (text("failed"), text("url")))),
            (7, update("none", |u| u.status = text("read"))),
            (8, update("b", |u| (u.is_deleted, u.message_url) = (Some(false), text("b-url")))),
        ];
        let fates = writer.fates("Order", REALTIME, &events).await;
        assert_eq!(
            fates,
            [Applied, Applied, Applied, Applied, Applied, Applied, NotFound, Applied]
        );
        assert_eq!(writer.transactions.get(), 1);
        let rows = "SELECT message_id, status, message_text, message_url, is_deleted, edited_message_obj, last_metadata->'stream_sequence' \
            FROM daisi_order.messages ORDER BY 1";
        assert_eq!(ask(&reader, rows).await, "a|failed|hi|url|t|{\"e\": 1}|6\nb|||b-url|f|-|8");
        // All of it again: nothing moves.
        let before = ask(&reader, "SELECT * FROM daisi_order.messages ORDER BY 1").await;
        let fates = writer.fates("Order", REALTIME, &events).await;
        assert_eq!(
            fates.iter().filter(|fate| [Stale, Duplicate].contains(fate)).count(),
            7,
            "{fates:?}"
        );
        assert_eq!(ask(&reader, "SELECT * FROM daisi_order.messages ORDER BY 1").await, before);
    });
}

#[test]
fn dates_come_from_the_message_else_from_its_publishing_else_from_its_row() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let timed = |id: &'static str, time: Option<i64>| {
            upsert(id, |m| (m.message_timestamp, m.status) = (time, text("s")))
        };
        let events = [
            (1, timed("day", Some(SENT))),
            (2, timed("none", None)),
            (3, timed("zero", Some(0))),
            (4, timed("ms", Some(SENT * 1000))),
            (5, timed("old", Some(1))),
            // The same id on another day is another row; without a time it is the one that is there.
            (6, timed("two", Some(SENT))),
            (7, timed("two", Some(SENT + 86_400))),
            (8, timed("day", None)),
        ];
        assert_eq!(writer.fates("Dates", REALTIME, &events).await, [Applied; 8]);
        let rows = "SELECT message_id, message_date, message_timestamp FROM daisi_dates.messages ORDER BY id";
        let rows = ask(&reader, rows).await;
        let mut rows: Vec<&str> = rows.lines().collect();
        rows.sort_unstable();
        assert_eq!(
            rows,
            [
                "day|2026-01-05|1767607200",
                "ms|57983-03-30|1767607200000",
                "none|2026-01-02|0",
                "old|1970-01-01|1",
                "two|2026-01-05|1767607200",
                "two|2026-01-06|1767693600",
                "zero|2026-01-02|0",
            ]
        );
        let outcomes = writer
            .write(&[
                ("Dates", timed("beyond", Some(i64::MAX)), at(REALTIME, 9)),
                ("Dates", timed("good", Some(SENT)), at(REALTIME, 10)),
            ])
            .await;
        assert!(
            matches!(&outcomes[0], Some(Outcome::Bad { sqlstate, .. }) if sqlstate == "22008"),
            "{outcomes:?}"
        );
        assert_eq!(outcomes[1], Some(Outcome::Committed(Applied)));
        // The lowest id of several days is updated, with the date remembered and without.
        assert_eq!(
            writer.fates("Dates", REALTIME, &[(11, update("two", |u| u.status = text("x")))]).await,
            [Applied]
        );
        let mut forgetful =
            Writer::with(shards::edge::pg::write::SessionSettings::default(), 0).await;
        assert_eq!(
            forgetful
                .fates("Dates", REALTIME, &[(12, update("two", |u| u.message_url = text("y")))])
                .await,
            [Applied]
        );
        let two = "SELECT message_date, status, message_url FROM daisi_dates.messages WHERE message_id = 'two' ORDER BY 1";
        assert_eq!(ask(&reader, two).await, "2026-01-05|x|y\n2026-01-06|s|");
    });
}

#[test]
fn history_fills_what_is_empty_and_never_overwrites_realtime() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let old = |id: &'static str, status: &'static str| {
            message(id, |m| (m.status, m.message_text) = (text(status), text("from history")))
        };
        let history = |messages| {
            Event::HistoryMessages(HistoryMessages {
                messages,
                is_last_batch: false,
                agent_id: None,
            })
        };
        let events =
            [(1, upsert("live", |m| m.status = text("read"))), (2, upsert("bare", |_| ()))];
        writer.fates("Past", REALTIME, &events).await;
        let event = history(vec![
            old("live", "sent"),
            old("bare", "sent"),
            old("new", "sent"),
            old("new", "twice"),
        ]);
        assert_eq!(writer.fates("Past", HISTORY, &[(900, event.clone())]).await, [Applied]);
        let rows = "SELECT message_id, status, message_text, last_metadata->>'stream' FROM daisi_past.messages ORDER BY 1";
        let expected = "bare|sent||wa_events_stream\nlive|read||wa_events_stream\nnew|twice|from history|wa_history_events_stream";
        assert_eq!(ask(&reader, rows).await, expected);
        assert_eq!(writer.fates("Past", HISTORY, &[(900, event)]).await, [Kept]);
        assert_eq!(ask(&reader, rows).await, expected);
        // A realtime event that comes again is still known, and a new one wins over history.
        assert_eq!(
            writer.fates("Past", REALTIME, &[(2, upsert("bare", |m| m.status = text("z")))]).await,
            [Duplicate]
        );
        assert_eq!(
            writer.fates("Past", REALTIME, &[(3, upsert("new", |m| m.status = text("z")))]).await,
            [Applied]
        );
        assert_eq!(writer.fates("Past", HISTORY, &[(901, history(vec![]))]).await, [Fate::Empty]);

        writer
            .fates(
                "Past",
                REALTIME,
                &[(4, chat_upsert("c", |c| (c.push_name, c.unread_count) = (text(""), Some(7))))],
            )
            .await;
        let chats = vec![
            chat("c", |c| {
                (c.push_name, c.unread_count, c.last_message) = (text("n"), Some(1), Some("{}"))
            }),
            chat("d", |_| ()),
        ];
        assert_eq!(
            writer.fates("Past", HISTORY, &[(902, Event::HistoryChats(chats))]).await,
            [Applied]
        );
        let rows = "SELECT chat_id, push_name, unread_count, last_message, last_metadata->'stream_sequence' FROM daisi_past.chats ORDER BY 1";
        assert_eq!(ask(&reader, rows).await, "c|n|7|{}|4\nd||0|-|902");
    });
}

#[test]
fn unread_counts_count_each_position_once() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let chat = chat_upsert("c", |c| {
            (c.push_name, c.is_group, c.unread_count) = (text("Sari"), Some(true), Some(10));
            (c.conversation_timestamp, c.last_message) = (Some(50), Some("{\"t\": 1}"));
        });
        assert_eq!(
            writer
                .fates("Count", REALTIME, &[(1, chat), (2, chat_update("c", Some(1), Some(40)))])
                .await,
            [Applied; 2]
        );
        let row = "SELECT unread_count, conversation_timestamp, push_name, is_group, last_message, last_metadata->'stream_sequence' FROM daisi_count.chats";
        assert_eq!(ask(&reader, row).await, "11|50|Sari|t|{\"t\": 1}|2");
        // A set among increments; some of them delivered before, in and out of the batch.
        let events = [
            (2, chat_update("c", Some(1), None)),
            (3, chat_update("c", Some(1), Some(60))),
            (4, chat_update("c", Some(5), None)),
            (5, chat_update("c", Some(1), None)),
            (6, chat_update("c", Some(1), Some(55))),
            (6, chat_update("c", Some(1), None)),
            (7, chat_update("missing", Some(1), None)),
        ];
        let fates = writer.fates("Count", REALTIME, &events).await;
        assert_eq!(fates, [Duplicate, Applied, Applied, Applied, Applied, Duplicate, NotFound]);
        assert_eq!(ask(&reader, row).await, "7|60|Sari|t|{\"t\": 1}|6");
        assert_eq!(
            writer.fates("Count", REALTIME, &events[..6]).await[1..],
            [Stale, Stale, Stale, Duplicate, Duplicate]
        );
        assert_eq!(ask(&reader, row).await, "7|60|Sari|t|{\"t\": 1}|6");
        for (sequence, unread, then) in [
            (8, Some(i32::MAX), i32::MAX),
            (9, Some(1), i32::MAX),
            (10, Some(-4), 0),
            (11, Some(1), 1),
            (12, None, 0),
        ] {
            writer.fates("Count", REALTIME, &[(sequence, chat_update("c", unread, None))]).await;
            assert_eq!(
                ask(&reader, "SELECT unread_count FROM daisi_count.chats").await,
                then.to_string()
            );
        }
        // A whole chat blanks what it lacks; company and address stay.
        let plain =
            chat_upsert("c", |c| (c.jid, c.conversation_timestamp) = ("other".into(), Some(3)));
        assert_eq!(writer.fates("Count", REALTIME, &[(13, plain)]).await, [Applied]);
        assert_eq!(ask(&reader, "SELECT jid, push_name, conversation_timestamp, last_message, is_group, company_id FROM daisi_count.chats").await, "jid||3|-|t|Count");
    });
}

#[test]
fn bad_rows_go_their_own_way_and_the_rest_is_committed() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        writer.fates("Bad", REALTIME, &[(1, upsert("first", |_| ()))]).await;
        reader
            .batch_execute(
                "ALTER TABLE daisi_bad.messages ADD CONSTRAINT no_thirteen CHECK (status <> '13')",
            )
            .await
            .unwrap();
        let ids: Vec<String> = (0..500).map(|n| format!("m{n}")).collect();
        let bad = [13, 77, 78, 200, 311, 444, 499];
        let events: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let event = upsert(id, |m| match bad.iter().position(|bad| *bad == n) {
                    None => {}
                    Some(place) if place % 3 == 0 => m.message_text = text("nul\0"),
                    Some(place) if place % 3 == 1 => m.status = text("13"),
                    Some(_) => m.message_obj = Some("{\"a\": \"\\u0000\"}"),
                });
                let company = if n % 2 == 0 { "Bad" } else { "Bad2" };
                (company, event, at(REALTIME, n as u64 + 2))
            })
            .collect();
        // In the other company the constraint does not hold.
        let is_bad = |n: usize| {
            bad.iter()
                .position(|bad| *bad == n)
                .is_some_and(|place| place % 3 != 1 || n.is_multiple_of(2))
        };
        let outcomes = writer.write(&events).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Some(Outcome::Bad { sqlstate, message }) => {
                    assert!(is_bad(n), "{n}: {message}");
                    assert!(
                        ["22021", "23514", "22P05"].contains(&sqlstate.as_str()),
                        "{sqlstate} {message}"
                    );
                    assert!(!message.contains("m499") && !message.is_empty(), "{message}");
                }
                other => assert!(
                    !is_bad(n) && *other == Some(Outcome::Committed(Applied)),
                    "{n}: {other:?}"
                ),
            }
        }
        let stored = ask(&reader, "SELECT (SELECT count(*) FROM daisi_bad.messages) + (SELECT count(*) FROM daisi_bad2.messages)").await;
        let good = (0..500).filter(|n| !is_bad(*n)).count();
        assert_eq!(stored, (good + 1).to_string());
        assert!(writer.transactions.get() < 140, "{} transactions", writer.transactions.get());
    });
}

#[test]
fn a_history_event_with_a_bad_item_is_refused_whole() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let messages: Vec<String> = (0..2500).map(|n| format!("h{n}")).collect();
        let event = |bad: bool| {
            let items = messages.iter().map(|id| {
                message(id, |m| {
                    if bad && id == "h2400" {
                        m.message_text = text("\0")
                    }
                })
            });
            Event::HistoryMessages(HistoryMessages {
                messages: items.collect(),
                is_last_batch: false,
                agent_id: None,
            })
        };
        let outcomes = writer
            .write(&[
                ("Hist", event(true), at(HISTORY, 1)),
                ("Hist", upsert("x", |_| ()), at(REALTIME, 1)),
            ])
            .await;
        assert!(
            matches!(&outcomes[0], Some(Outcome::Bad { sqlstate, .. }) if sqlstate == "22021"),
            "{outcomes:?}"
        );
        assert_eq!(outcomes[1], Some(Outcome::Committed(Applied)));
        assert_eq!(ask(&reader, "SELECT count(*) FROM daisi_hist.messages").await, "1");
        assert_eq!(writer.fates("Hist", HISTORY, &[(2, event(false))]).await, [Applied]);
        assert_eq!(ask(&reader, "SELECT count(*) FROM daisi_hist.messages").await, "2501");
    });
}
