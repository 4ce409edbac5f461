//! One Docker daemon and its agent: the real `converge`, carried out at once.
//!
//! The executor does what the host loop does, in the same order, without waiting: a start
//! is created, started, minted and handed over in one step; a removal asks the hub first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runner_orchestrator::fleet::converge::{Action, Agent, Found, Listing, Stopping, converge};
use runner_orchestrator::fleet::host::{Assignment, Capacity, HostRecord, RECORD_VERSION};
use runner_orchestrator::fleet::id::{BootId, HostId, PoolName, ReplicaId, RunnerId};
use runner_orchestrator::fleet::pool::Pool;
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::Seen;
use runner_orchestrator::fleet::time::Timestamp;
use uuid::Uuid;

use super::hub::Hub;

const BEAT_EVERY: Duration = Duration::from_secs(5);
const LIST_EVERY: Duration = Duration::from_secs(15);

/// How the daemon treats starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Starts {
    Work,
    /// They wait in the agent's queue.
    Wait,
    Fail,
}

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) found: Found,
    /// What its log holds so far.
    pub(crate) lines: Vec<Seen>,
    pub(crate) exit_code: i64,
}

/// What an agent did, to which runner, and more about it.
pub(crate) type Told = (&'static str, RunnerId, &'static str);

/// Everything of GitHub and configuration a daemon needs for its work.
pub(crate) struct Outside<'a> {
    pub(crate) hub: &'a mut Hub,
    pub(crate) pools: &'a BTreeMap<PoolName, Pool>,
    pub(crate) now: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) agent: Agent,
    pub(crate) containers: BTreeMap<RunnerId, Container>,
    /// It neither reports nor reads: cut off from the store.
    pub(crate) silent: bool,
    pub(crate) starts: Starts,
    pub(crate) logs_readable: bool,
    /// Containers that lists leave out although they run.
    pub(crate) hidden: BTreeSet<RunnerId>,
    /// Those they ever left out: whatever was reported lost by it may live.
    pub(crate) ever_hidden: BTreeSet<RunnerId>,
    /// Ids that ever had a container, to show that none has two.
    pub(crate) ever_started: BTreeSet<RunnerId>,
    seq: u64,
    dirty: bool,
    reported_at: Option<Timestamp>,
    listed_at: Option<Timestamp>,
    boots: u128,
}

impl Daemon {
    pub(crate) fn new(host: HostId, room: u32, pools: &BTreeMap<PoolName, Pool>) -> Self {
        let agent = Agent {
            host,
            boot: BootId(Uuid::from_u128(host.0.as_u128() + 1)),
            max_runners: room,
            pools: pools.iter().map(|(name, pool)| (name.clone(), pool.image.clone())).collect(),
            images: pools.values().map(|pool| pool.image.clone()).collect(),
            docker_up: true,
            capacity: Capacity::default(),
            stopping: Stopping::No,
            local: BTreeMap::new(),
            refused: BTreeMap::new(),
            spent: BTreeSet::new(),
            discarding: BTreeMap::new(),
        };
        Self {
            agent,
            containers: BTreeMap::new(),
            silent: false,
            starts: Starts::Work,
            logs_readable: true,
            hidden: BTreeSet::new(),
            ever_hidden: BTreeSet::new(),
            ever_started: BTreeSet::new(),
            seq: 0,
            dirty: true,
            reported_at: None,
            listed_at: None,
            boots: 1,
        }
    }

    /// The agent's process starts anew; the containers stay.
    pub(crate) fn restart(&mut self) {
        self.boots += 1;
        self.agent.boot = BootId(Uuid::from_u128(self.agent.host.0.as_u128() + self.boots));
        self.agent.local.clear();
        self.agent.refused.clear();
        self.agent.spent.clear();
        self.agent.stopping = Stopping::No;
        (self.seq, self.listed_at, self.reported_at, self.dirty) = (0, None, None, true);
    }

    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn list_now(&mut self) {
        self.listed_at = None;
    }

    /// One turn. Returns what it did, as lines of a scenario.
    pub(crate) fn turn(
        &mut self,
        assignment: &Assignment,
        outside: &mut Outside<'_>,
    ) -> Result<Vec<Told>, String> {
        let mut told = Vec::new();
        let mut listing = self.list(outside.now);
        let now = outside.now;
        for _ in 0..2 {
            let actions = converge(&self.agent, assignment, now, listing.take().as_ref(), now);
            for action in actions {
                self.act(action, outside, &mut told)?;
            }
        }
        // Whatever it does a third time it would do for ever.
        let again = converge(&self.agent, assignment, now, None, now);
        if let Some(action) = again.first() {
            return Err(format!("the agent does not come to rest: {action:?}"));
        }
        self.prune(assignment);
        Ok(told)
    }

