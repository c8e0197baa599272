//! Partitions of `messages` by month (contract `ingest.md`, section 4.3): those that the date asks for,
//! made ahead, and those that rows of a batch want. Invariants: a month is made in a transaction of its
//! own, so that a company's writers wait for milliseconds; a row is never held back by its partition, since
//! there is a default one.

use super::migrate::{MigrateError, fill, rows_of, schema_of};
use crate::clock::{SEC, date_of, day_of};
use crate::id::SchemaName;
use hashbrown::{Equivalent, HashSet};
use std::ops::Range;
use tokio_postgres::{Client, Error};

const MONTH: &str = include_str!("../../../../migrations/maintain/month.sql");

/// Bounds of what it may wait for, and of how long rows may take that are to be moved.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '60s'; \
                     SET LOCAL client_min_messages = error; ";
/// January 2009: there are no older messages, and a time before is none (0, or seconds of a device's start).
const FIRST: Month = Month(2009 * 12);
/// Months that are made ahead of the current one.
const AHEAD: u32 = 3;
/// Months that are known to be there; beyond, all are forgotten and asked for again.
const KNOWN_MAX: usize = 200_000;

/// Months since year 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Month(u32);

impl Month {
    /// `month` counts from 1.
    #[must_use]
    pub fn new(year: u16, month: u8) -> Option<Self> {
        (1..=12).contains(&month).then(|| Self(u32::from(year) * 12 + u32::from(month) - 1))
    }

    /// The month of a day since 1970.
    fn of(day: i32) -> Option<Self> {
        let (year, month, _) = date_of(u64::try_from(day).ok()?);
        Some(Self(u32::try_from(year * 12 + month - 1).ok()?))
    }

    /// Its days since 1970.
    fn days(self) -> Range<i32> {
        let first = |month: Self| {
            let day = day_of(u64::from(month.0 / 12), u64::from(month.0 % 12) + 1, 1);
            day.and_then(|day| i32::try_from(day).ok()).unwrap_or(0)
        };
        first(self)..first(Self(self.0 + 1))
    }

    fn name(self) -> String {
        format!("messages_y{:04}m{:02}", self.0 / 12, self.0 % 12 + 1)
    }

    fn first_day(self) -> String {
        format!("{:04}-{:02}-01", self.0 / 12, self.0 % 12 + 1)
    }

    /// A text about its partition in a schema.
    fn fill(self, text: &str, schema: &SchemaName) -> String {
        fill(text, schema)
            .replace("{name}", &self.name())
            .replace("{first}", &self.first_day())
            .replace("{next}", &Self(self.0 + 1).first_day())
    }
}

/// Makes the partition of one month, moving its rows out of the default partition.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn make(client: &Client, company: &str, month: Month) -> Result<(), MigrateError> {
    Ok(make_in(client, &schema_of(company)?, month).await?)
}

async fn make_in(client: &Client, schema: &SchemaName, month: Month) -> Result<(), Error> {
    let text = format!("{BEGIN}{} COMMIT", month.fill(MONTH, schema));
    let done = client.batch_execute(&text).await;
    if done.is_err() {
        // The first error is the one to tell; a lost connection cannot roll back, and need not.
        let _rolled_back = client.batch_execute("ROLLBACK").await;
    }
    done
}

/// Makes the months that are wanted and not there: last year, this year, and three months ahead of now, in
/// UTC; and older ones whose rows are in the default partition, as those of the first service are.
///
/// # Errors
/// PostgreSQL refused, or is away.
pub async fn make_wanted(client: &Client, company: &str) -> Result<(), MigrateError> {
    let schema = schema_of(company)?;
    for row in rows_of(&client.simple_query(&fill(WANTED, &schema)).await?) {
        if let Some(month) = row.get(0).and_then(|month| month.parse().ok()) {
            make_in(client, &schema, Month(month)).await?;
        }
    }
    Ok(())
}

const WANTED: &str = "SELECT (extract(year FROM month) * 12 + extract(month FROM month) - 1)::int4 FROM (\
    SELECT generate_series(date_trunc('year', now() AT TIME ZONE 'UTC') - interval '1 year', \
        greatest(date_trunc('year', now() AT TIME ZONE 'UTC') + interval '11 months', \
            date_trunc('month', now() AT TIME ZONE 'UTC') + interval '3 months'), interval '1 month') \
    UNION SELECT date_trunc('month', message_date::timestamp) FROM {schema}.messages_default \
    WHERE message_date >= '2009-01-01' AND message_date < now() AT TIME ZONE 'UTC' + interval '3 months') AS w (month) \
    WHERE to_regclass('{schema}.' || to_char(month, '\"messages_y\"YYYY\"m\"MM')) IS NULL ORDER BY month DESC";

