//! Shapes that many answers share: instants and reasons.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::fleet::reason::Reason;
use crate::fleet::time::Timestamp;

/// An instant as RFC 3339 with milliseconds, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-02T03:04:05.678Z")]
pub struct At(Timestamp);

impl From<Timestamp> for At {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Not `collect_str`: a full fleet's answer has seventy thousand of them, and it looks
        // at each part of each for what must be escaped.
        serializer.serialize_str(&self.0.to_rfc3339())
    }
}

/// A UUID, in the document only.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = "uuid")]
pub struct IdText(());

/// An instant that may not have come yet.
#[must_use]
pub fn at(instant: Option<Timestamp>) -> Option<At> {
    instant.map(At::from)
}

/// Why something was done or not done: the same value as in logs and metric labels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct ReasonBody {
    /// The stable name.
    #[schema(example = "at_maximum")]
    pub code: String,
    /// One sentence for an operator.
    #[schema(example = "10 runners take up room, MAX_RUNNERS is 10")]
    pub detail: String,
}

impl From<&Reason> for ReasonBody {
    fn from(reason: &Reason) -> Self {
        Self { code: reason.code().to_owned(), detail: reason.to_string() }
    }
}

/// Several reasons, in the order they were found.
#[must_use]
pub fn reasons(found: &[Reason]) -> Vec<ReasonBody> {
    found.iter().map(ReasonBody::from).collect()
}

/// A span in words: `3h 12m 5s`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m {rest}s"),
        _ => format!("{days}d {hours}h {minutes}m {rest}s"),
    }
}

/// A count for JSON; beyond four billion it stays there.
#[must_use]
pub fn count(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}
