//! The one promise that holds, from what the servers said (design §5.6). Pure. Invariant: where a setting
//! cannot be read from here, the answer is "unknown" and says where to look; never a guess.

use super::Durability;
use super::report::Promise;

/// From the smallest failure to the greatest.
pub(super) fn promises(seen: &Durability, offline: bool) -> Vec<Promise> {
    vec![killed(seen, offline), node(seen), site()]
}

fn killed(seen: &Durability, offline: bool) -> Promise {
    let failure = "killed process";
    let promise =
        |survives, because: &str| Promise { failure, survives, because: because.to_owned() };
    if offline {
        return promise(None, "the servers were not asked");
    }
    if seen.stream_in_memory {
        return promise(
            Some(false),
            "a stream keeps its messages in memory only: set storage to file",
        );
    }
    if seen.stream_replicas.is_none() {
        return promise(None, "no stream could be looked at");
    }
    if seen.redis_logged == Some(false) {
        // No event is lost by that: a lost key costs a duplicate, which the stream's window mostly catches.
        return promise(
            Some(true),
            "daisi, NATS, PostgreSQL: nothing is lost; a killed Redis forgets what was published (appendonly no), \
             so events may come twice",
        );
    }
    promise(
        Some(true),
        "daisi, NATS or Redis: an event is acked only after its effect was acknowledged",
    )
}

fn node(seen: &Durability) -> Promise {
    let failure = "lost node";
    let promise =
        |survives, because: &str| Promise { failure, survives, because: because.to_owned() };
    if seen.postgres_synced == Some(false) {
        return promise(
            Some(false),
            "PostgreSQL runs with synchronous_commit=off: the last commits may be missing",
        );
    }
    match seen.stream_replicas {
        None => promise(None, "no stream could be looked at"),
        Some(replicas) if replicas >= 3 => promise(
            Some(true),
            "streams have 3 replicas or more; keep them in different failure domains",
        ),
        Some(_) => promise(
            None,
            "one copy: after a power loss NATS misses up to sync_interval (2 min by default, not readable by a \
             client) unless the server says `sync_interval: always`; a lost disk loses all",
        ),
    }
}

fn site() -> Promise {
    Promise {
        failure: "lost site",
        survives: None,
        because: "placement is not readable by a client: with all replicas at one site, nothing survives; replicas \
                  at three sites, or a mirror elsewhere, do"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(seen: &Durability) -> Vec<Option<bool>> {
        promises(seen, false).into_iter().map(|promise| promise.survives).collect()
    }

    #[test]
    fn only_what_was_seen_is_promised() {
        assert_eq!(answers(&Durability::default()), [None, None, None]);
        let one = Durability { stream_replicas: Some(1), ..Durability::default() };
        assert_eq!(answers(&one), [Some(true), None, None]);
        let three = Durability { stream_replicas: Some(3), ..Durability::default() };
        assert_eq!(answers(&three), [Some(true), Some(true), None]);
        let memory = Durability { stream_in_memory: true, ..three.clone() };
        assert_eq!(answers(&memory)[0], Some(false));
        let unsynced = Durability { postgres_synced: Some(false), ..three };
        assert_eq!(answers(&unsynced)[1], Some(false));
        assert_eq!(promises(&one, true)[0].survives, None);
    }
}
