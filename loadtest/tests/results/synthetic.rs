//! Runs that never were: plausible results from a seed, for tests and for looking at pages.

use std::collections::BTreeMap;

use fastrand::Rng;
use loadtest::report::latency_histogram;
use loadtest::results::{
    Counts, Distribution, End, Harness, Load, Machine, ProcessUse, Results, Second, SecondEnd,
    Sender, Spread,
};

const VERSIONS: [(&str, &str); 3] =
    [("daisi", "0.1.0"), ("nats-server", "2.12.1"), ("postgres", "17.2")];

/// What to make up.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) rate: u64,
    /// By name, with its median in microseconds.
    pub(crate) ends: Vec<(&'static str, f64)>,
    /// Every latency and all CPU times this.
    pub(crate) slow: f64,
    pub(crate) lost: u64,
    pub(crate) examples: Vec<String>,
    /// The second in which something stalls for 300 ms.
    pub(crate) stall: Option<u64>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            seed: 1,
            seconds: 60,
            rate: 5_000,
            ends: vec![("cdc", 720.0), ("ingest", 5_400.0)],
            slow: 1.0,
            lost: 0,
            examples: Vec::new(),
            stall: None,
        }
    }
}

/// Values of about a lognormal distribution with a heavier tail.
fn draw(rng: &mut Rng, median: f64) -> f64 {
    let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    let tail = if rng.f64() < 0.004 { 1.0 + rng.f64() * 9.0 } else { 1.0 };
    median * (normal * 0.32).exp() * tail
}

impl Run {
    pub(crate) fn results(&self) -> Results {
        let mut rng = Rng::with_seed(self.seed);
        let sent = self.seconds * self.rate;
        // Not every event is drawn: a thousand a second show the same curve.
        let step = (self.rate / 1_000).max(1);
        let mut series: Vec<Second> =
            (0..=self.seconds).map(|at_s| self.second(at_s, &mut rng)).collect();
        let ends = self.ends.iter().map(|(name, median)| {
            let mut all = latency_histogram();
            for second in series.iter_mut().take(self.seconds as usize) {
                let mut here = latency_histogram();
                for n in 0..self.rate / step {
                    let mut us = draw(&mut rng, median * self.slow) as u64;
                    if self.stall == Some(second.at_s) && n < 300 {
                        us += 300_000 - n * 1_000;
                    }
                    here.saturating_record_n(us.max(40), step);
                }
                all.add(&here).unwrap();
                let Spread { count, p50, p95, p99, max, .. } = Spread::of(&here);
                let jitter = rng.u64(0..1 + self.rate / 50);
                let seen = count - jitter.min(count);
                second.ends.insert((*name).into(), SecondEnd { seen, p50, p95, p99, max });
            }
            self.end(name, sent, Distribution::of(&all).unwrap())
        });
        let ends: Vec<End> = ends.collect();
        let (mut ack, mut late) = (latency_histogram(), latency_histogram());
        for _ in 0..sent / step {
            ack.saturating_record_n(draw(&mut rng, 210.0) as u64, step);
            late.saturating_record_n(draw(&mut rng, 14.0) as u64, step);
        }
        let late = Distribution::of(&late).unwrap();
        Results {
            format: 1,
            name: "steady".into(),
            command: "loadtest run --profile steady --daisi target/release/daisi --out results"
                .into(),
            started_ms: 1_795_274_412_000,
            machine: Machine {
                cpu: "Intel(R) Xeon(R) Processor @ 2.90GHz".into(),
                cores: 4,
                kernel: "6.1.0-28-amd64".into(),
                load_at_start: "0.12".into(),
            },
            versions: VERSIONS.map(|(name, version)| (name.into(), version.into())).into(),
            load: Load {
                text: format!("steady: {} events/s for {} s, 8 companies", self.rate, self.seconds),
                events: Some(sent),
                rate: Some(self.rate as f64),
                companies: 8,
            },
            sender: Sender {
                published: sent,
                elapsed_s: self.seconds as f64 + 0.004,
                late: late.points,
                late_histogram: late.histogram,
                ..Sender::default()
            },
            ack: Distribution::of(&ack).unwrap(),
            ends,
            processes: self.processes(&series, sent),
            series,
            harness: Harness {
                cpu_us_per_event: 4.1,
                events_per_core: 243_902.0,
                observe_late: late.points,
                threads: [("sender".to_owned(), 2.6), ("observe cdc".to_owned(), 1.3)].into(),
            },
            notes: Vec::new(),
        }
    }

    fn second(&self, at_s: u64, rng: &mut Rng) -> Second {
        let is_last = at_s == self.seconds;
        let share = if is_last { 0.01 } else { 1.0 };
        let core = |us: f64, rng: &mut Rng| {
            us * self.rate as f64 / 1e6 * (0.92 + rng.f64() * 0.16) * share
        };
        let cores = [
            ("daisi", 14.0 * self.slow),
            ("nats-server", 38.0),
            ("redis-server", 9.0),
            ("postgres", 61.0),
            ("loadtest", 4.1),
        ];
        let (planned, published) =
            if is_last { (0, 7) } else { (self.rate, self.rate - rng.u64(0..9)) };
        Second {
            at_s,
            planned,
            published,
            ends: BTreeMap::new(),
            cores: cores.map(|(name, us)| (name.to_owned(), core(us, rng))).into(),
        }
    }

    fn end(&self, name: &str, sent: u64, latency: Distribution) -> End {
        let lost = if name == self.ends[0].0 { self.lost } else { 0 };
        let text = match name {
            "cdc" => "a core subscription to wa.>",
            "ingest" => "rows that another connection sees, asked for every 5 ms",
            _ => "",
        };
        End {
            name: name.into(),
            text: text.into(),
            counts: Counts {
                expected: sent,
                seen: sent - lost,
                lost,
                duplicated: lost / 4,
                out_of_order: lost / 8,
                ..Counts::default()
            },
            events_per_s: self.rate as f64 * 0.9997,
            latency,
            examples: if lost > 0 { self.examples.clone() } else { Vec::new() },
        }
    }

    fn processes(&self, series: &[Second], sent: u64) -> Vec<ProcessUse> {
        let names = ["daisi", "nats-server", "redis-server", "postgres", "loadtest"];
        let sizes = [71.3, 48.9, 12.4, 388.0, 35.2];
        let used = names.iter().zip(sizes).map(|(name, rss_mib_max)| {
            let cpu_s = series.iter().map(|second| second.cores[*name]).sum::<f64>();
            let cpu_us_per_event = cpu_s * 1e6 / sent as f64;
            ProcessUse { name: (*name).to_owned(), cpu_s, cpu_us_per_event, rss_mib_max }
        });
        used.collect()
    }
}
