//! "Did you mean": the known name most like one that is not known.

/// Below this two names share little more than letters.
const LIKENESS_MIN: f64 = 0.6;

/// The one of `known` that may have been meant by `name`.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known.map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
    let (likeness, best) = rated.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (likeness >= LIKENESS_MIN).then_some(best)
}

/// An error of the parser, with the key that was meant where it lists those there are: "unknown field `x`,
/// expected one of `a`, `b`".
pub(super) fn explain(error: &str) -> String {
    let error = error.trim_end();
    let kinds = [("unknown field `", "`, expected"), ("unknown variant `", "`, expected")];
    let meant = kinds.into_iter().find_map(|(head, tail)| {
        let (_, rest) = error.split_once(head)?;
        let (given, known) = rest.split_once(tail)?;
        nearest(given, known.split('`').skip(1).step_by(2))
    });
    match meant {
        Some(meant) => format!("{error}\ndid you mean {meant}?"),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn a_misspelt_key_is_told_apart_from_a_foreign_one() {
        let said = explain("unknown field `sed`, expected one of `seed`, `phases`");
        assert!(said.ends_with("did you mean seed?"), "{said}");
        let said = explain("unknown field `colour`, expected one of `seed`, `phases`");
        assert!(said.ends_with("`phases`"), "{said}");
    }
}
