//! What this boot may change on its host right now.
//!
//! Two witnesses: the lease in the store, and the marker on the daemon itself. With the
//! lease it may do everything. When the lease has run out because the store is away, it
//! goes on caring for what runs as long as its marker is the newest: whoever takes over
//! writes one of its own first and waits before it acts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::docker::{Docker, DockerError, Marker};
use crate::election::Agency;
use crate::fleet::id::ClusterMark;
use crate::telemetry::chain;

/// A look at the marker counts this long. Who takes over waits several times as long between
/// its marker and its first change.
const LOOK_COUNTS: Duration = Duration::from_secs(1);

/// The loop waits for a look; a daemon that hangs must not stop it from following.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// What may be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// This boot is the agent.
    Everything,
    /// Without the lease, and nobody else has left a marker: bring to its end what was
    /// begun, begin nothing.
    Care,
    /// Without the lease, and the daemon does not tell: follow what runs, change nothing.
    Watch,
    /// Another agent has left its marker.
    Nothing,
}

/// The rights of one boot, shared by all that works for it.
#[derive(Clone, Debug)]
pub struct Rights(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Not guarded: reading the marker needs no right.
    docker: Arc<dyn Docker>,
    mark: ClusterMark,
    agency: watch::Receiver<Option<Agency>>,
    /// As written last; the term changes when the lease is taken anew.
    marker: std::sync::Mutex<Marker>,
    look: Mutex<Option<Look>>,
}

/// The daemon's marker at some instant.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    found: Found,
}

#[derive(Clone, Copy, Debug)]
enum Found {
    /// The daemon did not answer.
    Unknown,
    /// Pruned, or taken away by somebody who has been the agent since.
    NoMarker,
    Marker(Marker),
}

impl Rights {
    /// Rights of the boot that has left `marker`.
    #[must_use]
    pub fn new(
        docker: Arc<dyn Docker>,
        mark: ClusterMark,
        agency: watch::Receiver<Option<Agency>>,
        marker: Marker,
    ) -> Self {
        let (marker, look) = (std::sync::Mutex::new(marker), Mutex::new(None));
        Self(Arc::new(Inner { docker, mark, agency, marker, look }))
    }

    /// This boot's marker.
    #[must_use]
    pub fn marker(&self) -> Marker {
        *self.0.marker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lease as held now, by this process's own clock.
    #[must_use]
    pub fn agency(&self) -> Option<Agency> {
        self.0.agency.borrow().clone().filter(Agency::holds)
    }

    /// Whether this boot is the agent, by the lease alone.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        self.agency().is_some_and(|agency| agency.term() == self.marker().term)
    }

    /// Whether what runs may be cared for.
    pub async fn may_care(&self) -> bool {
        matches!(self.now().await, Right::Everything | Right::Care)
    }

    /// What may be done now. Asks the daemon at most once a second, and only without the
    /// lease.
    pub async fn now(&self) -> Right {
        if self.is_agent() {
            return Right::Everything;
        }
        match self.look().await {
            Found::Marker(found) if found.boot == self.marker().boot => self.renewed().await,
            Found::Marker(_) => Right::Nothing,
            Found::NoMarker if self.agency().is_some() => Right::Nothing,
            Found::NoMarker | Found::Unknown => Right::Watch,
        }
    }

    /// The marker is ours. When the lease is too, it was lost and taken anew with nobody in
    /// between: the same boot goes on under the new term.
    async fn renewed(&self) -> Right {
        let Some(agency) = self.agency() else { return Right::Care };
        let marker = Marker { term: agency.term(), ..self.marker() };
        match self.leave(marker).await {
            Ok(()) => Right::Everything,
            Err(error) => {
                warn!(error = %chain(&error), "could not leave the marker of a new term");
                Right::Care
            }
        }
    }

    /// Leaves this boot's marker again, one beat further.
    pub(super) async fn beat(&self) -> Result<(), DockerError> {
        let ours = self.marker();
        self.leave(Marker { beat: ours.beat + 1, ..ours }).await
    }

    async fn leave(&self, marker: Marker) -> Result<(), DockerError> {
        self.0.docker.write_marker(&self.0.mark, &marker).await?;
        *self.0.marker.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = marker;
        Ok(())
    }

    async fn look(&self) -> Found {
        let mut look = self.0.look.lock().await;
        if let Some(last) = *look
            && last.at.elapsed() < LOOK_COUNTS
        {
            return last.found;
        }
        // As of the question, not of the answer.
        let at = Instant::now();
        let ask = self.0.docker.marker(&self.0.mark, self.marker().host);
        let found = match tokio::time::timeout(LOOK_LIMIT, ask).await {
            Ok(Ok(Some(marker))) => Found::Marker(marker),
            Ok(Ok(None)) => Found::NoMarker,
            Ok(Err(_)) | Err(_) => Found::Unknown,
        };
        *look = Some(Look { at, found });
        found
    }
}
