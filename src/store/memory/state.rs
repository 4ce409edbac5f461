//! What the in-process store holds, with the same lifetimes as a Redis gives it.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::fleet::budget::BudgetShare;
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::Outcome;
use crate::store::{Lease, LeaseKey, OUTCOMES_FOR, OUTCOMES_KEPT, Snapshot, StoreError};

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) shared: Snapshot,
    pub(super) outcomes: BTreeMap<IntentId, Outcome>,
    /// In the order in which they were settled, and until when each is kept.
    pub(super) outcome_order: VecDeque<(IntentId, Instant)>,
    pub(super) leases: BTreeMap<LeaseKey, Held>,
    /// The last term given out of each lease, and until when it is remembered.
    pub(super) last_terms: BTreeMap<LeaseKey, (Term, Instant)>,
    /// No term is at or below it. Terms are forgotten with everything else; what only
    /// grows then is the time.
    pub(super) terms_above: Term,
    pub(super) replicas_until: BTreeMap<ReplicaId, Instant>,
    /// Until when each host's record is kept without another report, and its assignment
    /// without another plan.
    pub(super) hosts_until: BTreeMap<HostId, Instant>,
    pub(super) assignments_until: BTreeMap<HostId, Instant>,
    pub(super) shares: BTreeMap<ReplicaId, (BudgetShare, Instant)>,
    pub(super) put_by: BTreeMap<String, (BTreeMap<String, String>, Instant)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) replica: ReplicaId,
    pub(super) term: Term,
    pub(super) until: Instant,
}

impl Held {
    pub(super) fn answer(self) -> Lease {
        let expires_in = self.until.saturating_duration_since(Instant::now());
        Lease::HeldBy { replica: self.replica, term: self.term, expires_in }
    }
}

impl State {
    pub(super) fn held(&self, lease: LeaseKey) -> Option<Held> {
        self.leases.get(&lease).copied().filter(|held| held.until > Instant::now())
    }

    /// The fence: only the holder of this very term may write.
    pub(super) fn check(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        ours: Term,
    ) -> Result<(), StoreError> {
        match self.held(lease) {
            Some(held) if held.replica == replica && held.term == ours => Ok(()),
            Some(held) => Err(StoreError::Superseded { ours, current: held.term }),
            None => Err(StoreError::Superseded { ours, current: self.last_term(lease) }),
        }
    }

    pub(super) fn last_term(&self, lease: LeaseKey) -> Term {
        let last = self.last_terms.get(&lease).filter(|(_, until)| *until > Instant::now());
        last.map(|(term, _)| *term).unwrap_or_default()
    }

    pub(super) fn settle(&mut self, outcome: Outcome) {
        self.shared.intents.retain(|intent| intent.id != outcome.intent);
        self.outcome_order.push_back((outcome.intent, Instant::now() + OUTCOMES_FOR));
        self.outcomes.insert(outcome.intent, outcome);
        self.forget_outcomes();
    }

    pub(super) fn forget_outcomes(&mut self) {
        let now = Instant::now();
        while let Some((oldest, until)) = self.outcome_order.front()
            && (*until <= now || self.outcome_order.len() > OUTCOMES_KEPT)
        {
            self.outcomes.remove(oldest);
            self.outcome_order.pop_front();
        }
    }

    /// Forgets hosts that have been silent for so long that their records say nothing.
    pub(super) fn forget_hosts(&mut self) {
        let now = Instant::now();
        let silent: Vec<HostId> = self
            .hosts_until
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(host, _)| *host)
            .collect();
        for host in silent {
            self.hosts_until.remove(&host);
            self.shared.hosts.remove(&host);
        }
        // What was assigned to a host goes after the host.
        let Self { hosts_until, assignments_until, shared, .. } = self;
        assignments_until.retain(|host, until| {
            let kept = *until > now || hosts_until.contains_key(host);
            if !kept {
                shared.assignments.remove(host);
            }
            kept
        });
    }
}
