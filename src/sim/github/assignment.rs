//! The way of a job through a runner: assigned, started, renewed, ended, or queued again.

use super::ids::{JobId, RunnerId, Scope};
use super::jobs::{JobStatus, RanOn};
use super::runners::Assignment;
use super::state::World;
use super::unverified::Assumption;
use super::webhooks::Action;

/// What a listener is to do, answered to a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    GoOn,
    Cancel,
    Gone,
}

impl World {
    /// Gives queued jobs, oldest first, to matching idle runners, one each.
    pub(crate) fn dispatch(&mut self, now: u64) {
        if self.queue.is_empty() || self.idle.is_empty() {
            return;
        }
        let waiting: Vec<JobId> = self.queue.iter().map(|(_, id)| *id).collect();
        for job in waiting {
            if self.idle.is_empty() {
                return;
            }
            let matching: Vec<RunnerId> =
                self.idle.iter().copied().filter(|id| self.takes(*id, job)).collect();
            let pick = self.random.below(matching.len());
            if let Some(runner) = matching.get(pick) {
                self.assign(*runner, job, now);
            }
        }
    }

    /// Whether this runner may run this job: scope, group and labels.
    fn takes(&self, runner: RunnerId, job: JobId) -> bool {
        let (Some(runner), Some(job)) = (self.runners.get(&runner), self.jobs.get(&job)) else {
            return false;
        };
        let public = self.repos.get(&job.repo).is_some_and(|repo| !repo.private);
        let group_open = !public || self.settings.group_allows_public;
        let reaches = match &runner.scope {
            Scope::Repo(key) => *key == job.repo,
            Scope::Org(login) => *login == job.repo.owner() && group_open,
            Scope::Enterprise(_) => self.org(job.repo.owner()).is_some() && group_open,
        };
        reaches && runner.has_all(&job.labels)
    }

    fn assign(&mut self, runner_id: RunnerId, job_id: JobId, now: u64) {
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        let Some(runner) = self.runners.get_mut(&runner_id) else { return };
        self.queue.remove(&(job.queued_ms, job_id));
        job.assigned_ms = Some(now);
        runner.assignment = Some(Assignment { job: job_id, assigned_ms: now, started: false });
        if let Some(session) = &runner.session {
            session.wake.notify_one();
        }
        self.due(now.saturating_add(self.settings.pickup_deadline_ms));
        self.settle(runner_id, now);
    }

