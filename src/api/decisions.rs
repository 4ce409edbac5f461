//! What was decided lately, and why: `GET /api/v1/decisions`.
//!
//! A [`Recorder`] keeps the newest decisions of this replica's lead loop, which tells it of
//! every turn, be it its own or what another leader published: of its own none is missed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::extract::Query;
use super::jobs::within;
use super::problem::Problem;
use super::shape::{At, IdText, ReasonBody, count};
use super::status::LastAction;
use crate::fleet::id::{HostId, IntentId, PoolName, RunnerId};
use crate::fleet::plan::Plan;
use crate::fleet::reason::Reason;
use crate::fleet::time::Timestamp;
use crate::loops::lead::{Listeners, Published};

/// Decisions kept: some minutes of a busy fleet, about 200 KB.
pub const DECISIONS_KEPT: usize = 500;
const DECISIONS_DEFAULT: u32 = 100;

/// What kind of decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A runner is added.
    Assign,
    /// A runner is removed.
    Retire,
    /// An assignment is taken back before it lived.
    Release,
    /// A registration that nobody claims is deleted.
    Deregister,
    /// An operator's request is answered.
    Outcome,
    /// A pool wants more and does not get it, or stops wanting.
    Hold,
}

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Decision {
    /// Grows by one; a gap means that decisions were dropped.
    pub seq: u64,
    pub at: At,
    pub term: u64,
    pub kind: Kind,
    #[schema(value_type = Option<IdText>)]
    pub runner: Option<RunnerId>,
    pub runner_name: Option<String>,
    #[schema(value_type = Option<String>)]
    pub pool: Option<PoolName>,
    #[schema(value_type = Option<IdText>)]
    pub host: Option<HostId>,
    #[schema(value_type = Option<IdText>)]
    pub intent: Option<IntentId>,
    /// How many runners an operator's request was accepted for.
    pub accepted: Option<u32>,
    /// None: done in full, or a hold that is over.
    pub reason: Option<ReasonBody>,
}

/// Keeps the newest [`DECISIONS_KEPT`] decisions. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    decisions: VecDeque<Decision>,
    next_seq: u64,
    /// Why each pool last got less than it wanted, by code.
    holds: BTreeMap<PoolName, Option<String>>,
    last: Option<LastAction>,
    /// The turn taken in last: another leader's may be read twice.
    turn: Option<(u64, Timestamp, Arc<Plan>)>,
}

impl Recorder {
    /// Takes in what one turn decided. A turn of a follower, and one whose write failed,
    /// decided nothing.
    pub fn record(&self, published: &Published) {
        let Some(term) = published.term.filter(|_| published.store_error.is_none()) else {
            return;
        };
        let mut ring = self.ring();
        let Published { at, plan, .. } = published;
        let again = ring
            .turn
            .as_ref()
            .is_some_and(|(of, when, made)| (*of, when) == (term, at) && made == plan);
        if again {
            return;
        }
        ring.turn = Some((term, *at, plan.clone()));
        for decision in told(published, term) {
            ring.push(decision);
        }
        ring.note_holds(&published.plan, published.at, term);
        ring.note_action(&published.plan, published.at);
    }

    /// The last time runners were added or retired.
    #[must_use]
    pub fn last_action(&self) -> Option<LastAction> {
        self.ring().last.clone()
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, mut decision: Decision) {
        decision.seq = self.next_seq;
        self.next_seq += 1;
        self.decisions.push_back(decision);
        if self.decisions.len() > DECISIONS_KEPT {
            self.decisions.pop_front();
        }
    }

    /// One line when a pool begins to be held back, when the reason changes, and when it
    /// is over; not one every second.
    fn note_holds(&mut self, plan: &Plan, at: Timestamp, term: u64) {
        for (pool, decided) in &plan.pools {
            let reason = decided.not_added.last();
            let code = reason.map(|reason| reason.code().to_owned());
            let before = self.holds.insert(pool.clone(), code.clone()).flatten();
            if before != code {
                let mut decision = blank(Kind::Hold, at, term);
                decision.pool = Some(pool.clone());
                decision.reason = reason.map(ReasonBody::from);
                self.push(decision);
            }
        }
    }

    fn note_action(&mut self, plan: &Plan, at: Timestamp) {
        let (added, removed) = (count(plan.place.len()), count(plan.retire.len()));
        let timestamp = At::from(at);
        if let Some(first) = plan.place.first() {
            self.last = Some(LastAction {
                action: "scale_up",
                timestamp,
                runners_added: Some(added),
                runners_removed: None,
                reason: first.assigned.reason.code().to_owned(),
            });
        } else if let Some(first) = plan.retire.first() {
            self.last = Some(LastAction {
                action: "scale_down",
                timestamp,
                runners_added: None,
                runners_removed: Some(removed),
                reason: first.retirement.reason.code().to_owned(),
            });
        }
    }
}