/// Is a month missing, and nothing to be moved to it? Rows of a month that wait in the default partition are
/// moved by the chores: it may take long.
const IS_FREE: &str = "SELECT to_regclass('{schema}.{name}') IS NULL AND NOT EXISTS (\
    SELECT FROM {schema}.messages_default WHERE message_date >= '{first}' AND message_date < '{next}')";

#[derive(PartialEq, Eq, Hash)]
struct Known {
    schema: Box<str>,
    month: Month,
}

#[derive(Hash)]
struct KnownRef<'a> {
    schema: &'a str,
    month: Month,
}

impl Equivalent<Known> for KnownRef<'_> {
    fn equivalent(&self, known: &Known) -> bool {
        self.schema == &*known.schema && self.month == known.month
    }
}

/// The months that a connection has seen to.
#[derive(Default)]
pub(super) struct Months {
    known: HashSet<Known>,
}

impl Months {
    /// Months of `days` that nobody has seen to yet, between 2009 and three months from now.
    pub(super) fn missing(
        &self,
        schema: &SchemaName,
        days: &[Option<i32>],
        now_ns: u64,
    ) -> Vec<Month> {
        let today = i32::try_from(now_ns / SEC / 86_400).ok();
        let last = today.and_then(Month::of).map_or(FIRST, |month| Month(month.0 + AHEAD));
        let mut missing = Vec::new();
        let mut seen = 0..0; // The days of the last month that was looked at.
        for day in days.iter().flatten() {
            if seen.contains(day) {
                continue;
            }
            let Some(month) = Month::of(*day) else { continue };
            seen = month.days();
            let is_known = || self.known.contains(&KnownRef { schema: schema.as_str(), month });
            if (FIRST..=last).contains(&month) && !is_known() && !missing.contains(&month) {
                missing.push(month);
            }
        }
        missing
    }

    /// Makes a month unless it is there or has rows to be moved. It is known then, also where PostgreSQL
    /// refused: its rows go to the default partition until the chores make it.
    pub(super) async fn see_to(&mut self, client: &Client, schema: &SchemaName, month: Month) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(Known { schema: schema.as_str().into(), month });
        let asked = month.fill(IS_FREE, schema);
        let made = async {
            let answer = client.simple_query(&asked).await?;
            match rows_of(&answer).any(|row| row.get(0) == Some("t")) {
                true => make_in(client, schema, month).await,
                false => Ok(()),
            }
        };
        if let Err(error) = made.await {
            let (month, error) = (month.name(), super::describe(&error));
            tracing::warn!(%schema, month, error, "a partition is not made yet; its rows go to the default one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Days since 1970.
    const FEB_1_2024: i32 = 19_754;
    const NOW: u64 = 1_795_262_400 * SEC; // 2026-11-21

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        let month = Month::of(FEB_1_2024 + 28).unwrap();
        assert_eq!(month, Month::new(2024, 2).unwrap());
        assert_eq!(month.days(), FEB_1_2024..FEB_1_2024 + 29);
        assert_eq!(
            (month.name().as_str(), month.first_day().as_str()),
            ("messages_y2024m02", "2024-02-01")
        );
        assert_eq!(Month::of(FEB_1_2024 + 29), Month::new(2024, 3));
        assert_eq!(Month::of(FEB_1_2024 - 32), Month::new(2023, 12));
        assert_eq!((Month::new(2024, 0), Month::new(2024, 13), Month::of(-1)), (None, None, None));
    }

    #[test]
    fn a_month_is_missing_once_and_only_if_it_makes_sense() {
        let mut months = Months::default();
        let schemas = ["s", "other"].map(|company| SchemaName::of(company).unwrap());
        let days = [FEB_1_2024, FEB_1_2024 + 1, FEB_1_2024 + 40, FEB_1_2024, 0, i32::MAX, -5];
        let days = days.map(Some);
        let missing = months.missing(&schemas[0], &days, NOW);
        assert_eq!(missing, [Month::new(2024, 2).unwrap(), Month::new(2024, 3).unwrap()]);
        months.known.insert(Known { schema: schemas[0].as_str().into(), month: missing[0] });
        assert_eq!(months.missing(&schemas[0], &days, NOW), missing[1..]);
        assert_eq!(months.missing(&schemas[1], &days, NOW), missing);
        // Three months ahead, and no further.
        let ahead = [20_876, 20_906].map(Some); // 2027-02-27 and 2027-03-29
        assert_eq!(months.missing(&schemas[0], &ahead, NOW), [Month::new(2027, 2).unwrap()]);
    }
}
