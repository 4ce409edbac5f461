//! The view: one consistent snapshot of all that is known, and what in it counts as
//! *occupied* and as *supply*. Nothing else counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::host::{Assigned, Assignments, HostRecord, HostRecords, Liveness, Retirement};
use super::id::{BootId, ClusterMark, HostId, PoolName, RunnerId, RunnerName};
use super::intent::{Intent, Operator};
use super::ledger::Ledger;
use super::policy::Policy;
use super::pool::{Pool, Scope};
use super::runner::{RunnerPhase, RunnerRecord};
use super::time::Timestamp;

/// What the store holds and this program cannot read: nothing may be decided of it, and
/// nothing written over it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Withheld {
    /// Hosts whose report or assignment is of another version or does not parse. An id in
    /// an assignment that we cannot read does not come to life unseen: an agent of our
    /// version cannot read it either, and one that has accepted it reports it.
    pub hosts: BTreeSet<HostId>,
    /// The operator state; the last copy that was read counts as it.
    pub operator: bool,
}

/// Everything `plan` decides from. What is large is shared: a view is made every turn, kept
/// for the API and told to the other replicas.
#[derive(Clone, Debug)]
pub struct View {
    pub cluster: ClusterMark,
    pub pools: Arc<BTreeMap<PoolName, Pool>>,
    pub hosts: HostRecords,
    pub assignments: Assignments,
    pub operator: Operator,
    pub intents: Vec<Intent>,
    pub ledger: Arc<Ledger>,
    pub budget: Budget,
    pub withheld: Withheld,
}

/// One runner as all witnesses together show it.
#[derive(Clone, Debug)]
pub struct RunnerView<'a> {
    pub id: RunnerId,
    pub name: &'a RunnerName,
    pub pool: &'a PoolName,
    pub host: HostId,
    pub phase: RunnerPhase,
    pub assigned: Option<&'a Assigned>,
    pub record: Option<&'a RunnerRecord>,
    pub retirement: Option<&'a Retirement>,
    /// The host's agent is still the boot it was assigned to.
    pub boot: BootId,
}

impl RunnerView<'_> {
    /// Takes up room: assigned, or a container not seen exited.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        !self.phase.is_terminal()
    }

    /// It is being removed, or its removal has been ordered.
    #[must_use]
    pub fn is_retiring(&self) -> bool {
        self.retirement.is_some() || self.record.is_some_and(|record| record.retiring.is_some())
    }

    /// GitHub said it is busy, or its own output did.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.phase, RunnerPhase::Running { .. })
    }
}

/// The runners of a view, merged by id.
#[derive(Clone, Debug)]
pub struct Roster<'a> {
    pub runners: BTreeMap<RunnerId, RunnerView<'a>>,
    /// Registrations of ours without any record: they take up room at GitHub.
    pub unclaimed: Vec<(&'a RunnerName, &'a super::registration::Listed)>,
}

impl View {
    /// Every runner, and the registrations that are none of theirs.
    #[must_use]
    pub fn roster(&self) -> Roster<'_> {
        let runners = self.runners();
        // Names are long and alike, so comparing them costs; nobody sees the set's order.
        let claimed: HashSet<&RunnerName> = runners.values().map(|runner| runner.name).collect();
        let unclaimed = self
            .ledger
            .registrations
            .listed()
            .iter()
            .filter(|(name, _)| !claimed.contains(*name))
            .filter(|(name, _)| !self.ledger.ended.contains_key(*name))
            .collect();
        Roster { runners, unclaimed }
    }

    /// Merges assignments and reports. The report of a host wins over the assignment: it
    /// is newer evidence of the same id.
    #[must_use]
    pub fn runners(&self) -> BTreeMap<RunnerId, RunnerView<'_>> {
        let mut runners: BTreeMap<RunnerId, RunnerView<'_>> = BTreeMap::new();
        for (host, assignment) in &self.assignments {
            for assigned in assignment.runners.values() {
                runners.insert(
                    assigned.id,
                    RunnerView {
                        id: assigned.id,
                        name: &assigned.name,
                        pool: &assigned.pool,
                        host: *host,
                        phase: RunnerPhase::Assigned { since: assigned.at },
                        assigned: Some(assigned),
                        record: None,
                        retirement: assignment.retire.get(&assigned.id),
                        boot: assigned.boot,
                    },
                );
            }
        }
        for (host, record) in self.reports() {
            let assignment = self.assignments.get(host);
            for runner in record.runners.values() {
                let assigned = assignment.and_then(|a| a.runners.get(&runner.id));
                runners.insert(
                    runner.id,
                    RunnerView {
                        id: runner.id,
                        name: &runner.name,
                        pool: &runner.pool,
                        host: *host,
                        phase: runner.phase.clone(),
                        assigned,
                        record: Some(runner),
                        retirement: assignment.and_then(|a| a.retire.get(&runner.id)),
                        boot: record.boot,
                    },
                );
            }
        }
        runners
    }

    /// The newest report of every host: as stored, or as remembered where the record has
    /// vanished from the store.
    pub fn reports(&self) -> impl Iterator<Item = (&HostId, &HostRecord)> {
        let vanished = self.ledger.remembered.iter();
        let vanished = vanished.filter(|(host, _)| !self.hosts.contains_key(*host));
        self.hosts.iter().chain(vanished).map(|(host, record)| (host, &**record))
    }

    /// Whether a host has ever reported to this leader.
    #[must_use]
    pub fn has_report(&self, host: &HostId) -> bool {
        self.hosts.contains_key(host) || self.ledger.remembered.contains_key(host)
    }

    /// How a host stands. One without a record is silent, however lately it was heard.
    #[must_use]
    pub fn liveness(&self, host: &HostId, policy: &Policy, now: Timestamp) -> Liveness {
        match self.ledger.liveness(host, policy, now) {
            Liveness::Live if !self.hosts.contains_key(host) => Liveness::Suspect,
            liveness => liveness,
        }
    }

    /// Whether a runner takes up room. On a lost host GitHub is the second witness: what
    /// its list does not show alive is placed anew.
    #[must_use]
    pub fn is_occupied(&self, runner: &RunnerView<'_>, policy: &Policy, now: Timestamp) -> bool {
        if !runner.is_occupied() {
            return false;
        }
        if self.liveness(&runner.host, policy, now) != Liveness::Lost {
            return true;
        }
        let registrations = &self.ledger.registrations;
        let readable = self.pools.get(runner.pool).is_some_and(|pool| {
            let scope = &pool.scope;
            registrations.is_fresh(scope, policy, now) && registrations.knows_missing(scope)
        });
        !readable || registrations.shows_alive(runner.name)
    }
}

