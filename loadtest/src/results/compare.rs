//! Two builds beside each other, figure by figure. Invariant: what the runs of one side differ among themselves is
//! never called a change; a fault always is.

use std::fmt::Write;

use super::figure::{Figure, Unit};
use super::side::{Range, Side};
use super::table::{Cell, Table, Tone, markdown, plain};
use super::{Results, ResultsError, number, page};

/// Below this share a difference is nobody's concern, however small the spread.
const SAME_SHARE: f64 = 0.01;
/// What is taken for the spread where each side has one run.
const ASSUMED_SHARE: f64 = 0.05;

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Within 1 %.
    Same,
    /// Smaller than what runs of one side differ.
    Noise,
    Better,
    Worse,
    /// One run a side: it may be chance.
    MaybeBetter,
    MaybeWorse,
    /// One of the sides does not have it.
    Unmeasured,
}

/// A base, and what is held against it.
#[derive(Clone, Debug)]
pub struct Comparison {
    base: Side,
    others: Vec<Side>,
}

/// One figure of all sides.
struct Row {
    figure: Figure,
    base: Option<Range>,
    others: Vec<(Option<Range>, Change)>,
}

impl Comparison {
    /// `others` against `base`.
    pub fn new(base: Side, others: Vec<Side>) -> Self {
        Self { base, others }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let rows = self.rows();
        let mut out = format!("{}\n\n{}", plain(&self.summary(&rows)), self.table(&rows).text());
        for line in self.notes() {
            let _ = write!(out, "\n{}", plain(&line));
        }
        out.trim_end().to_owned() + "\n"
    }

    /// For a comment on a pull request.
    pub fn markdown(&self) -> String {
        let rows = self.rows();
        let mut out = format!("### Load test: {}\n\n", markdown(&self.title()));
        let _ = write!(
            out,
            "**{}**\n\n{}",
            markdown(&self.summary(&rows)),
            self.table(&rows).markdown()
        );
        let notes = self.notes();
        if !notes.is_empty() {
            out.push('\n');
        }
        for line in notes {
            let _ = writeln!(out, "- {}", markdown(&line));
        }
        out
    }

    /// A page with the curves of all runs on one another.
    ///
    /// # Errors
    /// A histogram is broken.
    pub fn html(&self) -> Result<String, ResultsError> {
        let rows = self.rows();
        let is_worse = self.changes(&rows).any(|change| change == Change::Worse);
        let sides: Vec<&Side> = self.sides().collect();
        let verdict = page::Sentence { is_bad: is_worse, text: self.summary(&rows) };
        page::compare(&self.title(), &verdict, &self.notes(), &self.table(&rows), &sides)
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        [&self.base].into_iter().chain(&self.others)
    }

    fn title(&self) -> String {
        let names = self.others.iter().map(|side| side.name.as_str()).collect::<Vec<_>>();
        format!("{} against {}", names.join(", "), self.base.name)
    }

    fn rows(&self) -> Vec<Row> {
        let base = self.base.figures();
        let others: Vec<Vec<(Figure, Range)>> = self.others.iter().map(Side::figures).collect();
        let mut figures: Vec<&Figure> = base.iter().map(|(figure, _)| figure).collect();
        for (figure, _) in others.iter().flatten() {
            if !figures.iter().any(|known| known.key == figure.key) {
                figures.push(figure);
            }
        }
        let find = |side: &[(Figure, Range)], key: &str| {
            side.iter().find(|(figure, _)| figure.key == key).map(|(_, range)| *range)
        };
        let row = |figure: &&Figure| {
            let of_base = find(&base, &figure.key);
            let others = self.others.iter().zip(&others).map(|(side, figures)| {
                let range = find(figures, &figure.key);
                let is_single = self.base.runs.len() == 1 && side.runs.len() == 1;
                (range, change(figure.unit, of_base, range, is_single))
            });
            Row { figure: (*figure).clone(), base: of_base, others: others.collect() }
        };
        let rows = figures.iter().map(row);
        rows.filter(|row| row.figure.is_compared() && !row.is_quiet()).collect()
    }

