//! Core protocol: framing errors, wildcards, queue groups, 503, UNSUB, PING, lame duck, limits.

use super::*;
use crate::peers::{Chance, Refused};

#[test]
fn bad_framing_closes_with_or_without_a_word() {
    let cases = [
        ("PUB foo 4\r\nhello\r\n", "-ERR 'Unknown Protocol Operation'|", false),
        ("FOO bar\r\n", "-ERR 'Unknown Protocol Operation'|", false),
        ("PUB foo -1\r\n", "", false),
        ("HPUB foo 30 27\r\n", "", false),
        ("SUB a..b 9\r\n", "-ERR 'Invalid Subject'|", true),
        ("PUB a..b 1\r\nx\r\n", "", true),
        ("PING\r\n", "PONG|", true),
    ];
    for (bytes, answer, stays_open) in cases {
        let mut lab = Lab::new(Version::V2_10);
        assert_eq!(lab.raw(bytes), answer, "{bytes}");
        assert_eq!(lab.server.is_open(lab.conn), stays_open, "{bytes}");
    }
}

#[test]
fn wildcards_and_queue_groups_route_as_the_server_does() {
    let mut lab = Lab::new(Version::V2_10);
    lab.raw("SUB a.* 2\r\nSUB a.> 3\r\nSUB a.b q 4\r\nSUB a.b q 5\r\n");
    let out = lab.raw("PUB a.b 1\r\nx\r\nPUB a.b.c 1\r\ny\r\n");
    let in_group = out.contains("MSG a.b 4 1|x|") ^ out.contains("MSG a.b 5 1|x|");
    assert!(in_group, "{out}");
    assert!(out.contains("MSG a.b 2 1|x|") && out.contains("MSG a.b 3 1|x|"), "{out}");
    assert_eq!(out.matches("|y|").count(), 1, "{out}");
}

#[test]
fn unsub_counts_deliveries_from_the_sub_on() {
    let mut lab = Lab::new(Version::V2_10);
    let three = "PUB foo 1\r\n1\r\nPUB foo 1\r\n2\r\nPUB foo 1\r\n3\r\n";
    assert_eq!(
        lab.raw(&format!("SUB foo 2\r\nUNSUB 2 2\r\n{three}")),
        "MSG foo 2 1|1|MSG foo 2 1|2|"
    );
    lab.raw(&format!("SUB foo 3\r\n{three}UNSUB 3 1\r\n"));
    assert_eq!(lab.raw(three), "");
}

#[test]
fn request_without_listener_gets_503_in_the_words_of_its_version() {
    for (version, expected) in [
        (Version::V2_10, "HMSG _INBOX.lab.r 1 16 16|NATS/1.0 503|||"),
        (Version::V2_15, "HMSG _INBOX.lab.r 1 38 38|NATS/1.0 503|Nats-Subject: nobody|||"),
    ] {
        let mut lab = Lab::new(version);
        assert_eq!(lab.raw("PUB nobody _INBOX.lab.r 1\r\nx\r\n"), expected);
        // Only to an inbox the same connection listens on.
        assert_eq!(lab.raw("PUB nobody _INBOX.other.r 1\r\nx\r\n"), "");
    }
}

#[test]
fn payload_above_the_limit_closes_and_the_limit_itself_passes() {
    let mut lab = Lab::with(NatsOptions { max_payload: 4, ..NatsOptions::default() });
    assert_eq!(lab.raw("SUB f 2\r\nPUB f 4\r\nabcd\r\n"), "MSG f 2 4|abcd|");
    assert_eq!(lab.raw("PUB f 5\r\nabcde\r\n"), "-ERR 'Maximum Payload Violation'|");
    assert!(!lab.server.is_open(lab.conn));
}

#[test]
fn second_info_follows_the_first_pong_from_2_12_on() {
    let mut old = Lab::new(Version::V2_10);
    assert_eq!(old.raw("PING\r\n"), "PONG|");
    let mut new = Lab::new(Version::V2_15);
    assert!(new.raw("PING\r\n").starts_with("PONG|INFO {"));
    assert_eq!(new.raw("PING\r\n"), "PONG|");
}

