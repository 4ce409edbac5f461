//! The service a runner's listener talks to: sessions, long polls, its one job.
//! Not part of GitHub's REST API, so no tokens and no rate limits.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use super::SimGitHub;
use super::assignment::Renewal;
use super::ids::{JobId, RunnerId};
use super::runners::Session;
use super::state::World;
use super::unverified::Assumption;

/// The longest a poll is held, as the real service does.
pub(crate) const HOLD_MS_MAX: u64 = 50_000;

/// `POST /_runner/sessions`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionRequest {
    pub(crate) agent_id: u64,
    pub(crate) secret: String,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionOpened {
    pub(crate) session_id: String,
}

/// A poll's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) job: JobMessage,
}

/// The job a runner was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobMessage {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) duration_ms: u64,
    /// The result to report at its end.
    pub(crate) result: String,
    /// How often to renew while it runs.
    pub(crate) renew_ms: u64,
}

/// The answer to a sign of life.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Renewed {
    pub(crate) cancel: bool,
}

/// `POST …/complete`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Completion {
    pub(crate) result: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hold {
    hold_ms: Option<u64>,
}

enum Polled {
    Job(JobMessage),
    Nothing(Arc<Notify>),
    Gone,
}

impl World {
    /// Opens the one session of a runner.
    fn open_session(&mut self, request: &SessionRequest, now: u64) -> Result<String, StatusCode> {
        let id = RunnerId(request.agent_id);
        let session_id = self.id_random.uuid();
        let runner = self.runners.get_mut(&id).filter(|runner| !runner.hidden);
        let runner = runner.ok_or(StatusCode::NOT_FOUND)?;
        if !bool::from(runner.secret.as_bytes().ct_eq(request.secret.as_bytes())) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        if runner.online {
            return Err(StatusCode::CONFLICT);
        }
        let old = runner.session.replace(Session {
            id: session_id.clone(),
            polls: 0,
            wake: Arc::new(Notify::new()),
        });
        runner.online = true;
        runner.last_contact_ms = now;
        runner.connected_ms.get_or_insert(now);
        if let Some(old) = old {
            self.sessions.remove(&old.id);
            old.wake.notify_one();
        }
        self.sessions.insert(session_id.clone(), id);
        self.settle(id, now);
        self.due(now.saturating_add(self.settings.offline_after_ms));
        self.dispatch(now);
        Ok(session_id)
    }

    /// Ends a session; a job assigned to it and not started is queued again.
    fn close_session(&mut self, session: &str, now: u64) -> bool {
        let Some(id) = self.sessions.remove(session) else { return false };
        let Some(runner) = self.runners.get_mut(&id) else { return false };
        if let Some(session) = runner.session.take() {
            session.wake.notify_one();
        }
        runner.online = false;
        let waiting = runner.assignment.filter(|assignment| !assignment.started);
        self.settle(id, now);
        if let Some(assignment) = waiting {
            self.requeue(id, assignment.job, now);
        }
        if self.runners.get(&id).is_some_and(|runner| runner.hidden) {
            self.remove_runner(id, now, "deleted");
        }
        self.dispatch(now);
        true
    }

    /// Marks the begin of a poll; false when the session is gone.
    fn poll_begins(&mut self, session: &str, now: u64) -> bool {
        let Some(id) = self.sessions.get(session).copied() else { return false };
        let Some(runner) = self.runners.get_mut(&id) else { return false };
        runner.last_contact_ms = now;
        runner.online = true;
        if let Some(session) = runner.session.as_mut() {
            session.polls += 1;
        }
        self.settle(id, now);
        self.dispatch(now);
        true
    }

    /// Marks the end of a poll, answered or broken off.
    fn poll_ends(&mut self, session: &str, now: u64) {
        let Some(id) = self.sessions.get(session).copied() else { return };
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.last_contact_ms = now;
        if let Some(session) = runner.session.as_mut() {
            session.polls = session.polls.saturating_sub(1);
        }
        self.due(now.saturating_add(self.settings.offline_after_ms));
    }

