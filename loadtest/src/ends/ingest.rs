//! Rows that another connection sees: what an ingest event is for. A thread with its own connection asks for new
//! rows of `messages` every few milliseconds and holds them against the planned times; when all is over it
//! looks at all rows once more, and that look decides what is lost, there twice, or older than it must be.
//!
//! What makes no row of `messages` has no latency here: chats and agents are looked for at the end, contacts
//! (which onboarding makes too) and changes of rows are counted by kind.

mod books;
mod look;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::{Course, Cuts, EndError, Told};
use crate::contract::ingest::{Row, parse_subject, read};
use crate::generate::ingest::{Expect, Kind};
use crate::generate::record_hash;
use crate::results::ObserverPart;
use crate::send::Known;
use books::{Books, Wanted};
use look::Looker;

/// After a look as many times its length is not looked, so that looking takes a fifth of a core of the database
/// at the most: it would measure itself else.
const LOOK_REST: u32 = 4;
/// A report says so from here on: rows were looked for so many times less often than asked.
const LOOKED_LATE: u32 = 2;

/// How the end looks.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Connection string.
    pub dsn: String,
    /// Between two looks: the resolution of the latency.
    pub every: Duration,
    /// How long the server may be away in one piece.
    pub outage_max: Duration,
}

impl IngestOptions {
    /// A look every 5 ms, through outages of up to 60 s.
    pub fn new(dsn: impl Into<String>) -> Self {
        let (every, outage_max) = (Duration::from_millis(5), Duration::from_secs(60));
        Self { dsn: dsn.into(), every, outage_max }
    }

    /// In words, for a report.
    pub fn text(&self) -> String {
        format!(
            "rows of messages that another connection sees, asked for every {:?} where that takes no more than a fifth of \
             a core; chats and agents at the end",
            self.every
        )
    }
}

/// What the two halves say to each other.
#[derive(Debug)]
pub struct Word(Say);

#[derive(Debug)]
enum Say {
    /// A company is named for the first time; its number is the next.
    Company(String),
    /// A row that must be there.
    Row(Wanted),
    /// An event without one.
    Other(Kind),
    /// An event that must become a dead letter.
    Letter,
}

/// The sender's half.
#[derive(Debug)]
pub struct Teller {
    out: Sender<Word>,
    companies: HashMap<String, u32>,
    rows: Vec<Row>,
}

/// The half that looks.
#[derive(Debug)]
pub struct Watcher {
    inbox: Receiver<Word>,
    options: IngestOptions,
    course: Course,
    cuts: Cuts,
    runtime: tokio::runtime::Runtime,
    looker: Looker,
}

/// Both halves, joined by a channel; what the database holds now is not the run's.
///
/// # Errors
/// The database does not answer.
pub fn open(
    options: IngestOptions,
    course: Course,
    cuts: Cuts,
) -> Result<(Teller, Watcher), EndError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|source| EndError::Io { doing: "make a runtime for PostgreSQL", source })?;
    let looker = runtime.block_on(Looker::connect(&options))?;
    let (teller, inbox) = tell_nobody();
    Ok((teller, Watcher { inbox, options, course, cuts, runtime, looker }))
}

/// The sender's half alone, to learn what it costs.
pub fn tell_nobody() -> (Teller, Receiver<Word>) {
    let (out, inbox) = channel();
    (Teller { out, companies: HashMap::new(), rows: Vec::new() }, inbox)
}

