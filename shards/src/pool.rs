//! The shards of a process: pins one to each core, connects their mailboxes, waits for their ends. The
//! control thread holds it; nothing in it touches an event.

use crate::edge::mailbox::{Bell, PostOffice, bell};
use crate::id::ShardId;
use crate::metrics::ShardFigures;
use crate::shard::{Command, Notice, Ports, Shard, ShardPlan};
use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// When glommio's timer asks a task to make room for others: never, because a shard is one task. Were it to
/// fire between the moment it is set and the moment that task gets its turn (the thread lost its core in
/// between), glommio 0.9 would take a task that may run for none, and sleep: for ever, if all that could wake
/// it had come already (glommio/glommio#53).
const PREEMPT: Duration = Duration::from_secs(24 * 3600);
/// Memory that glommio registers per shard for direct IO, which daisi does not use.
const IO_MEMORY: usize = 64 * 1024;

/// An executor for one task that runs for ever, on `core` if it is to be pinned.
#[must_use]
pub fn executor(name: &str, core: Option<usize>) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(core.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .preempt_timer(PREEMPT)
        .io_memory(IO_MEMORY)
}

/// Why the shards cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Sockets for the bells.
    #[error("cannot make the sockets that wake a shard: {0}")]
    Bell(#[from] io::Error),
    /// The thread could not be made.
    #[error("cannot start shard {shard} on core {core:?}: {reason}")]
    Spawn {
        /// Which.
        shard: ShardId,
        /// Where.
        core: Option<usize>,
        /// Why.
        reason: String,
    },
    /// io_uring is refused, or the thread died.
    #[error("shard {shard} has died: {reason}; run `daisi doctor`")]
    Died {
        /// Which.
        shard: ShardId,
        /// Why.
        reason: String,
    },
}

/// A running shard as the control thread holds it.
pub struct Member {
    /// Its place.
    pub shard: ShardId,
    /// Core it is pinned to.
    pub core: Option<usize>,
    /// Its figures.
    pub figures: Arc<ShardFigures>,
    commands: Sender<Command>,
    bell: Bell,
    thread: Option<ExecutorJoinHandle<()>>,
}

impl Member {
    /// Give an order. False if the shard is gone or does not take orders any more.
    pub fn order(&self, command: Command) -> bool {
        let sent = self.commands.try_send(command).is_ok();
        self.bell.ring();
        sent
    }
}

// Tells of the end of a thread however it comes about, a refused io_uring and a panic included.
struct Obituary(ShardId, Sender<Notice>);

impl Drop for Obituary {
    fn drop(&mut self) {
        let _full = self.1.try_send(Notice::Ended(self.0));
    }
}

/// All shards.
pub struct Pool {
    /// In order of their ids.
    pub members: Vec<Member>,
    /// What they tell.
    pub notices: Receiver<Notice>,
}

impl Pool {
    /// Start a shard for each plan, in order.
    ///
    /// # Errors
    /// [`PoolError`]; shards that had been started end with the process.
    pub fn start(plans: Vec<ShardPlan>, lane_capacity: usize) -> Result<Self, PoolError> {
        let mut bells = Vec::new();
        let mut ends = Vec::new();
        for _ in &plans {
            let (bell, end) = bell()?;
            bells.push(bell);
            ends.push(end);
        }
        let post = PostOffice::new(bells.clone(), lane_capacity);
        let (notice_tx, notices) = bounded(plans.len() * 64);
        let mut members = Vec::new();
        for ((plan, bell), end) in plans.into_iter().zip(bells).zip(ends) {
            let (shard, core) = (plan.settings.shard, plan.core);
            let (commands, command_rx) = bounded(16);
            let figures = ShardFigures::new();
            let ports = Ports {
                commands: command_rx,
                notices: notice_tx.clone(),
                post: post.clone(),
                figures: Arc::clone(&figures),
            };
            let obituary = Obituary(shard, notice_tx.clone());
            let thread = executor(&format!("shard-{shard}"), core)
                .spin_before_park(plan.spin)
                .spawn(move || async move {
                    let _obituary = obituary;
                    Shard::new(plan, ports, end.listen()).run().await;
                })
                .map_err(|error| PoolError::Spawn { shard, core, reason: error.to_string() })?;
            members.push(Member { shard, core, figures, commands, bell, thread: Some(thread) });
        }
        Ok(Self { members, notices })
    }

    /// Order all shards to finish what they hold and hand over; each answers [`Notice::Drained`].
    pub fn drain(&self) {
        for member in &self.members {
            member.order(Command::Drain);
        }
    }

    /// Order all shards to stop and wait for their threads.
    ///
    /// # Errors
    /// The first shard that did not end by its own will.
    pub fn stop(&mut self) -> Result<(), PoolError> {
        for member in &self.members {
            member.order(Command::Stop);
        }
        for member in &mut self.members {
            let Some(thread) = member.thread.take() else { continue };
            thread.join().map_err(|error| PoolError::Died {
                shard: member.shard,
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}
