//! The leader's eyes: GitHub's queues and runner lists into the ledger. Decides nothing;
//! a reading that failed leaves what was known, and says since when it is unread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Pace, Wake, another_term};
use crate::clock::Clock;
use crate::election::Leadership;
use crate::fleet::demand::WaitingJob;
use crate::fleet::id::{ClusterMark, PoolName, RepoName, Term};
use crate::fleet::ledger::Ledger;
use crate::fleet::policy::Policy;
use crate::fleet::pool::{Pool, Scope};
use crate::fleet::registration::{Row, ScopeReading};
use crate::github::sweep::Sweep;
use crate::github::{GitHub, GitHubError, QueueReading};
use crate::store::Store;
use crate::telemetry::chain;
use crate::telemetry::metrics::{Dependency, LoopName, Metrics, Outcome};

/// Queues read at the same time; GitHub allows a hundred requests at once in all.
const READS_AT_ONCE: usize = 16;
/// A list of repositories that could not be read is asked for again after this.
const RELIST_AFTER: Duration = Duration::from_secs(30);
/// A runner list that this leader has never seen, or once while it moved, is asked for again
/// after this: until it is known who is not registered, nothing is placed.
const FIRST_LIST_RETRY: Duration = Duration::from_secs(3);
/// After a runner took a job its repository is read again, at most this often.
const REREAD_EVERY: Duration = Duration::from_secs(1);

/// What was learnt for conditional requests is put by for the next leader this often.
const PUT_BY_EVERY: Duration = Duration::from_secs(5);
/// The name it has in the store.
const ANSWERS: &str = "answers";

/// What the observe loop works with.
pub struct Observe {
    pub store: Arc<dyn Store>,
    pub github: Arc<dyn GitHub>,
    pub clock: Arc<dyn Clock>,
    pub cluster: ClusterMark,
    pub pools: Arc<BTreeMap<PoolName, Pool>>,
    pub policy: Policy,
    pub poll_interval: Duration,
    pub ledger: Arc<Mutex<Ledger>>,
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// Moved when something was learnt.
    pub observed: watch::Sender<u64>,
    /// Moves when a runner took a job.
    pub reread: watch::Receiver<u64>,
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Observe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observe").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// What is remembered between turns.
#[derive(Debug, Default)]
struct Memory {
    /// The term it was learnt in: a new one begins by reading everything.
    term: Term,
    sweeps: BTreeMap<Scope, Sweep>,
    relist_at: BTreeMap<Scope, Instant>,
    polled_at: Option<Instant>,
    reread_at: Option<Instant>,
    listed_at: Option<Instant>,
    put_by_at: Option<Instant>,
}

impl Observe {
    /// Runs until cancelled. While another replica leads, GitHub is not asked at all.
    pub async fn run(self, cancel: CancellationToken) {
        let mut memory = Memory::default();
        let mut pace = Pace::every(self.poll_interval.min(REREAD_EVERY));
        let mut nudges = [self.reread.clone()];
        let mut leadership = self.leadership.clone();
        let mut known = None;
        loop {
            let wake = tokio::select! { biased;
                wake = pace.next(&mut nudges, &cancel) => wake,
                () = another_term(&mut leadership, known) => Wake::Nudge,
            };
            if wake == Wake::Cancelled {
                return;
            }
            known = self.leadership.borrow().as_ref().map(Leadership::term);
            let leader = self.leadership.borrow().clone().filter(Leadership::holds);
            let Some(leader) = leader else { continue };
            if memory.term != leader.term() {
                memory = Memory { term: leader.term(), ..Memory::default() };
                self.ledger().begin_term(leader.term());
                self.recall().await;
            }
            let begun = Instant::now();
            tokio::select! { biased;
                () = cancel.cancelled() => return,
                // Whoever no longer leads asks GitHub for nothing more.
                () = another_term(&mut leadership, Some(leader.term())) => continue,
                () = self.turn(&mut memory) => (),
            }
            self.put_by(&leader, &mut memory).await;
            let now = self.clock.now();
            self.metrics.loop_turn(LoopName::Observe, Outcome::Ok, begun.elapsed(), now);
        }
    }