    fn changes<'a>(&self, rows: &'a [Row]) -> impl Iterator<Item = Change> + use<'a> {
        rows.iter().flat_map(|row| row.others.iter().map(|(_, change)| *change))
    }

    fn summary(&self, rows: &[Row]) -> String {
        let count = |wanted: &[Change]| self.changes(rows).filter(|c| wanted.contains(c)).count();
        let counts = [
            (count(&[Change::Worse]), "worse"),
            (count(&[Change::MaybeWorse]), "perhaps worse"),
            (count(&[Change::Better]), "better"),
            (count(&[Change::MaybeBetter]), "perhaps better"),
            (count(&[Change::Unmeasured]), "not measured on both sides"),
        ];
        let told = counts.iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> = told.map(|(count, what)| format!("{count} {what}")).collect();
        let steady = count(&[Change::Same, Change::Noise]);
        if told.is_empty() {
            return format!("No change: all {steady} figures are the same or within noise.");
        }
        format!("{}; {steady} the same or within noise.", told.join(", "))
    }

    fn table(&self, rows: &[Row]) -> Table {
        let mut head = vec!["figure".to_owned(), side_name(&self.base)];
        for side in &self.others {
            head.extend([side_name(side), "ratio".into(), "verdict".into()]);
        }
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut table =
            Table::new("Figures", &head).with_words(usize::from(self.others.len() == 1));
        for row in rows {
            let shown = |range: Option<Range>| show(row.figure.unit, range);
            let mut cells: Vec<Cell> = vec![row.figure.label().into(), shown(row.base)];
            for (range, change) in &row.others {
                cells.push(shown(*range));
                cells.push(
                    ratio(row.base, *range)
                        .map_or_else(|| "–".into(), |r| format!("{r:.3}"))
                        .into(),
                );
                cells.push(change.cell());
            }
            table.row(cells);
        }
        table
    }

    /// What a reader must know to believe the table.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.sides().all(|side| side.runs.len() == 1) {
            notes.push(
                "One run a side: what runs differ among themselves is unknown, 5% is assumed. Several runs a side tell."
                    .into(),
            );
        } else {
            notes.push(
                "Medians, in brackets the least and the most; a difference no larger than that between runs of one side is noise."
                    .into(),
            );
        }
        let runs: Vec<&Results> = self.sides().flat_map(|side| &side.runs).collect();
        let is_one =
            |of: &dyn Fn(&Results) -> String| runs.windows(2).all(|two| of(two[0]) == of(two[1]));
        if !is_one(&|run| format!("{:?}", (&run.name, &run.load))) {
            notes.push(
                "The runs did not have the same load: the figures cannot be compared.".into(),
            );
        }
        if !is_one(&|run| {
            format!("{} {} {}", run.machine.cpu, run.machine.cores, run.machine.kernel)
        }) {
            notes.push("The runs were not made on the same machine.".into());
        }
        for name in runs
            .iter()
            .flat_map(|run| run.versions.keys())
            .collect::<std::collections::BTreeSet<_>>()
        {
            let of =
                |run: &Results| run.versions.get(name).cloned().unwrap_or_else(|| "none".into());
            if !is_one(&of) {
                let sides = self.sides().filter_map(|side| side.runs.first());
                notes.push(format!(
                    "{name}: {}.",
                    sides.map(of).collect::<Vec<_>>().join(", then ")
                ));
            }
        }
        for side in self.sides() {
            for (at, run) in side.runs.iter().enumerate() {
                let which =
                    if side.runs.len() == 1 { String::new() } else { format!(", run {}", at + 1) };
                let warnings = run.warnings();
                notes.extend(
                    warnings.iter().map(|warning| format!("{}{which}: {warning}", side.name)),
                );
            }
        }
        notes
    }
}

impl Row {
    /// Faults that nobody has are told by their absence.
    fn is_quiet(&self) -> bool {
        let ranges = [self.base].into_iter().chain(self.others.iter().map(|(range, _)| *range));
        self.figure.unit == Unit::Faults
            && ranges.into_iter().all(|range| range.is_some_and(|range| range.max == 0.0))
    }
}

