//! Replicas: what each orchestrator process tells the others of itself.

use serde::{Deserialize, Serialize};

use super::id::{HostId, ReplicaId};
use super::time::Timestamp;

/// One process, as it last announced itself. The process is its only writer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// The record's version, as of [`super::host::RECORD_VERSION`].
    pub version: u32,
    pub replica: ReplicaId,
    /// The machine's name, for people.
    pub hostname: String,
    /// The program's version, for people.
    pub build: String,
    /// Where other replicas reach its API (`http://address:port`); `None`: nowhere, and
    /// nothing is forwarded to it.
    pub advertise: Option<String>,
    /// The Docker host it is the agent of, or stands by for.
    pub host: Option<HostId>,
    /// It is that host's agent; else another replica is, and it stands by.
    pub agent: bool,
    pub started_at: Timestamp,
    /// Its own wall clock when it announced, to compare with the others'.
    pub clock: Timestamp,
    /// When the store took it in, by the store's time.
    pub at: Timestamp,
    /// Tells two different cluster secrets apart and nothing else of them; `None` = none set.
    pub secret_fingerprint: Option<String>,
    /// Tells two different pool configurations apart.
    pub pools_fingerprint: String,
}
