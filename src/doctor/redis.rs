//! What Redis says of itself: version, persistence, eviction, and what `tuning/redis/daisi.conf` sets besides.
//! Read only. Sources: INFO and CONFIG GET of Redis 7; SET with NX and GET together needs 7.0.

use bytes::{Bytes, BytesMut};
use shards::wire::resp::{Reply, decode, encode_command};

use super::Durability;
use super::report::{Area, Finding};
use crate::config::plan::{Plan, RedisPlan};
use crate::dial::Link;
use crate::host;
use crate::tune::files;

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

/// Share of `maxmemory` from which writes are about to fail, percent.
const FULL_PERCENT: u64 = 80;
/// What is asked for, by CONFIG GET.
const CONFIG: [&[u8]; 6] =
    [b"append*", b"maxmemory*", b"no-appendfsync-on-rewrite", b"save", b"io-threads", b"hz"];
/// Settings of the file without words of their own.
const SETTINGS: [Rule; 4] = [
    Rule {
        name: "no-appendfsync-on-rewrite",
        is_good: |value| value == "no",
        why: "while the log is rewritten, nothing is synced",
    },
    Rule {
        name: "save",
        is_good: str::is_empty,
        why: "each snapshot forks, and copies what is written meanwhile",
    },
    Rule {
        name: "io-threads",
        is_good: |value| value == "1",
        why: "threads that spin for the few connections that shards have",
    },
    Rule {
        name: "hz",
        is_good: |value| value.parse::<u64>().is_ok_and(|hz| hz >= 100),
        why: "keys that expire are swept for up to 25 ms at a time",
    },
];

/// How one setting is judged.
struct Rule {
    name: &'static str,
    /// As good as the value of the file.
    is_good: fn(&str) -> bool,
    /// What is bad about any other.
    why: &'static str,
}

/// What the server said.
#[derive(Debug, Default)]
struct Facts {
    version: String,
    /// Bytes in use; 0 where it is not told.
    used: u64,
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
    let memory = request(&mut link, &[b"INFO", b"memory"])?;
    let used = text(&memory)
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:").and_then(|used| used.parse().ok()));
    let config = config(&mut link).ok();
    Ok(Facts { version: version.unwrap_or_default(), used: used.unwrap_or(0), config })
}

fn config(link: &mut Link) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    for pattern in CONFIG {
        settings.extend(pairs(&request(link, &[b"CONFIG", b"GET", pattern])?));
    }
    Ok(settings)
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
    findings.extend(SETTINGS.iter().map(|rule| setting(facts, rule)));
    findings
}

fn setting(facts: &Facts, Rule { name, is_good, why }: &Rule) -> Finding {
    let Some(value) = facts.config(name) else {
        return Finding::ok(Area::Redis, name, "this version does not have it");
    };
    let shown = if value.is_empty() { "none" } else { value };
    if is_good(value) {
        return Finding::ok(Area::Redis, name, shown);
    }
    let lines = files::directives(files::REDIS);
    let wanted = lines.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value);
    let wanted = if wanted.is_empty() { "\"\"" } else { wanted };
    let remedy = format!("set {name} {wanted} (tuning/redis/daisi.conf)");
    Finding::warn(Area::Redis, name, format!("{shown}: {why}"), &remedy)
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
    let memory: u64 = facts.config("maxmemory").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    if memory == 0 {
        let fact = format!("maxmemory 0, maxmemory-policy {policy}");
        let remedy = "set maxmemory, so that Redis refuses before the kernel kills it (tuning/redis/daisi.conf)";
        return Finding::hint(Area::Redis, "eviction", fact, remedy);
    }
    let percent = facts.used.saturating_mul(100) / memory;
    let fact = format!("maxmemory {memory}, {percent}% used, maxmemory-policy {policy}");
    match policy {
        "noeviction" if required && percent >= FULL_PERCENT => Finding::warn(
            Area::Redis,
            "eviction",
            fact,
            "when memory is full every write fails and daisi pauses: raise maxmemory, or shorten cdc.dedup_ttl",
        ),
        "noeviction" | "volatile-ttl" => Finding::ok(Area::Redis, "eviction", fact),
        _ => Finding::warn(
            Area::Redis,
            "eviction",
            fact,
            "keys may go before their time, and a redelivered event comes twice: use noeviction and more memory",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    const GOOD: [(&str, &str); 8] = [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "no"),
        ("save", ""),
        ("maxmemory", "1000"),
        ("maxmemory-policy", "noeviction"),
        ("io-threads", "1"),
        ("hz", "100"),
    ];

    fn levels(version: &str, used: u64, config: Option<&[(&str, &str)]>) -> Vec<Level> {
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|&(n, v)| (n.into(), v.into())).collect();
        let facts = Facts { version: version.to_owned(), used, config: config.map(own) };
        judge(&facts, true).into_iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn version_persistence_and_eviction_are_judged() {
        assert_eq!(levels("7.0.15", 799, Some(&GOOD)), [Level::Ok; 7]);
        assert_eq!(levels("7.0.15", 800, Some(&GOOD))[2], Level::Warn, "nearly full");
        assert_eq!(levels("6.2.0", 0, Some(&GOOD))[0], Level::Fail);
        assert_eq!(levels("7.0.15", 0, None), [Level::Ok, Level::Warn]);
        let documented =
            [("appendonly", "no"), ("maxmemory", "104857600"), ("maxmemory-policy", "allkeys-lru")];
        assert_eq!(levels("7.0.15", 0, Some(&documented))[1..3], [Level::Warn, Level::Warn]);
    }

    #[test]
    fn every_line_of_the_file_is_looked_at_and_as_it_should_be() {
        let shipped = [("save", "3600 1"), ("io-threads", "4"), ("hz", "10")];
        let warnings = levels("7.0.15", 0, Some(&shipped));
        assert_eq!(warnings.iter().filter(|level| **level == Level::Warn).count(), 4);
        let lines = files::directives(files::REDIS);
        let names = |pairs: &[(&'static str, &'static str)]| {
            let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&lines), names(&GOOD));
        for Rule { name, is_good, .. } in SETTINGS {
            let (_, value) = lines.iter().find(|(have, _)| *have == name).unwrap();
            assert!(is_good(value), "{name} {value}");
        }
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
