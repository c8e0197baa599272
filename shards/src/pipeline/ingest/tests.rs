//! The stage without a server: what is written when, in which order, and what a disturbance leaves.

use super::job::Verdict;
use super::*;
use crate::clock::{MS, Now};
use crate::domain::cdc::{CdcRules, CdcSettings as Rules};
use crate::id::ShardId;
use crate::metrics::ShardFigures;
use crate::pipeline::bus::Bus;
use crate::pipeline::mail::LetterFate;
use crate::pipeline::redis::Redis;
use crate::pipeline::settings::*;
use crate::pipeline::setup::Facts;
use crate::pipeline::trace::Tracer;
use crate::wire::nats::DecodeLimits;
use crate::wire::nats::conn::ConnSettings;
use crate::wire::nats::op::Msg;

const PARTITION: PartitionId = PartitionId(0);
/// A write that is told of, and not yet given up.
const SLOW_AND_MORE: u64 = 6 * SEC;

fn stream(name: &str) -> StreamPlan {
    let (name, subjects) = (name.to_owned(), Vec::new());
    StreamPlan { name, subjects, age_max: 0, bytes_max: -1, duplicate_window: SEC }
}

fn source(stage: StageName) -> SourceSettings {
    SourceSettings {
        stage,
        table: "t",
        stream: "s".to_owned(),
        plan: stream("s"),
        extend: false,
        consumer: "c".to_owned(),
        partitions: 1,
        ack: AckChoice::Auto,
        ack_wait: SEC,
        max_ack_pending: 100,
        in_flight_max: 100,
        in_flight_bytes_max: 1 << 20,
    }
}

/// Of a pipeline with one lane, for tests of other modules too.
pub(in crate::pipeline) fn settings() -> Settings {
    let backoff = (10 * MS, 100 * MS);
    let name = || "n".to_owned();
    Settings {
        replica: name(),
        shard: ShardId(0),
        shards: 1,
        nats: NatsSettings {
            conn: ConnSettings {
                name: name(),
                ping_interval: SEC,
                handshake_timeout: SEC,
                tls_required: false,
                tls_first: false,
                limits: DecodeLimits::default(),
            },
            api_timeout: SEC,
            stream_replicas: 1,
            backoff,
        },
        redis: RedisSettings {
            username: None,
            password: None,
            database: 0,
            reply_timeout: SEC,
            backoff,
        },
        lease: LeaseSettings { bucket: name(), position_bucket: name(), ttl: SEC },
        cdc: CdcSettings {
            enabled: false,
            rules: CdcRules::compile(&Rules::default()).unwrap(),
            source: source(StageName::Cdc),
            companies: Vec::new(),
            output_prefixes: Vec::new(),
            output_stream: stream("o"),
            publish_window: 1,
            publish_timeout: SEC,
            publish_attempts_max: 1,
            retry_delays: backoff,
            dedup_ttl_s: 1,
            claim_ttl_s: 1,
            dedup_window: 1,
            dedup_required: true,
            legacy_dedup: false,
            count_unhandled: false,
            dlq_stream: stream("d"),
            dlq_subject: "v1.dlq".to_owned(),
            dlq_payload_max: 1 << 10,
            companies_max: 10,
        },
        dlq: None,
        trace: None,
        ingest: Some(IngestSettings {
            realtime: source(StageName::Ingest),
            history: source(StageName::Ingest),
            companies: Vec::new(),
            rate_max: 0,
            connections: 1,
            batch_max: 3,
            batch_bytes_max: 1 << 10,
            write_timeout: 10 * SEC,
            backoff,
            companies_max: 10,
        }),
    }
}

