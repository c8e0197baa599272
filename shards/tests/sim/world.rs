//! One run: replicas of pipelines, the two servers, the publisher and the network between them, on a
//! virtual clock that jumps to the next moment at which something is due. Invariant: everything is drawn
//! from one seed, so a seed is a run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use fastrand::Rng;
use shards::clock::{MS, Now, SEC};
use shards::metrics::ShardFigures;
use shards::pipeline::{Books, Mail, Pipeline};
use shards::wire::nats::encode::encode_pub;

use crate::faults::{self, Act, Tally};
use crate::link::{Net, Pipe, Side};
use crate::oracle::{Broken, Oracle, Promise, broken};
use crate::peers::nats::{NatsOptions, NatsServer};
use crate::peers::redis::RedisServer;
use crate::peers::{ConnId, earlier};
use crate::plan::{Plan, STREAM};
use crate::source::{Fate, Source};

/// 1 June 2025, Unix ns: where the wall clock of a run begins.
const EPOCH_WALL: u64 = 1_748_736_000 * SEC;
/// Time to settle once the weather is fair: two silences of a consumer, a lease, and room.
const SETTLE_MAX: u64 = 90 * SEC;
/// Time a drain may take before its replica is killed, as a supervisor does.
const DRAIN_MAX: u64 = 20 * SEC;
/// A run of a few hundred events takes tens of thousands of steps; one of so many runs in circles.
const STEPS_MAX: u64 = 500_000;
/// Steps of a failing run that are shown.
const TRACE_MAX: u64 = 80;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) digest: u64,
    pub(crate) events: u64,
    pub(crate) republished: u64,
    pub(crate) steps: u64,
    /// Virtual ns.
    pub(crate) lasted: u64,
}

/// A server's side of a connection whose client is gone: what was written still arrives.
struct Orphan {
    is_nats: bool,
    conn: ConnId,
    up: Pipe,
}

struct Shard {
    pipeline: Pipeline,
    figures: Arc<ShardFigures>,
    /// Books of the pipelines before this one that share the figures.
    past: Books,
    nats: Side,
    redis: Side,
    tick_at: u64,
    tick_every: u64,
    busy_until: u64,
    has_drained: bool,
}

#[derive(Default)]
struct Replica {
    shards: Vec<Shard>,
    /// Letters by sender and receiver.
    lanes: Vec<VecDeque<(u64, Mail)>>,
    life: u32,
    paused_until: u64,
    /// Draining; comes back after so many ns.
    draining: Option<u64>,
}

/// The run.
pub(crate) struct World {
    plan: Plan,
    rng: Rng,
    now: Now,
    net: Net,
    nats: NatsServer,
    redis: RedisServer,
    replicas: Vec<Replica>,
    orphans: Vec<Orphan>,
    source: Source,
    publisher: ConnId,
    publish_at: u64,
    left: u32,
    acts: BTreeMap<(u64, u64), Act>,
    acts_made: u64,
    calm_at: Option<u64>,
    hand_over: HandOver,
    oracle: Oracle,
    trace: Option<VecDeque<String>>,
    trace_max: usize,
    steps: u64,
}

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            if trace.len() >= $world.trace_max { trace.pop_front(); }
            let at = $world.now.mono as f64 / MS as f64;
            trace.push_back(format!("{at:12.3} ms  {}", format_args!($($text)*)));
        }
    };
}

mod act;
mod hand_over;
mod turn;

use hand_over::HandOver;

