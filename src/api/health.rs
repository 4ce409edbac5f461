//! Probes and the front door: `/`, `/health`, `/livez`, `/readyz`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::company::{Known, name};
use super::problem::{Code, Problem, ProblemBody};
use super::replicas::problems;
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
    /// What it is about: `docker`, `github`, `store`, `image`, `pool`, `view`, `operator`,
    /// `replica`, `peers`.
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
    let degraded = state.degraded(&state.company().await);
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

/// Whether the process makes progress
///
/// 503 when the task that keeps the leader's lease or the lead loop has not moved for 10
/// seconds: a restart helps, and nothing else does.
#[utoipa::path(get, path = "/livez", tag = "probes", security(()),
    responses(
        (status = 200, description = "It does", body = Alive),
        (status = 503, description = "It does not: restart it", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn livez(State(state): State<ApiState>) -> Result<Json<Alive>, Problem> {
    match state.alive.as_ref().map_or(Ok(()), |alive| alive()) {
        Ok(()) => Ok(Json(Alive { status: "alive" })),
        Err(why) => Err(Problem::new(Code::Stuck, why)),
    }
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
/// 503 until the first attempt at Docker, at GitHub and at the store has ended, and while
/// stopping.
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
        let store = state.handle.edges.store.health().borrow().reachable.is_some();
        let asked = [
            ("docker", ready.docker.is_some()),
            ("github", ready.github.is_some()),
            ("the store", store),
        ];
        asked.iter().filter(|(_, ended)| !ended).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    if waiting_for.is_empty() {
        let degraded = state.degraded(&state.company().await);
        return Ok(Json(Ready { status: "ready", degraded }));
    }
    let detail = format!("the first answer of {} is awaited", waiting_for.join(" and "));
    Err(Problem::new(Code::Starting, detail))
}

impl ApiState {
    /// Everything that is missing now, with its fix.
    #[must_use]
    pub fn degraded(&self, known: &Known) -> Vec<Degraded> {
        let mut found = self.degraded_dependencies();
        found.extend(self.degraded_store(known));
        found.extend(self.degraded_fleet());
        found.extend(self.degraded_company(known));
        found
    }

    /// The store: away, badly set up, or with records that this version cannot read.
    fn degraded_store(&self, known: &Known) -> Vec<Degraded> {
        let health = self.handle.edges.store.health().borrow().clone();
        let away = match &health.reachable {
            Some(Err(why)) => Some(why.clone()),
            Some(Ok(())) | None => self.read().published.store_error.clone(),
        };
        let store =
            |problem: String, fix: &str| Degraded { what: "store", problem, fix: fix.to_owned() };
        let mut found: Vec<Degraded> = away
            .map(|problem| {
                let fix = "check that the store answers; what runs is kept, nothing new is started";
                store(problem, fix)
            })
            .into_iter()
            .collect();
        // A warning names what to do behind a semicolon, or is the whole of it.
        found.extend(health.warnings.iter().map(|warning| {
            let (problem, fix) = warning.split_once("; ").unwrap_or((warning, warning));
            store(problem.to_owned(), fix)
        }));
        found.extend(known.company.unreadable.iter().map(|record| {
            let problem = format!("record {} cannot be read: {}", record.key, record.problem);
            store(problem, "run the same version on every replica; the record is left as it is")
        }));
        found
    }

    /// Where this replica and the others do not get on.
    fn degraded_company(&self, known: &Known) -> Vec<Degraded> {
        let replicas = &known.company.replicas;
        let mut found: Vec<Degraded> = replicas
            .values()
            .flat_map(|record| problems(record, known))
            .map(|it| Degraded { what: "replica", problem: it.problem, fix: it.fix.to_owned() })
            .collect();
        found.extend(self.leading_though_drained(known).map(|who| Degraded {
            what: "replica",
            problem: format!("{who} is being drained and leads on: no other replica is there"),
            fix: "start another replica, or undrain it".to_owned(),
        }));
        if let Some(off) = self.forwarding_off().filter(|_| replicas.len() > 1) {
            found.push(Degraded {
                what: "peers",
                problem: off.to_owned(),
                fix: "set the same CLUSTER_SECRET on every replica".to_owned(),
            });
        }
        let unreached = replicas.values().filter(|it| it.advertise.is_none() && replicas.len() > 1);
        found.extend(unreached.map(|record| Degraded {
            what: "peers",
            problem: format!("{} has no address others reach", name(Some(record), record.replica)),
            fix:
                "let it listen on an address of its network, or set ADVERTISE_URL there".to_owned(),
        }));
        found
    }

    /// Why nothing is forwarded to other replicas; `None`: it is.
    #[must_use]
    pub fn forwarding_off(&self) -> Option<&'static str> {
        let secret = &self.handle.settings.peers.secret;
        secret.is_none().then_some(
            "CLUSTER_SECRET is not set: logs of runners on other replicas' hosts are not shown here",
        )
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
        found
    }

    fn degraded_fleet(&self) -> Vec<Degraded> {
        let reading = self.read();
        let view = reading.view();
        let mut found = Vec::new();
        if reading.is_stale() && reading.away().is_none() {
            found.push(Degraded {
                what: "view",
                problem: format!("the last look at the fleet is {} s old", reading.age().as_secs()),
                fix: "see whether a replica leads, and its log for what holds it up".to_owned(),
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
