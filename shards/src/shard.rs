//! A shard: one core's pipeline, its two connections, its mailbox, and the loop that turns them. Made and
//! dropped on its own thread. Invariants: one task does all of it, so nothing is shared or awaited across
//! a borrow; a panic of the pipeline is contained, counted, and answered by a new pipeline that resumes at
//! the ack floor.

use crate::clock::{MS, Now, SEC};
use crate::edge::Clock;
use crate::edge::inbox::Inbox;
use crate::edge::link::{Link, Received};
use crate::edge::mailbox::{Ears, PostOffice};
use crate::edge::pg::chores::{Chores, chores};
use crate::edge::pg::lane::{Lane, News, PgPlan};
use crate::edge::target::{Address, NatsTarget, RedisTarget};
use crate::id::{PartitionId, ShardId};
use crate::metrics::ShardFigures;
use crate::pipeline::{
    Books, Effect, Input, Mail, Pipeline, Quarantine, Settings, Span, Status, TICK,
};
use crate::wire::nats::auth::Credentials;
use bytes::BytesMut;
use crossbeam_channel::{Receiver, Sender};
use futures_lite::future::poll_fn;
use glommio::timer::Timer;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Largest read: what a busy server has ready at once.
pub const READ_MAX: usize = 256 * 1024;
/// Turns in a row, while there always is something, after which the ring is looked at.
const TURNS_MAX: u32 = 16;
/// A read below this took all there was: whoever has sent it is not ahead of us.
const READ_SMALL: usize = 32 * 1024;
/// How often the control thread is told how we are.
const STATUS_EVERY: u64 = 100 * MS;
/// What the control thread wants of a shard.
#[derive(Debug)]
pub enum Command {
    /// Stop taking in events; finish; say so.
    Drain,
    /// End now.
    Stop,
    /// The books of all companies.
    Books(Sender<Vec<(Box<[u8]>, Books)>>),
}

/// What a shard tells the control thread.
#[derive(Debug)]
pub enum Notice {
    /// How it is.
    Status(ShardId, Box<Status>),
    /// It has finished and handed over.
    Drained(ShardId),
    /// Its thread ends; without an order to stop, that is a failure.
    Ended(ShardId),
}

/// What a shard is made from.
#[derive(Clone)]
pub struct ShardPlan {
    /// For its pipeline.
    pub settings: Settings,
    /// The NATS servers.
    pub nats: NatsTarget,
    /// The Redis server.
    pub redis: RedisTarget,
    /// PostgreSQL, where a stage needs it.
    pub postgres: Option<PgPlan>,
    /// Core to be pinned to; `None` leaves the choice to the kernel.
    pub core: Option<usize>,
    /// How long to spin before parking.
    pub spin: Duration,
    /// Who takes the spans of events, if somebody does.
    pub spans: Option<Sender<Span>>,
}

/// The ends of a shard's channels.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Orders from the control thread.
    pub commands: Receiver<Command>,
    /// Reports to it.
    pub notices: Sender<Notice>,
    /// The lanes to other shards.
    pub post: PostOffice,
    /// The figures it keeps.
    pub figures: Arc<ShardFigures>,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Link>>>>;

enum Socket {
    Closed,
    Connecting(Connecting),
    Open(Box<Link>),
}

/// One turn's arrivals.
#[derive(Default)]
struct Turn {
    nats: Option<io::Result<Arrived>>,
    redis: Option<io::Result<Arrived>>,
    postgres: Vec<(u16, News)>,
    /// A lane panicked.
    panic: Option<Panic>,
    mail: bool,
    tick: bool,
    /// The socket has taken everything, and the pipeline has more.
    more: bool,
}

enum Arrived {
    Opened,
    Secured,
    Bytes,
}

impl Turn {
    fn is_empty(&self) -> bool {
        let nothing = self.nats.is_none() && self.redis.is_none() && self.postgres.is_empty();
        nothing && self.panic.is_none() && !(self.mail || self.tick || self.more)
    }
}

