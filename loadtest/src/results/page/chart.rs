//! A chart as SVG: axes with ticks and units, lines, stacked areas, and columns that tell their figures under
//! the pointer. Colours are classes `c1` to `c8` of the page's style, so that they follow light and dark.

use std::fmt::Write;

use super::escape;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;
/// Fewer points than this get dots: a line through two points shows neither.
const DOTS_MAX: usize = 40;

/// Steps of an axis, about.
const TICKS_X: f64 = 12.0;
const TICKS_Y: f64 = 5.0;

/// How figures become places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    Linear { max: f64 },
    Log { min: f64, max: f64 },
}

impl Scale {
    /// From 0 to a round figure at or above `max`.
    pub(super) fn linear(max: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let step = step(max, TICKS_Y);
        Self::Linear { max: (max / step - 1e-9).ceil() * step }
    }

    /// Whole decades, or halves of them, around the figures.
    pub(super) fn log(min: f64, max: f64) -> Self {
        let min = log_tick_at_or_below(min.max(1.0));
        let max = log_tick_at_or_above(max.max(min * 10.0));
        Self::Log { min, max }
    }

    /// 0 at the lower end, 1 at the upper.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { max } => value / max,
            Self::Log { min, max } => (value.max(min) / min).ln() / (max / min).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    fn ticks(self, about: f64) -> Vec<f64> {
        match self {
            Self::Linear { max } => {
                let step = step(max, about);
                (0..=(max / step + 1e-9).floor() as u32).map(|n| f64::from(n) * step).collect()
            }
            Self::Log { min, max } => {
                let decades = (max / min).log10();
                let factors: &[f64] = if decades <= 2.4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let from = min.log10().floor() as i32;
                let to = max.log10().ceil() as i32;
                (from..=to)
                    .flat_map(|decade| factors.iter().map(move |f| f * 10_f64.powi(decade)))
                    .filter(|tick| *tick >= min * 0.999 && *tick <= max * 1.001)
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that at most `about` of them make `max`.
fn step(max: f64, about: f64) -> f64 {
    let rough = max / about;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

fn log_tick_at_or_below(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|f| f * power).find(|t| *t <= value * 1.001).unwrap_or(power)
}

fn log_tick_at_or_above(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|f| f * power)
        .find(|t| *t >= value * 0.999)
        .unwrap_or(value)
}

/// One axis.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) scale: Scale,
    pub(super) show: fn(f64) -> String,
    /// Places and texts in the place of round figures.
    pub(super) ticks: Option<Vec<(f64, String)>>,
}

/// A line; `None` is a gap.
pub(super) struct Line {
    pub(super) name: String,
    /// Classes: a colour, and `dash`, `dots`, `thin` or `fill`.
    pub(super) class: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Line {
    /// Without dots, however few its points.
    fn is_bare(&self) -> bool {
        self.class.contains("thin") || self.class.contains("fill")
    }
}

/// What the pointer is told over a part of the x axis.
pub(super) struct Column {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) text: String,
}

/// A chart with its heading, legend and a sentence on how to read it.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) height: f64,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Each lies on those before it.
    pub(super) areas: Vec<Line>,
    pub(super) lines: Vec<Line>,
    pub(super) columns: Vec<Column>,
}

impl Chart {
    /// A section of the page.
    pub(super) fn html(&self) -> String {
        let mut out = format!("<section class=\"chart\"><h2>{}</h2>", escape(&self.title));
        out.push_str("<p class=\"legend\">");
        let lines = self.lines.iter().map(|line| (line, "line"));
        // The uppermost area first, as it lies.
        let areas = self.areas.iter().rev().map(|area| (area, "area"));
        let mut told: Vec<(&str, &str)> = Vec::new();
        for (line, shape) in lines.chain(areas) {
            if told.contains(&(&line.name, &line.class)) {
                continue;
            }
            told.push((&line.name, &line.class));
            let _ = write!(
                out,
                "<span><svg class=\"key\" viewBox=\"0 0 26 12\"><path class=\"{shape} {}\" d=\"{}\"/></svg>{}</span>",
                line.class,
                if shape == "line" && !line.class.contains("fill") {
                    "M1 6H25"
                } else {
                    "M1 1H25V11H1Z"
                },
                escape(&line.name)
            );
        }
        let _ = write!(
            out,
            "</p><div class=\"scroll\"><svg class=\"plot\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
            self.height,
            escape(&self.title)
        );
        self.grid(&mut out);
        self.areas(&mut out);
        self.lines.iter().for_each(|line| self.line(line, &mut out));
        self.columns(&mut out);
        out.push_str("</svg></div>");
        if !self.note.is_empty() {
            let _ = write!(out, "<p class=\"note\">{}</p>", escape(&self.note));
        }
        out.push_str("</section>");
        out
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.scale.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        let bottom = self.height - BOTTOM;
        bottom - self.y.scale.share(value) * (bottom - TOP)
    }

