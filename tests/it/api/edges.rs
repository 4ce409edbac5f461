//! Docker and GitHub that do nothing and count who asks them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use runner_orchestrator::docker::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, LogLine,
    LogQuery, LogStream, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept,
};
use runner_orchestrator::fleet::budget::Budget;
use runner_orchestrator::fleet::id::{
    BootId, ClusterMark, ContainerId, GitHubRunnerId, HostId, RepoName, RunnerName,
};
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::github::{
    CallCount, Deregistered, GitHub, GitHubError, MintRequest, Minted, Preflight, QueueReading,
    Registration, RegistrationReading, Repository,
};

/// Docker that only has logs; everything else is counted and refused.
#[derive(Debug, Default)]
pub(super) struct CountingDocker {
    pub(super) other_calls: AtomicU32,
    /// Container and query of each log request.
    pub(super) asked: Mutex<Vec<(ContainerId, LogQuery)>>,
    pub(super) lines: Mutex<Vec<String>>,
    pub(super) error: Mutex<Option<DockerError>>,
}

impl CountingDocker {
    fn refuse<T>(&self) -> Result<T, DockerError> {
        self.other_calls.fetch_add(1, Ordering::Relaxed);
        Err(DockerError::Timeout { action: "nothing", timeout_ms: 1 })
    }
}

#[async_trait]
impl Docker for CountingDocker {
    async fn daemon(&self) -> Result<Daemon, DockerError> {
        self.refuse()
    }
    async fn claim_identity(&self, _: &ClusterMark, _: HostId) -> Result<HostId, DockerError> {
        self.refuse()
    }
    async fn replace_identity(
        &self,
        _: &ClusterMark,
        _: HostId,
        _: HostId,
    ) -> Result<HostId, DockerError> {
        self.refuse()
    }
    async fn marker(&self, _: &ClusterMark, _: HostId) -> Result<Option<Marker>, DockerError> {
        self.refuse()
    }
    async fn write_marker(&self, _: &ClusterMark, _: &Marker) -> Result<(), DockerError> {
        self.refuse()
    }
    async fn remove_marker(&self, _: &ClusterMark, _: BootId) -> Result<(), DockerError> {
        self.refuse()
    }
    async fn containers(&self, _: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError> {
        self.refuse()
    }
    async fn ensure_network(&self, _: &NetworkSpec) -> Result<Network, DockerError> {
        self.refuse()
    }
    async fn image(&self, _: &str) -> Result<Option<String>, DockerError> {
        self.refuse()
    }
    async fn pull(
        &self,
        _: &str,
    ) -> Result<BoxStream<'static, Result<PullProgress, DockerError>>, DockerError> {
        self.refuse()
    }
    async fn create(&self, _: &RunnerContainer) -> Result<ContainerId, DockerError> {
        self.refuse()
    }
    async fn attach(&self, _: &ContainerId) -> Result<Attached, DockerError> {
        self.refuse()
    }
    async fn start(&self, _: &ContainerId) -> Result<(), DockerError> {
        self.refuse()
    }
    async fn state(&self, _: &ContainerId) -> Result<Option<ContainerState>, DockerError> {
        self.refuse()
    }
    async fn stop(&self, _: &ContainerId, _: Duration) -> Result<(), DockerError> {
        self.refuse()
    }
    async fn remove(&self, _: &ContainerId) -> Result<(), DockerError> {
        self.refuse()
    }
    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, DockerError>>, DockerError> {
        self.asked.lock().unwrap().push((id.clone(), query.clone()));
        if let Some(error) = self.error.lock().unwrap().take() {
            return Err(error);
        }
        let lines = self.lines.lock().unwrap().clone();
        let lines = stream::iter(
            lines.into_iter().map(|text| Ok(LogLine { stream: LogStream::Stdout, text })),
        );
        // A followed log stays open, as that of a running container does.
        Ok(if query.follow { lines.chain(stream::pending()).boxed() } else { lines.boxed() })
    }
    async fn events(
        &self,
        _: &ClusterMark,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, DockerError>>, DockerError> {
        self.refuse()
    }
    async fn sweep(&self, _: &ClusterMark, _: &[String]) -> Result<Swept, DockerError> {
        self.refuse()
    }
    async fn forget_cluster(&self, _: &ClusterMark) -> Result<Swept, DockerError> {
        self.refuse()
    }
}

/// GitHub that refuses everything and counts who asked.
#[derive(Debug, Default)]
pub(super) struct CountingGitHub {
    pub(super) calls: AtomicU32,
}

impl CountingGitHub {
    fn refuse<T>(&self) -> Result<T, GitHubError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Err(GitHubError::Shed { route: "any", reason: "a test" })
    }
}

#[async_trait]
impl GitHub for CountingGitHub {
    async fn preflight(&self, _: &[Scope]) -> Preflight {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Preflight::default()
    }
    async fn repositories(&self, _: &Scope) -> Result<Vec<Repository>, GitHubError> {
        self.refuse()
    }
    async fn queue(&self, _: &RepoName) -> Result<QueueReading, GitHubError> {
        self.refuse()
    }
    async fn registrations(&self, _: &Scope) -> Result<RegistrationReading, GitHubError> {
        self.refuse()
    }
    async fn find(&self, _: &Scope, _: &RunnerName) -> Result<Option<Registration>, GitHubError> {
        self.refuse()
    }
    async fn mint(&self, _: &MintRequest) -> Result<Minted, GitHubError> {
        self.refuse()
    }
    async fn deregister(&self, _: &Scope, _: GitHubRunnerId) -> Result<Deregistered, GitHubError> {
        self.refuse()
    }
    fn budget(&self) -> Budget {
        Budget::open(100)
    }
    fn calls(&self) -> Vec<CallCount> {
        Vec::new()
    }
}
