//! The small benches as one table: nanoseconds, instructions and allocations of an event, each part alone.

use crate::{
    Args, Measured,
    error::BenchError,
    gate::{
        baseline::Figures,
        micro::{self, Ask, Build, Case},
    },
    report::put,
};

/// Runs every bench twice: once by the clock, once under valgrind.
pub(crate) fn run(args: &Args) -> Result<Measured, BenchError> {
    eprintln!("micro: by the clock");
    let mut cases = micro::run(Ask::Time, Build::ALL)?;
    eprintln!("micro: instructions");
    let mut is_met = true;
    match micro::run(Ask::Instructions, Build::ALL) {
        Ok(counted) => join(&mut cases, &counted),
        Err(error) => {
            eprintln!("bench: instructions NOT COUNTED: {error}");
            is_met = false;
        }
    }
    let machine = loadtest::host::Machine::look();
    let kept =
        crate::keep(args, "micro", &serde_json::json!({ "machine": machine, "cases": cases }))?;
    let text = format!("\nparts alone, per event\n{}{kept}", table(&cases));
    Ok(Measured { text, is_sound: true, is_met, ratios: Figures::new() })
}

fn join(cases: &mut [Case], counted: &[Case]) {
    for case in cases {
        let same = counted.iter().find(|other| other.name() == case.name());
        case.instructions = same.and_then(|other| other.instructions);
    }
}

fn table(cases: &[Case]) -> String {
    let mut out = String::new();
    let head = ["case", "ns", "instructions", "allocations"];
    put(
        &mut out,
        format_args!("  {:<72} {:>9} {:>12} {:>11}\n", head[0], head[1], head[2], head[3]),
    );
    for case in cases {
        let number = |value: Option<f64>, digits| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let (name, ns) = (case.name(), number(case.ns, 1));
        let (instructions, allocations) =
            (number(case.instructions, 0), number(case.allocations, 4));
        put(&mut out, format_args!("  {name:<72} {ns:>9} {instructions:>12} {allocations:>11}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Case, join, table};

    fn case(name: &str, ns: Option<f64>, instructions: Option<f64>) -> Case {
        let (bench, case) = ("cdc".to_owned(), name.to_owned());
        Case { bench, case, ns, allocations: ns, instructions }
    }

    #[test]
    fn a_row_has_what_both_runs_found() {
        let mut cases = [case("a", Some(1.0), None), case("b", Some(2.0), None)];
        join(&mut cases, &[case("b", None, Some(700.0))]);
        assert_eq!((cases[0].instructions, cases[1].instructions), (None, Some(700.0)));
        let text = table(&cases);
        let row: Vec<&str> =
            text.lines().nth(2).unwrap_or_default().split_ascii_whitespace().collect();
        assert_eq!(row, ["cdc/b", "2.0", "700", "2.0000"]);
    }
}
