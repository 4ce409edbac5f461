//! The edges as they are, with the instants of what passes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use runner_orchestrator::docker::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, LogLine,
    LogQuery, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept,
};
use runner_orchestrator::fleet::budget::Budget;
use runner_orchestrator::fleet::id::{
    BootId, ClusterMark, ContainerId, GitHubRunnerId, HostId, JobId, RepoName, RunnerName,
};
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::github::{
    CallCount, Deregistered, GitHub, GitHubError, MintRequest, Minted, Preflight, QueueReading,
    Registration, RegistrationReading, Repository,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// A daemon whose creations and starts are timed.
#[derive(Debug)]
pub(crate) struct TimedDocker {
    inner: Arc<dyn Docker>,
    seen: watch::Sender<Seen>,
}

/// What passed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// When each create call was sent.
    pub(crate) creates: Vec<Instant>,
    /// When each start was answered: that container runs.
    pub(crate) running: Vec<(ContainerId, Instant)>,
    /// Calls of any kind.
    pub(crate) calls: u64,
}

impl TimedDocker {
    pub(crate) fn new(inner: Arc<dyn Docker>) -> Arc<Self> {
        Arc::new(Self { inner, seen: watch::Sender::default() })
    }

    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    fn called(&self) -> &dyn Docker {
        self.seen.send_modify(|seen| seen.calls += 1);
        &*self.inner
    }
}

type Answer<T> = Result<T, DockerError>;
type Lines<T> = Answer<BoxStream<'static, Answer<T>>>;

#[async_trait]
impl Docker for TimedDocker {
    async fn create(&self, spec: &RunnerContainer) -> Answer<ContainerId> {
        self.seen.send_modify(|seen| seen.creates.push(Instant::now()));
        self.called().create(spec).await
    }

    async fn start(&self, id: &ContainerId) -> Answer<()> {
        self.called().start(id).await?;
        self.seen.send_modify(|seen| seen.running.push((id.clone(), Instant::now())));
        Ok(())
    }

    async fn daemon(&self) -> Answer<Daemon> {
        self.called().daemon().await
    }

    async fn claim_identity(&self, mark: &ClusterMark, fresh: HostId) -> Answer<HostId> {
        self.called().claim_identity(mark, fresh).await
    }

    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Answer<HostId> {
        self.called().replace_identity(mark, old, fresh).await
    }

    async fn marker(&self, mark: &ClusterMark, host: HostId) -> Answer<Option<Marker>> {
        self.called().marker(mark, host).await
    }

    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Answer<()> {
        self.called().write_marker(mark, marker).await
    }

    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Answer<()> {
        self.called().remove_marker(mark, boot).await
    }

    async fn containers(&self, mark: &ClusterMark) -> Answer<Vec<ContainerSeen>> {
        self.called().containers(mark).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Answer<Network> {
        self.called().ensure_network(network).await
    }

    async fn image(&self, reference: &str) -> Answer<Option<String>> {
        self.called().image(reference).await
    }

    async fn pull(&self, reference: &str) -> Lines<PullProgress> {
        self.called().pull(reference).await
    }

    async fn attach(&self, id: &ContainerId) -> Answer<Attached> {
        self.called().attach(id).await
    }

    async fn state(&self, id: &ContainerId) -> Answer<Option<ContainerState>> {
        self.called().state(id).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Answer<()> {
        self.called().stop(id, grace).await
    }

    async fn remove(&self, id: &ContainerId) -> Answer<()> {
        self.called().remove(id).await
    }

    async fn logs(&self, id: &ContainerId, query: &LogQuery) -> Lines<LogLine> {
        self.called().logs(id, query).await
    }

    async fn events(&self, mark: &ClusterMark) -> Lines<ContainerEvent> {
        self.called().events(mark).await
    }

    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Answer<Swept> {
        self.called().sweep(mark, keep).await
    }

    async fn forget_cluster(&self, mark: &ClusterMark) -> Answer<Swept> {
        self.called().forget_cluster(mark).await
    }
}

/// GitHub's client, with what its readings of queues showed.
#[derive(Debug)]
pub(crate) struct TimedGitHub {
    inner: Arc<dyn GitHub>,
    readings: Mutex<Readings>,
}

#[derive(Clone, Debug, Default)]
struct Readings {
    first_jobs: Option<Instant>,
    jobs: BTreeMap<JobId, Instant>,
    repos: BTreeSet<RepoName>,
}

impl TimedGitHub {
    pub(crate) fn new(inner: Arc<dyn GitHub>) -> Arc<Self> {
        Arc::new(Self { inner, readings: Mutex::default() })
    }

    /// When the reading began whose answer was the first to contain jobs: never later than
    /// that answer.
    pub(crate) fn first_jobs(&self) -> Option<Instant> {
        self.readings().first_jobs
    }

    /// When the reading began whose answer was the first to contain this job.
    pub(crate) fn first_seen(&self, job: JobId) -> Option<Instant> {
        self.readings().jobs.get(&job).copied()
    }

    /// How many repositories have been read at least once.
    pub(crate) fn repos_read(&self) -> usize {
        self.readings().repos.len()
    }

    /// Whether any queue has been read.
    pub(crate) fn has_read(&self) -> bool {
        self.repos_read() > 0
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl GitHub for TimedGitHub {
    async fn queue(&self, repo: &RepoName) -> Result<QueueReading, GitHubError> {
        let begun = Instant::now();
        let reading = self.inner.queue(repo).await?;
        let mut readings = self.readings();
        readings.repos.insert(repo.clone());
        if !reading.jobs.is_empty() {
            readings.first_jobs.get_or_insert(begun);
        }
        for job in &reading.jobs {
            readings.jobs.entry(job.id).or_insert(begun);
        }
        drop(readings);
        Ok(reading)
    }

    async fn preflight(&self, scopes: &[Scope]) -> Preflight {
        self.inner.preflight(scopes).await
    }

    async fn repositories(&self, scope: &Scope) -> Result<Vec<Repository>, GitHubError> {
        self.inner.repositories(scope).await
    }

    async fn registrations(&self, scope: &Scope) -> Result<RegistrationReading, GitHubError> {
        self.inner.registrations(scope).await
    }

    async fn find(
        &self,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<Option<Registration>, GitHubError> {
        self.inner.find(scope, name).await
    }

    async fn mint(&self, request: &MintRequest) -> Result<Minted, GitHubError> {
        self.inner.mint(request).await
    }

    async fn deregister(
        &self,
        scope: &Scope,
        id: GitHubRunnerId,
    ) -> Result<Deregistered, GitHubError> {
        self.inner.deregister(scope, id).await
    }

    fn budget(&self) -> Budget {
        self.inner.budget()
    }

    fn calls(&self) -> Vec<CallCount> {
        self.inner.calls()
    }
}
