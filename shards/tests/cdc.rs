//! The cdc transform against its contract: golden samples, every special case, every defect of the
//! service it replaces, hostile input, and a second implementation of the rules on `serde_json`.
#![expect(clippy::expect_used, reason = "a test that cannot read its own data must fail")]

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shards::domain::cdc::{
    Action, CdcRules, CdcSettings, Change, ChangeSpans, EnvelopeRule, FilterCause,
    IDENTITY_BYTES_MAX, Reason, Rejection, Table, TableLabel, Verdict, transform,
};

const SAMPLES: [(&str, &str, &str); 4] = [
    (
        "cdc.CompanyAAA01.messages",
        include_str!("../../tests/golden/cdc/messages_insert.json"),
        include_str!("../../tests/golden/cdc/messages_insert.out"),
    ),
    (
        "cdc.CompanyAAA01.chats",
        include_str!("../../tests/golden/cdc/chats_update.json"),
        include_str!("../../tests/golden/cdc/chats_update.out"),
    ),
    (
        "cdc.CompanyAAA01.agents",
        include_str!("../../tests/golden/cdc/agents_update.json"),
        include_str!("../../tests/golden/cdc/agents_update.out"),
    ),
    (
        "sequin.changes.db.daisi_CompanyAAA01.contacts.delete",
        include_str!("../../tests/golden/cdc/contacts_delete.json"),
        include_str!("../../tests/golden/cdc/contacts_delete.out"),
    ),
];
const TIME: &[u8; 20] = b"2025-06-01T10:00:00Z";
const PUBLIC: &str = "sequin.db.public.messages.insert";

fn rules() -> CdcRules {
    CdcRules::compile(&CdcSettings::default()).expect("defaults compile")
}

fn rules_with(edit: impl FnOnce(&mut CdcSettings)) -> CdcRules {
    let mut settings = CdcSettings::default();
    edit(&mut settings);
    CdcRules::compile(&settings).expect("test settings compile")
}

/// What is published, read back.
#[derive(Debug, PartialEq)]
struct Published {
    subject: String,
    payload: String,
    identity: String,
    message_id: String,
}

impl Published {
    fn of(change: &Change<'_>) -> Self {
        let mut payload = BytesMut::new();
        change.write_payload(&mut payload, TIME);
        assert_eq!(payload.len(), change.payload_len(), "the announced length is the written one");
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).expect("UTF-8")
        };
        Self {
            subject: text(&|out| change.write_subject("wa", out)),
            payload: String::from_utf8(payload.to_vec()).expect("UTF-8"),
            identity: text(&|out| change.write_identity(out)),
            message_id: text(&|out| change.write_message_id(out)),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.payload).expect("a payload is JSON")
    }
}

fn forwarded_by(rules: &CdcRules, subject: &str, body: &str) -> Published {
    match transform(rules, subject.as_bytes(), body.as_bytes()) {
        Verdict::Forward(spans) => Published::of(&spans.bind(subject.as_bytes(), body.as_bytes())),
        other => panic!("{other:?} for {body}"),
    }
}

fn forwarded(subject: &str, body: &str) -> Published {
    forwarded_by(&rules(), subject, body)
}

fn rejected(subject: &str, body: &[u8]) -> Rejection {
    match transform(&rules(), subject.as_bytes(), body) {
        Verdict::Rejected(rejection) => rejection,
        other => panic!("{other:?} for {}", String::from_utf8_lossy(&body[..body.len().min(300)])),
    }
}

fn reason(subject: &str, body: &Value) -> Reason {
    rejected(subject, body.to_string().as_bytes()).reason
}

fn filtered(rules: &CdcRules, subject: &str, body: &str) -> (String, FilterCause) {
    match transform(rules, subject.as_bytes(), body.as_bytes()) {
        Verdict::Filtered { table: TableLabel::Known(t), cause } => (t.as_str().to_owned(), cause),
        Verdict::Filtered { table: TableLabel::Foreign(t), cause } => {
            (String::from_utf8_lossy(t).into_owned(), cause)
        }
        other => panic!("{other:?} for {body}"),
    }
}

/// A messages event with some places of it changed; a missing value removes.
fn event(edits: &[(&str, Option<Value>)]) -> Value {
    let mut event = json!({
        "action": "update", "changes": {},
        "record": {"id": 1, "message_id": "M1", "chat_id": "c", "agent_id": "a", "company_id": "ACME"},
        "metadata": {"table_schema": "public", "table_name": "messages", "commit_lsn": 7,
            "commit_idx": 3, "commit_timestamp": "2025-06-01T10:00:00.000001Z"}
    });
    for (place, value) in edits {
        let (parent, name) = place.rsplit_once('/').expect("a place has a slash");
        let parent = event.pointer_mut(parent).and_then(Value::as_object_mut).expect("object");
        match value {
            Some(value) => _ = parent.insert((*name).to_owned(), value.clone()),
            None => _ = parent.remove(name),
        }
    }
    event
}

