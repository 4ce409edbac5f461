//! One start: create, then start and mint side by side, then hand the configuration over
//! through standard input. Whatever fails on the way, nothing is left behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use super::{Event, Host, Limits, follow, remove};
use crate::docker::{Attached, DockerError, Input, RunnerContainer};
use crate::fleet::id::{
    BootId, ContainerId, GitHubRunnerId, HostId, PoolName, RunnerId, RunnerName,
};
use crate::fleet::pool::Pool;
use crate::fleet::runner::{Failure, Seen};
use crate::github::{GitHubError, MintRequest};
use crate::telemetry::metrics::StartPhase;
use crate::telemetry::{chain, trace};

/// A listener reads its configuration at once; 5 s cover a busy daemon.
pub(super) const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// How a start ended that did not hand over.
#[derive(Debug)]
pub enum StartEnd {
    Failed(Failure),
    Cancelled,
    /// The fleet was frozen before anything was done: it is begun anew later.
    Held,
}

/// What one start needs to know.
#[derive(Clone, Debug)]
pub struct StartOrder {
    pub runner: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub host: HostId,
    pub boot: BootId,
    pub term: u64,
    pub correlation: String,
    /// Cancelled when the runner is no longer wanted.
    pub cancel: CancellationToken,
    pub running: watch::Sender<bool>,
}

/// Runs one start to its end and follows the runner's output from then on.
pub async fn run(
    host: Host,
    limits: Limits,
    order: StartOrder,
    pool: Pool,
    events: mpsc::Sender<Event>,
) {
    let span = info_span!(
        "start_runner", runner.id = %order.runner, runner.name = %order.name,
        pool = %order.pool, correlation = %order.correlation
    );
    let span = trace::of_runner(order.runner, span);
    let runner = order.runner;
    let running = order.running.clone();
    let start = Start { host, limits, order, pool, events: events.clone() };
    // Boxed, so that what a start needs is freed when the runner's long life begins.
    let started = Box::pin(start.until_handed().instrument(span)).await;
    match started {
        Ok(attached) => {
            let _ = events.send(Event::StartEnded(runner, None)).await;
            follow::output(runner, attached, running, events).await;
        }
        Err(end) => {
            let _ = events.send(Event::StartEnded(runner, Some(end))).await;
        }
    }
}

type Lines = futures_util::stream::BoxStream<
    'static,
    Result<crate::docker::LogLine, crate::docker::DockerError>,
>;

struct Start {
    host: Host,
    limits: Limits,
    order: StartOrder,
    pool: Pool,
    events: mpsc::Sender<Event>,
}

impl Start {
    async fn until_handed(self) -> Result<Lines, StartEnd> {
        let permit = tokio::select! { biased;
            () = self.order.cancel.cancelled() => return Err(StartEnd::Cancelled),
            permit = self.limits.starts.acquire() => permit,
        };
        // Closed: the process stops, and what has not begun is left to another agent.
        let Ok(permit) = permit else { return Err(StartEnd::Cancelled) };
        if self.limits.frozen.load(Ordering::Relaxed) {
            return Err(StartEnd::Held);
        }
        let begun = tokio::time::Instant::now();
        let container = self.create().await?;
        self.host.metrics.startup_phase(&self.pool.name, StartPhase::Create, begun.elapsed());
        self.tell(Event::Container(self.order.runner, container.clone())).await;
        self.tell(Event::Seen(self.order.runner, Seen::Created)).await;

        let attached = match self.host.docker.attach(&container).await {
            Ok(attached) => attached,
            Err(error) => {
                let failure = Failure::Attach { message: chain(&error) };
                return Err(self.undo(&container, None, StartEnd::Failed(failure)).await);
            }
        };
        let start = async {
            let result = self.host.docker.start(&container).await;
            drop(permit);
            self.host.metrics.startup_phase(&self.pool.name, StartPhase::Start, begun.elapsed());
            if result.is_ok() {
                self.tell(Event::Seen(self.order.runner, Seen::Started)).await;
            }
            result
        };
        let (start, minted) = tokio::join!(start, self.mint(begun));
        let minted = match minted {
            Ok(minted) => minted,
            Err(failure) => {
                return Err(self.undo(&container, None, StartEnd::Failed(failure)).await);
            }
        };
        if let Err(error) = start {
            if is_network_missing(&error) {
                self.limits.networks.lock().await.remove(&self.pool.name);
            }
            let end = match error {
                DockerError::NotAgent { .. } => StartEnd::Cancelled,
                _ => StartEnd::Failed(Failure::Start { message: chain(&error) }),
            };
            return Err(self.undo(&container, Some(minted.0), end).await);
        }
        // Without the right to it, the next agent finds a container that was handed nothing
        // and that ends by itself.
        if self.order.cancel.is_cancelled() || !self.limits.rights.may_care().await {
            return Err(self.undo(&container, Some(minted.0), StartEnd::Cancelled).await);
        }
        let Attached { stdin, lines } = attached;
        match hand_over(stdin, &minted.1).await {
            Ok(()) => {
                self.host.metrics.startup_phase(&self.pool.name, StartPhase::Hand, begun.elapsed());
                info!("handed its configuration over");
            }
            // It may have arrived whole, and a job with it. So it counts as handed over: it
            // comes to listen, or ends by itself, or misses its deadline.
            Err(error) => warn!(error, "it is not known whether it got its configuration"),
        }
        self.tell(Event::Seen(self.order.runner, Seen::Handed)).await;
        Ok(lines)
    }

