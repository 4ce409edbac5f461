//! Removing one runner: `DELETE /api/v1/runners/{id}`.

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::ask::{Answer, AskedState, ask, store_away};
use super::extract::{Path, Query};
use super::peer::Forwarded;
use super::peer::forward::{HINT_DEADLINE, Owner, Sending};
use super::problem::{Code, Problem, ProblemBody, quoted};
use super::reading::SeenRunner;
use super::request::RequestId;
use super::scale::no_leader;
use super::shape::IdText;
use crate::fleet::id::{ContainerId, IntentId, RunnerId, RunnerName};
use crate::fleet::intent::{Intent, Wish};
use crate::fleet::reason::Reason;

/// How to remove.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// Remove it although it runs a job: the job fails.
    #[serde(default)]
    #[param(required = false, default = false)]
    force: bool,
}

/// A removal that has begun.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Removing {
    pub message: String,
    pub state: AskedState,
    #[schema(value_type = IdText)]
    pub runner_id: RunnerId,
    #[schema(value_type = String)]
    pub runner_name: RunnerName,
    #[schema(value_type = Option<String>)]
    pub container_id: Option<ContainerId>,
    /// For `/api/v1/intents/{id}`.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
    /// Whether the replica that cares for the runner's host has been told; null where this
    /// one does, or forwarding is off. One that is away finds the request recorded.
    pub owner_told: Option<bool>,
}

/// What the owner is told of a removal that is recorded already.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    intent: IntentId,
}

/// Remove a runner
///
/// GitHub is asked first and has the last word: a runner that turns out to be busy is
/// left alone unless `force` is set. Only runners of this cluster can be named. It is
/// recorded first, so that it happens also when the replica that cares for the runner's
/// host is away now.
#[utoipa::path(
    delete, path = "/api/v1/runners/{id}", tag = "operate",
    params(
        ("id" = String, Path, description = "Runner id or name, or container name or id \
            (full, or its first twelve digits or more)"),
        RemoveQuery,
    ),
    responses(
        (status = 202, description = "Being carried out, or recorded", body = Removing),
        (status = 404, description = "No such runner of ours", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "It runs a job, and force is not set", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
pub async fn remove_runner(
    State(state): State<ApiState>,
    Path(asked): Path<String>,
    Query(query): Query<RemoveQuery>,
    Extension(request_id): Extension<RequestId>,
    forwarded: Option<Extension<Forwarded>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Removing>), Problem> {
    let reading = state.read();
    let runner = reading.runner(&asked)?;
    if let Some(Extension(forwarded)) = forwarded {
        return hinted(&state, &runner, &forwarded, query).await;
    }
    if runner.phase.is_terminal() {
        let detail = format!("{} has already {}", runner.name, runner.phase.name());
        return Err(Problem::new(Code::UnknownRunner, detail));
    }
    let wish = Wish::Delete { runner: runner.id, force: query.force };
    let (intent, answer) = ask(&state, &headers, wish).await?;
    let frozen = reading.view().operator.frozen_since.is_some();
    let name = runner.name;
    let mut message = match &answer {
        Answer::Recorded => format!("Removal of runner {name}: {}", no_leader()),
        Answer::Settled(outcome) => match &outcome.reason {
            None if frozen => format!("Runner {name} will be removed once the fleet is unfrozen"),
            None => format!("Runner {name} is being removed"),
            Some(reason) => return Err(refused(&asked, reason)),
        },
    };
    let owner = state.owner_elsewhere(&reading, runner.host).await;
    let mut owner_told = None;
    if let Some(owner) = owner.filter(|_| state.forwarding_off().is_none()) {
        let told = hint(&state, &owner, &runner, intent, query, &request_id).await;
        owner_told = Some(told);
        if !told {
            message = format!("{message}, as soon as {} is back", owner.name);
        }
    }
    let removing = Removing {
        message,
        state: answer.state(),
        runner_id: runner.id,
        runner_name: name.clone(),
        container_id: runner.container().cloned(),
        intent,
        owner_told,
    };
    Ok((StatusCode::ACCEPTED, Json(removing)))
}

/// Tells the owner of a removal that is recorded. Whether it hears it changes only when.
async fn hint(
    state: &ApiState,
    owner: &Owner,
    runner: &SeenRunner<'_>,
    intent: IntentId,
    query: RemoveQuery,
    request_id: &RequestId,
) -> bool {
    let sending = Sending {
        method: Method::DELETE,
        target: format!("/api/v1/runners/{}?force={}", runner.id, query.force),
        accept: None,
        request_id,
        body: serde_json::to_vec(&Hint { intent }).unwrap_or_default(),
        within: HINT_DEADLINE,
    };
    let answer = state.forward(owner, sending).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// The owner's side: the request is recorded here too, under the same id, should the
/// store have lost it since; recording it again changes nothing.
async fn hinted(
    state: &ApiState,
    runner: &SeenRunner<'_>,
    forwarded: &Forwarded,
    query: RemoveQuery,
) -> Result<(StatusCode, Json<Removing>), Problem> {
    let hint: Hint = serde_json::from_slice(&forwarded.body)
        .map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))?;
    let wish = Wish::Delete { runner: runner.id, force: query.force };
    let at = state.handle.edges.clock.now();
    let recorded = state.handle.edges.store.record(Intent { id: hint.intent, at, wish }).await;
    recorded.map_err(|error| store_away(&error))?;
    let removing = Removing {
        message: format!("Removal of runner {} is recorded", runner.name),
        state: AskedState::Recorded,
        runner_id: runner.id,
        runner_name: runner.name.clone(),
        container_id: runner.container().cloned(),
        intent: hint.intent,
        owner_told: None,
    };
    Ok((StatusCode::ACCEPTED, Json(removing)))
}

fn refused(asked: &str, reason: &Reason) -> Problem {
    let asked = quoted(asked);
    match reason {
        Reason::NoSuchRunner => {
            Problem::new(Code::UnknownRunner, format!("{asked} is gone already"))
        }
        Reason::Busy => {
            let detail = format!("{asked} runs a job; add ?force=true to end the job with it");
            Problem::new(Code::RunnerBusy, detail)
        }
        other => Problem::new(Code::RunnerBusy, format!("{asked} stays: {other}")),
    }
}