#[test]
fn the_four_samples_give_their_payloads_byte_for_byte() {
    for (subject, body, golden) in SAMPLES {
        let published = forwarded(subject, body);
        let (golden_subject, golden_payload) =
            golden.trim_end().split_once('\n').expect("two lines");
        assert_eq!(published.subject, golden_subject);
        assert_eq!(published.payload, golden_payload);
        let record = body.split_once("\"record\":").expect("record").1;
        let record = record.split_once(",\"metadata\":").expect("metadata").0;
        assert!(published.payload.contains(&format!("\"row_data\":{record},\"action\":")));
    }
}

#[test]
fn identity_names_company_source_position_table_and_key() {
    let (subject, body, _) = SAMPLES[0];
    let published = forwarded(subject, body);
    assert_eq!(published.identity, "message_service_db:5368722184:0:messages:3EB0C1A9F2");
    assert_eq!(published.message_id, format!("CompanyAAA01:{}", published.identity));
    let source_of = |edits: &[(&str, Option<Value>)], subject: &str| {
        let identity = forwarded(subject, &event(edits).to_string()).identity;
        identity.split_once(':').expect("colon").0.to_owned()
    };
    let id = ("/metadata/database", Some(json!({"id": "db-1", "name": "n"})));
    let name = ("/metadata/database_name", Some(json!("pg")));
    assert_eq!(source_of(&[id, name.clone()], PUBLIC), "db-1");
    assert_eq!(source_of(&[name], PUBLIC), "pg");
    assert_eq!(source_of(&[], PUBLIC), "db");
    assert_eq!(source_of(&[], "sequin.changes.old.public.messages.insert"), "old");
    assert_eq!(source_of(&[], "cdc.ACME.messages"), "-");
}

#[test]
fn without_index_the_idempotency_key_stands_in_and_without_both_a_hash() {
    let no_index = ("/metadata/commit_idx", None);
    let key = ("/metadata/idempotency_key", Some(json!("NTM2ODcy==")));
    let with_key = forwarded(PUBLIC, &event(&[no_index.clone(), key]).to_string());
    assert_eq!(with_key.identity, "db:7:NTM2ODcy==:messages:M1");
    assert_eq!(with_key.json()["commit_idx"], Value::Null);
    let text = ("/record/message_text", Some(json!("x")));
    let one = forwarded(PUBLIC, &event(std::slice::from_ref(&no_index)).to_string()).identity;
    let two = forwarded(PUBLIC, &event(&[no_index.clone(), text]).to_string()).identity;
    let again = forwarded(PUBLIC, &event(&[no_index]).to_string()).identity;
    assert_eq!(one, again);
    assert_ne!(one, two, "two states of a row are two changes");
}

#[test]
fn identity_is_bounded_printable_and_tells_parts_apart() {
    for odd in ["a b", "é", "x:y", "~x", "tab\t", &"k".repeat(500), "*", "\"\\"] {
        let named = ("/metadata/database_name", Some(json!(odd)));
        let keyed = ("/record/message_id", Some(json!(odd)));
        let no_index = ("/metadata/commit_idx", None);
        let token = ("/metadata/idempotency_key", Some(json!(odd)));
        let published = forwarded(PUBLIC, &event(&[named, keyed, no_index, token]).to_string());
        assert!(published.message_id.len() <= IDENTITY_BYTES_MAX, "{published:?}");
        assert!(published.message_id.bytes().all(|b| b.is_ascii_graphic()), "{published:?}");
    }
    let digits = ("/metadata/idempotency_key", Some(json!("3")));
    let with_key = forwarded(PUBLIC, &event(&[("/metadata/commit_idx", None), digits]).to_string());
    assert_ne!(with_key.identity, forwarded(PUBLIC, &event(&[]).to_string()).identity);
}

// Contract 5.7, row by row.

#[test]
fn full_delete_is_published_with_its_action() {
    let body = event(&[("/action", Some(json!("delete")))]).to_string();
    assert_eq!(forwarded(PUBLIC, &body).json()["action"], "delete");
}

