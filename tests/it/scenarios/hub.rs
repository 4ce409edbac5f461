//! GitHub as it truly is, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use runner_orchestrator::fleet::demand::WaitingJob;
use runner_orchestrator::fleet::id::{ClusterMark, GitHubRunnerId, RepoName, RunnerName};
use runner_orchestrator::fleet::pool::{Labels, Scope};
use runner_orchestrator::fleet::registration::{Row, ScopeReading, Stillness};
use runner_orchestrator::fleet::time::Timestamp;

/// One registration.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) id: GitHubRunnerId,
    pub(crate) scope: Scope,
    pub(crate) online: bool,
    pub(crate) busy: bool,
}

/// How deletions are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Deletes {
    #[default]
    Truthfully,
    NotFound,
    Failing,
}

/// One answer to a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Deleted,
    Busy,
    Absent,
    Error,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Hub {
    pub(crate) rows: BTreeMap<RunnerName, Registration>,
    pub(crate) foreign: u32,
    /// Runners that the list leaves out (`None`) or shows offline (`Some`).
    pub(crate) hidden: BTreeMap<RunnerName, Option<()>>,
    /// The list as it once was, served ever since.
    pub(crate) stale: Option<BTreeMap<RunnerName, Registration>>,
    pub(crate) list_fails: bool,
    /// Lists change while they are read.
    pub(crate) list_moves: bool,
    pub(crate) queues: BTreeMap<RepoName, Vec<WaitingJob>>,
    pub(crate) queue_fails: BTreeSet<RepoName>,
    pub(crate) deletes: Deletes,
    /// Busy, although nothing else shows it yet.
    pub(crate) secretly_busy: BTreeSet<RunnerName>,
    /// Given a job at the very moment its registration is deleted.
    pub(crate) takes_job_when_deleted: BTreeSet<RunnerName>,
    /// Deletions asked for.
    pub(crate) deletes_asked: u32,
    next_id: u64,
}

impl Hub {
    pub(crate) fn register(&mut self, name: &RunnerName, scope: &Scope) -> GitHubRunnerId {
        self.next_id += 1;
        let id = GitHubRunnerId(self.next_id);
        let row = Registration { id, scope: scope.clone(), online: false, busy: false };
        self.rows.insert(name.clone(), row);
        id
    }

    pub(crate) fn delete(&mut self, name: &RunnerName) -> Answer {
        self.deletes_asked += 1;
        match self.deletes {
            Deletes::NotFound => return Answer::Absent,
            Deletes::Failing => return Answer::Error,
            Deletes::Truthfully => {}
        }
        match self.rows.get(name) {
            None => Answer::Absent,
            Some(row) if row.busy || self.secretly_busy.contains(name) => Answer::Busy,
            Some(_) => {
                self.rows.remove(name);
                Answer::Deleted
            }
        }
    }

    /// The list of one scope, as served now.
    pub(crate) fn list(&self, scope: &Scope, begun_at: Timestamp) -> ScopeReading {
        let ours = self.stale.as_ref().unwrap_or(&self.rows);
        let mut rows: Vec<Row> = ours
            .iter()
            .filter(|(name, row)| row.scope == *scope && self.hidden.get(*name) != Some(&None))
            .map(|(name, row)| Row {
                id: row.id,
                name: name.clone(),
                online: row.online && !self.hidden.contains_key(name),
                busy: row.busy,
            })
            .collect();
        let foreign = (0..u64::from(self.foreign)).map(|n| Row {
            id: GitHubRunnerId(1_000_000 + n),
            name: RunnerName(format!("orchestrated-{n:08x}")),
            online: n % 2 == 0,
            busy: false,
        });
        rows.extend(foreign);
        let stillness = if self.list_moves {
            Stillness::Moving { last_pass_at: begun_at }
        } else {
            Stillness::Still
        };
        ScopeReading { scope: scope.clone(), begun_at, stillness, rows }
    }

    /// Gives the first matching job to a runner with these labels.
    pub(crate) fn give_job(&mut self, name: &RunnerName, labels: &Labels, scope: &Scope) {
        if let Some(row) = self.rows.get_mut(name) {
            row.busy = true;
            row.online = true;
        }
        for (repo, jobs) in &mut self.queues {
            if !serves(scope, repo) {
                continue;
            }
            if let Some(index) = jobs.iter().position(|job| job.labels.is_subset(labels)) {
                jobs.remove(index);
                return;
            }
        }
    }
}

fn serves(scope: &Scope, repo: &RepoName) -> bool {
    let owner = repo.split().map(|(owner, _)| owner);
    match scope {
        Scope::Repo(own) => own == repo,
        Scope::Org(org) => owner == Some(org.as_str()),
        Scope::Enterprise { orgs, .. } => orgs.iter().any(|org| owner == Some(org.as_str())),
    }
}

/// The mark every scenario's cluster has.
pub(crate) fn mark() -> ClusterMark {
    ClusterMark::derive("scenario")
}
