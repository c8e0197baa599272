//! The pipeline of one shard: inputs in, effects and bytes out. No sockets, no clocks, no async: time and
//! chance are arguments, so that the simulator runs the very code that ships. Invariant: an event is
//! acknowledged only after its outcome is durable.
//!
//! Modules: `settings`, `mail`, `effect` (the border); `bus`, `redis`, `pubacks` (the two connections);
//! `setup`, `share`, `lease`, `reader`, `dlq` (the sources); `tenant`, `origin`, `letter`, `flight`, `cdc`,
//! `commit`, `ingest` (the stages); `note`, `trace` (what is told of an event).

mod bus;
mod cdc;
pub mod commit;
mod dlq;
mod effect;
mod flight;
pub mod ingest;
mod lease;
mod letter;
mod mail;
mod note;
pub mod origin;
mod pubacks;
mod reader;
mod redis;
mod settings;
mod setup;
mod share;
mod tenant;
mod trace;

pub use bus::tail_number;
pub use cdc::reason_labels;
pub use effect::Effect;
pub use ingest::{ingest_reason_labels, kind_labels};
pub use mail::{LetterFate, Mail, Parcel};
pub use pubacks::PubAcks;
pub use settings::{
    AckChoice, CdcSettings, DlqSettings, IngestSettings, LeaseSettings, NatsSettings,
    RedisSettings, Settings, SourceSettings, StageName, StreamPlan, TraceSettings,
};
pub use tenant::Books;
pub use trace::{Span, Text};

use crate::clock::{MS, Now};
use crate::domain::cdc::company_hint;
use crate::id::{Epoch, PartitionId, ShardId, shard_of};
use crate::metrics::ShardFigures;
use crate::wire::nats::auth::Credentials;
use crate::wire::nats::conn::{ConnError, ConnEvent};
use crate::wire::nats::op::Msg;
use bus::{AckFor, Answer, Arrival, Asker, Bus};
use bytes::BytesMut;
use cdc::{Cx, Stage};
use dlq::Letters;
use ingest::{Ingest, Job};
use reader::{Reader, ReaderNews};
use redis::Redis;
use setup::Setup;
use share::{Share, Turn};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use trace::Tracer;

/// Events that a shard panicked at, by partition and stream sequence, and how often.
pub type Quarantine = HashMap<(PartitionId, u64), u32>;

/// Panics at one event after which it is no longer looked at.
const PANICS_MAX: u32 = 2;

