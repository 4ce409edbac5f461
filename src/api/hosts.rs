//! Hosts: the Docker daemons that runners live on, as their agents last reported them.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::ask::AskedState;
use super::company::Known;
use super::extract::{NoBody, Path};
use super::pools::{SwitchAnswer, Switched, switch};
use super::problem::{Code, Problem, ProblemBody, the_only};
use super::reading::Reading;
use super::shape::{At, IdText, at};
use crate::fleet::drain::{Progress, progress};
use crate::fleet::host::{Capacity, HostRecord, Liveness};
use crate::fleet::id::{BootId, HostId, IntentId, ReplicaId};
use crate::fleet::intent::Wish;

/// All hosts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Hosts {
    pub hosts: Vec<HostBody>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
}

/// One Docker daemon.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostBody {
    #[schema(value_type = IdText)]
    pub id: HostId,
    pub hostname: String,
    /// `live`; `suspect`: silent for 15 s, gets nothing new; `lost`: silent for 45 s.
    #[schema(example = "live")]
    pub liveness: &'static str,
    pub docker_up: bool,
    pub docker_version: Option<String>,
    /// Gets nothing new, by an operator's wish: it is drained, or the replica that cares
    /// for it is.
    pub draining: bool,
    /// How far that has come; null while nobody drains it.
    pub drain: Option<DrainBody>,
    pub stopping: bool,
    pub max_runners: u32,
    /// How many runners take up room on it.
    pub runners: u32,
    /// Images of our pools that are present.
    pub images: Vec<String>,
    pub reported_at: At,
    /// How long ago its agent's report reached the leader; null when it never did.
    pub silent_seconds: Option<u64>,
    /// Who last reported it.
    #[schema(value_type = IdText)]
    pub replica: ReplicaId,
    /// The replica that cares for it now, by name; null while none does.
    #[schema(example = "box-2 (9f3c2b1a)")]
    pub agent: Option<String>,
    #[schema(value_type = IdText)]
    pub boot: BootId,
    pub capacity: CapacityBody,
}

/// How far the drain of a host has come.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DrainBody {
    pub since: Option<At>,
    /// Runners there when it began; null when that was not noted.
    pub runners_at_first: Option<u32>,
    /// Runners that still take up room there.
    pub runners_left: u32,
    pub left: DrainLeft,
    /// Nothing is left, by the host's report and by GitHub's lists, both made since the
    /// drain began: the host can be taken away.
    pub done: bool,
}

/// What has yet to go from a host.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct DrainLeft {
    pub idle: u32,
    pub busy: u32,
    /// Not listening yet.
    pub starting: u32,
    /// Found running, of unknown use.
    pub unknown: u32,
    /// Registrations at GitHub that no runner there claims.
    pub unclaimed: u32,
}

/// What a host's machine offers; null = not known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CapacityBody {
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// Free where its Docker keeps data.
    pub disk_free_bytes: Option<u64>,
    #[schema(example = "x86_64")]
    pub architecture: Option<String>,
}

impl From<Progress> for DrainBody {
    fn from(progress: Progress) -> Self {
        let left = progress.left;
        Self {
            since: at(progress.since),
            runners_at_first: progress.at_first,
            runners_left: left.runners(),
            left: DrainLeft {
                idle: left.idle,
                busy: left.busy,
                starting: left.starting,
                unknown: left.unknown,
                unclaimed: left.unclaimed,
            },
            done: progress.is_done(),
        }
    }
}

impl DrainBody {
    /// For people.
    fn sentence(&self) -> String {
        let DrainLeft { idle, busy, starting, unknown, unclaimed } = self.left;
        if self.done {
            return "nothing is left on it".to_owned();
        }
        let parts = [
            (idle, "idle"),
            (busy, "busy"),
            (starting, "starting"),
            (unknown, "unknown"),
            (unclaimed, "only registered"),
        ];
        let left = parts.iter().filter(|(many, _)| *many > 0);
        let left: Vec<String> = left.map(|(many, state)| format!("{many} {state}")).collect();
        if left.is_empty() {
            return "nothing is seen on it; its next report and GitHub's list will confirm it"
                .to_owned();
        }
        format!("left there: {}", left.join(", "))
    }
}

impl From<&Capacity> for CapacityBody {
    fn from(capacity: &Capacity) -> Self {
        Self {
            cpus: capacity.cpus,
            memory_bytes: capacity.memory_bytes,
            disk_free_bytes: capacity.disk_free_bytes,
            architecture: capacity.architecture.clone(),
        }
    }
}

