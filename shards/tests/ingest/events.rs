//! What comes out of the decoder: values of payloads, member by member.

use super::COMPANY;
use shards::domain::ingest::{
    Agent, Body, Campaign, Catalog, Chat, ChatUpdate, Contact, ContactUpdate, DlqMessage, Event,
    Flow, HistoryMessages, Message, MessageKey, MessageUpdate,
};
use std::borrow::Cow;

fn check(base: &str, payload: &str, expected: &Event<'_>) {
    let catalog = Catalog::load(&[]).unwrap();
    let subject = format!("v1.{base}.{COMPANY}");
    let body = Body::of(payload.as_bytes());
    let event = catalog.route(&subject).unwrap().decode(&body);
    assert_eq!(event.as_ref(), Ok(expected), "{payload}");
}

fn text(value: &str) -> Cow<'_, str> {
    Cow::Borrowed(value)
}

fn some(value: &str) -> Option<Cow<'_, str>> {
    Some(text(value))
}

const CHAT: &str = r#"{"chat_id":"c","jid":"j","company_id":"ACME","agent_id":"a","phone_number":"p","push_name":"S\u00e9","is_group":false,"group_name":"","last_message":{ "n": 12345678901234567890.5 },"conversation_timestamp":1.7357e9,"unread_count":-3,"not_spam":true}"#;

fn chat() -> Chat<'static> {
    Chat {
        chat_id: text("c"),
        jid: text("j"),
        agent_id: text("a"),
        phone_number: text("p"),
        push_name: some("Sé"),
        is_group: Some(false),
        group_name: some(""),
        last_message: Some(r#"{ "n": 12345678901234567890.5 }"#),
        conversation_timestamp: Some(1_735_700_000),
        unread_count: Some(-3),
        not_spam: Some(true),
    }
}

