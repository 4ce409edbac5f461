//! Docker for one boot of the agent: what changes anything is done only while this boot
//! has the right to. A task that outlives its boot can look, and nothing more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::rights::Rights;
use crate::docker::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, LogLine,
    LogQuery, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept,
};
use crate::fleet::id::{BootId, ClusterMark, ContainerId, HostId};

/// Passes on what this boot may do.
#[derive(Debug)]
pub(super) struct GuardedDocker {
    inner: Arc<dyn Docker>,
    rights: Rights,
}

impl GuardedDocker {
    pub(super) fn new(inner: Arc<dyn Docker>, rights: Rights) -> Self {
        Self { inner, rights }
    }

    /// For what begins something new.
    fn agent(&self, action: &'static str) -> Result<(), DockerError> {
        if self.rights.is_agent() { Ok(()) } else { Err(DockerError::NotAgent { action }) }
    }

    /// For what brings something begun to its end.
    async fn caring(&self, action: &'static str) -> Result<(), DockerError> {
        if self.rights.may_care().await { Ok(()) } else { Err(DockerError::NotAgent { action }) }
    }
}

type Lines<T> = BoxStream<'static, Result<T, DockerError>>;

#[async_trait]
impl Docker for GuardedDocker {
    async fn daemon(&self) -> Result<Daemon, DockerError> {
        self.inner.daemon().await
    }

    async fn claim_identity(
        &self,
        mark: &ClusterMark,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        self.agent("claiming the host's identity")?;
        self.inner.claim_identity(mark, fresh).await
    }

    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        self.agent("replacing the host's identity")?;
        self.inner.replace_identity(mark, old, fresh).await
    }

    async fn marker(
        &self,
        mark: &ClusterMark,
        host: HostId,
    ) -> Result<Option<Marker>, DockerError> {
        self.inner.marker(mark, host).await
    }

    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Result<(), DockerError> {
        self.agent("writing the agent's marker")?;
        self.inner.write_marker(mark, marker).await
    }

    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Result<(), DockerError> {
        self.inner.remove_marker(mark, boot).await
    }

    async fn containers(&self, mark: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError> {
        self.inner.containers(mark).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<Network, DockerError> {
        self.agent("creating a network")?;
        self.inner.ensure_network(network).await
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, DockerError> {
        self.inner.image(reference).await
    }

    async fn pull(&self, reference: &str) -> Result<Lines<PullProgress>, DockerError> {
        self.agent("pulling an image")?;
        self.inner.pull(reference).await
    }

    async fn create(&self, spec: &RunnerContainer) -> Result<ContainerId, DockerError> {
        self.agent("creating a container")?;
        self.inner.create(spec).await
    }

    async fn attach(&self, id: &ContainerId) -> Result<Attached, DockerError> {
        self.inner.attach(id).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.caring("starting a container").await?;
        self.inner.start(id).await
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DockerError> {
        self.inner.state(id).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError> {
        self.caring("stopping a container").await?;
        self.inner.stop(id, grace).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.caring("removing a container").await?;
        self.inner.remove(id).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<Lines<LogLine>, DockerError> {
        self.inner.logs(id, query).await
    }

    async fn events(&self, mark: &ClusterMark) -> Result<Lines<ContainerEvent>, DockerError> {
        self.inner.events(mark).await
    }

    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Result<Swept, DockerError> {
        self.agent("sweeping")?;
        self.inner.sweep(mark, keep).await
    }

    async fn forget_cluster(&self, mark: &ClusterMark) -> Result<Swept, DockerError> {
        self.agent("forgetting the cluster")?;
        self.inner.forget_cluster(mark).await
    }
}