#[test]
fn unanswered_pings_end_the_connection() {
    let mut lab = Lab::with(NatsOptions { ping_interval: 10, ..NatsOptions::default() });
    for expected in ["PING|", "PING|", "-ERR 'Stale Connection'|"] {
        lab.now.mono += 10;
        lab.server.tick(lab.now);
        assert_eq!(lab.raw(""), expected);
    }
    assert!(!lab.server.is_open(lab.conn));
}

#[test]
fn lame_duck_tells_and_takes_nobody_new() {
    let mut lab = Lab::new(Version::V2_10);
    lab.server.lame_duck();
    assert!(lab.read().contains(r#""ldm":true"#));
    assert_eq!(lab.server.connect(lab.now), Err(Refused::LameDuck));
}

#[test]
fn login_is_asked_for() {
    let login = Some(("u".to_owned(), "p".to_owned()));
    let options = NatsOptions { login, ..NatsOptions::default() };
    let mut server = NatsServer::new(options, Rng::with_seed(1));
    let now = Now::default();
    for (connect, is_let_in) in [
        ("CONNECT {\"user\":\"u\",\"pass\":\"p\",\"verbose\":false}\r\nPING\r\n", true),
        ("CONNECT {\"user\":\"u\",\"pass\":\"q\",\"verbose\":false}\r\nPING\r\n", false),
        ("PING\r\n", false),
    ] {
        let conn = server.connect(now).unwrap();
        server.handle_bytes(now, conn, connect.as_bytes());
        let out = String::from_utf8_lossy(&server.poll_output(conn)).into_owned();
        assert_eq!(out.ends_with("PONG\r\n"), is_let_in, "{out}");
        assert_eq!(out.contains("Authorization Violation"), !is_let_in, "{out}");
    }
}

#[test]
fn cut_frame_ends_the_connection_inside_the_frame() {
    let mut lab = Lab::new(Version::V2_10);
    lab.raw("SUB foo 2\r\n");
    lab.server.frame_cut = Chance::ALWAYS;
    let out = lab.raw("PUB foo 5\r\nhello\r\n");
    assert!("MSG foo 2 5|hello|".starts_with(&out.replace('\r', "|")) || out.ends_with('\r'));
    assert!(out.len() < "MSG foo 2 5|hello|".len());
    assert!(!lab.server.is_open(lab.conn));
}

#[test]
fn client_that_does_not_read_is_cut_without_an_error_line() {
    let mut lab = Lab::with(NatsOptions { max_pending: 64, ..NatsOptions::default() });
    let flood = "PUB foo 20\r\n01234567890123456789\r\n".repeat(4);
    let out = lab.raw(&format!("SUB foo 2\r\n{flood}"));
    assert!(!out.contains("-ERR"));
    assert!(!lab.server.is_open(lab.conn));
}

#[test]
fn closed_connection_receives_nothing_and_its_subscriptions_are_gone() {
    let mut lab = Lab::new(Version::V2_10);
    lab.raw("SUB foo 2\r\n");
    let gone = lab.conn;
    lab.server.close(gone);
    lab.reconnect();
    assert_ne!(lab.conn, gone);
    assert_eq!(
        lab.raw("PUB foo _INBOX.lab.r 1\r\nx\r\n"),
        "HMSG _INBOX.lab.r 1 16 16|NATS/1.0 503|||"
    );
}

#[test]
fn same_seed_same_bytes() {
    let run = |seed| {
        let mut server = NatsServer::new(NatsOptions::default(), Rng::with_seed(seed));
        let now = Now::default();
        let conn = server.connect(now).unwrap();
        server.frame_cut = Chance(0.2);
        server.handle_bytes(now, conn, b"CONNECT {\"verbose\":false}\r\nSUB f 1\r\n");
        for _ in 0..20 {
            server.handle_bytes(now, conn, b"PUB f 5\r\nhello\r\n");
        }
        server.poll_output(conn)
    };
    assert_eq!(run(1), run(1));
    assert!((2..20).any(|seed| run(seed) != run(1)));
}