    fn poll(&self, session: &str) -> Polled {
        let runner = self.sessions.get(session).and_then(|id| self.runners.get(id));
        let Some(runner) = runner else { return Polled::Gone };
        let Some(session) = runner.session.as_ref() else { return Polled::Gone };
        let told = !self.settings.hostile.hostile(Assumption::DeletedRunnerNotice);
        if runner.hidden && told && runner.assignment.is_none() {
            return Polled::Gone;
        }
        let waiting = runner.assignment.filter(|assignment| !assignment.started);
        match waiting.and_then(|assignment| self.jobs.get(&assignment.job)) {
            Some(job) => Polled::Job(JobMessage {
                id: job.id,
                name: job.name.clone(),
                duration_ms: job.duration_ms,
                result: job.result.clone(),
                renew_ms: self.settings.renew_ms(),
            }),
            None => Polled::Nothing(session.wake.clone()),
        }
    }
}

/// The routes under `/_runner`.
pub(crate) fn routes() -> Router<SimGitHub> {
    Router::new()
        .route("/_runner/sessions", post(open))
        .route("/_runner/sessions/{session}", delete(close))
        .route("/_runner/sessions/{session}/message", get(message))
        .route("/_runner/sessions/{session}/jobs/{job}/start", post(start))
        .route("/_runner/sessions/{session}/jobs/{job}/renew", post(renew))
        .route("/_runner/sessions/{session}/jobs/{job}/complete", post(complete))
}

async fn open(State(sim): State<SimGitHub>, Json(request): Json<SessionRequest>) -> Response {
    match sim.with(|world, now| world.open_session(&request, now)) {
        Ok(session_id) => (StatusCode::CREATED, Json(SessionOpened { session_id })).into_response(),
        Err(status) => status.into_response(),
    }
}

async fn close(State(sim): State<SimGitHub>, Path(session): Path<String>) -> StatusCode {
    let closed = sim.with(|world, now| world.close_session(&session, now));
    if closed { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

/// Ends the poll also when its client goes away.
struct OpenPoll {
    sim: SimGitHub,
    session: String,
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.sim.with(|world, now| world.poll_ends(&self.session, now));
    }
}

async fn message(
    State(sim): State<SimGitHub>,
    Path(session): Path<String>,
    Query(hold): Query<Hold>,
) -> Response {
    let hold_ms = hold.hold_ms.unwrap_or(HOLD_MS_MAX).min(HOLD_MS_MAX);
    let until = Instant::now() + Duration::from_millis(hold_ms);
    if !sim.with(|world, now| world.poll_begins(&session, now)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let _open = OpenPoll { sim: sim.clone(), session: session.clone() };
    loop {
        let wake = match sim.with(|world, _| world.poll(&session)) {
            Polled::Job(job) => return Json(Message { job }).into_response(),
            Polled::Gone => return StatusCode::NOT_FOUND.into_response(),
            Polled::Nothing(wake) => wake,
        };
        tokio::select! { biased;
            () = wake.notified() => (),
            () = sleep_until(until) => return StatusCode::NO_CONTENT.into_response(),
        }
    }
}

/// The runner behind a session, for the calls about its job.
fn runner_of(world: &World, session: &str) -> Option<RunnerId> {
    world.sessions.get(session).copied()
}

async fn start(
    State(sim): State<SimGitHub>,
    Path((session, job)): Path<(String, u64)>,
) -> StatusCode {
    let started = sim.with(|world, now| {
        runner_of(world, &session).is_some_and(|id| world.start_job(id, JobId(job), now))
    });
    if started { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn renew(
    State(sim): State<SimGitHub>,
    Path((session, job)): Path<(String, u64)>,
) -> Response {
    let renewal = sim.with(|world, now| {
        runner_of(world, &session).map_or(Renewal::Gone, |id| world.renew_job(id, JobId(job), now))
    });
    match renewal {
        Renewal::GoOn => Json(Renewed { cancel: false }).into_response(),
        Renewal::Cancel => Json(Renewed { cancel: true }).into_response(),
        Renewal::Gone => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn complete(
    State(sim): State<SimGitHub>,
    Path((session, job)): Path<(String, u64)>,
    Json(completion): Json<Completion>,
) -> StatusCode {
    let done = sim.with(|world, now| {
        runner_of(world, &session)
            .is_some_and(|id| world.complete_job(id, JobId(job), &completion.result, now))
    });
    if done { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