#[test]
fn delete_with_key_columns_only_is_an_incomplete_row() {
    for column in ["message_id", "agent_id", "company_id", "chat_id"] {
        for value in [None, Some(Value::Null)] {
            let place = format!("/record/{column}");
            let body = event(&[("/action", Some(json!("delete"))), (&place, value)]);
            assert_eq!(reason(PUBLIC, &body), Reason::IncompleteRow, "{body}");
        }
    }
    let body = event(&[("/action", Some(json!("delete"))), ("/record", Some(Value::Null))]);
    assert_eq!(reason(PUBLIC, &body), Reason::IncompleteRow);
    let agent = json!({"action": "delete", "record": {"company_id": "ACME", "agent_id": "a"},
        "metadata": {"table_name": "agents", "commit_lsn": 1, "commit_idx": 0}});
    assert_eq!(forwarded(PUBLIC, &agent.to_string()).subject, "wa.ACME.a.agents");
}

#[test]
fn backfill_is_filtered_unless_told_otherwise() {
    let body = event(&[
        ("/action", Some(json!("read"))),
        ("/metadata/commit_lsn", Some(Value::Null)),
        ("/metadata/commit_idx", Some(Value::Null)),
        ("/metadata/idempotency_key", Some(json!("YmFja2ZpbGw6MQ=="))),
    ])
    .to_string();
    assert_eq!(filtered(&rules(), PUBLIC, &body), ("messages".to_owned(), FilterCause::Backfill));
    let published = forwarded_by(&rules_with(|s| s.forward_backfill = true), PUBLIC, &body);
    assert_eq!(published.json()["action"], "read");
    assert_eq!(published.json()["event_id"], "0:messages:M1");
    assert_eq!(published.identity, "db:0:YmFja2ZpbGw6MQ==:messages:M1");
}

#[test]
fn unknown_action_is_dead_lettered() {
    for action in [Some(json!("truncate")), Some(json!(1)), Some(json!("INSERT")), None] {
        let body = event(&[("/action", action)]);
        assert_eq!(reason(PUBLIC, &body), Reason::UnknownAction);
    }
}

#[test]
fn two_changes_of_a_row_in_one_transaction_are_two() {
    let first = forwarded(PUBLIC, &event(&[]).to_string());
    let second = forwarded(PUBLIC, &event(&[("/metadata/commit_idx", Some(json!(4)))]).to_string());
    assert_eq!(first.json()["event_id"], second.json()["event_id"]);
    assert_ne!(first.message_id, second.message_id);
}

