//! What operators ask for. The API records intents; the loops carry them out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::host::HostRecord;
use super::id::{HostId, IntentId, PoolName, ReplicaId, RunnerId};
use super::reason::Reason;
use super::time::Timestamp;

/// One request, recorded before anything is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    pub at: Timestamp,
    pub wish: Wish,
}

/// What is wished for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    ScaleUp { pool: PoolName, count: u32 },
    ScaleDown { pool: PoolName, count: u32 },
    Delete { runner: RunnerId, force: bool },
    Pause { pool: PoolName },
    Resume { pool: PoolName },
    Freeze,
    Unfreeze,
    Drain { host: HostId },
    Undrain { host: HostId },
    DrainReplica { replica: ReplicaId },
    UndrainReplica { replica: ReplicaId },
}

/// What became of an intent: how much of it was accepted, and why not all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub intent: IntentId,
    pub at: Timestamp,
    pub accepted: Vec<RunnerId>,
    pub reason: Option<Reason>,
}

/// What operators have set and nobody has taken back. Shared, newest wins.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Operator {
    /// Grows with every change. After a loss of the store the newest copy anybody kept wins.
    #[serde(default)]
    pub revision: u64,
    pub frozen_since: Option<Timestamp>,
    pub paused: BTreeSet<PoolName>,
    pub draining: BTreeSet<HostId>,
    /// Replicas that are to be taken away: they leave leading to the others, and the hosts
    /// they care for are drained with them.
    #[serde(default)]
    pub draining_replicas: BTreeSet<ReplicaId>,
    /// How each drain under way began; none of one that an older version wrote.
    #[serde(default)]
    pub drains: BTreeMap<HostId, DrainBegan>,
    pub boosts: Vec<Boost>,
    /// Deletes that live until the runner is reported gone.
    pub deletes: BTreeMap<RunnerId, PendingDelete>,
}

impl Operator {
    /// Whether a host gets nothing new: it is drained, or the replica that last reported
    /// it is.
    #[must_use]
    pub fn drains(&self, host: &HostRecord) -> bool {
        self.draining.contains(&host.host) || self.draining_replicas.contains(&host.replica)
    }

    /// Every host that is being drained, by itself or with its replica.
    #[must_use]
    pub fn drained_hosts<'a>(
        &self,
        records: impl Iterator<Item = &'a HostRecord>,
    ) -> BTreeSet<HostId> {
        let with_replica = records.filter(|record| self.drains(record)).map(|record| record.host);
        self.draining.iter().copied().chain(with_replica).collect()
    }
}

/// How it stood when the drain of a host began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainBegan {
    pub at: Timestamp,
    /// Runners that took up room there then.
    pub runners: u32,
}

/// Runners asked for by hand, kept until used or expired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Boost {
    pub intent: IntentId,
    pub pool: PoolName,
    pub left: u32,
    pub expires_at: Timestamp,
}

/// A delete that was accepted and is being carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PendingDelete {
    pub intent: IntentId,
    pub at: Timestamp,
    pub force: bool,
    /// Where it was then. Only that host can say that it is gone.
    #[serde(default)]
    pub host: Option<HostId>,
}
