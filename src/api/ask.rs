//! Asking for something: an intent is recorded, and its outcome awaited for a moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{Span, info};
use utoipa::ToSchema;

use super::ApiState;
use super::extract::Path;
use super::problem::{Code, FieldError, Problem, ProblemBody, quoted};
use super::shape::{At, IdText, ReasonBody};
use crate::fleet::id::{IntentId, RunnerId};
use crate::fleet::intent::{Intent, Outcome, Wish};
use crate::store::{StoreError, Topic};

/// A leader answers in milliseconds; after this long there is none, and the client is
/// told that its request is kept.
pub const OUTCOME_WAIT: Duration = Duration::from_secs(3);
/// A change of outcomes is only a hint that may be missed, so they are also looked up.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Keys remembered to notice that one is used for two things; as many as the store keeps
/// outcomes.
const KEYS_MAX: usize = 1_000;
const KEY_BYTES_MAX: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What each idempotency key was used for, newest `KEYS_MAX`.
#[derive(Debug, Default)]
pub struct SeenKeys {
    used_for: BTreeMap<String, IntentId>,
    order: VecDeque<String>,
}

impl SeenKeys {
    /// Whether the key is new or was used for this very intent.
    fn admit(&mut self, key: &str, intent: IntentId) -> bool {
        if let Some(used_for) = self.used_for.get(key) {
            return *used_for == intent;
        }
        self.used_for.insert(key.to_owned(), intent);
        self.order.push_back(key.to_owned());
        if self.order.len() > KEYS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.used_for.remove(&oldest);
        }
        true
    }
}

/// How far a request has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Settled(Outcome),
    /// No leader has answered yet; the request is kept.
    Recorded,
}

/// Records a wish and waits up to [`OUTCOME_WAIT`] for what becomes of it.
///
/// # Errors
/// A bad or reused `Idempotency-Key`, a store that is away, or a process that stops.
pub async fn ask(
    state: &ApiState,
    headers: &HeaderMap,
    wish: Wish,
) -> Result<(IntentId, Answer), Problem> {
    if state.handle.readiness.borrow().stopping {
        return Err(Problem::new(Code::Stopping, "this replica is shutting down"));
    }
    let intent = intent_id(state, headers, &wish)?;
    let mut changes = state.handle.edges.store.changes(Topic::Outcomes);
    info!(parent: Span::current(), intent = %intent, wish = ?wish, "recording an intent");
    let at = state.handle.edges.clock.now();
    let recorded = state.handle.edges.store.record(Intent { id: intent, at, wish }).await;
    recorded.map_err(|error| store_away(&error))?;
    let deadline = Instant::now() + OUTCOME_WAIT;
    loop {
        let outcome = state.handle.edges.store.outcome(intent).await;
        if let Some(outcome) = outcome.map_err(|error| store_away(&error))? {
            return Ok((intent, Answer::Settled(outcome)));
        }
        let look_again = (Instant::now() + LOOK_AGAIN).min(deadline);
        // A store that closes its channel is looked up at intervals instead.
        let hint = async {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = hint => (),
            () = tokio::time::sleep_until(look_again) => (),
        }
        if Instant::now() >= deadline {
            return Ok((intent, Answer::Recorded));
        }
    }
}

/// The problem of a store that cannot be used.
#[must_use]
pub fn store_away(error: &StoreError) -> Problem {
    Problem::new(Code::StoreUnavailable, error.to_string())
}

/// A fresh id, or one that follows from the key and the wish: the same request under
/// the same key is the same intent on every replica.
fn intent_id(state: &ApiState, headers: &HeaderMap, wish: &Wish) -> Result<IntentId, Problem> {
    let Some(key) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(IntentId(state.handle.edges.clock.ordered_id()));
    };
    let key = key.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len())).ok_or_else(
        || {
            let detail = format!("Idempotency-Key must be 1 to {KEY_BYTES_MAX} plain characters");
            Problem::new(Code::InvalidHeader, detail)
        },
    )?;
    let digest = Sha256::new()
        .chain_update(b"runner-orchestrator intent\0")
        .chain_update(key.as_bytes())
        .chain_update(b"\0")
        .chain_update(serde_json::to_vec(wish).unwrap_or_default())
        .finalize();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    let intent = IntentId(uuid::Builder::from_custom_bytes(bytes).into_uuid());
    let admitted = state.keys.lock().unwrap_or_else(PoisonError::into_inner).admit(key, intent);
    if admitted {
        return Ok(intent);
    }
    let detail = format!("{} was used for another request; choose a new key", quoted(key));
    Err(Problem::new(Code::IdempotencyMismatch, detail))
}

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AskedState {
    /// The leader has answered.
    Settled,
    /// Kept until a leader answers; scale requests for at most a minute.
    Recorded,
}

impl Answer {
    /// Where the request stands.
    #[must_use]
    pub fn state(&self) -> AskedState {
        match self {
            Self::Settled(_) => AskedState::Settled,
            Self::Recorded => AskedState::Recorded,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IntentBody {
    #[schema(value_type = IdText)]
    pub intent: IntentId,
    pub state: AskedState,
    /// The runners it was accepted for.
    #[schema(value_type = Vec<IdText>)]
    pub runners: Vec<RunnerId>,
    pub at: Option<At>,
    /// Why not all of it was accepted.
    pub reason: Option<ReasonBody>,
}

/// What became of a request
///
/// The newest 1,000 answers are kept.
#[utoipa::path(
    get, path = "/api/v1/intents/{id}", tag = "operate",
    params(("id" = IdText, Path, description = "The `intent` of an earlier answer")),
    responses(
        (status = 200, description = "Settled or still waiting", body = IntentBody),
        (status = 404, description = "Never asked, or too long ago", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
pub async fn get_intent(
    axum::extract::State(state): axum::extract::State<ApiState>,
    Path(id): Path<String>,
) -> Result<axum::Json<IntentBody>, Problem> {
    let unknown = || Problem::new(Code::UnknownIntent, format!("no intent {}", quoted(&id)));
    let intent: IntentId = id.parse().map_err(|_| unknown())?;
    let store = &state.handle.edges.store;
    if let Some(outcome) = store.outcome(intent).await.map_err(|error| store_away(&error))? {
        return Ok(axum::Json(IntentBody {
            intent,
            state: AskedState::Settled,
            runners: outcome.accepted,
            at: Some(outcome.at.into()),
            reason: outcome.reason.as_ref().map(ReasonBody::from),
        }));
    }
    let waiting = store.snapshot().await.map_err(|error| store_away(&error))?.intents;
    let waiting = waiting.into_iter().find(|waiting| waiting.id == intent).ok_or_else(unknown)?;
    Ok(axum::Json(IntentBody {
        intent,
        state: AskedState::Recorded,
        runners: Vec::new(),
        at: Some(waiting.at.into()),
        reason: None,
    }))
}

/// A field error in one line.
#[must_use]
pub fn field(name: &str, detail: impl Into<String>) -> FieldError {
    FieldError { field: name.to_owned(), detail: detail.into() }
}