/// All that can happen to a pipeline.
#[derive(Debug)]
pub enum Input<'a> {
    /// The NATS socket is open; the credentials are those of this attempt.
    NatsOpened(Credentials),
    /// TLS is up on the NATS socket.
    NatsSecured,
    /// Bytes came; what is decoded is taken off the front.
    NatsBytes(&'a mut BytesMut),
    /// The NATS socket is closed, or could not be opened.
    NatsClosed(&'a str),
    /// The Redis socket is open.
    RedisOpened,
    /// Bytes came; what is decoded is taken off the front.
    RedisBytes(&'a mut BytesMut),
    /// The Redis socket is closed, or could not be opened.
    RedisClosed(&'a str),
    /// A lane is connected to PostgreSQL.
    PgOpened(u16),
    /// A lane has written its job, or failed to.
    PgWritten(u16, Box<Job>),
    /// A lane's connection is closed, or could not be opened.
    PgClosed(u16, &'a str),
    /// A letter from another shard.
    Mail(Mail),
    /// Time went by: at least every [`TICK`].
    Tick,
    /// Stop taking in events, finish what is held, hand over.
    Drain,
}

/// The longest time between two [`Input::Tick`]s: all timeouts are coarser.
pub const TICK: u64 = 20 * MS;

/// How something that only some stages need is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// No stage that runs needs it.
    #[default]
    None,
    /// It works.
    Up,
    /// It does not, and why.
    Down(String),
}

impl Need {
    fn of(trouble: Option<&str>) -> Self {
        trouble.map_or(Self::Up, |why| Self::Down(why.to_owned()))
    }
}

/// How a shard is doing, for people and for `/ready`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Why NATS is away, if it is.
    pub nats: Option<String>,
    /// Version and name of the NATS server.
    pub nats_server: Option<(String, String)>,
    /// Redis.
    pub redis: Need,
    /// PostgreSQL.
    pub postgres: Need,
    /// Companies whose events wait, and why.
    pub held: Vec<(String, String)>,
    /// Why streams and buckets are not usable, if so.
    pub setup: Option<String>,
    /// The partitions that this shard reads or stands by for.
    pub readers: Vec<ReaderStatus>,
    /// Is it draining?
    pub draining: bool,
}

/// How the reading of one partition is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Do we hold its lease?
    pub leased: bool,
    /// Are we reading?
    pub reading: bool,
    /// What is in the way.
    pub trouble: Option<String>,
}

/// The pipeline of one shard.
pub struct Pipeline {
    settings: Settings,
    figures: Arc<ShardFigures>,
    rng: fastrand::Rng,
    bus: Bus,
    redis: Redis,
    setup: Setup,
    /// With several partitions: whose turn each is. One partition stays where it is.
    share: Option<Share>,
    readers: Vec<Reader>,
    letters: Option<Letters>,
    stage: Stage,
    ingest: Option<Ingest>,
    effects: VecDeque<Effect>,
    done: Vec<(PartitionId, Epoch, u64)>,
    placed: Vec<(PartitionId, Epoch)>,
    judged: Vec<(PartitionId, Epoch, u64, LetterFate)>,
    tracer: Tracer,
    quarantine: Quarantine,
    suspect: Option<(PartitionId, u64)>,
    draining: bool,
    drained: bool,
}

impl Pipeline {
    /// A pipeline without connections. `epoch` must be above those of any earlier pipeline of this
    /// shard in this process; `seed` draws inboxes, jitter and hash keys.
    #[must_use]
    pub fn new(
        settings: Settings,
        figures: Arc<ShardFigures>,
        seed: u64,
        epoch: Epoch,
        quarantine: Quarantine,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sources = settings.sources();
        let capacity: u32 = sources.iter().map(|source| 2 * source.in_flight_max).sum();
        let capacity = capacity as usize;
        let shards = settings.shards.max(1);
        let of_source = |(place, source): (usize, &&SourceSettings)| {
            std::iter::repeat_n(place, usize::from(source.partitions.max(1)))
        };
        let partitions = (0..).map(PartitionId);
        let last = sources.iter().map(|source| source.partitions.max(1)).sum();
        let readers: Vec<Reader> = sources
            .iter()
            .enumerate()
            .flat_map(of_source)
            .zip(partitions)
            .filter(|(_, partition)| partition.0 % shards == settings.shard.0)
            .enumerate()
            .map(|(place, source)| Reader::new(place, source, epoch, &settings))
            .collect();
        let letters = Letters::new(readers.len(), PartitionId(last), epoch, &settings);
        let is_shared = settings.cdc.enabled && settings.cdc.source.partitions > 1;
        Self {
            bus: Bus::new(&settings.nats, capacity),
            redis: Redis::new(&settings.redis, capacity),
            setup: Setup::new(),
            share: is_shared.then(|| Share::new(&settings)),
            readers,
            letters,
            stage: Stage::new(&settings, &mut rng),
            ingest: settings.ingest.as_ref().map(Ingest::new),
            effects: VecDeque::new(),
            done: Vec::with_capacity(capacity),
            placed: Vec::with_capacity(capacity),
            judged: Vec::new(),
            tracer: Tracer::new(settings.trace, &mut rng),
            quarantine,
            suspect: None,
            draining: false,
            drained: false,
            figures,
            rng,
            settings,
        }
    }

    /// Act on what happened. The bytes and effects that it calls for are complete after [`Self::flush`].
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::NatsOpened(credentials) => self.nats_opened(now, credentials),
            Input::NatsSecured => {
                let secured = self.bus.conn.tls_done();
                self.check_nats(now, secured);
            }
            Input::NatsBytes(inbox) => self.nats_bytes(now, inbox),
            Input::NatsClosed(why) => self.nats_lost(now, why, false, false),
            Input::RedisOpened => self.redis.opened(now),
            Input::RedisBytes(inbox) => self.redis_bytes(now, inbox),
            Input::RedisClosed(why) => self.redis_lost(now, why, false),
            Input::PgOpened(lane) => {
                self.figures.ingest.connects.inc();
                self.with_ingest(now, |ingest, _| ingest.on_opened(lane));
            }
            Input::PgWritten(lane, job) => {
                self.with_ingest(now, |ingest, cx| ingest.on_written(lane, job, cx));
            }
            Input::PgClosed(lane, why) => {
                self.with_ingest(now, |ingest, cx| ingest.on_closed(lane, why, cx));
            }
            Input::Mail(mail) => self.mail(now, mail),
            Input::Tick => self.tick(now),
            Input::Drain => self.drain(now),
        }
    }

    /// End of a turn: acknowledge, pull, send what had to wait. Call it once after a batch of inputs.
    pub fn flush(&mut self, now: Now) {
        self.with_ingest(now, Ingest::flush);
        if !self.bus.is_ready() {
            self.done.clear(); // Their readings ended with the connection.
            self.placed.clear();
            self.judged.clear();
            return self.finish_drain();
        }
        self.with_stage(now, |stage, cx| stage.send_ready(cx));
        for (partition, epoch, index) in self.done.drain(..) {
            if let Some(reader) = self.readers.iter_mut().find(|r| r.partition() == partition) {
                reader.on_done(epoch, index);
            } else {
                self.judged.push((partition, epoch, index, LetterFate::Done));
            }
        }
        for (partition, epoch, index, fate) in self.judged.drain(..) {
            if let Some(letters) = self.letters.as_mut().filter(|l| l.partition() == partition) {
                letters.on_fate(now, (epoch, index), fate, &mut self.bus);
            }
        }
        for (partition, epoch) in self.placed.drain(..) {
            if let Some(reader) = self.readers.iter_mut().find(|r| r.partition() == partition) {
                reader.on_placed(epoch);
            }
        }
        let hold_cdc = !self.redis.is_ready() && self.settings.cdc.dedup_required;
        let hold_ingest = self.ingest.as_ref().is_some_and(|ingest| ingest.trouble().is_some());
        for place in 0..self.readers.len() {
            let reader = &mut self.readers[place];
            let hold = match reader.stage() {
                StageName::Cdc => hold_cdc,
                StageName::Ingest | StageName::Dlq => hold_ingest,
            };
            let news = reader.flush(now, hold, &self.settings, &mut self.bus);
            self.reader_news(now, place, news);
        }
        if let Some(letters) = &mut self.letters {
            letters.flush(now, hold_ingest, &mut self.bus);
        }
        self.figures.in_flight.set(i64::try_from(self.stage.open()).unwrap_or(i64::MAX));
        self.finish_drain();
    }

    /// Bytes for the NATS socket; take off the front what was written.
    pub fn nats_out(&mut self) -> &mut BytesMut {
        self.bus.conn.out()
    }

    /// Bytes for the Redis socket; take off the front what was written.
    pub fn redis_out(&mut self) -> &mut BytesMut {
        self.redis.out()
    }

    /// Should they be written now? Else they wait for company, until the next tick at the longest.
    #[must_use]
    pub fn redis_is_due(&self) -> bool {
        self.redis.is_due()
    }

    /// May what the NATS server sends lie in its socket until a write ends, or the next tick? Where every
    /// lane writes and nobody else takes events, to read at once is to be woken for each event of a batch
    /// that cannot begin yet.
    #[must_use]
    pub fn can_wait(&self) -> bool {
        let is_alone = self.settings.shards == 1 && !self.draining;
        let others = || self.settings.sources().iter().any(|s| s.stage == StageName::Cdc);
        is_alone && self.ingest.as_ref().is_some_and(Ingest::is_busy) && !others()
    }

    /// What else is to be done, in order.
    pub fn effects(&mut self) -> &mut VecDeque<Effect> {
        &mut self.effects
    }

    /// Has it more to send as soon as the NATS socket has taken what there is?
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.stage.has_ready() && self.bus.is_ready()
    }

    /// Spans that have ended since the last call.
    pub fn take_spans(&mut self) -> impl Iterator<Item = Span> {
        self.tracer.take()
    }

    /// The event being handled, for whoever has to find out why a call did not return.
    #[must_use]
    pub fn suspect(&self) -> Option<(PartitionId, u64)> {
        self.suspect
    }

    /// Stream that a partition is read from, as configured; dead letters have one of their own.
    #[must_use]
    pub fn stream_of(&self, partition: PartitionId) -> &str {
        let sources = self.settings.sources();
        let mut last = 0;
        let source = sources.into_iter().find(|source| {
            last += source.partitions.max(1);
            partition.0 < last
        });
        source.map_or(&self.settings.cdc.dlq_stream.name, |source| &source.stream)
    }

    /// Epoch above all that this pipeline has used.
    #[must_use]
    pub fn epoch_next(&self) -> Epoch {
        let letters = self.letters.iter().map(Letters::epoch);
        let epochs = self.readers.iter().map(Reader::epoch).chain(letters);
        Epoch(epochs.map(|epoch| epoch.0).max().unwrap_or(0) + 1)
    }

    /// How it is doing. Cold: it allocates.
    #[must_use]
    pub fn status(&self) -> Status {
        let info = self.bus.conn.info();
        let reader_status = |reader: &Reader| ReaderStatus {
            partition: reader.partition(),
            leased: reader.holds_lease(),
            reading: reader.is_reading(),
            trouble: reader.trouble.clone(),
        };
        Status {
            nats: self.bus.down_reason.clone(),
            nats_server: (!info.version.is_empty())
                .then(|| (info.version.clone(), info.server_name.clone())),
            redis: match self.settings.cdc.enabled {
                true => Need::of(self.redis.down_reason.as_deref()),
                false => Need::None,
            },
            postgres: self.ingest.as_ref().map_or(Need::None, |i| Need::of(i.trouble())),
            held: self.ingest.as_ref().map(Ingest::held).unwrap_or_default(),
            setup: self.setup.hindrance(),
            readers: {
                let letters = self.letters.iter().map(Letters::status);
                self.readers.iter().map(reader_status).chain(letters).collect()
            },
            draining: self.draining,
        }
    }

    /// The books of every company of this shard, over all stages. Cold.
    #[must_use]
    pub fn books(&self) -> Vec<(Box<[u8]>, Books)> {
        let mut all: BTreeMap<Box<[u8]>, Books> = self.stage.books().into_iter().collect();
        for (company, books) in self.ingest.iter().flat_map(Ingest::books) {
            all.entry(company).or_default().add(&books);
        }
        all.into_iter().collect()
    }

    /// Publishes that wait for their PubAck: events, dead letters, leases, positions.
    #[must_use]
    pub fn publishes_open(&self) -> usize {
        self.bus.publishes_open()
    }

    /// Events held here without outcome: as owner, and as reader.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        let owned =
            self.stage.open() + self.ingest.as_ref().map_or(0, |i| i.open() + i.letters_open());
        let letters = self.letters.iter().map(Letters::in_flight);
        (owned, self.readers.iter().map(Reader::in_flight).chain(letters).sum())
    }
}

