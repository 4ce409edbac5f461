//! What a daemon's agent does, step by step, without waiting: the order is the host loop's.

use std::time::Duration;

use runner_orchestrator::fleet::converge::{Found, FoundState, Local, Work};
use runner_orchestrator::fleet::host::Assigned;
use runner_orchestrator::fleet::id::{ContainerId, RunnerId};
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::{Failure, RunnerPhase, RunnerRecord, Seen};
use runner_orchestrator::fleet::time::Timestamp;

use super::daemon::{Container, Daemon, Outside, Starts};
use super::hub::Answer;

const BUSY_BLOCKS: Duration = Duration::from_secs(600);
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Daemon {
    pub(crate) fn local(&mut self, id: RunnerId) -> Result<&mut Local, String> {
        self.agent.local.get_mut(&id).ok_or_else(|| format!("the agent does not know {id}"))
    }

    /// Moves a runner's phase; a move its life does not have is an error of the scenario.
    pub(crate) fn see(&mut self, id: RunnerId, seen: Seen, now: Timestamp) -> Result<(), String> {
        self.touch();
        let local = self.local(id)?;
        let phase = local.record.phase.clone().observe(seen, now);
        local.record.phase = phase.map_err(|error| error.to_string())?;
        Ok(())
    }

    pub(crate) fn accept(&mut self, assigned: &Assigned, now: Timestamp) {
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
            scope: None,
        };
        self.insert(record, now);
    }

    pub(crate) fn insert(&mut self, record: RunnerRecord, now: Timestamp) {
        let id = record.id;
        self.agent.spent.insert(id);
        let local = Local { record, work: None, end_reported: None, missing: 0, not_before: now };
        self.agent.local.insert(id, local);
    }

    /// Create, start, mint, hand over.
    pub(crate) fn start(&mut self, id: RunnerId, outside: &mut Outside<'_>) -> Result<(), String> {
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
            scope: None,
            state: FoundState::NeverStarted,
        };
        self.containers.insert(id, Container { found, lines: Vec::new(), exit_code: 0 });
        Ok(())
    }

    pub(crate) fn adopt(&mut self, found: &Found, now: Timestamp) -> Result<(), String> {
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
            scope: found.scope.clone(),
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
    pub(crate) fn retire(
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
                let alive = match list.rows.into_iter().find(|row| row.name == name) {
                    Some(row) => row.busy || row.online,
                    None if list.stillness.is_still() => false,
                    // The list of its name alone holds still.
                    None => outside.hub.rows.get(&name).is_some_and(|row| row.busy || row.online),
                };
                !alive && !outside.hub.list_fails
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
    pub(crate) fn remove(&mut self, id: RunnerId, force: bool) -> Result<(), String> {
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
}