    /// Takes over what an earlier leader has learnt for conditional requests.
    async fn recall(&self) {
        if !self.store.health().borrow().shared {
            return;
        }
        match self.store.recall(ANSWERS).await {
            Ok(learnt) => self.github.recall(&learnt),
            Err(error) => debug!(error = %error, "could not recall github's answers"),
        }
    }

    /// Leaves for the next leader what was learnt since the last time.
    async fn put_by(&self, leader: &Leadership, memory: &mut Memory) {
        let due = memory.put_by_at.is_none_or(|at| at.elapsed() >= PUT_BY_EVERY);
        if !due || !self.store.health().borrow().shared {
            return;
        }
        memory.put_by_at = Some(Instant::now());
        let learnt = self.github.learnt();
        if learnt.is_empty() {
            return;
        }
        if let Err(error) = self.store.put_by(leader, ANSWERS, learnt).await {
            debug!(error = %error, "could not put github's answers by");
        }
    }

    async fn turn(&self, memory: &mut Memory) {
        let poll_due = memory.polled_at.is_none_or(|at| at.elapsed() >= self.poll_interval);
        if poll_due {
            memory.polled_at = Some(Instant::now());
            memory.listed_at = memory.polled_at;
            tokio::join!(self.sweep(memory), self.read_registrations());
            return;
        }
        let retry_due = memory.listed_at.is_none_or(|at| at.elapsed() >= FIRST_LIST_RETRY);
        if retry_due && self.never_listed() {
            memory.listed_at = Some(Instant::now());
            self.read_registrations().await;
        }
        let reread_due = memory.reread_at.is_none_or(|at| at.elapsed() >= REREAD_EVERY);
        let repos = self.ledger().demand.repos_with_cancelled();
        if reread_due && !repos.is_empty() {
            memory.reread_at = Some(Instant::now());
            self.read_queues(&mut memory.sweeps, repos).await;
        }
    }

    /// Reads the queues whose turn it is: the active ones, and some of the others.
    async fn sweep(&self, memory: &mut Memory) {
        for scope in self.scopes() {
            self.relist(memory, &scope).await;
        }
        let now = self.clock.now();
        let budget = self.github.budget();
        let due: BTreeSet<RepoName> = memory
            .sweeps
            .values()
            .flat_map(|sweep| sweep.due(now, self.poll_interval, &budget))
            .collect();
        self.read_queues(&mut memory.sweeps, due.into_iter().collect()).await;
    }

    /// Readings of an earlier term never reach it: their turn ends with their term.
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn never_listed(&self) -> bool {
        let ledger = self.ledger();
        self.scopes().iter().any(|scope| !ledger.registrations.knows_missing(scope))
    }

    fn tell(&self) {
        self.observed.send_modify(|count| *count += 1);
    }

    fn scopes(&self) -> BTreeSet<Scope> {
        self.pools.values().map(|pool| pool.scope.clone()).collect()
    }

    /// Brings the list of a scope's repositories up to date when it is old.
    async fn relist(&self, memory: &mut Memory, scope: &Scope) {
        let now = self.clock.now();
        let due = memory.sweeps.get(scope).is_none_or(|sweep| sweep.list_is_due(now));
        let waits = memory.relist_at.get(scope).is_some_and(|at| *at > Instant::now());
        if !due || waits {
            return;
        }
        match self.github.repositories(scope).await {
            Ok(repositories) => {
                memory.relist_at.remove(scope);
                memory.sweeps.entry(scope.clone()).or_default().relist(&repositories, now);
                let names: Vec<RepoName> =
                    repositories.iter().map(|repo| repo.name.clone()).collect();
                self.ledger().demand.await_reading(&names, now);
                self.keep_only(&memory.sweeps);
            }
            Err(error) => {
                memory.relist_at.insert(scope.clone(), Instant::now() + RELIST_AFTER);
                warn!(scope = %scope, error = %chain(&error), "could not list repositories");
            }
        }
    }