impl Change {
    fn cell(self) -> Cell {
        match self {
            Self::Same => Cell::new("same", Tone::Faint),
            Self::Noise => Cell::new("noise", Tone::Faint),
            Self::Better => Cell::new("better", Tone::Good),
            Self::Worse => Cell::new("worse", Tone::Bad),
            Self::MaybeBetter => Cell::new("better?", Tone::Plain),
            Self::MaybeWorse => Cell::new("worse?", Tone::Plain),
            Self::Unmeasured => Cell::new("not measured", Tone::Bad),
        }
    }
}

/// The rule.
pub(super) fn change(
    unit: Unit,
    base: Option<Range>,
    new: Option<Range>,
    is_single: bool,
) -> Change {
    let (Some(base), Some(new)) = (base, new) else { return Change::Unmeasured };
    let difference = new.median - base.median;
    let (better, worse) = if is_single && unit != Unit::Faults {
        (Change::MaybeBetter, Change::MaybeWorse)
    } else {
        (Change::Better, Change::Worse)
    };
    let told = if (difference > 0.0) == unit.is_gain() { better } else { worse };
    if difference == 0.0 {
        return Change::Same;
    }
    if unit == Unit::Faults {
        return told;
    }
    let share = difference.abs() / base.median.abs().max(f64::MIN_POSITIVE);
    let spread = base.spread().max(new.spread());
    if share < SAME_SHARE {
        Change::Same
    } else if difference.abs() <= spread || (is_single && share < ASSUMED_SHARE) {
        Change::Noise
    } else {
        told
    }
}

pub(super) fn ratio(base: Option<Range>, new: Option<Range>) -> Option<f64> {
    Some(new?.median / base.filter(|base| base.median > 0.0)?.median)
}

fn show(unit: Unit, range: Option<Range>) -> Cell {
    let Some(range) = range else { return Cell::new("–", Tone::Faint) };
    let median = unit.show(range.median);
    if range.min == range.max {
        return median.into();
    }
    let (min, max) = (unit.show(range.min), unit.show(range.max));
    // A unit that both have stands once.
    let min = match (min.split_once(' '), max.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => number.to_owned(),
        _ => min,
    };
    format!("{median} [{min} – {max}]").into()
}

fn side_name(side: &Side) -> String {
    match side.runs.len() {
        1 => side.name.clone(),
        runs => format!("{} ({} runs)", side.name, number::count(runs as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(median: f64, min: f64, max: f64) -> Option<Range> {
        Some(Range { median, min, max })
    }

    #[test]
    fn a_difference_within_the_spread_is_noise_and_one_beyond_it_a_change() {
        let base = of(1_000.0, 950.0, 1_080.0);
        let told = |new| change(Unit::Time, base, new, false);
        assert_eq!(told(of(1_120.0, 1_100.0, 1_130.0)), Change::Noise);
        assert_eq!(told(of(1_140.0, 1_135.0, 1_150.0)), Change::Worse);
        assert_eq!(told(of(860.0, 855.0, 870.0)), Change::Better);
        assert_eq!(told(of(1_500.0, 900.0, 1_600.0)), Change::Noise);
        assert_eq!(told(of(1_004.0, 1_004.0, 1_004.0)), Change::Same);
        assert_eq!(told(None), Change::Unmeasured);
        assert_eq!(change(Unit::Time, None, base, false), Change::Unmeasured);
        assert_eq!(change(Unit::Rate, base, of(1_200.0, 1_190.0, 1_210.0), false), Change::Better);
    }

    #[test]
    fn one_run_a_side_proves_nothing_but_a_fault() {
        let one = |value| of(value, value, value);
        let told = |unit, new| change(unit, one(1_000.0), one(new), true);
        assert_eq!(told(Unit::Time, 1_040.0), Change::Noise);
        assert_eq!(told(Unit::Time, 1_060.0), Change::MaybeWorse);
        assert_eq!(told(Unit::Rate, 1_060.0), Change::MaybeBetter);
        assert_eq!(change(Unit::Faults, one(0.0), one(1.0), true), Change::Worse);
        assert_eq!(change(Unit::Faults, one(2.0), one(1.0), true), Change::Better);
        assert_eq!(change(Unit::Cpu, one(0.0), one(1.0), false), Change::Worse);
    }
}
