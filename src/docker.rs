//! The Docker edge: one trait in our words, kept by `bollard` on a real engine and by
//! a modelled host in the simulation. Only the host loop calls what changes anything.

mod connection;
mod container;
mod disk;
mod engine;
mod error;
mod events;
mod image;
pub(crate) mod labels;
pub(crate) mod logs;
mod measured;
mod network;
mod probe;
mod spec;
mod subnet;
mod survey;
mod sweep;
mod volume;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;

use crate::fleet::id::{
    BootId, ClusterMark, ContainerId, HostId, PoolName, RunnerId, RunnerName, Term,
};
use crate::fleet::pool::{InnerDocker, Resources, Scope};
use crate::fleet::time::Timestamp;

pub use engine::BollardDocker;
pub use error::{BoxError, DockerError};
pub use measured::MeasuredDocker;
pub use probe::{Probe, ProbeSpec};
pub use subnet::Supernet;
pub use survey::Range;

/// One Docker daemon.
#[async_trait]
pub trait Docker: Send + Sync + fmt::Debug {
    /// What the daemon says of itself; also the cheapest proof that it answers.
    async fn daemon(&self) -> Result<Daemon, DockerError>;

    /// The identity kept on this daemon for this cluster: `fresh` when there was none.
    /// Creation by name is atomic: the first caller wins, all others read its answer.
    async fn claim_identity(
        &self,
        mark: &ClusterMark,
        fresh: HostId,
    ) -> Result<HostId, DockerError>;

    /// Gives the daemon the identity `fresh` instead of `old`. Returns what it has then:
    /// whoever has replaced `old` before has won.
    async fn replace_identity(
        &self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> Result<HostId, DockerError>;

    /// The marker of the host's agent, or `None` when none has left one on this daemon.
    async fn marker(&self, mark: &ClusterMark, host: HostId)
    -> Result<Option<Marker>, DockerError>;

    /// Leaves the agent's marker on the daemon, replacing any other.
    async fn write_marker(&self, mark: &ClusterMark, marker: &Marker) -> Result<(), DockerError>;

    /// Takes this boot's marker away, and no other; repeatable.
    async fn remove_marker(&self, mark: &ClusterMark, boot: BootId) -> Result<(), DockerError>;

    /// Every runner container of this cluster, running or not.
    async fn containers(&self, mark: &ClusterMark) -> Result<Vec<ContainerSeen>, DockerError>;

    /// Makes the pool's network if it is missing and returns what is there.
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<Network, DockerError>;

    /// The image's digest (its id), or `None` when the daemon does not have it.
    async fn image(&self, reference: &str) -> Result<Option<String>, DockerError>;

    /// Pulls an image, telling its progress; ends after the last layer.
    async fn pull(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<PullProgress, DockerError>>, DockerError>;

    /// Creates a container; it holds nothing secret.
    async fn create(&self, spec: &RunnerContainer) -> Result<ContainerId, DockerError>;

    /// Attaches to standard input and output. Called before [`Docker::start`], so that no
    /// line is missed. Dropping the writer half-closes the container's standard input.
    async fn attach(&self, id: &ContainerId) -> Result<Attached, DockerError>;

    /// Starts a created container; an already running one counts as success.
    async fn start(&self, id: &ContainerId) -> Result<(), DockerError>;

    /// The container's state, or `None` when it is gone.
    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DockerError>;

    /// Sends the stop signal and waits up to `grace` before the kill; repeatable.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError>;

    /// Removes the container with its anonymous volumes, running or not; repeatable.
    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError>;

    /// The container's log, demultiplexed, oldest first.
    async fn logs(
        &self,
        id: &ContainerId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, DockerError>>, DockerError>;

    /// Starts and ends of this cluster's runner containers, from now on. Ends when the
    /// connection does; the caller reconnects and re-lists.
    async fn events(
        &self,
        mark: &ClusterMark,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, DockerError>>, DockerError>;

    /// Removes volumes and networks of this cluster that no container uses and that are
    /// not in `keep` (network names). Identity and marker volumes always stay, and so do
    /// runner containers, whatever their state.
    async fn sweep(&self, mark: &ClusterMark, keep: &[String]) -> Result<Swept, DockerError>;

    /// Removes everything of this cluster: containers, running or not, volumes with
    /// identity and marker, networks. For the demo's end and an uninstall; never in
    /// normal running.
    async fn forget_cluster(&self, mark: &ClusterMark) -> Result<Swept, DockerError>;
}

/// What an agent leaves on its daemon: whoever reaches the same daemon can tell who cares
/// for it, with or without the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    pub host: HostId,
    pub boot: BootId,
    /// The term of the agent's lease.
    pub term: Term,
    /// Grows as long as its agent lives: the copy of a marker, made with its machine, does
    /// not. 0: left by a version whose markers stay as they are.
    pub beat: u64,
}

/// What a daemon says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Daemon {
    pub version: String,
    pub api_version: String,
    pub architecture: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Whether containers survive a restart of the daemon.
    pub live_restore: bool,
    pub storage_driver: String,
    pub cgroup_version: String,
    /// Free on the file system of its data, where this process can see that.
    pub disk_free_bytes: Option<u64>,
}

/// What a runner's container is made from. Everything of it appears in `docker inspect`.
#[derive(Clone, PartialEq, Debug)]
pub struct RunnerContainer {
    pub runner: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub cluster: ClusterMark,
    pub host: HostId,
    pub boot: BootId,
    pub term: u64,
    pub image: String,
    pub command: Option<Vec<String>>,
    pub network: String,
    pub resources: Resources,
    pub docker: InnerDocker,
    /// Where it is registered: still known when its pool is no longer configured.
    pub scope: Scope,
    pub revision: String,
    pub created_at: Timestamp,
    /// Follows the runner from decision to removal.
    pub correlation: String,
}

/// A runner container as listed.
#[derive(Clone, PartialEq, Debug)]
pub struct ContainerSeen {
    pub id: ContainerId,
    pub labels: ContainerLabels,
    pub state: ContainerState,
    pub image: String,
}

/// Our labels, parsed. A container whose labels do not parse is not ours to touch and is
/// not listed.
#[derive(Clone, PartialEq, Debug)]
pub struct ContainerLabels {
    pub runner: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub cluster: ClusterMark,
    pub host: HostId,
    pub boot: BootId,
    pub term: u64,
    pub revision: String,
    pub created_at: Timestamp,
    pub correlation: String,
    /// `None`: made by a version that did not write it.
    pub scope: Option<Scope>,
}

/// How a container stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerState {
    /// Created and never started.
    Created,
    Running,
    /// Paused, restarting or being removed: it takes up room and is left alone.
    Other,
    /// Ended; `oom` when the kernel killed it for its memory.
    Exited {
        code: i64,
        oom: bool,
    },
}

/// A network of a pool.
#[derive(Clone, PartialEq, Debug)]
pub struct NetworkSpec {
    pub name: String,
    pub cluster: ClusterMark,
    pub pool: PoolName,
    /// How many containers it must hold; the subnet is sized to it.
    pub capacity: u32,
}

impl NetworkSpec {
    /// The network of a pool. Its name tells its size, so that a pool that outgrows it gets
    /// a new one and the old one is swept when its last container has gone.
    #[must_use]
    pub fn of_pool(cluster: ClusterMark, pool: PoolName, capacity: u32) -> Self {
        let name = format!("runners-{cluster}-{pool}-{}", subnet::prefix_for(capacity));
        Self { name, cluster, pool, capacity }
    }
}

/// A network as it is on the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub gateway: Option<String>,
    /// The bridge device on the host.
    pub bridge: Option<String>,
}

