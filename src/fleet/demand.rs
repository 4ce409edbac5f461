//! Demand: the *set* of queued jobs, each with the age of the evidence for it. Never a
//! counter, and a repository that was not read is not an empty one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{JobId, PoolName, RepoName, RunnerId};
use super::policy::Policy;
use super::pool::{Labels, Pool, Router, Scope};
use super::time::Timestamp;

/// A job that waits, as last read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitingJob {
    pub id: JobId,
    pub repo: RepoName,
    pub labels: Labels,
    pub queued_at: Timestamp,
    pub name: String,
    /// The start of the reading, or the instant of the event, that last showed it queued.
    pub evidence: Timestamp,
}

/// A runner took *some* job at this instant; which one GitHub has not told yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Edge {
    pool: PoolName,
    at: Timestamp,
    cancels: Option<(JobId, RepoName)>,
}

/// How a repository's last readings went.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepoState {
    /// The start of the last reading that succeeded.
    pub read_at: Option<Timestamp>,
    /// Since when readings fail, if they do.
    pub unread_since: Option<Timestamp>,
    pub error: Option<String>,
}

impl RepoState {
    /// Unreadable, and not yet so long that it is left out.
    fn is_unread(&self, policy: &Policy, now: Timestamp) -> bool {
        self.unread_since.is_some_and(|since| now.since(since) <= policy.unread_repo_blocks)
    }
}

/// Why a scope's queue is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unread {
    /// No repository of the scope was ever read.
    Never,
    /// This one cannot be read.
    Repo(RepoName),
}

/// Jobs GitHub has not given to a runner that listened for minutes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Unassigned {
    until: Timestamp,
    tries: u32,
}

/// Everything known of the queues.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DemandBook {
    jobs: BTreeMap<JobId, WaitingJob>,
    repos: BTreeMap<RepoName, RepoState>,
    edges: BTreeMap<RunnerId, Edge>,
    unassigned: BTreeMap<JobId, Unassigned>,
}

/// An edge that cancels no job is forgotten after this long: a reading begun before it has
/// long arrived or never will. One that cancels a job stays until the job's repository is
/// read again, however long that takes; there are never more of them than jobs.
const EDGE_MEMORY: Duration = Duration::from_secs(300);

/// The jobs that wait for one pool.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PoolDemand {
    /// Queued, less those a runner has taken since and those GitHub does not assign.
    pub waiting: Vec<JobId>,
    /// Queued by the last reading, but a runner has taken one since.
    pub cancelled: Vec<JobId>,
    pub not_assigned: Vec<JobId>,
    /// When the oldest of `waiting` was queued, and which it is.
    pub oldest: Option<(Timestamp, JobId)>,
}

impl PoolDemand {
    /// How many are queued by the last reading: those a runner has taken since included.
    #[must_use]
    pub fn queued_count(&self) -> u32 {
        u32::try_from(self.waiting.len() + self.cancelled.len()).unwrap_or(u32::MAX)
    }

    /// How many jobs wait.
    #[must_use]
    pub fn waiting_count(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }
}

impl DemandBook {
    /// Takes in a complete reading of one repository, true as of `begun_at`. It removes
    /// only jobs whose last evidence is older than it.
    pub fn read(&mut self, repo: &RepoName, begun_at: Timestamp, jobs: Vec<WaitingJob>) {
        let state = self.repos.entry(repo.clone()).or_default();
        if state.read_at.is_some_and(|read| read > begun_at) {
            return;
        }
        state.read_at = Some(begun_at);
        state.unread_since = None;
        state.error = None;
        self.jobs.retain(|_, job| job.repo != *repo || job.evidence > begun_at);
        for job in jobs {
            self.jobs.entry(job.id).or_insert(job);
        }
        let jobs = &self.jobs;
        let repos = &self.repos;
        self.edges.retain(|_, edge| match &edge.cancels {
            // A reading begun after the edge says itself which jobs still wait.
            Some((_, of)) if of == repo && begun_at > edge.at => false,
            Some((job, _)) => {
                // One begun before it has shown that it was another job.
                if !jobs.contains_key(job) {
                    edge.cancels = None;
                }
                true
            }
            None => repos.values().any(|state| state.read_at.is_none_or(|at| at <= edge.at)),
        });
        self.unassigned.retain(|job, _| jobs.contains_key(job));
    }

