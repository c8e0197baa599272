//! What NATS says of itself and of the streams daisi uses. Read only: it asks INFO and STREAM.INFO. Sources:
//! NATS client protocol; JetStream API; the version floor is that of `ServerVersion`.

use serde_json::Value;
use shards::wire::nats::info::Info;
use shards::wire::nats::jetstream::{Retention, ServerVersion, Storage, StreamConfig, StreamInfo};

use super::Durability;
use super::report::{Area, Finding};
use crate::config::plan::{AckPolicy, Plan};
use crate::config::value::format_size;
use crate::nats::{Session, SessionError};

/// Least `max_payload` for which `cdc.dlq_payload_max` is made, and what NATS itself advises not to exceed.
const PAYLOAD_MIN: u64 = 1 << 20;
const PAYLOAD_MAX: u64 = 8 << 20;

pub(super) fn examine(plan: &Plan, findings: &mut Vec<Finding>, durability: &mut Durability) {
    for server in &plan.nats.servers {
        match Session::open(server, &plan.nats, "doctor") {
            Ok(mut session) => {
                let place = format!("{}:{}", server.host, server.port);
                findings.push(Finding::ok(Area::Nats, "connection", place));
                server_findings(session.info(), findings);
                if session.info().jetstream {
                    streams(&mut session, plan, findings, durability);
                }
            }
            Err(error) => findings.push(Finding::fail(
                Area::Nats,
                "connection",
                format!("{}:{}: {error}", server.host, server.port),
                "start the server, or correct nats.servers and the credentials",
            )),
        }
    }
}

fn server_findings(info: &Info, findings: &mut Vec<Finding>) {
    let fact = info.version.clone();
    findings.push(match info.server_version() {
        Some(version) if version >= ServerVersion::RECOMMENDED => Finding::ok(Area::Nats, "version", fact),
        Some(version) if version >= ServerVersion::FLOOR => Finding::warn(
            Area::Nats,
            "version",
            fact,
            "upgrade to 2.10.23 or newer: earlier servers can lose streams when killed, and cannot partition",
        ),
        _ => Finding::fail(Area::Nats, "version", fact, "upgrade: 2.9.10 is the oldest server daisi speaks to"),
    });
    findings.push(if info.jetstream {
        Finding::ok(Area::Nats, "jetstream", "on")
    } else {
        Finding::fail(
            Area::Nats,
            "jetstream",
            "off",
            "start the server with JetStream (-js, or a jetstream block)",
        )
    });
    findings.push(max_payload(info.max_payload));
    findings.push(Finding::warn(
        Area::Nats,
        "sync_interval",
        "not readable by a client; 2 min unless the server's file says otherwise",
        "set `jetstream { sync_interval: always }` where one machine's power loss must not cost acked events \
         (tuning/nats/sync.conf)",
    ));
    findings.push(Finding::hint(
        Area::Nats,
        "server file",
        "write_deadline, max_pending, store_dir and the limits of storage are not readable by a client",
        "compare the server's file with tuning/nats/daisi.conf",
    ));
}

fn max_payload(bytes: u64) -> Finding {
    let fact = format_size(bytes);
    if bytes < PAYLOAD_MIN {
        let remedy = "set max_payload: 1MB (tuning/nats/daisi.conf), or lower cdc.dlq_payload_max";
        let fact = format!("{fact}: a dead letter may not hold its event");
        return Finding::warn(Area::Nats, "max_payload", fact, remedy);
    }
    if bytes > PAYLOAD_MAX {
        let fact = format!("{fact}: what comes behind a message of that size waits for it");
        let remedy =
            "set max_payload: 1MB (tuning/nats/daisi.conf), or what your largest event needs";
        return Finding::warn(Area::Nats, "max_payload", fact, remedy);
    }
    Finding::ok(Area::Nats, "max_payload", fact)
}

fn streams(
    session: &mut Session,
    plan: &Plan,
    findings: &mut Vec<Finding>,
    durability: &mut Durability,
) {
    let cdc = &plan.cdc;
    let dlq_subject = format!("{}.>", cdc.dlq_subject);
    let source = session.stream(&cdc.stream);
    if let Ok(Some(stream)) = &source {
        findings.extend(source_findings(plan, &stream.config));
    }
    let mut looked_at = vec![("source stream", cdc.stream.as_str(), source)];
    for subject in &cdc.output_subjects {
        let found = session.stream_of(subject, &cdc.output_stream);
        looked_at.push(("output stream", &cdc.output_stream, found));
    }
    let found = session.stream_of(&dlq_subject, &cdc.dlq_stream);
    looked_at.push(("dead letters", &cdc.dlq_stream, found));
    for (role, name, found) in looked_at {
        findings.extend(stream_findings(role, name, found, durability));
    }
}

