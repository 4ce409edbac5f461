//! The queued jobs of a repository: its runs that are queued or in progress, then their
//! jobs. A run in progress is no demand by itself, but may hold jobs that wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::answers::{Run, Waiting};
use super::budget::CallClass;
use super::pages::{Caller, Completeness, List, Memory};
use super::route::{Account, JOBS, RUNS, Route, repo_prefix};
use super::{GitHubError, QueueReading, QueuedJob};
use crate::fleet::id::RepoName;
use crate::fleet::time::Timestamp;

/// Pages of runs in one state: GitHub lists no more than 1,000 for a filter.
const RUN_PAGES_MAX: usize = 10;
/// Pages of jobs of one run: a matrix makes at most 256 jobs, a workflow a few of them.
const JOB_PAGES_MAX: usize = 20;
/// Runs whose jobs one reading asks for at the same time; the rest of the slots is for
/// registrations.
const RUNS_AT_ONCE: usize = 16;
/// A run that did not change and has no job waiting is not asked for its jobs again for
/// this long: a job that becomes ready without a change of its run is found by then.
const QUIET_RUN_REREAD: Duration = Duration::from_secs(30);
/// The step of GitHub's dates, and a second for clocks that differ.
const RUN_DATE_STEP: Duration = Duration::from_secs(2);
/// The jobs read last stand for a run that did not change at most this long.
const JOBS_AGE_MAX: Duration = Duration::from_secs(300);
/// Runs whose jobs are remembered, over all repositories.
const RUNS_REMEMBERED_MAX: usize = 20_000;
/// A repository seen active is read as one for this long afterwards.
pub(crate) const ACTIVE_FOR: Duration = Duration::from_secs(600);

/// What earlier readings found, per repository that had runs.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    runs: HashMap<RepoName, HashMap<u64, Known>>,
    active_at: HashMap<RepoName, Timestamp>,
    /// Repositories that are a pool's whole scope: never swept, always polled.
    polled: Vec<RepoName>,
}

/// A run's jobs as last read.
#[derive(Clone, Debug)]
struct Known {
    run: Run,
    read_at: Timestamp,
    waiting: Arc<[Waiting]>,
}

impl Known {
    /// Whether no job waited, and the run's own date would tell if one did since: GitHub's
    /// dates are whole seconds, so one that is as old as the reading tells nothing.
    fn is_quiet(&self) -> bool {
        let settled = |at| self.read_at.since(at) >= RUN_DATE_STEP;
        self.waiting.is_empty() && self.run.updated_at.is_some_and(settled)
    }
}

impl Queues {
    /// Marks a repository as a scope of its own: its queue is never shed as a sweep.
    pub(crate) fn poll_always(&self, repo: &RepoName) {
        let mut state = self.state();
        if !state.polled.contains(repo) {
            state.polled.push(repo.clone());
        }
    }

    /// Reads the queue of one repository.
    pub(crate) async fn read(
        &self,
        caller: &Caller,
        repo: &RepoName,
    ) -> Result<QueueReading, GitHubError> {
        let begun_at = caller.line.now();
        let reader = Reader { caller, account: &Account::Repo(repo.clone()), repo };
        let class = self.class(repo, begun_at);
        // Queued ones first: a run that starts meanwhile is then in both lists, not in none.
        let mut runs = BTreeMap::new();
        for status in ["queued", "in_progress"] {
            for run in reader.runs(status, class).await? {
                runs.insert(run.id, run);
            }
        }
        let known = self.state().runs.get(repo).cloned().unwrap_or_default();
        let found: Vec<Known> = stream::iter(runs.into_values())
            .map(|run| reader.waiting(run, known.get(&run.id), begun_at))
            .buffer_unordered(RUNS_AT_ONCE)
            .try_collect()
            .await?;
        let active = !found.is_empty();
        let jobs = jobs(&found, begun_at);
        self.keep(repo, found, begun_at);
        Ok(QueueReading { repo: repo.clone(), begun_at, jobs, active })
    }

    fn class(&self, repo: &RepoName, now: Timestamp) -> CallClass {
        let state = self.state();
        let active = state.active_at.get(repo).is_some_and(|at| now.since(*at) < ACTIVE_FOR);
        if active || state.polled.contains(repo) { CallClass::Queue } else { CallClass::Sweep }
    }

    fn keep(&self, repo: &RepoName, found: Vec<Known>, now: Timestamp) {
        let mut state = self.state();
        state.active_at.retain(|_, at| now.since(*at) < ACTIVE_FOR);
        if found.is_empty() {
            state.runs.remove(repo);
            return;
        }
        state.active_at.insert(repo.clone(), now);
        state
            .runs
            .insert(repo.clone(), found.into_iter().map(|known| (known.run.id, known)).collect());
        if state.runs.values().map(HashMap::len).sum::<usize>() > RUNS_REMEMBERED_MAX {
            // Forgetting costs calls, never correctness.
            state.runs.retain(|kept, _| kept == repo);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reading of one repository.
struct Reader<'a> {
    caller: &'a Caller,
    account: &'a Account,
    repo: &'a RepoName,
}

impl Reader<'_> {
    async fn runs(&self, status: &str, class: CallClass) -> Result<Vec<Run>, GitHubError> {
        let path = format!(
            "{}/actions/runs?status={status}&exclude_pull_requests=true",
            repo_prefix(self.repo)
        );
        self.list(RUNS, class, &path, RUN_PAGES_MAX).await
    }

    /// The jobs of a run that wait: read, unless nothing can have changed or the budget
    /// is short and the run has not changed.
    async fn waiting(
        &self,
        run: Run,
        known: Option<&Known>,
        now: Timestamp,
    ) -> Result<Known, GitHubError> {
        let unchanged = known.filter(|known| {
            run.updated_at.is_some() && known.run == run && now.since(known.read_at) < JOBS_AGE_MAX
        });
        let Some(known) = unchanged else {
            return self.read_waiting(run, CallClass::Queue).await;
        };
        if known.is_quiet() && now.since(known.read_at) < QUIET_RUN_REREAD {
            return Ok(known.clone());
        }
        match self.read_waiting(run, CallClass::Sweep).await {
            Err(GitHubError::Shed { .. }) => Ok(known.clone()),
            read => read,
        }
    }

    async fn read_waiting(&self, run: Run, class: CallClass) -> Result<Known, GitHubError> {
        let read_at = self.caller.line.now();
        let path = format!("{}/actions/runs/{}/jobs?filter=latest", repo_prefix(self.repo), run.id);
        let waiting: Vec<Waiting> = self.list(JOBS, class, &path, JOB_PAGES_MAX).await?;
        Ok(Known { run, read_at, waiting: waiting.into() })
    }

    async fn list<T: super::answers::Item>(
        &self,
        route: Route,
        class: CallClass,
        path: &str,
        pages_max: usize,
    ) -> Result<Vec<T>, GitHubError> {
        let list = List {
            account: self.account,
            route,
            class,
            path,
            pages_max,
            completeness: Completeness::AsFarAsRead,
            memory: Memory::Kept,
        };
        self.caller.list(list).await
    }
}

fn jobs(found: &[Known], begun_at: Timestamp) -> Vec<QueuedJob> {
    let mut jobs = BTreeMap::new();
    for known in found {
        for waiting in known.waiting.iter() {
            let job = QueuedJob {
                id: waiting.id,
                labels: waiting.labels.clone(),
                queued_at: waiting.queued_at.unwrap_or(begun_at),
                name: waiting.name.clone(),
                run_id: known.run.id,
            };
            jobs.insert(waiting.id, job);
        }
    }
    jobs.into_values().collect()
}
