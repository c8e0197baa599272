//! Contacts, agents, and what a message does to its contact.

use shards::domain::ingest::{
    Agent, Campaign, Contact, ContactUpdate, Event, Flow, HistoryMessages,
};
use shards::edge::pg::write::SessionSettings;
use shards::pipeline::commit::Fate;

use crate::make::{HISTORY, REALTIME, SECOND, Writer, message, text, upsert};
use crate::world::{ask, connect, run};

use Fate::{Applied, Duplicate, Kept, NotFound, Stale};

fn contact<'a>(phone: &'a str, name: &'a str, chat: Option<&'a str>) -> Contact<'a> {
    Contact {
        phone_number: phone.into(),
        agent_id: "ag".into(),
        push_name: name.into(),
        chat_id: chat.map(Into::into),
    }
}

fn contact_upsert<'a>(phone: &'a str, name: &'a str, chat: Option<&'a str>) -> Event<'a> {
    Event::ContactsUpsert(contact(phone, name, chat))
}

fn contact_update<'a>(phone: &'a str, name: &'a str) -> Event<'a> {
    Event::ContactsUpdate(ContactUpdate {
        phone_number: phone.into(),
        agent_id: "ag".into(),
        push_name: name.into(),
    })
}

fn incoming<'a>(id: &'a str, phone: &'a str, campaign: Option<Campaign<'a>>) -> Event<'a> {
    upsert(id, |m| {
        (m.flow, m.from_phone, m.campaign) = (Flow::In, text(phone), campaign);
    })
}

fn campaign<'a>(tags: &'a str, assigned_to: &'a str, origin: &'a str) -> Option<Campaign<'a>> {
    let (tags, assigned_to, origin) = (text(tags), text(assigned_to), text(origin));
    Some(Campaign { is_campaign: true, tags, assigned_to, origin })
}

#[test]
fn contacts_are_upserted_by_agent_and_phone() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let events = [
            (1, contact_upsert("1", "one", Some("c1"))),
            (2, contact_upsert("2", "two", Some("c1"))),
            (3, contact_upsert("3", "three", None)),
            (4, contact_upsert("3", "three again", Some("c3"))),
            (5, contact_update("3", "")),
            (6, contact_update("9", "nobody")),
            (7, contact_upsert("4", "four", Some(""))),
        ];
        let fates = writer.fates("Con", REALTIME, &events).await;
        assert_eq!(fates, [Applied, Applied, Applied, Applied, Applied, NotFound, Applied]);
        let rows = "SELECT phone_number, push_name, chat_id, gender, status, company_id, tags, origin, last_metadata->'stream_sequence' \
            FROM daisi_con.contacts ORDER BY phone_number";
        let expected = "1|one|c1|MALE|ACTIVE|Con|-|-|1\n2|two|-|MALE|ACTIVE|Con|-|-|2\n3||c3|MALE|ACTIVE|Con|-|-|5\n4|four|-|MALE|ACTIVE|Con|-|-|7";
        assert_eq!(ask(&reader, rows).await, expected);
        let fates = writer.fates("Con", REALTIME, &events).await;
        assert_eq!(fates[..3], [Duplicate, Duplicate, Stale]);
        assert_eq!(fates[4..], [Duplicate, NotFound, Duplicate]);
        assert_eq!(ask(&reader, rows).await, expected);
        // Ids come from the name: whoever writes makes the same one.
        let id = "SELECT id FROM daisi_con.contacts WHERE phone_number = '1'";
        assert_eq!(ask(&reader, id).await, uuid_of("Con", "ag", "1"));
        // A contact that was given another phone keeps its row and its id.
        reader
            .batch_execute(
                "UPDATE daisi_con.contacts SET phone_number = '77' WHERE phone_number = '1'",
            )
            .await
            .unwrap();
        assert_eq!(
            writer.fates("Con", REALTIME, &[(8, contact_upsert("1", "new", Some("c1")))]).await,
            [Applied]
        );
        let rows = "SELECT phone_number, push_name, chat_id FROM daisi_con.contacts WHERE push_name IN ('one', 'new') ORDER BY 1";
        assert_eq!(ask(&reader, rows).await, "1|new|-\n77|one|c1");
    });
}

