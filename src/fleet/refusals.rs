//! Hosts that hand back what they are assigned: after a few of it in a short time a host
//! is left alone for a while, so that its runners come to live elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::host::{Assignments, HostRecords};
use super::id::{HostId, PoolName, RunnerId};
use super::policy::Policy;
use super::reason::Refusal;
use super::time::Timestamp;

/// What hosts have handed back lately, by host and pool: a host that does not know a pool
/// yet may serve every other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Refusals {
    of: BTreeMap<HostId, BTreeMap<PoolName, Refusing>>,
}

/// One host's refusals of one pool.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Refusing {
    recent: BTreeMap<RunnerId, Timestamp>,
    /// Nothing of the pool is assigned there until then, and why.
    left_alone: Option<(Timestamp, Refusal)>,
}

impl Refusing {
    fn note(&mut self, runner: RunnerId, refusal: Refusal, policy: &Policy, now: Timestamp) {
        if self.recent.contains_key(&runner) {
            return;
        }
        self.recent.insert(runner, now);
        if self.recent.len() >= policy.refusals_most {
            self.left_alone = Some((now + policy.refusals_window, refusal));
        }
    }

    /// Drops what is no longer recent. Whether anything is left.
    fn age(&mut self, policy: &Policy, now: Timestamp) -> bool {
        self.recent.retain(|_, at| now.since(*at) < policy.refusals_window);
        self.left_alone = self.left_alone.filter(|(until, _)| now < *until);
        !self.recent.is_empty() || self.left_alone.is_some()
    }
}

impl Refusals {
    /// Takes in what the hosts' newest reports hand back, each id once.
    pub fn note(
        &mut self,
        records: &HostRecords,
        assignments: &Assignments,
        policy: &Policy,
        now: Timestamp,
    ) {
        for (host, record) in records {
            let Some(assignment) = assignments.get(host) else { continue };
            for (runner, refusal) in &record.refused {
                // A host that stops says so itself, and comes back as another boot.
                // One that was out of reach says nothing of the pool either.
                if matches!(refusal, Refusal::Stopping | Refusal::Late) {
                    continue;
                }
                let Some(assigned) = assignment.runners.get(runner) else { continue };
                let pools = self.of.entry(*host).or_default();
                let refusing = pools.entry(assigned.pool.clone()).or_default();
                refusing.note(*runner, *refusal, policy, now);
            }
        }
        self.of.retain(|_, pools| {
            pools.retain(|_, refusing| refusing.age(policy, now));
            !pools.is_empty()
        });
    }

    /// Why a host gets nothing of a pool now, if it has handed back too much of it.
    #[must_use]
    pub fn forbid(&self, host: &HostId, pool: &PoolName, now: Timestamp) -> Option<Refusal> {
        let (until, refusal) = self.of.get(host)?.get(pool)?.left_alone?;
        (now < until).then_some(refusal)
    }
}