impl World {
    pub(crate) fn new(seed: u64, with_trace: bool, tally: &mut Tally) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::of_seed(seed, &mut rng);
        let now = Now { mono: SEC, wall: EPOCH_WALL };
        let options = NatsOptions { version: plan.version, ..NatsOptions::default() };
        let mut nats = NatsServer::new(options, rng.fork());
        nats.jetstream.repeats_pubacks = plan.repeats_pubacks;
        let redis = RedisServer::new(None, rng.fork());
        let publisher = nats.connect(now).unwrap_or(ConnId(0));
        let mut world = Self {
            net: plan.net,
            replicas: (0..plan.replicas).map(|_| Replica::default()).collect(),
            source: Source::new(plan.companies),
            publish_at: now.mono,
            left: plan.events,
            nats,
            redis,
            publisher,
            rng,
            now,
            plan,
            orphans: Vec::new(),
            acts: BTreeMap::new(),
            acts_made: 0,
            calm_at: None,
            hand_over: HandOver::Ahead,
            oracle: Oracle::default(),
            trace: with_trace.then(VecDeque::new),
            trace_max: crate::number("DAISI_SIM_TRACE", TRACE_MAX) as usize,
            steps: 0,
        };
        world.oracle.parts = world.plan.parts();
        // Without a demand for Redis nothing waits for it: events go out unmarked while it is away.
        world.oracle.amnesia = !world.plan.settings.cdc.dedup_required;
        world.create_source();
        for (after, act) in faults::draw(&world.plan, &mut world.rng, tally) {
            world.later(after, act);
        }
        for replica in 0..world.replicas.len() {
            let after = world.rng.u64(..200 * MS);
            world.later(after, Act::Start { replica });
        }
        world
    }

    /// Runs to the end, or to the first promise that is broken.
    pub(crate) fn run(&mut self) -> Result<Report, Broken> {
        while !self.is_over()? {
            self.step()?;
            if self.steps > STEPS_MAX {
                return broken(
                    Promise::Progress,
                    "runs in circles: ".to_owned() + &self.why_unsettled(),
                );
            }
        }
        self.oracle.look_back(self.plan.companies)?;
        for replica in 0..self.replicas.len() {
            for shard in 0..self.replicas[replica].shards.len() {
                self.audit(replica, shard)?;
            }
        }
        Ok(Report {
            digest: self.oracle.digest(),
            events: self.oracle.sources(),
            republished: self.oracle.republished,
            steps: self.steps,
            lasted: self.now.mono,
        })
    }

    /// The settings and the last steps, for people.
    pub(crate) fn tell(&self) -> String {
        let mut text = format!("{:#?}\n", self.plan);
        for (at, act) in &self.acts {
            text += &format!("still to come at {} ms: {act:?}\n", at.0 / MS);
        }
        self.trace.iter().flatten().for_each(|line| {
            text += line;
            text.push('\n');
        });
        text
    }

    fn later(&mut self, after: u64, act: Act) {
        self.acts_made += 1;
        self.acts.insert((self.now.mono + after, self.acts_made), act);
    }

    // The operator's stream: a work queue is never ours.
    fn create_source(&mut self) {
        let retention = if self.plan.workqueue { "workqueue" } else { "limits" };
        let config = format!(
            r#"{{"name":"{STREAM}","subjects":["cdc.*.*"],"retention":"{retention}","storage":"file"}}"#
        );
        let subject = format!("$JS.API.STREAM.CREATE.{STREAM}");
        self.publish(&subject, &config);
    }

    fn publish(&mut self, subject: &str, body: &str) {
        let mut out = BytesMut::new();
        let written = encode_pub(&mut out, subject.as_bytes(), None, body.as_bytes());
        assert!(written.is_ok(), "a subject of the publisher is refused: {subject}");
        self.nats.handle_bytes(self.now, self.publisher, &out);
        let _info = self.nats.poll_output(self.publisher);
    }

    fn is_over(&mut self) -> Result<bool, Broken> {
        let Some(calm_at) = self.calm_at else { return Ok(false) };
        self.look_at_hand_over()?;
        if self.left > 0 {
            return Ok(false);
        }
        let idle = |s: &Shard| s.pipeline.in_flight() == (0, 0);
        let mut settled = self.acts.is_empty()
            && self.oracle.is_settled(&self.nats)
            && self.replicas.iter().all(|r| r.shards.iter().all(idle))
            && (self.plan.parts().len() == 1 || self.has_drain_begun() || self.is_shared_evenly());
        if settled && self.plan.hands_over && self.hand_over != HandOver::Done {
            settled = false; // The standby is not drained before it has read.
            if self.hand_over == HandOver::Ahead {
                self.begin_hand_over();
            }
        }
        if settled && self.plan.ends_with_drain {
            settled = self.replicas.iter().all(|r| r.shards.is_empty());
            if !settled {
                self.drain_all();
            }
        }
        if !settled && self.now.mono > calm_at + SETTLE_MAX {
            return broken(Promise::Progress, self.why_unsettled());
        }
        Ok(settled)
    }

    fn has_drain_begun(&self) -> bool {
        self.replicas.iter().any(|r| r.draining.is_some() || r.shards.is_empty())
    }

    // Every partition has a reader, and no replica reads two more than another.
    fn is_shared_evenly(&self) -> bool {
        let reads = |shard: &Shard| {
            shard.pipeline.status().readers.iter().filter(|reader| reader.reading).count()
        };
        let counts: Vec<usize> =
            self.replicas.iter().map(|r| r.shards.iter().map(reads).sum()).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        counts.iter().sum::<usize>() == self.plan.parts().len()
            && least.zip(most).is_some_and(|(least, most)| most - least <= 1)
    }

    fn why_unsettled(&self) -> String {
        let mut text = format!(
            "not settled {} s after the last fault; {} in the source",
            SETTLE_MAX / SEC,
            self.oracle.sources()
        );
        for part in self.plan.parts() {
            let consumer = self.nats.jetstream.consumer(&part.stream, &part.consumer);
            let floor = consumer.map(|c| (c.floor(), c.delivered(), c.ack_pending(), c.waiting()));
            text += &format!("\n  {}: {floor:?}", part.consumer);
        }
        for (r, replica) in self.replicas.iter().enumerate() {
            for (s, shard) in replica.shards.iter().enumerate() {
                let (status, held) = (shard.pipeline.status(), shard.pipeline.in_flight());
                text += &format!("\n  {r}/{s}: in flight {held:?}, {status:?}");
            }
        }
        text
    }

    fn drain_all(&mut self) {
        for replica in 0..self.replicas.len() {
            if self.replicas[replica].draining.is_none()
                && !self.replicas[replica].shards.is_empty()
            {
                self.drain(replica, u64::MAX);
            }
        }
    }

    fn step(&mut self) -> Result<(), Broken> {
        self.steps += 1;
        let due = self.due().unwrap_or(self.now.mono + MS).max(self.now.mono);
        // A server whose next moment is past has nothing to do in it: time goes on all the same.
        let due = if self.steps.is_multiple_of(64) { due.max(self.now.mono + 1) } else { due };
        self.now = Now { mono: due, wall: EPOCH_WALL + due };
        if self.nats.due().is_some_and(|at| at <= due) {
            self.nats.tick(self.now);
        }
        if self.redis.due().is_some_and(|at| at <= due) {
            self.redis.tick(self.now);
        }
        while let Some((at, act)) = self.acts.pop_first() {
            if at.0 > due {
                self.acts.insert(at, act);
                break;
            }
            self.act(act)?;
        }
        if self.left > 0 && self.publish_at <= due {
            self.publish_next();
        }
        self.carry_up();
        self.carry_down();
        self.oracle.look(&self.nats)?;
        for replica in 0..self.replicas.len() {
            self.turn_replica(replica)?;
        }
        self.collect_drained()
    }

    fn due(&self) -> Option<u64> {
        let mut due = earlier(self.nats.due(), self.redis.due());
        due = earlier(due, self.acts.keys().next().map(|(at, _)| *at));
        due = earlier(due, (self.left > 0).then_some(self.publish_at));
        for orphan in &self.orphans {
            due = earlier(due, orphan.up.due());
        }
        for replica in &self.replicas {
            for (place, shard) in replica.shards.iter().enumerate() {
                for side in [&shard.nats, &shard.redis] {
                    if let Side::Open(socket) = side {
                        due = earlier(due, socket.up.due());
                    }
                }
                due = earlier(due, Some(replica.shard_due(place)));
            }
        }
        due
    }

    fn publish_next(&mut self) {
        self.publish_at = self.now.mono + self.rng.u64(..=self.plan.gap_max);
        if !self.nats.is_open(self.publisher) {
            let Ok(conn) = self.nats.connect(self.now) else { return };
            self.publisher = conn;
        }
        self.left -= 1;
        let event = self.source.draw(&mut self.rng);
        let before = self.source_len();
        self.publish(&event.subject, &event.body);
        // Sequin asks for no PubAck: what the server did not store never was.
        if self.source_len() > before {
            self.oracle.note_source(before + 1, &event);
            note!(self, "source {} {:?} of co{}", before + 1, event.fate, event.company);
        } else if let Fate::Forward { change } = event.fate {
            self.source.forget(change);
        }
    }

    fn source_len(&self) -> u64 {
        self.nats.jetstream.store(STREAM).map_or(0, |store| store.last_seq())
    }
}

