//! What a killed server keeps and loses.

use super::*;
use crate::peers::Refused;
use crate::peers::jetstream::faults::CrashLoss;

const ALL: &str = r#"{"durable_name":"c","ack_policy":"all"}"#;

fn crash_and_return(lab: &mut Lab, loss: CrashLoss) {
    lab.server.crash(loss);
    assert_eq!(lab.server.connect(lab.now), Err(Refused::Down));
    assert!(!lab.server.is_open(lab.conn));
    lab.server.restart();
    lab.reconnect();
}

#[test]
fn kill_keeps_messages_and_dedup_and_loses_pulls() {
    let mut lab = Lab::filled(Version::V2_10, 2, ALL);
    lab.publish("s.3", &[("Nats-Msg-Id", "a")], "x");
    lab.pull("3");
    lab.ack((3, 3), "");
    lab.pull(r#"{"batch":5,"expires":9000000000}"#);
    crash_and_return(&mut lab, CrashLoss::default());
    assert!(lab.publish("s.3", &[("Nats-Msg-Id", "a")], "x").contains(r#""seq":3,"duplicate""#));
    assert_eq!(lab.publish("s.4", &[], "x"), r#"{"stream":"S", "seq":4}"#);
    assert_eq!(lab.floor(), (3, 3));
    assert_eq!(lab.pull("1"), "s.4 d1 s4 c4 p0");
}

#[test]
fn ack_floor_falls_back_by_no_more_than_asked_and_nothing_is_skipped() {
    let no_wait = r#"{"batch":99,"no_wait":true}"#;
    let mut lab = Lab::filled(Version::V2_10, 20, ALL);
    let mut fallen = 0;
    for last in (20..=1000).step_by(20) {
        let (_, cseq) = positions(&lab.pull(no_wait)).pop().unwrap();
        lab.ack((last, cseq), "");
        assert_eq!(lab.floor().1, last);
        crash_and_return(&mut lab, CrashLoss { ack_floor_max: 5, stream_tail_max: 0 });
        let (_, floor) = lab.floor();
        assert!((last - 5..=last).contains(&floor), "{floor} after {last}");
        fallen += last - floor;
        let mut seen: Vec<u64> = positions(&lab.pull(no_wait)).into_iter().map(|p| p.0).collect();
        seen.sort_unstable();
        assert_eq!(seen, (floor + 1..=last).collect::<Vec<_>>());
        for n in 1..=20 {
            lab.publish(&format!("s.{n}"), &[], "x");
        }
    }
    assert!(fallen > 0);
}

/// Stream and consumer sequences of the deliveries in `lines`.
fn positions(lines: &str) -> Vec<(u64, u64)> {
    let deliveries = lines.lines().filter(|l| l.starts_with("s."));
    let number = |part: Option<&str>| part.unwrap()[1..].parse().unwrap();
    let parts = deliveries.map(|l| l.split(' ').skip(2));
    parts.map(|mut p| (number(p.next()), number(p.next()))).collect()
}

#[test]
fn power_loss_takes_the_tail_and_memory_streams_are_empty() {
    let mut lab = Lab::filled(Version::V2_10, 20, ALL);
    lab.stream(r#"{"name":"M","subjects":["m.>"],"storage":"memory"}"#);
    lab.publish("m.1", &[], "x");
    crash_and_return(&mut lab, CrashLoss { ack_floor_max: 0, stream_tail_max: 5 });
    let last = lab.server.jetstream.store("S").unwrap().last_seq();
    assert!((15..=20).contains(&last), "{last}");
    assert_eq!(lab.publish("m.1", &[], "x"), r#"{"stream":"M", "seq":1}"#);
    assert_eq!(lab.publish("s.x", &[], "x"), format!(r#"{{"stream":"S", "seq":{}}}"#, last + 1));
}