/// The id as contract and code have it: version 5 of company, agent and phone, each ended by a zero.
fn uuid_of(company: &str, agent: &str, phone: &str) -> String {
    let namespace = uuid::Uuid::from_u128(0x6f1c_2c8e_4d0b_5f7a_9a53_2b1e_77c4_d0a9);
    let name = format!("{company}\0{agent}\0{phone}\0");
    uuid::Uuid::new_v5(&namespace, name.as_bytes()).to_string()
}

#[test]
fn history_contacts_are_known_by_chat_and_fill_only_what_is_empty() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        writer
            .fates(
                "Hcon",
                REALTIME,
                &[
                    (1, contact_upsert("1", "live", Some("c1"))),
                    (2, contact_upsert("2", "", Some("c2"))),
                ],
            )
            .await;
        let history = |contacts| Event::HistoryContacts(contacts);
        let items = vec![
            contact("1", "old", Some("c1")),
            contact("22", "old", Some("c2")),
            contact("3", "old", Some("c3")),
        ];
        assert_eq!(writer.fates("Hcon", HISTORY, &[(50, history(items.clone()))]).await, [Applied]);
        let rows = "SELECT phone_number, push_name, chat_id, last_metadata->>'stream_sequence' FROM daisi_hcon.contacts ORDER BY 1";
        let expected = "1|live|c1|1\n2|old|c2|2\n3|old|c3|50";
        assert_eq!(ask(&reader, rows).await, expected);
        assert_eq!(writer.fates("Hcon", HISTORY, &[(50, history(items))]).await, [Kept]);
        assert_eq!(
            writer
                .fates("Hcon", HISTORY, &[(49, history(vec![contact("3", "older", Some("c3"))]))])
                .await,
            [Stale]
        );
        assert_eq!(ask(&reader, rows).await, expected);
    });
}

#[test]
fn contacts_of_the_first_service_without_a_unique_pair_are_found() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        writer.fates("Twins", REALTIME, &[(1, contact_upsert("1", "x", None))]).await;
        reader
            .batch_execute(
                "DROP INDEX daisi_twins.uq_contacts_agent_phone; DELETE FROM daisi_twins.contacts; \
                 INSERT INTO daisi_twins.contacts (id, phone_number, agent_id, chat_id, created_at, push_name) VALUES \
                 ('', '5', 'ag', '', '2020-01-01', 'first'), ('u', '5', 'ag', NULL, '2021-01-01', 'second')",
            )
            .await
            .unwrap();
        assert_eq!(
            writer.fates("Twins", REALTIME, &[(2, contact_upsert("5", "new", Some("c")))]).await,
            [Applied]
        );
        let rows = "SELECT id, push_name, chat_id FROM daisi_twins.contacts ORDER BY id";
        assert_eq!(ask(&reader, rows).await, "|new|c\nu|second|-");
    });
}

#[test]
fn agents_keep_what_an_event_lacks() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let agent = |with: fn(&mut Agent<'static>)| {
            let mut agent = Agent { agent_id: "a".into(), ..Agent::default() };
            with(&mut agent);
            Event::ConnectionUpdate(agent)
        };
        let whole = agent(|a| {
            (a.qr_code, a.status, a.agent_name) = (text("qr"), text("connecting"), text("desk"));
            (a.host_name, a.version, a.phone_number) = (text("node"), text("2"), text(""));
        });
        let events = [
            (1, whole),
            (2, agent(|a| (a.status, a.qr_code) = (text("connected"), text("")))),
            (3, agent(|a| (a.phone_number, a.status) = (text("62"), text("pairing")))),
        ];
        assert_eq!(writer.fates("Agents", REALTIME, &events[..1]).await, [Applied]);
        let rows = "SELECT agent_id, qr_code, status, agent_name, host_name, version, phone_number, company_id, updated_at > created_at FROM daisi_agents.agents";
        assert_eq!(ask(&reader, rows).await, "a|qr|connecting|desk|node|2||Agents|f");
        assert_eq!(writer.fates("Agents", REALTIME, &events[1..]).await, [Applied, Applied]);
        assert_eq!(ask(&reader, rows).await, "a|qr|pairing|desk|node|2|62|Agents|t");
        assert_eq!(writer.fates("Agents", REALTIME, &events[1..2]).await, [Stale]);
        assert_eq!(writer.fates("Agents", REALTIME, &events[2..]).await, [Duplicate]);
    });
}