// The network.
impl World {
    fn carry_up(&mut self) {
        let (now, nats, redis) = (self.now, &mut self.nats, &mut self.redis);
        for shard in self.replicas.iter_mut().flat_map(|r| &mut r.shards) {
            if let Some(socket) = shard.nats.socket() {
                while let Some(bytes) = socket.up.take(now.mono) {
                    nats.handle_bytes(now, socket.conn, &bytes);
                }
                if socket.up.ends() {
                    nats.close(socket.conn);
                }
            }
            if let Some(socket) = shard.redis.socket() {
                while let Some(bytes) = socket.up.take(now.mono) {
                    redis.handle_bytes(now, socket.conn, &bytes);
                }
                if socket.up.ends() {
                    redis.close(socket.conn);
                }
            }
        }
        self.orphans.retain_mut(|orphan| {
            while let Some(bytes) = orphan.up.take(now.mono) {
                match orphan.is_nats {
                    true => nats.handle_bytes(now, orphan.conn, &bytes),
                    false => redis.handle_bytes(now, orphan.conn, &bytes),
                }
            }
            if orphan.is_nats {
                let _unread = nats.poll_output(orphan.conn);
            } else {
                let _unread = redis.poll_output(orphan.conn);
            }
            let is_over = orphan.up.ends();
            match (is_over, orphan.is_nats) {
                (true, true) => nats.close(orphan.conn),
                (true, false) => redis.close(orphan.conn),
                (false, _) => {}
            }
            !is_over
        });
    }

