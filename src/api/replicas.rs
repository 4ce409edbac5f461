//! Replicas: who is there, who leads, who is whose agent, and on what two of them differ
//! that must agree. `GET /api/v1/replicas`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::ask::AskedState;
use super::company::{Known, name};
use super::extract::{NoBody, Path};
use super::pools::{SwitchAnswer, Switched, switch};
use super::problem::{Code, Problem, ProblemBody, the_only};
use super::reading::Reading;
use super::shape::{At, IdText};
use crate::fleet::drain::{Left, progress};
use crate::fleet::id::{HostId, IntentId, ReplicaId};
use crate::fleet::intent::Wish;
use crate::fleet::policy::Policy;
use crate::fleet::replica::{ReplicaRecord, disagreements};
use crate::fleet::view::View;

/// All replicas.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Replicas {
    pub replicas: Vec<ReplicaBody>,
    /// Who decides; none while nobody holds the lease.
    #[schema(value_type = Option<IdText>)]
    pub leader: Option<ReplicaId>,
    /// The leader's fencing token.
    pub term: Option<u64>,
    /// What is shown may no longer be so: the store could not be read just now.
    pub stale: bool,
    /// How old the reading of the store is; null when it was never read.
    pub age_seconds: Option<f64>,
    pub store: StoreBody,
}

/// One orchestrator process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReplicaBody {
    #[schema(value_type = IdText)]
    pub id: ReplicaId,
    /// For people: its machine and the end of its id.
    #[schema(example = "box-2 (9f3c2b1a)")]
    pub name: String,
    pub hostname: String,
    pub version: String,
    /// Where the others reach its API; null: nothing is forwarded to it.
    #[schema(example = "http://10.0.0.7:8080")]
    pub address: Option<String>,
    /// The Docker host it is the agent of or stands by for; null: not known yet.
    #[schema(value_type = Option<IdText>)]
    pub host: Option<HostId>,
    /// `agent`: cares for its host; `stands_by`: another replica does; `none`: no Docker
    /// host of its own yet.
    #[schema(example = "agent")]
    pub standing: &'static str,
    pub agent: bool,
    pub leader: bool,
    /// The replica that answers.
    pub this: bool,
    pub started_at: At,
    /// When it last announced itself, by the store's time.
    pub announced_at: At,
    /// How long ago that was; 15 seconds and it is forgotten.
    pub age_seconds: f64,
    /// To be taken away, by an operator's wish; null while it is not.
    pub drain: Option<ReplicaDrainBody>,
    /// On what it differs from the leader, or from the eldest while nobody leads.
    pub problems: Vec<ReplicaProblem>,
}

/// How far a replica is from being dispensable.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReplicaDrainBody {
    /// It leads on, for no other replica is there that could.
    pub leads: bool,
    /// Hosts it cares for, as far as that is known; they are drained with it.
    #[schema(value_type = Vec<IdText>)]
    pub hosts: Vec<HostId>,
    /// Runners that still take up room on them.
    pub runners_left: u32,
    /// It does not lead, and the drain of each of its hosts is done: it can be taken away.
    pub done: bool,
}

/// A replica's drain that was asked for, and how far it has come.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReplicaDrained {
    pub message: String,
    pub state: AskedState,
    /// For `/api/v1/intents/{id}`.
    #[schema(value_type = IdText)]
    pub intent: IntentId,
    pub drain: ReplicaDrainBody,
}

/// Something on which replicas must agree and do not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct ReplicaProblem {
    /// `cluster_secret`, `pools` or `clock`.
    #[schema(example = "clock")]
    pub what: &'static str,
    /// Names both replicas.
    pub problem: String,
    pub fix: &'static str,
}

/// The store, as this replica sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StoreBody {
    /// `memory`: this replica alone; `redis`: shared.
    #[schema(example = "redis")]
    pub kind: &'static str,
    pub shared: bool,
    /// How its last call went; null before the first has ended.
    pub reachable: Option<bool>,
    pub error: Option<String>,
    /// What is wrong with its settings, each with what to do about it.
    pub warnings: Vec<String>,
    /// Records that could not be read; they are left as they are.
    pub unreadable: Vec<UnreadableBody>,
}

/// A record of the store that this version cannot read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UnreadableBody {
    pub key: String,
    pub problem: String,
}