// NATS.
impl Pipeline {
    fn nats_opened(&mut self, now: Now, credentials: Credentials) {
        self.bus.opened(now, credentials, &mut self.rng, &mut self.effects);
        self.figures.nats_connects.inc();
    }

    fn nats_bytes(&mut self, now: Now, inbox: &mut BytesMut) {
        loop {
            match self.bus.next_event(now, inbox) {
                Ok(Some(event)) => self.nats_event(now, event),
                Ok(None) => return,
                Err(error) => {
                    inbox.clear();
                    return self.check_nats(now, Err(error));
                }
            }
        }
    }

    fn nats_event(&mut self, now: Now, event: ConnEvent) {
        match event {
            ConnEvent::StartTls => self.effects.push_back(Effect::NatsStartTls),
            ConnEvent::Ready => {
                let info = self.bus.conn.info();
                tracing::info!(server = %info.server_name, version = %info.version, "nats connected");
                let addresses = info.connect_urls.clone();
                self.effects.push_back(Effect::NatsTopology(addresses));
                self.bus.ready(self.readers.len() + usize::from(self.letters.is_some()));
                self.setup.start(now, &self.settings, &mut self.bus);
            }
            ConnEvent::Msg(msg) => self.arrival(now, msg),
            ConnEvent::Barrier => self.readers.iter_mut().for_each(Reader::on_barrier),
            ConnEvent::LameDuck => {
                // Leave at once and cleanly: everything unfinished is read again elsewhere.
                self.nats_lost(now, "the server is going away (lame duck)", false, true);
            }
            ConnEvent::Complaint(text) => {
                tracing::error!(%text, "the nats server complains; check the permissions");
                self.setup.trouble = Some(format!("the server complains: {text}"));
            }
        }
    }

