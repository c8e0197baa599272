//! Runs that are taken as one: a build, a setting. Invariant: a side has a figure only if each of its runs has.

use std::path::Path;

use super::figure::{Figure, Unit, figures};
use super::{Results, ResultsError};

/// One or more runs of the same.
#[derive(Clone, Debug)]
pub struct Side {
    /// What to call it.
    pub name: String,
    /// Its runs, in the order given.
    pub runs: Vec<Results>,
}

/// A figure over the runs of a side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Side {
    /// Reads `dir1,dir2`, or `name=dir1,dir2`; without a name it is called `name`.
    ///
    /// # Errors
    /// One of the files cannot be read.
    pub fn read(text: &str, name: &str) -> Result<Self, ResultsError> {
        let named = text.split_once('=').filter(|(name, _)| !name.contains('/'));
        let (name, paths) = match named {
            Some((name, paths)) if !Path::new(text).exists() => (name, paths),
            _ => (name, text),
        };
        let runs = paths.split(',').map(|path| Results::read(Path::new(path)));
        Ok(Self { name: name.to_owned(), runs: runs.collect::<Result<_, _>>()? })
    }

    /// Figures of all runs, by key, in the order of the first run that has them.
    pub(super) fn figures(&self) -> Vec<(Figure, Range)> {
        let by_run: Vec<Vec<Figure>> = self.runs.iter().map(figures).collect();
        let Some((first, others)) = by_run.split_first() else { return Vec::new() };
        let of = |figure: &Figure| {
            let other = |run: &Vec<Figure>| Some(run.iter().find(|f| f.key == figure.key)?.value);
            let mut values: Vec<f64> = others.iter().map(other).collect::<Option<_>>()?;
            values.push(figure.value);
            Some((figure.clone(), Range::of(values, figure.unit)))
        };
        first.iter().filter_map(of).collect()
    }

    /// Names of ends of any of its runs.
    pub(super) fn ends(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for end in self.runs.iter().flat_map(|run| &run.ends) {
            if !names.contains(&end.name.as_str()) {
                names.push(&end.name);
            }
        }
        names
    }
}

impl Range {
    /// Of faults the worst run stands for all: one lost event is not made good by a run that lost none.
    fn of(mut values: Vec<f64>, unit: Unit) -> Self {
        values.sort_by(f64::total_cmp);
        let (min, max) = (values[0], values[values.len() - 1]);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            _ if unit == Unit::Faults => max,
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Self { median, min, max }
    }

    pub(super) fn spread(self) -> f64 {
        self.max - self.min
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_its_median_but_for_faults() {
        let range = |unit| Range::of(vec![3.0, 1.0, 10.0, 2.0], unit);
        assert_eq!(range(Unit::Time), Range { median: 2.5, min: 1.0, max: 10.0 });
        assert_eq!(range(Unit::Faults).median, 10.0);
        assert_eq!(Range::of(vec![5.0, 4.0, 9.0], Unit::Rate).median, 5.0);
    }
}
