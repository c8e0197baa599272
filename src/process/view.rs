//! The shards' figures and words as the pages want them. Cold: runs on a scrape and on a shard's report.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::shards::id::ShardId;
use ::shards::metrics::{
    DlqFigures, Histogram, IngestFigures, Outcome as ShardOutcome, ShardFigures, TABLES,
};
use ::shards::pipeline::{Books, Need, Status, ingest_reason_labels, kind_labels, reason_labels};
use ::shards::pool::Pool;

use crate::control::view::{
    Buckets, CompanyCount, DedupCount, Dependency, DependencyState, EventCount, IngestSnapshot,
    LetterCounts, Outcome, PublishCount, ShardSnapshot, ShardStatus, ShardView, TableTimes,
    UnhandledField,
};

/// What the shards last said of themselves. The pages read it from their thread, the control thread
/// writes it ten times a second; no shard comes near this lock.
#[allow(clippy::disallowed_types, reason = "cold: control thread and pages only, never a shard")]
type Shared<T> = Arc<std::sync::Mutex<T>>;

/// Status of every shard.
pub(super) struct Conditions {
    shards: Vec<Shared<Condition>>,
    figures: Vec<Arc<ShardFigures>>,
}

#[derive(Default)]
struct Condition {
    status: Option<Status>,
    since: HashMap<&'static str, (bool, Instant)>,
    companies: Vec<CompanyCount>,
}

struct View {
    shard: usize,
    core: usize,
    figures: Arc<ShardFigures>,
    condition: Shared<Condition>,
}

/// Conditions to write, and views to read, of every shard of a pool.
pub(super) fn of_pool(pool: &Pool, cores: &[usize]) -> (Conditions, Vec<Box<dyn ShardView>>) {
    let mut conditions = Conditions { shards: Vec::new(), figures: Vec::new() };
    let mut views: Vec<Box<dyn ShardView>> = Vec::new();
    for (place, (member, core)) in pool.members.iter().zip(cores).enumerate() {
        let condition = Shared::default();
        conditions.shards.push(Arc::clone(&condition));
        conditions.figures.push(Arc::clone(&member.figures));
        let figures = Arc::clone(&member.figures);
        views.push(Box::new(View { shard: place, core: *core, figures, condition }));
    }
    (conditions, views)
}

impl Conditions {
    /// A shard has said how it is.
    pub(super) fn update(&self, shard: ShardId, status: Status) {
        let Some(condition) = self.shards.get(usize::from(shard.0)) else { return };
        let Ok(mut condition) = condition.lock() else { return };
        for dependency in dependencies(&status) {
            let up = matches!(dependency.1, DependencyState::Up | DependencyState::Standby);
            let entry = condition.since.entry(dependency.0).or_insert((up, Instant::now()));
            if entry.0 != up {
                *entry = (up, Instant::now());
            }
        }
        condition.status = Some(status);
    }

    /// A shard has told its books.
    pub(super) fn update_books(&self, shard: usize, books: Vec<(Box<[u8]>, Books)>) {
        let Some(Ok(mut condition)) = self.shards.get(shard).map(|c| c.lock()) else { return };
        let company = |(name, books): (Box<[u8]>, Books)| CompanyCount {
            company: String::from_utf8_lossy(&name).into_owned(),
            // What was given back is read, and counted, again.
            pulled: books.pulled - books.returned,
            committed: books.committed,
            filtered: books.filtered,
            duplicate: books.duplicate,
            dead_lettered: books.dead_lettered,
            expired: 0,
            in_flight: books.in_flight(),
        };
        condition.companies = books.into_iter().map(company).collect();
    }

    /// Events without outcome, over all shards.
    pub(super) fn in_flight(&self) -> u64 {
        let held = |f: &ShardFigures| natural(f.in_flight.get() + f.ingest.in_flight.get());
        self.figures.iter().map(|figures| held(figures)).sum()
    }
}