    fn arrival(&mut self, now: Now, msg: Msg) {
        match self.bus.classify(msg) {
            Arrival::Delivery(place, msg) => {
                let Some(reader) = self.readers.get_mut(place) else {
                    return self.letter(now, place, msg);
                };
                let (parcel, news) = reader.on_delivery(now, msg, &mut self.bus);
                self.reader_news(now, place, news);
                if let Some(parcel) = parcel {
                    self.hand(now, parcel);
                }
            }
            Arrival::PubAck(who, msg) => self.puback(now, who, Some(&msg)),
            Arrival::Answer(asker, msg) => {
                let answer = match msg.status() {
                    Some(_) => Answer::NoResponders,
                    None => Answer::Message(&msg),
                };
                self.answer(now, asker, &answer);
            }
            Arrival::Unknown => {} // An answer that came too late, or a status of an old inbox.
        }
    }

    fn letter(&mut self, now: Now, place: usize, msg: Msg) {
        let Some(letters) = self.letters.as_mut().filter(|l| l.place() == place) else { return };
        if let Some(parcel) = letters.on_delivery(now, msg, &mut self.bus) {
            self.hand(now, parcel);
        }
    }

    // To the shard that owns the company; an event of nobody stays here.
    fn hand(&mut self, now: Now, parcel: Parcel) {
        let company = match parcel.stage {
            StageName::Cdc => company_hint(parcel.subject()),
            StageName::Ingest | StageName::Dlq => {
                parcel.subject().rsplit(|byte| *byte == b'.').next()
            }
        };
        let owner = match company {
            Some(company) if self.settings.shards > 1 => shard_of(company, self.settings.shards),
            _ => self.settings.shard,
        };
        if owner == self.settings.shard {
            self.admit(now, parcel);
        } else {
            self.effects.push_back(Effect::Mail { to: owner, mail: Mail::Parcel(parcel) });
        }
    }

