//! Payloads near the schemas: a valid example with some members dropped, renamed, retyped, doubled or put
//! elsewhere, and sometimes with damaged bytes. From one seed.
//!
//! Numbers are such that a double holds them exactly or far from any bound: `serde_json`, by which the
//! payload comes to the schema crate, knows no others.

use fastrand::Rng;
use serde_json::Value;

/// A value as text, in which members may occur twice.
enum Node {
    Raw(String),
    List(Vec<Node>),
    Members(Vec<(String, Node)>),
}

const VALUES: [&str; 44] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.0",
    "1e2",
    "12.50e1",
    "1.5",
    "1e-1",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "2147483647.0",
    "2147483648e0",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854776833",
    "1e18",
    "1e19",
    "1e300",
    "-1e300",
    "1e-300",
    r#""""#,
    r#"" ""#,
    r#""x""#,
    r#""IN""#,
    r#""ACME""#,
    r#""12""#,
    r#""\u0000""#,
    r#""a\\u0000\n\u00e9""#,
    r#""\ud83d\ude00 \ud83d""#,
    "{}",
    "[]",
    r#"{"a":["\u0000"]}"#,
    r#"{"a\u0000":null}"#,
    r#"{"id":"K","fromMe":null,"from_me":true}"#,
    r#"[{"a":[[{"b":[1,{"c":null}]}]]}]"#,
    r#"{"deep":{"deep":{"deep":[[[[[[[["x"]]]]]]]]}}}"#,
];

const NAMES: [&str; 42] = [
    "chat_id",
    "jid",
    "company_id",
    "agent_id",
    "phone_number",
    "push_name",
    "custom_name",
    "is_group",
    "group_name",
    "last_message",
    "conversation_timestamp",
    "unread_count",
    "not_spam",
    "id",
    "message_id",
    "from",
    "from_phone",
    "to",
    "to_phone",
    "flow",
    "message_url",
    "key",
    "fromMe",
    "from_me",
    "remoteJid",
    "remote_jid",
    "message_obj",
    "edited_message_obj",
    "status",
    "message_timestamp",
    "campaign",
    "tags",
    "is_deleted",
    "chats",
    "messages",
    "contacts",
    "is_last_batch",
    "\\u0063hat_id",
    "CHAT_ID",
    "",
    "\\u0000",
    "original_payload",
];

/// Bytes that break a text in interesting ways. No digits, signs and points: see above.
const BYTES: [&[u8]; 12] =
    [b"{", b"}", b"[", b"]", b",", b":", b"\"", b"\\", b" ", b"\xff", b"\0", b"\xef\xbb\xbf"];

/// A mutant of a payload, which is JSON.
pub(super) fn mutant(payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let value: Value = serde_json::from_slice(payload).expect("mutants are made of JSON");
    let mut root = node(value);
    for _ in 0..rng.usize(..4) {
        mutate(&mut root, rng);
    }
    let mut text = Vec::new();
    write(&root, rng, &mut text);
    if rng.u8(..8) == 0 {
        damage(&mut text, rng);
    }
    text
}

fn node(value: Value) -> Node {
    match value {
        Value::Array(elements) => Node::List(elements.into_iter().map(node).collect()),
        Value::Object(members) => {
            let member = |(name, value): (String, Value)| {
                let quoted = Value::from(name).to_string();
                (quoted[1..quoted.len() - 1].to_owned(), node(value))
            };
            Node::Members(members.into_iter().map(member).collect())
        }
        other => Node::Raw(other.to_string()),
    }
}

fn any(rng: &mut Rng) -> Node {
    Node::Raw(VALUES[rng.usize(..VALUES.len())].to_owned())
}

fn name(rng: &mut Rng) -> String {
    NAMES[rng.usize(..NAMES.len())].to_owned()
}

/// Changes something, mostly near the top.
fn mutate(node: &mut Node, rng: &mut Rng) {
    let goes_on = rng.u8(..3) > 0;
    match node {
        Node::Members(members) if !members.is_empty() => {
            let at = rng.usize(..members.len());
            if goes_on && !matches!(members[at].1, Node::Raw(_)) {
                return mutate(&mut members[at].1, rng);
            }
            match rng.u8(..6) {
                0 => drop(members.remove(at)),
                1 => members[at].0 = name(rng),
                2 => members[at].1 = any(rng),
                3 => members.push((name(rng), any(rng))),
                4 => {
                    let (doubled, value) = (members[at].0.clone(), any(rng));
                    let place = rng.usize(..=members.len());
                    members.insert(place, (doubled, value));
                }
                _ => {
                    let other = rng.usize(..members.len());
                    members.swap(at, other);
                    let moved = members[other].0.clone();
                    members[other].0 = std::mem::replace(&mut members[at].0, moved);
                }
            }
        }
        Node::List(elements) if !elements.is_empty() => {
            let at = rng.usize(..elements.len());
            match rng.u8(..8) {
                0 => drop(elements.remove(at)),
                1 => elements.insert(at, any(rng)),
                2 => elements[at] = any(rng),
                _ => mutate(&mut elements[at], rng),
            }
        }
        other => *other = any(rng),
    }
}

fn write(node: &Node, rng: &mut Rng, out: &mut Vec<u8>) {
    let blank = |rng: &mut Rng, out: &mut Vec<u8>| {
        if rng.u8(..40) == 0 {
            out.extend_from_slice(b" \n\t\r");
        }
    };
    match node {
        Node::Raw(text) => out.extend_from_slice(text.as_bytes()),
        Node::List(elements) => {
            out.push(b'[');
            for (at, element) in elements.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                blank(rng, out);
                write(element, rng, out);
            }
            out.push(b']');
        }
        Node::Members(members) => {
            out.push(b'{');
            for (at, (name, value)) in members.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                blank(rng, out);
                out.extend_from_slice(format!("\"{name}\":").as_bytes());
                write(value, rng, out);
                blank(rng, out);
            }
            out.push(b'}');
        }
    }
}

fn damage(text: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..=text.len());
    match rng.u8(..4) {
        0 => text.truncate(at),
        1 => text.extend_from_slice(BYTES[rng.usize(..BYTES.len())]),
        2 => drop(text.splice(..0, BYTES[rng.usize(..BYTES.len())].iter().copied())),
        _ => drop(text.splice(at..at, BYTES[rng.usize(..BYTES.len())].iter().copied())),
    }
}
