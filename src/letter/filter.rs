//! Which dead letters an operator means. The same words for the stream and for the table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use shards::domain::cdc::rfc3339_seconds;
use shards::wire::nats::subject::Pattern;

use super::Letter;
use crate::config::value::parse_duration;

/// Filters; what is not given does not matter.
#[derive(Args, Clone, Debug, Default)]
pub struct Filters {
    /// Subject the event came on; NATS wildcards: `v1.chats.*.ACME`, `cdc.>`.
    #[arg(long, value_name = "PATTERN", value_parser = read_pattern)]
    pub subject: Option<Pattern>,
    /// Class of the error, `fatal` or `retryable`, or the label of a reason; may be repeated, any counts.
    #[arg(long, value_name = "CLASS")]
    pub class: Vec<String>,
    /// Dead-lettered longer ago than this: 30m, 2h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = read_duration)]
    pub older: Option<Duration>,
    /// Dead-lettered within this.
    #[arg(long, value_name = "DURATION", value_parser = read_duration)]
    pub newer: Option<Duration>,
    /// At most so many.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

impl Filters {
    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_aged = self.older.is_some() || self.newer.is_some();
        self.subject.is_none() && self.class.is_empty() && !is_aged && self.limit.is_none()
    }

    /// Most that are meant.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX)
    }

    /// Whether a letter is meant that was stored at `stored_at`, RFC 3339 in UTC. What cannot be read is meant
    /// unless its subject or class is asked for.
    pub(crate) fn admit(&self, letter: Option<&Letter>, stored_at: &str) -> bool {
        let is_meant = match letter {
            None => self.subject.is_none() && self.class.is_empty(),
            Some(letter) => {
                let subject = letter.source_subject.as_bytes();
                self.subject.as_ref().is_none_or(|pattern| pattern.matches(subject))
                    && letter.is_of(&self.class)
            }
        };
        let is_before = |span| is_before(stored_at, SystemTime::now(), span);
        is_meant && self.older.is_none_or(is_before) && !self.newer.is_some_and(is_before)
    }
}

/// Whether the moment lies more than `span` before now, to the second.
fn is_before(moment: &str, now: SystemTime, span: Duration) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = [0; 20];
    let limit = rfc3339_seconds(now.saturating_sub(span).as_secs(), &mut text);
    let seconds = "0000-00-00T00:00:00".len();
    match (moment.as_bytes().get(..seconds), limit.get(..seconds)) {
        (Some(moment), Some(limit)) => moment < limit,
        _ => false,
    }
}

fn read_pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text.to_owned()).map_err(|error| error.to_string())
}

fn read_duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration such as 30m, 2h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_told_to_the_second() {
        // 2025-06-01T10:00:00Z
        let now = UNIX_EPOCH + Duration::from_secs(1_748_772_000);
        let is = |moment, secs| is_before(moment, now, Duration::from_secs(secs));
        assert!(is("2025-06-01T09:59:49.999Z", 10));
        assert!(!is("2025-06-01T09:59:50Z", 10));
        assert!(!is("2025-06-01T09:59:50.1Z", 10));
        assert!(!is("nonsense", 10));
    }
}
