//! The generators of a profile as one source, each by its own schedule: the next event is the one that is
//! planned first. Invariant: the planned time of an event depends on the profile alone.

use std::time::Duration;

use bytes::BytesMut;
use shards::wire::nats::headers::HeaderError;

use super::{Phase, Profile, Stage};
use crate::generate::{self, ingest};
use crate::send::{Known, Outgoing, Source};

/// Rates of one generator, phase by phase.
#[derive(Clone, Debug)]
struct Schedule {
    /// Length, seconds, and events a second.
    phases: Vec<(f64, f64)>,
    phase: usize,
    /// Where the phase begins, seconds.
    begin: f64,
    /// Number of the next event in it.
    number: u64,
}

impl Schedule {
    fn new(phases: &[Phase], rate: fn(&Phase) -> f64) -> Self {
        let phases = phases.iter().map(|phase| (phase.seconds, rate(phase))).collect();
        Self { phases, phase: 0, begin: 0.0, number: 0 }
    }

    /// When the next event is planned; `None` when all phases are over.
    fn next(&mut self) -> Option<Duration> {
        loop {
            let (seconds, rate) = *self.phases.get(self.phase)?;
            let within = self.number as f64 / rate;
            if rate > 0.0 && within < seconds {
                return Some(Duration::from_secs_f64(self.begin + within));
            }
            (self.phase, self.begin, self.number) = (self.phase + 1, self.begin + seconds, 0);
        }
    }
}

/// The generators.
#[derive(Debug)]
pub struct Blend {
    ingest: Option<(Schedule, ingest::Generator)>,
    history: Option<(Schedule, ingest::Generator)>,
    cdc: Option<(Schedule, generate::Generator)>,
    history_series: usize,
    cdc_series: usize,
}

#[derive(Clone, Copy)]
enum Lane {
    Ingest,
    History,
    Cdc,
}

impl Blend {
    /// All that the profile sends.
    ///
    /// # Errors
    /// What is wrong with the profile, in words.
    pub fn new(profile: &Profile) -> Result<Self, String> {
        let phases = &profile.phases;
        let has = |stage| profile.stages.contains(&stage);
        let lane = |rate: fn(&Phase) -> f64, of: ingest::Profile| {
            let has = phases.iter().any(|phase| rate(phase) > 0.0);
            let made = has.then(|| ingest::Generator::new(of)).transpose();
            made.map(|made| made.map(|generator| (Schedule::new(phases, rate), generator)))
        };
        let kinds = ingest::Kind::ALL.len();
        let history_series = profile.companies as usize * kinds;
        let cdc_series = history_series + profile.history_companies as usize * kinds;
        Ok(Self {
            ingest: lane(|phase| phase.ingest, profile.ingest_profile())?,
            history: lane(|phase| phase.history, profile.history_profile())?,
            cdc: has(Stage::Cdc).then(|| {
                let generator = generate::Generator::new(profile.cdc_profile());
                (Schedule::new(phases, |phase| phase.cdc), generator)
            }),
            history_series,
            cdc_series,
        })
    }

    /// Subject and company of each series of a meter.
    pub fn series(profile: &Profile) -> Vec<(String, String)> {
        let (live, history) = profile.ingest_companies();
        let companies = live.into_iter().chain(history);
        let pairs = companies.flat_map(|company| {
            let subjects = ingest::Kind::ALL.map(ingest::Kind::subject);
            subjects.map(|subject| (subject.to_owned(), company.clone()))
        });
        pairs.chain([("cdc.*.*".to_owned(), "all".to_owned())]).collect()
    }

    /// Kinds of chat events that it sends.
    pub fn kinds(&self) -> Vec<ingest::Kind> {
        let lanes = [&self.ingest, &self.history].into_iter().flatten();
        lanes.flat_map(|(_, generator)| generator.profile().subjects.clone()).collect()
    }

