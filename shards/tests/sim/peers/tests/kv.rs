//! Leases on KV: compare-and-set, tombstones, expiry.

use super::*;
use crate::peers::kv::{Entry, entry};
use shards::clock::SEC;

const BUCKET: &str = r#"{"name":"KV_leases","subjects":["$KV.leases.>"],"max_msgs_per_subject":1,
    "discard":"new","allow_rollup_hdrs":true,"deny_delete":true,"max_age":5000000000,
    "duplicate_window":5000000000}"#;

fn cas(lab: &mut Lab, revision: &str, body: &str) -> String {
    lab.publish("$KV.leases.p1", &[("Nats-Expected-Last-Subject-Sequence", revision)], body)
}

fn lease(lab: &Lab) -> Option<Entry> {
    entry(lab.server.jetstream.store("KV_leases").unwrap(), "p1")
}

#[test]
fn only_one_acquires_and_only_the_holder_renews() {
    let mut lab = Lab::new(Version::V2_10);
    lab.stream(BUCKET);
    assert_eq!(cas(&mut lab, "0", "me"), r#"{"stream":"KV_leases", "seq":1}"#);
    assert!(cas(&mut lab, "0", "you").contains("wrong last sequence: 1"));
    assert!(cas(&mut lab, "1", "me").contains(r#""seq":2"#));
    assert!(cas(&mut lab, "1", "me").contains("10071"));
    let value = Bytes::from_static(b"me");
    assert_eq!(lease(&lab), Some(Entry { revision: 2, value, is_deleted: false }));
    assert_eq!(lab.server.jetstream.store("KV_leases").unwrap().len(), 1);
}

#[test]
fn expired_lease_is_free_and_a_renewed_one_is_not() {
    let mut lab = Lab::new(Version::V2_10);
    lab.stream(BUCKET);
    cas(&mut lab, "0", "me");
    lab.wait(4 * SEC);
    cas(&mut lab, "1", "me");
    lab.wait(4 * SEC);
    assert!(cas(&mut lab, "0", "you").contains("10071"));
    lab.wait(2 * SEC);
    assert!(cas(&mut lab, "0", "you").contains(r#""seq":3"#));
}

#[test]
fn tombstone_needs_its_own_revision() {
    let mut lab = Lab::new(Version::V2_10);
    lab.stream(BUCKET);
    cas(&mut lab, "0", "me");
    let release = [("Nats-Expected-Last-Subject-Sequence", "1"), ("KV-Operation", "DEL")];
    assert!(lab.publish("$KV.leases.p1", &release, "").contains(r#""seq":2"#));
    assert!(lease(&lab).unwrap().is_deleted);
    assert!(cas(&mut lab, "0", "you").contains("10071"));
    let last = lab.api("STREAM.MSG.GET.KV_leases", r#"{"last_by_subj":"$KV.leases.p1"}"#);
    assert_eq!(last["message"]["seq"], 2);
    assert!(last["message"]["hdrs"].is_string());
    assert!(cas(&mut lab, "2", "you").contains(r#""seq":3"#));
}

#[test]
fn missing_key_is_10037_and_messages_are_not_deletable() {
    let mut lab = Lab::new(Version::V2_10);
    lab.stream(BUCKET);
    assert_eq!(
        lab.err_code("STREAM.MSG.GET.KV_leases", r#"{"last_by_subj":"$KV.leases.x"}"#),
        10037
    );
    cas(&mut lab, "0", "me");
    assert_eq!(lab.err_code("STREAM.MSG.DELETE.KV_leases", r#"{"seq":1}"#), 10057);
}

#[test]
fn window_above_max_age_is_refused() {
    let config = r#"{"name":"KV_b","subjects":["$KV.b.>"],"max_age":1,"duplicate_window":2}"#;
    assert_eq!(Lab::new(Version::V2_10).err_code("STREAM.CREATE.KV_b", config), 10052);
}

#[test]
fn rollup_clears_the_subject() {
    let mut lab = Lab::new(Version::V2_10);
    lab.stream(r#"{"name":"S","subjects":["s.>"],"allow_rollup_hdrs":true}"#);
    lab.publish("s.a", &[], "1");
    lab.publish("s.b", &[], "2");
    lab.publish("s.a", &[("Nats-Rollup", "sub")], "3");
    assert_eq!(lab.server.jetstream.store("S").unwrap().len(), 2);
    lab.stream(r#"{"name":"T","subjects":["t.>"]}"#);
    assert!(lab.publish("t.a", &[("Nats-Rollup", "sub")], "").contains("10111"));
}