impl ApiState {
    /// The store, as this replica sees it.
    #[must_use]
    pub fn store_body(&self, known: &Known) -> StoreBody {
        let health = self.handle.edges.store.health().borrow().clone();
        let unreadable = known.company.unreadable.iter().map(|record| UnreadableBody {
            key: record.key.clone(),
            problem: record.problem.clone(),
        });
        StoreBody {
            kind: health.kind,
            shared: health.shared,
            reachable: health.reachable.as_ref().map(Result::is_ok),
            error: health.reachable.and_then(Result::err).or_else(|| known.error.clone()),
            warnings: health.warnings,
            unreadable: unreadable.collect(),
        }
    }

    /// Every replica's body, this one first, then by name.
    #[must_use]
    pub fn replica_bodies(&self, known: &Known) -> Vec<ReplicaBody> {
        let reading = self.read();
        let mut bodies: Vec<ReplicaBody> = known
            .company
            .replicas
            .values()
            .map(|record| self.replica_body(record, known, &reading))
            .collect();
        bodies.sort_by_cached_key(|body| (!body.this, body.name.clone()));
        bodies
    }

    fn replica_body(
        &self,
        record: &ReplicaRecord,
        known: &Known,
        reading: &Reading,
    ) -> ReplicaBody {
        let policy = &self.handle.settings.policy;
        let is_drained = reading.view().operator.draining_replicas.contains(&record.replica);
        ReplicaBody {
            id: record.replica,
            name: name(Some(record), record.replica),
            hostname: record.hostname.clone(),
            version: record.build.clone(),
            address: record.advertise.clone(),
            host: record.host,
            standing: match (record.host, record.agent) {
                (Some(_), true) => "agent",
                (Some(_), false) => "stands_by",
                (None, _) => "none",
            },
            agent: record.agent,
            leader: known.leader().is_some_and(|(leader, _)| leader == record.replica),
            this: record.replica == self.handle.replica,
            started_at: record.started_at.into(),
            announced_at: record.at.into(),
            age_seconds: known.company.at.since(record.at).as_secs_f64(),
            drain: is_drained.then(|| drain(record.replica, known, reading, policy)),
            problems: problems(record, known),
        }
    }
}

/// On what a replica differs from the one the others are measured by, in words.
#[must_use]
pub fn problems(record: &ReplicaRecord, known: &Known) -> Vec<ReplicaProblem> {
    let company = &known.company;
    let leader = company.leader.map(|(leader, _)| leader);
    disagreements(&company.replicas, leader)
        .into_iter()
        .filter(|found| found.replica == record.replica)
        .map(|found| {
            let (one, other) = (name(Some(record), record.replica), known.name(found.from));
            ReplicaProblem {
                what: found.what.code(),
                problem: format!("{one} {} {other}", found.what),
                fix: found.what.fix(),
            }
        })
        .collect()
}

/// List replicas
///
/// Every orchestrator process that has announced itself within 15 seconds.
#[utoipa::path(get, path = "/api/v1/replicas", tag = "observe",
    responses((status = 200, description = "Every replica", body = Replicas)))]
pub async fn list_replicas(State(state): State<ApiState>) -> Json<Replicas> {
    let known = state.company().await;
    let leader = known.leader();
    Json(Replicas {
        replicas: state.replica_bodies(&known),
        leader: leader.map(|(leader, _)| leader),
        term: leader.map(|(_, term)| term.0),
        stale: known.error.is_some(),
        age_seconds: known.age.map(|age| age.as_secs_f64()),
        store: state.store_body(&known),
    })
}

/// How far a replica is from being dispensable, whether or not it is drained already.
fn drain(
    replica: ReplicaId,
    known: &Known,
    reading: &Reading,
    policy: &Policy,
) -> ReplicaDrainBody {
    let view = reading.view();
    let leads = known.leader().is_some_and(|(leader, _)| leader == replica);
    let replicas = &known.company.replicas;
    let of_it = view.hosts.values().filter(|host| host.replica == replica);
    let mut hosts: BTreeSet<HostId> = of_it.map(|host| host.host).collect();
    // Before its own first report the host's record is of the process before it.
    let announced = replicas.get(&replica);
    let is_free = |host: &HostId| {
        let record = view.hosts.get(host);
        record.is_none_or(|record| !replicas.contains_key(&record.replica))
    };
    hosts.extend(announced.and_then(|it| it.host).filter(is_free));
    // It names no host until its daemon has answered.
    let is_told = announced.is_none_or(|it| it.host.is_some());
    let is_empty = |host: &HostId| {
        progress(view, host, policy, reading.now).is_some_and(|drain| drain.is_done())
    };
    ReplicaDrainBody {
        leads,
        runners_left: hosts.iter().map(|host| Left::of(view, host).runners()).sum(),
        done: !leads && is_told && hosts.iter().all(is_empty),
        hosts: hosts.into_iter().collect(),
    }
}

