//! One run: replicas of pipelines, the two servers, the publisher and the network between them, on a
//! virtual clock that jumps to the next moment at which something is due. Invariant: everything is drawn
//! from one seed, so a seed is a run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use fastrand::Rng;
use shards::clock::{MS, Now, SEC};
use shards::id::{Epoch, ShardId};
use shards::metrics::ShardFigures;
use shards::pipeline::{Books, Effect, Input, Mail, Pipeline, Quarantine, TICK};
use shards::wire::nats::auth::Credentials;
use shards::wire::nats::encode::encode_pub;

use crate::faults::{self, Act, Tally};
use crate::link::{Net, Pipe, Side, Socket};
use crate::oracle::{Broken, Oracle, Promise, broken, check_books};
use crate::peers::nats::{NatsOptions, NatsServer};
use crate::peers::redis::{Persistence, RedisServer};
use crate::peers::{ConnId, earlier};
use crate::plan::{Plan, STREAM};
use crate::source::{Fate, Source};

/// 1 June 2025, Unix ns: where the wall clock of a run begins.
const EPOCH_WALL: u64 = 1_748_736_000 * SEC;
/// Time to settle once the weather is fair: two silences of a consumer, a lease, and room.
const SETTLE_MAX: u64 = 90 * SEC;
/// Time a drain may take before its replica is killed, as a supervisor does.
const DRAIN_MAX: u64 = 20 * SEC;
/// Longest interval between ticks of a shard to which nothing happens.
const TICK_IDLE_MAX: u64 = 8 * TICK;
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

