//! `GET /api/v1/status`: every field of the original, and beside them the whole picture.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::company::Known;
use super::github::{GitHubState, github};
use super::health::Degraded;
use super::hosts::{HostBody, host_bodies};
use super::pools::{PoolBody, pool_bodies};
use super::reading::Reading;
use super::replicas::{ReplicaBody, StoreBody};
use super::shape::{At, IdText, at, count, span};
use crate::fleet::id::{ClusterMark, ReplicaId};
use crate::fleet::plan::PoolDecision;
use crate::fleet::pool::Pool;

/// The fleet at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Status {
    /// An operator has stopped every change, fleet-wide.
    pub frozen: bool,
    pub frozen_since: Option<At>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
    pub orchestrator: Orchestrator,
    pub runners: RunnerCounts,
    pub queue: Queue,
    pub scaling: Scaling,
    pub settings: ShownSettings,
    /// How fresh all of this is.
    pub view: ViewState,
    /// What is missing, each with its fix.
    pub degraded: Vec<Degraded>,
    pub pools: Vec<PoolBody>,
    pub hosts: Vec<HostBody>,
    pub replicas: Vec<ReplicaBody>,
    pub peers: PeersState,
    pub store: StoreBody,
    pub github: GitHubState,
    /// Images being pulled, by reference.
    pub image_pulls: BTreeMap<String, Pull>,
}

/// This replica.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Orchestrator {
    pub running: bool,
    #[schema(example = "3h 12m 5s")]
    pub uptime: String,
    pub uptime_seconds: u64,
    pub started_at: At,
    pub version: String,
    #[schema(value_type = IdText)]
    pub replica: ReplicaId,
    /// The mark on everything of this cluster.
    #[schema(value_type = String)]
    pub cluster: ClusterMark,
    /// Whether this replica decides.
    pub leader: bool,
    /// Who decides; null while nobody does, or while the store cannot tell.
    #[schema(value_type = Option<IdText>)]
    pub leader_id: Option<ReplicaId>,
    /// The same, by name.
    #[schema(example = "box-2 (9f3c2b1a)")]
    pub leader_name: Option<String>,
    pub term: Option<u64>,
}

/// Whether requests go on to the replica that can answer them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PeersState {
    pub forwarding: bool,
    /// Why not.
    pub reason: Option<&'static str>,
    /// Where the others reach this replica.
    pub address: Option<String>,
}

/// Runners of all pools. Counters start with the leader.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct RunnerCounts {
    /// Take up room: assigned, or with a container that has not ended.
    pub active: u32,
    pub docker_containers: u32,
    /// Containers whose registration GitHub last showed online.
    pub registered_running: u32,
    pub unregistered_running: u32,
    pub total_created: u64,
    pub total_destroyed: u64,
    /// Registrations in our scopes that are not of this cluster; never touched.
    pub ignored_existing: u32,
    pub supply: u32,
    pub starting: u32,
    pub idle: u32,
    pub busy: u32,
    pub unknown: u32,
    pub retiring: u32,
    /// Registrations of ours without a container.
    pub unclaimed: u32,
    pub total_failed: u64,
    pub total_lost: u64,
}

/// Jobs that wait for our pools.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Queue {
    pub current_length: u32,
    /// The start of the most recent reading.
    pub last_poll: Option<At>,
    pub oldest_queued_at: Option<At>,
    /// Waiting although a matching runner listens.
    pub not_assigned: u32,
    /// No pool of ours serves their labels; never scaled for.
    pub unmatched: u32,
    /// Repositories that cannot be read now: their queues are unknown, not empty.
    pub unread: Vec<UnreadRepo>,
    pub repositories: u32,
    /// The oldest of the last readings.
    pub oldest_reading_seconds: Option<u64>,
}

/// A repository that cannot be read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UnreadRepo {
    pub repo: String,
    pub since: At,
    pub error: Option<String>,
}

/// The rule's bounds: sums over the pools, thresholds of the main one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Scaling {
    pub min_runners: u32,
    pub max_runners: u32,
    pub scale_up_threshold: u32,
    pub scale_down_threshold: u32,
    pub last_action: Option<LastAction>,
}

/// The last time runners were added or retired.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LastAction {
    /// `scale_up` or `scale_down`.
    #[schema(example = "scale_up")]
    pub action: &'static str,
    pub timestamp: At,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runners_added: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runners_removed: Option<u32>,
    pub reason: String,
}

/// Settings, as the original shows them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShownSettings {
    /// In seconds.
    pub poll_interval: u64,
    /// In seconds.
    pub idle_timeout: u64,
    pub runner_image: String,
}

/// How fresh the view is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ViewState {
    pub at: At,
    pub age_seconds: f64,
    /// What is shown may no longer be so.
    pub stale: bool,
    pub store_error: Option<String>,
}

/// An image being pulled.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Pull {
    pub status: String,
    pub current_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// The fleet at a glance
///
/// From the last view; no call to GitHub or Docker.
#[utoipa::path(get, path = "/api/v1/status", tag = "observe",
    responses((status = 200, description = "The fleet", body = Status)))]
