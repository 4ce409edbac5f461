//! Reading GitHub's limits off an answer.

use std::time::Duration;

use http::HeaderMap;
use http::header::DATE;

use crate::fleet::time::Timestamp;

/// The headers in which GitHub speaks of its limits. Absent ones stay unknown: GitHub
/// Enterprise Server sends none while its limits are off.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LimitHeaders {
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    pub resets_at: Option<Timestamp>,
    /// Which limit was counted, e.g. `core`.
    pub resource: Option<String>,
    pub retry_after: Option<Duration>,
}

impl LimitHeaders {
    /// Reads what is there. GitHub's instants are of its own clock; where it tells the
    /// time, they are moved to ours.
    #[must_use]
    pub fn read(headers: &HeaderMap, now: Timestamp) -> Self {
        let number =
            |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
        let told_at = headers
            .get(DATE)
            .and_then(|date| chrono::DateTime::parse_from_rfc2822(date.to_str().ok()?).ok())
            .map_or(now, |date| Timestamp::from_utc(date.to_utc()));
        let resource = headers.get("x-ratelimit-resource").and_then(|value| value.to_str().ok());
        Self {
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            resets_at: number("x-ratelimit-reset")
                .map(|seconds| now + Timestamp(seconds.saturating_mul(1000)).since(told_at)),
            resource: resource.map(str::to_owned),
            retry_after: number("retry-after").map(Duration::from_secs),
        }
    }
}

/// Which limit a refusal named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The hourly one: nothing goes until it resets.
    Primary,
    /// The one against bursts.
    Secondary,
}

impl Refusal {
    /// Whether an answer refuses because of a limit. A 403 also means a missing
    /// permission, so it needs a second sign: a header, or GitHub's words.
    #[must_use]
    pub fn of(status: u16, headers: &LimitHeaders, message: &str) -> Option<Self> {
        if status != 403 && status != 429 {
            return None;
        }
        if headers.remaining == Some(0) && headers.retry_after.is_none() {
            return Some(Self::Primary);
        }
        let message = message.to_ascii_lowercase();
        let signs = headers.retry_after.is_some()
            || message.contains("rate limit")
            || message.contains("abuse detection");
        (status == 429 || signs).then_some(Self::Secondary)
    }
}
