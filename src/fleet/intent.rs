//! What operators ask for. The API records intents; the loops carry them out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::{HostId, IntentId, PoolName, RunnerId};
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
    pub boosts: Vec<Boost>,
    /// Deletes that live until the runner is reported gone.
    pub deletes: BTreeMap<RunnerId, PendingDelete>,
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
