//! The charts of a run: latency by percentile, and throughput, latency and CPU over time.

use hdrhistogram::Histogram;

use super::chart::{Axis, Chart, Column, Line, Scale};
use crate::results::{Results, Second, SecondEnd, Side, number};

/// Most points of a line over time; longer runs are drawn in steps of several seconds.
const STEPS_MAX: usize = 300;
/// Places of a percentile line, and of the pointer on it.
const PLACES: usize = 320;
const STOPS: usize = 80;
/// The least events that lie beyond the last percentile drawn of a line.
const BEYOND: f64 = 1.0;

/// A distribution with how it is drawn.
pub(super) struct Curve {
    pub(super) name: String,
    /// What the legend calls it; curves of one name and class stand there once.
    pub(super) legend: String,
    pub(super) class: String,
    pub(super) histogram: Histogram<u64>,
}

/// Value by percentile, the percentile on a scale that shows the tail; `None` where nothing was recorded.
pub(super) fn percentiles(title: String, curves: &[Curve]) -> Option<Chart> {
    let curves: Vec<&Curve> = curves.iter().filter(|curve| !curve.histogram.is_empty()).collect();
    let end = curves.iter().map(|curve| reach(curve)).fold(1.0, f64::max);
    let lines = curves.iter().map(|curve| {
        let reach = reach(curve);
        let mut points: Vec<(f64, Option<f64>)> = (0..=PLACES)
            .map(|place| reach * place as f64 / PLACES as f64)
            .map(|x| (x, Some(at(curve, x))))
            .collect();
        // The last place is the largest value itself.
        points.push((reach, Some(curve.histogram.max() as f64)));
        Line { name: curve.legend.clone(), class: curve.class.clone(), points }
    });
    let lines: Vec<Line> = lines.collect();
    let values = || lines.iter().flat_map(|line| line.points.iter().filter_map(|point| point.1));
    let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    if curves.is_empty() {
        return None;
    }
    let columns = (0..STOPS).map(|stop| {
        let [from, to] = [stop, stop + 1].map(|stop| end * stop as f64 / STOPS as f64);
        let middle = (from + to) / 2.0;
        let values = curves.iter().filter(|curve| middle <= reach(curve));
        let values =
            values.map(|curve| format!("{}  {}", curve.name, number::time_us(at(curve, middle))));
        let text = format!("{}\n{}", percent(middle), values.collect::<Vec<_>>().join("\n"));
        Column { from, to, text }
    });
    let nines = (1..).map(f64::from).take_while(|x| *x <= end + 1e-9).map(|x| (x, percent(x)));
    let ticks = [(0.0, "0%".to_owned()), (std::f64::consts::LOG10_2, "50%".to_owned())];
    Some(Chart {
        title,
        note: "Each step to the right leaves a tenth of the events: how the slowest fare is on the right. Every latency counts from the planned time of its event.".into(),
        height: 340.0,
        x: Axis {
            title: "percentile",
            scale: Scale::Linear { max: end },
            show: percent,
            ticks: Some(ticks.into_iter().chain(nines).collect()),
        },
        y: Axis { title: "latency", scale: Scale::log(min, max), show: number::time_tick, ticks: None },
        areas: Vec::new(),
        columns: columns.collect(),
        lines,
    })
}

/// Tenfold steps up to where one event is left.
fn reach(curve: &Curve) -> f64 {
    (curve.histogram.len() as f64 / BEYOND).log10().clamp(0.5, 8.0)
}

fn at(curve: &Curve, x: f64) -> f64 {
    curve.histogram.value_at_quantile(1.0 - 10_f64.powf(-x)) as f64
}

/// `99.9%` of 3.
fn percent(x: f64) -> String {
    let share = 100.0 * (1.0 - 10_f64.powf(-x));
    let digits = (x.ceil() as usize).saturating_sub(2).max(usize::from(x.fract() > 1e-9));
    format!("{share:.digits$}%")
}

/// Some seconds as one place of the x axis.
pub(super) struct Step<'a> {
    pub(super) seconds: &'a [Second],
}

