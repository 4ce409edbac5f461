//! Hosts: what an agent reports of its Docker daemon, and what the leader assigns to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{BootId, HostId, PoolName, ReplicaId, RunnerId, RunnerName, Term};
use super::policy::DISK_FLOOR;
use super::reason::{Reason, Refusal};
use super::runner::RunnerRecord;
use super::time::Timestamp;

/// The version of records as they are written: [`HostRecord`], [`Assignment`] and what else
/// carries one. A field that may be missing, or be passed over, needs no new version.
pub const RECORD_VERSION: u32 = 1;

/// The versions that are read. Replicas of two neighbouring releases work together, so a new
/// version takes two releases: the first only reads it, the second writes it.
pub const RECORDS_READ: RangeInclusive<u32> = 0..=1;
const _: () = assert!(*RECORDS_READ.start() < RECORD_VERSION);
const _: () = assert!(RECORD_VERSION <= *RECORDS_READ.end());

/// The newest report of every host. Shared and never changed: a view is made every turn,
/// and a large fleet's records are not copied for it.
pub type HostRecords = BTreeMap<HostId, Arc<HostRecord>>;

/// What the leader wants of every host, shared in the same way.
pub type Assignments = BTreeMap<HostId, Arc<Assignment>>;

/// What a host's agent reports; the agent is its only writer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    pub version: u32,
    pub host: HostId,
    pub boot: BootId,
    pub replica: ReplicaId,
    /// Grows with every report of one boot.
    pub seq: u64,
    pub at: Timestamp,
    /// The host's name for people.
    pub hostname: String,
    pub docker_version: Option<String>,
    pub docker_up: bool,
    pub stopping: bool,
    pub max_runners: u32,
    /// Images of our pools that are present.
    pub images: BTreeSet<String>,
    pub runners: BTreeMap<RunnerId, RunnerRecord>,
    /// Ids handed back, with the reason.
    pub refused: BTreeMap<RunnerId, Refusal>,
    /// What the machine offers. Unknown is never zero.
    #[serde(default)]
    pub capacity: Capacity,
}

/// What a Docker host's machine offers, as far as its daemon or the agent can tell.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// Free where the daemon keeps its data; only where the agent can see that.
    pub disk_free_bytes: Option<u64>,
    pub architecture: Option<String>,
}

impl Capacity {
    /// Whether the disk is known to have no room for another runner.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.disk_free_bytes.is_some_and(|free| free < DISK_FLOOR)
    }
}

/// What the leader wants of one host; the leader is its only writer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Assignment {
    pub version: u32,
    pub term: Term,
    /// Grows with every change of this host's assignment.
    pub revision: u64,
    pub runners: BTreeMap<RunnerId, Assigned>,
    pub retire: BTreeMap<RunnerId, Retirement>,
    /// The newest report of the host the leader has taken in, as `(boot, seq)`: ends
    /// reported up to there need not be reported again.
    pub seen: Option<(BootId, u64)>,
    /// An operator has frozen the fleet: nothing is started, nothing is removed.
    #[serde(default)]
    pub frozen: bool,
}

/// One runner that shall exist on a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assigned {
    pub id: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    /// Only this boot of the agent may start it.
    pub boot: BootId,
    pub revision: String,
    pub at: Timestamp,
    pub reason: Reason,
    pub correlation: String,
}

/// The order to remove a runner by the only way there is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retirement {
    pub reason: Reason,
    pub at: Timestamp,
    /// An operator accepts that its job dies.
    pub force: bool,
}

/// How the leader sees a host, by its own monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    Live,
    /// Silent for 15 s: nothing new is assigned, nothing on it is retired.
    Suspect,
    /// Silent for 45 s: its runners are placed elsewhere.
    Lost,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "018f0000-0000-7000-8000-000000000001";

    /// A report as the version before wrote it.
    fn older() -> Value {
        json!({
            "version": 0, "host": ID, "boot": ID, "replica": ID, "seq": 3, "at": 1000,
            "hostname": "h1", "docker_version": null, "docker_up": true, "stopping": false,
            "max_runners": 4, "images": ["i"], "refused": {},
            "runners": { ID: {
                "id": ID, "name": "orchestrated-aaaaaa-bbbbbbbb-cccccccccccc",
                "pool": "default", "phase": { "phase": "listening", "since": 900 },
                "container": "c", "github_id": 7, "assigned_at": 800, "listened_at": 900,
                "revision": "1", "correlation": "c-1", "retiring": null,
                "retire_blocked_until": null, "adopted": false,
            } },
        })
    }

    #[test]
    fn a_report_of_the_version_before_is_read() {
        let record: HostRecord = serde_json::from_value(older()).unwrap();
        assert_eq!(record.capacity, Capacity::default());
        assert!(record.runners.values().all(|runner| runner.scope.is_none()));
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let mut later = older();
        later["version"] = json!(2);
        later["colour"] = json!("blue");
        later["capacity"] = json!({ "cpus": 8, "gpus": 2 });
        later["runners"][ID]["mood"] = json!("good");
        let record: HostRecord = serde_json::from_value(later).unwrap();
        assert_eq!(record.capacity, Capacity { cpus: Some(8), ..Capacity::default() });
        let again: HostRecord =
            serde_json::from_value(serde_json::to_value(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }
}
