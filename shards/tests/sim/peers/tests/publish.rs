//! Publishing into streams: PubAcks, dedup, expectations, limits, retention, faults.

use super::*;
use crate::peers::Chance;
use crate::peers::jetstream::faults::Refusal;
use shards::clock::SEC;

fn lab(version: Version, config: &str) -> Lab {
    let mut lab = Lab::new(version);
    lab.stream(config);
    lab
}

#[test]
fn puback_has_a_blank_up_to_2_11_and_none_since() {
    for (version, expected) in [
        (Version::V2_10, r#"{"stream":"S", "seq":1}"#),
        (Version::V2_15, r#"{"stream":"S","seq":1}"#),
    ] {
        let mut lab = lab(version, r#"{"name":"S","subjects":["s.>"]}"#);
        assert_eq!(lab.publish("s.a", &[], "x"), expected);
    }
}

#[test]
fn duplicate_is_acked_with_the_first_sequence_within_the_window_only() {
    let config = r#"{"name":"S","subjects":["s.>"],"duplicate_window":1000000000}"#;
    let mut lab = lab(Version::V2_10, config);
    let id = [("Nats-Msg-Id", "a")];
    assert_eq!(lab.publish("s.a", &id, "x"), r#"{"stream":"S", "seq":1}"#);
    lab.publish("s.a", &[], "y");
    assert_eq!(lab.publish("s.b", &id, "x"), r#"{"stream":"S", "seq":1,"duplicate": true}"#);
    // Names are case-sensitive: this is an ordinary header.
    assert_eq!(lab.publish("s.a", &[("nats-msg-id", "a")], "x"), r#"{"stream":"S", "seq":3}"#);
    lab.wait(SEC);
    assert_eq!(lab.publish("s.a", &id, "x"), r#"{"stream":"S", "seq":4}"#);
}

#[test]
fn purge_does_not_clear_the_dedup_table() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    lab.publish("s.a", &[("Nats-Msg-Id", "a")], "x");
    assert_eq!(lab.api("STREAM.PURGE.S", "")["purged"], 1);
    assert!(lab.publish("s.a", &[("Nats-Msg-Id", "a")], "x").contains("duplicate"));
}

#[test]
fn expectations_are_checked() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    lab.publish("s.a", &[("Nats-Msg-Id", "one")], "x");
    for (header, value, err_code) in [
        ("Nats-Expected-Stream", "T", 10060),
        ("Nats-Expected-Last-Sequence", "0", 10071),
        ("Nats-Expected-Last-Subject-Sequence", "2", 10071),
        ("Nats-Expected-Last-Msg-Id", "two", 10070),
    ] {
        let answer = lab.publish("s.a", &[(header, value)], "x");
        assert!(answer.contains(&format!(r#""err_code":{err_code}"#)), "{answer}");
        assert!(answer.ends_with(r#","stream":"S","seq":0}"#), "{answer}");
    }
    let right = [("Nats-Expected-Stream", "S"), ("Nats-Expected-Last-Msg-Id", "one")];
    assert_eq!(lab.publish("s.a", &right, "x"), r#"{"stream":"S", "seq":2}"#);
}

#[test]
fn full_stream_refuses_or_discards_as_configured() {
    let new = r#"{"name":"S","subjects":["s.>"],"max_msgs":2,"discard":"new"}"#;
    let mut refusing = lab(Version::V2_10, new);
    for body in ["1", "2"] {
        refusing.publish("s.a", &[], body);
    }
    let answer = refusing.publish("s.a", &[], "3");
    assert!(answer.contains("10077") && answer.contains("maximum messages exceeded"), "{answer}");
    let mut dropping = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"],"max_msgs":2}"#);
    for body in ["1", "2", "3"] {
        dropping.publish("s.a", &[], body);
    }
    let store = dropping.server.jetstream.store("S").unwrap();
    assert_eq!((store.first_seq(), store.last_seq(), store.len()), (2, 3, 2));
}

#[test]
fn message_above_max_msg_size_is_refused() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"],"max_msg_size":3}"#);
    assert!(lab.publish("s.a", &[], "abcd").contains("10054"));
    assert!(lab.publish("s.a", &[], "abc").contains(r#""seq":1"#));
}

#[test]
fn age_is_never_early_and_at_most_a_look_late() {
    for (version, late) in [(Version::V2_10, SEC), (Version::V2_15, SEC / 4)] {
        let mut lab = lab(version, r#"{"name":"S","subjects":["s.>"],"max_age":5000000000}"#);
        lab.wait(1);
        lab.publish("s.a", &[], "x");
        lab.wait(5 * SEC - 1);
        assert_eq!(lab.server.jetstream.store("S").unwrap().len(), 1);
        lab.wait(late);
        assert_eq!(lab.server.jetstream.store("S").unwrap().len(), 0);
    }
}

#[test]
fn per_message_ttl_needs_2_11_and_permission() {
    let mut old = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    old.publish("s.a", &[("Nats-TTL", "1s")], "x");
    old.wait(10 * SEC);
    assert_eq!(old.server.jetstream.store("S").unwrap().len(), 1);
    let mut new = lab(Version::V2_15, r#"{"name":"S","subjects":["s.>"],"allow_msg_ttl":true}"#);
    new.publish("s.a", &[("Nats-TTL", "1s")], "x");
    assert!(new.publish("s.a", &[("Nats-TTL", "500ms")], "x").contains("10165"));
    new.wait(SEC + SEC / 50);
    assert_eq!(new.server.jetstream.store("S").unwrap().len(), 0);
    let mut off = lab(Version::V2_15, r#"{"name":"S","subjects":["s.>"]}"#);
    assert!(off.publish("s.a", &[("Nats-TTL", "1s")], "x").contains("10166"));
}

#[test]
fn create_again_is_success_other_config_and_overlap_are_not() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    let same = lab.api("STREAM.CREATE.S", r#"{"name":"S","subjects":["s.>"]}"#);
    assert_eq!(same["did_create"], true);
    let other = r#"{"name":"S","subjects":["s.>"],"max_msgs":1}"#;
    assert_eq!(lab.err_code("STREAM.CREATE.S", other), 10058);
    assert_eq!(lab.err_code("STREAM.CREATE.T", r#"{"name":"T","subjects":["s.a"]}"#), 10065);
    assert_eq!(lab.err_code("STREAM.CREATE.T", r#"{"name":"U"}"#), 10056);
    assert_eq!(lab.err_code("STREAM.INFO.T", ""), 10059);
    assert_eq!(lab.err_code("STREAM.UPDATE.T", r#"{"name":"T"}"#), 10059);
}

#[test]
fn update_resets_what_it_leaves_out() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"],"max_age":9000000000}"#);
    let updated = lab.api("STREAM.UPDATE.S", r#"{"name":"S","subjects":["s.>","t.>"]}"#);
    assert_eq!(updated["config"]["max_age"], 0);
    let found = lab.api("STREAM.NAMES", r#"{"subject":"t.a"}"#);
    assert_eq!(found["streams"][0], "S");
    assert_eq!(lab.api("STREAM.NAMES", r#"{"subject":"u.a"}"#)["total"], 0);
    assert_eq!(lab.api("STREAM.DELETE.S", "")["success"], true);
    assert_eq!(lab.err_code("STREAM.DELETE.S", ""), 10059);
}

#[test]
fn unknown_field_is_an_error_from_2_12_and_dropped_before() {
    let config = r#"{"name":"S","subjects":["s.>"],"no_such_field":1}"#;
    assert_eq!(Lab::new(Version::V2_15).err_code("STREAM.CREATE.S", config), 10025);
    assert_eq!(Lab::new(Version::V2_10).err_code("STREAM.CREATE.S", config), 0);
}

#[test]
fn what_is_not_modelled_is_refused_aloud() {
    for (field, config) in [
        ("mirror", r#"{"name":"S","mirror":{"name":"T"}}"#),
        ("a source's options", r#"{"name":"S","sources":[{"name":"T","opt_start_seq":3}]}"#),
    ] {
        let text = Lab::new(Version::V2_10).api("STREAM.CREATE.S", config)["error"].to_string();
        assert!(text.contains(&format!("not modelled by this peer: {field}")), "{text}");
    }
}

#[test]
fn unknown_api_subject_gets_no_answer() {
    let mut lab = Lab::new(Version::V2_10);
    assert_eq!(lab.publish("$JS.API.NO.SUCH.CALL", &[], ""), "");
}

#[test]
fn domain_prefix_reaches_the_api() {
    let domain = Some("hub".to_owned());
    let mut lab = Lab::with(NatsOptions { domain, ..NatsOptions::default() });
    assert!(lab.publish("$JS.hub.API.STREAM.INFO.S", &[], "").contains("10059"));
}

#[test]
fn lost_puback_leaves_the_message_stored() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    lab.server.jetstream.faults.puback_lost = Chance::ALWAYS;
    assert_eq!(lab.publish("s.a", &[("Nats-Msg-Id", "a")], "x"), "");
    lab.server.jetstream.faults.puback_lost = Chance::default();
    let again = lab.publish("s.a", &[("Nats-Msg-Id", "a")], "x");
    assert_eq!(again, r#"{"stream":"S", "seq":1,"duplicate": true}"#);
}

#[test]
fn lost_publish_and_503_store_nothing() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    lab.server.jetstream.faults.publish_lost = Chance::ALWAYS;
    assert_eq!(lab.publish("s.a", &[], "x"), "");
    lab.server.jetstream.faults.publish_lost = Chance::default();
    lab.server.jetstream.faults.publish_no_responders = Chance::ALWAYS;
    assert_eq!(lab.publish("s.a", &[], "x"), "503");
    assert_eq!(lab.server.jetstream.store("S").unwrap().len(), 0);
}

#[test]
fn injected_refusals_say_what_the_server_would() {
    let always = Chance::ALWAYS;
    for (version, refusal, text, stored) in [
        (Version::V2_10, Refusal::store_full(always), "10077", 0),
        (Version::V2_15, Refusal::in_flight(always, true), "10158", 1),
        (Version::V2_10, Refusal::in_flight(always, false), r#""seq":0,"duplicate": true"#, 0),
        (Version::V2_15, Refusal::too_many(always), "10167", 0),
        (Version::V2_15, Refusal::unavailable(always), "10008", 0),
    ] {
        let mut lab = lab(version, r#"{"name":"S","subjects":["s.>"]}"#);
        lab.server.jetstream.faults.refusals = vec![refusal];
        let answer = lab.publish("s.a", &[], "x");
        assert!(answer.contains(text), "{answer}");
        assert_eq!(lab.server.jetstream.store("S").unwrap().len(), stored);
    }
}

#[test]
fn delayed_pubacks_come_in_time_and_may_overtake() {
    let mut lab = lab(Version::V2_10, r#"{"name":"S","subjects":["s.>"]}"#);
    lab.server.jetstream.faults.puback_delay_max = SEC;
    for _ in 0..20 {
        assert_eq!(lab.publish("s.a", &[], "x"), "");
    }
    assert!(lab.server.due().is_some_and(|at| at <= lab.now.mono + SEC));
    let acks = lab.wait(SEC);
    let seqs: Vec<&str> = acks.lines().collect();
    assert_eq!(seqs.len(), 20);
    assert_ne!(seqs[0], r#"{"stream":"S", "seq":1}"#);
}

#[test]
fn lost_and_slow_api_calls() {
    let mut lab = Lab::new(Version::V2_10);
    lab.server.jetstream.faults.api_lost = Chance::ALWAYS;
    assert_eq!(lab.publish("$JS.API.STREAM.INFO.S", &[], ""), "");
    lab.server.jetstream.faults.api_lost = Chance::default();
    lab.server.jetstream.faults.api_delay_max = SEC;
    assert_eq!(lab.publish("$JS.API.STREAM.INFO.S", &[], ""), "");
    assert!(lab.wait(SEC).contains("10059"));
}