    fn admit(&mut self, now: Now, parcel: Parcel) {
        let place = (parcel.partition, parcel.seq);
        let panics = self.quarantine.get(&place).copied().unwrap_or(0);
        let quarantined = panics >= PANICS_MAX;
        self.suspect = Some(place);
        match parcel.stage {
            StageName::Cdc => {
                self.with_stage(now, |stage, cx| stage.admit(parcel, quarantined, cx))
            }
            StageName::Ingest | StageName::Dlq => {
                self.with_ingest(now, |ingest, cx| ingest.admit(parcel, panics, cx));
            }
        }
        self.suspect = None;
    }

    fn puback(&mut self, now: Now, who: AckFor, ack: Option<&Msg>) {
        let (settings, bus, rng) = (&self.settings, &mut self.bus, &mut self.rng);
        match who {
            AckFor::Event { flight, prefix } => {
                self.with_stage(now, |stage, cx| stage.on_puback(flight, prefix, ack, cx));
            }
            AckFor::DeadLetter { flight } => {
                self.with_stage(now, |stage, cx| stage.on_buried(flight, ack, cx));
            }
            AckFor::Refused { number } => {
                self.with_ingest(now, |ingest, cx| ingest.on_buried(number, ack, cx));
            }
            AckFor::Lease { reader } => {
                let news = self.readers[reader].on_lease_put(now, ack, settings, bus, rng);
                self.reader_news(now, reader, news);
            }
            AckFor::Position { reader, asked } => {
                self.readers[reader].on_position_put(now, asked, ack, bus);
            }
            AckFor::Presence => {}
        }
    }

