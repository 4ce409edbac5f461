//! How a replica stands to its Docker host: its agent, or standing by for another's. Who
//! stands by makes sure that it can see whom it stands by for: an identity that was copied
//! with its machine would leave a host idle for ever.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::keep::MARKER_BEATS;
use super::{Host, boot};
use crate::docker::{ContainerState, Marker};
use crate::election::{Agency, LEASE_TTL};
use crate::fleet::id::{BootId, HostId, ReplicaId, Term};
use crate::telemetry::chain;

/// The lease is asked for first; who gets it need not look.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Three looks so far apart span two lifetimes of a lease.
const LOOK_EVERY: Duration = LEASE_TTL;
/// So many looks in a row without the agent's marker make a clash.
const LOOKS: u8 = 3;

/// A marker that has not beaten for so long is a copy. Three beats may be lost to a slow
/// daemon.
const MARKER_STALE: Duration = MARKER_BEATS.saturating_mul(4);

/// How this replica stands to its Docker host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The host's identity; `None` until its daemon has answered.
    pub host: Option<HostId>,
    pub part: Part,
    /// The last clash of identities that was found here.
    pub clash: Option<Clash>,
}

/// Which part it plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Part {
    #[default]
    Unknown,
    /// It has the lease and waits for what its predecessor had under way.
    TakingOver,
    Agent {
        boot: BootId,
        term: Term,
    },
    /// Another replica is the agent; `None`: not known which.
    StandingBy {
        agent: Option<ReplicaId>,
    },
}

/// One identity on two daemons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clash {
    /// The identity found here and elsewhere; this daemon has given it up.
    pub host: HostId,
    /// The machine that keeps it, by name and by the replica that serves it.
    pub kept_by: String,
    pub replica: ReplicaId,
}

impl Standing {
    pub(super) fn is(&mut self, host: HostId, part: Part) {
        self.host = Some(host);
        self.part = part;
    }

    /// Whether this replica is its host's agent.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        matches!(self.part, Part::Agent { .. })
    }
}

/// How standing by ended.
#[derive(Debug)]
pub(super) enum StoodBy {
    Agent,
    Clash(Clash),
    Cancelled,
}

/// Waits until this replica is the host's agent, or finds out that it never can be.
pub(super) async fn stand_by(
    host: &Host,
    id: HostId,
    agency: &mut watch::Receiver<Option<Agency>>,
    cancel: &CancellationToken,
) -> StoodBy {
    let holds = |held: &Option<Agency>| held.as_ref().is_some_and(Agency::holds);
    tokio::select! { biased;
        () = cancel.cancelled() => StoodBy::Cancelled,
        held = agency.wait_for(holds) => match held {
            Ok(_) => StoodBy::Agent,
            // Nobody asks for the lease any more; the process is about to end.
            Err(_) => StoodBy::Cancelled,
        },
        clash = until_clash(host, id) => StoodBy::Clash(clash),
    }
}

/// An agent whose marker is not on this daemon.
#[derive(Clone, Copy, Debug)]
struct Missing {
    boot: BootId,
    /// Its report at the first look.
    seq: u64,
    looks: u8,
    since: Instant,
}

/// What one look showed.
enum Look {
    /// The agent is here: its marker, or a living container of its host.
    Here,
    /// Not all could be read, or nobody serves the host.
    Unclear,
    Missing {
        boot: BootId,
        seq: u64,
        kept_by: String,
        replica: ReplicaId,
    },
}

async fn until_clash(host: &Host, id: HostId) -> Clash {
    let mut missing: Option<Missing> = None;
    let mut last: Option<(Marker, Instant)> = None;
    tokio::time::sleep(FIRST_LOOK).await;
    loop {
        match look(host, id, &mut last).await {
            Look::Here => missing = None,
            Look::Unclear => (),
            Look::Missing { boot, seq, kept_by, replica } => {
                let fresh = Missing { boot, seq, looks: 0, since: Instant::now() };
                let mut now = missing.filter(|last| last.boot == boot).unwrap_or(fresh);
                now.looks = now.looks.saturating_add(1);
                // It must have gone on beating elsewhere all the while: one that is dead
                // or just taking over proves nothing.
                if now.looks >= LOOKS && seq > now.seq && now.since.elapsed() >= 2 * LEASE_TTL {
                    return Clash { host: id, kept_by, replica };
                }
                missing = Some(now);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(host: &Host, id: HostId, last: &mut Option<(Marker, Instant)>) -> Look {
    let snapshot = match host.store.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            warn!(error = %error, "could not read who serves this docker host");
            return Look::Unclear;
        }
    };
    let record = snapshot.hosts.get(&id).filter(|record| record.replica != host.replica);
    let agent = record.map(|record| record.replica);
    host.standing.send_if_modified(|standing| {
        let before = standing.clone();
        standing.is(id, Part::StandingBy { agent });
        *standing != before
    });
    let Some(record) = record else { return Look::Unclear };
    let marker = host.docker.marker(&host.cluster, id).await;
    let containers = host.docker.containers(&host.cluster).await;
    match (marker, containers) {
        (Ok(Some(marker)), _) if marker.boot == record.boot && beats(marker, last) => Look::Here,
        (Ok(_), Ok(containers)) => {
            let lives = |state| matches!(state, ContainerState::Running | ContainerState::Other);
            if containers.iter().any(|c| c.labels.host == id && lives(c.state)) {
                return Look::Here;
            }
            Look::Missing {
                boot: record.boot,
                seq: record.seq,
                kept_by: record.hostname.clone(),
                replica: record.replica,
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            warn!(error = %chain(&error), "could not look for the agent of this docker host");
            Look::Unclear
        }
    }
}

/// Whether the marker has changed within the time of some beats, as far as has been seen.
fn beats(marker: Marker, last: &mut Option<(Marker, Instant)>) -> bool {
    match last {
        Some((before, at)) if *before == marker => marker.beat == 0 || at.elapsed() < MARKER_STALE,
        _ => {
            *last = Some((marker, Instant::now()));
            true
        }
    }
}

/// Reports the clash by name and gives this daemon an identity of its own.
pub(super) async fn take_new_identity(host: &Host, clash: Clash, cancel: &CancellationToken) {
    error!(
        host.id = %clash.host, kept_by = clash.kept_by, replica.id = %clash.replica,
        hostname = host.hostname,
        "two docker daemons carry the same host identity (a copied machine or volume); \
         this one takes a new identity"
    );
    let fresh = HostId(host.clock.random_id());
    let replace = || host.docker.replace_identity(&host.cluster, clash.host, fresh);
    if let Some(taken) = boot::persistently(host, cancel, replace).await {
        info!(host.id = %taken, "this docker host has a new identity");
    }
    host.standing.send_modify(|standing| standing.clash = Some(clash.clone()));
}