#[test]
fn an_incoming_message_onboards_its_contact_once() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let events = [
            (1, incoming("m1", "+62 (8) 1-2", None)),
            (2, incoming("m2", "62 81-2", None)),
            (3, upsert("m3", |m| m.from_phone = text("999"))),
            (4, incoming("m4", "", None)),
            (5, incoming("m5", "+ ()", None)),
            (6, incoming("m6", "7", campaign("promo, jan,promo", "u-4", "Ads"))),
        ];
        assert_eq!(writer.fates("Onb", REALTIME, &events).await, [Applied; 6]);
        let contacts = "SELECT phone_number, origin, tags, assigned_to, status, first_message_id, first_message_timestamp, chat_id, company_id \
            FROM daisi_onb.contacts ORDER BY phone_number";
        let expected = "6281-2|DirectChat|Onboarded||ACTIVE|m1|1767607200|chat|Onb\n7|Ads|promo, jan,promo|u-4|ACTIVE|m6|1767607200|-|Onb";
        assert_eq!(ask(&reader, contacts).await, expected);
        let log = "SELECT message_id, agent_id, company_id, phone_number, \"timestamp\", last_metadata->'stream_sequence' FROM daisi_onb.onboarding_log ORDER BY id";
        let logged = "m1|ag|Onb|6281-2|1767607200|1\nm6|ag|Onb|7|1767607200|6";
        assert_eq!(ask(&reader, log).await, logged);
        // Again, also by a writer that remembers nothing.
        let mut forgetful = Writer::with(SessionSettings::default(), 0).await;
        forgetful.now_ns.set(writer.now_ns.get());
        let fates = forgetful.fates("Onb", REALTIME, &events).await;
        assert!(!fates.contains(&Applied), "{fates:?}");
        assert_eq!(
            (ask(&reader, contacts).await, ask(&reader, log).await),
            (expected.to_owned(), logged.to_owned())
        );
        // A campaign adds its tags behind those that are there, assigns, and leaves the origin.
        let later = [
            (7, incoming("m7", "6281-2", campaign(" vip ,Onboarded,, new", "u-9", "Ads"))),
            (8, incoming("m8", "7", campaign("", "", "X"))),
        ];
        assert_eq!(writer.fates("Onb", REALTIME, &later).await, [Applied; 2]);
        let expected = "6281-2|DirectChat|Onboarded,vip,new|u-9|ACTIVE|m1|1767607200|chat|Onb\n7|Ads|promo,jan|u-4|ACTIVE|m6|1767607200|-|Onb";
        assert_eq!(ask(&reader, contacts).await, expected);
        // A late retry of an older campaign changes nothing.
        assert_eq!(
            writer
                .fates(
                    "Onb",
                    REALTIME,
                    &[(5, incoming("late", "6281-2", campaign("late", "u-0", "Ads")))]
                )
                .await,
            [Applied]
        );
        assert_eq!(ask(&reader, contacts).await, expected);
    });
}

