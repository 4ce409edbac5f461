//! What may still be asked of GitHub, as the planner sees it.

use serde::{Deserialize, Serialize};

use super::id::ReplicaId;
use super::time::Timestamp;

/// The state of our GitHub budget at one instant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// Registrations that can be minted now without crossing the secondary limit.
    pub mints_now: u32,
    /// Primary limit: points left, of how many, and when it resets. `None` = not yet
    /// known (no answer with the headers so far) or switched off (GHES).
    pub remaining: Option<u64>,
    pub limit: Option<u64>,
    pub resets_at: Option<Timestamp>,
    /// GitHub told us to wait until then.
    pub blocked_until: Option<Timestamp>,
    /// Points spent in the running minute against the secondary limit.
    pub points_this_minute: u32,
}

impl Budget {
    /// A budget that holds nothing back: before the first answer, and in models.
    #[must_use]
    pub fn open(mints_now: u32) -> Self {
        Self {
            mints_now,
            remaining: None,
            limit: None,
            resets_at: None,
            blocked_until: None,
            points_this_minute: 0,
        }
    }
}

/// What one replica has spent of the budget that all share, and what GitHub told it. Each
/// replica writes its own and adds up the others'.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BudgetShare {
    pub replica: ReplicaId,
    pub at: Timestamp,
    /// Points spent against the secondary limit, by the second in which they were (store's
    /// time), of the last minute.
    pub spent: Vec<(Timestamp, u32)>,
    pub remaining: Option<u64>,
    pub limit: Option<u64>,
    pub resets_at: Option<Timestamp>,
    pub blocked_until: Option<Timestamp>,
    /// The share of the mints of a minute that may be used since GitHub last complained,
    /// in thousandths.
    pub mint_permille: u32,
}
