//! Pools: why each has as many runners as it has, and what an operator may hold back.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::ask::{Answer, AskedState, ask};
use super::extract::{NoBody, Path};
use super::problem::{Problem, ProblemBody};
use super::reading::Reading;
use super::scale::no_leader;
use super::shape::{At, IdText, ReasonBody, at, count, reasons};
use crate::fleet::id::{IntentId, PoolName};
use crate::fleet::intent::Wish;
use crate::fleet::plan::PoolDecision;
use crate::fleet::pool::Pool;

/// All pools.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Pools {
    pub pools: Vec<PoolBody>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
}

/// One pool: what it is, how it stands, and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PoolBody {
    #[schema(value_type = String)]
    pub name: PoolName,
    #[schema(example = "org acme")]
    pub scope: String,
    pub labels: Vec<String>,
    pub image: String,
    pub min_runners: u32,
    pub max_runners: u32,
    pub min_idle_runners: u32,
    pub scale_up_threshold: u32,
    pub scale_down_threshold: u32,
    pub idle_timeout_seconds: u64,
    pub paused: bool,
    pub runners: Counts,
    pub demand: Demand,
    /// How many the floor, the queue and operators ask for, supply and running together.
    pub desired: u32,
    /// Why this many, in one sentence.
    pub why: String,
    /// Why runners are being added.
    pub adding: Vec<ReasonBody>,
    /// Why none or fewer are added although something asks for them.
    pub not_adding: Vec<ReasonBody>,
    /// How many were asked for and found no place.
    pub unplaced: u32,
    /// Why idle ones stay.
    pub keeping: Vec<ReasonBody>,
    pub breaker: Option<BreakerBody>,
    /// More of it than the floor and the queue ask for, by hand.
    pub boost: u32,
}

/// What of a pool counts.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Counts {
    /// Take up room.
    pub occupied: u32,
    /// Can take a job now or within their start deadline.
    pub supply: u32,
    pub starting: u32,
    pub listening: u32,
    pub running: u32,
    pub unknown: u32,
    pub retiring: u32,
    /// Registrations without a container of ours.
    pub unclaimed: u32,
}

/// Jobs for a pool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Demand {
    pub waiting: u32,
    /// Queued by the last reading; a runner has taken one since.
    pub taken: u32,
    /// Waiting although a matching runner listens: GitHub does not hand them out.
    pub not_assigned: u32,
    pub oldest_queued_at: Option<At>,
    pub oldest_job: Option<u64>,
}

/// A pool whose runners fail.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BreakerBody {
    pub open: bool,
    pub failures: u32,
    pub until: Option<At>,
    pub last_failure: Option<String>,
}

/// Every pool's body.
#[must_use]
pub fn pool_bodies(state: &ApiState, reading: &Reading) -> Vec<PoolBody> {
    let mut decisions = reading.decisions(state);
    let pools = reading.view().pools.values();
    pools
        .map(|pool| body(pool, &decisions.remove(&pool.name).unwrap_or_default(), reading))
        .collect()
}

fn body(pool: &Pool, decision: &PoolDecision, reading: &Reading) -> PoolBody {
    let view = reading.view();
    let counted = &decision.count;
    let breaker = view.ledger.breakers.get(&pool.name).filter(|breaker| breaker.failures > 0);
    let boosts = view.operator.boosts.iter().filter(|boost| boost.pool == pool.name);
    PoolBody {
        name: pool.name.clone(),
        scope: pool.scope.to_string(),
        labels: pool.labels.iter().map(str::to_owned).collect(),
        image: pool.image.clone(),
        min_runners: pool.min_runners,
        max_runners: pool.max_runners,
        min_idle_runners: pool.min_idle_runners,
        scale_up_threshold: pool.scale_up_threshold,
        scale_down_threshold: pool.scale_down_threshold,
        idle_timeout_seconds: pool.idle_timeout.as_secs(),
        paused: view.operator.paused.contains(&pool.name),
        runners: Counts {
            occupied: counted.occupied,
            supply: counted.supply,
            starting: counted.starting,
            listening: counted.listening,
            running: counted.running,
            unknown: counted.unknown,
            retiring: counted.retiring,
            unclaimed: counted.unclaimed,
        },
        demand: Demand {
            waiting: decision.demand.waiting_count(),
            taken: count(decision.demand.cancelled.len()),
            not_assigned: count(decision.demand.not_assigned.len()),
            oldest_queued_at: at(decision.demand.oldest.map(|(queued, _)| queued)),
            oldest_job: decision.demand.oldest.map(|(_, job)| job.0),
        },
        desired: decision.desired,
        why: why(decision),
        adding: reasons(&decision.add),
        not_adding: reasons(&decision.not_added),
        unplaced: decision.unplaced,
        keeping: reasons(&decision.kept),
        breaker: breaker.map(|breaker| BreakerBody {
            open: breaker.is_open(reading.now),
            failures: breaker.failures,
            until: at(breaker.open_until),
            last_failure: breaker.last.clone(),
        }),
        boost: boosts.map(|boost| boost.left).sum(),
    }
}

