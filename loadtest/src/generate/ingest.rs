//! Ingest events from a seed, as WhatsApp's agents publish them (contract ingest.md, sections 1.1 and 2),
//! together with what must become of each. Invariants: same profile, same bytes; an update refers to a
//! row that an earlier event made, unless it is told to be [out of order](Fault::OutOfOrder).

mod books;
mod compose;
mod fault;
mod kind;
mod media;
mod mix;
mod party;
mod profile;
mod world;
mod write;

use fastrand::Rng;

pub use books::{Books, Expect, Rows};
pub use fault::Fault;
pub use kind::{Kind, UnknownSubject};
pub use mix::Mix;
pub use profile::{Profile, parse_faults};

use super::put::rewrite;
use super::text::Pool;
use crate::send::{Known, Outgoing, Source};
use party::{Naming, Party};
use world::{Company, Told};
use write::{Quirk, Shares, Writer};

/// One event, borrowed from the generator until the next.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Subject it is published on.
    pub subject: &'a str,
    /// Body.
    pub payload: &'a [u8],
    /// `Nats-Msg-Id`, if it has one.
    pub msg_id: Option<&'a str>,
    /// Company of the subject, and the header `CompanyID`.
    pub company: &'a str,
    /// Number of that company in the profile.
    pub company_number: usize,
    /// What it is; for a body that says otherwise, what the subject says.
    pub kind: Kind,
    /// What must become of it.
    pub expect: Expect,
    /// Number of the event, from 0.
    pub ordinal: u64,
}

impl Outgoing for Event<'_> {
    fn subject(&self) -> &str {
        self.subject
    }

    fn payload(&self) -> &[u8] {
        self.payload
    }

    fn msg_id(&self) -> Option<&str> {
        self.msg_id
    }

    fn company(&self) -> Option<&str> {
        Some(self.company)
    }

    fn series(&self) -> usize {
        self.company_number * Kind::ALL.len() + self.kind as usize
    }

    fn known(&self) -> Known {
        Known::Ingest(self.expect)
    }
}

impl Source for Generator {
    type Event<'a> = Event<'a>;

    fn next(&mut self) -> Option<Event<'_>> {
        Some(Generator::next(self))
    }
}

/// Makes events from a profile. Reuses its memory: a valid event allocates nothing once buffers have
/// grown.
#[derive(Clone, Debug)]
pub struct Generator {
    profile: Profile,
    rng: Rng,
    writer: Writer,
    companies: Vec<Company>,
    /// Companies in the order of their turns.
    round: Vec<usize>,
    naming: Naming,
    party: Party,
    books: Books,
    ordinal: u64,
    turn: u64,
    owed: Option<(Kind, Target)>,
    /// Rows that the event being written makes known, if it is valid.
    tellings: Vec<Telling>,
    // The last event; a duplicate is these once more.
    kind: Kind,
    company: usize,
    subject: String,
    payload: Vec<u8>,
    msg_id: String,
    can_repeat: bool,
}

/// Whose turn it is, one after another: those with more turns have them spread over the round.
fn round(profile: &Profile) -> Vec<usize> {
    let turns = |company: usize| profile.turns.get(company).copied().unwrap_or(1);
    let turns_max = (0..profile.companies.len()).map(turns).max().unwrap_or(1);
    let step = |step: u32| {
        // A company takes part in its share of the steps, evenly.
        let takes = move |company: &usize| {
            let part =
                |step: u32| u64::from(step) * u64::from(turns(*company)) / u64::from(turns_max);
            part(step + 1) > part(step)
        };
        (0..profile.companies.len()).filter(takes)
    };
    (0..turns_max).flat_map(step).collect()
}

/// What an event is about.
#[derive(Clone, Copy, Debug)]
struct Target {
    company: usize,
    chat: u64,
    /// For events of messages: which, and whether nobody told it before.
    message: Told,
    is_new: bool,
}

#[derive(Clone, Copy, Debug)]
enum Telling {
    Agent(u64),
    Chat(u64),
    Contact(u64),
    Message { chat: u64, told: Told, is_new: bool, is_timed: bool },
}