    /// Forgets repositories that left every scope, once every scope has been listed.
    fn keep_only(&self, sweeps: &BTreeMap<Scope, Sweep>) {
        if self.scopes().iter().all(|scope| sweeps.contains_key(scope)) {
            let now = self.clock.now();
            let repos: Vec<RepoName> = sweeps
                .values()
                .flat_map(|sweep| sweep.ages(now).map(|(repo, _)| repo.clone()))
                .collect();
            self.ledger().demand.keep_only(&repos);
        }
    }

    async fn read_queues(&self, sweeps: &mut BTreeMap<Scope, Sweep>, repos: Vec<RepoName>) {
        let readings = futures_util::stream::iter(repos.into_iter().map(|repo| async move {
            let reading = self.github.queue(&repo).await;
            (repo, reading)
        }));
        let mut readings = readings.buffer_unordered(READS_AT_ONCE);
        while let Some((repo, reading)) = readings.next().await {
            for sweep in sweeps.values_mut() {
                match &reading {
                    Ok(reading) => sweep.read(&repo, reading.begun_at, reading.active),
                    // A reading that was not sent keeps its place in line.
                    Err(GitHubError::Shed { .. }) => (),
                    Err(_) => sweep.failed(&repo, self.clock.now()),
                }
            }
            self.learn_queue(&repo, reading);
            self.tell();
        }
    }

    fn learn_queue(&self, repo: &RepoName, reading: Result<QueueReading, GitHubError>) {
        match reading {
            Ok(reading) => {
                let jobs = reading
                    .jobs
                    .into_iter()
                    .map(|job| WaitingJob {
                        id: job.id,
                        repo: repo.clone(),
                        labels: job.labels,
                        queued_at: job.queued_at,
                        name: job.name,
                        evidence: reading.begun_at,
                    })
                    .collect();
                self.ledger().demand.read(repo, reading.begun_at, jobs);
                self.metrics.dependency(Dependency::GitHub, true);
            }
            Err(error @ GitHubError::Shed { .. }) => {
                debug!(repo = %repo, error = %error, "a queue was not read this time");
            }
            Err(error) => {
                warn!(repo = %repo, error = %chain(&error), "could not read a queue");
                self.metrics.dependency(Dependency::GitHub, false);
                self.ledger().demand.unread(repo, self.clock.now(), chain(&error));
            }
        }
    }

    async fn read_registrations(&self) {
        for scope in self.scopes() {
            let reading = self.github.registrations(&scope).await;
            match reading {
                Ok(reading) => {
                    let rows = reading
                        .registrations
                        .into_iter()
                        .map(|row| Row {
                            id: row.id,
                            name: row.name,
                            online: row.online,
                            busy: row.busy,
                        })
                        .collect();
                    let reading = ScopeReading {
                        scope: scope.clone(),
                        begun_at: reading.begun_at,
                        stillness: reading.stillness,
                        rows,
                    };
                    let hosts = match self.store.snapshot().await {
                        Ok(snapshot) => snapshot.hosts,
                        Err(error) => {
                            warn!(error = %error, "could not read the store");
                            continue;
                        }
                    };
                    self.ledger().absorb_registrations(
                        reading,
                        &self.cluster,
                        &self.pools,
                        &hosts,
                        &self.policy,
                    );
                }
                Err(error) => {
                    warn!(scope = %scope, error = %chain(&error), "could not list runners");
                    self.ledger().registrations.unread(&scope, self.clock.now(), chain(&error));
                }
            }
            self.tell();
        }
    }
}
