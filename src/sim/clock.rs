//! Modelled time: one start instant plus an epoch, so that the model follows
//! tokio's clock (also a paused one) and still writes calendar times.

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::{Duration, Instant};

/// A clock that runs with tokio's time from a given calendar start.
///
/// With a paused tokio clock it stands still with it; otherwise it is real time.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    start: Instant,
    epoch_ms: u64,
}

impl SimClock {
    /// A clock that starts at the machine's wall clock.
    #[must_use]
    pub fn real() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the modelled world reads the wall clock once, to start its own clock from it"
        )]
        let wall = std::time::SystemTime::now();
        let since_epoch = wall.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(millis(since_epoch))
    }

    /// A clock that shows `epoch_ms` (milliseconds since 1970) now.
    #[must_use]
    pub fn starting_at(epoch_ms: u64) -> Self {
        Self { start: Instant::now(), epoch_ms }
    }

    /// Milliseconds since 1970 in modelled time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.epoch_ms.saturating_add(millis(self.start.elapsed()))
    }

    /// The tokio instant at which this clock shows `at_ms`; never before its start.
    #[must_use]
    pub fn instant_of(&self, at_ms: u64) -> Instant {
        self.start + Duration::from_millis(at_ms.saturating_sub(self.epoch_ms))
    }
}

/// A duration as whole milliseconds; longer than `u64` can hold is cut there.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Calendar time of a millisecond count; the epoch itself when out of range.
#[must_use]
pub fn calendar(at_ms: u64) -> DateTime<Utc> {
    i64::try_from(at_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// RFC 3339 with whole seconds and `Z`, as GitHub writes its times.
#[must_use]
pub fn rfc3339(at_ms: u64) -> String {
    calendar(at_ms).to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_stands_still_and_advances_with_a_paused_clock() {
        let clock = SimClock::starting_at(1_767_322_800_000);
        assert_eq!(clock.now_ms(), 1_767_322_800_000);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now_ms(), 1_767_326_400_000);
        assert_eq!(clock.instant_of(clock.now_ms()), Instant::now());
        assert_eq!(rfc3339(clock.now_ms()), "2026-01-02T04:00:00Z");
    }
}
