//! Demand: the *set* of queued jobs, each with the age of the evidence for it. Never a
//! counter, and a repository that was not read is not an empty one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{JobId, PoolName, RepoName, RunnerId};
use super::policy::Policy;
use super::pool::{Labels, Pool, route};
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
    runner: RunnerId,
    pool: PoolName,
    at: Timestamp,
    cancels: Option<JobId>,
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
    edges: Vec<Edge>,
    unassigned: BTreeMap<JobId, Unassigned>,
}

/// An edge nobody explained is forgotten after this long: GitHub re-queues a job that
/// was not picked up after 60 s, and every active repository is read more often.
const EDGE_MEMORY: Duration = Duration::from_secs(300);

/// The jobs that wait for one pool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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
        // A reading begun after the edge says itself which jobs still wait.
        let jobs = &self.jobs;
        let repos = &self.repos;
        self.edges.retain(|edge| match edge.cancels {
            Some(job) => jobs.get(&job).is_some_and(|job| job.repo != *repo || begun_at <= edge.at),
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

    /// Drops what is known of repositories that no longer belong to any scope.
    pub fn keep_only(&mut self, repos: &[RepoName]) {
        self.repos.retain(|repo, _| repos.contains(repo));
        self.jobs.retain(|_, job| repos.contains(&job.repo));
    }

    /// Notes that a runner of `pool` went to `running`: one waiting job is no longer
    /// waiting, although no reading says so yet.
    pub fn runner_took_job(&mut self, runner: RunnerId, pool: PoolName, at: Timestamp) {
        if self.edges.iter().all(|edge| edge.runner != runner) {
            self.edges.push(Edge { runner, pool, at, cancels: None });
        }
    }

    /// Matches edges with jobs and forgets old ones. Each edge cancels the waiting job
    /// whose reading is oldest among those begun before it.
    pub fn settle(&mut self, pools: &BTreeMap<PoolName, Pool>, now: Timestamp) {
        self.edges.retain(|edge| now.since(edge.at) < EDGE_MEMORY);
        self.edges.sort_by_key(|edge| (edge.at, edge.runner));
        for n in 0..self.edges.len() {
            if self.edges[n].cancels.is_some() {
                continue;
            }
            let edge = &self.edges[n];
            let taken: Vec<JobId> = self.edges.iter().filter_map(|other| other.cancels).collect();
            let job = self
                .jobs
                .values()
                .filter(|job| job.evidence <= edge.at && !taken.contains(&job.id))
                .filter(|job| route(&job.labels, pools).is_some_and(|p| p.name == edge.pool))
                .min_by_key(|job| (job.evidence, job.queued_at, job.id))
                .map(|job| job.id);
            self.edges[n].cancels = job;
        }
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
        for job in self.jobs.values() {
            let Some(since) = route(&job.labels, pools).and_then(|p| listening_since.get(&p.name))
            else {
                continue;
            };
            let both_waited = (*since).max(job.queued_at);
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

    /// The demand of each pool; every pool has an entry.
    #[must_use]
    pub fn by_pool(
        &self,
        pools: &BTreeMap<PoolName, Pool>,
        now: Timestamp,
    ) -> BTreeMap<PoolName, PoolDemand> {
        let mut demand: BTreeMap<PoolName, PoolDemand> =
            pools.keys().map(|name| (name.clone(), PoolDemand::default())).collect();
        let cancelled: Vec<JobId> = self.edges.iter().filter_map(|edge| edge.cancels).collect();
        for job in self.jobs.values() {
            let Some(pool) = route(&job.labels, pools) else { continue };
            let entry = demand.entry(pool.name.clone()).or_default();
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
        self.jobs.values().filter(|job| route(&job.labels, pools).is_none()).collect()
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

    /// A repository that cannot be read, for longer than a reading takes and not yet so
    /// long that it is left out: it blocks retirement, because its queue is unknown.
    #[must_use]
    pub fn blocking_repo(&self, policy: &Policy, now: Timestamp) -> Option<&RepoName> {
        self.repos
            .iter()
            .find(|(_, state)| {
                state
                    .unread_since
                    .is_some_and(|since| now.since(since) <= policy.unread_repo_blocks)
            })
            .map(|(repo, _)| repo)
    }

    /// The start of the most recent reading of any repository.
    #[must_use]
    pub fn last_read(&self) -> Option<Timestamp> {
        self.repos.values().filter_map(|state| state.read_at).max()
    }

    /// Whether the last reading of every known repository failed or none was ever made.
    #[must_use]
    pub fn never_read(&self) -> bool {
        self.repos.values().all(|state| state.read_at.is_none())
    }
}

impl DemandBook {
    /// How many runners took a job that no reading has explained yet.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.edges.len()
    }
}

impl DemandBook {
    /// Repositories with a job that a runner has probably taken: worth reading again.
    #[must_use]
    pub fn repos_with_cancelled(&self) -> Vec<RepoName> {
        let repos: std::collections::BTreeSet<RepoName> = self
            .edges
            .iter()
            .filter_map(|edge| edge.cancels.and_then(|job| self.jobs.get(&job)))
            .map(|job| job.repo.clone())
            .collect();
        repos.into_iter().collect()
    }
}