impl Step<'_> {
    fn from(&self) -> f64 {
        self.seconds.first().map_or(0.0, |second| second.at_s as f64)
    }

    fn to(&self) -> f64 {
        self.from() + self.seconds.len() as f64
    }

    fn middle(&self) -> f64 {
        (self.from() + self.to()) / 2.0
    }

    fn mean(&self, of: impl Fn(&Second) -> f64) -> f64 {
        self.seconds.iter().map(of).sum::<f64>() / self.seconds.len().max(1) as f64
    }

    /// The worst second of each point; `None` where nothing came.
    pub(super) fn worst(&self, end: &str) -> Option<SecondEnd> {
        let seconds = self.seconds.iter().filter_map(|second| second.ends.get(end));
        seconds.filter(|second| second.seen > 0).fold(None, |worst, second| {
            let worst: SecondEnd = worst.unwrap_or_default();
            Some(SecondEnd {
                seen: worst.seen + second.seen,
                p50: worst.p50.max(second.p50),
                p95: worst.p95.max(second.p95),
                p99: worst.p99.max(second.p99),
                max: worst.max.max(second.max),
            })
        })
    }

    fn name(&self) -> String {
        match self.seconds.len() {
            1 => format!("second {}", number::count(self.from() as u64)),
            _ => format!("seconds {} to {}", self.from(), self.to() - 1.0),
        }
    }

    fn column(&self, lines: impl IntoIterator<Item = String>) -> Column {
        let lines: Vec<String> = [self.name()].into_iter().chain(lines).collect();
        Column { from: self.from(), to: self.to(), text: lines.join("\n") }
    }
}

/// The run in places that fit a line.
pub(super) fn steps(results: &Results) -> Vec<Step<'_>> {
    let size = results.series.len().div_ceil(STEPS_MAX).max(1);
    results.series.chunks(size).map(|seconds| Step { seconds }).collect()
}

/// Seconds of a step; all but the last have the same.
fn step_text(steps: &[Step<'_>], what: &str) -> String {
    match steps.first().map_or(1, |step| step.seconds.len()) {
        1 => String::new(),
        size => format!("Each point is {size} seconds: {what}."),
    }
}

/// From the first planned time on: seconds, or minutes where there are many.
fn time_axis(seconds: usize) -> Axis {
    let seconds = seconds.max(1);
    let (title, unit) = match seconds {
        ..=600 => ("seconds since the first planned time", 1),
        _ => ("minutes since the first planned time", 60),
    };
    let steps = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1_440].map(|step| step * unit);
    let step = steps.into_iter().find(|step| seconds / step <= 12).unwrap_or(seconds);
    let ticks = (0..=seconds).step_by(step);
    Axis {
        title,
        scale: Scale::Linear { max: seconds as f64 },
        show: number::short_count,
        ticks: Some(ticks.map(|at| (at as f64, number::count((at / unit) as u64))).collect()),
    }
}

/// Events planned, published, and seen at each end, by second.
pub(super) fn throughput(results: &Results) -> Chart {
    let steps = steps(results);
    // The run ends somewhere in its last second; drawn like the others it would be a fall that never was.
    let whole = if steps.len() > 2 { &steps[..steps.len() - 1] } else { &steps[..] };
    let line = |name: &str, class: &str, of: &dyn Fn(&Second) -> f64| Line {
        name: name.to_owned(),
        class: class.to_owned(),
        points: whole.iter().map(|step| (step.middle(), Some(step.mean(of)))).collect(),
    };
    let mut lines = vec![
        line("planned", "c8 fill", &|second| second.planned as f64),
        line("published", "c6 dash", &|second| second.published as f64),
    ];
    for (at, end) in results.ends.iter().enumerate() {
        let seen = |second: &Second| second.ends.get(&end.name).map_or(0.0, |end| end.seen as f64);
        lines.push(line(&format!("seen at {}", end.name), super::colour(at), &seen));
    }
    let columns = whole.iter().enumerate().map(|(at, step)| {
        let value = |line: &Line| line.points.get(at).and_then(|point| point.1).unwrap_or_default();
        step.column(
            lines.iter().map(|line| format!("{}  {}/s", line.name, number::decimal(value(line)))),
        )
    });
    let columns = columns.collect();
    let max =
        lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1).fold(0.0, f64::max);
    Chart {
        title: "Throughput over time".into(),
        note: step_text(&steps, "their mean"),
        height: 280.0,
        x: time_axis(results.series.len()),
        y: Axis {
            title: "events/s",
            scale: Scale::linear(max * 1.05),
            show: number::short_count,
            ticks: None,
        },
        areas: Vec::new(),
        lines,
        columns,
    }
}

/// A point's name, class and place in a second.
type Point = (&'static str, &'static str, fn(SecondEnd) -> u64);

