//! The agent's start: who is this daemon, and what runs on it already.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Event, Host};
use crate::docker::{ContainerState, DockerError};
use crate::election::Agency;
use crate::fleet::converge::{Found, FoundState, Listing};
use crate::fleet::id::{BootId, HostId};
use crate::telemetry::metrics::Dependency;

/// A daemon that is away is asked again after 0.2 s, doubling up to this.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Learns the daemon's identity. Keeps trying until the daemon answers; `None` when
/// cancelled first.
pub async fn identify(host: &Host, cancel: &CancellationToken) -> Option<HostId> {
    persistently(host, cancel, || try_identify(host)).await
}

/// Leaves this boot's marker on the daemon: from now on older agents of this host know
/// that they are none any more.
pub async fn take_over(host: &Host, agency: &Agency, cancel: &CancellationToken) -> Option<BootId> {
    let boot = BootId(host.clock.ordered_id());
    let id = agency.host();
    persistently(host, cancel, || host.docker.write_marker(&host.cluster, id, boot)).await?;
    info!(host.id = %id, boot = %boot, term = %agency.term(), "serving this docker host");
    Some(boot)
}

/// Asks the daemon until it answers; `None` when cancelled first.
async fn persistently<T, F>(
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