/// One step of an image pull.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullProgress {
    pub status: String,
    pub current_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// A container's standard input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// An attached container.
pub struct Attached {
    pub stdin: Input,
    /// Standard output and error, line by line, each at most [`LINE_BYTES_MAX`] long.
    pub lines: BoxStream<'static, Result<LogLine, DockerError>>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attached")
    }
}

/// A longer line is cut: a job's output is not ours to hold.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// One line of a container's output, lossily decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    pub stream: LogStream,
    pub text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// Which part of a log is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogQuery {
    /// The last so many lines; `None` = all.
    pub tail: Option<u32>,
    pub follow: bool,
    pub since: Option<Timestamp>,
    /// Prefix each line with the daemon's RFC 3339 time.
    pub timestamps: bool,
}

/// Something happened to a runner container: a nudge, the list is the truth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerEvent {
    pub container: ContainerId,
    pub runner: Option<RunnerId>,
    pub kind: ContainerEventKind,
    /// With [`ContainerEventKind::Died`]: the program's exit code.
    pub exit_code: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerEventKind {
    Started,
    Died,
    OutOfMemory,
    Removed,
}

/// What a sweep removed and what it could not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Probes left by a crash; with [`Docker::forget_cluster`] every container.
    pub containers: u32,
    pub volumes: u32,
    pub networks: u32,
    /// Networks that refuse to go ("active endpoints" with no container listed).
    pub stuck_networks: Vec<String>,
}

/// Labels on what we make. Names of the Python original are kept where it had one.
pub mod label {
    pub const MANAGED_BY: &str = "managed-by";
    pub const MANAGED_BY_VALUE: &str = "runner-orchestrator";
    pub const RUNNER_NAME: &str = "runner-name";
    pub const CREATED_AT: &str = "created-at";
    /// The scope as a URL path (`acme/demo`), for people who look at the container.
    pub const REPO_URL: &str = "repo-url";
    pub const IMAGE: &str = "image";
    pub const CLUSTER: &str = "io.runner-orchestrator.cluster";
    pub const HOST: &str = "io.runner-orchestrator.host";
    pub const BOOT: &str = "io.runner-orchestrator.boot";
    pub const POOL: &str = "io.runner-orchestrator.pool";
    pub const RUNNER_ID: &str = "io.runner-orchestrator.runner-id";
    pub const TERM: &str = "io.runner-orchestrator.term";
    pub const BEAT: &str = "io.runner-orchestrator.beat";
    /// `repo acme/demo`, `org acme` or `enterprise acme`.
    pub const SCOPE: &str = "io.runner-orchestrator.scope";
    pub const SPEC: &str = "io.runner-orchestrator.spec";
    pub const CORRELATION: &str = "io.runner-orchestrator.correlation";
    /// Which resource this is: `identity`, `marker` (volumes), `pool` (networks).
    pub const ROLE: &str = "io.runner-orchestrator.role";
    /// The version of this label set; a reader skips what it does not know.
    pub const VERSION: &str = "io.runner-orchestrator.version";
    pub const VERSION_VALUE: &str = "1";
}

/// Progress of pulls, by image reference, for status and metrics.
pub type Pulls = BTreeMap<String, PullProgress>;
