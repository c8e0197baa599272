//! What Redis says of itself: version, persistence, eviction. Read only. Sources: INFO and CONFIG GET of
//! Redis 7; SET with NX and GET together needs 7.0.

use bytes::{Bytes, BytesMut};
use shards::wire::resp::{Reply, decode, encode_command};

use super::Durability;
use super::report::{Area, Finding};
use crate::config::plan::{Plan, RedisPlan};
use crate::dial::Link;
use crate::host;

pub(super) fn examine(plan: &Plan, findings: &mut Vec<Finding>, durability: &mut Durability) {
    let server = &plan.redis.server;
    let place = format!("{}:{}", server.host, server.port);
    match ask(&plan.redis) {
        Ok(facts) => {
            findings.push(Finding::ok(Area::Redis, "connection", place));
            findings.extend(judge(&facts, plan.cdc.dedup_required));
            durability.redis_logged = facts.config("appendonly").map(|value| value == "yes");
            durability.redis_synced = facts.config("appendfsync").map(|value| value == "always");
        }
        Err(error) => findings.push(Finding::fail(
            Area::Redis,
            "connection",
            format!("{place}: {error}"),
            "start the server, or correct redis.url and the credentials",
        )),
    }
}

/// What the server said.
#[derive(Debug, Default)]
struct Facts {
    version: String,
    /// `None` where CONFIG is not allowed, as on hosted servers.
    config: Option<Vec<(String, String)>>,
}

impl Facts {
    fn config(&self, name: &str) -> Option<&str> {
        let pairs = self.config.as_ref()?;
        pairs.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

fn ask(plan: &RedisPlan) -> Result<Facts, String> {
    let mut link = Link::connect(&plan.server, plan.connect_timeout)?;
    if plan.server.tls {
        link.upgrade(&plan.server.host, &plan.tls)?;
    }
    if let Some(password) = &plan.server.password {
        let mut command: Vec<&[u8]> = vec![b"AUTH"];
        command.extend(plan.server.user.as_ref().map(String::as_bytes));
        command.push(password.expose().as_bytes());
        request(&mut link, &command)?;
    }
    let info = request(&mut link, &[b"INFO", b"server"])?;
    let version =
        text(&info).lines().find_map(|line| line.strip_prefix("redis_version:").map(str::to_owned));
    let config = request(&mut link, &[b"CONFIG", b"GET", b"append*"]).and_then(|first| {
        let second = request(&mut link, &[b"CONFIG", b"GET", b"maxmemory*"])?;
        Ok(pairs(&first).chain(pairs(&second)).collect())
    });
    Ok(Facts { version: version.unwrap_or_default(), config: config.ok() })
}

fn request(link: &mut Link, command: &[&[u8]]) -> Result<Reply, String> {
    let mut out = BytesMut::new();
    encode_command(&mut out, command);
    link.send(&out)?;
    match link.receive(decode)? {
        Reply::Error(error) => Err(String::from_utf8_lossy(&error).into_owned()),
        reply => Ok(reply),
    }
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(Some(bytes)) | Reply::Simple(bytes) => lossy(bytes),
        _ => String::new(),
    }
}

fn lossy(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names and values of an answer to CONFIG GET.
fn pairs(reply: &Reply) -> impl Iterator<Item = (String, String)> {
    let items = if let Reply::Array(Some(items)) = reply { items.as_slice() } else { &[] };
    items
        .chunks_exact(2)
        .map(|pair| (text(&pair[0]), text(&pair[1])))
        .collect::<Vec<_>>()
        .into_iter()
}

fn judge(facts: &Facts, required: bool) -> Vec<Finding> {
    let mut findings = vec![match host::parse_version(&facts.version) {
        Some((major, _)) if major >= 7 => Finding::ok(Area::Redis, "version", &*facts.version),
        _ => Finding::fail(
            Area::Redis,
            "version",
            facts.version.clone(),
            "upgrade to 7.0 or newer: SET with NX and GET together is needed",
        ),
    }];
    if facts.config.is_none() {
        findings.push(Finding::warn(
            Area::Redis,
            "persistence",
            "CONFIG GET is not allowed to this user",
            "see that appendonly is yes and maxmemory-policy evicts no key before its time",
        ));
        return findings;
    }
    findings.push(persistence(facts));
    findings.push(eviction(facts, required));
    findings
}

fn persistence(facts: &Facts) -> Finding {
    let (logged, synced) = (facts.config("appendonly"), facts.config("appendfsync").unwrap_or("?"));
    match (logged, synced) {
        (Some("yes"), "always" | "everysec") => {
            Finding::ok(Area::Redis, "persistence", format!("appendonly yes, appendfsync {synced}"))
        }
        (Some("yes"), _) => Finding::warn(
            Area::Redis,
            "persistence",
            format!("appendonly yes, appendfsync {synced}"),
            "set appendfsync to everysec or always: a power loss forgets what was published",
        ),
        _ => Finding::warn(
            Area::Redis,
            "persistence",
            "appendonly no: a restart forgets what was published, and redelivered events come twice",
            "set appendonly yes",
        ),
    }
}

fn eviction(facts: &Facts, required: bool) -> Finding {
    let policy = facts.config("maxmemory-policy").unwrap_or("?");
    let memory = facts.config("maxmemory").unwrap_or("0");
    let fact = format!("maxmemory {memory}, maxmemory-policy {policy}");
    if memory == "0" || policy.starts_with("volatile-ttl") {
        return Finding::ok(Area::Redis, "eviction", fact);
    }
    match policy {
        "noeviction" if required => Finding::warn(
            Area::Redis,
            "eviction",
            fact,
            "when memory is full every write fails and daisi pauses: alarm on used_memory, or use volatile-ttl",
        ),
        "noeviction" => Finding::ok(Area::Redis, "eviction", fact),
        _ => Finding::warn(
            Area::Redis,
            "eviction",
            fact,
            "keys may go before their time, and a redelivered event comes twice: use volatile-ttl and more memory",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    fn levels(version: &str, config: Option<&[(&str, &str)]>) -> Vec<Level> {
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|&(n, v)| (n.into(), v.into())).collect();
        let facts = Facts { version: version.to_owned(), config: config.map(own) };
        judge(&facts, true).into_iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn version_persistence_and_eviction_are_judged() {
        let good = [
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
        ];
        assert_eq!(levels("7.0.15", Some(&good)), [Level::Ok; 3]);
        assert_eq!(levels("6.2.0", Some(&good))[0], Level::Fail);
        assert_eq!(levels("7.0.15", None), [Level::Ok, Level::Warn]);
        let documented =
            [("appendonly", "no"), ("maxmemory", "104857600"), ("maxmemory-policy", "allkeys-lru")];
        assert_eq!(levels("7.0.15", Some(&documented)), [Level::Ok, Level::Warn, Level::Warn]);
    }

    #[test]
    fn answers_to_config_get_are_paired() {
        let bulk = |text: &'static str| Reply::Bulk(Some(Bytes::from_static(text.as_bytes())));
        let reply = Reply::Array(Some(vec![bulk("appendonly"), bulk("yes"), bulk("odd")]));
        assert_eq!(
            pairs(&reply).collect::<Vec<_>>(),
            [("appendonly".to_owned(), "yes".to_owned())]
        );
    }
}
