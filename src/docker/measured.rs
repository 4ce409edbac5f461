//! A Docker edge whose calls are counted and timed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use super::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, LogLine,
    LogQuery, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept,
};
use crate::fleet::id::{BootId, ClusterMark, ContainerId, HostId};
use crate::telemetry::metrics::{Metrics, Outcome};

/// Passes every call on and tells the metrics how it went.
#[derive(Debug)]
pub struct MeasuredDocker {
    inner: Arc<dyn Docker>,
    metrics: Arc<Metrics>,
}

impl MeasuredDocker {
    /// Measures the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Docker>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn measure<T: fmt::Debug>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, DockerError>> + Send,
    ) -> Result<T, DockerError> {
        let begun = Instant::now();
        let result = call.await;
        self.tell(operation, result.as_ref().err(), begun.elapsed());
        result
    }

    fn tell(&self, operation: &'static str, error: Option<&DockerError>, took: Duration) {
        let outcome = match error {
            None => Outcome::Ok,
            Some(DockerError::Timeout { .. }) => Outcome::TimedOut,
            Some(_) => Outcome::Failed,
        };
        self.metrics.docker_operation(operation, outcome, took);
    }
}

type Lines<T> = BoxStream<'static, Result<T, DockerError>>;

#[async_trait]
impl Docker for MeasuredDocker {
    async fn daemon(&self) -> Result<Daemon, DockerError> {
        self.measure("daemon", self.inner.daemon()).await
    }

    async fn claim_identity(
        &self,
        mark: &ClusterMark,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        self.measure("claim_identity", self.inner.claim_identity(mark, fresh)).await
    }

    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        self.measure("replace_identity", self.inner.replace_identity(mark, old, fresh)).await
    }

    async fn marker(
        &self,
        mark: &ClusterMark,
        host: HostId,
    ) -> Result<Option<Marker>, DockerError> {
        self.measure("marker", self.inner.marker(mark, host)).await
    }

    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Result<(), DockerError> {
        self.measure("write_marker", self.inner.write_marker(mark, marker)).await
    }

    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Result<(), DockerError> {
        self.measure("remove_marker", self.inner.remove_marker(mark, boot)).await
    }

    async fn containers(&self, mark: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError> {
        self.measure("containers", self.inner.containers(mark)).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<Network, DockerError> {
        self.measure("ensure_network", self.inner.ensure_network(network)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, DockerError> {
        self.measure("image", self.inner.image(reference)).await
    }

    async fn pull(&self, reference: &str) -> Result<Lines<PullProgress>, DockerError> {
        let begun = Instant::now();
        let result = self.inner.pull(reference).await;
        self.tell("pull", result.as_ref().err(), begun.elapsed());
        result
    }

    async fn create(&self, spec: &RunnerContainer) -> Result<ContainerId, DockerError> {
        self.measure("create", self.inner.create(spec)).await
    }

    async fn attach(&self, id: &ContainerId) -> Result<Attached, DockerError> {
        self.measure("attach", self.inner.attach(id)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.measure("start", self.inner.start(id)).await
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DockerError> {
        self.measure("state", self.inner.state(id)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError> {
        self.measure("stop", self.inner.stop(id, grace)).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.measure("remove", self.inner.remove(id)).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<Lines<LogLine>, DockerError> {
        let begun = Instant::now();
        let result = self.inner.logs(id, query).await;
        self.tell("logs", result.as_ref().err(), begun.elapsed());
        result
    }

    async fn events(&self, mark: &ClusterMark) -> Result<Lines<ContainerEvent>, DockerError> {
        let begun = Instant::now();
        let result = self.inner.events(mark).await;
        self.tell("events", result.as_ref().err(), begun.elapsed());
        result
    }

    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Result<Swept, DockerError> {
        self.measure("sweep", self.inner.sweep(mark, keep)).await
    }

    async fn forget_cluster(&self, mark: &ClusterMark) -> Result<Swept, DockerError> {
        self.inner.forget_cluster(mark).await
    }
}