fn blank(kind: Kind, at: Timestamp, term: u64) -> Decision {
    Decision {
        seq: 0,
        at: at.into(),
        term,
        kind,
        runner: None,
        runner_name: None,
        pool: None,
        host: None,
        intent: None,
        accepted: None,
        reason: None,
    }
}

/// Everything a turn decided, in the order it is carried out.
fn told(published: &Published, term: u64) -> Vec<Decision> {
    let Published { at, view, plan, .. } = published;
    let because = |reason: &Reason| Some(ReasonBody::from(reason));
    let name_of = |host: &HostId, runner: &RunnerId| {
        let assignment = view.assignments.get(host)?;
        assignment.runners.get(runner).map(|assigned| assigned.name.to_string())
    };
    let placed = plan.place.iter().map(|placement| Decision {
        runner: Some(placement.assigned.id),
        runner_name: Some(placement.assigned.name.to_string()),
        pool: Some(placement.assigned.pool.clone()),
        host: Some(placement.host),
        reason: because(&placement.assigned.reason),
        ..blank(Kind::Assign, *at, term)
    });
    let retired = plan.retire.iter().map(|order| Decision {
        runner: Some(order.runner),
        runner_name: name_of(&order.host, &order.runner),
        pool: Some(order.pool.clone()),
        host: Some(order.host),
        reason: because(&order.retirement.reason),
        ..blank(Kind::Retire, *at, term)
    });
    let early = plan.release.iter().filter(|release| release.reason.is_some());
    let released = early.map(|release| Decision {
        runner: Some(release.runner),
        runner_name: name_of(&release.host, &release.runner),
        host: Some(release.host),
        reason: release.reason.as_ref().map(ReasonBody::from),
        ..blank(Kind::Release, *at, term)
    });
    let deregistered = plan.deregister.iter().map(|orphan| Decision {
        runner_name: Some(orphan.name.to_string()),
        reason: because(&Reason::OrphanRegistration),
        ..blank(Kind::Deregister, *at, term)
    });
    let answered = plan.outcomes.iter().map(|outcome| Decision {
        intent: Some(outcome.intent),
        accepted: Some(count(outcome.accepted.len())),
        reason: outcome.reason.as_ref().map(ReasonBody::from),
        ..blank(Kind::Outcome, *at, term)
    });
    placed.chain(retired).chain(released).chain(deregistered).chain(answered).collect()
}

/// Records every turn that the lead loop tells of.
pub fn record(listeners: &Listeners, recorder: Recorder) {
    listeners.add(move |turn| recorder.record(turn));
}

/// Which decisions.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DecisionsQuery {
    /// Only this kind.
    kind: Option<Kind>,
    /// Only of this pool.
    pool: Option<String>,
    /// Only about this runner, by id or name.
    runner: Option<String>,
    /// At most so many, newest first.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
}

/// Decisions, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Decisions {
    pub decisions: Vec<Decision>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
}

/// What was decided lately, and why
///
/// The newest 500 decisions that this replica has made or seen, newest first. One that
/// does not lead sees the leader's turns about once a second, and may miss some.
#[utoipa::path(get, path = "/api/v1/decisions", tag = "observe", params(DecisionsQuery),
    responses((status = 200, description = "Newest first", body = Decisions)))]
pub async fn list_decisions(
    State(state): State<ApiState>,
    Query(query): Query<DecisionsQuery>,
) -> Result<Json<Decisions>, Problem> {
    let limit = within("limit", query.limit, DECISIONS_DEFAULT, 1, count(DECISIONS_KEPT))?;
    let wanted = |decision: &&Decision| {
        let is_runner = |asked: &String| {
            decision.runner_name.as_ref() == Some(asked)
                || decision.runner.is_some_and(|id| id.to_string() == *asked)
        };
        query.kind.is_none_or(|kind| decision.kind == kind)
            && query
                .pool
                .as_ref()
                .is_none_or(|pool| decision.pool.as_ref().is_some_and(|name| name.as_str() == pool))
            && query.runner.as_ref().is_none_or(is_runner)
    };
    let listed = usize::try_from(limit).unwrap_or(usize::MAX);
    let ring = state.recorder.ring();
    let decisions = ring.decisions.iter().rev().filter(wanted).take(listed).cloned().collect();
    let reading = state.read();
    let age_seconds = reading.age().as_secs_f64();
    Ok(Json(Decisions { decisions, stale: reading.is_stale(), age_seconds }))
}