    fn answer(&mut self, now: Now, asker: Asker, answer: &Answer<'_>) {
        let (settings, bus, rng) = (&self.settings, &mut self.bus, &mut self.rng);
        match asker {
            Asker::Setup => {
                self.setup.on_answer(now, settings, answer, bus);
                if self.setup.is_finished() {
                    self.share.iter_mut().for_each(Share::start);
                    self.readers.iter_mut().for_each(|r| r.start(&self.setup.facts));
                    if let Some(letters) = &mut self.letters {
                        letters.start(now, &self.setup.facts, bus);
                    }
                }
            }
            Asker::Reader(place, asked) if self.readers[place].awaits(asked) => {
                let facts = &self.setup.facts;
                let news = self.readers[place].on_answer(now, answer, facts, settings, bus);
                self.reader_news(now, place, news);
            }
            Asker::Reader(..) | Asker::Nobody => {}
            Asker::Letters(asked) => {
                for letters in self.letters.iter_mut().filter(|letters| letters.awaits(asked)) {
                    letters.on_answer(now, answer, bus);
                }
            }
            Asker::Lease(place) => {
                let news = self.readers[place].on_lease_read(now, answer, settings, bus, rng);
                self.reader_news(now, place, news);
            }
            Asker::Share => self.share.iter_mut().for_each(|share| share.on_answer(answer)),
        }
    }

    fn check_nats(&mut self, now: Now, result: Result<(), ConnError>) {
        if let Err(error) = result {
            let (why, auth) = (error.to_string(), error.is_auth());
            self.nats_lost(now, &why, auth, true);
        }
    }

    fn nats_lost(&mut self, now: Now, why: &str, auth: bool, close: bool) {
        let was_ready = self.bus.lost(now, why, auth, &mut self.rng);
        if close {
            self.effects.push_back(Effect::NatsClose);
        }
        if was_ready {
            tracing::warn!(why, "nats connection lost");
        }
        for place in 0..self.readers.len() {
            let news = self.readers[place].disconnected();
            self.reader_news(now, place, news);
        }
        let is_void = self.letters.as_mut().is_some_and(Letters::disconnected);
        self.letters_news(now, is_void);
        self.with_stage(now, Stage::disconnected);
        self.with_ingest(now, Ingest::disconnected);
    }

    fn reader_news(&mut self, now: Now, place: usize, news: ReaderNews) {
        match news {
            ReaderNews::Nothing => return,
            ReaderNews::LeaseFree => {
                return self.share.iter_mut().for_each(Share::look_again);
            }
            ReaderNews::CaughtUp => {
                let partition = self.readers[place].partition();
                self.tell_others(|| Mail::CaughtUp { partition });
                return self.with_stage(now, |stage, cx| stage.caught_up(partition, cx));
            }
            // A new connection looks at everything that must exist, and makes what is missing.
            ReaderNews::StreamGone => {
                return self.nats_lost(now, "a stream that is read is gone", false, true);
            }
            ReaderNews::EpochEnded => {}
        }
        let reader = &self.readers[place];
        let (partition, epoch) = (reader.partition(), reader.epoch());
        self.epoch_ended(now, partition, epoch);
    }

    fn letters_news(&mut self, now: Now, is_void: bool) {
        if let Some(letters) = self.letters.as_ref().filter(|_| is_void) {
            self.epoch_ended(now, letters.partition(), letters.epoch());
        }
    }

    fn epoch_ended(&mut self, now: Now, partition: PartitionId, epoch: Epoch) {
        self.figures.resyncs.inc();
        self.tell_others(|| Mail::Cancel { partition, epoch });
        self.cancel(now, partition, epoch);
    }