/// Why this many, in one sentence.
fn why(decision: &PoolDecision) -> String {
    let counted = &decision.count;
    let mut parts = vec![format!(
        "{} free or coming and {} at work for {} waiting jobs",
        counted.supply,
        counted.running,
        decision.demand.waiting_count()
    )];
    let because = decision.add.iter().map(|reason| format!("adding because {reason}"));
    parts.extend(because);
    parts.extend(decision.not_added.iter().map(|reason| format!("not adding because {reason}")));
    parts.extend(decision.kept.iter().map(|reason| format!("not removing because {reason}")));
    parts.join("; ")
}

/// List pools, each with why it has this many runners
#[utoipa::path(get, path = "/api/v1/pools", tag = "observe",
    responses((status = 200, description = "Every pool", body = Pools)))]
pub async fn list_pools(State(state): State<ApiState>) -> Json<Pools> {
    let reading = state.read();
    Json(Pools {
        pools: pool_bodies(&state, &reading),
        stale: reading.is_stale(),
        age_seconds: reading.age().as_secs_f64(),
    })
}

/// A switch that was turned.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Switched {
    pub message: String,
    pub state: AskedState,
    /// For `/api/v1/intents/{id}`.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
}

pub(super) type SwitchAnswer = Result<(StatusCode, Json<Switched>), Problem>;

/// Asks for a switch to be turned and says whether it was.
pub(super) async fn switch(
    state: &ApiState,
    headers: &HeaderMap,
    wish: Wish,
    done: String,
) -> SwitchAnswer {
    let (intent, answer) = ask(state, headers, wish).await?;
    let (status, message) = match &answer {
        Answer::Settled(outcome) => match &outcome.reason {
            None => (StatusCode::OK, done),
            Some(reason) => (StatusCode::OK, format!("not done: {reason}")),
        },
        Answer::Recorded => (StatusCode::ACCEPTED, no_leader()),
    };
    Ok((status, Json(Switched { message, state: answer.state(), intent })))
}

/// Start no more runners of a pool
///
/// What runs goes on.
#[utoipa::path(post, path = "/api/v1/pools/{name}/pause", tag = "operate",
    params(("name" = String, Path, description = "The pool's name")),
    responses(
        (status = 200, description = "Paused", body = Switched),
        (status = 202, description = "Recorded; no leader has answered yet", body = Switched),
        (status = 404, description = "No such pool", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn pause_pool(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> SwitchAnswer {
    let pool = state.read().pool(&name)?.name.clone();
    let done = format!("Pool {pool} is paused");
    switch(&state, &headers, Wish::Pause { pool }, done).await
}

/// Start runners of a paused pool again
#[utoipa::path(post, path = "/api/v1/pools/{name}/resume", tag = "operate",
    params(("name" = String, Path, description = "The pool's name")),
    responses(
        (status = 200, description = "Resumed", body = Switched),
        (status = 202, description = "Recorded; no leader has answered yet", body = Switched),
        (status = 404, description = "No such pool", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn resume_pool(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> SwitchAnswer {
    let pool = state.read().pool(&name)?.name.clone();
    let done = format!("Pool {pool} is resumed");
    switch(&state, &headers, Wish::Resume { pool }, done).await
}

/// Stop every change, fleet-wide
///
/// Nothing is started and nothing that lives is removed, until `unfreeze`. Jobs that run go
/// on; runners that have ended are cleared away as ever.
#[utoipa::path(post, path = "/api/v1/freeze", tag = "operate",
    responses(
        (status = 200, description = "Frozen", body = Switched),
        (status = 202, description = "Recorded; no leader has answered yet", body = Switched),
    ))]
pub async fn freeze(State(state): State<ApiState>, headers: HeaderMap, _: NoBody) -> SwitchAnswer {
    switch(&state, &headers, Wish::Freeze, "The fleet is frozen".to_owned()).await
}

/// Allow changes again
#[utoipa::path(post, path = "/api/v1/unfreeze", tag = "operate",
    responses(
        (status = 200, description = "Going on", body = Switched),
        (status = 202, description = "Recorded; no leader has answered yet", body = Switched),
    ))]
pub async fn unfreeze(
    State(state): State<ApiState>,
    headers: HeaderMap,
    _: NoBody,
) -> SwitchAnswer {
    switch(&state, &headers, Wish::Unfreeze, "The fleet goes on".to_owned()).await
}