/// The shard.
pub struct Shard {
    plan: ShardPlan,
    ports: Ports,
    clock: Clock,
    pipeline: Pipeline,
    nats: Socket,
    redis: Socket,
    nats_inbox: Inbox,
    redis_inbox: Inbox,
    lanes: Vec<Lane>,
    /// The first shard does those of the process.
    chores: Option<Chores>,
    scratch: Box<[u8]>,
    ears: Ears,
    timer: Timer,
    seeds_next: usize,
    learnt: Vec<Address>,
    address: Address,
    credentials: Option<Credentials>,
    /// Letters that found their lane full, in order, by receiver.
    backlog: Vec<VecDeque<Mail>>,
    panics: Quarantine,
    /// What each lane writes, should it panic.
    writing: Vec<Vec<(PartitionId, u64)>>,
    status_at: u64,
    /// Turns since the executor last looked at its ring.
    turns: u32,
    /// The bell was heard, and the letters are not taken yet.
    rung: bool,
    /// What NATS sends lies in its socket for now.
    nats_waits: bool,
    stop: bool,
}

impl Shard {
    /// Make the shard on the thread that will run it.
    #[must_use]
    pub fn new(plan: ShardPlan, ports: Ports, ears: Ears) -> Self {
        let figures = Arc::clone(&ports.figures);
        let seed = fastrand::u64(..);
        let epoch = crate::id::Epoch(1);
        let pipeline =
            Pipeline::new(plan.settings.clone(), figures, seed, epoch, Quarantine::new());
        let backlog = ports.post.shards().map(|_| VecDeque::new()).collect();
        let address = plan.nats.seeds[0].clone();
        let lanes = plan.settings.ingest.as_ref().map_or(0, |ingest| ingest.connections);
        let chores = chores_of(&plan, Clock::default());
        let seeds_next = fastrand::usize(..plan.nats.seeds.len());
        Self {
            plan,
            ports,
            clock: Clock::default(),
            pipeline,
            nats: Socket::Closed,
            redis: Socket::Closed,
            nats_inbox: Inbox::new(READ_MAX),
            redis_inbox: Inbox::new(READ_MAX / 4),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            chores,
            scratch: vec![0; READ_MAX].into_boxed_slice(),
            ears,
            timer: Timer::new(Duration::from_nanos(TICK)),
            seeds_next,
            learnt: Vec::new(),
            address,
            credentials: None,
            backlog,
            panics: Quarantine::new(),
            writing: vec![Vec::new(); usize::from(lanes)],
            status_at: 0,
            turns: 0,
            rung: false,
            nats_waits: false,
            stop: false,
        }
    }

    /// Turn until told to stop.
    pub async fn run(mut self) {
        while !self.stop {
            let turn = poll_fn(|cx| self.poll_turn(cx)).await;
            let now = self.clock.now();
            // A tick looks at the socket whatever goes on: the server asks whether we live.
            let may_wait = !turn.tick && self.nats_inbox.bytes.len() < READ_SMALL;
            let handled = catch_unwind(AssertUnwindSafe(|| self.handle(now, turn)));
            if let Err(panic) = handled.and_then(|panic| panic.map_or(Ok(()), Err)) {
                self.start_over(now, panic.as_ref());
            }
            self.perform(now);
            self.nats_waits = may_wait && self.pipeline.can_wait();
            self.ports.figures.turns.inc();
            if self.turns >= TURNS_MAX {
                // A socket that always has more never waits, and what the ring knows of the other one
                // and of the bell would not be seen.
                self.turns = 0;
                self.ears.look_at_ring(self.ports.post.bell(self.plan.settings.shard)).await;
                self.rung = true;
            }
        }
    }