/// Points of the latency at an end, by second; `None` where nothing was seen.
pub(super) fn latency(results: &Results, end: &str) -> Option<Chart> {
    let steps = steps(results);
    let points: [Point; 4] = [
        ("max", "c5 dots", |second| second.max),
        ("P99", "c2", |second| second.p99),
        ("P95", "c1", |second| second.p95),
        ("P50", "c3", |second| second.p50),
    ];
    let lines = points.map(|(name, class, of)| Line {
        name: name.to_owned(),
        class: class.to_owned(),
        points: steps
            .iter()
            .map(|step| (step.middle(), step.worst(end).map(|worst| of(worst) as f64)))
            .collect(),
    });
    let values = || lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1);
    let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    values().next()?;
    let columns = steps.iter().map(|step| {
        step.column(step.worst(end).into_iter().flat_map(|worst| {
            let seen = format!("events  {}", number::count(worst.seen));
            let times = points
                .map(|(name, _, of)| format!("{name}  {}", number::time_us(of(worst) as f64)));
            [seen].into_iter().chain(times)
        }))
    });
    let columns = columns.collect();
    Some(Chart {
        title: format!("Latency over time at {end}"),
        note: step_text(&steps, "the worst of each figure"),
        height: 280.0,
        x: time_axis(results.series.len()),
        y: Axis {
            title: "latency",
            scale: Scale::log(min, max),
            show: number::time_tick,
            ticks: None,
        },
        areas: Vec::new(),
        lines: lines.into(),
        columns,
    })
}

/// P99 of each side's runs over time at an end; `None` where nothing was seen.
pub(super) fn latency_of_sides(sides: &[&Side], end: &str) -> Option<Chart> {
    let lines = sides.iter().enumerate().flat_map(|(at, side)| {
        side.runs.iter().map(move |run| Line {
            name: side.name.clone(),
            class: super::side_class(at, side).into(),
            points: steps(run)
                .iter()
                .map(|step| (step.middle(), step.worst(end).map(|worst| worst.p99 as f64)))
                .collect(),
        })
    });
    let lines: Vec<Line> = lines.collect();
    let values = || lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1);
    values().next()?;
    let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let seconds = sides.iter().flat_map(|side| &side.runs).map(|run| run.series.len()).max();
    Some(Chart {
        title: format!("P99 over time at {end}"),
        note: String::new(),
        height: 280.0,
        x: time_axis(seconds.unwrap_or_default()),
        y: Axis {
            title: "latency",
            scale: Scale::log(min, max),
            show: number::time_tick,
            ticks: None,
        },
        areas: Vec::new(),
        lines,
        columns: Vec::new(),
    })
}

/// Cores in use, process on process; `None` where nobody looked.
pub(super) fn cores(results: &Results) -> Option<Chart> {
    let steps = steps(results);
    let is_looked = |step: &&Step<'_>| step.seconds.iter().any(|second| !second.cores.is_empty());
    let steps: Vec<Step<'_>> =
        steps.iter().filter(is_looked).map(|step| Step { seconds: step.seconds }).collect();
    let (first, last) = (steps.first()?, steps.last()?);
    let used = |step: &Step<'_>, name: &str| {
        let known = step.seconds.iter().filter_map(|second| second.cores.get(name));
        let (count, sum) = known.fold((0_u32, 0.0), |(count, sum), cores| (count + 1, sum + cores));
        sum / f64::from(count.max(1))
    };
    let names: Vec<&str> = results.processes.iter().map(|process| process.name.as_str()).collect();
    // A run of one second is a block, not a point.
    let (begin, end) = (first.from(), last.to());
    let areas = names.iter().enumerate().map(|(at, name)| {
        let middle = steps.iter().map(|step| (step.middle(), Some(used(step, name))));
        let points = [(begin, Some(used(first, name)))].into_iter().chain(middle);
        Line {
            name: (*name).to_owned(),
            class: super::colour(at).to_owned(),
            points: points.chain([(end, Some(used(last, name)))]).collect(),
        }
    });
    let areas: Vec<Line> = areas.collect();
    let sum = |step: &Step<'_>| names.iter().map(|name| used(step, name)).sum::<f64>();
    let max = steps.iter().map(sum).fold(0.0, f64::max);
    let cores = results.machine.cores as f64;
    // All cores of a big machine would press a small use to the ground.
    let is_near = cores > 0.0 && max > cores / 5.0;
    let lines = is_near.then(|| Line {
        name: format!("all {} cores", results.machine.cores),
        class: "c5 dash thin".into(),
        points: vec![(0.0, Some(cores)), (results.series.len().max(1) as f64, Some(cores))],
    });
    let max = if is_near { max.max(cores) } else { max };
    let of_cores = format!("The machine has {} cores. ", results.machine.cores);
    let columns = steps.iter().map(|step| {
        let used = names.iter().map(|name| format!("{name}  {:.2}", used(step, name)));
        step.column(used.chain([format!("all  {:.2}", sum(step))]))
    });
    Some(Chart {
        title: "CPU over time".into(),
        note: of_cores + &step_text(&steps, "their mean"),
        height: 280.0,
        x: time_axis(results.series.len()),
        y: Axis {
            title: "cores in use",
            scale: Scale::linear(max * 1.02),
            show: number::short,
            ticks: None,
        },
        columns: columns.collect(),
        lines: lines.into_iter().collect(),
        areas,
    })
}
