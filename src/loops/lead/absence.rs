//! For how long this leader could not work with the store. What it could not read or write
//! no host could report either: that time is taken off every host's silence.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::host::HostRecords;
use crate::fleet::id::{BootId, HostId};

/// Looks at the store further apart than this mean that this process was held up.
const HELD_UP: Duration = Duration::from_secs(5);

/// Whether the last turn could read and write, and since when time is accounted for.
#[derive(Debug, Default)]
pub(super) struct Absence {
    looked_at: Option<Instant>,
    failed: bool,
    untold: bool,
    /// The newest report of each host at the last look.
    heard: BTreeMap<HostId, (BootId, u64)>,
}

impl Absence {
    /// Notes that the store was read. Returns how long nobody could be heard before.
    pub(super) fn looked(&mut self, now: Instant, hosts: &HostRecords) -> Duration {
        let before = self.looked_at.replace(now);
        let since = before.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let heard = hosts.iter().map(|(host, record)| (*host, (record.boot, record.seq))).collect();
        let news = self.heard != heard;
        self.heard = heard;
        // A store that takes the hosts' reports was not away: what it did not take was too
        // large for it, and a silent host is silent by itself.
        let refused = std::mem::take(&mut self.untold) && !news;
        let failed = std::mem::take(&mut self.failed);
        if failed || refused || since > HELD_UP { since } else { Duration::ZERO }
    }

    /// Notes that the store could not be read, or did not take what was decided.
    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    /// Notes that the store did not take this turn for the other replicas to show.
    pub(super) fn untold(&mut self) {
        self.untold = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fleet::host::HostRecord;

    fn report(seq: u64) -> HostRecords {
        let id = "018f0000-0000-7000-8000-000000000001";
        let record = serde_json::json!({
            "version": 1, "host": id, "boot": id, "replica": id, "seq": seq, "at": 0,
            "hostname": "h", "docker_version": null, "docker_up": true, "stopping": false,
            "max_runners": 1, "images": [], "runners": {}, "refused": {},
        });
        let record: HostRecord = serde_json::from_value(record).unwrap();
        BTreeMap::from([(record.host, Arc::new(record))])
    }

    #[test]
    fn only_time_without_the_store_is_excused() {
        let begun = Instant::now();
        let mut absence = Absence::default();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let nothing = BTreeMap::new();
        assert_eq!(absence.looked(at(0), &nothing), Duration::ZERO);
        assert_eq!(absence.looked(at(1), &nothing), Duration::ZERO);
        absence.failed();
        assert_eq!(absence.looked(at(31), &nothing), Duration::from_secs(30));
        assert_eq!(absence.looked(at(32), &nothing), Duration::ZERO);
        assert_eq!(absence.looked(at(92), &nothing), Duration::from_secs(60), "paused");
        absence.failed();
        assert_eq!(absence.looked(at(93), &nothing), Duration::from_secs(1), "not written");
    }

    #[test]
    fn a_turn_nobody_was_told_of_excuses_a_host_only_while_none_is_heard() {
        let begun = Instant::now();
        let mut absence = Absence::default();
        let at = |seconds| begun + Duration::from_secs(seconds);
        absence.looked(at(0), &report(1));
        absence.untold();
        assert_eq!(absence.looked(at(1), &report(2)), Duration::ZERO, "others are heard");
        absence.untold();
        assert_eq!(absence.looked(at(2), &report(2)), Duration::from_secs(1));
        absence.failed();
        assert_eq!(absence.looked(at(3), &report(3)), Duration::from_secs(1), "it was away");
    }
}
