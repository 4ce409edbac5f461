//! Scaling by hand: `POST /api/v1/runners/scale-up` and `scale-down`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ApiState;
use super::ask::{Answer, AskedState, OUTCOME_WAIT, ask, field};
use super::extract::{JsonObject, unknown_fields};
use super::problem::{Code, FieldError, Problem, ProblemBody};
use super::reading::Reading;
use super::shape::{IdText, count};
use crate::fleet::id::{IntentId, PoolName, RunnerId};
use crate::fleet::intent::Wish;

/// More at once is a slip of the finger; `MAX_RUNNERS` bounds what is really done.
pub const SCALE_COUNT_MAX: u32 = 1_000;

/// How many, of which pool. Without a body: one, of pool `default` or of the only pool.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    #[schema(minimum = 1, maximum = 1000, default = 1, required = false)]
    pub count: u32,
    #[schema(value_type = Option<String>, required = false, example = "default")]
    pub pool: PoolName,
}

impl ScaleRequest {
    /// Reads the body; every field that cannot be used is named.
    fn from_body(body: Option<JsonObject>, reading: &Reading) -> Result<Self, Problem> {
        let body = body.map_or_else(Map::new, |body| body.0);
        let mut errors = unknown_fields(&body, &["count", "pool"]);
        let count = read_count(body.get("count"), &mut errors);
        let pool = read_pool(body.get("pool"), reading, &mut errors);
        match (count, pool) {
            (Some(count), Some(pool)) if errors.is_empty() => Ok(Self { count, pool }),
            _ => {
                let fields: Vec<String> =
                    errors.iter().map(|e| format!("{}: {}", e.field, e.detail)).collect();
                let detail = fields.join("; ");
                Err(Problem::new(Code::InvalidBody, detail).with_errors(errors))
            }
        }
    }
}

fn read_count(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Option<u32> {
    let Some(value) = value else { return Some(1) };
    let read = value
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| (1..=SCALE_COUNT_MAX).contains(count));
    if read.is_none() {
        let detail = format!("must be a whole number from 1 to {SCALE_COUNT_MAX}");
        errors.push(field("count", detail));
    }
    read
}

fn read_pool(
    value: Option<&Value>,
    reading: &Reading,
    errors: &mut Vec<FieldError>,
) -> Option<PoolName> {
    let names = reading.pool_names();
    let read = match value {
        None => match reading.main_pool() {
            Some(pool) => Ok(pool.name.clone()),
            None => Err(format!("name one of {names}")),
        },
        Some(Value::String(name)) => match reading.pool(name) {
            Ok(pool) => Ok(pool.name.clone()),
            Err(problem) => Err(problem.detail),
        },
        Some(_) => Err(format!("must be the name of a pool; there are {names}")),
    };
    read.map_err(|detail| errors.push(field("pool", detail))).ok()
}

/// What became of a scale-up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScaledUp {
    pub message: String,
    /// How many are being created, now: accepted by the leader.
    pub runners_created: u32,
    #[serde(flatten)]
    pub scaled: Scaled,
}

/// What became of a scale-down.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScaledDown {
    pub message: String,
    /// How many idle ones are being removed, now: accepted by the leader.
    pub runners_removed: u32,
    #[serde(flatten)]
    pub scaled: Scaled,
}

/// What both directions answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Scaled {
    pub state: AskedState,
    pub requested: u32,
    #[schema(value_type = String)]
    pub pool: PoolName,
    /// The runners that were accepted, by id.
    #[schema(value_type = Vec<IdText>)]
    pub runners: Vec<RunnerId>,
    /// Why fewer than requested; null when all.
    #[schema(example = "at_maximum")]
    pub reason: Option<&'static str>,
    /// The same in a sentence.
    pub detail: Option<String>,
    /// For `/api/v1/intents/{id}`.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
}