    fn cancel(&mut self, now: Now, partition: PartitionId, epoch: Epoch) {
        self.with_stage(now, |stage, cx| stage.cancel(partition, epoch, cx));
        self.with_ingest(now, |ingest, cx| ingest.cancel(partition, epoch, cx));
    }

    fn tell_others(&mut self, mail: impl Fn() -> Mail) {
        for to in (0..self.settings.shards).map(ShardId) {
            if to != self.settings.shard {
                self.effects.push_back(Effect::Mail { to, mail: mail() });
            }
        }
    }
}

// Redis, mail, time.
impl Pipeline {
    fn redis_bytes(&mut self, now: Now, inbox: &mut BytesMut) {
        loop {
            match self.redis.next(inbox) {
                Ok(Some(answer)) => self.with_stage(now, |stage, cx| match answer {
                    redis::Answer::Ready => {
                        cx.figures.redis_connects.inc();
                        stage.reissue(cx);
                    }
                    redis::Answer::Claim(flight, known) => stage.on_claim(flight, known, cx),
                    redis::Answer::Done(flight) | redis::Answer::Legacy(flight) => {
                        stage.on_marked(flight);
                    }
                }),
                Ok(None) => return,
                Err(error) => {
                    inbox.clear();
                    return self.redis_lost(now, &error.to_string(), true);
                }
            }
        }
    }

    fn redis_lost(&mut self, now: Now, why: &str, close: bool) {
        if self.redis.is_ready() {
            tracing::warn!(why, "redis connection lost; pulling pauses until it is back");
        }
        self.redis.lost(now, why, &mut self.rng);
        if close {
            self.effects.push_back(Effect::RedisClose);
        }
        if !self.settings.cdc.dedup_required {
            self.with_stage(now, Stage::release_claims);
        }
    }