/// The stage with one lane that is connected, and all that it works with.
struct Bench {
    settings: Settings,
    facts: Facts,
    bus: Bus,
    redis: Redis,
    rng: fastrand::Rng,
    figures: std::sync::Arc<ShardFigures>,
    effects: VecDeque<Effect>,
    done: Vec<(PartitionId, Epoch, u64)>,
    judged: Vec<(PartitionId, Epoch, u64, LetterFate)>,
    ingest: Ingest,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self::with_lanes(1)
    }

    fn with_lanes(lanes: u16) -> Self {
        let mut settings = settings();
        if let Some(ingest) = settings.ingest.as_mut() {
            ingest.connections = lanes;
        }
        let mut bench = Self {
            facts: Facts::default(),
            bus: Bus::new(&settings.nats, 8),
            redis: Redis::new(&settings.redis, 8),
            rng: fastrand::Rng::with_seed(1),
            figures: ShardFigures::new(),
            effects: VecDeque::new(),
            done: Vec::new(),
            judged: Vec::new(),
            ingest: Ingest::new(settings.ingest.as_ref().unwrap()),
            now: Now { mono: SEC, wall: SEC },
            settings,
        };
        assert!(bench.ingest.trouble().is_some());
        bench.with(|ingest, cx| ingest.tick(cx));
        for place in 0..lanes {
            let asked = bench.effects.pop_front();
            assert!(matches!(asked, Some(Effect::PgConnect { lane }) if lane == place));
            bench.ingest.on_opened(place);
        }
        assert_eq!(bench.ingest.trouble(), None);
        bench
    }

    fn with<R>(&mut self, call: impl FnOnce(&mut Ingest, &mut Cx<'_>) -> R) -> R {
        let mut cx = Cx {
            now: self.now,
            settings: &self.settings,
            facts: &self.facts,
            may_publish: false,
            bus: &mut self.bus,
            redis: &mut self.redis,
            rng: &mut self.rng,
            figures: &self.figures,
            effects: &mut self.effects,
            done: &mut self.done,
            placed: &mut Vec::new(),
            judged: &mut self.judged,
            tracer: &mut Tracer::new(None, &mut fastrand::Rng::with_seed(1)),
        };
        call(&mut self.ingest, &mut cx)
    }

    fn admit(&mut self, company: &str, seqs: impl IntoIterator<Item = u64>) {
        seqs.into_iter().for_each(|seq| self.admit_one(company, seq, 1, 0));
    }

    fn admit_one(&mut self, company: &str, seq: u64, epoch: u32, panics: u32) {
        let subject = format!("v1.chats.upsert.{company}");
        let parcel = Parcel {
            reader: ShardId(0),
            stage: StageName::Ingest,
            partition: PARTITION,
            epoch: Epoch(epoch),
            index: seq,
            seq,
            stored: seq,
            stream_created: 0,
            delivered: 1,
            received: self.now.mono,
            replay: false,
            prefix: 0,
            msg: Msg::new(subject.as_bytes(), 1, None, b"", b"{}"),
        };
        self.with(|ingest, cx| ingest.admit(parcel, panics, cx));
    }

    /// The job that is asked for now; its sequences.
    fn job(&mut self) -> (Box<Job>, Vec<u64>) {
        self.with(|ingest, cx| ingest.flush(cx));
        match self.effects.pop_front() {
            Some(Effect::PgWrite { lane: 0, job }) => {
                let seqs = job.places().map(|(_, seq)| seq).collect();
                (job, seqs)
            }
            other => panic!("no job but {other:?}"),
        }
    }

    /// All jobs that are asked for now, by lane; their sequences.
    fn jobs(&mut self) -> Vec<(u16, Box<Job>, Vec<u64>)> {
        self.with(|ingest, cx| ingest.flush(cx));
        let jobs = self.effects.drain(..).map(|effect| match effect {
            Effect::PgWrite { lane, job } => {
                let seqs = job.places().map(|(_, seq)| seq).collect();
                (lane, job, seqs)
            }
            other => panic!("no job but {other:?}"),
        });
        jobs.collect()
    }

    /// Writes all that waits.
    fn write_all(&mut self) {
        loop {
            let jobs = self.jobs();
            if jobs.is_empty() {
                return;
            }
            for (lane, job, seqs) in jobs {
                let verdicts = seqs.iter().map(|_| applied()).collect();
                self.written_on(lane, job, verdicts, None);
            }
        }
    }

    /// Names of `count` companies of each lane.
    fn companies(&self, count: usize) -> [Vec<String>; 2] {
        [0, 1].map(|lane| {
            let names = (0..1000).map(|n| format!("Co{n}"));
            let own = names.filter(|name| self.ingest.lane_of(name.as_bytes(), 1) == lane);
            own.take(count).collect()
        })
    }

    fn is_idle(&mut self) -> bool {
        self.with(|ingest, cx| ingest.flush(cx));
        self.effects.is_empty()
    }

    fn written(&mut self, job: Box<Job>, verdicts: Vec<Verdict>, away: Option<&str>) {
        self.written_on(0, job, verdicts, away);
    }

    fn written_on(
        &mut self,
        lane: u16,
        mut job: Box<Job>,
        verdicts: Vec<Verdict>,
        away: Option<&str>,
    ) {
        job.verdicts = verdicts;
        let message = "because".to_owned();
        job.away = away.map(|sqlstate| Away { sqlstate: sqlstate.to_owned(), message });
        self.with(|ingest, cx| ingest.on_written(lane, job, cx));
    }

    fn pass(&mut self, span: u64) {
        self.now.mono += span;
        self.with(|ingest, cx| ingest.tick(cx));
    }

    fn done(&mut self) -> Vec<u64> {
        self.done.drain(..).map(|(_, _, index)| index).collect()
    }

    #[track_caller]
    fn balanced(&self) {
        let books = self.ingest.books().into_iter().map(|(_, books)| books.in_flight());
        assert_eq!(books.sum::<u64>(), self.ingest.open() as u64);
    }
}

