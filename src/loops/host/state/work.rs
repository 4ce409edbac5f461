//! Work under way for a runner: begun once, ended once, never two kinds at a time.

use tracing::{info, warn};

use super::super::remove::{ReapOrder, RetireOrder};
use super::super::start::StartOrder;
use super::super::{RETRY_AFTER, RetireEnd, StartEnd};
use super::{BUSY_BLOCKS, State};
use crate::fleet::converge::{Found, Stopping, Work};
use crate::fleet::id::{ContainerId, RunnerId};
use crate::fleet::reason::Reason;
use crate::fleet::runner::{RunnerPhase, Seen};
use crate::fleet::time::Timestamp;

impl State {
    /// Marks a start as under way and says what it needs to know.
    pub fn begin_start(&mut self, runner: RunnerId) -> Option<StartOrder> {
        if self.agent.stopping != Stopping::No {
            return None;
        }
        let (host, boot) = (self.agent.host, self.agent.boot);
        let local = self.agent.local.get_mut(&runner)?;
        let handle = self.handles.get(&runner)?;
        if local.work.is_some() || !matches!(local.record.phase, RunnerPhase::Accepted { .. }) {
            return None;
        }
        local.work = Some(Work::Starting);
        Some(StartOrder {
            runner,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            host,
            boot,
            term: self.term.0,
            correlation: local.record.correlation.clone(),
            cancel: handle.cancel.clone(),
            running: handle.running.clone(),
        })
    }

    pub fn cancel_start(&mut self, runner: RunnerId, reason: Reason) {
        if let (Some(local), Some(handle)) =
            (self.agent.local.get_mut(&runner), self.handles.get(&runner))
        {
            local.record.retiring = Some(reason);
            handle.cancel.cancel();
            self.dirty = true;
        }
    }

    pub fn start_ended(&mut self, runner: RunnerId, end: Option<StartEnd>, now: Timestamp) {
        self.work_ended_at = now;
        let Some(local) = self.agent.local.get_mut(&runner) else { return };
        local.work = None;
        local.not_before = now + RETRY_AFTER;
        let seen = match end {
            None => {
                // A cancellation that came too late: the usual way of removal takes over.
                local.not_before = now;
                local.record.retiring = None;
                return;
            }
            Some(StartEnd::Held) => return,
            Some(StartEnd::Failed(failure)) => Seen::Failed(failure),
            Some(StartEnd::Cancelled) => {
                let reason = local.record.retiring.clone().unwrap_or(Reason::NeverStarted);
                Seen::Removed(reason)
            }
        };
        self.seen(runner, seen, now);
    }

    /// Marks a removal as under way and says what it needs to know.
    pub fn begin_retire(
        &mut self,
        runner: RunnerId,
        reason: Reason,
        force: bool,
    ) -> Option<RetireOrder> {
        let local = self.agent.local.get_mut(&runner)?;
        let handle = self.handles.get(&runner)?;
        local.work = Some(Work::Retiring);
        local.record.retiring = Some(reason.clone());
        self.dirty = true;
        Some(RetireOrder {
            runner,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            scope: local.record.scope.clone(),
            container: local.record.container.clone(),
            github_id: local.record.github_id,
            may_hold_registration: local.record.phase.may_hold_registration(),
            since: local.record.phase.since(),
            reason,
            force,
            running: handle.running.subscribe(),
        })
    }

    pub fn retire_ended(&mut self, runner: RunnerId, end: RetireEnd, now: Timestamp) {
        self.work_ended_at = now;
        let Some(local) = self.agent.local.get_mut(&runner) else { return };
        local.work = None;
        self.dirty = true;
        match end {
            RetireEnd::Removed => return,
            RetireEnd::Busy => local.record.retire_blocked_until = Some(now + BUSY_BLOCKS),
            RetireEnd::TookAJob | RetireEnd::NotNow => local.not_before = now + RETRY_AFTER,
        }
        local.record.retiring = None;
        info!(runner.id = %runner, outcome = ?end, "runner stays");
    }

    /// Marks an exit as being looked into.
    pub fn begin_settling(&mut self, runner: RunnerId) -> Option<ContainerId> {
        let local = self.agent.local.get(&runner)?;
        let being_removed = matches!(local.work, Some(Work::Retiring | Work::Reaping));
        let starting = local.work == Some(Work::Starting);
        if local.record.phase.is_terminal() || being_removed || starting {
            return None;
        }
        let container = local.record.container.clone()?;
        self.settling.insert(runner).then_some(container)
    }

    pub fn settling_ended(&mut self, runner: RunnerId) {
        self.settling.remove(&runner);
    }

    /// The container exited: the runner's life is over, its container is to be removed.
    pub fn exited(
        &mut self,
        runner: RunnerId,
        code: i64,
        oom: bool,
        now: Timestamp,
    ) -> Option<ReapOrder> {
        self.settling.remove(&runner);
        let local = self.agent.local.get(&runner)?;
        if local.record.phase.is_terminal() || local.work.is_some() {
            return None;
        }
        let ran_job = matches!(local.record.phase, RunnerPhase::Running { .. });
        self.seen(runner, Seen::Exited { code, oom }, now);
        let local = self.agent.local.get_mut(&runner)?;
        local.work = Some(Work::Reaping);
        Some(ReapOrder {
            runner,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            scope: local.record.scope.clone(),
            container: local.record.container.clone()?,
            github_id: local.record.github_id,
            ran_job,
        })
    }

    pub fn reap_ended(&mut self, runner: RunnerId, result: Result<(), String>, now: Timestamp) {
        self.work_ended_at = now;
        if let Some(local) = self.agent.local.get_mut(&runner) {
            local.work = None;
            if let Err(error) = result {
                warn!(runner.id = %runner, error, "an ended runner's container stays for now");
                local.not_before = now + RETRY_AFTER;
            }
        }
    }

    /// Whether it is not under way already.
    pub fn begin_discard(&mut self, found: &Found) -> bool {
        self.agent.discarding.insert(found.id.clone(), found.state).is_none()
    }

    pub fn discard_ended(&mut self, container: &ContainerId, now: Timestamp) {
        self.work_ended_at = now;
        self.agent.discarding.remove(container);
    }
}
