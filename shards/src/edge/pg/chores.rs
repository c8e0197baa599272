//! What has to be done in PostgreSQL from time to time, whether events come or not: post-scans that are due
//! (contract `ingest.md` 5.9), and the partitions of the coming months (4.3). Invariants: one replica at a
//! time does it, by an advisory lock; one company's trouble keeps it from no other; what is not done now is
//! still due at the next round.
//!
//! It has a connection of its own, and only while it works: a scan or a new partition takes long.

use super::connect::connect;
use super::lane::{PgPlan, driven};
use super::write::Session;
use super::{describe, migrate, months};
use crate::edge::Clock;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// From one round to the next; drawn from half of it up, so that replicas do not meet.
const ROUND: Duration = Duration::from_secs(60);
/// Before the first round: by then the streams are being read.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// Pages of a scan in one round: the others want their turn.
const PAGES_MAX: u32 = 100;
/// Key of the lock: "daisi" and a number.
const LOCK: i64 = 0x6461_6973_6900_0001;
const DAY_NS: u64 = 24 * 3600 * crate::clock::SEC;

/// The chores of a process, for as long as it is polled; it never ends.
pub type Chores = Pin<Box<dyn Future<Output = ()>>>;

/// Does the chores, round by round.
#[must_use]
pub fn chores(plan: PgPlan, clock: Clock) -> Chores {
    Box::pin(async move {
        let mut days_done = HashMap::new();
        glommio::timer::sleep(drawn(FIRST_ROUND)).await;
        loop {
            if let Err(why) = round(&plan, clock, &mut days_done).await {
                tracing::warn!(why, "post-scans and partitions wait for the next round")
            }
            glommio::timer::sleep(drawn(ROUND)).await;
        }
    })
}

fn drawn(span: Duration) -> Duration {
    span.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The day on which a company's months were made last: new companies have theirs in the round that follows.
type DaysDone = HashMap<String, u64>;

/// One round; nothing is done while another replica holds the lock.
async fn round(plan: &PgPlan, clock: Clock, days_done: &mut DaysDone) -> Result<(), String> {
    let (client, mut driver) = connect(&plan.target).await.map_err(|error| error.to_string())?;
    let work = async {
        let session = Session::new(client, plan.session.clone()).await;
        let session = session.map_err(|error| describe(&error))?;
        // Given back with the connection, also where this process is killed.
        let asked = format!("SELECT pg_try_advisory_lock({LOCK})");
        let locked = session.client().query_one(&asked, &[]).await;
        let locked = locked.and_then(|row| row.try_get(0)).map_err(|error| describe(&error))?;
        if locked {
            work_on_all(&session, clock, days_done).await?;
        }
        Ok(())
    };
    driven(&mut driver, work).await?
}

async fn work_on_all(
    session: &Session,
    clock: Clock,
    days_done: &mut DaysDone,
) -> Result<(), String> {
    let companies = migrate::companies(session.client()).await;
    for company in companies.map_err(|error| error.to_string())? {
        let day = clock.now().wall / DAY_NS;
        if days_done.get(&company) != Some(&day) {
            match months::make_wanted(session.client(), &company).await {
                Ok(()) => drop(days_done.insert(company.clone(), day)),
                Err(error) => {
                    tracing::warn!(%company, %error, "the partitions of the coming months wait for the next round");
                }
            }
        }
        for _ in 0..PAGES_MAX {
            match session.post_scan(&company, clock.now().wall).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) => {
                    let why = failure.message;
                    tracing::warn!(%company, why, "a post-scan waits for the next round");
                    break;
                }
            }
        }
    }
    Ok(())
}
