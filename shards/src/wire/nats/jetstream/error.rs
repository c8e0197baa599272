//! Errors of the JetStream API and what they ask of us. Invariant: the switch is on `err_code`; only
//! where that is absent does the HTTP-like `code` decide. Source: `server/errors.json` of nats-server.

use serde::Deserialize;

/// Error as JetStream sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, thiserror::Error)]
#[serde(default)]
#[error("jetstream error {err_code} ({code}): {description}")]
pub struct ApiError {
    /// HTTP-like.
    pub code: u16,
    /// What happened; 0 in the rare replies that have none.
    pub err_code: u32,
    /// For people, and the only difference between some causes.
    pub description: String,
}

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Will pass: back off and send the same again. Covers "first copy still in flight" (10158).
    Transient,
    /// A limit of stream, account or server is reached: back-pressure and an alarm.
    Full,
    /// This message can never be stored: too large, or too many headers.
    Poison,
    /// Compare-and-set lost to another writer.
    WrongLastSequence,
    /// No such stream, consumer or message.
    NotFound,
    /// Stream or consumer exists with another configuration.
    Exists,
    /// Subjects overlap another stream's, or the stream has its most consumers: configuration.
    Conflict,
    /// The server is too old for what was asked (unknown field, API level).
    Unsupported,
    /// JetStream is off for this account or server.
    Disabled,
    /// Asking again gives the same answer.
    Permanent,
}

impl ApiError {
    /// What to do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self.err_code {
            // Leaderless, not leader, offline, sequence being checked, in flight, queue full.
            10008 | 10009 | 10063 | 10118 | 10119 | 10194 | 10195 | 10158 | 10163 | 10167 => {
                ErrorClass::Transient
            }
            10002 | 10023 | 10028 | 10047 | 10077 | 10122 => ErrorClass::Full,
            10054 | 10097 => ErrorClass::Poison,
            // 10164 comes from replicated streams while another write is in flight.
            10071 | 10164 => ErrorClass::WrongLastSequence,
            10014 | 10037 | 10059 | 10149 => ErrorClass::NotFound,
            10058 | 10148 => ErrorClass::Exists,
            10026 | 10065 => ErrorClass::Conflict,
            10025 | 10185 => ErrorClass::Unsupported,
            10039 | 10076 => ErrorClass::Disabled,
            0 => self.class_by_code(),
            _ => match self.code {
                // A code newer than this table that the server itself calls passing.
                429 | 503 => ErrorClass::Transient,
                _ => ErrorClass::Permanent,
            },
        }
    }

    const fn class_by_code(&self) -> ErrorClass {
        match self.code {
            404 => ErrorClass::NotFound,
            408 | 429 | 500..=599 => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ask_for_what_the_table_says() {
        let cases = [
            (503, 10008, ErrorClass::Transient),
            (409, 10158, ErrorClass::Transient),
            (503, 10077, ErrorClass::Full),
            (400, 10054, ErrorClass::Poison),
            (400, 10071, ErrorClass::WrongLastSequence),
            (400, 10164, ErrorClass::WrongLastSequence),
            (404, 10059, ErrorClass::NotFound),
            (400, 10058, ErrorClass::Exists),
            (400, 10026, ErrorClass::Conflict),
            (400, 10025, ErrorClass::Unsupported),
            (503, 10039, ErrorClass::Disabled),
            (400, 10060, ErrorClass::Permanent),
            (400, 10165, ErrorClass::Permanent),
            (404, 0, ErrorClass::NotFound),
            (503, 0, ErrorClass::Transient),
            (503, 19999, ErrorClass::Transient),
            (400, 19999, ErrorClass::Permanent),
        ];
        for (code, err_code, class) in cases {
            let error = ApiError { code, err_code, description: String::new() };
            assert_eq!(error.class(), class, "{err_code}");
        }
    }
}