fn applied() -> Verdict {
    Verdict::Written(Fate::Applied)
}

#[test]
fn a_batch_is_what_queued_up_while_the_one_before_was_written() {
    let mut bench = Bench::new();
    bench.admit("A", [1]);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [1], "the first event waits for nobody");
    bench.admit("A", 2..6);
    assert!(bench.is_idle(), "one job at a time");
    bench.written(job, vec![applied()], None);
    assert_eq!(bench.done(), [1]);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [2, 3, 4], "as many as a batch takes");
    bench.written(job, vec![applied(), Verdict::Written(Fate::Stale), applied()], None);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [5]);
    bench.written(job, vec![applied()], None);
    assert_eq!((bench.done(), bench.ingest.open()), (vec![2, 3, 4, 5], 0));
    assert_eq!(bench.figures.ingest.stale.get(), 1);
    bench.balanced();
}

#[test]
fn what_has_no_outcome_goes_first_and_waits_while_the_database_is_away() {
    let mut bench = Bench::new();
    bench.admit("A", 1..=4);
    let (job, _) = bench.job();
    bench.written(job, vec![applied(), Verdict::Open, Verdict::Open], Some("57P03"));
    assert_eq!(bench.ingest.trouble(), Some("because (SQLSTATE \"57P03\")"));
    assert!(bench.is_idle());
    bench.pass(SEC);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [2, 3, 4]);
    bench.written(job, vec![applied(), applied(), applied()], None);
    assert_eq!((bench.done(), bench.ingest.trouble()), (vec![1, 2, 3, 4], None));
    bench.balanced();
}

#[test]
fn a_connection_that_is_lost_costs_no_event_its_place() {
    let mut bench = Bench::new();
    bench.admit("A", 1..=2);
    let (job, _) = bench.job();
    bench.written(job, Vec::new(), Some(""));
    bench.with(|ingest, cx| ingest.on_closed(0, "gone", cx));
    bench.admit("A", [3]);
    assert!(bench.is_idle() && bench.ingest.trouble() == Some("gone"));
    bench.pass(SEC);
    assert!(matches!(bench.effects.pop_front(), Some(Effect::PgConnect { lane: 0 })));
    bench.ingest.on_opened(0);
    assert_eq!(bench.job().1, [1, 2, 3]);
    bench.balanced();
}