/// What of a pool counts, at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Count {
    pub occupied: u32,
    pub supply: u32,
    pub running: u32,
    pub listening: u32,
    pub starting: u32,
    pub unknown: u32,
    pub retiring: u32,
    /// Registrations without a record, counted in `occupied`.
    pub unclaimed: u32,
}

impl<'a> Roster<'a> {
    /// Takes a runner out that left its assignment. A registration GitHub still lists for
    /// it takes up room all the same.
    pub fn release(&mut self, view: &'a View, id: RunnerId) {
        let Some(runner) = self.runners.remove(&id) else { return };
        if !view.ledger.ended.contains_key(runner.name) {
            let listed = view.ledger.registrations.listed().get_key_value(runner.name);
            self.unclaimed.extend(listed);
        }
    }
}

impl Roster<'_> {
    /// Whether a runner can take a job now or within its start deadline.
    #[must_use]
    pub fn is_supply(
        &self,
        runner: &RunnerView<'_>,
        view: &View,
        policy: &Policy,
        now: Timestamp,
    ) -> bool {
        if runner.is_retiring() || view.liveness(&runner.host, policy, now) == Liveness::Lost {
            return false;
        }
        let Some(pool) = view.pools.get(runner.pool) else { return false };
        match &runner.phase {
            // Without any report of its host it may have been accepted long ago.
            RunnerPhase::Assigned { since } => {
                now.since(*since) <= policy.accept_deadline || !view.has_report(&runner.host)
            }
            // Its agent makes progress only while its daemon answers.
            RunnerPhase::Accepted { .. }
            | RunnerPhase::Created { .. }
            | RunnerPhase::Started { .. } => {
                view.hosts.get(&runner.host).is_none_or(|record| record.docker_up)
            }
            RunnerPhase::Handed { since } => now.since(*since) <= pool.start_deadline,
            RunnerPhase::Listening { since } => {
                !view.ledger.registrations.denies(runner.name, *since, policy)
            }
            RunnerPhase::Running { .. }
            | RunnerPhase::Unknown { .. }
            | RunnerPhase::Ended { .. }
            | RunnerPhase::Failed { .. }
            | RunnerPhase::Retired { .. }
            | RunnerPhase::Lost { .. } => false,
        }
    }

    /// Counts every pool. A registration without a record is charged to the pools of its
    /// scope: it is one of theirs, and `MAX_RUNNERS` must hold whichever it is.
    #[must_use]
    pub fn count(&self, view: &View, policy: &Policy, now: Timestamp) -> BTreeMap<PoolName, Count> {
        let mut counts: BTreeMap<PoolName, Count> =
            view.pools.keys().map(|name| (name.clone(), Count::default())).collect();
        for runner in self.runners.values() {
            if !view.is_occupied(runner, policy, now) {
                continue;
            }
            let count = match counts.get_mut(runner.pool) {
                Some(count) => count,
                None => counts.entry(runner.pool.clone()).or_default(),
            };
            count.occupied += 1;
            count.supply += u32::from(self.is_supply(runner, view, policy, now));
            count.retiring += u32::from(runner.is_retiring());
            match runner.phase {
                RunnerPhase::Running { .. } => count.running += 1,
                RunnerPhase::Listening { .. } => count.listening += 1,
                RunnerPhase::Unknown { .. } => count.unknown += 1,
                _ => count.starting += 1,
            }
        }
        let mut unclaimed: BTreeMap<&Scope, u32> = BTreeMap::new();
        for (_, listed) in &self.unclaimed {
            *unclaimed.entry(&listed.scope).or_default() += 1;
        }
        for (name, pool) in view.pools.iter() {
            if let (Some(more), Some(count)) = (unclaimed.get(&pool.scope), counts.get_mut(name)) {
                count.occupied += more;
                count.unclaimed += more;
            }
        }
        counts
    }

    /// Every host that has reported or should have a runner.
    #[must_use]
    pub fn known_hosts(&self, view: &View) -> BTreeSet<HostId> {
        let with_runners = self.runners.values().map(|runner| runner.host);
        view.reports().map(|(host, _)| *host).chain(with_runners).collect()
    }

    /// How many runners take up room on each host that has any.
    #[must_use]
    pub fn occupied_by_host(&self) -> BTreeMap<HostId, u32> {
        let mut occupied: BTreeMap<HostId, u32> = BTreeMap::new();
        for runner in self.runners.values().filter(|runner| runner.is_occupied()) {
            *occupied.entry(runner.host).or_default() += 1;
        }
        occupied
    }
}