    fn carry_down(&mut self) {
        let (now, net, rng) = (self.now.mono, self.net, &mut self.rng);
        let (nats, redis) = (&mut self.nats, &mut self.redis);
        let _info = nats.poll_output(self.publisher);
        for shard in self.replicas.iter_mut().flat_map(|r| &mut r.shards) {
            if let Some(socket) = shard.nats.socket() {
                let bytes = nats.poll_output(socket.conn);
                if !bytes.is_empty() {
                    socket.down.push(now, &mut BytesMut::from(bytes), net, rng);
                }
                if !nats.is_open(socket.conn) {
                    socket.down.close();
                }
            }
            if let Some(socket) = shard.redis.socket() {
                let bytes = redis.poll_output(socket.conn);
                if !bytes.is_empty() {
                    socket.down.push(now, &mut BytesMut::from(bytes), net, rng);
                }
                if !redis.is_open(socket.conn) {
                    socket.down.close();
                }
            }
        }
    }

    // The client has closed, or is gone: what it had written goes its way, all or a part of it.
    fn abandon(&mut self, side: Side, is_nats: bool) {
        let Side::Open(mut socket) = side else { return };
        match self.rng.bool() {
            true => socket.up.close(),
            false => socket.up.cut(&mut self.rng),
        }
        self.orphans.push(Orphan { is_nats, conn: socket.conn, up: socket.up });
    }
}

impl Replica {
    // When a shard has something to do: never while the process is paused or busy.
    fn shard_due(&self, place: usize) -> u64 {
        let shard = &self.shards[place];
        let mut due = earlier(Some(shard.tick_at), earlier(shard.nats.due(), shard.redis.due()));
        for from in 0..self.shards.len() {
            let lane = &self.lanes[from * self.shards.len() + place];
            due = earlier(due, lane.front().map(|(at, _)| *at));
        }
        due.unwrap_or(shard.tick_at).max(shard.busy_until).max(self.paused_until)
    }
}
