//! Pull consumers: creation, pulls and how they end, acks, redelivery, order, work queues.

use super::*;
use crate::peers::Chance;
use shards::clock::SEC;

const EXPLICIT: &str = r#"{"durable_name":"c","ack_policy":"explicit"}"#;
const ALL: &str = r#"{"durable_name":"c","ack_policy":"all"}"#;

#[test]
fn pull_delivers_in_order_and_counts_down() {
    let mut lab = Lab::filled(Version::V2_10, 3, EXPLICIT);
    assert_eq!(lab.pull(r#"{"batch":2,"expires":1000000000}"#), "s.1 d1 s1 c1 p2\ns.2 d1 s2 c2 p1");
    assert_eq!(lab.pull("1"), "s.3 d1 s3 c3 p0");
    assert_eq!(lab.pull(r#"{"batch":1,"expires":1000000000}"#), "");
    assert_eq!(lab.publish("s.4", &[], "x").lines().next(), Some(r#"{"stream":"S", "seq":4}"#));
}

#[test]
fn waiting_pull_gets_what_is_published_then() {
    let mut lab = Lab::filled(Version::V2_10, 0, EXPLICIT);
    lab.pull(r#"{"batch":2,"expires":1000000000}"#);
    assert_eq!(lab.publish("s.1", &[], "x"), "{\"stream\":\"S\", \"seq\":1}\ns.1 d1 s1 c1 p0");
    assert_eq!(lab.wait(SEC), "408 Request Timeout Nats-Pending-Messages: 1 Nats-Pending-Bytes: 0");
}

#[test]
fn no_wait_ends_as_its_version_does() {
    let no_wait = r#"{"batch":3,"no_wait":true}"#;
    for (version, end) in [
        (Version::V2_10, "408 Request Timeout Nats-Pending-Messages: 1 Nats-Pending-Bytes: 0"),
        (Version::V2_15, "404 No Messages"),
    ] {
        let mut lab = Lab::filled(version, 2, EXPLICIT);
        let got = lab.pull(no_wait);
        assert_eq!(got, format!("s.1 d1 s1 c1 p1\ns.2 d1 s2 c2 p0\n{end}"));
        assert_eq!(lab.pull(no_wait), "404 No Messages");
    }
}

#[test]
fn heartbeats_flow_while_a_pull_waits() {
    let mut lab = Lab::filled(Version::V2_10, 0, EXPLICIT);
    lab.pull(r#"{"batch":1,"expires":3000000000,"idle_heartbeat":1000000000}"#);
    let beat = "100 Idle Heartbeat Nats-Last-Consumer: 0 Nats-Last-Stream: 0";
    assert_eq!(lab.wait(SEC), beat);
    assert_eq!(lab.wait(SEC), beat);
    assert!(lab.wait(SEC).starts_with("408 Request Timeout"));
    let too_large = r#"{"batch":1,"expires":1000,"idle_heartbeat":501}"#;
    assert_eq!(lab.pull(too_large), "400 Bad Request - heartbeat value too large");
}

#[test]
fn max_bytes_ends_the_pull_and_the_message_comes_next() {
    let mut lab = Lab::filled(Version::V2_10, 2, EXPLICIT);
    let got = lab.pull(r#"{"batch":9,"expires":1000000000,"max_bytes":80}"#);
    let lines: Vec<&str> = got.lines().collect();
    assert_eq!(lines[0], "s.1 d1 s1 c1 p1");
    assert!(lines[1].starts_with("409 Message Size Exceeds MaxBytes Nats-Pending-Messages: 8"));
    assert_eq!(lab.pull("1"), "s.2 d1 s2 c2 p0");
    let done = Lab::filled(Version::V2_10, 1, EXPLICIT).pull(r#"{"batch":1,"max_bytes":500}"#);
    assert!(done.contains("409 Batch Completed Nats-Pending-Messages: 0"), "{done}");
    let old = Lab::filled(Version::V2_9, 1, EXPLICIT).pull(r#"{"batch":1,"max_bytes":500}"#);
    assert!(!old.contains("409"), "{old}");
}

#[test]
fn missing_consumer_is_503_from_2_10_and_silence_before() {
    for (version, answer) in [(Version::V2_9, ""), (Version::V2_10, "503")] {
        let mut lab = Lab::new(version);
        lab.stream(r#"{"name":"S","subjects":["s.>"]}"#);
        assert_eq!(lab.pull("1"), answer);
    }
}

#[test]
fn limits_of_the_consumer_hold() {
    let config = r#"{"durable_name":"c","ack_policy":"explicit","max_batch":2,"max_waiting":1}"#;
    let mut lab = Lab::filled(Version::V2_10, 0, config);
    assert_eq!(lab.pull(r#"{"batch":3}"#), "409 Exceeded MaxRequestBatch of 2");
    assert_eq!(lab.pull(r#"{"batch":1,"expires":1000000000}"#), "");
    assert_eq!(lab.pull(r#"{"batch":1,"expires":1000000000}"#), "409 Exceeded MaxWaiting");
}

#[test]
fn deleting_the_consumer_ends_its_pulls() {
    let mut lab = Lab::filled(Version::V2_10, 0, EXPLICIT);
    lab.pull(r#"{"batch":3,"expires":1000000000}"#);
    let answer = lab.publish("$JS.API.CONSUMER.DELETE.S.c", &[], "");
    assert!(answer.contains("409 Consumer Deleted"), "{answer}");
    assert_eq!(lab.err_code("CONSUMER.INFO.S.c", ""), 10014);
}

#[test]
fn leader_change_ends_pulls_without_pending_headers() {
    let mut lab = Lab::filled(Version::V2_10, 1, EXPLICIT);
    lab.ack((1, 1), "");
    lab.pull("1");
    lab.pull(r#"{"batch":3,"expires":9000000000}"#);
    lab.server.step_down(lab.now, SEC);
    assert_eq!(lab.read(), "409 Leadership Change");
    assert_eq!(lab.pull("1"), "503");
    assert_eq!(lab.publish("s.2", &[], "x"), "503");
    lab.wait(SEC);
    lab.publish("s.2", &[], "x");
    assert_eq!(lab.pull("1"), "s.2 d1 s2 c2 p0");
}

#[test]
fn ack_all_covers_all_before() {
    let mut lab = Lab::filled(Version::V2_10, 5, ALL);
    lab.pull("5");
    lab.ack((3, 3), "+ACK");
    assert_eq!(lab.floor(), (3, 3));
    let redelivered = lab.wait(31 * SEC);
    assert_eq!(redelivered, "");
    assert_eq!(lab.pull("9"), "s.4 d2 s4 c6 p0\ns.5 d2 s5 c7 p0");
}

#[test]
fn explicit_floor_waits_for_the_gap() {
    let mut lab = Lab::filled(Version::V2_10, 3, EXPLICIT);
    lab.pull("3");
    lab.ack((2, 2), "");
    assert_eq!(lab.floor(), (0, 0));
    lab.ack((1, 1), "");
    assert_eq!(lab.floor(), (2, 2));
    lab.ack((3, 3), "");
    assert_eq!(lab.floor(), (3, 3));
}

#[test]
fn missed_acks_come_again_in_order_and_before_new_ones() {
    let config = r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#;
    let mut lab = Lab::filled(Version::V2_10, 3, config);
    lab.pull("2");
    assert_eq!(lab.wait(SEC), "");
    assert_eq!(lab.pull("3"), "s.1 d2 s1 c3 p1\ns.2 d2 s2 c4 p1\ns.3 d1 s3 c5 p0");
}

#[test]
fn progress_restarts_the_clock_and_nak_redelivers() {
    let config = r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#;
    let mut lab = Lab::filled(Version::V2_10, 2, config);
    lab.pull("2");
    lab.wait(SEC / 2);
    lab.ack((1, 1), "+WPI");
    lab.pull(r#"{"batch":9,"expires":9000000000}"#);
    assert_eq!(lab.wait(SEC / 2), "s.2 d2 s2 c3 p0");
    assert_eq!(lab.ack((1, 1), "-NAK"), "s.1 d2 s1 c4 p0");
    assert_eq!(lab.ack((1, 1), "-NAK {\"delay\":200000000}"), "");
    assert_eq!(lab.wait(SEC / 5), "s.1 d3 s1 c5 p0");
}

#[test]
fn term_ends_a_message_and_needs_2_10_4_for_a_reason() {
    for (version, term, pending) in [
        (Version::V2_9, "+TERM", 0),
        (Version::V2_9, "+TERM bad", 1),
        (Version::V2_10, "+TERM bad", 0),
    ] {
        let mut lab = Lab::filled(version, 1, EXPLICIT);
        lab.pull("1");
        lab.ack((1, 1), term);
        let left = lab.server.jetstream.consumer("S", "c").unwrap().ack_pending();
        assert_eq!(left, pending, "{version} {term}");
    }
}

#[test]
fn ack_sync_is_answered_unless_never_delivered() {
    let mut lab = Lab::filled(Version::V2_10, 2, EXPLICIT);
    lab.pull("1");
    let ack = |lab: &mut Lab, seq: u64| {
        let out = format!("PUB $JS.ACK.S.c.1.{seq}.{seq}.0.0 _INBOX.lab.a 0\r\n\r\n");
        lab.raw(&out)
    };
    assert_eq!(ack(&mut lab, 1), "MSG _INBOX.lab.a 1 0||");
    assert_eq!(ack(&mut lab, 2), "");
    lab.api("CONSUMER.DELETE.S.c", "");
    assert!(ack(&mut lab, 1).contains("503"));
}

#[test]
fn empty_reply_has_two_blanks_on_2_9() {
    let mut lab = Lab::filled(Version::V2_9, 1, EXPLICIT);
    lab.pull("1");
    let out = lab.raw("PUB $JS.ACK.S.c.1.1.1.0.0 _INBOX.lab.a 0\r\n\r\n");
    assert_eq!(out, "MSG _INBOX.lab.a 1  0||");
}

#[test]
fn max_ack_pending_stops_new_messages_and_not_redeliveries() {
    let config = r#"{"durable_name":"c","ack_policy":"explicit","max_ack_pending":2,
        "ack_wait":1000000000}"#;
    let mut lab = Lab::filled(Version::V2_10, 3, config);
    assert_eq!(lab.pull(r#"{"batch":9,"expires":9000000000}"#).lines().count(), 2);
    assert_eq!(lab.wait(SEC).lines().count(), 2);
    assert_eq!(lab.ack((1, 1), ""), "s.3 d1 s3 c5 p0");
}

#[test]
fn max_deliver_drops_with_an_advisory() {
    let config = r#"{"durable_name":"c","ack_policy":"explicit","max_deliver":1,
        "ack_wait":1000000000}"#;
    let mut lab = Lab::filled(Version::V2_10, 1, config);
    lab.raw("SUB $JS.EVENT.ADVISORY.> 2\r\n");
    lab.pull(r#"{"batch":9,"expires":9000000000}"#);
    let advisory = lab.wait(SEC);
    assert!(advisory.contains(r#""stream_seq":1,"deliveries":1"#), "{advisory}");
    assert_eq!(lab.wait(SEC), "");
}

#[test]
fn backoff_lengthens_the_wait() {
    let config = r#"{"durable_name":"c","ack_policy":"explicit","max_deliver":9,
        "backoff":[1000000000,3000000000]}"#;
    let mut lab = Lab::filled(Version::V2_10, 1, config);
    lab.pull(r#"{"batch":9,"expires":90000000000}"#);
    assert_eq!(lab.wait(SEC), "s.1 d2 s1 c2 p0");
    assert_eq!(lab.wait(SEC), "");
    assert_eq!(lab.wait(2 * SEC), "s.1 d3 s1 c3 p0");
}

#[test]
fn deliver_policies_start_where_they_say() {
    for (policy, first) in [
        (r#""deliver_policy":"all""#, "s.1 d1 s1 c1 p2"),
        (r#""deliver_policy":"new""#, ""),
        (r#""deliver_policy":"last""#, "s.3 d1 s3 c1 p0"),
        (r#""deliver_policy":"by_start_sequence","opt_start_seq":2"#, "s.2 d1 s2 c1 p1"),
        (r#""deliver_policy":"last_per_subject","filter_subject":"s.2""#, "s.2 d1 s2 c1 p0"),
    ] {
        let config = format!(r#"{{"durable_name":"c","ack_policy":"explicit",{policy}}}"#);
        let mut lab = Lab::filled(Version::V2_10, 3, &config);
        assert_eq!(lab.pull(r#"{"batch":1,"expires":1000000000}"#), first, "{policy}");
    }
}

#[test]
fn action_is_obeyed_from_2_10_and_filters_are_ignored_before() {
    let mut lab = Lab::filled(Version::V2_10, 0, EXPLICIT);
    let body = |action: &str, wait: u64| {
        format!(
            r#"{{"stream_name":"S","action":"{action}","config":{{"durable_name":"c",
            "ack_policy":"explicit","ack_wait":{wait}}}}}"#
        )
    };
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c", &body("create", 30 * SEC)), 0);
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c", &body("create", SEC)), 10148);
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.d", &body("update", SEC)), 10017);
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c", &body("update", SEC)), 0);
    assert_eq!(lab.api("CONSUMER.INFO.S.c", "")["config"]["ack_wait"], SEC);
    lab.api("CONSUMER.DELETE.S.c", "");
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c", &body("update", SEC)), 10149);
    let config = r#"{"durable_name":"c","ack_policy":"explicit","filter_subjects":["s.1"]}"#;
    let mut old = Lab::filled(Version::V2_9, 2, config);
    assert_eq!(old.pull("2").lines().count(), 2);
    assert_eq!(Lab::filled(Version::V2_10, 2, config).pull("2"), "s.1 d1 s1 c1 p0");
}

#[test]
fn three_forms_of_create_and_their_rules() {
    let mut lab = Lab::filled(Version::V2_10, 0, EXPLICIT);
    let body = |config: &str| format!(r#"{{"stream_name":"S","config":{config}}}"#);
    let made = lab.api("CONSUMER.CREATE.S", &body(r#"{"ack_policy":"explicit"}"#));
    assert!(made["name"].as_str().is_some_and(|n| !n.is_empty()));
    let durable = body(r#"{"durable_name":"d","ack_policy":"explicit"}"#);
    assert_eq!(lab.api("CONSUMER.DURABLE.CREATE.S.d", &durable)["name"], "d");
    let filtered = body(r#"{"name":"e","ack_policy":"explicit","filter_subject":"s.a"}"#);
    assert_eq!(lab.api("CONSUMER.CREATE.S.e.s.a", &filtered)["config"]["filter_subject"], "s.a");
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.e.s.b", &filtered), 10131);
    assert_eq!(lab.api("CONSUMER.NAMES.S", "")["total"], 4);
    let policy = body(r#"{"durable_name":"c","ack_policy":"all"}"#);
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c", &policy), 10012);
    // Ephemeral ones die when idle.
    lab.wait(6 * SEC);
    assert_eq!(lab.api("CONSUMER.NAMES.S", "")["total"], 2);
}

#[test]
fn work_queue_takes_explicit_acks_only_and_forgets_what_is_acked() {
    let mut lab = Lab::new(Version::V2_10);
    lab.stream(r#"{"name":"S","subjects":["s.>"],"retention":"workqueue"}"#);
    let all = format!(r#"{{"stream_name":"S","config":{ALL}}}"#);
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c", &all), 10098);
    lab.consumer("S", EXPLICIT);
    let second = r#"{"stream_name":"S","config":{"durable_name":"d","ack_policy":"explicit"}}"#;
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.d", second), 10099);
    lab.publish("s.1", &[], "x");
    lab.publish("s.2", &[], "x");
    lab.pull("2");
    lab.ack((1, 1), "");
    let store = lab.server.jetstream.store("S").unwrap();
    assert_eq!((store.len(), store.first_seq()), (1, 2));
}

#[test]
fn consumer_limit_is_1000_on_2_15_unless_raised() {
    let mut lab = Lab::new(Version::V2_15);
    lab.stream(r#"{"name":"S","subjects":["s.>"]}"#);
    let body = |n: u64| format!(r#"{{"stream_name":"S","config":{{"durable_name":"c{n}"}}}}"#);
    for n in 0..1000 {
        assert_eq!(lab.err_code(&format!("CONSUMER.CREATE.S.c{n}"), &body(n)), 0);
    }
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c1000", &body(1000)), 10026);
    lab.api("STREAM.UPDATE.S", r#"{"name":"S","subjects":["s.>"],"max_consumers":2000}"#);
    assert_eq!(lab.err_code("CONSUMER.CREATE.S.c1000", &body(1000)), 0);
}

#[test]
fn pull_without_interest_is_dropped() {
    let mut lab = Lab::filled(Version::V2_10, 0, EXPLICIT);
    lab.pull(r#"{"batch":9,"expires":9000000000}"#);
    lab.raw("UNSUB 1\r\n");
    lab.publish("s.1", &[], "x");
    assert_eq!(lab.server.jetstream.consumer("S", "c").unwrap().delivered().stream, 0);
}

#[test]
fn next_acks_and_pulls() {
    let mut lab = Lab::filled(Version::V2_10, 2, EXPLICIT);
    lab.pull("1");
    let next = lab.send("$JS.ACK.S.c.1.1.1.0.0", Some("_INBOX.lab.p"), &[], "+NXT");
    assert_eq!(next, "s.2 d1 s2 c2 p0");
    assert_eq!(lab.floor(), (1, 1));
}

#[test]
fn faults_lose_pulls_and_acks_and_disturb_order() {
    let mut lab = Lab::filled(Version::V2_10, 8, ALL);
    lab.server.jetstream.faults.pull_lost = Chance::ALWAYS;
    assert_eq!(lab.pull("1"), "");
    lab.server.jetstream.faults.pull_lost = Chance::default();
    lab.server.jetstream.faults.redeliver_early = Chance::ALWAYS;
    assert_eq!(lab.pull("2"), "s.1 d1 s1 c1 p7\ns.1 d2 s1 c2 p7");
    lab.server.jetstream.faults.redeliver_early = Chance::default();
    lab.server.jetstream.faults.ack_lost = Chance::ALWAYS;
    lab.pull("8");
    lab.ack((8, 10), "");
    assert_eq!(lab.floor(), (0, 0));
    lab.server.jetstream.faults.redeliver_shuffled = true;
    lab.wait(31 * SEC);
    let again = lab.pull("8");
    let order: Vec<&str> = again.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert!(!order.is_sorted(), "{order:?}");
}