impl Teller {
    /// Reads what must come of an event and hands it over.
    pub fn tell(&mut self, told: Told<'_>) {
        let Some((kind, company)) = parse_subject(told.event.subject()) else { return };
        let known = told.event.known();
        match known {
            Known::Ingest(Expect::Dropped) => return,
            Known::Ingest(Expect::DeadLettered(_)) => return self.say(Say::Letter),
            _ => {}
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        match read(kind, company, told.event.payload(), &mut rows) {
            Err(_) => self.say(Say::Letter),
            Ok(()) => {
                let number = self.number(company);
                if rows.iter().all(|row| !row.makes) {
                    self.say(Say::Other(kind));
                }
                // A copy without an id is an event of its own, whose place in the stream nobody knows.
                let id = told.event.msg_id().filter(|id| !id.is_empty());
                let newest = id.map_or(0, |id| record_hash(id.as_bytes()));
                let is_realtime = kind.items().is_none();
                for Row { table, id, day, makes } in rows.drain(..) {
                    let planned_ns = told.planned_ns;
                    self.say(Say::Row(Wanted {
                        company: number,
                        table,
                        id,
                        day,
                        makes,
                        newest,
                        is_realtime,
                        planned_ns,
                    }));
                }
            }
        }
        self.rows = rows;
    }

    fn number(&mut self, company: &str) -> u32 {
        if let Some(number) = self.companies.get(company) {
            return *number;
        }
        let number = self.companies.len() as u32;
        self.companies.insert(company.to_owned(), number);
        self.say(Say::Company(company.to_owned()));
        number
    }

    fn say(&self, word: Say) {
        // Fails only if the watcher is gone, and then its error is the run's.
        let _ = self.out.send(Word(word));
    }
}

/// What the end found out.
#[derive(Debug)]
pub struct Found {
    /// For the recorder.
    pub part: ObserverPart,
    /// Events without a row of their own, by kind.
    pub kinds: Vec<(Kind, u64)>,
    /// Events that must be dead letters.
    pub letters: u64,
    /// From one look for new rows to the next, on average.
    pub looked_every: Duration,
}

impl Found {
    /// That rows were looked for less often than `every`, if so: for a report.
    pub fn late_looks(&self, every: Duration) -> Option<String> {
        let is_late = self.looked_every > every * LOOKED_LATE;
        let told = || {
            format!(
                "rows were looked for every {:.0?} on average, which is the resolution of their latency: a look at all \
                 companies takes a fifth of that",
                self.looked_every
            )
        };
        is_late.then(told)
    }
}

impl Watcher {
    /// Looks until the teller is gone and all rows are there, or for `drain` after that.
    ///
    /// # Errors
    /// The database is away for longer than allowed.
    pub fn watch(self, drain: Duration) -> Result<Found, EndError> {
        let Self { inbox, options, course, cuts, runtime, looker } = self;
        let looking = Looking { inbox, every: options.every, course, cuts, looker };
        runtime.block_on(looking.run(drain))
    }
}

/// The watcher at work.
struct Looking {
    inbox: Receiver<Word>,
    every: Duration,
    course: Course,
    cuts: Cuts,
    looker: Looker,
}

impl Looking {
    async fn run(mut self, drain: Duration) -> Result<Found, EndError> {
        let mut books = Books::default();
        let mut ended: Option<Instant> = None;
        let (begun, mut looks) = (Instant::now(), 0);
        while !ended.is_some_and(|at| books.outstanding() == 0 || at.elapsed() > drain) {
            let look = Instant::now();
            if take(&self.inbox, &mut books, &self.course) {
                ended.get_or_insert_with(Instant::now);
            }
            if self.cuts.is_due() {
                self.looker.cut();
            }
            self.looker.look(&mut books, &self.inbox, &mut self.course).await?;
            looks += 1;
            let rest = self.every.saturating_sub(look.elapsed()).max(look.elapsed() * LOOK_REST);
            tokio::time::sleep(rest).await;
        }
        let looked_every = begun.elapsed() / looks.max(1);
        let until = ended.unwrap_or_else(Instant::now) + drain;
        // What is written last has no row of its own; it is waited for by looking again.
        let mut pause = Duration::from_millis(300);
        loop {
            tokio::time::sleep(pause).await;
            self.looker.sweep(&mut books).await?;
            let (counts, examples) = books.account();
            if counts.is_clean() || Instant::now() > until {
                let (part, kinds) = (self.course.end(counts, examples), books.kinds());
                return Ok(Found { part, kinds, letters: books.letters(), looked_every });
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// Takes in what the sender has told; true once it will tell no more.
fn take(inbox: &Receiver<Word>, books: &mut Books, course: &Course) -> bool {
    use std::sync::mpsc::TryRecvError;
    loop {
        match inbox.try_recv() {
            Ok(Word(Say::Company(name))) => books.company(name),
            Ok(Word(Say::Row(wanted))) => {
                if books.want(wanted) {
                    course.expect();
                }
            }
            Ok(Word(Say::Other(kind))) => books.other(kind),
            Ok(Word(Say::Letter)) => books.letter(),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => return true,
        }
    }
}