#[test]
fn a_contact_that_exists_is_completed_by_its_first_message() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let events = [
            (1, contact_upsert("1", "one", None)),
            (2, incoming("m1", "1", None)),
            (3, contact_update("1", "renamed")),
        ];
        assert_eq!(writer.fates("Comp", REALTIME, &events).await, [Applied; 3]);
        reader
            .batch_execute(
                "INSERT INTO daisi_comp.contacts (id, phone_number, agent_id, tags, origin, first_message_id) VALUES \
                 ('k', '2', 'ag', 'a,b', '', 'f'), ('l', '3', 'ag', 'Onboarded', 'Shop', ''), ('other', '4', 'other', '', '', '')",
            )
            .await
            .unwrap();
        let events = [
            (4, incoming("m2", "2", None)),
            (5, incoming("m3", "3", None)),
            (6, incoming("m4", "4", None)),
        ];
        assert_eq!(writer.fates("Comp", REALTIME, &events).await, [Applied; 3]);
        let rows = "SELECT phone_number, agent_id, push_name, origin, tags, first_message_id FROM daisi_comp.contacts ORDER BY 1, 2";
        assert_eq!(
            ask(&reader, rows).await,
            "1|ag|renamed|DirectChat|Onboarded|m1\n2|ag|-|DirectChat|a,b,Onboarded|f\n3|ag|-|Shop|Onboarded|m3\n\
             4|ag|-|DirectChat|Onboarded|m4\n4|other|-|||"
        );
        assert_eq!(ask(&reader, "SELECT count(*) FROM daisi_comp.onboarding_log").await, "4");
    });
}

#[test]
fn a_post_scan_onboards_once_what_history_brought() {
    run(async {
        let (mut writer, reader) = (Writer::new().await, connect().await);
        let from = |id: &'static str, phone: &'static str, time| {
            message(id, |m| {
                (m.flow, m.from_phone, m.message_timestamp) = (Flow::In, text(phone), Some(time));
            })
        };
        let messages = vec![
            from("late", "+1", 1_700_000_500),
            from("early", "(1)", 1_700_000_100),
            from("logged", "2", 1_700_000_100),
            from("group", "123456789012345678", 1_700_000_100),
            message("out", |m| m.from_phone = text("3")),
        ];
        let last = |messages| {
            let agent_id = text("ag");
            Event::HistoryMessages(HistoryMessages { messages, is_last_batch: true, agent_id })
        };
        let contacts = ["1", "2", "123456789012345678", "3"].map(|phone| contact(phone, "n", None));
        let events = [
            (1, Event::HistoryContacts(contacts.to_vec())),
            (2, last(messages)),
            (3, last(vec![])),
        ];
        assert_eq!(writer.fates("Scan", HISTORY, &events).await, [Applied; 3]);
        reader
            .batch_execute(
                "INSERT INTO daisi_scan.onboarding_log (agent_id, phone_number) VALUES ('ag', '2')",
            )
            .await
            .unwrap();
        let due = "SELECT count(*) FROM daisi_scan.daisi_post_scans WHERE done_at IS NULL";
        let due_at = writer.now_ns.get() + 15 * 60 * SECOND;
        assert!(!writer.session.post_scan("Scan", due_at - 60 * SECOND).await.unwrap());
        assert_eq!(ask(&reader, due).await, "2");
        while writer.session.post_scan("Scan", due_at).await.unwrap() {}
        assert_eq!(ask(&reader, due).await, "0");
        let rows = "SELECT phone_number, origin, tags, first_message_id, first_message_timestamp FROM daisi_scan.contacts ORDER BY 1";
        assert_eq!(
            ask(&reader, rows).await,
            "1|DirectChat|Onboarded|early|1700000100\n123456789012345678|-|-|-|-\n2|-|-|-|-\n3|-|-|-|-"
        );
        let log = "SELECT message_id, agent_id, company_id, phone_number, last_metadata->>'source', last_metadata->>'synced_at' IS NOT NULL \
            FROM daisi_scan.onboarding_log WHERE message_id IS NOT NULL";
        assert_eq!(ask(&reader, log).await, "early|ag|Scan|1|post_scan_sync|t");
        // A redelivered trigger finds its task done.
        assert_eq!(writer.fates("Scan", HISTORY, &events[2..]).await, [Duplicate]);
        assert_eq!(ask(&reader, due).await, "0");
    });
}