/// Every host's body.
#[must_use]
pub fn host_bodies(state: &ApiState, reading: &Reading, known: &Known) -> Vec<HostBody> {
    let view = reading.view();
    let occupied = view.roster().occupied_by_host();
    let policy = &state.handle.settings.policy;
    view.hosts
        .values()
        .map(|host| HostBody {
            id: host.host,
            hostname: host.hostname.clone(),
            liveness: match view.liveness(&host.host, policy, reading.now) {
                Liveness::Live => "live",
                Liveness::Suspect => "suspect",
                Liveness::Lost => "lost",
            },
            docker_up: host.docker_up,
            docker_version: host.docker_version.clone(),
            draining: view.operator.drains(host),
            drain: progress(view, &host.host, policy, reading.now).map(DrainBody::from),
            stopping: host.stopping,
            max_runners: host.max_runners,
            runners: occupied.get(&host.host).copied().unwrap_or(0),
            images: host.images.iter().cloned().collect(),
            reported_at: host.at.into(),
            silent_seconds: view
                .ledger
                .heard
                .get(&host.host)
                .map(|heard| reading.now.since(heard.at).as_secs()),
            replica: host.replica,
            agent: agent(host, known),
            boot: host.boot,
            capacity: CapacityBody::from(&host.capacity),
        })
        .collect()
}

/// List hosts
#[utoipa::path(get, path = "/api/v1/hosts", tag = "observe",
    responses((status = 200, description = "Every Docker daemon", body = Hosts)))]
pub async fn list_hosts(State(state): State<ApiState>) -> Json<Hosts> {
    let (reading, known) = (state.read(), state.company().await);
    Json(Hosts {
        hosts: host_bodies(&state, &reading, &known),
        stale: reading.is_stale(),
        age_seconds: reading.age().as_secs_f64(),
    })
}

/// Who cares for a host: a replica that has announced itself lately.
fn agent(host: &HostRecord, known: &Known) -> Option<String> {
    let agent = known.agent_of(host.host, Some(host.replica))?;
    known.company.replicas.contains_key(&agent).then(|| known.name(agent))
}

/// A host by its id, or by its name where only one has it.
fn host<'a>(reading: &'a Reading, asked: &str) -> Result<&'a HostRecord, Problem> {
    let id: Option<HostId> = asked.parse().ok();
    let hosts = reading.view().hosts.values();
    let found = hosts.filter(|host| Some(host.host) == id || host.hostname == asked);
    the_only(found, "host", asked, Code::UnknownHost).map(|host| &**host)
}

/// A drain that was asked for, and how far it has come.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Drained {
    pub message: String,
    pub state: AskedState,
    /// For `/api/v1/intents/{id}`.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
    pub drain: DrainBody,
}

/// Empty a host
///
/// It gets nothing new, its idle runners are removed, and its busy ones finish.
#[utoipa::path(post, path = "/api/v1/hosts/{id}/drain", tag = "operate",
    params(("id" = String, Path, description = "The host's id or name")),
    responses(
        (status = 200, description = "Draining", body = Drained),
        (status = 202, description = "Recorded; no leader has answered yet", body = Drained),
        (status = 404, description = "No such host", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn drain_host(
    State(state): State<ApiState>,
    Path(asked): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<(StatusCode, Json<Drained>), Problem> {
    let reading = state.read();
    let host = host(&reading, &asked)?;
    let done = format!("Host {} is being drained", host.hostname);
    let wish = Wish::Drain { host: host.host };
    let (status, Json(switched)) = switch(&state, &headers, wish, done).await?;
    // The leader may have shown what it did already, or not yet.
    let drain = DrainBody::from(Progress::begun(state.read().view(), &host.host));
    let message = format!("{}; {}", switched.message, drain.sentence());
    let (state, intent) = (switched.state, switched.intent);
    Ok((status, Json(Drained { message, state, intent, drain })))
}

/// Use a drained host again
#[utoipa::path(post, path = "/api/v1/hosts/{id}/undrain", tag = "operate",
    params(("id" = String, Path, description = "The host's id or name")),
    responses(
        (status = 200, description = "In use again", body = Switched),
        (status = 202, description = "Recorded; no leader has answered yet", body = Switched),
        (status = 404, description = "No such host", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn undrain_host(
    State(state): State<ApiState>,
    Path(asked): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> SwitchAnswer {
    let reading = state.read();
    let host = host(&reading, &asked)?;
    let done = if reading.view().operator.draining_replicas.contains(&host.replica) {
        let replica = state.company().await.name(host.replica);
        format!("Host {} is drained no longer, but with its replica {replica}", host.hostname)
    } else {
        format!("Host {} is in use again", host.hostname)
    };
    switch(&state, &headers, Wish::Undrain { host: host.host }, done).await
}