    // Output first: what the last turn decided goes out before anything new is taken in.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let mut turn = Turn::default();
        let Self { nats, redis, pipeline, scratch, nats_inbox, redis_inbox, .. } = self;
        let had_output = !pipeline.nats_out().is_empty();
        let nats_inbox = (!self.nats_waits).then_some(nats_inbox);
        turn.nats = poll_socket(nats, cx, scratch, nats_inbox, Some(pipeline.nats_out()));
        let redis_out = pipeline.redis_is_due().then(|| pipeline.redis_out());
        turn.redis = poll_socket(redis, cx, scratch, Some(redis_inbox), redis_out);
        let Self { lanes, chores, writing, panics, .. } = self;
        for (place, lane) in lanes.iter_mut().enumerate() {
            let number = u16::try_from(place).unwrap_or(u16::MAX);
            while let Some(news) = caught(&mut turn.panic, || lane.poll(cx)).flatten() {
                turn.postgres.push((number, news));
            }
            if turn.panic.is_some() {
                writing[place].drain(..).for_each(|at| *panics.entry(at).or_default() += 1);
                return Poll::Ready(turn);
            }
        }
        if let Some(chores) = chores {
            let _never_ready = caught(&mut turn.panic, || chores.as_mut().poll(cx));
        }
        turn.more = had_output && pipeline.nats_out().is_empty() && pipeline.has_more();
        turn.mail = std::mem::take(&mut self.rung) | self.ears.poll_rung(cx).is_ready();
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            self.timer = Timer::new(Duration::from_nanos(TICK));
            turn.tick = true;
        }
        if turn.is_empty() {
            self.turns = 0;
            return Poll::Pending;
        }
        self.turns += 1;
        Poll::Ready(turn)
    }

    // The panic of a lane, if there was one: what it held is lost with it.
    fn handle(&mut self, now: Now, turn: Turn) -> Option<Panic> {
        if turn.panic.is_some() {
            return turn.panic;
        }
        if let Some(event) = turn.nats {
            self.on_nats(now, event);
        }
        if let Some(event) = turn.redis {
            self.on_redis(now, event);
        }
        for (lane, news) in turn.postgres {
            self.on_postgres(now, lane, news);
        }
        if turn.mail {
            self.take_mail(now);
        }
        if turn.tick {
            self.pipeline.handle(now, Input::Tick);
            self.tell_status(now);
        }
        self.pipeline.flush(now);
        None
    }

    fn on_postgres(&mut self, now: Now, lane: u16, news: News) {
        match news {
            News::Opened => self.pipeline.handle(now, Input::PgOpened(lane)),
            News::Written(job) => self.pipeline.handle(now, Input::PgWritten(lane, job)),
            News::Closed(why) => self.pipeline.handle(now, Input::PgClosed(lane, &why)),
        }
    }

    fn on_nats(&mut self, now: Now, event: io::Result<Arrived>) {
        match event {
            Ok(Arrived::Opened) => {
                let credentials = self.credentials.take().unwrap_or(Credentials::None);
                self.nats_inbox.clear();
                self.pipeline.handle(now, Input::NatsOpened(credentials));
            }
            Ok(Arrived::Secured) => {
                self.pipeline.handle(now, Input::NatsSecured);
                self.pipeline.handle(now, Input::NatsBytes(&mut self.nats_inbox.bytes));
            }
            Ok(Arrived::Bytes) => {
                self.pipeline.handle(now, Input::NatsBytes(&mut self.nats_inbox.bytes));
            }
            Err(error) => {
                self.nats = Socket::Closed;
                let why = format!("{}: {error}", self.address);
                self.pipeline.handle(now, Input::NatsClosed(&why));
            }
        }
    }

    fn on_redis(&mut self, now: Now, event: io::Result<Arrived>) {
        match event {
            Ok(Arrived::Opened) => {
                self.redis_inbox.clear();
                match &self.plan.redis.tls {
                    Some(tls) => {
                        let tls = Arc::clone(tls);
                        let name = self.plan.redis.address.name.clone();
                        self.secure_redis(now, &tls, &name);
                    }
                    None => self.pipeline.handle(now, Input::RedisOpened),
                }
            }
            Ok(Arrived::Secured) => self.pipeline.handle(now, Input::RedisOpened),
            Ok(Arrived::Bytes) => {
                self.pipeline.handle(now, Input::RedisBytes(&mut self.redis_inbox.bytes));
            }
            Err(error) => {
                self.redis = Socket::Closed;
                let why = format!("{}: {error}", self.plan.redis.address);
                self.pipeline.handle(now, Input::RedisClosed(&why));
            }
        }
    }

    fn secure_redis(&mut self, now: Now, tls: &Arc<rustls::ClientConfig>, name: &str) {
        let Socket::Open(link) = &mut self.redis else { return };
        if let Err(error) = link.start_tls(tls, name) {
            self.on_redis(now, Err(error));
        }
    }

    fn take_mail(&mut self, now: Now) {
        let to = self.plan.settings.shard;
        for from in self.ports.post.shards() {
            while let Some(mail) = self.ports.post.take(from, to) {
                self.pipeline.handle(now, Input::Mail(mail));
            }
        }
        while let Ok(command) = self.ports.commands.try_recv() {
            match command {
                Command::Drain => self.pipeline.handle(now, Input::Drain),
                Command::Stop => self.stop = true,
                Command::Books(asker) => {
                    let _gone = asker.try_send(self.pipeline.books());
                }
            }
        }
    }

    fn tell_status(&mut self, now: Now) {
        let wall_ms = i64::try_from(now.wall / MS).unwrap_or(i64::MAX);
        self.ports.figures.heartbeat_ms.set(wall_ms);
        if now.mono >= self.status_at {
            self.status_at = now.mono + STATUS_EVERY;
            let status = Box::new(self.pipeline.status());
            let notice = Notice::Status(self.plan.settings.shard, status);
            let _full = self.ports.notices.try_send(notice); // The next one says it all again.
        }
    }

    // What the pipeline asked for.
    fn perform(&mut self, now: Now) {
        while let Some(effect) = self.pipeline.effects().pop_front() {
            match effect {
                Effect::NatsConnect => self.connect_nats(now),
                Effect::NatsStartTls => self.secure_nats(now),
                Effect::NatsClose => {
                    self.nats = Socket::Closed;
                    self.nats_inbox.clear();
                }
                Effect::NatsTopology(addresses) => {
                    let name = &self.address.name;
                    let learnt = addresses.iter().filter_map(|text| Address::parse(text, name));
                    self.learnt = learnt.collect();
                }
                Effect::RedisConnect => {
                    let target = self.plan.redis.clone();
                    self.redis = Socket::Connecting(Box::pin(async move {
                        let Address { host, port, .. } = &target.address;
                        Link::connect(host, *port, target.connect_timeout).await
                    }));
                }
                Effect::RedisClose => {
                    self.redis = Socket::Closed;
                    self.redis_inbox.clear();
                }
                Effect::PgConnect { lane } => {
                    if let (Some(plan), Some(lane)) = self.lane(lane) {
                        lane.connect(plan);
                    }
                }
                Effect::PgClose { lane } => {
                    if let (_, Some(lane)) = self.lane(lane) {
                        lane.close("closed by us, to be opened anew");
                    }
                }
                Effect::PgWrite { lane, job } => {
                    let clock = self.clock;
                    if let Some(writing) = self.writing.get_mut(usize::from(lane)) {
                        writing.clear();
                        writing.extend(job.places());
                    }
                    if let (Some(plan), Some(lane)) = self.lane(lane) {
                        lane.write(job, plan, clock);
                    }
                }
                Effect::Mail { to, mail } => self.backlog[usize::from(to.0)].push_back(mail),
                Effect::Drained => {
                    let _gone = self.ports.notices.send(Notice::Drained(self.plan.settings.shard));
                }
            }
        }
        self.post_backlog();
        self.hand_over_spans();
    }

    // Nobody waits for an exporter: what finds no room is counted.
    fn hand_over_spans(&mut self) {
        let Some(spans) = &self.plan.spans else { return };
        let figures = &self.ports.figures;
        for span in self.pipeline.take_spans() {
            match spans.try_send(span) {
                Ok(()) => figures.spans.inc(),
                Err(_) => figures.spans_dropped.inc(),
            }
        }
    }

    fn lane(&mut self, lane: u16) -> (Option<&PgPlan>, Option<&mut Lane>) {
        (self.plan.postgres.as_ref(), self.lanes.get_mut(usize::from(lane)))
    }

    fn post_backlog(&mut self) {
        let from = self.plan.settings.shard;
        for to in self.ports.post.shards() {
            let lane = &mut self.backlog[usize::from(to.0)];
            let before = lane.len();
            while let Some(mail) = lane.pop_front() {
                if let Err(mail) = self.ports.post.offer(from, to, mail) {
                    lane.push_front(*mail);
                    break;
                }
            }
            if before > 0 {
                self.ports.post.ring(to);
            }
        }
    }

    // Each attempt takes the next server: the configured ones, then those the servers told of.
    fn connect_nats(&mut self, now: Now) {
        let (seeds, learnt) = (&self.plan.nats.seeds, &self.learnt);
        let place = self.seeds_next % (seeds.len() + learnt.len());
        self.seeds_next = self.seeds_next.wrapping_add(1);
        self.address = seeds.get(place).unwrap_or_else(|| &learnt[place - seeds.len()]).clone();
        match self.plan.nats.credentials.load() {
            Ok(credentials) => self.credentials = Some(credentials),
            Err(why) => return self.pipeline.handle(now, Input::NatsClosed(&why)),
        }
        let (address, timeout) = (self.address.clone(), self.plan.nats.connect_timeout);
        self.nats = Socket::Connecting(Box::pin(async move {
            Link::connect(&address.host, address.port, timeout).await
        }));
    }

    fn secure_nats(&mut self, now: Now) {
        let Socket::Open(link) = &mut self.nats else { return };
        if let Err(error) = link.start_tls(&self.plan.nats.tls, &self.address.name) {
            self.on_nats(now, Err(error));
        }
    }

    // The pipeline panicked: its state is not to be trusted. A new one begins where the acks ended.
    fn start_over(&mut self, now: Now, panic: &(dyn std::any::Any + Send)) {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let suspect = self.pipeline.suspect();
        self.ports.figures.panics.inc();
        self.ports.figures.give_all_back();
        tracing::error!(shard = %self.plan.settings.shard, panic = text,
            stream = suspect.map(|(partition, _)| self.pipeline.stream_of(partition)),
            stream_sequence = suspect.map(|(_, sequence)| sequence),
            "a panic was contained; the shard starts over at its ack floor");
        if let Some(place) = suspect {
            *self.panics.entry(place).or_default() += 1;
        }
        let quarantine = self.panics.clone();
        let epoch = self.pipeline.epoch_next();
        let figures = Arc::clone(&self.ports.figures);
        let settings = self.plan.settings.clone();
        let seed = fastrand::u64(..);
        self.pipeline = Pipeline::new(settings, figures, seed, epoch, quarantine);
        (self.nats, self.redis) = (Socket::Closed, Socket::Closed);
        self.lanes.iter_mut().for_each(|lane| *lane = Lane::default());
        self.chores = chores_of(&self.plan, self.clock);
        self.nats_inbox.clear();
        self.redis_inbox.clear();
        self.backlog.iter_mut().for_each(VecDeque::clear);
        self.announce_new_life(epoch);
        self.status_at = now.mono + SEC / 10;
    }

    fn announce_new_life(&mut self, epoch: crate::id::Epoch) {
        let shard = self.plan.settings.shard;
        let partitions: Vec<_> =
            self.pipeline.status().readers.iter().map(|reader| reader.partition).collect();
        for to in self.ports.post.shards().filter(|to| *to != shard) {
            let lane = &mut self.backlog[usize::from(to.0)];
            let cancel = partitions.iter().map(|p| Mail::Cancel { partition: *p, epoch });
            lane.extend(cancel);
            lane.push_back(Mail::Lost { shard });
        }
    }
}

