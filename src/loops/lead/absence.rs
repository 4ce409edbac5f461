//! For how long this leader could not work with the store. What it could not read or write
//! no host could report either: that time is taken off every host's silence.

use std::time::Duration;

use tokio::time::Instant;

/// Looks at the store further apart than this mean that this process was held up.
const HELD_UP: Duration = Duration::from_secs(5);

/// Whether the last turn could read and write, and since when time is accounted for.
#[derive(Debug, Default)]
pub(super) struct Absence {
    looked_at: Option<Instant>,
    failed: bool,
}

impl Absence {
    /// Notes that the store was read. Returns how long nobody could be heard before.
    pub(super) fn looked(&mut self, now: Instant) -> Duration {
        let before = self.looked_at.replace(now);
        let since = before.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if std::mem::take(&mut self.failed) || since > HELD_UP { since } else { Duration::ZERO }
    }

    /// Notes whether the store could be read and took what was written.
    pub(super) fn noted(&mut self, well: bool) {
        self.failed |= !well;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_without_the_store_is_excused() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut absence = Absence::default();
        assert_eq!(absence.looked(at(0)), Duration::ZERO);
        assert_eq!(absence.looked(at(1)), Duration::ZERO);
        absence.noted(false);
        assert_eq!(absence.looked(at(31)), Duration::from_secs(30));
        assert_eq!(absence.looked(at(32)), Duration::ZERO);
        assert_eq!(absence.looked(at(92)), Duration::from_secs(60), "paused");
        absence.noted(false);
        assert_eq!(absence.looked(at(93)), Duration::from_secs(1), "read, but not written");
    }
}