#[test]
fn a_lane_that_has_nothing_left_to_try_with_asks_for_more() {
    let mut bench = Bench::new();
    bench.admit("A", 1..=2);
    let (job, _) = bench.job();
    bench.written(job, vec![Verdict::Open, Verdict::Open], Some("53100"));
    assert!(bench.ingest.trouble().is_some());
    bench.with(|ingest, cx| ingest.cancel(PARTITION, Epoch(2), cx));
    bench.pass(SEC);
    assert_eq!(bench.ingest.trouble(), None, "else nothing would ever be pulled again");
    // The same if it was given back while it was being written.
    bench.admit_one("A", 1, 2, 0);
    let (job, _) = bench.job();
    bench.pass(SLOW_AND_MORE);
    assert!(bench.ingest.trouble().is_some());
    bench.with(|ingest, cx| ingest.cancel(PARTITION, Epoch(3), cx));
    bench.written(job, vec![applied()], None);
    assert_eq!((bench.ingest.trouble(), bench.ingest.open()), (None, 0));
    bench.balanced();
}

#[test]
fn a_write_without_an_answer_costs_the_connection_once() {
    let mut bench = Bench::new();
    bench.admit("A", [1]);
    let (_job, _) = bench.job();
    bench.pass(9 * SEC);
    assert!(bench.effects.is_empty());
    bench.pass(SEC);
    assert!(matches!(bench.effects.pop_front(), Some(Effect::PgClose { lane: 0 })));
    bench.pass(SEC);
    assert!(bench.effects.is_empty() && bench.ingest.trouble().is_some());
}

#[test]
fn a_company_that_cannot_be_written_waits_in_order_and_alone() {
    let mut bench = Bench::new();
    bench.admit("Bad", 1..=2);
    bench.admit("Good", [3]);
    bench.admit("Bad", [4]);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [1, 2, 4], "a company's turn is longer than a batch of this test");
    let held = || Verdict::Held { message: "spelling".to_owned() };
    bench.written(job, vec![held(), held(), held()], None);
    assert_eq!(bench.ingest.held(), [("Bad".to_owned(), "spelling".to_owned())]);
    assert_eq!(bench.ingest.trouble(), None, "the others are served");
    bench.admit("Good", [5]);
    bench.admit("Bad", [6]);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [3, 5]);
    bench.written(job, vec![applied(), applied()], None);
    assert!(bench.is_idle());
    bench.pass(HELD_RETRY);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [1, 2, 4]);
    bench.written(job, vec![applied(), applied(), applied()], None);
    assert!(bench.ingest.held().is_empty());
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [6]);
    bench.written(job, vec![applied()], None);
    assert_eq!(bench.done(), [3, 5, 1, 2, 4, 6]);
    bench.balanced();
}

#[test]
fn a_lock_makes_its_company_wait_and_no_other() {
    let mut bench = Bench::new();
    bench.admit("Locked", [1]);
    bench.admit("Free", [2]);
    let (job, _) = bench.job();
    bench.written(job, vec![Verdict::Open, applied()], Some("55P03"));
    assert_eq!((bench.ingest.trouble(), bench.ingest.held_len()), (None, 1));
    bench.admit("Free", [3]);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [3]);
    bench.written(job, vec![applied()], None);
    bench.pass(BUSY_RETRY);
    assert_eq!(bench.job().1, [1]);
    bench.balanced();
}

#[test]
fn an_epoch_that_ended_leaves_nothing_behind_wherever_its_events_are() {
    let mut bench = Bench::new();
    bench.admit("Held", [1]);
    let (job, _) = bench.job();
    bench.written(job, vec![Verdict::Held { message: "why".to_owned() }], None);
    bench.admit_one("no company", 2, 1, 0);
    bench.admit("A", 3..=7);
    let (job, seqs) = bench.job();
    assert_eq!((seqs.as_slice(), bench.ingest.open()), (&[3, 4, 5][..], 7));
    bench.with(|ingest, cx| ingest.cancel(PARTITION, Epoch(2), cx));
    assert_eq!(bench.ingest.open(), 3, "only what is being written");
    bench.admit_one("A", 3, 2, 0);
    bench.written(job, vec![applied(), applied(), Verdict::Open], None);
    assert!(bench.done().is_empty(), "nobody waits for an old reading's outcome");
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [3]);
    bench.written(job, vec![Verdict::Written(Fate::Duplicate)], None);
    assert_eq!((bench.done(), bench.ingest.open(), bench.ingest.held_len()), (vec![3], 0, 0));
    assert_eq!(bench.figures.ingest.returned.get(), 7);
    bench.balanced();
}

