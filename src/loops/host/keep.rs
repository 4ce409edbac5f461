//! What we keep on the daemon, looked after: somebody may prune volumes at any time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::agent::SWEEP_EVERY;
use super::rights::Rights;
use super::{Event, Host, Left};
use crate::docker::DockerError;
use crate::telemetry::chain;

/// As often as the host reports: whoever stands by looks for the marker of an agent that
/// reports, and must not miss it three times.
const LOOK_EVERY: Duration = super::BEAT_EVERY;

/// The marker beats this often: whoever stands by tells by it the agent's own marker from
/// one that was copied with the machine.
pub(super) const MARKER_BEATS: Duration = Duration::from_secs(30);

/// When what is due.
struct Due {
    identity: Instant,
    beat: Instant,
}

/// Looks after marker and identity until cancelled.
pub(super) async fn watch(
    host: Host,
    rights: Rights,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let now = Instant::now();
    let mut due = Due { identity: now + SWEEP_EVERY, beat: now + MARKER_BEATS };
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => (),
        }
        if !rights.is_agent() {
            continue;
        }
        let found = match look(&host, &rights, &mut due).await {
            Ok(found) => found,
            Err(error) => {
                warn!(error = %chain(&error), "could not look after identity and marker");
                continue;
            }
        };
        if let Some(left) = found {
            // A closed channel: the loop has left already.
            let _ = events.send(Event::Leave(left)).await;
            return;
        }
    }
}

/// Puts back what is gone. `Some`: somebody else has a better claim.
async fn look(host: &Host, rights: &Rights, due: &mut Due) -> Result<Option<Left>, DockerError> {
    let ours = rights.marker();
    let found = host.docker.marker(&host.cluster, ours.host).await?;
    if let Some(other) = found
        && other.boot != ours.boot
        && other.term > ours.term
    {
        info!(boot = %other.boot, term = %other.term, "another agent has left its marker here");
        return Ok(Some(Left::Superseded));
    }
    let intact = found.is_some_and(|found| found.boot == ours.boot);
    let now = Instant::now();
    if !intact || due.identity <= now {
        let identity = host.docker.claim_identity(&host.cluster, ours.host).await?;
        if identity != ours.host {
            error!(
                host.id = %ours.host, found = %identity,
                "somebody has given this docker host another identity"
            );
            return Ok(Some(Left::OtherIdentity));
        }
        due.identity = now + SWEEP_EVERY;
    }
    if !intact {
        warn!("this agent's marker was gone; leaving it again");
    }
    if !intact || due.beat <= now {
        rights.beat().await?;
        due.beat = now + MARKER_BEATS;
    }
    Ok(None)
}
