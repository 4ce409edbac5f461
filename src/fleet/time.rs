//! Instants of the shared clock. The core receives `now`; it never asks for it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The instant as a calendar date; `None` beyond the year 262 000.
    #[must_use]
    pub fn to_utc(self) -> Option<chrono::DateTime<chrono::Utc>> {
        i64::try_from(self.0).ok().and_then(chrono::DateTime::from_timestamp_millis)
    }

    /// RFC 3339 with milliseconds, in UTC; beyond the calendar the bare number.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        match self.to_utc() {
            Some(date) => date.to_rfc3339_opts(SecondsFormat::Millis, true),
            None => format!("{}ms", self.0),
        }
    }

    /// From a calendar date; dates before 1970 become 1970.
    #[must_use]
    pub fn from_utc(date: chrono::DateTime<chrono::Utc>) -> Self {
        Self(u64::try_from(date.timestamp_millis()).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}