    /// Notes that a repository could not be read. What was known of it stays.
    pub fn unread(&mut self, repo: &RepoName, at: Timestamp, error: String) {
        let state = self.repos.entry(repo.clone()).or_default();
        state.unread_since.get_or_insert(at);
        state.error = Some(error);
    }

    /// Notes that these repositories exist: one never read is unknown, not empty.
    pub fn await_reading(&mut self, repos: &[RepoName], now: Timestamp) {
        for repo in repos {
            self.repos
                .entry(repo.clone())
                .or_insert_with(|| RepoState { unread_since: Some(now), ..RepoState::default() });
        }
    }

    /// Drops what is known of repositories that no longer belong to any scope.
    pub fn keep_only(&mut self, repos: &[RepoName]) {
        let repos: BTreeSet<&RepoName> = repos.iter().collect();
        self.repos.retain(|repo, _| repos.contains(repo));
        self.jobs.retain(|_, job| repos.contains(&job.repo));
        for edge in self.edges.values_mut() {
            if edge.cancels.as_ref().is_some_and(|(_, repo)| !repos.contains(repo)) {
                edge.cancels = None;
            }
        }
    }

    /// Notes that a runner of `pool` went to `running`: one waiting job is no longer
    /// waiting, although no reading says so yet.
    pub fn runner_took_job(&mut self, runner: RunnerId, pool: PoolName, at: Timestamp) {
        self.edges.entry(runner).or_insert(Edge { pool, at, cancels: None });
    }

    /// Matches edges with jobs and forgets old ones. Each edge cancels the waiting job
    /// whose reading is oldest among those begun before it.
    pub fn settle(&mut self, pools: &BTreeMap<PoolName, Pool>, now: Timestamp) {
        self.edges.retain(|_, edge| edge.cancels.is_some() || now.since(edge.at) < EDGE_MEMORY);
        let mut open: Vec<(Timestamp, RunnerId)> = self
            .edges
            .iter()
            .filter(|(_, edge)| edge.cancels.is_none())
            .map(|(runner, edge)| (edge.at, *runner))
            .collect();
        if open.is_empty() {
            return;
        }
        open.sort_unstable();
        let taken = self.cancelled();
        let mut router = Router::new(pools);
        let mut free: BTreeMap<&PoolName, BTreeSet<(Timestamp, Timestamp, JobId)>> =
            BTreeMap::new();
        for job in self.jobs.values().filter(|job| !taken.contains(&job.id)) {
            if let Some(pool) = router.route(&job.repo, &job.labels) {
                free.entry(&pool.name).or_default().insert((job.evidence, job.queued_at, job.id));
            }
        }
        for (at, runner) in open {
            let Some(edge) = self.edges.get_mut(&runner) else { continue };
            let Some(jobs) = free.get_mut(&edge.pool) else { continue };
            let oldest = jobs.first().copied().filter(|(evidence, ..)| *evidence <= at);
            if let Some(job) = oldest {
                jobs.remove(&job);
                edge.cancels = self.jobs.get(&job.2).map(|found| (found.id, found.repo.clone()));
            }
        }
    }

    /// Jobs that a runner has taken since they were read.
    fn cancelled(&self) -> BTreeSet<JobId> {
        self.edges.values().filter_map(|edge| edge.cancels.as_ref().map(|(job, _)| *job)).collect()
    }

    /// Marks jobs that a long-listening runner is not given. `listening_since` is the
    /// longest listening runner of each pool.
    pub fn mark_unassigned(
        &mut self,
        pools: &BTreeMap<PoolName, Pool>,
        listening_since: &BTreeMap<PoolName, Timestamp>,
        policy: &Policy,
        now: Timestamp,
    ) {
        if listening_since.is_empty() {
            return;
        }
        let mut router = Router::new(pools);
        for job in self.jobs.values() {
            let Some(since) = router
                .route(&job.repo, &job.labels)
                .and_then(|pool| listening_since.get(&pool.name))
            else {
                continue;
            };
            // After each pause the job counts again, and GitHub has the whole time anew.
            let paused_until = self.unassigned.get(&job.id).map(|mark| mark.until);
            let both_waited =
                (*since).max(job.queued_at).max(paused_until.unwrap_or(job.queued_at));
            let shown_since = job.evidence >= both_waited + policy.does_not_assign_after;
            if !shown_since {
                continue;
            }
            let entry =
                self.unassigned.entry(job.id).or_insert(Unassigned { until: now, tries: 0 });
            if entry.until <= now {
                let factor = 2_u32.saturating_pow(entry.tries.min(16));
                entry.until = now
                    + policy
                        .does_not_assign_after
                        .saturating_mul(factor)
                        .min(policy.does_not_assign_backoff_max);
                entry.tries += 1;
            }
        }
    }

