//! Hosts: what an agent reports of its Docker daemon, and what the leader assigns to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::{BootId, HostId, PoolName, ReplicaId, RunnerId, RunnerName, Term};
use super::reason::{Reason, Refusal};
use super::runner::RunnerRecord;
use super::time::Timestamp;

/// The version of [`HostRecord`] and [`Assignment`] as stored. A reader accepts its own
/// and the one before; unknown fields are ignored.
pub const RECORD_VERSION: u32 = 1;

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