impl Scaled {
    fn new(request: ScaleRequest, intent: IntentId, answer: Answer) -> Self {
        let state = answer.state();
        let (runners, reason, detail) = match answer {
            Answer::Settled(outcome) => {
                let detail = outcome.reason.as_ref().map(ToString::to_string);
                (outcome.accepted, outcome.reason.map(|reason| reason.code()), detail)
            }
            Answer::Recorded => (Vec::new(), None, Some(no_leader())),
        };
        let ScaleRequest { count: requested, pool } = request;
        Self { state, requested, pool, runners, reason, detail, intent }
    }

    fn accepted(&self) -> u32 {
        count(self.runners.len())
    }

    fn status(&self) -> StatusCode {
        match self.state {
            AskedState::Settled => StatusCode::OK,
            AskedState::Recorded => StatusCode::ACCEPTED,
        }
    }

    fn message(&self, direction: &str, verb: &str) -> String {
        let (accepted, requested, pool) = (self.accepted(), self.requested, &self.pool);
        if self.state == AskedState::Recorded {
            return format!("{direction} of pool {pool} by {requested} recorded");
        }
        let why = match &self.detail {
            Some(detail) => format!(": {detail}"),
            None => String::new(),
        };
        format!("{direction}: {accepted} of {requested} runners of pool {pool} {verb}{why}")
    }
}

/// What to say while nobody leads.
#[must_use]
pub fn no_leader() -> String {
    let seconds = OUTCOME_WAIT.as_secs();
    format!("no leader has answered within {seconds} s; the request is recorded and kept")
}

/// Ask for more runners now
///
/// They are kept beyond what the queue asks for until used, at most 15 minutes. The
/// counts are the leader's own: `runners_created` are on their way, and `reason` says why
/// there are fewer than asked for.
#[utoipa::path(
    post, path = "/api/v1/runners/scale-up", tag = "operate",
    request_body(content = Option<ScaleRequest>, content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Sent again with the same body, the request is carried out once",
        min_length = 1, max_length = 255)),
    responses(
        (status = 200, description = "Settled by the leader", body = ScaledUp),
        (status = 202, description = "Recorded; no leader has answered yet", body = ScaledUp),
        (status = 413, description = "Larger than 64 KiB", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 415, description = "Not application/json", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 422, description = "Fields that cannot be used, or an idempotency key \
            used for another request", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
pub async fn scale_up(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Option<JsonObject>,
) -> Result<(StatusCode, Json<ScaledUp>), Problem> {
    let request = ScaleRequest::from_body(body, &state.read())?;
    let wish = Wish::ScaleUp { pool: request.pool.clone(), count: request.count };
    let (intent, answer) = ask(&state, &headers, wish).await?;
    let scaled = Scaled::new(request, intent, answer);
    let message = scaled.message("Scale up", "are being created");
    let runners_created = scaled.accepted();
    Ok((scaled.status(), Json(ScaledUp { message, runners_created, scaled })))
}

/// Ask for fewer runners now
///
/// Idle runners only, longest idle first, never below the floor. A runner with a job is
/// never removed by this.
#[utoipa::path(
    post, path = "/api/v1/runners/scale-down", tag = "operate",
    request_body(content = Option<ScaleRequest>, content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Sent again with the same body, the request is carried out once",
        min_length = 1, max_length = 255)),
    responses(
        (status = 200, description = "Settled by the leader", body = ScaledDown),
        (status = 202, description = "Recorded; no leader has answered yet", body = ScaledDown),
        (status = 413, description = "Larger than 64 KiB", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 415, description = "Not application/json", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 422, description = "Fields that cannot be used, or an idempotency key \
            used for another request", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
pub async fn scale_down(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Option<JsonObject>,
) -> Result<(StatusCode, Json<ScaledDown>), Problem> {
    let request = ScaleRequest::from_body(body, &state.read())?;
    let wish = Wish::ScaleDown { pool: request.pool.clone(), count: request.count };
    let (intent, answer) = ask(&state, &headers, wish).await?;
    let scaled = Scaled::new(request, intent, answer);
    let message = scaled.message("Scale down", "are being removed");
    let runners_removed = scaled.accepted();
    Ok((scaled.status(), Json(ScaledDown { message, runners_removed, scaled })))
}