// Each thing a shard needs, and how it is.
fn dependencies(status: &Status) -> Vec<(&'static str, DependencyState)> {
    let state = |reason: &Option<String>| match reason {
        None => DependencyState::Up,
        Some(reason) => DependencyState::Down(reason.clone()),
    };
    let mut all = vec![("nats", state(&status.nats))];
    for (name, need) in [("redis", &status.redis), ("postgres", &status.postgres)] {
        match need {
            Need::None => {}
            Need::Up => all.push((name, DependencyState::Up)),
            Need::Down(why) => all.push((name, DependencyState::Down(why.clone()))),
        }
    }
    if status.nats.is_some() {
        return all; // What lies behind it is not known.
    }
    all.push(("stream", state(&status.setup)));
    for reader in &status.readers {
        let consumer = match (&reader.trouble, reader.leased) {
            (Some(trouble), _) if !reader.reading => DependencyState::Down(trouble.clone()),
            (_, true) if reader.reading => DependencyState::Up,
            (_, true) => DependencyState::Starting("the consumer is being prepared".to_owned()),
            (_, false) => DependencyState::Standby,
        };
        all.push(("consumer", consumer));
    }
    all
}

impl ShardView for View {
    fn snapshot(&self) -> ShardSnapshot {
        let figures = &self.figures;
        ShardSnapshot {
            pulled: figures.pulled.get(),
            returned: figures.returned.get(),
            redelivered: figures.redelivered.get(),
            in_flight: natural(figures.in_flight.get()),
            in_flight_bytes: natural(figures.in_flight_bytes.get()),
            events: events(figures),
            published: figures.tables.iter().zip(TABLES).map(published).collect(),
            dedup: figures.tables.iter().zip(TABLES).map(dedup).collect(),
            processing: figures.tables.iter().zip(TABLES).map(processing).collect(),
            publish_times: buckets(&figures.publish),
            redis_times: buckets(&figures.claim),
            unhandled_fields: figures.unhandled.iter().filter_map(unhandled).collect(),
            ingest: self.is_ingesting().then(|| ingest(&figures.ingest, &figures.dlq)),
            companies: self.condition.lock().map(|c| c.companies.clone()).unwrap_or_default(),
            reconnects: figures.nats_connects.get().saturating_sub(1)
                + figures.redis_connects.get().saturating_sub(1),
            panics: figures.panics.get(),
            spans: figures.spans.get(),
            spans_dropped: figures.spans_dropped.get(),
            turns: figures.turns.get(),
        }
    }

    fn status(&self) -> ShardStatus {
        let figures = &self.figures;
        let mut status = ShardStatus {
            shard: self.shard,
            core: self.core,
            heartbeat_age: age_of(figures.heartbeat_ms.get()),
            companies: natural(figures.companies.get()),
            partitions: Vec::new(),
            in_flight: natural(figures.in_flight.get() + figures.ingest.in_flight.get()),
            lag: Duration::from_millis(natural(figures.lag_ms.get())),
            held: Vec::new(),
            dependencies: Vec::new(),
        };
        let Ok(condition) = self.condition.lock() else { return status };
        let Some(told) = &condition.status else {
            let state = DependencyState::Starting("the shard has not reported yet".to_owned());
            status.dependencies.push(Dependency { name: "nats", state, since: Duration::ZERO });
            return status;
        };
        status.held.clone_from(&told.held);
        status.partitions =
            told.readers.iter().filter(|r| r.reading).map(|r| r.partition.0).collect();
        let since = |name| condition.since.get(name).map_or(Duration::ZERO, |s| s.1.elapsed());
        status.dependencies = dependencies(told)
            .into_iter()
            .map(|(name, state)| Dependency { name, state, since: since(name) })
            .collect();
        status
    }
}

impl View {
    fn is_ingesting(&self) -> bool {
        let condition = self.condition.lock();
        let told = condition.ok().and_then(|c| c.status.as_ref().map(|s| s.postgres.clone()));
        told.is_some_and(|postgres| postgres != Need::None)
    }
}