#[test]
fn a_suspect_is_written_alone_and_the_guilty_not_at_all() {
    let mut bench = Bench::new();
    bench.admit("A", [1]);
    bench.admit_one("A", 2, 1, 1);
    bench.admit_one("A", 3, 1, PANICS_MAX);
    bench.admit("A", [4]);
    for expected in [[1], [2], [4]] {
        let (job, seqs) = bench.job();
        assert_eq!(seqs, expected);
        bench.written(job, vec![applied()], None);
    }
    assert_eq!((bench.done(), bench.ingest.open()), (vec![1, 2, 4], 1), "the third is a letter");
    bench.balanced();
}

#[test]
fn bytes_bound_a_batch_too() {
    let mut bench = Bench::new();
    bench.settings.ingest.as_mut().unwrap().batch_bytes_max = 60;
    bench.admit("A", 1..=3);
    let sizes: Vec<usize> = (0..3)
        .map(|_| {
            let (job, seqs) = bench.job();
            bench.written(job, vec![applied()], None);
            seqs.len()
        })
        .collect();
    assert_eq!(sizes, [1, 1, 1]);
}

#[test]
fn a_flood_of_one_company_does_not_stand_before_another() {
    let mut bench = Bench::new();
    bench.admit("A", 1..=200);
    bench.admit("B", [201, 202]);
    let mut written = Vec::new();
    while bench.ingest.open() > 0 {
        let (job, seqs) = bench.job();
        let verdicts = seqs.iter().map(|_| applied()).collect();
        written.extend(seqs);
        bench.written(job, verdicts, None);
    }
    let of_b: Vec<usize> =
        (0..).zip(&written).filter(|(_, seq)| **seq > 200).map(|(at, _)| at).collect();
    assert_eq!(of_b, [64, 65], "behind one turn of the other");
    written.retain(|seq| *seq <= 200);
    assert!(written.is_sorted() && written.len() == 200, "each company in its order");
}

#[test]
fn a_company_above_its_limit_waits_in_order_while_others_go_on() {
    let mut bench = Bench::new();
    bench.settings.ingest.as_mut().unwrap().rate_max = 2;
    bench.ingest = Ingest::new(bench.settings.ingest.as_ref().unwrap());
    bench.with(|ingest, cx| ingest.tick(cx));
    bench.effects.clear();
    bench.ingest.on_opened(0);
    bench.admit("A", 1..=4);
    bench.admit("B", [5]);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [1, 2, 5]);
    bench.written(job, vec![applied(), applied(), applied()], None);
    assert!(bench.is_idle());
    assert_eq!((bench.figures.ingest.limited.get(), bench.ingest.held_len()), (1, 0));
    bench.admit("A", [6]);
    bench.pass(SEC / 2);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [3]);
    bench.written(job, vec![applied()], None);
    bench.pass(10 * SEC);
    let (job, seqs) = bench.job();
    assert_eq!(seqs, [4, 6]);
    bench.written(job, vec![applied(), applied()], None);
    bench.balanced();
}

/// Two lanes, and two companies of each that have been written to.
fn two_lanes() -> (Bench, [Vec<String>; 2]) {
    let mut bench = Bench::with_lanes(2);
    bench.settings.ingest.as_mut().unwrap().batch_max = 100;
    let companies = bench.companies(2);
    for company in companies.iter().flatten() {
        bench.admit(company, [1]);
    }
    let jobs = bench.jobs();
    let all = vec![1, 1];
    let expected = [(0, all.clone()), (1, all)];
    assert_eq!(lanes_of(&jobs), expected, "schemas of new companies hold up one lane each");
    for (lane, job, _) in jobs {
        bench.written_on(lane, job, vec![applied(), applied()], None);
    }
    bench.done.clear();
    (bench, companies)
}

