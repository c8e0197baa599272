//! The catalog: versions beside each other, schemas of an operator, and what stands in a refusal.

use super::*;
use crate::domain::ingest::decode::read::slots;
use crate::domain::ingest::event::ChatUpdate;

const CHAT: &str = r#"{"chat_id":"c","jid":"j","agent_id":"a","phone_number":"p","status":"x"}"#;

fn catalog(files: &[SchemaFile]) -> Catalog {
    Catalog::load(files).unwrap()
}

fn refused(catalog: &Catalog, subject: &str, payload: &str) -> Refusal {
    let body = Body::of(payload.as_bytes());
    catalog.route(subject).unwrap().decode(&body).unwrap_err()
}

/// Our schema of a chat with something changed.
fn chat_schema(change: impl Fn(&str) -> String) -> SchemaFile {
    let text = change(schema!("wa_events_stream/chats.upsert.v1.json"));
    SchemaFile { name: "wa_events_stream/chats.upsert.v1.json".to_owned(), text }
}

mod second_version {
    //! A second version of one event: its own members, decoder and schema, the same kind of event out.

    use super::*;

    slots!(UpdateSlots { chat: b"chat", unread: b"unread" });

    fn update(source: Source<'_>) -> Result<Event<'_>, Fault> {
        let s: UpdateSlots = source.members()?;
        Ok(Event::ChatsUpdate(ChatUpdate {
            chat_id: source.required(s.chat, "/chat")?,
            unread_count: source.integer32(s.unread, "/unread")?,
            ..ChatUpdate::default()
        }))
    }

    pub(super) const DEFINITION: Definition = Definition {
        kind: Kind::ChatsUpdate,
        version: 2,
        decoder: update,
        schema: r#"{
            "type": "object",
            "required": ["chat"],
            "properties": {
                "chat": {"type": "string", "minLength": 1},
                "unread": {"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647}
            }
        }"#,
    };
}

#[test]
fn a_second_version_stands_beside_the_first() {
    let mut definitions: Vec<&Definition> = DEFINITIONS.iter().collect();
    definitions.push(&second_version::DEFINITION);
    let catalog = Catalog::of(&definitions, &[]).unwrap();
    let (first, second) = (r#"{"chat_id":"c","unread_count":3}"#, r#"{"chat":"c","unread":3.0}"#);
    let bodies = [Body::of(first.as_bytes()), Body::of(second.as_bytes())];
    let routes =
        ["v1.chats.update.ACME", "v2.chats.update.ACME"].map(|s| catalog.route(s).unwrap());
    assert_eq!(
        routes.map(|route| (route.kind(), route.version())),
        [(Kind::ChatsUpdate, 1), (Kind::ChatsUpdate, 2)]
    );
    assert_eq!(routes[0].decode(&bodies[0]).unwrap(), routes[1].decode(&bodies[1]).unwrap());
    let refusal = routes[1].decode(&bodies[0]).unwrap_err();
    assert_eq!((refusal.path.as_str(), refusal.rule.as_str()), ("/chat", "/required"));
    assert_eq!(routes[0].decode(&bodies[1]).unwrap_err().path, "/chat_id");
    // A schema of an operator finds the version it is for.
    let file = |text: &str| SchemaFile {
        name: "wa_events_stream/chats.update.v2.json".to_owned(),
        text: text.to_owned(),
    };
    let closed = file(r#"{"properties":{"chat":{"const":"d"}}}"#);
    let catalog = Catalog::of(&definitions, &[closed]).unwrap();
    assert!(catalog.route("v1.chats.update.ACME").unwrap().decode(&bodies[0]).is_ok());
    assert!(catalog.route("v2.chats.update.ACME").unwrap().decode(&bodies[1]).is_err());
}

#[test]
fn subjects_lead_to_the_ten_events_and_nowhere_else() {
    let catalog = catalog(&[]);
    for kind in Kind::ALL {
        let subject = format!("v1.{}.ACME", kind.base());
        let route = catalog.route(&subject).unwrap();
        assert_eq!((route.kind(), route.version(), route.company()), (kind, 1, "ACME"));
    }
    for subject in [
        "v2.chats.upsert.ACME",
        "v999.chats.upsert.ACME",
        "v1.chats.upsert",
        "v1.dlq.ACME",
        "v1.agents.ACME",
        "v1.chats.upsert.x.ACME",
        "messages.upsert.ACME",
    ] {
        let refusal = catalog.route(subject).err().map(|refusal| refusal.reason);
        assert_eq!(refusal, Some(Reason::UnknownSubject), "{subject}");
    }
    let letter = Body::of(b"{}");
    assert_eq!(
        catalog.decode_dlq("v1.chats.upsert.ACME", &letter).unwrap_err().reason,
        Reason::UnknownSubject
    );
}

#[test]
fn a_refusal_carries_path_rule_and_value_in_the_words_of_the_schema() {
    let catalog = catalog(&[]);
    let check = |subject: &str, payload: &str, reason: Reason, text: &str| {
        let refusal = refused(&catalog, subject, payload);
        assert_eq!((refusal.reason, refusal.to_string().as_str()), (reason, text), "{payload}");
    };
    let chats = "v1.chats.upsert.ACME";
    check(
        chats,
        r#"{"jid":"j"}"#,
        Reason::Missing,
        r#"/phone_number: "phone_number" is a required property (rule /else/required, value absent)"#,
    );
    check(
        chats,
        &CHAT.replace("\"c\"", "\"\""),
        Reason::Empty,
        r#"/chat_id: the value is shorter than 1 character (rule /$defs/identifier/minLength, value "")"#,
    );
    check(
        "v1.history.messages.ACME",
        r#"{"messages":[{"message_id":"m","chat_id":"c","jid":"j","agent_id":"a","flow":"UP"}]}"#,
        Reason::BadValue,
        r#"/messages/0/flow: the value is not one of "IN" or "OUT" (rule /$defs/message/properties/flow/enum, value "UP")"#,
    );
    check(
        chats,
        &CHAT.replace("\"status\"", "\"company_id\""),
        Reason::CompanyMismatch,
        r#"/company_id: the value is not the company in the subject (rule company, value "x")"#,
    );
    check(chats, "{\"a\":", Reason::BadJson, "value expected at offset 5 (rule json)");
    check(chats, "", Reason::BadJson, "value expected at offset 0 (rule json)");
    let deep = format!("{{\"a\":{}", "[".repeat(200));
    check(chats, &deep, Reason::TooDeep, "nested too deeply at offset 125 (rule json)");
    check(
        chats,
        "[1]",
        Reason::WrongType,
        r#"the value is not of type "object" (rule /type, value an array of 1)"#,
    );
}

#[test]
fn the_first_fault_that_the_decoder_found_is_the_one_that_is_told() {
    let catalog = catalog(&[]);
    let payload = r#"{"chat_id":"c","jid":"j","agent_id":"a","phone_number":"p","unread_count":"x","last_message":{"a":"\u0000"}}"#;
    let refusal = refused(&catalog, "v1.chats.upsert.ACME", payload);
    assert_eq!((refusal.reason, refusal.path.as_str()), (Reason::Nul, "/last_message/a"));
}

#[test]
fn names_in_a_payload_neither_break_a_line_nor_fill_it() {
    let payload = |name: &str| {
        CHAT.replace(
            "\"status\":\"x\"",
            &format!(r#""last_message":{{"{name}":{{"a":"\u0000"}}}}"#),
        )
    };
    let path = |name: &str| refused(&catalog(&[]), "v1.chats.upsert.ACME", &payload(name)).path;
    assert_eq!(path(r"b\n\u0007"), r"/last_message/b\n\u{7}/a");
    assert_eq!(path(&"b".repeat(100_000)).len(), 303);
}

#[test]
fn a_stricter_schema_applies_and_a_looser_one_admits_nothing() {
    let subject = "v1.chats.upsert.ACME";
    let stricter = chat_schema(|ours| {
        ours.replacen("\"properties\": {", "\"properties\": {\"status\": {\"enum\": [\"y\"]},", 1)
    });
    let strict = catalog(std::slice::from_ref(&stricter));
    let refusal = refused(&strict, subject, CHAT);
    assert_eq!((refusal.reason, refusal.path.as_str()), (Reason::OwnSchema, "/status"));
    let allowed = CHAT.replace("\"x\"", "\"y\"");
    assert!(strict.route(subject).unwrap().decode(&Body::of(allowed.as_bytes())).is_ok());
    // The other kinds keep their own.
    let contact = Body::of(br#"{"phone_number":"p","agent_id":"a","push_name":"n","status":"x"}"#);
    assert!(strict.route("v1.contacts.upsert.ACME").unwrap().decode(&contact).is_ok());

    let looser = catalog(&[chat_schema(|_| "true".to_owned())]);
    let refusal = refused(&looser, subject, r#"{"chat_id":"c"}"#);
    assert_eq!((refusal.reason, refusal.path.as_str()), (Reason::Missing, "/phone_number"));
    assert!(looser.route(subject).unwrap().decode(&Body::of(CHAT.as_bytes())).is_ok());
}

#[test]
fn a_schema_that_cannot_be_used_stops_the_start_with_its_name() {
    let fault = |name: &str, text: &str| {
        let file = SchemaFile { name: name.to_owned(), text: text.to_owned() };
        Catalog::load(&[file]).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let name = "wa_events_stream/chats.upsert.v1.json";
    assert!(fault(name, "{").starts_with(&format!("{name}: no JSON: ")));
    assert!(
        fault(name, r#"{"type":"text"}"#)
            .starts_with(&format!("{name}: no usable JSON Schema: at /type"))
    );
    let elsewhere = fault(name, r#"{"$ref":"https://example.com/chat.json"}"#);
    assert!(elsewhere.starts_with(&format!("{name}: no usable JSON Schema")), "{elsewhere}");
    let unknown = fault("wa_events_stream/chat.upsert.v1.json", "{}");
    assert!(unknown.contains("no event has a schema of this name"), "{unknown}");
    assert!(fault("wa_events_stream/chats.upsert.v2.json", "{}").contains("no event"));
    assert_eq!(fault("dlq_stream/dlq.v1.json", "{}"), "");
}

#[test]
fn a_catalog_may_be_shared_by_cores() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Catalog>();
}