    fn grid(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, self.height - BOTTOM);
        for (value, text) in self.y.shown(TICKS_Y) {
            let y = self.at_y(value);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape(&text)
            );
        }
        for (value, text) in self.x.shown(TICKS_X) {
            let x = self.at_x(value);
            let anchor = if right - x < 24.0 { "end" } else { "middle" };
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{:.1}\" class=\"{anchor}\">{}</text>",
                bottom + 17.0,
                escape(&text)
            );
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/><text class=\"title\" x=\"{LEFT}\" y=\"14\">{}</text><text class=\"title end\" x=\"{right}\" y=\"{:.1}\">{}</text>",
            escape(self.y.title),
            self.height - 6.0,
            escape(self.x.title)
        );
    }

    fn areas(&self, out: &mut String) {
        let points = self.areas.first().map_or(0, |area| area.points.len());
        let mut below = vec![0.0; points];
        for area in &self.areas {
            let mut path = String::new();
            let above: Vec<f64> = below
                .iter()
                .zip(&area.points)
                .map(|(below, (_, value))| below + value.unwrap_or_default())
                .collect();
            for (at, ((x, _), y)) in area.points.iter().zip(&above).enumerate() {
                let letter = if at == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", self.at_x(*x), self.at_y(*y));
            }
            for ((x, _), y) in area.points.iter().zip(&below).rev() {
                let _ = write!(path, "L{:.1} {:.1}", self.at_x(*x), self.at_y(*y));
            }
            if !path.is_empty() {
                let _ = write!(out, "<path class=\"area {}\" d=\"{path}Z\"/>", area.class);
            }
            below = above;
        }
    }

    fn line(&self, line: &Line, out: &mut String) {
        let mut path = String::new();
        let mut dots = String::new();
        let mut is_new = true;
        let known: Vec<(f64, f64)> =
            line.points.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect();
        for (x, y) in &line.points {
            let Some(y) = y else {
                is_new = true;
                continue;
            };
            let letter = if std::mem::take(&mut is_new) { 'M' } else { 'L' };
            let (x, y) = (self.at_x(*x), self.at_y(*y));
            let _ = write!(path, "{letter}{x:.1} {y:.1}");
            if line.points.len() <= DOTS_MAX && !line.is_bare() {
                let _ = write!(
                    dots,
                    "<circle class=\"dot {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>",
                    line.class
                );
            }
        }
        if let (true, Some(first), Some(last)) =
            (line.class.contains("fill"), known.first(), known.last())
        {
            let bottom = self.height - BOTTOM;
            let _ = write!(
                out,
                "<path class=\"under {}\" d=\"{path}L{:.1} {bottom}L{:.1} {bottom}Z\"/>",
                line.class,
                self.at_x(last.0),
                self.at_x(first.0)
            );
        }
        let _ = write!(out, "<path class=\"line {}\" d=\"{path}\"/>{dots}", line.class);
    }

    fn columns(&self, out: &mut String) {
        let height = self.height - BOTTOM - TOP;
        for column in &self.columns {
            let (from, to) = (self.at_x(column.from), self.at_x(column.to));
            let _ = write!(
                out,
                "<rect class=\"hit\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{height}\"><title>{}</title></rect>",
                (to - from).max(0.5),
                escape(&column.text)
            );
        }
    }
}

impl Axis {
    fn shown(&self, about: f64) -> Vec<(f64, String)> {
        let round =
            || self.scale.ticks(about).into_iter().map(|tick| (tick, (self.show)(tick))).collect();
        self.ticks.clone().unwrap_or_else(round)
    }
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn ticks_are_round_and_cover_the_figures() {
        let linear = Scale::linear(4_870.0);
        assert_eq!(linear.ticks(5.0), [0.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0, 5_000.0]);
        assert_eq!(Scale::linear(2.0).ticks(5.0), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(Scale::linear(0.0).ticks(5.0).len(), 6);
        let log = Scale::log(340.0, 18_000.0);
        assert_eq!(log.ticks(5.0), [200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0]);
        assert!((log.share(200.0), log.share(20_000.0), log.share(1.0)) == (0.0, 1.0, 0.0));
        assert!(Scale::log(1.0, 1e8).ticks(5.0).len() == 9);
        assert!(Scale::log(0.0, 0.0).ticks(5.0).len() >= 2);
    }
}
