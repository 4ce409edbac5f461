//! A modelled Docker host behind the same trait as a real engine: containers are tasks,
//! volumes and networks are data. Cheap enough for a thousand at once, and moved by
//! tokio's clock alone, so that a test can pause it.

mod fault;
mod host;
mod log;
mod program;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::fault::Faults;
use self::host::Host;
use crate::clock::Clock;
use crate::docker::{
    Attached, ContainerEvent, ContainerSeen, ContainerState, Daemon, Docker, DockerError, Input,
    LogLine, LogQuery, Marker, Network, NetworkSpec, PullProgress, RunnerContainer, Swept,
};
use crate::fleet::id::{BootId, ClusterMark, ContainerId, HostId};

pub use self::fault::{Fault, Operation};
pub use self::host::Kill;
pub use self::program::{ContainerProgram, Output, Process};

/// How the host behaves when nothing goes wrong. The default has no delay at all.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ModelSettings {
    pub create_latency: Duration,
    pub start_latency: Duration,
    pub remove_latency: Duration,
    pub pull_latency: Duration,
    /// The host starts no more containers than this a second; `None` = no bound.
    pub starts_per_second: Option<f64>,
    /// Images that are there from the beginning.
    pub images: Vec<String>,
}

/// The modelled host. Dropping it kills what runs on it.
#[derive(Debug)]
pub struct ModelDocker {
    host: Arc<Host>,
    program: Arc<dyn ContainerProgram>,
    tasks: TaskTracker,
    clock: Arc<dyn Clock>,
    settings: ModelSettings,
    faults: Faults,
    next_start: Mutex<Option<Instant>>,
}

impl ModelDocker {
    /// An empty host. Every container runs `program`, as a task of `tasks`.
    #[must_use]
    pub fn new(
        tasks: TaskTracker,
        clock: Arc<dyn Clock>,
        program: Arc<dyn ContainerProgram>,
        settings: ModelSettings,
    ) -> Self {
        Self {
            host: Arc::new(Host::new(&settings.images)),
            program,
            tasks,
            clock,
            settings,
            faults: Faults::default(),
            next_start: Mutex::new(None),
        }
    }

    /// Lets the next `times` calls of this kind fail.
    pub fn fail(&self, operation: Operation, fault: Fault, times: u32) {
        self.faults.plan(operation, fault, times);
    }

    /// Takes back what [`ModelDocker::fail`] planned.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }

    /// The daemon cannot be reached (or can again). Containers go on; all streams end.
    pub fn set_reachable(&self, reachable: bool) {
        self.faults.set_away(!reachable);
        if !reachable {
            self.host.cut_listeners();
            self.host.break_output();
        }
    }

    /// Every stream of output ends, as after a restart of the daemon that nobody noticed.
    pub fn break_output(&self) {
        self.host.break_output();
    }

