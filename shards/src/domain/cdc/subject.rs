//! Subjects that changes come on. Invariant: a parsed subject has no empty token.
//! Shapes: contract `cdc.md` 1.1. The shape tells which company a subject belongs to before the body
//! is read; table, schema and action are the body's.

/// Prefix of a company's schema in PostgreSQL.
pub(crate) const SCHEMA_PREFIX: &[u8] = b"daisi_";

/// A source subject, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubjectShape<'a> {
    /// `cdc.<company>.<table>`.
    Cdc {
        /// Company id.
        company: &'a [u8],
        /// Table name.
        table: &'a [u8],
    },
    /// `sequin.changes.<database>.<schema>.<table>.<action>` or, since Sequin 0.11,
    /// `sequin.<database>.<schema>.<table>.<action>`.
    Sequin {
        /// Name of the database entry in Sequin.
        database: &'a [u8],
        /// Schema, `daisi_<company>` in production.
        schema: &'a [u8],
        /// Table name.
        table: &'a [u8],
    },
}

impl<'a> SubjectShape<'a> {
    /// Takes a subject apart; `None` for every other shape. `sequin.rows...` (row mode) and a legacy
    /// subject that lost a token are other shapes, though they have as many tokens as the new one.
    pub fn parse(subject: &'a [u8]) -> Option<Self> {
        let mut tokens = [&[][..]; 6];
        let mut count = 0;
        for token in subject.split(|b| *b == b'.') {
            *tokens.get_mut(count)? = token;
            count += 1;
        }
        let tokens = &tokens[..count];
        if tokens.iter().any(|t| t.is_empty()) {
            return None;
        }
        match *tokens {
            [b"cdc", company, table] => Some(Self::Cdc { company, table }),
            [b"sequin", b"changes", database, schema, table, _] => {
                Some(Self::Sequin { database, schema, table })
            }
            [b"sequin", b"changes" | b"rows", ..] => None,
            [b"sequin", database, schema, table, _] => {
                Some(Self::Sequin { database, schema, table })
            }
            _ => None,
        }
    }

    /// Company that the subject names for certain.
    pub fn company(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Cdc { company, .. } => Some(company),
            Self::Sequin { schema, .. } => schema.strip_prefix(SCHEMA_PREFIX),
        }
    }

    /// Table that the subject names; only a hint, the body decides.
    pub fn table(&self) -> &'a [u8] {
        match *self {
            Self::Cdc { table, .. } | Self::Sequin { table, .. } => table,
        }
    }
}

/// Routing key of a subject: the company, or a schema that names none. Every change of a company on
/// one source has the same key, so it can choose the shard. `None` for a subject of another shape.
pub fn company_hint(subject: &[u8]) -> Option<&[u8]> {
    let shape = SubjectShape::parse(subject)?;
    shape.company().or(match shape {
        SubjectShape::Sequin { schema, .. } => Some(schema),
        SubjectShape::Cdc { .. } => None,
    })
}

/// Which token of the subjects that `pattern` stands for names the company, or the schema; `None` where that
/// is not one token of it.
pub fn company_token(pattern: &str) -> Option<usize> {
    let tokens: Vec<&str> = pattern.split('.').collect();
    let place = match *tokens.as_slice() {
        ["cdc", _, _] => 1,
        ["sequin", "changes", _, _, _, _] => 3,
        ["sequin", _, _, _, _] => 2,
        _ => return None,
    };
    (tokens[place] != ">").then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_company_of_a_pattern_is_a_token_of_its_own() {
        for (pattern, place) in [
            ("cdc.*.*", Some(1)),
            ("cdc.ACME.>", Some(1)),
            ("cdc.>", None),
            ("sequin.*.*.*.*", Some(2)),
            ("sequin.db.*.messages.*", Some(2)),
            ("sequin.changes.*.*.*.*", Some(3)),
            ("other.*.*", None),
        ] {
            assert_eq!(company_token(pattern), place, "{pattern}");
        }
    }

    #[test]
    fn routing_key_is_the_company_or_the_schema() {
        for (subject, key) in [
            ("cdc.ACME.messages", Some("ACME")),
            ("sequin.changes.db.daisi_ACME.messages.insert", Some("ACME")),
            ("sequin.db.daisi_ACME.messages.insert", Some("ACME")),
            ("sequin.db.public.messages.insert", Some("public")),
            ("cdc.ACME", None),
            ("cdc.ACME.messages.x", None),
            ("cdc..messages", None),
            ("sequin.rows.db.daisi_ACME.messages", None),
            ("sequin.changes.daisi_ACME.messages.insert", None),
            ("sequin.changes.db.daisi_ACME.messages.insert.x", None),
            ("other.ACME.messages", None),
            ("", None),
        ] {
            assert_eq!(company_hint(subject.as_bytes()), key.map(str::as_bytes), "{subject}");
        }
    }
}
