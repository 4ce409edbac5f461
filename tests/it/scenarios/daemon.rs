//! One Docker daemon and its agent: the real `converge`, carried out at once.
//!
//! The executor does what the host loop does, in the same order, without waiting: a start
//! is created, started, minted and handed over in one step; a removal asks the hub first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runner_orchestrator::fleet::converge::{
    Action, Agent, Found, FoundState, Listing, Local, Stopping, Work, converge,
};
use runner_orchestrator::fleet::host::{Assigned, Assignment, HostRecord, RECORD_VERSION};
use runner_orchestrator::fleet::id::{BootId, ContainerId, HostId, PoolName, ReplicaId, RunnerId};
use runner_orchestrator::fleet::pool::Pool;
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::{Failure, RunnerPhase, RunnerRecord, Seen};
use runner_orchestrator::fleet::time::Timestamp;
use uuid::Uuid;

use super::hub::{Answer, Hub};

const BEAT_EVERY: Duration = Duration::from_secs(5);
const LIST_EVERY: Duration = Duration::from_secs(15);
const BUSY_BLOCKS: Duration = Duration::from_secs(600);
const RETRY_AFTER: Duration = Duration::from_secs(5);

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
    /// They once did: whatever was reported lost by it may live.
    pub(crate) lists_lied: bool,
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
            stopping: Stopping::No,
            local: BTreeMap::new(),
            refused: BTreeMap::new(),
            spent: BTreeSet::new(),
        };
        Self {
            agent,
            containers: BTreeMap::new(),
            silent: false,
            starts: Starts::Work,
            logs_readable: true,
            hidden: BTreeSet::new(),
            lists_lied: false,
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

    fn local(&mut self, id: RunnerId) -> Result<&mut Local, String> {
        self.agent.local.get_mut(&id).ok_or_else(|| format!("the agent does not know {id}"))
    }

    /// Moves a runner's phase; a move its life does not have is an error of the scenario.
    pub(crate) fn see(&mut self, id: RunnerId, seen: Seen, now: Timestamp) -> Result<(), String> {
        self.dirty = true;
        let local = self.local(id)?;
        let phase = local.record.phase.clone().observe(seen, now);
        local.record.phase = phase.map_err(|error| error.to_string())?;
        Ok(())
    }

    fn accept(&mut self, assigned: &Assigned, now: Timestamp) {
        let record = RunnerRecord {
            id: assigned.id,
            name: assigned.name.clone(),
            pool: assigned.pool.clone(),
            phase: RunnerPhase::Accepted { since: now },
            container: None,
            github_id: None,
            assigned_at: assigned.at,
            listened_at: None,
            revision: assigned.revision.clone(),
            correlation: assigned.correlation.clone(),
            retiring: None,
            retire_blocked_until: None,
            adopted: false,
        };
        self.insert(record, now);
    }

    fn insert(&mut self, record: RunnerRecord, now: Timestamp) {
        let id = record.id;
        self.agent.spent.insert(id);
        let local = Local { record, work: None, end_reported: None, missing: 0, not_before: now };
        self.agent.local.insert(id, local);
    }

    /// Create, start, mint, hand over.
    fn start(&mut self, id: RunnerId, outside: &mut Outside<'_>) -> Result<(), String> {
        let now = outside.now;
        match self.starts {
            Starts::Wait => self.local(id)?.work = Some(Work::Starting),
            Starts::Fail => {
                let failure = Failure::Start { message: "no space left on device".to_owned() };
                self.see(id, Seen::Failed(failure), now)?;
            }
            Starts::Work => self.hand_over(id, outside)?,
        }
        Ok(())
    }

    /// Goes through with a start.
    pub(crate) fn hand_over(
        &mut self,
        id: RunnerId,
        outside: &mut Outside<'_>,
    ) -> Result<(), String> {
        self.create(id, outside.now)?;
        if let Some(container) = self.containers.get_mut(&id) {
            container.found.state = FoundState::Alive;
        }
        self.see(id, Seen::Started, outside.now)?;
        let local = self.local(id)?;
        let pool = outside.pools.get(&local.record.pool).ok_or("no such pool")?;
        local.record.github_id = Some(outside.hub.register(&local.record.name, &pool.scope));
        local.work = None;
        self.see(id, Seen::Handed, outside.now)
    }

    /// Only creates the container.
    pub(crate) fn create(&mut self, id: RunnerId, now: Timestamp) -> Result<(), String> {
        if !self.ever_started.insert(id) {
            return Err(format!("{id} was started twice"));
        }
        self.see(id, Seen::Created, now)?;
        let local = self.local(id)?;
        let container = ContainerId(format!("container-{id}"));
        local.record.container = Some(container.clone());
        let found = Found {
            id: container,
            runner: id,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            state: FoundState::NeverStarted,
        };
        self.containers.insert(id, Container { found, lines: Vec::new(), exit_code: 0 });
        Ok(())
    }

    fn adopt(&mut self, found: &Found, now: Timestamp) -> Result<(), String> {
        let record = RunnerRecord {
            id: found.runner,
            name: found.name.clone(),
            pool: found.pool.clone(),
            phase: RunnerPhase::Unknown { since: now },
            container: Some(found.id.clone()),
            github_id: None,
            assigned_at: now,
            listened_at: None,
            revision: String::new(),
            correlation: String::new(),
            retiring: None,
            retire_blocked_until: None,
            adopted: true,
        };
        self.insert(record, now);
        if self.logs_readable {
            let lines = self.containers.get(&found.runner).map(|c| c.lines.clone());
            for line in lines.unwrap_or_default() {
                self.see(found.runner, line, now)?;
            }
        }
        Ok(())
    }

    /// The container has exited and the agent has noticed.
    pub(crate) fn exited(&mut self, id: RunnerId, outside: &mut Outside<'_>) -> Result<(), String> {
        let code = self.containers.remove(&id).map_or(0, |container| container.exit_code);
        let local = self.local(id)?;
        let ran_job = matches!(local.record.phase, RunnerPhase::Running { .. });
        let name = local.record.name.clone();
        self.see(id, Seen::Exited { code, oom: false }, outside.now)?;
        if !ran_job {
            outside.hub.delete(&name);
        }
        Ok(())
    }

    /// The only way to remove a live runner. An empty answer means it is gone.
    fn retire(
        &mut self,
        id: RunnerId,
        reason: Reason,
        force: bool,
        outside: &mut Outside<'_>,
    ) -> Result<&'static str, String> {
        let now = outside.now;
        let local = self.local(id)?;
        let phase = local.record.phase.clone();
        let (name, pool) = (local.record.name.clone(), local.record.pool.clone());
        let handed = phase.may_hold_registration();
        let asked = if !handed || force { Answer::Deleted } else { outside.hub.delete(&name) };
        let gone = match asked {
            Answer::Busy => {
                local.record.retire_blocked_until = Some(now + BUSY_BLOCKS);
                return Ok("busy");
            }
            Answer::Error => {
                local.not_before = now + RETRY_AFTER;
                return Ok("not_now");
            }
            Answer::Deleted => true,
            Answer::Absent => {
                let scope = &outside.pools.get(&pool).ok_or("no such pool")?.scope;
                let list = outside.hub.list(scope, now);
                let row = list.rows.into_iter().find(|row| row.name == name);
                !outside.hub.list_fails && row.is_none_or(|row| !row.busy && !row.online)
            }
        };
        if !gone {
            local.not_before = now + RETRY_AFTER;
            return Ok("not_now");
        }
        if outside.hub.takes_job_when_deleted.remove(&name) {
            self.line(id, Seen::JobLine, now)?;
        }
        let running = matches!(self.local(id)?.record.phase, RunnerPhase::Running { .. });
        if running && !force {
            return Ok("took_a_job");
        }
        self.remove(id, force)?;
        outside.hub.rows.remove(&name);
        self.see(id, Seen::Removed(reason), now)?;
        Ok("")
    }

    /// Removes a container; one that runs a job only by force.
    fn remove(&mut self, id: RunnerId, force: bool) -> Result<(), String> {
        let Some(container) = self.containers.remove(&id) else { return Ok(()) };
        let alive = container.found.state == FoundState::Alive;
        if alive && !force && container.lines.contains(&Seen::JobLine) {
            return Err(format!("{id} was removed while it ran a job"));
        }
        Ok(())
    }

    /// A line of the runner's output: into its log, and seen by its agent.
    pub(crate) fn line(&mut self, id: RunnerId, seen: Seen, now: Timestamp) -> Result<(), String> {
        if let Some(container) = self.containers.get_mut(&id) {
            container.lines.push(seen.clone());
        }
        self.see(id, seen, now)
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
            replica: ReplicaId(Uuid::nil()),
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
        })
    }
}