impl World {
    pub(crate) fn new(seed: u64, with_trace: bool, tally: &mut Tally) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(seed, &mut rng);
        let now = Now { mono: SEC, wall: EPOCH_WALL };
        let options = NatsOptions { version: plan.version, ..NatsOptions::default() };
        let mut nats = NatsServer::new(options, rng.fork());
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
            oracle: Oracle::default(),
            trace: with_trace.then(VecDeque::new),
            trace_max: crate::number("DAISI_SIM_TRACE", TRACE_MAX) as usize,
            steps: 0,
        };
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
        if self.left > 0 {
            return Ok(false);
        }
        let idle = |s: &Shard| s.pipeline.in_flight() == (0, 0);
        let mut settled = self.acts.is_empty()
            && self.oracle.is_settled(&self.nats)
            && self.replicas.iter().all(|r| r.shards.iter().all(idle));
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

    fn why_unsettled(&self) -> String {
        let consumer = self.nats.jetstream.consumer(STREAM, crate::plan::CONSUMER);
        let floor = consumer.map(|c| (c.floor(), c.delivered(), c.ack_pending(), c.waiting()));
        let mut text = format!(
            "not settled {} s after the last fault; {} in the source, consumer {floor:?}",
            SETTLE_MAX / SEC,
            self.oracle.sources()
        );
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
        let due = if self.steps % 64 == 0 { due.max(self.now.mono + 1) } else { due };
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

// Turns: what `shard.rs` does with sockets, done with pipes.
impl World {
    fn turn_replica(&mut self, replica: usize) -> Result<(), Broken> {
        if self.replicas[replica].paused_until > self.now.mono {
            return Ok(());
        }
        for shard in 0..self.replicas[replica].shards.len() {
            if self.replicas[replica].shard_due(shard) <= self.now.mono {
                self.turn(replica, shard)?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, r: usize, s: usize) -> Result<(), Broken> {
        let was_idle = !self.take_in(r, s);
        let now = self.now;
        let shard = &mut self.replicas[r].shards[s];
        if shard.tick_at <= now.mono {
            shard.pipeline.handle(now, Input::Tick);
            let every = if was_idle { shard.tick_every * 2 } else { TICK };
            shard.tick_every = every.min(TICK_IDLE_MAX);
            shard.tick_at = now.mono + shard.tick_every;
        }
        shard.pipeline.flush(now);
        shard.busy_until = now.mono + self.rng.u64(..=self.plan.busy_max);
        self.perform(r, s)?;
        self.send_out(r, s);
        self.check_bounds(r, s)?;
        if self.steps % 16 == 0 { self.audit(r, s) } else { Ok(()) }
    }

    // True if anything came.
    fn take_in(&mut self, r: usize, s: usize) -> bool {
        let nats = self.take_nats(r, s);
        let redis = self.take_redis(r, s);
        let now = self.now;
        let Replica { shards, lanes, .. } = &mut self.replicas[r];
        let count = shards.len();
        let mut came = nats || redis;
        for from in 0..count {
            while let Some((_, mail)) =
                lanes[from * count + s].pop_front_if(|(at, _)| *at <= now.mono)
            {
                note!(self, "{r}/{s} letter of {from}: {}", mail_text(&mail));
                shards[s].pipeline.handle(now, Input::Mail(mail));
                came = true;
            }
        }
        came
    }

    fn take_nats(&mut self, r: usize, s: usize) -> bool {
        let now = self.now;
        let shard = &mut self.replicas[r].shards[s];
        match &mut shard.nats {
            Side::Connecting(at) if *at <= now.mono => match self.nats.connect(now) {
                Ok(conn) => {
                    note!(self, "{r}/{s} nats opened {conn:?}");
                    shard.nats = Side::Open(Box::new(Socket::new(conn)));
                    shard.pipeline.handle(now, Input::NatsOpened(Credentials::None));
                }
                Err(why) => {
                    shard.nats = Side::Closed;
                    shard.pipeline.handle(now, Input::NatsClosed(&format!("{why:?}")));
                }
            },
            Side::Open(socket) if socket.down.due().is_some_and(|at| at <= now.mono) => {
                let mut bytes = 0;
                while let Some(piece) = socket.down.take(now.mono) {
                    bytes += piece.len();
                    socket.inbox.extend_from_slice(&piece);
                }
                if bytes > 0 {
                    note!(self, "{r}/{s} nats > {}", shown(&socket.inbox));
                    shard.pipeline.handle(now, Input::NatsBytes(&mut socket.inbox));
                } else if socket.down.ends() {
                    note!(self, "{r}/{s} nats closed");
                    let side = std::mem::take(&mut shard.nats);
                    shard.pipeline.handle(now, Input::NatsClosed("closed by the server"));
                    self.abandon(side, true);
                }
            }
            Side::Closed | Side::Connecting(_) | Side::Open(_) => return false,
        }
        true
    }

    fn take_redis(&mut self, r: usize, s: usize) -> bool {
        let now = self.now;
        let shard = &mut self.replicas[r].shards[s];
        match &mut shard.redis {
            Side::Connecting(at) if *at <= now.mono => match self.redis.connect() {
                Ok(conn) => {
                    note!(self, "{r}/{s} redis opened {conn:?}");
                    shard.redis = Side::Open(Box::new(Socket::new(conn)));
                    shard.pipeline.handle(now, Input::RedisOpened);
                }
                Err(why) => {
                    shard.redis = Side::Closed;
                    shard.pipeline.handle(now, Input::RedisClosed(&format!("{why:?}")));
                }
            },
            Side::Open(socket) if socket.down.due().is_some_and(|at| at <= now.mono) => {
                let mut bytes = 0;
                while let Some(piece) = socket.down.take(now.mono) {
                    bytes += piece.len();
                    socket.inbox.extend_from_slice(&piece);
                }
                if bytes > 0 {
                    note!(self, "{r}/{s} redis > {}", shown(&socket.inbox));
                    shard.pipeline.handle(now, Input::RedisBytes(&mut socket.inbox));
                } else if socket.down.ends() {
                    note!(self, "{r}/{s} redis closed");
                    let side = std::mem::take(&mut shard.redis);
                    shard.pipeline.handle(now, Input::RedisClosed("closed by the server"));
                    self.abandon(side, false);
                }
            }
            Side::Closed | Side::Connecting(_) | Side::Open(_) => return false,
        }
        true
    }

    fn perform(&mut self, r: usize, s: usize) -> Result<(), Broken> {
        while let Some(effect) = self.replicas[r].shards[s].pipeline.effects().pop_front() {
            let at = self.now.mono + self.rng.u64(..=self.net.latency_max);
            let shard = &mut self.replicas[r].shards[s];
            match effect {
                Effect::NatsConnect => {
                    let old = std::mem::replace(&mut shard.nats, Side::Connecting(at));
                    self.abandon(old, true);
                }
                Effect::RedisConnect => {
                    let old = std::mem::replace(&mut shard.redis, Side::Connecting(at));
                    self.abandon(old, false);
                }
                Effect::NatsClose => {
                    note!(self, "{r}/{s} closes nats: {:?}", shard.pipeline.status().nats);
                    let old = std::mem::take(&mut shard.nats);
                    self.abandon(old, true);
                }
                Effect::RedisClose => {
                    note!(self, "{r}/{s} closes redis: {:?}", shard.pipeline.status().redis);
                    let old = std::mem::take(&mut shard.redis);
                    self.abandon(old, false);
                }
                Effect::NatsStartTls => {
                    return broken(Promise::Progress, "TLS was asked for and nobody offered it");
                }
                Effect::NatsTopology(_) => {}
                Effect::Mail { to, mail } => self.post(r, s, usize::from(to.0), mail),
                Effect::Drained => {
                    note!(self, "{r}/{s} drained");
                    shard.has_drained = true;
                }
            }
        }
        Ok(())
    }

    fn post(&mut self, r: usize, from: usize, to: usize, mail: Mail) {
        let count = self.replicas[r].shards.len();
        let at = self.now.mono + self.rng.u64(..=self.plan.busy_max);
        let lane = &mut self.replicas[r].lanes[from * count + to];
        let at = lane.back().map_or(at, |(before, _)| at.max(*before));
        lane.push_back((at, mail));
    }

    fn send_out(&mut self, r: usize, s: usize) {
        let (now, net) = (self.now.mono, self.net);
        let Shard { pipeline, nats, redis, .. } = &mut self.replicas[r].shards[s];
        if let Some(socket) = nats.socket().filter(|_| !pipeline.nats_out().is_empty()) {
            note!(self, "{r}/{s} nats < {}", shown(pipeline.nats_out()));
            socket.up.push(now, pipeline.nats_out(), net, &mut self.rng);
        }
        if let Some(socket) = redis.socket().filter(|_| !pipeline.redis_out().is_empty()) {
            note!(self, "{r}/{s} redis < {}", shown(pipeline.redis_out()));
            socket.up.push(now, pipeline.redis_out(), net, &mut self.rng);
        }
    }

    fn check_bounds(&self, r: usize, s: usize) -> Result<(), Broken> {
        let pipeline = &self.replicas[r].shards[s].pipeline;
        let (_, read) = pipeline.in_flight();
        let max = self.plan.settings.cdc.in_flight_max as usize;
        if read > max {
            return broken(
                Promise::Bounded,
                format!("{r}/{s} holds {read} events of at most {max}"),
            );
        }
        // Beyond the window: what is sent again for each company, dead letters, a lease, a position.
        let open = pipeline.publishes_open();
        let beside = usize::from(self.plan.companies) + max + 2;
        let window = self.plan.settings.cdc.publish_window as usize;
        if open > window + beside {
            return broken(
                Promise::Bounded,
                format!("{r}/{s} has {open} publishes open, of {window}"),
            );
        }
        Ok(())
    }

    fn audit(&self, r: usize, s: usize) -> Result<(), Broken> {
        let Shard { pipeline, figures, past, .. } = &self.replicas[r].shards[s];
        check_books(&pipeline.books(), pipeline.in_flight().0, past, figures)
    }
}

// What happens to the world.
impl World {
    fn act(&mut self, act: Act) -> Result<(), Broken> {
        note!(self, "--- {act:?}");
        match act {
            Act::NatsCrash { down, loss } => {
                self.nats.crash(loss);
                self.later(down, Act::NatsRestart);
            }
            Act::NatsRestart => self.nats.restart(),
            Act::NatsLeaves { down } => {
                self.nats.lame_duck();
                let loss = crate::peers::jetstream::faults::CrashLoss::default();
                self.later(200 * MS, Act::NatsCrash { down, loss });
            }
            Act::NatsStepsDown { leaderless } => self.nats.step_down(self.now, leaderless),
            Act::NatsSquall { faults, frame_cut, length } => {
                self.nats.jetstream.faults = *faults;
                self.nats.frame_cut = frame_cut;
                self.later(length, Act::NatsClears);
            }
            Act::NatsClears => {
                self.nats.jetstream.faults = Default::default();
                self.nats.frame_cut = Default::default();
            }
            Act::RedisCrash { down, kept, loading } => {
                self.oracle.amnesia |= kept != Persistence::All;
                self.redis.crash(self.now, kept);
                self.later(down, Act::RedisRestart { loading });
            }
            Act::RedisRestart { loading } => self.redis.restart(self.now, loading),
            Act::RedisSquall { faults, length } => {
                self.redis.faults = faults;
                self.later(length, Act::RedisClears);
            }
            Act::RedisClears => self.redis.faults = Default::default(),
            Act::SlowNet { latency_max, length } => {
                self.net.latency_max = latency_max;
                self.later(length, Act::NetClears);
            }
            Act::NetClears => self.net = self.plan.net,
            Act::Calm => self.calm(),
            Act::CutNats { .. }
            | Act::CutRedis { .. }
            | Act::Kill { .. }
            | Act::Start { .. }
            | Act::Pause { .. }
            | Act::Drain { .. }
            | Act::DrainDeadline { .. }
            | Act::Rebuild { .. } => return self.act_on_replica(act),
        }
        Ok(())
    }

    fn act_on_replica(&mut self, act: Act) -> Result<(), Broken> {
        match act {
            Act::CutNats { replica, shard } => self.cut(replica, shard, true),
            Act::CutRedis { replica, shard } => self.cut(replica, shard, false),
            Act::Kill { replica, down } => {
                self.kill(replica)?;
                self.later(down, Act::Start { replica });
            }
            Act::Start { replica } => self.start(replica),
            Act::Pause { replica, length } => {
                let until = self.now.mono + length;
                let paused = &mut self.replicas[replica].paused_until;
                *paused = until.max(*paused);
            }
            Act::Drain { replica, down } => self.drain(replica, down),
            Act::DrainDeadline { replica, life } => {
                if self.replicas[replica].life == life && !self.replicas[replica].shards.is_empty()
                {
                    if self.calm_at.is_some_and(|at| at + DRAIN_MAX < self.now.mono) {
                        return broken(
                            Promise::Progress,
                            "drain: ".to_owned() + &self.why_unsettled(),
                        );
                    }
                    self.kill(replica)?;
                    self.later(MS, Act::Start { replica });
                }
            }
            Act::Rebuild { replica, shard } => self.rebuild(replica, shard)?,
            _ => {}
        }
        Ok(())
    }

    // The weather is fair from here on.
    fn calm(&mut self) {
        self.calm_at = Some(self.now.mono);
        self.nats.jetstream.faults = Default::default();
        self.nats.frame_cut = Default::default();
        self.redis.faults.latency_max = 0;
        self.redis.faults = Default::default();
        self.net = self.plan.net;
        self.nats.restart();
        self.redis.restart(self.now, 0);
        for replica in 0..self.replicas.len() {
            self.replicas[replica].paused_until = 0;
            self.start(replica);
        }
        self.acts.retain(|_, act| matches!(act, Act::DrainDeadline { .. }));
    }

    fn cut(&mut self, r: usize, s: usize, is_nats: bool) {
        let Some(shard) = self.replicas[r].shards.get_mut(s) else { return };
        let side = if is_nats { &mut shard.nats } else { &mut shard.redis };
        let Some(socket) = side.socket() else { return };
        socket.up.cut(&mut self.rng);
        socket.down.cut(&mut self.rng);
    }

    fn start(&mut self, r: usize) {
        if !self.replicas[r].shards.is_empty() {
            return;
        }
        let count = usize::from(self.plan.settings.shards);
        self.replicas[r].life += 1;
        self.replicas[r].draining = None;
        self.replicas[r].paused_until = 0;
        self.replicas[r].lanes = (0..count * count).map(|_| VecDeque::new()).collect();
        for s in 0..count {
            let figures = ShardFigures::new();
            let pipeline = self.pipeline(r, s, Arc::clone(&figures), Epoch(1));
            self.replicas[r].shards.push(Shard {
                pipeline,
                figures,
                past: Books::default(),
                nats: Side::Closed,
                redis: Side::Closed,
                tick_at: self.now.mono,
                tick_every: TICK,
                busy_until: self.now.mono,
                has_drained: false,
            });
        }
    }

    fn pipeline(
        &mut self,
        r: usize,
        s: usize,
        figures: Arc<ShardFigures>,
        epoch: Epoch,
    ) -> Pipeline {
        let mut settings = self.plan.settings.clone();
        settings.replica = format!("r{r}-{}", self.replicas[r].life);
        settings.shard = ShardId(u16::try_from(s).unwrap_or(0));
        Pipeline::new(settings, figures, self.rng.u64(..), epoch, Quarantine::new())
    }

    // kill -9: everything in memory is gone.
    fn kill(&mut self, r: usize) -> Result<(), Broken> {
        for s in 0..self.replicas[r].shards.len() {
            self.audit(r, s)?;
        }
        let shards = std::mem::take(&mut self.replicas[r].shards);
        for shard in shards {
            // A done mark may die with it.
            self.oracle.amnesia = true;
            self.abandon(shard.nats, true);
            self.abandon(shard.redis, false);
        }
        self.replicas[r].lanes.clear();
        Ok(())
    }

    fn drain(&mut self, r: usize, down: u64) {
        let replica = &mut self.replicas[r];
        if replica.shards.is_empty() || replica.draining.is_some() {
            return;
        }
        replica.draining = Some(down);
        for shard in &mut replica.shards {
            shard.pipeline.handle(self.now, Input::Drain);
            shard.tick_at = self.now.mono;
        }
        let life = replica.life;
        self.later(DRAIN_MAX, Act::DrainDeadline { replica: r, life });
    }

    fn collect_drained(&mut self) -> Result<(), Broken> {
        for r in 0..self.replicas.len() {
            let replica = &self.replicas[r];
            let Some(down) = replica.draining else { continue };
            if replica.shards.is_empty() || !replica.shards.iter().all(|s| s.has_drained) {
                continue;
            }
            let was_amnesiac = self.oracle.amnesia;
            self.kill(r)?;
            self.oracle.amnesia = was_amnesiac; // A clean stop leaves no mark behind.
            self.acts.retain(
                |_, act| !matches!(act, Act::DrainDeadline { replica, .. } if *replica == r),
            );
            if down < u64::MAX {
                self.later(down, Act::Start { replica: r });
            }
        }
        Ok(())
    }

    // As `Shard::start_over` does after a panic: a new pipeline beside the living ones.
    fn rebuild(&mut self, r: usize, s: usize) -> Result<(), Broken> {
        if self.replicas[r].shards.len() <= s || self.replicas[r].draining.is_some() {
            return Ok(());
        }
        self.audit(r, s)?;
        self.oracle.amnesia = true;
        let shard = &mut self.replicas[r].shards[s];
        shard.pipeline.books().iter().for_each(|(_, books)| shard.past.add(books));
        let open = shard.pipeline.in_flight().0 as u64;
        shard.past.pulled -= open;
        shard.figures.pulled.add(open.wrapping_neg()); // They have no outcome and never will.
        let (epoch, figures) = (shard.pipeline.epoch_next(), Arc::clone(&shard.figures));
        let sides = [std::mem::take(&mut shard.nats), std::mem::take(&mut shard.redis)];
        for (side, is_nats) in sides.into_iter().zip([true, false]) {
            self.abandon(side, is_nats);
        }
        let pipeline = self.pipeline(r, s, figures, epoch);
        let partitions: Vec<_> = pipeline.status().readers.iter().map(|r| r.partition).collect();
        self.replicas[r].shards[s].pipeline = pipeline;
        let id = ShardId(u16::try_from(s).unwrap_or(0));
        for to in (0..self.replicas[r].shards.len()).filter(|to| *to != s) {
            for partition in &partitions {
                self.post(r, s, to, Mail::Cancel { partition: *partition, epoch });
            }
            self.post(r, s, to, Mail::Lost { shard: id });
        }
        Ok(())
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

fn mail_text(mail: &Mail) -> String {
    match mail {
        Mail::Parcel(p) => format!("parcel {} of epoch {}", p.seq, p.epoch.0),
        Mail::Done { epoch, index, .. } => format!("done {index} of epoch {}", epoch.0),
        Mail::Cancel { epoch, .. } => format!("cancel before epoch {}", epoch.0),
        Mail::Lost { shard } => format!("{shard} lost its parcels"),
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1200)]);
    format!("{} B {}", bytes.len(), text.replace("\r\n", "|"))
}
