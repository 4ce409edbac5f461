//! Probes and the front door: `/`, `/health`, `/livez`, `/readyz`, `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::problem::{Code, Problem, ProblemBody};
use crate::fleet::id::PoolName;

/// The index.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Index {
    pub message: &'static str,
    pub version: String,
    #[schema(example = "/docs")]
    pub docs_url: &'static str,
}

/// What this is
#[utoipa::path(get, path = "/", tag = "probes",
    responses((status = 200, description = "Where to go on", body = Index)))]
pub async fn index(State(state): State<ApiState>) -> Json<Index> {
    Json(Index {
        message: "Runner Orchestrator API",
        version: state.settings.version.clone(),
        docs_url: "/docs",
    })
}

/// Something that is missing, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Degraded {
    /// What it is about: `docker`, `github`, `store`, `image`, `pool`, `view`, `operator`.
    pub what: &'static str,
    pub problem: String,
    pub fix: String,
}

/// The process's health.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `healthy`, or `degraded` when something is missing; 200 in both cases.
    #[schema(example = "healthy")]
    pub status: &'static str,
    pub orchestrator_running: bool,
    pub degraded: Vec<Degraded>,
}

/// Whether the orchestrator runs
///
/// Always 200 while the process serves: what is missing is named, and a restart would
/// not bring it back.
#[utoipa::path(get, path = "/health", tag = "probes", security(()),
    responses((status = 200, description = "The process serves", body = Health)))]
pub async fn health(State(state): State<ApiState>) -> Json<Health> {
    let degraded = state.degraded();
    Json(Health {
        status: if degraded.is_empty() { "healthy" } else { "degraded" },
        orchestrator_running: !state.handle.readiness.borrow().stopping,
        degraded,
    })
}

/// Whether the orchestrator runs (under the API's path)
#[utoipa::path(get, path = "/api/v1/health", tag = "probes", security(()),
    responses((status = 200, description = "The process serves", body = Health)))]
pub async fn health_v1(state: State<ApiState>) -> Json<Health> {
    health(state).await
}

/// Proof of life.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Alive {
    #[schema(example = "alive")]
    pub status: &'static str,
}

/// Whether the process answers at all
#[utoipa::path(get, path = "/livez", tag = "probes", security(()),
    responses((status = 200, description = "It does", body = Alive)))]
pub async fn livez() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

/// The replica's readiness.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ready {
    #[schema(example = "ready")]
    pub status: &'static str,
    /// What is missing; requests are answered all the same.
    pub degraded: Vec<Degraded>,
}

/// Whether this replica takes requests
///
/// 503 until the first attempt at Docker and at GitHub has ended, and while stopping.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()),
    responses(
        (status = 200, description = "It does; `degraded` names what is missing", body = Ready),
        (status = 503, description = "Starting or stopping", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn readyz(State(state): State<ApiState>) -> Result<Json<Ready>, Problem> {
    let waiting_for = {
        let ready = state.handle.readiness.borrow();
        if ready.stopping {
            return Err(Problem::new(Code::Stopping, "this replica is shutting down"));
        }
        let asked = [("docker", ready.docker.is_some()), ("github", ready.github.is_some())];
        asked.iter().filter(|(_, ended)| !ended).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    if waiting_for.is_empty() {
        return Ok(Json(Ready { status: "ready", degraded: state.degraded() }));
    }
    let detail = format!("the first answer of {} is awaited", waiting_for.join(" and "));
    Err(Problem::new(Code::Starting, detail))
}

const TEXT_FORMAT: [(HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

/// Metrics of this replica
///
/// Prometheus' text format 0.0.4.
#[utoipa::path(get, path = "/metrics", tag = "observe",
    responses((status = 200, description = "One sample a line", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")))]
pub async fn metrics(State(state): State<ApiState>) -> ([(HeaderName, &'static str); 1], String) {
    (TEXT_FORMAT, (state.metrics_text)())
}

/// Metrics of this replica (under the API's path)
///
/// Prometheus' text format 0.0.4.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "observe",
    responses((status = 200, description = "One sample a line", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")))]
pub async fn metrics_v1(state: State<ApiState>) -> ([(HeaderName, &'static str); 1], String) {
    metrics(state).await
}

impl ApiState {
    /// Everything that is missing now, with its fix.
    #[must_use]
    pub fn degraded(&self) -> Vec<Degraded> {
        let mut found = self.degraded_dependencies();
        found.extend(self.degraded_fleet());
        found
    }

    fn degraded_dependencies(&self) -> Vec<Degraded> {
        let ready = self.handle.readiness.borrow();
        let reading = self.read();
        let mut found = Vec::new();
        let own = reading.view().hosts.values().find(|h| h.replica == self.handle.replica);
        let docker = match (own, &ready.docker) {
            (Some(host), _) if host.docker_up => None,
            (Some(host), _) => Some(format!("docker on {} does not answer", host.hostname)),
            (None, Some(Err(why))) => Some(why.clone()),
            (None, Some(Ok(())) | None) => None,
        };
        found.extend(docker.map(|problem| {
            Degraded {
                what: "docker",
                problem,
                fix: "start Docker, or set DOCKER_HOST; the process needs access to its socket"
                    .to_owned(),
            }
        }));
        match &ready.github {
            Some(Err(why)) => found.push(Degraded {
                what: "github",
                problem: why.clone(),
                fix: "check the network and GITHUB_API_URL; it is tried again".to_owned(),
            }),
            Some(Ok(preflight)) => found.extend(preflight.problems().into_iter().map(|line| {
                let (problem, fix) = line.split_once(": ").unwrap_or((&line, &line));
                let problem = format!("refused: {problem}");
                Degraded { what: "github", problem, fix: fix.to_owned() }
            })),
            None => {}
        }
        if let Some(error) = &reading.published.store_error {
            found.push(Degraded {
                what: "store",
                problem: error.clone(),
                fix: "check that the store answers; what runs is kept, nothing new is started"
                    .to_owned(),
            });
        }
        found
    }

    fn degraded_fleet(&self) -> Vec<Degraded> {
        let reading = self.read();
        let view = reading.view();
        let mut found = Vec::new();
        if reading.is_stale() && reading.published.store_error.is_none() {
            found.push(Degraded {
                what: "view",
                problem: format!("the last look at the fleet is {} s old", reading.age().as_secs()),
                fix: "see the log for what holds the lead loop up".to_owned(),
            });
        }
        if view.operator.frozen_since.is_some() {
            found.push(Degraded {
                what: "operator",
                problem: "the fleet is frozen: nothing is started or removed".to_owned(),
                fix: "POST /api/v1/unfreeze".to_owned(),
            });
        }
        let missing = |pool: &PoolName, image: &str| Degraded {
            what: "image",
            problem: format!("no host has {image}, the image of pool {pool}"),
            fix: "build or pull it on a host, or set RUNNER_IMAGE".to_owned(),
        };
        let up = || view.hosts.values().filter(|host| host.docker_up);
        if up().next().is_some() {
            let without = |image: &str| up().all(|host| !host.images.contains(image));
            let pools = view.pools.values().filter(|pool| without(&pool.image));
            found.extend(pools.map(|pool| missing(&pool.name, &pool.image)));
        }
        for (pool, breaker) in &view.ledger.breakers {
            if breaker.is_open(reading.now) {
                let last = breaker.last.as_deref().unwrap_or("unknown");
                found.push(Degraded {
                    what: "pool",
                    problem: format!("{} runners of pool {pool} failed in a row", breaker.failures),
                    fix: format!("the last one failed with {last}; see the log and its image"),
                });
            }
        }
        found
    }
}
