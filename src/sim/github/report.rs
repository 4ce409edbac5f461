//! What `GET /_sim/state` shows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::ids::{JobId, RunId, RunnerId};
use super::jobs::{Job, JobStatus};
use super::limits::LimitCrossings;
use super::runners::{Removed, Runner};
use super::settings::Settings;
use super::state::{Repo, World};
use super::webhooks::Delivered;
use crate::sim::clock::calendar;

/// The whole model at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateReport {
    /// Modelled time.
    pub now: DateTime<Utc>,
    /// Every job remembered, oldest first.
    pub jobs: Vec<JobReport>,
    /// Registrations that exist now.
    pub runners: Vec<RunnerReport>,
    /// Registrations that are gone, in the order they went.
    pub removed: Vec<Removed>,
    /// API requests by `<METHOD> <route template>`.
    pub calls: BTreeMap<String, u64>,
    /// Primary-limit points used.
    pub points: u64,
    /// Requests beyond a limit.
    pub limit_crossings: LimitCrossings,
    /// Faults that are switched on.
    pub faults: Vec<Fault>,
    /// The last webhook deliveries.
    pub deliveries: Vec<Delivered>,
    /// Deliveries that were dropped because too many waited.
    pub deliveries_dropped: u64,
    /// Current settings.
    pub settings: Settings,
}

/// One job in [`StateReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Its number.
    pub id: JobId,
    /// Its run's number.
    pub run_id: RunId,
    /// Its display name.
    pub name: String,
    /// `owner/name`.
    pub repo: String,
    /// `runs-on`.
    pub labels: Vec<String>,
    /// Where it stands.
    pub status: JobStatus,
    /// How it ended.
    pub conclusion: Option<String>,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// When it was last given to a runner.
    pub assigned_at: Option<DateTime<Utc>>,
    /// When a runner started it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// The runner that started it.
    pub runner_name: Option<String>,
    /// How often it was started: more than one is a job run twice.
    pub attempts: u32,
    /// How often it was queued again because its runner did not start it.
    pub requeues: u32,
    /// Its runner vanished while it ran.
    pub lost: bool,
}

/// One registration in [`StateReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerReport {
    /// Its number.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// `orgs/…`, `repos/…` or `enterprises/…`.
    pub scope: String,
    /// Its labels as stored.
    pub labels: Vec<String>,
    /// `online` or `offline`, without staleness.
    pub status: String,
    /// Whether it has a job.
    pub busy: bool,
    /// The job it was given.
    pub job_id: Option<JobId>,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When its listener first connected.
    pub connected_at: Option<DateTime<Utc>>,
    /// Planted by `/_sim/runners`.
    pub planted: bool,
}

impl World {
    pub(crate) fn report(&self, now: u64) -> StateReport {
        StateReport {
            now: calendar(now),
            jobs: self.jobs.values().map(|job| self.report_job(job)).collect(),
            runners: self
                .runners
                .values()
                .filter(|runner| !runner.hidden)
                .map(|runner| self.report_runner(runner))
                .collect(),
            removed: self.removed.iter().cloned().collect(),
            calls: self.calls.clone(),
            points: self.points,
            limit_crossings: self.limits.crossings,
            faults: self.faults.active().to_vec(),
            deliveries: self.outbox.log.iter().cloned().collect(),
            deliveries_dropped: self.outbox.dropped,
            settings: self.settings.clone(),
        }
    }

    fn report_job(&self, job: &Job) -> JobReport {
        JobReport {
            id: job.id,
            run_id: job.run,
            name: job.name.clone(),
            repo: self.repos.get(&job.repo).map(Repo::full_name).unwrap_or_default(),
            labels: job.labels.clone(),
            status: job.status,
            conclusion: job.conclusion.map(str::to_owned),
            queued_at: calendar(job.queued_ms),
            assigned_at: job.assigned_ms.map(calendar),
            started_at: job.started_ms.map(calendar),
            completed_at: job.completed_ms.map(calendar),
            runner_name: job.ran_on.as_ref().map(|on| on.name.clone()),
            attempts: job.attempts,
            requeues: job.requeues,
            lost: job.lost,
        }
    }

    fn report_runner(&self, runner: &Runner) -> RunnerReport {
        let seen = self.seen_now(runner);
        RunnerReport {
            id: runner.id,
            name: runner.name.clone(),
            scope: runner.scope.to_string(),
            labels: runner.labels.iter().map(|label| label.name.clone()).collect(),
            status: if seen.online { "online" } else { "offline" }.to_owned(),
            busy: seen.busy,
            job_id: runner.assignment.map(|assignment| assignment.job),
            created_at: calendar(runner.created_ms),
            connected_at: runner.connected_ms.map(calendar),
            planted: runner.planted_busy.is_some(),
        }
    }
}
