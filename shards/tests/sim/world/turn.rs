//! A turn of a shard: what `shard.rs` does with sockets, done with pipes. Invariant: as there, inputs
//! first, then `flush`, then the effects, and what stands in the buffers goes out last.

use super::{Replica, Shard, World};
use crate::link::{Side, Socket};
use crate::oracle::{Broken, Promise, broken, check_books};
use shards::clock::MS;
use shards::pipeline::{Effect, Input, Mail, TICK};
use shards::wire::nats::auth::Credentials;

/// Longest interval between ticks of a shard to which nothing happens.
const TICK_IDLE_MAX: u64 = 8 * TICK;

impl World {
    pub(super) fn turn_replica(&mut self, replica: usize) -> Result<(), Broken> {
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
        if self.steps.is_multiple_of(16) { self.audit(r, s) } else { Ok(()) }
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
                Effect::PgConnect { .. } | Effect::PgClose { .. } | Effect::PgWrite { .. } => {
                    unreachable!("the simulation runs no stage that needs PostgreSQL")
                }
                Effect::Mail { to, mail } => self.post(r, s, usize::from(to.0), mail),
                Effect::Drained => {
                    note!(self, "{r}/{s} drained");
                    shard.has_drained = true;
                }
            }
        }
        Ok(())
    }

    pub(super) fn post(&mut self, r: usize, from: usize, to: usize, mail: Mail) {
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
        if let Some(socket) = redis.socket().filter(|_| pipeline.redis_is_due()) {
            note!(self, "{r}/{s} redis < {}", shown(pipeline.redis_out()));
            socket.up.push(now, pipeline.redis_out(), net, &mut self.rng);
        }
    }

    fn check_bounds(&self, r: usize, s: usize) -> Result<(), Broken> {
        let pipeline = &self.replicas[r].shards[s].pipeline;
        let (_, read) = pipeline.in_flight();
        let readers = pipeline.status().readers.len();
        let max = self.plan.settings.cdc.source.in_flight_max as usize * readers.max(1);
        if read > max {
            return broken(
                Promise::Bounded,
                format!("{r}/{s} holds {read} events of at most {max}"),
            );
        }
        let stray = pipeline.status().readers.into_iter().find(|r| r.reading && !r.leased);
        if let Some(reader) = stray {
            let text = format!("{r}/{s} reads partition {} without its lease", reader.partition);
            return broken(Promise::Order, text);
        }
        // Beyond the window: what is sent again for each company, dead letters, a lease and a position a
        // reader, and that we are here.
        let open = pipeline.publishes_open();
        let beside = usize::from(self.plan.companies) + max + 2 * readers.max(1) + 1;
        let window = self.plan.settings.cdc.publish_window as usize;
        if open > window + beside {
            return broken(
                Promise::Bounded,
                format!("{r}/{s} has {open} publishes open, of {window}"),
            );
        }
        Ok(())
    }

    pub(super) fn audit(&self, r: usize, s: usize) -> Result<(), Broken> {
        let Shard { pipeline, figures, past, .. } = &self.replicas[r].shards[s];
        check_books(&pipeline.books(), pipeline.in_flight().0, past, figures)
    }
}

fn mail_text(mail: &Mail) -> String {
    match mail {
        Mail::Parcel(p) => format!("parcel {} of epoch {}", p.seq, p.epoch.0),
        Mail::Done { epoch, index, .. } => format!("done {index} of epoch {}", epoch.0),
        Mail::Judged { index, fate, .. } => format!("letter {index}: {fate:?}"),
        Mail::Placed { epoch, .. } => format!("one of epoch {} has its place", epoch.0),
        Mail::CaughtUp { partition } => format!("partition {partition} has caught up"),
        Mail::Cancel { epoch, .. } => format!("cancel before epoch {}", epoch.0),
        Mail::Lost { shard } => format!("{shard} lost its parcels"),
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1200)]);
    format!("{} B {}", bytes.len(), text.replace("\r\n", "|"))
}