impl Generator {
    /// A generator at its first event.
    ///
    /// # Errors
    /// What is wrong with the profile, in words.
    pub fn new(profile: Profile) -> Result<Self, String> {
        profile.check()?;
        let mut rng = Rng::with_seed(profile.seed);
        let pool = Pool::new(&mut rng, profile.text_median, profile.text_sigma);
        let tag = rng.u32(..);
        let shares = Shares { media: profile.media, campaigns: profile.campaigns };
        let company = |name: &String| {
            Company::new(name, profile.agents, profile.chats_per_company(), profile.epoch_s)
        };
        let groups = (profile.groups * 1_024.0) as u64;
        Ok(Self {
            writer: Writer { pool, rng: rng.fork(), shares, tag, message_id: String::new() },
            rng,
            companies: profile.companies.iter().map(company).collect(),
            round: round(&profile),
            naming: Naming { tag, agents: u64::from(profile.agents), groups },
            party: Party::default(),
            books: Books::default(),
            ordinal: 0,
            turn: 0,
            owed: None,
            tellings: Vec::new(),
            kind: Kind::ChatsUpsert,
            company: 0,
            subject: String::new(),
            payload: Vec::new(),
            msg_id: String::new(),
            can_repeat: false,
            profile,
        })
    }

    /// The profile it was made from.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What must become of all events so far.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The rows that a company must have after all events so far, if there were none before.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Rows)> {
        self.companies.iter().map(|company| (company.name.as_str(), company.rows))
    }

    /// The ordinal of the event that was published under this `Nats-Msg-Id`, if it was one of ours.
    pub fn ordinal_of(&self, msg_id: &str) -> Option<u64> {
        let (tag, ordinal) = msg_id.strip_prefix("load-")?.split_once('-')?;
        let is_ours = u32::from_str_radix(tag, 16).is_ok_and(|tag| tag == self.naming.tag);
        ordinal.parse().ok().filter(|_| is_ours)
    }

    /// The next event. There is always one.
    #[expect(clippy::should_implement_trait, reason = "an event borrows from the generator")]
    pub fn next(&mut self) -> Event<'_> {
        if let Some((kind, target)) = self.owed.take() {
            return self.tell(kind, target, Quirk::None);
        }
        // Subjects in turn, and each round of them for the next company: every pair occurs.
        let subjects = self.profile.subjects.len() as u64;
        let kind = self.profile.subjects[(self.turn % subjects) as usize];
        let turn = (self.turn / subjects % self.round.len() as u64) as usize;
        let company = self.round[turn];
        self.turn += 1;
        match (self.draw_fault(), kind.pair()) {
            (Some(Fault::Duplicate), _) if self.can_repeat && !self.msg_id.is_empty() => {
                self.book(Expect::Dropped)
            }
            (Some(Fault::Copy), _) if self.can_repeat => self.book(Expect::AppliedAgain),
            (Some(Fault::OutOfOrder), Some(pair)) => self.tell_early(pair, company),
            (Some(fault), _) if fault.is_spoiling() => self.tell_spoilt(kind, company, fault),
            _ => self.tell_next(kind, company),
        }
    }

    /// A valid event, of the kind asked for or of the one that must come before it.
    fn tell_next(&mut self, asked: Kind, company: usize) -> Event<'_> {
        let chat = self.companies[company].draw_chat(&mut self.rng, self.profile.skew);
        let known = self.companies[company].chat(chat);
        let is_known = match asked {
            Kind::ChatsUpdate => known.is_told,
            Kind::MessagesUpdate => known.message.is_some(),
            Kind::ContactsUpdate => known.is_contact_told,
            _ => true,
        };
        let kind = asked.pair().filter(|_| !is_known).map_or(asked, |(upsert, _)| upsert);
        self.books.substituted += u64::from(kind != asked);
        let unix_s = self.companies[company].tick(&mut self.rng);
        // Now and then a message comes once more with newer content.
        let is_again = kind == Kind::MessagesUpdate || self.rng.u8(..32) == 0;
        let (message, is_new) = match known.message.filter(|_| is_again) {
            Some(told) => (told, false),
            None => (Told { number: self.companies[company].next_message(), unix_s }, true),
        };
        let target = Target { company, chat, message, is_new };
        let quirk = self.draw_quirk(is_new);
        self.tell(kind, target, quirk)
    }

    /// An update first; the upsert is owed.
    fn tell_early(&mut self, (upsert, update): (Kind, Kind), company: usize) -> Event<'_> {
        let unix_s = self.companies[company].tick(&mut self.rng);
        let chat = match upsert {
            Kind::MessagesUpsert => {
                self.companies[company].draw_chat(&mut self.rng, self.profile.skew)
            }
            _ => self.companies[company].fresh_chat(),
        };
        let message = Told { number: self.companies[company].next_message(), unix_s };
        let target = Target { company, chat, message, is_new: true };
        self.owed = Some((upsert, target));
        self.write(update, target, Quirk::None);
        self.book_new(Expect::DeadLettered(Fault::OutOfOrder))
    }

    fn tell_spoilt(&mut self, kind: Kind, company: usize, fault: Fault) -> Event<'_> {
        let unix_s = self.companies[company].tick(&mut self.rng);
        let chat = self.companies[company].draw_chat(&mut self.rng, self.profile.skew);
        let message = Told { number: self.companies[company].next_message(), unix_s };
        self.write(kind, Target { company, chat, message, is_new: true }, Quirk::None);
        fault.spoil(kind, &mut self.payload, &self.companies[company].name, &mut self.rng);
        self.book_new(Expect::DeadLettered(fault))
    }

    fn tell(&mut self, kind: Kind, target: Target, quirk: Quirk) -> Event<'_> {
        self.write(kind, target, quirk);
        let (company, rows) = (&mut self.companies[target.company], &mut self.books.rows);
        let before = *rows;
        for telling in self.tellings.drain(..) {
            match telling {
                Telling::Agent(agent) => company.tell_agent(agent, rows),
                Telling::Chat(chat) => company.tell_chat(chat, rows),
                Telling::Contact(chat) => company.tell_contact(chat),
                Telling::Message { chat, told, is_new, is_timed } => {
                    rows.messages += u64::from(is_new);
                    if is_timed {
                        company.tell_message(chat, told);
                    }
                }
            }
        }
        company.rows.enter(before, *rows);
        self.book_new(Expect::Applied)
    }

    fn draw_fault(&mut self) -> Option<Fault> {
        let mut rest = self.rng.f64();
        for (fault, share) in &self.profile.faults {
            if rest < *share {
                return Some(*fault);
            }
            rest -= share;
        }
        None
    }

    fn draw_quirk(&mut self, is_new: bool) -> Quirk {
        if self.rng.f64() >= self.profile.quirks {
            return Quirk::None;
        }
        let quirk = Quirk::UNUSUAL[self.rng.usize(..Quirk::UNUSUAL.len())];
        // A message told before keeps its time: another day would make another row of it.
        if quirk == Quirk::Untimed && !is_new { Quirk::Null } else { quirk }
    }

    /// Books the event just written, under an id of its own.
    fn book_new(&mut self, expect: Expect) -> Event<'_> {
        if self.rng.f64() < self.profile.bare {
            self.msg_id.clear();
        } else {
            rewrite!(self.msg_id, "load-{:08x}-{}", self.naming.tag, self.ordinal);
        }
        self.can_repeat = expect == Expect::Applied;
        self.book(expect)
    }

    fn book(&mut self, expect: Expect) -> Event<'_> {
        self.books.enter(self.kind, expect, self.payload.len());
        let ordinal = self.ordinal;
        self.ordinal += 1;
        let has_id = !self.msg_id.is_empty() && expect != Expect::AppliedAgain;
        Event {
            subject: &self.subject,
            payload: &self.payload,
            msg_id: has_id.then_some(self.msg_id.as_str()),
            company: &self.companies[self.company].name,
            company_number: self.company,
            kind: self.kind,
            expect,
            ordinal,
        }
    }
}