fn stream_findings(
    role: &'static str,
    name: &str,
    found: Result<Option<StreamInfo>, SessionError>,
    durability: &mut Durability,
) -> Vec<Finding> {
    let stream = match found {
        Ok(Some(stream)) => stream,
        Ok(None) => {
            let fact = format!("{name} is not there yet; daisi creates it at start");
            return vec![Finding::ok(Area::Nats, role, fact)];
        }
        Err(error) => {
            let remedy = "allow this user the JetStream API ($JS.API.>) and an inbox (_INBOX.>)";
            return vec![Finding::fail(Area::Nats, role, format!("{name}: {error}"), remedy)];
        }
    };
    let config = &stream.config;
    let replicas = config.num_replicas.and_then(|count| u64::try_from(count).ok()).unwrap_or(1);
    durability.stream_replicas =
        Some(durability.stream_replicas.map_or(replicas, |least| least.min(replicas)));
    durability.stream_in_memory |= config.storage == Storage::Memory;
    let fact = format!(
        "{}: {} messages, {} bytes, {replicas} replica(s)",
        config.name, stream.state.messages, stream.state.bytes
    );
    let mut findings = vec![Finding::ok(Area::Nats, role, fact)];
    findings.extend(weaknesses(role, config));
    findings
}

fn weaknesses(role: &'static str, config: &StreamConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fail = |fact: &str, remedy: &str| {
        findings.push(Finding::fail(Area::Nats, role, format!("{}: {fact}", config.name), remedy));
    };
    if config.storage == Storage::Memory {
        fail("messages lie in memory only", "recreate it with storage file");
    }
    if config.no_ack == Some(true) {
        fail("no_ack: publishes are never acknowledged", "set no_ack to false");
    }
    if config.other.get("persist_mode").and_then(Value::as_str) == Some("async") {
        fail("persist_mode async acks before it writes", "set persist_mode to default");
    }
    let unlimited = |limit: Option<i64>| limit.is_none_or(|limit| limit <= 0);
    if unlimited(config.max_bytes) && unlimited(config.max_age) && unlimited(config.max_msgs) {
        let fact = format!("{}: no limit on age, bytes or messages: the disk fills", config.name);
        findings.push(Finding::warn(Area::Nats, role, fact, "set max_age or max_bytes"));
    }
    findings
}

fn source_findings(plan: &Plan, config: &StreamConfig) -> Option<Finding> {
    let all = plan.cdc.ack_policy == AckPolicy::All;
    (all && config.retention == Retention::Workqueue).then(|| {
        let fact = format!("{} is a work queue, which takes explicit acks only", config.name);
        Finding::fail(Area::Nats, "ack policy", fact, "set cdc.ack_policy = \"auto\"")
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    fn info(version: &str, jetstream: bool) -> Info {
        Info { version: version.to_owned(), jetstream, ..Info::default() }
    }

    #[test]
    fn versions_below_the_floor_fail_and_below_the_advised_one_warn() {
        for (version, level) in [
            ("2.9.9", Level::Fail),
            ("2.9.10", Level::Warn),
            ("2.10.22", Level::Warn),
            ("2.10.23", Level::Ok),
            ("2.15.1", Level::Ok),
            ("nonsense", Level::Fail),
        ] {
            let mut findings = Vec::new();
            server_findings(&info(version, true), &mut findings);
            assert_eq!(findings[0].level, level, "{version}");
        }
        let mut findings = Vec::new();
        server_findings(&info("2.15.1", false), &mut findings);
        assert_eq!(findings[1].level, Level::Fail);
    }

    #[test]
    fn payloads_are_neither_too_small_for_a_dead_letter_nor_too_large_for_the_rest() {
        let level = |bytes| max_payload(bytes).level;
        assert_eq!([level(PAYLOAD_MIN - 1), level(PAYLOAD_MIN)], [Level::Warn, Level::Ok]);
        assert_eq!([level(PAYLOAD_MAX), level(PAYLOAD_MAX + 1)], [Level::Ok, Level::Warn]);
    }

    #[test]
    fn a_stream_that_would_lose_events_fails_and_the_least_replicas_count() {
        let mut durability = Durability::default();
        let stream = |replicas, storage| {
            let config = StreamConfig {
                num_replicas: Some(replicas),
                storage,
                max_age: Some(1),
                ..StreamConfig::default()
            };
            Ok(Some(StreamInfo { config, ..StreamInfo::default() }))
        };
        let mut worst = |found| {
            let findings = stream_findings("source stream", "s", found, &mut durability);
            findings.iter().map(|finding| finding.level).max()
        };
        assert_eq!(worst(stream(3, Storage::File)), Some(Level::Ok));
        assert_eq!(worst(stream(1, Storage::Memory)), Some(Level::Fail));
        assert_eq!(worst(Ok(None)), Some(Level::Ok));
        assert_eq!(worst(Err(SessionError::Refused("no".into()))), Some(Level::Fail));
        assert_eq!(durability.stream_replicas, Some(1));
        assert!(durability.stream_in_memory);
    }
}
