//! Removing one runner: `DELETE /api/v1/runners/{id}`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::ask::{Answer, AskedState, ask};
use super::extract::{Path, Query};
use super::problem::{Code, Problem, ProblemBody, quoted};
use super::scale::no_leader;
use super::shape::IdText;
use crate::fleet::id::{ContainerId, IntentId, RunnerId, RunnerName};
use crate::fleet::intent::Wish;
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
}

/// Remove a runner
///
/// GitHub is asked first and has the last word: a runner that turns out to be busy is
/// left alone unless `force` is set. Only runners of this cluster can be named.
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
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Removing>), Problem> {
    let reading = state.read();
    let runner = reading.runner(&asked)?;
    if runner.phase.is_terminal() {
        let detail = format!("{} has already {}", runner.name, runner.phase.name());
        return Err(Problem::new(Code::UnknownRunner, detail));
    }
    let wish = Wish::Delete { runner: runner.id, force: query.force };
    let (intent, answer) = ask(&state, &headers, wish).await?;
    let frozen = reading.view().operator.frozen_since.is_some();
    let name = runner.name;
    let message = match &answer {
        Answer::Recorded => format!("Removal of runner {name}: {}", no_leader()),
        Answer::Settled(outcome) => match &outcome.reason {
            None if frozen => format!("Runner {name} will be removed once the fleet is unfrozen"),
            None => format!("Runner {name} is being removed"),
            Some(reason) => return Err(refused(&asked, reason)),
        },
    };
    let removing = Removing {
        message,
        state: answer.state(),
        runner_id: runner.id,
        runner_name: name.clone(),
        container_id: runner.container().cloned(),
        intent,
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