    /// How many calls of this kind arrived, failed ones included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.faults.calls(operation)
    }

    /// What is on the host, as somebody with a shell there sees it: no call, no fault.
    #[must_use]
    pub fn inventory(&self) -> Vec<(ContainerId, Arc<RunnerContainer>, ContainerState)> {
        let world = self.host.world();
        let all = world.containers.iter();
        all.map(|(id, container)| (id.clone(), Arc::clone(&container.spec), container.state))
            .collect()
    }

    /// Those of them that are in such a state, in the same order.
    #[must_use]
    pub fn in_state(&self, is: impl Fn(ContainerState) -> bool) -> Vec<Arc<RunnerContainer>> {
        let world = self.host.world();
        let all = world.containers.values().filter(|container| is(container.state));
        all.map(|container| Arc::clone(&container.spec)).collect()
    }

    /// Somebody prunes every volume that no container names: identity and marker go too.
    pub fn prune_volumes(&self) {
        self.host.world().prune_volumes();
    }

    /// Kills a container's program from outside. Whether there was one to kill.
    pub fn kill(&self, id: &ContainerId, cause: Kill) -> bool {
        self.host.kill(id, cause)
    }

    /// Somebody removes a container by hand, on the host itself: also while the daemon cannot
    /// be reached from here, and then nobody is told.
    pub async fn lose(&self, id: &ContainerId) {
        self.host.remove(id).await;
    }

    /// Waits for this start's turn when the host has a rate.
    async fn pace(&self) {
        let Some(rate) = self.settings.starts_per_second.filter(|rate| *rate > 0.0) else {
            return;
        };
        let turn = {
            let mut next = lock(&self.next_start);
            let turn = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(turn + Duration::from_secs_f64(1.0 / rate));
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

impl Drop for ModelDocker {
    fn drop(&mut self) {
        self.host.kill_all();
    }
}

/// Waits, but a wait of nothing is none: tokio's timer would round it up.
async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Docker for ModelDocker {
    async fn daemon(&self) -> Result<Daemon, DockerError> {
        let answer = async {
            Ok(Daemon {
                version: "model".to_owned(),
                api_version: "1.41".to_owned(),
                architecture: std::env::consts::ARCH.to_owned(),
                cpus: 8,
                memory_bytes: 32 << 30,
                live_restore: true,
                storage_driver: "model".to_owned(),
                cgroup_version: "2".to_owned(),
                disk_free_bytes: Some(100 << 30),
            })
        };
        self.faults.call(Operation::Daemon, "asking the daemon about itself", answer).await
    }

    async fn claim_identity(
        &self,
        mark: &ClusterMark,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        let claim = async { Ok(self.host.world().claim_identity(mark, fresh)) };
        self.faults.call(Operation::Identity, "claiming the host's identity", claim).await
    }

    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Result<HostId, DockerError> {
        let replace = async { Ok(self.host.world().replace_identity(mark, old, fresh)) };
        self.faults.call(Operation::Identity, "replacing the host's identity", replace).await
    }

    async fn marker(
        &self,
        mark: &ClusterMark,
        host: HostId,
    ) -> Result<Option<Marker>, DockerError> {
        let read = async { Ok(self.host.world().marker(mark, host)) };
        self.faults.call(Operation::Marker, "reading the agent's marker", read).await
    }

    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Result<(), DockerError> {
        let write = async {
            self.host.world().write_marker(mark, *marker);
            Ok(())
        };
        self.faults.call(Operation::Marker, "writing the agent's marker", write).await
    }

    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Result<(), DockerError> {
        let remove = async {
            self.host.world().remove_marker(mark, boot);
            Ok(())
        };
        self.faults.call(Operation::Marker, "removing the agent's marker", remove).await
    }

    async fn containers(&self, mark: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError> {
        let list = async { Ok(self.host.world().list(mark)) };
        self.faults.call(Operation::Containers, "listing containers", list).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<Network, DockerError> {
        let ensure = async { Ok(self.host.world().ensure_network(network)) };
        self.faults.call(Operation::Network, "creating a network", ensure).await
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, DockerError> {
        let find = async {
            let there = self.host.world().images.contains(reference);
            Ok(there.then(|| format!("sha256:{reference}")))
        };
        self.faults.call(Operation::Image, "inspecting an image", find).await
    }

    async fn pull(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<PullProgress, DockerError>>, DockerError> {
        let (host, latency) = (Arc::clone(&self.host), self.settings.pull_latency);
        let reference = reference.to_owned();
        let begin = async {
            let step = |status: &str| {
                Ok(PullProgress {
                    status: status.to_owned(),
                    current_bytes: None,
                    total_bytes: None,
                })
            };
            let (first, last) = (step("Pulling"), step("Pull complete"));
            let rest = stream::once(async move {
                pause(latency).await;
                host.world().images.insert(reference);
                last
            });
            Ok(stream::iter([first]).chain(rest).boxed())
        };
        self.faults.call(Operation::Pull, "pulling an image", begin).await
    }

    async fn create(&self, spec: &RunnerContainer) -> Result<ContainerId, DockerError> {
        let create = async {
            pause(self.settings.create_latency).await;
            self.host.create(spec, &self.clock)
        };
        self.faults.call(Operation::Create, "creating a container", create).await
    }

    async fn attach(&self, id: &ContainerId) -> Result<Attached, DockerError> {
        const ACTION: &str = "attaching to a container";
        let attach = async {
            let mut world = self.host.world();
            let container = world.get(ACTION, id)?;
            let stdin: Input = match container.feed.take() {
                Some(feed) => self.faults.input(Box::pin(feed)),
                // A second one is attached to the output; its input goes nowhere.
                None => Box::pin(tokio::io::sink()),
            };
            Ok(Attached { stdin, lines: self.host.connected(container.log.attach()) })
        };
        self.faults.call(Operation::Attach, ACTION, attach).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        let start = async {
            self.pace().await;
            pause(self.settings.start_latency).await;
            let Some((process, kill)) = self.host.start(id)? else { return Ok(()) };
            let (host, program, id) =
                (Arc::clone(&self.host), Arc::clone(&self.program), id.clone());
            self.tasks.spawn(async move { host.run(&*program, process, kill, &id).await });
            Ok(())
        };
        self.faults.call(Operation::Start, "starting a container", start).await
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DockerError> {
        let look = async { Ok(self.host.world().containers.get(id).map(|c| c.state)) };
        self.faults.call(Operation::State, "inspecting a container", look).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError> {
        let stop = async {
            self.host.stop(id, grace).await;
            Ok(())
        };
        self.faults.call(Operation::Stop, "stopping a container", stop).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        let remove = async {
            pause(self.settings.remove_latency).await;
            self.host.remove(id).await;
            Ok(())
        };
        self.faults.call(Operation::Remove, "removing a container", remove).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, DockerError>>, DockerError> {
        const ACTION: &str = "reading a container's log";
        let read = async {
            let lines = self.host.world().get(ACTION, id)?.log.query(query);
            Ok(self.host.connected(lines))
        };
        self.faults.call(Operation::Logs, ACTION, read).await
    }

    async fn events(
        &self,
        mark: &ClusterMark,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, DockerError>>, DockerError> {
        let listen = async { Ok(self.host.events(mark.clone())) };
        self.faults.call(Operation::Events, "listening for events", listen).await
    }

    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Result<Swept, DockerError> {
        let sweep = async { Ok(self.host.world().sweep(mark, keep)) };
        self.faults.call(Operation::Sweep, "sweeping", sweep).await
    }

    async fn forget_cluster(&self, mark: &ClusterMark) -> Result<Swept, DockerError> {
        let forget = async { Ok(self.host.forget(mark)) };
        self.faults.call(Operation::Sweep, "forgetting the cluster", forget).await
    }
}