fn ingest(figures: &IngestFigures, dlq: &DlqFigures) -> IngestSnapshot {
    let kinds = kind_labels().into_iter().zip(&figures.outcomes);
    let events = kinds.flat_map(|(kind, outcomes)| {
        let outcomes = ShardOutcome::ALL.iter().zip(outcomes);
        outcomes.map(move |(outcome, count)| (kind, outcome_of(*outcome), count.get()))
    });
    let reasons = ingest_reason_labels().into_iter().zip(&figures.reasons);
    let reasons = reasons.map(|(reason, count)| (reason, count.get()));
    IngestSnapshot {
        pulled: figures.pulled.get(),
        returned: figures.returned.get(),
        in_flight: natural(figures.in_flight.get()),
        events: events.collect(),
        reasons: reasons.filter(|(_, count)| *count > 0).collect(),
        stale: figures.stale.get(),
        limited: figures.limited.get(),
        suspicious: figures.suspicious.get(),
        batches: figures.batches.get(),
        batch_events: figures.batch_events.get(),
        away: figures.away.get(),
        lanes: natural(figures.lanes.get()),
        held: natural(figures.held.get()),
        write_times: buckets(&figures.write),
        latency: buckets(&figures.latency),
        letters: LetterCounts {
            pulled: dlq.pulled.get(),
            committed: dlq.outcomes[ShardOutcome::Committed as usize].get(),
            duplicate: dlq.outcomes[ShardOutcome::Duplicate as usize].get(),
            exhausted: dlq.outcomes[ShardOutcome::DeadLettered as usize].get(),
            later: dlq.later.get(),
            failed: dlq.failed.get(),
            in_flight: natural(dlq.in_flight.get()),
        },
    }
}

fn events(figures: &ShardFigures) -> Vec<EventCount> {
    let mut events = Vec::new();
    let mut push = |table: &str, outcome, reason, count| {
        events.push(EventCount { table: table.to_owned(), outcome, reason, count });
    };
    for (table, name) in figures.tables.iter().zip(TABLES) {
        for outcome in [ShardOutcome::Committed, ShardOutcome::Duplicate, ShardOutcome::Filtered] {
            push(name, outcome_of(outcome), "", table.outcomes[outcome as usize].get());
        }
    }
    for foreign in figures.foreign.iter() {
        push(&foreign.name, Outcome::Filtered, "", foreign.count.get());
    }
    // A dead letter's table is often unreadable: its reason is what counts.
    for (reason, count) in reason_labels().into_iter().zip(&figures.reasons) {
        push("unknown", Outcome::DeadLettered, reason, count.get());
    }
    events.retain(|event| event.count > 0 || event.reason.is_empty());
    events
}

fn published((table, name): (&::shards::metrics::TableFigures, &str)) -> PublishCount {
    let [succeeded, failed] = [0, 1].map(|place: usize| table.published[place].get());
    PublishCount { table: name.to_owned(), succeeded, failed }
}

fn processing((table, name): (&::shards::metrics::TableFigures, &str)) -> TableTimes {
    TableTimes { table: name.to_owned(), times: buckets(&table.processing) }
}

fn unhandled(named: &::shards::metrics::Named) -> Option<UnhandledField> {
    let (table, field) = named.name.split_once('.')?;
    let (table, field) = (table.to_owned(), field.to_owned());
    Some(UnhandledField { table, field, count: named.count.get() })
}

fn dedup((table, name): (&::shards::metrics::TableFigures, &str)) -> DedupCount {
    let [hits, misses] = [0, 1].map(|place: usize| table.dedup[place].get());
    DedupCount { table: name.to_owned(), hits, misses }
}

fn outcome_of(outcome: ShardOutcome) -> Outcome {
    match outcome {
        ShardOutcome::Committed => Outcome::Committed,
        ShardOutcome::Duplicate => Outcome::Duplicate,
        ShardOutcome::Filtered => Outcome::Filtered,
        ShardOutcome::DeadLettered => Outcome::DeadLettered,
    }
}

fn buckets(histogram: &Histogram) -> Buckets {
    let (pairs, sum_ns) = histogram.snapshot();
    Buckets { pairs, sum_ns }
}

fn age_of(heartbeat_ms: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(natural(heartbeat_ms)))
}

fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