#[test]
fn bodies_that_are_no_json_are_dead_lettered() {
    let valid = event(&[]).to_string();
    let with = |tail: &[u8]| [valid.as_bytes(), tail].concat();
    let in_row = |text: &str| valid.replacen("\"M1\"", text, 1).into_bytes();
    for body in [
        vec![],
        b"  ".to_vec(),
        b"hello".to_vec(),
        with(b"x"),
        with(b"{}"),
        with(b"\xff"),
        valid.as_bytes()[..valid.len() - 1].to_vec(),
        in_row("\"\u{1}\""),
        in_row("01"),
        in_row(r#""\ud80""#),
        in_row(r#""\x""#),
        valid.replace("M1", "\u{e9}").bytes().filter(|b| *b != 0xc3).collect(),
    ] {
        assert_eq!(rejected(PUBLIC, &body).reason, Reason::BadJson, "{body:?}");
    }
}

#[test]
fn empty_identifiers_are_dead_lettered() {
    for (column, expected) in [
        ("message_id", Reason::MissingKey),
        ("company_id", Reason::MissingCompany),
        ("agent_id", Reason::MissingAgent),
        ("chat_id", Reason::MissingChat),
    ] {
        let place = format!("/record/{column}");
        for value in [Some(json!("")), Some(Value::Null), None] {
            assert_eq!(reason(PUBLIC, &event(&[(&place, value)])), expected);
        }
        let body = event(&[(&place, Some(json!(5)))]);
        assert_eq!(reason(PUBLIC, &body), Reason::WrongType);
        let body = event(&[(&place, Some(json!("unchanged_toast")))]);
        assert_eq!(reason(PUBLIC, &body), Reason::IncompleteRow);
    }
}

#[test]
fn foreign_company_is_a_mismatch() {
    let schema = |name: &str| event(&[("/metadata/table_schema", Some(json!(name)))]);
    assert_eq!(reason(PUBLIC, &schema("daisi_OTHER")), Reason::CompanyMismatch);
    assert_eq!(reason(PUBLIC, &schema("daisi_")), Reason::CompanyMismatch);
    assert_eq!(reason("cdc.OTHER.messages", &event(&[])), Reason::CompanyMismatch);
    assert_eq!(reason("cdc.acme.messages", &event(&[])), Reason::CompanyMismatch);
    let legacy = "sequin.changes.db.daisi_OTHER.messages.update";
    assert_eq!(reason(legacy, &event(&[])), Reason::CompanyMismatch);
    assert_eq!(
        forwarded(PUBLIC, &schema("daisi_acme").to_string()).subject,
        "wa.ACME.a.messages.c"
    );
}

#[test]
fn rejection_belongs_to_the_subjects_company_before_the_rows() {
    let company = |subject: &str, body: &str| rejected(subject, body.as_bytes()).company;
    let claim = event(&[("/record/agent_id", None)]).to_string();
    assert_eq!(company("cdc.OWNER.messages", &claim).as_deref(), Some("OWNER"));
    assert_eq!(company(PUBLIC, &claim).as_deref(), Some("ACME"));
    assert_eq!(company(PUBLIC, "").as_deref(), None);
    assert_eq!(company("sequin.db.daisi_X.messages.insert", "").as_deref(), Some("X"));
    let unsafe_claim = event(&[("/record/company_id", Some(json!("x.y")))]).to_string();
    assert_eq!(company(PUBLIC, &unsafe_claim), None);
}

// Measured defects of the old service (contract 5.1, 5.4, 5.5, 14).

#[test]
fn columns_that_are_only_passed_on_never_drop_an_event() {
    for (column, value) in [
        ("message_date", json!("2025-06-01T10:00:00Z")),
        ("message_timestamp", json!("x")),
        ("is_deleted", json!("yes")),
        ("status", json!(3)),
        ("id", json!("uuid")),
    ] {
        forwarded(PUBLIC, &event(&[(&format!("/record/{column}"), Some(value))]).to_string());
    }
    let contact = json!({"action": "insert", "record": {"id": 12, "company_id": "ACME", "agent_id": "a"},
        "metadata": {"table_name": "contacts", "commit_lsn": "12/AB", "commit_idx": 0}});
    let published = forwarded(PUBLIC, &contact.to_string());
    assert_eq!(published.json()["event_id"], format!("{}:contacts:12", (0x12u64 << 32) | 0xab));
    let body = event(&[("/metadata/commit_lsn", Some(json!("5368722184")))]).to_string();
    assert_eq!(forwarded(PUBLIC, &body).json()["commit_lsn"], json!(5_368_722_184u64));
}

#[test]
fn positions_that_are_none_are_dead_lettered() {
    for lsn in [json!(-1), json!(1.5), json!("x"), json!({}), json!("1/2/3"), json!(true)] {
        let body = event(&[("/metadata/commit_lsn", Some(lsn))]);
        assert_eq!(reason(PUBLIC, &body), Reason::BadLsn, "{body}");
    }
    let body =
        event(&[]).to_string().replace("\"commit_lsn\":7", "\"commit_lsn\":18446744073709551616");
    assert_eq!(rejected(PUBLIC, body.as_bytes()).reason, Reason::BadLsn);
    let largest = event(&[("/metadata/commit_lsn", Some(json!(u64::MAX)))]).to_string();
    assert_eq!(forwarded(PUBLIC, &largest).json()["commit_lsn"], json!(u64::MAX));
}

#[test]
fn row_keeps_order_numbers_blanks_and_duplicates() {
    let row = concat!(
        r#"{ "z":1.23456789012345678901234567890,"big":12345678901234567890123, "n":9007199254740993,"#,
        r#""html":"<&>","s":"\ud800","e":-0E+400, "message_id":"old","message_id":"M1","#,
        "\n\t\"chat_id\":\"c\",\"agent_id\":\"a\",\"company_id\":\"ACME\",\"a\":[{},[ ]] }"
    );
    let body = format!(
        r#"{{"record":{row},"action":"insert","metadata":{{"table_name":"messages","commit_lsn":1,"commit_idx":0}}}}"#
    );
    let published = forwarded(PUBLIC, &body);
    assert!(published.payload.contains(&format!("\"row_data\":{row},")));
    assert!(published.payload.contains("\"event_id\":\"1:messages:M1\""), "the last member wins");
}

#[test]
fn last_of_duplicate_members_wins_at_every_level() {
    let body = r#"{"action":"delete","record":{"company_id":"EVIL","agent_id":"a","chat_id":"c","message_id":"M0"},
        "metadata":{"table_name":"users","commit_lsn":9},"action":"insert",
        "record":{"company_id":"EVIL","comp\u0061ny_id":"ACME","agent_id":"\u0061","chat_id":"c","message_id":"M1"},
        "metadata":{"table_name":"users","table_name":"messages","commit_lsn":1,"commit_idx":0}}"#;
    let published = forwarded(PUBLIC, body);
    assert_eq!(published.subject, "wa.ACME.a.messages.c");
    assert_eq!(published.json()["event_id"], "1:messages:M1");
    let nulled = body.replacen("}}", "},\"record\":null}", 1);
    assert_eq!(rejected(PUBLIC, nulled.as_bytes()).reason, Reason::NullRecord);
}

#[test]
fn unchanged_toast_columns_are_left_out_and_listed() {
    let toast = Some(json!("unchanged_toast"));
    let edits = [("/record/message_obj", toast.clone()), ("/record/key", toast.clone())];
    let published = forwarded(PUBLIC, &event(&edits).to_string()).json();
    assert_eq!(published["toast_columns"], json!(["message_obj", "key"]));
    let row = published["row_data"].as_object().expect("object");
    assert!(!row.contains_key("message_obj") && !row.contains_key("key"));
    assert_eq!(row["message_id"], "M1");
    // Only an update leaves values alone: elsewhere it is a user's text.
    let edits = [("/record/message_text", toast), ("/action", Some(json!("insert")))];
    let published = forwarded(PUBLIC, &event(&edits).to_string()).json();
    assert_eq!(published["row_data"]["message_text"], "unchanged_toast");
    assert_eq!(published.get("toast_columns"), None);
}

#[test]
fn unsafe_identifiers_never_reach_a_subject() {
    let long = "a".repeat(200);
    for (column, values) in [
        ("company_id", &["x.y", "*", ">", "a b", "é", "a@b", "a\r\nPUB x 0", &long][..]),
        ("agent_id", &["x.y", "*", ">", "a b", "a\tb", "\0", &long]),
        ("chat_id", &[".c", "c.", "c..d", "c*", ">", "c d", "c\n", &long]),
    ] {
        for value in values {
            let body = event(&[(&format!("/record/{column}"), Some(json!(value)))]);
            assert_eq!(reason(PUBLIC, &body), Reason::BadIdentifier, "{body}");
        }
    }
    let body = event(&[("/record/chat_id", Some(json!("62811@s.whatsapp.net")))]).to_string();
    assert_eq!(forwarded(PUBLIC, &body).subject, "wa.ACME.a.messages.62811@s.whatsapp.net");
}

#[test]
fn message_id_with_escapes_stays_valid_json() {
    let id = "a\"b\\c\u{1}é";
    let body = event(&[("/record/message_id", Some(json!(id)))]).to_string();
    let published = forwarded(PUBLIC, &body).json();
    assert_eq!(published["message_id"], id);
    assert_eq!(published["event_id"], format!("7:messages:{id}"));
}

#[test]
fn table_of_the_body_decides() {
    let table = |name: &str| event(&[("/metadata/table_name", Some(json!(name)))]).to_string();
    let other = "sequin.db.public.users.insert";
    assert_eq!(forwarded(other, &table("messages_y2025m06")).subject, "wa.ACME.a.messages.c");
    assert_eq!(forwarded(other, &table("messages_default")).subject, "wa.ACME.a.messages.c");
    let expected = ("user_profiles".to_owned(), FilterCause::Table);
    assert_eq!(filtered(&rules(), PUBLIC, &table("user_profiles")), expected);
    let only_chats = rules_with(|s| s.tables = vec!["chats".to_owned()]);
    assert_eq!(filtered(&only_chats, PUBLIC, &table("messages")).1, FilterCause::Table);
    for missing in [None, Some(json!("")), Some(Value::Null)] {
        let body = event(&[("/metadata/table_name", missing)]);
        assert_eq!(reason(PUBLIC, &body), Reason::MissingTable);
    }
}

#[test]
fn other_shapes_of_subject_body_and_row_are_dead_lettered() {
    for subject in ["cdc.ACME", "v1.chats.upsert.ACME", "sequin.rows.db.s.messages", "cdc.A.b.c"] {
        assert_eq!(reason(subject, &event(&[])), Reason::UnknownSubject);
    }
    for body in [json!([]), json!(1), json!("x"), json!({}), json!({"record": {}})] {
        assert_eq!(reason(PUBLIC, &body), Reason::UnknownEnvelope, "{body}");
    }
    for (record, expected) in [
        (None, Reason::NullRecord),
        (Some(Value::Null), Reason::NullRecord),
        (Some(json!([])), Reason::WrongType),
        (Some(json!("{}")), Reason::WrongType),
    ] {
        assert_eq!(reason(PUBLIC, &event(&[("/record", record)])), expected);
    }
}

// Debezium.

fn debezium(op: &str) -> Value {
    let row =
        json!({"id": 1, "message_id": "M1", "chat_id": "c", "agent_id": "a", "company_id": "ACME"});
    let (before, after) = if op == "d" { (row, Value::Null) } else { (Value::Null, row) };
    json!({"op": op, "before": before, "after": after, "ts_ms": 9,
        "source": {"connector": "postgresql", "name": "pg1", "db": "app", "schema": "daisi_ACME",
            "table": "messages", "lsn": 4711, "ts_ms": 1_748_772_000_123u64, "txId": 5},
        "transaction": {"id": "5:1", "total_order": 2, "data_collection_order": 1}})
}

#[test]
fn debezium_relational_is_read_bare_and_wrapped() {
    let bare = debezium("c");
    for body in [bare.clone(), json!({"schema": {"op": 1}, "payload": bare})] {
        let published = forwarded("cdc.ACME.messages", &body.to_string());
        assert_eq!(published.identity, "pg1:4711:2:messages:M1");
        assert_eq!(published.subject, "wa.ACME.a.messages.c");
        assert_eq!(published.json()["action"], "insert");
        assert_eq!(published.json()["commit_time"], "2025-06-01T10:00:00.123000Z");
        assert_eq!(published.json()["row_data"], bare["after"]);
    }
    assert_eq!(forwarded(PUBLIC, &debezium("u").to_string()).json()["action"], "update");
    assert_eq!(forwarded(PUBLIC, &debezium("d").to_string()).json()["action"], "delete");
    assert_eq!(filtered(&rules(), PUBLIC, &debezium("r").to_string()).1, FilterCause::Backfill);
    assert_eq!(reason(PUBLIC, &debezium("t")), Reason::UnknownAction);
    assert_eq!(reason("cdc.OTHER.messages", &debezium("c")), Reason::CompanyMismatch);
}

#[test]
fn debezium_without_total_order_tells_changes_by_their_rows() {
    let mut one = debezium("u");
    one["transaction"] = Value::Null;
    let mut two = one.clone();
    two["after"]["status"] = json!("read");
    let [one, two] = [one, two].map(|body| forwarded(PUBLIC, &body.to_string()).identity);
    assert_ne!(one, two);
    assert!(one.starts_with("pg1:4711:~") && one.ends_with(":messages:M1"));
}

#[test]
fn debezium_document_is_decoded_from_its_string() {
    let document = concat!(
        r#"{"_id":{"$oid":"65f0c0ffee65f0c0ffee0001"},"text":"say \"hi\" \u00e9","#,
        r#""company_id":"ACME","agent_id":"a","chat_id":"c","n":{"$numberLong":"9007199254740993"}}"#
    );
    let body = json!({"op": "c", "ts_ms": 1, "before": null, "after": document,
        "source": {"connector": "mongodb", "db": "notifications", "collection": "messages",
            "ts_ms": 1_763_672_400_000u64, "ord": 1}});
    let published = forwarded("cdc.ACME.messages", &body.to_string());
    let lsn = (1_763_672_400u64 << 32) | 1;
    assert!(published.payload.contains(&format!("\"row_data\":{document},")));
    assert_eq!(published.json()["event_id"], format!("{lsn}:messages:65f0c0ffee65f0c0ffee0001"));
    let bad = |after: Value| {
        let mut body = body.clone();
        body["after"] = after;
        reason(PUBLIC, &body)
    };
    assert_eq!(bad(json!("{} x")), Reason::BadJson);
    assert_eq!(bad(json!("[")), Reason::BadJson);
    assert_eq!(bad(json!("[]")), Reason::WrongType);
    assert_eq!(bad(Value::Null), Reason::NullRecord);
    assert_eq!(bad(json!("[".repeat(1 << 20))), Reason::BadJson);
    assert_eq!(bad(json!(format!("{{\"a\":{}", "[".repeat(1 << 20)))), Reason::BadJson);
}

#[test]
fn tombstones_are_filtered() {
    let label = ("messages".to_owned(), FilterCause::Tombstone);
    let debezium_only = rules_with(|s| s.envelope = EnvelopeRule::Debezium);
    for body in ["null", " null ", r#"{"schema":null,"payload":null}"#] {
        assert_eq!(filtered(&rules(), "cdc.ACME.messages", body), label);
    }
    assert_eq!(filtered(&debezium_only, "cdc.ACME.messages", ""), label);
}

#[test]
fn envelope_rule_refuses_the_other_envelope() {
    let refuses = |rule, body: &Value| {
        let rules = rules_with(|s| s.envelope = rule);
        let body = body.to_string();
        let verdict = transform(&rules, PUBLIC.as_bytes(), body.as_bytes());
        matches!(verdict, Verdict::Rejected(r) if r.reason == Reason::UnknownEnvelope)
    };
    assert!(refuses(EnvelopeRule::Debezium, &event(&[])));
    assert!(refuses(EnvelopeRule::Sequin, &debezium("c")));
    assert!(!refuses(EnvelopeRule::Sequin, &event(&[])));
    assert!(!refuses(EnvelopeRule::Debezium, &debezium("c")));
}

// Hostile input.

#[test]
fn a_megabyte_of_brackets_at_any_place_is_refused_at_once() {
    let whole = event(&[]).to_string();
    let places = [
        "#".to_owned(),
        whole.replacen("\"M1\"", "#", 1),
        whole.replacen("\"messages\"", "#", 1),
        whole.replacen("\"changes\":{}", "\"changes\":#", 1),
        whole.replacen("\"changes\":{}", "\"record\":#", 1),
        whole.replacen("\"changes\":{}", "\"metadata\":#", 1),
        whole.replacen("\"changes\":{}", "\"source\":#", 1),
        whole.replacen("\"changes\":{}", "\"payload\":#", 1),
        whole.replacen("\"changes\":{}", "\"after\":#", 1),
        whole.replacen("\"changes\":{}", "\"metadata\":{\"database\":#}", 1),
    ];
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for place in &places {
            let opened = place.replace('#', &open.repeat((1 << 20) / open.len()));
            assert_eq!(rejected(PUBLIC, opened.as_bytes()).reason, Reason::BadJson);
            let closed = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            let closed = place.replace('#', &closed);
            assert_eq!(rejected(PUBLIC, closed.as_bytes()).reason, Reason::BadJson);
        }
    }
}

