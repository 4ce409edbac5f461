//! A modelled host at work: its world, the tasks of its containers, its listeners.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::lock;
use super::log::Log;
use super::program::{ContainerProgram, Output, Process};
use super::world::{Container, World};
use crate::clock::Clock;
use crate::docker::{
    ContainerEvent, ContainerEventKind, ContainerState, DockerError, LogLine, LogStream,
    RunnerContainer, Swept, labels,
};
use crate::fleet::id::{ClusterMark, ContainerId};

/// As a pipe of the kernel: a writer waits beyond it.
const STDIN_BYTES_MAX: usize = 64 * 1024;

/// A listener this far behind is cut off and lists again, as after a broken connection.
const EVENTS_WAITING_MAX: usize = 4096;

/// The exit code of a killed process.
const KILLED: i64 = 137;

/// Why a container's program is killed from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kill {
    /// By the kernel, for its memory.
    OutOfMemory,
    /// By somebody with a shell on the host.
    ByHand,
}

/// What the tasks of containers share with the host.
#[derive(Debug)]
pub(super) struct Host {
    world: Mutex<World>,
    events: Mutex<broadcast::Sender<(ClusterMark, ContainerEvent)>>,
    /// Grows when all streams of output break.
    breaks: watch::Sender<u64>,
}

impl Host {
    pub(super) fn new(images: &[String]) -> Self {
        Self {
            world: Mutex::new(World::with_images(images)),
            events: Mutex::new(broadcast::Sender::new(EVENTS_WAITING_MAX)),
            breaks: watch::Sender::default(),
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(super) fn create(
        &self,
        spec: &RunnerContainer,
        clock: &Arc<dyn Clock>,
    ) -> Result<ContainerId, DockerError> {
        let (feed, stdin) = tokio::io::duplex(STDIN_BYTES_MAX);
        let container = Container {
            spec: Arc::new(spec.clone()),
            labels: labels::parse(&labels::encode(spec)),
            state: ContainerState::Created,
            log: Arc::new(Log::new(Arc::clone(clock))),
            feed: Some(feed),
            stdin: Some(stdin),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            ended: CancellationToken::new(),
            oom: false,
        };
        self.world().create(spec, container)
    }

    /// What the container's task needs; `None` when it runs already.
    pub(super) fn start(
        &self,
        id: &ContainerId,
    ) -> Result<Option<(Process, CancellationToken)>, DockerError> {
        let mut world = self.world();
        let Some(stdin) = world.start(id)? else { return Ok(None) };
        let container = world.get("starting a container", id)?;
        let process = Process {
            spec: Arc::clone(&container.spec),
            stdin,
            stdout: Output::new(Arc::clone(&container.log), LogStream::Stdout),
            stderr: Output::new(Arc::clone(&container.log), LogStream::Stderr),
            stop: container.stop.clone(),
        };
        self.tell(&container.spec, id, ContainerEventKind::Started, None);
        Ok(Some((process, container.kill.clone())))
    }

    /// The container's task, from its start to its end.
    pub(super) async fn run(
        &self,
        program: &dyn ContainerProgram,
        process: Process,
        kill: CancellationToken,
        id: &ContainerId,
    ) {
        let code = tokio::select! { biased;
            () = kill.cancelled() => KILLED,
            code = program.run(process) => code,
        };
        let mut world = self.world();
        let Some(container) = world.containers.get_mut(id) else { return };
        container.state = ContainerState::Exited { code, oom: container.oom };
        container.log.end();
        if container.oom {
            self.tell(&container.spec, id, ContainerEventKind::OutOfMemory, None);
        }
        self.tell(&container.spec, id, ContainerEventKind::Died, Some(code));
        container.ended.cancel();
    }

    pub(super) async fn stop(&self, id: &ContainerId, grace: Duration) {
        let Some(signals) = self.signals(id) else { return };
        signals.stop.cancel();
        if tokio::time::timeout(grace, signals.ended.cancelled()).await.is_err() {
            signals.kill.cancel();
            signals.ended.cancelled().await;
        }
    }

    pub(super) async fn remove(&self, id: &ContainerId) {
        if let Some(signals) = self.signals(id) {
            signals.kill.cancel();
            signals.ended.cancelled().await;
        }
        let removed = self.world().containers.remove(id);
        if let Some(container) = removed {
            // Nobody will start it any more: whoever is attached reads the end.
            container.log.end();
            self.tell(&container.spec, id, ContainerEventKind::Removed, None);
        }
    }

    pub(super) fn forget(&self, mark: &ClusterMark) -> Swept {
        let (swept, containers) = self.world().forget(mark);
        for (id, container) in containers {
            container.kill.cancel();
            container.log.end();
            self.tell(&container.spec, &id, ContainerEventKind::Removed, None);
        }
        swept
    }

    pub(super) fn kill(&self, id: &ContainerId, cause: Kill) -> bool {
        let mut world = self.world();
        let Some(container) = world.containers.get_mut(id) else { return false };
        if container.state != ContainerState::Running {
            return false;
        }
        container.oom = cause == Kill::OutOfMemory;
        container.kill.cancel();
        true
    }

    pub(super) fn kill_all(&self) {
        for container in self.world().containers.values() {
            container.kill.cancel();
        }
    }

    /// Ends every event stream.
    pub(super) fn cut_listeners(&self) {
        *lock(&self.events) = broadcast::Sender::new(EVENTS_WAITING_MAX);
    }

    pub(super) fn break_output(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }

    /// A stream of output as it goes over a connection: it ends when all of them break.
    pub(super) fn connected(
        &self,
        lines: BoxStream<'static, Result<LogLine, DockerError>>,
    ) -> BoxStream<'static, Result<LogLine, DockerError>> {
        let mut breaks = self.breaks.subscribe();
        lines.take_until(async move { breaks.changed().await }).boxed()
    }

    pub(super) fn events(
        &self,
        mark: ClusterMark,
    ) -> BoxStream<'static, Result<ContainerEvent, DockerError>> {
        let receiver = lock(&self.events).subscribe();
        stream::unfold((receiver, mark), async |(mut receiver, mark)| {
            loop {
                // An error is the end: the host went away, or we fell too far behind.
                let (cluster, event) = receiver.recv().await.ok()?;
                if cluster == mark {
                    return Some((Ok(event), (receiver, mark)));
                }
            }
        })
        .boxed()
    }

    /// The signals of a running container.
    fn signals(&self, id: &ContainerId) -> Option<Signals> {
        let world = self.world();
        let container = world.containers.get(id)?;
        (container.state == ContainerState::Running).then(|| Signals {
            stop: container.stop.clone(),
            kill: container.kill.clone(),
            ended: container.ended.clone(),
        })
    }

    fn tell(
        &self,
        spec: &RunnerContainer,
        id: &ContainerId,
        kind: ContainerEventKind,
        exit_code: Option<i64>,
    ) {
        let (container, runner) = (id.clone(), Some(spec.runner));
        let event = ContainerEvent { container, runner, kind, exit_code };
        // Nobody listening is no error.
        let _ = lock(&self.events).send((spec.cluster.clone(), event));
    }
}

struct Signals {
    stop: CancellationToken,
    kill: CancellationToken,
    ended: CancellationToken,
}