fn chores_of(plan: &ShardPlan, clock: Clock) -> Option<Chores> {
    let postgres = plan.postgres.as_ref().filter(|_| plan.settings.shard == ShardId(0));
    postgres.map(|postgres| chores(postgres.clone(), clock))
}

type Panic = Box<dyn std::any::Any + Send>;

/// What `call` returns, unless it panics.
fn caught<T>(panic: &mut Option<Panic>, call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|text| *panic = Some(text)).ok()
}

fn poll_socket(
    socket: &mut Socket,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
    inbox: Option<&mut Inbox>,
    out: Option<&mut BytesMut>,
) -> Option<io::Result<Arrived>> {
    match socket {
        Socket::Closed => None,
        Socket::Connecting(attempt) => match attempt.as_mut().poll(cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(link)) => {
                *socket = Socket::Open(Box::new(link));
                Some(Ok(Arrived::Opened))
            }
            Poll::Ready(Err(error)) => Some(Err(error)),
        },
        Socket::Open(link) => {
            let mut nothing = BytesMut::new();
            let out = out.unwrap_or(&mut nothing);
            if (!out.is_empty() || link.has_output())
                && let Poll::Ready(Err(error)) = link.poll_write(cx, out)
            {
                return Some(Err(error));
            }
            match link.poll_read(cx, scratch, inbox?) {
                Poll::Pending => None,
                Poll::Ready(Ok(Received::Bytes)) => Some(Ok(Arrived::Bytes)),
                Poll::Ready(Ok(Received::Secured)) => Some(Ok(Arrived::Secured)),
                Poll::Ready(Err(error)) => Some(Err(error)),
            }
        }
    }
}
