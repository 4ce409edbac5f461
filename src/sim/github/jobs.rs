//! Jobs and runs, and how they come into the queue.

use serde::{Deserialize, Serialize};

use super::ids::{JobId, RepoKey, RunId, RunnerId};
use super::settings::seconds_to_ms;
use super::state::{JOBS_MAX, World};
use super::webhooks::Action;

/// Jobs one request may post.
pub(crate) const POST_JOBS_MAX: usize = 10_000;
/// Labels one job may ask for, as many as a runner may have.
pub(crate) const LABELS_MAX: usize = 100;

/// Where a job stands. An assigned job is still queued for the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waiting, assigned to a runner or not.
    Queued,
    /// A runner has started it.
    InProgress,
    /// Ended, see its conclusion.
    Completed,
}

impl JobStatus {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// The runner that a job was started on.
#[derive(Clone, Debug)]
pub(crate) struct RanOn {
    pub(crate) id: RunnerId,
    pub(crate) name: String,
    pub(crate) group_id: u64,
}

/// One job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) run: RunId,
    pub(crate) repo: RepoKey,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) duration_ms: u64,
    /// The result its runner reports when nothing disturbs it.
    pub(crate) result: String,
    pub(crate) status: JobStatus,
    pub(crate) conclusion: Option<&'static str>,
    pub(crate) queued_ms: u64,
    pub(crate) assigned_ms: Option<u64>,
    pub(crate) started_ms: Option<u64>,
    pub(crate) completed_ms: Option<u64>,
    pub(crate) ran_on: Option<RanOn>,
    pub(crate) attempts: u32,
    pub(crate) requeues: u32,
    pub(crate) lost: bool,
    pub(crate) cancel_wanted: bool,
}

/// One workflow run: a set of jobs posted together.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) repo: RepoKey,
    pub(crate) number: u64,
    pub(crate) jobs: Vec<JobId>,
    pub(crate) created_ms: u64,
    pub(crate) updated_ms: u64,
    pub(crate) queued: usize,
    pub(crate) running: usize,
    pub(crate) failed: bool,
}

impl Run {
    pub(crate) fn status(&self) -> JobStatus {
        match (self.queued, self.running) {
            (0, 0) => JobStatus::Completed,
            (queued, 0) if queued == self.jobs.len() => JobStatus::Queued,
            _ => JobStatus::InProgress,
        }
    }

    pub(crate) fn conclusion(&self) -> Option<&'static str> {
        let done = self.status() == JobStatus::Completed;
        done.then_some(if self.failed { "failure" } else { "success" })
    }
}

/// Jobs to queue, as `POST /_sim/jobs` takes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewJobs {
    /// How many.
    pub count: usize,
    /// Their `runs-on` labels, as written.
    pub labels: Vec<String>,
    /// How long each runs.
    pub duration_seconds: f64,
    /// How long the first, second … run, instead of `duration_seconds`.
    pub durations: Vec<f64>,
    /// `owner/name`, or a name under the first organisation; absent: the first repository.
    pub repo: Option<String>,
    /// Jobs in one run; absent: all in one.
    pub jobs_per_run: Option<usize>,
    /// The result their runner reports; absent: `Succeeded`.
    pub result: Option<String>,
    /// Their display name; absent: `build`, with a number when there are several.
    pub name: Option<String>,
}

impl Default for NewJobs {
    fn default() -> Self {
        Self {
            count: 1,
            labels: vec!["self-hosted".to_owned()],
            duration_seconds: 1.0,
            durations: Vec::new(),
            repo: None,
            jobs_per_run: None,
            result: None,
            name: None,
        }
    }
}

/// Why jobs were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobsRefused {
    /// `count` is 0 or above the limit of one request.
    #[error("count must be 1 to {POST_JOBS_MAX}")]
    Count,
    /// More labels than a runner may have.
    #[error("a job has at most {LABELS_MAX} labels")]
    Labels,
    /// The repository is not known and its owner neither.
    #[error("no such repository, and its owner is no organisation of this model")]
    Repo,
    /// The model holds as many unfinished jobs as it can.
    #[error("the model already holds {JOBS_MAX} jobs that are not completed")]
    Full,
}