    /// The demand of each pool; every pool has an entry. Jobs of a repository that has been
    /// unreadable for too long are left out: nobody knows whether they still wait.
    #[must_use]
    pub fn by_pool(
        &self,
        pools: &BTreeMap<PoolName, Pool>,
        policy: &Policy,
        now: Timestamp,
    ) -> BTreeMap<PoolName, PoolDemand> {
        let mut demand: BTreeMap<PoolName, PoolDemand> =
            pools.keys().map(|name| (name.clone(), PoolDemand::default())).collect();
        let cancelled = self.cancelled();
        let left_out: BTreeSet<&RepoName> = self.left_out(policy, now).collect();
        let mut router = Router::new(pools);
        for job in self.jobs.values().filter(|job| !left_out.contains(&job.repo)) {
            let Some(pool) = router.route(&job.repo, &job.labels) else { continue };
            let Some(entry) = demand.get_mut(&pool.name) else { continue };
            if cancelled.contains(&job.id) {
                entry.cancelled.push(job.id);
            } else if self.unassigned.get(&job.id).is_some_and(|mark| mark.until > now) {
                entry.not_assigned.push(job.id);
            } else {
                entry.waiting.push(job.id);
                let this = (job.queued_at, job.id);
                entry.oldest = Some(entry.oldest.map_or(this, |oldest| oldest.min(this)));
            }
        }
        demand
    }

    /// Jobs that no pool of ours serves: shown, never scaled for.
    #[must_use]
    pub fn unmatched(&self, pools: &BTreeMap<PoolName, Pool>) -> Vec<&WaitingJob> {
        let mut router = Router::new(pools);
        self.jobs.values().filter(|job| router.route(&job.repo, &job.labels).is_none()).collect()
    }

    /// A job as last read.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&WaitingJob> {
        self.jobs.get(&id)
    }

    /// All jobs as last read.
    pub fn jobs(&self) -> impl Iterator<Item = &WaitingJob> {
        self.jobs.values()
    }

    /// All repositories and how their readings went.
    #[must_use]
    pub fn repos(&self) -> &BTreeMap<RepoName, RepoState> {
        &self.repos
    }

    /// What is not known of the queues of a scope, and therefore not zero.
    #[must_use]
    pub fn unknown(&self, scope: &Scope, policy: &Policy, now: Timestamp) -> Option<Unread> {
        let of_scope = || self.repos.iter().filter(|(repo, _)| scope.covers(repo));
        let blocking = of_scope().find(|(_, state)| state.is_unread(policy, now));
        if let Some((repo, _)) = blocking {
            return Some(Unread::Repo(repo.clone()));
        }
        let never = of_scope().all(|(_, s)| s.read_at.is_none() && s.unread_since.is_none());
        never.then_some(Unread::Never)
    }

    /// Repositories that could not be read for so long that they are left out.
    pub fn left_out(&self, policy: &Policy, now: Timestamp) -> impl Iterator<Item = &RepoName> {
        self.repos
            .iter()
            .filter(move |(_, state)| state.unread_since.is_some() && !state.is_unread(policy, now))
            .map(|(repo, _)| repo)
    }

    /// The start of the most recent reading of any repository.
    #[must_use]
    pub fn last_read(&self) -> Option<Timestamp> {
        self.repos.values().filter_map(|state| state.read_at).max()
    }

    /// How many runners took a job that no reading has explained yet.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.edges.len()
    }

    /// Repositories with a job that a runner has probably taken: worth reading again.
    #[must_use]
    pub fn repos_with_cancelled(&self) -> Vec<RepoName> {
        let repos: BTreeSet<RepoName> = self
            .edges
            .values()
            .filter_map(|edge| edge.cancels.as_ref().map(|(_, repo)| repo.clone()))
            .collect();
        repos.into_iter().collect()
    }
}
