//! One replica's way to its Docker daemon: what it does there is watched, and goes on
//! when the process that asked for it has died, as a real daemon's work does.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use runner_orchestrator::docker::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, LogLine,
    LogQuery, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept,
};
use runner_orchestrator::fleet::id::{BootId, ClusterMark, ContainerId, HostId};
use runner_orchestrator::sim::docker::ModelDocker;
use runner_orchestrator::sim::random::Random;
use tokio::io::AsyncWrite;
use tokio_util::task::TaskTracker;

use super::gate::{Feed, Gate, Moment, Point, lock};
use super::witness::Witness;

/// The daemon as one process reaches it.
#[derive(Debug)]
pub(super) struct WatchedDocker {
    pub(super) inner: Arc<ModelDocker>,
    pub(super) gate: Arc<Gate>,
    pub(super) witness: Arc<Witness>,
    pub(super) replica: usize,
    pub(super) daemon: usize,
    pub(super) lag: Mutex<Random>,
    /// The daemon's own tasks.
    pub(super) tasks: TaskTracker,
}

impl WatchedDocker {
    /// A call that reads.
    async fn ask<T>(&self, call: impl Future<Output = T>) -> T {
        self.gate.pass().await;
        self.lag().await;
        let answer = call.await;
        self.gate.pass().await;
        answer
    }

    /// A call that changes something: the daemon sees it through, whoever asked.
    async fn change<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> T {
        self.lag().await;
        self.tasks.spawn(call).await.unwrap()
    }

    async fn lag(&self) {
        let ms = lock(&self.lag).below(4);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms as u64)).await;
        }
    }

    fn gated<T: Send + 'static>(&self, stream: BoxStream<'static, T>) -> BoxStream<'static, T> {
        let gate = self.gate.clone();
        let gated = stream.then(move |item| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                item
            }
        });
        gated.boxed()
    }
}

#[async_trait]
impl Docker for WatchedDocker {
    async fn daemon(&self) -> Result<Daemon, DockerError> {
        self.ask(self.inner.daemon()).await
    }

