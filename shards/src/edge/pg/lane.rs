//! A shard's connection to PostgreSQL while it writes jobs: connecting, driving, giving jobs back.
//! Invariants: a write is never dropped half-way except with its connection; a job that was taken comes
//! back, whatever happens to the connection.

use super::connect::{ConnectError, Driver, PgTarget, connect};
use super::write::{Session, SessionSettings};
use super::{Error, describe};
use crate::edge::Clock;
use crate::pipeline::commit::{Batch, Commit, Hints, Item, Settings};
use crate::pipeline::ingest::{Catalog, Decoded, Job};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Rows whose place is remembered, on each connection.
const HINTS_MAX: usize = 100_000;

/// What every lane of a process is made from.
#[derive(Clone)]
pub struct PgPlan {
    /// The server.
    pub target: PgTarget,
    /// Bounds of a session.
    pub session: SessionSettings,
    /// What is the same for all batches.
    pub batch: Settings,
    /// The events that are known.
    pub catalog: Arc<Catalog>,
}

/// What happened on a lane.
pub enum News {
    /// It is connected.
    Opened,
    /// A job is back.
    Written(Box<Job>),
    /// The connection is closed, or could not be opened.
    Closed(String),
}

type Work<T> = Pin<Box<dyn Future<Output = T>>>;

/// A session and what it writes with.
struct Bench {
    session: Session,
    commit: Commit,
    batch: Batch,
    hints: Hints,
}

enum State {
    Closed,
    Connecting(Work<Result<(Bench, Driver), String>>),
    Idle(Box<Bench>, Driver),
    /// The driver is gone once the connection is; the write then ends by itself.
    Writing(Work<(Box<Bench>, Box<Job>)>, Option<Driver>),
}

/// One lane.
pub struct Lane {
    state: State,
    /// Why the connection was lost, until that is told.
    lost: Option<String>,
    /// A job that could not be written.
    returned: Option<Box<Job>>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { state: State::Closed, lost: None, returned: None }
    }
}

impl Lane {
    /// Begin to connect.
    pub fn connect(&mut self, plan: &PgPlan) {
        let plan = plan.clone();
        self.state = State::Connecting(Box::pin(open(plan)));
    }

    /// Close the connection. A job under way comes back first, then [`News::Closed`] does.
    pub fn close(&mut self, why: &str) {
        match &mut self.state {
            State::Writing(_, driver) => *driver = None,
            State::Closed | State::Connecting(_) | State::Idle(..) => self.state = State::Closed,
        }
        self.lost = Some(why.to_owned());
    }

    /// Write a job. The pipeline gives one only to a lane that is connected and idle; should the connection
    /// be gone by now, the job comes back as it is.
    pub fn write(&mut self, job: Box<Job>, plan: &PgPlan, clock: Clock) {
        let catalog = Arc::clone(&plan.catalog);
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(bench, driver) => {
                State::Writing(Box::pin(write(bench, job, catalog, clock)), Some(driver))
            }
            other => {
                self.returned = Some(job);
                other
            }
        };
    }

    /// Moves it on; what happened, if anything did. Call it again until it is `None`.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Option<News> {
        if let Some(job) = self.returned.take() {
            return Some(News::Written(job));
        }
        match &mut self.state {
            State::Closed => self.lost.take().map(News::Closed),
            State::Connecting(attempt) => match attempt.as_mut().poll(cx) {
                Poll::Pending => None,
                Poll::Ready(Ok((bench, driver))) => {
                    self.state = State::Idle(Box::new(bench), driver);
                    Some(News::Opened)
                }
                Poll::Ready(Err(why)) => {
                    self.state = State::Closed;
                    Some(News::Closed(why))
                }
            },
            State::Idle(_, driver) => {
                let why = ended(driver, cx)?;
                self.state = State::Closed;
                Some(News::Closed(why))
            }
            State::Writing(..) => self.poll_writing(cx),
        }
    }

    fn poll_writing(&mut self, cx: &mut Context<'_>) -> Option<News> {
        let State::Writing(work, driver) = &mut self.state else { return None };
        let mut written = work.as_mut().poll(cx);
        if written.is_pending()
            && let Some(open) = driver
        {
            if let Some(why) = ended(open, cx) {
                (*driver, self.lost) = (None, Some(why));
            }
            // What the driver has brought may be all that it waited for.
            written = work.as_mut().poll(cx);
        }
        let Poll::Ready((bench, job)) = written else { return None };
        self.state = match driver.take() {
            Some(driver) => State::Idle(bench, driver),
            None => State::Closed,
        };
        Some(News::Written(job))
    }
}

/// Why the connection is over, if it is.
fn ended(driver: &mut Driver, cx: &mut Context<'_>) -> Option<String> {
    match driver.as_mut().poll(cx) {
        Poll::Pending => None,
        Poll::Ready(Ok(())) => Some("the server closed the connection".to_owned()),
        Poll::Ready(Err(error)) => Some(describe(&error)),
    }
}

async fn open(plan: PgPlan) -> Result<(Bench, Driver), String> {
    let (client, mut driver) =
        connect(&plan.target).await.map_err(|error: ConnectError| error.to_string())?;
    let timer = async {
        glommio::timer::sleep(plan.target.connect_timeout).await;
        Err("no answer in time".to_owned())
    };
    let session = async {
        let made = driven(&mut driver, Session::new(client, plan.session)).await?;
        made.map_err(|error: Error| describe(&error))
    };
    let session = futures_lite::future::or(session, timer).await?;
    let hash_key = (fastrand::u64(..), fastrand::u64(..));
    let (commit, hints) = (Commit::default(), Hints::new(HINTS_MAX));
    Ok((Bench { session, commit, batch: Batch::new(plan.batch, hash_key), hints }, driver))
}

/// The result of `work` over a connection that nobody else drives.
pub(super) async fn driven<T>(
    driver: &mut Driver,
    work: impl Future<Output = T>,
) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => ended(driver, cx).map_or(Poll::Pending, |why| Poll::Ready(Err(why))),
    })
    .await
}

/// A list for the events, the bodies and the items of a batch is all that is allocated for it here.
async fn write(
    mut bench: Box<Bench>,
    mut job: Box<Job>,
    catalog: Arc<Catalog>,
    clock: Clock,
) -> (Box<Bench>, Box<Job>) {
    let judged = {
        let originals = job.originals(&catalog);
        let bodies = job.bodies(&originals);
        let (decoded, found) = job.decode(&catalog, &originals, &bodies);
        let items: Vec<Item<'_>> = decoded.iter().map(Decoded::item).collect();
        let Bench { session, commit, batch, hints } = &mut *bench;
        session.write(commit, batch, hints, &items, || clock.now().wall).await;
        let mut judged = Job::judge(&decoded, found, commit);
        for letter in job.given_up(&originals) {
            match judged.is_away() {
                true => judged.keep(&letter),
                false => judged.give_up(&letter, session.give_up(&letter).await),
            }
        }
        judged
    };
    job.settle(judged);
    (bench, job)
}