fn lanes_of(jobs: &[(u16, Box<Job>, Vec<u64>)]) -> Vec<(u16, Vec<u64>)> {
    jobs.iter().map(|(lane, _, seqs)| (*lane, seqs.clone())).collect()
}

#[test]
fn while_little_waits_one_lane_writes_it_all_and_the_others_wait() {
    let (mut bench, [near, far]) = two_lanes();
    bench.admit(&far[0], [10]);
    bench.admit(&near[0], [11]);
    let mut jobs = bench.jobs();
    assert_eq!(lanes_of(&jobs), [(0, vec![11, 10])]);
    bench.admit(&far[0], [12]);
    bench.admit(&far[1], [13]);
    assert!(bench.is_idle(), "12 would overtake 10");
    let (lane, job, _) = jobs.remove(0);
    bench.written_on(lane, job, vec![applied(), applied()], None);
    assert_eq!(lanes_of(&bench.jobs()), [(0, vec![12, 13])]);
    bench.balanced();
}

#[test]
fn what_a_common_write_leaves_goes_to_the_lanes_it_came_from_in_order() {
    let (mut bench, [near, far]) = two_lanes();
    bench.admit(&far[0], [10, 11]);
    bench.admit(&near[0], [12]);
    let (lane, job, seqs) = bench.jobs().remove(0);
    assert_eq!((lane, seqs), (0, vec![12, 10, 11]));
    bench.admit(&far[0], [13]);
    bench.written_on(0, job, vec![applied(), applied(), Verdict::Open], Some("57P03"));
    assert_eq!(
        lanes_of(&bench.jobs()),
        [(1, vec![11, 13])],
        "the first lane pauses, the other does not"
    );
    bench.balanced();
}

#[test]
fn a_company_in_trouble_parts_the_lanes() {
    let (mut bench, [near, far]) = two_lanes();
    bench.admit(&far[0], [10]);
    let (lane, job, _) = bench.jobs().remove(0);
    bench.written_on(lane, job, vec![Verdict::Held { message: "why".to_owned() }], None);
    bench.admit(&far[1], [11]);
    bench.admit(&near[0], [12]);
    assert_eq!(lanes_of(&bench.jobs()), [(0, vec![12]), (1, vec![11])]);
    bench.balanced();
}

#[test]
fn much_work_and_many_companies_are_for_all_lanes() {
    let (mut bench, [near, far]) = two_lanes();
    bench.admit(&near[0], 10..10 + TOGETHER_EVENTS);
    bench.admit(&far[0], [500]);
    assert_eq!(lanes_of(&bench.jobs()).len(), 2);

    let mut bench = Bench::with_lanes(2);
    bench.settings.ingest.as_mut().unwrap().companies_max = 100;
    let all = bench.companies(TOGETHER_COMPANIES_MAX).concat();
    all.iter().for_each(|company| bench.admit(company, [1]));
    bench.write_all();
    all.iter().for_each(|company| bench.admit(company, [2]));
    assert_eq!(lanes_of(&bench.jobs()).len(), 2);
    bench.balanced();
}

#[test]
fn a_lane_that_writes_by_itself_holds_up_no_other() {
    let (mut bench, [near, far]) = two_lanes();
    bench.admit(&near[0], 10..10 + TOGETHER_EVENTS);
    let mut jobs = bench.jobs();
    assert_eq!(jobs.len(), 1);
    bench.admit(&far[0], [500]);
    assert_eq!(lanes_of(&bench.jobs()), [(1, vec![500])]);
    let (lane, job, seqs) = jobs.remove(0);
    bench.written_on(lane, job, seqs.iter().map(|_| applied()).collect(), None);
    bench.balanced();
}