    async fn claim_identity(
        &self,
        mark: &ClusterMark,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        let claimed = self.ask(self.inner.claim_identity(mark, fresh)).await;
        if let Ok(host) = claimed {
            self.witness.daemon_is(self.daemon, host);
        }
        claimed
    }

    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        let replaced = self.ask(self.inner.replace_identity(mark, old, fresh)).await;
        if let Ok(host) = replaced {
            self.witness.daemon_is(self.daemon, host);
        }
        replaced
    }

    async fn marker(
        &self,
        mark: &ClusterMark,
        host: HostId,
    ) -> Result<Option<Marker>, DockerError> {
        self.ask(self.inner.marker(mark, host)).await
    }

    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Result<(), DockerError> {
        self.ask(self.inner.remove_marker(mark, boot)).await
    }

    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Result<(), DockerError> {
        self.gate.pass().await;
        let (inner, witness, mark) = (self.inner.clone(), self.witness.clone(), mark.clone());
        let (replica, daemon, marker) = (self.replica, self.daemon, *marker);
        let answer = self
            .change(async move {
                let written = inner.write_marker(&mark, &marker).await;
                if written.is_ok() {
                    witness.marked(replica, daemon);
                }
                written
            })
            .await;
        self.gate.pass().await;
        answer
    }

    async fn containers(&self, mark: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError> {
        self.ask(self.inner.containers(mark)).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<Network, DockerError> {
        self.ask(self.inner.ensure_network(network)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, DockerError> {
        self.ask(self.inner.image(reference)).await
    }

    async fn pull(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<PullProgress, DockerError>>, DockerError> {
        self.ask(self.inner.pull(reference)).await
    }

    async fn create(&self, spec: &RunnerContainer) -> Result<ContainerId, DockerError> {
        self.gate.at(Point::Create, Moment::Before).await;
        self.witness.acts(self.replica, self.daemon, "create", spec.name.as_str());
        let (inner, witness, spec) = (self.inner.clone(), self.witness.clone(), spec.clone());
        let daemon = self.daemon;
        let answer = self
            .change(async move {
                let _counted = witness.creating(daemon);
                let created = inner.create(&spec).await;
                witness.created(daemon, &spec, &created);
                created
            })
            .await;
        self.gate.at(Point::Create, Moment::After).await;
        answer
    }

    async fn attach(&self, id: &ContainerId) -> Result<Attached, DockerError> {
        let attached = self.ask(self.inner.attach(id)).await?;
        let feed = Arc::new(Mutex::new(Some(attached.stdin)));
        self.gate.holds(Arc::downgrade(&feed));
        let stdin = Fed {
            feed,
            gate: self.gate.clone(),
            witness: self.witness.clone(),
            container: id.clone(),
            text: Vec::new(),
        };
        Ok(Attached { stdin: Box::pin(stdin), lines: self.gated(attached.lines) })
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.gate.at(Point::Start, Moment::Before).await;
        self.witness.acts(self.replica, self.daemon, "start", id.as_str());
        let (inner, witness, id) = (self.inner.clone(), self.witness.clone(), id.clone());
        let daemon = self.daemon;
        let answer = self
            .change(async move {
                let started = inner.start(&id).await;
                witness.started(daemon, &id, started.is_ok());
                started
            })
            .await;
        self.gate.at(Point::Start, Moment::After).await;
        answer
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DockerError> {
        self.ask(self.inner.state(id)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError> {
        self.gate.pass().await;
        self.witness.acts(self.replica, self.daemon, "stop", id.as_str());
        self.witness.ends(self.daemon, &self.inner, id, "stop");
        let (inner, id) = (self.inner.clone(), id.clone());
        let answer = self.change(async move { inner.stop(&id, grace).await }).await;
        self.gate.pass().await;
        answer
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.gate.at(Point::Remove, Moment::Before).await;
        self.witness.acts(self.replica, self.daemon, "remove", id.as_str());
        self.witness.ends(self.daemon, &self.inner, id, "remove");
        let (inner, id) = (self.inner.clone(), id.clone());
        let answer = self.change(async move { inner.remove(&id).await }).await;
        self.gate.at(Point::Remove, Moment::After).await;
        answer
    }

    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, DockerError>>, DockerError> {
        let lines = self.ask(self.inner.logs(id, query)).await?;
        Ok(self.gated(lines))
    }

    async fn events(
        &self,
        mark: &ClusterMark,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, DockerError>>, DockerError> {
        let events = self.ask(self.inner.events(mark)).await?;
        Ok(self.gated(events))
    }

    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Result<Swept, DockerError> {
        self.ask(self.inner.sweep(mark, keep)).await
    }

    async fn forget_cluster(&self, mark: &ClusterMark) -> Result<Swept, DockerError> {
        self.ask(self.inner.forget_cluster(mark)).await
    }
}

/// Standard input of a container: what is written is a configuration.
struct Fed {
    feed: Arc<Feed>,
    gate: Arc<Gate>,
    witness: Arc<Witness>,
    container: ContainerId,
    text: Vec<u8>,
}

impl Fed {
    fn poll<R>(
        &self,
        act: impl FnOnce(Pin<&mut (dyn AsyncWrite + Send)>) -> Poll<std::io::Result<R>>,
    ) -> Poll<std::io::Result<R>> {
        if self.gate.is_dead() {
            return Poll::Pending;
        }
        match &mut *lock(&self.feed) {
            Some(feed) => act(feed.as_mut()),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncWrite for Fed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = self.poll(|feed| feed.poll_write(context, bytes));
        if let Poll::Ready(Ok(count)) = written {
            self.text.extend_from_slice(&bytes[..count]);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll(|feed| feed.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll(|feed| feed.poll_shutdown(context))
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.witness.fed(&self.container, &self.text);
        }
    }
}