#[test]
fn chats() {
    check("chats.upsert", CHAT, &Event::ChatsUpsert(chat()));
    let group = r#"{"chat_id":"c","jid":"j","agent_id":"a","is_group":true,"push_name":null}"#;
    let bare = Chat {
        chat_id: text("c"),
        jid: text("j"),
        agent_id: text("a"),
        is_group: Some(true),
        ..Chat::default()
    };
    check("chats.upsert", group, &Event::ChatsUpsert(bare));
    check("history.chats", "{}", &Event::HistoryChats(Vec::new()));
    let two = format!(r#"{{"chats":[{CHAT} , {CHAT}]}}"#);
    check("history.chats", &two, &Event::HistoryChats(vec![chat(), chat()]));
    let update = ChatUpdate {
        chat_id: text("c"),
        unread_count: Some(1),
        last_message: Some("{}"),
        conversation_timestamp: Some(-7),
    };
    for id in
        [r#""chat_id":"c""#, r#""id":"c""#, r#""chat_id":null,"id":"c""#, r#""id":1,"chat_id":"c""#]
    {
        let payload =
            format!(r#"{{{id},"unread_count":1,"last_message":{{}},"conversation_timestamp":-7}}"#);
        check("chats.update", &payload, &Event::ChatsUpdate(update.clone()));
    }
}

const MESSAGE: &str = r#"{"message_id":"m","chat_id":"c","jid":"j","flow":"OUT","agent_id":"a","from":"f","to_phone":"t","to":"other","key":{"id":"K","from_me":true,"remote_jid":"r"},"message_type":"x","message_text":"a\nb\ud83d\ude00","message_url":"u","message_obj":{"a":"\""},"status":"sent","message_timestamp":-1,"campaign":{"tags":"a,b","origin":"Ads","assigned_to":""}}"#;

fn message() -> Message<'static> {
    Message {
        message_id: text("m"),
        from_phone: some("f"),
        to_phone: some("t"),
        chat_id: text("c"),
        jid: text("j"),
        flow: Flow::Out,
        message_type: some("x"),
        message_text: some("a\nb😀"),
        message_url: some("u"),
        agent_id: text("a"),
        key: Some(MessageKey { id: text("K"), from_me: true, remote_jid: text("r") }),
        message_obj: Some(r#"{"a":"\""}"#),
        status: some("sent"),
        message_timestamp: Some(-1),
        campaign: Some(Campaign {
            is_campaign: false,
            tags: some("a,b"),
            assigned_to: some(""),
            origin: some("Ads"),
        }),
    }
}

#[test]
fn messages() {
    check("messages.upsert", MESSAGE, &Event::MessagesUpsert(message()));
    let minimal =
        r#"{"message_id":"m","chat_id":"c","jid":"j","flow":"IN","agent_id":"a","key":{"id":"K"}}"#;
    let bare = Message {
        message_id: text("m"),
        chat_id: text("c"),
        jid: text("j"),
        flow: Flow::In,
        agent_id: text("a"),
        key: Some(MessageKey { id: text("K"), ..MessageKey::default() }),
        ..Message::default()
    };
    check("messages.upsert", minimal, &Event::MessagesUpsert(bare));
    let batch = format!(r#"{{"agent_id":"a","messages":[{MESSAGE}],"is_last_batch":true}}"#);
    let history =
        HistoryMessages { messages: vec![message()], is_last_batch: true, agent_id: some("a") };
    check("history.messages", &batch, &Event::HistoryMessages(history));
    check("history.messages", "{}", &Event::HistoryMessages(HistoryMessages::default()));
    let payload = r#"{"id":"m","status":"","edited_message_obj":{"t":""},"is_deleted":false}"#;
    let update = MessageUpdate {
        message_id: text("m"),
        status: some(""),
        edited_message_obj: Some(r#"{"t":""}"#),
        is_deleted: Some(false),
        message_url: None,
    };
    check("messages.update", payload, &Event::MessagesUpdate(update));
}

#[test]
fn contacts() {
    let payload =
        r#"{"phone_number":"+1","agent_id":"a","push_name":"n","chat_id":"","company_id":""}"#;
    let contact = Contact {
        phone_number: text("+1"),
        agent_id: text("a"),
        push_name: text("n"),
        chat_id: None,
    };
    check("contacts.upsert", payload, &Event::ContactsUpsert(contact.clone()));
    let batch =
        format!(r#"{{"contacts":[{}]}}"#, payload.replace(r#""chat_id":"""#, r#""chat_id":"c""#));
    let with_chat = Contact { chat_id: some("c"), ..contact };
    check("history.contacts", &batch, &Event::HistoryContacts(vec![with_chat]));
    let update =
        ContactUpdate { phone_number: text("p"), agent_id: text("a"), push_name: text("") };
    let payload = r#"{"phone_number":"p","agent_id":"a","push_name":""}"#;
    check("contacts.update", payload, &Event::ContactsUpdate(update));
}

#[test]
fn agents() {
    let payload = r#"{"agent_id":"a","qr_code":"q","status":"s","agent_name":"n","host_name":"","version":null,"phone_number":"p"}"#;
    let agent = Agent {
        agent_id: text("a"),
        qr_code: some("q"),
        status: some("s"),
        agent_name: some("n"),
        host_name: some(""),
        version: None,
        phone_number: some("p"),
    };
    check("connection.update", payload, &Event::ConnectionUpdate(agent));
}

#[test]
fn bad_bytes_and_half_pairs_are_replaced_in_free_objects_too() {
    let payload = b"{\"chat_id\":\"c\xff\",\"last_message\":{\"a\":\"\\ud800\xfe\"}}";
    let catalog = Catalog::load(&[]).unwrap();
    let body = Body::of(payload);
    let event = catalog.route("v1.chats.update.ACME").unwrap().decode(&body).unwrap();
    let Event::ChatsUpdate(update) = event else { panic!("{event:?}") };
    assert_eq!(update.chat_id, "c\u{fffd}");
    assert_eq!(update.last_message, Some("{\"a\":\"\\ufffd\u{fffd}\"}"));
}

#[test]
fn dead_letters() {
    let payload = r#"{"source_subject":"v1.chats.update.ACME","company":"ACME","original_payload":"\u0000","error":"fatal: x","error_type":"fatal","retry_count":2e0,"max_retry":5,"ts":"2026-01-02T03:04:05.678Z","stream":"wa_events_stream","stream_sequence":17}"#;
    let body = Body::of(payload.as_bytes());
    let letter = Catalog::load(&[]).unwrap().decode_dlq("v1.dlq.ACME", &body).unwrap();
    let expected = DlqMessage {
        source_subject: text("v1.chats.update.ACME"),
        original_payload: Some(r#""\u0000""#),
        has_nul: true,
        error: text("fatal: x"),
        error_type: text("fatal"),
        retry_count: 2,
        max_retry: 5,
        ts: text("2026-01-02T03:04:05.678Z"),
        stream: some("wa_events_stream"),
        stream_sequence: Some(17),
        ..DlqMessage::default()
    };
    assert_eq!(letter, expected);
}