pub async fn get_status(State(state): State<ApiState>) -> Json<Status> {
    let (reading, known) = (state.read(), state.company().await);
    let decisions: Vec<PoolDecision> = reading.decisions(&state).into_values().collect();
    let frozen_since = reading.view().operator.frozen_since;
    Json(Status {
        frozen: frozen_since.is_some(),
        frozen_since: at(frozen_since),
        stale: reading.is_stale(),
        age_seconds: reading.age().as_secs_f64(),
        orchestrator: orchestrator(&state, &reading, &known),
        runners: runner_counts(&reading, &decisions),
        queue: queue(&reading, &decisions),
        scaling: scaling(&state, &reading),
        settings: ShownSettings {
            poll_interval: state.settings.poll_interval.as_secs(),
            idle_timeout: state.settings.idle_timeout.as_secs(),
            runner_image: state.settings.runner_image.clone(),
        },
        view: ViewState {
            at: reading.published.at.into(),
            age_seconds: reading.age().as_secs_f64(),
            stale: reading.is_stale(),
            store_error: reading.away().cloned(),
        },
        degraded: state.degraded(&known),
        pools: pool_bodies(&state, &reading),
        hosts: host_bodies(&state, &reading, &known),
        replicas: state.replica_bodies(&known),
        peers: PeersState {
            forwarding: state.forwarding_off().is_none(),
            reason: state.forwarding_off(),
            address: state.handle.settings.peers.advertise.clone(),
        },
        store: state.store_body(&known),
        github: github(&state, &reading),
        image_pulls: image_pulls(&state),
    })
}

fn orchestrator(state: &ApiState, reading: &Reading, known: &Known) -> Orchestrator {
    let leader = known.leader().map(|(leader, _)| leader);
    let uptime_seconds = reading.now.since(state.settings.started_at).as_secs();
    Orchestrator {
        running: !state.handle.readiness.borrow().stopping,
        uptime: span(uptime_seconds),
        uptime_seconds,
        started_at: state.settings.started_at.into(),
        version: state.settings.version.clone(),
        replica: state.handle.replica,
        cluster: reading.view().cluster.clone(),
        leader: leader == Some(state.handle.replica),
        leader_id: leader,
        leader_name: leader.map(|leader| known.name(leader)),
        term: reading.published.term,
    }
}

fn runner_counts(reading: &Reading, decisions: &[PoolDecision]) -> RunnerCounts {
    let view = reading.view();
    let listed = view.ledger.registrations.listed();
    let seen = reading.runners();
    let live = seen.values().filter(|runner| !runner.phase.is_terminal());
    let containers: Vec<_> = seen.values().filter(|r| r.has_live_container()).collect();
    let online = |name| listed.get(name).is_some_and(|row| row.online);
    let registered = containers.iter().filter(|runner| online(runner.name)).count();
    let totals = &view.ledger.totals;
    let foreign = view.ledger.registrations.scopes().values().map(|scope| scope.foreign).sum();
    let sum = |part: fn(&PoolDecision) -> u32| decisions.iter().map(part).sum();
    RunnerCounts {
        active: count(live.count()),
        docker_containers: count(containers.len()),
        registered_running: count(registered),
        unregistered_running: count(containers.len() - registered),
        total_created: totals.assigned.saturating_sub(totals.expired),
        total_destroyed: totals.ended + totals.failed + totals.retired + totals.lost,
        ignored_existing: foreign,
        supply: sum(|pool| pool.count.supply),
        starting: sum(|pool| pool.count.starting),
        idle: sum(|pool| pool.count.listening),
        busy: sum(|pool| pool.count.running),
        unknown: sum(|pool| pool.count.unknown),
        retiring: sum(|pool| pool.count.retiring),
        unclaimed: count(view.roster().unclaimed.len()),
        total_failed: totals.failed,
        total_lost: totals.lost,
    }
}

fn queue(reading: &Reading, decisions: &[PoolDecision]) -> Queue {
    let view = reading.view();
    let book = &view.ledger.demand;
    let waiting: u32 = decisions.iter().map(|pool| pool.demand.waiting_count()).sum();
    let not_assigned = decisions.iter().map(|pool| count(pool.demand.not_assigned.len())).sum();
    let oldest = decisions.iter().filter_map(|pool| pool.demand.oldest).min();
    let unread = book.repos().iter().filter_map(|(repo, state)| {
        let since = state.unread_since?.into();
        Some(UnreadRepo { repo: repo.to_string(), since, error: state.error.clone() })
    });
    let oldest_reading = book.repos().values().filter_map(|state| state.read_at).min();
    Queue {
        current_length: waiting + not_assigned,
        last_poll: at(book.last_read()),
        oldest_queued_at: at(oldest.map(|(queued, _)| queued)),
        not_assigned,
        unmatched: count(book.unmatched(&view.pools).len()),
        unread: unread.collect(),
        repositories: count(book.repos().len()),
        oldest_reading_seconds: oldest_reading.map(|read| reading.now.since(read).as_secs()),
    }
}

fn scaling(state: &ApiState, reading: &Reading) -> Scaling {
    let pools = &reading.view().pools;
    let main = reading.main_pool().or_else(|| pools.values().next());
    let sum = |bound: fn(&Pool) -> u32| pools.values().map(bound).sum();
    Scaling {
        min_runners: sum(|pool| pool.min_runners),
        max_runners: sum(|pool| pool.max_runners),
        scale_up_threshold: main.map_or(0, |pool| pool.scale_up_threshold),
        scale_down_threshold: main.map_or(0, |pool| pool.scale_down_threshold),
        last_action: state.recorder.last_action(),
    }
}

fn image_pulls(state: &ApiState) -> BTreeMap<String, Pull> {
    let pulls = state.handle.pulls.borrow();
    pulls
        .iter()
        .map(|(image, progress)| {
            let pull = Pull {
                status: progress.status.clone(),
                current_bytes: progress.current_bytes,
                total_bytes: progress.total_bytes,
            };
            (image.clone(), pull)
        })
        .collect()
}