    fn prune(&mut self, assignment: &Assignment) {
        let agent = &mut self.agent;
        agent.refused.retain(|id, _| assignment.runners.contains_key(id));
    }

    fn list(&mut self, now: Timestamp) -> Option<Listing> {
        let due = self.listed_at.is_none_or(|at| now.since(at) >= LIST_EVERY);
        if !due || !self.agent.docker_up {
            return None;
        }
        self.listed_at = Some(now);
        let containers: Vec<Found> = self
            .containers
            .values()
            .map(|container| container.found.clone())
            .filter(|found| !self.hidden.contains(&found.runner))
            .collect();
        for (id, local) in &mut self.agent.local {
            if containers.iter().any(|found| found.runner == *id) {
                local.missing = 0;
            } else if local.record.phase.since() < now {
                local.missing = local.missing.saturating_add(1);
            }
        }
        Some(Listing { begun_at: now, containers })
    }

    fn act(
        &mut self,
        action: Action,
        outside: &mut Outside<'_>,
        told: &mut Vec<Told>,
    ) -> Result<(), String> {
        let mut tell = |what: &'static str, id: RunnerId, more: &'static str| {
            told.push((what, id, more));
        };
        self.dirty = true;
        match action {
            Action::Accept(assigned) => {
                if assigned.boot != self.agent.boot {
                    return Err(format!("accepted {} of another boot", assigned.id));
                }
                self.accept(&assigned, outside.now);
                self.start(assigned.id, outside)?;
            }
            Action::Start(id) => self.start(id, outside)?,
            Action::Refuse { runner, refusal } => {
                tell("refuses", runner, refusal.code());
                self.agent.refused.insert(runner, refusal);
            }
            Action::CancelStart { runner, reason } => {
                tell("cancels", runner, "");
                self.local(runner)?.work = None;
                self.see(runner, Seen::Removed(reason), outside.now)?;
                self.containers.remove(&runner);
            }
            Action::Retire { runner, reason, force } => {
                let end = self.retire(runner, reason, force, outside)?;
                tell(if end.is_empty() { "removes" } else { "keeps" }, runner, end);
            }
            Action::Reap(runner) => {
                tell("reaps", runner, "");
                self.exited(runner, outside)?;
            }
            Action::Adopt(found) => {
                tell("adopts", found.runner, "");
                self.adopt(&found, outside.now)?;
            }
            Action::Discard(found) => {
                tell("discards", found.runner, "");
                self.remove(found.runner, false)?;
                if outside.hub.rows.contains_key(&found.name) {
                    outside.hub.delete(&found.name);
                }
            }
            Action::ReportLost(runner) => {
                tell("loses", runner, "");
                let reason = Reason::HostLost { host: self.agent.host };
                self.see(runner, Seen::Lost(reason), outside.now)?;
            }
            Action::Forget(runner) => {
                self.agent.local.remove(&runner);
            }
        }
        Ok(())
    }

    /// The process that cares for it; another after every restart.
    pub(crate) fn replica(&self) -> ReplicaId {
        ReplicaId(self.agent.boot.0)
    }

    /// The report, when one is due.
    pub(crate) fn report(&mut self, now: Timestamp) -> Option<HostRecord> {
        let due = self.reported_at.is_none_or(|at| now.since(at) >= BEAT_EVERY);
        if !self.dirty && !due {
            return None;
        }
        self.seq += 1;
        self.dirty = false;
        self.reported_at = Some(now);
        for local in self.agent.local.values_mut() {
            if local.record.phase.is_terminal() {
                local.end_reported.get_or_insert(self.seq);
            }
        }
        let agent = &self.agent;
        Some(HostRecord {
            version: RECORD_VERSION,
            host: agent.host,
            boot: agent.boot,
            replica: self.replica(),
            seq: self.seq,
            at: now,
            hostname: String::new(),
            docker_version: None,
            docker_up: agent.docker_up,
            stopping: agent.stopping != Stopping::No,
            max_runners: agent.max_runners,
            images: agent.images.clone(),
            runners: agent.local.iter().map(|(id, local)| (*id, local.record.clone())).collect(),
            refused: agent.refused.clone(),
            capacity: self.agent.capacity.clone(),
        })
    }
}