impl World {
    /// Queues jobs and gives them to idle runners at once.
    pub(crate) fn post_jobs(&mut self, now: u64, new: &NewJobs) -> Result<Vec<JobId>, JobsRefused> {
        if new.count == 0 || new.count > POST_JOBS_MAX {
            return Err(JobsRefused::Count);
        }
        if new.labels.len() > LABELS_MAX {
            return Err(JobsRefused::Labels);
        }
        let repo = self.repo_for_jobs(new.repo.as_deref(), now).ok_or(JobsRefused::Repo)?;
        self.make_room(new.count)?;
        let per_run = new.jobs_per_run.unwrap_or(new.count).max(1);
        let mut ids = Vec::with_capacity(new.count);
        let mut run = None;
        for index in 0..new.count {
            if index % per_run == 0 {
                run = Some(self.add_run(&repo, now));
            }
            if let Some(run) = run {
                ids.push(self.add_job(&repo, run, index, new, now));
            }
        }
        if let Some(repo) = self.repos.get_mut(&repo) {
            repo.pushed_ms = now;
        }
        self.due(now.saturating_add(self.settings.queued_max_ms));
        for id in &ids {
            self.emit(*id, Action::Queued);
        }
        self.dispatch(now);
        Ok(ids)
    }

    fn repo_for_jobs(&mut self, wanted: Option<&str>, now: u64) -> Option<RepoKey> {
        let Some(text) = wanted else {
            let first = self.repos.values().min_by_key(|repo| repo.id)?;
            return Some(RepoKey::new(&first.owner, &first.name));
        };
        let owner = self.default_owner();
        let key = RepoKey::parse(text, &owner);
        if self.repos.contains_key(&key) {
            return Some(key);
        }
        let login = self.org(key.owner())?.login.clone();
        let name = text.rsplit_once('/').map_or(text, |(_, name)| name).to_owned();
        self.add_repo(&login, &name, now)
    }

    /// Forgets the oldest completed runs when the model is full.
    fn make_room(&mut self, wanted: usize) -> Result<(), JobsRefused> {
        while self.jobs.len() + wanted > JOBS_MAX {
            let oldest = self.runs.values().find(|run| run.status() == JobStatus::Completed);
            let run = oldest.cloned().ok_or(JobsRefused::Full)?;
            for job in &run.jobs {
                self.jobs.remove(job);
            }
            if let Some(repo) = self.repos.get_mut(&run.repo) {
                repo.runs.retain(|id| *id != run.id);
            }
            self.runs.remove(&run.id);
        }
        Ok(())
    }

    fn add_run(&mut self, repo: &RepoKey, now: u64) -> RunId {
        let id = RunId(self.next_id());
        let number = self.repos.get(repo).map_or(1, |repo| repo.runs.len() as u64 + 1);
        let run = Run {
            id,
            repo: repo.clone(),
            number,
            jobs: Vec::new(),
            created_ms: now,
            updated_ms: now,
            queued: 0,
            running: 0,
            failed: false,
        };
        self.runs.insert(id, run);
        if let Some(repo) = self.repos.get_mut(repo) {
            repo.runs.push(id);
        }
        id
    }

    fn add_job(
        &mut self,
        repo: &RepoKey,
        run: RunId,
        index: usize,
        new: &NewJobs,
        now: u64,
    ) -> JobId {
        let id = JobId(self.next_id());
        let base = new.name.as_deref().unwrap_or("build");
        let name = if new.count == 1 { base.to_owned() } else { format!("{base} ({})", index + 1) };
        let seconds = new.durations.get(index).copied().unwrap_or(new.duration_seconds);
        let job = Job {
            id,
            run,
            repo: repo.clone(),
            name,
            labels: new.labels.clone(),
            duration_ms: seconds_to_ms(seconds),
            result: new.result.clone().unwrap_or_else(|| "Succeeded".to_owned()),
            status: JobStatus::Queued,
            conclusion: None,
            queued_ms: now,
            assigned_ms: None,
            started_ms: None,
            completed_ms: None,
            ran_on: None,
            attempts: 0,
            requeues: 0,
            lost: false,
            cancel_wanted: false,
        };
        self.jobs.insert(id, job);
        if let Some(run) = self.runs.get_mut(&run) {
            run.jobs.push(id);
            run.queued += 1;
        }
        self.queue.insert((now, id));
        id
    }
}
