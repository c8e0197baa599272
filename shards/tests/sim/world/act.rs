//! Faults as they strike: servers, connections, replicas, shards. Invariant: after `Act::Calm` nothing
//! is broken, slow or away any more.

use super::{DRAIN_MAX, Shard, World};
use crate::faults::Act;
use crate::link::Side;
use crate::oracle::{Broken, Promise, broken};
use crate::peers::jetstream::faults::CrashLoss;
use crate::peers::redis::Persistence;
use crate::plan::Part;
use shards::clock::MS;
use shards::id::{Epoch, ShardId};
use shards::metrics::ShardFigures;
use shards::pipeline::{Books, Input, Mail, Pipeline, Quarantine, TICK};
use std::collections::VecDeque;
use std::sync::Arc;

impl World {
    pub(super) fn act(&mut self, act: Act) -> Result<(), Broken> {
        note!(self, "--- {act:?}");
        match act {
            Act::NatsCrash { down, loss } => {
                self.nats.crash(loss);
                self.later(down, Act::NatsRestart);
            }
            Act::NatsRestart => self.nats.restart(),
            Act::NatsLeaves { down } => {
                self.nats.lame_duck();
                let loss = CrashLoss::default();
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
            Act::ConsumersDeleted => {
                for Part { stream, consumer, .. } in self.plan.parts() {
                    self.nats.jetstream.operator_deletes(self.now, &stream, &consumer);
                }
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
            Act::CutNats { replica, shard } => self.cut(replica, shard, true),
            Act::CutRedis { replica, shard } => self.cut(replica, shard, false),
            Act::Kill { replica, down } => {
                self.kill(replica)?;
                self.later(down, Act::Start { replica });
            }
            Act::Start { replica } => self.start(replica),
            Act::Pause { replica, length } => {
                let paused = &mut self.replicas[replica].paused_until;
                *paused = (self.now.mono + length).max(*paused);
            }
            Act::Drain { replica, down } => self.drain(replica, down),
            Act::DrainDeadline { replica, life } => self.end_drain(replica, life)?,
            Act::Rebuild { replica, shard } => self.rebuild(replica, shard)?,
        }
        Ok(())
    }

    // A supervisor kills what has not ended in time; in fair weather that is a failure of its own.
    fn end_drain(&mut self, replica: usize, life: u32) -> Result<(), Broken> {
        if self.replicas[replica].life != life || self.replicas[replica].shards.is_empty() {
            return Ok(());
        }
        if self.calm_at.is_some_and(|at| at + DRAIN_MAX < self.now.mono) {
            return broken(Promise::Progress, "drain: ".to_owned() + &self.why_unsettled());
        }
        self.kill(replica)?;
        self.later(MS, Act::Start { replica });
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

    pub(super) fn drain(&mut self, r: usize, down: u64) {
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

    pub(super) fn collect_drained(&mut self) -> Result<(), Broken> {
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
        shard.past.returned += shard.pipeline.in_flight().0 as u64;
        shard.figures.give_all_back();
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
