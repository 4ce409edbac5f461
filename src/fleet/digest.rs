//! What the leader knows and decided, for replicas that do not lead: what they show.
//! Nothing is decided from it; a new leader reads everything anew.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::host::RECORD_VERSION;
use super::id::Term;
use super::ledger::Ledger;
use super::plan::Plan;
use super::time::Timestamp;

/// The leader's last turn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Digest {
    pub version: u32,
    pub at: Timestamp,
    pub term: Term,
    pub ledger: Arc<Ledger>,
    pub plan: Arc<Plan>,
    pub budget: Budget,
}

impl Digest {
    /// The digest of one turn.
    #[must_use]
    pub fn new(
        at: Timestamp,
        term: Term,
        ledger: Arc<Ledger>,
        plan: Arc<Plan>,
        budget: Budget,
    ) -> Self {
        Self { version: RECORD_VERSION, at, term, ledger, plan, budget }
    }
}