#[test]
fn huge_and_repeated_members_take_linear_time() {
    let digits =
        event(&[]).to_string().replacen("\"id\":1", &format!("\"id\":{}", "9".repeat(1 << 20)), 1);
    assert!(forwarded(PUBLIC, &digits).payload.len() > 1 << 20);
    let repeated = "\"company_id\":\"EVIL\",\"x\":\"unchanged_toast\",".repeat(20_000);
    let body = event(&[]).to_string().replacen("\"id\":1", &format!("{repeated}\"id\":1"), 1);
    let started = std::time::Instant::now();
    assert_eq!(forwarded(PUBLIC, &body).subject, "wa.ACME.a.messages.c");
    assert!(started.elapsed().as_secs() < 5, "quadratic work would take minutes");
}

#[test]
fn a_change_is_small_and_outlives_the_buffer_it_was_read_from() {
    assert!(size_of::<ChangeSpans>() <= 160, "{}", size_of::<ChangeSpans>());
    let (subject, body, _) = SAMPLES[0];
    let spans: ChangeSpans = {
        let elsewhere = body.to_owned();
        match transform(&rules(), subject.as_bytes(), elsewhere.as_bytes()) {
            Verdict::Forward(spans) => spans,
            other => panic!("{other:?}"),
        }
    };
    let change = spans.bind(subject.as_bytes(), body.as_bytes());
    assert_eq!((change.table(), change.action()), (Table::Messages, Action::Insert));
    assert_eq!((change.company(), change.chat()), (&b"CompanyAAA01"[..], Some(&b"chat-51"[..])));
}

