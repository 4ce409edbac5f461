//! The Docker trait kept by a real engine.

use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::{Connection, READ_LIMIT, overdue};
use super::probe::{self, Probe, ProbeSpec};
use super::subnet::Supernet;
use super::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, LogLine,
    LogQuery, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept, container, disk,
    events, image, logs, network, sweep, volume,
};
use crate::fleet::id::{BootId, ClusterMark, ContainerId, HostId};

/// More removals at once leave endpoints behind that no call removes (3 of 11 runs at
/// sixteen, none at eight), and are not faster.
pub(super) const REMOVALS_AT_ONCE: usize = 8;

/// A real Docker engine, over its socket or TCP.
#[derive(Debug)]
pub struct BollardDocker {
    pub(super) connection: Connection,
    removals: Semaphore,
    supernet: Supernet,
}

impl BollardDocker {
    /// Takes the address as `DOCKER_HOST` has it (`unix:///path`, `tcp://host:port`; `None`
    /// = the usual socket). Contacts nobody: the daemon may come later, and may go and
    /// come back as another release.
    ///
    /// # Errors
    /// [`DockerError::Address`] when the address is of no kind we speak.
    pub fn connect(docker_host: Option<&str>) -> Result<Self, DockerError> {
        Ok(Self {
            connection: Connection::new(docker_host)?,
            removals: Semaphore::new(REMOVALS_AT_ONCE),
            supernet: Supernet::DEFAULT,
        })
    }

    /// Cuts pool networks from another private range than the default.
    #[must_use]
    pub fn with_supernet(mut self, supernet: Supernet) -> Self {
        self.supernet = supernet;
        self
    }

    /// Makes an image of one layer from a tar stream; `changes` are Dockerfile lines.
    ///
    /// # Errors
    /// As every call; also when the stream itself fails.
    pub async fn import_image(
        &self,
        reference: &str,
        changes: Vec<String>,
        tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), DockerError> {
        image::import(&self.connection, reference, changes, tar).await
    }

    /// Removes an image by name; repeatable. Refused with 409 while a container uses it.
    ///
    /// # Errors
    /// As every call.
    pub async fn remove_image(&self, reference: &str) -> Result<(), DockerError> {
        image::remove(&self.connection, reference).await
    }

    /// Runs a short-lived container on a network and tells how it ended; it is removed
    /// whatever happens, and carries the cluster's mark in case we die meanwhile.
    ///
    /// # Errors
    /// When the container could not be run at all.
    pub async fn probe(&self, spec: &ProbeSpec) -> Result<Probe, DockerError> {
        probe::run(self, spec).await
    }

    /// Removes one container in its turn: never more at once than the daemon bears. The
    /// wait for the turn is not part of the call's limit.
    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<(), DockerError> {
        // The semaphore is never closed; if it were, going on unbounded beats not removing.
        let _turn = self.removals.acquire().await.ok();
        container::remove(&self.connection, id).await
    }
}

#[async_trait]
impl Docker for BollardDocker {
    async fn daemon(&self) -> Result<Daemon, DockerError> {
        let (info, version) = self
            .connection
            .call("asking the daemon about itself", READ_LIMIT, async |docker| {
                tokio::try_join!(docker.info(), docker.version())
            })
            .await?;
        let disk_free = match info.docker_root_dir.as_deref() {
            Some(root) if self.connection.is_local() => disk::free(root).await,
            _ => None,
        };
        Ok(Daemon {
            version: version.version.or(info.server_version).unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            architecture: info.architecture.unwrap_or_default(),
            cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
            memory_bytes: info.mem_total.and_then(|b| u64::try_from(b).ok()).unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            cgroup_version: info.cgroup_version.map(|v| v.to_string()).unwrap_or_default(),
            disk_free_bytes: disk_free,
        })
    }

    async fn claim_identity(
        &self,
        mark: &ClusterMark,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        volume::claim_identity(&self.connection, mark, fresh).await
    }

    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        volume::replace_identity(&self.connection, mark, old, fresh).await
    }

    async fn marker(
        &self,
        mark: &ClusterMark,
        host: HostId,
    ) -> Result<Option<Marker>, DockerError> {
        volume::marker(&self.connection, mark, host).await
    }

    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Result<(), DockerError> {
        volume::write_marker(&self.connection, mark, marker).await
    }

    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Result<(), DockerError> {
        volume::remove_marker(&self.connection, mark, boot).await
    }

    async fn containers(&self, mark: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError> {
        container::list(&self.connection, mark).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<Network, DockerError> {
        network::ensure(&self.connection, self.supernet, network).await
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, DockerError> {
        image::find(&self.connection, reference).await
    }

    async fn pull(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<PullProgress, DockerError>>, DockerError> {
        image::pull(&self.connection, reference).await
    }

    async fn create(&self, spec: &RunnerContainer) -> Result<ContainerId, DockerError> {
        container::create(&self.connection, spec).await
    }

    async fn attach(&self, id: &ContainerId) -> Result<Attached, DockerError> {
        container::attach(&self.connection, id).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        container::start(&self.connection, id).await
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DockerError> {
        container::state(&self.connection, id).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError> {
        container::stop(&self.connection, id, grace).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.remove_container(id).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, DockerError>>, DockerError> {
        const ACTION: &str = "reading a container's log";
        let options = LogsOptions {
            follow: query.follow,
            stdout: true,
            stderr: true,
            // Whole seconds are all the library sends: up to one second more is shown.
            since: query
                .since
                .and_then(|since| i32::try_from(since.0 / 1000).ok())
                .unwrap_or_default(),
            until: 0,
            timestamps: query.timestamps,
            tail: query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
        };
        let client = timeout(READ_LIMIT, self.connection.client(ACTION))
            .await
            .map_err(|_| overdue(ACTION, READ_LIMIT))??;
        Ok(logs::lines(ACTION, client.logs(id.as_str(), Some(options))))
    }

    async fn events(
        &self,
        mark: &ClusterMark,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, DockerError>>, DockerError> {
        events::listen(&self.connection, mark).await
    }

    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Result<Swept, DockerError> {
        sweep::sweep(self, mark, keep).await
    }

    async fn forget_cluster(&self, mark: &ClusterMark) -> Result<Swept, DockerError> {
        sweep::forget(self, mark).await
    }
}