    fn mail(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Parcel(parcel) => self.admit(now, parcel),
            Mail::Done { partition, epoch, index } => self.done.push((partition, epoch, index)),
            Mail::Judged { partition, epoch, index, fate } => {
                self.judged.push((partition, epoch, index, fate));
            }
            Mail::Placed { partition, epoch } => self.placed.push((partition, epoch)),
            Mail::CaughtUp { partition } => {
                self.with_stage(now, |stage, cx| stage.caught_up(partition, cx));
            }
            Mail::Cancel { partition, epoch } => self.cancel(now, partition, epoch),
            Mail::Lost { shard } => {
                for place in 0..self.readers.len() {
                    let why = format!("shard {shard} lost what it had been handed");
                    let news = self.readers[place].resync(now, &why, &mut self.bus);
                    self.reader_news(now, place, news);
                }
                let (letters, bus) = (&mut self.letters, &mut self.bus);
                let is_void = letters.as_mut().is_some_and(|letters| letters.resync(bus));
                self.letters_news(now, is_void);
            }
        }
    }

    fn tick(&mut self, now: Now) {
        let alive = self.bus.tick(now, &mut self.effects);
        self.check_nats(now, alive);
        if self.settings.cdc.enabled
            && let Err(error) = self.redis.tick(now, &mut self.effects)
        {
            self.redis_lost(now, &error.to_string(), true);
        }
        self.with_ingest(now, Ingest::tick);
        if self.bus.is_ready() {
            self.setup.tick(now, &self.settings, &mut self.bus);
            while let Some(asker) = self.bus.pop_overdue_request(now) {
                self.answer(now, asker, &Answer::Timeout);
            }
            while let Some(who) = self.bus.pop_overdue_publish(now) {
                self.puback(now, who, None);
            }
            if let (Some(share), true, false) =
                (&mut self.share, self.setup.is_finished(), self.draining)
            {
                share.tick(now, self.setup.facts.lease_ttl, &self.settings, &mut self.bus);
            }
            for place in 0..self.readers.len() {
                let partition = self.readers[place].partition();
                let share = self.share.as_ref().filter(|_| self.readers[place].is_shared());
                let turn = share.map_or(Turn::Ours, |share| share.turn(partition));
                let (settings, bus, rng) = (&self.settings, &mut self.bus, &mut self.rng);
                let news = self.readers[place].tick(now, settings, bus, rng, turn);
                self.reader_news(now, place, news);
                if self.draining {
                    self.readers[place].drain_idle(now, &self.settings, &mut self.bus);
                }
            }
            if let Some(letters) = &mut self.letters {
                letters.tick(now, &mut self.bus);
            }
            self.with_stage(now, Stage::tick);
        }
        self.show(now);
    }

    fn drain(&mut self, now: Now) {
        self.draining = true;
        if let (Some(share), true) = (&mut self.share, self.bus.is_ready()) {
            share.leave(now, &self.settings, &mut self.bus);
        }
        for reader in &mut self.readers {
            reader.drain(&mut self.bus);
        }
        if let Some(letters) = &mut self.letters {
            letters.drain(&mut self.bus);
        }
    }

    fn finish_drain(&mut self) {
        // Without NATS nothing that is left can end here; but a done mark under way is worth its reply.
        let is_over = !self.bus.is_ready() && !self.redis.owes_replies();
        let finished = self.draining
            && self.readers.iter().all(Reader::is_drained)
            && self.letters.as_ref().is_none_or(Letters::is_drained)
            && (self.stage.busy() == 0 || is_over)
            && (self.ingest.as_ref().is_none_or(|i| i.open() + i.letters_open() == 0)
                || !self.bus.is_ready());
        if finished && !self.drained {
            self.drained = true;
            self.effects.push_back(Effect::Drained);
        }
    }

    // Gauges; counters of the readers are kept where they belong and copied here.
    fn show(&mut self, now: Now) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let bytes: u64 = self.readers.iter().map(Reader::held_bytes).sum();
        self.figures.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let ingest_companies = self.ingest.as_ref().map_or(0, Ingest::companies);
        self.figures.companies.set(gauge(self.stage.companies().max(ingest_companies)));
        if let Some(ingest) = &self.ingest {
            self.figures.ingest.in_flight.set(gauge(ingest.open()));
            self.figures.dlq.in_flight.set(gauge(ingest.letters_open()));
            self.figures.ingest.lanes.set(gauge(ingest.lanes_connected()));
            self.figures.ingest.held.set(gauge(ingest.held_len()));
        }
        self.figures.window.set(gauge(self.stage.window_len()));
        self.figures.leases.set(gauge(self.readers.iter().filter(|r| r.holds_lease()).count()));
        let oldest = self.readers.iter().filter_map(Reader::oldest_stored).min();
        let lag = oldest.map_or(0, |stored| now.wall.saturating_sub(stored) / MS);
        self.figures.lag_ms.set(i64::try_from(lag).unwrap_or(i64::MAX));
        for reader in &mut self.readers {
            let figures = std::mem::take(&mut reader.figures);
            self.figures.redelivered.add(figures.redelivered);
            self.figures.acks.add(figures.acks);
            self.figures.pulls.add(figures.pulls);
        }
    }

    fn with_stage<R>(&mut self, now: Now, call: impl FnOnce(&mut Stage, &mut Cx<'_>) -> R) -> R {
        self.lend(now, |stage, _, cx| call(stage, cx))
    }

    fn with_ingest(&mut self, now: Now, call: impl FnOnce(&mut Ingest, &mut Cx<'_>)) {
        self.lend(now, |_, ingest, cx| {
            if let Some(ingest) = ingest {
                call(ingest, cx);
            }
        });
    }

    fn lend<R>(
        &mut self,
        now: Now,
        call: impl FnOnce(&mut Stage, &mut Option<Ingest>, &mut Cx<'_>) -> R,
    ) -> R {
        let mut cx = Cx {
            now,
            settings: &self.settings,
            facts: &self.setup.facts,
            may_publish: self.bus.is_ready() && self.setup.is_finished(),
            bus: &mut self.bus,
            redis: &mut self.redis,
            rng: &mut self.rng,
            figures: &self.figures,
            effects: &mut self.effects,
            done: &mut self.done,
            placed: &mut self.placed,
            judged: &mut self.judged,
            tracer: &mut self.tracer,
        };
        call(&mut self.stage, &mut self.ingest, &mut cx)
    }
}