// Properties.

/// The same rules in the plainest way: parsed whole, checked in order.
fn reference(body: &Value) -> Result<Value, Reason> {
    let meta = &body["metadata"];
    let action = body["action"].as_str().filter(|a| ["insert", "update", "delete"].contains(a));
    let action = action.ok_or(Reason::UnknownAction)?;
    let row = match &body["record"] {
        Value::Object(row) => row,
        Value::Null if action == "delete" => return Err(Reason::IncompleteRow),
        Value::Null => return Err(Reason::NullRecord),
        _ => return Err(Reason::WrongType),
    };
    let text = |column: &str, missing: Reason| match row.get(column) {
        None | Some(Value::Null) if action == "delete" => Err(Reason::IncompleteRow),
        None | Some(Value::Null) => Err(missing),
        Some(Value::String(s)) if s == "unchanged_toast" && action == "update" => {
            Err(Reason::IncompleteRow)
        }
        Some(Value::String(s)) if s.is_empty() => Err(missing),
        Some(Value::String(s)) => Ok(s.as_str()),
        Some(_) => Err(Reason::WrongType),
    };
    let key = text("message_id", Reason::MissingKey)?;
    let company = text("company_id", Reason::MissingCompany)?;
    let agent = text("agent_id", Reason::MissingAgent)?;
    let chat = text("chat_id", Reason::MissingChat)?;
    let only = |s: &str, extra: &str, max: usize| {
        s.len() <= max && s.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let chat_dots = !chat.starts_with('.') && !chat.ends_with('.') && !chat.contains("..");
    if !only(company, "_-", 48)
        || !only(agent, "_@:+=-", 128)
        || !only(chat, "_@:+=-.", 128)
        || !chat_dots
    {
        return Err(Reason::BadIdentifier);
    }
    let lsn = meta["commit_lsn"].as_u64().ok_or(Reason::BadLsn)?;
    let mut out = Map::new();
    out.insert("event_id".into(), json!(format!("{lsn}:messages:{key}")));
    out.insert("event_time".into(), json!("2025-06-01T10:00:00Z"));
    out.insert("company_id".into(), json!(company));
    out.insert("agent_id".into(), json!(agent));
    out.insert("message_id".into(), json!(key));
    out.insert("chat_id".into(), json!(chat));
    let is_toast = |v: &Value| action == "update" && *v == json!("unchanged_toast");
    let kept = row.iter().filter(|(_, v)| !is_toast(v));
    out.insert(
        "row_data".into(),
        Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect()),
    );
    out.insert("action".into(), json!(action));
    out.insert("commit_time".into(), meta["commit_timestamp"].clone());
    out.insert("commit_lsn".into(), json!(lsn));
    out.insert("commit_idx".into(), meta["commit_idx"].clone());
    let toasts: Vec<_> = row.iter().filter(|(_, v)| is_toast(v)).map(|(k, _)| k.clone()).collect();
    if !toasts.is_empty() {
        out.insert("toast_columns".into(), json!(toasts));
    }
    Ok(Value::Object(out))
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("unchanged_toast")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn any_identifier() -> impl Strategy<Value = Value> {
    prop_oneof![
        12 => "[A-Za-z0-9_-]{1,20}".prop_map(Value::from),
        2 => ".{0,8}".prop_map(Value::from),
        1 => "[a-z.@:+=*> -]{0,12}".prop_map(Value::from),
        1 => any_value(),
    ]
}

fn any_row() -> impl Strategy<Value = Value> {
    let others = prop::collection::vec((".{0,8}", any_value()), 0..8);
    let ids = (any_identifier(), any_identifier(), any_identifier(), any_identifier());
    (others, ids).prop_map(|(others, (company, agent, chat, message))| {
        let mut row: Map<String, Value> = others.into_iter().collect();
        for (column, value) in [
            ("company_id", company),
            ("agent_id", agent),
            ("chat_id", chat),
            ("message_id", message),
        ] {
            row.insert(column.to_owned(), value);
        }
        Value::Object(row)
    })
}

fn any_event() -> impl Strategy<Value = Value> {
    let record = prop_oneof![20 => any_row(), 1 => any_value()];
    let action = prop_oneof![
        9 => prop::sample::select(vec!["insert", "update", "delete"]).prop_map(Value::from),
        1 => any_value(),
    ];
    (record, action, any::<u64>(), any::<u32>()).prop_map(|(record, action, lsn, index)| {
        json!({"record": record, "action": action, "changes": null,
            "metadata": {"table_name": "messages", "table_schema": "public", "commit_lsn": lsn,
                "commit_idx": index, "commit_timestamp": "2025-06-01T10:00:00.000001Z"}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_plain_implementation(event in any_event(), is_pretty in any::<bool>()) {
        let text = if is_pretty { serde_json::to_string_pretty(&event)? } else { event.to_string() };
        let ours = match transform(&rules(), PUBLIC.as_bytes(), text.as_bytes()) {
            Verdict::Forward(spans) => Ok(Published::of(&spans.bind(PUBLIC.as_bytes(), text.as_bytes()))),
            Verdict::Rejected(rejection) => Err(rejection.reason),
            Verdict::Filtered { .. } => panic!("no table or action here is filtered"),
        };
        match (ours, reference(&event)) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(ours.json(), theirs.clone());
                let order = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
                prop_assert_eq!(order(&ours.json()), order(&theirs));
                prop_assert!(ours.message_id.len() <= IDENTITY_BYTES_MAX);
                prop_assert!(ours.message_id.bytes().all(|b| b.is_ascii_graphic()));
            }
            (Err(ours), Err(theirs)) => prop_assert_eq!(ours, theirs),
            (ours, theirs) => prop_assert!(false, "{:?} against {:?}", ours, theirs),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(subject in prop::collection::vec(any::<u8>(), 0..40), body in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = transform(&rules(), &subject, &body);
        _ = transform(&rules(), PUBLIC.as_bytes(), &body);
    }

    #[test]
    fn damaged_events_never_panic(sample in 0..4usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let (subject, body, _) = SAMPLES[sample];
        let mut body = body.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        for body in [&body[..], &body[..cut.index(body.len())]] {
            if let Verdict::Forward(spans) = transform(&rules(), subject.as_bytes(), body) {
                let payload = Published::of(&spans.bind(subject.as_bytes(), body)).payload;
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&payload).is_ok());
            }
        }
    }
}
