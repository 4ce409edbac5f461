//! `GET /api/v1/status`: every field of the original, and beside them the whole picture.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::health::Degraded;
use super::hosts::{HostBody, host_bodies};
use super::pools::{PoolBody, pool_bodies};
use super::reading::Reading;
use super::shape::{At, IdText, at, count, span};
use crate::fleet::id::{ClusterMark, ReplicaId};
use crate::fleet::plan::PoolDecision;
use crate::fleet::pool::Pool;
use crate::github::Verdict;

/// The fleet at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Status {
    /// An operator has stopped every change, fleet-wide.
    pub frozen: bool,
    pub frozen_since: Option<At>,
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
    pub term: Option<u64>,
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

/// What GitHub lets us know and spend.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GitHubState {
    /// Registrations that can be made now without crossing the secondary limit.
    pub mints_now: u32,
    /// The primary limit, when GitHub has told it.
    pub remaining: Option<u64>,
    pub limit: Option<u64>,
    pub resets_at: Option<At>,
    /// GitHub told us to wait until then.
    pub blocked_until: Option<At>,
    pub points_this_minute: u32,
    pub scopes: Vec<ScopeBody>,
    /// The start-up check, row by row.
    pub checks: Vec<CheckBody>,
    /// Why GitHub could not be asked at start, if so.
    pub unreachable: Option<String>,
}

/// A scope's runner list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScopeBody {
    pub scope: String,
    pub read_at: Option<At>,
    pub age_seconds: Option<u64>,
    pub unread_since: Option<At>,
    pub error: Option<String>,
    /// Registrations that are not of this cluster.
    pub foreign: u32,
}

/// One row of the start-up check.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckBody {
    pub what: String,
    /// `proven`, `refused`, `unknown_until_use` or `unreachable`.
    pub verdict: &'static str,
    /// The fix, or why it is not known.
    pub detail: Option<String>,
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
    let reading = state.read();
    let decisions: Vec<PoolDecision> = reading.decisions(&state).into_values().collect();
    let frozen_since = reading.view().operator.frozen_since;
    Json(Status {
        frozen: frozen_since.is_some(),
        frozen_since: at(frozen_since),
        orchestrator: orchestrator(&state, &reading),
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
            store_error: reading.published.store_error.clone(),
        },
        degraded: state.degraded(),
        pools: pool_bodies(&state, &reading),
        hosts: host_bodies(&state, &reading),
        github: github(&state, &reading),
        image_pulls: image_pulls(&state),
    })
}

fn orchestrator(state: &ApiState, reading: &Reading) -> Orchestrator {
    let uptime_seconds = reading.now.since(state.settings.started_at).as_secs();
    Orchestrator {
        running: !state.handle.readiness.borrow().stopping,
        uptime: span(uptime_seconds),
        uptime_seconds,
        started_at: state.settings.started_at.into(),
        version: state.settings.version.clone(),
        replica: state.handle.replica,
        cluster: reading.view().cluster.clone(),
        leader: reading.published.term.is_some(),
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

fn github(state: &ApiState, reading: &Reading) -> GitHubState {
    let budget = state.handle.edges.github.budget();
    let readiness = state.handle.readiness.borrow();
    let (checks, unreachable) = match &readiness.github {
        Some(Ok(preflight)) => (preflight.checks.clone(), None),
        Some(Err(why)) => (Vec::new(), Some(why.clone())),
        None => (Vec::new(), None),
    };
    let scopes = reading.view().ledger.registrations.scopes().iter();
    GitHubState {
        mints_now: budget.mints_now,
        remaining: budget.remaining,
        limit: budget.limit,
        resets_at: at(budget.resets_at),
        blocked_until: at(budget.blocked_until),
        points_this_minute: budget.points_this_minute,
        scopes: scopes
            .map(|(scope, known)| ScopeBody {
                scope: scope.to_string(),
                read_at: at(known.read_at),
                age_seconds: known.read_at.map(|read| reading.now.since(read).as_secs()),
                unread_since: at(known.unread_since),
                error: known.error.clone(),
                foreign: known.foreign,
            })
            .collect(),
        checks: checks
            .into_iter()
            .map(|check| {
                let (verdict, detail) = match check.verdict {
                    Verdict::Proven => ("proven", None),
                    Verdict::Refused { fix } => ("refused", Some(fix)),
                    Verdict::UnknownUntilUse { why } => ("unknown_until_use", Some(why)),
                    Verdict::Unreachable { why } => ("unreachable", Some(why)),
                };
                CheckBody { what: check.what, verdict, detail }
            })
            .collect(),
        unreachable,
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
