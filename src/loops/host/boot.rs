//! The agent's start: who is this daemon, and what runs on it already.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::rights::{LOOK_LIMIT, Rights};
use super::standing::Part;
use super::start::HAND_OVER_TIMEOUT;
use super::{Event, Host};
use crate::docker::{ContainerState, Docker, DockerError, Marker};
use crate::election::Agency;
use crate::fleet::converge::{Found, FoundState, Listing};
use crate::fleet::id::{BootId, ClusterMark, HostId};
use crate::telemetry::metrics::Dependency;

/// A daemon that is away is asked again after 0.2 s, doubling up to this.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Learns the daemon's identity. Keeps trying until the daemon answers; `None` when
/// cancelled first.
pub async fn identify(host: &Host, cancel: &CancellationToken) -> Option<HostId> {
    persistently(host, cancel, || try_identify(host)).await
}

/// How long a new agent's marker stands before it acts. By then its predecessor hands
/// nothing over any more: it looked at the marker before each hand-over, and both the look
/// and the hand-over have a limit. What it creates or starts later is handed nothing, and
/// the next list shows it.
pub const SETTLE: Duration = Duration::from_secs(8);
const _: () = assert!(SETTLE.as_millis() > LOOK_LIMIT.as_millis() + HAND_OVER_TIMEOUT.as_millis());
/// How long a take-over goes on after the process was told to stop and to drain: the wait, and
/// looks at the daemon before and after it.
pub const FINISH_WITHIN: Duration = SETTLE.saturating_add(LOOK_LIMIT.saturating_mul(2));
/// A daemon that does not answer must not hold a shutdown up.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);

/// How an attempt to take over went.
#[derive(Debug)]
pub enum TakeOver {
    Done(Rights),
    /// The lease went before it was done.
    Lost,
    Cancelled,
}

/// Leaves this boot's marker on the daemon: from now on older agents of this host know
/// that they are none any more. One that has not taken its own marker away may still have
/// calls on their way; their end is waited for. Until `given_up` is cancelled.
pub async fn take_over(
    host: &Host,
    agency: &mut watch::Receiver<Option<Agency>>,
    given_up: &CancellationToken,
) -> TakeOver {
    let Some(held) = agency.borrow().clone() else { return TakeOver::Lost };
    let boot = BootId(host.clock.ordered_id());
    let marker = Marker { host: held.host(), boot, term: held.term(), beat: 1 };
    host.standing.send_modify(|standing| standing.is(marker.host, Part::TakingOver));
    // Alone on its store, nobody else can have been the agent but a process that is gone.
    let mut before = None;
    let read = || host.docker.marker(&host.cluster, marker.host);
    if host.store.health().borrow().shared {
        let Some(found) = persistently(host, given_up, read).await else {
            return TakeOver::Cancelled;
        };
        before = found;
    }
    let write = || host.docker.write_marker(&host.cluster, &marker);
    loop {
        if persistently(host, given_up, write).await.is_none() {
            return TakeOver::Cancelled;
        }
        let Some(before) = before else { break };
        info!(host.id = %marker.host, boot = %before.boot,
            "taking over from an agent that did not hand over");
        tokio::select! { biased;
            () = given_up.cancelled() => break,
            _ = agency.wait_for(Option::is_none) => break,
            () = tokio::time::sleep(SETTLE) => (),
        }
        // A beat of the predecessor that was on its way may have written over it.
        match persistently(host, given_up, read).await {
            Some(found) if found.is_none_or(|found| found.boot != boot) => (),
            Some(_) | None => break,
        }
    }
    if given_up.is_cancelled() {
        hand_over(host.docker.as_ref(), &host.cluster, boot).await;
        return TakeOver::Cancelled;
    }
    let rights = Rights::new(host.docker.clone(), host.cluster.clone(), agency.clone(), marker);
    if rights.agency().is_none() {
        // Too late: the marker may have been written over the next agent's. Its own check
        // puts that back.
        hand_over(host.docker.as_ref(), &host.cluster, boot).await;
        return TakeOver::Lost;
    }
    info!(host.id = %marker.host, boot = %boot, term = %marker.term, "serving this docker host");
    let part = Part::Agent { boot, term: marker.term };
    host.standing.send_modify(|standing| standing.is(marker.host, part));
    TakeOver::Done(rights)
}

/// Takes this boot's marker away: nothing of it is under way, and the next agent need not
/// wait for it.
pub async fn hand_over(docker: &dyn Docker, cluster: &ClusterMark, boot: BootId) {
    let removed = tokio::time::timeout(HAND_OVER_LIMIT, docker.remove_marker(cluster, boot)).await;
    match removed {
        Ok(Ok(())) => (),
        Ok(Err(error)) => {
            warn!(error = %crate::telemetry::chain(&error), "could not take the marker away");
        }
        Err(_) => warn!("docker did not take the marker away in time"),
    }
}

/// Asks the daemon until it answers; `None` when cancelled first.
pub(super) async fn persistently<T, F>(
    host: &Host,
    cancel: &CancellationToken,
    ask: impl Fn() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, DockerError>>,
{
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(RETRY_MAX)
        .with_factor(2.0)
        .without_max_times()
        .build();
    loop {
        match ask().await {
            Ok(answer) => {
                host.metrics.dependency(Dependency::Docker, true);
                return Some(answer);
            }
            Err(error) => {
                host.metrics.dependency(Dependency::Docker, false);
                warn!(error = %crate::telemetry::chain(&error), "docker is not usable yet");
            }
        }
        tokio::select! { biased;
            () = cancel.cancelled() => return None,
            () = tokio::time::sleep(waits.next().unwrap_or(RETRY_MAX)) => (),
        }
    }
}

async fn try_identify(host: &Host) -> Result<HostId, DockerError> {
    // An identity whose volume was pruned is found again on the containers that carry it.
    let containers = host.docker.containers(&host.cluster).await?;
    let fresh =
        containers.first().map_or_else(|| HostId(host.clock.random_id()), |c| c.labels.host);
    host.docker.claim_identity(&host.cluster, fresh).await
}

/// Lists this cluster's containers and tells the loop.
pub async fn list(host: Host, events: mpsc::Sender<Event>) {
    let begun_at = host.clock.now();
    let listed = host.docker.containers(&host.cluster).await;
    host.metrics.dependency(Dependency::Docker, listed.is_ok());
    let listing = match listed {
        Ok(seen) => Ok(Listing {
            begun_at,
            containers: seen
                .into_iter()
                .map(|container| Found {
                    id: container.id,
                    runner: container.labels.runner,
                    name: container.labels.name,
                    pool: container.labels.pool,
                    scope: container.labels.scope,
                    state: match container.state {
                        ContainerState::Created => FoundState::NeverStarted,
                        ContainerState::Exited { .. } => FoundState::Exited,
                        ContainerState::Running | ContainerState::Other => FoundState::Alive,
                    },
                })
                .collect(),
        }),
        Err(error) => Err(crate::telemetry::chain(&error)),
    };
    // A closed channel means the loop is gone, and with it whoever wanted to know.
    let _ = events.send(Event::Listed(listing)).await;
}