    async fn tell(&self, event: Event) {
        // A closed channel means the loop is gone; the next start of it finds the truth.
        let _ = self.events.send(event).await;
    }

    /// Creates the container on its pool's network. An answer that was lost may have left
    /// a container; the next list finds and discards it, because this id is spent.
    async fn create(&self) -> Result<ContainerId, StartEnd> {
        if self.order.cancel.is_cancelled() {
            return Err(StartEnd::Cancelled);
        }
        let spec = RunnerContainer {
            runner: self.order.runner,
            name: self.order.name.clone(),
            pool: self.pool.name.clone(),
            cluster: self.host.cluster.clone(),
            host: self.order.host,
            boot: self.order.boot,
            term: self.order.term,
            image: self.pool.image.clone(),
            command: self.pool.command.clone(),
            network: self.host.network(&self.pool).name,
            resources: self.pool.resources.clone(),
            docker: self.pool.docker,
            scope: self.pool.scope.clone(),
            revision: self.pool.revision.clone(),
            created_at: self.host.clock.now(),
            correlation: self.order.correlation.clone(),
        };
        let mut created = self.try_create(&spec, false).await;
        if created.as_ref().is_err_and(is_network_missing) {
            // Somebody removed the network since it was made.
            created = self.try_create(&spec, true).await;
        }
        if matches!(created, Err(DockerError::NotAgent { .. })) {
            // Says nothing of the pool, and nothing was asked of the daemon.
            return Err(StartEnd::Cancelled);
        }
        if created.as_ref().is_err_and(DockerError::is_transient) {
            self.discard_unheard().await;
        }
        created.map_err(|error| {
            warn!(error = %chain(&error), "could not create the container");
            StartEnd::Failed(Failure::Create { message: chain(&error) })
        })
    }

    /// A creation whose answer was lost may have left a container. It takes up room until
    /// it is gone, and this runner's place must not be given to another before.
    async fn discard_unheard(&self) {
        let Ok(there) = self.host.docker.containers(&self.host.cluster).await else { return };
        for left in there.iter().filter(|left| left.labels.runner == self.order.runner) {
            remove::container(&self.host, &left.id).await;
        }
    }

    async fn try_create(
        &self,
        spec: &RunnerContainer,
        network_anew: bool,
    ) -> Result<ContainerId, DockerError> {
        let mut made = self.limits.networks.lock().await;
        if network_anew || !made.contains(&self.pool.name) {
            self.host.docker.ensure_network(&self.host.network(&self.pool)).await?;
            made.insert(self.pool.name.clone());
        }
        drop(made);
        self.host.docker.create(spec).await
    }

    /// Registers the runner. After a lost answer the registration is looked up by its
    /// name and deleted; the name is never used again.
    async fn mint(
        &self,
        begun: tokio::time::Instant,
    ) -> Result<(GitHubRunnerId, SecretString), Failure> {
        let request = MintRequest {
            scope: self.pool.scope.clone(),
            name: self.order.name.clone(),
            labels: self.pool.labels.clone(),
            runner_group_id: self.pool.runner_group_id,
        };
        match self.host.github.mint(&request).await {
            Ok(minted) => {
                self.host.metrics.startup_phase(&self.pool.name, StartPhase::Mint, begun.elapsed());
                self.tell(Event::Minted(self.order.runner, minted.id)).await;
                Ok((minted.id, minted.jit_config))
            }
            Err(error) => {
                warn!(error = %chain(&error), "could not register the runner");
                if error.may_have_happened() || matches!(error, GitHubError::NameTaken { .. }) {
                    let scope = &self.pool.scope;
                    remove::deregister_by_name(&self.host, scope, &self.order.name).await;
                }
                let message = chain(&error);
                Err(match error {
                    GitHubError::Limited { .. } | GitHubError::Shed { .. } => {
                        Failure::Budget { message }
                    }
                    _ => Failure::Mint { message },
                })
            }
        }
    }

    /// Takes back what was made so far. What cannot be taken back now is found by the
    /// next list (containers) or the leader's sweep (registrations).
    async fn undo(
        &self,
        container: &ContainerId,
        minted: Option<GitHubRunnerId>,
        end: StartEnd,
    ) -> StartEnd {
        if let StartEnd::Failed(failure) = &end {
            warn!(failure = failure.code(), detail = ?failure, "a start failed");
        }
        remove::container(&self.host, container).await;
        if let Some(id) = minted
            && let Err(error) = self.host.github.deregister(&self.pool.scope, id).await
        {
            warn!(error = %chain(&error), "could not delete its registration yet");
        }
        end
    }
}

fn is_network_missing(error: &DockerError) -> bool {
    matches!(error, DockerError::NetworkMissing { .. })
}

/// Writes the blob and a newline, then closes the input: nobody can feed it twice.
async fn hand_over(mut stdin: Input, jit_config: &SecretString) -> Result<(), String> {
    let write = async {
        stdin.write_all(jit_config.expose_secret().as_bytes()).await?;
        stdin.write_all(b"\n").await?;
        stdin.flush().await?;
        stdin.shutdown().await
    };
    match tokio::time::timeout(HAND_OVER_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not taken within {} s", HAND_OVER_TIMEOUT.as_secs())),
    }
}