/// Whether there is any replica that could lead in place of this one.
fn is_alone(replica: ReplicaId, known: &Known, view: &View) -> bool {
    let drained = &view.operator.draining_replicas;
    let mut others = known.company.replicas.keys().filter(|id| **id != replica);
    others.all(|id| drained.contains(id))
}

impl ApiState {
    /// Replicas that are drained and lead all the same, by name.
    #[must_use]
    pub fn leading_though_drained(&self, known: &Known) -> Option<String> {
        let reading = self.read();
        let (leader, _) = known.leader()?;
        let view = reading.view();
        let drained = view.operator.draining_replicas.contains(&leader);
        (drained && is_alone(leader, known, view)).then(|| known.name(leader))
    }
}

/// A replica by its id, its name, or its machine where only one runs there.
fn replica(known: &Known, view: &View, asked: &str) -> Result<ReplicaId, Problem> {
    let replicas = &known.company.replicas;
    if let Ok(id) = asked.parse::<ReplicaId>()
        && (replicas.contains_key(&id) || view.operator.draining_replicas.contains(&id))
    {
        return Ok(id);
    }
    let found =
        replicas.values().filter(|it| it.hostname == asked || name(Some(it), it.replica) == asked);
    the_only(found, "replica", asked, Code::UnknownReplica).map(|record| record.replica)
}

/// Make a replica dispensable
///
/// It leaves leading to the others, and the hosts it cares for are drained: what replaces
/// their runners is started elsewhere, idle ones are removed, busy ones finish.
#[utoipa::path(post, path = "/api/v1/replicas/{id}/drain", tag = "operate",
    params(("id" = String, Path, description = "The replica's id or name")),
    responses(
        (status = 200, description = "Draining", body = ReplicaDrained),
        (status = 202, description = "Recorded; no leader has answered yet",
            body = ReplicaDrained),
        (status = 404, description = "No such replica", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn drain_replica(
    State(state): State<ApiState>,
    Path(asked): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<(StatusCode, Json<ReplicaDrained>), Problem> {
    let known = state.company().await;
    let replica = replica(&known, state.read().view(), &asked)?;
    let done = format!("Replica {} is being drained", known.name(replica));
    let wish = Wish::DrainReplica { replica };
    let (status, Json(switched)) = switch(&state, &headers, wish, done).await?;
    let reading = state.read();
    let policy = &state.handle.settings.policy;
    let mut drain = drain(replica, &known, &reading, policy);
    let mut message = switched.message;
    // Where another can lead it does so within moments.
    drain.leads &= is_alone(replica, &known, reading.view());
    if drain.leads {
        message.push_str("; it leads on, for no other replica is there");
    }
    message.push_str("; runners left on its hosts: ");
    message.push_str(&drain.runners_left.to_string());
    let (state, intent) = (switched.state, switched.intent);
    Ok((status, Json(ReplicaDrained { message, state, intent, drain })))
}

/// Use a drained replica again
#[utoipa::path(post, path = "/api/v1/replicas/{id}/undrain", tag = "operate",
    params(("id" = String, Path, description = "The replica's id or name")),
    responses(
        (status = 200, description = "In use again", body = Switched),
        (status = 202, description = "Recorded; no leader has answered yet", body = Switched),
        (status = 404, description = "No such replica", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn undrain_replica(
    State(state): State<ApiState>,
    Path(asked): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> SwitchAnswer {
    let known = state.company().await;
    let replica = replica(&known, state.read().view(), &asked)?;
    let done = format!("Replica {} is in use again", known.name(replica));
    switch(&state, &headers, Wish::UndrainReplica { replica }, done).await
}
