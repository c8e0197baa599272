//! What an error of PostgreSQL asks for, by its SQLSTATE. Source: contract `ingest.md` section 6.2;
//! PostgreSQL manual, appendix A.

/// What to do about a failed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A value in it can never be stored: find it.
    Data,
    /// Another writer was in the way: the same again, at once.
    Conflict,
    /// The schema is missing or old: migrate, then again.
    Schema,
    /// Something of one company was locked for too long: its events wait, others need not.
    Busy,
    /// The database is away: wait, and spend no attempt of any event.
    Transient,
}

impl Class {
    /// The class of a SQLSTATE.
    #[must_use]
    pub fn of(sqlstate: &str) -> Self {
        match sqlstate {
            "40001" | "40P01" => Self::Conflict,
            "55P03" | "57014" => Self::Busy,
            "3F000" => Self::Schema,
            // Tables, columns, rights: what a migration may put right, or a person.
            _ if sqlstate.starts_with("42") => Self::Schema,
            // Program limits, such as an index entry that is too large, are the value's doing as well.
            _ if ["21", "22", "23", "54"].iter().any(|class| sqlstate.starts_with(class)) => {
                Self::Data
            }
            // 08, 53, 57P01 to 57P03, and whatever nobody has thought of: an event is called bad only for an
            // error that is about values.
            _ => Self::Transient,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_class_of_the_contract() {
        for (class, states) in [
            (
                Class::Data,
                &[
                    "23505", "23502", "23503", "23514", "22001", "22P02", "22021", "22P05",
                    "22008", "22003", "21000",
                ][..],
            ),
            (Class::Conflict, &["40001", "40P01"]),
            (Class::Schema, &["42P01", "42703", "3F000", "42501"]),
            (Class::Busy, &["55P03", "57014"]),
            (
                Class::Transient,
                &["08006", "53300", "57P01", "57P02", "57P03", "25P02", "XX000", ""],
            ),
        ] {
            for state in states {
                assert_eq!(Class::of(state), class, "{state}");
            }
        }
    }
}