    /// Takes an assignment back and queues the job again, at its old place.
    pub(crate) fn requeue(&mut self, runner: RunnerId, job: JobId, now: u64) {
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.assignment = None;
        }
        if let Some(job) = self.jobs.get_mut(&job)
            && job.status == JobStatus::Queued
        {
            job.assigned_ms = None;
            job.requeues += 1;
            self.queue.insert((job.queued_ms, job.id));
        }
        self.settle(runner, now);
    }

    /// A runner starts the job it was given. False when it is not (or no longer) its own.
    pub(crate) fn start_job(&mut self, runner_id: RunnerId, job_id: JobId, now: u64) -> bool {
        let Some(runner) = self.runners.get_mut(&runner_id) else { return false };
        let Some(assignment) = runner.assignment.as_mut().filter(|a| a.job == job_id) else {
            return false;
        };
        runner.last_contact_ms = now;
        if assignment.started {
            return true;
        }
        assignment.started = true;
        let ran_on = RanOn { id: runner.id, name: runner.name.clone(), group_id: runner.group_id };
        let Some(job) = self.jobs.get_mut(&job_id) else { return false };
        job.status = JobStatus::InProgress;
        job.started_ms = Some(now);
        job.ran_on = Some(ran_on);
        job.attempts += 1;
        if let Some(run) = self.runs.get_mut(&job.run) {
            run.queued = run.queued.saturating_sub(1);
            run.running += 1;
            run.updated_ms = now;
        }
        self.due(now.saturating_add(self.settings.lost_after_ms));
        self.settle(runner_id, now);
        self.emit(job_id, Action::InProgress);
        true
    }

    /// A sign of life of the runner that runs this job.
    pub(crate) fn renew_job(&mut self, runner_id: RunnerId, job_id: JobId, now: u64) -> Renewal {
        let Some(runner) = self.runners.get_mut(&runner_id) else { return Renewal::Gone };
        if runner.assignment.is_none_or(|a| a.job != job_id || !a.started) {
            return Renewal::Gone;
        }
        runner.last_contact_ms = now;
        runner.online = true;
        self.settle(runner_id, now);
        match self.jobs.get(&job_id) {
            Some(job) if job.cancel_wanted => Renewal::Cancel,
            Some(_) => Renewal::GoOn,
            None => Renewal::Gone,
        }
    }

    /// The runner reports its job's end; the ephemeral registration goes with it.
    pub(crate) fn complete_job(
        &mut self,
        runner_id: RunnerId,
        job_id: JobId,
        result: &str,
        now: u64,
    ) -> bool {
        let owns = self.runners.get(&runner_id).and_then(|runner| runner.assignment);
        if owns.is_none_or(|a| a.job != job_id || !a.started) {
            return false;
        }
        self.end_job(job_id, conclusion_of(result), now);
        self.remove_runner(runner_id, now, "job_done");
        true
    }

    /// The runner of a started job vanished: GitHub fails the job and never requeues it.
    pub(crate) fn lose_job(&mut self, runner_id: RunnerId, job_id: JobId, now: u64) {
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.lost = true;
        }
        self.end_job(job_id, "failure", now);
        if self.settings.hostile.hostile(Assumption::LostRegistration) {
            if let Some(runner) = self.runners.get_mut(&runner_id) {
                runner.assignment = None;
                runner.online = false;
            }
            self.settle(runner_id, now);
        } else {
            self.remove_runner(runner_id, now, "lost");
        }
    }

    fn end_job(&mut self, id: JobId, conclusion: &'static str, now: u64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let was = job.status;
        if was == JobStatus::Completed {
            return;
        }
        self.queue.remove(&(job.queued_ms, id));
        job.status = JobStatus::Completed;
        job.conclusion = Some(conclusion);
        job.completed_ms = Some(now);
        if let Some(run) = self.runs.get_mut(&job.run) {
            match was {
                JobStatus::Queued => run.queued = run.queued.saturating_sub(1),
                JobStatus::InProgress => run.running = run.running.saturating_sub(1),
                JobStatus::Completed => (),
            }
            run.failed |= conclusion != "success";
            run.updated_ms = now;
        }
        self.emit(id, Action::Completed);
    }

    /// Cancels a job: at once when queued, through its runner when it runs.
    /// False when there is no such job or it has ended.
    pub(crate) fn cancel_job(&mut self, id: JobId, now: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        match job.status {
            JobStatus::Completed => false,
            JobStatus::InProgress => {
                job.cancel_wanted = true;
                true
            }
            JobStatus::Queued => {
                let holder =
                    self.runners.values().find(|r| r.assignment.is_some_and(|a| a.job == id));
                let holder = holder.map(|runner| runner.id);
                self.end_job(id, "cancelled", now);
                if let Some(runner) = holder {
                    self.requeue(runner, id, now);
                }
                self.dispatch(now);
                true
            }
        }
    }

    /// Fails what was queued longer than GitHub keeps it.
    pub(crate) fn expire_queue(&mut self, now: u64) {
        while let Some((queued_ms, id)) = self.queue.first().copied() {
            let expires = queued_ms.saturating_add(self.settings.queued_max_ms);
            if expires > now {
                self.due(expires);
                return;
            }
            self.end_job(id, "failure", now);
        }
    }
}

/// GitHub's conclusion for a runner's result word; what is unknown is a failure.
fn conclusion_of(result: &str) -> &'static str {
    match result {
        "Succeeded" | "SucceededWithIssues" => "success",
        "Canceled" => "cancelled",
        "Skipped" => "skipped",
        _ => "failure",
    }
}