    fn first(&mut self) -> Option<(Duration, Lane)> {
        let ingest = self.ingest.as_mut().and_then(|(schedule, _)| schedule.next());
        let history = self.history.as_mut().and_then(|(schedule, _)| schedule.next());
        let cdc = self.cdc.as_mut().and_then(|(schedule, _)| schedule.next());
        let lanes = [(ingest, Lane::Ingest), (history, Lane::History), (cdc, Lane::Cdc)];
        let planned = lanes.into_iter().filter_map(|(at, lane)| Some((at?, lane)));
        planned.min_by_key(|(at, _)| *at)
    }
}

impl Source for Blend {
    type Event<'a> = Mixed<'a>;

    fn planned(&mut self) -> Option<Duration> {
        self.first().map(|(at, _)| at)
    }

    fn next(&mut self) -> Option<Mixed<'_>> {
        let (_, lane) = self.first()?;
        match lane {
            Lane::Ingest => {
                let (schedule, generator) = self.ingest.as_mut()?;
                schedule.number += 1;
                Some(Mixed::Ingest(generator.next(), 0))
            }
            Lane::History => {
                let (schedule, generator) = self.history.as_mut()?;
                schedule.number += 1;
                Some(Mixed::Ingest(generator.next(), self.history_series))
            }
            Lane::Cdc => {
                let (schedule, generator) = self.cdc.as_mut()?;
                schedule.number += 1;
                Some(Mixed::Cdc(generator.next(), self.cdc_series))
            }
        }
    }
}

/// An event of either stage, and where its series begin.
#[derive(Debug)]
pub enum Mixed<'a> {
    /// A chat event.
    Ingest(ingest::Event<'a>, usize),
    /// A row change.
    Cdc(generate::Event<'a>, usize),
}

impl Mixed<'_> {
    fn as_outgoing(&self) -> &dyn Outgoing {
        match self {
            Self::Ingest(event, _) => event,
            Self::Cdc(event, _) => event,
        }
    }
}

impl Outgoing for Mixed<'_> {
    fn subject(&self) -> &str {
        self.as_outgoing().subject()
    }

    fn payload(&self) -> &[u8] {
        self.as_outgoing().payload()
    }

    fn msg_id(&self) -> Option<&str> {
        self.as_outgoing().msg_id()
    }

    fn company(&self) -> Option<&str> {
        self.as_outgoing().company()
    }

    fn append_headers(&self, block: &mut BytesMut) -> Result<(), HeaderError> {
        self.as_outgoing().append_headers(block)
    }

    fn known(&self) -> Known {
        self.as_outgoing().known()
    }

    fn series(&self) -> usize {
        let (Self::Ingest(_, first) | Self::Cdc(_, first)) = self;
        first + self.as_outgoing().series()
    }

    fn stamp(&mut self, sent_ns: u64) {
        match self {
            Self::Ingest(event, _) => Outgoing::stamp(event, sent_ns),
            Self::Cdc(event, _) => Outgoing::stamp(event, sent_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::{Blend, Mixed, Outgoing, Source};
    use crate::profile::load;

    #[test]
    fn events_come_in_the_order_of_their_planned_times_and_in_their_numbers() {
        for name in ["burst", "history-import", "noisy-company"] {
            let profile = load(name).unwrap().scaled(0.2, None);
            let mut blend = Blend::new(&profile).unwrap();
            let series = Blend::series(&profile);
            let (mut last, mut counts, mut first) = (Duration::ZERO, (0, 0), 0);
            loop {
                let planned = blend.planned();
                let Some(event) = blend.next() else { break };
                let planned = planned.unwrap();
                assert!(planned >= last && planned < profile.length());
                last = planned;
                let (subject, company) = &series[event.series()];
                match &event {
                    Mixed::Ingest(event, _) => {
                        counts.0 += 1;
                        assert_eq!(event.subject, format!("{subject}.{company}"));
                        first += u32::from(company == "Load00000");
                    }
                    Mixed::Cdc(..) => {
                        counts.1 += 1;
                        assert_eq!(company, "all");
                    }
                }
            }
            let (ingest, cdc) = profile.events();
            assert!(ingest.abs_diff(counts.0) <= 5 && cdc.abs_diff(counts.1) <= 5, "{counts:?}");
            if name == "noisy-company" {
                let share = f64::from(first) / counts.0 as f64;
                assert!((share - 30.0 / 45.0).abs() < 0.01, "{share}");
            }
        }
    }
}
